package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sidegate/storage/audit"
)

// The faults that a gateway must survive as if nothing had been: each kind is
// caused again and again, by many callers at once. Every one is told and
// recorded as it should be, and then nothing is left of it: no goroutine, no
// descriptor, no memory. SIDEGATE_FAULTS is how often (default 100; `make
// soak-faults` takes 10,000).

// A fault is one kind.
type fault struct {
	name    string
	app     string                  // address of what answers so
	request string                  // raw
	leave   func(*net.TCPConn)      // the caller does this, and does not read to the end
	answer  func(answer) error      // what the caller must be told; nil where he left
	outcome func(*audit.Event) bool // what must be on record
	change  []func(*Options)
	// costly is caused a tenth as often: each moves megabytes.
	costly bool
}

func faultCount(t *testing.T) int {
	t.Helper()
	s := os.Getenv("SIDEGATE_FAULTS")
	if s == "" {
		return 100
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("SIDEGATE_FAULTS: %v", err)
	}
	return n
}

// faultCallers is how many there are at once.
const faultCallers = 64

func (f fault) run(t *testing.T) {
	t.Helper()
	t.Run(f.name, func(t *testing.T) {
		g := newGate(t, f.app, append([]func(*Options){func(o *Options) { o.Log = zerolog.Nop() }}, f.change...)...)
		f.cause(t, g, faultCallers) // pools and buffers have their size then
		before := left(t, g)
		n := faultCount(t)
		if f.costly {
			n /= 10
		}
		begin := time.Now()
		f.cause(t, g, n)
		took := time.Since(begin)
		after := left(t, g)
		for deadline := time.Now().Add(10 * time.Second); after.above(before); after = left(t, g) {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Fatalf("left behind: %v, before %v\n%s", after, before, stacks[:runtime.Stack(stacks, true)])
			}
		}
		t.Logf("%d in %v; left %v, before %v", n, took.Round(time.Millisecond), after, before)
		for id, types := range g.ledger() {
			if types[audit.TypeDecision] != 1 || types[audit.TypeOutcome] != 1 {
				t.Fatalf("record %s has %v", id, types)
			}
		}
	})
}

// cause makes it happen n times, and looks at every one.
func (f fault) cause(t *testing.T, g *gate, n int) {
	t.Helper()
	var callers sync.WaitGroup
	failed := make(chan error, 1) // the first says enough
	todo := make(chan struct{}, n)
	for range n {
		todo <- struct{}{}
	}
	close(todo)
	for range faultCallers {
		callers.Go(func() {
			for range todo {
				if err := f.call(g); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			}
		})
	}
	callers.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	for range n {
		if e := g.outcome(); !f.outcome(e) {
			t.Fatalf("on record is %+v", e.Outcome)
		}
	}
}

// call is one caller's exchange, on a connection of its own.
func (f fault) call(g *gate) error {
	conn, err := net.Dial("tcp", g.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, f.request); err != nil {
		return err
	}
	if f.leave != nil {
		f.leave(conn.(*net.TCPConn))
		return nil
	}
	method, _, _ := strings.Cut(f.request, " ")
	r := bufio.NewReader(conn)
	for {
		if a := g.read(r, method); a.err != nil || a.StatusCode >= 200 {
			return f.answer(a)
		}
	}
}

// remains are what a fault could leave behind.
type remains struct {
	goroutines, descriptors int
	heap                    uint64
}

// above reports whether it is more than the other, but for what the runtime
// and the test's own parts make of chance.
func (r remains) above(o remains) bool {
	return r.goroutines > o.goroutines+8 || r.descriptors > o.descriptors+8 || r.heap > o.heap+4<<20
}

func (r remains) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %d KiB", r.goroutines, r.descriptors, r.heap>>10)
}

// left counts when what keeps connections for later has given them up, and the
// test has forgotten its records.
func left(t *testing.T, g *gate) remains {
	t.Helper()
	g.tape.set(func(r *tape) { r.decisions = nil })
	g.transport.CloseIdleConnections()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil && runtime.GOOS == "linux" {
		t.Fatal(err) // elsewhere the rest is looked at
	}
	runtime.GC()
	runtime.GC() // what pools held goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return remains{runtime.NumGoroutine(), len(fds), m.HeapAlloc}
}

// refusedWith is an answer of the gateway's own.
func refusedWith(status int, code string) func(answer) error {
	return func(a answer) error {
		if a.err != nil || a.StatusCode != status || !strings.Contains(a.body, `"code":"`+code+`"`) || a.Header.Get("X-Sidegate-Response") != "true" || a.Header.Get("X-Evil") != "" {
			return fmt.Errorf("the answer is %+v %q, %v", a.Response, a.body, a.err)
		}
		return nil
	}
}

// neverWhole is half an answer, which must not look like a whole one. A reset
// can destroy what was not read yet: then it is a refusal.
func neverWhole(a answer) error {
	if a.err == nil && a.StatusCode == http.StatusOK {
		return fmt.Errorf("a clean end: %q", a.body)
	}
	return nil
}

func recorded(code string, status int, truncated bool, in, out int64) func(*audit.Event) bool {
	return func(e *audit.Event) bool {
		o := e.Outcome
		return o.Error == code && o.Status == status && o.Truncated == truncated && (in < 0 || o.BytesIn == in) && (out < 0 || o.BytesOut == out)
	}
}

// halfRecorded is of half an answer of four bytes, or of none where a reset
// destroyed it.
func halfRecorded(code string) func(*audit.Event) bool {
	half := recorded(code, 200, true, 0, 4)
	return func(e *audit.Event) bool {
		return half(e) || e.Outcome.Error == code && (e.Outcome.Status == 502 || e.Outcome.Truncated && e.Outcome.BytesOut < 4)
	}
}

// speaks is an app that answers with these bytes, and then ends as it is told to.
func speaks(t *testing.T, says string, end func(net.Conn)) string {
	return rawApp(t, func(conn net.Conn, _ *http.Request) {
		io.WriteString(conn, says)
		if end != nil {
			end(conn)
		}
	})
}

func hang(conn net.Conn)  { io.Copy(io.Discard, conn) } // until the gateway hangs up
func reset(conn net.Conn) { conn.(*net.TCPConn).SetLinger(0) }

// within sets the upstream's time-outs.
func within(d time.Duration) func(*Options) {
	return upstream(func(u *Upstream) { u.Timeout, u.IdleTimeout = d, d })
}

const hangUp = "Connection: close"

func TestF11UpstreamRefuses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	// The machine's resolver may be slow, or know every name.
	nobody := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no resolver") }}
	resolved := upstream(func(u *Upstream) {
		by := newTransport()
		by.DialContext = (&net.Dialer{Resolver: nobody}).DialContext
		u.Transport = by
	})
	for name, app := range map[string]string{"nobody listens": "http://" + l.Addr().String(), "no such name": "http://nowhere.invalid:1"} {
		fault{
			name: name, app: app, request: request("GET", "/public/a", "", hangUp), change: []func(*Options){resolved},
			answer: refusedWith(502, codeUpstreamFailed), outcome: recorded(codeUpstreamFailed, 502, false, 0, -1),
		}.run(t)
	}
}

func TestF12UpstreamHangsBeforeTheHeader(t *testing.T) {
	app := speaks(t, "", hang)
	half := speaks(t, "HTTP/1.1 200 OK\r\nX-Evil: 1\r\n", hang)
	for _, c := range []struct{ name, app, request string }{
		{"GET", app, request("GET", "/public/a", "", hangUp)},
		{"half a header", half, request("GET", "/public/a", "", hangUp)},
		{"POST", app, request("POST", "/public/a", "", hangUp, "Content-Length: 4") + "body"},
		{"POST in chunks", app, request("POST", "/public/a", "", hangUp, "Transfer-Encoding: chunked") + "4\r\nbody\r\n0\r\n\r\n"},
	} {
		fault{
			name: c.name, app: c.app, request: c.request, change: []func(*Options){within(30 * time.Millisecond)},
			answer: refusedWith(504, codeUpstreamTimeout), outcome: recorded(codeUpstreamTimeout, 504, false, -1, -1),
		}.run(t)
	}
}

func TestF13UpstreamHangsMidBody(t *testing.T) {
	for name, head := range map[string]string{
		"by length": "Content-Length: 100\r\n\r\nhalf", "in chunks": "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "by close": "\r\nhalf", "in a chunk": "Transfer-Encoding: chunked\r\n\r\n8\r\nhalf",
	} {
		fault{
			name: name, app: speaks(t, "HTTP/1.1 200 OK\r\n"+head, hang), request: request("GET", "/public/a", "", hangUp),
			change: []func(*Options){upstream(func(u *Upstream) { u.IdleTimeout = 30 * time.Millisecond })},
			answer: neverWhole, outcome: recorded(codeUpstreamTimeout, 200, true, 0, 4),
		}.run(t)
	}
}

func TestF14UpstreamBreaksOff(t *testing.T) {
	length, chunks := "Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
	for _, c := range []struct {
		name, head string
		end        func(net.Conn)
	}{
		{"closed, by length", length, nil}, {"closed, in chunks", chunks, nil}, {"reset, by length", length, reset}, {"reset, in chunks", chunks, reset},
		{"reset, by close", "\r\nhalf", reset}, {"closed, before the trailers' end", chunks + "0\r\nX-Sum: 1\r\n", nil}, {"a chunk of nonsense", chunks + "zz\r\n", nil},
	} {
		fault{
			name: c.name, app: speaks(t, "HTTP/1.1 200 OK\r\n"+c.head, c.end), request: request("GET", "/public/a", "", hangUp),
			answer: neverWhole, outcome: halfRecorded(codeUpstreamFailed),
		}.run(t)
	}
}

func TestF15UpstreamAnswersGarbage(t *testing.T) {
	endless := func(line string) func(net.Conn) {
		return func(conn net.Conn) {
			for block := strings.Repeat(line, (64<<10)/len(line)); ; {
				if _, err := io.WriteString(conn, block); err != nil {
					return
				}
			}
		}
	}
	const ok = "HTTP/1.1 200 OK\r\nX-Evil: 1\r\n"
	for _, c := range []struct {
		name, says string
		end        func(net.Conn)
	}{
		{"another protocol", "SSH-2.0-OpenSSH\r\n\r\n", nil}, {"binary", "\x16\x03\x01\x00\xff\x00\r\n\r\n", nil}, {"nothing", "", nil}, {"half a status", "HTTP/1.1 2", nil},
		{"a huge header", ok + "X: " + strings.Repeat("a", 256<<10) + "\r\n\r\n", nil}, {"a header without end", ok, endless("X: a\r\n")}, {"a line without end", ok + "X: ", endless("aaaa")},
		{"two lengths", ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", nil}, {"a bad length", ok + "Content-Length: -1\r\n\r\n", nil}, {"a length of words", ok + "Content-Length: 1, 2\r\n\r\na", nil},
		{"a coding that is none", ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", nil}, {"two codings", ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", nil},
		{"a line without a colon", ok + "X\r\n\r\n", nil}, {"a name with a space", ok + "X Y: 1\r\nContent-Length: 0\r\n\r\n", nil}, {"a name that ends in a space", ok + "X : 1\r\nContent-Length: 0\r\n\r\n", nil}, {"no name", ok + ": 1\r\nContent-Length: 0\r\n\r\n", nil},
		{"a NUL", ok + "X: a\x00b\r\nContent-Length: 0\r\n\r\n", nil}, {"a lone CR", ok + "X: a\rb\r\nContent-Length: 0\r\n\r\n", nil},
		{"a bad status", "HTTP/1.1 099 Odd\r\nX-Evil: 1\r\nContent-Length: 0\r\n\r\n", nil}, {"a status of four digits", "HTTP/1.1 2000 Odd\r\nContent-Length: 0\r\n\r\n", nil},
		{"a switch, unasked", "HTTP/1.1 101 Switching Protocols\r\nX-Evil: 1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", nil}, {"a switch to nothing", "HTTP/1.1 101 Switching Protocols\r\n\r\n", nil},
	} {
		fault{
			name: c.name, app: speaks(t, c.says, c.end), request: request("GET", "/public/a", "", hangUp),
			answer: refusedWith(502, codeUpstreamFailed), outcome: recorded(codeUpstreamFailed, 502, false, 0, -1),
			costly: c.end != nil,
		}.run(t)
	}
	fault{
		name: "interim answers without end", app: speaks(t, "", endless("HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n")), request: request("GET", "/public/a", "", hangUp),
		answer: refusedWith(502, codeUpstreamFailed), outcome: recorded(codeUpstreamFailed, 502, false, 0, -1),
	}.run(t)
}

func TestF16CallerLeaves(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == "POST":
			io.Copy(io.Discard, r.Body)
			return
		case r.URL.Path == "/public/wait":
			io.WriteString(w, "wait")
			http.NewResponseController(w).Flush()
			<-r.Context().Done() // the gateway hung up
			return
		}
		for piece := make([]byte, 32<<10); ; {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	read := func(conn *net.TCPConn) { conn.Read(make([]byte, 1)) } // the answer has begun
	for _, c := range []struct {
		name, request string
		first         func(*net.TCPConn)
	}{
		{"uploading, by length", request("POST", "/public/a", "", "Content-Length: 10") + "half", nil},
		{"uploading, in chunks", request("POST", "/public/a", "", "Transfer-Encoding: chunked") + "4\r\nhalf\r\n", nil},
		{"waiting for more", request("GET", "/public/wait", ""), read},
		{"downloading", request("GET", "/public/a", ""), read},
	} {
		for how, linger := range map[string]int{"closed": -1, "reset": 0} {
			fault{
				name: c.name + ", " + how, app: app, request: c.request,
				leave: func(conn *net.TCPConn) {
					if c.first != nil {
						c.first(conn)
					}
					conn.SetLinger(linger)
				},
				outcome: func(e *audit.Event) bool { return e.Outcome.Error == "client_gone" && e.Outcome.Truncated },
				costly:  c.name == "downloading",
			}.run(t)
		}
	}
}

// brokenTransport panics, at once or in the middle of an answer.
type brokenTransport struct{ late bool }

func (b brokenTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if !b.late {
		panic("the transport broke")
	}
	body := io.MultiReader(strings.NewReader("half"), brokenReader{})
	return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, ContentLength: 100, Body: io.NopCloser(body), Request: r}, nil
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { panic("the body broke") }

func TestF27Panic(t *testing.T) {
	app := speaks(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", nil)
	told := func(a answer) error {
		if err := refusedWith(500, codeInternal)(a); err != nil || !a.Close {
			return errors.Join(err, fmt.Errorf("the connection is to be closed: %v", a.Close))
		}
		return nil
	}
	with := func(b brokenTransport) []func(*Options) {
		return []func(*Options){upstream(func(u *Upstream) { u.Transport = b })}
	}
	for _, f := range []fault{
		{name: "before the decision", request: request("GET", "/private/a", "panic"), answer: told, outcome: recorded(codeInternal, 500, false, 0, -1)},
		{name: "after the decision", request: request("GET", "/public/a", ""), change: with(brokenTransport{}), answer: told, outcome: recorded(codeInternal, 500, false, 0, -1)},
		{name: "with a body", request: request("POST", "/public/a", "", "Content-Length: 4") + "body", change: with(brokenTransport{}), answer: told, outcome: recorded(codeInternal, 500, false, -1, -1)},
		{name: "in an answer", request: request("GET", "/public/a", ""), change: with(brokenTransport{late: true}), answer: neverWhole, outcome: recorded(codeInternal, 200, true, 0, 4)},
	} {
		f.app = app
		f.run(t)
	}
}
