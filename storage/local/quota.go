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
	objects, bytes int64
	end            time.Time // of the window
}

const usageSize = 8 + 8 + timeSize

func (u *usage) encode() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, usageSize), uint64(u.objects))
	b = binary.BigEndian.AppendUint64(b, uint64(u.bytes))
	return appendTime(b, u.end)
}

func decodeUsage(b []byte) (usage, error) {
	if len(b) != usageSize {
		return usage{}, errors.New("read a quota: what is stored is no count")
	}
	u := usage{
		objects: int64(binary.BigEndian.Uint64(b)),
		bytes:   int64(binary.BigEndian.Uint64(b[8:])),
		end:     time.Unix(int64(binary.BigEndian.Uint64(b[16:])^1<<63), int64(binary.BigEndian.Uint32(b[24:]))),
	}
	if u.objects < 0 || u.bytes < 0 {
		return usage{}, errors.New("read a quota: what is stored is less than nothing")
	}
	return u, nil
}

// checkQuota holds what is to be counted: a session that is held without a
// quota, or a quota that nothing counts in, would let everything pass.
func checkQuota(s *upload.Session, q *upload.Quota) error {
	switch {
	case s.Held != (q != nil):
		return errors.New("a session counts where there is a quota, and only there")
	case q == nil:
		return nil
	case q.Window <= 0 || q.Bytes < 0 || q.Objects < 0:
		return errors.New("the quota has no window, or less than nothing")
	case s.Quota == "" || s.Counted < 0:
		return errors.New("the session names no account, or counts less than nothing")
	}
	return nil
}

func quotaKey(s *upload.Session) []byte {
	return appendTime(append(of(s.Namespace, s.UID, counted), hash(s.Quota)...), s.QuotaWindow)
}

// count adds s to its account, or is a QuotaError. The session's CreatedAt is
// what time it is: the store has no clock of its own.
func count(tx *bolt.Tx, s *upload.Session, q *upload.Quota) error {
	b, key := tx.Bucket(owners), quotaKey(s)
	end := s.QuotaWindow.Add(q.Window)
	u := usage{end: end}
	stored := b.Get(key)
	if stored != nil {
		var err error
		if u, err = decodeUsage(stored); err != nil {
			return err
		}
	}
	what := ""
	switch {
	case q.Objects > 0 && u.objects >= q.Objects:
		what = "objects"
	case q.Bytes > 0 && (u.bytes > q.Bytes || s.Counted > q.Bytes-u.bytes):
		what = "bytes"
	case s.Counted > 1<<63-1-u.bytes:
		return errors.New("count an upload: more bytes than can be counted")
	}
	if what != "" {
		return &upload.QuotaError{Retry: max(end.Sub(s.CreatedAt), 0), What: what}
	}
	if stored == nil || end.After(u.end) {
		// Its end moves where a policy made the window longer meanwhile.
		ends := tx.Bucket(quotaEnds)
		if stored != nil {
			if err := ends.Delete(append(appendTime(nil, u.end), key...)); err != nil {
				return brokenError{err}
			}
		}
		u.end = end
		if err := ends.Put(append(appendTime(nil, end), key...), nil); err != nil {
			return brokenError{err}
		}
		if err := removeEnded(tx, s.CreatedAt); err != nil {
			return brokenError{err}
		}
	}
	u.objects++
	u.bytes += s.Counted
	if err := b.Put(key, u.encode()); err != nil {
		return brokenError{err}
	}
	return nil
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
	u.objects = max(u.objects-1, 0)
	u.bytes = max(u.bytes-max(s.Counted, 0), 0)
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
