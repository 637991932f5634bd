package local

import (
	"bytes"

	bolt "go.etcd.io/bbolt"
)

// oldSessions is where the version before had its sessions: ID: the session.
var oldSessions = []byte("uploadSessions")

// prepare makes the buckets, and takes over what the version before left, also
// one that was gone back to, or a process that ended while it did this.
func prepare(db *bolt.DB) error {
	old := false
	err := db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{sessions, owners, wakes, quotaEnds} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		old = tx.Bucket(oldSessions) != nil
		return nil
	})
	for err == nil && old {
		old, err = takeOver(db)
	}
	return err
}

// takenAtOnce bounds the memory that a transaction of takeOver takes.
const takenAtOnce = 5000

// takeOver moves some sessions to where they are found, and says whether there
// are more. One that cannot be read is moved as it is: it is an error to whoever
// asks for it, as before, and keeps no gateway from starting.
func takeOver(db *bolt.DB) (more bool, err error) {
	err = db.Update(func(tx *bolt.Tx) error {
		from, to := tx.Bucket(oldSessions), tx.Bucket(sessions)
		var ids [][]byte
		c := from.Cursor()
		for k, v := c.First(); k != nil && len(ids) < takenAtOnce; k, v = c.Next() {
			ids = append(ids, bytes.Clone(k))
			if to.Get(sessionKey(string(k))) != nil {
				continue
			}
			if err := to.Put(sessionKey(string(k)), bytes.Clone(v)); err != nil {
				return err
			}
			if s, err := decode(string(k), v); err == nil {
				if err := enter(tx, s); err != nil {
					return err
				}
			}
		}
		if more = len(ids) == takenAtOnce; !more {
			return tx.DeleteBucket(oldSessions)
		}
		for _, id := range ids {
			if err := from.Delete(id); err != nil {
				return err
			}
		}
		return nil
	})
	return more, err
}
