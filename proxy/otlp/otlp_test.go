package otlp

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// A collector is an OTLP receiver: it reads what comes by the real types, and
// answers as it is told.
type collector struct {
	*httptest.Server
	t      *testing.T
	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request)
	spans  chan *tracepb.Span
	who    chan map[string]string // resource
	heads  chan http.Header
}

func newCollector(t *testing.T) *collector {
	c := unstarted(t)
	c.Start()
	t.Cleanup(c.Close)
	return c
}

func unstarted(t *testing.T) *collector {
	c := &collector{t: t, spans: make(chan *tracepb.Span, 100_000), who: make(chan map[string]string, 100_000), heads: make(chan http.Header, 100_000)}
	c.Server = httptest.NewUnstartedServer(c)
	c.Config.ErrorLog = log.New(io.Discard, "", 0)
	return c
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.heads <- r.Header
	c.mu.Lock()
	answer := c.answer
	c.mu.Unlock()
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		c.t.Errorf("not gzip: %v", err)
		return
	}
	body, err := io.ReadAll(z)
	var data tracepb.TracesData
	if err != nil || proto.Unmarshal(body, &data) != nil || r.Method != "POST" || r.Header.Get("Content-Type") != protobuf {
		c.t.Errorf("no export: %v", err)
	}
	if answer != nil {
		answer(w, r)
		return
	}
	for _, rs := range data.ResourceSpans {
		who := map[string]string{}
		for _, a := range rs.Resource.Attributes {
			who[a.Key] = a.Value.GetStringValue()
		}
		c.who <- who
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans <- s
			}
		}
	}
	w.Header().Set("Content-Type", protobuf)
}

func (c *collector) set(answer func(w http.ResponseWriter, r *http.Request)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

func (c *collector) next() *tracepb.Span {
	c.t.Helper()
	return wait(c.t, c.spans)
}

func wait[T any](t *testing.T, from chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func status(n int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n) }
}

// quick is the pace of tests: only what they wait for takes time.
var quick = pace{gather: time.Millisecond, try: 10 * time.Second, first: time.Millisecond, longest: 10 * time.Millisecond, lifetime: 20 * time.Second}

func options(t *testing.T, at string) Options {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	return Options{URL: u, Name: "photos", Version: "v1", Instance: "host-1"}
}

// begin opens an exporter whose changes of state are told.
func begin(t *testing.T, o Options, p pace) (*Exporter, chan error) {
	t.Helper()
	changes := make(chan error, 1000)
	o.Changed = func(err error) { changes <- err }
	e, err := open(o, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = e.Close(ctx)
	})
	return e, changes
}

func (e *Exporter) span(name string) {
	_, s := e.Tracer().Start(context.Background(), name, trace.WithAttributes(attribute.String("url.path", "/a")))
	s.End()
}

func TestSpansArrive(t *testing.T) {
	c := newCollector(t)
	o := options(t, c.URL+"/own/path")
	o.Headers = map[string]string{"authorization": "Bearer s3cr3t"}
	e, _ := begin(t, o, quick)
	id, _ := trace.TraceIDFromHex("0af7651916cd43dd8448eb211c80319c")
	parent := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, TraceFlags: trace.FlagsSampled}))
	ctx, own := e.Tracer().Start(parent, "own", trace.WithSpanKind(trace.SpanKindServer))
	_, part := e.Tracer().Start(ctx, "part")
	part.End()
	own.End()
	got := map[string]*tracepb.Span{}
	for range 2 {
		s := c.next()
		got[s.Name] = s
	}
	first, second := got["own"], got["part"]
	if first == nil || second == nil || !bytes.Equal(first.TraceId, id[:]) || len(first.ParentSpanId) != 0 || !bytes.Equal(second.ParentSpanId, first.SpanId) || first.Kind != tracepb.Span_SPAN_KIND_SERVER {
		t.Errorf("%v", got)
	}
	who := wait(t, c.who)
	if who["service.name"] != "photos" || who["service.version"] != "v1" || who["service.instance.id"] != "host-1" || who["telemetry.sdk.language"] != "go" {
		t.Errorf("%v", who)
	}
	h := wait(t, c.heads)
	if h.Get("Authorization") != "Bearer s3cr3t" || h.Get("User-Agent") != "sidegate/v1" {
		t.Errorf("%v", h)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if s := e.Stats(); s != (Stats{Exported: 2}) {
		t.Errorf("%+v", s)
	}
}

// TestEnvironmentDoesNotCount: sidegate.yaml says where spans go, not variables
// that somebody set for another program.
func TestEnvironmentDoesNotCount(t *testing.T) {
	other := newCollector(t)
	c := newCollector(t)
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": other.URL, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": other.URL, "OTEL_EXPORTER_OTLP_HEADERS": "x-other=1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
		"OTEL_SERVICE_NAME": "other", "OTEL_TRACES_SAMPLER": "always_off", "OTEL_SDK_DISABLED": "true", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1",
		"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=prod,service.name=other,odd=%ff",
	} {
		t.Setenv(name, value)
	}
	e, _ := begin(t, options(t, c.URL), quick)
	e.span("a")
	s, who, h := c.next(), wait(t, c.who), wait(t, c.heads)
	if len(s.Attributes) != 1 || s.Attributes[0].Value.GetStringValue() != "/a" || who["service.name"] != "photos" || who["deployment.environment.name"] != "prod" || who["odd"] != "\ufffd" || h.Get("X-Other") != "" || len(other.heads) != 0 {
		t.Errorf("%v %v %v", s, who, h)
	}
}

// TestLongAttributesAreCut: what one span takes is bounded.
func TestLongAttributesAreCut(t *testing.T) {
	c := newCollector(t)
	e, _ := begin(t, options(t, c.URL), quick)
	_, s := e.Tracer().Start(context.Background(), "a")
	s.SetAttributes(attribute.String("long", strings.Repeat("x", 1<<20)))
	for i := range 100 {
		s.SetAttributes(attribute.Int(fmt.Sprint("n", i), i))
		s.AddEvent("e")
	}
	s.End()
	if got := c.next(); proto.Size(got) > 8<<10 {
		t.Errorf("%d bytes", proto.Size(got))
	}
}

// TestCollectorAwayAndBack: what waits goes when it is back; the change is told
// once each time.
func TestCollectorAwayAndBack(t *testing.T) {
	for name, away := range map[string]func(http.ResponseWriter, *http.Request){
		"503": status(503), "429": status(429), "502": status(502), "504": status(504),
		"breaks off": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				conn.Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCollector(t)
			c.set(away)
			e, changes := begin(t, options(t, c.URL), quick)
			e.span("a")
			if err := wait(t, changes); err == nil {
				t.Error("no failure is told")
			}
			for range 3 {
				wait(t, c.heads)
			}
			c.set(nil)
			if s := c.next(); s.Name != "a" {
				t.Error(s.Name)
			}
			if err := wait(t, changes); err != nil || len(changes) != 0 {
				t.Errorf("%v, and %d more", err, len(changes))
			}
			if err := e.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if s := e.Stats(); s.Exported != 1 || s.Dropped != 0 || s.Failures < 2 { // the third may have seen it back
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestRefusedForGood: what cannot be taken later is not tried again.
func TestRefusedForGood(t *testing.T) {
	const secret = "s3cr3t"
	hostile := func(n int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(n)
			io.WriteString(w, r.Header.Get("Authorization")+strings.Repeat("x", 1<<20))
		}
	}
	for _, n := range []int{400, 401, 403, 404, 413, 500, 301, 307, 308} {
		c := newCollector(t)
		c.set(hostile(n))
		o := options(t, c.URL)
		o.Headers = map[string]string{"Authorization": secret}
		e, changes := begin(t, o, quick)
		e.span("a")
		if err := wait(t, changes); err == nil || !strings.Contains(err.Error(), fmt.Sprint("answered ", n)) || strings.Contains(err.Error(), secret) || len(err.Error()) > 200 {
			t.Errorf("%d: %v", n, err)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Errorf("%d: %v", n, err)
		}
		if s := e.Stats(); s != (Stats{Dropped: 1, Failures: 1}) || len(c.heads) != 1 {
			t.Errorf("%d: %+v, asked %d times", n, s, len(c.heads))
		}
	}
}

func TestPartialSuccess(t *testing.T) {
	answer := func(rejected uint64) []byte {
		inner := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), rejected)
		inner = protowire.AppendString(protowire.AppendTag(inner, 2, protowire.BytesType), "s3cr3t words")
		return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), inner)
	}
	for _, tt := range []struct {
		body []byte
		want Stats
	}{
		{answer(0), Stats{Exported: 3}},
		{answer(2), Stats{Exported: 1, Dropped: 2, Failures: 1}},
		{answer(1 << 63), Stats{Dropped: 3, Failures: 1}},
		{[]byte("\xff\xff\xff"), Stats{Dropped: 3, Failures: 1}},
		{bytes.Repeat([]byte("x"), maxAnswer+1), Stats{Dropped: 3, Failures: 1}},
	} {
		c := newCollector(t)
		c.set(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", protobuf)
			w.Write(tt.body)
		})
		p := quick
		p.gather = time.Hour
		e, changes := begin(t, options(t, c.URL), p)
		for range 3 {
			e.span("a")
		}
		if err := e.Close(t.Context()); err != nil && tt.want.Dropped == 0 {
			t.Error(err)
		}
		if s := e.Stats(); s != tt.want {
			t.Errorf("%.20q: %+v, want %+v", tt.body, s, tt.want)
		}
		for len(changes) > 0 {
			if err := <-changes; err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Error(err)
			}
		}
	}
}

// TestHangingCollector: nobody waits for it, the memory is bounded, what is lost is
// counted, and a stop ends in time.
func TestHangingCollector(t *testing.T) {
	c := newCollector(t)
	release := make(chan struct{})
	defer close(release)
	c.set(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	e, _ := begin(t, options(t, c.URL), pace{gather: time.Millisecond, try: time.Hour, lifetime: time.Hour})
	e.span("first")
	wait(t, c.heads) // the only worker hangs now
	const more = 3 * maxQueued
	for range more {
		e.span("a")
	}
	if s := e.Stats(); s.Dropped != more-maxQueued || len(e.queue.spans) != maxQueued {
		t.Errorf("%+v, %d wait", s, len(e.queue.spans))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := e.Close(ctx); !errors.Is(err, errLost) {
		t.Errorf("the loss is not told: %v", err)
	}
	e.span("late")
	if s := e.Stats(); s.Dropped != more+2 || s.Exported != 0 {
		t.Errorf("%+v", s)
	}
	if err := e.Close(context.Background()); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

// TestSlowCollectorIsGivenUp: a try has its time.
func TestSlowCollectorIsGivenUp(t *testing.T) {
	c := newCollector(t)
	c.set(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	p := quick
	p.try = 20 * time.Millisecond
	e, changes := begin(t, options(t, c.URL), p)
	e.span("a")
	if err := wait(t, changes); err == nil || err.Error() != "traces export: the collector did not answer in time" {
		t.Error(err)
	}
	c.set(nil)
	c.next()
}

// TestOldBatchesMakeWay: a collector that is away for long gets what is new when
// it is back.
func TestOldBatchesMakeWay(t *testing.T) {
	c := newCollector(t)
	c.set(status(503))
	p := quick
	p.lifetime = time.Nanosecond
	e, changes := begin(t, options(t, c.URL), p)
	e.span("old")
	wait(t, changes)
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if s := e.Stats(); s != (Stats{Dropped: 1, Failures: 1}) {
		t.Errorf("%+v", s)
	}
}

func TestCloseSendsWhatIsLeft(t *testing.T) {
	c := newCollector(t)
	p := quick
	p.gather = time.Hour
	e, _ := begin(t, options(t, c.URL), p)
	const n = 3*maxBatch + 7
	for range n {
		e.span("a")
	}
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if s := e.Stats(); s != (Stats{Exported: n}) || len(c.spans) != n {
		t.Errorf("%+v, %d came", s, len(c.spans))
	}
}

// TestManyAtOnce: spans end in many goroutines, also while it is closed.
func TestManyAtOnce(t *testing.T) {
	c := newCollector(t)
	e, _ := begin(t, options(t, c.URL), quick)
	var all sync.WaitGroup
	const goroutines, each = 16, 500
	for range goroutines {
		all.Go(func() {
			for range each {
				e.span("a")
			}
		})
	}
	all.Go(func() { _ = e.Close(context.Background()) })
	all.Wait()
	<-e.queue.done
	if s := e.Stats(); s.Exported+s.Dropped != goroutines*each || s.Exported != uint64(len(c.spans)) {
		t.Errorf("%+v, %d came", s, len(c.spans))
	}
}

func TestHTTPSCollector(t *testing.T) {
	c := unstarted(t)
	c.StartTLS()
	t.Cleanup(c.Close)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw}))
	o := options(t, c.URL)
	if err := Probe(t.Context(), o); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("anybody's certificate is taken: %v", err)
	}
	o.TLS = &tls.Config{RootCAs: pool}
	if err := Probe(t.Context(), o); err != nil {
		t.Error(err)
	}
	e, _ := begin(t, o, quick)
	e.span("a")
	c.next()
}

func TestProbe(t *testing.T) {
	c := newCollector(t)
	if err := Probe(t.Context(), options(t, c.URL)); err != nil {
		t.Error(err)
	}
	for want, answer := range map[string]func(http.ResponseWriter, *http.Request){
		"answered 404":             status(404),
		"answered 401":             status(401),
		"is none of a collector's": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>s3cr3t") },
		"is none of a collector's ": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", protobuf)
			io.WriteString(w, "s3cr3t")
		},
	} {
		c.set(answer)
		if err := Probe(t.Context(), options(t, c.URL)); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v", want, err)
		}
	}
	c.set(status(200)) // some say nothing
	if err := Probe(t.Context(), options(t, c.URL)); err != nil {
		t.Error(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			go func() { // as gRPC's port, which speaks first
				defer conn.Close()
				_, _ = io.WriteString(conn, "s3cr3t\r\n")
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	for range 50 { // it is chance whether that comes before the question is sent
		if err := Probe(t.Context(), options(t, "http://"+l.Addr().String())); !errors.Is(err, ErrNotCollector) || strings.Contains(err.Error(), "s3cr3t") {
			t.Fatal(err)
		}
	}
	l.Close()
	if err := Probe(t.Context(), options(t, "http://"+l.Addr().String()+"/s3cr3t")); err == nil || !strings.Contains(err.Error(), "cannot be reached") || strings.Contains(err.Error(), "s3cr3t") {
		t.Error(err)
	}
	for _, at := range []string{"ftp://x", "http://", "/x"} {
		if _, err := Open(options(t, at)); err == nil {
			t.Errorf("%s is taken", at)
		}
	}
}

// TestNoWordOfAnAnswerInErrors: net/http repeats what it cannot read, and what
// answers may repeat the headers by which the gateway is known.
func TestNoWordOfAnAnswerInErrors(t *testing.T) {
	const secret = "s3cr3t"
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: %s\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
		"HTTP/1.1 200 OK\r\n%s\r\n\r\n",
		"HTTP/1.1 %s OK\r\n\r\n",
		"HTTP/%s\r\n\r\n",
		"%s",
		"",
	} {
		t.Run(answer, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = io.WriteString(conn, strings.Replace(answer, "%s", r.Header.Get("Authorization"), 1))
				}
			}()
			o := options(t, "http://"+l.Addr().String()+"/path")
			o.Headers = map[string]string{"Authorization": secret}
			err = Probe(t.Context(), o)
			if err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "/path") {
				t.Error(err)
			}
			if e := new(connectionError); !errors.Is(err, ErrNotCollector) && !errors.As(err, &e) {
				t.Errorf("%T", err)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for s, want := range map[string]time.Duration{"": 0, "0": 0, "7": 7 * time.Second, "4000000000": maxRetryAfter, "-1": 0, "99999999999": 0, "Wed, 21 Oct 2026 07:28:00 GMT": 0} {
		if got := readRetryAfter(s); got != want {
			t.Errorf("%q: %s", s, got)
		}
	}
}

// FuzzAnswer: whatever a collector answers ends in a number of refused spans, or in
// an error; what the protobuf library takes is taken, with the same number.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0x02, 0x08, 0x05})
	f.Add([]byte{0x0a, 0x02, 0x08, 0x05, 0x0a, 0x00})
	f.Add([]byte{0x08, 0x05})
	f.Add([]byte{0x0a, 0x7f})
	f.Add([]byte("\x0b\x0c"))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := readAnswer(b)
		var refused *partialError
		switch {
		case errors.As(err, &refused):
			if refused.spans <= 0 {
				t.Errorf("%x: %d", b, refused.spans)
			}
		case err != nil && !errors.Is(err, ErrNotCollector):
			t.Errorf("%x: %v", b, err)
		case err != nil && proto.Unmarshal(b, &tracepb.TracesData{}) == nil && proto.Unmarshal(b, &tracepb.Status{}) == nil:
			// Both are messages with a field 1 of bytes: one that they take is well-formed.
			if inner, _ := protoField(b, 1, protowire.BytesType); inner == nil {
				t.Errorf("%x is well-formed, and refused", b)
			}
		}
	})
}
