package cmd

import (
	"errors"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/rs/zerolog"
)

// ofProcess puts back what a test sets for the whole process.
func ofProcess(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
}

// TestMemoryLimit: nine tenths of the container's, unless the environment has
// one; what cannot be read is told, and changes nothing.
func TestMemoryLimit(t *testing.T) {
	ofProcess(t)
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		env  []string
		at   uint64
		err  error
		want int64
		told error
	}{
		"a container":       {at: 1000 << 20, want: 900 << 20},
		"none":              {err: memlimit.ErrNoLimit, want: math.MaxInt64},
		"no cgroup":         {err: memlimit.ErrNoCgroup, want: math.MaxInt64},
		"not Linux":         {err: memlimit.ErrCgroupsNotSupported, want: math.MaxInt64},
		"of another system": {at: math.MaxUint64, want: math.MaxInt64},
		"the environment's": {env: []string{"GOMEMLIMIT=700MiB"}, at: 1000 << 20, want: math.MaxInt64}, // the runtime has read it
		"empty":             {env: []string{"GOMEMLIMIT="}, at: 1000 << 20, want: 900 << 20},
		"no number":         {err: broken, want: math.MaxInt64, told: broken},
	} {
		debug.SetMemoryLimit(math.MaxInt64)
		limit, err := limitMemory(newEnvironment(c.env), func() (uint64, error) { return c.at, c.err })
		if limit != c.want || limit != debug.SetMemoryLimit(-1) || !errors.Is(err, c.told) {
			t.Errorf("%s: %d, %v; in force is %d", name, limit, err, debug.SetMemoryLimit(-1))
		}
	}
}

func TestHeapPercent(t *testing.T) {
	for alive, want := range map[uint64]int{
		0: 400, 1 << 20: 400, heapRoom / 4: 400, heapRoom / 2: 200, heapRoom: 100, 1 << 40: 100,
	} {
		if got := heapPercent(alive); got != want {
			t.Errorf("%d bytes: %d, want %d", alive, got, want)
		}
	}
}

// TestPacerFollowsTheHeap: a collection sees how much is alive, and the next one
// is due accordingly.
func TestPacerFollowsTheHeap(t *testing.T) {
	ofProcess(t)
	stop := tuneProcess(newEnvironment([]string{"GOMEMLIMIT=off"}), zerolog.New(io.Discard))
	percent := func() uint64 { return readMetric("/gc/gogc:percent") }
	if percent() != mostPercent {
		t.Errorf("GOGC is %d at the start", percent())
	}
	awaitPercent := func(is func(uint64) bool) {
		for !is(percent()) { // the deadline is the test's
			runtime.GC()
		}
	}
	func() {
		much := make([]byte, 2*heapRoom)
		awaitPercent(func(p uint64) bool { return p == leastPercent })
		runtime.KeepAlive(much)
	}()
	awaitPercent(func(p uint64) bool { return p > leastPercent })
	stop()
	if percent() != 100 {
		t.Errorf("GOGC is %d when the gateway has stopped", percent())
	}
}

// TestGOGCWins: whoever sets it knows better.
func TestGOGCWins(t *testing.T) {
	ofProcess(t)
	debug.SetGCPercent(55)
	defer tuneProcess(newEnvironment([]string{"GOGC=55", "GOMEMLIMIT=off"}), zerolog.New(io.Discard))()
	if p := readMetric("/gc/gogc:percent"); p != 55 {
		t.Errorf("GOGC is %d", p)
	}
}

// TestMemoryIsGivenBackAtRest: once after much work, and not again for the
// little that probes ask.
func TestMemoryIsGivenBackAtRest(t *testing.T) {
	given := 0
	r := resting{giveBack: func() { given++ }}
	allocated := uint64(0)
	for i, step := range []struct {
		bytes uint64
		given int
	}{
		{worthBytes, 0}, {worthBytes, 0}, // at work
		{quietBytes - 1, 1},
		{0, 1}, {quietBytes - 1, 1}, // nothing to give
		{worthBytes, 1}, {0, 2},
	} {
		allocated += step.bytes
		if r.look(allocated); given != step.given {
			t.Errorf("look %d: given back %d times, want %d", i, given, step.given)
		}
	}
	for range restLooks - 1 { // what closed has asked for no memory
		if r.look(allocated); given != 2 {
			t.Fatalf("given back %d times", given)
		}
	}
	if r.look(allocated); given != 3 {
		t.Errorf("given back %d times after %d looks", given, restLooks)
	}
}

// TestMetricsOfTheRuntime: readMetric panics for one that this version of Go does
// not have.
func TestMetricsOfTheRuntime(t *testing.T) {
	for _, name := range []string{"/gc/heap/allocs:bytes", "/gc/heap/live:bytes", "/gc/scan/globals:bytes"} {
		runtime.GC()
		if readMetric(name) == 0 {
			t.Errorf("%s is 0", name)
		}
	}
	if _, err := os.Stat("/proc/self/cgroup"); err == nil {
		if _, err := memlimit.FromCgroup(); err != nil && !errors.Is(err, memlimit.ErrNoLimit) && !errors.Is(err, memlimit.ErrNoCgroup) {
			t.Errorf("the limit of this process's cgroup: %v", err)
		}
	}
}
