package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"sidegate/storage/upload"
)

// quotaEnds says which counts can go: the window's end, the key in owners: nothing.
var quotaEnds = []byte("uploadQuotaEnds")

// A usage is what an account has counted in one window.
type usage struct {
	upload.Usage
	end time.Time // of the window
}

const usageSize = 8 + 8 + timeSize

func (u *usage) encode() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, usageSize), uint64(u.Objects))
	b = binary.BigEndian.AppendUint64(b, uint64(u.Bytes))
	return appendTime(b, u.end)
}

func decodeUsage(b []byte) (usage, error) {
	if len(b) != usageSize {
		return usage{}, errors.New("read a quota: what is stored is no count")
	}
	u := usage{
		Usage: upload.Usage{Objects: int64(binary.BigEndian.Uint64(b)), Bytes: int64(binary.BigEndian.Uint64(b[8:]))},
		end:   time.Unix(int64(binary.BigEndian.Uint64(b[16:])^1<<63), int64(binary.BigEndian.Uint32(b[24:]))),
	}
	if u.Objects < 0 || u.Bytes < 0 {
		return usage{}, errors.New("read a quota: what is stored is less than nothing")
	}
	return u, nil
}

func quotaKey(s *upload.Session) []byte {
	return appendTime(append(of(s.Namespace, s.UID, counted), hash(s.Quota)...), s.QuotaWindow)
}

// count adds s to its account, or is a QuotaError. The session's CreatedAt is
// what time it is: the store has no clock of its own.
func count(tx *bolt.Tx, s *upload.Session, q *upload.Quota) error {
	b, key := tx.Bucket(owners), quotaKey(s)
	var was usage
	stored := b.Get(key)
	if stored != nil {
		var err error
		if was, err = decodeUsage(stored); err != nil {
			return err
		}
	}
	sum, err := was.Add(s, q)
	if err != nil {
		return err
	}
	now := usage{sum, s.QuotaWindow.Add(q.Window)}
	switch {
	case stored == nil:
		err = errors.Join(keepUntil(tx, now.end, key), removeEnded(tx, s.CreatedAt))
	case now.end.After(was.end): // a policy made the window longer meanwhile
		err = errors.Join(tx.Bucket(quotaEnds).Delete(append(appendTime(nil, was.end), key...)), keepUntil(tx, now.end, key))
	default:
		now.end = was.end
	}
	if err == nil {
		err = b.Put(key, now.encode())
	}
	if err != nil {
		return brokenError{err}
	}
	return nil
}

func keepUntil(tx *bolt.Tx, end time.Time, key []byte) error {
	return tx.Bucket(quotaEnds).Put(append(appendTime(nil, end), key...), nil)
}

// giveBack takes s out of its account, where that still is: of a window long
// over nothing is kept.
func giveBack(tx *bolt.Tx, s *upload.Session) error {
	b, key := tx.Bucket(owners), quotaKey(s)
	stored := b.Get(key)
	if stored == nil {
		return nil
	}
	u, err := decodeUsage(stored)
	if err != nil {
		return err
	}
	u.Usage = u.Sub(s)
	if err := b.Put(key, u.encode()); err != nil {
		return brokenError{err}
	}
	return nil
}

const (
	// removedAtOnce is how many counts of windows that are over go with each
	// new one: more than one, so that there are never more than a few too many.
	removedAtOnce = 4
	// overFor is how long a window is over before its count goes: a clock that
	// is set back a little opens no window anew.
	overFor = time.Hour
)

// removeEnded removes some counts of windows that are long over.
func removeEnded(tx *bolt.Tx, now time.Time) error {
	last := appendTime(nil, now.Add(-overFor))
	c := tx.Bucket(quotaEnds).Cursor()
	for range removedAtOnce {
		k, _ := c.First()
		if len(k) <= timeSize || string(k[:timeSize]) >= string(last) {
			return nil
		}
		account := append([]byte(nil), k[timeSize:]...)
		if err := c.Delete(); err != nil {
			return err
		}
		if err := tx.Bucket(owners).Delete(account); err != nil {
			return fmt.Errorf("remove the count of a window that is over: %w", err)
		}
	}
	return nil
}
