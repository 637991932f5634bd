package policy

import (
	"strings"
	"testing"
)

// actorEnv has users, agents that act for them, and robots, whose uids are
// nobody else's.
func actorEnv() *Environment {
	return &Environment{
		Identities: map[string]string{"users": "users", "agents": "users", "robots": "robots"},
		Actors:     map[string]bool{"users": false, "agents": true, "robots": true},
		Upstreams: map[string]Upstream{
			"app": {}, "nameless": {NoIdentity: true}, "actorless": {NoActor: true}, "legacy": {NoIdentity: true, NoActor: true},
		},
		Buckets: map[string]Bucket{"default": {}}, Lookups: true,
	}
}

const actorHeader = `version: sidegate-policy/v1
identities: [users, agents, robots]
claims: {roles: list(string)}
`

func agent(id *Identity) { id.Name, id.Actor = "agents", "gallery-bot" }

// TestActorsAreLetInByName: whoever acts for a user is let in by an entry that
// names its identity, and by no other, whatever else that one asks for.
func TestActorsAreLetInByName(t *testing.T) {
	const text = actorHeader + `routes:
  - {id: all, path: "/all/{uid}", methods: [GET], upstream: app, allow: [{id: own, uid: "${params.uid}"}]}
  - {id: list, path: "/list/{uid}", methods: [GET], upstream: app, allow: [{id: user, who: [users], uid: "${params.uid}"}, {id: agent, who: [agents], uid: "${params.uid}"}]}
  - {id: both, path: "/both/{uid}", methods: [GET], upstream: app, allow: [{id: own, who: [users, agents], uid: "${params.uid}"}]}
  - {id: users, path: "/users/{uid}", methods: [GET], upstream: app, allow: [{id: user, who: [users], uid: "${params.uid}"}]}
  - {id: actor, path: "/actor/{uid}", methods: [GET], upstream: app, allow: [{id: none, if: '!has(auth.actor)'}, {id: one, who: [agents], if: 'auth.actor == "gallery-bot"'}, {id: any, if: 'has(auth.actor)'}]}
  - {id: role, path: "/role/{uid}", methods: [GET], upstream: app, allow: [{id: admin, roles: [admin]}]}
  - {id: trial, path: "/trial/{uid}", methods: [GET], upstream: app, allow: [{id: named, who: [agents], mode: dry_run, since: 2026-02-20}, {id: user, methods: [GET]}]}
  - {id: open, path: "/open/{uid}", methods: [GET], upstream: app, allow: optional}
`
	admin := func(id *Identity) { id.Claims.(ClaimMap)["roles"] = []any{"admin"} }
	const denied = "403 no_entry"
	for _, env := range []*Environment{actorEnv(), nil} { // without sidegate.yaml it is the caller that counts
		p, err := Load("policy.yaml", []byte(text), env)
		if env == nil && err != nil {
			// Each identity is its own namespace there.
			p, err = Load("policy.yaml", []byte(strings.NewReplacer(`who: [users, agents], uid: "${params.uid}"`, "who: [users, agents]", `[{id: own, uid: "${params.uid}"}]`, "[{id: own, methods: [GET]}]").Replace(text)), nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			path string
			id   *Identity
			want string
		}{
			{"/all/bob", bob(), "all/own"},
			{"/all/bob", bob(agent), denied},
			{"/list/bob", bob(), "list/user"},
			{"/list/bob", bob(agent), "list/agent"},
			{"/list/carol", bob(agent), denied},
			{"/both/bob", bob(), "both/own"},
			{"/both/bob", bob(agent), "both/own"},
			{"/users/bob", bob(agent), denied},
			{"/actor/bob", bob(), "actor/none"},
			{"/actor/bob", bob(agent), "actor/one"},
			{"/actor/bob", bob(agent, func(id *Identity) { id.Actor = "other-bot" }), denied},
			{"/role/bob", bob(admin), "role/admin"},
			{"/role/bob", bob(agent, admin), denied}, // the user's roles are not the agent's
			{"/role/bob", bob(agent), denied},        // nor would they help
			{"/trial/bob", bob(), "trial/user"},
			{"/trial/bob", bob(agent), denied},  // on trial an entry lets nobody in
			{"/open/bob", bob(agent), "public"}, // the decision needs no caller
			{"/open/bob", nil, "public"},
		} {
			m, d := ask(p, c.id, "GET", "gateway.test", c.path)
			if got := outcome(m, d); got != c.want {
				t.Errorf("%s as %+v: %s, want %s", c.path, c.id, got, c.want)
			}
		}
	}
}

// TestActorsIdentityWithoutActor: an identity of actors is not among those that
// an entry without `who` means, also where a caller of it comes without one.
func TestActorsIdentityWithoutActor(t *testing.T) {
	p, err := Load("policy.yaml", []byte(actorHeader+`routes:
  - {id: all, path: /all, methods: [GET], upstream: app, allow: [{id: any, methods: [GET]}]}
`), actorEnv())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"agents", "robots"} {
		if m, d := ask(p, bob(named(name)), "GET", "gateway.test", "/all"); outcome(m, d) != "403 no_entry" {
			t.Errorf("%s: %s", name, outcome(m, d))
		}
	}
}

// TestGuardsAreAboutActorsToo: what a guard denies or requires it does of
// everybody, whether or not it names them.
func TestGuardsAreAboutActorsToo(t *testing.T) {
	p, err := Load("policy.yaml", []byte(actorHeader+`guards:
  - {id: blocked, path: "/a/{rest...}", deny: {roles: [blocked]}}
  - {id: no-robots, path: "/b/{rest...}", deny: {who: [robots]}}
  - {id: only-roles, path: "/c/{rest...}", require: {roles: [editor]}}
routes:
  - {id: a, path: "/a/{x}", methods: [GET], upstream: app, allow: [{id: all, who: [users, agents, robots]}]}
  - {id: b, path: "/b/{x}", methods: [GET], upstream: app, allow: [{id: all, who: [users, agents, robots]}]}
  - {id: c, path: "/c/{x}", methods: [GET], upstream: app, allow: [{id: all, who: [users, agents, robots]}]}
`), actorEnv())
	if err != nil {
		t.Fatal(err)
	}
	robot := func(id *Identity) { id.Name, id.Namespace, id.Actor = "robots", "robots", "r2" }
	for _, c := range []struct {
		path string
		id   *Identity
		want string
	}{
		{"/a/x", bob(agent), "a/all"},
		{"/a/x", bob(agent, claim("roles", []any{"blocked"})), "403 deny_true"},
		{"/b/x", bob(agent), "b/all"},
		{"/b/x", bob(robot), "403 deny_true"},
		{"/c/x", bob(agent), "403 require_false"},
		{"/c/x", bob(agent, claim("roles", []any{"editor"})), "c/all"},
	} {
		m := p.Match("gateway.test", c.path, "GET")
		d := p.Decide(guardInput(p, c.id, "GET", "gateway.test", c.path, nil))
		if got := outcome(m, d); got != c.want {
			t.Errorf("%s as %+v: %s, want %s", c.path, c.id, got, c.want)
		}
	}
}

// TestActorsAndUpstreams is SG009 for upstreams: those that cannot tell one
// namespace from another, and those that cannot tell an agent from its user.
// An entry without `who` lets no actor in, and so asks neither.
func TestActorsAndUpstreams(t *testing.T) {
	const mixed, acted = "admits identities of several uid namespaces", "who act for a user"
	for _, c := range []struct {
		upstream, allow string
		want            []string // none: it loads
	}{
		{"app", `[{who: [users, agents, robots]}]`, nil},
		{"app", `optional`, nil},
		{"app", `[{uid: "${params.uid}"}]`, nil},
		{"app", `[{who: [users, agents], uid: "${params.uid}"}]`, nil},
		{"app", `[{who: [users, robots], uid: "${params.uid}"}]`, []string{"lets in identities of several uid namespaces (users, robots)"}},
		{"nameless", `[{uid: "${params.uid}"}]`, nil},
		{"nameless", `[{who: [users, agents]}]`, nil}, // one person by either name
		{"nameless", `[{who: [users]}, {who: [robots]}]`, []string{mixed + " (users, robots)"}},
		{"nameless", `optional`, []string{mixed}},
		{"nameless", `public`, nil},
		{"actorless", `[{uid: "${params.uid}"}]`, nil},
		{"actorless", `[{who: [users]}]`, nil},
		{"actorless", `[{who: [users]}, {who: [agents], uid: "${params.uid}"}]`, []string{"callers of `agents`, " + acted}},
		{"actorless", `[{who: [robots]}]`, []string{"callers of `robots`, " + acted}},
		{"actorless", `[{who: [users]}, {who: [robots], mode: dry_run, since: 2026-02-20}]`, []string{"callers of `robots`, " + acted}},
		// To ask for the actor does not tell the app of it.
		{"actorless", `[{who: [agents], if: 'auth.actor == "gallery-bot"'}]`, []string{acted}},
		{"actorless", `optional`, []string{acted}},
		{"actorless", `public`, nil},
		{"legacy", `[{uid: "${params.uid}"}]`, nil},
		{"legacy", `optional`, []string{mixed, acted}},
		{"legacy", `[{who: [users]}, {who: [robots]}]`, []string{mixed, acted}},
	} {
		text := actorHeader + "routes:\n  - {id: r, path: \"/r/{uid}\", methods: [GET], upstream: " + c.upstream + ", allow: " + c.allow + "}\n"
		_, err := Load("policy.yaml", []byte(text), actorEnv())
		if len(c.want) == 0 {
			if err != nil {
				t.Errorf("%s, %s: %v", c.upstream, c.allow, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s, %s: loads", c.upstream, c.allow)
			continue
		}
		if lines := strings.Split(err.Error(), "\n"); len(lines) != len(c.want) {
			t.Errorf("%s, %s: %d mistakes, want %d:\n%v", c.upstream, c.allow, len(lines), len(c.want), err)
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), "SG009 ") || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: no %q in %v", c.upstream, c.allow, want, err)
			}
		}
	}
}

// TestOptionalRouteTakesActorsOfAnyIdentity: a route that takes any token takes
// those of identities that the policy does not name, too.
func TestOptionalRouteTakesActorsOfAnyIdentity(t *testing.T) {
	const text = `version: sidegate-policy/v1
identities: [users]
routes:
  - {id: list, path: /list, methods: [GET], upstream: actorless, allow: [{who: [users]}]}
  - {id: open, path: /open, methods: [GET], upstream: actorless, allow: optional}
`
	if _, err := Load("policy.yaml", []byte(text), actorEnv()); err == nil || !strings.Contains(err.Error(), "SG009 route `open` admits callers of `agents`") || strings.Contains(err.Error(), "`list`") {
		t.Errorf("with agents: %v", err)
	}
	env := actorEnv()
	env.Identities, env.Actors = map[string]string{"users": "users"}, nil
	if _, err := Load("policy.yaml", []byte(text), env); err != nil {
		t.Errorf("without any: %v", err)
	}
}

// TestKeysOfActors: a key that uses the uid is the user's own, whoever acts for
// it; a folder is never that of two namespaces.
func TestKeysOfActors(t *testing.T) {
	route := func(allow string) error {
		_, err := Load("policy.yaml", []byte(actorHeader+"routes:\n  - {id: up, path: /up, methods: [POST], serve: presign_upload, allow: "+allow+", object: {key: \"u/${auth.uid}/${uuid}\"}}\n"), actorEnv())
		return err
	}
	for _, allow := range []string{"[{methods: [POST]}]", "[{who: [users, agents]}]", "[{who: [robots]}]"} {
		if err := route(allow); err != nil {
			t.Errorf("%s: %v", allow, err)
		}
	}
	for _, allow := range []string{"[{methods: [POST]}, {who: [robots]}]", "[{who: [users]}, {who: [robots]}]"} {
		if err := route(allow); err == nil || !strings.Contains(err.Error(), "SG009") {
			t.Errorf("%s: %v", allow, err)
		}
	}
}

// TestLintKnowsWhomNoEntryLetsIn: an entry without `who` lets no actor in, so
// that an identity of actors that nothing names is one that nobody uses.
func TestLintKnowsWhomNoEntryLetsIn(t *testing.T) {
	const text = `version: sidegate-policy/v1
identities: [users, agents]
claims: {roles: list(string)}
routes:
  - {id: all, path: /all, methods: [GET], upstream: app, allow: [{id: admin, roles: [admin]}]}
`
	found := Lint("policy.yaml", []byte(text), LintOptions{Env: actorEnv()})
	for _, f := range found {
		if f.ID == "SG109" && strings.Contains(f.Text, "`agents`") {
			return
		}
	}
	t.Errorf("nothing says that no entry lets `agents` in: %+v", found)
}

// TestActorsAlone: where all identities are of actors, an entry without `who`
// would let nobody in, and that must be said.
func TestActorsAlone(t *testing.T) {
	const text = `version: sidegate-policy/v1
identities: [agents]
claims: {roles: list(string)}
routes:
  - {id: all, path: /all, methods: [GET], upstream: app, allow: [{id: admin, roles: [admin]}]}
`
	if _, err := Load("policy.yaml", []byte(text), actorEnv()); err != nil {
		return
	}
	found := Lint("policy.yaml", []byte(text), LintOptions{Env: actorEnv()})
	if len(found) == 0 {
		t.Error("an entry that can let nobody in loads, and lint has nothing to say")
	}
}
