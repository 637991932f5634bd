package audit

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	backoffMin   = 50 * time.Millisecond
	backoffMax   = 5 * time.Second
	backoffClose = time.Second // when the ledger closes: there is little time left
	outageAfter  = 3           // failures in a row
)

// A process that gets no CPU between requests (Cloud Run, billed by request),
// or was stopped, finds all its timers over when it goes on. It must not take
// its own absence for the sink's.
const (
	callTick = time.Second     // a call's time is counted in these
	freeze   = 3 * time.Second // what is so late was not late because of load
)

// errSlow is the end of a call that had all its time.
var errSlow error = slowError{}

type slowError struct{}

func (slowError) Error() string        { return "the sink did not answer within " + shipTimeout.String() }
func (slowError) Is(target error) bool { return target == context.DeadlineExceeded }
func (slowError) Kind() string         { return "DEADLINE_EXCEEDED" }

// An ownError is not the sink's: the ledger's own disk failed.
type ownError struct{ error }

func (e ownError) Unwrap() error { return e.error }
func (ownError) Kind() string    { return "local" }

// wall is the time without its monotonic part, which may stand still in a
// freeze that the clock on the wall shows.
func (s *shipper) wall() time.Time { return s.l.opt.Now().Round(0) }

// callTime is a context that ends with errSlow after shipTimeout in which the
// process ran. The end func reports whether it stood still meanwhile: then the
// answer, or the connection, may have been lost for that reason, and another
// tick is all that the call still gets.
func (s *shipper) callTime() (ctx context.Context, end func() (frozen bool)) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	last := s.wall()
	s.expect(last.Add(shipTimeout))
	frozen := false
	look := func() {
		now := s.wall()
		frozen = frozen || now.Sub(last) > callTick+freeze
		last = now
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(callTick)
		defer tick.Stop()
		for left := int(shipTimeout / callTick); left > 0; left-- {
			select {
			case <-tick.C:
			case <-quit:
				return
			}
			if look(); frozen {
				left = min(left, 2)
			}
		}
		cancel(errSlow)
	}()
	return ctx, func() bool {
		close(quit)
		<-done
		cancel(nil)
		look()
		return frozen
	}
}

// expect notes when what the shipper waits for should be over.
func (s *shipper) expect(due time.Time) {
	s.l.mu.Lock()
	s.due = due
	s.l.mu.Unlock()
}

// stale says that the outage is from before a freeze: a shipper that runs
// would have tried again since. The caller holds the ledger's mu.
func (s *shipper) stale() bool {
	return s.outage != nil && s.wall().Sub(s.due) > freeze
}

// thaw forgets failures that say nothing of the sink as it is now, and lets
// the next try begin at once. The caller holds the ledger's mu.
func (s *shipper) thaw() {
	s.outage, s.fails = nil, 0
	s.push()
}

// push ends a back-off.
func (s *shipper) push() {
	select {
	case s.hurry <- struct{}{}:
	default:
	}
}

// failed counts a failure; several in a row, or one time-out, are an outage.
func (s *shipper) failed(err error) {
	s.most = max(1, s.most/2) // so that a slow line, or a small limit, lets something through
	s.change(func() {
		s.countFailure(err)
		s.fails++
		if s.fails >= outageAfter || errors.Is(err, context.DeadlineExceeded) {
			s.outage = err
		}
	})
}

// maxKinds bounds what a Sink can make of a metric's label.
const maxKinds = 32

// countFailure counts by the kind that the Sink's error names; the caller
// holds the ledger's mu.
func (s *shipper) countFailure(err error) {
	kind := "other"
	var k interface{ Kind() string }
	if errors.As(err, &k) {
		kind = k.Kind()
	}
	if _, known := s.failures[kind]; !known && len(s.failures) >= maxKinds {
		kind = "other"
	}
	s.failures[kind]++
}

func (s *shipper) recovered() {
	s.most = min(shipLines, s.most+1+s.most/8)
	s.change(func() { s.outage, s.fails = nil, 0 })
}

// sleep is a back-off with full jitter: a random part of a span that doubles
// with every failure.
func (s *shipper) sleep() error {
	select {
	case <-s.hurry: // of an earlier one
	default:
	}
	s.l.mu.Lock()
	span := min(backoffMax, backoffMin<<min(s.fails, 10))
	if s.l.closed {
		span = min(span, backoffClose)
	}
	pause := rand.N(span)
	due := s.wall().Add(pause)
	s.due = due
	s.l.mu.Unlock()
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.hurry:
	case <-s.ctx.Done():
	}
	if s.wall().Sub(due) > freeze {
		s.change(s.thaw)
	}
	return s.ctx.Err()
}
