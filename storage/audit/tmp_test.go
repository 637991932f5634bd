package audit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhatAKillLeavesIsRemoved: a process that is killed again and again must
// not fill the folder with files that were not yet in their places.
func TestWhatAKillLeavesIsRemoved(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 1)
	mine := []string{"somebody.tmp1", "notes.txt.tmp", "head.note.tmp", "head.note.tmpx", "other.note.tmp12"}
	for _, name := range append([]string{"head.note.tmp123", "shipped.json.tmp9", noteName(1) + ".tmp77", "repair.json.tmp1"}, mine...) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fill(t, Options{Dir: dir}, 1)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, e := range entries {
		if strings.Contains(e.Name(), ".tmp") {
			left[e.Name()] = true
		}
	}
	for _, name := range mine {
		if !left[name] {
			t.Errorf("%s is gone", name)
		}
		delete(left, name)
	}
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
