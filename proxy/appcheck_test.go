package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"sidegate/policy"
)

// appTokens hold the contract of what verifies App Check tokens of one project.
type appTokens struct {
	project string
	mu      sync.Mutex
	calls   int
	away    bool // its keys were never fetched
}

func (a *appTokens) Authenticate(_ context.Context, token string) (*policy.Identity, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
	switch {
	case a.away:
		return nil, fmt.Errorf("keys: %w", ErrUnavailable)
	case token == "app-"+a.project:
		return &policy.Identity{Name: a.project, UID: "1:123:web:abc"}, nil
	case token == "odd":
		return nil, errors.New("something else")
	case token == "nobody":
		return nil, nil
	}
	return nil, &TokenError{Reason: "the token is malformed", Detail: "secret-claim"}
}

func (a *appTokens) set(away bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away, a.calls = away, 0
}

func (a *appTokens) asked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls
}

const appCheckPolicy = `version: sidegate-policy/v1
name: apps
identities: [users, staff]
guards:
  - {id: apps-only, path: "/guarded/{rest...}", require: {app_check: true}}
  - {id: no-apps, path: "/never/{rest...}", deny: {app_check: true}}
routes:
  - {id: app, path: "/app/{rest...}", methods: [GET], upstream: app, allow: [{id: app, app_check: true}]}
  - {id: either, path: "/either/{rest...}", methods: [GET], upstream: app, allow: [{id: app, who: [users], app_check: true}, {id: staff, who: [staff]}]}
  - {id: plain, path: "/plain/{rest...}", methods: [GET], upstream: app, allow: [{id: any, who: [users, staff]}]}
  - {id: guarded, path: "/guarded/{rest...}", methods: [GET], upstream: app, allow: public}
  - {id: never, path: "/never/{rest...}", methods: [GET], upstream: app, allow: public}
  - {id: public, path: "/public/{rest...}", methods: [GET], upstream: app, allow: public}
  - {id: optional, path: "/optional/{rest...}", methods: [GET], upstream: app, allow: optional}
`

// twoTokens knows users by the names of fakeTokens, and staff by names that
// begin with staff-; other- is of an identity without App Check.
type twoTokens struct{}

func (twoTokens) Authenticate(ctx context.Context, token string) (*policy.Identity, error) {
	for _, name := range []string{"staff", "other"} {
		if uid, ok := strings.CutPrefix(token, name+"-"); ok {
			id := user(uid)
			id.Name, id.Namespace = name, name
			return id, nil
		}
	}
	return fakeTokens{}.Authenticate(ctx, token)
}

// appGate has App Check for two identities.
func appGate(t testing.TB, text string) (g *gate, users, staff *appTokens) {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte(text), &policy.Environment{
		Identities: map[string]string{"users": "users", "staff": "staff", "other": "other"}, Upstreams: map[string]policy.Upstream{"app": {}}, AppCheck: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	users, staff = &appTokens{project: "users"}, &appTokens{project: "staff"}
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Join(r.Header["X-Firebase-Appcheck"], ","))
	})
	g = newGate(t, app, func(o *Options) {
		o.Policy, o.Authenticator = p, twoTokens{}
		o.AppCheck = map[string]Authenticator{"users": users, "staff": staff}
	})
	return g, users, staff
}

const appHeader = "X-Firebase-AppCheck: "

func TestAppCheck(t *testing.T) {
	g, users, staff := appGate(t, appCheckPolicy)
	for _, c := range []struct {
		name, target, token string
		lines               []string
		status              int
		app                 any // what the record says of the app
	}{
		{"good", "/app/a", "alice", []string{appHeader + "app-users"}, 200, true},
		{"the header in lower case", "/app/a", "alice", []string{"x-firebase-appcheck: app-users"}, 200, true},
		{"none", "/app/a", "alice", nil, 403, false},
		{"empty", "/app/a", "alice", []string{appHeader}, 403, false},
		{"bad", "/app/a", "alice", []string{appHeader + "x"}, 403, false},
		{"twice", "/app/a", "alice", []string{appHeader + "app-users", appHeader + "app-users"}, 403, false},
		{"twice, the one bad", "/app/a", "alice", []string{appHeader + "app-users", appHeader + "x"}, 403, false},
		{"a list", "/app/a", "alice", []string{appHeader + "app-users, app-users"}, 403, false},
		{"under a name that folds to it", "/app/a", "alice", []string{"X_Firebase_AppCheck: app-users"}, 403, false},
		{"as a bearer token", "/app/a", "app-users", nil, 401, nil},
		{"a user's token", "/app/a", "alice", []string{appHeader + "alice"}, 403, false},
		{"without a user", "/app/a", "", []string{appHeader + "app-users"}, 401, nil},
		{"nobody", "/app/a", "alice", []string{appHeader + "nobody"}, 403, false},
		{"of another identity", "/app/a", "alice", []string{appHeader + "app-staff"}, 403, false},
		{"of its own identity", "/app/a", "staff-carol", []string{appHeader + "app-staff"}, 200, true},
		{"of another identity, the other way", "/app/a", "staff-carol", []string{appHeader + "app-users"}, 403, false},
		{"an identity that has none", "/app/a", "other-dave", []string{appHeader + "app-users"}, 403, false},

		// A bad one is as if it were not there: what does not need it works.
		{"bad where an entry does without", "/either/a", "staff-carol", []string{appHeader + "x"}, 200, false},
		{"bad where the user's entry needs it", "/either/a", "alice", []string{appHeader + "x"}, 403, false},
		{"bad where nothing asks", "/plain/a", "alice", []string{appHeader + "x"}, 200, nil},
		{"twice where nothing asks", "/plain/a", "alice", []string{appHeader + "x", appHeader + "y"}, 200, nil},

		// Without a caller that of any project counts.
		{"guard, good", "/guarded/a", "", []string{appHeader + "app-users"}, 200, true},
		{"guard, of the other project", "/guarded/a", "", []string{appHeader + "app-staff"}, 200, true},
		{"guard, bad", "/guarded/a", "", []string{appHeader + "x"}, 403, false},
		{"guard, none", "/guarded/a", "", nil, 403, false},
		{"guard, a token that is not looked at", "/guarded/a", "staff-carol", []string{appHeader + "app-users"}, 200, true},
		{"deny, good", "/never/a", "", []string{appHeader + "app-users"}, 403, true},
		{"deny, bad", "/never/a", "", []string{appHeader + "x"}, 200, false},
		{"public", "/public/a", "", []string{appHeader + "x"}, 200, nil},
		{"optional without a caller", "/optional/a", "", []string{appHeader + "app-staff"}, 200, nil},
		{"optional with one", "/optional/a", "alice", []string{appHeader + "app-staff"}, 200, nil},
	} {
		a := g.send("GET", c.target, c.token, c.lines...)
		d := g.decision()
		g.outcome()
		// A refusal before the policy is asked says nothing of the app.
		if a.err != nil || a.StatusCode != c.status || c.status != 401 && d.Decision.Inputs["app_check"] != c.app {
			t.Errorf("%s: %d %s, on record are %v", c.name, a.StatusCode, a.body, d.Decision.Inputs)
		}
		if a.StatusCode == 403 && (!strings.Contains(a.body, `"code":"not_allowed"`) || a.Header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: %s %v", c.name, a.body, a.Header)
		}
		if c.status != 401 && strings.Contains(a.body, "malformed") || strings.Contains(a.body, "secret-claim") {
			t.Errorf("%s: the caller reads why: %s", c.name, a.body)
		}
	}
	if users.asked() == 0 || staff.asked() == 0 {
		t.Error("nothing was verified")
	}
	if log := g.log.String(); !strings.Contains(log, `"app_check":"the token is malformed"`) || strings.Contains(log, "app-users") || strings.Contains(log, "secret-claim") {
		t.Errorf("the log: %s", log)
	}
}

// TestAppCheckIsPassedOn: an app may verify it itself, and count its uses.
func TestAppCheckIsPassedOn(t *testing.T) {
	g, _, _ := appGate(t, appCheckPolicy)
	for _, c := range []struct{ target, token, value string }{
		{"/app/a", "alice", "app-users"}, {"/public/a", "", "x"}, {"/optional/a", "", "app-users"}, {"/plain/a", "alice", "x"},
	} {
		if a := g.send("GET", c.target, c.token, appHeader+c.value); a.StatusCode != 200 || a.body != c.value {
			t.Errorf("%s: %d %q", c.target, a.StatusCode, a.body)
		}
	}
}

// TestAppCheckCannotBeTold: where its keys were never fetched, that is 503 where
// the answer depends on it, and nothing where it does not. The record does not
// say that there was no app.
func TestAppCheckCannotBeTold(t *testing.T) {
	g, users, staff := appGate(t, appCheckPolicy)
	for _, c := range []struct {
		name, target, token, value string
		usersAway, staffAway       bool
		status                     int
		app                        any // nil: it could not be told
	}{
		{"an entry", "/app/a", "alice", "app-users", true, false, 503, nil},
		{"an error of no kind", "/app/a", "alice", "odd", false, false, 503, nil},
		{"a guard", "/guarded/a", "", "app-users", true, true, 503, nil},
		{"a guard that denies", "/never/a", "", "app-users", true, true, 503, nil},
		{"no token: there is nothing to tell", "/app/a", "alice", "", true, true, 403, false},
		{"no token before a guard", "/guarded/a", "", "", true, true, 403, false},
		{"the identity's own project answers", "/app/a", "alice", "app-users", false, true, 200, true},
		{"another's, which is away", "/app/a", "staff-carol", "app-users", true, false, 403, false},
		{"an entry that does without", "/either/a", "staff-carol", "app-staff", false, true, 200, nil},
		{"an entry that does not", "/either/a", "alice", "app-users", true, false, 503, nil},
		{"a route that does not ask", "/plain/a", "alice", "app-users", true, true, 200, nil},
		{"a public one", "/public/a", "", "app-users", true, true, 200, nil},
		{"an optional one", "/optional/a", "alice", "app-users", true, true, 200, nil},
		{"one of two, for nobody, vouches", "/guarded/a", "", "app-staff", true, false, 200, true},
		{"one of two, for nobody, says no", "/guarded/a", "", "app-users", true, false, 503, nil},
		{"no caller, 401 first", "/app/a", "", "app-users", true, true, 401, nil},
	} {
		for range 8 { // projects come in any order
			users.set(c.usersAway)
			staff.set(c.staffAway)
			var lines []string
			if c.value != "" {
				lines = []string{appHeader + c.value}
			}
			a := g.send("GET", c.target, c.token, lines...)
			d := g.decision().Decision
			g.outcome()
			app, there := d.Inputs["app_check"]
			if a.err != nil || a.StatusCode != c.status || c.status != 401 && (app != c.app || there != (c.app != nil)) {
				t.Errorf("%s: %d %s, on record are %v", c.name, a.StatusCode, a.body, d.Inputs)
				break
			}
			if c.status == 503 && (!strings.Contains(a.body, `"code":"unavailable"`) || a.Header.Get("Retry-After") == "" || d.Effect != "deny") {
				t.Errorf("%s: %+v %s", c.name, a.Header, a.body)
				break
			}
		}
	}
}

// TestAppCheckOnlyWhereAsked: a policy that does not ask costs no signature, and
// its records say nothing of apps.
func TestAppCheckOnlyWhereAsked(t *testing.T) {
	g, users, staff := appGate(t, `version: sidegate-policy/v1
identities: [users]
routes:
  - {id: public, path: "/public/{rest...}", methods: [GET], upstream: app, allow: public}
  - {id: plain, path: "/plain/{rest...}", methods: [GET], upstream: app, allow: [{id: any, who: [users]}]}
`)
	users.set(true)
	staff.set(true)
	for _, c := range [][2]string{{"/public/a", ""}, {"/plain/a", "alice"}} {
		a := g.send("GET", c[0], c[1], appHeader+"app-users")
		if _, there := g.decision().Decision.Inputs["app_check"]; a.StatusCode != 200 || there {
			t.Errorf("%s: %d, %v", c[0], a.StatusCode, g.decision().Decision.Inputs)
		}
	}
	if n := users.asked() + staff.asked(); n != 0 {
		t.Errorf("%d tokens were verified", n)
	}
}

// TestAppCheckAfterIdentity: who is refused anyway costs no signature.
func TestAppCheckAfterIdentity(t *testing.T) {
	g, users, staff := appGate(t, appCheckPolicy)
	for target, status := range map[string]int{"/nowhere": 404, "/app/../a": 400, "/app/a": 401} {
		if a := g.send("GET", target, "", appHeader+"app-users"); a.StatusCode != status {
			t.Errorf("%s: %d", target, a.StatusCode)
		}
	}
	if n := users.asked() + staff.asked(); n != 0 {
		t.Errorf("%d tokens were verified", n)
	}
}

// TestAppCheckNotLookedAtIsNotOnRecord: a record that says false says that App
// Check did not vouch for the app. Of a token that nobody looked at, since the
// request was refused before, that is not known, and a replay would believe it.
func TestAppCheckNotLookedAtIsNotOnRecord(t *testing.T) {
	g, users, _ := appGate(t, appCheckPolicy)
	for _, token := range []string{"", "bad", "away"} {
		g.send("GET", "/app/a", token, appHeader+"app-users")
		d := g.decision().Decision
		g.outcome()
		if app, there := d.Inputs["app_check"]; there || users.asked() != 0 {
			t.Errorf("as %q: %s, on record is %v, verified %d times", token, d.Code, app, users.asked())
		}
	}
}
