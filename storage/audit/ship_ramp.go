package audit

import (
	"context"
	"time"
)

// A ramp keeps to Firestore's 500/50/5 rule for new collections: 500 writes a
// second, half as many more every five minutes
// (firebase.google.com/docs/firestore/best-practices, "ramping up traffic").
// It ends where it no longer bounds anything real.
//
// A Sink that is an AgedStore says whether its collection is new. Where it is,
// or nobody can tell, the ramp begins with what a new folder ships, and a
// restart goes on where it was.
type ramp struct {
	fresh  bool      // the collection may be new
	asked  bool      // the sink was, whether it is, or need not be
	answer chan bool // its answer; nil: none is expected
	first  time.Time // of the first event that this process ships; zero: none yet
	start  time.Time // when the first event was stored; zero: none is yet
	free   time.Time // when the writes sent so far are used up
}

const (
	rampStart = 500    // writes a second
	rampEnd   = 20_000 // writes a second
	rampStep  = 5 * time.Minute
	// rampSpan is how long it takes: 500 * 1.5^10 is above the end.
	rampSpan = 10 * rampStep
	// rampAsks bounds how often a sink is asked that cannot tell.
	rampAsks = 3
)

// An AgedStore is a Sink that can say whether it holds an event, of whichever
// chain, that is older than that: then its collection is no new one, although
// this folder is. An error: that cannot be told now.
type AgedStore interface {
	HasBefore(ctx context.Context, t time.Time) (bool, error)
}

// age asks the sink whether its collection is old, beside the shipping, once
// it has stored something: while it is away that is for Store to notice. A log
// that was kept for long before it was shipped has old events itself; first is
// the time of the next one to be shipped.
func (r *ramp) age(ctx context.Context, sink Sink, now, first time.Time) {
	if r.first.IsZero() {
		r.first = first
	}
	select {
	case old := <-r.answer:
		r.answer, r.fresh = nil, !old
		return
	default:
	}
	store, ok := sink.(AgedStore)
	if !ok || !r.fresh || r.start.IsZero() || r.asked {
		return
	}
	r.asked = true
	before := now
	if r.first.Before(now) {
		before = r.first
	}
	answer := make(chan bool, 1)
	r.answer = answer
	go func() {
		for range rampAsks {
			ctx, cancel := context.WithTimeout(ctx, shipTimeout)
			old, err := store.HasBefore(ctx, before.Add(-rampSpan))
			cancel()
			if err == nil {
				answer <- old
				return
			}
		}
	}()
}

func newRamp(from resume, now time.Time) ramp {
	r := ramp{fresh: from.Seq == 0 || !from.Since.IsZero(), start: from.Since}
	r.asked = from.Seq > 0  // how old what this folder shipped before is, nobody knows
	if r.start.After(now) { // a clock was wrong: do not wait for that day
		r.start = now
	}
	return r
}

// begin notes that events were stored.
func (r *ramp) begin(now time.Time) {
	if r.fresh && r.start.IsZero() {
		r.start = now
	}
}

// noted is what the resume file keeps of it.
func (r *ramp) noted() time.Time {
	if !r.fresh {
		return time.Time{}
	}
	return r.start.UTC().Round(0)
}

func (r *ramp) rate(now time.Time) float64 {
	if !r.fresh {
		return rampEnd
	}
	rate := float64(rampStart)
	if r.start.IsZero() {
		return rate
	}
	for t := now.Sub(r.start); t >= rampStep && rate < rampEnd; t -= rampStep {
		rate *= 1.5
	}
	return rate
}

// wait waits until n more writes may be sent.
func (r *ramp) wait(ctx context.Context, now func() time.Time, n int) error {
	t := now()
	rate := r.rate(t)
	if rate >= rampEnd {
		return ctx.Err()
	}
	if r.free.Before(t) {
		r.free = t
	}
	pause := r.free.Sub(t)
	r.free = r.free.Add(time.Duration(float64(n) / rate * float64(time.Second)))
	if pause <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
