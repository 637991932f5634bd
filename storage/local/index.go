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
	sessions = []byte("uploads") // ID, its end first: the session
	// owners has all that is about one owner side by side, so that a session
	// changes few pages: hash of the owner, one of the kinds below, and then
	owners = []byte("uploadOwners")
	wakes  = []byte("uploadWakes") // Wake, ID, its end first: nothing
)

const (
	listed  = 'l' // CreatedAt, ID, its end first: the mark of its key
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

// keyMark tells one key from nearly every other: a search reads only sessions
// that bear the mark. An index of keys would change a page more with each
// upload, for a search that is rare, and of one's own newest sessions.
func keyMark(key string) []byte { return hash(key)[:8] }

// place is where s stands among those of its owner; a cursor holds
// microseconds.
func place(s *upload.Session) []byte { return timed(s.CreatedAt.Truncate(time.Microsecond), s.ID) }

func wakeKey(s *upload.Session) []byte { return timed(s.Wake, s.ID) }

// timed is a time and then the key of a session: times are whole seconds, and
// those of one second stand by the time in their ids, so that new ones are
// side by side here too.
func timed(t time.Time, id string) []byte {
	return append(appendTime(make([]byte, 0, timeSize+len(id)), t), sessionKey(id)...)
}

// enter puts a session where it is found.
func enter(tx *bolt.Tx, s *upload.Session) error {
	entry := append(of(s.Namespace, s.UID, listed), place(s)...)
	if err := tx.Bucket(owners).Put(entry, keyMark(s.Key)); err != nil {
		return brokenError{err}
	}
	return wakeAt(tx, s)
}

// wakeAt puts a session where its Wake is found, if it has one.
func wakeAt(tx *bolt.Tx, s *upload.Session) error {
	if s.Wake.IsZero() {
		return nil
	}
	b := tx.Bucket(wakes)
	b.FillPercent = fillRising
	if err := b.Put(wakeKey(s), nil); err != nil {
		return brokenError{err}
	}
	return nil
}

// moveWake puts a session where its next Wake is found.
func moveWake(tx *bolt.Tx, was, next *upload.Session) error {
	if was.Wake.Equal(next.Wake) {
		return nil
	}
	if !was.Wake.IsZero() {
		if err := tx.Bucket(wakes).Delete(wakeKey(was)); err != nil {
			return brokenError{err}
		}
	}
	return wakeAt(tx, next)
}

// List is a user's sessions, newest first.
func (s *Store) List(ctx context.Context, namespace, uid, cursor string, limit int) ([]*upload.Session, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	owner := of(namespace, uid, listed)
	var from []byte
	if cursor != "" {
		created, id, err := upload.ParseCursor(cursor)
		if err != nil {
			return nil, "", err
		}
		from = append(bytes.Clone(owner), timed(created, id)...)
	}
	var page []*upload.Session
	var next string
	err := s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(owners).Cursor()
		k, _ := last(c, owner)
		if from != nil {
			k, _ = before(c, from)
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

// indexed is a session that an index names by its key: that it is missing is a
// fault.
func indexed(tx *bolt.Tx, key []byte) (*upload.Session, error) {
	id := idOf(key)
	found, err := get(tx, id)
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
		owner, mark := of(namespace, uid, listed), keyMark(key)
		c := tx.Bucket(owners).Cursor()
		for k, v := last(c, owner); bytes.HasPrefix(k, owner); k, v = c.Prev() {
			if !bytes.Equal(v, mark) {
				continue
			}
			one, err := indexed(tx, k[min(len(k), len(owner)+timeSize):])
			if err != nil {
				return err
			}
			if one.Namespace != namespace || one.UID != uid {
				return fmt.Errorf("find an upload session by its key: %.64q is listed as another's", one.ID)
			}
			if one.Key == key { // and not one of the same mark
				found = one
				return nil
			}
		}
		return upload.ErrNotFound
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// last is the last entry that begins with the prefix, or one that does not.
func last(c *bolt.Cursor, prefix []byte) (k, v []byte) {
	return before(c, append(bytes.Clone(prefix), bytes.Repeat([]byte{0xff}, timeSize)...)) // behind every time
}

// before is the last entry before that key.
func before(c *bolt.Cursor, key []byte) (k, v []byte) {
	if k, _ = c.Seek(key); k == nil {
		return c.Last() // all are
	}
	return c.Prev()
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
