package policy

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

const guardHeader = `version: sidegate-policy/v1
identities: [users, agents]
claims: {roles: list(string), plan: string, scopes: list(string)}
lookups:
  state: {document: "state/${auth.uid}", fields: {blocked: bool, level: int}}
`

const guardRoutes = `
routes:
  - {id: item, path: "/v1/items/{x}", methods: [GET, POST], upstream: app, allow: [{id: user, who: [users]}, {id: agent, who: [agents]}]}
  - {id: pub, path: "/pub/{rest...}", methods: [GET, POST], upstream: app, allow: public}
  - {id: file, path: "/files/{key...}", methods: [GET], serve: presign_download, allow: [{id: own, who: [users], key_prefix: "users/${auth.uid}/"}], object: {key: "${params.key}"}}
`

func guardInput(p *Policy, id *Identity, method, host, path string, docs Lookups) *Input {
	m := p.Match(host, path, method)
	return &Input{Route: m.Route, Params: m.Params, Host: host, Path: path, Method: method, Identity: id, Time: noon, IP: netip.MustParseAddr("198.51.100.7"), Lookups: docs}
}

// TestRulesFiveToSeven: an absent claim, a wrong type, an evaluation error, a
// dead lookup and a missing document, in allow, deny and require.
func TestRulesFiveToSeven(t *testing.T) {
	const item = "/v1/items/a"
	dead := &documents{err: errors.New("gone")}
	blocked := &documents{by: map[string]map[string]any{"state/bob": {"blocked": true, "level": int64(3)}}}
	free := &documents{by: map[string]map[string]any{"state/bob": {"blocked": false}}}
	odd := &documents{by: map[string]map[string]any{"state/bob": {"blocked": "yes"}}}
	none := &documents{}
	for _, c := range []struct {
		condition string // of a guard, and of an entry
		id        *Identity
		docs      Lookups
		allow     string // reasons, with the status where it is not 403
		deny      string
		require   string
	}{
		{"roles: [admin]", bob(claim("roles", []any{"admin"})), nil, "entry", "deny_true", "entry"},
		{"roles: [admin]", bob(), nil, "no_entry", "entry", "require_false"},
		{"roles: [admin]", bob(claim("roles", "admin")), nil, "entry_error", "deny_error", "require_error"},
		{"claims: {plan: [pro]}", bob(claim("plan", []any{"pro"})), nil, "entry_error", "deny_error", "require_error"},
		{`if: 'auth.token.plan == "pro"'`, bob(), nil, "entry_error", "deny_error", "require_error"},
		{`if: 'has(auth.token.plan) && auth.token.plan == "pro"'`, bob(), nil, "no_entry", "entry", "require_false"},
		{`if: 'auth.token.plan == "pro"'`, bob(claim("plan", true)), nil, "entry_error", "deny_error", "require_error"},
		{"if: '1 / size(auth.token.plan) == 1'", bob(claim("plan", "")), nil, "entry_error", "deny_error", "require_error"},
		{"if: lookup.state.blocked", bob(), blocked, "entry", "deny_true", "entry"},
		{"if: lookup.state.blocked", bob(), free, "no_entry", "entry", "require_false"},
		{"if: lookup.state.blocked", bob(), odd, "entry_error", "deny_error", "require_error"},
		{"if: lookup.state.blocked", bob(), none, "entry_error", "deny_error", "require_error"},
		{"if: has(lookup.state) && lookup.state.blocked", bob(), none, "no_entry", "entry", "require_false"},
		{"if: has(lookup.state.level)", bob(), free, "no_entry", "entry", "require_false"},
		{"if: lookup.state.blocked", bob(), dead, "503 unavailable", "503 unavailable", "503 unavailable"},
		{"if: lookup.state.blocked", bob(), nil, "503 unavailable", "503 unavailable", "503 unavailable"},
		{"if: has(lookup.state) || true", bob(), dead, "503 unavailable", "503 unavailable", "503 unavailable"},
		// A document that no uid can name: of an entry it is false, of a guard it
		// cannot be told.
		{"if: has(lookup.state)", bob(withUID("a/../b")), none, "no_entry", "deny_error", "require_error"},
		{"mfa: 15m", bob(), nil, "no_entry", "entry", "require_false"},
		{"mfa: 15m", bob(func(id *Identity) { id.SecondFactor = "phone" }), nil, "entry", "deny_true", "entry"},
		{"mfa: 2m", bob(func(id *Identity) { id.SecondFactor = "phone" }), nil, "no_entry", "entry", "require_false"},
	} {
		check := func(where, text, want string) {
			t.Helper()
			p := mustLoad(t, guardHeader+text)
			d := p.Decide(guardInput(p, c.id, "GET", "gateway.test", item, c.docs))
			got := d.Reason
			if !d.Allow && d.Status != 403 {
				got = outcome(Match{Route: p.Routes[0]}, d)
			}
			if got != want || d.Allow != (want == "entry") {
				t.Errorf("%s %s: %s, want %s", where, c.condition, got, want)
			}
			if !d.Allow && d.Rule != map[string]string{"allow": d.Rule, "deny": "g", "require": "g"}[where] {
				t.Errorf("%s %s: by %s", where, c.condition, d.Rule)
			}
		}
		check("allow", "routes:\n  - {id: item, path: \"/v1/items/{x}\", methods: [GET], upstream: app, allow: [{who: [users], "+c.condition+"}]}\n", c.allow)
		check("deny", "guards: [{id: g, deny: {who: [users], "+c.condition+"}}]"+guardRoutes, c.deny)
		check("require", "guards: [{id: g, require: {who: [users], "+c.condition+"}}]"+guardRoutes, c.require)
	}
}

// TestGuardsMatch: by host, path and method, whatever the route; a trailing
// slash is the same path; HEAD is GET.
func TestGuardsMatch(t *testing.T) {
	for _, c := range []struct {
		guard, method, host, path string
		hits                      bool
	}{
		{"", "GET", "a.dev", "/v1/items/x", true},
		{"path: /v1/items/x, ", "GET", "a.dev", "/v1/items/x", true},
		{"path: /v1/items/x, ", "GET", "a.dev", "/v1/items/x/", true},
		{"path: /v1/items/x/, ", "GET", "a.dev", "/v1/items/x", true},
		{"path: /v1/items/x, ", "GET", "a.dev", "/v1/items/X", false},
		{"path: /v1/items/x, ", "GET", "a.dev", "/v1/items/y", false},
		{`path: "/v1/{rest...}", `, "GET", "a.dev", "/v1/items/y", true},
		{`path: "/v2/{rest...}", `, "GET", "a.dev", "/v1/items/y", false},
		{`path: "/{rest...}/y", `, "GET", "a.dev", "/v1/items/y", true},
		{`path: "/{a}/{b}", `, "GET", "a.dev", "/v1/items/y", false},
		{"methods: [GET], ", "HEAD", "a.dev", "/v1/items/x", true},
		{"methods: [GET], ", "POST", "a.dev", "/v1/items/x", false},
		{"methods: [POST, PUT], ", "POST", "a.dev", "/v1/items/x", true},
		{"host: [a.dev], ", "GET", "a.dev", "/v1/items/x", true},
		{"host: [a.dev], ", "GET", "b.dev", "/v1/items/x", false},
		{`host: ["*.a.dev"], `, "GET", "x.a.dev", "/v1/items/x", true},
		{`host: ["*.a.dev"], `, "GET", "a.dev", "/v1/items/x", false},
		{`host: ["*.a.dev"], `, "GET", "xa.dev", "/v1/items/x", false},
		{`path: "/pub/{rest...}", `, "GET", "a.dev", "/pub/x", true},
		{"", "GET", "a.dev", "/pub", true},
	} {
		p := mustLoad(t, guardHeader+"guards: [{id: g, "+c.guard+"deny: {ip: [198.51.100.0/24]}}]"+guardRoutes)
		d := p.Decide(guardInput(p, bob(), c.method, c.host, c.path, nil))
		if d.Allow == c.hits || (c.hits && (d.Rule != "g" || d.Reason != ReasonDenyTrue)) {
			t.Errorf("%s%s %s%s: %+v", c.guard, c.method, c.host, c.path, d)
		}
	}
}

func TestGuardsReadTheirOwnCaptures(t *testing.T) {
	p := mustLoad(t, guardHeader+`guards: [{id: g, path: "/v1/items/{owner}", require: {who: [users], uid: "${params.owner}"}}]`+guardRoutes)
	if d := p.Decide(guardInput(p, bob(), "GET", "", "/v1/items/bob", nil)); !d.Allow {
		t.Errorf("%+v", d)
	}
	if d := p.Decide(guardInput(p, bob(), "GET", "", "/v1/items/alice", nil)); d.Allow {
		t.Errorf("%+v", d)
	}
}

// TestNobodyAtAGuard: what reads an identity is false of nobody: a deny does
// not hit, a require is not met.
func TestNobodyAtAGuard(t *testing.T) {
	p := mustLoad(t, guardHeader+`guards: [{id: g, deny: {who: [users]}}]`+guardRoutes)
	if d := p.Decide(guardInput(p, nil, "GET", "", "/pub/x", nil)); !d.Allow {
		t.Errorf("%+v", d)
	}
	for _, cond := range []string{"{mfa: 5m}", "{who: [users]}", "{if: 'auth.provider != \"\" || request.method == \"GET\"'}", "{roles: [admin]}", "{verified_email: true}", "{providers: [x]}"} {
		p = mustLoad(t, guardHeader+`guards: [{id: g, require: `+cond+`}]`+guardRoutes)
		if d := p.Decide(guardInput(p, nil, "GET", "", "/pub/x", nil)); d.Allow || d.Status != 403 || d.Reason != ReasonRequireFalse {
			t.Errorf("%s: %+v", cond, d)
		}
	}
	p = mustLoad(t, guardHeader+`guards: [{id: g, require: {ip: [198.51.100.0/24]}}]`+guardRoutes)
	if d := p.Decide(guardInput(p, nil, "GET", "", "/pub/x", nil)); !d.Allow {
		t.Errorf("%+v", d)
	}
}

// TestGuardsInOrder: the first that refuses is named; a certain refusal wins
// over one that cannot be told; and no document is read for what is refused.
func TestGuardsInOrder(t *testing.T) {
	dead := &documents{err: errors.New("gone")}
	p := mustLoad(t, guardHeader+`guards:
  - {id: unsure, deny: {who: [users], if: lookup.state.blocked}}
  - {id: first, deny: {who: [users]}}
  - {id: second, require: {who: [agents]}}
`+guardRoutes)
	if d := p.Decide(guardInput(p, bob(), "GET", "", "/v1/items/x", dead)); d.Rule != "first" || d.Status != 403 {
		t.Errorf("%+v", d)
	}
	p = mustLoad(t, guardHeader+`guards:
  - {id: first, deny: {who: [users]}}
  - {id: unsure, deny: {who: [users], if: lookup.state.blocked}}
  - {id: trial, mode: dry_run, since: 2026-02-20, deny: {who: [users], if: lookup.state.blocked}}
  - {id: plain, mode: dry_run, since: 2026-02-20, deny: {who: [users]}}
`+guardRoutes)
	dead.asked = nil
	d := p.Decide(guardInput(p, bob(), "GET", "", "/v1/items/x", dead))
	if d.Rule != "first" || len(dead.asked) > 0 || !reflect.DeepEqual(d.Shadow, map[string]string{"plain": "deny"}) {
		t.Errorf("%+v, read %v", d, dead.asked)
	}
}

// TestDryRun: recorded, never enforced; one that grants, grants nothing.
func TestDryRun(t *testing.T) {
	dead := &documents{err: errors.New("gone")}
	p := mustLoad(t, guardHeader+`guards:
  - {id: deny, mode: dry_run, since: 2026-02-20, deny: {who: [users]}}
  - {id: pass, mode: dry_run, since: 2026-02-20, deny: {who: [agents]}}
  - {id: err, mode: dry_run, since: 2026-02-20, require: {who: [users], if: lookup.state.blocked}}
routes:
  - id: r
    path: /r
    methods: [GET]
    upstream: app
    allow:
      - {id: trial, who: [users], mode: dry_run, since: 2026-02-20}
      - {id: admin, who: [users], roles: [admin]}
      - {id: later, who: [agents], mode: dry_run, since: 2026-02-20}
`)
	want := map[string]string{"deny": "deny", "pass": "pass", "err": "error", "r/trial": "allow", "r/later": "deny"}
	d := p.Decide(guardInput(p, bob(), "GET", "", "/r", dead))
	if d.Allow || d.Reason != ReasonNoEntry || !reflect.DeepEqual(d.Shadow, want) {
		t.Errorf("%+v", d)
	}
	d = p.Decide(guardInput(p, bob(claim("roles", []any{"admin"})), "GET", "", "/r", dead))
	if !d.Allow || d.Rule != "r/admin" || !reflect.DeepEqual(d.Shadow, want) {
		t.Errorf("%+v", d)
	}
	if got := p.DryRuns(); !reflect.DeepEqual(got, []string{"deny", "pass", "err", "r/trial", "r/later"}) {
		t.Errorf("%v", got)
	}
}

// TestLookupIsReadLast: only where all other fields hold, and once.
func TestLookupIsReadLast(t *testing.T) {
	docs := &documents{by: map[string]map[string]any{"state/bob": {"blocked": false, "level": int64(1)}}}
	p := mustLoad(t, guardHeader+`guards: [{id: g, deny: {who: [users], if: lookup.state.blocked}}]
routes:
  - id: r
    path: /r
    methods: [GET]
    upstream: app
    allow:
      - {id: a, who: [users], roles: [admin], if: lookup.state.level > 5}
      - {id: b, who: [users], if: lookup.state.level == 1}
      - {id: c, who: [agents]}
`)
	d := p.Decide(guardInput(p, bob(), "GET", "", "/r", docs))
	if !d.Allow || d.Rule != "r/b" || len(docs.asked) != 1 {
		t.Errorf("%+v, read %v", d, docs.asked)
	}
	docs.asked = nil
	d = p.Decide(guardInput(p, bob(named("agents"), withUID("bot")), "GET", "", "/r", docs))
	if d.Rule != "r/c" || len(docs.asked) != 0 { // neither the guard nor another entry is about agents
		t.Errorf("%+v, read %v", d, docs.asked)
	}
}

func TestKeyPrefixInAGuard(t *testing.T) {
	p := mustLoad(t, guardHeader+`guards: [{id: g, deny: {who: [users], key_prefix: "users/${auth.uid}/private/"}}]`+guardRoutes)
	for path, want := range map[string]string{
		"/files/users/bob/a":         "file/own",
		"/files/users/bob/private/a": "403 deny_true",
		"/v1/items/a":                "item/user",
	} {
		in := guardInput(p, bob(), "GET", "", path, nil)
		if got := outcome(Match{Route: in.Route}, p.Decide(in)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	in := guardInput(p, bob(withUID("..")), "GET", "", "/files/users/bob/private/a", nil)
	if d := p.Decide(in); d.Allow || d.Reason != ReasonDenyError {
		t.Errorf("a uid that no key can hold: %+v", d)
	}
}

func TestActorAtAGuard(t *testing.T) {
	p := mustLoad(t, guardHeader+`guards: [{id: no-writes, deny: {methods: [POST]}}]`+guardRoutes)
	bot := bob(named("agents"), func(id *Identity) { id.Actor = "bot" })
	if d := p.Decide(guardInput(p, bot, "POST", "", "/v1/items/a", nil)); d.Allow || d.Rule != "no-writes" {
		t.Errorf("a guard without `who` is for everybody: %+v", d)
	}
	if d := p.Decide(guardInput(p, bot, "GET", "", "/v1/items/a", nil)); !d.Allow {
		t.Errorf("%+v", d)
	}
}

// TestReplayKnowsWhatItDoesNot: an input that is not on record makes a decision
// undecidable where it matters, and only there.
func TestReplayKnowsWhatItDoesNot(t *testing.T) {
	p := mustLoad(t, guardHeader+`guards: [{id: g, path: /g, deny: {who: [users], claims: {plan: [bad]}}}]
routes:
  - {id: r, path: /r, methods: [GET], upstream: app, allow: [{id: role, who: [users], roles: [admin]}, {id: old, who: [users], signed_in: 10m}]}
  - {id: s, path: /s, methods: [GET], upstream: app, allow: [{id: role, who: [users], roles: [admin]}]}
  - {id: t, path: /t, methods: [GET], upstream: app, allow: [{id: bot, who: [agents], roles: [admin]}]}
  - {id: g, path: /g, methods: [GET], upstream: app, allow: [{id: user, who: [users]}]}
  - {id: c, path: /c, methods: [GET], upstream: app, allow: [{who: [users], if: 'has(auth.token.plan) || auth.uid == "bob"'}]}
  - {id: l, path: /l, methods: [GET], upstream: app, allow: [{who: [users], if: has(lookup.state)}]}
`)
	for path, want := range map[string]bool{"/r": false, "/s": true, "/t": false, "/g": true, "/c": true, "/l": true} {
		in := guardInput(p, bob(), "GET", "", path, &documents{err: ErrUnrecorded})
		in.Recorded = func(string) bool { return false }
		d := p.Decide(in)
		if d.Undecidable != want || (want && d.Allow) {
			t.Errorf("%s: %+v", path, d)
		}
	}
}

func TestSchedules(t *testing.T) {
	at := func(s string) time.Time {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, c := range []struct {
		time, at string
		want     bool
	}{
		{"{days: mon-fri}", "2026-03-02T00:00:00Z", true}, // a Monday
		{"{days: mon-fri}", "2026-03-01T23:59:59Z", false},
		{"{days: sat-mon}", "2026-03-02T12:00:00Z", true},
		{"{days: sat-mon}", "2026-03-03T12:00:00Z", false},
		{"{days: [tue, thu]}", "2026-03-05T12:00:00Z", true},
		{`{hours: "07:00-20:00"}`, "2026-03-02T07:00:00Z", true},
		{`{hours: "07:00-20:00"}`, "2026-03-02T06:59:59Z", false},
		{`{hours: "07:00-20:00"}`, "2026-03-02T19:59:59Z", true},
		{`{hours: "07:00-20:00"}`, "2026-03-02T20:00:00Z", false},
		{`{hours: "00:00-24:00"}`, "2026-03-02T23:59:59Z", true},
		{`{hours: ["07:00-08:00", "12:00-13:00"]}`, "2026-03-02T12:30:00Z", true},
		{`{hours: "22:00-06:00", days: fri}`, "2026-03-06T23:00:00Z", true},  // Friday night
		{`{hours: "22:00-06:00", days: fri}`, "2026-03-07T05:59:00Z", true},  // which goes on
		{`{hours: "22:00-06:00", days: fri}`, "2026-03-06T05:00:00Z", false}, // Thursday's
		{`{hours: "07:00-20:00", zone: Europe/Berlin}`, "2026-03-02T06:00:00Z", true},
		{`{hours: "07:00-20:00", zone: Europe/Berlin}`, "2026-07-02T05:00:00Z", true}, // summer
		{`{hours: "07:00-20:00", zone: Europe/Berlin}`, "2026-03-02T05:59:00Z", false},
		{`{days: tue, zone: Asia/Tokyo}`, "2026-03-02T15:00:00Z", true},
	} {
		p := mustLoad(t, guardHeader+`guards: [{id: g, require: {time: `+c.time+`}}]`+guardRoutes)
		in := guardInput(p, bob(), "GET", "", "/v1/items/x", nil)
		in.Time = at(c.at)
		if d := p.Decide(in); d.Allow != c.want {
			t.Errorf("%s at %s: %+v", c.time, c.at, d)
		}
		in.Time = time.Time{}
		if d := p.Decide(in); d.Allow || d.Reason != ReasonRequireError {
			t.Errorf("%s without a clock: %+v", c.time, d)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		ip   string
		want bool
	}{
		{"198.51.100.0", true}, {"198.51.100.255", true}, {"198.51.101.0", false}, {"::ffff:198.51.100.7", true},
		{"203.0.113.9", true}, {"203.0.113.8", false}, {"2001:db8:5::1", true}, {"2001:db8:6::1", false},
	} {
		p := mustLoad(t, guardHeader+`vars: {office: [198.51.100.0/24, 203.0.113.9, "2001:db8:5::/48"]}
guards: [{id: g, require: {ip: "${vars.office}"}}]`+guardRoutes)
		in := guardInput(p, bob(), "GET", "", "/v1/items/x", nil)
		in.IP = netip.MustParseAddr(c.ip)
		if d := p.Decide(in); d.Allow != c.want {
			t.Errorf("%s: %+v", c.ip, d)
		}
		in.IP = netip.Addr{}
		if d := p.Decide(in); d.Allow || d.Reason != ReasonRequireError {
			t.Errorf("no address: %+v", d)
		}
	}
}

// TestDocumentsOfOneLookupAreKeptApart: guards and an entry that name different
// documents of one lookup are each judged by their own.
func TestDocumentsOfOneLookupAreKeptApart(t *testing.T) {
	p := mustLoad(t, `version: sidegate-policy/v1
identities: [users]
lookups: {share: {document: "shares/${sha256(params.x)}", fields: {open: bool}}}
guards:
  - {id: first, path: "/{x}/{rest...}", deny: {if: "!has(lookup.share)"}}
  - {id: second, path: "/{y}/{x}", deny: {if: "!has(lookup.share)"}}
routes:
  - {id: r, path: "/{x}/{y}", methods: [GET], upstream: app, allow: [{who: [users], if: lookup.share.open}]}
`)
	for _, open := range []bool{true, false} {
		docs := perDocument{docs: map[string]map[string]any{"shares/" + hashed("a"): {"open": open}, "shares/" + hashed("b"): {"open": !open}}}
		if d := p.Decide(guardInput(p, bob(), "GET", "", "/a/b", docs)); d.Allow != open {
			t.Errorf("a is open: %v, and %+v", open, d)
		}
	}
}

// TestUndecidableEndsWithARefusal: what is certain is decided, whatever else is
// not on record.
func TestUndecidableEndsWithARefusal(t *testing.T) {
	p := mustLoad(t, guardHeader+`guards:
  - {id: unsure, deny: {who: [users], roles: [x]}}
  - {id: sure, deny: {who: [users]}}
`+guardRoutes)
	in := guardInput(p, bob(), "GET", "", "/v1/items/x", nil)
	in.Recorded = func(string) bool { return false }
	if d := p.Decide(in); d.Undecidable || d.Rule != "sure" {
		t.Errorf("%+v", d)
	}
	p = mustLoad(t, guardHeader+`routes: [{id: up, path: /up, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "u/${auth.token.plan}/${uuid}"}}]`)
	in = guardInput(p, bob(), "POST", "", "/up", nil)
	in.UUID, in.Recorded = someUUID, func(string) bool { return false }
	if d := p.Decide(in); d.Allow || !d.Undecidable {
		t.Errorf("a key of what is not on record: %+v", d)
	}
}

// TestAgentsAreNotToldThatAClaimHelps where no claim would.
func TestAgentsAreNotToldThatAClaimHelps(t *testing.T) {
	p := mustLoad(t, header+`  - {id: r, path: /r, methods: [GET], upstream: app, allow: [{roles: [admin]}]}`)
	if d := p.Decide(guardInput(p, bob(func(id *Identity) { id.Actor = "bot" }), "GET", "", "/r", nil)); d.Allow || d.ClaimWouldHelp {
		t.Errorf("%+v", d)
	}
	if d := p.Decide(guardInput(p, bob(), "GET", "", "/r", nil)); d.Allow || !d.ClaimWouldHelp {
		t.Errorf("%+v", d)
	}
}

// TestTrialsReadNothingThatDecidesNothing: an entry in dry_run that reads a
// document is not asked once another allowed.
func TestTrialsReadNothingThatDecidesNothing(t *testing.T) {
	docs := &documents{by: map[string]map[string]any{"state/bob": {"level": int64(1)}}}
	p := mustLoad(t, guardHeader+`routes: [{id: r, path: /r, methods: [GET], upstream: app, allow: [{id: a, who: [users]}, {id: b, who: [users], if: lookup.state.level == 1, mode: dry_run, since: 2026-01-01}]}]`)
	if d := p.Decide(guardInput(p, bob(), "GET", "", "/r", docs)); !d.Allow || len(docs.asked) > 0 || d.Shadow != nil {
		t.Errorf("%+v, read %v", d, docs.asked)
	}
}
