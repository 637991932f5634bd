package cmd

import (
	"fmt"
	"io"
	"os"
	"time"
)

// A progress tells on standard error how far long work is: on a terminal in one
// line that changes, else in a line every few seconds. Work that is over before
// says nothing. It belongs to one goroutine.
type progress struct {
	w        io.Writer
	what     string // of which there are so many: "requests judged"
	terminal bool
	every    time.Duration
	next     time.Time
	calls    int
	shown    bool
}

// How often a terminal's line changes, and how often another gets one.
const (
	progressTerminal = 100 * time.Millisecond
	progressLines    = 5 * time.Second
	// progressCalls are how many calls look at the clock once.
	progressCalls = 64
)

// progress begins; nil, of which every method does nothing, where it is to be
// quiet.
func (p *program) progress(what string, quiet bool) *progress {
	if quiet {
		return nil
	}
	g := &progress{w: p.stderr, what: what, terminal: isTerminal(p.stderr), every: progressLines}
	if g.terminal {
		g.every = progressTerminal
	}
	g.next = time.Now().Add(g.every)
	return g
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// tell says how many are done.
func (g *progress) tell(done int) {
	if g == nil {
		return
	}
	if g.calls++; g.calls%progressCalls != 0 {
		return
	}
	now := time.Now()
	if now.Before(g.next) {
		return
	}
	g.next = now.Add(g.every)
	if g.terminal {
		fmt.Fprintf(g.w, "\r%d %s", done, g.what)
	} else {
		fmt.Fprintf(g.w, "%d %s\n", done, g.what)
	}
	g.shown = true
}

// end leaves a terminal's line as if nothing had been there.
func (g *progress) end() {
	if g != nil && g.shown && g.terminal {
		fmt.Fprint(g.w, "\r\x1b[K")
	}
}
