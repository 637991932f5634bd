package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strconv"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"sidegate/policy"
)

// labelled is the value of a counter with these labels, by their names in order.
func (g *gate) labelled(name string, labels ...string) float64 {
	g.t.Helper()
	families, err := g.metrics.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			same := f.GetName() == name && len(m.Label) == len(labels)
			for i := range m.Label {
				same = same && m.Label[i].GetValue() == labels[i]
			}
			if same {
				return m.Counter.GetValue()
			}
		}
	}
	return 0
}

// namedTokens say of their errors whose they are.
type namedTokens struct{ fakeTokens }

func (n namedTokens) Authenticate(ctx context.Context, token string) (*policy.Identity, error) {
	id, err := n.fakeTokens.Authenticate(ctx, token)
	if err != nil {
		err = &IdentityError{Identity: "users", Err: err}
	}
	return id, err
}

func TestIdentificationsAreCounted(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x") })
	for identity, tokens := range map[string]Authenticator{"": fakeTokens{}, "users": namedTokens{}} {
		g := newGate(t, app, func(o *Options) { o.Authenticator = tokens })
		for _, c := range []struct {
			path, token string
			status      int
		}{
			{"/public/a", "alice", 200}, // nobody looks
			{"/private/a", "alice", 200},
			{"/optional/a", "bob", 200},
			{"/private/a", "bad", 401},
			{"/optional/a", "bad", 401},
			{"/private/a", "away", 503},
			{"/private/a", "", 401},
			{"/optional/a", "", 200},
			{"/admin/a", "bob", 403}, // a caller all the same
		} {
			if a := g.send("GET", c.path, c.token, "Connection: close"); a.StatusCode != c.status {
				t.Fatalf("%+v: %d", c, a.StatusCode)
			}
			g.outcome()
		}
		for _, c := range []struct {
			identity, outcome string
			n                 float64
		}{{"users", "verified", 3}, {identity, "invalid", 2}, {identity, "unavailable", 1}, {"", "none", 2}} {
			if n := g.labelled("sidegate_identifications_total", c.identity, c.outcome); n != c.n {
				t.Errorf("%+v: counted %v", c, n)
			}
		}
	}
}

// TestIdentityErrorIsItsCause: what an error means does not change by whose it is.
func TestIdentityErrorIsItsCause(t *testing.T) {
	bad := &TokenError{Reason: "the token is malformed"}
	err := fmt.Errorf("more: %w", &IdentityError{Identity: "users", Err: bad})
	var got *TokenError
	if !errors.As(err, &got) || got != bad || err.Error() != "more: the token is malformed" || identityOf(err) != "users" || identityOf(bad) != "" {
		t.Errorf("%v, %q", err, identityOf(err))
	}
}

func TestLimitedSaysWhichLimit(t *testing.T) {
	g := rulesGate(t, nil)
	ask := func(path, token string, status int) {
		t.Helper()
		if a := g.send("GET", path, token, "Connection: close"); a.StatusCode != status {
			t.Fatalf("%s as %s: %d", path, token, a.StatusCode)
		}
	}
	ask("/by-both", "alice", 200)
	ask("/by-both", "alice", 429)
	ask("/by-both", "bob", 200)
	ask("/by-both", "root", 200)
	ask("/by-both", "root", 429) // both are used up, the actor's for longer
	ask("/by-both", "strange", 429)
	for range 3 {
		ask("/static/a", "", 200)
	}
	ask("/static/a", "", 429)
	for c, want := range map[[2]string]float64{{"actor", "by-both"}: 2, {"route", "by-both"}: 1, {"ip", "static"}: 1} {
		if n := g.labelled("sidegate_limited_total", c[0], c[1]); n != want {
			t.Errorf("%v: counted %v", c, n)
		}
	}
	if n := g.proxy.limits.Held(); n != 5 {
		t.Errorf("%d budgets are kept", n)
	}
}

// TestChildren: each is made once, whoever comes at once, and finding one takes
// no memory.
func TestChildren(t *testing.T) {
	var mu sync.Mutex
	made := map[int]int{}
	c := children[int, *int]{make: func(key int) *int {
		mu.Lock()
		defer mu.Unlock()
		made[key]++
		return &key
	}}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for key := range 100 {
				if v := c.get(key); *v != key {
					t.Errorf("%d for %d", *v, key)
				}
			}
		})
	}
	all.Wait()
	for key, n := range made {
		if n != 1 {
			t.Errorf("%d was made %d times", key, n)
		}
	}
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	find := func() {
		m.routes.get("a").answers.get(routeAnswer{"allow", 200}).Inc()
		m.seen.get(sighting{"users", callerVerified}).Inc()
	}
	find()
	if n := testing.AllocsPerRun(100, find); n != 0 {
		t.Errorf("a count takes %v pieces of memory", n)
	}
}

// TestStatusesAreBounded: an app that answers what it is asked for makes no series
// for each.
func TestStatusesAreBounded(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(path.Base(r.URL.Path))
		w.WriteHeader(status)
	})
	g := newGate(t, app)
	for status := 200; status < 1000; status++ {
		if a := g.send("GET", fmt.Sprintf("/public/%d", status), "", "Connection: close"); a.StatusCode != status {
			t.Fatalf("%d: %d", status, a.StatusCode)
		}
		g.outcome() // it is counted soon after
	}
	families, err := g.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if n := len(f.Metric); n > 80 {
			t.Errorf("%s has %d series", f.GetName(), n)
		}
	}
	for code, want := range map[string]float64{"404": 1, "5xx": 89} {
		if n := g.labelled("sidegate_requests_total", code, "allow", "public"); n != want {
			t.Errorf("%s: %v", code, n)
		}
	}
}

// ask returns when the request is counted, which a client need not wait for.
func (g *gate) ask(paths ...string) {
	for _, path := range paths {
		g.proxy.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
}

// changing is the nth of several policies, of which a part stays as it is.
func changing(t *testing.T, n int) *policy.Policy {
	t.Helper()
	p, err := policy.Load("policy.yaml", fmt.Appendf(nil, `
version: sidegate-policy/v1
name: nth
identities: [users]
lookups:
  kept: {document: "kept/${sha256(params.x)}", fields: {hidden: bool}}
  seen%[1]d: {document: "seen/${sha256(params.x)}", fields: {hidden: bool}}
guards:
  - {id: trial, mode: dry_run, since: 2026-02-20, path: /stays, deny: {methods: [GET]}}
  - {id: trial%[1]d, mode: dry_run, since: 2026-02-20, path: /changed, deny: {methods: [GET]}}
  - {id: kept, path: "/read/{x}", deny: {if: has(lookup.kept) && lookup.kept.hidden}}
  - {id: seen, path: "/read/{x}", deny: {if: has(lookup.seen%[1]d) && lookup.seen%[1]d.hidden}}
routes:
  - {id: stays, path: /stays, methods: [GET], upstream: app, allow: public, limit: {rate: 1/h, burst: 1, per: ip}}
  - {id: changed%[1]d, path: /changed, methods: [GET], upstream: app, allow: public, limit: {rate: 1/h, burst: 1, per: ip}}
  - {id: silent, path: /silent, methods: [GET], upstream: app, allow: public, audit: "off"}
  - {id: quiet%[1]d, path: /quiet, methods: [GET], upstream: app, allow: public, audit: "off"}
  - {id: read, path: "/read/{x}", methods: [GET], upstream: app, allow: optional}
`, n), &policy.Environment{Identities: map[string]string{"users": "users"}, Upstreams: map[string]policy.Upstream{"app": {}}, Lookups: true, Shipping: true})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestOldPoliciesLeaveNoSeries: of routes, rules and lookups that are gone nothing
// stays, and what stays goes on.
func TestOldPoliciesLeaveNoSeries(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x") })
	g := unserved(t, app, func(o *Options) { o.Documents = &shelf{} })
	count := func() (n int) {
		families, err := g.metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			n += len(f.Metric)
		}
		return n
	}
	first := 0
	for n := range 5 {
		g.proxy.SetPolicy(changing(t, n))
		g.ask("/stays", "/changed", "/changed", "/silent", "/quiet", "/read/a", "/nowhere")
		if n == 0 {
			g.ask("/stays") // limited
			first = count()
		} else if have := count(); have != first {
			t.Fatalf("%d series, and there were %d", have, first)
		}
	}
	for _, one := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"sidegate_requests_total", []string{"200", "allow", "stays"}, 1},
		{"sidegate_requests_total", []string{"429", "deny", "stays"}, 5},
		{"sidegate_requests_total", []string{"404", "deny", ""}, 5},
		{"sidegate_limited_total", []string{"ip", "stays"}, 5},
		{"sidegate_limited_total", []string{"ip", "changed4"}, 1},
		{"sidegate_audit_off_total", []string{"silent"}, 5},
		{"sidegate_policy_shadow_total", []string{"deny", "trial"}, 1},
		{"sidegate_policy_shadow_total", []string{"deny", "trial4"}, 1},
		{"sidegate_lookups_total", []string{"kept", "missing"}, 5},
		{"sidegate_lookups_total", []string{"seen4", "missing"}, 1},
	} {
		if n := g.labelled(one.name, one.labels...); n != one.want {
			t.Errorf("%s %v: %v, not %v", one.name, one.labels, n, one.want)
		}
	}
}

// TestRouteComesBack: what is known of a route that was gone for a while is not
// counted into a series that nobody sees any more.
func TestRouteComesBack(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x") })
	g := unserved(t, app, func(o *Options) { o.Documents = &shelf{} })
	for _, n := range []int{1, 2, 1} {
		g.proxy.SetPolicy(changing(t, n))
		g.ask("/quiet")
	}
	if n := g.labelled("sidegate_requests_total", "200", "allow", "quiet1"); n != 1 {
		t.Errorf("%v requests since it is back", n)
	}
}

// TestSeriesAreForgottenUnderLoad is for the race detector.
func TestSeriesAreForgottenUnderLoad(t *testing.T) {
	g := unserved(t, "http://127.0.0.1:1")
	policies := [2]*policy.Policy{g.proxy.Policy()}
	policies[1] = loadPolicy(t, "version: sidegate-policy/v1\nname: other\nidentities: [users]\nroutes:\n  - {id: other, path: /other, methods: [GET], upstream: app, allow: public}\n")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				g.proxy.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/private/a", nil))
			}
		})
	}
	for n := range 100 {
		g.proxy.SetPolicy(policies[n%2])
		if _, err := g.metrics.Gather(); err != nil {
			t.Fatal(err)
		}
	}
	all.Wait()
}
