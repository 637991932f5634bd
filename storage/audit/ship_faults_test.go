package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A faultSink stores by event id, and fails in each way that a network has. It
// looks at every call whether what it was sent is what comes next.
type faultSink struct {
	mu     sync.Mutex
	stored map[string]Line
	seqs   map[uint64]bool
	prefix uint64 // every seq up to it is stored
	calls  int
	wrong  []string // what no ledger may do

	before func(ctx context.Context, call int) // may wait
	fault  func(call, n int) fault             // nil: none
}

// A fault is what becomes of a call.
type fault struct {
	stored func(i int) bool  // whether line i is; nil: all are
	each   func(i int) error // what is said of it; nil: nothing bad
	err    error             // of the call
	length int               // answers too many, or too few
	hang   bool              // until the caller gives up
}

func (s *faultSink) Store(ctx context.Context, lines []Line) ([]error, error) {
	s.mu.Lock()
	s.calls++
	call, before := s.calls, s.before
	s.mu.Unlock()
	if before != nil {
		before(ctx, call)
	}
	s.mu.Lock()
	var f fault
	if s.fault != nil {
		f = s.fault(call, len(lines))
	}
	each := make([]error, len(lines))
	for i := range lines {
		s.look(lines, i)
		if f.stored == nil || f.stored(i) {
			s.store(lines[i])
		}
		if f.each != nil {
			each[i] = f.each(i)
		}
	}
	s.mu.Unlock()
	if f.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if f.err != nil {
		return nil, f.err
	}
	if f.length != 0 {
		return make([]error, max(0, len(lines)+f.length)), nil
	}
	return each, nil
}

// look holds a call against what may be sent: in order, and nothing beyond one
// batch while something before it is missing.
func (s *faultSink) look(lines []Line, i int) {
	seq := lines[i].Seq
	if i > 0 && seq <= lines[i-1].Seq {
		s.wrong = append(s.wrong, fmt.Sprintf("seq %d was sent behind %d", seq, lines[i-1].Seq))
	}
	if seq > s.prefix+shipLines {
		s.wrong = append(s.wrong, fmt.Sprintf("seq %d was sent while only %d are there", seq, s.prefix))
	}
}

func (s *faultSink) store(l Line) {
	if s.stored == nil {
		s.stored, s.seqs = map[string]Line{}, map[uint64]bool{}
	}
	if had, ok := s.stored[l.ID]; ok {
		if string(had.Raw) != string(l.Raw) {
			s.wrong = append(s.wrong, fmt.Sprintf("seq %d was sent twice and differs", l.Seq))
		}
		return
	}
	l.Raw = append([]byte(nil), l.Raw...)
	s.stored[l.ID] = l
	s.seqs[l.Seq] = true
	for s.seqs[s.prefix+1] {
		s.prefix++
	}
}

func (s *faultSink) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// wantAll fails unless exactly what the folder holds was stored, byte by byte.
func (s *faultSink) wantAll(t *testing.T, dir string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for l, err := range Lines(dir) {
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := s.stored[l.ID]; !ok || string(got.Raw) != string(l.Raw) {
			t.Fatalf("seq %d: stored %v as %q", l.Seq, ok, got.Raw)
		}
		n++
	}
	if len(s.stored) != n || s.prefix != uint64(n) {
		t.Errorf("the sink has %d events, %d of them without a gap, the log %d", len(s.stored), s.prefix, n)
	}
	for _, w := range s.wrong {
		t.Error(w)
	}
}

var errUnavailable = errors.New("unavailable")

// putAtOnce appends and waits, and fails if that took any time: in a bubble of
// synctest time passes only while everybody waits for it.
func putAtOnce(t *testing.T, l *Ledger, record string, s Survive) {
	t.Helper()
	begin := time.Now()
	e := request()
	e.Record, e.Time = record, begin
	ticket, err := l.Append(e)
	if err == nil {
		err = ticket.Wait(t.Context(), s)
	}
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took != 0 {
		t.Errorf("%s: it waited %s for something else than the disk", record, took)
	}
}

// TestF1SinkDownForTenMinutes: nobody waits, nothing is lost, and it goes on by
// itself.
func TestF1SinkDownForTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := true
		sink := &faultSink{fault: func(int, int) fault {
			if down {
				return fault{err: errUnavailable, stored: func(int) bool { return false }}
			}
			return fault{}
		}}
		dir := t.TempDir()
		l := open(t, Options{Dir: dir, Sink: sink, Segment: 40_000})
		begin := time.Now()
		for i := range 600 {
			putAtOnce(t, l, fmt.Sprint(i), Survive(i%2))
			time.Sleep(time.Second)
		}
		if err := l.Shippable(); !errors.Is(err, ErrOutage) || !errors.Is(err, errUnavailable) {
			t.Errorf("shippable in the outage: %v", err)
		}
		s := l.Stats()
		if s.Lag != time.Since(begin) || s.Seq-s.Shipped != 600 || s.ShippedHere != 0 || s.Failures["other"] != uint64(sink.calls) {
			t.Errorf("after %s, %d calls: %+v", time.Since(begin), sink.calls, s)
		}
		if sink.calls < 100 || sink.calls > 2000 {
			t.Errorf("%d tries in ten minutes", sink.calls)
		}
		sink.set(func() { down = false })
		time.Sleep(backoffMax + 5*time.Second) // the longest pause, and the ramp's time for 600 events
		if s := l.Stats(); s.Shipped != 600 || s.Outage != nil || s.Lag != 0 || s.ShippedHere != 600 || s.ShippedAt.IsZero() || s.Waiting != 0 {
			t.Errorf("after its end: %+v", s)
		}
		mustPut(t, l, "machine", Machine)
		closed(t, l)
		sink.wantAll(t, dir)
	})
}

// TestF2SlowSink: 2 s a call. Who asks for crash or power does not notice.
func TestF2SlowSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &faultSink{before: func(context.Context, int) { time.Sleep(2 * time.Second) }}
		dir := t.TempDir()
		l := open(t, Options{Dir: dir, Sink: sink})
		for i := range 1000 {
			putAtOnce(t, l, fmt.Sprint(i), Survive(i%2))
			time.Sleep(60 * time.Millisecond)
		}
		if s := l.Stats(); s.Outage != nil || s.Lag > 7*time.Second || s.Lag < time.Second {
			t.Errorf("%+v", s)
		}
		mustPut(t, l, "machine", Machine)
		closed(t, l)
		sink.wantAll(t, dir)
		if sink.calls > 50 {
			t.Errorf("%d calls for 1,001 events: the backlog does not fill the batches", sink.calls)
		}
	})
}

// TestF29StoredAndNotAnswered: the call hangs after it stored, then the answer
// is cut off. One time-out is an outage; nothing is there twice.
func TestF29StoredAndNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &faultSink{fault: func(call, _ int) fault {
			switch call {
			case 1:
				return fault{hang: true}
			case 2:
				return fault{err: errUnavailable}
			}
			return fault{}
		}}
		dir := t.TempDir()
		l := open(t, Options{Dir: dir, Sink: sink})
		begin := time.Now()
		if err := put(t, l, "1", Machine); !errors.Is(err, ErrOutage) || !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != shipTimeout {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		if s := l.Stats(); s.Failures["DEADLINE_EXCEEDED"] != 1 {
			t.Errorf("%+v", s.Failures)
		}
		time.Sleep(time.Second)
		mustPut(t, l, "2", Machine)
		closed(t, l)
		sink.wantAll(t, dir)
	})
}

// TestF3RefusedEventIsShipped: a 503 says that it is not in the sink yet.
func TestF3RefusedEventIsShipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := true
		sink := &faultSink{fault: func(int, int) fault {
			if down {
				return fault{err: errUnavailable, stored: func(int) bool { return false }}
			}
			return fault{}
		}}
		dir := t.TempDir()
		l := open(t, Options{Dir: dir, Sink: sink})
		for i := range 3 { // the first waits until the outage is known, the others do not
			begin := time.Now()
			if err := put(t, l, "refused", Machine); !errors.Is(err, ErrOutage) || i > 0 && time.Since(begin) != 0 {
				t.Errorf("after %s: %v", time.Since(begin), err)
			}
		}
		sink.set(func() { down = false })
		time.Sleep(backoffMax)
		if err := l.Shippable(); err != nil {
			t.Errorf("it does not recover by itself: %v", err)
		}
		mustPut(t, l, "answered", Machine)
		closed(t, l)
		sink.wantAll(t, dir)
		if len(sink.stored) != 4 {
			t.Errorf("%d events", len(sink.stored))
		}
	})
}

// TestBacklogEndsByItself: a backlog is a 503 until it is shipped.
func TestBacklogEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		sink := &faultSink{before: func(context.Context, int) { <-gate }}
		l := open(t, Options{Dir: t.TempDir(), Sink: sink})
		for range shipBehind + 500 {
			if _, err := l.Append(request()); err != nil {
				t.Fatal(err)
			}
		}
		mustPut(t, l, "written", Crash)
		if err := l.Shippable(); !errors.Is(err, ErrOutage) {
			t.Errorf("behind a backlog: %v", err)
		}
		close(gate)
		time.Sleep(20 * time.Second) // 500 a second
		if err := l.Shippable(); err != nil {
			t.Error(err)
		}
		mustPut(t, l, "after", Machine)
	})
}

// randomFault is one of all that can become of a call.
func randomFault(r *rand.Rand) fault {
	some := func(of int) func(int) bool {
		seed := r.Uint64()
		return func(i int) bool { return rand.New(rand.NewPCG(seed, uint64(i))).IntN(of) == 0 }
	}
	none := func(int) bool { return false }
	switch r.IntN(10) {
	case 0:
		return fault{err: errUnavailable, stored: none}
	case 1:
		return fault{err: errUnavailable}
	case 2:
		return fault{err: errUnavailable, stored: some(2)}
	case 3:
		bad := some(3)
		return fault{stored: func(i int) bool { return !bad(i) }, each: errorOf(bad)}
	case 4: // stored, and said not to be
		return fault{each: errorOf(some(3))}
	case 5:
		return fault{length: -1 - r.IntN(100), stored: some(2)}
	case 6:
		return fault{length: 1 + r.IntN(3)}
	case 7:
		return fault{hang: true, stored: some(2)}
	}
	return fault{}
}

func errorOf(bad func(int) bool) func(int) error {
	return func(i int) error {
		if bad(i) {
			return errUnavailable
		}
		return nil
	}
}

// TestF3RandomFaults mixes them with restarts, SIDEGATE_FAULTS times (8).
func TestF3RandomFaults(t *testing.T) {
	rounds := 8
	if s := os.Getenv("SIDEGATE_FAULTS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	base := rand.Uint64()
	for round := range rounds {
		seed := base + uint64(round)
		synctest.Test(t, func(t *testing.T) { shipThroughFaults(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("seeds %d to %d", base, base+uint64(rounds)-1)
}

func shipThroughFaults(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	calm := false
	sink := &faultSink{fault: func(int, int) fault {
		if calm {
			return fault{}
		}
		return randomFault(r)
	}}
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	for run := range 4 {
		l := open(t, Options{Dir: dir, Sink: sink, Segment: 30_000})
		for i := range 30 + int(seed%60) {
			id := fmt.Sprint(run, ".", i)
			switch i % 8 {
			case 7:
				if put(t, l, id, Machine) == nil {
					acknowledged[id] = true
				}
			default:
				putAtOnce(t, l, id, Survive(i%2))
			}
			if i%20 == 19 {
				time.Sleep(time.Duration(seed%7) * time.Second)
			}
		}
		if run == 3 {
			sink.set(func() { calm = true })
			closed(t, l)
			break
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		l.Close(over)
		for id := range acknowledged { // before anything is shipped again
			if !sink.has(id) {
				t.Errorf("event %s was acknowledged and is not there", id)
			}
		}
	}
	sink.wantAll(t, dir)
	verified(t, dir)
}

// has says whether an event with that record id is stored.
func (s *faultSink) has(record string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.stored {
		if e, err := l.Event(); err == nil && e.Record == record {
			return true
		}
	}
	return false
}

// TestLargeBatchThatNeverFits: a limit of the sink's, or a line too slow for
// the time-out, lets smaller batches through.
func TestLargeBatchThatNeverFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &faultSink{fault: func(_, n int) fault {
			if n > 7 {
				return fault{hang: true, stored: func(int) bool { return false }}
			}
			return fault{}
		}}
		dir := t.TempDir()
		l := open(t, Options{Dir: dir, Sink: sink})
		for range 300 {
			if _, err := l.Append(request()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(30 * time.Minute)
		if s := l.Stats(); s.Shipped != 300 {
			t.Errorf("%d of 300 are shipped after half an hour", s.Shipped)
		}
		closed(t, l)
		sink.wantAll(t, dir)
	})
}

// TestRampOverRestarts: a restart goes on with it, and a file that does not say
// since when is an old collection's.
func TestRampOverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &faultSink{}
		dir := t.TempDir()
		rate := func() float64 {
			l := open(t, Options{Dir: dir, Sink: sink})
			mustPut(t, l, "1", Machine)
			closed(t, l)
			return l.ship.ramp.rate(time.Now())
		}
		begin := time.Now()
		if got := rate(); got != 500 {
			t.Errorf("a new collection gets %v writes a second", got)
		}
		time.Sleep(11 * time.Minute)
		if got := rate(); got != 1125 {
			t.Errorf("after 11 minutes and a restart: %v", got)
		}
		from, err := readResume(dir)
		if err != nil || !from.Since.Equal(begin) {
			t.Errorf("since %v, not %v; %v", from.Since, begin, err)
		}
		if r := newRamp(resume{Seq: 1, Since: begin.Add(100 * time.Hour)}, begin); r.rate(begin.Add(10*time.Minute)) != 1125 {
			t.Error("a clock that was wrong holds back for days")
		}
		old := fmt.Sprintf(`{"chain":%q,"seq":%d,"segment":%d,"offset":%d}`, from.Chain, from.Seq, from.Segment, from.Offset)
		if err := os.WriteFile(filepath.Join(dir, resumeFile), []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := rate(); got != rampEnd {
			t.Errorf("an old collection gets %v", got)
		}
		sink.wantAll(t, dir)
	})
}

// TestRampWaitsForTheFirstEvent: an outage at the beginning is no part of it.
func TestRampWaitsForTheFirstEvent(t *testing.T) {
	r := newRamp(resume{}, noon)
	if got := r.rate(noon.Add(time.Hour)); got != 500 {
		t.Errorf("before the first event: %v", got)
	}
	r.begin(noon.Add(time.Hour))
	r.begin(noon.Add(2 * time.Hour))
	if got := r.rate(noon.Add(time.Hour + 5*time.Minute)); got != 750 {
		t.Errorf("5 minutes after it: %v", got)
	}
}

// An agedSink knows whether its collection is old; err: it cannot tell.
type agedSink struct {
	faultSink
	first time.Time
	err   error
	asked atomic.Int64
}

func (s *agedSink) HasBefore(_ context.Context, t time.Time) (bool, error) {
	s.asked.Add(1)
	return s.err == nil && s.first.Before(t), s.err
}

// TestRampAsksNobodyWhoIsAway: that the sink is away is for Store to notice.
func TestRampAsksNobodyWhoIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &agedSink{}
		sink.fault = func(int, int) fault {
			return fault{err: errUnavailable, stored: func(int) bool { return false }}
		}
		l := open(t, Options{Dir: t.TempDir(), Sink: sink})
		if err := put(t, l, "r", Machine); !errors.Is(err, ErrOutage) {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		l.Close(ctx)
		if n := sink.asked.Load(); n != 0 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestRampOfAnOldCollection: a new folder, which is what each start has where
// the disk is memory, is not held back on a collection that is not new.
func TestRampOfAnOldCollection(t *testing.T) {
	for name, c := range map[string]struct {
		age  time.Duration
		err  error
		rate float64
		asks int64
	}{
		"old":         {rampSpan + time.Second, nil, rampEnd, 1},
		"new":         {rampSpan - time.Second, nil, rampStart, 1},
		"cannot tell": {rampSpan + time.Second, errors.New("unavailable"), rampStart, rampAsks},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink := &agedSink{first: time.Now().Add(-c.age), err: c.err}
				dir := t.TempDir()
				l := open(t, Options{Dir: dir, Sink: sink})
				for i := range 5 { // a batch each
					mustPut(t, l, fmt.Sprint(i), Machine)
					synctest.Wait()
				}
				closed(t, l)
				if got := l.ship.ramp.rate(time.Now()); got != c.rate || sink.asked.Load() != c.asks {
					t.Errorf("%v writes a second after %d questions", got, sink.asked.Load())
				}
				sink.wantAll(t, dir)
				from, err := readResume(dir)
				if err != nil || from.Since.IsZero() != (c.rate == rampEnd) {
					t.Errorf("since %v, %v", from.Since, err)
				}
			})
		})
	}
}

// A timedSink has no other events than those that it was sent.
type timedSink struct{ fakeSink }

func (s *timedSink) HasBefore(_ context.Context, t time.Time) (old bool, err error) {
	s.set(func() {
		for _, l := range s.stored {
			old = old || l.Time.Before(t)
		}
	})
	return old, nil
}

// TestOwnOldEventsMakeNoOldCollection: a log that was kept here for long before
// it is shipped, to a collection that is new, is what the ramp is for; also after
// a restart.
func TestOwnOldEventsMakeNoOldCollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		sink := &timedSink{}
		fill(t, Options{Dir: dir, Now: time.Now}, 2)
		time.Sleep(24 * time.Hour) // of the bubble's clock
		for range 2 {
			l := open(t, Options{Dir: dir, Now: time.Now, Sink: sink})
			for i := range 3 { // a batch each
				mustPut(t, l, fmt.Sprint(i), Machine)
				synctest.Wait()
			}
			closed(t, l)
			if !l.ship.ramp.fresh {
				t.Error("the ramp is over")
			}
		}
	})
}

// TestFsyncedBeforeItIsSent: after a loss of power the sink must not have more
// than the folder has.
func TestFsyncedBeforeItIsSent(t *testing.T) {
	d := newDisk()
	var l *Ledger
	opened := make(chan struct{})
	sink := &faultSink{}
	early := 0
	l = open(t, Options{Dir: t.TempDir(), open: d.open, Sink: sinkFunc(func(ctx context.Context, lines []Line) ([]error, error) {
		<-opened
		if last := lines[len(lines)-1].Seq; l.Stats().Synced < last {
			early++
		}
		return sink.Store(ctx, lines)
	})})
	close(opened)
	for i := range 20 {
		mustPut(t, l, strconv.Itoa(i), Crash)
	}
	mustPut(t, l, "last", Machine)
	closed(t, l)
	if early > 0 {
		t.Errorf("%d batches were sent before they were fsynced here", early)
	}
	sink.wantAll(t, l.opt.Dir)
}

// TestWhichOfTwoIsUnstorable: the first may be stored later, and the second
// never. Only the second is given up.
func TestWhichOfTwoIsUnstorable(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 2)
	first := true
	sink := &fakeSink{each: func(l *Line) error {
		switch {
		case l.Seq == 2:
			return ErrUnstorable
		case l.Seq == 1 && first:
			first = false
			return errors.New("aborted")
		}
		return nil
	}}
	l := open(t, Options{Dir: dir, Sink: sink})
	mustPut(t, l, "last", Machine)
	closed(t, l)
	sink.set(func() {
		n := 0
		for _, line := range sink.stored {
			if line.Stub != (line.Seq == 2) {
				t.Errorf("seq %d: a stub: %v", line.Seq, line.Stub)
			}
			n++
		}
		if n != 3 {
			t.Errorf("%d are stored", n)
		}
	})
}

// TestWaitingIsOnlyWhatIsNotShipped: what max_size bounds, also where a restart
// begins in the middle of a segment.
func TestWaitingIsOnlyWhatIsNotShipped(t *testing.T) {
	dir := t.TempDir()
	sink := &fakeSink{}
	l := open(t, Options{Dir: dir, Sink: sink})
	mustPut(t, l, "first", Machine)
	closed(t, l)
	fill(t, Options{Dir: dir}, 3)
	lines := bytes.SplitAfter(readFile(t, lastSegment(t, dir)), []byte("\n"))
	want := len(bytes.Join(lines[1:], nil))
	sink.set(func() { sink.down = errors.New("unavailable") })
	l = open(t, Options{Dir: dir, Sink: sink})
	if got := l.Stats().Waiting; got != int64(want) {
		t.Errorf("%d bytes wait, and %d are not shipped", got, want)
	}
	sink.set(func() { sink.down = nil })
	mustPut(t, l, "last", Machine)
	if got := l.Stats().Waiting; got != 0 {
		t.Errorf("%d bytes wait, and all is shipped", got)
	}
	closed(t, l)
	sink.wantAll(t, dir)
}

// TestBatchesAreBounded: Firestore takes 10 MiB a call.
func TestBatchesAreBounded(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir})
	large := map[string]string{}
	for i := range 8 {
		large[strconv.Itoa(i)] = strings.Repeat("\x01", 4000)
	}
	for range 200 {
		ticket, err := l.Append(&Event{Type: TypeSystem, System: &System{Event: "start", Detail: large}})
		if err == nil {
			err = ticket.Wait(t.Context(), Crash)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	closed(t, l)
	most, calls := 0, 0
	sink := &fakeSink{}
	l = open(t, Options{Dir: dir, Sink: sinkFunc(func(ctx context.Context, lines []Line) ([]error, error) {
		size := 0
		for i := range lines {
			size += len(lines[i].Raw)
		}
		most = max(most, size)
		calls++
		return sink.Store(ctx, lines)
	})})
	mustPut(t, l, "last", Machine)
	closed(t, l)
	if most > shipBytes+MaxLine || calls < 2 {
		t.Errorf("%d calls, of up to %d bytes", calls, most)
	}
	sink.wantAll(t, dir)
}

// A sinkFunc is a sink that is only its Store.
type sinkFunc func(ctx context.Context, lines []Line) ([]error, error)

func (f sinkFunc) Store(ctx context.Context, lines []Line) ([]error, error) { return f(ctx, lines) }
