package policy

import (
	"errors"
	"os"
	"testing"

	"sidegate/policy/document"
)

func FuzzLoad(f *testing.F) {
	for _, name := range []string{"testdata/example.yaml", "../configs/policy.yaml"} {
		if data, err := os.ReadFile(name); err == nil {
			f.Add(data)
		}
	}
	f.Add([]byte(header))
	f.Add([]byte(keyRoutes))
	f.Add([]byte(attackRoutes))
	f.Add([]byte(header + "  - {id: a, path: /a, methods: [\"\"], upstream: app, allow: public}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, env := range []*Environment{nil, testEnv()} {
			p, err := Load("policy.yaml", data, env)
			if (p == nil) == (err == nil) {
				t.Fatalf("policy %v and error %v", p, err)
			}
			var all document.Errors
			if err != nil && (!errors.As(err, &all) || len(all) == 0) {
				t.Fatalf("%T is not document.Errors", err)
			}
			if err == nil {
				checkLoaded(t, p, data)
			}
		}
	})
}

// checkLoaded holds a policy that loaded against what must be so of each.
func checkLoaded(t *testing.T, p *Policy, data []byte) {
	doc := document.New("policy.yaml", nil)
	written := doc.Parse(data, Version).Field("routes").List()
	if len(p.Routes) != len(written) {
		t.Fatalf("%d of %d routes", len(p.Routes), len(written))
	}
	for _, r := range p.Routes {
		if (r.Upstream == "") == (r.Serve == "") || len(r.hosts) == 0 || r.methods == 0 {
			t.Fatalf("%+v", r)
		}
		if r.Access == AccessList && len(r.entries) == 0 || r.Serve != "" && r.Access != AccessList {
			t.Fatalf("%+v", r)
		}
		for _, e := range r.entries {
			if len(e.fields) == 0 {
				t.Fatalf("entry %s has no condition", e.rule)
			}
		}
		if d := p.Decide(&Input{Route: r, Identity: &Identity{}}); d.Allow && r.Access == AccessList {
			t.Fatalf("an empty identity is let in: %+v", d)
		}
	}
}
