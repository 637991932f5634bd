package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

const day = 24 * time.Hour

// aged makes a folder whose events are one day apart, the last one at noon.
func aged(t testing.TB, o Options, n int) (now func() time.Time) {
	t.Helper()
	var at atomic.Int64 // days before noon
	at.Store(int64(n))
	o.Now = func() time.Time { return noon.Add(-time.Duration(at.Load()) * day) }
	o.Segment = 4000
	l := open(t, o)
	for range n {
		at.Add(-1)
		putNow(t, l)
	}
	closed(t, l)
	return func() time.Time { return noon }
}

// putNow appends an event of the ledger's own time.
func putNow(t testing.TB, l *Ledger) {
	t.Helper()
	e := request()
	e.Time = time.Time{}
	ticket, err := l.Append(e)
	if err == nil {
		err = ticket.Wait(t.Context(), Crash)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func first(t testing.TB, dir string) uint64 {
	t.Helper()
	list, err := segments(dir)
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	return list[0]
}

// retired are the announcements of a folder: "from-to".
func retired(t testing.TB, dir string) []string {
	t.Helper()
	var list []string
	for _, e := range events(t, dir) {
		if e.System != nil && e.System.Event == systemRetention {
			list = append(list, e.System.Detail["from"]+"-"+e.System.Detail["to"])
		}
	}
	return list
}

func TestRetentionDeletesWhatIsOld(t *testing.T) {
	by, keys := newKey(t)
	dir := t.TempDir()
	now := aged(t, Options{Dir: dir, Signer: by}, 40)
	before, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	// What goes is every closed segment whose last event is 20 days old.
	var want []string
	var left uint64
	for i, f := range before[:len(before)-1] {
		if last := before[i+1] - 1; last <= 20 {
			want = append(want, fmt.Sprintf("%d-%d", f, last))
			left = before[i+1]
		}
	}
	compress(t, dir, before[1])
	l := open(t, Options{Dir: dir, Signer: by, Retention: 20 * day, Now: now, Segment: 4000})
	eventually(t, "the old ones go", func() bool { return first(t, dir) == left })
	closed(t, l)
	if got := retired(t, dir); !slices.Equal(got, want) {
		t.Errorf("announced %v, want %v", got, want)
	}
	r := sound(t, dir, keys)
	if r.First != left || !r.Anchored || r.Retired != left-1 {
		t.Errorf("%+v", r)
	}
	numbers, err := noteNumbers(dir)
	if err != nil || len(numbers) == 0 || numbers[0] != before[slices.Index(before, left)-1] || len(numbers) > len(before)-len(want)+1 {
		t.Errorf("checkpoints of %v are left, %v", numbers, err)
	}
	// Without the announcement's segments' checkpoint, the event still says it.
	if err := os.Remove(filepath.Join(dir, noteName(numbers[0]))); err != nil {
		t.Fatal(err)
	}
	sound(t, dir, keys)
	// One that somebody else took is named.
	if err := os.Remove(filepath.Join(dir, segmentName(left))); err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		if err := os.Remove(filepath.Join(dir, noteName(n))); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := failing(t, dir, keys); err == nil || !strings.Contains(err.Error(), "neither a retention event nor a checkpoint") {
		t.Error(err)
	}
}

func TestRetentionLeavesTheLastSegment(t *testing.T) {
	dir := t.TempDir()
	now := aged(t, Options{Dir: dir}, 3)
	l := open(t, Options{Dir: dir, Retention: time.Hour, Now: func() time.Time { return now().Add(1000 * day) }})
	l.retire.poke()
	mustPut(t, l, "r", Crash)
	closed(t, l)
	if r := verified(t, dir); r.First != 1 || r.Last != 4 {
		t.Errorf("%+v", r)
	}
}

// TestRetentionAfterRotation: a ledger that runs for long.
func TestRetentionAfterRotation(t *testing.T) {
	by, keys := newKey(t)
	dir := t.TempDir()
	var days atomic.Int64
	now := func() time.Time { return noon.Add(time.Duration(days.Load()) * day) }
	l := open(t, Options{Dir: dir, Signer: by, Checkpoint: time.Millisecond, Retention: 10 * day, Segment: 4000, Now: now, passed: now})
	for range 100 {
		days.Add(1)
		putNow(t, l)
	}
	eventually(t, "the old ones go", func() bool { return first(t, dir) > 80 })
	closed(t, l)
	sound(t, dir, keys)
}

func TestRetentionWaitsForTheSink(t *testing.T) {
	dir := t.TempDir()
	sink := &fakeSink{down: errors.New("unavailable")}
	now := aged(t, Options{Dir: dir}, 40)
	l := open(t, Options{Dir: dir, Sink: sink, Retention: day, Now: now, Segment: 4000})
	mustPut(t, l, "r", Crash)
	closeNow(l)
	if first(t, dir) != 1 {
		t.Fatal("what was not shipped was deleted")
	}
	sink.set(func() { sink.down = nil })
	l = open(t, Options{Dir: dir, Sink: sink, Retention: day, Now: now, Segment: 4000})
	mustPut(t, l, "r", Machine)
	l.retire.poke()
	eventually(t, "what was shipped goes", func() bool { return first(t, dir) > 35 })
	mustPut(t, l, "more", Machine)
	closed(t, l)
	verified(t, dir)
	// The resume point may lie in a segment that is gone.
	l = open(t, Options{Dir: dir, Sink: sink, Now: now})
	mustPut(t, l, "again", Machine)
	closed(t, l)
}

// TestRetentionIsOnRecordFirst: what the disk does not fsync may be gone with
// power, and then nothing would say where the beginning went.
func TestRetentionIsOnRecordFirst(t *testing.T) {
	dir := t.TempDir()
	now := aged(t, Options{Dir: dir}, 40)
	d := newDisk()
	broken := errors.New("input/output error")
	var noName error
	l := open(t, Options{Dir: dir, open: d.open, Now: now, Segment: 1 << 20, pause: time.Hour, syncDir: func(dir string) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		return errors.Join(noName, syncDir(dir))
	}})
	l.opt.Retention = day
	d.set(func() { d.noSync = broken })
	r := newRetireKeeper(l)
	if err := r.due(); !errors.Is(err, broken) || first(t, dir) != 1 {
		t.Errorf("%v, and the log begins with %d", err, first(t, dir))
	}
	d.set(func() { d.noSync = nil })
	mustPut(t, l, "healed", Power)
	d.set(func() { noName = broken })
	if err := r.due(); !errors.Is(err, broken) {
		t.Errorf("a deletion that power may undo: %v", err)
	}
	d.set(func() { noName = nil })
	if err := r.due(); err != nil || first(t, dir) < 30 {
		t.Errorf("%v, and the log begins with %d", err, first(t, dir))
	}
	closed(t, l)
	if r := verified(t, dir); r.Retired != r.First-1 {
		t.Errorf("%+v", r)
	}
}

// TestRetentionWaitsForTheLastLine: all of a segment but its last line is
// shipped.
func TestRetentionWaitsForTheLastLine(t *testing.T) {
	dir := t.TempDir()
	now := aged(t, Options{Dir: dir}, 40)
	l := open(t, Options{Dir: dir, Sink: &fakeSink{down: errors.New("unavailable")}, Now: now, Segment: 4000})
	defer closeNow(l)
	l.opt.Retention = day
	r := newRetireKeeper(l)
	list, err := segments(dir)
	if err != nil || len(list) < 3 {
		t.Fatal(list, err)
	}
	for _, c := range []struct{ shipped, first uint64 }{{list[1] - 2, 1}, {list[1] - 1, list[1]}} {
		l.mu.Lock()
		l.ship.shipped = c.shipped
		l.mu.Unlock()
		if err := r.due(); err != nil {
			t.Fatal(err)
		}
		if got := first(t, dir); got != c.first {
			t.Errorf("shipped up to %d: the log begins with %d instead of %d", c.shipped, got, c.first)
		}
	}
}

// closeNow closes without waiting for the sink.
func closeNow(l *Ledger) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.Close(ctx)
}

// TestResumePointInDeletedSegment: shipping ended with the last line of a
// segment that retention then took.
func TestResumePointInDeletedSegment(t *testing.T) {
	dir := t.TempDir()
	sink := &fakeSink{}
	now := aged(t, Options{Dir: dir, Sink: sink}, 20)
	list, err := segments(dir)
	if err != nil || len(list) < 3 {
		t.Fatal(list, err)
	}
	size, err := textSize(dir, list[0])
	if err != nil {
		t.Fatal(err)
	}
	r, err := readResume(dir)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"chain":%q,"seq":%d,"segment":1,"offset":%d}`, r.Chain, list[1]-1, size)
	if err := os.WriteFile(filepath.Join(dir, resumeFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, segmentName(1))); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{Dir: dir, Sink: sink, Now: now})
	mustPut(t, l, "r", Machine)
	closed(t, l)
}

// TestRetentionKeepsWhatItCannotRead, nor what it cannot delete.
func TestRetentionKeepsWhatItCannotRead(t *testing.T) {
	for what, spoil := range map[string]func(t *testing.T, dir string, list []uint64) func(string) error{
		"a changed line": func(t *testing.T, dir string, list []uint64) func(string) error {
			name := filepath.Join(dir, segmentName(1))
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, bytes.Replace(data, []byte(`"effect":"allow"`), []byte(`"effect":"denyy"`), 1), 0o600); err != nil {
				t.Fatal(err)
			}
			return nil
		},
		"a changed last line": func(t *testing.T, dir string, list []uint64) func(string) error {
			name := filepath.Join(dir, segmentName(1))
			data := readFile(t, name)
			i := bytes.LastIndex(data, []byte(`"effect":"allow"`))
			data[i+len(`"effect":"`)] = 'A'
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
			return nil
		},
		"half a line behind its last": func(t *testing.T, dir string, list []uint64) func(string) error {
			name := filepath.Join(dir, segmentName(1))
			if err := os.WriteFile(name, append(readFile(t, name), `{"type":"deci`...), 0o600); err != nil {
				t.Fatal(err)
			}
			return nil
		},
		"a missing segment": func(t *testing.T, dir string, list []uint64) func(string) error {
			if err := os.Remove(filepath.Join(dir, segmentName(list[1]))); err != nil {
				t.Fatal(err)
			}
			return nil
		},
		"a disk that fails": func(*testing.T, string, []uint64) func(string) error {
			return func(string) error { return errNoSpace }
		},
		"half of a compressed one": func(t *testing.T, dir string, list []uint64) func(string) error {
			compress(t, dir, 1)
			name := filepath.Join(dir, segmentName(1)+gzipSuffix)
			if err := os.Truncate(name, 300); err != nil {
				t.Fatal(err)
			}
			return nil
		},
	} {
		dir := t.TempDir()
		now := aged(t, Options{Dir: dir}, 20)
		list, err := segments(dir)
		if err != nil {
			t.Fatal(err)
		}
		remove := spoil(t, dir, list)
		l := open(t, Options{Dir: dir, Retention: day, Now: now, remove: remove})
		eventually(t, what+" is told", func() bool { return l.Stats().RetentionError != nil })
		mustPut(t, l, "goes on", Crash)
		closed(t, l)
		if first(t, dir) != 1 {
			t.Errorf("%s: the oldest segment is gone", what)
		}
	}
}

// TestVerifyWhileRetentionRuns reads a log that is deleted from under it.
func TestVerifyWhileRetentionRuns(t *testing.T) {
	by, keys := newKey(t)
	dir := t.TempDir()
	now := aged(t, Options{Dir: dir, Signer: by}, 60)
	var l *Ledger
	var once sync.Once
	r, err := Verification{Keys: keys, Progress: func(n int) {
		if n == 3 { // within the first segment
			once.Do(func() {
				l = open(t, Options{Dir: dir, Signer: by, Retention: 10 * day, Now: now, Segment: 4000})
				eventually(t, "the old ones go", func() bool { return first(t, dir) > 40 })
			})
		}
	}}.Dir(t.Context(), dir)
	if err != nil || r.Failure() != nil || r.Reports[0].First <= 40 {
		t.Errorf("%+v, %v", r, err)
	}
	closed(t, l)
	sound(t, dir, keys)
}

// TestReadersGoOnWhereRetentionDeleted: what was not read before it went is
// passed over.
func TestReadersGoOnWhereRetentionDeleted(t *testing.T) {
	dir := t.TempDir()
	aged(t, Options{Dir: dir}, 40)
	list, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	var seqs []uint64
	for l, err := range Lines(dir) {
		if err != nil {
			t.Fatal(err)
		}
		if seqs = append(seqs, l.Seq); l.Seq == 2 {
			for _, f := range list[:4] {
				if err := os.Remove(filepath.Join(dir, segmentName(f))); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	// The rest of the segment that was open, then the oldest that is left.
	if i := slices.Index(seqs, list[4]); i < 0 || seqs[i-1] != list[1]-1 || seqs[len(seqs)-1] != 40 {
		t.Errorf("%v", seqs)
	}
	// A cursor that rests holds nothing open.
	c := cursor{dir: dir}
	c.start(list[1])
	c.last = list[1]
	if l, err := c.next(); err != nil || l.Seq != list[4] {
		t.Errorf("%d, %v", l.Seq, err)
	}
	c.release()
	s := cursor{dir: dir, strict: true, last: list[1]}
	s.start(list[1])
	if _, err := s.next(); !errors.Is(err, errRetired) {
		t.Error(err)
	}
}

// retireEnv makes the test binary a ledger that dies between the announcement
// and the deletion: its value is the folder.
const retireEnv = "SIDEGATE_RETIRE_CHILD"

func retireAndDie(dir, key string) {
	by, err := note.NewSigner(key)
	if err == nil {
		_, err = Open(Options{Dir: dir, Signer: by, Retention: 10 * day, Segment: 4000, Now: func() time.Time { return noon },
			remove: func(name string) error {
				if strings.HasSuffix(name, segmentSuffix) {
					self, err := os.FindProcess(os.Getpid())
					if err == nil {
						err = self.Kill()
					}
					fmt.Println(err)
					select {}
				}
				return os.Remove(name)
			}})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	select {}
}

func TestKilledBetweenAnnouncementAndDeletion(t *testing.T) {
	secret, public, err := note.GenerateKey(zeroes{}, "test")
	if err != nil {
		t.Fatal(err)
	}
	by, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	keys := note.VerifierList(v)
	dir := t.TempDir()
	now := aged(t, Options{Dir: dir, Signer: by}, 40)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, exe)
		cmd.Env = append(os.Environ(), retireEnv+"="+dir, retireEnv+"_KEY="+secret)
		out, err := cmd.Output()
		var died *exec.ExitError
		if !errors.As(err, &died) || ctx.Err() != nil || died.ExitCode() == 1 {
			t.Fatalf("%v: %s", err, out)
		}
		if first(t, dir) != 1 {
			t.Fatal("it is gone already")
		}
		sound(t, dir, keys)
	}
	l := open(t, Options{Dir: dir, Signer: by, Retention: 10 * day, Segment: 4000, Now: now})
	eventually(t, "it is done again", func() bool { return first(t, dir) > 20 })
	closed(t, l)
	sound(t, dir, keys)
	got := retired(t, dir)
	if len(got) < 4 || got[0] != got[1] || got[1] != got[2] || got[2] == got[3] {
		t.Errorf("announced: %v", got)
	}
	for _, s := range got {
		_, to, _ := strings.Cut(s, "-")
		if n, err := strconv.ParseUint(to, 10, 64); err != nil || n >= first(t, dir) {
			t.Errorf("%s was announced and is there", s)
		}
	}
}

// zeroes is a source of a key that is the same each time.
type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestRetentionNamesAnEventOfTheFuture: a clock was a year ahead for a while.
func TestRetentionNamesAnEventOfTheFuture(t *testing.T) {
	var now atomic.Int64 // days after noon
	o := Options{Dir: t.TempDir(), Segment: 1, Retention: 30 * day, Now: func() time.Time { return noon.Add(time.Duration(now.Load()) * day) }}
	now.Store(365)
	l := open(t, o)
	putNow(t, l)
	now.Store(40)
	putNow(t, l)
	eventually(t, "it says why it deletes nothing", func() bool {
		err := l.Stats().RetentionError
		return err != nil && strings.Contains(err.Error(), "the clock was wrong")
	})
	closed(t, l)
}

// TestClockPutAhead: what was written a moment ago is not deleted as old, and
// whoever put the clock there has a day.
func TestClockPutAhead(t *testing.T) {
	var j clockJump
	for i, at := range []struct {
		wall, passed time.Duration
		held         bool
	}{
		{0, 0, false},
		{2 * time.Hour, 2 * time.Hour, false},
		{365 * day, 3 * time.Hour, true},
		{365*day + time.Hour, 4 * time.Hour, true},
		{0, 5 * time.Hour, true}, // put right
		{20 * time.Hour, 25 * time.Hour, true},
		{23 * time.Hour, 28 * time.Hour, false},
		{23*time.Hour + 59*time.Minute, 28 * time.Hour, false}, // a little is nothing
	} {
		if err := j.look(noon.Add(at.wall), noon.Add(at.passed)); (err != nil) != at.held {
			t.Errorf("look %d: %v", i, err)
		}
	}

	// The first look is at the start: a jump right behind it is one.
	if r := newRetireKeeper(&Ledger{opt: Options{}.withDefaults()}); r.jump.look(time.Now().Add(365*day), time.Now()) == nil {
		t.Error("the start did not look at the clock")
	}

	dir := t.TempDir()
	var ahead atomic.Int64
	l := open(t, Options{Dir: dir, Retention: 10 * day, Segment: 4000, Now: func() time.Time { return noon.Add(time.Duration(ahead.Load())) }})
	for range 30 {
		putNow(t, l)
	}
	ahead.Store(int64(365 * day))
	putNow(t, l)
	l.retire.poke()
	eventually(t, "it is told", func() bool { return l.Stats().RetentionError != nil })
	closed(t, l)
	if r := verified(t, dir); r.First != 1 {
		t.Errorf("%+v", r)
	}
}

// TestRetentionReadsTheEndOfWhatIsYoung: the time of a segment's last event is
// read by itself where that is the one that all of it would give.
func TestRetentionReadsTheEndOfWhatIsYoung(t *testing.T) {
	dir := t.TempDir()
	now := aged(t, Options{Dir: dir}, 20)
	list, err := segments(dir)
	if err != nil || len(list) < 3 {
		t.Fatal(list, err)
	}
	l := open(t, Options{Dir: dir, Now: now})
	r := newRetireKeeper(l)
	for i := 0; i+1 < len(list); i++ {
		last, _, err := r.read(list[i], list[i+1])
		if err != nil {
			t.Fatal(err)
		}
		if end, ok := lastTime(dir, list[i], list[i+1]); !ok || !end.Equal(last.time) {
			t.Errorf("segment %d ends at %v, and its end says %v, %v", list[i], last.time, end, ok)
		}
	}
	closed(t, l)
	name := filepath.Join(dir, segmentName(list[0]))
	whole := readFile(t, name)
	for what, text := range map[string][]byte{
		"nothing":                     nil,
		"no line feed":                whole[:len(whole)-1],
		"half a line behind its last": append(bytes.Clone(whole), `{"type":"deci`...),
		"an empty line behind":        append(bytes.Clone(whole), '\n'),
		"no last line":                whole[:bytes.LastIndexByte(whole[:len(whole)-1], '\n')+1],
		"a last line that is longer":  append(append(whole[:len(whole)-2:len(whole)-2], strings.Repeat(" ", readSize)...), "}\n"...),
	} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if end, ok := lastTime(dir, list[0], list[1]); ok {
			t.Errorf("%s: it ends at %v", what, end)
		}
	}
	if err := os.WriteFile(name, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	compress(t, dir, list[0])
	if end, ok := lastTime(dir, list[0], list[1]); ok {
		t.Errorf("compressed, it ends at %v", end)
	}
}
