package otlp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// maxQueued bounds the spans that wait, as the SDK's own processor does.
	maxQueued = 2048
	// maxBatch is the most that one export has.
	maxBatch = 512
)

// A pace says how long things take.
type pace struct {
	gather   time.Duration // from a batch's first span to its sending
	try      time.Duration // one export
	first    time.Duration // the pause after a failure; each next one is twice as long
	longest  time.Duration // pause
	lifetime time.Duration // of a batch: then newer ones have their turn
}

var normal = pace{gather: time.Second, try: 10 * time.Second, first: time.Second, longest: 30 * time.Second, lifetime: time.Minute}

// A queue holds ended spans until they are sent, a batch at a time. The SDK's
// own (sdk.NewBatchSpanProcessor) does not tell how many it dropped, and takes
// its bounds from the environment.
type queue struct {
	to      sdk.SpanExporter
	pace    pace
	changed func(error)
	counts  counts

	spans   chan sdk.ReadOnlySpan
	mu      sync.RWMutex // held for reading while a span is put in
	closed  bool
	closing chan struct{} // no pauses from now on
	cut     context.Context
	cutOff  context.CancelFunc
	done    chan struct{}
	failing atomic.Bool
}

func newQueue(to sdk.SpanExporter, p pace, changed func(error)) *queue {
	q := &queue{to: to, pace: p, changed: changed, spans: make(chan sdk.ReadOnlySpan, maxQueued), closing: make(chan struct{}), done: make(chan struct{})}
	q.cut, q.cutOff = context.WithCancel(context.Background())
	return q
}

// OnStart does nothing.
func (q *queue) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd takes a span, or drops it: a request never waits here.
func (q *queue) OnEnd(s sdk.ReadOnlySpan) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if !q.closed {
		select {
		case q.spans <- s:
			return
		default:
		}
	}
	q.counts.dropped.Add(1)
}

// ForceFlush does nothing: nobody needs spans sooner.
func (q *queue) ForceFlush(context.Context) error { return nil }

// Shutdown sends what is there until ctx ends.
func (q *queue) Shutdown(ctx context.Context) error {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.closing)
	}
	q.mu.Unlock()
	defer q.cutOff()
	stop := context.AfterFunc(ctx, q.cutOff)
	defer stop()
	<-q.done // soon, once it is cut off
	return q.to.Shutdown(context.WithoutCancel(ctx))
}

// run sends until the queue is closed and empty.
func (q *queue) run() {
	defer close(q.done)
	for {
		batch := q.next()
		if len(batch) == 0 {
			return
		}
		q.send(batch)
	}
}

// next waits for a span and takes those that come soon after. None: there is
// nothing left to wait for.
func (q *queue) next() []sdk.ReadOnlySpan {
	var batch []sdk.ReadOnlySpan
	select {
	case s := <-q.spans:
		batch = append(batch, s)
	case <-q.closing:
		return q.more(nil)
	}
	pause := time.NewTimer(q.pace.gather)
	defer pause.Stop()
	for len(batch) < maxBatch {
		select {
		case s := <-q.spans:
			batch = append(batch, s)
		case <-pause.C:
			return batch
		case <-q.closing:
			return q.more(batch)
		}
	}
	return batch
}

// more adds what is there already.
func (q *queue) more(batch []sdk.ReadOnlySpan) []sdk.ReadOnlySpan {
	for len(batch) < maxBatch {
		select {
		case s := <-q.spans:
			batch = append(batch, s)
		default:
			return batch
		}
	}
	return batch
}

// send tries until the collector has the batch, refuses it for good, or it is too
// old.
func (q *queue) send(batch []sdk.ReadOnlySpan) {
	began := time.Now()
	for pause := q.pace.first; ; pause = min(2*pause, q.pace.longest) {
		err := q.try(batch)
		var refused *partialError
		if err == nil || errors.As(err, &refused) {
			n := uint64(0)
			if refused != nil {
				n = min(uint64(max(refused.spans, 0)), uint64(len(batch)))
				q.counts.failures.Add(1)
			}
			q.counts.exported.Add(uint64(len(batch)) - n)
			q.counts.dropped.Add(n)
			q.tell(err)
			return
		}
		q.counts.failures.Add(1)
		wait := max(pause/2+rand.N(pause/2+1), retryAfter(err))
		again := temporary(err) && time.Since(began)+wait <= q.pace.lifetime
		if !again {
			q.counts.dropped.Add(uint64(len(batch)))
		}
		q.tell(err) // when it is counted
		if !again {
			return
		}
		if !q.rest(wait) {
			q.counts.dropped.Add(uint64(len(batch)))
			return
		}
	}
}

// rest pauses; false: the queue is being closed, and there is no time for that.
func (q *queue) rest(d time.Duration) bool {
	pause := time.NewTimer(d)
	defer pause.Stop()
	select {
	case <-pause.C:
		return true
	case <-q.closing:
		return false
	}
}

// try exports once. A panic on the way is a failure: the gateway goes on.
func (q *queue) try(batch []sdk.ReadOnlySpan) (err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("panic while spans were sent: %v", broken)
		}
	}()
	ctx, cancel := context.WithTimeout(q.cut, q.pace.try)
	defer cancel()
	return q.to.ExportSpans(ctx, batch)
}

// tell says that exports fail, or work again, once for each change.
func (q *queue) tell(err error) {
	if q.failing.Swap(err != nil) != (err != nil) && q.changed != nil {
		q.changed(err)
	}
}
