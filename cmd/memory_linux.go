package cmd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// releaseProgram unmaps the pages of the program's own file that this process
// has touched. They stay in the system's cache, and what is needed again is
// mapped again when it is touched; but most of them only the start needed
// (descriptors and tables of libraries), and as long as they are mapped they
// are counted as this process's and are the last to go when memory is short.
func releaseProgram() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("find the program's file: %w", err)
	}
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("read what is mapped: %w", err)
	}
	defer maps.Close()
	ranges, err := untouchedRanges(maps, program)
	if err != nil {
		return fmt.Errorf("read what is mapped: %w", err)
	}
	var errs []error
	for _, r := range ranges {
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, r.from, r.to-r.from, syscall.MADV_DONTNEED); errno != 0 {
			errs = append(errs, fmt.Errorf("unmap pages of the program's file: %w", errno))
		}
	}
	return errors.Join(errs...)
}

// A memoryRange is addresses from, and up to but not with to.
type memoryRange struct{ from, to uintptr }

// untouchedRanges are those mappings of the file in /proc/PID/smaps
// (proc_pid_smaps(5)) whose every page is as in the file: nobody can write to
// them, and no loader has put addresses there before they were made read-only,
// nor a debugger or probe its breakpoints, which would be lost. Such pages are
// anonymous as long as they are resident, and else swapped out: both must be none,
// and said to be.
func untouchedRanges(smaps io.Reader, file string) ([]memoryRange, error) {
	var out []memoryRange
	var mapping memoryRange
	ours, asInFile := false, false
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) < 3:
		case fields[0] == "Anonymous:": // what differs from the file
			asInFile = fields[1] == "0"
		case fields[0] == "Swap:": // what does, and is not resident
			if ours && asInFile && fields[1] == "0" {
				out = append(out, mapping)
			}
			ours = false
		case !strings.HasSuffix(fields[0], ":"): // addresses, rights, offset, device, inode, file
			var err error
			if mapping, err = parseRange(fields[0]); err != nil {
				return nil, err
			}
			readOnly := fields[1] == "r--p" || fields[1] == "r-xp"
			ours, asInFile = readOnly && len(fields) == 6 && fields[5] == file, false
		}
	}
	return out, lines.Err()
}

func parseRange(text string) (memoryRange, error) {
	first, end, _ := strings.Cut(text, "-")
	from, err := strconv.ParseUint(first, 16, strconv.IntSize)
	to, err2 := strconv.ParseUint(end, 16, strconv.IntSize)
	if err != nil || err2 != nil || from >= to {
		return memoryRange{}, fmt.Errorf("%q is no range of addresses", text)
	}
	return memoryRange{uintptr(from), uintptr(to)}, nil
}
