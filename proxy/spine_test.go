package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"sidegate/policy"
	"sidegate/storage/audit"
)

// ownHeader reports whether an answer carries what each of the gateway's own does,
// but for what it says of keeping it.
func ownHeader(h http.Header, keep string) bool {
	for name, value := range map[string]string{"X-Sidegate-Response": "true", "X-Content-Type-Options": "nosniff", "Cache-Control": keep} {
		if got := h[name]; len(got) != 1 || got[0] != value {
			return false
		}
	}
	return len(h["X-Request-Id"]) == 1 && len(h.Get("X-Request-Id")) == 32
}

// checkRefusal holds a refusal against docs/http.md: its headers, its body,
// and one decision and one outcome on record.
func (g *gate) checkRefusal(a answer, status int, code string) {
	g.t.Helper()
	if a.err != nil || a.Response == nil {
		g.t.Fatalf("%s: no answer: %v", code, a.err)
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		g.t.Fatalf("%s: %q: %v", code, a.body, err)
	}
	if a.StatusCode != status || body["code"] != code || body["status"] != float64(status) ||
		body["type"] != "about:blank" || body["title"] != http.StatusText(status) || body["detail"] == "" {
		g.t.Errorf("want %d %s: %d %s", status, code, a.StatusCode, a.body)
	}
	h := a.Header
	if h.Get("Content-Type") != "application/problem+json" || !ownHeader(h, "no-store") || h.Get("X-Request-Id") != body["request_id"] {
		g.t.Errorf("%s: headers %v", code, h)
	}
	if (h.Get("Retry-After") != "") != (status == 503 || status == 429) {
		g.t.Errorf("%s: Retry-After %q", code, h.Get("Retry-After"))
	}
	if (h.Get("Allow") != "") != (status == 405) {
		g.t.Errorf("%s: Allow %q", code, h.Get("Allow"))
	}
	if (h.Get("WWW-Authenticate") != "") != (status == 401) && status != 403 {
		g.t.Errorf("%s: WWW-Authenticate %q", code, h.Get("WWW-Authenticate"))
	}
	o := g.outcome()
	for o.Record != body["request_id"] { // another request's, or of an item of it
		o = g.outcome()
	}
	if o.Outcome.Status != status {
		g.t.Errorf("%s: the outcome is %+v", code, o.Outcome)
	}
}

// everyRefusal asks for each refusal that a request alone can cause.
var everyRefusal = []struct {
	code, reason string
	status       int
	challenge    string
	request      string
}{
	{codeNoToken, "no_token", 401, `Bearer realm="photos"`, request("GET", "/private/a", "")},
	{codeNoToken, "no_token", 401, `Bearer realm="photos"`, request("GET", "/private/a", "", "Authorization: Basic YTpi")},
	{codeNoToken, "no_token", 401, `Bearer realm="photos"`, request("GET", "/private/a?access_token=alice", "")},
	{codeInvalidToken, "invalid_token", 401, `Bearer realm="photos", error="invalid_token", error_description="the token is malformed"`, request("GET", "/private/a", "bad")},
	{codeInvalidToken, "invalid_token", 401, `Bearer realm="photos", error="invalid_token", error_description="the token is malformed"`, request("GET", "/optional/a", "bad")},
	{codeInvalidToken, "invalid_token", 401, `Bearer realm="photos", error="invalid_token", error_description="the token is malformed"`, request("GET", "/private/a", "", "Authorization: bEARER\talice")},
	{codeInvalidToken, "invalid_token", 401, `Bearer realm="photos", error="invalid_token", error_description="the token is malformed"`, request("GET", "/private/a", "", "Authorization: Bearer")},
	{codeUnavailable, "unavailable", 503, "", request("GET", "/private/a", "away")},
	{codeUnavailable, "unavailable", 503, "", request("GET", "/private/a", "odd")},
	{codeUnavailable, "unavailable", 503, "", request("GET", "/private/a", "nobody")},
	{codeUnavailable, "unavailable", 503, "", request("GET", "/optional/a", "empty")},
	{codeNotAllowed, "no_entry", 403, "", request("GET", "/own/bob", "alice")},
	{codeNotAllowed, "no_entry", 403, `Bearer realm="photos", error="insufficient_scope"`, request("GET", "/admin/a", "alice")},
	{codeBadTarget, "bad_target", 400, "", request("GET", "/private/../a", "alice")},
	{codeBadTarget, "bad_target", 400, "", request("GET", "/private/a%2fb", "alice")},
	{codeBadTarget, "bad_target", 400, "", request("get", "/private/a", "alice")},
	{codeBadRequest, "bad_request", 400, "", request("GET", "/private/a", "alice", "Authorization: Bearer alice")},
	{codeBadRequest, "bad_request", 400, "", request("GET", "/private/a", "alice", "Upgrade: websocket", "Connection: Upgrade")},
	{codeBadRequest, "bad_request", 400, "", request("GET", "/private/a", "alice", "Upgrade: websocket", "Upgrade: h2c", "Connection: Upgrade")},
	{codeNoRoute, "no_route", 404, "", request("GET", "/nowhere", "alice")},
	{codeMethod, "method", 405, "", request("DELETE", "/private/a", "alice")},
	{codeTooLarge, "too_large", 413, "", request("POST", "/small", "", "Content-Length: 1025")},
	{codeInternal, "internal", 500, "", request("GET", "/lost", "")},
	{codeUnsupportedType, "unsupported_type", 415, "", presignRequest("alice", `{"contentType": "image/gif", "size": 1}`)},
	{codeInvalidField, "invalid_field", 422, "", presignRequest("alice", `{"contentType": "image/png"}`)},
	{codeTooLarge, "too_large", 413, "", presignRequest("alice", `{"contentType": "image/png", "size": 1025}`)},
	{codeNoSession, "no_session", 404, "", request("POST", "/v1/uploads/"+strings.Repeat("0", 32)+"/confirm", "alice")},
}

func presignRequest(token, body string) string {
	return request("POST", "/v1/uploads/presign", token, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body))) + body
}

func TestEveryRefusal(t *testing.T) {
	var hits atomic.Int64
	app := newApp(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	_, bucket, uploads := withUploads()
	g := newGate(t, app, uploads)
	for _, c := range everyRefusal {
		a := g.raw(c.request)
		g.checkRefusal(a, c.status, c.code)
		if got := a.Header.Get("WWW-Authenticate"); got != c.challenge {
			t.Errorf("%s: WWW-Authenticate: %s", c.code, got)
		}
		d := g.decision()
		if d.Decision.Effect != "deny" || d.Decision.Status != c.status || d.Decision.Code != c.reason || d.Decision.Policy.SHA256 == "" {
			t.Errorf("%s: the decision is %+v", c.code, d.Decision)
		}
		if strings.Contains(a.body, "for the log") {
			t.Errorf("%s: the caller reads what is for the log", c.code)
		}
	}
	if hits.Load() != 0 || bucket.signed != 0 {
		t.Errorf("%d requests reached the app, %d URLs were signed", hits.Load(), bucket.signed)
	}
	records := g.ledger()
	if len(records) != len(everyRefusal) {
		t.Errorf("%d records of %d requests", len(records), len(everyRefusal))
	}
	for id, types := range records {
		if types[audit.TypeDecision] != 1 || types[audit.TypeOutcome] != 1 {
			t.Errorf("record %s has %v", id, types)
		}
	}
}

func TestRefusalsOfHead(t *testing.T) {
	g := newGate(t, newApp(t, func(http.ResponseWriter, *http.Request) {}))
	a := g.send("HEAD", "/private/a", "")
	if a.StatusCode != 401 || a.body != "" || a.Header.Get("Content-Length") == "0" {
		t.Errorf("%+v %q", a.Response, a.body)
	}
	a = g.send("DELETE", "/private/a", "alice")
	if got := a.Header.Get("Allow"); got != "GET, HEAD, POST" {
		t.Errorf("Allow: %s", got)
	}
}

// TestOrderOfRefusals: rule 11. Each request has every later fault, too.
func TestOrderOfRefusals(t *testing.T) {
	_, _, uploads := withUploads()
	g := newGate(t, newApp(t, func(http.ResponseWriter, *http.Request) {}), uploads)
	for _, c := range []struct {
		code, request string
	}{
		{codeBadTarget, request("DELETE", "/v1//nowhere", "bad")},
		{codeNoRoute, request("DELETE", "/v1/nowhere", "bad")},
		{codeMethod, request("DELETE", "/v1/uploads/presign", "bad")},
		{codeInvalidToken, strings.Replace(presignRequest("alice", `{`), "alice", "bad!!", 1)},
		{codeUnavailable, strings.Replace(presignRequest("alice", `{`), "alice", "away", 1)},
		{codeNotAllowed, presignRequest("bob", `{"broken`)},
		{codeNotAllowed, presignRequest("bob", `{"contentType": "image/gif", "size": 1025}`)},
		{codeInvalidField, presignRequest("alice", `{"contentType": "image/gif", "size": 1025, "expiresSeconds": 1}`)},
		{codeUnsupportedType, presignRequest("alice", `{"contentType": "image/gif", "size": 1025}`)},
		{codeTooLarge, presignRequest("alice", `{"contentType": "image/png", "size": 1025}`)},
	} {
		if a := g.raw(c.request); !strings.Contains(a.body, `"code":"`+c.code+`"`) {
			t.Errorf("want %s: %s", c.code, a.body)
		}
	}
}

// TestNothingBeforeTheRecord: the app sees no request, and nothing is signed or
// stored, before the decision is on record.
func TestNothingBeforeTheRecord(t *testing.T) {
	var hits atomic.Int64
	app := newApp(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	store, bucket, uploads := withUploads()
	g := newGate(t, app, uploads)
	for _, req := range []string{
		request("GET", "/private/a", "alice"),
		presignRequest("alice", `{"contentType": "image/png", "size": 1}`),
	} {
		name, _, _ := strings.Cut(req, "\r")
		hold := make(chan struct{})
		g.tape.set(func(r *tape) { r.hold = hold })
		done := make(chan answer, 1)
		go func() { done <- g.raw(req) }()
		before := hits.Load()
		<-g.tape.entered
		if hits.Load() != before || store.count() != 0 || bucket.signed != 0 {
			t.Errorf("%s: acted before the decision was on record", name)
		}
		close(hold)
		if a := <-done; a.StatusCode != 200 {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
		g.outcome()
		g.tape.set(func(r *tape) { r.hold = nil })
	}
	if hits.Load() != 1 || store.count() != 1 || bucket.signed != 1 || bucket.late {
		t.Errorf("%d hits, %d sessions, %d signatures, late %v", hits.Load(), store.count(), bucket.signed, bucket.late)
	}
}

// TestRecordFails both ways: the event is lost, or it is stored and nobody
// heard of it. The request does not go on, refusals neither.
func TestRecordFails(t *testing.T) {
	var hits atomic.Int64
	app := newApp(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	store, bucket, uploads := withUploads()
	g := newGate(t, app, uploads)
	for name, fail := range map[string]func(*tape){
		"failed":            func(r *tape) { r.before, r.after = errRecord, nil },
		"failed but stored": func(r *tape) { r.before, r.after = nil, errRecord },
	} {
		g.tape.set(fail)
		for _, req := range []string{
			request("GET", "/private/a", "alice"), request("GET", "/public/a", ""), request("GET", "/private/a", ""),
			presignRequest("alice", `{"contentType": "image/png", "size": 1}`), request("GET", "/v1/files/users/alice/x/download", "alice"),
		} {
			a := g.raw(req)
			if a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || !strings.Contains(a.body, `"code":"unavailable"`) || strings.Contains(a.body, "disk") {
				t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
			}
			if o := g.outcome(); o.Outcome.Status != 503 || o.Outcome.Error != codeUnavailable {
				t.Errorf("%s: the outcome is %+v", name, o.Outcome)
			}
		}
	}
	if hits.Load() != 0 || store.count() != 0 || bucket.signed != 0 {
		t.Errorf("%d hits, %d sessions, %d signatures", hits.Load(), store.count(), bucket.signed)
	}
	g.tape.set(func(r *tape) { r.before, r.after = nil, nil })
	if a := g.send("GET", "/private/a", "alice"); a.StatusCode != 200 {
		t.Errorf("it does not recover: %d", a.StatusCode)
	}
}

func TestClosedLedgerRefuses(t *testing.T) {
	var hits atomic.Int64
	g := newGate(t, newApp(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	g.ledger()
	if a := g.send("GET", "/public/a", ""); a.StatusCode != 503 || hits.Load() != 0 {
		t.Errorf("%d, %d hits", a.StatusCode, hits.Load())
	}
}

type panicTransport struct{}

func (panicTransport) RoundTrip(*http.Request) (*http.Response, error) { panic("the transport broke") }

// midway breaks within the answer's body.
type midway struct{}

func (midway) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, ContentLength: -1,
		Body: io.NopCloser(io.MultiReader(strings.NewReader("half"), panicReader{})), Request: r}, nil
}

type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("the body broke") }

// TestPanics: whatever breaks, the caller gets 500 or a broken answer, it is on
// record, and the process lives.
func TestPanics(t *testing.T) {
	app := newApp(t, func(http.ResponseWriter, *http.Request) {})
	_, bucket, uploads := withUploads()
	bucket.panics = true
	for _, c := range []struct {
		stage, request, effect string
		change                 func(*Options)
		cut                    bool
	}{
		{"authenticator", request("GET", "/private/a", "panic"), "deny", uploads, false},
		{"transport", request("GET", "/public/a", ""), "allow", upstream(func(u *Upstream) { u.Transport = panicTransport{} }), false},
		{"answer", request("GET", "/public/a", ""), "allow", upstream(func(u *Upstream) { u.Transport = midway{} }), true},
		{"uploads", presignRequest("alice", `{"contentType": "image/png", "size": 1}`), "allow", uploads, false},
	} {
		g := newGate(t, app, c.change)
		a := g.raw(c.request)
		switch {
		case c.cut && a.err == nil:
			t.Errorf("%s: a clean end: %q", c.stage, a.body)
		case !c.cut && (a.StatusCode != 500 || !strings.Contains(a.body, `"code":"internal"`) || !a.Close || strings.Contains(a.body, "broke")):
			t.Errorf("%s: %+v %s", c.stage, a.Response, a.body)
		}
		o := g.outcome()
		if o.Outcome.Error != codeInternal || o.Outcome.Truncated != c.cut || g.decision().Decision.Effect != c.effect {
			t.Errorf("%s: %+v, %+v", c.stage, g.decision().Decision, o.Outcome)
		}
		if types := g.ledger()[o.Record]; types[audit.TypeDecision] != 1 || types[audit.TypeOutcome] != 1 {
			t.Errorf("%s: %v", c.stage, types)
		}
		if !strings.Contains(g.log.String(), "broke") {
			t.Errorf("%s: the log does not say what broke", c.stage)
		}
	}
	g := newGate(t, app)
	g.tape.set(func(r *tape) { r.panics = true })
	if a := g.send("GET", "/public/a", ""); a.StatusCode != 500 {
		t.Errorf("recorder: %+v", a.Response)
	}
	g.tape.set(func(r *tape) { r.panics = false })
	if a := g.send("GET", "/public/a", ""); a.StatusCode != 200 {
		t.Errorf("it does not live: %+v", a.Response)
	}
}

// TestPanicIsRecordedFirst: also where there is no decision, one is on record
// before the caller is answered.
func TestPanicIsRecordedFirst(t *testing.T) {
	g := newGate(t, newApp(t, func(http.ResponseWriter, *http.Request) {}))
	hold := make(chan struct{})
	g.tape.set(func(r *tape) { r.hold = hold })
	done := make(chan answer, 1)
	go func() { done <- g.send("GET", "/private/a", "panic") }()
	<-g.tape.entered
	select {
	case <-done:
		t.Error("answered before it was on record")
	default:
	}
	close(hold)
	if a := <-done; a.StatusCode != 500 {
		t.Errorf("%+v", a.Response)
	}
}

func TestCallerLeavesDuringTheRecord(t *testing.T) {
	var hits atomic.Int64
	g := newGate(t, newApp(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	g.tape.set(func(r *tape) { r.hold = make(chan struct{}) })
	conn := g.dial()
	io.WriteString(conn, request("GET", "/public/a", ""))
	<-g.tape.entered
	conn.Close()
	if o := g.outcome(); o.Outcome.Error != "client_gone" || hits.Load() != 0 {
		t.Errorf("%+v, %d hits", o.Outcome, hits.Load())
	}
	families, _ := g.metrics.Gather()
	for _, f := range families {
		if f.GetName() == "sidegate_audit_failures_total" && f.Metric[0].Counter.GetValue() != 0 {
			t.Error("a caller that left counts as a failure of the audit log")
		}
	}
}

func TestZeroDecisionDenies(t *testing.T) {
	var d decision
	var pr *problem
	if d.allow || !errors.As(d.refused(), &pr) || pr.status != 500 {
		t.Errorf("%+v", d.refused())
	}
	if judged := new(exchange).judged(loadPolicy(t, testPolicy).Decide(&policy.Input{})); judged.allow || judged.problem == nil {
		t.Errorf("%+v", judged)
	}
}

func TestNewRefusesWhatIsMissing(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("no policy")
	}
	if _, err := New(Options{Policy: loadPolicy(t, testPolicy)}); err == nil {
		t.Error("no authenticator")
	}
	g := newGate(t, "http://127.0.0.1:1")
	o := g.proxy.o
	o.Metrics = nil
	if _, err := New(o); err == nil {
		t.Error("no metrics")
	}
	o.Metrics, o.Upstreams = prometheus.NewRegistry(), map[string]Upstream{"app": {}}
	if _, err := New(o); err == nil {
		t.Error("an upstream of nothing")
	}
}

// TestPolicyIsOnePerRequest: a request keeps the policy that it began with.
func TestPolicyIsOnePerRequest(t *testing.T) {
	g := newGate(t, newApp(t, func(http.ResponseWriter, *http.Request) {}))
	old := g.proxy.Policy()
	hold := make(chan struct{})
	g.tape.set(func(r *tape) { r.hold = hold })
	done := make(chan answer, 1)
	go func() { done <- g.send("GET", "/public/a", "") }()
	<-g.tape.entered
	next := loadPolicy(t, strings.Replace(testPolicy, "name: test", "name: next", 1))
	g.proxy.SetPolicy(next)
	close(hold)
	if a := <-done; a.StatusCode != 200 || g.decision().Decision.Policy.SHA256 != old.SHA256 {
		t.Errorf("%+v", g.decision().Decision.Policy)
	}
	g.tape.set(func(r *tape) { r.hold = nil })
	g.send("GET", "/public/a", "")
	if g.decision().Decision.Policy.Name != "next" {
		t.Errorf("%+v", g.decision().Decision.Policy)
	}
}

// TestNoOutcomeWithoutDecision: where the decision is in no log its outcome is
// not written either: callers who go on asking must not fill what is full.
func TestNoOutcomeWithoutDecision(t *testing.T) {
	app := newApp(t, func(http.ResponseWriter, *http.Request) { t.Error("the upstream was reached") })
	g := newGate(t, app)
	g.tape.mu.Lock()
	g.tape.before = fmt.Errorf("%w: the disk is full", ErrNotRecorded)
	g.tape.mu.Unlock()
	for range 3 {
		if a := g.send("GET", "/public/a", ""); a.StatusCode != 503 {
			t.Errorf("%d", a.StatusCode)
		}
	}
	g.tape.mu.Lock()
	g.tape.before = nil
	g.tape.mu.Unlock()
	if n := len(g.tape.outcomes); n != 0 {
		t.Errorf("%d outcomes of nothing", n)
	}
}

// hanging is an Authenticator whose issuer does not answer.
type hanging struct{ asked chan struct{} }

func (h hanging) Authenticate(ctx context.Context, _ string) (*policy.Identity, error) {
	h.asked <- struct{}{}
	<-ctx.Done()
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
}

// TestLeavingCallerIsNoOutage: who hangs up while something is waited for is on
// record as gone, and does not count as our 503.
func TestLeavingCallerIsNoOutage(t *testing.T) {
	h := hanging{asked: make(chan struct{}, 1)}
	g := newGate(t, "http://127.0.0.1:1", func(o *Options) { o.Authenticator = h })
	conn := g.dial()
	io.WriteString(conn, request("GET", "/private/a", "alice"))
	<-h.asked
	conn.Close()
	if o := g.outcome().Outcome; o.Status != 0 || o.Error != "client_gone" {
		t.Errorf("%+v", o)
	}
	if d := g.decision().Decision; d.Effect != "deny" || d.Status != 503 {
		t.Errorf("%+v", d)
	}
}

// TestPanicOnAFullDisk: what broke before its decision, and cannot be put on
// record, leaves no outcome either, and the caller in no doubt.
func TestPanicOnAFullDisk(t *testing.T) {
	g := newGate(t, "http://127.0.0.1:1", func(o *Options) { o.Authenticator = panicking{} })
	g.tape.set(func(r *tape) { r.before = ErrNotRecorded })
	if a := g.send("GET", "/private/a", "alice"); a.StatusCode != 500 || !a.Close {
		t.Errorf("%+v", a.Response)
	}
	g.tape.set(func(r *tape) { r.before = nil })
	if n := len(g.tape.outcomes); n != 0 {
		t.Errorf("%d outcomes of nothing", n)
	}
}

type panicking struct{}

func (panicking) Authenticate(context.Context, string) (*policy.Identity, error) {
	panic("the authenticator broke")
}
