package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// keptConditions are conditions of every key, alone and beside others, and of
// `if` with all that it can read.
var keptConditions = map[string][]string{
	"who":     {"who: [users]", "who: [agents, users]"},
	"methods": {"methods: [GET]", "methods: [POST], roles: [admin]"},
	"uid":     {`uid: "${params.x}"`, `uid: "${auth.actor}"`, `uid: bob, roles: [admin]`},
	"roles":   {"roles: [admin]", "roles: [dev, admin], verified_email: true"},
	"scopes":  {"scopes: [read, write]"},
	"org":     {`org: {id: "${params.x}", role: [owner]}`, `org: {id: "${auth.token.org_id}", role: [owner]}`, `org: {id: o1, role: [owner]}`},
	"claims":  {"claims: {plan: [pro]}", "claims: {plan: [pro, team], beta: [true], level: [3]}"},
	"ip":      {"ip: [198.51.100.0/24]", "ip: [198.51.100.0/24], roles: [admin]"},
	"time":    {`time: {hours: "08:00-13:00"}`, `time: {hours: "08:00-13:00"}, roles: [admin]`},
	"mfa":     {"mfa: 15m", "mfa: 15m, roles: [admin]"},
	"signed_in": {
		"signed_in: 15m", "signed_in: 15m, claims: {plan: [pro]}",
	},
	"verified_email": {"verified_email: true"},
	"providers":      {"providers: [password]"},
	"app_check":      {"app_check: true", "app_check: true, roles: [admin]"},
	"key_prefix":     {`key_prefix: "users/${auth.uid}/"`},
	"if": {
		`if: 'auth.token.plan == "pro"'`, `if: 'auth.token.roles.exists(r, r == "admin")', roles: [admin]`, `if: 'auth.token.level / (auth.token.level - 3) > 0'`,
		`verified_email: true, if: 'auth.email.endsWith("@acme.dev")'`, `if: 'auth.token.plan in vars.plans && request.method == "GET"'`,
		`if: 'request.time - auth.auth_time < duration("10m")'`, `if: 'auth.uid == params.x'`, `if: 'has(lookup.share) && auth.uid in lookup.share.readers', roles: [admin]`,
		`if: 'has(auth.token.since) && auth.token.since < request.time'`, `if: 'request.ip == "198.51.100.7"'`,
	},
}

// keptPeople are identities, made anew with each call.
func keptPeople() []*Identity {
	email := func(address string) func(*Identity) {
		return func(id *Identity) { id.Email, id.EmailVerified = address, true }
	}
	return []*Identity{
		bob(), bob(claim("roles", []any{"admin"}), claim("plan", "pro"), claim("level", json.Number("3")), claim("beta", true), email("bob@acme.dev")),
		bob(claim("roles", []any{"admin", 1}), claim("plan", 7), claim("level", "x"), claim("orgs", map[string]any{"o1": 1})),
		bob(withUID("x"), claim("orgs", map[string]any{"x": "owner", "o1": "owner"}), claim("org_id", "o1"), claim("scopes", []any{"read", "write"}), email("x@example.com")),
		bob(named("agents"), func(id *Identity) { id.SecondFactor, id.Provider, id.AuthTime = "totp", "password", time.Time{} }),
		bob(func(id *Identity) { id.SecondFactor, id.Provider, id.Actor = "totp", "password", "bob" }, claim("since", json.Number("1"))),
		bob(claim("level", json.Number("4")), claim("plan", "team"), claim("roles", []any{"dev"})),
	}
}

// keptInputs are requests that differ in all that is not the identity.
func keptInputs(p *Policy, id *Identity, paths ...string) []*Input {
	docs := &documents{by: map[string]map[string]any{sharesX: {"readers": []any{"bob"}}}}
	var out []*Input
	for _, path := range paths {
		for _, method := range []string{"GET", "POST"} {
			for _, at := range []time.Time{noon, noon.Add(6 * time.Hour), {}} {
				for _, ip := range []string{"198.51.100.7", "203.0.113.9"} {
					m := p.Match("gateway.test", path, method)
					if m.Route == nil {
						continue
					}
					in := &Input{Route: m.Route, Params: m.Params, Host: "gateway.test", Path: path, Method: method, Identity: id, Time: at, IP: netip.MustParseAddr(ip), Lookups: docs}
					in.AppCheck = ip == "198.51.100.7"
					out = append(out, in)
				}
			}
		}
	}
	return out
}

// TestKeptVerdicts: what was kept of earlier requests, of other routes, other
// policies and a copy of the identity among them, changes no decision.
func TestKeptVerdicts(t *testing.T) {
	for _, key := range conditionKeys {
		if len(keptConditions[key]) == 0 {
			t.Fatalf("no condition has %s", key)
		}
	}
	const top = `version: sidegate-policy/v1
identities: [users, agents]
claims: {roles: list(string), orgs: map(string), plan: string, level: int, beta: bool, since: timestamp, org_id: string, scopes: list(string)}
vars: {plans: [pro, team]}
lookups:
  share: {document: "shares/${sha256(params.x)}", fields: {readers: list(string)}}
`
	var routes, guards strings.Builder
	paths, n := []string{}, 0
	for _, key := range conditionKeys {
		for _, condition := range keptConditions[key] {
			if n++; key == "key_prefix" {
				for _, of := range []string{"bob", "x"} {
					paths = append(paths, fmt.Sprintf("/r%d/users/%s/a", n, of))
				}
				fmt.Fprintf(&routes, "  - {id: r%d, path: \"/r%d/{x...}\", methods: [GET], serve: presign_download, allow: [{who: [users], %s}], object: {key: \"${params.x}\"}}\n", n, n, condition)
				continue
			}
			paths = append(paths, fmt.Sprintf("/r%d/x", n), fmt.Sprintf("/r%d/bob", n))
			if entry := condition; key != "who" {
				entry = "who: [users], " + entry
				fmt.Fprintf(&routes, "  - {id: r%d, path: \"/r%d/{x}\", methods: [GET, POST], upstream: app, allow: [{%s}, {mode: dry_run, since: 2026-01-01, %s}]}\n", n, n, entry, entry)
			} else {
				fmt.Fprintf(&routes, "  - {id: r%d, path: \"/r%d/{x}\", methods: [GET, POST], upstream: app, allow: [{%s}]}\n", n, n, entry)
			}
			what := []string{"deny", "require"}[n%2]
			if strings.Contains(condition, "who") || !strings.Contains(condition, "uid") && !strings.Contains(condition, "share") {
				fmt.Fprintf(&guards, "  - {id: g%d, path: \"/r%d/{x}\", %s: {%s}}\n", n, n, what, condition)
			}
		}
	}
	text := top + "guards:\n" + guards.String() + "routes:\n" + routes.String()
	policies := []*Policy{mustLoad(t, text), mustLoad(t, text), mustLoad(t, strings.ReplaceAll(text, "[admin]", "[dev]"))}
	fresh, met := keptPeople(), map[string]bool{}
	for i, id := range keptPeople() {
		id = id.Keep()
		altered := *fresh[(i+1)%len(fresh)] // with what is kept of the other
		altered.Kept = id.Kept
		for range 2 {
			for _, p := range policies {
				for _, pair := range [][2]*Identity{{id, fresh[i]}, {&altered, fresh[(i+1)%len(fresh)]}} {
					kept, plain := keptInputs(p, pair[0], paths...), keptInputs(p, pair[1], paths...)
					for j := range kept {
						for range 2 {
							got, want := p.Decide(kept[j]), p.Decide(plain[j])
							if !reflect.DeepEqual(got, want) {
								t.Fatalf("%s %s: %+v, not %+v", kept[j].Method, kept[j].Path, got, want)
							}
							met[want.Reason] = true
						}
					}
				}
			}
		}
		for n := range id.Kept.verdicts {
			if id.Kept.verdicts[n].Load() == 0 {
				t.Errorf("nothing is kept in place %d", n)
			}
		}
	}
	for _, reason := range []string{ReasonEntry, ReasonNoEntry, ReasonEntryError, ReasonDenyTrue, ReasonDenyError, ReasonRequireFalse, ReasonRequireError} {
		if !met[reason] {
			t.Errorf("no decision was %s", reason)
		}
	}
}

// TestKeptVerdictsAreNotForReplays: a replay knows a part of the identity, and
// what it does not know is not taken from elsewhere.
func TestKeptVerdictsAreNotForReplays(t *testing.T) {
	p, id := celPolicy(t, `auth.token.plan == "pro"`), bob(claim("plan", "pro")).Keep()
	if d := p.Decide(celInputOf(p, id, nil)); !d.Allow {
		t.Fatalf("%+v", d)
	}
	in := celInputOf(p, id, nil)
	in.Recorded = func(string) bool { return false }
	if d := p.Decide(in); d.Allow || !d.Undecidable {
		t.Errorf("%+v", d)
	}
}

// BenchmarkDecideKept is a thousand users in turn, at conditions that look at
// who they are: each judged anew, and as it was kept.
func BenchmarkDecideKept(b *testing.B) {
	p := mustLoad(b, strings.TrimSuffix(header, "routes:\n")+`guards:
  - {id: suspended, deny: {claims: {plan: [suspended]}}}
  - {id: ours, require: {who: [users], verified_email: true, if: "auth.email.endsWith('@acme.dev')"}}
routes:
  - {id: items, path: "/v1/{id}/items", methods: [GET], upstream: app, allow: [{who: [users], roles: [writer]}]}
`)
	for _, name := range []string{"anew", "kept"} {
		b.Run(name, func(b *testing.B) {
			var ids [1000]*Identity
			for i := range ids {
				ids[i] = bob(claim("roles", []any{fmt.Sprint("team", i), "writer"}), claim("plan", fmt.Sprint("plan", i)))
				ids[i].Email, ids[i].EmailVerified = fmt.Sprintf("user%d@acme.dev", i), true
				if name == "kept" {
					ids[i] = ids[i].Keep()
				}
			}
			m := p.Match("api.acme.dev", "/v1/1/items", "GET")
			in := Input{Route: m.Route, Params: m.Params, Method: "GET", Host: "api.acme.dev", Path: "/v1/1/items", Time: noon}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				in.Identity = ids[i%len(ids)]
				if d := p.Decide(&in); !d.Allow {
					b.Fatal(d)
				}
			}
		})
	}
}
