// Package local keeps upload sessions in one file on this machine
// (go.etcd.io/bbolt). One process at a time has the file open; gateways that
// share sessions use storage/firestore instead.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"sidegate/storage/upload"
)

const (
	fileName = "sidegate.db"
	// lockTimeout is how long Open waits for another process to let go: a
	// restart overlaps a little, a second gateway stays.
	lockTimeout = time.Second
	// batchDelay is how long a write waits for others to share its two
	// fsyncs; about what one of them takes.
	batchDelay = 2 * time.Millisecond
)

var sessions = []byte("uploadSessions")

// A Store is an upload.Store in a file. Sessions are JSON under their IDs.
// What Create and Transition reported as done is fsynced. It is safe for
// concurrent use.
type Store struct {
	db *bolt.DB
}

// Open opens the store in the folder dir, and makes both where they are
// missing, readable by this user alone. The file is locked until Close.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of upload sessions: %w", err)
	}
	path := filepath.Join(dir, fileName)
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("another sidegate uses %s: stop it, or give this one its own storage.local.dir", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open the upload sessions in %s: %w", path, err)
	}
	db.MaxBatchDelay = batchDelay
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(sessions)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the upload sessions in %s: %w", path, err), db.Close())
	}
	if err := syncFolder(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the upload sessions in %s: %w", path, err), db.Close())
	}
	return &Store{db: db}, nil
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

// Create stores a new session.
func (s *Store) Create(ctx context.Context, next *upload.Session) error {
	return s.write(ctx, next, func(old []byte) error {
		if old != nil {
			return upload.ErrExists
		}
		return nil
	})
}

// Transition replaces a session that is still in the state from.
func (s *Store) Transition(ctx context.Context, from upload.Status, next *upload.Session) error {
	return s.write(ctx, next, func(old []byte) error {
		if old == nil {
			return upload.ErrNotFound
		}
		was, err := decode(next.ID, old)
		if err != nil {
			return err
		}
		if was.Status != from {
			return upload.ErrConflict
		}
		return nil
	})
}

// write stores next if may lets it replace what is there (nil: nothing).
func (s *Store) write(ctx context.Context, next *upload.Session, may func(old []byte) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	value, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode upload session %.64q: %w", next.ID, err)
	}
	// A refusal is no fault of the transaction: returned from within it, it
	// would roll back the writes of others that share it.
	var refused error
	err = s.db.Batch(func(tx *bolt.Tx) error {
		b, key := tx.Bucket(sessions), []byte(next.ID)
		if refused = may(b.Get(key)); refused != nil {
			return nil
		}
		return b.Put(key, value)
	})
	if err != nil {
		return fmt.Errorf("store upload session %.64q: %w", next.ID, err)
	}
	return refused
}

// Get is the session of that id.
func (s *Store) Get(ctx context.Context, id string) (*upload.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var found *upload.Session
	err := s.db.View(func(tx *bolt.Tx) error {
		value := tx.Bucket(sessions).Get([]byte(id))
		if value == nil {
			return upload.ErrNotFound
		}
		var err error
		found, err = decode(id, value)
		return err
	})
	return found, err
}

func decode(id string, value []byte) (*upload.Session, error) {
	var s upload.Session
	if err := json.Unmarshal(value, &s); err != nil {
		return nil, fmt.Errorf("read upload session %.64q: %w", id, err)
	}
	if s.ID != id {
		return nil, fmt.Errorf("read upload session %.64q: it is stored as another's", id)
	}
	return &s, nil
}
