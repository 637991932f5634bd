// Command peers measures what a request costs in sidegate and in other
// proxies: CPU of the proxy for each request relative to a bare
// httputil.ReverseProxy, latency and memory, on this machine, in turns.
// `make bench-peers` runs it; README.md beside it says how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// Options are what a run is asked for.
type options struct {
	rounds          int
	slice           time.Duration // of load, once at 64 connections and once at one
	only            string        // patterns of rows, with commas; empty: all
	sidegate, other string        // programs; other is measured beside the first, empty: none
	dir             string        // where everything writes; empty: a temporary folder
	docs            string        // the folder whose performance.md and chart are written; empty: none
	profile         string        // the file that gets a CPU profile of sidegate; empty: none
}

// run is main without the process: `upstream` and `bare` as the first word are
// what the harness starts of itself, in processes of their own.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 1 && args[0] == "upstream" {
		return serveUpstream(ctx, args[1])
	}
	if len(args) > 2 && args[0] == "bare" {
		return serveBare(ctx, args[1], args[2])
	}
	var o options
	fs := flag.NewFlagSet("peers", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.rounds, "rounds", 15, "how often each row is measured")
	fs.DurationVar(&o.slice, "slice", time.Second, "how long a row is loaded at a time; whole seconds")
	fs.StringVar(&o.only, "only", "", "rows to measure, as patterns with commas (sidegate*,haproxy-jwt); bare always is")
	fs.StringVar(&o.sidegate, "sidegate", "bin/sidegate", "the sidegate `program`")
	fs.StringVar(&o.other, "against", "", "another sidegate `program`, measured beside it in the same rows")
	fs.StringVar(&o.dir, "dir", "", "`folder` for configurations, logs and audit logs; it must not be on a RAM disk (default: a temporary one)")
	fs.StringVar(&o.docs, "docs", "", "`folder` whose performance.md gets the table, and the chart beside it")
	fs.StringVar(&o.profile, "profile", "", "`file` that gets a CPU profile of sidegate under the load of all rows; what is measured meanwhile includes the profiling")
	list := fs.Bool("list", false, "only list the rows")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *list {
		for _, r := range rows() {
			fmt.Fprintf(stdout, "%-22s %s\n", r.id, r.title)
		}
		return nil
	}
	if o.rounds < 1 || o.slice < time.Second || o.slice%time.Second != 0 || fs.NArg() > 0 {
		return errors.New("--rounds is at least 1, --slice whole seconds, and there are no arguments; --help lists the flags")
	}
	chosen, err := choose(rows(), o.only)
	if err != nil {
		return err
	}
	if o.docs != "" && o.only != "" {
		return errors.New("--docs wants every row: leave --only out")
	}
	if o.docs != "" && o.profile != "" {
		return errors.New("--docs wants figures without a profile: leave --profile out")
	}
	if o.other != "" && o.profile != "" {
		return errors.New("--profile is of one program, and would be of both: leave --against out")
	}
	return benchmark(ctx, o, chosen, stdout, stderr)
}

// benchmark measures the rows, prints what came out, and writes it into the
// docs where that was asked for.
func benchmark(ctx context.Context, o options, chosen []row, stdout, stderr io.Writer) (err error) {
	l, err := openLab(ctx, o, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.start(ctx, withOther(chosen, o.other)); err != nil {
		return err
	}
	if err := l.measure(ctx, o.rounds, o.slice); err != nil {
		return err
	}
	if l.profiler != nil {
		if err := l.profiler.write(); err != nil {
			return err
		}
	}
	report := l.report(ctx, o)
	fmt.Fprintf(stdout, "%s\n\n%s\n\n%s\n", report.machine, report.table(), report.goals())
	for _, line := range report.comparisons() {
		fmt.Fprintln(stdout, line)
	}
	if o.docs == "" {
		return nil
	}
	return report.write(o.docs)
}

// withOther puts behind each row of sidegate the same of the other program.
func withOther(chosen []row, other string) []row {
	if other == "" {
		return chosen
	}
	var out []row
	for _, r := range chosen {
		out = append(out, r)
		if strings.HasPrefix(r.id, "sidegate") {
			r.id, r.title, r.other = r.id+otherMark, r.title+" (the other program)", true
			out = append(out, r)
		}
	}
	return out
}

// otherMark ends the ids of rows of the other program.
const otherMark = "@other"
