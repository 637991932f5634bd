package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
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
	control  *http.ResponseController
	idle     time.Duration // 0: guard, if there is one, has it
	max      int64         // bytes; 0: no bound of ours
	messages *grpcMessages // of a gRPC stream, which has bounds of its own; nil: it is none
	read     atomic.Int64
	watch    *watchdog // of the upstream that the body goes to, if any
	guard    *watchdog // of a stream of HTTP/2
	until    time.Time // the body's end at the latest; zero: whenever it comes

	mu    sync.Mutex
	set   time.Time // when the read deadline was last set
	free  bool      // the deadline is net/http's again
	cut   bool      // by abort
	whole bool      // it was read to its end
	err   error     // of reading: the caller's doing, not the upstream's
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.extend()
	b.guard.asking()
	if b.watch != nil {
		b.watch.receiving(true)
	}
	n, err := b.ReadCloser.Read(p)
	b.guard.asked()
	if b.watch != nil {
		b.watch.receiving(false)
		if n > 0 {
			b.watch.touch()
		}
	}
	if total := b.read.Add(int64(n)); b.max > 0 && total > b.max || b.messages != nil && !b.messages.pass(p[:n]) {
		n, err = 0, errBodyTooLarge
	}
	if err != nil {
		b.end(err)
	}
	return n, err
}

// stream makes it the body of a gRPC stream: so large are its messages, not all
// of them together, and so long may both sides be silent.
func (b *requestBody) stream(message int64, idle time.Duration) {
	b.messages = &grpcMessages{max: message}
	b.guard.extendTo(idle)
}

// heard says that the upstream sends: a caller who listens does not stall.
func (b *requestBody) heard() {
	b.extend()
	b.guard.touch()
}

// extend moves the read deadline on.
func (b *requestBody) extend() {
	if b.idle <= 0 {
		return
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.free && now.Sub(b.set) > b.idle/deadlineEvery {
		b.set = now
		end := now.Add(b.idle)
		if !b.until.IsZero() && b.until.Before(end) {
			end = b.until
		}
		_ = b.control.SetReadDeadline(end) // a listener without deadlines has none
	}
}

// end keeps what reading ended with. After the last byte it takes the deadline
// away: net/http goes on reading while the handler works, and must not be
// ended by it.
func (b *requestBody) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.whole = err == io.EOF
	switch {
	case err != io.EOF:
		b.err = err
	case !b.free && b.idle > 0:
		b.free = true
		_ = b.control.SetReadDeadline(time.Time{})
	}
}

// abort ends a read that waits for the caller: a transport that sends the body on
// looks at nothing else meanwhile.
func (b *requestBody) abort() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.free {
		b.free, b.cut = true, true // nothing moves the deadline on any more
		_ = b.control.SetReadDeadline(time.Now())
	}
}

// finish gives the deadline back to net/http: the transport can be in a read
// that ends later. It reports whether net/http may read what is left.
func (b *requestBody) finish() (left bool) {
	b.extend()
	b.mu.Lock()
	defer b.mu.Unlock()
	left, b.free = !b.free, true
	return left
}

// ended reports whether the body was read to its end.
func (b *requestBody) ended() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.whole
}

// What is taken of a refused body: so much, for so long, and not from a caller
// who pauses.
const (
	discardBytes = 64 << 20
	discardTime  = 3 * time.Second
	discardPause = 500 * time.Millisecond
)

// discard takes what is left of a body that nobody wants, within bounds, so
// that its sender comes to read the answer. Where take is false there is
// nothing to come: the sender waits to be told to go on. Either way the
// connection is not waited for any longer.
func (b *requestBody) discard(take bool) {
	buf := buffers.Get()
	defer buffers.Put(buf)
	until := time.Now().Add(discardTime)
	for left := discardBytes; b.waitUntil(until) && take && left > 0; {
		n, err := b.ReadCloser.Read(buf)
		if err != nil {
			return
		}
		left -= n
	}
}

// waitUntil sets the deadline of the next read of a body that is discarded,
// for good: it is not moved on any more. False: the time is over.
func (b *requestBody) waitUntil(end time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.free && !b.cut {
		return false
	}
	now := time.Now()
	if pause := now.Add(min(discardPause, b.idle)); pause.Before(end) {
		b.until = pause
	} else {
		b.until = end
	}
	b.set = b.until.Add(b.idle)
	_ = b.control.SetReadDeadline(b.until)
	return now.Before(end)
}

// failure is why reading failed, if it did: errBodyTooLarge, errClientGone,
// errClientStalled, or what is malformed.
func (b *requestBody) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.err == nil, b.err == errBodyTooLarge:
		return b.err
	case errors.Is(b.err, os.ErrDeadlineExceeded):
		return errClientStalled
	case errors.Is(b.err, io.ErrUnexpectedEOF), errors.Is(b.err, syscall.ECONNRESET), b.guard != nil:
		return errClientGone // a stream of HTTP/2 ends by nothing else
	}
	return b.err
}

// A responseWriter counts what is answered, and ends an answer that the caller
// does not take.
type responseWriter struct {
	http.ResponseWriter
	idle      time.Duration
	set       time.Time
	status    int // of the final answer; 0 before
	bytes     int64
	hijacked  bool
	old       bool          // HTTP/1.0
	continues bool          // net/http says 100 Continue, once, when the app takes the body
	last      bool          // the connection ends with this answer
	conn      *tunnel       // after Hijack
	opened    func(*tunnel) // told of it
	stall     time.Duration // of a stream of HTTP/2; then idle is 0
	guard     *watchdog     // of it, from the first byte on
	fault     error         // why the caller could not be written to
	// final, where it is set, has the last word on the answer's headers.
	final func(http.Header)
}

func (w *responseWriter) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		if w.old || status == http.StatusContinue && w.continues {
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

// finalHeader is the last look at an answer's header. What HTTP/1.1 says in it of
// the connection makes net/http end one of HTTP/2, too, by GOAWAY.
func (w *responseWriter) finalHeader() {
	if w.last {
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
	if w.guard == nil && w.stall > 0 {
		w.guard = newGuard(w.stall, http.NewResponseController(w.ResponseWriter).SetWriteDeadline)
	}
	w.guard.asking()
	n, err := w.ResponseWriter.Write(p)
	w.guard.asked()
	w.bytes += int64(n)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), err != nil && w.guard.barked():
		w.fault = errClientStalled
	case err != nil:
		w.fault = errClientGone
	}
	return n, err
}

func (w *responseWriter) extend() {
	if w.idle <= 0 {
		return
	}
	now := time.Now()
	if now.Sub(w.set) > w.idle/deadlineEvery {
		w.set = now
		w.allow(w.idle)
	}
}

// allow gives the caller this long to take what is written.
func (w *responseWriter) allow(d time.Duration) {
	if d > 0 && !w.hijacked {
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
		w.opened(w.conn)
	}
	return w.conn, brw, nil
}
