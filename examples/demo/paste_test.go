package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPastedLines runs the demo as `make demo` does, pastes everything it
// prints into a shell, and looks at what a user would see, and at the audit
// log.
func TestPastedLines(t *testing.T) {
	dir := t.TempDir()
	demo, lines := startDemo(t, dir)
	shell := exec.CommandContext(t.Context(), "bash")
	shell.Stdin = strings.NewReader(lines)
	shell.Dir = t.TempDir()
	printed, err := shell.CombinedOutput()
	out := string(printed)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the lines:\n%s\nprinted:\n%s", lines, out)
		}
	})
	if err != nil {
		t.Errorf("bash: %v", err)
	}
	photo, err := os.ReadFile(filepath.Join(dir, "photo.png"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"HTTP/1.1 401 Unauthorized",
		`Bearer realm="demo"`,
		`"code":"no_token"`,
		`"X-Sidegate-Uid": "alice"`,
		`"X-Sidegate-Identity": "users"`,
		`"X-Sidegate-Email": "alice@example.com"`,
		`"X-Sidegate-Roles": "viewer"`,
		`"X-Sidegate-Roles": "admin"`,
		`header = "Content-Type: image/png"`,
		"upload: 200",
		"once more: 412",
		`"status":"ready"`,
		`"contentType":"image/png"`,
		`"size":` + itoa(len(photo)),
		"the same picture came back",
		"HTTP/1.1 403 Forbidden",
		`"code":"not_allowed"`,
		`{"objects":[{"key":"users/alice/uploads/`,
		`{"uploads":[{"session":"`,
		`"type":"decision"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("what the lines print lacks %s", want)
		}
	}
	if strings.Contains(out, `"Authorization"`) {
		t.Error("the app got the caller's token")
	}

	want := []string{
		"me 401 no_token", "me allow", "admin 403 no_entry", "admin allow",
		"presign-upload allow", "confirm-upload allow",
		"presign-download allow", "presign-download 403 no_entry",
		"list-objects allow", "list-uploads allow",
	}
	got := decisionsByRoute(readLedger(t, dir))
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the audit log holds\n%q, want each once:\n%q", got, want)
	}
	demo.stop(t)
}

// startDemo runs the demo with its data in dir and gives what it prints.
func startDemo(t *testing.T, dir string) (*gateway, string) {
	t.Helper()
	d := &gateway{dir: dir, log: &output{}, ended: make(chan struct{})}
	d.process = exec.Command(lab.demo, "--data", dir)
	d.process.Stderr = d.log
	stdout, err := d.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.process.Start(); err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	ready := make(chan struct{})
	go func() {
		defer close(d.ended)
		for s := bufio.NewScanner(io.TeeReader(stdout, &lines)); s.Scan(); {
			if strings.HasPrefix(s.Text(), "# Ctrl-C") {
				close(ready)
			}
		}
		d.process.Wait()
	}()
	t.Cleanup(d.kill)
	select {
	case <-ready:
		return d, lines.String()
	case <-d.ended:
	case <-time.After(60 * time.Second):
	}
	t.Fatalf("the demo does not get ready: %s", d.log)
	return nil, ""
}

// TestDemoEnds sends what Ctrl-C does: the demo ends everything, says nothing
// is wrong, and leaves nothing behind where it had no folder of its own.
func TestDemoEnds(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	c := exec.CommandContext(t.Context(), lab.demo)
	var errs bytes.Buffer
	c.Stderr = &errs
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(stdout); s.Scan(); {
		if strings.HasPrefix(s.Text(), "# Ctrl-C") {
			c.Process.Signal(syscall.SIGINT)
		}
	}
	if err := c.Wait(); err != nil {
		t.Errorf("the demo ended with %v: %s", err, &errs)
	}
	left, err := os.ReadDir(temporary)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("the demo left %v behind", left)
	}
}

// An event is a line of the audit log, as far as these tests read it.
type event struct {
	Type     string
	Record   string
	Chain    string
	Seq      uint64
	Identity struct{ Namespace, UID string }
	Decision struct {
		Effect, Route, Rule, Code string
		Status                    int
	}
	Object struct {
		Key, Session, Operation, Parts string
		Size                           int64
	}
	Outcome struct {
		Status    int
		Error     string
		Truncated bool
	}
	Request struct {
		Method, Path, IP string
		QueryKeys        []string `json:"query_keys"`
		UserAgent        string   `json:"user_agent"`
		Trace            string   `json:"trace"`
		ForwardAuth      string   `json:"forward_auth"`
	}
	System  struct{ Event string }
	Summary struct{ Repeated int } // of refusals without events of their own
}

// readLedger reads the whole audit log of the gateway that runs, or ran, in dir.
// A last line without its end is being written now, or was when the gateway was
// killed.
func readLedger(t *testing.T, dir string) []event {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "data", "audit", "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no audit log in %s: %v", dir, err)
	}
	slices.Sort(files)
	var events []event
	for i, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(content) {
			if i == len(files)-1 && !bytes.HasSuffix(line, []byte("\n")) {
				break
			}
			var e event
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatalf("%s: %v: %s", file, err, line)
			}
			events = append(events, e)
		}
	}
	return events
}

// decisionsByRoute are the decisions as "route allow" or "route status code".
func decisionsByRoute(events []event) []string {
	var all []string
	for _, e := range events {
		if e.Type != "decision" {
			continue
		}
		d := e.Decision
		if d.Effect == "allow" {
			all = append(all, d.Route+" allow")
		} else {
			all = append(all, d.Route+" "+itoa(d.Status)+" "+d.Code)
		}
	}
	return all
}

func itoa[T ~int | ~int64](n T) string { return strconv.FormatInt(int64(n), 10) }
