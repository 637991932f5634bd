package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestF6RecordFirst watches the gateway's system calls: the line of each
// decision is written, and at survive: power fsynced, before the first byte of
// the request goes to the app.
func TestF6RecordFirst(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		needs(t, "strace", "apt-get install strace")
	}
	for _, survive := range []string{"crash", "power"} {
		t.Run(survive, func(t *testing.T) {
			trace := filepath.Join(t.TempDir(), "trace")
			g := startGateway(t, setup{
				config: demoFile(t, "sidegate.yaml") + "audit: {survive: " + survive + "}\n",
				// -D: the gateway is this test's child, strace its grandchild.
				wrap: []string{strace, "-D", "-f", "-yy", "-s", "4096", "-o", trace,
					"-e", "trace=write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync"},
			})
			alice := token(t, "alice")
			const requests = 20
			for n := range requests {
				ask(t, http.MethodGet, fmt.Sprintf("%s/v1/me?mark%d=", g.url, n), alice, "").want(t, http.StatusOK)
			}
			if status := g.stop(t); status != 0 {
				t.Fatalf("exit status %d", status)
			}
			calls := readTrace(t, trace, g.process.Process.Pid)
			for n := range requests {
				mark := fmt.Sprintf("mark%d", n)
				checkOrder(t, calls, mark, survive == "power")
			}
		})
	}
}

// checkOrder finds the calls that concern one request.
func checkOrder(t *testing.T, calls []call, mark string, fsynced bool) {
	t.Helper()
	written := slices.IndexFunc(calls, func(c call) bool {
		return c.ledger && strings.Contains(c.text, `\"`+mark+`\"`) && strings.Contains(c.text, "decision")
	})
	forwarded := slices.IndexFunc(calls, func(c call) bool {
		return c.socket && strings.Contains(c.text, "GET /v1/me?"+mark+"= ")
	})
	if written < 0 || forwarded < 0 {
		t.Fatalf("%s: its decision is written by call %d, and forwarded by call %d, of %d", mark, written, forwarded, len(calls))
	}
	kept := calls[written].ended
	if fsynced {
		sync := slices.IndexFunc(calls, func(c call) bool { return c.ledger && c.sync && c.began > kept })
		if sync < 0 {
			t.Fatalf("%s: no fsync after it was written", mark)
		}
		kept = calls[sync].ended
	}
	if first := calls[forwarded].began; first < kept {
		t.Errorf("%s: the app gets it at line %d of the trace, and its decision is kept at line %d only", mark, first, kept)
	}
}

// A call is a system call that succeeded, by the lines of the trace on which it
// begins and ends.
type call struct {
	began, ended int
	text         string
	sync         bool // fsync or fdatasync
	ledger       bool // of a segment of the audit log
	socket       bool // of a TCP connection
}

var (
	traceLine    = regexp.MustCompile(`^(\d+) +(.*)$`)
	traceBegins  = regexp.MustCompile(`^(\w+)\((\d+)<(.*)$`)
	traceResumed = regexp.MustCompile(`^<\.\.\. (\w+) resumed>(.*)$`)
)

// readTrace reads what strace wrote of the process, which has ended.
func readTrace(t *testing.T, path string, pid int) []call {
	t.Helper()
	text := awaitTrace(t, path, pid)
	under := map[string]call{} // by thread: calls that have not ended
	var calls []call
	for n, line := range strings.Split(text, "\n") {
		parts := traceLine.FindStringSubmatch(line)
		if parts == nil {
			continue
		}
		thread, rest := parts[1], parts[2]
		c := call{began: n, text: rest}
		if resumed := traceResumed.FindStringSubmatch(rest); resumed != nil {
			c = under[thread]
			c.text += resumed[2]
			delete(under, thread)
		} else if begins := traceBegins.FindStringSubmatch(rest); begins != nil {
			c.sync = begins[1] == "fsync" || begins[1] == "fdatasync"
			file, _, _ := strings.Cut(begins[3], ">")
			c.ledger = strings.HasSuffix(file, ".jsonl")
			c.socket = strings.HasPrefix(file, "TCP:")
		} else {
			continue
		}
		if strings.HasSuffix(rest, "<unfinished ...>") {
			under[thread] = c
			continue
		}
		result := strings.TrimSpace(c.text[strings.LastIndex(c.text, " = ")+3:])
		if strings.HasPrefix(result, "-1") {
			continue
		}
		c.ended = n
		calls = append(calls, c)
	}
	if len(calls) == 0 {
		t.Fatalf("no calls in the trace:\n%s", text)
	}
	return calls
}

// awaitTrace waits until strace has written the end of the process.
func awaitTrace(t *testing.T, path string, pid int) string {
	t.Helper()
	end := regexp.MustCompile(fmt.Sprintf(`(?m)^%d +\+\+\+ (exited|killed)`, pid))
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(30 * time.Second)
	for {
		text, err := os.ReadFile(path)
		if err == nil && end.Match(text) {
			return string(text)
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("strace does not end (%v): may processes be traced here?\n%s", err, text)
		}
	}
}

// TestF6FirestoreFirst: at survive: machine Firestore has the decision when the
// app gets the request. The app asks.
func TestF6FirestoreFirst(t *testing.T) {
	log := newSharedLog(t)
	var mu sync.Mutex
	missing, found := 0, 0
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := log.decisions(r.Context(), r.Header.Get("X-Request-Id"))
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if n == 1 {
			found++
		} else {
			missing++
		}
	}))
	defer app.Close()
	flags, env := emulated(log.host)
	g := startGateway(t, setup{
		appURL: app.URL, flags: flags, env: env,
		config: demoFile(t, "sidegate.yaml") + log.config("crash"),
		// One route asks for more than the gateway.
		policy: demoFile(t, "policy.yaml", "methods: [GET, PATCH], upstream: app,", "methods: [GET, PATCH], upstream: app, audit: machine,"),
	})
	alice := token(t, "alice")
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 5 {
				ask(t, http.MethodGet, g.url+"/v1/me", alice, "").want(t, http.StatusOK)
			}
		})
	}
	callers.Wait()
	mu.Lock()
	defer mu.Unlock()
	if found != 40 || missing != 0 {
		t.Errorf("the app found the decision of %d requests in Firestore, and missed it of %d", found, missing)
	}
}

// decisions asks the emulator how many there are with that record's id.
func (l sharedLog) decisions(ctx context.Context, record string) (int, error) {
	query := fmt.Sprintf(`{"structuredQuery": {"from": [{"collectionId": %q}], "where": {"compositeFilter": {"op": "AND", "filters": [
		{"fieldFilter": {"field": {"fieldPath": "record"}, "op": "EQUAL", "value": {"stringValue": %q}}},
		{"fieldFilter": {"field": {"fieldPath": "type"}, "op": "EQUAL", "value": {"stringValue": "decision"}}}]}}}}`, l.collection, record)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"http://"+l.host+"/v1/projects/"+project+"/databases/(default)/documents:runQuery", strings.NewReader(query))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer owner")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	var rows []struct{ Document *document }
	if err := json.Unmarshal(content, &rows); err != nil {
		return 0, fmt.Errorf("%w: %s", err, content)
	}
	n := 0
	for _, row := range rows {
		if row.Document != nil {
			n++
		}
	}
	return n, nil
}
