package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// compressed is what gzip would make of it.
func compressed(t testing.TB, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// compress does to a segment what an operator's gzip does.
func compress(t testing.TB, dir string, first uint64) {
	t.Helper()
	name := filepath.Join(dir, segmentName(first))
	text, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name+gzipSuffix, compressed(t, text), 0o600)
	}
	if err == nil {
		err = os.Remove(name)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestCompressedSegmentsAreReadAsThePlainOnes(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir, Segment: 4000}, 30)
	want := verified(t, dir)
	list, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gzip", filepath.Join(dir, segmentName(list[0]))).CombinedOutput(); err != nil {
		t.Fatalf("gzip: %v: %s", err, out)
	}
	for _, first := range list[1 : len(list)-1] {
		compress(t, dir, first)
	}
	if got := verified(t, dir); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, n := range []int{1, 7, 29, 100} {
		if lines, err := Tail(dir, n); err != nil || len(lines) != min(n, 30) {
			t.Errorf("tail %d: %d, %v", n, len(lines), err)
		}
	}
	// While gzip works there are both, and the new one is not whole.
	name := filepath.Join(dir, segmentName(list[0]))
	z, err := os.ReadFile(name + gzipSuffix)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gunzip", name+gzipSuffix).CombinedOutput(); err != nil {
		t.Fatalf("gunzip: %v: %s", err, out)
	}
	if err := os.WriteFile(name+gzipSuffix, z[:len(z)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	verified(t, dir)
}

// TestOpenBesideCompressed: the last segment is empty and the one before it is
// compressed, or the last one itself is.
func TestOpenBesideCompressed(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 4)
	compress(t, dir, 1)
	if err := os.WriteFile(filepath.Join(dir, segmentName(5)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fill(t, Options{Dir: dir}, 2)
	compress(t, dir, 5)
	fill(t, Options{Dir: dir}, 2)
	if r := verified(t, dir); r.Last != 8 {
		t.Errorf("%+v", r)
	}
}

// TestShippingGoesOnInCompressed: the resume point lies within a segment that
// was compressed meanwhile.
func TestShippingGoesOnInCompressed(t *testing.T) {
	dir := t.TempDir()
	sink := &fakeSink{}
	l := open(t, Options{Dir: dir, Sink: sink, Segment: 8000})
	for range 5 {
		mustPut(t, l, "r", Machine)
	}
	sink.set(func() { sink.down = errors.New("unavailable") })
	for range 30 {
		mustPut(t, l, "r", Crash)
	}
	list, err := segments(dir)
	if err != nil || len(list) < 3 {
		t.Fatal(list, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.Close(ctx)
	for _, first := range list[:len(list)-1] {
		compress(t, dir, first)
	}
	sink.set(func() { sink.down = nil })
	fill(t, Options{Dir: dir, Sink: sink}, 1)
	sink.wantAll(t, dir)
}

// TestDamagedCompressed changes bytes of a compressed segment: either that is
// named, or the text is the same.
func TestDamagedCompressed(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir, Segment: 4000}, 12)
	want := verified(t, dir)
	list, err := segments(dir)
	if err != nil || len(list) < 3 {
		t.Fatal(list, err)
	}
	compress(t, dir, list[1])
	name := filepath.Join(dir, segmentName(list[1])+gzipSuffix)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	named := 0
	for i := range 200 {
		bad := bytes.Clone(good)
		if i < 50 {
			bad = bad[:rng.IntN(len(bad))]
		} else {
			bad[rng.IntN(len(bad))] ^= byte(1 << rng.IntN(8))
		}
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := VerifyDir(t.Context(), dir)
		switch {
		case err != nil:
			t.Fatal(err)
		case r.Broken == nil && r.Head == want.Head: // a name or time in gzip's own header
		case r.Broken == nil || !strings.HasPrefix(r.Broken.File, segmentName(list[1])) && r.Broken.Seq != list[2]:
			t.Fatalf("%+v", r)
		default:
			named++
		}
	}
	if named < 180 {
		t.Errorf("only %d of 200 were named", named)
	}
}

// TestBombIsBounded: a compressed line without an end.
func TestBombIsBounded(t *testing.T) {
	dir := t.TempDir()
	bomb := compressed(t, bytes.Repeat([]byte("x"), 4<<20))
	if err := os.WriteFile(filepath.Join(dir, segmentName(1)+gzipSuffix), bomb, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := VerifyDir(t.Context(), dir)
	if err != nil || r.Broken == nil || !strings.Contains(r.Broken.Reason, "longer than any event") {
		t.Errorf("%+v, %v", r, err)
	}
}

// FuzzGzipSegment reads a hostile compressed segment.
func FuzzGzipSegment(f *testing.F) {
	dir := f.TempDir()
	fill(f, Options{Dir: dir, Now: func() time.Time { return noon }}, 3)
	text, err := os.ReadFile(lastSegment(f, dir))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(compressed(f, text))
	f.Add(append(compressed(f, text), compressed(f, nil)...))
	f.Add(compressed(f, text)[:100])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, segmentName(1)+gzipSuffix), data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := VerifyDir(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		n, err := textSize(dir, 1)
		if r.Broken == nil && r.Last > 0 && (err != nil || n == 0) {
			t.Errorf("it is intact with %d bytes, %v: %+v", n, err, r)
		}
	})
}
