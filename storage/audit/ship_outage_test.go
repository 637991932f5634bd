package audit

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A frozenClock is what a process sees that is stopped for a while: the time
// on the wall jumps, and its timers have not noticed.
type frozenClock struct{ jumped atomic.Int64 }

func (c *frozenClock) now() time.Time         { return time.Now().Add(time.Duration(c.jumped.Load())) }
func (c *frozenClock) freeze(d time.Duration) { c.jumped.Add(int64(d)) }

// TestFrozenCallIsNoOutage: the process stands still while a call runs, whose
// answer never comes, or comes as an error. It is repeated at once.
func TestFrozenCallIsNoOutage(t *testing.T) {
	for name, then := range map[string]fault{
		"no answer":             {hang: true},
		"the connection is cut": {err: errUnavailable},
		"answered":              {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &frozenClock{}
				sink := &faultSink{fault: func(call, _ int) fault {
					if call != 1 {
						return fault{}
					}
					c.freeze(time.Hour)
					return then
				}}
				dir := t.TempDir()
				l := open(t, Options{Dir: dir, Sink: sink, Now: c.now})
				begin := time.Now()
				mustPut(t, l, "1", Machine)
				if took := time.Since(begin); took > 2*callTick || !then.hang && took != 0 {
					t.Errorf("it took %s", took)
				}
				if s := l.Stats(); s.Outage != nil || len(s.Failures) != 0 {
					t.Errorf("%+v", s)
				}
				closed(t, l)
				sink.wantAll(t, dir)
			})
		})
	}
}

// TestLongCallIsAnOutage: the clock on the wall is set by a little, which is no
// freeze, and the sink does not answer.
func TestLongCallIsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &frozenClock{}
		sink := &faultSink{fault: func(int, int) fault { c.freeze(time.Second); return fault{hang: true} }}
		l := open(t, Options{Dir: t.TempDir(), Sink: sink, Now: c.now})
		begin := time.Now()
		if err := put(t, l, "1", Machine); !errors.Is(err, ErrOutage) || time.Since(begin) != shipTimeout {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
	})
}

// outage is a ledger whose shipper is in the longest of its pauses.
func outage(t *testing.T, c *frozenClock, down *bool) (*Ledger, *faultSink, string) {
	t.Helper()
	sink := &faultSink{fault: func(int, int) fault {
		if *down {
			return fault{err: errUnavailable, stored: func(int) bool { return false }}
		}
		return fault{}
	}}
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, Sink: sink, Now: c.now})
	if err := put(t, l, "before", Machine); !errors.Is(err, ErrOutage) {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	if err := l.Shippable(); !errors.Is(err, ErrOutage) {
		t.Fatalf("shippable in an outage: %v", err)
	}
	return l, sink, dir
}

// TestOutageFromBeforeAFreeze: the first request after it waits for the sink,
// and does not wait for the pause's end.
func TestOutageFromBeforeAFreeze(t *testing.T) {
	for _, ask := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c, down := &frozenClock{}, true
			l, sink, dir := outage(t, c, &down)
			c.freeze(time.Hour)
			sink.set(func() { down = false })
			begin := time.Now()
			if ask {
				if err := l.Shippable(); err != nil {
					t.Errorf("after the freeze: %v", err)
				}
			}
			mustPut(t, l, "after", Machine)
			if took := time.Since(begin); took > backoffMin { // the ramp's milliseconds
				t.Errorf("it took %s", took)
			}
			closed(t, l)
			sink.wantAll(t, dir)
		})
	}
}

// TestOutageThatOutlastsAFreeze: the sink is asked anew, and is down still.
func TestOutageThatOutlastsAFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, down := &frozenClock{}, true
		l, _, _ := outage(t, c, &down)
		c.freeze(time.Hour)
		calls := l.Stats().Failures["other"]
		begin := time.Now()
		if err := put(t, l, "after", Machine); !errors.Is(err, ErrOutage) || time.Since(begin) > time.Second {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		if tries := l.Stats().Failures["other"] - calls; tries != outageAfter {
			t.Errorf("%d tries", tries)
		}
		if err := l.Shippable(); !errors.Is(err, ErrOutage) {
			t.Errorf("shippable: %v", err)
		}
	})
}

// TestFreezeWithoutRequests: the shipper that comes back from a pause sees it
// by itself.
func TestFreezeWithoutRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, down := &frozenClock{}, true
		l, sink, dir := outage(t, c, &down)
		c.freeze(time.Hour)
		sink.set(func() { down = false })
		time.Sleep(backoffMax)
		synctest.Wait()
		if s := l.Stats(); s.Outage != nil || s.Shipped != s.Seq {
			t.Errorf("%+v", s)
		}
		closed(t, l)
		sink.wantAll(t, dir)
	})
}

// kindError is an error of a Sink that has a kind.
type kindError string

func (e kindError) Error() string { return string(e) }
func (e kindError) Kind() string  { return string(e) }

// TestFailuresByKind: a Sink cannot make a metric grow without end.
func TestFailuresByKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &faultSink{}
		sink.fault = func(call, _ int) fault {
			return fault{err: fmt.Errorf("wrapped: %w", kindError(fmt.Sprint("kind ", call))), stored: func(int) bool { return false }}
		}
		l := open(t, Options{Dir: t.TempDir(), Sink: sink})
		mustPut(t, l, "1", Crash)
		time.Sleep(10 * time.Minute)
		f := l.Stats().Failures
		if len(f) != maxKinds+1 || f["kind 1"] != 1 || f["other"] < 50 {
			t.Errorf("%v", f)
		}
		f["kind 1"]++ // the caller's own
		if l.Stats().Failures["kind 1"] != 1 {
			t.Error("Stats gives away what the shipper counts in")
		}
	})
}

// TestLagAtRest: what was shipped long ago is not how old the next event is.
func TestLagAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nothing := fault{hang: true, stored: func(int) bool { return false }}
		sink := &faultSink{fault: func(call, _ int) fault {
			if call == 1 {
				return fault{}
			}
			return nothing
		}}
		dir := t.TempDir()
		l := open(t, Options{Dir: dir, Sink: sink})
		e := &Event{Type: TypeDecision}
		if ticket, err := l.Append(e); err != nil || ticket.Wait(t.Context(), Machine) != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if lag := l.Stats().Lag; lag != 0 {
			t.Errorf("nothing waits, and lag is %s", lag)
		}
		if ticket, err := l.Append(e); err != nil || ticket.Wait(t.Context(), Crash) != nil {
			t.Fatal(err)
		}
		if lag := l.Stats().Lag; lag != 0 {
			t.Errorf("an event of now has lag %s", lag)
		}
		time.Sleep(3 * time.Second)
		if lag := l.Stats().Lag; lag != 3*time.Second {
			t.Errorf("an event of three seconds ago has lag %s", lag)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		l.Close(over)

		// Over a restart, before anything was tried.
		time.Sleep(time.Minute)
		l = open(t, Options{Dir: dir, Sink: sink})
		if s := l.Stats(); s.Shipped != 1 || s.Lag != time.Minute+3*time.Second {
			t.Errorf("after a restart: shipped %d, lag %s", s.Shipped, s.Lag)
		}
		sink.set(func() { nothing = fault{} })
	})
}
