//go:build !linux

package cmd

// diskOf knows the disks of Linux only, where containers run.
func diskOf(string) disk { return diskUnknown }

func freeSpace(string) (int64, bool) { return 0, false }
