package audit

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	// lingerTime is how long at most an outcome waits for company.
	lingerTime = 10 * time.Millisecond
	// lingerPart of the queue is what may wait so: what lingers must not be what
	// leaves no room for a decision.
	lingerPart = 16
	// waitYields is how often who waits lets others run before it sleeps: under
	// load the writer is behind the first, and done by then.
	waitYields = 2
)

// A batch is what one write(2) writes.
type batch struct {
	count int
	woken bool          // the writer was told; guarded by the ledger's mu
	over  atomic.Bool   // it was written, or failed
	ended chan struct{} // closed then; made for the first who sleeps; guarded by mu
	err   error         // set before over; nil: written
}

// join counts an event to the batch that is pending, and sees to it that this is
// written. The caller holds mu.
func (l *Ledger) join(kind string) *batch {
	if l.batch == nil {
		l.batch = new(batch)
	}
	l.batch.count++
	switch {
	case l.batch.woken:
	case kind != TypeOutcome || len(l.pending) > l.opt.queue/lingerPart:
		l.urge(l.batch)
	case !l.lingers:
		l.lingers = true
		l.linger.Reset(l.opt.linger)
	}
	return l.batch
}

// lingered ends a linger: what came first has waited for lingerTime.
func (l *Ledger) lingered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lingers = false
	if l.batch != nil {
		l.urge(l.batch)
	}
}

// urge has a batch written now that is pending; the caller holds mu.
func (l *Ledger) urge(b *batch) {
	if !b.woken {
		b.woken = true
		l.poke()
	}
}

// end wakes those who wait for the batch; the caller holds mu.
func (b *batch) end(err error) {
	b.err = err
	b.over.Store(true)
	if b.ended != nil {
		close(b.ended)
	}
}

// waitWritten waits until a batch is written or failed. It gives only ctx's error.
func (l *Ledger) waitWritten(ctx context.Context, b *batch) error {
	if b.over.Load() {
		return nil
	}
	l.mu.Lock()
	if b == l.batch {
		l.urge(b)
	}
	l.mu.Unlock()
	for range waitYields {
		runtime.Gosched()
		if b.over.Load() {
			return nil
		}
	}
	l.mu.Lock()
	if b.over.Load() {
		l.mu.Unlock()
		return nil
	}
	if b.ended == nil {
		b.ended = make(chan struct{})
	}
	l.mu.Unlock()
	select {
	case <-b.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the audit log: %w", context.Cause(ctx))
	}
}
