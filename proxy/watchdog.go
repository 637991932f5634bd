package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// A watchdog ends a forwarded request whose upstream is silent: until the
// answer's header, while the caller is not asked for more of the body; and
// then while the upstream is asked for more of the answer. There is no
// absolute deadline, and a slow caller's time is not the upstream's.
type watchdog struct {
	begun  time.Time
	cancel func(cause error)
	// since is when the upstream began to be waited for, after begun; 0 while
	// it is not. Reads only store it: the timer finds out when it goes off.
	since atomic.Int64
	ended atomic.Bool

	mu    sync.Mutex
	timer *time.Timer // nil: it is not armed
	wait  time.Duration
	cause error // nil: stopped
}

// newWatchdog makes one that ends nothing before it is armed.
func newWatchdog(wait time.Duration, cancel func(cause error)) *watchdog {
	w := &watchdog{begun: time.Now(), wait: wait, cause: errUpstreamSilent, cancel: cancel}
	w.since.Store(1) // as asking does, which would look at the clock again
	return w
}

// arm starts the timer. Who arms a watchdog only after a while spares it to a
// request that is over by then, and must not be later than the wait is long.
func (w *watchdog) arm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armLocked()
}

func (w *watchdog) armLocked() {
	if w.timer == nil && w.cause != nil {
		w.timer = time.AfterFunc(max(w.wait-time.Since(w.begun), 0), w.bark)
	}
}

// impatient: no wait is so short that it may end before a laggard is found, or
// the timer must run now.
func (w *watchdog) impatient() bool { return w.wait <= 2*laggardAge }

// newGuard ends one direction of a stream of HTTP/2 in which the caller stalls.
// On a connection of HTTP/1.1 a deadline that moves does it, which counts only
// while something is read or written; a stream's ends the stream also while
// nobody waits for the caller.
func newGuard(wait time.Duration, setDeadline func(time.Time) error) *watchdog {
	w := newWatchdog(wait, func(error) { _ = setDeadline(time.Now()) })
	w.asked()
	w.arm()
	return w
}

// bark holds the lock while it ends the request: once stop has returned, what
// cancel touches may be somebody else's.
func (w *watchdog) bark() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cause := w.overdue(); cause != nil {
		w.ended.Store(true)
		w.cancel(cause)
	}
}

// overdue is why the request must end; else it sets the timer anew. The lock is
// held.
func (w *watchdog) overdue() error {
	if w.cause == nil {
		return nil
	}
	left := w.wait
	if since := w.since.Load(); since != 0 {
		if left -= time.Since(w.begun) - time.Duration(since); left <= 0 {
			return w.cause
		}
	}
	w.resetLocked(left)
	return nil
}

// receiving says whether the caller is being waited for: before the answer,
// the upstream's time begins anew when it is not.
func (w *watchdog) receiving(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.cause != errUpstreamSilent:
	case on:
		w.asked()
	default:
		w.asking()
	}
}

// answering begins the second phase.
func (w *watchdog) answering(idle time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cause, w.wait = errUpstreamStalled, idle
	w.asked()
	if w.impatient() {
		w.armLocked()
	}
	w.resetLocked(idle)
}

// resetLocked does nothing where there is no timer: arm finds what is left.
func (w *watchdog) resetLocked(left time.Duration) {
	if w.timer != nil {
		w.timer.Reset(left)
	}
}

// asking and asked stand around each read of the answer.
func (w *watchdog) asking() {
	if w != nil {
		w.since.Store(w.now())
	}
}

func (w *watchdog) asked() {
	if w != nil {
		w.since.Store(0)
	}
}

// extendTo makes the wait at least this long.
func (w *watchdog) extendTo(wait time.Duration) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wait = max(w.wait, wait)
}

// within makes the wait at most this long, from now on.
func (w *watchdog) within(wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause != nil {
		w.wait = min(w.wait, wait)
		w.resetLocked(w.wait)
	}
}

// touch begins the time anew, where it runs: something moved the other way.
func (w *watchdog) touch() {
	if w == nil {
		return
	}
	if since := w.since.Load(); since != 0 {
		w.since.CompareAndSwap(since, w.now())
	}
}

func (w *watchdog) now() int64 { return max(int64(time.Since(w.begun)), 1) }

// barked reports whether it ended what it watched.
func (w *watchdog) barked() bool { return w != nil && w.ended.Load() }

func (w *watchdog) stop() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cause = nil
	if w.timer != nil {
		w.timer.Stop()
	}
}

// silence is why a request that got no answer in time ends. Its Timeout tells
// the transport that the address is to blame, and not the caller.
type silence struct{}

func (silence) Error() string { return "the upstream sent no answer in time" }
func (silence) Timeout() bool { return true }
