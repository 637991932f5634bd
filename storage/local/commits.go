package local

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// batchDelay is how long a transaction is held up for those who are expected to
// share its two fsyncs; about what one of them takes.
const batchDelay = 2 * time.Millisecond

// maxTogether bounds a transaction, and so the time that its changes take.
const maxTogether = 1000

// commits have changes share transactions. bbolt's own Batch opens one after a
// fixed delay, also for a caller who is alone, and also while the one before is
// still being written: then many small ones queue. Here all that came meanwhile
// is the next one. Whoever was first among them writes it, so that nobody has to
// be woken to begin.
type commits struct {
	db *bolt.DB

	mu      sync.Mutex
	led     bool // somebody writes, or is about to
	waiting []*change
	// expected is how many a transaction is held up for: as many as were here
	// when the last one ended, with those that it had.
	expected int
	held     chan struct{} // of who holds one up; nil: nobody does
}

// A change is what a caller wants done in a transaction.
type change struct {
	do   func(*bolt.Tx) error
	turn chan turn // holds one
	err  error     // of turnDone
}

// A turn is what becomes of a change that waits.
type turn uint8

const (
	turnDone  turn = iota // with err: the transaction is durable, or changed nothing
	turnAlone             // it failed and is to be tried alone: others must not pay for it
	turnLead              // it is the first, and writes
)

// update does the change in a transaction, perhaps with others. The change may be
// called several times, of which the last counts. What is done without an error
// is fsynced.
func (c *commits) update(do func(*bolt.Tx) error) error {
	own := &change{do: do, turn: make(chan turn, 1)}
	if !c.join(own) {
		switch <-own.turn {
		case turnDone:
			return own.err
		case turnAlone:
			return c.db.Update(do)
		}
	}
	c.lead()
	if <-own.turn == turnAlone {
		return c.db.Update(do)
	}
	return own.err
}

// join reports whether the change has to be led by who brings it.
func (c *commits) join(own *change) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, own)
	if c.held != nil && len(c.waiting) >= c.expected {
		close(c.held)
		c.held = nil
	}
	if c.led {
		return false
	}
	c.led = true
	return true
}

// lead writes what waits, and hands over to the first of those who came
// meanwhile: nobody is kept by others' changes for longer than one transaction.
func (c *commits) lead() {
	c.holdUp()
	c.mu.Lock()
	n := min(len(c.waiting), maxTogether)
	b := &batch{left: slices.Clone(c.waiting[:n])}
	c.waiting = slices.Delete(c.waiting, 0, n)
	c.mu.Unlock()

	err := errBroke
	defer func() {
		c.handOver(n)
		for _, one := range b.left {
			one.err = err
			one.turn <- turnDone
		}
	}()
	err = b.write(c.db)
}

// errBroke is what the others are told where a transaction panics. The panic
// goes on with who led.
var errBroke = errors.New("the transaction broke off")

// handOver ends the lead of a transaction of n changes.
func (c *commits) handOver(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expected = n + len(c.waiting)
	if c.led = len(c.waiting) > 0; c.led {
		c.waiting[0].turn <- turnLead
	}
}

// holdUp waits for as many as are expected, for a moment.
func (c *commits) holdUp() {
	c.mu.Lock()
	if len(c.waiting) >= min(c.expected, maxTogether) {
		c.mu.Unlock()
		return
	}
	held := make(chan struct{})
	c.held = held
	c.mu.Unlock()
	t := time.NewTimer(batchDelay)
	defer t.Stop()
	select {
	case <-held:
	case <-t.C:
		c.mu.Lock()
		c.held = nil
		c.mu.Unlock()
	}
}

// A batch is the changes of a transaction, without those that are to be tried
// alone.
type batch struct{ left []*change }

// write does the changes in one transaction. One that fails must not cost the
// others theirs: it is taken out, and they are done anew. What is left shares the
// error.
func (b *batch) write(db *bolt.DB) error {
	for len(b.left) > 0 {
		failed := -1
		err := db.Update(func(tx *bolt.Tx) error {
			for i, one := range b.left {
				if err := guarded(one.do, tx); err != nil {
					failed = i
					return err
				}
			}
			return nil
		})
		if failed < 0 {
			return err
		}
		one := b.left[failed]
		b.left = slices.Delete(b.left, failed, failed+1)
		one.turn <- turnAlone
	}
	return nil
}

// guarded turns a change's panic into an error: done anew and alone it panics
// with whom it belongs to.
func guarded(do func(*bolt.Tx) error, tx *bolt.Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a change panicked: %v", p)
		}
	}()
	return do(tx)
}
