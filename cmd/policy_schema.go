package cmd

import (
	"io"

	"github.com/spf13/cobra"

	"sidegate/configs"
)

func (p *program) newPolicySchema() *cobra.Command {
	schemas := map[string]string{"policy": configs.PolicySchema, "test": configs.PolicyTestSchema, "config": configs.ConfigSchema}
	return &cobra.Command{
		Use:   "schema [policy|test|config]",
		Short: "Print the JSON Schema of a file, for editors",
		Long: `Print the JSON Schema (draft 2020-12) of policy.yaml, of policy_test.yaml (test)
or of sidegate.yaml (config). Editors with the YAML language server complete, explain
and check a file whose first line names its schema:

  # yaml-language-server: $schema=policy.schema.json`,
		Example: `  sidegate policy schema > policy.schema.json
  sidegate policy schema test > policy_test.schema.json
  sidegate policy schema config > sidegate.schema.json`,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []cobra.Completion{"policy", "test", "config"},
		RunE: func(_ *cobra.Command, args []string) error {
			_, err := io.WriteString(p.stdout, schemas[append(args, "policy")[0]])
			return err
		},
	}
}
