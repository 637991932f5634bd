package audit

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// newKey makes a key to sign and to verify with.
func newKey(t testing.TB) (note.Signer, note.Verifiers) {
	t.Helper()
	secret, public, err := note.GenerateKey(rand.Reader, "test")
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	return s, note.VerifierList(v)
}

// eventually waits until ok is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come to it: %s", what)
		}
	}
}

// sound verifies a folder with its checkpoints.
func sound(t testing.TB, dir string, keys note.Verifiers, outside ...Note) Report {
	t.Helper()
	r, err := Verification{Keys: keys, Notes: outside}.Dir(context.Background(), dir)
	if err == nil {
		err = r.Failure()
	}
	if err != nil || len(r.Reports) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	return r.Reports[0]
}

// failing is what verifying a folder finds.
func failing(t testing.TB, dir string, keys note.Verifiers, outside ...Note) error {
	t.Helper()
	r, err := Verification{Keys: keys, Notes: outside}.Dir(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return r.Failure()
}

func noteOf(t testing.TB, dir, name string) Note {
	t.Helper()
	n, err := ReadNote(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCheckpointsAreKeptAndVerify(t *testing.T) {
	by, keys := newKey(t)
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, Signer: by, Checkpoint: 5 * time.Millisecond, Segment: 4000})
	for range 30 {
		mustPut(t, l, "r", Crash)
	}
	eventually(t, "a checkpoint of the head", func() bool { return l.Stats().Checkpoint == 30 })
	if c, err := noteOf(t, dir, headNote).open(keys); err != nil || c.Seq != 30 {
		t.Errorf("%+v, %v", c, err)
	}
	mustPut(t, l, "last", Crash)
	closed(t, l)
	list, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := sound(t, dir, keys)
	if r.Checkpoints != len(list) || r.Newest.Seq != 31 || r.Last != 31 { // the head's, and of each closed segment
		t.Errorf("%d segments: %+v", len(list), r)
	}
	// Nobody's key: they are named, and not believed.
	u, err := Verification{}.Dir(t.Context(), dir)
	if err != nil || len(u.Unchecked) != len(list) || u.Failure() != nil {
		t.Errorf("%+v, %v", u, err)
	}
	_, others := newKey(t)
	if err := failing(t, dir, others); err == nil || !strings.Contains(err.Error(), "no key that was given") {
		t.Error(err)
	}
}

func TestNotesMissingAfterACrashAreMade(t *testing.T) {
	by, keys := newKey(t)
	dir := t.TempDir()
	fill(t, Options{Dir: dir, Segment: 4000}, 30) // without a key
	list, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, Options{Dir: dir, Signer: by}, 1)
	if r := sound(t, dir, keys); r.Checkpoints != len(list) {
		t.Errorf("%d segments: %+v", len(list), r)
	}
	if len(list) < 3 {
		t.Fatalf("%d segments", len(list))
	}
	for i, first := range list[:len(list)-1] { // over its last line, as if it had been made then
		c, err := noteOf(t, dir, noteName(first)).unsigned()
		if err != nil || c.Seq != list[i+1]-1 {
			t.Errorf("the note of segment %d is of seq %d, and the next segment begins with %d (%v)", first, c.Seq, list[i+1], err)
		}
	}
}

// TestRemovedEnd: only a checkpoint shows it, and the start looks at its own.
func TestRemovedEnd(t *testing.T) {
	by, keys := newKey(t)
	dir := t.TempDir()
	fill(t, Options{Dir: dir, Signer: by}, 10)
	outside := noteOf(t, dir, headNote)
	name := lastSegment(t, dir)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	if err := os.WriteFile(name, bytes.Join(lines[:7], nil), 0o600); err != nil {
		t.Fatal(err)
	}
	var corrupt *CorruptError
	if err := failing(t, dir, keys); !errors.As(err, &corrupt) || corrupt.Seq != 8 || !strings.Contains(err.Error(), "removed from its end") {
		t.Error(err)
	}
	if _, err := Open(Options{Dir: dir, Signer: by}); !errors.As(err, &corrupt) || corrupt.Seq != 10 {
		t.Errorf("the start says %v", err)
	}
	if err := os.Remove(filepath.Join(dir, headNote)); err != nil {
		t.Fatal(err)
	}
	if err := failing(t, dir, keys); !strings.Contains(err.Error(), "no checkpoint of a given key vouches for chain") {
		t.Error(err)
	}
	if r, err := (Verification{Keys: keys, AllowUnsigned: true}).Dir(t.Context(), dir); err != nil || r.Failure() != nil || r.Reports[0].Last != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := failing(t, dir, keys, outside); !errors.As(err, &corrupt) || corrupt.Seq != 8 {
		t.Error(err)
	}
	// Nor does it help to write the end anew.
	fill(t, Options{Dir: dir}, 10)
	if err := failing(t, dir, keys, outside); !errors.As(err, &corrupt) || corrupt.Seq != 10 || !strings.Contains(err.Error(), "computed anew") {
		t.Error(err)
	}
	v, err := Verification{Keys: keys, Notes: []Note{outside}}.Dir(t.Context(), dir)
	if seq, _ := v.Reports[0].Vouched(); err != nil || seq != 0 {
		t.Errorf("it vouches up to %d, %v", seq, err)
	}
	// Nor another log.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	fill(t, Options{Dir: dir}, 10)
	if err := failing(t, dir, keys, outside); err == nil || !strings.Contains(err.Error(), "no event of that chain is here") {
		t.Error(err)
	}
}

// TestStartHoldsTheEndAgainstItsNote: the chain alone says nothing of the last
// line, and nothing of a log that was put in another one's place.
func TestStartHoldsTheEndAgainstItsNote(t *testing.T) {
	by, _ := newKey(t)
	dir, other := t.TempDir(), t.TempDir()
	fill(t, Options{Dir: dir, Signer: by}, 10)
	fill(t, Options{Dir: other}, 20)
	name := lastSegment(t, dir)
	whole := readFile(t, name)
	put := func(data []byte) {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i := bytes.LastIndex(whole, []byte(`"record":"10"`))
	changed := bytes.Clone(whole)
	changed[i+len(`"record":"`)] = '9'
	for what, data := range map[string][]byte{
		"it was changed":       changed,
		"the log was replaced": readFile(t, lastSegment(t, other)),
	} {
		put(data)
		var corrupt *CorruptError
		if _, err := Open(Options{Dir: dir, Signer: by}); !errors.As(err, &corrupt) || corrupt.File != headNote || !strings.Contains(err.Error(), what) {
			t.Errorf("where %s the start says %v", what, err)
		}
	}
	put(whole)
	closed(t, open(t, Options{Dir: dir, Signer: by}))
}

func TestForgedNotesAreNamed(t *testing.T) {
	by, keys := newKey(t)
	dir := t.TempDir()
	fill(t, Options{Dir: dir, Signer: by}, 3)
	good := noteOf(t, dir, headNote)
	for what, data := range map[string][]byte{
		"empty":        nil,
		"no signature": bytes.Split(good.Data, []byte("\n\n"))[0],
		"another seq":  bytes.Replace(good.Data, []byte("seq 3"), []byte("seq 2"), 1),
		"large":        make([]byte, maxNote),
	} {
		if err := os.WriteFile(filepath.Join(dir, headNote), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := failing(t, dir, keys); err == nil || !strings.Contains(err.Error(), headNote) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A headSink keeps checkpoints, too.
type headSink struct {
	fakeSink
	mu    sync.Mutex
	heads []Head
	fails error
}

func (s *headSink) StoreCheckpoint(_ context.Context, h Head) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		return s.fails
	}
	s.heads = append(s.heads, h)
	return nil
}

func (s *headSink) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// TestHeadsAreOfWhatWasShipped: a checkpoint at the sink is never ahead of it,
// and one that cannot be stored delays nothing.
func TestHeadsAreOfWhatWasShipped(t *testing.T) {
	by, keys := newKey(t)
	sink := &headSink{fails: errors.New("permission denied")}
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, Signer: by, Checkpoint: 2 * time.Millisecond, Sink: sink})
	for range 20 {
		mustPut(t, l, "r", Machine)
	}
	eventually(t, "the failure shows", func() bool { return l.Stats().HeadError != nil })
	sink.set(func() { sink.fails = nil })
	eventually(t, "a head", func() bool { return l.Stats().Head == 20 && l.Stats().HeadError == nil })
	sink.fakeSink.set(func() { sink.fakeSink.down = errors.New("unavailable") })
	mustPut(t, l, "later", Power)
	eventually(t, "the folder's head", func() bool { return l.Stats().Checkpoint == 21 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.Close(ctx)
	closed(t, l)
	sink.set(func() {
		if h := sink.heads[len(sink.heads)-1]; h.Seq != 20 {
			t.Errorf("the head is at %d", h.Seq)
		}
		sink.fakeSink.down = nil
	})
	fill(t, Options{Dir: dir, Signer: by, Checkpoint: time.Hour, Sink: sink}, 1)
	h := sink.heads[len(sink.heads)-1]
	r := sound(t, dir, keys, Note{Name: "head", Data: h.Note})
	if h.Seq != 22 || h.Event.IsZero() || r.Newest.Seq != 22 {
		t.Errorf("after Close the head is at %d: %+v", h.Seq, r)
	}
}

// TestFirstHead: a process that dies before its first checkpoint leaves a chain
// at the sink that verify holds for somebody else's.
func TestFirstHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		by, _ := newKey(t)
		sink := &headSink{}
		sink.down = errors.New("unavailable")
		l := open(t, Options{Dir: t.TempDir(), Now: time.Now, Signer: by, Sink: sink})
		mustPut(t, l, "r", Crash)
		time.Sleep(3 * time.Second) // of the bubble's clock
		sink.fakeSink.set(func() { sink.down = nil })
		for range 2 {
			for l.Stats().Shipped < l.Stats().Seq {
				time.Sleep(time.Millisecond)
			}
			synctest.Wait()
			if s := l.Stats(); s.Head != 1 {
				t.Errorf("of %d shipped events, the head is at %d", s.Shipped, s.Head)
			}
			mustPut(t, l, "r", Crash) // whose checkpoint has time
		}
		closed(t, l)
	})
}

// FuzzCheckpoint: what is taken has that very text.
func FuzzCheckpoint(f *testing.F) {
	c := Checkpoint{Chain: NewID(), Seq: 12, Hash: hash([]byte("x")), Time: noon}
	f.Add(c.Text())
	f.Add(strings.Replace(c.Text(), "seq 12", "seq 012", 1))
	f.Add(strings.Replace(c.Text(), "Z\n", "+00:00\n", 1))
	f.Add(strings.Replace(c.Text(), "hash ", "hash  ", 1))
	f.Add(c.Text() + "more\n")
	f.Add(strings.ToUpper(c.Text()))
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCheckpoint(text)
		if err != nil {
			return
		}
		if c.Text() != text {
			t.Errorf("%q is read as %q", text, c.Text())
		}
		if again, err := ParseCheckpoint(c.Text()); err != nil || again != c {
			t.Errorf("%+v, %+v, %v", c, again, err)
		}
	})
}
