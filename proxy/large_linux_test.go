package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/proxy/splice"
)

// looked sees which reads of an app's connection left nothing in the buffer: what
// the app sends holds no zeros.
type looked struct {
	net.Conn
	passed *atomic.Int64
}

func (c looked) Read(p []byte) (int, error) {
	if len(p) >= splice.MinRead {
		p[0] = 0
	}
	n, err := c.Conn.Read(p)
	if n > 0 && len(p) >= splice.MinRead && p[0] == 0 {
		c.passed.Add(int64(n))
	}
	return n, err
}

// largeGate is a gate that dials as the transport does. passed is what went within
// the kernel, opened the connections to the app.
func largeGate(t *testing.T, app string, change ...func(*Options)) (g *gate, passed, opened *atomic.Int64) {
	t.Helper()
	passed, opened = new(atomic.Int64), new(atomic.Int64)
	by := newTransport()
	by.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		opened.Add(1)
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return looked{splice.Conn(c), passed}, nil
	}
	t.Cleanup(by.CloseIdleConnections)
	g = newGate(t, app, append(change, func(o *Options) {
		u := o.Upstreams["app"]
		u.Transport = by
		o.Upstreams["app"] = u
	})...)
	return g, passed, opened
}

// anyBytes are without zeros.
func anyBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	for i := range b {
		b[i] |= 1
	}
	return b
}

// TestLargeAnswers: whatever their size, and however they come, they are whole, and
// counted, and both connections go on.
func TestLargeAnswers(t *testing.T) {
	sizes := []int{spliceFrom - 1, spliceFrom, spliceFrom + 1, 1<<20 - 1, 3<<20 + 7, 20, 5 << 20, 0}
	all := anyBytes(5 << 20)
	r := rand.New(rand.NewPCG(1, 1))
	app := newApp(t, func(w http.ResponseWriter, r0 *http.Request) {
		n := 0
		fmt.Sscan(r0.URL.Query().Get("n"), &n)
		if !r0.URL.Query().Has("chunked") {
			w.Header().Set("Content-Length", fmt.Sprint(n))
		}
		pieces := rand.New(rand.NewPCG(uint64(n), 2))
		for left := all[:n]; len(left) > 0; {
			k := min(len(left), 1+pieces.IntN(400<<10))
			w.Write(left[:k])
			if pieces.IntN(4) == 0 {
				http.NewResponseController(w).Flush()
			}
			left = left[k:]
		}
	})
	g, passed, opened := largeGate(t, app)
	conn := g.dial()
	in := bufio.NewReader(conn)
	method := func(i int) string {
		if i == len(sizes)-1 {
			return "HEAD"
		}
		return "GET"
	}
	for range 4 {
		r.Shuffle(len(sizes), func(i, j int) { sizes[i], sizes[j] = sizes[j], sizes[i] })
		var ahead strings.Builder // all requests at once: an answer must take no byte of another
		for i, n := range sizes {
			target := fmt.Sprint("/public/a?n=", n)
			if i%3 == 2 {
				target += "&chunked"
			}
			ahead.WriteString(request(method(i), target, ""))
		}
		if _, err := io.WriteString(conn, ahead.String()); err != nil {
			t.Fatal(err)
		}
		for i, n := range sizes {
			a := g.read(in, method(i))
			if method(i) == "HEAD" {
				n = 0
			}
			if a.err != nil || a.StatusCode != 200 || !bytes.Equal([]byte(a.body), all[:n]) {
				t.Fatalf("%d bytes: %d of them, %v", n, len(a.body), a.err)
			}
			if o := g.outcome().Outcome; o.BytesOut != int64(n) || o.Error != "" || o.Truncated {
				t.Fatalf("%d bytes: %+v", n, o)
			}
		}
	}
	if passed.Load() == 0 || opened.Load() != 1 {
		t.Errorf("%d bytes passed within the kernel, by %d connections", passed.Load(), opened.Load())
	}
	old := g.raw("GET /public/a?n=1048576 HTTP/1.0\r\nHost: gateway.test\r\n\r\n")
	if old.err != nil || old.body != string(all[:1<<20]) {
		t.Errorf("HTTP/1.0: %d bytes, %v", len(old.body), old.err)
	}
}

// TestLargeAnswersWithoutPipes: where the pipes are in use by others, answers are
// copied.
func TestLargeAnswersWithoutPipes(t *testing.T) {
	body := anyBytes(2 << 20)
	g, passed, _ := largeGate(t, newApp(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body)
	}))
	for p := splice.Get(); p != nil; p = splice.Get() {
		defer p.Put()
	}
	if a := g.send("GET", "/public/a", ""); a.err != nil || a.body != string(body) || passed.Load() != 0 {
		t.Errorf("%d bytes, %d of them within the kernel, %v", len(a.body), passed.Load(), a.err)
	}
}

// TestLargeAnswerOfAnotherConnection: an app that is not on TCP keeps no pipe from
// those that are for the time of its answer.
func TestLargeAnswerOfAnotherConnection(t *testing.T) {
	body, goOn := anyBytes(2<<20), make(chan struct{})
	more := sync.OnceFunc(func() { close(goOn) })
	app := newApp(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body[:1<<20])
		http.NewResponseController(w).Flush()
		<-goOn
		w.Write(body[1<<20:])
	})
	t.Cleanup(more)
	by := newTransport() // whose connections fill no pipes
	t.Cleanup(by.CloseIdleConnections)
	g := newGate(t, app, upstream(func(u *Upstream) { u.Transport = by }))
	conn := g.dial()
	io.WriteString(conn, request("GET", "/public/a", ""))
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 512<<10) // less than was sent: the last of it may wait in a buffer
	if _, err := io.ReadFull(res.Body, first); err != nil {
		t.Fatal(err)
	}
	n := 0
	for p := splice.Get(); p != nil; p = splice.Get() {
		defer p.Put()
		n++
	}
	if n != 64 {
		t.Errorf("%d pipes are left for others, of 64", n)
	}
	more()
	rest, err := io.ReadAll(res.Body)
	if err != nil || string(first)+string(rest) != string(body) {
		t.Errorf("%d bytes, %v", len(first)+len(rest), err)
	}
}

// TestLargeAnswerEndsEarly: an app that breaks off, or falls silent, in the middle,
// and a caller who leaves, or takes nothing, are told apart as ever, and a slow
// caller's time is not the app's.
func TestLargeAnswerEndsEarly(t *testing.T) {
	const size, part = 8 << 20, 1<<20 + 5
	body := anyBytes(size)
	for _, c := range []struct {
		name    string
		app     func(conn net.Conn)
		caller  func(conn net.Conn)
		outcome string
		times   func(*Options)
	}{
		{"app breaks off", func(conn net.Conn) { conn.Write(body[:part]) }, nil, "upstream_failed", nil},
		{"app resets", func(conn net.Conn) {
			conn.Write(body[:part])
			conn.(*net.TCPConn).SetLinger(0)
		}, nil, "upstream_failed", nil},
		{"app stalls", func(conn net.Conn) {
			conn.Write(body[:part])
			io.Copy(io.Discard, conn)
		}, nil, "upstream_timeout", upstream(func(u *Upstream) { u.IdleTimeout = 200 * time.Millisecond })},
		{"caller stalls", func(conn net.Conn) {
			for conn.SetWriteDeadline(time.Time{}) == nil {
				if _, err := conn.Write(body); err != nil {
					return
				}
			}
		}, func(conn net.Conn) {}, "client_stalled", func(o *Options) {
			o.IdleTimeout = 400 * time.Millisecond
			upstream(func(u *Upstream) { u.IdleTimeout = 100 * time.Millisecond })(o)
		}},
		{"caller leaves", func(conn net.Conn) {
			for {
				if _, err := conn.Write(body); err != nil {
					return
				}
			}
		}, func(conn net.Conn) {
			io.CopyN(io.Discard, conn, part)
			conn.Close()
		}, "client_gone", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			change := c.times
			if change == nil {
				change = func(*Options) {}
			}
			g, passed, _ := largeGate(t, rawApp(t, func(conn net.Conn, _ *http.Request) {
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", int64(size)<<10)
				c.app(conn)
			}), change)
			conn := g.dial()
			io.WriteString(conn, request("GET", "/public/a", ""))
			got := int64(0)
			if c.caller == nil {
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				all, err := io.ReadAll(res.Body)
				if err == nil || !bytes.HasPrefix(body, all) {
					t.Errorf("the caller takes %d bytes for the whole, or they are others: %v", len(all), err)
				}
				got = int64(len(all))
			} else {
				c.caller(conn)
			}
			o := g.outcome().Outcome
			if o.Error != c.outcome || !o.Truncated || o.Status != 200 || o.BytesOut < got {
				t.Errorf("the caller has %d bytes; on record is %+v", got, o)
			}
			if passed.Load() == 0 {
				t.Error("nothing passed within the kernel: the test shows nothing")
			}
		})
	}
	// Nothing of all that is in any pipe that is used again.
	g, _, _ := largeGate(t, newApp(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		w.Write(body)
	}))
	if a := g.send("GET", "/public/a", ""); a.err != nil || a.body != string(body) {
		t.Errorf("%d bytes, %v", len(a.body), a.err)
	}
}

// A nibbler takes a few bytes of a Pipe at a time.
type nibbler struct {
	http.ResponseWriter
	took, deadlines int
}

func (n *nibbler) ReadFrom(r io.Reader) (int64, error) {
	k, err := r.Read(make([]byte, 10))
	n.took++
	return int64(k), err
}

func (n *nibbler) SetWriteDeadline(time.Time) error {
	n.deadlines++
	return nil
}

// TestLargeAnswerMovesTheDeadline: whoever takes a little each time is given as
// much time again, as for an answer that is copied.
func TestLargeAnswerMovesTheDeadline(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	app, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	app.Write(anyBytes(100))
	pipe := splice.Get()
	defer pipe.Put()
	if n, err := splice.Conn(conn).Read(pipe.Buffer()); n != 100 || err != nil || pipe.Taken() != n {
		t.Fatal(n, err)
	}
	n := &nibbler{}
	w := &responseWriter{ResponseWriter: n, idle: 1} // a moment, which is over each time
	if err := w.splice(pipe); err != nil || w.bytes != 100 || n.took != 10 || n.deadlines != 10 {
		t.Errorf("%d bytes in %d pieces, %d deadlines, %v", w.bytes, n.took, n.deadlines, err)
	}
}
