package audit

import (
	"os"
	"path/filepath"
	"testing"
)

// TestAReaderOfASegmentThatWasPutAnew: a failed fsync had it written to another
// file, which then got more lines and a successor.
func TestAReaderOfASegmentThatWasPutAnew(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 2)
	name := filepath.Join(dir, segmentName(1))
	c := cursor{dir: dir, strict: true}
	defer c.release()
	read := func(seq uint64) {
		t.Helper()
		if l, err := c.next(); err != nil || l.Seq != seq {
			t.Fatal(l.Seq, err)
		}
	}
	read(1)
	text, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name+rewriteSuffix, text, 0o600)
	}
	if err == nil {
		err = os.Rename(name+rewriteSuffix, name)
	}
	if err != nil {
		t.Fatal(err)
	}
	fill(t, Options{Dir: dir}, 1)
	fill(t, Options{Dir: dir, Segment: 1}, 1)
	for seq := range uint64(3) {
		read(seq + 2)
	}
}
