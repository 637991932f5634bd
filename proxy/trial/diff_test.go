package trial

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"sidegate/policy"
)

const (
	examplePolicy = "../../examples/policy/policy.yaml"
	exampleTests  = "../../examples/policy/policy_test.yaml"
)

func read(t testing.TB, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func gateOf(t testing.TB, text string) *Gate {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// changed is the text with one place of it written anew.
func changed(t testing.TB, text, old, new string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q is there %d times", old, strings.Count(text, old))
	}
	return strings.Replace(text, old, new, 1)
}

// TestProbesSeeTheExampleBothWays holds the generated requests against the
// measure for tests: every rule true and false, every route with each of its
// methods allowed, and every identity.
func TestProbesSeeTheExampleBothWays(t *testing.T) {
	g := gateOf(t, read(t, examplePolicy))
	c := NewCoverage(g.Policy)
	seen := map[string]bool{}
	n := 0
	probes := policy.Probes(policy.MaxProbes, g.Policy)
	for p := range probes.All() {
		j := g.Judge(probeRequest(p))
		c.See(&j)
		n++
		if p.Identity != nil {
			seen["identity "+p.Identity.Name] = true
		}
		if j.Allow {
			seen[j.Input.Route.ID+" "+p.Method] = true
		}
		if j.Code == "bad_target" && p.EncodedSlash == 0 {
			t.Errorf("%s: no request has this target: %s", p.About, p.Path)
		}
	}
	if untested := c.Untested(); len(untested) > 0 || c.Percent() != 100 {
		t.Errorf("%.1f %%, not seen: %v", c.Percent(), untested)
	}
	want := []string{"identity users", "identity worker", "identity agents"}
	for _, r := range []struct{ route, methods string }{
		{"catalog", "GET HEAD"}, {"me", "GET HEAD PATCH"}, {"user-files", "GET HEAD PUT DELETE"}, {"org-docs", "GET HEAD PUT"}, {"admin", "GET HEAD POST"},
		{"thumbs", "POST"}, {"presign-upload", "POST"}, {"confirm-upload", "POST"}, {"presign-download", "GET HEAD"},
	} {
		for m := range strings.FieldsSeq(r.methods) {
			want = append(want, r.route+" "+m)
		}
	}
	for _, w := range want {
		if !seen[w] {
			t.Errorf("not seen: %s", w)
		}
	}
	if probes.Cut() {
		t.Error("cut")
	}
	t.Logf("%d probes", n)
}

// TestProbesSeeThePages measures the generated requests by every policy of the
// documentation: how many rules they see both ways, and how many entries they
// see decide alone.
func TestProbesSeeThePages(t *testing.T) {
	rules, both, entries, decided := 0, 0, 0, 0
	for _, page := range []string{"policy.md", "policy-tests.md", "cookbook.md", "migrating.md"} {
		for _, r := range recipes(t, page) {
			g := gateOf(t, r.text)
			c := NewCoverage(g.Policy)
			deciding := map[string]bool{}
			for q := range policy.Probes(policy.MaxProbes, g.Policy).All() {
				j := g.Judge(probeRequest(q))
				c.See(&j)
				deciding[j.Rule] = true
			}
			untested := c.Untested()
			for _, rule := range g.Policy.Rules() {
				rules++
				if untested[rule.ID] == "" {
					both++
				} else {
					t.Logf("%s:%d: %s never seen %s", page, r.line, rule.ID, untested[rule.ID])
				}
				if rule.Kind == "entry" && !rule.DryRun {
					if entries++; deciding[rule.ID] {
						decided++
					} else {
						t.Logf("%s:%d: %s never decided", page, r.line, rule.ID)
					}
				}
			}
		}
	}
	t.Logf("%d of %d rules, %d of %d entries", both, rules, decided, entries)
	if rules < 100 || both*100 < rules*98 || decided*100 < entries*98 {
		t.Errorf("%d of %d rules were seen both ways, and %d of %d entries decided", both, rules, decided, entries)
	}
}

// TestDiffOfTheSame finds nothing, also not in the test file.
func TestDiffOfTheSame(t *testing.T) {
	text := read(t, examplePolicy)
	old, new := gateOf(t, text), gateOf(t, text)
	d := Diff(old, new, []Pair{pair(t, exampleTests, old, new)}, Comparison{Rules: true, Examples: 3})
	if d.Changed != 0 || len(d.Changes) != 0 || d.Cut {
		t.Errorf("%+v", d)
	}
	if d.Cases != 45 || d.Probes < 500 {
		t.Errorf("%d cases, %d probes", d.Cases, d.Probes)
	}
}

func pair(t testing.TB, file string, old, new *Gate) Pair {
	t.Helper()
	data := []byte(read(t, file))
	p := Pair{Name: file}
	p.Old, _ = ReadTests(file, data, old.Policy, nil)
	p.New, _ = ReadTests(file, data, new.Policy, nil)
	return p
}

// mutations are small changes of the example, each of which lets somebody in,
// or keeps somebody out, who was not before.
var mutations = []struct {
	name, old, new string
	before, after  string // of one of the changes
}{
	{"an entry is removed",
		"      - {id: support-read, who: [users], roles: [support], methods: [GET], mfa: 30m}\n", "",
		"allow by user-files/support-read", "403 no_entry (route user-files)"},
	{"a role is added", "roles: [admin], time", "roles: [admin, owner], time",
		"403 no_entry (route admin)", "allow by admin/office-hours"},
	{"a role of an organisation is added", "role: [owner, editor]}}", "role: [owner, editor, viewer]}}",
		"403 no_entry (route org-docs)", "allow by org-docs/member"},
	{"a role is dropped", "role: [viewer, editor, owner]", "role: [editor, owner]",
		"allow by org-docs/agent-read", "403 no_entry (route org-docs)"},
	{"a scope is another", "scopes: [docs.read]", "scopes: [docs.write]",
		"allow by org-docs/agent-read", "403 no_entry (route org-docs)"},
	{"a scope is added", "scopes: [docs.read]", "scopes: [docs.read, docs.list]",
		"allow by org-docs/agent-read", "403 no_entry (route org-docs)"},
	{"an entry without its role", "roles: [support], ", "",
		"403 no_entry (route user-files)", "allow by user-files/support-read"},
	{"a wider network", "198.51.100.0/24", "198.51.100.0/23",
		"403 require_false by admin-needs-office-and-mfa", "allow by admin/office-hours"},
	{"a narrower network", "2001:db8:5::/48", "2001:db8:5::/49",
		"allow by admin/office-hours", "403 require_false by admin-needs-office-and-mfa"},
	{"a shorter age of the second factor", "mfa: 15m ", "mfa: 14m59s ",
		"allow by admin/office-hours", "403 require_false by admin-needs-office-and-mfa"},
	{"a longer age of the second factor", "mfa: 30m", "mfa: 31m",
		"403 no_entry (route user-files)", "allow by user-files/support-read"},
	{"a longer age of the sign-in", "signed_in: 10m", "signed_in: 10m1s",
		"403 no_entry (route org-docs)", "allow by org-docs/agent-read"},
	{"no second factor is needed", "      mfa: 15m                       # second factor used, signed in at most 15 minutes ago\n", "",
		"403 require_false by admin-needs-office-and-mfa", "allow by admin/office-hours"},
	{"a guard is dropped", "  - id: agents-never-write\n    deny: {who: [agents], methods: [POST, PUT, PATCH, DELETE]}\n", "",
		"403 deny_true by agents-never-write", "allow by me/1"},
	{"a guard forgets a method", "deny: {who: [agents], methods: [POST, PUT, PATCH, DELETE]}", "deny: {who: [agents], methods: [POST, PUT, DELETE]}",
		"403 deny_true by agents-never-write", "allow by me/1"},
	{"a guard is only tried", "  - id: agents-never-write\n", "  - id: agents-never-write\n    mode: dry_run\n    since: 2026-03-01\n",
		"403 deny_true by agents-never-write", "allow by me/1"},
	{"a guard is enforced", "    mode: dry_run                    # recorded as shadow, not enforced\n    since: 2026-02-20\n", "",
		"allow by me/1", "403 deny_true by block-suspended"},
	{"a guard's path is narrower", "    path: /v1/admin/{rest...}\n    require:", "    path: /v1/admin/x/{rest...}\n    require:",
		"403 require_false by admin-needs-office-and-mfa", "allow by admin/office-hours"},
	{"a wider prefix", `key_prefix: "users/${auth.uid}/"}`, `key_prefix: "users/"}`,
		"403 entry_error (route presign-download)", "allow by presign-download/own"},
	{"another prefix", `key_prefix: "orgs/${auth.token.org_id}/"`, `key_prefix: "teams/${auth.token.org_id}/"`,
		"403 entry_error (route presign-download)", "allow by presign-download/team-folder"},
	{"a method is dropped", "methods: [GET, PUT, DELETE]", "methods: [GET, PUT]",
		"allow by user-files/own", "405 method"},
	{"a method is added", "methods: [GET, PATCH]", "methods: [GET, PATCH, DELETE]",
		"405 method", "allow by me/1"},
	{"another host", "host: [api.acme.dev]", "host: [api2.acme.dev]",
		"404 no_route", "allow by org-docs/member"},
	{"every host below", "host: [api.acme.dev]", `host: ["*.acme.dev"]`,
		"404 no_route", "allow by org-docs/member"},
	{"any host", "    host: [api.acme.dev]\n", "",
		"404 no_route", "allow by org-docs/member"},
	{"public", "{id: thumbs, path: \"/v1/internal/thumbs/{rest...}\", methods: [POST], upstream: app, allow: [{id: service, who: [worker]}]}",
		"{id: thumbs, path: \"/v1/internal/thumbs/{rest...}\", methods: [POST], upstream: app, allow: public}",
		"401 no_token (route thumbs)", "allow (route thumbs)"},
	{"optional instead of public", "allow: public", "allow: optional",
		"", ""}, // every token of a probe is good, and nobody needs one
	{"another path", `"/v1/catalog/{rest...}"`, `"/v1/catalogue/{rest...}"`,
		"allow (route catalog)", "404 no_route"},
	{"one segment only", `"/v1/catalog/{rest...}"`, `"/v1/catalog/{rest}"`,
		"allow (route catalog)", "404 no_route"},
	{"a larger object", "max_bytes: 25MiB", "max_bytes: 26MiB",
		"413 too_large by presign-upload/user", "allow by presign-upload/user"},
	{"an object of any size", "      max_bytes: 25MiB\n", "",
		"422 invalid_field by presign-upload/user", "allow by presign-upload/user"},
	{"a content type is dropped", "[image/jpeg, image/png, application/pdf]", "[image/jpeg, image/png]",
		"allow by presign-upload/user", "415 unsupported_type by presign-upload/user"},
	{"all types of a kind", "[image/jpeg, image/png, application/pdf]", "[\"image/*\", application/pdf]",
		"415 unsupported_type by presign-upload/user", "allow by presign-upload/user"},
	{"a checksum is needed", "max_bytes: 25MiB", "max_bytes: 25MiB\n      checksum: sha256",
		"allow by presign-upload/user", "422 invalid_field by presign-upload/user"},
	{"a longer expiry", "default: 5m, min: 1m, max: 15m", "default: 5m, min: 1m, max: 16m",
		"422 invalid_field by presign-download/own", "allow by presign-download/own"},
	{"another key", "key: users/${auth.uid}/uploads/${uuid}${ext}", "key: uploads/${auth.uid}/${uuid}${ext}",
		"allow by presign-upload/user", "allow by presign-upload/user"},
	{"another upstream", "{id: me, path: /v1/me, methods: [GET, PATCH], upstream: app,", "{id: me, path: /v1/me, methods: [GET, PATCH], upstream: app2,",
		"allow by me/1", "allow by me/1"},
	{"no encoded slash", "    encoded_slash: decode\n", "",
		"allow by presign-download/own", "400 bad_target"},
	{"WebSocket", "{id: me, path: /v1/me,", "{id: me, websocket: true, path: /v1/me,",
		"400 bad_request (route me)", "allow by me/1"},
	{"a smaller body", "{id: me, path: /v1/me,", "{id: me, max_body: 1KiB, path: /v1/me,",
		"allow by me/1", "413 too_large by me/1"},
	{"a condition loses its half", " && request.time < lookup.share.until", "",
		"403 no_entry (route presign-download)", "allow by presign-download/shared-with-me"},
	{"a condition takes one second more", "request.time < lookup.share.until", "request.time <= lookup.share.until",
		"403 no_entry (route presign-download)", "allow by presign-download/shared-with-me"},
	{"a condition is turned round", "auth.uid in lookup.share.readers &&", "auth.uid in lookup.share.readers ||",
		"403 no_entry (route presign-download)", "allow by presign-download/shared-with-me"},
	{"a field of a document has another name", "XX", "XX", "", ""},
	{"another document", "document: shares/", "document: grants/",
		"allow by presign-download/shared-with-me", "403 entry_error (route presign-download)"},
	{"another day", "days: mon-fri", "days: mon-sat",
		"403 no_entry (route admin)", "allow by admin/office-hours"},
	{"another hour", `hours: "07:00-20:00"`, `hours: "07:00-20:01"`,
		"403 no_entry (route admin)", "allow by admin/office-hours"},
	{"another zone", "zone: Europe/Berlin", "zone: UTC",
		"403 no_entry (route admin)", "allow by admin/office-hours"},
	{"an identity more", "allow: [{who: [users, agents]}]", "allow: [{who: [users, agents, worker]}]",
		"403 no_entry (route me)", "allow by me/1"},
	{"without who, so that actors are kept out", "allow: [{who: [users, agents]}]", "allow: [{methods: [GET, PATCH]}]",
		"allow by me/1", "403 no_entry (route me)"},
	{"anybody's files", `{id: own, who: [users], uid: "${params.uid}"}`, "{id: own, who: [users]}",
		"403 no_entry (route user-files)", "allow by user-files/own"},
	{"any organisation's", `org: {id: "${params.org}", role: [owner, editor]}}`, `org: {id: "${auth.token.org_id}", role: [owner, editor]}}`,
		"403 no_entry (route org-docs)", "allow by org-docs/member"},
	{"a limit is not compared", "rate: 60/m, per: actor", "rate: 1/m, per: actor", "", ""},
	{"a name is not compared", "id: office-hours", "id: hours", "", ""},
}

// TestDiffFindsMutations has each mutation found by the generated requests
// alone.
func TestDiffFindsMutations(t *testing.T) {
	text := read(t, examplePolicy)
	old := gateOf(t, text)
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			var after string
			if m.old == "XX" { // in two places

				after = changed(t, changed(t, text, "lookup.share.readers", "lookup.share.people"), "readers: list(string)", "people: list(string)")
				m.before, m.after = "allow by presign-download/shared-with-me", "403 entry_error (route presign-download)"
			} else {
				after = changed(t, text, m.old, m.new)
			}
			d := Diff(old, gateOf(t, after), nil, Comparison{Examples: 1})
			if m.before == "" {
				if d.Changed != 0 {
					t.Errorf("%d changed: %s", d.Changed, describe(d))
				}
				return
			}
			found := slices.ContainsFunc(d.Changes, func(c *Change) bool { return c.Before.String() == m.before && c.After.String() == m.after })
			if !found {
				t.Errorf("want %s -> %s, got %s", m.before, m.after, describe(d))
			}
		})
	}
}

func describe(d *Differences) string {
	var out strings.Builder
	for _, c := range d.Changes {
		fmt.Fprintf(&out, "\n%d: %s -> %s: %+v", c.Count, c.Before, c.After, c.Examples)
	}
	if out.Len() == 0 {
		return "nothing"
	}
	return out.String()
}
