package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
	"unsafe"

	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"sidegate/storage/audit"
)

// A spanTape keeps spans as they end, and hands out those of a request with its
// own, which ends last.
type spanTape struct {
	mu       sync.Mutex
	begun    int
	spans    []sdk.ReadOnlySpan
	requests chan traceOf
}

// A traceOf is the spans of one request.
type traceOf struct {
	own   sdk.ReadOnlySpan
	parts []sdk.ReadOnlySpan // in the order of their ends
	open  int                // were begun, and did not end
}

func (s *spanTape) OnStart(context.Context, sdk.ReadWriteSpan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun++
}

func (s *spanTape) OnEnd(span sdk.ReadOnlySpan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun--; span.SpanKind() != trace.SpanKindServer {
		s.spans = append(s.spans, span)
		return
	}
	s.requests <- traceOf{span, s.spans, s.begun}
	s.spans = nil
}

func (s *spanTape) ForceFlush(context.Context) error { return nil }
func (s *spanTape) Shutdown(context.Context) error   { return nil }

// traced switches tracing on: which spans come of it are those of one request
// after the other.
func traced(s *spanTape, sample float64) func(*Options) {
	s.requests = make(chan traceOf, 1000)
	return func(o *Options) {
		o.Tracer, o.Sample = sdk.NewTracerProvider(sdk.WithSpanProcessor(s), sdk.WithSampler(sdk.AlwaysSample())).Tracer("test"), sample
	}
}

func (s *spanTape) next(t *testing.T) traceOf {
	t.Helper()
	select {
	case r := <-s.requests:
		if r.open != 0 {
			t.Errorf("%s: %d spans did not end", r.own.Name(), r.open)
		}
		for _, p := range r.parts {
			if p.SpanContext().TraceID() != r.own.SpanContext().TraceID() || p.Parent().SpanID() != r.own.SpanContext().SpanID() {
				t.Errorf("%s is no child of %s", p.Name(), r.own.Name())
			}
			if p.StartTime().Before(r.own.StartTime()) || p.EndTime().After(r.own.EndTime()) {
				t.Errorf("%s is not within %s", p.Name(), r.own.Name())
			}
		}
		return r
	case <-time.After(20 * time.Second):
		t.Fatal("no span of a request came")
		return traceOf{}
	}
}

func (r traceOf) names() string {
	var out []string
	for _, p := range r.parts {
		out = append(out, p.Name())
	}
	return strings.Join(out, " ")
}

func (r traceOf) part(t *testing.T, name string) sdk.ReadOnlySpan {
	t.Helper()
	for _, p := range r.parts {
		if p.Name() == name {
			return p
		}
	}
	t.Fatalf("there is no span %s, but %s", name, r.names())
	return nil
}

// attributes are a span's, as text.
func attributes(s sdk.ReadOnlySpan) map[string]string {
	out := map[string]string{}
	for _, a := range s.Attributes() {
		out[string(a.Key)] = a.Value.String()
	}
	return out
}

// heads is an app that tells which headers came.
func heads(t *testing.T) (app string, got chan http.Header) {
	got = make(chan http.Header, 1000)
	return newApp(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header
		status := http.StatusOK
		fmt.Sscanf(r.URL.Query().Get("status"), "%d", &status)
		w.WriteHeader(status)
	}), got
}

func TestSpansOfARequest(t *testing.T) {
	tape := &spanTape{}
	app, got := heads(t)
	g := newGate(t, app, traced(tape, 1))
	a := g.send("GET", "/own/alice?secret=1", "alice", "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if a.StatusCode != 200 {
		t.Fatal(a.StatusCode)
	}
	g.outcome()
	r, h, e := tape.next(t), <-got, g.decision()
	own, up := r.own, r.part(t, "upstream")
	id := own.SpanContext().TraceID().String()
	if r.names() != "identify decide record upstream" || own.Name() != "GET /own/{uid}" || own.Parent().SpanID().IsValid() || up.SpanKind() != trace.SpanKindClient {
		t.Errorf("%s: %s, parent %s", own.Name(), r.names(), own.Parent().SpanID())
	}
	if want := "00-" + id + "-" + up.SpanContext().SpanID().String() + "-01"; h.Get("Traceparent") != want || h["X-Cloud-Trace-Context"] != nil {
		t.Errorf("the app's parent is %s, want %s", h.Get("Traceparent"), want)
	}
	if id != e.Record || e.Request.Trace != id {
		t.Errorf("trace %s, record %s, on record %s", id, e.Record, e.Request.Trace)
	}
	if line := lastLine(t, g); line["trace"] != id && !strings.HasSuffix(fmt.Sprint(line["logging.googleapis.com/trace"]), id) {
		t.Errorf("the log's line has another trace: %v", line)
	}
	have := attributes(own)
	for key, want := range map[string]string{
		"http.request.method": "GET", "url.path": "/own/alice", "url.scheme": "http", "server.address": "gateway.test", "network.protocol.version": "1.1",
		"http.route": "/own/{uid}", "http.response.status_code": "200", "sidegate.record": e.Record, "sidegate.route": "own", "sidegate.decision": "allow",
		"sidegate.rule": "own/own", "sidegate.code": "entry", "sidegate.identity": "users", "sidegate.upstream": "app",
	} {
		if have[key] != want {
			t.Errorf("%s is %q, want %q", key, have[key], want)
		}
	}
	if own.Status().Code != codes.Unset || have["error.type"] != "" {
		t.Errorf("a success is an error: %v %v", own.Status(), have)
	}
}

func lastLine(t *testing.T, g *gate) map[string]any {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(g.log.String()), "\n")
	var out map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestWhichTracesAreKept: whoever begins a trace says so, unless he is a stranger.
func TestWhichTracesAreKept(t *testing.T) {
	const (
		id    = "0af7651916cd43dd8448eb211c80319c"
		span  = "b7ad6b7169203331"
		w3c   = "Traceparent: 00-" + id + "-" + span
		cloud = "X-Cloud-Trace-Context: " + id + "/13235353014750950193"
	)
	for name, c := range map[string]struct {
		trusted   bool
		sample    float64
		lines     []string
		kept      bool
		continued bool
		cloud     bool // the app gets the older header, too
	}{
		"begun, all are":                     {false, 1, nil, true, false, false},
		"begun, none is":                     {false, 0, nil, false, false, false},
		"a stranger's":                       {false, 0, []string{w3c + "-01"}, false, false, false},
		"a stranger's, older form":           {false, 1, []string{cloud + ";o=1"}, true, false, false},
		"a proxy's, sampled":                 {true, 0, []string{w3c + "-01"}, true, true, false},
		"a proxy's, random too":              {true, 0, []string{w3c + "-03"}, true, true, false},
		"a proxy's, not sampled":             {true, 1, []string{w3c + "-00"}, false, true, false},
		"a proxy's, malformed":               {true, 1, []string{w3c}, true, false, false},
		"older form, sampled":                {true, 0, []string{cloud + ";o=1"}, true, true, true},
		"older form, not sampled":            {true, 1, []string{cloud + ";o=0"}, false, true, true},
		"older form, malformed":              {true, 0, []string{cloud + ";o=x"}, false, false, true},
		"older form twice":                   {true, 1, []string{cloud + ";o=1", cloud + ";o=1"}, true, false, true},
		"both: traceparent counts":           {true, 0, []string{w3c + "-01", "X-Cloud-Trace-Context: " + strings.Repeat("a", 32) + "/1;o=0"}, true, true, true},
		"both, traceparent malformed: a new": {true, 0, []string{w3c, cloud + ";o=1"}, false, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			tape := &spanTape{}
			app, got := heads(t)
			g := newGate(t, app, traced(tape, c.sample), func(o *Options) { o.Trusted.Peer = c.trusted })
			if a := g.send("GET", "/public/a", "", c.lines...); a.StatusCode != 200 {
				t.Fatal(a.StatusCode)
			}
			h := <-got
			g.outcome()
			parent := h.Get("Traceparent")
			if !validTraceparent(parent) || sampledFlag(parent) != c.kept || (parent[3:35] == id) != c.continued || g.decision().Request.Trace != parent[3:35] {
				t.Errorf("the app gets %s", parent)
			}
			older := h["X-Cloud-Trace-Context"]
			if (len(older) == 1) != c.cloud || c.cloud && fromCloudTrace(older[0]) != parent {
				t.Errorf("the app gets %s and %v", parent, older)
			}
			if !c.kept {
				if parent[36:52] != span && c.continued {
					t.Errorf("nobody made span %s", parent[36:52])
				}
				if g.server.Close(); len(tape.requests) != 0 || tape.begun != 0 {
					t.Error("it is traced")
				}
				return
			}
			r := tape.next(t)
			own := r.own.SpanContext()
			if own.TraceID().String() != parent[3:35] || r.part(t, "upstream").SpanContext().SpanID().String() != parent[36:52] {
				t.Errorf("the spans are not the app's parents")
			}
			if p := r.own.Parent(); c.continued != p.SpanID().IsValid() || c.continued && p.SpanID().String() != span || p.IsRemote() != c.continued {
				t.Errorf("the parent is %+v", p)
			}
		})
	}
}

func TestTraceStateOfSpans(t *testing.T) {
	for state, want := range map[string]string{
		"ot=th:8,a=b": "ot=th:8,a=b", "no state": "", "a=" + strings.Repeat("x", 600): "", "A=b": "",
	} {
		tape := &spanTape{}
		app, _ := heads(t)
		g := newGate(t, app, traced(tape, 0), func(o *Options) { o.Trusted.Peer = true })
		g.send("GET", "/public/a", "", "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate: "+state)
		if got := tape.next(t).own.SpanContext().TraceState().String(); got != want {
			t.Errorf("%q became %q", state, got)
		}
	}
}

// TestSpansOfRefusalsAndFailures: only what the gateway could not do is an error.
func TestSpansOfRefusalsAndFailures(t *testing.T) {
	tape := &spanTape{}
	app, _ := heads(t)
	g := newGate(t, app, traced(tape, 1))
	for _, c := range []struct {
		target, token string
		names         string
		bad           string // the part that failed; empty: none
		failed        bool
		kind          string
	}{
		{"/nowhere", "", "record", "", false, ""},
		{"/private/a", "", "identify record", "", false, ""},
		{"/private/a", "bad", "identify record", "", false, ""},
		{"/admin/a", "alice", "identify decide record", "", false, ""},
		{"/private/a", "away", "identify record", "identify", true, "503"},
		{"/private/a", "panic", "identify", "identify", true, "500"},
		{"/public/a?status=500", "", "identify decide record upstream", "upstream", true, "500"},
		{"/public/a?status=404", "", "identify decide record upstream", "upstream", false, ""},
		{"/lost", "", "identify decide record", "decide", true, "500"},
	} {
		g.send("GET", c.target, c.token)
		r := tape.next(t)
		have := attributes(r.own)
		if r.names() != c.names || (r.own.Status().Code == codes.Error) != c.failed || have["error.type"] != c.kind || r.own.Status().Description != "" {
			t.Errorf("%s as %q: %s, %v, error.type %q", c.target, c.token, r.names(), r.own.Status(), have["error.type"])
		}
		for _, p := range r.parts {
			if (p.Status().Code == codes.Error) != (p.Name() == c.bad) || (attributes(p)["error.type"] != "") != (p.Name() == c.bad) {
				t.Errorf("%s as %q: %s is %v", c.target, c.token, p.Name(), p.Status())
			}
			if len(p.Events()) != 0 {
				t.Errorf("%s has events", p.Name())
			}
		}
	}
	g.tape.set(func(tape *tapeOf) { tape.before = errRecord })
	g.send("GET", "/public/a", "")
	if r := tape.next(t); r.names() != "identify decide record" || r.part(t, "record").Status().Code != codes.Error || attributes(r.own)["error.type"] != "503" {
		t.Errorf("not on record: %s", r.names())
	}
}

// tapeOf: the name tape is taken there.
type tapeOf = tape

// TestSpansOfADeadApp: the app broke off, or is not there.
func TestSpansOfADeadApp(t *testing.T) {
	tape := &spanTape{}
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("half"))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	newGate(t, app, traced(tape, 1)).send("GET", "/public/a", "")
	r := tape.next(t)
	if up := r.part(t, "upstream"); up.Status().Code != codes.Error || attributes(up)["error.type"] != codeUpstreamFailed || attributes(r.own)["error.type"] != codeUpstreamFailed || r.own.Status().Code != codes.Error {
		t.Errorf("%v %v", attributes(up), attributes(r.own))
	}
	newGate(t, "http://127.0.0.1:1", traced(tape, 1)).send("GET", "/public/a", "")
	r = tape.next(t)
	if up := attributes(r.part(t, "upstream")); up["error.type"] != codeUpstreamFailed || up["server.port"] != "1" || attributes(r.own)["error.type"] != "502" {
		t.Errorf("%v", up)
	}
}

// TestHostileTextInSpans: what a caller chooses is bounded, and UTF-8 that
// protobuf takes; else one request would take a whole export with it.
func TestHostileTextInSpans(t *testing.T) {
	tape := &spanTape{}
	app, _ := heads(t)
	g := newGate(t, app, traced(tape, 1))
	for _, target := range []string{"/public/%ff%fe", "/public/\xff\xfe", "/public/%00", "/public/" + strings.Repeat("%ff", 3000), "/public/" + strings.Repeat("ü", 2000), "http://\xffx/public/a", "*", "/public/%1b%5b31m"} {
		g.send("GET", target, "")
		r := tape.next(t)
		for key, value := range attributes(r.own) {
			if !utf8.ValidString(value) || len(value) > 6*maxSpanText || strings.ContainsAny(value, "\x00\x1b\n") {
				t.Errorf("%.40q: %s is %.80q", target, key, value)
			}
		}
		if !utf8.ValidString(r.own.Name()) || len(r.own.Name()) > 200 {
			t.Errorf("%.40q: the name is %q", target, r.own.Name())
		}
	}
	g.raw("BREW /public/a HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
	if r := tape.next(t); r.own.Name() != "_OTHER" || attributes(r.own)["http.request.method"] != "_OTHER" {
		t.Error(r.own.Name())
	}
}

// TestSpansDoNotHoldOnToRequests: thousands of spans may wait for a collector that
// is away, and what a request line has beyond them must not wait with them.
func TestSpansDoNotHoldOnToRequests(t *testing.T) {
	tape := &spanTape{}
	g := unserved(t, "http://127.0.0.1:1", traced(tape, 1))
	r := httptest.NewRequest("GET", "/nowhere?q="+strings.Repeat("q", 30<<10), nil)
	line, host := r.RequestURI, r.Host
	g.proxy.ServeHTTP(httptest.NewRecorder(), r)
	have := attributes(tape.next(t).own)
	for key, from := range map[string]string{"url.path": line, "server.address": host} {
		if value := have[key]; value == "" || unsafe.StringData(value) == unsafe.StringData(from) {
			t.Errorf("%s %q is a part of what came", key, value)
		}
	}
}

// everySpan makes requests of each kind that there is, and gives their spans.
func everySpan(t *testing.T) []traceOf {
	t.Helper()
	tape := &spanTape{}
	app, _ := heads(t)
	g := newGate(t, app, traced(tape, 1))
	g.send("GET", "/own/alice?q="+canary, "alice", "Cookie: c="+canary, "X-Custom: "+canary, "User-Agent: "+canary)
	g.send("GET", "/public/a?status=500", "")
	g.send("GET", "/private/a", canary)
	g.send("GET", "/own/bob", "alice")
	g.asking(DialectTraefik).raw(DialectTraefik.question("GET", "/private/a?q="+canary, "alice", "X-Custom: "+canary))
	var out []traceOf
	for range 5 {
		out = append(out, tape.next(t))
	}
	served := newServed(t)
	traced(tape, 1)(&served.proxy.o)
	a := served.call("POST", "/v1/uploads/presign", "alice", `{"contentType": "image/jpeg", "fileExt": "jpg", "size": 10}`, "Idempotency-Key: "+canary)
	if a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	r := tape.next(t)
	if r.names() != "identify decide record sign" {
		t.Errorf("presign: %s", r.names())
	}
	out = append(out, r)
	var body struct{ Session string }
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || body.Session == "" {
		t.Fatal(err, a.body)
	}
	served.call("POST", "/v1/uploads/"+body.Session+"/confirm", "alice", "")
	if r = tape.next(t); r.names() != "identify decide record store" || attributes(r.part(t, "store"))["sidegate.operation"] != "confirm" {
		t.Errorf("confirm: %s", r.names())
	}
	return append(out, r)
}

// canary is whatever a span must not hold.
const canary = "canary1e7"

func TestNothingSecretInSpans(t *testing.T) {
	for _, r := range everySpan(t) {
		for _, s := range append(r.parts, r.own) {
			var all bytes.Buffer
			fmt.Fprint(&all, s.Name(), attributes(s), s.Events(), s.Links(), s.Status(), s.SpanContext().TraceState())
			for _, bad := range []string{canary, "Bearer", "@acme.dev", "X-Amz", "Signature", "127.0.0.1:", "users/alice"} {
				if strings.Contains(all.String(), bad) {
					t.Errorf("%s holds %s: %s", s.Name(), bad, all.String())
				}
			}
			for key, value := range attributes(s) {
				if strings.Contains(value, "alice") && key != "url.path" {
					t.Errorf("%s: %s says who it is: %s", s.Name(), key, value)
				}
			}
		}
	}
}

// TestSpansAreDocumented: the tables of docs/operations.md are what spans have.
func TestSpansAreDocumented(t *testing.T) {
	have := map[string]map[string]bool{}
	names := map[string]bool{}
	for _, r := range everySpan(t) {
		for _, s := range append(r.parts, r.own) {
			name := "`" + s.Name() + "`"
			if s.SpanKind() == trace.SpanKindServer {
				name = "request"
			} else {
				names[s.Name()] = true
			}
			for key := range attributes(s) {
				if have[key] == nil {
					have[key] = map[string]bool{}
				}
				have[key][name] = true
			}
		}
	}
	page, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Tracing\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| ([^|]+) \\| [^|]+ \\|$").FindAllStringSubmatch(section, -1) {
		documented[row[1]] = true
		spans := slices.Sorted(maps.Keys(have[row[1]]))
		listed := strings.Split(row[2], ", ")
		slices.Sort(listed)
		if row[2] != "all" && !slices.Equal(listed, spans) {
			t.Errorf("%s: documented of %v, there are %v", row[1], listed, spans)
		}
	}
	if len(documented) < 20 {
		t.Fatalf("only %d rows were found", len(documented))
	}
	for key := range have {
		if !documented[key] {
			t.Errorf("%s is not documented", key)
		}
	}
	for key := range documented {
		if have[key] == nil {
			t.Errorf("%s is documented, and on no span", key)
		}
	}
	for name := range names {
		if !strings.Contains(section, "\n| `"+name+"` | ") {
			t.Errorf("the span %s is not documented", name)
		}
	}
}

func TestForwardAuthIsTraced(t *testing.T) {
	for _, d := range dialects {
		tape := &spanTape{}
		g := forwarded(t, traced(tape, 0)).asking(d)
		a := g.raw(d.question("GET", "/private/a", "alice", "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Cloud-Trace-Context: "+strings.Repeat("a", 32)+"/7;o=1"))
		r := tape.next(t)
		own := r.own.SpanContext()
		if want := "00-0af7651916cd43dd8448eb211c80319c-" + own.SpanID().String() + "-01"; a.Header.Get("Traceparent") != want || a.Header["X-Cloud-Trace-Context"] != nil {
			t.Errorf("%s: %v, want %s", d, a.Header, want)
		}
		if r.names() != "identify decide record" || attributes(r.own)["sidegate.forward_auth"] != string(d) || r.own.Parent().SpanID().String() != "b7ad6b7169203331" {
			t.Errorf("%s: %s %v", d, r.names(), attributes(r.own))
		}
		if d == DialectEnvoy && !slices.Contains(strings.Split(a.Header.Get("X-Envoy-Auth-Headers-To-Remove"), ","), "x-cloud-trace-context") {
			t.Error("the older header of the question would reach the app")
		}
	}
}

// TestNotTracingCostsNothing: no allocation where nothing is traced, and none for
// what is not kept.
func TestNotTracingCostsNothing(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"off": func(*Options) {}, "none is kept": traced(&spanTape{}, 0),
	} {
		g := unserved(t, "http://127.0.0.1:1", change)
		r := httptest.NewRequest("GET", "/private/a", nil)
		x := g.proxy.begin(httptest.NewRecorder(), r)
		f := g.proxy.upstreams["app"]
		x.object = &audit.Object{Operation: opPut}
		d := &decision{allow: true}
		if n := testing.AllocsPerRun(1000, func() {
			x.startTrace()
			x.stage(stageIdentify)
			x.stage(stageDecide)
			x.leaveStage(d.trouble())
			x.stage(stageRecord)
			x.leaveStage(nil)
			x.stageServed()
			x.stageUpstream(f)
			x.upstreamAnswered(200)
			x.endTrace()
		}); n != 0 || x.spans != nil {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
