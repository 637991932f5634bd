package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"sidegate/storage/upload"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func session() *upload.Session {
	at := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	return &upload.Session{
		ID: upload.NewID(), UID: "u1", Namespace: "users", Identity: "users", Key: "users/u1/é.jpg", Bucket: "default",
		ContentType: "image/jpeg", Size: -1, Status: upload.Issued, Record: "r1",
		CreatedAt: at, ExpiresAt: at.Add(15 * time.Minute), ConfirmBy: at.Add(time.Hour),
	}
}

func TestSessionsOutliveTheProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	s, want := open(t, dir), session()
	if err := s.Create(t.Context(), want, nil); err != nil {
		t.Fatal(err)
	}
	ready := *want
	ready.Status, ready.Size, ready.ETag, ready.ReadyAt = upload.Ready, 5, `"e"`, want.CreatedAt.Add(time.Minute)
	if err := s.Transition(t.Context(), upload.Issued, &ready); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, dir).Get(t.Context(), want.ID)
	if err != nil || *got != ready {
		t.Errorf("got %+v, %v, want %+v", got, err, ready)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Join(dir, fileName): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v, want %v", filepath.Base(path), info.Mode(), err, mode)
		}
	}
}

func TestRefusals(t *testing.T) {
	s, one := open(t, t.TempDir()), session()
	if _, err := s.Get(t.Context(), one.ID); err != upload.ErrNotFound {
		t.Errorf("Get: %v", err)
	}
	if _, err := s.Get(t.Context(), ""); err != upload.ErrNotFound {
		t.Errorf("Get of no id: %v", err)
	}
	if err := s.Transition(t.Context(), upload.Issued, one); err != upload.ErrNotFound {
		t.Errorf("Transition: %v", err)
	}
	if err := s.Create(t.Context(), one, nil); err != nil {
		t.Fatal(err)
	}
	other := *one
	other.UID = "u2"
	if err := s.Create(t.Context(), &other, nil); err != upload.ErrExists {
		t.Errorf("Create: %v", err)
	}
	if err := s.Transition(t.Context(), upload.Ready, &other); err != upload.ErrConflict {
		t.Errorf("Transition from another state: %v", err)
	}
	if got, err := s.Get(t.Context(), one.ID); err != nil || *got != *one {
		t.Errorf("changed: %+v, %v", got, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Create(ended, session(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Create for nobody: %v", err)
	}
}

// F30: a second gateway on one folder.
func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	_, err := Open(dir)
	if err == nil || !strings.Contains(err.Error(), "another sidegate uses "+dir) {
		t.Errorf("second: %v", err)
	}
	if err := first.Create(t.Context(), session(), nil); err != nil {
		t.Errorf("the first goes on: %v", err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	if err := os.WriteFile(path, []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("no database: %v", err)
	}
	if _, err := Open(path); err == nil {
		t.Error("a file as the folder")
	}
}

// F24: many at once: each session is made once, and moves once.
func TestAtOnce(t *testing.T) {
	s := open(t, t.TempDir())
	const writers, perSession = 64, 8
	ids := make([]string, writers/perSession)
	for i := range ids {
		ids[i] = fmt.Sprintf("%032x", i)
	}
	var made, moved atomic.Int32
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			one := session()
			one.ID, one.Record = ids[i%len(ids)], fmt.Sprint(i)
			switch err := s.Create(t.Context(), one, nil); {
			case err == nil:
				made.Add(1)
			case err != upload.ErrExists:
				t.Error(err)
			}
			one.Status = upload.Ready
			switch err := s.Transition(t.Context(), upload.Issued, one); {
			case err == nil:
				moved.Add(1)
				if got, err := s.Get(t.Context(), one.ID); err != nil || got.Record != one.Record {
					t.Errorf("moved by %s, stored %+v, %v", one.Record, got, err)
				}
			case err != upload.ErrConflict:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made.Load() != int32(len(ids)) || moved.Load() != int32(len(ids)) {
		t.Errorf("%d made, %d moved, want %d each", made.Load(), moved.Load(), len(ids))
	}
}

func TestDamagedSession(t *testing.T) {
	s, one := open(t, t.TempDir()), session()
	for _, value := range []string{"{", `{"session":"another"}`, ""} {
		err := s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(sessions).Put(sessionKey(one.ID), []byte(value)) })
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(t.Context(), one.ID); err == nil || errors.Is(err, upload.ErrNotFound) {
			t.Errorf("%q: %+v, %v", value, got, err)
		}
		if err := s.Transition(t.Context(), upload.Issued, one); err == nil || errors.Is(err, upload.ErrConflict) {
			t.Errorf("%q: Transition: %v", value, err)
		}
	}
}

func TestClosed(t *testing.T) {
	s := open(t, t.TempDir())
	s.Close()
	if err := s.Create(t.Context(), session(), nil); err == nil {
		t.Error("stored after Close")
	}
	if _, err := s.Get(t.Context(), upload.NewID()); err == nil || errors.Is(err, upload.ErrNotFound) {
		t.Errorf("Get after Close: %v", err)
	}
}
