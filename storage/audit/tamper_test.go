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
)

// A change is what somebody who can write the log did to it.
type change struct {
	what string
	at   int      // the index of the line where it shows first, at the earliest
	seq  uint64   // of the last line that is surely as it was written
	then [][]byte // the lines afterwards
}

// tamperWith changes a byte, or removes, swaps or inserts a line.
func tamperWith(rng *rand.Rand, lines, strangers [][]byte) change {
	n := len(lines)
	at := rng.IntN(n)
	switch rng.IntN(4) { // the ends more often than they would come
	case 0:
		at = []int{0, n - 1}[rng.IntN(2)]
	}
	c := change{at: at, seq: uint64(at), then: slices.Clone(lines)}
	switch rng.IntN(6) {
	case 0, 1:
		c.what = "changed"
		b := bytes.Clone(lines[at])
		b[rng.IntN(len(b))] ^= byte(1 + rng.IntN(255))
		c.then[at] = b
	case 2:
		c.what = "removed"
		c.then = slices.Delete(c.then, at, at+1)
	case 3:
		c.what = "swapped"
		at = min(at, n-2)
		c.at, c.seq = at, uint64(at)
		c.then[at], c.then[at+1] = c.then[at+1], c.then[at]
	case 4:
		from := rng.IntN(n)
		c.what = fmt.Sprintf("inserted %d", from)
		c.then = slices.Insert(c.then, at, lines[from])
		if from == at { // the same line twice: the second one is too many
			c.at, c.seq = at+1, uint64(at+1)
		}
	case 5:
		c.what = "inserted another chain's"
		c.then = slices.Insert(c.then, at, strangers[rng.IntN(len(strangers))])
	}
	return c
}

// asRead are lines as a folder of one segment yields them.
func asRead(raws [][]byte) iter.Seq2[Line, error] {
	return single(func(yield func(Line, error) bool) {
		r := lineReader{file: bytes.NewReader(append(bytes.Join(raws, []byte("\n")), '\n')), name: segmentName(1), number: 1}
		for {
			l, err := r.next()
			if err != nil && !strings.Contains(err.Error(), segmentName(1)) {
				return // the end
			}
			if !yield(l, err) || err != nil {
				return
			}
		}
	})
}

// found fails unless the change is named where it is: at the line, or, where
// only the next one's prev can tell, there.
func (c change) found(t *testing.T, r Result) {
	t.Helper()
	if len(r.Reports) == 0 || r.Reports[0].Broken == nil {
		t.Fatalf("%s at line %d: not found: %+v", c.what, c.at+1, r)
	}
	p := r.Reports[0]
	if p.Last != c.seq && p.Last != c.seq+1 || p.Broken.Seq == 0 || p.Broken.File == "" {
		t.Fatalf("%s at line %d: it vouches up to %d, and says %v", c.what, c.at+1, p.Last, p.Broken)
	}
	if n := p.Broken.Line; n != 0 && n != c.at+1 && n != c.at+2 {
		t.Fatalf("%s at line %d is named as %v", c.what, c.at+1, p.Broken)
	}
}

// TestTenThousandTamperings: whatever single thing is done to any line is found
// and named, the first and the last included, against one checkpoint that was
// kept elsewhere.
func TestTenThousandTamperings(t *testing.T) {
	by, keys := newKey(t)
	dir, other := t.TempDir(), t.TempDir()
	fill(t, Options{Dir: dir, Signer: by}, 12)
	fill(t, Options{Dir: other}, 12)
	head := noteOf(t, dir, headNote)
	lines, strangers := rawLines(t, dir), rawLines(t, other)
	v := Verification{Keys: keys, Notes: []Note{head}, folder: true}
	if r, err := v.Lines(t.Context(), asRead(lines)); err != nil || r.Failure() != nil || r.Reports[0].Checkpoints != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	v.unsigned = true // the signature was good just now, and is most of the time
	rng := rand.New(rand.NewPCG(7, 8))
	kinds := map[string]int{}
	for range 10_000 {
		c := tamperWith(rng, lines, strangers)
		r, err := v.Lines(t.Context(), asRead(c.then))
		if err != nil {
			t.Fatal(err)
		}
		c.found(t, r)
		kinds[strings.Fields(c.what)[0]]++
	}
	t.Logf("%v", kinds)
	// The end, from one line to all but one.
	for n := 1; n < len(lines); n++ {
		r, err := v.Lines(t.Context(), asRead(lines[:n]))
		if err != nil || r.Failure() == nil || r.Reports[0].Broken.Seq != uint64(n+1) {
			t.Fatalf("%d lines are left: %+v, %v", n, r, err)
		}
	}
}

func rawLines(t testing.TB, dir string) [][]byte {
	t.Helper()
	var list [][]byte
	for l, err := range Lines(dir) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, bytes.Clone(l.Raw))
	}
	return list
}

// TestTamperingWithFolders does it to segments, plain and compressed, whose
// checkpoints may be changed, too; one was kept elsewhere.
func TestTamperingWithFolders(t *testing.T) {
	by, keys := newKey(t)
	dir, other := t.TempDir(), t.TempDir()
	fill(t, Options{Dir: dir, Signer: by, Segment: 4000}, 24)
	fill(t, Options{Dir: other}, 12)
	head, strangers := noteOf(t, dir, headNote), rawLines(t, other)
	list, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	compress(t, dir, list[1])
	compress(t, dir, list[3])
	rng := rand.New(rand.NewPCG(9, 10))
	for i := range 300 {
		s := rng.IntN(len(list))
		f, base, err := openSegment(dir, list[s])
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		name := filepath.Join(dir, base)
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		zipped := strings.HasSuffix(name, gzipSuffix)
		c := tamperWith(rng, segmentLines(t, dir, list[s]), strangers)
		c.seq += list[s] - 1
		bad := append(bytes.Join(c.then, []byte("\n")), '\n')
		if zipped {
			bad = compressed(t, bad)
		}
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Verification{Keys: keys, Notes: []Note{head}}.Dir(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		p := r.Reports[0]
		if p.Broken == nil || p.Last != c.seq && p.Last != c.seq+1 {
			t.Fatalf("trial %d: %s in %s line %d: vouches up to %d, want %d: %v", i, c.what, base, c.at+1, p.Last, c.seq, p.Broken)
		}
		if err := os.WriteFile(name, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sound(t, dir, keys, head)
	for i, f := range list { // a whole segment, with its checkpoint
		gone := t.TempDir()
		if err := os.CopyFS(gone, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{segmentName(f), segmentName(f) + gzipSuffix, noteName(f), headNote} {
			os.Remove(filepath.Join(gone, name))
		}
		if err := failing(t, gone, keys, head); err == nil {
			t.Errorf("segment %d was removed, and nothing shows", i)
		}
	}
}

// segmentLines are a segment's lines, without line feeds.
func segmentLines(t testing.TB, dir string, first uint64) [][]byte {
	t.Helper()
	f, name, err := openSegment(dir, first)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := lineReader{file: f, name: name, number: 1}
	var list [][]byte
	for {
		l, err := r.next()
		if err != nil {
			return list
		}
		list = append(list, bytes.Clone(l.Raw))
	}
}
