package cmd

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"sidegate/policy/document"
)

// How long a changed file must be quiet before it counts, at most however
// busy its folder is, and how often it is looked at without any notice: some
// file systems give none (NFS), and none comes when a folder above is swapped.
const (
	watchQuiet = 100 * time.Millisecond
	watchMost  = time.Second
	watchPoll  = 15 * time.Second
)

// A fingerprint tells states of a file apart: its contents, or that it is
// missing or cannot be read.
type fingerprint [sha256.Size]byte

// fingerprintOf looks at the file of that path.
func fingerprintOf(path string) fingerprint {
	return stateOf(readBounded(path, document.MaxBytes))
}

// stateOf is the state that was read.
func stateOf(data []byte, err error) fingerprint {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fingerprint{1}
	case err != nil:
		return fingerprint{2}
	}
	return sha256.Sum256(data)
}

// watchFile calls changed each time the file differs from what known gives,
// until ctx ends: again at each look while it does, for a change that could not
// be acted on. A file that goes missing or unreadable counts as changed, so that
// the reload says so. Calls do not overlap.
func watchFile(ctx context.Context, path string, known func() fingerprint, changed func()) {
	watchState(ctx, path, func() fingerprint { return fingerprintOf(path) }, known, changed)
}

// watchState is watchFile for whatever state tells of what lies at path, or
// beside it.
func watchState(ctx context.Context, path string, state, known func() fingerprint, changed func()) {
	w := fileWatch{path: path, state: state, known: known, changed: changed, quiet: watchQuiet, most: watchMost, poll: watchPoll}
	if n, err := fsnotify.NewWatcher(); err == nil {
		defer n.Close()
		w.add, w.events, w.errors = n.Add, n.Events, n.Errors
	}
	w.run(ctx)
}

// A fileWatch watches one file. Without add and channels it only polls.
type fileWatch struct {
	path              string
	state, known      func() fingerprint
	changed           func()
	quiet, most, poll time.Duration

	add    func(folder string) error
	events <-chan fsnotify.Event
	errors <-chan error
}

// run waits for notices of the file's folders, and looks at the file itself
// when they are quiet: what happened is not told by names (Kubernetes swaps the
// symbolic link ..data, editors rename over) but by the contents.
func (w *fileWatch) run(ctx context.Context) {
	poll := time.NewTicker(w.poll)
	defer poll.Stop()
	settle := time.NewTimer(0) // whatever happened before
	defer settle.Stop()
	w.addFolders()
	var first time.Time // of the notices not looked at yet
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.events:
			if first.IsZero() {
				first = time.Now()
			}
			if time.Since(first) < w.most {
				settle.Reset(w.quiet)
			}
		case <-w.errors: // notices may be lost: look
			settle.Reset(w.quiet)
		case <-poll.C:
			w.addFolders()
			w.look()
		case <-settle.C:
			first = time.Time{}
			w.addFolders()
			w.look()
		}
	}
}

func (w *fileWatch) look() {
	if w.state() != w.known() {
		w.changed()
	}
}

// addFolders watches the file's folder and, where it is a symbolic link, the
// folder of what it points to. Again and again: they come and go. Where that
// fails the poll remains.
func (w *fileWatch) addFolders() {
	if w.add == nil {
		return
	}
	folder := filepath.Dir(w.path)
	_ = w.add(folder)
	if target, err := filepath.EvalSymlinks(w.path); err == nil && filepath.Dir(target) != folder {
		_ = w.add(filepath.Dir(target))
	}
}

// onHangup calls f for each signal that came in, until ctx ends.
func onHangup(ctx context.Context, signals <-chan os.Signal, f func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			f()
		}
	}
}
