package policy

import (
	"strings"
	"testing"
)

// The tests of this file and TestAttack... of key_test.go bear the names of
// classes of known vulnerabilities of gateways, in so far as the policy has a
// part in them. Paths come decoded: spelling is the proxy's part.

const attackRoutes = header + `
  - {id: site, path: "/{rest...}", methods: [GET, POST], upstream: app, allow: public}
  - {id: admin, path: "/admin/{rest...}", methods: [GET, POST], upstream: app, allow: [{who: [users], roles: [admin]}]}
  - {id: health, path: "/health", methods: [GET], upstream: app, allow: public}
  - {id: inner, host: [inner.acme.dev], path: "/{rest...}", methods: [GET], upstream: app, allow: [{who: [agents]}]}
  - {id: own, path: "/users/{uid}/{rest...}", methods: [GET], upstream: app, allow: [{who: [users], uid: "${params.uid}"}]}
`

func refused(t *testing.T, p *Policy, id *Identity, method, host string, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if m, d := ask(p, id, method, host, path); d.Allow {
			t.Errorf("%s %s%q: route %s allows it", method, host, path, m.Route.ID)
		}
	}
}

func TestAttackPathMismatch(t *testing.T) {
	p := mustLoad(t, attackRoutes)
	refused(t, p, bob(), "GET", "x.dev", "/admin", "/admin/", "/admin/x", "/admin/x/", "//admin/x", "/x//admin", "/admin//x", "admin/x", "")
}

func TestAttackQueryAndFragmentInMatch(t *testing.T) {
	p := mustLoad(t, attackRoutes)
	refused(t, p, bob(), "GET", "x.dev", "/admin/x?/health", "/admin/x#/health", "/admin/health", "/admin/x\x00/health")
}

func TestAttackDotSegments(t *testing.T) {
	p := mustLoad(t, attackRoutes)
	refused(t, p, bob(), "GET", "x.dev", "/users/alice/../bob", "/users/../bob/x", "/users/./bob/x")
	refused(t, p, bob(withUID("..")), "GET", "x.dev", "/users/alice/x")
}

func TestAttackHostMatching(t *testing.T) {
	p := mustLoad(t, attackRoutes)
	refused(t, p, bob(), "GET", "inner.acme.dev", "/", "/x", "/health/x")
	// A host that is not canonical never reaches the policy. Where it does, it
	// is another host: that routes for any host answer then is why the proxy
	// must refuse or mend it.
	if m := p.Match("INNER.acme.dev", "/x", "GET"); m.Route == nil || m.Route.ID != "site" {
		t.Errorf("%+v", m)
	}
}

func TestAttackMethodOverride(t *testing.T) {
	p := mustLoad(t, attackRoutes)
	refused(t, p, nil, "DELETE", "x.dev", "/admin/x", "/health")
	refused(t, p, nil, "get", "x.dev", "/admin/x", "/health")
	refused(t, p, bob(), "POST", "x.dev", "/health") // never the broader public route
}

func TestAttackAuthCacheKeyConfusion(t *testing.T) {
	p := mustLoad(t, attackRoutes)
	admin := bob(claim("roles", []any{"admin"}))
	for range 3 {
		if _, d := ask(p, admin, "GET", "x.dev", "/admin/x"); !d.Allow {
			t.Fatal("the admin is refused")
		}
		refused(t, p, bob(), "GET", "x.dev", "/admin/x")
	}
}

func TestAttackClaimParsing(t *testing.T) {
	p := mustLoad(t, attackRoutes)
	for _, roles := range []any{
		"admin", "[\"admin\"]", []any{"admin,x"}, []any{" admin"}, []any{"Admin"}, []any{"admin\x00"}, []any{[]any{"admin"}},
		map[string]any{"admin": true}, []string{"admin"}, true, nil,
	} {
		refused(t, p, bob(claim("roles", roles)), "GET", "x.dev", "/admin/x")
	}
}

func TestAttackIdentityMixUp(t *testing.T) {
	p := mustLoad(t, attackRoutes)
	for _, name := range []string{"agents", "worker", "mobile", "", "Users", "users "} {
		refused(t, p, bob(named(name)), "GET", "x.dev", "/users/bob/x")
	}
	refused(t, p, bob(func(id *Identity) { id.Actor = "bot"; id.Name = "agents" }), "GET", "x.dev", "/users/bob/x")
}

// TestAttackResourceExhaustion: long paths and hosts cost their length, not
// more, and match nothing surprising.
func TestAttackResourceExhaustion(t *testing.T) {
	p := mustLoad(t, attackRoutes)
	refused(t, p, bob(), "GET", "x.dev", "/admin/"+strings.Repeat("a/", 2000), "/users/alice/"+strings.Repeat("../", 1000))
	refused(t, p, bob(), "GET", strings.Repeat("a.", 1<<15), "/", "/health")
}

// TestOwnPathsAreNobodysRoute: a catch-all must not lead strangers to an
// upstream under the paths that the gateway keeps for itself.
func TestOwnPathsAreNobodysRoute(t *testing.T) {
	p := mustLoad(t, "version: sidegate-policy/v1\nroutes:\n  - {id: all, path: \"/{rest...}\", methods: [GET], upstream: app, allow: public}\n")
	for path, want := range map[string]string{
		"/.sidegate": ReasonNoRoute, "/.sidegate/": ReasonNoRoute, "/.sidegate/jwks.json": ReasonNoRoute,
		"/.sidegates": "", "/x/.sidegate": "",
	} {
		if m := p.Match("h", path, "GET"); m.Code() != want {
			t.Errorf("%s: %q, want %q", path, m.Code(), want)
		}
	}
}
