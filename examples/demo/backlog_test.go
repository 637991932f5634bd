package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestF5StartWithBacklog starts a gateway whose audit log holds 100,000 events
// that Firestore, which is away, does not have. What bounds the start is the
// processor time that it takes until the gateway serves, not the clock, which
// counts what other programs do as well.
func TestF5StartWithBacklog(t *testing.T) {
	const events, bound = 100_000, time.Second
	s := setup{
		dir:    t.TempDir(),
		config: demoFile(t, "sidegate.yaml") + "audit: {firestore: {project: demo-sidegate}}\n",
	}
	s.flags, s.env = emulated(unusedAddress(t))
	alice := token(t, "alice")
	g := startGateway(t, s)
	ask(t, http.MethodGet, g.url+"/v1/me", alice, "").want(t, http.StatusOK)
	g.kill()
	multiply(t, g.dir, events)

	began := time.Now()
	starting := s
	starting.unready = true
	g = startGateway(t, starting)
	g.logs(t, "sidegate is serving")
	took, busy := time.Since(began), g.processorTime(t)
	t.Logf("it serves after %v, in which it used %v of a processor", took, busy)
	if busy > bound {
		t.Errorf("the start took %v of a processor, want at most %v", busy, bound)
	}
	ask(t, http.MethodGet, g.url+"/v1/me", alice, "").want(t, http.StatusOK)
	if waiting := g.metric(t, "sidegate_audit_waiting_bytes"); waiting < 300*events {
		t.Errorf("%v bytes wait for Firestore: that is no backlog", waiting)
	}
	g.kill()
	if status, stdout, stderr := sidegate(t, nil, "audit", "verify", "--dir", g.dir+"/data/audit"); status != 0 {
		t.Errorf("audit verify: status %d\n%s%s", status, stdout, stderr)
	}
}

// multiply makes the log as long as that, in the form that docs/audit.md
// documents, out of the events that it holds.
func multiply(t *testing.T, dir string, events int) {
	t.Helper()
	name := mustGlob(t, filepath.Join(dir, "data", "audit", "*.jsonl"))[0]
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	var model struct{ ID, Record, Prev string }
	for _, line := range lines {
		if err := json.Unmarshal([]byte(line), &model); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, `{"type":"decision"`) {
			text = []byte(line)
			break
		}
	}
	seq := bytes.Index(text, []byte(`"seq":`))
	end := seq + bytes.IndexByte(text[seq:], ',')
	if seq < 0 || model.Record == "" {
		t.Fatalf("no decision in %s", name)
	}
	var b bytes.Buffer
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	prev := sha256.Sum256([]byte(lines[len(lines)-1]))
	before, after := string(text[:seq]), string(text[end:])
	for n := len(lines) + 1; n <= events; n++ {
		id := fmt.Sprintf("%032x", n)
		line := strings.NewReplacer(model.ID, id, model.Record, id).Replace(before) + `"seq":` + strconv.Itoa(n) +
			strings.Replace(after, model.Prev, fmt.Sprintf("%x", prev), 1)
		prev = sha256.Sum256([]byte(line))
		b.WriteString(line + "\n")
	}
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// processorTime is what the process has used so far.
func (g *gateway) processorTime(t *testing.T) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.process.Process.Pid))
	if err != nil {
		needs(t, "/proc", "it says what a process has used; run this on Linux")
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // behind the program's name
	fields := strings.Fields(rest)
	const user, system, perSecond = 14 - 3, 15 - 3, 100 // proc_pid_stat(5); ticks are hundredths on every Linux
	ticks := 0
	for _, field := range []int{user, system} {
		n, err := strconv.Atoi(fields[field])
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / perSecond
}
