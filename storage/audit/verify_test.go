package audit

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestTamperingIsNamed changes, removes, swaps or inserts a line, at random,
// and wants verify to name it or the one behind it.
func TestTamperingIsNamed(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir, Segment: 4000}, 30)
	foreign := t.TempDir()
	fill(t, Options{Dir: foreign}, 30)
	other, err := os.ReadFile(lastSegment(t, foreign))
	if err != nil {
		t.Fatal(err)
	}
	strangers := bytes.SplitAfter(bytes.TrimSuffix(other, []byte("\n")), []byte("\n"))
	list, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	trials := 300
	if testing.Short() {
		trials = 100
	}
	for range trials {
		s := rng.IntN(len(list))
		name := filepath.Join(dir, segmentName(list[s]))
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.SplitAfter(bytes.Clone(whole), []byte("\n"))
		lines = lines[:len(lines)-1]
		what, at, bad := tamper(rng, lines, strangers, s == len(list)-1)
		if bad == nil {
			continue
		}
		if err := os.WriteFile(name, bytes.Join(bad, nil), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := VerifyDir(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		seq := list[s] + uint64(at)
		if r.Broken == nil {
			t.Fatalf("%s seq %d: not found: %+v", what, seq, r)
		}
		// The finding is where the chain breaks: at the line, or behind it.
		if last := r.Last; last+1 < seq || last > seq {
			t.Fatalf("%s seq %d: vouches up to %d: %v", what, seq, last, r.Broken)
		}
		if err := os.WriteFile(name, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verified(t, dir)
}

// tamper returns the lines changed; nil where the change cannot show: at the
// end of the log.
func tamper(rng *rand.Rand, lines, strangers [][]byte, end bool) (what string, at int, bad [][]byte) {
	at = rng.IntN(len(lines))
	if end && at >= len(lines)-2 {
		return "", 0, nil
	}
	bad = slices.Clone(lines)
	switch rng.IntN(5) {
	case 0:
		what = "changed"
		b := bytes.Clone(bad[at])
		b[rng.IntN(len(b))] ^= byte(1 << rng.IntN(8))
		bad[at] = b
	case 1:
		what = "removed"
		bad = slices.Delete(bad, at, at+1)
	case 2:
		what = "swapped"
		if at+1 == len(bad) {
			return "", 0, nil
		}
		bad[at], bad[at+1] = bad[at+1], bad[at]
	case 3:
		what = "doubled"
		bad = slices.Insert(bad, at+1, bad[at])
	case 4:
		what = "inserted"
		bad = slices.Insert(bad, at, strangers[rng.IntN(len(strangers))])
	}
	return what, at, bad
}

func TestRemovedSegmentIsNamed(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir, Segment: 4000}, 30)
	list, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, segmentName(list[2]))); err != nil {
		t.Fatal(err)
	}
	r, err := VerifyDir(t.Context(), dir)
	if err != nil || r.Broken == nil || r.Broken.Seq != list[2] {
		t.Errorf("%+v, %v", r, err)
	}
	// The first ones may be gone for good reasons: verify says from where.
	if err := os.Remove(filepath.Join(dir, segmentName(list[0]))); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, segmentName(list[1]))); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir); r.First != list[3] || r.Last != 30 {
		t.Errorf("%+v", r)
	}
}

func TestExpiredLinesAreGaps(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 10)
	lines, err := Tail(dir, 10)
	if err != nil {
		t.Fatal(err)
	}
	for i := range lines {
		lines[i].Expires = noon.Add(time.Duration(i) * time.Hour)
	}
	for hour, broken := range map[int]bool{0: true, 2: true, 3: false, 9: false} {
		reports, err := Verify(t.Context(), func(yield func(Line, error) bool) {
			for i, l := range lines {
				if i != 4 && i != 5 && !yield(l, nil) { // seq 5 and 6; 4 expires at hour 3
					return
				}
			}
		}, noon.Add(time.Duration(hour)*time.Hour))
		if err != nil || len(reports) != 1 || (reports[0].Broken != nil) != broken || !broken && fmt.Sprint(reports[0].Gaps) != "[{5 6}]" {
			t.Errorf("at hour %d: %+v, %v", hour, reports, err)
		}
	}
}

func TestTornEndIsSaidByVerify(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 3)
	name := lastSegment(t, dir)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(whole, "half a line"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir); r.Torn != 11 || r.Last != 3 {
		t.Errorf("%+v", r)
	}
}

// A lazyFile never fsyncs: fuzzing has no power to lose.
type lazyFile struct{ *os.File }

func (lazyFile) Sync() error { return nil }

func openLazily(name string, flag int) (file, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	return lazyFile{f}, err
}

// FuzzReadLedger reads a hostile segment: it never panics, and what it vouches
// for recomputes.
func FuzzReadLedger(f *testing.F) {
	dir := f.TempDir()
	fill(f, Options{Dir: dir}, 3)
	whole, err := os.ReadFile(lastSegment(f, dir))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-5])
	f.Add(bytes.Replace(whole, []byte(`"seq":2`), []byte(`"seq":18446744073709551615`), 1))
	f.Add([]byte("\n\n{}\n"))
	f.Add([]byte(`{"type":"\","id":"`))
	f.Add(bytes.Repeat([]byte{0}, 3000))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, segmentName(1)), data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := VerifyDir(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if r.Broken == nil && r.Last > 0 {
			if n := uint64(bytes.Count(data, []byte("\n"))); n != r.Last-r.First+1 {
				t.Errorf("%d lines, %+v", n, r)
			}
		}
		for l, err := range Lines(dir) {
			if err != nil {
				break
			}
			if e, err := l.Event(); err == nil && e.Seq != l.Seq && l.Seq > 0 {
				t.Logf("a second seq: %d, %d", e.Seq, l.Seq)
			}
		}
		if _, err := Tail(dir, 2); err != nil {
			t.Logf("tail: %v", err)
		}
		if l, err := Open(Options{Dir: dir, open: openLazily}); err == nil {
			mustPut(t, l, "after", Crash)
			closed(t, l)
			verified(t, dir)
		}
	})
}
