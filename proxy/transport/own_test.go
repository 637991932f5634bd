package transport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A script is an upstream that does as it is told with each connection.
type script struct {
	address     string
	connections atomic.Int64
}

// scripted starts an upstream that hands each connection over, with its number
// from 1, and closes it afterwards.
func scripted(t testing.TB, serve func(n int64, conn net.Conn, in *bufio.Reader), wrap ...func(net.Listener) net.Listener) *script {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrap {
		l = w(l)
	}
	s := &script{address: l.Addr().String()}
	var open sync.WaitGroup
	t.Cleanup(open.Wait)
	t.Cleanup(func() { l.Close() })
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n := s.connections.Add(1)
			context.AfterFunc(t.Context(), func() { conn.Close() }) // whatever it waits for
			open.Go(func() {
				defer conn.Close()
				serve(n, conn, bufio.NewReader(conn))
			})
		}
	})
	return s
}

// takeRequest reads one request, its body too.
func takeRequest(in *bufio.Reader) (*http.Request, string, error) {
	r, err := http.ReadRequest(in)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(r.Body)
	return r, string(body), err
}

const okay = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// idleOf gives the connections that are kept.
func (b *bench) idleOf() []*ownConn {
	l := &b.own.addresses[0].idle
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*ownConn(nil), l.conns...)
}

// TestAnswersNobodyAskedFor: what comes over an idle connection, or behind an
// answer, is nobody's answer: the next caller would read what was meant for
// another, or what a stranger made the app say.
func TestAnswersNobodyAskedFor(t *testing.T) {
	authority, server := newApp(t, echo, func(s *httptest.Server) { s.TLS = &tls.Config{} })
	_ = authority
	known := x509.NewCertPool()
	known.AddCert(server.Certificate())
	overTLS := func(l net.Listener) net.Listener {
		return tls.NewListener(l, &tls.Config{Certificates: server.TLS.Certificates})
	}
	const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	for _, secure := range []bool{false, true} {
		for name, tt := range map[string]struct {
			answer, late string
			big          bool // is the answer: TLS holds back what nobody has read yet
		}{
			"behind the answer":            {answer: okay + poison},
			"a byte behind it":             {answer: okay + "\n"},
			"behind an answer in chunks":   {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + poison},
			"behind an answer of no body":  {answer: "HTTP/1.1 204 No Content\r\n\r\n" + poison},
			"a body where none may be":     {answer: "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison"},
			"while idle":                   {answer: okay, late: poison},
			"a byte while idle":            {answer: okay, late: "H"},
			"its time is over, while idle": {answer: okay, late: "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"},
			"behind a large answer":        {answer: fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", 10_000, strings.Repeat("x", 10_000)) + poison},
		} {
			t.Run(fmt.Sprintf("%s, TLS %v", name, secure), func(t *testing.T) {
				late, sent := make(chan struct{}), make(chan struct{})
				serve := func(n int64, conn net.Conn, in *bufio.Reader) {
					if _, _, err := takeRequest(in); err != nil {
						return
					}
					if n > 1 {
						_, _ = io.WriteString(conn, okay)
						return
					}
					_, _ = io.WriteString(conn, tt.answer)
					if tt.late != "" {
						<-late
						_, _ = io.WriteString(conn, tt.late)
						close(sent)
					}
					_, _, _ = takeRequest(in) // until it is closed, which nothing may come before
				}
				o, scheme := Options{}, "http"
				var app *script
				if secure {
					o, scheme = Options{TLS: &tls.Config{RootCAs: known}}, "https"
					app = scripted(t, serve, overTLS)
				} else {
					app = scripted(t, serve)
				}
				b := newBench(t, o, app.address)
				if _, err := b.do(newRequest(t, "GET", scheme, nil)); err != nil {
					t.Fatal(err)
				}
				if tt.late != "" {
					idle := b.idleOf()
					if len(idle) != 1 {
						t.Fatalf("%d connections are kept", len(idle))
					}
					close(late)
					<-sent
					until(t, "it has come", func() bool { return !idle[0].quiet() })
				}
				for range 2 {
					if got, err := b.do(newRequest(t, "GET", scheme, nil)); err != nil || got != "ok" {
						t.Errorf("the next caller got %q, %v", got, err)
					}
				}
				if n := app.connections.Load(); n < 2 {
					t.Errorf("the connection was used again: %d", n)
				}
				b.idle()
			})
		}
	}
}

// TestHalfARecord: of TLS, the beginning of a record that nobody asked for is not
// seen by reading.
func TestHalfARecord(t *testing.T) {
	full := []byte{23, 3, 3, 0, 4, 1, 2, 3, 4}
	for cut := range full {
		r := &records{Conn: &fixedConn{in: bytes.NewReader(append(append([]byte(nil), full...), full[:cut]...))}}
		_, _ = io.Copy(io.Discard, r)
		if r.whole() != (cut == 0) {
			t.Errorf("%d bytes of the next record: whole %v", cut, r.whole())
		}
	}
}

type fixedConn struct {
	net.Conn
	in io.Reader
}

func (c *fixedConn) Read(p []byte) (int, error) { return c.in.Read(p) }

// TestUsedAgain: whatever ends as it should leaves its connection to the next
// request, and nothing else does.
func TestUsedAgain(t *testing.T) {
	for name, tt := range map[string]struct {
		method, body, answer string
		again                bool
	}{
		"a length":                {"GET", "", okay, true},
		"no body":                 {"GET", "", "HTTP/1.1 204 No Content\r\n\r\n", true},
		"not modified":            {"GET", "", "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", true},
		"HEAD":                    {"HEAD", "", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", true},
		"HEAD in chunks":          {"HEAD", "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true},
		"chunks":                  {"GET", "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX-T: 1\r\n\r\n", true},
		"a body":                  {"POST", "text", okay, true},
		"after interim answers":   {"POST", "text", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + okay, true},
		"kept by HTTP/1.0":        {"GET", "", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", true},
		"HTTP/1.0":                {"GET", "", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		"close":                   {"GET", "", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false},
		"close among others":      {"GET", "", "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok", false},
		"no body, close":          {"GET", "", "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", false},
		"a switch to nothing":     {"GET", "", "HTTP/1.1 101 Switching Protocols\r\n\r\n", false},
		"two words on the length": {"GET", "", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false},
		"chunks by HTTP/1.0":      {"GET", "", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok", false},
		"a length of no body":     {"GET", "", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
				for {
					if _, _, err := takeRequest(in); err != nil {
						return
					}
					if _, err := io.WriteString(conn, tt.answer); err != nil {
						return
					}
				}
			})
			b := newBench(t, Options{}, app.address)
			for range 3 {
				var body io.Reader
				if tt.body != "" {
					body = strings.NewReader(tt.body)
				}
				if _, err := b.do(newRequest(t, tt.method, "http", body)); err != nil {
					t.Fatal(err)
				}
			}
			if n := app.connections.Load(); tt.again != (n == 1) || !tt.again && n != 3 {
				t.Errorf("%d connections", n)
			}
			b.idle()
		})
	}
}

// held is a body that ends when it is told.
type held struct {
	first  io.Reader
	end    chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newHeld(text string) *held {
	return &held{first: strings.NewReader(text), end: make(chan struct{}), closed: make(chan struct{})}
}

func (h *held) Read(p []byte) (int, error) {
	if n, err := h.first.Read(p); n > 0 || err != io.EOF {
		return n, err
	}
	<-h.end
	return 0, io.EOF
}

func (h *held) Close() error { h.once.Do(func() { close(h.closed) }); return nil }

// TestEarlyAnswer: an app that answers before it has the body is heard at once;
// and when its answer ended first, what follows of the body is not sent over a
// connection that another request uses.
func TestEarlyAnswer(t *testing.T) {
	for _, length := range []int64{-1, 1000} {
		app := scripted(t, func(n int64, conn net.Conn, in *bufio.Reader) {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			_, _ = io.WriteString(conn, okay)
			_, _ = io.Copy(io.Discard, in)
		})
		b := newBench(t, Options{}, app.address)
		body := newHeld("begun")
		r := newRequest(t, "POST", "http", body)
		r.ContentLength = length
		if got, err := b.do(r); err != nil || got != "ok" {
			t.Errorf("%q, %v", got, err)
		}
		if len(b.idleOf()) != 0 {
			t.Error("the connection is kept, in the middle of a request")
		}
		if got, err := b.do(newRequest(t, "GET", "http", nil)); err != nil || got != "ok" || app.connections.Load() != 2 {
			t.Errorf("%q, %v, %d connections", got, err, app.connections.Load())
		}
		close(body.end)
		<-body.closed
		b.idle()
	}
}

// TestBothAtOnce: an answer that began before the request was whole, and ended
// after it, leaves a connection that can be used.
func TestBothAtOnce(t *testing.T) {
	app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(conn, "%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		}
	})
	b := newBench(t, Options{}, app.address)
	for range 3 {
		body := newHeld("text")
		res, err := b.RoundTrip(newRequest(t, "POST", "http", body))
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 5)
		if _, err := io.ReadFull(res.Body, first); err != nil {
			t.Fatal(err)
		}
		close(body.end)
		rest, err := io.ReadAll(res.Body)
		if err != nil || string(first)+string(rest) != "firsttext" {
			t.Errorf("%q %q, %v", first, rest, err)
		}
		res.Body.Close()
	}
	if n := app.connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	b.idle()
}

// TestBodyIsBounded: nothing follows a body's Content-Length, and what falls
// short of it is no request.
func TestBodyIsBounded(t *testing.T) {
	for _, length := range []int64{1, 3, 5, 100} {
		came := make(chan string, 1)
		app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
			_, _ = http.ReadRequest(in)
			all, _ := io.ReadAll(in)
			came <- string(all)
		})
		b := newBench(t, Options{}, app.address)
		r := newRequest(t, "POST", "http", io.MultiReader(strings.NewReader("te"), strings.NewReader("xt"))) // in two reads
		r.ContentLength = length
		var refused *refusedRequest
		if _, err := b.do(r); !errors.As(err, &refused) {
			t.Errorf("a length of %d: %v", length, err)
		}
		if got := <-came; int64(len(got)) > length || !strings.HasPrefix("text", got) {
			t.Errorf("a length of %d: %q was sent", length, got)
		}
		for _, kind := range []string{"connect", "broken", "timeout"} {
			if n := b.value("failures_total", kind); n != 0 {
				t.Errorf("it is said to be the app's fault (%s)", kind)
			}
		}
		b.idle()
	}
}

// TestExpectContinue: a body that is asked for is sent when the app says so, when
// it says nothing for a while, and not where it refuses and hangs up.
func TestExpectContinue(t *testing.T) {
	for name, tt := range map[string]struct {
		interim, answer string
		reads           bool // the app reads the body before it answers
		sent            bool
	}{
		"wanted":                {"HTTP/1.1 100 Continue\r\n\r\n", okay, true, true},
		"not a word":            {"", okay, true, true},
		"refused, and hangs up": {"", "HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false, false},
		"refused":               {"", "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, tt.interim)
				if tt.reads {
					if body, err := io.ReadAll(r.Body); err != nil || string(body) != "text" {
						t.Errorf("%q, %v", body, err)
					}
				}
				_, _ = io.WriteString(conn, tt.answer)
				_, _ = io.Copy(io.Discard, in)
			})
			b := newBench(t, Options{}, app.address)
			var read atomic.Bool
			r := newRequest(t, "POST", "http", nil)
			r.Body = &noticing{Reader: strings.NewReader("text"), read: &read}
			r.ContentLength = 4
			r.Header.Set("Expect", "100-continue")
			res, err := b.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if name != "refused" && read.Load() != tt.sent {
				t.Errorf("the body was read: %v", read.Load())
			}
			if kept := len(b.idleOf()); kept != 0 && !tt.sent {
				t.Error("the connection is kept, without the body that was said to come")
			}
			b.idle()
		})
	}
}

type noticing struct {
	io.Reader
	read *atomic.Bool
}

func (n *noticing) Read(p []byte) (int, error) { n.read.Store(true); return n.Reader.Read(p) }
func (*noticing) Close() error                 { return nil }

// TestInterimAnswers are passed on, within bounds.
func TestInterimAnswers(t *testing.T) {
	says := func(what string, times int) string {
		return scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
			if _, _, err := takeRequest(in); err == nil {
				_, _ = io.WriteString(conn, strings.Repeat(what, times)+okay)
			}
		}).address
	}
	for _, tt := range []struct {
		app    string
		passed int
		ok     bool
	}{
		{says("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 3), 3, true},
		{says("HTTP/1.1 102 Processing\r\n\r\n", maxInformational), maxInformational, true},
		{says("HTTP/1.1 102 Processing\r\n\r\n", maxInformational+1), maxInformational, false},
		{says("HTTP/1.1 103 Early Hints\r\nLink: "+strings.Repeat("a", 100_000)+"\r\n\r\n", 3), 2, false},
	} {
		b := newBench(t, Options{}, tt.app)
		var passed int
		r := newRequest(t, "GET", "http", nil)
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			if passed++; code == 103 && h.Get("Link") == "" {
				t.Errorf("%d, %v", code, h)
			}
			return nil
		}}))
		if got, err := b.do(r); passed != tt.passed || tt.ok != (err == nil) || tt.ok && got != "ok" {
			t.Errorf("%d were passed on, then %q, %v", passed, got, err)
		}
		b.idle()
	}
}

// TestSwitch: what came with the answer is not lost, also where net/http read its
// head, and the request's context has no power over the connection any more.
func TestSwitch(t *testing.T) {
	const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	upgrade := newRequest(t, "GET", "http", nil)
	upgrade.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
	for _, head := range []string{
		switching,
		strings.ReplaceAll(switching, "\r", ""),
		"HTTP/1.1 103 Early Hints\nLink: a\n\n" + switching,
	} {
		testSwitch(t, head, upgrade)
	}

	app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		_, _ = io.WriteString(conn, switching)
		_, _ = io.Copy(conn, in)
	})
	b := newBench(t, Options{}, app.address)
	// In the middle of a request, its body would be what is said afterwards.
	body := newHeld("half")
	post := newRequest(t, "POST", "http", body)
	post.Header = upgrade.Header
	if got, err := b.do(post); err == nil {
		t.Errorf("switched in the middle of a body: %q", got)
	}
	close(body.end)
	<-body.closed
	b.idle()
}

func testSwitch(t *testing.T, head string, upgrade *http.Request) {
	early := strings.Repeat("early ", 1000) // more than a buffer
	app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		_, _ = io.WriteString(conn, head+early)
		_, _ = io.Copy(conn, in)
	})
	b := newBench(t, Options{}, app.address)
	ctx, cancel := context.WithCancel(t.Context())
	res, err := b.RoundTrip(upgrade.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	conn := res.Body.(io.ReadWriteCloser)
	_, _ = io.WriteString(conn, "late")
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(conn); string(got) != early+"late" || err != nil {
		t.Errorf("%q: %d bytes, %v", head, len(got), err)
	}
	conn.Close()
	b.idle()
}

// TestTruncated: an answer that ends before its end is none, whatever it looks
// like.
func TestTruncated(t *testing.T) {
	for name, answer := range map[string]string{
		"a length":        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok",
		"a chunk":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nok",
		"between chunks":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
		"in the trailers": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: 1\r\n",
	} {
		app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
			if _, _, err := takeRequest(in); err == nil {
				_, _ = io.WriteString(conn, answer)
			}
		})
		b := newBench(t, Options{}, app.address)
		if got, err := b.do(newRequest(t, "GET", "http", nil)); err == nil || got != "ok" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		b.idle()
	}
}

// TestTrailers come with the end of the body.
func TestTrailers(t *testing.T) {
	app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
		for {
			if _, _, err := takeRequest(in); err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTrailer: Grpc-Status\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nGrpc-Status: 0\r\nX-Unsaid: 1\r\n\r\n")
		}
	})
	b := newBench(t, Options{}, app.address)
	for range 2 {
		res, err := b.RoundTrip(newRequest(t, "GET", "http", nil))
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := res.Trailer["Grpc-Status"]; !ok || v != nil || res.Header.Get("Trailer") != "" {
			t.Errorf("announced: %v, %v", res.Trailer, res.Header)
		}
		body, err := io.ReadAll(res.Body)
		if string(body) != "ok" || err != nil || res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("X-Unsaid") != "1" {
			t.Errorf("%q, %v, %v", body, err, res.Trailer)
		}
		res.Body.Close()
	}
	if n := app.connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestCancelled: a request that is ended says why, at once, wherever it is, and
// its connection is used by nobody else.
func TestCancelled(t *testing.T) {
	why := errors.New("why")
	asked := make(chan struct{}, 1)
	app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			switch r.URL.Path {
			case "/ok":
				_, _ = io.WriteString(conn, okay)
				continue
			case "/body":
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok")
			case "/half":
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: ")
			}
			asked <- struct{}{}
			_, _ = io.Copy(io.Discard, in)
			return
		}
	})
	b := newBench(t, Options{}, app.address)
	for _, path := range []string{"/silent", "/half", "/body", "/upload"} {
		ok := newRequest(t, "GET", "http", nil)
		ok.URL.Path = "/ok"
		if _, err := b.do(ok); err != nil { // so that the connection is one that was used
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		r := newRequest(t, "GET", "http", nil)
		var body *held
		if path == "/upload" {
			body = newHeld("half")
			r = newRequest(t, "POST", "http", body)
		}
		r.URL.Path = path
		begun := make(chan struct{})
		go func() {
			<-asked
			if path == "/body" {
				<-begun
			}
			cancel(why)
		}()
		res, err := b.RoundTrip(r.WithContext(ctx))
		close(begun)
		if path == "/body" {
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadAll(res.Body)
			res.Body.Close()
		}
		if err != why {
			t.Errorf("%s: %v", path, err)
		}
		if len(b.idleOf()) != 0 {
			t.Errorf("%s: the connection is kept", path)
		}
		if body != nil {
			close(body.end)
			<-body.closed
		}
	}
	before := app.connections.Load()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	body := newHeld("")
	if _, err := b.RoundTrip(newRequest(t, "POST", "http", body).WithContext(ctx)); err != why || app.connections.Load() != before {
		t.Errorf("%v, %d connections", err, app.connections.Load()-before)
	}
	<-body.closed
	connecting := newBench(t, Options{connect: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}, app.address)
	ctx, cancel = context.WithCancelCause(t.Context())
	time.AfterFunc(time.Millisecond, func() { cancel(why) })
	if _, err := connecting.RoundTrip(newRequest(t, "GET", "http", nil).WithContext(ctx)); err != why {
		t.Errorf("while connecting: %v", err)
	}
	b.idle()
	connecting.idle()
}

// TestClosedEarly: who does not want the rest of an answer does not wait for it.
func TestClosedEarly(t *testing.T) {
	app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
		if _, _, err := takeRequest(in); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nok")
			_, _ = io.Copy(io.Discard, in)
		}
	})
	b := newBench(t, Options{}, app.address)
	res, err := b.RoundTrip(newRequest(t, "GET", "http", nil))
	if err != nil {
		t.Fatal(err)
	}
	reading := make(chan error, 1)
	go func() { _, err := io.ReadAll(res.Body); reading <- err }()
	res.Body.Close()
	if err := <-reading; err == nil {
		t.Error("read to its end")
	}
	if _, err := res.Body.Read(make([]byte, 1)); err == nil {
		t.Error("read after it was closed")
	}
	if len(b.idleOf()) != 0 {
		t.Error("the connection is kept")
	}
	b.idle()
}

// TestRequestsThatAreRefused: nothing of a request may end a line, or say where it
// ends but what is known of its body.
func TestRequestsThatAreRefused(t *testing.T) {
	app := scripted(t, func(int64, net.Conn, *bufio.Reader) {})
	b := newBench(t, Options{}, app.address)
	for name, change := range map[string]func(*http.Request){
		"a line in a value":      func(r *http.Request) { r.Header["X"] = []string{"a\r\nY: b"} },
		"a NUL in a value":       func(r *http.Request) { r.Header["X"] = []string{"a\x00"} },
		"a line in a name":       func(r *http.Request) { r.Header["X\r\nY"] = []string{"a"} },
		"a space in a name":      func(r *http.Request) { r.Header["X Y"] = []string{"a"} },
		"no name":                func(r *http.Request) { r.Header[""] = []string{"a"} },
		"a colon in a name":      func(r *http.Request) { r.Header["X:"] = []string{"a"} },
		"a line in the host":     func(r *http.Request) { r.Host = "a\r\nX: y" },
		"a space in the host":    func(r *http.Request) { r.Host = "a b" },
		"a slash in the host":    func(r *http.Request) { r.Host = "a/b" },
		"a line in the query":    func(r *http.Request) { r.URL.RawQuery = "a\r\nX: y" },
		"a space in the query":   func(r *http.Request) { r.URL.RawQuery = "a HTTP/1.1" },
		"a line in the target":   func(r *http.Request) { r.URL.Opaque = "/a\r\nX: y" },
		"a space in the method":  func(r *http.Request) { r.Method = "GET /x" },
		"a line in the method":   func(r *http.Request) { r.Method = "GET\r\n" },
		"another scheme":         func(r *http.Request) { r.URL.Scheme = "https" },
		"a length without body":  func(r *http.Request) { r.ContentLength = 4 },
		"a scheme of no meaning": func(r *http.Request) { r.URL.Scheme = "ftp" },
	} {
		r := newRequest(t, "GET", "http", nil)
		change(r)
		var refused *refusedRequest
		if _, err := b.do(r); !errors.As(err, &refused) || b.value("failures_total", "broken") != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.idle()
}

// TestFraming: where a request ends is said once, by us, in whatever spelling a
// header says it, too.
func TestFraming(t *testing.T) {
	came := make(chan string, 1)
	app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
		var head strings.Builder
		for line := ""; line != "\r\n"; {
			line, _ = in.ReadString('\n')
			if head.WriteString(line); line == "" {
				return
			}
		}
		came <- head.String()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, in)
	})
	b := newBench(t, Options{}, app.address)
	for _, tt := range []struct {
		method, text string
		length       int64
		want         string
	}{
		{"GET", "", 0, ""},
		{"DELETE", "", 0, ""},
		{"POST", "", 0, "Content-Length: 0\r\n"},
		{"PUT", "", 0, "Content-Length: 0\r\n"},
		{"POST", "text", 4, "Content-Length: 4\r\n"},
		{"GET", "text", 4, "Content-Length: 4\r\n"},
		{"POST", "text", -1, "Transfer-Encoding: chunked\r\n"},
		{"POST", "text", 0, "Transfer-Encoding: chunked\r\n"},
	} {
		var body io.Reader
		if tt.text != "" {
			body = io.NopCloser(strings.NewReader(tt.text))
		}
		r := newRequest(t, tt.method, "http", body)
		r.ContentLength = tt.length
		for _, name := range []string{"Content-Length", "content-length", "Transfer-Encoding", "transfer-encoding", "TRANSFER-ENCODING", "Host", "host", "Trailer", "User-Agent"} {
			r.Header[name] = []string{"7"}
		}
		r.Header["User-Agent"] = []string{""}
		r.Header["X"] = []string{" a\t", "b"}
		if _, err := b.do(r); err != nil {
			t.Fatal(err)
		}
		got := <-came
		for _, rest := range []string{tt.method + " / HTTP/1.1\r\n", "Host: " + app.address + "\r\n", tt.want, "X: a\r\n", "X: b\r\n"} {
			if rest != "" && strings.Count(got, rest) != 1 {
				t.Errorf("%s %q: %q", tt.method, tt.text, got)
			}
			got = strings.Replace(got, rest, "", 1)
		}
		if got != "\r\n" {
			t.Errorf("%s %q: %q is more than was to be said", tt.method, tt.text, got)
		}
	}
	b.idle()
}

// TestIdleConnections: so many are kept, and not for ever.
func TestIdleConnections(t *testing.T) {
	app, _ := newApp(t, echo)
	b := newBench(t, Options{}, app)
	var answers []*http.Response
	for range maxIdle + 3 {
		res, err := b.RoundTrip(newRequest(t, "GET", "http", nil))
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, res)
	}
	for _, res := range answers {
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	if n := len(b.idleOf()); n != maxIdle {
		t.Errorf("%d are kept", n)
	}
	idle := &b.own.addresses[0].idle
	for range sweeps - 1 {
		idle.sweep()
	}
	if n := len(b.idleOf()); n != maxIdle {
		t.Errorf("%d are left before their time is over", n)
	}
	young := idle.take(false)
	idle.put(young)
	idle.sweep()
	if left := b.idleOf(); len(left) != 1 || left[0] != young {
		t.Errorf("%d are left when the time of all but one is over", len(left))
	}
	_ = young.conn.(interface{ CloseWrite() error }).CloseWrite() // and so the app closes it
	until(t, "the app has closed it", func() bool { return !young.quiet() })
	idle.sweep()
	if n := len(b.idleOf()); n != 0 || idle.timer != nil {
		t.Errorf("%d are left of those that the app closed", n)
	}

	res, err := b.RoundTrip(newRequest(t, "GET", "http", nil))
	if err != nil {
		t.Fatal(err)
	}
	b.CloseIdleConnections() // and those that end meanwhile, too
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if n := len(b.idleOf()); n != 0 {
		t.Errorf("%d are kept after all were closed", n)
	}
	b.idle()
}
