package local

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"
)

var shelf = []byte("shelf")

func openCommits(t *testing.T) *commits {
	t.Helper()
	db, err := bolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	c := &commits{db: db}
	if err := c.update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket(shelf); return err }); err != nil {
		t.Fatal(err)
	}
	return c
}

// await waits until so many changes wait.
func (c *commits) await(n int) {
	for {
		c.mu.Lock()
		there := len(c.waiting)
		c.mu.Unlock()
		if there >= n {
			return
		}
		runtime.Gosched()
	}
}

// What comes while a transaction is written shares the next one.
func TestChangesShareTransactions(t *testing.T) {
	c := openCommits(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		err := c.update(func(*bolt.Tx) error { close(begun); <-goOn; return nil })
		if err != nil {
			t.Error(err)
		}
	})
	<-begun
	const n = 20
	ids := make([]int, n)
	for i := range n {
		all.Go(func() {
			if err := c.update(func(tx *bolt.Tx) error { ids[i] = tx.ID(); return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	c.await(n)
	close(goOn)
	all.Wait()
	for i, id := range ids {
		if id != ids[0] || id == 0 {
			t.Errorf("change %d is in transaction %d, the first in %d", i, id, ids[0])
		}
	}
	if c.led || len(c.waiting) != 0 {
		t.Errorf("led %v, %d wait", c.led, len(c.waiting))
	}
}

// A change that fails or panics is its own caller's matter: what it did is gone,
// and what others did in the same transaction is there.
func TestChangesThatFailTakeNobodyWithThem(t *testing.T) {
	c := openCommits(t)
	errNo := errors.New("no")
	var all sync.WaitGroup
	const n, rounds = 16, 40
	for i := range n {
		all.Go(func() {
			for round := range rounds {
				kind, key := rand.IntN(4), fmt.Sprint(i, "/", round)
				err, panicked := c.try(func(tx *bolt.Tx) error {
					if err := tx.Bucket(shelf).Put([]byte(key), []byte{1}); err != nil {
						return err
					}
					switch kind {
					case 0:
						return errNo
					case 1:
						panic("no")
					}
					return nil
				})
				if kind == 0 != errors.Is(err, errNo) || kind == 1 != panicked || kind > 1 && err != nil {
					t.Errorf("kind %d: %v, panicked %v", kind, err, panicked)
				}
				_ = c.db.View(func(tx *bolt.Tx) error {
					if there := tx.Bucket(shelf).Get([]byte(key)) != nil; there != (kind > 1) {
						t.Errorf("kind %d: there %v", kind, there)
					}
					return nil
				})
			}
		})
	}
	all.Wait()
}

// try is update, and whether it panicked.
func (c *commits) try(do func(*bolt.Tx) error) (err error, panicked bool) {
	defer func() { panicked = recover() != nil }()
	return c.update(do), false
}

// A transaction that breaks is an error to all who share it, and the next ones
// are written.
func TestTransactionThatBreaks(t *testing.T) {
	c := openCommits(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { // of a transaction of its own
		if err := c.update(func(*bolt.Tx) error { close(begun); <-goOn; return nil }); err != nil {
			t.Error(err)
		}
	})
	<-begun
	const n = 8
	var mu sync.Mutex
	broke, panics := 0, 0
	for range n {
		all.Go(func() {
			err, panicked := c.try(func(tx *bolt.Tx) error {
				tx.OnCommit(func() { panic("broken") })
				return nil
			})
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, errBroke) {
				broke++
			}
			if panicked {
				panics++
			}
		})
	}
	c.await(n)
	close(goOn)
	all.Wait()
	if broke != n-1 || panics != 1 {
		t.Errorf("%d were told that it broke, %d panicked, of %d", broke, panics, n)
	}
	if err := c.update(func(*bolt.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
	// A file that is closed is an error, too.
	if err := c.db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.update(func(*bolt.Tx) error { return nil }); err == nil {
		t.Error("a change of a closed file")
	}
}
