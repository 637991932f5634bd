package audit

import (
	"bytes"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// TestWhereTheBeginningIs: what may be missing before the first line is up to
// what retention announced, or up to a checkpoint that fits, and not a line more.
func TestWhereTheBeginningIs(t *testing.T) {
	by, keys := newKey(t)
	dir := t.TempDir()
	l := open(t, Options{Dir: dir})
	for i := range 9 {
		mustPut(t, l, fmt.Sprint(i), Crash)
	}
	ticket, err := l.Append(&Event{Type: TypeSystem, System: &System{Event: systemRetention, Detail: map[string]string{"to": "5"}}})
	if err == nil {
		err = ticket.Wait(t.Context(), Crash)
	}
	if err != nil {
		t.Fatal(err)
	}
	closed(t, l)
	var lines []Line
	for line, err := range Lines(dir) {
		if err != nil {
			t.Fatal(err)
		}
		line.Raw = append([]byte(nil), line.Raw...)
		lines = append(lines, line)
	}
	signed := func(seq uint64, other bool) []Note {
		c := Checkpoint{Chain: lines[0].Chain, Seq: seq, Hash: lines[seq-1].Hash(), Time: noon}
		if other {
			c.Hash[7] ^= 1
		}
		data, err := c.sign(by)
		if err != nil {
			t.Fatal(err)
		}
		return []Note{{Name: "note", Data: data}}
	}
	for _, c := range []struct {
		name     string
		from, to int
		notes    []Note
		want     string // of what is broken; "": nothing is
	}{
		{"announced", 5, 10, nil, ""},
		{"one more than announced", 6, 10, nil, "the events before seq 7 are missing"},
		{"vouched for", 6, 9, signed(6, false), ""},
		{"one more than vouched for", 7, 9, signed(6, false), "the events before seq 8 are missing"},
		{"of another line", 6, 9, signed(6, true), "its prev is not the SHA-256"},
		{"announced, of another line", 5, 10, signed(5, true), "its prev is not the SHA-256"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Where nothing is signed: what is asked is the beginning.
			r, err := Verification{Keys: keys, Notes: c.notes, AllowUnsigned: c.notes == nil, folder: true}.Lines(t.Context(), theseLines(lines[c.from:c.to]))
			if err != nil {
				t.Fatal(err)
			}
			if c.want != "" && c.notes == nil { // a collection's beginning expires
				w, err := Verification{Keys: keys, AllowUnsigned: true}.Lines(t.Context(), theseLines(lines[c.from:c.to]))
				if err != nil || w.Failure() != nil {
					t.Errorf("a collection: %v, %v", w.Failure(), err)
				}
			}
			if got := r.Failure(); c.want == "" && got != nil || c.want != "" && (got == nil || !strings.Contains(got.Error(), c.want)) {
				t.Errorf("it says %v", got)
			}
		})
	}
	// A stub has no prev that a checkpoint of the line before could fit.
	rest := slices.Clone(lines[6:])
	rest[0] = Line{Stub: true, Chain: rest[0].Chain, Seq: rest[0].Seq, SHA256: rest[0].Hash(), Time: rest[0].Time}
	r, err := Verification{Keys: keys, AllowUnsigned: true, Notes: signed(6, false)}.Lines(t.Context(), theseLines(rest))
	if err != nil || r.Failure() != nil || r.Reports[0].Anchored || r.Reports[0].Passed != 1 {
		t.Errorf("behind a stub: %+v, %v", r, err)
	}
}

func theseLines(lines []Line) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		for _, line := range lines {
			if !yield(line, nil) {
				return
			}
		}
	}
}

// TestExpiredEnd: what a head checkpoint is about may have expired since, with
// all that was before it, or with the whole chain.
func TestExpiredEnd(t *testing.T) {
	by, keys := newKey(t)
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 5)
	lines, err := Tail(dir, 5)
	if err != nil {
		t.Fatal(err)
	}
	data, err := Checkpoint{Chain: lines[0].Chain, Seq: 5, Hash: lines[4].Hash(), Time: noon}.sign(by)
	if err != nil {
		t.Fatal(err)
	}
	for i := range lines {
		lines[i].Expires = noon.Add(time.Duration(i) * time.Minute)
	}
	for _, left := range [][]Line{lines[:3], nil} {
		for _, expired := range []bool{false, true} {
			v := Verification{Keys: keys, Now: noon, Notes: []Note{{Name: "head", Data: data, Expires: noon.Add(time.Hour)}}}
			if expired {
				v.Now = noon.Add(time.Hour)
			}
			r, err := v.Lines(t.Context(), theseLines(left))
			if err != nil || (r.Failure() == nil) != expired {
				t.Errorf("%d lines are left, expired %v: %v, %v", len(left), expired, r.Failure(), err)
			}
		}
	}
}

// TestOldCheckpointVouchesForNothing: whoever makes a chain may have kept a
// checkpoint of the one whose id it has. Where what a checkpoint is about has
// expired it may be gone before the last lines are.
func TestOldCheckpointVouchesForNothing(t *testing.T) {
	by, keys := newKey(t)
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 5)
	lines, err := Tail(dir, 5)
	if err != nil {
		t.Fatal(err)
	}
	data, err := Checkpoint{Chain: lines[0].Chain, Seq: 1, Hash: lines[0].Hash(), Time: noon}.sign(by)
	if err != nil {
		t.Fatal(err)
	}
	old := Note{Name: "head", Data: data}
	if data, err = (Checkpoint{Chain: lines[0].Chain, Seq: 5, Hash: lines[4].Hash(), Time: noon}).sign(by); err != nil {
		t.Fatal(err)
	}
	end := Note{Name: "head", Data: data, Expires: noon} // as somebody may have written there who removed the last lines
	for i := range lines {
		lines[i].Expires = noon.Add(time.Duration(i) * time.Minute)
	}
	for _, c := range []struct {
		name  string
		lines []Line
		notes []Note
		now   time.Time
		fails bool
	}{
		{"the checkpoint's line is there", lines, []Note{old}, noon, false},
		{"what follows it is there", lines[1:], []Note{old}, noon, false},
		{"no line that it vouches for is there", lines[2:], []Note{old}, noon, true},
		{"only one that expires before the lines do", lines[:3], []Note{end}, noon.Add(2*time.Minute - 1), true},
		{"none, and the last has not expired", lines[2:], nil, noon.Add(4*time.Minute - 1), true},
		{"none, and the last has expired", lines[2:], nil, noon.Add(4 * time.Minute), false},
	} {
		r, err := Verification{Keys: keys, Now: c.now, Notes: c.notes}.Lines(t.Context(), theseLines(c.lines))
		if err != nil || (len(r.Unsigned) > 0) != c.fails || (r.Failure() != nil) != c.fails {
			t.Errorf("%s: %v, %v", c.name, r.Failure(), err)
		}
	}
}

// TestChainInTwoPieces: a reader that yields a chain's lines apart does not get
// two intact ones.
func TestChainInTwoPieces(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	fill(t, Options{Dir: dir}, 4)
	fill(t, Options{Dir: other}, 2)
	lines, err := Tail(dir, 4)
	if err != nil {
		t.Fatal(err)
	}
	strangers, err := Tail(other, 2)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Verification{}.Lines(t.Context(), theseLines(slices.Concat(lines[:2], strangers, lines[2:])))
	if err != nil || r.Failure() == nil || !strings.Contains(r.Failure().Error(), "another chain stand between") {
		t.Errorf("%v, %v", r.Failure(), err)
	}
}
