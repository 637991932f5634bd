package cmd

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/rs/zerolog"
)

const (
	// memoryShare of what a container may use is Go's: the rest is the kernel's
	// for the process, and what was not given back yet.
	memoryShare = 0.9
	// heapRoom is what may be allocated from one collection to the next, in
	// bytes. What a collection costs depends on what is alive, and a gateway has
	// little of that, so that Go's own setting collects for every few megabytes.
	heapRoom = 20 << 20
	// leastPercent is Go's own: a large heap is not collected more often than
	// elsewhere. mostPercent keeps a small one from growing to a multiple.
	leastPercent, mostPercent = 100, 400
	// quietTime is how often it is looked whether the process rests, quietBytes
	// what may be allocated meanwhile if it does (probes and a look at the
	// metrics are less), and worthBytes what must have been allocated for a
	// collection that gives memory back to the system. What was let go meanwhile,
	// such as connections that closed, only a collection tells: at rest there is
	// one after restLooks looks in any case, as often as Go by itself has one.
	quietTime  = 10 * time.Second
	quietBytes = 1 << 20
	worthBytes = 8 << 20
	restLooks  = 12
)

// tuneProcess fits Go's collector to the container and to what a gateway does,
// until stop. It is for the whole process. GOGC and GOMEMLIMIT in the environment
// win over it.
func tuneProcess(env environment, log zerolog.Logger) (stop func()) {
	limit, err := limitMemory(env, memlimit.FromCgroup)
	if err != nil {
		log.Warn().Err(err).Msg("the container's memory limit cannot be read; set GOMEMLIMIT to nine tenths of it")
	}
	line := log.Info().Int("cpus", runtime.GOMAXPROCS(0))
	if limit < math.MaxInt64 {
		line.Int64("memory_limit", limit)
	}
	line.Msg("what the process may use")
	if env.get("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(mostPercent)
	p := &pacer{percent: mostPercent}
	p.await()
	ended := make(chan struct{})
	rest := &resting{giveBack: func() { giveBack(log) }}
	go func() {
		look := time.NewTicker(quietTime)
		defer look.Stop()
		for {
			select {
			case <-look.C:
				rest.look(readMetric("/gc/heap/allocs:bytes"))
			case <-ended:
				return
			}
		}
	}()
	return func() {
		close(ended)
		p.stop(before)
	}
}

// giveBack gives the system what the process does not need now.
func giveBack(log zerolog.Logger) {
	debug.FreeOSMemory()
	if err := releaseProgram(); err != nil {
		log.Debug().Err(err).Msg("memory that is not needed cannot be given back")
	}
}

// limitMemory sets Go's memory limit to a share of the container's, where there
// is one and the environment sets none, and gives the limit in force, in bytes;
// math.MaxInt64: there is none.
func limitMemory(env environment, container memlimit.Provider) (int64, error) {
	if env.get("GOMEMLIMIT") == "" {
		limit, err := memlimit.ApplyRatio(container, memoryShare)()
		switch {
		case errors.Is(err, memlimit.ErrNoLimit), errors.Is(err, memlimit.ErrNoCgroup), errors.Is(err, memlimit.ErrCgroupsNotSupported):
		case err != nil:
			return debug.SetMemoryLimit(-1), fmt.Errorf("read the memory limit of this process's cgroup: %w", err)
		case limit > 0 && limit < math.MaxInt64:
			debug.SetMemoryLimit(int64(limit))
		}
	}
	return debug.SetMemoryLimit(-1), nil
}

// A pacer sets GOGC after each collection, so that the next one is due when
// heapRoom was allocated.
type pacer struct {
	mu      sync.Mutex
	percent int // as it was set last
	stopped bool
}

// await has a collection run adjust: it frees what nothing refers to.
func (p *pacer) await() {
	unreachable := new([16]byte) // too large to share its memory with others
	runtime.AddCleanup(unreachable, func(p *pacer) {
		if p.adjust() {
			p.await()
		}
	}, p)
}

// adjust says whether it is to go on.
func (p *pacer) adjust() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return false
	}
	// Go's collector takes the percentage of all three.
	alive := readMetric("/gc/heap/live:bytes") + readMetric("/gc/scan/stack:bytes") + readMetric("/gc/scan/globals:bytes")
	want := heapPercent(alive)
	if want*10 >= p.percent*9 && want*10 <= p.percent*11 {
		return true // setting it stops the world
	}
	p.percent = want
	debug.SetGCPercent(want)
	return true
}

// stop sets what was before.
func (p *pacer) stop(percent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	debug.SetGCPercent(percent)
}

// heapPercent is the GOGC by which so many bytes may have heapRoom beside them.
func heapPercent(alive uint64) int {
	return int(min(max(heapRoom*100/max(alive, 1), leastPercent), mostPercent))
}

// A resting notices that the process has nothing to do, and has it give back
// what it does not need: Go by itself keeps what it needed last.
type resting struct {
	giveBack    func()
	last, given uint64 // bytes allocated, at the last look and when memory was given back
	looks       int    // since it was
}

// look is told how many bytes were ever allocated.
func (r *resting) look(allocated uint64) {
	r.looks++
	if allocated-r.last < quietBytes && (allocated-r.given >= worthBytes || r.looks >= restLooks) {
		r.giveBack()
		r.given, r.looks = allocated, 0
	}
	r.last = allocated
}

func readMetric(name string) uint64 {
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
