package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// An inProcess is a network within the process: a listener whose connections have
// buffers and deadlines like TCP's, but whose waiting is that of a bubble of
// testing/synctest. Time-outs can be as long there as they are in use, and no
// load on the machine makes them come early. net.Pipe will not do: without
// buffers two sides that both begin by writing wait for each other.
//
// A goroutine that waits for a mutex stops a bubble's clock. httputil's
// ReverseProxy holds one while it writes an answer of unknown length, and a timer
// of its own asks for it: an answer that nobody takes needs a Content-Length here.
type inProcess struct {
	arrived chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func newInProcess() *inProcess {
	return &inProcess{arrived: make(chan net.Conn), closed: make(chan struct{})}
}

func (m *inProcess) Accept() (net.Conn, error) {
	select {
	case c := <-m.arrived:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *inProcess) Close() error   { m.once.Do(func() { close(m.closed) }); return nil }
func (m *inProcess) Addr() net.Addr { return memoryAddress }

// dial has the form of a Transport's DialContext.
func (m *inProcess) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	there, back := newHalf(), newHalf()
	select {
	case m.arrived <- &memoryConn{r: there, w: back}:
		return &memoryConn{r: back, w: there}, nil
	case <-m.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var memoryAddress = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}

// A half is one direction of a connection.
type half struct {
	mu              sync.Mutex
	moved           sync.Cond
	data            []byte
	ended, gone     bool      // its writer, its reader
	readBy, writeBy time.Time // zero: whenever
}

const halfBuffer = 64 << 10

func newHalf() *half {
	h := &half{}
	h.moved.L = &h.mu
	return h
}

func (h *half) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.moved.Broadcast()
}

// at wakes who waits; a timer that comes too late finds a later deadline.
func (h *half) at(field *time.Time, end time.Time) {
	h.change(func() { *field = end })
	if !end.IsZero() {
		time.AfterFunc(time.Until(end), h.moved.Broadcast)
	}
}

func over(end time.Time) bool { return !end.IsZero() && !time.Now().Before(end) }

// A memoryConn is one side of a connection.
type memoryConn struct{ r, w *half }

func (c *memoryConn) Read(p []byte) (n int, err error) {
	h := c.r
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.gone:
			return 0, net.ErrClosed
		case over(h.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(h.data) > 0:
			n = copy(p, h.data)
			h.data = h.data[:copy(h.data, h.data[n:])]
			h.moved.Broadcast()
			return n, nil
		case h.ended:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		h.moved.Wait()
	}
}

func (c *memoryConn) Write(p []byte) (n int, err error) {
	h := c.w
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.ended:
			return n, net.ErrClosed
		case h.gone:
			return n, io.ErrClosedPipe
		case over(h.writeBy):
			return n, os.ErrDeadlineExceeded
		case n == len(p):
			return n, nil
		}
		if some := min(len(p)-n, halfBuffer-len(h.data)); some > 0 {
			h.data = append(h.data, p[n:n+some]...)
			n += some
			h.moved.Broadcast()
			continue
		}
		h.moved.Wait()
	}
}

func (c *memoryConn) CloseWrite() error { c.w.change(func() { c.w.ended = true }); return nil }

func (c *memoryConn) Close() error {
	c.r.change(func() { c.r.gone = true })
	return c.CloseWrite()
}

func (c *memoryConn) LocalAddr() net.Addr                { return memoryAddress }
func (c *memoryConn) RemoteAddr() net.Addr               { return memoryAddress }
func (c *memoryConn) SetReadDeadline(t time.Time) error  { c.r.at(&c.r.readBy, t); return nil }
func (c *memoryConn) SetWriteDeadline(t time.Time) error { c.w.at(&c.w.writeBy, t); return nil }
func (c *memoryConn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// serveInProcess starts a server within the process.
func serveInProcess(t testing.TB, s *http.Server) *inProcess {
	m := newInProcess()
	s.DisableGeneralOptionsHandler, s.ErrorLog = true, quietLog
	go s.Serve(m)
	t.Cleanup(func() { s.Close() })
	return m
}

// inProcessGate is a gateway before an app, in a bubble of testing/synctest: all of
// it is in the process. There are no time-outs but those of the gateway; where
// nothing would ever happen the bubble says so.
func inProcessGate(t testing.TB, app http.HandlerFunc, change ...func(*Options)) (*gate, map[string]*http.Client) {
	t.Helper()
	return gateBefore(t, serveInProcess(t, &http.Server{Handler: app}), change...)
}

// gateBefore is a inProcessGate before any server within the process.
func gateBefore(t testing.TB, app *inProcess, change ...func(*Options)) (*gate, map[string]*http.Client) {
	t.Helper()
	g := unserved(t, "http://app.test", append(change, func(o *Options) {
		u := o.Upstreams["app"]
		by, ok := u.Transport.(*http.Transport) // of HTTP/2
		if !ok {
			by = newTransport()
		}
		by.DialContext = app.dial
		t.Cleanup(by.CloseIdleConnections)
		u.Transport = by
		o.Upstreams["app"] = u
	})...)
	server := &http.Server{Handler: g.proxy, ConnContext: CountRequests, Protocols: bothProtocols(), DisableGeneralOptionsHandler: true, ErrorLog: quietLog}
	m := newInProcess()
	go server.Serve(StrictFraming(m, nil))
	t.Cleanup(func() { server.Close() })
	g.url, g.patience = "http://gateway.test", 24*time.Hour
	g.connect = func() (net.Conn, error) { return m.dial(context.Background(), "", "") }
	return g, clientsOf(t, m.dial)
}
