package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A fakeSink is a sink that fails on demand, in both ways: before it stored,
// and after.
type fakeSink struct {
	mu     sync.Mutex
	stored map[string]Line // by event id
	order  []uint64        // seqs, as they were first stored
	twice  int             // stores of what was there already
	calls  int
	down   error                        // of every call
	fail   func(call int) (error, bool) // of one call, and whether it stored all the same
	each   func(l *Line) error          // of one line
}

func (s *fakeSink) Store(ctx context.Context, lines []Line) ([]error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.down != nil {
		return nil, s.down
	}
	var err error
	store := true
	if s.fail != nil {
		err, store = s.fail(s.calls)
	}
	each := make([]error, len(lines))
	for i := range lines {
		l := lines[i]
		if s.each != nil && !l.Stub {
			each[i] = s.each(&l)
		}
		if each[i] != nil || err != nil && !store {
			continue
		}
		if s.stored == nil {
			s.stored = map[string]Line{}
		}
		if _, ok := s.stored[l.ID]; ok {
			s.twice++
			continue
		}
		l.Raw = append([]byte(nil), l.Raw...)
		s.stored[l.ID] = l
		s.order = append(s.order, l.Seq)
	}
	if err != nil {
		return nil, err
	}
	return each, nil
}

func (s *fakeSink) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// wantAll fails unless the sink has exactly the lines of the folder, in order.
func (s *fakeSink) wantAll(t *testing.T, dir string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for l, err := range Lines(dir) {
		if err != nil {
			t.Fatal(err)
		}
		got, ok := s.stored[l.ID]
		if !ok || string(got.Raw) != string(l.Raw) {
			t.Fatalf("seq %d: stored %v as %q", l.Seq, ok, got.Raw)
		}
		if s.order[n] != l.Seq {
			t.Errorf("seq %d was stored in place %d", s.order[n], n)
		}
		n++
	}
	if len(s.stored) != n {
		t.Errorf("the sink has %d events, the log %d", len(s.stored), n)
	}
}

func TestShipsExactlyOnceAcrossFaults(t *testing.T) {
	for _, stored := range []bool{false, true} {
		sink := &fakeSink{fail: func(call int) (error, bool) {
			if call%2 == 1 {
				return errors.New("unavailable"), stored
			}
			return nil, true
		}}
		dir := t.TempDir()
		for round := range 3 {
			l := open(t, Options{Dir: dir, Sink: sink, Segment: 20_000})
			for i := range 60 {
				mustPut(t, l, fmt.Sprint(round, i), Crash)
			}
			mustPut(t, l, "machine", Machine)
			closed(t, l)
		}
		sink.wantAll(t, dir)
		verified(t, dir)
	}
}

func TestOutageIsNotWaitedFor(t *testing.T) {
	sink := &fakeSink{down: errors.New("permission denied")}
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, Sink: sink})
	if err := put(t, l, "1", Machine); !errors.Is(err, ErrOutage) || !errors.Is(err, sink.down) {
		t.Errorf("machine in an outage: %v", err)
	}
	mustPut(t, l, "2", Power)
	if err := l.Shippable(); !errors.Is(err, ErrOutage) {
		t.Errorf("shippable in an outage: %v", err)
	}
	if s := l.Stats(); s.Outage == nil || s.Waiting == 0 || s.Shipped != 0 || l.Healthy() != nil {
		t.Errorf("%+v, health %v", s, l.Healthy())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.Close(ctx)

	// The next start takes up where the sink stopped.
	sink.set(func() { sink.down = nil })
	l = open(t, Options{Dir: dir, Sink: sink})
	mustPut(t, l, "3", Machine)
	closed(t, l)
	sink.wantAll(t, dir)
}

func TestBacklogIsNotWaitedFor(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir})
	var ticket Ticket
	for range shipBehind + 1000 {
		var err error
		if ticket, err = l.Append(request()); err != nil {
			t.Fatal(err)
		}
	}
	if err := ticket.Wait(t.Context(), Crash); err != nil {
		t.Fatal(err)
	}
	closed(t, l)
	gate := make(chan struct{})
	sink := &fakeSink{fail: func(int) (error, bool) { <-gate; return nil, true }}
	l = open(t, Options{Dir: dir, Sink: sink})
	if err := l.Shippable(); !errors.Is(err, ErrOutage) {
		t.Errorf("shippable behind a backlog: %v", err)
	}
	if err := put(t, l, "far behind", Machine); !errors.Is(err, ErrOutage) {
		t.Errorf("behind a backlog: %v", err)
	}
	close(gate)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.Close(ctx)
}

func TestMaxSizeRefusesDecisions(t *testing.T) {
	sink := &fakeSink{down: errors.New("unavailable")}
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, Sink: sink, MaxSize: 5000})
	n := 0
	var err error
	for ; n < 100 && err == nil; n++ {
		err = put(t, l, fmt.Sprint(n), Crash)
	}
	if !errors.Is(err, ErrFull) || n < 5 || n > 12 || !errors.Is(l.Healthy(), ErrFull) {
		t.Errorf("after %d events: %v; health %v", n, err, l.Healthy())
	}
	e := request()
	e.Type = TypeOutcome
	if _, err := l.Append(e); err != nil {
		t.Errorf("the outcome of what was admitted: %v", err)
	}
	sink.set(func() { sink.down = nil })
	healed(t, l)
	mustPut(t, l, "again", Crash)
	closed(t, l)
	sink.wantAll(t, dir)

	dir = t.TempDir() // without a sink it bounds nothing
	l = open(t, Options{Dir: dir, MaxSize: 1})
	mustPut(t, l, "1", Crash)
	mustPut(t, l, "2", Crash)
}

// TestUnstorableEventIsBuried: one line the sink will never take stops none.
func TestUnstorableEventIsBuried(t *testing.T) {
	bad := fmt.Errorf("%w: too large", ErrUnstorable)
	for name, sink := range map[string]*fakeSink{
		"the line is named": {each: func(l *Line) error {
			if l.Seq == 7 {
				return bad
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, Options{Dir: dir, Sink: sink})
			var tickets []Ticket
			for range 12 {
				ticket, err := l.Append(request())
				if err != nil {
					t.Fatal(err)
				}
				tickets = append(tickets, ticket)
			}
			for i, ticket := range tickets {
				err := ticket.Wait(t.Context(), Machine)
				if (i == 6) != errors.Is(err, ErrUnstorable) || i != 6 && err != nil {
					t.Errorf("seq %d: %v", i+1, err)
				}
			}
			closed(t, l)
			wantBuried(t, dir, sink)
		})
	}
}

func wantBuried(t *testing.T, dir string, sink *fakeSink) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, deadFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dead := bufio.NewScanner(f)
	dead.Scan()
	l, err := ParseLine(dead.Bytes())
	if err != nil || l.Seq != 7 || dead.Scan() {
		t.Errorf("the dead-letter file holds seq %d, %v, and more", l.Seq, err)
	}
	// What the sink holds verifies, and the stub is named.
	reports, err := Verify(t.Context(), func(yield func(Line, error) bool) {
		for seq := uint64(1); seq <= 12; seq++ {
			for _, l := range sink.stored {
				if l.Seq == seq {
					if l.Stub {
						l.Raw = nil
					}
					yield(l, nil)
				}
			}
		}
	}, time.Time{})
	if err != nil || len(reports) != 1 || reports[0].Broken != nil || reports[0].Last != 12 || fmt.Sprint(reports[0].Stubs) != "[7]" {
		t.Errorf("%+v, %v", reports, err)
	}
}

// TestEverythingUnstorableIsAnOutage: a sink that refuses even the stub is
// wrongly set up, and no line is lost to the dead-letter file for it.
// TestUnstorableLineCostsFewCalls: which of a batch's lines is never taken is
// found by halves, so that its neighbours do not wait for a hundred calls.
func TestUnstorableLineCostsFewCalls(t *testing.T) {
	for _, seq := range []uint64{1, 50, 77, 100} {
		sink := &poisonedSink{seq: seq}
		dir := t.TempDir()
		l := open(t, Options{Dir: dir})
		for range 100 {
			if _, err := l.Append(request()); err != nil {
				t.Fatal(err)
			}
		}
		closed(t, l)
		l = open(t, Options{Dir: dir, Sink: sink})
		mustPut(t, l, "behind", Machine)
		closed(t, l)
		sink.wantAll(t, dir)
		if sink.stored[sink.id].Raw == nil || !sink.stored[sink.id].Stub || sink.all > 20 {
			t.Errorf("seq %d: %d calls, stored as %+v", seq, sink.all, sink.stored[sink.id])
		}
	}
}

// A poisonedSink takes no call that one line is in, and does not say which.
type poisonedSink struct {
	fakeSink
	seq uint64
	id  string
	all int
}

func (s *poisonedSink) Store(ctx context.Context, lines []Line) ([]error, error) {
	s.all++
	for _, l := range lines {
		if l.Seq == s.seq && !l.Stub {
			s.id = l.ID
			return nil, fmt.Errorf("%w: too large", ErrUnstorable)
		}
	}
	return s.fakeSink.Store(ctx, lines)
}

func TestEverythingUnstorableIsAnOutage(t *testing.T) {
	sink := &fakeSink{down: fmt.Errorf("%w: no such database", ErrUnstorable)}
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, Sink: sink})
	if err := put(t, l, "1", Machine); err == nil {
		t.Error("it is on record")
	}
	if err := put(t, l, "2", Machine); !errors.Is(err, ErrOutage) {
		t.Errorf("the second: %v", err)
	}
	if n := l.Stats().Unstorable; n != 1 {
		t.Errorf("%d lines are in the dead-letter file", n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.Close(ctx)
}

func TestResumePointOfAnotherLog(t *testing.T) {
	sink := &fakeSink{}
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, Sink: sink})
	mustPut(t, l, "1", Machine)
	closed(t, l)
	if err := os.Remove(lastSegment(t, dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir, Sink: sink}); err == nil {
		t.Error("it opens with its segments gone")
	}
	other := t.TempDir()
	fill(t, Options{Dir: other}, 3)
	data, err := os.ReadFile(filepath.Join(dir, resumeFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{string(data), "", "{}", `{"chain":"x","seq":1,"segment":1,"offset":99999999}`} {
		if err := os.WriteFile(filepath.Join(other, resumeFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{Dir: other, Sink: sink}); err == nil {
			t.Errorf("it opens with the resume point %q", content)
		}
	}
}

func TestRampOfANewCollection(t *testing.T) {
	start := noon
	r := ramp{fresh: true, start: start}
	for minutes, want := range map[int]float64{0: 500, 4: 500, 5: 750, 10: 1125, 59: 500 * 1.5 * 1.5 * 1.5 * 1.5 * 1.5 * 1.5 * 1.5 * 1.5 * 1.5 * 1.5 * 1.5} {
		if got := r.rate(start.Add(time.Duration(minutes) * time.Minute)); min(got, rampEnd) != min(want, rampEnd) {
			t.Errorf("after %d minutes %v a second, want %v", minutes, got, want)
		}
	}
	if err := r.wait(t.Context(), func() time.Time { return start }, 100); err != nil {
		t.Error(err)
	}
	if r.free != start.Add(200*time.Millisecond) {
		t.Errorf("100 writes are used up at %v", r.free.Sub(start))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.wait(ctx, func() time.Time { return start }, 1); err == nil {
		t.Error("it does not wait")
	}
	old := ramp{}
	if old.rate(start) != rampEnd {
		t.Error("an old collection is held back")
	}
}

// TestLagIsTheOldestEventsAge, also where events are older than the process.
func TestLagIsTheOldestEventsAge(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	l := open(t, Options{Dir: dir, Now: func() time.Time { return now }})
	e := request()
	e.Time = now.Add(-time.Hour)
	if ticket, err := l.Append(e); err != nil || ticket.Wait(t.Context(), Crash) != nil {
		t.Fatal(err)
	}
	mustPut(t, l, "younger", Crash)
	closed(t, l)
	sink := &fakeSink{down: errors.New("unavailable")}
	l = open(t, Options{Dir: dir, Sink: sink, Now: func() time.Time { return now }})
	if err := put(t, l, "now", Machine); !errors.Is(err, ErrOutage) {
		t.Fatal(err)
	}
	if lag := l.Stats().Lag; lag != time.Hour {
		t.Errorf("lag %s", lag)
	}
	sink.set(func() { sink.down = nil })
	mustPut(t, l, "after", Crash)
	closed(t, l)
	if lag := l.Stats().Lag; lag != 0 {
		t.Errorf("lag %s when all is shipped", lag)
	}
}
