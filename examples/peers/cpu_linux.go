package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// cpuOf is the CPU time, user and system, that the processes have taken so far,
// by their own clocks: all their threads, those included that have ended. It
// counts nanoseconds where /proc/PID/stat counts hundredths of a second, which
// would be two in a hundred of a slice.
func cpuOf(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		// The id of another process's clock: MAKE_PROCESS_CPUCLOCK with
		// CPUCLOCK_SCHED, in include/linux/posix-timers_types.h.
		var t unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
			return 0, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}
