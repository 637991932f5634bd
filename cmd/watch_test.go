package cmd

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}

// watched starts a watch and returns a function that waits until the file was
// found changed to these contents.
func watched(t *testing.T, path string, configure func(*fileWatch)) (await func(want string)) {
	t.Helper()
	seen := make(chan string, 100)
	ctx, cancel := context.WithCancel(context.Background())
	known := fingerprintOf(path)
	w := &fileWatch{
		path: path, state: func() fingerprint { return fingerprintOf(path) }, known: func() fingerprint { return known }, quiet: 10 * time.Millisecond, most: 100 * time.Millisecond, poll: time.Hour,
		changed: func() {
			known = fingerprintOf(path)
			data, err := os.ReadFile(path)
			if err != nil {
				data = []byte("missing")
			}
			seen <- string(data)
		},
	}
	configure(w)
	ended := make(chan struct{})
	go func() { w.run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return func(want string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			select {
			case got := <-seen:
				if got == want {
					return
				}
			case <-deadline:
				t.Fatalf("never saw %q", want)
			}
		}
	}
}

func notified(t *testing.T) func(*fileWatch) {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return func(w *fileWatch) { w.add, w.events, w.errors = n.Add, n.Events, n.Errors }
}

func TestWatchFileChanges(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.yaml")
	write(t, path, "0")
	await := watched(t, path, notified(t))

	write(t, path, "truncated and written")
	await("truncated and written")

	write(t, filepath.Join(dir, ".policy.yaml.swp"), "renamed over")
	rename(t, filepath.Join(dir, ".policy.yaml.swp"), path)
	await("renamed over")

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	await("missing")
	write(t, path, "back")
	await("back")

	rename(t, path, filepath.Join(dir, "policy.yaml~"))
	write(t, path, "backup and new")
	await("backup and new")
}

// TestWatchKubernetesConfigMap does what the kubelet does with a mounted
// ConfigMap: policy.yaml -> ..data/policy.yaml, and ..data is swapped.
func TestWatchKubernetesConfigMap(t *testing.T) {
	dir := t.TempDir()
	publish := func(n int) {
		version := "..version_" + strconv.Itoa(n)
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version, "policy.yaml"), strconv.Itoa(n))
		link(t, version, filepath.Join(dir, "..data_tmp"))
		rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
		os.RemoveAll(filepath.Join(dir, "..version_"+strconv.Itoa(n-1)))
	}
	publish(1)
	path := filepath.Join(dir, "policy.yaml")
	link(t, filepath.Join("..data", "policy.yaml"), path)
	await := watched(t, path, notified(t))
	for n := 2; n < 5; n++ {
		publish(n)
		await(strconv.Itoa(n))
	}
}

func TestWatchLinkIntoAnotherFolder(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	write(t, filepath.Join(other, "p"), "0")
	path := filepath.Join(dir, "policy.yaml")
	link(t, filepath.Join(other, "p"), path)
	await := watched(t, path, notified(t))
	write(t, filepath.Join(other, "p"), "1")
	await("1")
}

// TestWatchBusyFolder keeps the folder from ever being quiet.
func TestWatchBusyFolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.yaml")
	write(t, path, "0")
	events := make(chan fsnotify.Event)
	await := watched(t, path, func(w *fileWatch) {
		w.quiet = 50 * time.Millisecond
		w.events = events
	})
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case events <- fsnotify.Event{}:
				runtime.Gosched()
			case <-stop:
				return
			}
		}
	}()
	defer close(stop)
	write(t, path, "1")
	await("1")
}

func TestWatchLookAfterLostNotices(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, path, "0")
	lost := make(chan error)
	await := watched(t, path, func(w *fileWatch) { w.errors = lost })
	write(t, path, "1")
	lost <- fsnotify.ErrEventOverflow
	await("1")
}

func TestWatchPollsWithoutNotices(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, path, "0")
	await := watched(t, path, func(w *fileWatch) { w.poll = 5 * time.Millisecond })
	write(t, path, "1")
	await("1")
}

// TestWatchFolderSwapped replaces the folder itself, which only the poll sees.
func TestWatchFolderSwapped(t *testing.T) {
	top := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(top, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(top, name, "policy.yaml"), name)
	}
	link(t, "a", filepath.Join(top, "current"))
	notify := notified(t)
	await := watched(t, filepath.Join(top, "current", "policy.yaml"), func(w *fileWatch) {
		notify(w)
		w.poll = 5 * time.Millisecond
	})
	link(t, "b", filepath.Join(top, "next"))
	rename(t, filepath.Join(top, "next"), filepath.Join(top, "current"))
	await("b")
}

func TestWatchChangeBeforeItStarted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, path, "0")
	since := fingerprintOf(path)
	write(t, path, "1")
	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	watchFile(ctx, path, func() fingerprint { return since }, func() { calls++; cancel() })
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
}

func TestWatchSameContentsIsNoChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, path, "0")
	w := &fileWatch{path: path, state: func() fingerprint { return fingerprintOf(path) }, known: func() fingerprint { return fingerprintOf(path) }, changed: func() { t.Error("called") }}
	write(t, path, "0")
	w.look()
}

func TestOnHangup(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	got := make(chan struct{}, 1)
	signals := make(chan os.Signal)
	go onHangup(ctx, signals, func() { got <- struct{}{} })
	for range 2 {
		signals <- syscall.SIGHUP
		<-got
	}
}
