package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const celHeader = `version: sidegate-policy/v1
identities: [users, agents]
claims: {roles: list(string), orgs: map(string), plan: string, level: int, beta: bool, score: double, since: timestamp, org_id: string, quotas: map(int), marks: list(double)}
vars: {plans: [pro, team], limit: 3, floor: 0.5, on: true, office: [198.51.100.0/24], name: acme}
lookups:
  share: {document: "shares/${sha256(params.x)}", fields: {readers: list(string), until: timestamp, count: int, open: bool, ratio: double, note: string, by: map(string)}}
routes:
`

func celPolicy(t testing.TB, condition string) *Policy {
	t.Helper()
	return mustLoad(t, celHeader+"  - {id: r, path: \"/r/{x}\", methods: [GET, POST], upstream: app, allow: [{who: [users], if: '"+condition+"'}]}\n")
}

// documents is a Lookups that holds its contract: documents by name, or an
// error for all.
type documents struct {
	by    map[string]map[string]any
	err   error
	asked []string
}

func (d *documents) Lookup(_ *Lookup, name string) (Document, error) {
	d.asked = append(d.asked, name)
	if d.err != nil {
		return Document{}, d.err
	}
	fields, ok := d.by[name]
	return Document{Exists: ok, Fields: fields}, nil
}

// sharesX is the name of the document of lookup share for the capture "x".
const sharesX = "shares/2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"

func celInputOf(p *Policy, id *Identity, docs Lookups) *Input {
	m := p.Match("gateway.test", "/r/x", "GET")
	return &Input{Route: m.Route, Params: m.Params, Host: "gateway.test", Path: "/r/x", Method: "GET", Identity: id, Time: noon, IP: netip.MustParseAddr("198.51.100.7"), Lookups: docs}
}

// TestConditions: the values that conditions see, of each type, and what is an
// error.
func TestConditions(t *testing.T) {
	id := bob(claim("roles", []any{"admin", "dev"}), claim("orgs", map[string]any{"o1": "owner"}), claim("plan", "pro"), claim("level", json.Number("3")),
		claim("beta", true), claim("score", json.Number("1.5")), claim("since", json.Number("1700000000")), claim("quotas", map[string]any{"a": json.Number("5")}))
	id.Email, id.Tenant, id.Provider = "bob@acme.dev", "t1", "google.com"
	until := noon.Add(time.Hour)
	docs := &documents{by: map[string]map[string]any{sharesX: {
		"readers": []any{"alice", "bob"}, "until": until, "count": int64(2), "open": true, "ratio": 0.5, "by": map[string]any{"a": "b"},
	}}}
	for condition, want := range map[string]string{
		`auth.uid == "bob"`:                                        "r/1",
		`auth.uid == "alice"`:                                      "403 no_entry",
		`auth.identity == "users"`:                                 "r/1",
		`auth.tenant == "t1"`:                                      "r/1",
		`auth.actor == ""`:                                         "r/1",
		`has(auth.actor)`:                                          "403 no_entry",
		`has(auth.tenant)`:                                         "r/1",
		`auth.provider == "google.com"`:                            "r/1",
		`!auth.email_verified`:                                     "r/1",
		`auth.auth_time < request.time`:                            "r/1",
		`request.time - auth.auth_time < duration("10m")`:          "r/1",
		`"admin" in auth.token.roles`:                              "r/1",
		`auth.token.roles.exists(r, r.startsWith("ad"))`:           "r/1",
		`auth.token.orgs["o1"] == "owner"`:                         "r/1",
		`auth.token.orgs.o1 == "owner"`:                            "r/1",
		`auth.token.orgs["o2"] == "owner"`:                         "403 entry_error",
		`"o2" in auth.token.orgs`:                                  "403 no_entry",
		`auth.token.level == 3`:                                    "r/1",
		`auth.token.level >= vars.limit`:                           "r/1",
		`auth.token.score > vars.floor`:                            "r/1",
		`auth.token.beta && vars.on`:                               "r/1",
		`auth.token.plan in vars.plans`:                            "r/1",
		`auth.token.since < request.time`:                          "r/1",
		`auth.token.quotas["a"] == 5`:                              "r/1",
		`has(auth.token.org_id)`:                                   "403 no_entry",
		`has(auth.token.plan)`:                                     "r/1",
		`auth.token.org_id == "x"`:                                 "403 entry_error",
		`auth.token.org_id == "x" || auth.uid == "bob"`:            "r/1",
		`has(auth.token.org_id) && auth.token.org_id == "x"`:       "403 no_entry",
		`params.x == "x"`:                                          "r/1",
		`request.method == "GET"`:                                  "r/1",
		`request.host == "gateway.test" && request.path == "/r/x"`: "r/1",
		`request.ip == "198.51.100.7"`:                             "r/1",
		`vars.name == "acme"`:                                      "r/1",
		`has(lookup.share)`:                                        "r/1",
		`auth.uid in lookup.share.readers && request.time < lookup.share.until`:                                    "r/1",
		`lookup.share.count == 2 && lookup.share.open && lookup.share.ratio == 0.5 && lookup.share.by["a"] == "b"`: "r/1",
		`has(lookup.share.note)`:           "403 no_entry",
		`lookup.share.note == "x"`:         "403 entry_error",
		`request.time.getDayOfWeek() == 1`: "r/1",
		`auth.uid.matches("^b.b$")`:        "r/1",
		`[1, 2].all(i, i < vars.limit)`:    "r/1",
		`1 / (auth.token.level - 3) == 1`:  "403 entry_error",
	} {
		p := celPolicy(t, condition)
		in := celInputOf(p, id, docs)
		if got := outcome(Match{Route: in.Route}, p.Decide(in)); got != want {
			t.Errorf("%s: %s, want %s", condition, got, want)
		}
	}
}

func TestConditionsOfNobodyAndHEAD(t *testing.T) {
	p := celPolicy(t, `request.method == "GET"`)
	in := celInputOf(p, bob(), nil)
	in.Method = "HEAD"
	if d := p.Decide(in); !d.Allow {
		t.Errorf("HEAD is not GET in a condition: %+v", d)
	}
	p = celPolicy(t, `auth.uid != "alice"`)
	if d := p.Decide(celInputOf(p, nil, nil)); d.Allow || d.Status != 401 {
		t.Errorf("%+v", d)
	}
}

// TestClaimsOfAnotherType: a claim or a field of another type than declared,
// or larger than the bounds, is an error, whatever the condition.
func TestClaimsOfAnotherType(t *testing.T) {
	many := make([]any, maxElements+1)
	for i := range many {
		many[i] = "x"
	}
	for _, c := range []struct {
		condition string
		change    func(*Identity)
	}{
		{`"x" in auth.token.roles`, claim("roles", "x")},
		{`"x" in auth.token.roles`, claim("roles", []any{"x", 1})},
		{`"x" in auth.token.roles`, claim("roles", many)},
		{`auth.token.plan != ""`, claim("plan", strings.Repeat("x", maxString+1))},
		{`auth.token.plan != ""`, claim("plan", nil)},
		{`auth.token.level < 5`, claim("level", json.Number("1.5"))},
		{`auth.token.level < 5`, claim("level", "1")},
		{`auth.token.beta || true`, claim("nothing", 1)},
		{`auth.token.score < 9.0`, claim("score", "1")},
		{`auth.token.since < request.time`, claim("since", json.Number("-1"))},
		{`auth.token.since < request.time`, claim("since", "yesterday")},
		{`size(auth.token.orgs) > 0`, claim("orgs", map[string]any{"a": 1})},
	} {
		p := celPolicy(t, c.condition)
		d := p.Decide(celInputOf(p, bob(c.change), nil))
		if strings.HasSuffix(c.condition, "|| true") {
			if !d.Allow {
				t.Errorf("%s: %+v", c.condition, d)
			}
			continue
		}
		if d.Allow || d.Reason != ReasonEntryError {
			t.Errorf("%s: %+v", c.condition, d)
		}
	}
}

func TestCostIsBounded(t *testing.T) {
	cheap := celPolicy(t, `auth.uid in lookup.share.readers && auth.token.roles.exists(r, r == "admin")`)
	if e := cheap.Routes[0].entries[0].facts.expr; !e.bounded {
		t.Error("a plain condition is not bounded")
	}
	p := celPolicy(t, `auth.token.roles.all(r, !(r in lookup.share.readers))`)
	e := p.Routes[0].entries[0].facts.expr
	if e.bounded {
		t.Fatal("a dear condition counts as bounded")
	}
	many := make([]any, maxElements)
	for i := range many {
		many[i] = fmt.Sprint("r", i)
	}
	docs := &documents{by: map[string]map[string]any{sharesX: {"readers": many}}}
	if d := p.Decide(celInputOf(p, bob(claim("roles", []any{"a", "b"})), docs)); !d.Allow {
		t.Errorf("within the limit: %+v", d)
	}
	roles := make([]any, maxElements)
	for i := range roles {
		roles[i] = fmt.Sprint("x", i)
	}
	d := p.Decide(celInputOf(p, bob(claim("roles", roles)), docs))
	if d.Allow || d.Reason != ReasonEntryError {
		t.Errorf("over the limit: %+v", d)
	}
}

// TestListsAreMadeOnce: a loop that reads a map again and again costs what its
// steps cost, not that many copies.
func TestListsAreMadeOnce(t *testing.T) {
	orgs := map[string]any{}
	for i := range maxElements {
		orgs[fmt.Sprint("org", i)] = "viewer"
	}
	p := celPolicy(t, `auth.token.orgs.all(o, auth.token.orgs[o] != "owner")`)
	in := celInputOf(p, bob(claim("orgs", orgs)), nil)
	if d := p.Decide(in); !d.Allow || len(in.claims) != 1 {
		t.Fatalf("%+v, made %d times", d, len(in.claims))
	}
	if n := testing.AllocsPerRun(3, func() { p.Decide(in) }); n > 20*maxElements {
		t.Errorf("%v allocations", n)
	}
}

// countedClaims make a value for each who asks, as a token's do.
type countedClaims struct {
	ClaimMap
	asked map[string]int
}

func (c *countedClaims) Claim(name string) (any, bool) {
	c.asked[name]++
	return c.ClaimMap.Claim(name)
}

// TestClaimsAreAskedForOnce: a token looks for a claim among all that it has, and
// makes it anew each time. A loop that did so at each step cost a caller with a
// thousand roles nothing, and the gateway half a second for each request.
func TestClaimsAreAskedForOnce(t *testing.T) {
	roles, orgs := make([]any, maxElements), map[string]any{}
	for i := range roles {
		roles[i] = fmt.Sprint("r", i)
		orgs[fmt.Sprint("r", i)] = "viewer"
	}
	p := celPolicy(t, `auth.token.roles.exists(r, has(auth.token.orgs) && auth.token.orgs[r] == "owner" || has(auth.token.plan) || auth.token.level > 3)`)
	claims := &countedClaims{ClaimMap: ClaimMap{"roles": roles, "orgs": orgs, "level": json.Number("1")}}
	id := bob()
	id.Claims = claims
	in := celInputOf(p, id, nil)
	for range 2 { // the second time of another caller
		claims.asked = map[string]int{}
		if d := p.Decide(in); d.Allow || d.Reason != ReasonNoEntry {
			t.Fatalf("%+v", d)
		}
		if want := map[string]int{"roles": 1, "orgs": 1, "plan": 1, "level": 1}; !maps.Equal(claims.asked, want) {
			t.Errorf("asked for %v", claims.asked)
		}
		other := *id
		in.Identity = &other
	}
	// One of more decisions on a request finds what the others made.
	before := *in
	for range 3 {
		claims.asked = map[string]int{}
		p.Decide(in)
		in.Restore(before)
	}
	if p.Inputs(in); len(claims.asked) > 0 {
		t.Errorf("asked again for %v", claims.asked)
	}
	paying := *id
	paying.Claims = ClaimMap{"roles": roles, "orgs": orgs, "plan": "pro", "level": json.Number("1")}
	in.Identity = &paying
	if d := p.Decide(in); !d.Allow {
		t.Errorf("what another caller has counts: %+v", d)
	}
}

// TestTemplatesAskForClaimsOnce: a hundred entries that name what they compare by a
// claim, which a token has as a list of thousands, made that list a hundred times for
// each item of a batch.
func TestTemplatesAskForClaimsOnce(t *testing.T) {
	entries := strings.Repeat(`{who: [users], org: {id: "${auth.token.plan}-x", role: [owner]}}, `, 100)
	p := mustLoad(t, celHeader+"  - {id: r, path: \"/r/{x}\", methods: [GET, POST], upstream: app, allow: ["+entries+"]}\n")
	for _, plan := range []any{[]any{json.Number("1"), json.Number("2")}, "pro"} {
		claims := &countedClaims{ClaimMap{"orgs": map[string]any{"o1": "owner"}, "plan": plan}, map[string]int{}}
		id := bob()
		id.Claims = claims
		in := celInputOf(p, id, nil)
		before := *in
		for range 3 { // items
			if d := p.Decide(in); d.Allow {
				t.Fatalf("%+v", d)
			}
			in.Restore(before)
		}
		if want := map[string]int{"orgs": 1, "plan": 1}; !maps.Equal(claims.asked, want) {
			t.Errorf("plan %v: asked for %v", plan, claims.asked)
		}
	}
}

func TestLookupsThatFail(t *testing.T) {
	for name, c := range map[string]struct {
		docs   Lookups
		status int
		reason string
	}{
		"none":    {nil, 503, ReasonUnavailable},
		"dead":    {&documents{err: errors.New("gone")}, 503, ReasonUnavailable},
		"missing": {&documents{}, 403, ReasonEntryError},
		"wrong":   {&documents{by: map[string]map[string]any{sharesX: {"readers": "bob"}}}, 403, ReasonEntryError},
	} {
		p := celPolicy(t, `auth.uid in lookup.share.readers`)
		if d := p.Decide(celInputOf(p, bob(), c.docs)); d.Allow || d.Status != c.status || d.Reason != c.reason {
			t.Errorf("%s: %+v", name, d)
		}
	}
}
