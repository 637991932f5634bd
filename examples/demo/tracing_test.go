package main

import (
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// A receiver takes OTLP over HTTP as a collector does. It can be killed, and
// come back at the same address; while it hangs it answers nobody.
type receiver struct {
	t       *testing.T
	address string
	server  *http.Server
	hang    chan struct{} // nil: it does not
	mu      sync.Mutex
	spans   map[string][]*tracepb.Span // by trace
	came    chan struct{}              // told of each export
}

func newReceiver(t *testing.T) *receiver {
	c := &receiver{t: t, address: unusedAddress(t), spans: map[string][]*tracepb.Span{}, came: make(chan struct{}, 10_000)}
	c.start()
	t.Cleanup(c.kill)
	return c
}

func (c *receiver) start() {
	l, err := net.Listen("tcp", c.address)
	if err != nil {
		c.t.Fatal(err)
	}
	c.server = &http.Server{Handler: c}
	go c.server.Serve(l)
}

func (c *receiver) kill() { c.server.Close() }

func (c *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	hang := c.hang
	c.mu.Unlock()
	if hang != nil {
		c.came <- struct{}{}
		select {
		case <-hang:
		case <-r.Context().Done():
		}
		return
	}
	var data tracepb.TracesData
	z, err := gzip.NewReader(r.Body)
	if err == nil {
		var body []byte
		if body, err = io.ReadAll(z); err == nil {
			err = proto.Unmarshal(body, &data)
		}
	}
	if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Authorization") != "key of the collector" {
		c.t.Errorf("no export: %s %v", r.URL.Path, err)
	}
	c.mu.Lock()
	for _, rs := range data.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				id := hex.EncodeToString(s.TraceId)
				c.spans[id] = append(c.spans[id], s)
			}
		}
	}
	c.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-protobuf")
	c.came <- struct{}{}
}

// trace waits for a trace with the gateway's span of a request, which ends last,
// and gives its spans by name: the request's own is "request".
func (c *receiver) trace(id string) map[string]*tracepb.Span {
	c.t.Helper()
	for late := time.After(30 * time.Second); ; {
		out := map[string]*tracepb.Span{}
		c.mu.Lock()
		for _, s := range c.spans[id] {
			if s.Kind == tracepb.Span_SPAN_KIND_SERVER {
				out["request"] = s
			} else {
				out[s.Name] = s
			}
		}
		c.mu.Unlock()
		if out["request"] != nil {
			return out
		}
		select {
		case <-c.came:
		case <-late:
			c.t.Fatalf("trace %s does not come", id)
		}
	}
}

// traceConfig is the demo's with a collector.
func traceConfig(t *testing.T, collector, sample, trusted string) string {
	const listen = `listen: {address: "${env:DEMO_ADDRESS}"`
	return demoFile(t, "sidegate.yaml", listen, listen+trusted) +
		fmt.Sprintf("telemetry: {otlp: \"http://%s\", sample: %s, headers: {Authorization: \"${env:COLLECTOR_KEY}\"}}\n", collector, sample)
}

var collectorKey = []string{"COLLECTOR_KEY=key of the collector"}

// TestTraces sends requests of each kind from a trusted peer and a stranger, and
// follows them through the app, the log, the audit log and the collector.
func TestTraces(t *testing.T) {
	const theirs, theirSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	got := make(chan http.Header, 100)
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	defer app.Close()
	c := newReceiver(t)
	alice := token(t, "alice")
	for _, peer := range []struct {
		name, trusted string
		follows       bool
	}{{"trusted", ", trusted_proxies: [127.0.0.1]", true}, {"stranger", "", false}} {
		g := startGateway(t, setup{appURL: app.URL, config: traceConfig(t, c.address, "1", peer.trusted), env: collectorKey})
		for _, tt := range []struct {
			name, method, path, token, body string
			status                          int
			parent                          string // traceparent; empty: none
			spans                           string
		}{
			{"forwarded", "GET", "/v1/users/alice/notes/a?secret=canary1e7", alice, "", 200, "", "identify decide record upstream"},
			{"forwarded, within a trace", "GET", "/v1/users/alice/notes/b", alice, "", 200, "00-" + theirs + "-" + theirSpan + "-01", "identify decide record upstream"},
			{"refused", "GET", "/v1/admin/x", alice, "", 403, "", "identify decide record"},
			{"refused, within a trace", "GET", "/v1/users/alice/notes/c", "", "", 401, "00-" + strings.Repeat("a", 32) + "-" + theirSpan + "-01", "identify record"},
			{"presigned", "POST", "/v1/uploads/presign", alice, `{"contentType": "text/plain", "fileExt": "txt", "size": 5}`, 200, "", "identify decide record sign"},
		} {
			t.Run(peer.name+", "+tt.name, func(t *testing.T) {
				r, err := http.NewRequestWithContext(t.Context(), tt.method, g.url+tt.path, strings.NewReader(tt.body))
				if err != nil {
					t.Fatal(err)
				}
				if tt.token != "" {
					r.Header.Set("Authorization", "Bearer "+tt.token)
				}
				if tt.parent != "" {
					r.Header.Set("Traceparent", tt.parent)
				}
				a := do(t, r).want(t, tt.status)
				record := a.header.Get("X-Request-Id")
				line := requestLine(t, g, tt.path)
				if record == "" { // an app's answer has the app's headers
					record = line["record"].(string)
				}
				id := record
				if tt.parent != "" && peer.follows {
					id = tt.parent[3:35]
				}
				spans := c.trace(id)
				for _, name := range strings.Fields(tt.spans) {
					s := spans[name]
					if s == nil || string(s.ParentSpanId) != string(spans["request"].SpanId) {
						t.Errorf("%s: %v", name, s)
					}
				}
				if len(spans) != len(strings.Fields(tt.spans))+1 {
					t.Errorf("there are more spans: %v", spans)
				}
				parent := hex.EncodeToString(spans["request"].ParentSpanId)
				if follows := tt.parent != "" && peer.follows; follows && parent != theirSpan || !follows && parent != "" {
					t.Errorf("the request's parent is %q", parent)
				}
				if !strings.Contains(fmt.Sprint(line), id) {
					t.Errorf("the log's line has another trace than %s: %v", id, line)
				}
				onRecord := ""
				for _, e := range readLedger(t, g.dir) {
					if e.Record == record && e.Type == "decision" {
						onRecord = e.Request.Trace
					}
				}
				if onRecord != id {
					t.Errorf("on record is trace %q, want %s", onRecord, id)
				}
				if s := fmt.Sprint(c.spans[id]); strings.Contains(s, "canary1e7") || strings.Contains(s, "X-Amz") || strings.Contains(s, "key of the collector") {
					t.Errorf("a secret is in a span: %s", s)
				}
				if spans["upstream"] == nil {
					return
				}
				if h := <-got; h.Get("Traceparent") != "00-"+id+"-"+hex.EncodeToString(spans["upstream"].SpanId)+"-01" {
					t.Errorf("the app gets %s", h.Get("Traceparent"))
				}
			})
			c.mu.Lock()
			clear(c.spans)
			c.mu.Unlock()
		}
		g.stop(t)
		if strings.Contains(g.log.String(), "key of the collector") {
			t.Error("the log has the collector's key")
		}
	}
}

// requestLine waits for the log's line about a request to a path that no other had.
func requestLine(t *testing.T, g *gateway, path string) map[string]any {
	t.Helper()
	path, _, _ = strings.Cut(path, "?")
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for late := time.After(20 * time.Second); ; {
		for text := range strings.Lines(g.log.String()) {
			var line map[string]any
			if json.Unmarshal([]byte(text), &line) == nil && line["record"] != nil && strings.Contains(text, path) {
				return line
			}
		}
		select {
		case <-again.C:
		case <-late:
			t.Fatalf("the log has no line about %s", path)
		}
	}
}

// TestTracesWithoutCollector: one that hangs, is killed, and comes back. No request
// waits, memory does not grow, what is lost is counted, the rest arrives, and a
// stop is in time.
func TestTracesWithoutCollector(t *testing.T) {
	c := newReceiver(t)
	g := startGateway(t, setup{config: traceConfig(t, c.address, "1", ", shutdown_grace: 3s"), env: collectorKey, policy: openToAll, flags: []string{"--log-level", "warn"}})
	requests := func(n int) {
		t.Helper()
		for range n {
			if a := ask(t, http.MethodGet, g.url+"/welcome", "", ""); a.status != 200 {
				t.Fatalf("status %d", a.status)
			}
		}
	}
	requests(1)
	<-c.came

	hang := make(chan struct{})
	c.mu.Lock()
	c.hang = hang
	c.mu.Unlock()
	requests(1)
	<-c.came       // it hangs now
	requests(1000) // of 5 spans each
	if dropped := g.metric(t, "sidegate_telemetry_dropped_total"); dropped < 1000 || dropped > 5000 {
		t.Errorf("%v spans were dropped, of some 5000 with a queue of 2048", dropped)
	}
	c.kill()
	requests(100)
	c.mu.Lock()
	c.hang = nil
	c.mu.Unlock()
	c.start()
	before := g.metric(t, "sidegate_telemetry_exported_total")
	for g.metric(t, "sidegate_telemetry_exported_total") < before+1000 {
		select {
		case <-c.came:
		case <-time.After(40 * time.Second):
			t.Fatal("nothing arrives when the collector is back")
		}
	}
	if g.metric(t, "sidegate_telemetry_failures_total") == 0 || strings.Count(g.log.String(), "traces are not delivered") != 1 {
		t.Errorf("it is not told once:\n%s", g.log)
	}
	c.mu.Lock()
	c.hang = hang
	c.mu.Unlock()
	requests(10)
	began := time.Now()
	if status := g.stop(t); status != 0 || time.Since(began) > 10*time.Second {
		t.Errorf("the stop gave %d after %s", status, time.Since(began))
	}
}
