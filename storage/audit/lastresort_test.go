package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// folderBytes is all that the folder's segments hold.
func folderBytes(t *testing.T, dir string, from uint64) string {
	t.Helper()
	var all bytes.Buffer
	for l, err := range Lines(dir) {
		if err != nil {
			t.Fatal(err)
		}
		if l.Seq >= from {
			fmt.Fprintf(&all, "%s\n", l.Raw)
		}
	}
	return all.String()
}

// writes is a writer that notes each Write.
type writes struct {
	all    []string
	refuse int // Writes after which it fails; 0: never
	block  chan struct{}
}

func (w *writes) Write(p []byte) (int, error) {
	if w.block != nil {
		<-w.block
	}
	if w.refuse > 0 && len(w.all) >= w.refuse {
		return 0, errors.New("broken pipe")
	}
	w.all = append(w.all, string(p))
	return len(p), nil
}

func (w *writes) String() string {
	var all bytes.Buffer
	for _, s := range w.all {
		all.WriteString(s)
	}
	return all.String()
}

// closeIn closes a ledger within d, and fails where it takes longer.
func closeIn(t *testing.T, l *Ledger, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	begin := time.Now()
	err := l.Close(ctx)
	if took := time.Since(begin); took > d {
		t.Errorf("closing took %s of %s", took, d)
	}
	return err
}

// TestLastResort: where the folder ends with the process, what the sink does
// not take until the end is written out, exactly.
func TestLastResort(t *testing.T) {
	for name, then := range map[string]fault{
		"down":      {err: errUnavailable, stored: func(int) bool { return false }},
		"no answer": {hang: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := true
				sink := &faultSink{fault: func(int, int) fault {
					if up {
						return fault{}
					}
					return then
				}}
				dir, out := t.TempDir(), &writes{}
				l := open(t, Options{Dir: dir, Sink: sink, LastResort: out, Segment: 5000})
				mustPut(t, l, "shipped", Machine)
				sink.set(func() { up = false })
				for i := range 250 {
					mustPut(t, l, fmt.Sprint(i), Crash)
				}
				if err := closeIn(t, l, 4*time.Second); err != nil {
					t.Error(err)
				}
				if out.String() != folderBytes(t, dir, 2) || len(out.all) != 250 {
					t.Errorf("%d writes:\n%s", len(out.all), out)
				}
				if s := l.Stats(); s.Rescued != 250 || s.Seq-s.Shipped != 250 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// TestLastResortIsNotNeeded: the end's drain does not wait for a pause's end.
func TestLastResortIsNotNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, down := &frozenClock{}, true
		l, sink, dir := outage(t, c, &down)
		out := &writes{}
		l.opt.LastResort = out
		sink.set(func() { down = false })
		begin := time.Now()
		if err := closeIn(t, l, 9*time.Second); err != nil || time.Since(begin) != 0 || len(out.all) > 0 {
			t.Errorf("after %s: %v, %d lines", time.Since(begin), err, len(out.all))
		}
		sink.wantAll(t, dir)
	})
}

// TestLastResortFails: who can take no more is not waited for beyond the end,
// and it is an error.
func TestLastResortFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, out := range []*writes{{refuse: 3}, {block: make(chan struct{})}} {
			sink := &faultSink{fault: func(int, int) fault { return fault{err: errUnavailable, stored: func(int) bool { return false }} }}
			dir := t.TempDir()
			l := open(t, Options{Dir: dir, Sink: sink, LastResort: out})
			for i := range 10 {
				mustPut(t, l, fmt.Sprint(i), Crash)
			}
			if err := closeIn(t, l, 4*time.Second); err == nil {
				t.Error("no error")
			}
			if s := l.Stats(); s.Rescued != uint64(out.refuse) {
				t.Errorf("%+v", s)
			}
			if out.block != nil {
				close(out.block)
			}
			// Nothing is lost where the folder is there after all.
			sink.set(func() { sink.fault = nil })
			closed(t, open(t, Options{Dir: dir, Sink: sink}))
			sink.wantAll(t, dir)
		}
	})
}
