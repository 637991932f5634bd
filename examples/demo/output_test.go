package main

import (
	"net/http"
	"os"
	"testing"
)

// TestF28OutputBlockedOrClosed: what nobody reads, be it the log or the copy of
// the audit log, holds up no request, and neither does a pipe or a descriptor
// that is closed, or a disk that is full, end the gateway. What is lost by that
// is counted while it lasts.
func TestF28OutputBlockedOrClosed(t *testing.T) {
	for name, c := range map[string]struct {
		output func(t *testing.T) *os.File
		wrap   []string
		lost   bool // what is written fails
		stands bool // the copy of the audit log gets no further
	}{
		"blocked": {output: blockedPipe, stands: true},
		"closed":  {output: closedPipe, lost: true, stands: true},
		"full":    {output: fullDevice, lost: true, stands: true},
		// Go puts /dev/null where the first three descriptors are missing, or the
		// ledger's file would become the standard error of libraries.
		"no descriptors": {wrap: []string{"sh", "-c", `exec "$0" "$@" >&- 2>&-`}},
	} {
		t.Run(name, func(t *testing.T) {
			s := setup{
				config: demoFile(t, "sidegate.yaml", "policy: policy.yaml\n", "policy: policy.yaml\naudit: {stdout: true}\n",
					`"${env:DEMO_ADDRESS}"}`, `"${env:DEMO_ADDRESS}", shutdown_grace: 1s}`), // which a copy that stands still takes whole
				flags: []string{"--log-level", "debug"},
				wrap:  c.wrap,
			}
			if c.output != nil {
				s.output = c.output(t)
			}
			g := startGateway(t, s)
			if s.output != nil {
				s.output.Close()
			}
			// Several times what a pipe holds, by either of the two.
			const requests = 1000
			alice := token(t, "alice")
			for range requests {
				ask(t, http.MethodGet, g.url+"/v1/me", alice, "").want(t, http.StatusOK)
			}
			if ready := ask(t, http.MethodGet, g.adminURL+"/health/ready", "", ""); ready.status != http.StatusOK {
				t.Errorf("ready: %d %s", ready.status, ready.body)
			}
			if dropped := g.metric(t, `sidegate_log_dropped_total{stream="stderr"}`); c.lost != (dropped > 0) {
				t.Errorf("%v lines are counted as dropped", dropped)
			}
			if lag := g.metric(t, "sidegate_audit_copy_lag_events"); c.stands != (lag > requests/2) {
				t.Errorf("%v events wait for the copy on standard output", lag)
			}
			if status := g.stop(t); status != 0 {
				t.Errorf("exit status %d", status)
			}
			if decisions, outcomes := onRecord(t, g.dir); len(decisions) != requests || len(outcomes) != requests {
				t.Errorf("%d decisions and %d outcomes of %d requests", len(decisions), len(outcomes), requests)
			}
		})
	}
}

// blockedPipe is one that nobody reads.
func blockedPipe(t *testing.T) *os.File {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return w
}

// closedPipe is one that nobody can read any more.
func closedPipe(t *testing.T) *os.File {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	return w
}

// fullDevice takes nothing (full(4)).
func fullDevice(t *testing.T) *os.File {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if os.IsNotExist(err) {
		if os.Getenv("CI") == "true" {
			t.Fatal("this system has no /dev/full")
		}
		t.Skip("SKIPPED, NOT TESTED: this system has no /dev/full")
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}
