package audit

import (
	"errors"
	"testing"
	"time"
)

func outcome() *Event {
	return &Event{Type: TypeOutcome, Record: "0123456789abcdef0123456789abcdef", Outcome: &Outcome{Status: 200}}
}

// TestOutcomesShareAWrite: outcomes lie until a decision comes, and are written
// with it, in their order.
func TestOutcomesShareAWrite(t *testing.T) {
	d := newDisk()
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, open: d.open, linger: time.Hour})
	for range 3 {
		if _, err := l.Append(outcome()); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.Stats().Seq; n != 0 || d.writes.Load() != 0 {
		t.Fatalf("nobody waits, and %d events are written", n)
	}
	mustPut(t, l, "decision", Crash)
	if s := l.Stats(); s.Seq != 4 || s.Queued != 0 || d.writes.Load() != 1 {
		t.Errorf("seq %d after %d writes, %d bytes queued", s.Seq, d.writes.Load(), s.Queued)
	}
	if list := events(t, dir); len(list) != 4 || list[2].Type != TypeOutcome || list[3].Record != "decision" {
		t.Errorf("%d events", len(list))
	}
	verified(t, dir)
}

// TestLonelyOutcomeIsWritten: nothing comes behind it, and nobody waits.
func TestLonelyOutcomeIsWritten(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir()})
	for seq := range uint64(3) {
		if _, err := l.Append(outcome()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the outcome is written", func() bool { return l.Stats().Seq == seq+1 })
	}
}

// TestWaitingEndsALinger: whoever waits for an outcome has it written at once.
func TestWaitingEndsALinger(t *testing.T) {
	for _, level := range []Survive{Crash, Power} {
		l := open(t, Options{Dir: t.TempDir(), linger: time.Hour})
		ticket, err := l.Append(outcome())
		if err == nil {
			err = ticket.Wait(t.Context(), level)
		}
		if s := l.Stats(); err != nil || s.Seq != 1 || level == Power && s.Synced != 1 {
			t.Errorf("%v: %v, %+v", level, err, s)
		}
	}
}

// TestCloseWritesWhatLingers: a stop takes no outcome with it.
func TestCloseWritesWhatLingers(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, linger: time.Hour})
	for range 5 {
		if _, err := l.Append(outcome()); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, l)
	if n := len(events(t, dir)); n != 5 {
		t.Errorf("%d of 5 outcomes are written", n)
	}
}

// TestLingeringLeavesRoom: a disk that is well has room for decisions, however
// many outcomes come between two of them.
func TestLingeringLeavesRoom(t *testing.T) {
	const queue = 8000
	l := open(t, Options{Dir: t.TempDir(), linger: time.Hour, queue: queue})
	for range 200 {
		if _, err := l.Append(outcome()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "what is too much is written", func() bool { return l.Stats().Queued <= queue/lingerPart })
	}
	if l.Stats().Seq == 0 {
		t.Error("nothing was written")
	}
	mustPut(t, l, "decision", Crash)
}

// TestFailureTakesWhatLingers: outcomes that lie behind a write that fails are
// counted as lost, and told as such.
func TestFailureTakesWhatLingers(t *testing.T) {
	d := newDisk()
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, open: d.open, linger: time.Hour, pause: time.Millisecond})
	mustPut(t, l, "before", Crash)
	release := d.block()
	d.set(func() { d.space = 0 })
	writes := d.writes.Load()
	decision, err := l.Append(request())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the write begins", func() bool { return d.writes.Load() > writes })
	if _, err := l.Append(outcome()); err != nil {
		t.Fatal(err)
	}
	release()
	if err := decision.Wait(t.Context(), Crash); !errors.Is(err, ErrNotWritten) {
		t.Fatal(err)
	}
	if n := l.Stats().LostAll; n != 2 {
		t.Errorf("%d events are lost, not 2", n)
	}
	d.set(func() { d.space = -1 })
	healed(t, l)
	closed(t, l)
	verified(t, dir)
	list := events(t, dir)
	if last := list[len(list)-1]; last.System == nil || last.System.Detail["events"] != "2" {
		t.Errorf("the loss is told as %+v", last.System)
	}
}
