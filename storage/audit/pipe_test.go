//go:build unix

package audit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAPipeInAFilesPlace: who can write the folder must not make a verify, a
// repair or a start wait for ever. It is an error, which says what is there.
func TestAPipeInAFilesPlace(t *testing.T) {
	by, keys := newKey(t)
	unread := map[string]string{resumeFile: "verify", deadFile: "verify, repair"}
	for _, name := range []string{segmentName(1), headNote, resumeFile, deadFile} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, Options{Dir: dir, Signer: by, Segment: 4000}, 10)
			file := filepath.Join(dir, name)
			if name == segmentName(1) {
				compress(t, dir, 1) // else it would not be looked at
			}
			os.Remove(file)
			if err := syscall.Mkfifo(file, 0o600); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				r, err := Verification{Keys: keys}.Dir(t.Context(), dir)
				done <- errors.Join(err, r.Failure())
				_, err = RepairFolder(t.Context(), RepairOptions{Dir: dir, Keys: keys})
				done <- err
				l, err := Open(Options{Dir: dir, Signer: by, Sink: new(fakeSink)})
				if err == nil {
					l.Close(context.Background())
				}
				done <- err
			}()
			for _, what := range []string{"verify", "repair", "start"} {
				select {
				case err := <-done:
					if reads := !strings.Contains(unread[name], what); reads && (err == nil || !strings.Contains(err.Error(), "no regular file")) {
						t.Errorf("%s: %v", what, err)
					}
				case <-time.After(20 * time.Second):
					t.Fatalf("%s hangs", what)
				}
			}
		})
	}
}
