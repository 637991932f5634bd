//go:build !unix

package audit

import (
	"errors"
	"os"
)

// lockFolder refuses: without a lock two writers could break the chain.
func lockFolder(string) (*os.File, error) {
	return nil, errors.New("the audit log needs a system with flock(2)")
}
