package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sidegate/policy"
)

// A status is how a check ended. A check that could not look is skip, or fail
// where the gateway could not either, and never ok.
type status string

const (
	statusOK   status = "ok"
	statusWarn status = "warn" // it works, and is likely not meant, or is a risk
	statusFail status = "fail" // requests will fail, or what must hold does not
	statusSkip status = "skip" // not looked at; the text says why
)

// A check is one line of the checklist. Text says what was found and Do what to
// do about it, in words for somebody who does not know sidegate; neither holds a
// secret, nor what a server said beyond its codes.
type check struct {
	ID      string `json:"id"`
	Subject string `json:"subject,omitempty"` // of what: a bucket's name, an issuer
	Status  status `json:"status"`
	Text    string `json:"text"`
	Do      string `json:"do,omitempty"`
}

// A probe looks at one thing, and gives a check for each question about it, so
// that the checks can share what was opened. It ends soon after ctx, undoes what
// it did even then, and may run beside all others.
type probe struct {
	id, subject string
	run         func(ctx context.Context) []check
}

// pass, warn, fails and skip make a check of the probe. What a warning or a
// failure has to say is also what to do.
func (b probe) pass(format string, args ...any) check {
	return b.says(statusOK, "", format, args)
}

func (b probe) warn(do, format string, args ...any) check {
	return b.says(statusWarn, do, format, args)
}

func (b probe) fails(do, format string, args ...any) check {
	return b.says(statusFail, do, format, args)
}

func (b probe) skip(format string, args ...any) check {
	return b.says(statusSkip, "", format, args)
}

func (b probe) says(s status, do, format string, args []any) check {
	args = slices.Clone(args)
	for i, a := range args {
		switch a := a.(type) {
		case error:
			args[i] = ownWords(a.Error())
		case string:
			args[i] = ownWords(a)
		}
	}
	return check{ID: b.id, Subject: b.subject, Status: s, Text: fmt.Sprintf(format, args...), Do: do}
}

// foreignWords begin what net/http repeats of an answer that is none.
var foreignWords = []string{"malformed ", "failed to parse Location header", "unsupported transfer encoding", "bad Content-Length", "invalid proxy address", "invalid header"}

// maxWords bounds an error in a check, in bytes: certificates, too, hold whatever
// who made them liked.
const maxWords = 600

// ownWords is an error's text without what a server wrote.
func ownWords(text string) string {
	for _, begin := range foreignWords {
		if i := strings.Index(text, begin); i >= 0 {
			text = text[:i] + "the answer is none of HTTP's"
		}
	}
	if len(text) > maxWords {
		text = strings.ToValidUTF8(text[:maxWords], "") + "..."
	}
	return text
}

// named is the same subject's check of another id.
func (b probe) named(id string) probe { return probe{id: id, subject: b.subject} }

// single is a probe of one check.
func single(id, subject string, look func(ctx context.Context, b probe) check) probe {
	b := probe{id: id, subject: subject}
	return probe{id, subject, func(ctx context.Context) []check { return []check{look(ctx, b)} }}
}

const (
	probeTimeout           = 10 * time.Second
	minTimeout, maxTimeout = time.Second, 5 * time.Minute
	// cleanTime is what a probe has beyond its timeout to undo what it did.
	cleanTime = 10 * time.Second
)

// onlineOptions are the flags of check that are about --online.
type onlineOptions struct {
	on      bool
	timeout time.Duration
}

func (o *onlineOptions) check(timed bool) error {
	switch {
	case timed && !o.on:
		return usageError{errors.New("--timeout is for --online")}
	case o.timeout < minTimeout || o.timeout > maxTimeout:
		return usageError{fmt.Errorf("--timeout must be from %s to %s, not %s", minTimeout, maxTimeout, o.timeout)}
	}
	return nil
}

// onlineProbes are all probes of these files, in the order of the checklist.
func (p *program) onlineProbes(s settings, pol *policy.Policy) []probe {
	var out []probe
	running := runningGateway(s)
	out = append(out, portProbes(s, running)...)
	out = append(out, hostProbes(s)...)
	out = append(out, folderProbes(s, running)...)
	out = append(out, startProbes(s)...)
	out = append(out, keysProbes(s)...)
	out = append(out, googleProbes(s)...)
	out = append(out, bucketProbes(s, pol)...)
	out = append(out, firestoreProbes(s, pol)...)
	out = append(out, redisProbes(s)...)
	out = append(out, telemetryProbes(s)...)
	out = append(out, lintProbe(s))
	return out
}

// errChecks says that a check failed, which is on standard output.
var errChecks = errors.New("a check failed")

// An onlineResult is a checkResult with the checklist.
type onlineResult struct {
	checkResult
	Checks  []check        `json:"checks"`
	Summary map[status]int `json:"summary"`
}

// checkOnline runs all probes, and prints what they found. Its error is the
// status.
func (p *program) checkOnline(ctx context.Context, r checkResult, s settings, pol *policy.Policy, timeout time.Duration, format string) error {
	out := onlineResult{checkResult: r, Checks: runProbes(ctx, p.onlineProbes(s, pol), timeout)}
	out.Summary = map[status]int{statusOK: 0, statusWarn: 0, statusFail: 0, statusSkip: 0}
	for _, c := range out.Checks {
		out.Summary[c.Status]++
	}
	out.OK = out.Summary[statusFail] == 0
	if format == "json" {
		if err := writeJSON(p.stdout, out); err != nil {
			return err
		}
	} else if err := out.printText(p); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("stopped before the end: %w", context.Cause(ctx))
	}
	if !out.OK {
		return reported{errChecks}
	}
	return nil
}

// runProbes runs the probes at once, and gives their checks in their order.
func runProbes(ctx context.Context, probes []probe, timeout time.Duration) (all []check) {
	results := make([]chan []check, len(probes))
	for i, b := range probes {
		results[i] = make(chan []check, 1)
		go func() { results[i] <- b.guarded(ctx, timeout) }()
	}
	// One clock for all: they began together.
	end := time.After(timeout + cleanTime)
	var over bool
	for i, b := range probes {
		if over {
			select {
			case got := <-results[i]:
				all = append(all, got...)
			default:
				all = append(all, b.hangs(timeout))
			}
			continue
		}
		select {
		case got := <-results[i]:
			all = append(all, got...)
		case <-end:
			over = true
			all = append(all, b.hangs(timeout))
		}
	}
	return all
}

func (b probe) hangs(timeout time.Duration) check {
	return b.fails("see what keeps this machine from an answer (name resolution, firewall, proxy), or give it longer by --timeout", "no end within %s", timeout)
}

// guarded runs the probe within its time; a panic is its failure alone.
func (b probe) guarded(ctx context.Context, timeout time.Duration) (got []check) {
	defer func() {
		if p := recover(); p != nil {
			// What a panic says can hold anything.
			got = []check{b.fails("please report it, with the version that `sidegate version` prints", "the check itself broke (a panic)")}
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return b.run(ctx)
}

// statusColours are those of a terminal.
var statusColours = map[status]string{statusOK: "32", statusWarn: "33", statusFail: "31", statusSkip: "2"}

// widestName is the column that the checks' texts begin at, at most.
const widestName = 40

func (r onlineResult) printText(p *program) error {
	files := r.checkResult
	files.OK = true // they are: else nothing was asked
	if err := files.printText(p); err != nil {
		return err
	}
	width := 0
	for _, c := range r.Checks {
		width = max(width, min(utf8.RuneCountInString(c.name()), widestName))
	}
	colour := p.colour(p.stdout)
	out := printer{w: p.stdout}
	out.line("")
	for _, c := range r.Checks {
		out.line("%s  %s  %s", paint(colour, statusColours[c.Status])(fmt.Sprintf("%-4s", c.Status)), fmt.Sprintf("%-*s", width, c.name()), oneLine(c.Text))
		if c.Do != "" {
			out.line("      do: %s", strings.ReplaceAll(steerless(c.Do), "\n", "\n          "))
		}
	}
	out.line("")
	out.line("%s", r.summary())
	return out.err
}

func (c check) name() string { return oneLine(strings.TrimSpace(c.ID + " " + c.Subject)) }

// oneLine is text that steers no terminal and stays on its line.
func oneLine(text string) string { return strings.ReplaceAll(steerless(text), "\n", " ") }

func (r onlineResult) summary() string {
	n := r.Summary
	text := fmt.Sprintf("%d ok, %d %s, %d failed", n[statusOK], n[statusWarn], plural(n[statusWarn], "warning"), n[statusFail])
	if n[statusSkip] > 0 {
		text += fmt.Sprintf(", %d not looked at", n[statusSkip])
	}
	return text
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
