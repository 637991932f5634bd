package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"sidegate/storage/upload"
)

// A time is timeSize bytes that sort as it does, a hash is hashSize bytes.
var (
	sessions = []byte("uploadSessions") // ID: the session
	// owners has all that is about one owner side by side, so that a session
	// changes few pages: hash of the owner, one of the kinds below, and then
	owners = []byte("uploadOwners")
	wakes  = []byte("uploadWakes") // Wake, ID: nothing
)

const (
	listed  = 'l' // CreatedAt, ID: nothing
	byKey   = 'k' // hash of the key: CreatedAt and ID of its newest session
	counted = 'q' // hash of the account, its window's begin: a usage
)

const (
	timeSize = 12
	hashSize = 16
)

// appendTime adds a time so that bytes sort as times do, also those before 1970.
func appendTime(b []byte, t time.Time) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(t.Unix())^1<<63)
	return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
}

// hash is over each part with its length, so that no two lists are one.
func hash(parts ...string) []byte {
	h := make([]byte, 0, 256)
	for _, p := range parts {
		h = binary.AppendUvarint(h, uint64(len(p)))
		h = append(h, p...)
	}
	sum := sha256.Sum256(h)
	return sum[:hashSize]
}

// of is the begin of an owner's entries of one kind.
func of(namespace, uid string, kind byte) []byte { return append(hash(namespace, uid), kind) }

// place is where s stands among those of its owner or key; a cursor holds
// microseconds.
func place(s *upload.Session) []byte {
	return append(appendTime(make([]byte, 0, timeSize+len(s.ID)), s.CreatedAt.Truncate(time.Microsecond)), s.ID...)
}

func wakeKey(s *upload.Session) []byte {
	return append(appendTime(make([]byte, 0, timeSize+len(s.ID)), s.Wake), s.ID...)
}

// enter puts a session where it is found.
func enter(tx *bolt.Tx, s *upload.Session) error {
	at, b := place(s), tx.Bucket(owners)
	if err := b.Put(append(of(s.Namespace, s.UID, listed), at...), nil); err != nil {
		return brokenError{err}
	}
	if k := append(of(s.Namespace, s.UID, byKey), hash(s.Key)...); bytes.Compare(b.Get(k), at) < 0 {
		if err := b.Put(k, at); err != nil {
			return brokenError{err}
		}
	}
	if !s.Wake.IsZero() {
		if err := tx.Bucket(wakes).Put(wakeKey(s), nil); err != nil {
			return brokenError{err}
		}
	}
	return nil
}

// moveWake puts a session where its next Wake is found.
func moveWake(tx *bolt.Tx, was, next *upload.Session) error {
	if was.Wake.Equal(next.Wake) {
		return nil
	}
	b := tx.Bucket(wakes)
	if !was.Wake.IsZero() {
		if err := b.Delete(wakeKey(was)); err != nil {
			return brokenError{err}
		}
	}
	if !next.Wake.IsZero() {
		if err := b.Put(wakeKey(next), nil); err != nil {
			return brokenError{err}
		}
	}
	return nil
}

// List is a user's sessions, newest first.
func (s *Store) List(ctx context.Context, namespace, uid, cursor string, limit int) ([]*upload.Session, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	owner := of(namespace, uid, listed)
	before := append(bytes.Clone(owner), bytes.Repeat([]byte{0xff}, timeSize)...) // behind every time
	if cursor != "" {
		created, id, err := upload.ParseCursor(cursor)
		if err != nil {
			return nil, "", err
		}
		before = append(append(bytes.Clone(owner), appendTime(nil, created)...), id...)
	}
	var page []*upload.Session
	var next string
	err := s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(owners).Cursor()
		// Seek finds the first that is not before; or none, behind the last.
		k, _ := c.Seek(before)
		if k == nil {
			k, _ = c.Last()
		} else {
			k, _ = c.Prev()
		}
		for ; bytes.HasPrefix(k, owner); k, _ = c.Prev() {
			if len(page) >= limit {
				if len(page) > 0 {
					next = upload.CursorOf(page[len(page)-1])
				}
				return nil
			}
			found, err := indexed(tx, k[min(len(k), len(owner)+timeSize):])
			if err != nil {
				return err
			}
			if found.Namespace != namespace || found.UID != uid {
				return fmt.Errorf("list upload sessions: %.64q is listed as another's", found.ID)
			}
			page = append(page, found)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	return page, next, nil
}

// indexed is a session that an index names: that it is missing is a fault.
func indexed(tx *bolt.Tx, id []byte) (*upload.Session, error) {
	found, err := get(tx, string(id))
	if errors.Is(err, upload.ErrNotFound) {
		return nil, fmt.Errorf("read upload session %.64q: it is listed and not there", id)
	}
	return found, err
}

// Find is the newest of a user's sessions with that key.
func (s *Store) Find(ctx context.Context, namespace, uid, key string) (*upload.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var found *upload.Session
	err := s.db.View(func(tx *bolt.Tx) error {
		at := tx.Bucket(owners).Get(append(of(namespace, uid, byKey), hash(key)...))
		if at == nil {
			return upload.ErrNotFound
		}
		var err error
		if found, err = indexed(tx, at[min(len(at), timeSize):]); err != nil {
			return err
		}
		if found.Namespace != namespace || found.UID != uid || found.Key != key {
			return fmt.Errorf("find an upload session by its key: %.64q is listed as another's", found.ID)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Due are the sessions that are due, the longest due first. One that cannot be
// read keeps no other from being found: the error comes with those that can.
func (s *Store) Due(ctx context.Context, now time.Time, limit int) ([]*upload.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var due []*upload.Session
	var unread []error
	end := appendTime(nil, now)
	err := s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(wakes).Cursor()
		for k, _ := c.First(); k != nil && len(due) < limit; k, _ = c.Next() {
			at := k[:min(len(k), timeSize)]
			if bytes.Compare(at, end) > 0 {
				break
			}
			found, err := indexed(tx, k[len(at):])
			if err == nil && !bytes.Equal(wakeKey(found), k) {
				err = fmt.Errorf("read upload session %.64q: it is listed as due at another time", found.ID)
			}
			if err != nil {
				if len(unread) < maxUnread {
					unread = append(unread, err)
				}
				continue
			}
			due = append(due, found)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return due, errors.Join(unread...)
}

// maxUnread bounds an error about sessions that cannot be read.
const maxUnread = 8
