package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A disk is the real one, which fails on demand.
type disk struct {
	mu      sync.Mutex
	gate    sync.RWMutex // held: writes block
	space   int64        // bytes that writes may still take; -1: any
	noSync  error
	noOpen  error // of new files
	noTrunc error
	syncs   atomic.Int64
	writes  atomic.Int64
	slow    func() // called in every fsync
}

func newDisk() *disk { return &disk{space: -1} }

func (d *disk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// block holds every write back until release is called.
func (d *disk) block() (release func()) {
	d.gate.Lock()
	return d.gate.Unlock
}

func (d *disk) open(name string, flag int) (file, error) {
	d.mu.Lock()
	noOpen := d.noOpen
	d.mu.Unlock()
	if noOpen != nil && flag&os.O_CREATE != 0 {
		return nil, noOpen
	}
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return &diskFile{File: f, d: d}, nil
}

type diskFile struct {
	*os.File
	d *disk
}

var errNoSpace = errors.New("no space left on device")

func (f *diskFile) WriteAt(p []byte, off int64) (int, error) {
	f.d.writes.Add(1)
	f.d.gate.RLock()
	defer f.d.gate.RUnlock()
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.space >= 0 && int64(len(p)) > f.d.space {
		n, _ := f.File.WriteAt(p[:f.d.space], off)
		return n, errNoSpace
	}
	if f.d.space >= 0 {
		f.d.space -= int64(len(p))
	}
	return f.File.WriteAt(p, off)
}

func (f *diskFile) Sync() error {
	f.d.syncs.Add(1)
	f.d.mu.Lock()
	err, slow := f.d.noSync, f.d.slow
	f.d.mu.Unlock()
	if slow != nil {
		slow()
	}
	if err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *diskFile) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.noTrunc != nil {
		return f.d.noTrunc
	}
	return f.File.Truncate(size)
}

var _ io.ReaderAt = (*diskFile)(nil)

// healed waits until the ledger says that it can append again.
func healed(t *testing.T, l *Ledger) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); l.Healthy() != nil; {
		if time.Now().After(deadline) {
			t.Fatalf("it does not heal: %v", l.Healthy())
		}
		time.Sleep(time.Millisecond)
	}
}

func TestFullDisk(t *testing.T) {
	for _, trunc := range []error{nil, errors.New("truncate fails too")} {
		for _, space := range []int64{0, 1, 300, 700, 1200} {
			d := newDisk()
			dir := t.TempDir()
			l := open(t, Options{Dir: dir, open: d.open, pause: time.Millisecond})
			mustPut(t, l, "before", Crash)
			d.set(func() { d.space, d.noTrunc = space, trunc })
			refused := map[string]bool{}
			for i := range 10 {
				record := fmt.Sprint(i)
				if err := put(t, l, record, Crash); err != nil {
					if !errors.Is(err, ErrNotWritten) {
						t.Errorf("%v does not say that the event is in no log", err)
					}
					if !errors.Is(err, errNoSpace) && (trunc == nil || !errors.Is(err, trunc)) {
						t.Errorf("refused with %v", err)
					}
					refused[record] = true
				}
			}
			if len(refused) < 8 || l.Healthy() == nil {
				t.Errorf("space %d: %d of 10 refused, health %v", space, len(refused), l.Healthy())
			}
			d.set(func() { d.space, d.noTrunc = -1, nil })
			healed(t, l)
			mustPut(t, l, "after", Crash)
			closed(t, l)
			checkAfterFullDisk(t, dir, refused)
		}
	}
}

func checkAfterFullDisk(t *testing.T, dir string, refused map[string]bool) {
	t.Helper()
	verified(t, dir)
	reported, found := 0, 0
	for _, e := range events(t, dir) {
		if refused[e.Record] {
			t.Errorf("event %s was refused and is there", e.Record)
		}
		if e.System != nil { // one report, or several where some space came and went
			n, _ := strconv.Atoi(e.System.Detail["events"])
			reported += n
		}
		if e.Record != "" {
			found++
		}
	}
	if reported != len(refused) || found != 12-len(refused) {
		t.Errorf("loss of %d, reported as %d; %d events are there", len(refused), reported, found)
	}
}

// TestFailedWriteFailsWhatContinuesIt appends while a write fails.
func TestFailedWriteFailsWhatContinuesIt(t *testing.T) {
	d := newDisk()
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, open: d.open, pause: time.Hour})
	mustPut(t, l, "before", Power)
	release := d.block()
	d.set(func() { d.space = 0 })
	var tickets []Ticket
	for range 50 {
		ticket, err := l.Append(request())
		if err != nil {
			t.Fatal(err)
		}
		tickets = append(tickets, ticket)
	}
	release()
	for i, ticket := range tickets {
		if err := ticket.Wait(t.Context(), Survive(i%2)); !errors.Is(err, errNoSpace) {
			t.Fatalf("event %d: %v", i, err)
		}
	}
	d.set(func() { d.space = -1 })
	mustPut(t, l, "after", Power)
	for _, ticket := range tickets { // their seqs are others' now
		if ticket.Wait(t.Context(), Power) == nil {
			t.Fatal("a failed event is on record")
		}
	}
	closed(t, l)
	if r := verified(t, dir); r.Last != 3 { // before, after, the report
		t.Errorf("%+v", r)
	}
}

// TestTornBatchIsCutOff: more was half written than the next write is long, and
// it could not be cut off at once.
func TestTornBatchIsCutOff(t *testing.T) {
	d := newDisk()
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, open: d.open, pause: time.Hour})
	mustPut(t, l, "before", Crash)
	release := d.block()
	var tickets []Ticket
	for range 20 {
		ticket, err := l.Append(request())
		if err != nil {
			t.Fatal(err)
		}
		tickets = append(tickets, ticket)
	}
	d.mu.Lock()
	d.space, d.noTrunc = 5000, errors.New("truncate fails too")
	d.mu.Unlock()
	release()
	for _, ticket := range tickets {
		if err := ticket.Wait(t.Context(), Crash); err != nil {
			d.set(func() { d.space, d.noTrunc = -1, nil })
		}
	}
	mustPut(t, l, "after", Crash)
	closed(t, l)
	verified(t, dir)
}

// TestCloseAfterALossThatSomebodyWaitedFor: what was to be fsynced is gone, and
// the log is shorter than that ever after.
func TestCloseAfterALossThatSomebodyWaitedFor(t *testing.T) {
	d := newDisk()
	l := open(t, Options{Dir: t.TempDir(), open: d.open, pause: time.Millisecond})
	mustPut(t, l, "before", Power)
	release := d.block()
	d.mu.Lock()
	d.space = 0
	d.mu.Unlock()
	for range 10 {
		ticket, err := l.Append(request())
		if err != nil {
			t.Fatal(err)
		}
		l.wantSynced(ticket.seq)
	}
	release()
	eventually(t, "the write failed", func() bool { return l.Healthy() != nil })
	d.set(func() { d.space = -1 })
	healed(t, l)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Error(err)
	}
}

// TestFsyncIsNoSuccessOfAFailedWrite: the disk takes no more, and fsyncs what it
// has. The loss is still to be told.
func TestFsyncIsNoSuccessOfAFailedWrite(t *testing.T) {
	d := newDisk()
	l := open(t, Options{Dir: t.TempDir(), open: d.open, pause: time.Hour})
	mustPut(t, l, "1", Crash)
	d.set(func() { d.space = 0 })
	if err := put(t, l, "2", Crash); !errors.Is(err, errNoSpace) {
		t.Fatal(err)
	}
	if err := l.waitSynced(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := l.Healthy(); !errors.Is(err, errNoSpace) {
		t.Errorf("health %v", err)
	}
	d.set(func() { d.space = -1 })
}

// TestFailedFsyncThatLostPages: what the disk had accepted is not there any
// more, from the failure on, or only when it is read for the second time. Nothing
// is built upon it.
func TestFailedFsyncThatLostPages(t *testing.T) {
	for how, lose := range map[string]func(f *os.File, whole, size int64) error{
		"zeros": func(f *os.File, whole, size int64) error {
			_, err := f.WriteAt(make([]byte, size-whole), whole)
			return err
		},
		"a line less": func(f *os.File, whole, _ int64) error { return f.Truncate(whole) },
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprint(how, ", late: ", late), func(t *testing.T) { testLostPages(t, lose, late) })
		}
	}
}

func testLostPages(t *testing.T, lose func(f *os.File, whole, size int64) error, late bool) {
	d := newDisk()
	dir := t.TempDir()
	var once sync.Once
	var whole int64
	lost := func() {
		once.Do(func() {
			f, err := os.OpenFile(lastSegment(t, dir), os.O_RDWR, 0)
			if err != nil {
				t.Error(err)
				return
			}
			info, err := f.Stat()
			if err == nil {
				err = lose(f, whole, info.Size())
			}
			if err := errors.Join(err, f.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	l := open(t, Options{Dir: dir, pause: time.Hour, open: func(name string, flag int) (file, error) {
		if late && strings.HasSuffix(name, rewriteSuffix) {
			lost()
		}
		return d.open(name, flag)
	}})
	mustPut(t, l, "1", Power)
	info, err := os.Stat(lastSegment(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	whole = info.Size()
	d.set(func() {
		d.noSync = errors.New("input/output error")
		if !late {
			d.slow = lost
		}
	})
	if put(t, l, "2", Power) == nil {
		t.Fatal("fsynced")
	}
	d.set(func() { d.noSync = nil })
	for _, s := range []Survive{Power, Crash} {
		if put(t, l, "3", s) == nil {
			t.Error("an event is on record behind one that the disk lost")
		}
	}
	if l.Healthy() == nil || l.Stats().Synced != 1 {
		t.Errorf("health %v, %+v", l.Healthy(), l.Stats())
	}
}

// TestNewFolderIsFsynced: so are the names of the folders that were made for it.
func TestNewFolderIsFsynced(t *testing.T) {
	dir := t.TempDir()
	var synced []string
	o := Options{Dir: filepath.Join(dir, "data", "audit"), syncDir: func(dir string) error {
		synced = append(synced, dir)
		return syncDir(dir)
	}}
	closed(t, open(t, o))
	for _, want := range []string{dir, filepath.Join(dir, "data"), o.Dir} {
		if !slices.Contains(synced, want) {
			t.Errorf("%s is not fsynced: %q", want, synced)
		}
	}
	synced = nil
	o.syncDir = func(string) error { return errors.New("input/output error") }
	o.Dir = filepath.Join(dir, "other", "audit")
	if l, err := Open(o); err == nil {
		closed(t, l)
		t.Error("it starts in a folder whose name may get lost")
	}
}

// TestNamesAreFsynced: a file's name is a thing of its own, which power takes
// away as it takes lines.
func TestNamesAreFsynced(t *testing.T) {
	d := newDisk()
	var fail error
	count := 0
	l := open(t, Options{Dir: t.TempDir(), open: d.open, pause: time.Hour, Segment: 1, syncDir: func(dir string) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		count++
		return errors.Join(fail, syncDir(dir))
	}})
	names := func() (n int) {
		d.set(func() { n = count })
		return n
	}
	mustPut(t, l, "1", Power)
	before := names()
	mustPut(t, l, "2", Power)
	if names() != before+1 {
		t.Error("a new segment's name is not fsynced")
	}
	d.set(func() { fail = errors.New("input/output error") })
	mustPut(t, l, "3", Power)
	if list, err := segments(l.opt.Dir); err != nil || len(list) != 2 {
		t.Errorf("a segment whose name may get lost is written to: %v, %v", list, err)
	}
	d.set(func() { d.noSync = errors.New("input/output error") })
	if put(t, l, "4", Power) == nil {
		t.Fatal("fsynced")
	}
	d.set(func() { d.noSync = nil })
	if put(t, l, "5", Power) == nil {
		t.Error("a segment that was written anew counts, and its name may get lost")
	}
	d.set(func() { fail = nil })
	mustPut(t, l, "6", Power)
	closed(t, l)
	verified(t, l.opt.Dir)
}

// TestFailedFsyncIsNotForgotten: a later fsync of the same file must not count.
func TestFailedFsyncIsNotForgotten(t *testing.T) {
	d := newDisk()
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, open: d.open, pause: time.Hour})
	mustPut(t, l, "1", Power)
	before, err := os.Stat(lastSegment(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("input/output error")
	d.set(func() { d.noSync = broken })
	if err := put(t, l, "2", Power); !errors.Is(err, broken) {
		t.Errorf("with a broken fsync: %v", err)
	}
	if err := put(t, l, "3", Crash); !errors.Is(err, broken) {
		t.Errorf("crash, on a disk that cannot fsync: %v", err)
	}
	if l.Stats().Synced != 1 || l.Healthy() == nil {
		t.Errorf("%+v", l.Stats())
	}
	d.set(func() { d.noSync = nil })
	mustPut(t, l, "4", Power)
	after, err := os.Stat(lastSegment(t, dir))
	if err != nil || os.SameFile(before, after) {
		t.Errorf("the segment was fsynced again instead of written anew (%v)", err)
	}
	mustPut(t, l, "5", Power)
	closed(t, l)
	var got []string
	for _, e := range events(t, dir) {
		got = append(got, e.Record)
	}
	if fmt.Sprint(got) != "[1 2 4  5]" { // 2 was written: only its fsync failed
		t.Errorf("%q", got)
	}
	verified(t, dir)
}

func TestHealsWithoutTraffic(t *testing.T) {
	d := newDisk()
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, open: d.open, pause: time.Millisecond})
	broken := errors.New("input/output error")
	d.set(func() { d.noSync = broken })
	if err := put(t, l, "1", Power); !errors.Is(err, broken) {
		t.Error(err)
	}
	d.set(func() { d.noSync = nil })
	healed(t, l)
	mustPut(t, l, "2", Power)
	closed(t, l)
	verified(t, dir)
}

// TestOneFsyncServesManyWaiters counts the calls.
func TestOneFsyncServesManyWaiters(t *testing.T) {
	d := newDisk()
	l := open(t, Options{Dir: t.TempDir(), open: d.open})
	mustPut(t, l, "first", Power)
	before := d.syncs.Load()
	started, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d.set(func() {
		d.slow = func() { once.Do(func() { close(started); <-release }) }
	})
	var wg sync.WaitGroup
	wg.Go(func() { mustPut(t, l, "holds the disk", Power) })
	<-started
	const waiters = 64
	for i := range waiters {
		ticket, err := l.Append(request())
		if err != nil {
			t.Fatal(err)
		}
		l.wantSynced(ticket.seq)
		wg.Go(func() {
			if err := ticket.Wait(t.Context(), Power); err != nil {
				t.Errorf("waiter %d: %v", i, err)
			}
		})
	}
	close(release)
	wg.Wait()
	if n := d.syncs.Load() - before; n != 2 {
		t.Errorf("%d fsyncs for 1 and then %d waiters", n, waiters)
	}
}

// TestPowerIsFsyncedFirst: no waiter returns before an fsync that began after
// its line was written.
func TestPowerIsFsyncedFirst(t *testing.T) {
	d := newDisk()
	l := open(t, Options{Dir: t.TempDir(), open: d.open, Segment: 4000})
	for i := range 50 {
		before := d.syncs.Load()
		mustPut(t, l, fmt.Sprint(i), Power)
		if d.syncs.Load() == before {
			t.Fatal("returned without an fsync")
		}
	}
	before := d.syncs.Load()
	mustPut(t, l, "crash", Crash)
	if d.syncs.Load() > before+1 { // one at most, of a rotation
		t.Error("crash fsyncs")
	}
}

// TestNoFileDescriptorsLeft: F19. Without a new segment the old one goes on,
// and a later rotation makes up for it.
func TestNoFileDescriptorsLeft(t *testing.T) {
	d := newDisk()
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, open: d.open, Segment: 2000})
	mustPut(t, l, "first", Crash)
	d.set(func() { d.noOpen = errors.New("too many open files") })
	for i := range 40 {
		mustPut(t, l, fmt.Sprint("without ", i), Power)
	}
	if list, err := segments(dir); err != nil || len(list) != 1 || l.Healthy() != nil {
		t.Errorf("%d segments, %v, health %v", len(list), err, l.Healthy())
	}
	d.set(func() { d.noOpen = nil })
	for i := range 20 {
		mustPut(t, l, fmt.Sprint("with ", i), Crash)
	}
	if list, err := segments(dir); err != nil || len(list) < 2 {
		t.Errorf("%d segments, %v", len(list), err)
	}
	closed(t, l)
	verified(t, dir)
}

// A gatedFile lets a test into the middle of an fsync.
type gatedFile struct {
	file
	sync func()
}

func (f gatedFile) Sync() error {
	f.sync()
	return f.file.Sync()
}

// TestRotationWakesWhoWaitsForAnFsync: a new segment is begun while somebody
// waits for the last line of the old one. The fsync that ends the old one is
// the one that they wait for; there is no other.
func TestRotationWakesWhoWaitsForAnFsync(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	l := open(t, Options{Dir: t.TempDir(), Segment: 1, open: func(name string, flag int) (file, error) {
		f, err := os.OpenFile(name, flag, 0o600)
		return gatedFile{f, func() {
			once.Do(func() {
				close(entered)
				<-leave
			})
		}}, err
	}})
	mustPut(t, l, "first", Crash)
	second, err := l.Append(request())
	if err != nil {
		t.Fatal(err)
	}
	<-entered // in the rotation's fsync
	done := make(chan error, 1)
	go func() { done <- l.waitSynced(t.Context(), 1) }()
	eventually(t, "it waits", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.want == 1
	})
	close(leave)
	if err := second.Wait(t.Context(), Crash); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits for ever for what is fsynced")
	}
}
