package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// What is known of a request. A soak makes many: a byte for each has to do.
const (
	soakAnswered = 1 << iota // the caller has read the answer's head
	soakRefused              // which was the gateway's own no
	soakSeen                 // the app got it
	soakDecided              // on record
)

// A soakBook knows what was asked and answered. Each request bears its number
// as the name of its user agent, which the audit log keeps.
type soakBook struct {
	open     atomic.Int64 // requests that are not on record
	mu       sync.Mutex
	requests []byte
	said     []string // what was not as it should be

	systemEvents map[string]int // by check
}

func newSoakBook() *soakBook { return &soakBook{systemEvents: map[string]int{}} }

func (b *soakBook) next() (mark string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests = append(b.requests, 0)
	return "soak-" + strconv.Itoa(len(b.requests)-1)
}

func soakNumber(mark string) (int, bool) {
	digits, ok := strings.CutPrefix(mark, "soak-")
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil
}

// note is told once of each thing that is known of a request.
func (b *soakBook) note(mark string, what byte) {
	n, ok := soakNumber(mark)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !ok || n >= len(b.requests) {
		b.said = append(b.said, "nobody asked "+mark)
		return
	}
	if b.requests[n]&what != 0 {
		b.said = append(b.said, fmt.Sprintf("%s: twice, %b and %b", mark, b.requests[n], what))
	}
	b.requests[n] |= what
}

func (b *soakBook) complain(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, fmt.Sprintf(format, args...))
}

func (b *soakBook) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.said)
}

func (b *soakBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("%d requests, and %d that leave no record", len(b.requests), b.open.Load())
}

// check holds the audit log against the book: each request that was answered
// or that the app saw has its decision, or is among the refusals that are
// counted, and each decision its outcome. It is read line by line: it may be
// larger than memory.
func (b *soakBook) check(t *testing.T, dir string) {
	t.Helper()
	if status, stdout, stderr := sidegate(t, nil, "audit", "verify", "--dir", filepath.Join(dir, "data", "audit")); status != 0 {
		t.Errorf("audit verify: status %d\n%s%s", status, stdout, stderr)
	}
	files, err := filepath.Glob(filepath.Join(dir, "data", "audit", "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no audit log in %s: %v", dir, err)
	}
	slices.Sort(files)
	running, counted := map[string]bool{}, 0 // records without an outcome; refusals
	for _, file := range files {
		counted += b.read(t, file, running)
	}
	if len(running) > 0 {
		t.Errorf("%d decisions have no outcome", len(running))
	}
	without := 0
	for n, is := range b.requests {
		switch {
		case is&soakDecided != 0:
		case is&soakSeen != 0 || is&soakAnswered != 0 && is&soakRefused == 0:
			t.Errorf("request %d has no decision: %b", n, is)
		case is&soakRefused != 0:
			without++
		}
	}
	if without != counted {
		t.Errorf("%d refusals were counted, and %d have no decision of their own", counted, without)
	}
	for _, c := range b.said {
		t.Error(c)
	}
	t.Logf("%s; %d segments, %d refusals counted together, %v", b, len(files), counted, b.systemEvents)
}

// read takes a segment into account, and gives how many refusals it has as
// counts.
func (b *soakBook) read(t *testing.T, file string, running map[string]bool) (counted int) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v: %s", file, err, lines.Bytes())
		}
		switch {
		case e.Type == "system":
			b.systemEvents[e.System.Event]++
		case e.Summary.Repeated > 0:
			counted += e.Summary.Repeated
		case e.Type == "decision":
			b.note(e.Request.UserAgent, soakDecided)
			running[e.Record] = true
		case e.Type == "outcome" && !running[e.Record]:
			t.Errorf("the record %s has an outcome without a decision, or two", e.Record)
		case e.Type == "outcome":
			delete(running, e.Record)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return counted
}
