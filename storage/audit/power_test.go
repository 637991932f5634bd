package audit

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestZerosBehindTheLastLine: after a power loss a file can be as long as it
// was, and hold zeros where nothing had been fsynced.
func TestZerosBehindTheLastLine(t *testing.T) {
	for _, n := range []int{1, MaxLine - 1, MaxLine + 2, 8 << 20} {
		dir := t.TempDir()
		fill(t, Options{Dir: dir}, 3)
		name := filepath.Join(dir, segmentName(1))
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, append(append(text, text[:100]...), make([]byte, n)...), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(Options{Dir: dir})
		if err != nil {
			t.Error(n, err)
			continue
		}
		closed(t, l)
		if r := verified(t, dir); r.Last != 4 {
			t.Errorf("%d: %+v", n, r)
		}
	}
}

// TestAFoldersNameIsFsynced: the parent holds it, and fsyncing what is in the
// folder does not keep the way there.
func TestAFoldersNameIsFsynced(t *testing.T) {
	top := t.TempDir()
	var synced []string
	sync := func(dir string) error {
		synced = append(synced, dir)
		return syncDir(dir)
	}
	dir := filepath.Join(top, "data", "audit")
	for range 2 { // the second time it is there
		if err := makeFolder(dir, sync); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{top, filepath.Join(top, "data")}; !slices.Equal(synced, want) {
		t.Errorf("%q, want %q", synced, want)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := Open(Options{Dir: file}); err == nil {
		closed(t, l)
		t.Error("a file is taken for a folder")
	}
}
