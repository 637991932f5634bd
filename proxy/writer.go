package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// A responseWriter counts what is answered, and ends an answer that the caller
// does not take.
type responseWriter struct {
	http.ResponseWriter
	idle      time.Duration
	set       time.Time
	paced     bool // the connection itself gives each write its time
	status    int  // of the final answer; 0 before
	bytes     int64
	hijacked  bool
	old       bool          // HTTP/1.0
	continues bool          // net/http says 100 Continue, once, when the app takes the body
	continued atomic.Bool   // and has said it, if it ever will
	last      bool          // the connection ends with this answer
	conn      *tunnel       // after Hijack
	opened    func(*tunnel) // told of it
	guard     *watchdog     // of a stream of HTTP/2; then idle is 0
	fault     error         // why the caller could not be written to
	// unread, where it is set, says that the request's body has not ended: then the
	// connection does, since the rest of the body is nobody's.
	unread func() bool
	// final, where it is set, has the last word on the answer's headers.
	final func(http.Header)
}

func (w *responseWriter) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		if w.old || status == http.StatusContinue && w.continues || w.hushed() {
			return // HTTP/1.0 knows no interim answers (RFC 9110, section 15.2)
		}
		stripAnswer(w.Header())
	} else if w.status == 0 {
		w.status = status
		if status != http.StatusSwitchingProtocols {
			w.finalHeader()
		}
	}
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

// hushed reports whether net/http may be writing its 100 Continue now, on the
// goroutine that reads the body: other interim answers would get mixed up with
// it. The body's first bytes come behind it.
func (w *responseWriter) hushed() bool {
	return w.continues && w.guard == nil && !w.continued.Load()
}

// finalHeader is the last look at an answer's header. What HTTP/1.1 says in it of
// the connection makes net/http end one of HTTP/2, too, by GOAWAY.
func (w *responseWriter) finalHeader() {
	if w.last || w.unread != nil && w.unread() {
		w.Header().Set("Connection", "close")
	}
	if h := w.Header(); h["Content-Type"] == nil {
		h["Content-Type"] = nil // or net/http guesses one, and a browser acts on it
	}
	if w.final != nil {
		w.final(w.Header())
	}
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.extend()
	w.guard.asking()
	n, err := w.ResponseWriter.Write(p)
	w.guard.asked()
	w.bytes += int64(n)
	w.failed(err)
	return n, err
}

// FlushError sends what is there. In HTTP/2 it is here, and not in Write, that a
// caller who takes nothing holds up a small answer.
func (w *responseWriter) FlushError() error {
	if w.status == 0 {
		return nil // net/http would take that for an answer
	}
	w.extend()
	w.guard.asking()
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.guard.asked()
	w.failed(err)
	return err
}

func (w *responseWriter) failed(err error) {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), err != nil && w.guard.barked():
		w.fault = errClientStalled
	case err != nil && !errors.Is(err, errors.ErrUnsupported):
		w.fault = errClientGone
	}
}

// hurry gives a caller who does not take what he is sent no more time than this.
func (w *responseWriter) hurry(d time.Duration) {
	if w.guard != nil {
		w.guard.within(d)
		return
	}
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(d))
}

func (w *responseWriter) extend() {
	if w.idle <= 0 || w.paced {
		return
	}
	now := time.Now()
	if now.Sub(w.set) > w.idle/deadlineEvery {
		w.set = now
		w.allow(w.idle)
	}
}

// pace leaves the caller's time to the connection, which knows when a write
// begins.
func (w *responseWriter) pace(c *strictConn) {
	if w.idle > 0 {
		c.pace(w.idle)
		w.paced = true
	}
}

// allow gives the caller this long to take what is written.
func (w *responseWriter) allow(d time.Duration) {
	if d > 0 && !w.hijacked && !w.paced {
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(d))
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
	if watched, ok := conn.(interface{ tunnel() }); ok {
		watched.tunnel() // of StrictFraming: no HTTP follows
	}
	if w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	_ = conn.SetDeadline(time.Time{})
	w.conn = &tunnel{Conn: conn}
	// What the caller sent right behind the handshake lies in the server's
	// buffer, which ReverseProxy does not look into.
	if n := brw.Reader.Buffered(); n > 0 {
		early, _ := brw.Reader.Peek(n)
		w.conn.early = slices.Clone(early)
	}
	if w.opened != nil {
		brw.Writer.Reset(&handshakeWriter{Writer: conn, done: func() { w.opened(w.conn) }})
	}
	return w.conn, brw, nil
}

// A handshakeWriter passes on the answer to a handshake, which has no body, and
// then says that it is out: a tunnel that is ended as soon as it is open would
// else put its close frame before the answer.
type handshakeWriter struct {
	io.Writer
	last []byte // what was written last, up to four bytes of it
	done func()
}

func (w *handshakeWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.last = append(w.last, p[max(0, n-4):n]...)
	w.last = w.last[max(0, len(w.last)-4):]
	if err == nil && string(w.last) == "\r\n\r\n" {
		w.done()
	}
	return n, err
}
