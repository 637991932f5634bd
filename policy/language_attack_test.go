package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// Attacks on the language itself, each named after what it was.

func mustRefuse(t *testing.T, text, want string) {
	t.Helper()
	env := testEnv()
	env.Identities["partners"] = "partners"
	_, err := Load("policy.yaml", []byte(text), env)
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), faultText) {
		t.Errorf("want %q: %v\nin\n%s", want, err, text)
	}
}

func conditionPolicy(condition string) string {
	return celHeader + "  - {id: r, path: \"/r/{x}\", methods: [GET], upstream: app, allow: [{who: [users], if: '" + strings.ReplaceAll(condition, "'", "''") + "'}]}\n"
}

// TestAttackNamesHiddenFromTheWalk: whatever a condition reads is found, or the
// policy does not load: else an unverified address, another namespace's uid or
// a document that nobody read would pass the rules for them.
func TestAttackNamesHiddenFromTheWalk(t *testing.T) {
	for condition, want := range map[string]string{
		`[1].exists(auth, .auth.email.endsWith("@acme.dev"))`:         "a loop cannot name its element `auth`",
		`[1].exists(lookup, has(.lookup.share))`:                      "a loop cannot name its element `lookup`",
		`google.protobuf.StringValue{value: auth.email} == "x"`:       "messages cannot be made",
		`google.protobuf.BoolValue{value: has(lookup.share)} == true`: "messages cannot be made",
		`sidegate.auth{uid: "x"} == auth`:                             "messages cannot be made",
		`[{"q": 1}].exists(vars, vars.q == 1)`:                        "a loop cannot name its element `vars`",
		`[{"q": {"z": 1}}].exists(lookup, lookup.q.z == 1)`:           "a loop cannot name its element `lookup`",
		`[{"ip": "x"}].exists(request, request.ip == "1")`:            "a loop cannot name its element `request`",
		`{"a": auth.email}["a"] == "x"`:                               "SG008",
		`[auth.email].exists(e, e == "x")`:                            "SG008",
		`(auth.uid == "x" ? auth.email : "y") == "x"`:                 "SG008",
	} {
		mustRefuse(t, conditionPolicy(condition), want)
	}
}

// TestAttackRegexOfTheCaller: who writes a regular expression says what it
// costs to compile it.
func TestAttackRegexOfTheCaller(t *testing.T) {
	for _, condition := range []string{`request.method.matches(params.x)`, `auth.token.roles.exists(x, x.matches(x))`, `matches(auth.uid, auth.token.plan)`} {
		mustRefuse(t, conditionPolicy(condition), "must be written out")
	}
}

// TestAttackTemplatesAsText: ${...} where no template is read never waits as
// plain text in a rule that could not hold then.
func TestAttackTemplatesAsText(t *testing.T) {
	const tail = "\nroutes: [{id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users]}]}]\n"
	head := "version: sidegate-policy/v1\nidentities: [users]\nclaims: {roles: list(string), plan: string, if: string}\nvars: {p: bad, open: \"{auth.uid}\"}\nguards:\n"
	for guard, want := range map[string]string{
		`{id: g, deny: {claims: {plan: ["${var.p}"]}}}`:       "would be taken as it stands",
		`{id: g, deny: {providers: ["${ vars.p }"]}}`:         "would be taken as it stands",
		`{id: g, deny: {roles: ["${auth.token.plan}"]}}`:      "would be taken as it stands",
		`{id: g, deny: {claims: {if: ["${auth.uid}"]}}}`:      "would be taken as it stands",
		`{id: g, deny: {who: [users], uid: "$${vars.open}"}}`: "makes a new ${...}",
	} {
		mustRefuse(t, head+"  - "+guard+tail, want)
	}
	// A claim that is called as a key is: its values are replaced as others are.
	p := mustLoad(t, head+`  - {id: g, deny: {claims: {if: ["${vars.p}"]}}}`+tail)
	if d := p.Decide(guardInput(p, bob(claim("if", "bad")), "GET", "", "/r", nil)); d.Allow {
		t.Errorf("%+v", d)
	}
	mustRefuse(t, head[:strings.Index(head, "guards:")]+"vars2: {}\n", "unknown key")
	mustRefuse(t, strings.Replace(head, "p: bad", "p: ["+strings.Repeat("x", maxString+1)+"]", 1)+"  - {id: g, deny: {who: [users]}}"+tail, "longer than")
}

// TestAttackUidOfAnotherNamespace: what is named by a uid speaks for one person
// only within one namespace.
func TestAttackUidOfAnotherNamespace(t *testing.T) {
	const head = "version: sidegate-policy/v1\nidentities: [users, partners]\n"
	mustRefuse(t, head+`lookups: {a: {document: "a/${auth.uid}", fields: {x: bool}}}
routes: [{id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users], if: lookup.a.x}, {who: [partners], if: lookup.a.x}]}]
`, "SG009 lookup `a`")
	mustRefuse(t, head+`lookups: {a: {document: "a/${params.x}", fields: {x: bool}}}
routes: [{id: r, path: "/r/{x}", methods: [GET], upstream: app, allow: [{who: [users], uid: "${params.x}", if: lookup.a.x}, {who: [partners], uid: "${params.x}", if: lookup.a.x}]}]
`, "SG009 lookup `a`")
	mustRefuse(t, "version: sidegate-policy/v1\nidentities: [users]\n"+`guards: [{id: g, path: /o, require: {uid: bob}}]
routes: [{id: r, path: /o, methods: [GET], upstream: app, allow: optional}]
`, "SG009 guard `g`")
	mustRefuse(t, head+`routes: [{id: r, path: "/r/{k...}", methods: [GET], serve: presign_download, object: {key: "${params.k}"}, allow: [{who: [users], key_prefix: "u/${auth.uid}/"}, {who: [partners], key_prefix: "u/${auth.uid}/p/"}]}]
`, "SG009 entry `r/2`")
	// A capture that the uid is compared with is the uid, hashed or not.
	for _, rest := range []string{
		`{id: r, path: "/r/{x}", methods: [GET], serve: presign_download, object: {key: "u/${sha256(params.x)}/profile"}, allow: [{who: [users], uid: "${params.x}"}, {who: [partners], uid: "${params.x}"}]}`,
		`{id: r, path: "/r/{x}/{k...}", methods: [GET], serve: presign_download, object: {key: "${params.k}"}, allow: [{who: [users], uid: "${params.x}", key_prefix: "u/${sha256(params.x)}/"}, {who: [partners], uid: "${params.x}", key_prefix: "u/${sha256(params.x)}/"}]}`,
		`{id: r, path: "/r/{x}", methods: [GET], serve: presign_download, object: {key: "u/${sha256(params.x)}/p"}, allow: [{who: [users], if: auth.uid == params.x}, {who: [partners], if: auth.uid == params.x}]}`,
		// And a folder is one, whichever route leads to it.
		`{id: a, path: "/a/{k...}", methods: [GET], serve: presign_download, object: {key: "${params.k}"}, allow: [{who: [users], key_prefix: "u/${auth.uid}/"}]}, {id: b, path: "/b/{k...}", methods: [GET], serve: presign_download, object: {key: "${params.k}"}, allow: [{who: [partners], key_prefix: "u/${auth.uid}/"}]}`,
		`{id: a, path: /a, methods: [POST], serve: presign_upload, object: {key: "u/${auth.uid}/${uuid}"}, allow: [{who: [users]}]}, {id: b, path: "/b/{k...}", methods: [GET], serve: presign_download, object: {key: "${params.k}"}, allow: [{who: [partners], key_prefix: "u/${auth.uid}/"}]}`,
	} {
		mustRefuse(t, head+"routes: ["+rest+"]\n", "SG009")
	}
	for _, conditions := range [][2]string{
		{`auth.uid == params.x && lookup.a.x`, `auth.uid == params.x && lookup.a.x`},
		{`auth.uid in lookup.a.readers`, `auth.uid in lookup.a.readers`},
		{`auth.uid in lookup.a.readers`, `auth.uid in lookup.b.readers`}, // another name of the same documents
		{`auth.uid in lookup.a.readers`, `auth.uid in lookup.c.readers`}, // and of the capture
	} {
		mustRefuse(t, head+`lookups:
  a: {document: "a/${sha256(params.x)}", fields: {x: bool, readers: list(string)}}
  b: {document: "a/${sha256(params.x)}", fields: {readers: list(string)}}
  c: {document: "a/${sha256(params.y)}", fields: {readers: list(string)}}
routes: [{id: r, path: "/r/{x}/{y}", methods: [GET], upstream: app, allow: [{who: [users], if: "`+conditions[0]+`"}, {who: [partners], if: "`+conditions[1]+`"}]}]
`, "SG009 lookup")
	}
}

// TestFoldersOfTheirOwn: what keeps namespaces apart loads.
func TestFoldersOfTheirOwn(t *testing.T) {
	env := testEnv()
	env.Identities["partners"] = "partners"
	const head = "version: sidegate-policy/v1\nidentities: [users, partners, mobile]\nclaims: {org: string}\nroutes: ["
	for _, rest := range []string{
		`{id: a, path: /a, methods: [POST], serve: presign_upload, object: {key: "${auth.identity}/${auth.uid}/${uuid}"}, allow: [{who: [users]}]}, {id: b, path: /b, methods: [POST], serve: presign_upload, object: {key: "${auth.identity}/${auth.uid}/${uuid}"}, allow: [{who: [partners]}]}`,
		`{id: a, path: /a, methods: [POST], serve: presign_upload, object: {key: "${auth.token.org}/${auth.uid}/${uuid}"}, allow: [{who: [users]}]}, {id: b, path: /b, methods: [POST], serve: presign_upload, object: {key: "${auth.tenant}/${auth.uid}/${uuid}"}, allow: [{who: [partners]}]}`,
		`{id: a, path: /a, methods: [POST], serve: presign_upload, object: {key: "u/${auth.uid}/${uuid}"}, allow: [{who: [users]}]}, {id: b, path: "/b/{k...}", methods: [GET], serve: presign_download, object: {key: "${params.k}"}, allow: [{who: [mobile], key_prefix: "u/${auth.uid}/"}, {who: [partners], key_prefix: u/}]}`,
	} {
		if _, err := Load("policy.yaml", []byte(head+rest+"]\n"), env); err != nil {
			t.Errorf("%v\n%s", err, rest)
		}
	}
}

// TestAttackKeyOfAnother: no two callers can be given one key, or one document,
// by what they are called or by the type of what they upload.
func TestAttackKeyOfAnother(t *testing.T) {
	const head = "version: sidegate-policy/v1\nidentities: [users, mobile, partners]\nclaims: {org: string}\nroutes: ["
	route := func(key string) string {
		return head + `{id: up, path: "/up/{x}", methods: [POST], serve: presign_upload, object: {key: "` + key + `", content_types: ["image/*"], max_bytes: 1KiB}, allow: [{who: [users], uid: "${params.x}"}]}]` + "\n"
	}
	for key, want := range map[string]string{
		"a/${auth.uid}${ext}":                  "which may be empty", // bob and .png, bob.png and nothing
		"a/${auth.uid}.png${ext}":              "which may be empty",
		"a/${params.x}${ext}/${uuid}":          "which may be empty",
		"a/${ext}${auth.uid}/${uuid}":          "which may be empty",
		"a/${ext}.${auth.uid}":                 "which may be empty",
		"a/${uuid}${auth.uid}${ext}":           "which may be empty",
		"a/${auth.token.org}-${auth.uid}":      "two values stand in one segment", // a and b-c, a-b and c
		"a/${auth.uid}-${uuid}-${auth.tenant}": "two values stand in one segment",
		"${auth.identity}-${auth.uid}/${uuid}": "two values stand in one segment",
	} {
		mustRefuse(t, route(key), want)
	}
	env := testEnv()
	env.Identities["partners"] = "partners"
	for _, key := range []string{
		"a/${auth.uid}/${uuid}${ext}", "a/x${ext}/${auth.uid}/${uuid}", "a/${auth.uid}-${uuid}${ext}", "a/${auth.uid}${uuid}/x${ext}", "a/${ext}${uuid}-${auth.uid}",
		"a/${auth.uid}-${sha256(params.x)}${ext}", "${auth.uid}/${auth.token.org}/x${ext}", "a/u-${auth.uid}.d/${uuid}",
	} {
		if _, err := Load("policy.yaml", []byte(route(key)), env); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	// The one uid may begin as the text before the other does.
	two := func(a, b string) string {
		return head + `{id: a, path: /a, methods: [POST], serve: presign_upload, object: {key: "` + a + `"}, allow: [{who: [users]}]}, {id: b, path: /b, methods: [POST], serve: presign_upload, object: {key: "` + b + `"}, allow: [{who: [partners]}]}]` + "\n"
	}
	mustRefuse(t, two("u/${auth.uid}/${uuid}", "u/p-${auth.uid}/${uuid}"), "SG009 entry `b/1`")
	mustRefuse(t, two("u/p-q-${auth.uid}/${uuid}", "u/p-${auth.uid}/${uuid}"), "SG009 entry `b/1`")
	if _, err := Load("policy.yaml", []byte(two("u/q-${auth.uid}/${uuid}", "u/p-${auth.uid}/${uuid}")), env); err != nil {
		t.Error(err)
	}
}

// TestAttackDocumentOfAnother: the same for documents that a uid names.
func TestAttackDocumentOfAnother(t *testing.T) {
	two := func(a, b string) string {
		return `version: sidegate-policy/v1
identities: [users, partners]
lookups:
  a: {document: "` + a + `", fields: {x: bool}}
  b: {document: "` + b + `", fields: {x: bool}}
routes:
  - {id: a, path: /a, methods: [GET], upstream: app, allow: [{who: [users], if: lookup.a.x}]}
  - {id: b, path: /b, methods: [GET], upstream: app, allow: [{who: [partners], if: lookup.b.x}]}
`
	}
	mustRefuse(t, two("m/${auth.uid}", "m/p-${auth.uid}"), "SG009 lookup `")
	mustRefuse(t, two("m/p-${auth.uid}", "m/${auth.uid}"), "SG009 lookup `")
	mustRefuse(t, two("m/p-${auth.uid}", "m/p-${auth.uid}"), "SG009 lookup `")
	env := testEnv()
	env.Identities["partners"] = "partners"
	for _, b := range []string{"m/p-${auth.uid}", "n/q-${auth.uid}", "m/${auth.identity}/p/${auth.uid}"} {
		if _, err := Load("policy.yaml", []byte(two("m/q-${auth.uid}", b)), env); err != nil {
			t.Errorf("%s: %v", b, err)
		}
	}
}

// TestNamesBeforeReads: where a document cannot be named nothing is read, and an
// entry is false, also while the others' store is gone.
func TestNamesBeforeReads(t *testing.T) {
	const head = `version: sidegate-policy/v1
identities: [users]
claims: {org: string}
lookups:
  a: {document: "a/${auth.uid}", fields: {x: bool}}
  b: {document: "b/${auth.token.org}", fields: {y: bool}}
`
	entry := mustLoad(t, head+"routes: [{id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users], if: lookup.a.x && lookup.b.y}]}]\n")
	guard := mustLoad(t, head+"guards: [{id: g, require: {if: lookup.a.x && lookup.b.y}}]\nroutes: [{id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users]}]}]\n")
	for _, org := range []any{nil, "__x__", strings.Repeat("x", 257), "x/y"} {
		for p, want := range map[*Policy]string{entry: ReasonNoEntry, guard: ReasonRequireError} {
			id, dead := bob(), &documents{err: errors.New("gone")}
			if org != nil {
				id = bob(claim("org", org))
			}
			if d := p.Decide(guardInput(p, id, "GET", "", "/r", dead)); d.Allow || d.Status != 403 || d.Reason != want || len(dead.asked) != 0 {
				t.Errorf("%v: %+v, asked for %v", org, d, dead.asked)
			}
		}
	}
}

// TestAttackComparisonsOfWholes: comparing a list with a list costs as much as
// their callers make them long, and is not counted.
func TestAttackComparisonsOfWholes(t *testing.T) {
	mustRefuse(t, conditionPolicy(`dyn(auth.token.roles) == dyn(auth.token.roles)`), "dyn() is not for conditions")
	for _, condition := range []string{
		`auth.token.roles == auth.token.roles`, `auth.token.orgs != auth.token.orgs`, `auth.token.roles.map(x, [auth.token.orgs]) == auth.token.roles.map(x, [auth.token.orgs])`,
		`[1].all(x, auth.token.orgs == auth.token.orgs)`, `auth.token.roles in [auth.token.roles]`,
	} {
		mustRefuse(t, conditionPolicy(condition), "as wholes")
	}
	mustRefuse(t, conditionPolicy(`auth.uid.matches("(?:a?){450}b")`), "regular expression is too large")
	p := mustLoad(t, conditionPolicy(`auth.token.roles.all(x, !x.matches("^(?:a?){60}b$"))`))
	if p.Routes[0].entries[0].facts.expr.bounded {
		t.Error("a long loop of large expressions counts as cheap")
	}
	roles := make([]any, maxElements)
	for i := range roles {
		roles[i] = strings.Repeat("a", maxString)
	}
	in := celInputOf(p, bob(claim("roles", roles)), nil)
	if d := p.Decide(in); d.Allow || d.Reason != ReasonEntryError {
		t.Errorf("over the limit: %+v", d)
	}
	// What a large expression costs is counted while it runs, too.
	p = mustLoad(t, conditionPolicy(`auth.token.roles.all(x, !x.matches("^([a-z]{1,90}x)$"))`))
	if d := p.Decide(celInputOf(p, bob(claim("roles", roles[:100])), nil)); d.Allow || d.Reason != ReasonEntryError {
		t.Errorf("a large expression in a short loop: %+v", d)
	}
	in = celInputOf(p, bob(claim("roles", roles)), nil)
	// Counting costs less than what it counts: many short texts compile nothing.
	for i := range roles {
		roles[i] = "x"
	}
	if n := testing.AllocsPerRun(3, func() { p.Decide(in) }); n > 30*maxElements {
		t.Errorf("%v allocations for %d elements", n, maxElements)
	}
}

// TestAttackAbsentClaimAtAGuard: a document that cannot be named is not one
// that does not exist.
func TestAttackAbsentClaimAtAGuard(t *testing.T) {
	for _, condition := range []string{"has(lookup.ban)", "'!has(lookup.ban)'"} {
		for _, name := range []string{"${auth.token.org}", "${auth.tenant}"} {
			p := mustLoad(t, `version: sidegate-policy/v1
identities: [users]
claims: {org: string}
lookups: {ban: {document: "bans/`+name+`", fields: {x: bool}}}
guards: [{id: g, deny: {if: `+condition+`}}]
routes: [{id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users]}]}, {id: p, path: /p, methods: [GET], upstream: app, allow: public}]
`)
			for _, id := range []*Identity{bob(), bob(claim("org", "")), bob(claim("org", "a/b")), bob(claim("org", nil))} {
				if d := p.Decide(guardInput(p, id, "GET", "", "/r", &documents{})); d.Allow || d.Reason != ReasonDenyError {
					t.Errorf("%s, %s, %v: %+v", condition, name, id.Claims, d)
				}
			}
			if d := p.Decide(guardInput(p, nil, "GET", "", "/p", &documents{})); !d.Allow {
				t.Errorf("what reads an identity is false of nobody: %+v", d)
			}
		}
	}
}

// TestAttackWrongTypesBesideTheRightOne: one element of another type makes the
// claim one of another type, wherever it stands.
func TestAttackWrongTypesBesideTheRightOne(t *testing.T) {
	p := mustLoad(t, header+`  - {id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users], org: {id: a, role: [owner]}}]}`)
	for _, orgs := range []map[string]any{{"a": "owner", "b": 5}, {"a": "owner", strings.Repeat("x", maxString+1): "y"}} {
		if d := p.Decide(guardInput(p, bob(claim("orgs", orgs)), "GET", "", "/r", nil)); d.Allow || d.Reason != ReasonEntryError {
			t.Errorf("%+v", d)
		}
	}
}

// perDocument is a Lookups of documents that exist, fail or are missing.
type perDocument struct {
	docs map[string]map[string]any
	errs map[string]error
}

func (d perDocument) Lookup(_ *Lookup, name string) (Document, error) {
	fields, ok := d.docs[name]
	return Document{Exists: ok, Fields: fields}, d.errs[name]
}

// TestDecideIsItsRules holds Decide, and Explain, against each rule judged by
// itself on an input of its own: whatever other rules read before, of the same
// lookups or others, under other captures, decides nothing.
func TestDecideIsItsRules(t *testing.T) {
	conditions := []string{
		"if: has(lookup.a)", "if: '!has(lookup.a)'", "if: lookup.a.x", "if: lookup.b.x", "if: '!has(lookup.b)'", "if: lookup.c.x", "if: '!has(lookup.c)'",
		"if: lookup.a.x && lookup.b.x", "roles: [admin], if: has(lookup.b)", "roles: [admin]", "claims: {plan: [pro]}", "if: '1 / 0 == 1'",
		"methods: [GET]", `if: 'has(auth.token.plan) || request.method == "POST"'`, "ip: [198.51.100.0/24]", "mfa: 15m",
	}
	random := rand.New(rand.NewPCG(3, 5))
	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	decided := 0
	for range 600 {
		access := pick("list", "list", "public", "optional")
		text := randomRules(random, conditions, access)
		p, err := Load("policy.yaml", []byte(text), nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		for range 10 {
			docs := randomDocuments(random)
			var id *Identity
			if access == "list" || random.IntN(2) == 0 {
				id = bob(claim("roles", []any{[]any{"admin"}, "admin", []any{"x"}}[random.IntN(3)]), claim("plan", []any{"pro", "x", 5}[random.IntN(3)]))
			}
			in := guardInput(p, id, pick("GET", "POST", "HEAD"), "gateway.test", "/r/A/B", docs)
			want := judgedAlone(p, in, docs)
			d := p.Decide(in)
			if got := verdictOfDecision(d); got != want {
				t.Fatalf("decided %s, want %s: %+v\n%s\n%+v\n%+v", got, want, d, text, id, docs)
			}
			if x := p.Explain(in); explainedAllows(p, &x, in) != d.Allow {
				t.Fatalf("explained otherwise: %+v\n%+v\n%s", x, d, text)
			}
			decided++
		}
	}
	if decided < 5000 {
		t.Errorf("only %d decisions", decided)
	}
}

func randomRules(random *rand.Rand, conditions []string, access string) string {
	var b strings.Builder
	b.WriteString(`version: sidegate-policy/v1
identities: [users]
claims: {roles: list(string), plan: string}
lookups:
  a: {document: "a/${auth.uid}", fields: {x: bool}}
  b: {document: "b/${auth.uid}", fields: {x: bool}}
  c: {document: "c/${sha256(params.x)}", fields: {x: bool}}
`)
	trial := func() string {
		if random.IntN(4) == 0 {
			return "mode: dry_run, since: 2026-01-01, "
		}
		return ""
	}
	if n := random.IntN(4); n > 0 {
		b.WriteString("guards:\n")
		for i := range n { // whose captures are the other way round
			fmt.Fprintf(&b, "  - {id: g%d, path: \"/r/{y}/{x}\", %s%s: {%s}}\n", i, trial(), []string{"deny", "require"}[random.IntN(2)], conditions[random.IntN(len(conditions))])
		}
	}
	b.WriteString("routes:\n  - id: r\n    path: \"/r/{x}/{y}\"\n    methods: [GET, POST]\n    upstream: app\n    allow: ")
	if access != "list" {
		return b.String() + access + "\n"
	}
	b.WriteString("\n")
	for range 1 + random.IntN(4) {
		fmt.Fprintf(&b, "      - {%swho: [users], %s}\n", trial(), conditions[random.IntN(len(conditions))])
	}
	return b.String()
}

func randomDocuments(random *rand.Rand) perDocument {
	docs := perDocument{map[string]map[string]any{}, map[string]error{}}
	for _, name := range []string{"a/bob", "b/bob", "c/" + hashed("A"), "c/" + hashed("B")} {
		switch random.IntN(5) {
		case 0:
			docs.errs[name] = errors.New("gone")
		case 1:
			docs.docs[name] = map[string]any{"x": true}
		case 2:
			docs.docs[name] = map[string]any{"x": false}
		case 3:
			docs.docs[name] = map[string]any{"x": "odd"}
		}
	}
	return docs
}

// judgedAlone is what the contract's rules 5 to 7 make of each rule's own
// verdict.
func judgedAlone(p *Policy, of *Input, docs Lookups) string {
	alone := func(c *condition, captures *pattern) verdict {
		in := *of
		in.looked, in.claims, in.Lookups = nil, nil, docs
		if captures != nil {
			parts, _ := split(nil, in.Path)
			in.Params = captures.capture(parts, in.Path)
		}
		return c.holds(&in)
	}
	r, failed := of.Route, no
	for _, g := range p.guards {
		v := alone(g.cond, g.path)
		switch {
		case g.cond.dryRun:
		case v > yes:
			failed = max(failed, v)
		case (v == yes) == g.deny:
			return "403"
		}
	}
	if failed == no && r.Access != AccessList {
		return "allow"
	}
	if failed == no {
		for _, e := range r.entries {
			v := alone(e, nil)
			switch {
			case e.dryRun:
			case v == yes:
				return "allow"
			default:
				failed = max(failed, v)
			}
		}
	}
	if failed == unread {
		return "503"
	}
	return "403"
}

func verdictOfDecision(d Decision) string {
	if d.Allow {
		return "allow"
	}
	return fmt.Sprint(d.Status)
}

// explainedAllows is the decision that an explanation's results lead to.
func explainedAllows(p *Policy, x *Explanation, in *Input) bool {
	for _, g := range x.Guards {
		if !g.DryRun && (g.Result == Error || (g.Result == Hit) == (g.Kind == "deny")) {
			return false
		}
	}
	if in.Route.Access != AccessList {
		return true
	}
	for _, e := range x.Entries {
		if !e.DryRun && e.Result == Hit {
			return true
		}
	}
	return false
}

// TestGuardsMatchAsTheyShould holds the guards that a route keeps against
// matching each guard by itself.
func TestGuardsMatchAsTheyShould(t *testing.T) {
	random := rand.New(rand.NewPCG(8, 8))
	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	path := func() string {
		out := ""
		for range random.IntN(4) {
			out += "/" + pick("a", "b", "{x}", "{y}")
		}
		if random.IntN(2) == 0 {
			out += "/{rest...}"
			for range random.IntN(2) {
				out += "/" + pick("a", "b")
			}
		}
		if out == "" || strings.Count(out, "{x}") > 1 || strings.Count(out, "{y}") > 1 {
			return "/a/{x}"
		}
		return out
	}
	hits, misses := 0, 0
	for range 400 {
		var b strings.Builder
		b.WriteString("version: sidegate-policy/v1\nidentities: [users]\nguards:\n")
		for i := range 5 {
			fmt.Fprintf(&b, "  - {id: g%d, path: \"%s\", methods: [%s]%s, deny: {ip: [10.0.0.0/8]}}\n", i, path(), pick("GET", "POST", "GET, POST", "PUT"), pick("", ", host: [a.dev]", `, host: ["*.a.dev"]`))
		}
		fmt.Fprintf(&b, "routes:\n  - {id: r, path: \"%s\", methods: [GET, POST], upstream: app, allow: public}\n", path())
		p := mustLoad(t, b.String())
		for range 20 {
			request := "/"
			for range random.IntN(5) {
				request += pick("a", "b", "c") + "/"
			}
			if random.IntN(2) == 0 && request != "/" {
				request = strings.TrimSuffix(request, "/")
			}
			host, method := pick("a.dev", "x.a.dev", "b.dev"), pick("GET", "HEAD", "POST")
			in := guardInput(p, nil, method, host, request, nil)
			if in.Route == nil {
				continue
			}
			parts, _ := split(nil, request)
			for _, g := range p.guards {
				want := g.methods&methodBit(method) != 0 && (len(g.hosts) == 0 || hostIn(host, g.hosts)) && g.path.matches(parts)
				got := false
				for i := range in.Route.guards {
					if at := &in.Route.guards[i]; at.guard == g {
						got = at.matches(in)
					}
				}
				if got != want {
					t.Fatalf("%s %s%s at guard %s: %v, want %v\n%s", method, host, request, g.id, got, want, b.String())
				}
				if got {
					hits++
				} else {
					misses++
				}
			}
		}
	}
	if hits < 500 || misses < 1000 {
		t.Errorf("%d hits, %d misses", hits, misses)
	}
}
