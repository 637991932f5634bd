// Package local keeps upload sessions in one file on this machine
// (go.etcd.io/bbolt). One process at a time has the file open; gateways that
// share sessions use storage/firestore instead.
package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	fileName = "sidegate.db"
	// lockTimeout is how long Open waits for another process to let go: a
	// restart overlaps a little, a second gateway stays.
	lockTimeout = time.Second
)

// A Store is an upload.Store and an upload.Index in a file. Sessions are JSON;
// what they are found by, and what is counted, are buckets of
// their own that change in the same transaction. What Create and Transition
// reported as done is fsynced. It is safe for concurrent use.
type Store struct {
	db      *bolt.DB
	commits *commits
}

// Open opens the store in the folder dir, and makes both where they are
// missing, readable by this user alone. The file is locked until Close.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of upload sessions: %w", err)
	}
	path := filepath.Join(dir, fileName)
	if err := Look(dir); errors.Is(err, errCut) { // which would end the program, and not with an error
		return nil, fmt.Errorf("open the upload sessions in %s: %w", path, err)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("another sidegate uses %s: stop it, or give this one its own storage.local.dir", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open the upload sessions in %s: %w", path, err)
	}
	if err := prepare(db); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the upload sessions in %s: %w", path, err), db.Close())
	}
	if err := syncFolder(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the upload sessions in %s: %w", path, err), db.Close())
	}
	return &Store{db: db, commits: &commits{db: db}}, nil
}

// ErrInUse is of a store that another process has open.
var ErrInUse = errors.New("another process has it open")

// errCut is of a file that lost its end, by a copy or a restore that was not
// finished. What is mapped of it beyond its end cannot even be looked at.
var errCut = errors.New("its end is missing: restore it, or move it away")

// Look says why Open would fail on the file in the folder: ErrInUse, or what is
// wrong with it; nil where there is none yet. It changes nothing, but holds the
// file's lock, shared, for a moment.
func Look(dir string) error {
	path := filepath.Join(dir, fileName)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil || info.Size() == 0 { // which Open makes a store of
		return err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Millisecond})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return ErrInUse
	}
	if err != nil {
		return err
	}
	err = db.View(func(tx *bolt.Tx) error {
		info, err := os.Stat(path) // under the lock: until then it may have grown
		if err == nil && tx.Size() > info.Size() {
			err = errCut
		}
		return err
	})
	return errors.Join(err, db.Close())
}

// syncFolder makes the file's name survive a power loss too.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close waits for what is being written and lets go of the file.
func (s *Store) Close() error { return s.db.Close() }
