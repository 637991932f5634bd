package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/rs/zerolog"

	"sidegate/policy"
	"sidegate/storage/audit"
)

// logged is an exchange that ended, with something in each field of its line.
func logged(p *Proxy) *exchange {
	r := httptest.NewRequest("PUT", "http://photos.acme.dev/v1/photos?X-Amz-Signature=secret", strings.NewReader("body"))
	r.Header.Set("User-Agent", "curl/8.1")
	return &exchange{
		p: p, r: r, policy: p.Policy(), start: p.o.Now().Add(-12300 * time.Microsecond), id: "0123456789abcdef0123456789abcdef",
		trace: "4bf92f3577b34da6a3ce929d0e0e4736", span: "00f067aa0ba902b7", sampled: true, ip: netip.MustParseAddr("192.0.2.7"),
		w: &responseWriter{status: 200, bytes: 512}, body: &requestBody{}, match: matched{Route: &policy.Route{ID: "photos"}},
		target: target{path: "/v1/photos"}, identity: &policy.Identity{Name: "users", UID: "alice", Actor: "agent-7"}, appCheck: "expired",
		decision: decision{allow: true, reason: "entry", rule: "photos/owner"}, upstream: "app",
	}
}

func logProxy(t testing.TB, w io.Writer, lines LogLines) *Proxy {
	now := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	p := &Proxy{o: Options{Log: zerolog.New(w), LogLines: lines, Now: func() time.Time { return now }}}
	p.policy.Store(loadPolicy(t, testPolicy))
	return p
}

// logLine is the one line that was written.
func logLine(t *testing.T, data []byte) map[string]any {
	t.Helper()
	if n := bytes.Count(data, []byte("\n")); n != 1 {
		t.Fatalf("%d lines: %.300q", n, data)
	}
	var line map[string]any
	if err := json.Unmarshal(data, &line); err != nil {
		t.Fatalf("%v: %.300q", err, data)
	}
	return line
}

// TestTheLineOfARequest: names and forms are Cloud Logging's where it has any
// (google.logging.type.HttpRequest in JSON: sizes are strings, latency a Duration).
func TestTheLineOfARequest(t *testing.T) {
	var out bytes.Buffer
	p := logProxy(t, &out, LogLines{Project: "acme-prod", Sampled: true, Share: 1})
	p.log(logged(p), false)
	want := map[string]any{
		"level": "info", "message": "request", "record": "0123456789abcdef0123456789abcdef", "trace": "4bf92f3577b34da6a3ce929d0e0e4736",
		"logging.googleapis.com/trace":  "projects/acme-prod/traces/4bf92f3577b34da6a3ce929d0e0e4736",
		"logging.googleapis.com/spanId": "00f067aa0ba902b7", "logging.googleapis.com/trace_sampled": true,
		"decision": "allow", "code": "entry", "route": "photos", "rule": "photos/owner", "identity": "users", "uid": "alice", "actor": "agent-7",
		"app_check": "expired", "upstream": "app", "sampled": 1.0,
	}
	request := map[string]any{"requestMethod": "PUT", "requestUrl": "/v1/photos", "status": 200.0, "requestSize": "0", "responseSize": "512",
		"userAgent": "curl/8.1", "remoteIp": "192.0.2.7", "latency": "0.012300s", "protocol": "HTTP/1.1"}
	line := logLine(t, out.Bytes())
	got, _ := line["httpRequest"].(map[string]any)
	delete(line, "httpRequest")
	if !maps.Equal(line, want) {
		t.Errorf("got  %v\nwant %v", line, want)
	}
	if !maps.Equal(got, request) {
		t.Errorf("got  %v\nwant %v", got, request)
	}
	if strings.Contains(out.String(), "secret") {
		t.Errorf("the line holds a query: %s", &out)
	}

	out.Reset()
	x := logged(logProxy(t, &out, LogLines{}))
	x.failure, x.w.status = errors.New("the app is away"), 502
	x.p.log(x, true)
	line = logLine(t, out.Bytes())
	if line["level"] != "warn" || line["truncated"] != true || line["error"] != "the app is away" || line["trace"] != x.trace {
		t.Errorf("%v", line)
	}
	for name := range line {
		if strings.HasPrefix(name, "logging.googleapis.com/") || name == "sampled" {
			t.Errorf("%s is there without a project, or a share", name)
		}
	}
}

// TestHostileLine: what the line is made of cannot end its string, or the line.
func TestHostileLine(t *testing.T) {
	const hostile = "a\"},\"uid\":\"root\\\n\x00\u2028<\xff"
	var out bytes.Buffer
	x := logged(logProxy(t, &out, LogLines{Project: hostile}))
	x.ip = netip.MustParseAddr(`fe80::1%"},"uid":"root`)
	steers := hostile + "\x7f\u009b"
	x.r.Method, x.r.Proto, x.target.path = steers, hostile, "/"+steers
	x.r.Header.Set("User-Agent", steers)
	x.identity = &policy.Identity{Name: hostile, UID: steers, Actor: steers}
	x.failure, x.appCheck, x.upstream, x.decision.rule = errors.New(steers), hostile, hostile, hostile
	x.p.log(x, true)
	line := logLine(t, out.Bytes())
	request, _ := line["httpRequest"].(map[string]any)
	if i := bytes.IndexFunc(bytes.TrimSuffix(out.Bytes(), []byte("\n")), unicode.IsControl); i >= 0 {
		t.Errorf("a control character, %q, in %q", out.Bytes()[i], &out)
	}
	if line["uid"] != audit.Printable(steers) || line["record"] != x.id || request["remoteIp"] != x.ip.String() || len(line) != 19 || len(request) != 9 {
		t.Errorf("%d fields, %d of the request: %v", len(line), len(request), line)
	}
}

func TestAppendSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0.000000", 0: "0.000000", 499: "0.000000", 500: "0.000001", 12300 * time.Microsecond: "0.012300",
		999999500: "1.000000", time.Hour + 1: "3600.000000", 90*time.Second + 20*time.Millisecond: "90.020000",
	} {
		if got := string(appendSeconds(nil, d)); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// TestOnlyWhatWentWellIsLeftOut: sampling takes a share of the requests that were
// allowed and went well, the share that it says, and none of the others.
func TestOnlyWhatWentWellIsLeftOut(t *testing.T) {
	var out bytes.Buffer
	p := logProxy(t, &out, LogLines{Sampled: true})
	for name, c := range map[string]struct {
		change    func(*exchange)
		truncated bool
		left      bool
	}{
		"went well":        {change: func(*exchange) {}, left: true},
		"redirected":       {change: func(x *exchange) { x.w.status = 304 }, left: true},
		"a batch":          {change: func(x *exchange) { x.batch = []*item{{decision: decision{allow: true}}} }, left: true},
		"refused":          {change: func(x *exchange) { x.decision = decision{reason: "no_token"}; x.w.status = 401 }},
		"refused with 200": {change: func(x *exchange) { x.decision.allow = false }},
		"an item refused":  {change: func(x *exchange) { x.batch = []*item{{decision: decision{allow: true}}, {}} }},
		"an item failed": {change: func(x *exchange) {
			x.batch = []*item{{decision: decision{allow: true}, status: 503}}
		}},
		"the app's 404":     {change: func(x *exchange) { x.w.status = 404 }},
		"failed":            {change: func(x *exchange) { x.w.status = 502 }},
		"failed, after 200": {change: func(x *exchange) { x.failure = errors.New("broke off") }},
		"truncated":         {change: func(*exchange) {}, truncated: true},
	} {
		out.Reset()
		x := logged(p)
		c.change(x)
		p.log(x, c.truncated)
		if left := out.Len() == 0; left != c.left {
			t.Errorf("%s: left out: %v", name, left)
		}
		if !c.left && strings.Contains(out.String(), `"sampled"`) {
			t.Errorf("%s: %s", name, &out)
		}
	}

	p.o.LogLines.Share = 0.1
	out.Reset()
	const requests = 20_000
	for range requests {
		x := logged(p)
		x.id = audit.NewID()
		p.log(x, false)
	}
	// Ten times the standard deviation of 42: never, unless the share is wrong.
	if n := bytes.Count(out.Bytes(), []byte(`"sampled":0.1`)); n < requests/10-424 || n > requests/10+424 || n != bytes.Count(out.Bytes(), []byte("\n")) {
		t.Errorf("%d of %d requests have a line that says so", n, requests)
	}
}

// TestTheSameRecordsAreDrawn: a larger share has all lines that a smaller one has.
func TestTheSameRecordsAreDrawn(t *testing.T) {
	for range 1000 {
		id := audit.NewID()
		was := false
		for share := 0.0; share <= 1; share += 0.125 {
			is := drawn(id, share)
			if was && !is || share == 0 && is || share == 1 && !is {
				t.Errorf("%s: %v at %v", id, is, share)
			}
			was = is
		}
	}
	if !drawn("no record", 0) {
		t.Error("what cannot be told is left out")
	}
}

// FuzzLogLine: whatever a caller sends, a request has one line of JSON, which
// steers no terminal even when its escapes are undone, and fits into an entry
// of Cloud Logging.
func FuzzLogLine(f *testing.F) {
	for _, v := range []string{"/v1/photos", "\x1b[2J", "a\nb", "\xff\xfe", "\u202e", `\x41`, strings.Repeat("\xff", 32<<10), strings.Repeat("\u202e", 11000), strings.Repeat("\\", 32<<10)} {
		f.Add(v, v, v, v)
	}
	f.Fuzz(func(t *testing.T, method, path, agent, uid string) {
		var out bytes.Buffer
		p := logProxy(t, &out, LogLines{Project: "acme-prod"})
		x := logged(p)
		x.r.Method, x.target.path, x.identity.UID, x.identity.Actor = method, path, uid, uid
		x.r.Header = http.Header{"User-Agent": {agent}}
		x.failure = errors.New(agent)
		p.log(x, true)
		if out.Len() > 200<<10 {
			t.Fatalf("a line of %d bytes", out.Len())
		}
		line := logLine(t, out.Bytes())
		request, _ := line["httpRequest"].(map[string]any)
		for _, v := range slices.Concat(slices.Collect(maps.Values(line)), slices.Collect(maps.Values(request))) {
			// What Printable made is ASCII with escapes, and letters.
			if s, ok := v.(string); ok && strings.ContainsFunc(s, func(r rune) bool {
				return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
			}) {
				t.Errorf("%q", s)
			}
		}
	})
}

// BenchmarkLogLine is what the line of a request costs; it allocates nothing.
func BenchmarkLogLine(b *testing.B) {
	for name, lines := range map[string]LogLines{"whole": {Project: "acme-prod"}, "left out": {Sampled: true}} {
		b.Run(name, func(b *testing.B) {
			p := logProxy(b, io.Discard, lines)
			x := logged(p)
			b.ReportAllocs()
			for b.Loop() {
				p.log(x, false)
			}
		})
	}
}

// TestTheLineTakesNoMemory: every request has one. An empty line takes some where
// the race detector has pools forget what they hold.
func TestTheLineTakesNoMemory(t *testing.T) {
	const lines = 100
	p := logProxy(t, io.Discard, LogLines{Project: "acme-prod", Sampled: true, Share: 1})
	x := logged(p)
	empty := testing.AllocsPerRun(100, func() {
		for range lines {
			line := p.o.Log.Info()
			line.Dict("a", line.CreateDict()).Msg("")
		}
	})
	full := testing.AllocsPerRun(100, func() {
		for range lines {
			p.log(x, false)
		}
	})
	if full-empty >= lines/2 {
		t.Errorf("%d lines take %v pieces of memory, and empty ones %v", lines, full, empty)
	}
}
