package audit

import (
	"os"
	"path/filepath"
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
