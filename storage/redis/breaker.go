package redis

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tolerated failures, one after the other, are not yet the end of asking: one
	// may be of a connection that was closed while nobody used it.
	tolerated = 2
	// The pause between two tries while nobody else asks.
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
	// steady is how long Redis must have been there for the next pause to be the
	// first one again: one that comes and goes is asked less and less.
	steady = 10 * time.Second
)

// A breaker keeps requests from waiting for a Redis that is away: after some
// failures in a row nobody asks but the breaker itself, in the background, until
// that succeeds.
type breaker struct {
	try     func(context.Context) error
	changed func(error) // one call at a time, by turns with an error and with nil

	failures atomic.Int64
	turn     atomic.Int64          // how often it was closed again
	reason   atomic.Pointer[error] // why it is open; nil: it is not

	mu      sync.Mutex
	pause   time.Duration
	back    time.Time // when it was closed last
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
}

func newBreaker(try func(context.Context) error, changed func(error)) *breaker {
	b := &breaker{try: try, changed: changed, pause: firstPause}
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b
}

// away is why nobody is to ask; nil: ask. The turn is for result.
func (b *breaker) away() (turn int64, err error) {
	turn = b.turn.Load()
	if reason := b.reason.Load(); reason != nil {
		return turn, *reason
	}
	return turn, nil
}

// result is told of each question, and of the turn in which it was begun: what was
// asked of a Redis that was away says nothing of one that is back.
func (b *breaker) result(turn int64, err error) {
	if turn != b.turn.Load() {
		return
	}
	if err == nil {
		if b.failures.Load() != 0 {
			b.failures.Store(0)
		}
		return
	}
	if b.failures.Add(1) > tolerated {
		b.trip(err)
	}
}

// trip opens it, where it is closed.
func (b *breaker) trip(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() != nil || b.reason.Load() != nil {
		return
	}
	if time.Since(b.back) > steady {
		b.pause = firstPause
	}
	b.reason.Store(&err)
	b.changed(err)
	b.running.Go(b.recover)
}

// recover tries until Redis can be asked.
func (b *breaker) recover() {
	for {
		wait := time.NewTimer(b.pause/2 + rand.N(b.pause/2+1)) // gateways come apart
		b.pause = min(2*b.pause, lastPause)
		select {
		case <-wait.C:
		case <-b.ctx.Done():
			wait.Stop()
			return
		}
		if b.try(b.ctx) == nil {
			break
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.back = time.Now()
	b.turn.Add(1)
	b.failures.Store(0)
	b.changed(nil)
	b.reason.Store(nil)
}

// end has nothing begin any more. What runs may be waiting for Redis.
func (b *breaker) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stop()
}
