package audit

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// takeAway is what people do to the file that is being written, most of them
// by mistake.
var takeAway = map[string]func(name string) error{
	"compressed": func(name string) error { return exec.Command("gzip", name).Run() },
	"removed":    os.Remove,
	"moved":      func(name string) error { return os.Rename(name, name+".old") },
	"replaced by its beginning": func(name string) error {
		text, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(name+".new", text[:strings.Index(string(text), "\n")+1], 0o600)
		}
		return errors.Join(err, os.Rename(name+".new", name))
	},
}

// TestTheSegmentBeingWrittenIsTakenAway: what is written to a file without a
// name is gone with the process, so the file is put back.
func TestTheSegmentBeingWrittenIsTakenAway(t *testing.T) {
	for what, away := range takeAway {
		for _, level := range []Survive{Crash, Power} {
			t.Run(what+" "+level.String(), func(t *testing.T) {
				dir := t.TempDir()
				l := open(t, Options{Dir: dir, pause: time.Millisecond})
				mustPut(t, l, "r", level)
				mustPut(t, l, "r", level)
				name := lastSegment(t, dir)
				if err := away(name); err != nil {
					t.Fatal(err)
				}
				mustPut(t, l, "r", level)
				eventually(t, "it is put back", func() bool {
					text, err := os.ReadFile(name)
					return err == nil && strings.Count(string(text), "\n") == 4 // and says so
				})
				closed(t, l)
				if r := verified(t, dir); r.First != 1 || r.Last != 4 {
					t.Errorf("%+v", r)
				}
				if e := events(t, dir)[3]; e.System == nil || e.System.Event != "repair" || e.System.Detail["file"] != segmentName(1) {
					t.Errorf("the 4th event is %+v", e)
				}
			})
		}
	}
}

// TestASegmentTakenAwayBeforeItEnds: nothing is looked at in between.
func TestASegmentTakenAwayBeforeItEnds(t *testing.T) {
	for name, segment := range map[string]int64{"rotation": 1, "close": 0} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, Options{Dir: dir, Segment: segment, pause: time.Hour})
			mustPut(t, l, "r", Power)
			if err := os.Remove(filepath.Join(dir, segmentName(1))); err != nil {
				t.Fatal(err)
			}
			if segment > 0 {
				mustPut(t, l, "r", Crash)
			}
			closed(t, l)
			if r := verified(t, dir); r.First != 1 || r.Last < 2 {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestTheFolderIsTakenAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	l := open(t, Options{Dir: dir, pause: time.Millisecond})
	mustPut(t, l, "r", Power)
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := put(t, l, "r", Power); err == nil || !strings.Contains(err.Error(), "removed, moved or replaced") {
		t.Error(err)
	}
	if err := os.Rename(dir+".old", dir); err != nil {
		t.Fatal(err)
	}
	healed(t, l)
	closed(t, l)
	verified(t, dir)
}

// TestTheFolderIsReplaced: another process may have begun another log under its
// name. Each of the two is left as it is.
func TestTheFolderIsReplaced(t *testing.T) {
	by, keys := newKey(t)
	dir := filepath.Join(t.TempDir(), "audit")
	sink := &fakeSink{}
	l := open(t, Options{Dir: dir, Signer: by, Checkpoint: time.Hour, Sink: sink})
	mustPut(t, l, "old", Machine)
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	m := open(t, Options{Dir: dir, Signer: by, pause: time.Millisecond})
	mustPut(t, m, "new", Power)
	chain := m.Stats().Chain
	if err := put(t, l, "old", Power); err == nil || !strings.Contains(err.Error(), "another folder") {
		t.Error(err)
	}
	mustPut(t, m, "new", Power)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it cannot ship what it cannot fsync
	if err := l.Close(ctx); err == nil {
		t.Error("it is closed as if all were well")
	}
	mustPut(t, m, "new", Power)
	closed(t, m)
	if r := sound(t, dir, keys); r.Chain != chain || r.Last != 3 {
		t.Errorf("the new log: %+v", r)
	}
	if _, err := os.Stat(filepath.Join(dir, resumeFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old log's note of what is shipped is in the new one's folder: %v", err)
	}
	if r := verified(t, dir+".old"); r.Chain == chain || r.Last < 1 {
		t.Errorf("the old log: %+v", r)
	}
}

// TestFollowWhereTheSegmentIsTakenAway: a follower waits for the ledger to put it
// back, but not for ever.
func TestFollowWhereTheSegmentIsTakenAway(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 2)
	name := filepath.Join(dir, segmentName(1))
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	half := strings.Index(string(text), "\n") + 1
	if err := os.WriteFile(name, text[:half], 0o600); err != nil {
		t.Fatal(err)
	}
	tick, lines, failed := make(chan time.Time), make(chan uint64, 2), make(chan error, 1)
	asked := func(n int) {
		for range n {
			select {
			case tick <- noon:
			case err := <-failed:
				t.Fatal(err)
			}
		}
	}
	go func() {
		defer close(lines)
		for l, err := range Follow(t.Context(), dir, 1, tick) {
			if err != nil {
				failed <- err
				return
			}
			lines <- l.Seq
		}
	}()
	if seq := <-lines; seq != 1 {
		t.Errorf("it begins with %d", seq)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	asked(10)
	if err := os.WriteFile(name+".new", text, 0o600); err != nil { // whole at once
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
	asked(1)
	if seq := <-lines; seq != 2 {
		t.Errorf("it goes on with %d", seq)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	for over := false; !over; {
		select {
		case tick <- noon:
		case _, more := <-lines:
			over = !more
		}
	}
	if err := <-failed; !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it ends with %v", err)
	}
}
