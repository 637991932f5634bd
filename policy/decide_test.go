package policy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

const someUUID = "0123456789abcdef0123456789abcdef"

// bob is a user of the tests' sidegate.yaml; change sets what differs.
func bob(change ...func(*Identity)) *Identity {
	id := &Identity{Name: "users", Namespace: "users", UID: "bob", AuthTime: noon.Add(-5 * time.Minute), Claims: ClaimMap{}}
	for _, c := range change {
		c(id)
	}
	return id
}

func claim(name string, value any) func(*Identity) {
	return func(id *Identity) { id.Claims.(ClaimMap)[name] = value }
}

func named(name string) func(*Identity) { return func(id *Identity) { id.Name = name } }

func withUID(uid string) func(*Identity) { return func(id *Identity) { id.UID = uid } }

// ask routes and decides as the gateway does.
func ask(p *Policy, id *Identity, method, host, path string) (Match, Decision) {
	m := p.Match(host, path, method)
	if m.Route == nil {
		return m, Decision{}
	}
	return m, p.Decide(&Input{Route: m.Route, Params: m.Params, Method: method, Identity: id, Time: noon, UUID: someUUID, Ext: ".jpg"})
}

// outcome is a decision in a word: the rule that allows, or the reason.
func outcome(m Match, d Decision) string {
	switch {
	case m.Route == nil:
		return m.Code()
	case d.Allow && d.Rule != "":
		return d.Rule
	case d.Allow:
		return d.Reason
	case d.ClaimWouldHelp:
		return fmt.Sprint(d.Status, " ", d.Reason, " claim")
	}
	return fmt.Sprint(d.Status, " ", d.Reason)
}

func TestEntryFields(t *testing.T) {
	long := strings.Repeat("x", maxString+1)
	many := make([]any, maxElements+1)
	crowd := map[string]any{}
	for i := range many {
		many[i] = "admin"
		crowd[fmt.Sprint("org", i)] = "owner"
	}
	crowd["o1"] = "owner"
	const (
		allowed = "r/1"
		denied  = "403 no_entry"
		lacks   = "403 no_entry claim"
		broken  = "403 entry_error"
		breaks  = "403 entry_error claim"
	)
	for _, c := range []struct {
		name, entry string
		id          *Identity
		want        string
	}{
		{"who", "who: [users]", bob(), allowed},
		{"who another", "who: [users]", bob(named("mobile")), denied},
		{"who of several", "who: [users, mobile]", bob(named("mobile")), allowed},
		{"no who, in identities", "methods: [GET]", bob(named("agents")), allowed},
		{"no who, not in identities", "methods: [GET]", bob(named("worker")), denied},
		{"no who, no name", "methods: [GET]", bob(named("")), denied},
		{"actor at an entry with who", "who: [users]", bob(func(id *Identity) { id.Actor = "bot" }), allowed},
		{"actor at an entry with another who", "who: [agents]", bob(func(id *Identity) { id.Actor = "bot" }), denied},
		{"actor at an entry without who", "methods: [GET]", bob(func(id *Identity) { id.Actor = "bot" }), denied},
		{"methods", "methods: [GET]", bob(), allowed},
		{"methods another", "methods: [PUT]", bob(), denied},
		{"uid", `who: [users], uid: "${params.x}"`, bob(), allowed},
		{"uid another", `who: [users], uid: "${params.x}"`, bob(withUID("bo")), denied},
		{"uid longer", `who: [users], uid: "${params.x}"`, bob(withUID("bobby")), denied},
		{"uid of other case", `who: [users], uid: "${params.x}"`, bob(withUID("Bob")), denied},
		{"uid empty", `who: [users], uid: "${params.x}"`, bob(withUID("")), denied},
		{"uid empty and an empty rest", `who: [users], uid: "${params.rest}"`, bob(withUID("")), denied},
		{"uid literal", `who: [users], uid: bob`, bob(), allowed},
		{"uid with text", `who: [users], uid: "b${params.x}"`, bob(withUID("bbob")), allowed},
		{"roles", "who: [users], roles: [admin, ops]", bob(claim("roles", []any{"x", "ops"})), allowed},
		{"roles none of them", "who: [users], roles: [admin]", bob(claim("roles", []any{"administrator"})), lacks},
		{"roles empty", "who: [users], roles: [admin]", bob(claim("roles", []any{})), lacks},
		{"roles absent", "who: [users], roles: [admin]", bob(), lacks},
		{"roles null", "who: [users], roles: [admin]", bob(claim("roles", nil)), breaks},
		{"roles a string", "who: [users], roles: [admin]", bob(claim("roles", "admin")), breaks},
		{"roles of mixed types", "who: [users], roles: [admin]", bob(claim("roles", []any{"admin", true})), breaks},
		{"roles too many", "who: [users], roles: [admin]", bob(claim("roles", many)), breaks},
		{"roles too long", "who: [users], roles: [admin]", bob(claim("roles", []any{"admin", long})), breaks},
		{"roles, and another identity", "who: [agents], roles: [admin]", bob(), denied},
		{"org", `who: [users], org: {id: o1, role: [owner, editor]}`, bob(claim("orgs", map[string]any{"o1": "editor"})), allowed},
		{"org of the path", `who: [users], org: {id: "${params.x}", role: [owner]}`, bob(claim("orgs", map[string]any{"bob": "owner"})), allowed},
		{"org another", `who: [users], org: {id: o1, role: [owner]}`, bob(claim("orgs", map[string]any{"o2": "owner"})), lacks},
		{"org another role", `who: [users], org: {id: o1, role: [owner]}`, bob(claim("orgs", map[string]any{"o1": "viewer"})), lacks},
		{"org empty id", `who: [users], org: {id: "${params.rest}", role: [owner]}`, bob(claim("orgs", map[string]any{"": "owner"})), lacks},
		{"org absent", `who: [users], org: {id: o1, role: [owner]}`, bob(), lacks},
		{"org a list", `who: [users], org: {id: o1, role: [owner]}`, bob(claim("orgs", []any{"o1"})), breaks},
		{"org role of another type", `who: [users], org: {id: o1, role: [owner]}`, bob(claim("orgs", map[string]any{"o1": []any{"owner"}})), breaks},
		{"org too many", `who: [users], org: {id: o1, role: [owner]}`, bob(claim("orgs", crowd)), breaks},
		{"claims", "who: [users], claims: {plan: [pro, team]}", bob(claim("plan", "team")), allowed},
		{"claims all of them", "who: [users], claims: {plan: [pro], level: [3]}", bob(claim("plan", "pro"), claim("level", json.Number("3"))), allowed},
		{"claims one of two", "who: [users], claims: {plan: [pro], level: [3]}", bob(claim("plan", "pro"), claim("level", json.Number("4"))), lacks},
		{"claims another", "who: [users], claims: {plan: [pro]}", bob(claim("plan", "pro ")), lacks},
		{"claims absent", "who: [users], claims: {plan: [pro]}", bob(), lacks},
		{"claims of another type", "who: [users], claims: {plan: [pro]}", bob(claim("plan", []any{"pro"})), breaks},
		{"claims too long", "who: [users], claims: {plan: [pro]}", bob(claim("plan", long)), breaks},
		{"claims int as text", "who: [users], claims: {level: [3]}", bob(claim("level", "3")), breaks},
		{"claims int with a point", "who: [users], claims: {level: [3]}", bob(claim("level", json.Number("3.0"))), breaks},
		{"claims int too large", "who: [users], claims: {level: [3]}", bob(claim("level", json.Number("36893488147419103235"))), breaks},
		{"claims bool", "who: [users], claims: {beta: [true]}", bob(claim("beta", true)), allowed},
		{"claims bool false", "who: [users], claims: {beta: [true]}", bob(claim("beta", false)), lacks},
		{"claims bool as text", "who: [users], claims: {beta: [true]}", bob(claim("beta", "true")), breaks},
		{"false wins over error", "who: [agents], claims: {plan: [pro]}", bob(claim("plan", 7)), denied},
		{"signed in", "who: [users], signed_in: 5m", bob(), allowed},
		{"signed in too long ago", "who: [users], signed_in: 299s", bob(), denied},
		{"signed in unknown when", "who: [users], signed_in: 5m", bob(func(id *Identity) { id.AuthTime = time.Time{} }), denied},
		{"signed in by a fast clock", "who: [users], signed_in: 5m", bob(func(id *Identity) { id.AuthTime = noon.Add(maxSkew) }), allowed},
		{"signed in ahead", "who: [users], signed_in: 5m", bob(func(id *Identity) { id.AuthTime = noon.Add(maxSkew + 1) }), broken},
		{"verified email", "who: [users], verified_email: true", bob(func(id *Identity) { id.Email, id.EmailVerified = "b@x.dev", true }), allowed},
		{"unverified email", "who: [users], verified_email: true", bob(func(id *Identity) { id.Email = "b@x.dev" }), denied},
		{"verified without email", "who: [users], verified_email: true", bob(func(id *Identity) { id.EmailVerified = true }), denied},
	} {
		p := mustLoad(t, header+`  - {id: r, path: "/r/{x}/{rest...}", methods: [GET, PUT], upstream: app, allow: [{`+c.entry+`}]}`)
		if got := outcome(ask(p, c.id, "GET", "", "/r/bob")); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if got := outcome(ask(p, nil, "GET", "", "/r/bob")); got != "401 no_token" {
			t.Errorf("%s: nobody: %s", c.name, got)
		}
	}
}

func TestRoutesDecideAlone(t *testing.T) {
	p := mustLoad(t, header+`
  - {id: all, path: "/{rest...}", methods: [GET, POST, DELETE], upstream: app, allow: public}
  - {id: admin, path: "/admin/{rest...}", methods: [GET], upstream: app, allow: [{who: [agents]}]}
  - {id: login, path: "/admin/login", methods: [GET], upstream: app, allow: optional}
  - {id: write, path: "/admin/login/", methods: [POST], upstream: app, allow: [{id: a, who: [agents]}, {id: b, who: [agents, users]}]}
  - {id: host, host: [api.acme.dev], path: "/admin/{rest...}", methods: [POST], upstream: app, allow: public}
  - {id: wild, host: ["*.acme.dev"], path: "/admin/x", methods: [GET], upstream: app, allow: public}
  - {id: wilder, host: ["*.eu.acme.dev"], path: "/admin/{rest...}", methods: [GET], upstream: app, allow: public}
  - {id: six, host: ["[2001:db8::1]"], path: "/", methods: [OPTIONS], upstream: app, allow: public}
`)
	for _, c := range []struct{ request, route, want string }{
		{"GET x.dev /", "all", "public"},
		{"HEAD x.dev /a/b", "all", "public"},
		{"PATCH x.dev /a", "", "method"},
		{"GET x.dev /admin", "admin", "403 no_entry"},
		{"GET x.dev /admin/", "admin", "403 no_entry"},
		{"DELETE x.dev /admin/x", "", "method"}, // never the broader route
		{"GET x.dev /admin/login", "login", "public"},
		{"GET x.dev /admin/login/", "login", "public"},
		{"POST x.dev /admin/login", "write", "write/b"},
		{"GET x.dev /Admin/x", "all", "public"},
		{"POST api.acme.dev /admin/x", "host", "public"},
		{"GET api.acme.dev /admin/x", "", "method"},
		{"GET api.acme.dev /b", "all", "public"},
		{"GET www.acme.dev /admin/x", "wild", "public"},
		{"GET www.acme.dev /admin/y", "admin", "403 no_entry"},
		{"GET acme.dev /admin/x", "admin", "403 no_entry"},
		{"GET evilacme.dev /admin/x", "admin", "403 no_entry"},
		{"GET a.eu.acme.dev /admin/x", "wilder", "public"},
		{"GET a.b.acme.dev /admin/x", "wild", "public"},
		{"OPTIONS [2001:db8::1] /", "six", "public"},
		{"GET x.dev //admin", "", "no_route"},
		{"GET x.dev /a//admin", "", "no_route"},
		{"GET x.dev admin", "", "no_route"},
		{"OPTIONS x.dev *", "", "no_route"},
		{"get x.dev /", "", "method"},
		{"TRACE x.dev /", "", "method"},
		{"GET " + strings.Repeat("a.", 200) + "acme.dev /admin/x", "", "no_route"},
	} {
		f := strings.Fields(c.request)
		m, d := ask(p, bob(), f[0], f[1], f[2])
		route := ""
		if m.Route != nil {
			route = m.Route.ID
		}
		if got := outcome(m, d); got != c.want || route != c.route {
			t.Errorf("%.60s: route %q %s, want %q %s", c.request, route, got, c.route, c.want)
		}
	}
	if m := p.Match("", "/admin/login", "DELETE"); !reflect.DeepEqual(m.Allowed, []string{"GET", "HEAD", "POST"}) {
		t.Errorf("Allow: %v", m.Allowed)
	}
	if _, d := ask(p, nil, "GET", "", "/admin/login"); !d.Allow {
		t.Error("an optional route refuses nobody")
	}
}

func TestZeroValuesDeny(t *testing.T) {
	var none Decision
	if none.Allow {
		t.Error("the zero Decision allows")
	}
	for name, c := range map[string]struct {
		in   Input
		want Decision
	}{
		"zero input":           {Input{}, Decision{Status: 404, Reason: ReasonNoRoute}},
		"zero route":           {Input{Route: &Route{}}, Decision{Status: 401, Reason: ReasonNoToken}},
		"zero route, a caller": {Input{Route: &Route{}, Identity: bob()}, Decision{Status: 403, Reason: ReasonNoEntry}},
		"zero object":          {Input{Route: &Route{Object: &Object{}}, Identity: bob()}, Decision{Status: 403, Reason: ReasonNoEntry}},
		"an empty caller":      {Input{Route: &Route{}, Identity: &Identity{}}, Decision{Status: 403, Reason: ReasonNoEntry}},
	} {
		if got := new(Policy).Decide(&c.in); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if m := new(Policy).Match("", "/", "GET"); m.Route != nil || m.Code() != ReasonNoRoute {
		t.Errorf("the zero Policy routes: %+v", m)
	}
	var m Match
	if m.Code() != ReasonNoRoute {
		t.Errorf("the zero Match is %q", m.Code())
	}
}

// TestSignedInNeedsAClock: an Input whose Time was forgotten is before every
// sign-in, and must not make it a fresh one.
func TestSignedInNeedsAClock(t *testing.T) {
	p := mustLoad(t, header+`  - {id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users], signed_in: 5m}]}`)
	m := p.Match("", "/r", "GET")
	if d := p.Decide(&Input{Route: m.Route, Method: "GET", Identity: bob()}); d.Allow || d.Reason != ReasonEntryError {
		t.Errorf("%+v", d)
	}
}

func TestInputIsNotCarriedOver(t *testing.T) {
	p := mustLoad(t, header+`  - {id: up, path: /up, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "u/${auth.uid}/${uuid}"}}
  - {id: app, path: /app, methods: [POST], upstream: app, allow: [{who: [users]}]}`)
	in := Input{Route: p.Routes[0], Method: "POST", Identity: bob(), Time: noon, UUID: someUUID}
	if d := p.Decide(&in); d.Key != "u/bob/"+someUUID {
		t.Fatalf("%+v", d)
	}
	in.Route = p.Routes[1]
	if d := p.Decide(&in); !d.Allow || d.Key != "" {
		t.Errorf("a key of the decision before: %+v", d)
	}
}

func TestInputs(t *testing.T) {
	p := mustLoad(t, header+`
  - {id: a, path: /a, methods: [GET], upstream: app, allow: [{who: [users]}]}
  - {id: b, path: /b, methods: [GET], upstream: app, allow: [{who: [users], roles: [x], claims: {plan: [y]}}, {who: [users], verified_email: true}]}
  - {id: c, path: /c, methods: [POST], serve: presign_upload, allow: [{who: [users], verified_email: true}], object: {key: "u/${auth.email}/${auth.token.org_id}/${uuid}"}}
`)
	id := bob(claim("plan", "y"), claim("org_id", "o"), claim("secret", "s"))
	id.Email, id.EmailVerified = "b@x.dev", true
	want := map[string]any{"claims": map[string]any{"plan": "y", "org_id": "o"}, "absent": []string{"roles"}, "email": "b@x.dev", "email_verified": true}
	var room InputsRoom
	for _, r := range p.Routes { // what the policy reads, wherever: so another policy can be held against it
		if got := p.Inputs(&Input{Route: r, Identity: id}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", r.ID, got, want)
		}
		if got := p.Inputs(&Input{Route: r}); got != nil {
			t.Errorf("nobody: %v", got)
		}
		room.Clear()
		if got := p.InputsIn(&room, &Input{Route: r, Identity: id}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s, after others: %v, want %v", r.ID, got, want)
		}
		room.Clear()
		if got := p.InputsIn(&room, &Input{Route: r}); got != nil {
			t.Errorf("nobody, after others: %v", got)
		}
	}
}

// TestDefaultRoutes is an upload application at the level of the policy: presign an
// upload, confirm it, and download one's own keys.
func TestDefaultRoutes(t *testing.T) {
	data, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p := mustLoad(t, string(data))
	if p.Name != "photos-api" || len(p.SHA256) != 64 || len(p.Routes) != 9 {
		t.Fatalf("%s %s, %d routes", p.Name, p.SHA256, len(p.Routes))
	}
	member := bob(claim("org_id", "acme"))
	for _, c := range []struct {
		id                 *Identity
		request, want, key string
	}{
		{bob(), "POST /v1/uploads/presign", "presign-upload/user", "users/bob/uploads/" + someUUID + ".jpg"},
		{nil, "POST /v1/uploads/presign", "401 no_token", ""},
		{bob(named("agents")), "POST /v1/uploads/presign", "403 no_entry", ""},
		{bob(), "GET /v1/uploads/presign", "method", ""},
		{bob(), "POST /v1/uploads/0123/confirm", "confirm-upload/user", ""},
		{bob(), "GET /v1/files/users/bob/uploads/a.jpg/download", "presign-download/own", "users/bob/uploads/a.jpg"},
		{bob(), "GET /v1/files/users/bob/uploads/a.jpg/download/", "presign-download/own", "users/bob/uploads/a.jpg"},
		{bob(), "HEAD /v1/files/users/bob/a/download", "presign-download/own", "users/bob/a"},
		{bob(), "GET /v1/files/users/bobby/a/download", "403 no_entry", ""},
		{bob(), "GET /v1/files/users/alice/a/download", "403 no_entry", ""},
		{bob(), "GET /v1/files/users/bob/download", "403 no_entry", ""},
		{bob(), "GET /v1/files/users/bob/../alice/a/download", "403 no_entry", ""},
		{bob(), "GET /v1/files/users/bob/./a/download", "403 no_entry", ""},
		{bob(), "GET /v1/files/download", "403 no_entry", ""},
		{bob(), "GET /v1/files/orgs/acme/a/download", "403 no_entry", ""},
		{member, "GET /v1/files/orgs/acme/a/download", "presign-download/team-folder", "orgs/acme/a"},
		{bob(claim("org_id", "../users")), "GET /v1/files/orgs/acme/a/download", "403 no_entry", ""},
		{bob(claim("org_id", 7)), "GET /v1/files/orgs/acme/a/download", "403 entry_error", ""},
		{nil, "GET /v1/files/users/bob/a/download", "401 no_token", ""},
		{bob(), "GET /v1/users/bob/files/a", "user-files/own", ""},
		{bob(), "GET /v1/users/alice/files/a", "403 no_entry claim", ""},
		{bob(claim("roles", []any{"support"})), "GET /v1/users/alice/files/a", "user-files/support-read", ""},
		{bob(claim("roles", []any{"support"})), "PUT /v1/users/alice/files/a", "403 no_entry", ""},
		{nil, "GET /v1/catalog/x", "public", ""},
		{bob(), "GET /v1/other", "no_route", ""},
	} {
		method, path, _ := strings.Cut(c.request, " ")
		m, d := ask(p, c.id, method, "gateway.test", path)
		if got := outcome(m, d); got != c.want || d.Key != c.key {
			t.Errorf("%s: %s %q, want %s %q", c.request, got, d.Key, c.want, c.key)
		}
		if d.Key != "" && !ValidKey(d.Key) {
			t.Errorf("%s: the key %q is not valid", c.request, d.Key)
		}
	}
}

func TestKnownMethod(t *testing.T) {
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
		if !KnownMethod(m) {
			t.Errorf("%s is not known", m)
		}
	}
	for _, m := range []string{"", "get", "TRACE", "CONNECT", "PROPFIND", "GET "} {
		if KnownMethod(m) {
			t.Errorf("%q is known", m)
		}
	}
}
