package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// lintHeader is the start of the policies of these tests: five lines.
const lintHeader = `version: sidegate-policy/v1
identities: [users, agents]
claims: {roles: list(string), scopes: list(string), orgs: map(string), plan: string, level: int, org_id: string}
`

// oneEach uses both identities and every upstream, so that nothing is unused.
const oneEach = "  - {id: both, path: /both, methods: [GET], upstream: app, allow: [{who: [users, agents]}]}\n"

var lintNow = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// A mark stands in a test's policy where a finding is expected: «SG102».
var mark = regexp.MustCompile(`«(SG\d{3})»`)

// unmarked takes the marks out of a text, and gives the findings that they
// stand for as line:column ID.
func unmarked(text string) (string, []string) {
	var out strings.Builder
	var want []string
	line, column := 1, 1
	for text != "" {
		if m := mark.FindStringSubmatch(text); m != nil && strings.HasPrefix(text, m[0]) {
			want = append(want, fmt.Sprintf("%d:%d %s", line, column, m[1]))
			text = text[len(m[0]):]
			continue
		}
		r, size := utf8.DecodeRuneInString(text)
		out.WriteRune(r)
		text = text[size:]
		if column++; r == '\n' {
			line, column = line+1, 1
		}
	}
	return out.String(), want
}

// wantFindings holds what lint says against the marks in a policy.
func wantFindings(t *testing.T, name, marked string, o LintOptions) {
	t.Helper()
	text, want := unmarked(marked)
	var got []string
	for _, f := range Lint("policy.yaml", []byte(text), o) {
		if f.Severity != SeverityWarning || f.File != "policy.yaml" || f.Text == "" {
			t.Errorf("%s: %+v", name, f)
		}
		got = append(got, fmt.Sprintf("%d:%d %s", f.Line, f.Column, f.ID))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s:\ngot  %s\nwant %s\nin\n%s", name, got, want, marked)
	}
}

// A lintCase is the routes of a policy, or all of it after its start where it
// does not begin with a space, with marks.
type lintCase struct{ name, text string }

func runLint(t *testing.T, cases []lintCase) {
	t.Helper()
	for _, tt := range cases {
		text := tt.text
		if strings.HasPrefix(text, " ") {
			text = "routes:\n" + text
		}
		wantFindings(t, tt.name, lintHeader+text+oneEach, LintOptions{Env: testEnv(), Now: lintNow})
	}
}

// entryPair is a route with two entries and nothing else to say.
func entryPair(a, b, mark string) string {
	return "  - id: r\n    path: /r/{uid}/{org}\n    methods: [GET, PUT]\n    upstream: app\n    allow:\n      - {" + a + "}\n      - " + mark + "{" + b + "}\n"
}

// keyPair is the same with an object.
func keyPair(a, b, mark string) string {
	return "  - id: r\n    path: /r/{key...}\n    methods: [GET]\n    serve: presign_download\n    object: {key: \"${params.key}\"}\n    limit: {rate: 1/s, per: uid}\n    allow:\n      - {" + a + "}\n      - " + mark + "{" + b + "}\n"
}

func TestLintEntries(t *testing.T) {
	const hidden = "«SG101»"
	var cases []lintCase
	for _, p := range []struct{ a, b, mark string }{
		{"who: [users]", "who: [users], roles: [admin]", hidden},
		{"who: [users, agents]", "who: [users]", hidden},
		{"who: [users]", "who: [users, agents]", ""},
		{"roles: [admin]", "who: [users], roles: [admin]", ""}, // callers with an actor
		{"who: [users, agents], roles: [admin]", "roles: [admin]", hidden},
		{"who: [users], methods: [GET]", "who: [users], uid: \"${params.uid}\"", ""},
		{"who: [users], methods: [GET]", "who: [users], methods: [GET], uid: \"${params.uid}\"", hidden},
		{"who: [users], methods: [GET]", "who: [users], methods: [HEAD], uid: \"${params.uid}\"", hidden},
		{"who: [users], methods: [HEAD]", "who: [users], methods: [GET]", ""},
		{"who: [users], uid: \"${params.uid}\"", "who: [users], uid: \"${params.uid}\", roles: [admin]", hidden},
		{"who: [users], uid: \"${params.uid}\"", "who: [users], uid: \"${params.org}\"", ""},
		{"who: [users], roles: [a, b]", "who: [users], roles: [a]", hidden},
		{"who: [users], roles: [a]", "who: [users], roles: [a, b]", ""},
		{"who: [users], roles: [a]", "who: [users], scopes: [a]", ""},
		{"who: [users], scopes: [a]", "who: [users], scopes: [a, b]", hidden},
		{"who: [users], scopes: [a, b]", "who: [users], scopes: [a]", ""},
		{"who: [users], claims: {plan: [pro, team]}", "who: [users], claims: {plan: [pro], level: [1]}", hidden},
		{"who: [users], claims: {plan: [pro], level: [1]}", "who: [users], claims: {plan: [pro]}", ""},
		{"who: [users], claims: {level: [1, 2]}", "who: [users], claims: {level: [2]}", hidden},
		{"who: [users], org: {id: \"${params.org}\", role: [a, b]}", "who: [users], org: {id: \"${params.org}\", role: [b]}", hidden},
		{"who: [users], org: {id: \"${params.org}\", role: [a]}", "who: [users], org: {id: \"${params.org}\", role: [a, b]}", ""},
		{"who: [users], org: {id: \"${params.org}\", role: [a]}", "who: [users], org: {id: \"${params.uid}\", role: [a]}", ""},
		{"who: [users], ip: [10.0.0.0/8, 2001:db8::/32]", "who: [users], ip: [10.1.0.0/16, 10.2.3.4, 2001:db8:5::/48]", hidden},
		{"who: [users], ip: [10.1.0.0/16]", "who: [users], ip: [10.0.0.0/8]", ""},
		{"who: [users], ip: [10.1.0.0/16]", "who: [users], roles: [a]", ""},
		{"who: [users], time: {days: mon}", "who: [users], time: {days: [mon]}, roles: [a]", hidden},
		{"who: [users], time: {days: mon, zone: UTC}", "who: [users], time: {days: mon, zone: Europe/Berlin}", ""},
		{"who: [users], mfa: 10m", "who: [users], mfa: 5m", hidden},
		{"who: [users], mfa: 5m", "who: [users], mfa: 10m", ""},
		{"who: [users], mfa: 5m", "who: [users], signed_in: 5m", ""},
		{"who: [users], signed_in: 10m", "who: [users], mfa: 5m", hidden},
		{"who: [users], signed_in: 10m", "who: [users], signed_in: 10m, roles: [a]", hidden},
		{"who: [users], signed_in: 10m", "who: [users], signed_in: 11m, mfa: 11m", ""},
		{"who: [users], verified_email: true", "who: [users], verified_email: true, roles: [a]", hidden},
		{"who: [users], verified_email: true", "who: [users], roles: [a]", ""},
		{"who: [users], providers: [a.com, b.com]", "who: [users], providers: [a.com]", hidden},
		{"who: [users], providers: [a.com]", "who: [users], roles: [a]", ""},
		{"who: [users], app_check: true", "who: [users], app_check: true, roles: [a]", hidden},
		{"who: [users], app_check: true", "who: [users], roles: [a]", ""},
		{"who: [users], if: request.host == 'a'", "who: [users], if: request.host == 'a', roles: [a]", hidden},
		{"who: [users], if: request.host == 'a'", "who: [users], if: request.host == 'b'", ""},
		{"who: [users], if: request.host == 'a'", "who: [users], roles: [a]", ""},
		{"who: [users], mode: dry_run, since: 2026-03-01", "who: [users], roles: [admin]", ""},
		{"who: [users]", "who: [users], roles: [admin], mode: dry_run, since: 2026-03-01", ""},
	} {
		cases = append(cases, lintCase{p.a + " before " + p.b, entryPair(p.a, p.b, p.mark)})
	}
	for _, p := range []struct{ a, b, mark string }{
		{"who: [users], key_prefix: users/", "who: [users], key_prefix: \"users/${auth.uid}/\"", hidden},
		{"who: [users], key_prefix: \"users/${auth.uid}/\"", "who: [users], key_prefix: \"users/${auth.uid}/a/\"", hidden},
		{"who: [users], key_prefix: \"users/${auth.uid}/\"", "who: [users], key_prefix: users/", ""},
		{"who: [users], key_prefix: \"users/${auth.uid}/\"", "who: [users], key_prefix: \"users/${auth.actor}/\"", ""},
	} {
		cases = append(cases, lintCase{p.a + " before " + p.b, keyPair(p.a, p.b, p.mark)})
	}
	runLint(t, cases)
}

// TestBroaderIsNeverWrong decides many requests by pairs of entries: where
// lint says that the first hides the second, no request may be allowed by the
// second alone.
func TestBroaderIsNeverWrong(t *testing.T) {
	fields := []string{
		"who: [users]", "who: [users, agents]", "methods: [GET]", "methods: [GET, PUT]", "uid: \"${params.uid}\"", "roles: [a]", "roles: [a, b]", "scopes: [a]", "scopes: [a, b]",
		"org: {id: \"${params.org}\", role: [a]}", "org: {id: \"${params.org}\", role: [a, b]}", "claims: {plan: [pro]}", "claims: {plan: [pro, team]}", "claims: {level: [1], plan: [pro]}",
		"ip: [10.0.0.0/8]", "ip: [10.1.0.0/16, 192.0.2.1]", "mfa: 5m", "mfa: 10m", "signed_in: 5m", "signed_in: 10m", "verified_email: true", "providers: [a.com]", "app_check: true",
		"if: request.host == 'a'", "if: has(auth.token.plan)",
	}
	inputs := broaderInputs(t)
	hidden := 0
	for _, a := range fields {
		for _, b := range fields {
			for _, c := range fields {
				if key(b) == key(c) || key(a) == "methods" || key(b) == "methods" && key(c) == "methods" {
					continue
				}
				text := lintHeader + "routes:\n" + entryPair(a, b+", "+c, "")
				p, err := Load("policy.yaml", []byte(text), nil)
				if err != nil {
					continue // the uid of several namespaces
				}
				r := p.Routes[0]
				if !r.entries[0].broader(r.entries[1], r.methods) {
					continue
				}
				hidden++
				for _, in := range inputs {
					in.Route, in.Params = r, p.Match("a", "/r/u1/o1", in.Method).Params
					if d := p.Decide(&in); d.Rule == "r/2" {
						t.Fatalf("%s does not hide %s, %s: %+v %+v", a, b, c, in, in.Identity)
					}
				}
			}
		}
	}
	if hidden < 500 {
		t.Errorf("only %d pairs: this tests nothing", hidden)
	}
}

func key(field string) string { name, _, _ := strings.Cut(field, ":"); return name }

func broaderInputs(t *testing.T) []Input {
	t.Helper()
	var out []Input
	for i := range 256 {
		bit := func(n int) bool { return i>>n&1 == 1 }
		pick := func(n int, a, b string) string {
			if bit(n) {
				return a
			}
			return b
		}
		id := &Identity{Name: pick(0, "users", "agents"), UID: pick(1, "u1", "u2"), Provider: pick(2, "a.com", "b.com"), Email: "a@b.c", EmailVerified: bit(3), Claims: ClaimMap{}}
		if bit(4) {
			id.SecondFactor = "totp"
		}
		id.AuthTime = lintNow.Add(-time.Minute * time.Duration(3+5*(i%3)))
		if bit(5) {
			id.Claims.(ClaimMap)["roles"], id.Claims.(ClaimMap)["scopes"] = []any{pick(6, "a", "b")}, []any{"a", pick(6, "b", "c")}
			id.Claims.(ClaimMap)["orgs"], id.Claims.(ClaimMap)["plan"] = map[string]any{"o1": pick(7, "a", "b")}, pick(7, "pro", "team")
			id.Claims.(ClaimMap)["level"] = json.Number("1")
		}
		in := Input{Identity: id, Host: pick(2, "a", "b"), Path: "/r/u1/o1", Method: pick(3, "GET", "PUT"), IP: netip.MustParseAddr(pick(6, "10.1.2.3", pick(1, "10.2.3.4", "192.0.2.1"))), Time: lintNow, AppCheck: bit(7)}
		out = append(out, in)
	}
	return out
}

func TestLintConditions(t *testing.T) {
	route := func(fields string) string {
		return "  - {id: r, path: /r, methods: [GET, PUT], upstream: app, allow: [{who: [users], " + fields + "}]}\n"
	}
	guard := func(g string) string {
		return "guards:\n  - " + g + "\nroutes:\n" +
			"  - {id: open, path: \"/open/{x}\", methods: [GET], upstream: app, allow: public, limit: {rate: 1/s, per: ip}}\n" +
			"  - {id: maybe, path: /maybe, host: [a.dev, '*.b.dev'], methods: [GET], upstream: app, allow: optional, limit: {rate: 1/s, per: ip}}\n" +
			"  - {id: mine, path: /mine, methods: [GET, POST], upstream: app, allow: [{who: [users]}]}\n"
	}
	runLint(t, []lintCase{
		{"if true", route(`if: «SG102»"true"`)},
		{"folded", route(`if: «SG102»"1 < 2 && 'a' in ['a']"`)},
		{"or true", route(`if: «SG102»"auth.uid == 'x' || true"`)},
		{"and false", route(`if: «SG102»"auth.uid == 'x' && 1 > 2"`)},
		{"and true is not the whole", route(`if: "auth.uid == 'x' && 1 < 2"`)},
		{"with a macro", route(`if: «SG102»"[1, 2].exists(x, x > 1)"`)},
		{"variables can be changed", "vars: {on: true}\nroutes:\n" + route("if: vars.on")},
		{"with captures", "  - {id: r, path: \"/r/{x}\", methods: [GET], upstream: app, allow: [{who: [users], if: «SG102»params.x == 'a' || true}]}\n" +
			"  - {id: s, path: \"/s/{y}\", methods: [GET], upstream: app, allow: [{who: [users], if: params.y == 'a'}]}\n"},
		{"methods are the route's", route("roles: [a], methods: «SG102»[GET, PUT]")},
		{"methods without GET", route("roles: [a], methods: [HEAD, PUT]")},

		{"guard of no path", guard("«SG102»{id: g, path: /nowhere, deny: {who: [users]}}")},
		{"guard of no method", guard("«SG102»{id: g, path: /mine, methods: [PUT], deny: {who: [users]}}")},
		{"guard of no host", guard("«SG102»{id: g, path: /maybe, host: [c.dev], deny: {who: [users]}}")},
		{"guard of a suffix itself", guard("«SG102»{id: g, path: /maybe, host: [b.dev], deny: {who: [users]}}")},
		{"guard of a host below a suffix", guard("{id: g, path: /maybe, host: [x.b.dev], deny: {who: [users]}}")},
		{"guard of more hosts", guard("{id: g, path: /maybe, host: ['*.dev'], deny: {who: [users]}}")},
		{"guard of a part of a route", guard("{id: g, path: /open/1, deny: {ip: [10.0.0.0/8]}}")},
		{"require on a public route", guard("{id: g, require: «SG102»{mfa: 15m}}")},
		{"require with has() on a public route", guard("{id: g, require: «SG102»{if: has(auth.email_verified)}}")},
		{"require on a part of a public route", guard("{id: g, path: /open/1, require: «SG102»{who: [users]}}")},
		{"require of an address", guard("{id: g, require: {ip: [10.0.0.0/8]}}")},
		{"require on an optional route", guard("{id: g, path: /maybe, require: {mfa: 15m}}")},
		{"require elsewhere", guard("{id: g, path: /mine, require: {mfa: 15m}}")},
		{"deny on public routes only", guard("{id: g, path: \"/open/{x}\", deny: «SG102»{who: [users]}}")},
		{"deny of an address on public routes", guard("{id: g, path: \"/open/{x}\", deny: {ip: [10.0.0.0/8]}}")},
		{"deny on a public route too", guard("{id: g, deny: {who: [users]}}")},
		{"guard's methods always", guard("{id: g, path: /mine, methods: [POST], deny: {methods: «SG102»[GET, POST], who: [users]}}")},
		{"guard's methods never", guard("{id: g, path: /mine, methods: [POST], deny: {methods: «SG102»[GET], who: [users]}}")},
		{"guard's methods sometimes", guard("{id: g, path: /mine, deny: {methods: [GET], who: [users]}}")},

		{"every address", route("ip: [«SG108»0.0.0.0/0, 10.0.0.0/8, «SG108»'::/0']")},
		{"every address by a variable", "vars: {all: [0.0.0.0/0]}\nroutes:\n" + route("ip: «SG108»\"${vars.all}\"")},
		{"every address in a guard", guard("{id: g, path: /mine, deny: {ip: [«SG108»0.0.0.0/0]}}")},
		{"half of all", route("ip: [0.0.0.0/1]")},

		{"an old trial", route("roles: [a], mode: dry_run, since: «SG111»2026-01-30")},
		{"thirty days", route("roles: [a], mode: dry_run, since: 2026-01-31")},
		{"an old trial of a guard", guard("{id: g, path: /mine, mode: dry_run, since: «SG111»2025-02-20, deny: {who: [users]}}")},

		{"a trial that begins tomorrow somewhere", route("roles: [a], mode: dry_run, since: 2026-03-03")},
		{"a trial to come", route("roles: [a], mode: dry_run, since: «SG111»2027-03-02")},

		{"an error for every request", route(`if: «SG102»"1 / 0 > 1"`)},
		{"an error in a list", route(`if: «SG102»"[1][3] == 1"`)},
		{"an error for some requests", route(`if: "request.path.size() / 0 > 1"`)},

		{"a part of the text", route(`if: "request.path.«SG120»matches('/a')"`)},
		{"a part at the start", route(`if: "request.path.«SG120»matches('^/a')"`)},
		{"a part at the end", route(`if: "request.path.«SG120»matches('a$')"`)},
		{"the whole text", route(`if: "request.path.matches('^/a$')"`)},
		{"the whole text in other words", route(`if: "request.path.matches('\\\\A(?i:/a)\\\\z') || request.path.matches('^(/a|/b)$')"`)},
		{"one of two", route(`if: "request.path.«SG120»matches('^/a|/b$')"`)},
		{"both of two", route(`if: "request.path.matches('^/a$|^/b$')"`)},
		{"anything around", route(`if: "request.path.matches('.*/a.*')"`)},
		{"in a loop", route(`if: "['a'].exists(x, request.path.«SG120»matches('^/a') && x == 'a')"`)},
		{"as a function", route(`if: "«SG120»matches(request.path, '/a')"`)},
		{"a part, and meant so", "  # lint:ignore SG120 anywhere\n" + route(`if: "request.path.matches('/a')"`)},

		{"providers of other names", route("providers: [«SG121»google, «SG121»Google.com, «SG121»email, «SG121»gogle.com, password, saml.acme, oidc.acme, a.com]")},

		{"unbounded", route(`if: «SG112»"auth.token.roles.exists(r, auth.token.plan.contains(r))", roles: [a], claims: {plan: [a]}`)},
		{"bounded", route(`if: "auth.token.roles.exists(r, r == 'a')", roles: [a]`)},
	})
}

func TestLintPresence(t *testing.T) {
	const plan = "«SG114»auth.token.plan == 'pro'"
	for _, fields := range []string{
		`if: "` + plan + `"`,
		`if: "has(auth.token.plan) && auth.token.plan == 'pro'"`,
		`if: "auth.token.plan == 'pro' && has(auth.token.plan)"`,
		`if: "request.host == 'a' && (has(auth.token.plan) && (request.host == 'b' || auth.token.plan == 'pro'))"`,
		`if: "has(auth.token.org_id) && ` + plan + `"`,
		`if: "has(auth.token.plan) || ` + plan + `"`,
		`if: "!has(auth.token.plan) || auth.token.plan == 'pro'"`,
		`if: "auth.token.plan == 'pro' || !has(auth.token.plan)"`,
		`if: "!has(auth.token.plan) && ` + plan + `"`,
		`if: "!(has(auth.token.plan) && auth.token.plan == 'pro')"`,
		`if: "!(has(auth.token.plan) && request.host == 'a') || auth.token.plan == 'pro'"`, // see below
		`if: "!(has(auth.token.plan) || request.host == 'a') || ` + plan + `"`,
		`if: "(has(auth.token.plan) || request.host == 'a') && ` + plan + `"`,
		`if: "(has(auth.token.plan) || has(auth.token.plan)) && auth.token.plan == 'pro'"`,
		`if: "has(auth.token.plan) ? auth.token.plan == 'pro' : true"`,
		`if: "has(auth.token.plan) ? true : ` + plan + `"`,
		`if: "!has(auth.token.plan) ? true : auth.token.plan == 'pro'"`,
		`if: "` + plan + ` ? true : request.host == 'a'"`,
		`if: "«SG114»auth.token.roles.exists(r, r == 'a')"`,
		`if: "has(auth.token.roles) && auth.token.roles.exists(r, r == 'a')"`,
		`if: "['a'].exists(r, has(auth.token.plan) && auth.token.plan == r)"`,
		`if: "['a'].exists(r, «SG114»auth.token.plan == r)"`,
		`if: "has(«SG114»auth.token.orgs.a)"`,
		`if: "has(auth.token.orgs) && has(auth.token.orgs.a) && auth.token.orgs.a == 'b'"`,
		`if: "has(auth.token.orgs) && auth.token.orgs['a'] == 'b'"`,
		`if: "«SG114»auth.token.plan.startsWith('p') && auth.token.plan != 'x'"`, // told once
		`if: "` + plan + ` && «SG114»auth.token.org_id == 'b'"`,
		`if: "size(auth.token.roles) > 0", roles: [a]`,
		`if: "` + plan + `", roles: [a]`,
		`if: "auth.token.plan == 'a'", claims: {plan: [a, b]}`,
		`if: "size(auth.token.scopes) == 1", scopes: [a]`,
		`if: "'x' in auth.token.orgs", org: {id: "${auth.token.org_id}", role: [a]}`,
		`if: "auth.token.org_id != 'b'", org: {id: "${auth.token.org_id}", role: [a]}`,
		`if: "auth.provider == 'a' && auth.email_verified"`,
	} {
		wantFindings(t, fields, lintHeader+"routes:\n"+oneEach+"  - {id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users], "+fields+"}]}\n", LintOptions{})
	}
	runLint(t, []lintCase{
		{"in a guard, in a block", "guards:\n  - id: g\n    path: /both\n    deny:\n      if: |\n        request.method == 'GET' &&\n          «SG114»auth.token.plan == 'x'\nroutes:\n"},
		{"fields of lookups", "lookups: {doc: {document: \"docs/${auth.uid}\", fields: {plan: string}}}\nroutes:\n  - {id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users], if: lookup.doc.plan == 'a'}]}\n"},
		{"a claim that the key's prefix needs", "  - id: r\n    path: \"/r/{key...}\"\n    methods: [GET]\n    serve: presign_download\n    object: {key: \"${params.key}\"}\n    limit: {rate: 1/s, per: uid}\n" +
			"    allow: [{who: [users], key_prefix: \"orgs/${auth.token.org_id}/\", if: auth.token.org_id != 'x'}]\n"},
	})
}

func TestLintRoutes(t *testing.T) {
	route := func(rest string) string { return "  - {id: r, upstream: app, " + rest + "}\n" }
	presign := func(limit, object string) string {
		return "  - {id: p, path: /p, methods: [POST], " + limit + ", allow: [{who: [users]}], object: {key: \"u/${auth.uid}/${uuid}\", " + object + "}}\n"
	}
	const perIP, perUID = "limit: {rate: 1/s, per: ip}", "limit: {rate: 1/s, per: uid}, serve: presign_upload"
	runLint(t, []lintCase{
		{"public write", route("path: /r, methods: «SG103»[GET, POST], allow: public, " + perIP)},
		{"public read", route("path: /r, methods: [GET, HEAD, OPTIONS], allow: public, " + perIP)},
		{"optional write", route("path: /r, methods: [POST], allow: optional, " + perIP)},

		{"catch-all by who", route(`path: «SG104»"/{x...}", methods: [PUT], allow: [{who: [users], roles: [a]}, {who: [agents]}]`)},
		{"catch-all by methods", route(`path: «SG104»"/{x...}", methods: [GET, PUT], allow: [{methods: [PUT]}]`)},
		{"catch-all for all", route(`path: «SG104»"/{x...}", methods: [PUT], allow: optional, ` + perIP)},
		{"catch-all with a role", route(`path: "/{x...}", methods: [PUT], allow: [{who: [users], roles: [a]}]`)},
		{"catch-all on trial", route(`path: "/{x...}", methods: [PUT], allow: [{who: [users], mode: dry_run, since: 2026-03-01}]`)},
		{"below a path", route(`path: "/a/{x...}", methods: [GET], allow: [{who: [users]}]`)},
		{"with an end", route(`path: "/{x...}/a", methods: [GET], allow: [{who: [users]}]`)},
		{"one segment", route(`path: "/{x}", methods: [PUT], allow: [{who: [users]}]`)},

		{"presign without a limit", presign("serve: «SG105»presign_upload", "max_bytes: 1MiB")},
		{"presign with a limit per ip", presign(perIP+", serve: presign_upload", "max_bytes: 1MiB")},
		{"confirm without a limit", "  - {id: r, path: \"/c/{session}\", methods: [POST], serve: confirm_upload, allow: [{who: [users]}]}\n"},

		{"long expiry", presign(perUID, "expires: {max: «SG106»16m}")},
		{"long expiry by default too", presign(perUID, "expires: {default: 20m, max: «SG106»1h}")},
		{"short expiry", presign(perUID, "expires: {default: 5m, max: 15m}")},

		{"public without a limit per ip", route("path: /r, methods: [GET], allow: «SG107»public, limit: {rate: 1/s, per: route}")},
		{"optional without a limit", route("path: /r, methods: [GET], allow: «SG107»optional")},
		{"two limits", route("path: /r, methods: [GET], allow: public, limit: [{rate: 1/s, per: route}, {rate: 1/s, per: ip}]")},
		{"not recorded", route("path: /r, methods: [GET], allow: public, audit: «SG117»off")},
		{"recorded better", route("path: /r, methods: [GET], allow: [{who: [users]}], audit: power")},

		{"types that run", presign(perUID, `content_types: [«SG113»"*/*", «SG113»text/html, image/png, «SG113»image/svg+xml, image/*, «SG113»application/xhtml+xml]`)},
		{"types that do not", presign(perUID, `content_types: [image/*, "text/*", application/pdf]`)},
	})
}

func TestLintUnused(t *testing.T) {
	runLint(t, []lintCase{
		{"variable", "vars:\n  a: x\n  b: y\n  «SG109»c: z\nroutes:\n  - {id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users], if: vars.a == request.host, claims: {plan: [\"${vars.b}\"]}}]}\n"},
		{"lookup", "lookups:\n  a: {document: \"a/${auth.uid}\", fields: {x: bool}}\n  «SG109»b: {document: \"b/${auth.uid}\", fields: {x: bool}}\nroutes:\n  - {id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users], if: has(lookup.a)}]}\n"},
	})
	for _, tt := range []struct{ identities, rest string }{
		{"[users, «SG109»agents]", "routes: [{id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users]}]}]\n"},
		{"[users, agents]", "routes: [{id: r, path: /r, methods: [GET], upstream: app, allow: [{roles: [a]}]}]\n"}, // lets all in
		{"[users, agents]", "guards: [{id: g, path: /r, deny: {who: [agents]}}]\nroutes: [{id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users]}]}]\n"},
	} {
		wantFindings(t, tt.rest, strings.Replace(lintHeader, "[users, agents]", tt.identities, 1)+tt.rest, LintOptions{})
	}
}

func TestLintTests(t *testing.T) {
	text := lintHeader + "guards:\n  - «SG110»{id: g, path: /both, deny: {who: [agents]}}\nroutes:\n" + oneEach +
		"  - {id: r, path: /r, methods: [GET], upstream: app, allow: [«SG110»{id: own, who: [users]}, «SG110»{who: [agents], roles: [a]}]}\n"
	wantFindings(t, "untested", text, LintOptions{Untested: map[string]string{"g": "true", "r/own": "false", "r/2": "either", "both/1": "", "gone": "true"}})
	plain, _ := unmarked(text)
	wantFindings(t, "all tested", plain, LintOptions{Untested: map[string]string{}})
	wantFindings(t, "not asked", plain, LintOptions{})
}

func TestLintErrors(t *testing.T) {
	text := strings.Replace(lintHeader, "users, agents", "users, agents, users", 1) + "routes:\n" + oneEach +
		"  - {id: both, path: /r, methods: [GET], upstream: app, allow: public} # lint:ignore SG002, SG107 because\n"
	got := Lint("p.yaml", []byte(text), LintOptions{})
	want := []Finding{
		{"", SeverityError, "p.yaml", 2, 29, "identity `users` is there twice"},
		{"SG002", SeverityError, "p.yaml", 6, 10, "route id `both` is taken by the route in line 5"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
	if got := Lint("p.yaml", nil, LintOptions{}); len(got) != 1 || got[0].Line != 0 || got[0].File != "p.yaml" {
		t.Errorf("got %+v", got)
	}
}

// TestExamplesHaveNoFindings: what people copy is as lint wants it.
func TestExamplesHaveNoFindings(t *testing.T) {
	now := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	exampleEnv := &Environment{
		Identities: map[string]string{"users": "users", "worker": "worker", "agents": "users"},
		Upstreams:  map[string]Upstream{"app": {}, "page": {}}, Buckets: map[string]Bucket{"default": {}}, Lookups: true,
	}
	for _, name := range []string{"../examples/policy/policy.yaml", "../configs/policy.yaml", "../examples/demo/policy.yaml", "../examples/fastapi-sidecar/policy.yaml", "../examples/presign-gateway/policy.yaml", "../examples/uppy/policy.yaml"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, env := range []*Environment{nil, exampleEnv} {
			for _, f := range Lint(name, data, LintOptions{Env: env, Now: now, Untested: map[string]string{}}) {
				t.Errorf("%+v", f)
			}
		}
	}
}

// FuzzLint: lint looks at whatever loads, and says errors of whatever does not.
func FuzzLint(f *testing.F) {
	for _, name := range []string{"../examples/policy/policy.yaml", "../configs/policy.yaml", "../examples/demo/policy.yaml"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Add(lintHeader + "guards: [{id: g, path: \"/a/{x...}\", require: {if: \"has(auth.token.plan) || true\"}}] # lint:ignore SG102, SG118 x\nroutes:\n" + oneEach)
	f.Add(lintHeader + "routes:\n" + oneEach + "  - {id: r, path: \"/{x...}\", host: ['*.a.dev'], methods: [GET], upstream: app, allow: public}\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := Load("policy.yaml", []byte(text), nil)
		line := 0
		for _, got := range Lint("policy.yaml", []byte(text), LintOptions{Now: lintNow, Untested: map[string]string{"both/1": "either"}}) {
			if (got.Severity == SeverityError) != (err != nil) || got.Line < line || got.Line < 1 && err == nil || got.Text == "" {
				t.Errorf("%+v of %v", got, err)
			}
			line = got.Line
		}
	})
}
