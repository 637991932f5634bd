package trial

import (
	"testing"

	"sidegate/policy"
)

// TestInitFiles runs the tests that `sidegate init` gives away against the
// policy that it gives away.
func TestInitFiles(t *testing.T) {
	g, f := load(t, "../../configs/policy.yaml", "../../configs/policy_test.yaml")
	if f.Policy != "policy.yaml" {
		t.Errorf("the tests are of %q", f.Policy)
	}
	c := NewCoverage(g.Policy)
	for _, r := range g.Run(f, c.See) {
		if r.Failure != "" {
			t.Errorf("policy_test.yaml:%d:%d: %s: %s", r.Line, r.Column, r.Case, r.Failure)
		}
	}
	if untested := c.Untested(); len(untested) > 0 {
		t.Errorf("%.1f %%, not seen: %v", c.Percent(), untested)
	}
}

// TestNobodyAndCoverage: a case without a token shows that an entry for any
// identity keeps somebody out, and of a narrower entry it shows nothing.
func TestNobodyAndCoverage(t *testing.T) {
	p, err := policy.Load("policy.yaml", []byte(`
version: sidegate-policy/v1
identities: [users]
routes:
  - {id: any, path: /any, methods: [GET], upstream: app, allow: [{who: [users]}]}
  - {id: own, path: "/own/{uid}", methods: [GET], upstream: app, allow: [{who: [users], uid: "${params.uid}"}]}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := NewCoverage(p)
	for _, target := range []string{"/any", "/own/alice"} {
		j := g.Judge(&Request{Method: "GET", Target: target, Host: defaultHost, IP: defaultIP})
		c.See(&j)
	}
	if got := c.Untested(); len(got) != 2 || got["any/1"] != "true" || got["own/1"] != "either" {
		t.Errorf("not seen: %v", got)
	}
}
