package cmd

import (
	"path/filepath"
	"syscall"
)

// Magic numbers of statfs(2).
const (
	tmpfsMagic   = 0x01021994
	ramfsMagic   = 0x858458f6
	overlayMagic = 0x794c7630
)

// diskOf looks at the folder, or at the nearest one above it that exists.
func diskOf(path string) disk {
	for {
		var s syscall.Statfs_t
		if err := syscall.Statfs(path, &s); err == nil {
			switch uint32(s.Type) {
			case tmpfsMagic, ramfsMagic:
				return diskMemory
			case overlayMagic:
				return diskContainer
			}
			return diskUnknown
		}
		parent := filepath.Dir(path)
		if parent == path {
			return diskUnknown
		}
		path = parent
	}
}

// freeSpace is what this user may still write below the folder, in bytes.
func freeSpace(dir string) (free int64, known bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil || s.Bsize <= 0 {
		return 0, false
	}
	return int64(min(s.Bavail, 1<<50)) * s.Bsize, true
}
