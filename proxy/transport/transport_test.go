package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A bench is a Transport and what it counts.
type bench struct {
	*Transport
	t       testing.TB
	metrics *prometheus.Registry
	clock   *clock
}

// newBench makes a Transport whose clock stands still.
func newBench(t testing.TB, o Options, addresses ...string) *bench {
	t.Helper()
	b := &bench{t: t, metrics: prometheus.NewRegistry(), clock: newClock()}
	var err error
	if o.Metrics, err = NewMetrics(b.metrics); err != nil {
		t.Fatal(err)
	}
	o.Name, o.Addresses, o.Now = "app", addresses, b.clock.Now
	if b.Transport, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.CloseIdleConnections)
	return b
}

// value of a metric, of a kind where it has kinds.
func (b *bench) value(name, kind string) float64 {
	b.t.Helper()
	families, err := b.metrics.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() != "sidegate_upstream_"+name || kind != "" && m.GetLabel()[0].GetValue() != kind {
				continue
			}
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	b.t.Fatalf("no metric %s %s", name, kind)
	return 0
}

// idle fails the test where something is still counted.
func (b *bench) idle() {
	b.t.Helper()
	if n := b.value("requests_in_flight", ""); n != 0 {
		b.t.Errorf("%v requests are said to be in flight", n)
	}
	if b.balancer != nil {
		for i, a := range b.balancer.addresses {
			if a.busy != 0 {
				b.t.Errorf("address %d is said to have %d requests", i, a.busy)
			}
		}
	}
}

// both runs a test by each way of speaking HTTP/1.1.
func both(t *testing.T, test func(t *testing.T, netHTTP bool)) {
	t.Run("own", func(t *testing.T) { test(t, false) })
	t.Run("net/http", func(t *testing.T) { test(t, true) })
}

func newRequest(t testing.TB, method, scheme string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, scheme+"://placeholder/", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = ""
	return r
}

// unknownLength hides what net/http would know of a reader.
type unknownLength struct{ io.Reader }

// do sends a request and gives what was answered.
func (b *bench) do(r *http.Request) (string, error) {
	res, err := b.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

// closedAddress is one that refuses.
func closedAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

var quiet = log.New(io.Discard, "", 0)

// newApp starts an upstream and gives its address.
func newApp(t testing.TB, h http.HandlerFunc, change ...func(*httptest.Server)) (string, *httptest.Server) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = quiet
	for _, c := range change {
		c(s)
	}
	if s.TLS != nil {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), s
}

// rawApp is an upstream that answers by hand, request by request, as long as
// serve says true.
func rawApp(t testing.TB, serve func(conn net.Conn, r *http.Request) bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	t.Cleanup(open.Wait)
	t.Cleanup(func() { l.Close() })
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(t.Context(), func() { conn.Close() }) // whatever it waits for
			open.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if _, err := io.Copy(io.Discard, r.Body); err != nil || !serve(conn, r) {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s", r.Proto, r.Host, body)
}

func TestRefusedAsksAnother(t *testing.T) { both(t, testRefusedAsksAnother) }

func testRefusedAsksAnother(t *testing.T, netHTTP bool) {
	var processed atomic.Int64
	app, _ := newApp(t, func(w http.ResponseWriter, r *http.Request) { processed.Add(1); echo(w, r) })
	b := newBench(t, Options{NetHTTP: netHTTP}, closedAddress(t), app, closedAddress(t))
	for i := range 20 {
		text := strings.Repeat("x", i*1000)
		got, err := b.do(newRequest(t, "POST", "http", unknownLength{strings.NewReader(text)}))
		if err != nil || got != "HTTP/1.1 "+app+" "+text {
			t.Fatalf("%d: %.50q, %v", i, got, err)
		}
	}
	if processed.Load() != 20 || b.value("failures_total", "connect") != 2*failuresToEject || b.value("ejected_addresses", "") != 2 {
		t.Errorf("%d processed, %v connections failed, %v are out", processed.Load(), b.value("failures_total", "connect"), b.value("ejected_addresses", ""))
	}
	b.idle()
}

func TestAllRefuse(t *testing.T) { both(t, testAllRefuse) }

func testAllRefuse(t *testing.T, netHTTP bool) {
	for _, n := range []int{1, 2, 5} {
		var addresses []string
		for range n {
			addresses = append(addresses, closedAddress(t))
		}
		b := newBench(t, Options{NetHTTP: netHTTP}, addresses...)
		for range 10 {
			body := &closing{Reader: strings.NewReader("x")}
			_, err := b.do(newRequest(t, "POST", "http", body))
			if !errors.Is(err, syscall.ECONNREFUSED) || !body.closed.Load() {
				t.Fatalf("%v, closed %v", err, body.closed.Load())
			}
		}
		if got := b.value("failures_total", "connect"); got != float64(10*n) {
			t.Errorf("%d addresses: %v tries for 10 requests", n, got)
		}
		b.idle()
	}
}

type closing struct {
	io.Reader
	closed atomic.Bool
}

func (c *closing) Close() error { c.closed.Store(true); return nil }

// TestNoHandshakeAsksAnother: what breaks before TLS stands was never sent.
func TestNoHandshakeAsksAnother(t *testing.T) { both(t, testNoHandshakeAsksAnother) }

func testNoHandshakeAsksAnother(t *testing.T, netHTTP bool) {
	app, server := newApp(t, echo, func(s *httptest.Server) { s.TLS = &tls.Config{} })
	hangsUp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangsUp.Close()
	go func() {
		for {
			c, err := hangsUp.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	plain, _ := newApp(t, echo)
	known := x509.NewCertPool()
	known.AddCert(server.Certificate())
	b := newBench(t, Options{NetHTTP: netHTTP, TLS: &tls.Config{RootCAs: known}}, hangsUp.Addr().String(), plain, app)
	for range 20 {
		if got, err := b.do(newRequest(t, "POST", "https", unknownLength{strings.NewReader("text")})); err != nil || got != "HTTP/1.1 "+app+" text" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if got := b.value("failures_total", "connect"); got != 2*failuresToEject {
		t.Errorf("%v connections failed", got)
	}
	b = newBench(t, Options{NetHTTP: netHTTP, TLS: &tls.Config{}}, app) // of an authority that is not known
	var unknown *tls.CertificateVerificationError
	if _, err := b.do(newRequest(t, "GET", "https", nil)); !errors.As(err, &unknown) {
		t.Error(err)
	}
}

// TestSilentHandshake: a peer that accepts and says nothing is waited for as
// long as a handshake may take, and then another is asked.
func TestSilentHandshake(t *testing.T) { both(t, testSilentHandshake) }

func testSilentHandshake(t *testing.T, netHTTP bool) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		b := newBench(t, Options{NetHTTP: netHTTP, TLS: &tls.Config{}, connect: func(ctx context.Context, _, address string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, theirs); theirs.Close() }()
			return ours, nil
		}}, "a:1", "b:1")
		_, err := b.do(newRequest(t, "GET", "https", nil))
		if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took != 2*handshakeTimeout {
			t.Errorf("%v after %v", err, took)
		}
		b.idle()
	})
}

// TestCallersFaults: what a caller does makes no address look sick.
func TestCallersFaults(t *testing.T) { both(t, testCallersFaults) }

func testCallersFaults(t *testing.T, netHTTP bool) {
	silence := rawApp(t, func(conn net.Conn, _ *http.Request) bool {
		_, _ = io.Copy(io.Discard, conn) // until it is closed
		return false
	})
	tooLarge := errors.New("too large")
	leave := func(cause error) func(*http.Request) *http.Request {
		return func(r *http.Request) *http.Request {
			ctx, cancel := context.WithCancelCause(r.Context())
			cancel(cause)
			return r.WithContext(ctx)
		}
	}
	for name, change := range map[string]func(*http.Request) *http.Request{
		"a body that breaks": func(r *http.Request) *http.Request {
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader("x"), failing{tooLarge}))
			return r
		},
		"a caller who leaves": leave(nil),
		"a stop":              leave(errors.New("stopping")),
		"a caller in a hurry": func(r *http.Request) *http.Request {
			ctx, cancel := context.WithTimeout(r.Context(), time.Millisecond)
			t.Cleanup(cancel)
			return r.WithContext(ctx)
		},
	} {
		b := newBench(t, Options{NetHTTP: netHTTP}, silence, silence)
		for range 10 {
			if _, err := b.do(change(newRequest(t, "POST", "http", unknownLength{strings.NewReader("x")}))); err == nil {
				t.Errorf("%s: answered", name)
			}
		}
		for _, kind := range []string{"connect", "broken", "timeout"} {
			if n := b.value("failures_total", kind); n != 0 {
				t.Errorf("%s: %v failures (%s)", name, n, kind)
			}
		}
		if b.value("ejected_addresses", "") != 0 {
			t.Errorf("%s: an address is out", name)
		}
		b.idle()
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// tooSlow is what the gateway's own clock ends a request with.
type tooSlow struct{}

func (tooSlow) Error() string { return "too slow" }
func (tooSlow) Timeout() bool { return true }

// TestFailingAddresses are left alone, whatever they fail by, and only where
// there is another.
func TestFailingAddresses(t *testing.T) { both(t, testFailingAddresses) }

func testFailingAddresses(t *testing.T, netHTTP bool) {
	for _, tt := range []struct {
		name, kind string
		serve      func(net.Conn, *http.Request) bool
	}{
		{"hangs", "timeout", func(conn net.Conn, _ *http.Request) bool { _, _ = io.Copy(io.Discard, conn); return false }},
		{"closes", "broken", func(net.Conn, *http.Request) bool { return false }},
		{"resets", "broken", func(conn net.Conn, _ *http.Request) bool { _ = conn.(*net.TCPConn).SetLinger(0); return false }},
		{"garbage", "broken", func(conn net.Conn, _ *http.Request) bool { _, _ = io.WriteString(conn, "SSH-2.0-x\r\n"); return false }},
		{"half a header", "broken", func(conn net.Conn, _ *http.Request) bool {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-")
			return false
		}},
		{"a huge header", "broken", func(conn net.Conn, _ *http.Request) bool {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX-A: "+strings.Repeat("a", maxAnswerHeader+1)+"\r\n\r\n")
			return false
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked atomic.Int64
			sick := rawApp(t, func(conn net.Conn, r *http.Request) bool { asked.Add(1); return tt.serve(conn, r) })
			good, _ := newApp(t, echo)
			ask := func(b *bench) error {
				r := newRequest(t, "POST", "http", unknownLength{strings.NewReader("x")})
				ctx, cancel := context.WithCancelCause(r.Context())
				defer cancel(nil)
				before := asked.Load()
				done := make(chan struct{})
				var watch sync.WaitGroup
				if tt.kind == "timeout" {
					watch.Go(func() {
						for asked.Load() == before {
							select {
							case <-done:
								return
							default:
								runtime.Gosched()
							}
						}
						cancel(tooSlow{})
					})
				}
				_, err := b.do(r.WithContext(ctx))
				close(done)
				watch.Wait()
				return err
			}
			b := newBench(t, Options{NetHTTP: netHTTP}, sick, good)
			failed := 0
			for range 20 {
				if ask(b) != nil {
					failed++
				}
			}
			if failed != failuresToEject || asked.Load() != failuresToEject || b.value("failures_total", tt.kind) != failuresToEject {
				t.Errorf("%d failed, %d asked, %v counted", failed, asked.Load(), b.value("failures_total", tt.kind))
			}
			b.idle()

			asked.Store(0)
			alone := newBench(t, Options{NetHTTP: netHTTP}, sick)
			for range 2 * failuresToEject {
				if ask(alone) == nil {
					t.Error("answered")
				}
			}
			if asked.Load() != 2*failuresToEject {
				t.Errorf("alone it was asked %d times", asked.Load())
			}
			alone.idle()
		})
	}
}

// TestErrorStatusIsAnAnswer: an app that says 503 is there.
func TestErrorStatusIsAnAnswer(t *testing.T) { both(t, testErrorStatusIsAnAnswer) }

func testErrorStatusIsAnAnswer(t *testing.T, netHTTP bool) {
	app, _ := newApp(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	b := newBench(t, Options{NetHTTP: netHTTP}, app, app)
	for range 20 {
		if _, err := b.do(newRequest(t, "GET", "http", nil)); err != nil {
			t.Fatal(err)
		}
	}
	if b.value("ejected_addresses", "") != 0 {
		t.Error("left alone")
	}
}

// TestDyingUnderLoad: an address refuses for a while, under load; no request
// fails, and it comes back.
func TestDyingUnderLoad(t *testing.T) { both(t, testDyingUnderLoad) }

func testDyingUnderLoad(t *testing.T, netHTTP bool) {
	for _, leastBusy := range []bool{false, true} {
		before := runtime.NumGoroutine()
		var hits [3]atomic.Int64
		var addresses []string
		var servers []*httptest.Server
		for i := range hits {
			address, server := newApp(t, func(w http.ResponseWriter, r *http.Request) { hits[i].Add(1); echo(w, r) })
			addresses, servers = append(addresses, address), append(servers, server)
		}
		var down atomic.Bool
		refusing := closedAddress(t)
		b := newBench(t, Options{NetHTTP: netHTTP, LeastBusy: leastBusy, connect: func(ctx context.Context, network, address string) (net.Conn, error) {
			if down.Load() && address == addresses[1] {
				address = refusing
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}}, addresses...)
		stop := make(chan struct{})
		var load sync.WaitGroup
		var sent atomic.Int64
		for range 16 {
			load.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					r := newRequest(t, "POST", "http", unknownLength{strings.NewReader("text")})
					r.Close = true // each connects
					sent.Add(1)
					if got, err := b.do(r); err != nil || !strings.HasSuffix(got, " text") {
						t.Errorf("%q, %v", got, err)
					}
				}
			})
		}
		until(t, "all are asked", func() bool { return hits[0].Load() > 50 && hits[1].Load() > 50 && hits[2].Load() > 50 })
		down.Store(true)
		until(t, "it is left alone", func() bool { return b.value("ejected_addresses", "") == 1 })
		while := hits[0].Load() + hits[2].Load()
		until(t, "the others serve", func() bool { return hits[0].Load()+hits[2].Load() > while+200 })
		failed := b.value("failures_total", "connect") // of those that were begun before, too
		until(t, "it is tried in vain", func() bool {
			b.clock.advance(firstPause)
			return b.value("failures_total", "connect") > failed+16
		})
		down.Store(false)
		until(t, "it is back", func() bool {
			b.clock.advance(firstPause)
			return b.value("ejected_addresses", "") == 0
		})
		b.clock.advance(slowReturn)
		again := hits[1].Load()
		until(t, "it is asked as before", func() bool { return hits[1].Load() > again+50 })
		close(stop)
		load.Wait()
		b.idle()
		if all := hits[0].Load() + hits[1].Load() + hits[2].Load(); all != sent.Load() {
			t.Errorf("%d sent, %d processed", sent.Load(), all)
		}
		for _, s := range servers {
			s.Close()
		}
		until(t, "no goroutine is left", func() bool { b.CloseIdleConnections(); return runtime.NumGoroutine() <= before })
	}
}

// until waits for the thing itself, and gives up when something is wrong.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); runtime.Gosched() {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("waited in vain: %s\n%s", what, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// TestInFlight: a request is one until its answer's body is closed.
func TestInFlight(t *testing.T) { both(t, testInFlight) }

func testInFlight(t *testing.T, netHTTP bool) {
	app, _ := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			echo(w, r)
			return
		}
		conn, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		said, _ := io.ReadAll(brw) // until the other direction ends
		_, _ = conn.Write(said)
	})
	for _, addresses := range [][]string{{app}, {app, app}} {
		b := newBench(t, Options{NetHTTP: netHTTP}, addresses...)
		res, err := b.RoundTrip(newRequest(t, "GET", "http", nil))
		if err != nil {
			t.Fatal(err)
		}
		upgrade := newRequest(t, "GET", "http", nil)
		upgrade.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
		tunnel, err := b.RoundTrip(upgrade)
		if err != nil || tunnel.StatusCode != 101 {
			t.Fatal(err, tunnel)
		}
		head, err := b.RoundTrip(newRequest(t, "HEAD", "http", nil)) // has no body to close
		if err != nil || head.Body != http.NoBody {
			t.Fatal(err)
		}
		if n := b.value("requests_in_flight", ""); n != 2 {
			t.Errorf("%v in flight", n)
		}
		conn := tunnel.Body.(io.ReadWriteCloser)
		if _, err := io.WriteString(conn, "there and back"); err != nil {
			t.Error(err)
		}
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
		if said, err := io.ReadAll(conn); err != nil || string(said) != "there and back" {
			t.Errorf("%q, %v", said, err)
		}
		for range 2 {
			res.Body.Close()
			conn.Close()
		}
		b.idle()
	}
}

// TestThroughReverseProxy: what the gateway forwards by finds what it needs,
// and a body that nobody could connect for is still whole.
func TestThroughReverseProxy(t *testing.T) { both(t, testThroughReverseProxy) }

func testThroughReverseProxy(t *testing.T, netHTTP bool) {
	app, _ := newApp(t, echo)
	b := newBench(t, Options{NetHTTP: netHTTP}, closedAddress(t), app)
	front := httptest.NewServer(&httputil.ReverseProxy{Transport: b, ErrorLog: quiet, Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "placeholder", "kept.example"
	}})
	defer front.Close()
	for range 10 {
		res, err := http.Post(front.URL, "text/plain", unknownLength{strings.NewReader("whole")})
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(body) != "HTTP/1.1 kept.example whole" {
			t.Errorf("%s %q", res.Status, body)
		}
	}
	b.idle()
}

// TestClosedWhileIdle: a connection that the app closed meanwhile is not used.
func TestClosedWhileIdle(t *testing.T) { both(t, testClosedWhileIdle) }

func testClosedWhileIdle(t *testing.T, netHTTP bool) {
	var processed atomic.Int64
	app, server := newApp(t, func(w http.ResponseWriter, r *http.Request) { processed.Add(1); echo(w, r) })
	gone := make(chan struct{}, 1)
	b := newBench(t, Options{NetHTTP: netHTTP, connect: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return watchedConn{conn.(socketConn), gone}, nil
	}}, app)
	for range 20 {
		if _, err := b.do(newRequest(t, "POST", "http", unknownLength{strings.NewReader("x")})); err != nil {
			t.Fatal(err)
		}
		server.CloseClientConnections()
		if netHTTP {
			<-gone
			continue
		}
		idle := &b.own.addresses[0].idle
		if len(idle.conns) != 1 {
			t.Fatalf("%d connections are kept", len(idle.conns))
		}
		until(t, "the end has come", func() bool { return !idle.conns[0].quiet() })
	}
	if processed.Load() != 20 {
		t.Errorf("%d processed", processed.Load())
	}
}

// A socketConn is a connection that can be looked at.
type socketConn interface {
	net.Conn
	syscall.Conn
}

// A watchedConn tells that it was closed.
type watchedConn struct {
	socketConn
	closed chan struct{}
}

func (c watchedConn) Close() error {
	err := c.socketConn.Close()
	select {
	case c.closed <- struct{}{}:
	default:
	}
	return err
}

func TestSocketAndNames(t *testing.T) { both(t, testSocketAndNames) }

func testSocketAndNames(t *testing.T, netHTTP bool) {
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(echo)}
	go server.Serve(l)
	defer server.Close()
	b := newBench(t, Options{NetHTTP: netHTTP, Socket: l.Addr().String()})
	if got, err := b.do(newRequest(t, "GET", "http", nil)); err != nil || got != "HTTP/1.1 localhost " {
		t.Errorf("%q, %v", got, err)
	}
	// The machine's resolver may be slow, or know every name.
	nobody := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no resolver") }}
	b = newBench(t, Options{NetHTTP: netHTTP, connect: (&net.Dialer{Resolver: nobody}).DialContext}, "name.invalid")
	var dns *net.DNSError
	if _, err := b.do(newRequest(t, "GET", "http", nil)); !errors.As(err, &dns) {
		t.Error(err)
	}
}
