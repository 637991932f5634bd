package policy

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"sidegate/policy/document"
)

func FuzzLoad(f *testing.F) {
	for _, name := range []string{"testdata/example.yaml", "../configs/policy.yaml", "../examples/policy/policy.yaml"} {
		if data, err := os.ReadFile(name); err == nil {
			f.Add(data)
		}
	}
	f.Add([]byte(header))
	f.Add([]byte(keyRoutes))
	f.Add([]byte(attackRoutes))
	f.Add([]byte(guardHeader + "guards: [{id: g, path: /v1/items/x, deny: {who: [users], if: 'has(lookup.state) && auth.uid in [\"a\"]'}}]" + guardRoutes))
	f.Add([]byte(celHeader + "  - {id: r, path: \"/r/{x}\", methods: [GET], limit: {rate: 3/m, per: uid}, upstream: app, allow: [{who: [users], if: 'auth.token.level > vars.limit'}]}\n"))
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
				checkSameMeaning(t, p, data, env)
			}
		}
	})
}

// checkLoaded holds a policy that loaded against what must be so of each.
func checkLoaded(t *testing.T, p *Policy, data []byte) {
	if err := fitsSchema(data); err != nil {
		t.Fatalf("loads, and does not fit the schema: %v", err)
	}
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

// checkSameMeaning: what loads means one thing, read again and written anew by
// another YAML writer.
func checkSameMeaning(t *testing.T, p *Policy, data []byte, env *Environment) {
	var plain yaml.Node
	if err := yaml.Unmarshal(data, &plain); err != nil {
		t.Fatalf("loads, and is no YAML: %v", err)
	}
	var any map[string]any
	if err := plain.Decode(&any); err != nil {
		t.Fatalf("loads, and is no mapping: %v", err)
	}
	written, err := yaml.Marshal(any)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{data, written} {
		again, err := Load("policy.yaml", text, env)
		if err != nil {
			if timestamps(&plain) {
				return // a day or a time is written in another form
			}
			t.Fatalf("does not load again: %v\n%s", err, text)
		}
		compareDecisions(t, p, again)
	}
}

func timestamps(n *yaml.Node) bool {
	return n.Tag == "!!timestamp" || n.Tag == "!!float" || slices.ContainsFunc(n.Content, timestamps)
}

func compareDecisions(t *testing.T, a, b *Policy) {
	t.Helper()
	for i, r := range a.Routes {
		path, _ := r.path.meet(r.path)
		for _, host := range append([]string{"gateway.test"}, r.hosts...) {
			for _, id := range []*Identity{nil, bob(), bob(claim("roles", []any{"admin"}), claim("plan", "pro")), bob(named("agents"), func(id *Identity) { id.Actor = "bot" })} {
				for _, method := range methods {
					ma, da := ask(a, id, method, host, path)
					mb, db := ask(b, id, method, host, path)
					if outcome(ma, da) != outcome(mb, db) || !reflect.DeepEqual(da.Shadow, db.Shadow) {
						t.Fatalf("route %d, %s %s%s: %s and %s", i, method, host, path, outcome(ma, da), outcome(mb, db))
					}
				}
			}
		}
	}
}

// FuzzCondition: no text in `if` makes the loader or a decision panic, lets
// nobody in, or is decided one way and then another.
func FuzzCondition(f *testing.F) {
	for _, s := range []string{
		`auth.uid == "bob"`, `has(lookup.share) && auth.uid in lookup.share.readers`, `auth.token.roles.exists(r, r.startsWith("a"))`,
		`!has(auth.token.plan) || auth.token.plan in vars.plans`, `request.time - auth.auth_time < duration("10m")`, `params.x.matches("^x+$")`,
		`auth.token.level / vars.limit > 1 ? vars.on : auth.token.beta`, `{"a": [1, 2]}["a"].all(i, i > 0)`, `dyn(auth.token.plan) == 3`, `type(auth.uid) == string`,
	} {
		f.Add(s)
	}
	docs := &documents{by: map[string]map[string]any{sharesX: {"readers": []any{"bob"}, "count": int64(2), "open": "odd"}}}
	f.Fuzz(func(t *testing.T, condition string) {
		quoted, err := yaml.Marshal(map[string]string{"if": condition})
		if err != nil || strings.Count(strings.TrimSpace(string(quoted)), "\n") > 0 {
			return
		}
		p, err := Load("policy.yaml", []byte(celHeader+"  - {id: r, path: \"/r/{x}\", methods: [GET], upstream: app, allow: [{who: [users], "+strings.TrimSpace(string(quoted))+"}]}\n"), testEnv())
		if err != nil {
			return
		}
		for _, id := range []*Identity{bob(), bob(claim("roles", []any{"a", 1}), claim("plan", "pro"), claim("level", json.Number("9")))} {
			in := celInputOf(p, id, docs)
			first := p.Decide(in)
			if again := p.Decide(in); !reflect.DeepEqual(first, again) {
				t.Fatalf("%s: %+v and %+v", condition, first, again)
			}
			p.Explain(in)
		}
		if d := p.Decide(celInputOf(p, nil, docs)); d.Allow {
			t.Fatalf("%s lets nobody in", condition)
		}
	})
}
