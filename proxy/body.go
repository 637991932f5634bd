package proxy

import (
	"errors"
	"io"
	"net/http"
	"os"
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
	length   int64         // Content-Length; -1: it was not said
	max      atomic.Int64  // bytes; 0: no bound of ours
	messages *grpcMessages // of a gRPC stream, which has bounds of its own; nil: it is none
	read     atomic.Int64
	watch    *watchdog    // of the upstream that the body goes to, if any
	guard    *watchdog    // of a stream of HTTP/2
	begun    *atomic.Bool // set when the first read is over; nil: nobody asks
	until    time.Time    // the body's end at the latest; zero: whenever it comes

	mu      sync.Mutex
	idler   sync.Cond // of mu: told when a read has ended
	reading bool
	halted  bool      // nobody may read on
	set     time.Time // when the read deadline was last set
	free    bool      // the deadline is net/http's again
	cut     bool      // by abort
	whole   bool      // it was read to its end
	err     error     // of reading: the caller's doing, not the upstream's
}

func (b *requestBody) Read(p []byte) (int, error) {
	if !b.enter() {
		return 0, errBodyHalted
	}
	defer b.leave()
	b.extend()
	b.guard.asking()
	if b.watch != nil {
		b.watch.receiving(true)
	}
	n, err := b.ReadCloser.Read(p)
	if b.begun != nil {
		b.begun.Store(true)
	}
	b.guard.asked()
	if b.watch != nil {
		b.watch.receiving(false)
		if n > 0 {
			b.watch.touch()
		}
	}
	if total := b.read.Add(int64(n)); b.max.Load() > 0 && total > b.max.Load() || b.messages != nil && !b.messages.pass(p[:n]) {
		n, err = 0, errBodyTooLarge
	}
	if err != nil {
		b.end(err)
	}
	return n, err
}

// stream makes it the body of a gRPC stream: so large are its messages, and so
// long may both sides be silent. That it is one is the caller's word: until the
// app answers so, all messages together are bounded.
func (b *requestBody) stream(message int64, idle time.Duration) {
	b.messages = &grpcMessages{max: message}
	b.max.Store(message)
	b.guard.extendTo(idle)
}

var errBodyHalted = errors.New("the request is over")

func (b *requestBody) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = !b.halted
	return b.reading
}

func (b *requestBody) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
	b.idler.Broadcast()
}

// settle ends the reading of a body of HTTP/1.1 that an upstream's transport may
// still be in. net/http must not find somebody in its body, or a body that is not
// read to its end, when the handler is done: it would break the read off in the
// middle of a chunk, forget the deadline, and take what follows for a request.
func (b *requestBody) settle(how hearing) {
	until := time.Now().Add(discardTime)
	b.mu.Lock()
	b.halted = true
	if !b.wholeLocked() {
		b.free, b.cut = true, true
		pause := time.Now()
		if how != hearNothing { // a read that is broken off breaks the body for good
			pause = pause.Add(min(discardPause, b.idle))
		}
		_ = b.control.SetReadDeadline(pause)
	}
	for b.reading {
		b.idler.Wait()
	}
	whole, complete, failed := b.whole, b.wholeLocked(), b.err != nil && b.err != errBodyTooLarge
	b.mu.Unlock()
	switch {
	case whole:
	case complete: // all but the sight of its end
		_ = b.control.SetReadDeadline(time.Time{})
		_, err := b.ReadCloser.Read(make([]byte, 1))
		b.end(err)
	case how == hearLater && !failed:
		_ = b.control.SetReadDeadline(time.Now().Add(min(discardPause, b.idle)))
	default:
		if how == hearOut && !failed {
			b.takeUntil(until)
		}
		_ = b.control.SetReadDeadline(time.Now())
	}
}

// hearing is how much is taken of a body that was answered before its end, so
// that its sender comes to read the answer. The connection ends in any case.
type hearing uint8

const (
	hearNothing hearing = iota
	hearOut             // within discard's bounds
	hearLater           // what net/http takes behind the answer, for a moment
)

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
	return b.wholeLocked()
}

// wholeLocked: of a body whose length was said, its end can be there before
// anybody reads that there is no more.
func (b *requestBody) wholeLocked() bool {
	return b.whole || b.length >= 0 && b.read.Load() >= b.length
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
	until := time.Now().Add(discardTime)
	if !take {
		b.waitUntil(until)
		return
	}
	b.takeUntil(until)
}

func (b *requestBody) takeUntil(until time.Time) {
	buf := buffers.Get()
	defer buffers.Put(buf)
	for left := discardBytes; b.waitUntil(until) && left > 0; {
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
