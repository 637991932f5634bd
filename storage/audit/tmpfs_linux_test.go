package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestFullTmpfs fills a real file system, and frees it again.
func TestFullTmpfs(t *testing.T) {
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("NO TMPFS: mount says %v (needs root); TestFullDisk covers the same with a fake disk", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(root, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "audit")
	l := open(t, Options{Dir: dir, Segment: 16 << 10, pause: time.Millisecond})
	refused := map[string]bool{}
	kept := 0
	for i := range 200 {
		if err := put(t, l, fmt.Sprint(i), Survive(i%2)); err == nil {
			kept++
		} else if errors.Is(err, syscall.ENOSPC) {
			refused[fmt.Sprint(i)] = true
		} else {
			t.Fatal(err)
		}
	}
	if len(refused) == 0 || l.Healthy() == nil {
		t.Errorf("%d refused, health %v", len(refused), l.Healthy())
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	healed(t, l)
	mustPut(t, l, "after", Power)
	closed(t, l)
	verified(t, dir)
	for _, e := range events(t, dir) {
		if refused[e.Record] {
			t.Errorf("event %s was refused and is there", e.Record)
		}
		if e.Record != "" {
			kept--
		}
	}
	if kept != -1 { // one more: after
		t.Errorf("%d events that were kept are missing", kept+1)
	}
}
