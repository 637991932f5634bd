package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A result is a row as it is told.
type result struct {
	row
	missing              error
	cpu                  spread    // beside the bare ReverseProxy
	rounds               []float64 // the same of each round
	each                 time.Duration
	p50, p99             time.Duration // medians, of 64 connections
	lone50, lone99       time.Duration // of one
	ratio99, ratioLone99 float64       // beside the bare ReverseProxy
	started              time.Duration
	idle, loaded         int64
}

// A spread is a median with its quartiles.
type spread struct{ low, median, high float64 }

func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	return spread{quantile(sorted, 0.25), quantile(sorted, 0.5), quantile(sorted, 0.75)}
}

// quantile interpolates between the two values around it; sorted is not empty.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

func (p *proxyRun) result() result {
	r := result{row: p.row, missing: p.missing, started: p.started, idle: p.idle, loaded: p.loaded}
	if len(p.samples) == 0 {
		return r
	}
	ratios := func(of func(slice) time.Duration) (out []float64) {
		for _, s := range p.samples {
			out = append(out, float64(of(s.own))/float64(max(of(s.bare), 1)))
		}
		return out
	}
	median := func(of func(slice) time.Duration) time.Duration {
		var out []float64
		for _, s := range p.samples {
			out = append(out, float64(of(s.own)))
		}
		return time.Duration(spreadOf(out).median)
	}
	cpu := func(s slice) time.Duration { return s.cpu }
	p99 := func(s slice) time.Duration { return s.p99 }
	lone99 := func(s slice) time.Duration { return s.lone99 }
	r.rounds, r.each = ratios(cpu), median(cpu)
	r.cpu = spreadOf(r.rounds)
	r.p50, r.p99 = median(func(s slice) time.Duration { return s.p50 }), median(p99)
	r.lone50, r.lone99 = median(func(s slice) time.Duration { return s.lone50 }), median(lone99)
	r.ratio99, r.ratioLone99 = spreadOf(ratios(p99)).median, spreadOf(ratios(lone99)).median
	return r
}

// A report is what a run found.
type report struct {
	machine string // a paragraph: when and where
	results []result
	rsa     spread
}

// table is Markdown. Every row of the run is there, also one that could not be
// measured.
func (r report) table() string {
	var b strings.Builder
	b.WriteString("| | CPU, quartiles | 64 connections: p50, p99 | one: p50, p99 | memory idle, loaded | it logs |\n|---|---|---|---|---|---|\n")
	for _, x := range r.results {
		if x.missing != nil {
			fmt.Fprintf(&b, "| %s | %v | | | | |\n", x.title, x.missing)
			continue
		}
		fmt.Fprintf(&b, "| %s | **%.2f** %.2f-%.2f | %s, %s | %s, %s | %s, %s | %s |\n", x.title, x.cpu.median, x.cpu.low, x.cpu.high,
			milliseconds(x.p50), milliseconds(x.p99), milliseconds(x.lone50), milliseconds(x.lone99), mebibytes(x.idle), mebibytes(x.loaded), x.logs)
	}
	fmt.Fprintf(&b, "| one check of an RSA-2048 signature, Go's crypto/rsa, without a proxy | **%.2f** %.2f-%.2f | | | | |", r.rsa.median, r.rsa.low, r.rsa.high)
	return b.String()
}

func milliseconds(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.2f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
}

func mebibytes(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

// find gives the row's result; false: it was not measured.
func (r report) find(id string) (result, bool) {
	for _, x := range r.results {
		if x.id == id && x.missing == nil {
			return x, true
		}
	}
	return result{}, false
}

// comparisons say of each row what it was beside the same of the other program,
// round by round.
func (r report) comparisons() []string {
	var out []string
	for _, x := range r.results {
		other, there := r.find(x.id + otherMark)
		if !there || x.missing != nil {
			continue
		}
		var ratios []float64
		for i := range x.rounds {
			ratios = append(ratios, x.rounds[i]/other.rounds[i])
		}
		s := spreadOf(ratios)
		out = append(out, fmt.Sprintf("%s: %.3f x-bare, the other program %.3f; beside the other %.3f (quartiles %.3f-%.3f)", x.id, x.cpu.median, other.cpu.median, s.median, s.low, s.high))
	}
	return out
}
