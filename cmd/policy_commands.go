package cmd

import "github.com/spf13/cobra"

// newPolicyCommand holds what a security team does with a policy; no gateway
// needs to run.
func (p *program) newPolicyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "policy",
		Short:   "Test, explain and compare policies",
		Long:    "Test, explain, check and compare policies. No gateway needs to run, and no network is asked.",
		Example: "  sidegate policy test\n  sidegate policy explain GET /v1/me --as alice",
	}
	c.AddCommand(p.newPolicyTest(), p.newPolicyLint(), p.newPolicyExplain(), p.newPolicyDiff(), p.newPolicyReplay(), p.newPolicySchema())
	return c
}
