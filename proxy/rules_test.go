package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"sidegate/policy"
	"sidegate/storage/audit"
)

const rulesPolicy = `version: sidegate-policy/v1
name: rules
identities: [users]
claims: {roles: list(string), plan: string}
lookups:
  share: {document: "shares/${sha256(params.x)}", fields: {readers: list(string)}}
guards:
  - {id: no-writers, path: "/guarded/{rest...}", deny: {roles: [writer]}}
  - {id: trial, path: "/trial/{rest...}", mode: dry_run, since: 2026-02-20, deny: {who: [users]}}
routes:
  - {id: guarded, path: "/guarded/{rest...}", methods: [GET], upstream: app, allow: [{id: user, who: [users]}]}
  - {id: trial, path: "/trial/{rest...}", methods: [GET], upstream: app, allow: [{id: user, who: [users]}, {id: next, mode: dry_run, since: 2026-02-20, who: [users], claims: {plan: [pro]}}]}
  - {id: share, path: "/share/{x}", methods: [GET], upstream: app, allow: [{id: reader, who: [users], if: auth.uid in lookup.share.readers}]}
  - {id: by-ip, path: /by-ip, methods: [GET], upstream: app, limit: {rate: 1/h, burst: 2, per: ip}, allow: [{id: user, who: [users]}]}
  - {id: by-uid, path: /by-uid, methods: [GET], upstream: app, limit: {rate: 1/h, burst: 2, per: uid}, allow: [{id: user, who: [users]}]}
  - {id: by-both, path: /by-both, methods: [GET], upstream: app, limit: [{rate: 1/h, burst: 3, per: route}, {rate: 1/h, burst: 1, per: actor}], allow: [{id: user, who: [users]}]}
  - {id: admins, path: /admins, methods: [GET], upstream: app, limit: {rate: 1/h, burst: 1, per: route}, allow: [{id: admin, who: [users], roles: [admin]}]}
  - {id: static, path: "/static/{rest...}", methods: [GET], upstream: app, allow: public, audit: "off", limit: {rate: 1/h, burst: 3, per: ip}}
  - {id: static-up, path: /static-up, methods: [POST], upstream: app, allow: public, audit: "off", max_body: 1KiB}
  - {id: confirm, path: "/confirm/{session}", methods: [POST], serve: confirm_upload, limit: {rate: 1/h, burst: 1, per: uid}, allow: [{id: user, who: [users]}]}
  - {id: get, path: "/get/{key...}", methods: [GET], serve: presign_download, limit: {rate: 1/h, burst: 1, per: uid}, allow: [{id: user, who: [users], key_prefix: "users/${auth.uid}/"}], object: {key: "${params.key}"}}
  - {id: once, path: "/trial-once/{rest...}", methods: [GET], upstream: app, limit: {rate: 1/h, burst: 1, per: route}, allow: [{id: user, who: [users]}, {id: next, mode: dry_run, since: 2026-02-20, who: [users]}]}
  - {id: safe, path: /safe, methods: [GET], upstream: app, allow: public, audit: power}
  - {id: safest, path: /safest, methods: [GET], upstream: app, allow: public, audit: machine}
  - id: presign
    path: /presign
    methods: [POST]
    serve: presign_upload
    limit: {rate: 1/h, burst: 1, per: uid}
    allow: [{id: user, who: [users], if: object.size < 500}]
    object: {key: "users/${auth.uid}/${uuid}${ext}", content_types: [image/png], max_bytes: 1KiB}
`

// shelf is a DocumentReader that holds its contract.
type shelf struct {
	mu    sync.Mutex
	docs  map[string]map[string]any
	err   error
	reads int
}

func (s *shelf) ReadDocument(_ context.Context, path string, _ []string) (policy.Document, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if s.err != nil {
		return policy.Document{}, s.err
	}
	fields, ok := s.docs[path]
	return policy.Document{Exists: ok, Fields: fields}, nil
}

func rulesGate(t *testing.T, docs DocumentReader) *gate {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte(rulesPolicy), &policy.Environment{
		Identities: map[string]string{"users": "users"}, Upstreams: map[string]policy.Upstream{"app": {}}, Buckets: map[string]policy.Bucket{"default": {}},
		Lookups: true, Shipping: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, _, uploads := withUploads()
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	return newGate(t, app, func(o *Options) { o.Policy, o.Documents = p, docs }, uploads)
}

// TestStrangersReadsAreMarked: a read for a caller who was not verified is one
// of strangers, with their bound, and no other is.
func TestStrangersReadsAreMarked(t *testing.T) {
	p, err := policy.Load("policy.yaml", []byte(`version: sidegate-policy/v1
identities: [users]
lookups: {page: {document: "pages/${sha256(params.x)}", fields: {hidden: bool}}}
guards: [{id: hidden, path: "/pages/{x}", deny: {if: has(lookup.page) && lookup.page.hidden}}]
routes: [{id: pages, path: "/pages/{x}", methods: [GET], upstream: app, allow: optional}]
`), &policy.Environment{Identities: map[string]string{"users": "users"}, Upstreams: map[string]policy.Upstream{"app": {}}, Lookups: true, Shipping: true})
	if err != nil {
		t.Fatal(err)
	}
	marked := make(chan bool, 1)
	docs := readFunc(func(ctx context.Context, _ string, _ []string) (policy.Document, error) {
		marked <- ctx.Value(nobodyKey{}) != nil
		return policy.Document{}, nil
	})
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	g := newGate(t, app, func(o *Options) { o.Policy, o.Documents = p, docs })
	for token, stranger := range map[string]bool{"": true, "bob": false} {
		r, err := http.NewRequest("GET", g.url+"/pages/a", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if is := <-marked; answer.StatusCode != 200 || is != stranger {
			t.Errorf("token %q: %d, a stranger's: %t", token, answer.StatusCode, is)
		}
	}
}

// TestGuardsAndReasonsAreOnRecord: each way a rule decides, with its reason.
func TestGuardsAndReasonsAreOnRecord(t *testing.T) {
	const sharesX = "shares/2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
	docs := &shelf{docs: map[string]map[string]any{sharesX: {"readers": []any{"bob"}}}}
	g := rulesGate(t, docs)
	for _, c := range []struct {
		target, token string
		status        int
		rule, code    string
		err           error
		lookups       map[string]any
	}{
		{"/guarded/a", "bob", 200, "guarded/user", "entry", nil, nil},
		{"/guarded/a", "alice", 403, "no-writers", "deny_true", nil, nil},
		{"/share/x", "bob", 200, "share/reader", "entry", nil, map[string]any{"share": map[string]any{"document": sharesX, "fields": map[string]any{"readers": []any{"bob"}}}}},
		{"/share/x", "root", 403, "", "no_entry", nil, map[string]any{"share": map[string]any{"document": sharesX, "fields": map[string]any{"readers": []any{"bob"}}}}},
		{"/share/y", "bob", 403, "", "entry_error", nil, map[string]any{"share": map[string]any{"document": "shares/a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa", "exists": false}}},
		{"/share/x", "bob", 503, "share/reader", "unavailable", errors.New("gone"), map[string]any{"share": map[string]any{"document": sharesX, "failed": true}}},
	} {
		docs.mu.Lock()
		docs.err = c.err
		docs.mu.Unlock()
		a := g.send("GET", c.target, c.token, "Connection: close")
		e := g.decision()
		g.outcome()
		if a.StatusCode != c.status || e.Decision.Rule != c.rule || e.Decision.Code != c.code || (a.StatusCode == 503) != (a.Header.Get("Retry-After") != "") {
			t.Errorf("%s as %s: %d, %+v", c.target, c.token, a.StatusCode, e.Decision)
		}
		if got, _ := e.Decision.Inputs["lookups"].(map[string]any); !reflect.DeepEqual(got, c.lookups) {
			t.Errorf("%s: lookups on record %v, want %v", c.target, got, c.lookups)
		}
	}
}

func TestShadowIsOnRecordAndCounted(t *testing.T) {
	g := rulesGate(t, nil)
	if a := g.send("GET", "/trial/x", "alice", "Connection: close"); a.StatusCode != 200 {
		t.Fatal(a.StatusCode)
	}
	if e := g.decision(); !reflect.DeepEqual(e.Decision.Shadow, map[string]string{"trial": "deny", "trial/next": "deny"}) {
		t.Errorf("%v", e.Decision.Shadow)
	}
	g.outcome()
	if n := g.counter("sidegate_policy_shadow_total", "trial"); n != 1 {
		t.Errorf("counted %v", n)
	}
}

func (g *gate) checkRate(a answer, atLeast time.Duration) {
	g.t.Helper()
	var seconds int
	fmt.Sscan(a.Header.Get("Retry-After"), &seconds)
	if a.StatusCode != 429 || !strings.Contains(a.body, `"code":"rate"`) || time.Duration(seconds)*time.Second < atLeast {
		g.t.Errorf("%d, Retry-After %q, %s", a.StatusCode, a.Header.Get("Retry-After"), a.body)
	}
	if e := g.decision(); e.Decision.Code != "rate" || e.Decision.Status != 429 {
		g.t.Errorf("%+v", e.Decision)
	}
	g.outcome()
}

// TestLimits: per ip before identity, all others after everything else, so that
// nobody burns another's budget.
func TestLimits(t *testing.T) {
	g := rulesGate(t, nil)
	ask := func(target, token string, want int) {
		t.Helper()
		if a := g.send("GET", target, token, "Connection: close"); a.StatusCode != want {
			t.Errorf("%s as %q: %d, want %d", target, token, a.StatusCode, want)
		}
		g.outcome()
	}
	ask("/by-ip", "", 401) // counts: who asks is not known yet
	ask("/by-ip", "bob", 200)
	g.checkRate(g.send("GET", "/by-ip", "bob", "Connection: close"), 59*time.Minute)
	g.checkRate(g.send("GET", "/by-ip", "", "Connection: close"), 59*time.Minute)

	ask("/by-uid", "bob", 200)
	ask("/by-uid", "bob", 200)
	g.checkRate(g.send("GET", "/by-uid", "bob", "Connection: close"), 59*time.Minute)
	ask("/by-uid", "alice", 200) // has a budget of her own

	ask("/admins", "bob", 403) // refused, and burns nothing
	ask("/admins", "root", 200)
	g.checkRate(g.send("GET", "/admins", "root", "Connection: close"), 59*time.Minute)

	ask("/by-both", "bob", 200)
	g.checkRate(g.send("GET", "/by-both", "bob", "Connection: close"), time.Second) // by actor: and takes nothing of the route's
	ask("/by-both", "alice", 200)
	ask("/by-both", "root", 200)
	ask("/by-both", "strange", 429)
}

// TestLimitsOfServedRoutes: what is wrong with the body is told before a budget
// is drawn on.
func TestLimitsOfServedRoutes(t *testing.T) {
	g := rulesGate(t, nil)
	post := func(body string) answer {
		return g.raw(request("POST", "/presign", "bob", "Connection: close", fmt.Sprint("Content-Length: ", len(body))) + body)
	}
	for _, c := range []struct {
		body   string
		status int
	}{
		{`{"contentType": "image/png", "size": 600}`, 403}, // the condition reads the size
		{`{"contentType": "image/png"}`, 403},              // which is an error where there is none
		{`{"contentType": "text/plain", "size": 6}`, 415},
	} {
		if a := post(c.body); a.StatusCode != c.status {
			t.Errorf("%s: %d %s", c.body, a.StatusCode, a.body)
		}
		g.outcome()
	}
	good := `{"contentType": "image/png", "size": 6}`
	if a := post(good); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	g.outcome()
	g.checkRate(post(good), 59*time.Minute)
}

// TestLimitsOfEveryOperation: confirmations, downloads and requests for an app
// have their limits as uploads have, and a refusal for one keeps what rules in
// dry_run say.
func TestLimitsOfEveryOperation(t *testing.T) {
	g := rulesGate(t, nil)
	for _, c := range []struct {
		method, target string
		first          int
	}{{"POST", "/confirm/0123456789abcdef0123456789abcdef", 404}, {"GET", "/get/users/bob/a", 200}, {"GET", "/trial-once/a", 200}} {
		if a := g.send(c.method, c.target, "bob", "Connection: close"); a.StatusCode != c.first {
			t.Errorf("%s: %d", c.target, a.StatusCode)
		}
		g.outcome()
		g.checkRate(g.send(c.method, c.target, "bob", "Connection: close"), 59*time.Minute)
	}
	if got := g.decision().Decision.Shadow; !reflect.DeepEqual(got, map[string]string{"once/next": "allow"}) {
		t.Errorf("%v", got)
	}
}

// TestLimitsOutliveAPolicy: a reload gives nobody a new budget.
func TestLimitsOutliveAPolicy(t *testing.T) {
	g := rulesGate(t, nil)
	for range 2 {
		g.send("GET", "/by-uid", "bob", "Connection: close")
	}
	next, err := policy.Load("policy.yaml", []byte(strings.Replace(rulesPolicy, "name: rules", "name: next", 1)), nil)
	if err != nil {
		t.Fatal(err)
	}
	g.proxy.SetPolicy(next)
	if a := g.send("GET", "/by-uid", "bob", "Connection: close"); a.StatusCode != 429 {
		t.Errorf("%d", a.StatusCode)
	}
}

// TestAuditOfARoute: off keeps what was allowed out of the log, and counts it,
// never a refusal; power and machine raise what sidegate.yaml asks for.
func TestAuditOfARoute(t *testing.T) {
	g := rulesGate(t, nil)
	levels := make(chan audit.Survive, 10)
	g.proxy.o.Recorder = levelled{g.tape, levels}
	for range 3 {
		if a := g.send("GET", "/static/x", "", "Connection: close"); a.StatusCode != 200 {
			t.Fatal(a.StatusCode)
		}
	}
	if n := g.counter("sidegate_audit_off_total", "static"); n != 3 || len(levels) != 0 {
		t.Errorf("counted %v, recorded %d", n, len(levels))
	}
	g.checkRate(g.send("GET", "/static/x", "", "Connection: close"), time.Second)
	if level := <-levels; level != audit.Crash {
		t.Errorf("%v", level)
	}
	// A body that turns out to be too large is refused after it was allowed.
	chunk := strings.Repeat("x", 4096)
	if a := g.raw(request("POST", "/static-up", "", "Transfer-Encoding: chunked") + "1000\r\n" + chunk + "\r\n0\r\n\r\n"); a.StatusCode != 413 {
		t.Errorf("%d", a.StatusCode)
	}
	if e := g.outcomeOf(413); e == nil || g.decision().Decision.Code != "too_large" || g.decision().Decision.Effect != "deny" {
		t.Errorf("%+v, %+v", e, g.decision().Decision)
	}
	<-levels
	for target, want := range map[string]audit.Survive{"/safe": audit.Power, "/safest": audit.Machine} {
		g.send("GET", target, "", "Connection: close")
		if level := <-levels; level != want {
			t.Errorf("%s: %v, want %v", target, level, want)
		}
	}
	if all := g.ledger(); len(all) != 4 {
		t.Errorf("%d records", len(all))
	}
}

// TestAuditOffRecordsAFault: a panic on a route with `audit: off` is on record.
func TestAuditOffRecordsAFault(t *testing.T) {
	g := rulesGate(t, nil)
	f := g.proxy.upstreams["app"]
	f.proxy.Transport = panicTransport{}
	if a := g.send("GET", "/static/x", "", "Connection: close"); a.StatusCode != 500 {
		t.Errorf("%d", a.StatusCode)
	}
	if e := g.outcomeOf(500); e.Record != g.decision().Record || g.decision().Decision.Code != "internal" || g.decision().Decision.Effect != "deny" {
		t.Errorf("%+v, %+v", e, g.decision())
	}
}

// TestAuditOffRecordsAFullApp: what the gateway does not let on to an app that
// has its max_requests is a refusal, also where what it lets on is off.
func TestAuditOffRecordsAFullApp(t *testing.T) {
	g := rulesGate(t, nil)
	f := g.proxy.upstreams["app"]
	f.up.MaxRequests = 1
	f.busy.Store(1)
	if a := g.send("GET", "/static/x", "", "Connection: close"); a.StatusCode != 503 {
		t.Errorf("%d", a.StatusCode)
	}
	if e := g.outcomeOf(503); e.Record != g.decision().Record || g.decision().Decision.Code != "unavailable" || g.decision().Decision.Effect != "deny" {
		t.Errorf("%+v, %+v", e, g.decision())
	}
}

// outcomeOf waits for the outcome with this status.
func (g *gate) outcomeOf(status int) *audit.Event {
	g.t.Helper()
	for {
		if e := g.outcome(); e.Outcome.Status == status {
			return e
		}
	}
}

// levelled tells the level of each record.
type levelled struct {
	*tape
	levels chan audit.Survive
}

func (l levelled) Record(ctx context.Context, e *audit.Event, level audit.Survive) error {
	l.levels <- level
	return l.tape.Record(ctx, e, min(level, audit.Power)) // there is no sink
}

// TestJudgeIsServe: what Judge says is what ServeHTTP does.
func TestJudgeIsServe(t *testing.T) {
	docs := &shelf{}
	g := rulesGate(t, docs)
	for _, target := range []string{"/guarded/a", "/trial/x", "/share/x", "/nowhere", "/guarded/../x", "/safe", "//", "/presign"} {
		for _, token := range []string{"", "alice", "bob", "root", "bad"} {
			a := g.send("GET", target, token, "Connection: close")
			e := g.decisionOf(a)
			r, err := http.NewRequest("GET", "http://gateway.test/", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.RequestURI, r.Host, r.RemoteAddr = target, "gateway.test", "192.0.2.1:1"
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			j := g.proxy.Judge(r, Given{Lookups: documentsOf{docs}})
			status := a.StatusCode
			if j.Allow {
				status = j.Status
			}
			if j.Status != status || j.Allow != (a.StatusCode == 200) || (e != nil && (j.Rule != e.Decision.Rule || j.Code != e.Decision.Code || !reflect.DeepEqual(j.Shadow, e.Decision.Shadow))) {
				t.Errorf("%s as %q: judged %+v, done %d %+v", target, token, j, a.StatusCode, e)
			}
		}
	}
}

type documentsOf struct{ reader DocumentReader }

func (d documentsOf) Lookup(l *policy.Lookup, name string) (policy.Document, error) {
	return d.reader.ReadDocument(context.Background(), name, l.Fields)
}

// decisionOf is the decision event of an answer; nil where there is none.
func (g *gate) decisionOf(a answer) *audit.Event {
	id := a.Header.Get("X-Request-Id")
	g.tape.mu.Lock()
	defer g.tape.mu.Unlock()
	for _, e := range g.tape.decisions {
		if e.Record == id {
			return e
		}
	}
	return nil
}

// counter is the value of a counter with this label.
func (g *gate) counter(name, label string) float64 {
	g.t.Helper()
	families, err := g.metrics.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == name && m.Label[len(m.Label)-1].GetValue() == label {
				return m.Counter.GetValue()
			}
		}
	}
	return 0
}
