package proxy

import (
	"errors"
	"os"
	"sync"
	"time"
)

// longAgo is a deadline that is over, whatever the clock says.
var longAgo = time.Unix(1, 0)

// A deadline is that of one direction of a connection. net/http and the gateway
// set several for each request, and next to none of them is ever due; setting
// one on the connection costs more than all else that is done with it. So it is
// kept as a value, and is set when something is about to wait, and then only
// where the connection's own would come too late.
//
// One that comes too early ends a wait that must go on: leave finds that out,
// sets the right one and says so. Nobody who waits sees any of this: a wait ends
// when it would have ended on the connection itself. A change takes effect at
// once on who waits already.
type deadline struct {
	set   func(time.Time) error // the connection's own
	exact bool                  // the connection must not fail too early, not even for a moment

	mu      sync.Mutex
	wanted  time.Time     // zero: whenever
	each    time.Duration // of each wait, from its own begin, in place of wanted; 0: wanted stands
	applied time.Time     // the connection's own
	waiting int           // calls that are under way
}

// wish is what SetReadDeadline or SetWriteDeadline does.
func (d *deadline) wish(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted, d.each = t, 0
	if d.waiting > 0 || d.exact {
		return d.applyLocked()
	}
	return nil
}

// pace gives each wait this long, until the next wish.
func (d *deadline) pace(each time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.each = each
}

// begin is called before the first try of what can wait, and leave after each.
func (d *deadline) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.each > 0 {
		d.wanted = time.Now().Add(d.each)
	}
	d.waiting++
	if err := d.applyLocked(); err != nil {
		d.waiting--
		return err
	}
	return nil
}

// leave is told how a try ended. True: it ended too early, and is to be tried
// again. An exact one never does, and what failed by it may fail so for good.
func (d *deadline) leave(err error) (again bool) {
	early := errors.Is(err, os.ErrDeadlineExceeded)
	d.mu.Lock()
	defer d.mu.Unlock()
	if early && !d.exact && !d.dueLocked() {
		d.applied = longAgo // it has fired
		if d.applyRightLocked() == nil {
			return true
		}
	}
	d.waiting--
	return false
}

// interrupt makes who waits return once, by what leave takes for too early.
func (d *deadline) interrupt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applied = longAgo
	_ = d.set(longAgo) // fails where the connection is closed, and then nobody waits
}

func (d *deadline) dueLocked() bool { return !d.wanted.IsZero() && !time.Now().Before(d.wanted) }

// applyLocked sets the connection's own where it would come too late.
func (d *deadline) applyLocked() error {
	late := !d.wanted.IsZero() && (d.applied.IsZero() || d.applied.After(d.wanted))
	if late || d.exact && !d.applied.Equal(d.wanted) {
		return d.applyRightLocked()
	}
	return nil
}

func (d *deadline) applyRightLocked() error {
	if err := d.set(d.wanted); err != nil {
		return err
	}
	d.applied = d.wanted
	return nil
}
