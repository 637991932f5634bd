package proxy

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sidegate/policy"
	"sidegate/storage/audit"
)

// The stages of a request, each alone: what is dear shows here first.

// nowhere is a Recorder that keeps nothing.
type nowhere struct{}

func (nowhere) Record(context.Context, *audit.Event, audit.Survive) error { return nil }
func (nowhere) Note(*audit.Event) error                                   { return nil }

// someone knows one user.
type someone struct{ id *policy.Identity }

func (s someone) Authenticate(context.Context, string) (*policy.Identity, error) { return s.id, nil }

func benchExchange(b testing.TB) (*Proxy, *exchange) {
	p, err := New(Options{
		Name: "bench", Policy: loadPolicy(b, testPolicy), Authenticator: someone{keptUser()}, Recorder: nowhere{},
		Upstreams: map[string]Upstream{"app": {URL: mustURL(b, "http://127.0.0.1:1"), Transport: newTransport(), Headers: NativeHeaders(), KeepHost: true, Timeout: time.Minute, IdleTimeout: time.Minute}},
		Log:       zerolog.Nop(), Metrics: prometheus.NewRegistry(), Now: time.Now,
	})
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/private/a/b/c?x=1&y=2", nil)
	r.RequestURI = "/private/a/b/c?x=1&y=2"
	r.Header = http.Header{"Authorization": {"Bearer alice"}, "User-Agent": {"bench"}, "Accept": {"*/*"}, "Accept-Encoding": {"gzip"}, "Cookie": {"a=b"}, "X-Custom-Header": {"1"}}
	return p, p.begin(httptest.NewRecorder(), r)
}

func BenchmarkCanonicalise(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := canonicalise("GET", "/v1/users/alice/files/holiday%20pictures/1.jpg?x=1&y=2", "photos.acme.dev"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	p, x := benchExchange(b)
	b.ReportAllocs()
	for b.Loop() {
		if d, _ := p.decide(x); !d.allow {
			b.Fatal(d)
		}
	}
}

func BenchmarkHeaders(b *testing.B) {
	p, x := benchExchange(b)
	p.decide(x)
	b.ReportAllocs()
	for b.Loop() {
		p.upstreams["app"].stageHeaders(x)
	}
}

func BenchmarkRecord(b *testing.B) {
	p, x := benchExchange(b)
	d, _ := p.decide(x)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.record(x, d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecordInLedger(b *testing.B) {
	p, x := benchExchange(b)
	g := newGate(b, "http://127.0.0.1:1")
	p.o.Recorder = kept{g.tape.ledger}
	d, _ := p.decide(x)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.record(x, d); err != nil {
			b.Fatal(err)
		}
	}
}

// kept is the ledger alone.
type kept struct{ ledger *audit.Ledger }

func (k kept) Record(ctx context.Context, e *audit.Event, level audit.Survive) error {
	t, err := k.ledger.Append(e)
	if err != nil {
		return err
	}
	return t.Wait(ctx, level)
}

func (k kept) Note(e *audit.Event) error {
	_, err := k.ledger.Append(e)
	return err
}

// keptUser is a caller as the cache of verified tokens gives it.
func keptUser() *policy.Identity {
	return user("alice", "writer").Keep()
}

// BenchmarkStrip is a look at the names of a browser's headers.
func BenchmarkStrip(b *testing.B) {
	names := []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Content-Type", "Cookie", "Origin", "Referer", "Sec-Ch-Ua",
		"Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "User-Agent", "X-Requested-With",
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, name := range names {
			if mustStrip(name, nil) {
				b.Fatal(name)
			}
		}
	}
}

// BenchmarkIdentify is a caller whose token was verified before.
func BenchmarkIdentify(b *testing.B) {
	p, x := benchExchange(b)
	p.decide(x)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := x.identify(); !ok {
			b.Fatal("nobody")
		}
	}
}

// BenchmarkMetrics is what is counted at a request's end.
func BenchmarkMetrics(b *testing.B) {
	p, x := benchExchange(b)
	p.decide(x)
	b.ReportAllocs()
	for b.Loop() {
		p.metrics.count(x)
	}
}

// BenchmarkWhole is a request from header to answer, without the network: what
// the gate takes, and what ReverseProxy does alone.
func BenchmarkWhole(b *testing.B) {
	for name, h := range map[string]http.Handler{"bare": bareProxy(b), "gate": stageGate(b)} {
		b.Run(name, func(b *testing.B) {
			r, w := stageRequest(), discarded{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				h.ServeHTTP(w, r)
			}
		})
	}
}

// discarded is an answer that nobody keeps.
type discarded struct{ header http.Header }

func (d discarded) Header() http.Header         { return d.header }
func (d discarded) Write(p []byte) (int, error) { return len(p), nil }
func (d discarded) WriteHeader(int)             {}
func (d discarded) Flush()                      {}

// stageGate is a gate whose app answers in this process; its log has lines, as a
// gateway's does.
func stageGate(tb testing.TB) *Proxy {
	p, err := New(Options{
		Name: "bench", Policy: loadPolicy(tb, testPolicy), Authenticator: someone{keptUser()}, Recorder: nowhere{},
		Upstreams: map[string]Upstream{"app": {URL: mustURL(tb, "http://127.0.0.1:1"), Transport: instantly{}, Headers: NativeHeaders(), KeepHost: true, Timeout: time.Minute, IdleTimeout: time.Minute}},
		Log:       zerolog.New(io.Discard), Metrics: prometheus.NewRegistry(), Now: time.Now,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// stageRequest is one as net/http reads it.
func stageRequest() *http.Request {
	r := httptest.NewRequest("GET", "/private/a/b/c?x=1&y=2", nil)
	r.RequestURI = "/private/a/b/c?x=1&y=2"
	r.Header = http.Header{"Authorization": {"Bearer alice"}, "User-Agent": {"bench"}, "Accept": {"*/*"}, "Accept-Encoding": {"gzip"}, "Cookie": {"a=b"}, "X-Custom-Header": {"1"}}
	return r
}

// bareProxy is what a gateway's forwarding is held against.
func bareProxy(tb testing.TB) http.Handler {
	app := mustURL(tb, "http://127.0.0.1:1")
	return &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(app); r.SetXForwarded() },
		Transport: instantly{}, BufferPool: buffers, ErrorLog: log.New(io.Discard, "", 0),
	}
}

// stageHeaders makes the headers for the upstream.
func (f *forwarder) stageHeaders(x *exchange) {
	x.room = room{}
	h := f.passedOn(x)
	f.setForwarded(x, h)
	f.up.Headers.write(h, x)
}
