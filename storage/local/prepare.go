package local

import (
	"bytes"

	bolt "go.etcd.io/bbolt"
)

// prepare makes the buckets, and what sessions are found by, where the last to
// write did not: a version that knew no indexes, also one that was gone back
// to, or a process that ended while it made them.
func prepare(db *bolt.DB) error {
	complete := false
	err := db.View(func(tx *bolt.Tx) error {
		complete = true
		for _, name := range [][]byte{sessions, owners, wakes, quotaEnds} {
			complete = complete && tx.Bucket(name) != nil
		}
		complete = complete && tx.Bucket(sessions).Sequence() == uint64(tx.ID())
		return nil
	})
	if err != nil || complete {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		// Of the rest nothing is ever wrong: sessions stay, and so does what they
		// are found by. What is counted must stay.
		if tx.Bucket(wakes) != nil {
			if err := tx.DeleteBucket(wakes); err != nil {
				return err
			}
		}
		for _, name := range [][]byte{sessions, owners, wakes, quotaEnds} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	for from := []byte(nil); err == nil; {
		if from, err = index(db, from); from == nil && err == nil {
			return db.Update(signOff)
		}
	}
	return err
}

// signOff notes that this transaction left the indexes as the sessions are: the
// number of a transaction that did not is another. It costs nothing, for the
// page that the sequence stands in is written anyway.
func signOff(tx *bolt.Tx) error { return tx.Bucket(sessions).SetSequence(uint64(tx.ID())) }

// indexedAtOnce bounds the memory that a transaction of index takes.
const indexedAtOnce = 5000

// index enters the sessions from that ID on, and gives the ID to go on from,
// nil at the end. A session that cannot be read cannot be found either, but by
// its ID, and there it is an error as before: it keeps no gateway from starting.
func index(db *bolt.DB, from []byte) (next []byte, err error) {
	err = db.Update(func(tx *bolt.Tx) error {
		c := tx.Bucket(sessions).Cursor()
		n := 0
		for k, v := c.Seek(from); k != nil; k, v = c.Next() {
			if n++; n > indexedAtOnce {
				next = bytes.Clone(k)
				return nil
			}
			s, err := decode(string(k), v)
			if err != nil {
				continue
			}
			if err := enter(tx, s); err != nil {
				return err
			}
		}
		return nil
	})
	return next, err
}
