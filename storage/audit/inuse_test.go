//go:build unix

package audit

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// TestInUse asks without changing anything.
func TestInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	ask := func(want bool) {
		t.Helper()
		if got, err := InUse(dir); err != nil || got != want {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	ask(false)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("it made the folder")
	}
	l, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ask(true)
	if err := os.Remove(filepath.Join(dir, lockName)); err != nil { // by somebody who took it for a stale one
		t.Fatal(err)
	}
	ask(true)
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	ask(false)
	if err := os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ask(false)
	l, err = Open(Options{Dir: dir})
	if err != nil {
		t.Fatalf("the question left the lock: %v", err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestLookingKeepsNobodyOut: whoever only asks holds the lock for a moment, and a
// gateway that starts in that moment must start.
func TestLookingKeepsNobodyOut(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 1)
	// Somebody who never lets go is no writer, and yet no start may wait for ever.
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if got, err := InUse(dir); got || err != nil {
		t.Errorf("two who look: %v %v", got, err)
	}
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("a lock that is shared for ever: %v", err)
	}
	f.Close()

	stop, looking := make(chan struct{}), make(chan struct{})
	var looks sync.WaitGroup
	for i := range 2 {
		looks.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := InUse(dir); err != nil {
					t.Error(err)
				}
				if i == 0 && n == 0 {
					close(looking)
				}
			}
		})
	}
	<-looking
	for range 50 {
		l, err := Open(Options{Dir: dir})
		if err != nil {
			t.Error(err)
			break
		}
		closed(t, l)
	}
	close(stop)
	looks.Wait()
	fill(t, Options{Dir: dir}, 1)
}
