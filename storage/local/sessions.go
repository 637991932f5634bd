package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"sidegate/storage/upload"
)

// Create stores a new session, and counts it where it is held.
func (s *Store) Create(ctx context.Context, next *upload.Session, q *upload.Quota) error {
	if err := upload.CheckCreate(next, q); err != nil {
		return fmt.Errorf("store upload session %.64q: %w", next.ID, err)
	}
	return s.write(ctx, next, func(tx *bolt.Tx, old []byte) error {
		if old != nil {
			return upload.ErrExists
		}
		if next.Held {
			if err := count(tx, next, q); err != nil {
				return err
			}
		}
		return enter(tx, next)
	})
}

// Transition replaces a session that is still in the state from, and that has
// not changed since next was read.
func (s *Store) Transition(ctx context.Context, from upload.Status, next *upload.Session) error {
	changed := *next
	changed.Changes++
	err := s.write(ctx, &changed, func(tx *bolt.Tx, old []byte) error {
		if old == nil {
			return upload.ErrNotFound
		}
		was, err := decode(next.ID, old)
		if err != nil {
			return err
		}
		if was.Status != from || was.Changes != next.Changes {
			return upload.ErrConflict
		}
		if err := upload.CheckTransition(was, next); err != nil {
			return fmt.Errorf("store upload session %.64q: %w", next.ID, err)
		}
		if was.Held && !next.Held {
			if err := giveBack(tx, was); err != nil {
				return err
			}
		}
		return moveWake(tx, was, next)
	})
	if err == nil {
		next.Changes = changed.Changes
	}
	return err
}

// A brokenError is a fault of the file, after which a transaction must not
// go on; any other error of a change is a refusal that left it as it was.
type brokenError struct{ error }

func (e brokenError) Unwrap() error { return e.error }

// write stores next after what else its transaction changes; old is what is
// there (nil: nothing). It changes nothing before it refuses.
func (s *Store) write(ctx context.Context, next *upload.Session, change func(tx *bolt.Tx, old []byte) error) error {
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
	err = s.commits.update(func(tx *bolt.Tx) error {
		b, key := tx.Bucket(sessions), sessionKey(next.ID)
		b.FillPercent = fillRising
		if refused = change(tx, b.Get(key)); refused != nil {
			if broken := (brokenError{}); errors.As(refused, &broken) {
				return broken.error
			}
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
		var err error
		found, err = get(tx, id)
		return err
	})
	return found, err
}

// fillRising is how full pages get of a bucket whose new keys mostly come last.
const fillRising = 0.9

// timeDigits is how many hex digits of time an id ends in.
const timeDigits = 12

// sessionKey is where the session of that id stands: the end of the id first,
// which is its time, so that new sessions stand side by side.
func sessionKey(id string) []byte {
	cut := max(len(id)-timeDigits, 0)
	return append([]byte(id[cut:]), id[:cut]...)
}

// idOf is the id of the session that stands there.
func idOf(key []byte) string {
	cut := min(len(key), timeDigits)
	return string(key[cut:]) + string(key[:cut])
}

func get(tx *bolt.Tx, id string) (*upload.Session, error) {
	value := tx.Bucket(sessions).Get(sessionKey(id))
	if value == nil {
		return nil, upload.ErrNotFound
	}
	return decode(id, value)
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
