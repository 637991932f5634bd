package audit

import (
	"os"
	"path/filepath"
	"testing"
)

func TestNamesThatOnlyLookLikeSegments(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 3)
	if err := os.WriteFile(filepath.Join(dir, "dead-letter-20261123.jsonl"), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fill(t, Options{Dir: dir}, 3)
	if r := verified(t, dir); r.Last != 6 {
		t.Error(r)
	}
}
