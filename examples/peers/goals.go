package main

import (
	"fmt"
	"strings"
)

// A goal is a bound that sidegate is held to, and what was measured.
type goal struct {
	what, bound, measured string
	met                   bool
}

// goals are Markdown: those of which the run has the rows.
func (r report) goals() string {
	var b strings.Builder
	b.WriteString("| | at most | measured | held |\n|---|---|---|---|\n")
	for _, g := range r.goalList() {
		held := "yes"
		if !g.met {
			held = "**no**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", g.what, g.bound, g.measured, held)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (r report) goalList() []goal {
	var out []goal
	number := func(what string, most, measured float64) {
		out = append(out, goal{what, fmt.Sprintf("%.2f", most), fmt.Sprintf("%.2f", measured), measured <= most})
	}
	cpu := func(id, what string, most float64) {
		if x, there := r.find(id); there {
			number(what, most, x.cpu.median)
		}
	}
	cpu("sidegate", "CPU, one token", 0.75)
	cpu("sidegate-1000", "CPU, 1,000 users' tokens", 0.75)
	cpu("sidegate-nethttp", "CPU, `transport: net/http`, one token", 1.10)
	cpu("sidegate-nethttp-1000", "CPU, `transport: net/http`, 1,000 users' tokens", 1.10)
	if rival, there := r.find("haproxy-jwt"); there {
		cpu("sidegate-nethttp", "the same beside HAProxy's `jwt_verify`", rival.cpu.median)
	}
	if plain, there := r.find("sidegate"); there {
		cpu("sidegate-first", "CPU, a token seen for the first time: as one that is known, and 1.1 checks of a signature", plain.cpu.median+1.1*r.rsa.median)
		number("p99 of 64 connections, beside the bare ReverseProxy", 1, plain.ratio99)
		number("p99 of one connection, likewise", 1.1, plain.ratioLone99)
		out = append(out, ofMemory("memory, idle", 30, plain.idle))
	}
	cpu("sidegate-presign", "CPU, an upload presigned", 1.2)
	cpu("sidegate-denied", "CPU, denied by the policy", 0.5)
	cpu("sidegate-malformed", "CPU, no token of anybody's", 0.5)
	if x, there := r.find("sidegate-1000"); there {
		out = append(out, ofMemory("memory, 64 connections and 1,000 tokens", 64, x.loaded))
	}
	return append(out, r.start()...)
}

func ofMemory(what string, most, measured int64) goal {
	return goal{what, fmt.Sprintf("%d MiB", most), mebibytes(measured), measured <= most<<20}
}

// start is from the start of the process to the first answer, the median of all
// rows of sidegate.
func (r report) start() []goal {
	var times []float64
	for _, x := range r.results {
		if x.kind == gateway && x.missing == nil && !x.other {
			times = append(times, x.started.Seconds()*1e3)
		}
	}
	if len(times) == 0 {
		return nil
	}
	median := spreadOf(times).median
	return []goal{{"from the start to the first answer", "100 ms", fmt.Sprintf("%.0f ms", median), median <= 100}}
}
