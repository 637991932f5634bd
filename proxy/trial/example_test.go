package trial

import (
	"os"
	"testing"

	"sidegate/policy"
)

func load(t testing.TB, policyFile, testFile string) (*Gate, *File) {
	t.Helper()
	data, err := os.ReadFile(policyFile)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Load("policy.yaml", data, nil)
	if err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(testFile); err != nil {
		t.Fatal(err)
	}
	f, err := ReadTests("policy_test.yaml", data, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return g, f
}

func TestExample(t *testing.T) {
	g, f := load(t, "../../examples/policy/policy.yaml", "../../examples/policy/policy_test.yaml")
	c := NewCoverage(g.Policy)
	results := g.Run(f, c.See)
	for _, r := range results {
		if r.Failure != "" {
			t.Errorf("%s:%d:%d: %s: %s", r.File, r.Line, r.Column, r.Case, r.Failure)
		}
	}
	if len(results) != 45 {
		t.Errorf("%d cases", len(results))
	}
	if untested := c.Untested(); len(untested) > 0 || c.Percent() != 100 {
		t.Errorf("%.1f %%, not seen: %v", c.Percent(), untested)
	}
}
