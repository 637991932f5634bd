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
// Whether a collection is new nobody knows but by the folder: what a new
// folder ships is taken for a collection's beginning, also where the
// collection is old. A restart goes on where the ramp was.
type ramp struct {
	fresh bool      // the collection may be new
	start time.Time // when the first event was stored; zero: none is yet
	free  time.Time // when the writes sent so far are used up
}

const (
	rampStart = 500    // writes a second
	rampEnd   = 20_000 // writes a second
	rampStep  = 5 * time.Minute
)

func newRamp(from resume, now time.Time) ramp {
	r := ramp{fresh: from.Seq == 0 || !from.Since.IsZero(), start: from.Since}
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
func (r *ramp) noted() time.Time { return r.start.UTC().Round(0) }

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
