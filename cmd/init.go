package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"sidegate/configs"
)

// initFiles are what init writes, by the names that the commands look for.
var initFiles = []struct {
	name string
	data string
}{{defaultConfig, configs.Config}, {"policy.yaml", configs.Policy}, {"policy_test.yaml", configs.PolicyTest}}

func (p *program) newInit() *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Write a commented sidegate.yaml, policy.yaml and policy_test.yaml into this folder",
		Long: `Write a commented sidegate.yaml, policy.yaml and policy_test.yaml into this folder,
never over files that exist. They start with only GOOGLE_CLOUD_PROJECT and S3_BUCKET set,
and the tests of the policy pass.`,
		Example: "  sidegate init\n  GOOGLE_CLOUD_PROJECT=acme-prod S3_BUCKET=acme-photos sidegate run",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := writeInitFiles(); err != nil {
				return err
			}
			for _, f := range initFiles {
				fmt.Fprintf(p.stdout, "wrote %s\n", f.name)
			}
			fmt.Fprintln(p.stdout, "next: `sidegate policy test`, set GOOGLE_CLOUD_PROJECT and S3_BUCKET, `sidegate check`, `sidegate run`")
			return nil
		},
	}
}

// writeInitFiles writes all or none.
func writeInitFiles() error {
	for _, f := range initFiles {
		if _, err := os.Lstat(f.name); err == nil {
			return fmt.Errorf("%s exists already; nothing was written", f.name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look for %s: %w", f.name, err)
		}
	}
	for i, f := range initFiles {
		if err := writeNew(f.name, f.data); err != nil {
			for _, written := range initFiles[:i] {
				os.Remove(written.name)
			}
			return fmt.Errorf("write %s: %w; nothing was written", f.name, err)
		}
	}
	return nil
}

// writeNew makes a file that must not exist, or leaves none.
func writeNew(name, data string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(data)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(name)
	}
	return err
}
