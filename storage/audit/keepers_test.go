package audit

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestFirstCheckpointIsWaitedFor: a gateway that fetches keys for seconds writes
// its first event after the first tick. Its checkpoint does not wait for the
// next one, which with audit.checkpoint can be a day away: until then verify
// takes the chain for somebody else's.
func TestFirstCheckpointIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, ticks := time.Now(), make(chan time.Duration)
		n := 0
		p := newLoop()
		go p.run(time.Hour, func() {}, func() bool {
			n++
			ticks <- time.Since(began)
			return n >= 6 // nothing was written until then
		})
		for i := range 6 {
			if at, want := <-ticks, time.Duration(i+1)*firstTick; at != want {
				t.Fatalf("tick %d came after %v, want %v", i+1, at, want)
			}
		}
		if at := <-ticks; at != time.Hour {
			t.Fatalf("once there was something to sign, the next tick came after %v, want an hour", at)
		}
		p.stop()
	})
}

// TestNothingToSignIsSaid: the keepers tell a ledger without an event from one
// whose end is signed.
func TestNothingToSignIsSaid(t *testing.T) {
	by, _ := newKey(t)
	l := open(t, Options{Dir: t.TempDir(), Signer: by, Checkpoint: time.Hour})
	k := &noteKeeper{l: l, loop: newLoop()}
	if k.head() {
		t.Fatal("an empty ledger was signed")
	}
	mustPut(t, l, "r", Crash)
	for range 2 {
		if !k.head() {
			t.Fatal("an event was written, and the checkpoint says that there is nothing to sign")
		}
	}
}

// TestFsyncsOfSegmentsAreCounted: with survive crash and no key these are all
// that there are.
func TestFsyncsOfSegmentsAreCounted(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, Segment: 4000})
	for range 30 {
		mustPut(t, l, "r", Crash)
	}
	list, err := segments(dir)
	if err != nil || len(list) < 3 {
		t.Fatal(list, err)
	}
	if n := l.Stats().Fsyncs; int(n) != len(list)-1 {
		t.Errorf("%d fsyncs, and %d segments were closed", n, len(list)-1)
	}
}
