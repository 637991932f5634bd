package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// contents are the files of a folder.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, e := range entries {
		if !e.Type().IsRegular() || e.Name() == lockName {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		m[e.Name()] = string(data)
	}
	return m
}

// spoil changes a byte of the n-th line of a segment.
func spoil(t testing.TB, dir string, first uint64, n int) {
	t.Helper()
	name := filepath.Join(dir, segmentName(first))
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	lines[n-1] = bytes.Replace(lines[n-1], []byte(`"effect":"allow"`), []byte(`"effect":"allot"`), 1)
	if err := os.WriteFile(name, bytes.Join(lines, nil), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRepairOfAWholeLogChangesNothing(t *testing.T) {
	by, keys := newKey(t)
	dir := t.TempDir()
	sink := &fakeSink{}
	fill(t, Options{Dir: dir, Signer: by, Segment: 4000, Sink: sink}, 10)
	before := contents(t, dir)
	for _, k := range []RepairOptions{{Dir: dir}, {Dir: dir, Keys: keys}, {Dir: dir, Sink: sink}} {
		r, err := RepairFolder(t.Context(), k)
		if err != nil || r.Damaged {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if after := contents(t, dir); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Error("it changed something")
	}
	l := open(t, Options{Dir: dir})
	if _, err := RepairFolder(t.Context(), RepairOptions{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("beside a gateway: %v", err)
	}
	closed(t, l)
	none := t.TempDir()
	if _, err := RepairFolder(t.Context(), RepairOptions{Dir: none}); err == nil || len(contents(t, none)) != 0 {
		t.Errorf("a folder without a log: %v", err)
	}
}

// TestRepairKeepsTheEvidence in every state that a start refuses, and lets the
// start succeed.
func TestRepairKeepsTheEvidence(t *testing.T) {
	for what, c := range map[string]struct {
		spoil func(t *testing.T, dir string, list []uint64)
		seq   uint64 // vouched for
	}{
		"a changed line in the newest segment": {func(t *testing.T, dir string, list []uint64) {
			spoil(t, dir, list[len(list)-1], 1)
		}, 0},
		"a changed line in an older one": {func(t *testing.T, dir string, list []uint64) { spoil(t, dir, 1, 2) }, 1},
		"a removed end": {func(t *testing.T, dir string, list []uint64) {
			if err := os.Truncate(filepath.Join(dir, segmentName(list[len(list)-1])), 0); err != nil {
				t.Fatal(err)
			}
		}, 0},
		"no segments": {func(t *testing.T, dir string, list []uint64) {
			for _, f := range list {
				if err := os.Remove(filepath.Join(dir, segmentName(f))); err != nil {
					t.Fatal(err)
				}
			}
		}, 0},
		"another log": {func(t *testing.T, dir string, list []uint64) {
			for _, f := range list {
				if err := os.Remove(filepath.Join(dir, segmentName(f))); err != nil {
					t.Fatal(err)
				}
			}
			other := t.TempDir()
			fill(t, Options{Dir: other}, 30)
			data, err := os.ReadFile(filepath.Join(other, segmentName(1)))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, segmentName(1)), data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, 30},
	} {
		t.Run(what, func(t *testing.T) {
			by, keys := newKey(t)
			dir := t.TempDir()
			sink := &fakeSink{}
			fill(t, Options{Dir: dir, Signer: by, Segment: 4000, Sink: sink}, 14)
			list, err := segments(dir)
			if err != nil {
				t.Fatal(err)
			}
			c.spoil(t, dir, list)
			before := contents(t, dir)
			if what != "a changed line in an older one" {
				if l, err := Open(Options{Dir: dir, Signer: by, Sink: sink}); err == nil {
					closeNow(l)
					t.Error("it starts all the same")
				}
			}
			r, err := RepairFolder(t.Context(), RepairOptions{Dir: dir})
			if err != nil || !r.Damaged || c.seq != 0 && r.Seq != c.seq {
				t.Fatalf("%+v, %v", r, err)
			}
			evidence := contents(t, filepath.Join(dir, r.Evidence))
			report := evidence[evidenceText]
			delete(evidence, evidenceText)
			if fmt.Sprint(evidence) != fmt.Sprint(before) {
				t.Errorf("the evidence holds %q, and the folder held %q", keysOf(evidence), keysOf(before))
			}
			for name := range before {
				if !strings.Contains(report, name) {
					t.Errorf("the report does not name %s:\n%s", name, report)
				}
			}
			fill(t, Options{Dir: dir, Signer: by, Sink: sink}, 2)
			s := sound(t, dir, keys)
			if s.Chain != r.NewChain || s.Last != 3 {
				t.Errorf("%+v", s)
			}
			e := events(t, dir)[0]
			if e.System == nil || e.System.Event != "repair" || e.System.Detail["evidence"] != r.Evidence || e.System.Detail["chain"] != r.Chain || e.System.Detail["sha256"] != r.Hash {
				t.Errorf("it begins with %+v", e.System)
			}
			if r, err := RepairFolder(t.Context(), RepairOptions{Dir: dir, Keys: keys}); err != nil || r.Damaged {
				t.Errorf("again: %+v, %v", r, err)
			}
		})
	}
}

func keysOf(m map[string]string) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// TestRepairThatStopped ends after each of its renames, as a kill does: the
// gateway does not start, and another call gets to the end.
func TestRepairThatStopped(t *testing.T) {
	died := errors.New("killed")
	for stop := range 8 {
		dir := t.TempDir()
		fill(t, Options{Dir: dir, Segment: 4000}, 20)
		spoil(t, dir, 1, 2)
		before := contents(t, dir)
		n := 0
		o := RepairOptions{Dir: dir, rename: func(from, to string) error {
			if n++; n > stop {
				return died
			}
			return os.Rename(from, to)
		}}
		r, err := RepairFolder(t.Context(), o)
		if stop < len(before) {
			if !errors.Is(err, died) {
				t.Fatalf("after %d: %v", stop, err)
			}
			if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "run it again") {
				t.Fatalf("after %d it starts: %v", stop, err)
			}
			if _, err := VerifyDir(t.Context(), dir); err == nil {
				t.Fatal("it verifies")
			}
			if r, err = RepairFolder(t.Context(), RepairOptions{Dir: dir}); err != nil || !r.Resumed {
				t.Fatalf("after %d: %+v, %v", stop, r, err)
			}
		}
		evidence := contents(t, filepath.Join(dir, r.Evidence))
		delete(evidence, evidenceText)
		if fmt.Sprint(evidence) != fmt.Sprint(before) {
			t.Errorf("after %d the evidence holds %q", stop, keysOf(evidence))
		}
		fill(t, Options{Dir: dir}, 1)
		if r := verified(t, dir); r.Last != 2 {
			t.Errorf("%+v", r)
		}
	}
}

// TestRepairKilledAtTheEnd: the new chain is there, and the repair file, too.
func TestRepairKilledAtTheEnd(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir, Segment: 4000}, 20)
	spoil(t, dir, 1, 2)
	var plan []byte
	r, err := RepairFolder(t.Context(), RepairOptions{Dir: dir, rename: func(from, to string) (err error) {
		if plan == nil {
			if plan, err = os.ReadFile(filepath.Join(dir, repairFile)); err != nil {
				return err
			}
		}
		return os.Rename(from, to)
	}})
	if err != nil {
		t.Fatal(err)
	}
	before, evidence := contents(t, dir), contents(t, filepath.Join(dir, r.Evidence))
	if err := os.WriteFile(filepath.Join(dir, repairFile), plan, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := RepairFolder(t.Context(), RepairOptions{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(before) != fmt.Sprint(contents(t, dir)) || fmt.Sprint(evidence) != fmt.Sprint(contents(t, filepath.Join(dir, r.Evidence))) {
		t.Error("it took the new chain for the old one")
	}
}

// TestRepairStoresWhatWasNotShipped: whole lines, each once, and one that the
// sink does not take as its hash.
func TestRepairStoresWhatWasNotShipped(t *testing.T) {
	dir := t.TempDir()
	sink := &fakeSink{}
	fill(t, Options{Dir: dir, Sink: sink, Segment: 20_000}, 10)
	fill(t, Options{Dir: dir, Segment: 20_000}, 150)
	name := lastSegment(t, dir)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	lines[1] = append(bytes.Repeat([]byte("x"), 2*MaxLine), '\n')
	lines[2] = []byte("half a line\n")
	if err := os.WriteFile(name, bytes.Join(lines, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	o := RepairOptions{Dir: dir, Sink: sink}
	sink.set(func() { sink.down = errors.New("unavailable") })
	before := contents(t, dir)
	if _, err := RepairFolder(t.Context(), o); err == nil || fmt.Sprint(before) != fmt.Sprint(contents(t, dir)) {
		t.Errorf("with the sink away: %v", err)
	}
	sink.set(func() {
		sink.down = nil
		sink.each = func(l *Line) error {
			if l.Seq == 77 {
				return ErrUnstorable
			}
			return nil
		}
	})
	r, err := RepairFolder(t.Context(), o)
	if err != nil || r.Stored != 147 || r.Stubs != 1 || r.Unreadable != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if len(sink.stored) != 158 {
		t.Errorf("the sink has %d", len(sink.stored))
	}
}

// FuzzRepairPlan: whatever the file says, nothing outside the folder is moved.
func FuzzRepairPlan(f *testing.F) {
	f.Add([]byte(`{"evidence":"damaged-1","files":["a"],"new_chain":"c"}`))
	f.Add([]byte(`{"evidence":"damaged-1/../..","files":["../x"],"new_chain":"c"}`))
	f.Add([]byte(`{"evidence":"damaged-..","files":[".."],"new_chain":"c"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, repairFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := readPlan(dir)
		if err != nil {
			return
		}
		for _, name := range append(p.Files, p.Evidence) {
			if at := filepath.Join(dir, name); filepath.Dir(at) != dir {
				t.Errorf("%q is %s", name, at)
			}
		}
	})
}

// TestRepairTwice: what an earlier repair kept stays where it is, and the later
// one, of the same second, has a folder of its own.
func TestRepairTwice(t *testing.T) {
	dir := t.TempDir()
	var kept []map[string]string
	var folders []string
	for range 2 {
		fill(t, Options{Dir: dir}, 4)
		spoil(t, dir, 1, 3)
		r, err := RepairFolder(t.Context(), RepairOptions{Dir: dir, Now: func() time.Time { return noon }})
		if err != nil || !r.Damaged {
			t.Fatalf("%+v, %v", r, err)
		}
		folders = append(folders, filepath.Join(dir, r.Evidence))
		kept = append(kept, contents(t, folders[len(folders)-1]))
	}
	for i, folder := range folders {
		if got := contents(t, folder); len(got) < 2 || fmt.Sprint(got) != fmt.Sprint(kept[i]) {
			t.Errorf("%s: %q", folder, got)
		}
	}
	if folders[0] == folders[1] {
		t.Errorf("both in %s", folders[0])
	}
	fill(t, Options{Dir: dir}, 4)
	verified(t, dir)
}

// TestRepairOfALogShorterThanWhatWasShipped: without checkpoints only the resume
// file knows of the segments that are gone. What a start refuses a repair mends.
func TestRepairOfALogShorterThanWhatWasShipped(t *testing.T) {
	dir := t.TempDir()
	sink := &fakeSink{}
	fill(t, Options{Dir: dir, Segment: 4000, Sink: sink}, 14)
	if err := os.Remove(lastSegment(t, dir)); err != nil {
		t.Fatal(err)
	}
	if l, err := Open(Options{Dir: dir, Sink: sink}); err == nil {
		closed(t, l)
		t.Fatal("it starts")
	}
	r, err := RepairFolder(t.Context(), RepairOptions{Dir: dir})
	if err != nil || !r.Damaged || !strings.Contains(r.Problem, "14 events of chain") {
		t.Fatalf("%+v, %v", r, err)
	}
	l := open(t, Options{Dir: dir, Sink: sink})
	mustPut(t, l, "goes on", Machine)
	closed(t, l)
	verified(t, dir)
}

// TestRepairStoresNoStrangers: a line of another chain in the folder does not
// get into the collection by a repair.
func TestRepairStoresNoStrangers(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	fill(t, Options{Dir: dir}, 6)
	fill(t, Options{Dir: other}, 6)
	name := lastSegment(t, dir)
	lines := bytes.SplitAfter(readFile(t, name), []byte("\n"))
	strangers := bytes.SplitAfter(readFile(t, lastSegment(t, other)), []byte("\n"))
	if err := os.WriteFile(name, bytes.Join(slices.Insert(lines, 3, strangers[3]), nil), 0o600); err != nil {
		t.Fatal(err)
	}
	sink := &fakeSink{}
	r, err := RepairFolder(t.Context(), RepairOptions{Dir: dir, Sink: sink})
	if err != nil || !r.Damaged || r.Stored != 6 || r.Unreadable != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, l := range sink.stored {
		if l.Chain != r.Chain {
			t.Errorf("seq %d of chain %s is stored", l.Seq, l.Chain)
		}
	}
}
