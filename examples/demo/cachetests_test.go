package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// cacheTests is the version of http-cache-tests, from npm: the suite behind
// cache-tests.fyi.
const cacheTests = "0.4.5"

// openToAll passes everything, so that nothing but the passing on is looked at.
const openToAll = `version: sidegate-policy/v1
name: open
identities: [users]
routes:
  - {id: all, path: "/{rest...}", methods: [GET, POST, PUT, PATCH, DELETE, OPTIONS], allow: public, upstream: app}
`

// What is not the same, and has nothing to do with keeping: the suite's origin
// breaks off, lies about lengths or is asked by a method of its own.
const (
	originBreaksOff = "the origin hangs up: its client gets nothing directly, and 502 from a gateway"
	originLies      = "the origin sends more than its Content-Length, or a coding that is none"
	notAMethodHere  = "M-SEARCH is no method that passes (docs/http.md)"
)

var cacheTestsThatDiffer = map[string]string{
	"stale-close":                             originBreaksOff,
	"stale-close-must-revalidate":             originBreaksOff,
	"stale-close-no-cache":                    originBreaksOff,
	"stale-close-proxy-revalidate":            originBreaksOff,
	"stale-close-s-maxage=2":                  originBreaksOff,
	"stale-sie-503":                           originBreaksOff,
	"stale-sie-close":                         originBreaksOff,
	"stale-warning-become":                    originBreaksOff,
	"stale-warning-stored":                    originBreaksOff,
	"304-etag-update-response-Content-Length": originLies,
	"headers-store-Content-Length":            originLies,
	"headers-store-Transfer-Encoding":         originLies,
	"invalidate-M-SEARCH":                     notAMethodHere,
	"invalidate-M-SEARCH-cl":                  notAMethodHere,
	"invalidate-M-SEARCH-failed":              notAMethodHere,
}

// TestCacheTests runs the suite against its own origin, directly and through
// the gateway: a gateway that keeps nothing, and says nothing of keeping, gets
// verdict for verdict the same. One that keeps an answer for the wrong caller
// differs.
func TestCacheTests(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		needs(t, "Node.js, for http-cache-tests,", "install Node.js 20 or later with npm")
	}
	suite := filepath.Join(installNode(t, "http-cache-tests", cacheTests), "node_modules", "http-cache-tests")
	address := unusedAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	origin := exec.Command(node, "server/server.mjs")
	origin.Dir = suite
	origin.Env = append(os.Environ(), "npm_config_protocol=http", "npm_config_port="+port, "npm_config_pidfile="+filepath.Join(t.TempDir(), "pid"))
	startComponent(t, origin, "http://"+address+"/index.html")
	g := startGateway(t, setup{appURL: "http://" + address, policy: openToAll, flags: []string{"--log-level", "error"}})

	run := func(base string) <-chan []byte {
		verdicts := make(chan []byte, 1)
		go func() {
			c := exec.CommandContext(t.Context(), node, "--no-warnings", "cli.mjs")
			c.Dir = suite
			c.Env = append(os.Environ(), "npm_config_base="+base, "npm_package_config_id=")
			var errs bytes.Buffer
			c.Stderr = &errs
			out, err := c.Output()
			if err != nil {
				t.Errorf("%s: %v\n%s", base, err, &errs)
			}
			verdicts <- out
		}()
		return verdicts
	}
	direct, through := run("http://"+address), run(g.url)
	want, got := readVerdicts(t, <-direct), readVerdicts(t, <-through)
	if len(want) < 300 || len(got) != len(want) {
		t.Errorf("%d verdicts, and %d through the gateway", len(want), len(got))
	}
	t.Logf("%d verdicts, %d to be the same", len(want), len(want)-len(cacheTestsThatDiffer))
	for id, verdict := range want {
		if cacheTestsThatDiffer[id] == "" && got[id] != verdict {
			t.Errorf("%s: %s; directly %s", id, got[id], verdict)
		}
	}
}

// readVerdicts gives each test's verdict: true, or what it complained of.
func readVerdicts(t *testing.T, out []byte) map[string]string {
	t.Helper()
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(out, &raw); err != nil {
		t.Fatalf("%v: %.500s", err, out)
	}
	verdicts := map[string]string{}
	for id, v := range raw {
		verdicts[id] = string(bytes.Join(bytes.Fields(v), []byte(" ")))
	}
	return verdicts
}
