package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	connections = 64
	// beside is how many rows are measured between two slices of the bare
	// ReverseProxy. The machine's speed drifts within a round: a row is compared
	// with the mean of the two slices around it.
	beside = 3
	// rsaTime is how long signatures are checked in each round.
	rsaTime = 100 * time.Millisecond
	// settle is how long after a slice the CPU is read: what a proxy does for a
	// request after its answer counts, too.
	settle = 20 * time.Millisecond
)

// A slice is what loading a row gave: once with 64 connections, once with one.
type slice struct {
	cpu      time.Duration // for each request, of 64 connections
	p50, p99 time.Duration
	lone50   time.Duration // of one connection
	lone99   time.Duration
}

// A sample is a slice of a row, and what the bare ReverseProxy's were around
// it.
type sample struct{ own, bare slice }

func (s slice) mean(t slice) slice {
	return slice{cpu: (s.cpu + t.cpu) / 2, p50: (s.p50 + t.p50) / 2, p99: (s.p99 + t.p99) / 2, lone50: (s.lone50 + t.lone50) / 2, lone99: (s.lone99 + t.lone99) / 2}
}

// measure loads the rows in turn, so many rounds.
func (l *lab) measure(ctx context.Context, rounds int, long time.Duration) error {
	present := l.present()
	reference, others := present[0], present[1:]
	for _, p := range present { // connections, caches, heaps
		if _, err := l.slice(ctx, p, long); err != nil {
			return err
		}
	}
	for round := range rounds {
		begun := time.Now()
		if err := l.round(ctx, reference, rotated(others, round), long); err != nil {
			return err
		}
		fmt.Fprintf(l.progress, "# round %d of %d: %v\n", round+1, rounds, time.Since(begun).Round(time.Second))
	}
	return l.checkFirstSeen(ctx)
}

// rotated has another row first in each round, so that none always comes after
// the same.
func rotated(rows []*proxyRun, by int) []*proxyRun {
	if len(rows) == 0 {
		return nil
	}
	by %= len(rows)
	return append(slices.Clone(rows[by:]), rows[:by]...)
}

func (l *lab) round(ctx context.Context, reference *proxyRun, others []*proxyRun, long time.Duration) error {
	before, err := l.slice(ctx, reference, long)
	if err != nil {
		return err
	}
	check, err := l.key.checkRSA(rsaTime)
	if err != nil {
		return err
	}
	l.rsa = append(l.rsa, float64(check)/float64(before.cpu))
	for group := range slices.Chunk(others, beside) {
		measured := make([]slice, len(group))
		for i, p := range group {
			if measured[i], err = l.slice(ctx, p, long); err != nil {
				return err
			}
		}
		after, err := l.slice(ctx, reference, long)
		if err != nil {
			return err
		}
		for i, p := range group {
			p.samples = append(p.samples, sample{measured[i], before.mean(after)})
		}
		// The reference beside itself: how far the machine drifts meanwhile.
		reference.samples = append(reference.samples, sample{after, before})
		before = after
	}
	if len(others) == 0 {
		reference.samples = append(reference.samples, sample{before, before})
	}
	return nil
}

// slice loads a row, and looks what it took.
func (l *lab) slice(ctx context.Context, p *proxyRun, long time.Duration) (slice, error) {
	s, err := l.sliceOf(ctx, p, long)
	if err != nil {
		return s, fmt.Errorf("%s: %w", p.id, err)
	}
	return s, p.emptyLog()
}

func (l *lab) sliceOf(ctx context.Context, p *proxyRun, long time.Duration) (slice, error) {
	pids, err := family(p.procs)
	if err != nil {
		return slice{}, err
	}
	before, err := cpuOf(pids)
	if err != nil {
		return slice{}, err
	}
	many, err := l.crowd(ctx, p, long)
	if err != nil {
		return slice{}, err
	}
	if p.loaded, err = p.more(pids); err != nil {
		return slice{}, err
	}
	time.Sleep(settle)
	after, err := cpuOf(pids)
	if err != nil {
		return slice{}, err
	}
	now, err := family(p.procs)
	if err != nil {
		return slice{}, err
	}
	if !slices.Equal(pids, now) {
		return slice{}, errors.New("it started or ended processes under load: what they cost is not known")
	}
	lone, err := l.wrk(ctx, p.address, p.load, 1, long)
	if err != nil {
		return slice{}, err
	}
	return slice{
		cpu: (after - before) / time.Duration(many.requests),
		p50: many.p50, p99: many.p99, lone50: lone.p50, lone99: lone.p99,
	}, nil
}

// crowd loads a row by all connections.
func (l *lab) crowd(ctx context.Context, p *proxyRun, long time.Duration) (many shot, err error) {
	load := func() (err error) {
		many, err = l.wrk(ctx, p.address, p.load, connections, long)
		return err
	}
	if admin := l.admin[p.dir]; l.profiler != nil && admin != "" {
		err := l.profiler.during(ctx, admin, long, load)
		return many, err
	}
	err = load()
	return many, err
}

// more is the most memory that the row had so far.
func (p *proxyRun) more(pids []int) (int64, error) {
	now, err := memoryOf(pids)
	return max(p.loaded, now), err
}

// emptyLog keeps what a proxy logs from filling the disk. Its audit log stays:
// it is a chain.
func (p *proxyRun) emptyLog() error {
	for _, q := range p.procs {
		if err := os.Truncate(q.log.Name(), 0); err != nil {
			return err
		}
	}
	return nil
}

// checkFirstSeen asks sidegate whether the tokens of the row that is about
// tokens that were never seen were known: then that row says nothing.
func (l *lab) checkFirstSeen(ctx context.Context) error {
	for _, p := range l.present() {
		if p.load.tokens != fresh {
			continue
		}
		hits, err := metric(ctx, l.admin[p.dir], "sidegate_token_cache_hits_total")
		if err != nil {
			return err
		}
		misses, err := metric(ctx, l.admin[p.dir], "sidegate_token_cache_misses_total")
		if err != nil {
			return err
		}
		if misses == 0 || hits > misses/100 {
			return fmt.Errorf("%s: of its tokens %v were known and %v not: nearly none should have been", p.id, hits, misses)
		}
	}
	return nil
}

// metric reads one without labels of sidegate's.
func metric(ctx context.Context, admin, name string) (float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	_, line, found := strings.Cut(string(text), "\n"+name+" ")
	if !found {
		return 0, fmt.Errorf("sidegate has no metric %s", name)
	}
	line, _, _ = strings.Cut(line, "\n")
	return strconv.ParseFloat(line, 64)
}
