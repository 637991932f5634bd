package cmd

import (
	"context"
	"time"

	"sidegate/policy"
	"sidegate/policy/document"
)

// lintProbe looks for what in the policy is likely not meant. The tests beside it
// are not run: where the gateway runs there may be none.
func lintProbe(s settings) probe {
	return single("policy.lint", "", func(_ context.Context, b probe) check {
		data, err := readBounded(s.policy, document.MaxBytes)
		if err != nil {
			return b.skip("the policy cannot be read again: %v", err)
		}
		found := policy.Lint(shortPath(s.policy), data, policy.LintOptions{Env: policyEnvironment(s.config), Now: time.Now()})
		if len(found) == 0 {
			return b.pass("nothing in the policy is likely not meant")
		}
		first := found[0]
		return b.warn("sidegate policy lint "+quotedPaths([]string{shortPath(s.policy)})[0]+" --config "+quotedPaths([]string{shortPath(s.config.File)})[0]+
			"; docs/policy.md explains each, and how one is kept silent", "%s in the policy, the first of them %s:%d: %s %s", countOf(len(found), "finding", "findings"), first.File, first.Line, first.ID, first.Text)
	})
}
