//go:build unix

package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A folderLock is one on the lock file, and one on the folder itself: people
// remove a file that they take for a stale lock.
type folderLock struct{ file, dir *os.File }

func (l folderLock) Close() error { return errors.Join(l.dir.Close(), l.file.Close()) }

// at is nil while dir is the folder that is locked. Another one that has its
// name by now may be another ledger's, whose files must be left alone.
func (l folderLock) at(dir string) error {
	mine, err := l.dir.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !os.SameFile(mine, there) {
		return fmt.Errorf("%s is another folder than the one that was opened: put that one back in its place, or start again", dir)
	}
	return nil
}

// lockFolder takes the folder's lock, which the system frees with the process.
func lockFolder(dir string) (folderLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return folderLock{}, err
	}
	d, err := os.Open(dir)
	if err == nil {
		err = lock(f)
	}
	if err == nil {
		// Not every file system locks folders (NFS); then the file has to do.
		if derr := lock(d); errors.Is(derr, ErrLocked) {
			err = derr
		}
	}
	if err != nil {
		d.Close() // nil is fine
		f.Close()
		return folderLock{}, err
	}
	return folderLock{f, d}, nil
}

// lockTries and lockPause are for who only looks: see InUse.
const (
	lockTries = 200
	lockPause = 5 * time.Millisecond
)

func lock(f *os.File) error {
	for range lockTries {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		// A writer lets nobody share its lock. Where it can be shared, somebody
		// looks, and is gone in a moment: no reason to refuse a start.
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return ErrLocked
		}
		if err == nil {
			err = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
		}
		if err != nil {
			return err
		}
		time.Sleep(lockPause)
	}
	return ErrLocked
}

// InUse reports whether another process has the folder's lock. It makes and
// changes nothing, but holds the lock, shared, for a moment, which a writer that
// starts waits for.
func InUse(dir string) (bool, error) {
	for _, name := range []string{filepath.Join(dir, lockName), dir} {
		f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return true, nil
		}
		if err != nil && name != dir { // not every file system locks folders
			return false, err
		}
	}
	return false, nil
}
