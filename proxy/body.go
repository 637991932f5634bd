package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// deadlineEvery is how often a deadline that moves with the traffic is set
// anew, as a part of the time-out: setting it on each read costs more than
// being a little late.
const deadlineEvery = 8

var errBodyTooLarge = errors.New("the request's body is larger than is allowed")

// A requestBody is a request's body on its way in: counted, bounded, and ended
// where the caller stalls. The upstream's transport may read it on a goroutine
// of its own.
type requestBody struct {
	io.ReadCloser
	control *http.ResponseController
	idle    time.Duration
	max     int64 // bytes; 0: no bound of ours
	read    atomic.Int64
	set     time.Time // when the read deadline was last set
	// progress is called after each read, failed ones too; nil: nobody asks.
	progress func()
	broken   atomic.Bool // reading failed: the caller's doing, not the upstream's
	tooLarge atomic.Bool
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.extend()
	n, err := b.ReadCloser.Read(p)
	total := b.read.Add(int64(n))
	if b.progress != nil {
		b.progress()
	}
	if b.max > 0 && total > b.max {
		b.tooLarge.Store(true)
		n, err = 0, errBodyTooLarge
	}
	if err != nil {
		if err != io.EOF {
			b.broken.Store(true)
		}
		b.end()
	}
	return n, err
}

// extend moves the read deadline on.
func (b *requestBody) extend() {
	if b.idle <= 0 {
		return
	}
	now := time.Now()
	if now.Sub(b.set) > b.idle/deadlineEvery {
		b.set = now
		_ = b.control.SetReadDeadline(now.Add(b.idle)) // a listener without deadlines has none
	}
}

// end takes the deadline away: net/http goes on reading while the handler
// works, and must not be ended by it.
func (b *requestBody) end() {
	if b.idle > 0 && !b.set.IsZero() {
		_ = b.control.SetReadDeadline(time.Time{})
	}
}

// A responseWriter counts what is answered, and ends an answer that the caller
// does not take.
type responseWriter struct {
	http.ResponseWriter
	idle     time.Duration
	set      time.Time
	status   int // of the final answer; 0 before
	bytes    int64
	hijacked bool
	conn     *countedConn
}

func (w *responseWriter) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		stripAnswer(w.Header())
	} else if w.status == 0 {
		w.status = status
	}
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.extend()
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

func (w *responseWriter) extend() {
	if w.idle <= 0 {
		return
	}
	now := time.Now()
	if now.Sub(w.set) > w.idle/deadlineEvery {
		w.set = now
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(now.Add(w.idle))
	}
}

// Unwrap lets http.ResponseController reach the connection's own writer.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack hands over the connection for a protocol that an upstream switched to.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, brw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.hijacked = true
	if w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	_ = conn.SetDeadline(time.Time{})
	w.conn = &countedConn{Conn: conn}
	return w.conn, brw, nil
}

// A countedConn counts a tunnel's bytes; its two directions run on goroutines
// of their own.
type countedConn struct {
	net.Conn
	in, out atomic.Int64
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in.Add(int64(n))
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.out.Add(int64(n))
	return n, err
}

// CloseWrite ends one direction of the tunnel.
func (c *countedConn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return c.Conn.Close()
}
