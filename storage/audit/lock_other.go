//go:build !unix

package audit

import "errors"

type folderLock struct{}

func (folderLock) Close() error { return nil }

func (folderLock) at(string) error { return nil }

// lockFolder refuses: without a lock two writers could break the chain.
func lockFolder(string) (folderLock, error) {
	return folderLock{}, errors.New("the audit log needs a system with flock(2)")
}

// InUse cannot tell here.
func InUse(string) (bool, error) {
	return false, errors.New("the audit log needs a system with flock(2)")
}
