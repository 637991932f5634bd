package audit

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestALockThatWasRemovedStillLocks: people remove what they take for a stale
// lock. Two writers would each write over what the other had promised to keep.
func TestALockThatWasRemovedStillLocks(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir})
	mustPut(t, l, "r", Crash)
	if err := os.Remove(filepath.Join(dir, lockName)); err != nil {
		t.Fatal(err)
	}
	if second, err := Open(Options{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second writer: %v", err)
		if err == nil {
			closed(t, second)
		}
	}
	if _, err := RepairFolder(t.Context(), RepairOptions{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("a repair: %v", err)
	}
	closed(t, l)
	fill(t, Options{Dir: dir}, 1)
}
