//go:build unix

package audit

import (
	"os"
	"path/filepath"
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
