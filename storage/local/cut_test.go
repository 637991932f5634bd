package local

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestCutFileIsRefused: a file that lost its end is an error, and neither fine nor
// the end of the program, as reading beyond the end of what is mapped is.
func TestCutFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Look(dir); err != nil {
		t.Fatal(err)
	}
	page := int64(os.Getpagesize())
	if err := os.Truncate(filepath.Join(dir, fileName), 2*page); err != nil {
		t.Fatal(err)
	}
	if err := Look(dir); !errors.Is(err, errCut) {
		t.Fatal(err) // and Open is not to be tried
	}
	if _, err := Open(dir); !errors.Is(err, errCut) {
		t.Error(err)
	}
}
