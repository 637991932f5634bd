package policy

import (
	"fmt"
	"strings"
	"testing"
)

// crossRoute is a route without anything else to say.
func crossRoute(id, path, rest string) string {
	return fmt.Sprintf("  - {id: %s, path: %s, upstream: app, %s}\n", id, path, rest)
}

const (
	getAll     = "methods: [GET], allow: [{who: [users, agents]}]"
	getAdmin   = "methods: [GET], allow: [{who: [users], roles: [admin]}]"
	getPublic  = "methods: [GET], allow: public, limit: {rate: 1/s, per: ip}"
	getAnybody = "methods: [GET], allow: optional, limit: {rate: 1/s, per: ip}"
)

func TestLintCase(t *testing.T) {
	guarded := func(guard, routes string) string { return "guards:\n  - " + guard + "\nroutes:\n" + routes }
	app := crossRoute("app", `"/v1/{rest...}"`, getAll)
	runLint(t, []lintCase{
		{"list below a list", crossRoute("admin", "«SG115»/v1/admin", getAdmin) + app},
		{"in whatever order", app + crossRoute("admin", "«SG115»/v1/admin", getAdmin)},
		{"list below optional", crossRoute("admin", "«SG115»/v1/admin", getAll) + crossRoute("app", `"/v1/{x}"`, getAnybody)},
		{"optional below public", crossRoute("admin", "«SG115»/v1/admin", getAnybody) + crossRoute("app", `"/v1/{x}"`, getPublic)},
		{"as strict", crossRoute("me", "/v1/me", getAll) + app},
		{"less strict", crossRoute("open", "/v1/open", getPublic) + app},
		{"the broader one has more conditions", crossRoute("me", "/v1/me", getAll) + crossRoute("app", `"/v1/{rest...}"`, getAdmin)},
		{"an entry on trial lets nobody in", crossRoute("me", "/v1/me", getAdmin) + crossRoute("app", `"/v1/{rest...}"`, "methods: [GET], allow: [{who: [users], mode: dry_run, since: 2026-03-01}, {who: [users], roles: [admin]}]")},
		{"no letters", crossRoute("one", "/v1/1", getAdmin) + app},
		{"letters only where both have them", crossRoute("one", `"/v1/{x}/1"`, getAdmin) + app},
		{"other methods", crossRoute("admin", "/v1/admin", "methods: [POST], allow: [{who: [users], roles: [admin]}]") + app},
		{"entries of other methods", crossRoute("admin", "/v1/admin", "methods: [POST], allow: [{who: [users], roles: [admin]}]") + crossRoute("app", `"/v1/{x...}"`, "methods: [GET, POST], allow: [{who: [users], methods: [GET]}, {who: [users], roles: [admin], methods: [POST]}]")},
		{"another upstream", strings.Replace(crossRoute("admin", "/v1/admin", getAdmin), "app", "legacy", 1) + app},
		{"served by the gateway", "  - {id: p, path: /v1/p, methods: [POST], serve: presign_upload, limit: {rate: 1/s, per: uid}, allow: [{who: [users], roles: [a]}], object: {key: \"u/${auth.uid}/${uuid}\"}}\n" +
			crossRoute("app", `"/v1/{rest...}"`, "methods: [POST], allow: [{who: [users, agents]}]")},
		{"the broader one is served", crossRoute("admin", "/v1/admin", "methods: [POST], allow: [{who: [users], roles: [admin]}]") +
			"  - {id: p, path: \"/v1/{x}\", methods: [POST], serve: presign_upload, limit: {rate: 1/s, per: uid}, allow: [{who: [users]}], object: {key: \"u/${auth.uid}/${uuid}\"}}\n"},
		{"no broader route", crossRoute("admin", `"/v1/admin/{rest...}"`, getAdmin)},
		{"one as strict between", crossRoute("admin", "/v1/admin/1", getAdmin) + crossRoute("between", `"/v1/{x}/1"`, getAdmin) + app},
		{"another case is there", crossRoute("admin", "«SG115»/v1/admin", getAdmin) + crossRoute("other", "/v1/Admin", getAll)},
		{"another case is as strict", crossRoute("admin", "/v1/admin", getAdmin) + crossRoute("other", "/v1/Admin", getAdmin)},
		{"behind a capture", crossRoute("admin", `«SG115»"/v1/{org}/admin"`, getAdmin) + crossRoute("app", `"/v1/{org}/{x}"`, getAll)},
		{"at the end", crossRoute("admin", `«SG115»"/v1/{x...}/edit"`, getAdmin) + app},
		{"wide letters", crossRoute("admin", `«SG115»"/v1/Ärzte"`, getAdmin) + app},
		{"hosts that meet", crossRoute("admin", "«SG115»/v1/admin", "host: [a.dev], "+getAdmin) + app},
		{"a suffix of the host", crossRoute("admin", "«SG115»/v1/admin", "host: ['*.a.dev'], "+getAdmin) + crossRoute("app", `"/v1/{x}"`, "host: ['*.dev'], "+getAll)},
		{"hosts that do not meet", crossRoute("admin", "/v1/admin", "host: [a.dev], "+getAdmin) + crossRoute("app", `"/v1/{x}"`, "host: [b.dev], "+getAll)},

		{"a guard on a part", guarded(`{id: g, path: «SG115»"/v1/admin/{x...}", deny: {who: [agents]}}`, app)},
		{"a guard with a requirement", guarded(`{id: g, path: «SG115»"/v1/admin/{x...}", require: {mfa: 15m}}`, app)},
		{"a guard on the whole", guarded(`{id: g, path: "/v1/{x...}", deny: {who: [agents]}}`, app)},
		{"a guard on trial", guarded(`{id: g, path: "/v1/admin", mode: dry_run, since: 2026-03-01, deny: {who: [agents]}}`, app)},
		{"a guard on a route's own path", guarded(`{id: g, path: "/v1/admin/{x...}", deny: {who: [agents]}}`, crossRoute("admin", `"/v1/admin/{x...}"`, getAll))},
		{"a guard of other methods", guarded(`{id: g, path: "/v1/admin", methods: [POST], deny: {who: [agents]}}`, strings.Replace(app, "[GET]", "[GET, POST]", 1)+crossRoute("admin", "/v1/admin", getAll))},
		{"a guard's condition of other methods", guarded(`{id: g, path: "/both", deny: {who: [agents], methods: [POST]}}`, crossRoute("app", `"/{x}"`, getAll))},
		{"a guard that nobody meets", guarded(`{id: g, path: "/open/admin", deny: {who: [agents]}}`, crossRoute("admin", "«SG115»/open/admin", getAll)+crossRoute("open", `"/open/{x}"`, getPublic))},
		{"a guard by address", guarded(`{id: g, path: «SG115»"/open/admin", deny: {ip: [10.0.0.0/8]}}`, crossRoute("open", `"/open/{x}"`, getPublic))},
		{"a guard of a host", guarded(`{id: g, path: «SG115»"/v1/admin", host: [a.dev], deny: {who: [agents]}}`, app)},
		{"a guard of another host", guarded(`{id: g, path: "/v1/admin", host: [a.dev], deny: {who: [agents]}}`, crossRoute("app", `"/v1/{x}"`, "host: [b.dev], "+getAll)+crossRoute("admin", `/v1/admin`, "host: [a.dev], "+getAll))},
	})
}

func TestLintHosts(t *testing.T) {
	onHost := func(id, path, hosts, rest string) string {
		return crossRoute(id, path, "host: "+hosts+", "+rest)
	}
	admin := crossRoute("admin", "/1/2", getAdmin)
	runLint(t, []lintCase{
		{"a broader path", onHost("app", `"/1/{x...}"`, "«SG116»[a.dev]", getAll) + admin},
		{"the same path", onHost("app", `/1/2`, "«SG116»[a.dev]", getPublic) + admin},
		{"in whatever order", admin + onHost("app", `"/1/{x...}"`, "«SG116»[a.dev]", getAll)},
		{"a suffix", onHost("app", `"/1/{x...}"`, "«SG116»['*.a.dev']", getAll) + admin},
		{"a host below a suffix", onHost("app", `"/1/{x...}"`, "«SG116»[b.a.dev]", getAll) + onHost("admin", "/1/2", "['*.a.dev']", getAdmin)},
		{"a longer suffix", onHost("app", `"/1/{x...}"`, "«SG116»['*.b.a.dev']", getAll) + onHost("admin", "/1/2", "['*.a.dev']", getAdmin)},
		{"a narrower path", onHost("app", `/1/2`, "«SG116»[a.dev]", getAll) + crossRoute("admin", `"/1/{x...}"`, getAdmin)},
		{"paths that cross", onHost("app", `"/1/{x}"`, "«SG116»[a.dev]", getAll) + crossRoute("admin", `"/{x}/2"`, getAdmin)},
		{"another path", onHost("app", `/1/3`, "[a.dev]", getAll) + admin},
		{"another host", onHost("app", `"/1/{x...}"`, "[a.dev]", getAll) + onHost("admin", "/1/2", "[b.dev]", getAdmin)},
		{"the suffix itself", onHost("app", `"/1/{x...}"`, "[a.dev]", getAll) + onHost("admin", "/1/2", "['*.a.dev']", getAdmin)},
		{"as strict", onHost("app", `"/1/{x...}"`, "[a.dev]", getAdmin) + admin},
		{"stricter on the host", onHost("app", `"/1/{x...}"`, "[a.dev]", getAdmin) + crossRoute("app2", "/1/2", getAll)},
		{"other methods", onHost("app", `"/1/{x...}"`, "[a.dev]", strings.Replace(getAll, "GET", "POST", 1)) + admin},
		{"another upstream", strings.Replace(onHost("x", `"/1/{x...}"`, "[a.dev]", "methods: [GET], allow: [{who: [users]}]"), "app", "legacy", 1) + admin},
		{"the rule is there on the host too", onHost("app", `"/1/{x...}"`, "[a.dev]", getAll) + onHost("here", `/1/2`, "[a.dev]", getAdmin) + admin},
		{"both hosts", onHost("app", `"/1/{x...}"`, "[a.dev, '*.dev']", getAll)},
	})
}

// TestLintAdviceOnCase: the guard that docs/policy.md writes against other cases
// does what it is for.
func TestLintAdviceOnCase(t *testing.T) {
	guard := "guards: [{id: g, deny: {if: \"request.path.matches('(?i)^/v1/admin(/.*)?$') && !request.path.matches('^/v1/admin(/.*)?$')\"}}]\nroutes:\n"
	text := guard + crossRoute("admin", "«SG115»/v1/admin", getAdmin) + crossRoute("app", `"/v1/{rest...}"`, getAll)
	runLint(t, []lintCase{{"the guard", text}})
	plain, _ := unmarked(lintHeader + text)
	p := mustLoad(t, plain)
	for path, want := range map[string]string{"/v1/admin": ReasonNoEntry, "/v1/ADMIN": ReasonDenyTrue, "/V1/admin/x": "", "/v1/Admin/x": ReasonDenyTrue, "/v1/admins": ReasonEntry, "/v1/admin/x": ReasonEntry} {
		m := p.Match("a.dev", path, "GET")
		d := p.Decide(&Input{Route: m.Route, Params: m.Params, Path: path, Method: "GET", Identity: &Identity{Name: "users", UID: "u"}})
		if m.Route != nil && d.Reason != want {
			t.Errorf("%s: %s, want %s", path, d.Reason, want)
		}
	}
}

// TestLintNamesTheWitness: what lint says can be tried out.
func TestLintNamesTheWitness(t *testing.T) {
	text := lintHeader + "routes:\n" + crossRoute("admin", `"/v1/{org}/admin/{x...}"`, getAdmin) + crossRoute("app", `"/v1/{rest...}"`, getAll)
	for _, f := range Lint("policy.yaml", []byte(text), LintOptions{}) {
		if f.ID != "SG115" || !strings.Contains(f.Text, "`/V1/x/ADMIN`") && !strings.Contains(f.Text, "`/v1/x/ADMIN`") || !strings.Contains(f.Text, "route `app` in line 6") {
			t.Errorf("%+v", f)
		}
	}
}

func TestLintIgnore(t *testing.T) {
	route := func(before, after string) string {
		return before + "  - id: r\n    path: /r\n    methods: [GET]\n    upstream: app\n    allow: " + after
	}
	runLint(t, []lintCase{
		{"at the end of the line", route("", "public # lint:ignore SG107 a test of ours\n")},
		{"above the key", "  - id: r\n    path: /r\n    methods: [GET]\n    upstream: app\n    # lint:ignore SG107 a test of ours\n    allow: public\n"},
		{"above the route", route("  # lint:ignore SG107 a test of ours\n", "public\n")},
		{"above the first route, with more words", route("  # This is one.\n  # lint:ignore SG107 a test of ours,\n  # which goes on\n", "public\n")},
		{"several", "  # lint:ignore SG103, SG107 a test of ours\n  - {id: r, path: /r, methods: [POST], upstream: app, allow: public}\n"},
		{"several without spaces", "  # lint:ignore SG103,SG107 a test of ours\n  - {id: r, path: /r, methods: [POST], upstream: app, allow: public}\n"},
		{"one of two", "  # lint:ignore SG103 a test of ours\n  - {id: r, path: /r, methods: [POST], upstream: app, allow: «SG107»public}\n"},
		{"one that is not there", "  «SG118»# lint:ignore SG103, SG107 a test of ours\n  - {id: r, path: /r, methods: [GET], upstream: app, allow: public}\n"},
		{"in another line", route("", "«SG107»public\n    audit: power «SG118»# lint:ignore SG107 a test of ours\n")},
		{"a blank line between", route("  «SG118»# lint:ignore SG107 a test of ours\n\n", "«SG107»public\n")},
		{"above another route", route("", "«SG107»public\n  «SG118»# lint:ignore SG107 a test of ours\n")},
		{"without a reason", route("", "«SG107»public «SG118»# lint:ignore SG107\n")},
		{"with a reason of signs", route("", "«SG107»public «SG118»# lint:ignore SG107 -- 1\n")},
		{"without a number", route("", "«SG107»public «SG118»# lint:ignore this is fine\n")},
		{"with a number that is none", route("", "«SG107»public «SG118»# lint:ignore SG1070 a test of ours\n")},
		{"of an error", route("", "[{who: [users]}] «SG118»# lint:ignore SG001 a test of ours\n")},
		{"of itself", route("", "[{who: [users]}] «SG118»# lint:ignore SG118 a test of ours\n")},
		{"another word", route("", "«SG107»public «SG118»# lint:disable SG107 a test of ours\n")},
		{"words about it", route("", "«SG107»public # see lint:ignore\n")},
		{"not asked", route("", "[{who: [users]}] # lint:ignore SG110 a test of ours\n")},
		{"in a place of a variable", "vars: {all: [0.0.0.0/0]}\nroutes:\n  - {id: r, path: /r, methods: [GET], upstream: app,\n     allow: [{who: [users], ip: \"${vars.all}\"}]} # lint:ignore SG108 a test of ours\n"},
	})
}

// BenchmarkLint holds lint to what a policy of ten thousand routes may take.
func BenchmarkLint(b *testing.B) {
	var text strings.Builder
	text.WriteString(lintHeader + "guards: [{id: g, path: \"/v1/admin/{x...}\", deny: {who: [agents]}}]\nroutes:\n" + crossRoute("app", `"/v1/{rest...}"`, getAll))
	for i := range 10_000 {
		text.WriteString(crossRoute(fmt.Sprint("r", i), fmt.Sprintf(`"/v1/svc%d/{x}/items"`, i), getAdmin))
	}
	data := []byte(text.String())
	b.Run("load", func(b *testing.B) {
		for range b.N {
			if _, err := Load("policy.yaml", data, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lint", func(b *testing.B) {
		for range b.N {
			if n := len(Lint("policy.yaml", data, LintOptions{})); n < 10_000 {
				b.Fatal(n)
			}
		}
	})
}
