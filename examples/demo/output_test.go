package main

import (
	"net/http"
	"os"
	"testing"
)

// TestF28OutputBlockedOrClosed: what nobody reads, be it the log or the copy of
// the audit log, holds up no request, and neither does a pipe that is closed
// end the gateway.
func TestF28OutputBlockedOrClosed(t *testing.T) {
	for name, closed := range map[string]bool{"blocked": false, "closed": true} {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			g := startGateway(t, setup{
				config: demoFile(t, "sidegate.yaml", "policy: policy.yaml\n", "policy: policy.yaml\naudit: {stdout: true}\n",
					`"${env:DEMO_ADDRESS}"}`, `"${env:DEMO_ADDRESS}", shutdown_grace: 1s}`), // which a copy that stands still takes whole
				flags:  []string{"--log-level", "debug"},
				output: w,
			})
			w.Close()
			if closed {
				r.Close()
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
			if status := g.stop(t); status != 0 {
				t.Errorf("exit status %d", status)
			}
			if decisions, outcomes := onRecord(t, g.dir); len(decisions) != requests || len(outcomes) != requests {
				t.Errorf("%d decisions and %d outcomes of %d requests", len(decisions), len(outcomes), requests)
			}
		})
	}
}
