package cmd

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (p *program) newRun() *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway",
		Long: `Run the gateway until SIGTERM or SIGINT: then it stops accepting, lets requests
end and flushes the audit log; a second signal ends it at once. The policy is
read again when its file changes, and at SIGHUP.`,
		Example: "  sidegate run\n  sidegate run --config /etc/sidegate/sidegate.yaml --log-level debug",
		Args:    cobra.NoArgs,
	}
	flags := addSettingsFlags(c)
	profiles := c.Flags().Bool("pprof", false, "serve profiles at /debug/pprof/ of the admin listener, to this machine only")
	c.RunE = func(c *cobra.Command, _ []string) error {
		s, err := p.loadSettings(flags)
		if err != nil {
			return err
		}
		s.pprof = *profiles
		return runGateway(c.Context(), s)
	}
	return c
}

func (p *program) newCompletion() *cobra.Command {
	shells := []cobra.Completion{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:       "completion {bash|zsh|fish|powershell}",
		Short:     "Print a shell's completion script",
		Example:   "  source <(sidegate completion bash)\n  sidegate completion fish > ~/.config/fish/completions/sidegate.fish",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: shells,
		RunE: func(c *cobra.Command, args []string) error {
			root := c.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(p.stdout, true)
			case "zsh":
				return root.GenZshCompletion(p.stdout)
			case "fish":
				return root.GenFishCompletion(p.stdout, true)
			}
			return root.GenPowerShellCompletionWithDesc(p.stdout)
		},
	}
}

func (p *program) newVersion() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print this program's version",
		Example: "  sidegate version\n  sidegate version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := readBuild()
			if asJSON {
				return writeJSON(p.stdout, b)
			}
			_, err := fmt.Fprintln(p.stdout, b)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
