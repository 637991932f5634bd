package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestF26SlowCallers lets slowhttptest hold connections in its three ways:
// headers, bodies and answers that never end. Others are served all the while,
// the limits close what is slow, and memory is that of connections, not of
// bodies. SIDEGATE_SLOW is how many there are (default 200; `make soak-faults`
// takes 1,000).
func TestF26SlowCallers(t *testing.T) {
	tool, err := exec.LookPath("slowhttptest")
	if err != nil {
		needs(t, "slowhttptest", "apt-get install slowhttptest")
	}
	connections := 200
	if s := os.Getenv("SIDEGATE_SLOW"); s != "" {
		if connections, err = strconv.Atoi(s); err != nil {
			t.Fatalf("SIDEGATE_SLOW: %v", err)
		}
	}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/big" { // more than the buffers of a connection hold
			for piece := make([]byte, 1<<20); ; {
				if _, err := w.Write(piece); err != nil {
					return
				}
			}
		}
	}))
	defer app.Close()
	for _, c := range []struct {
		name     string
		requests bool // they are some, and on record; slow headers are none
		closed   bool // the tool sees that it is cut off; who does not read does not
		args     []string
	}{
		{"headers", false, true, []string{"-H", "-i", "1", "-u", "/"}},
		{"bodies", true, true, []string{"-B", "-i", "5", "-s", "10000000", "-u", "/"}},
		{"answers", true, false, []string{"-X", "-n", "5", "-z", "32", "-w", "512", "-y", "1024", "-u", "/big"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			listen := `listen: {address: "${env:DEMO_ADDRESS}"`
			g := startGateway(t, setup{
				appURL: app.URL, policy: openToAll, flags: []string{"--log-level", "error"},
				config: demoFile(t, "sidegate.yaml", listen, listen+", header_timeout: 2s, idle_timeout: 2s"),
			})
			for range 100 {
				ask(t, http.MethodGet, g.url+"/", "", "").want(t, http.StatusOK)
			}
			before, goroutines := g.memory(t, "VmRSS"), g.metric(t, "go_goroutines")
			args := append([]string{"-c", itoa(connections), "-r", itoa(connections), "-l", "10", "-p", "3"}, c.args...)
			args[len(args)-1] = g.url + args[len(args)-1]
			said := probeWhile(t, g, exec.CommandContext(t.Context(), tool, args...))
			peak := g.memory(t, "VmHWM")
			if len(said.unavailable) > 0 || said.closed != c.closed {
				t.Errorf("slowhttptest says %+v", said)
			}
			if bound := before + 16<<10 + connections*128; peak > bound {
				t.Errorf("memory went from %d KiB to %d KiB", before, peak)
			}
			g.until(t, "go_goroutines", goroutines+10)
			if status := g.stop(t); status != 0 {
				t.Errorf("exit status %d", status)
			}
			stalled := 0
			decisions, outcomes := onRecord(t, g.dir)
			for _, e := range outcomes {
				if e.Outcome.Error == "client_stalled" {
					stalled++
				}
			}
			if len(decisions) != len(outcomes) || c.requests && stalled < connections*9/10 {
				t.Errorf("%d decisions, %d outcomes, %d of them stalled", len(decisions), len(outcomes), stalled)
			}
			t.Logf("%d connections; %d requests, %d of them stalled; memory %d KiB, before %d KiB", connections, len(decisions), stalled, peak, before)
		})
	}
}

// A verdict is what slowhttptest said.
type verdict struct {
	closed      bool     // all connections, before its time was over
	unavailable []string // what it said of the service, if not YES
}

var (
	colours   = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]`)
	available = regexp.MustCompile(`(?m)^service available:\s+(.+?)\s*$`)
)

// probeWhile asks again and again while the command runs.
func probeWhile(t *testing.T, g *gateway, slow *exec.Cmd) verdict {
	t.Helper()
	out := &output{}
	slow.Stdout, slow.Stderr = out, out
	if err := slow.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- slow.Wait() }()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			ask(t, http.MethodGet, g.url+"/", "", "").want(t, http.StatusOK)
		case err := <-ended:
			text := colours.ReplaceAllString(out.String(), "")
			if err != nil {
				t.Fatalf("slowhttptest: %v\n%s", err, text)
			}
			return readVerdict(t, text)
		}
	}
}

func readVerdict(t *testing.T, text string) verdict {
	t.Helper()
	v := verdict{closed: strings.Contains(text, "No open connections left")}
	all := available.FindAllStringSubmatch(text, -1)
	if len(all) == 0 || !strings.Contains(text, "Test ended on") {
		t.Fatalf("slowhttptest says nothing:\n%s", text)
	}
	for _, m := range all {
		if m[1] != "YES" {
			v.unavailable = append(v.unavailable, m[1])
		}
	}
	return v
}

// memory is a line of the process's status, in KiB.
func (g *gateway) memory(t *testing.T, name string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.process.Process.Pid))
	if err != nil {
		needs(t, "/proc", "it says what memory a process has; run this on Linux")
	}
	_, rest, _ := strings.Cut(string(status), name+":")
	var n int
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// metric is one of the gateway's, with its labels as /metrics writes them.
func (g *gateway) metric(t *testing.T, name string) float64 {
	t.Helper()
	body := ask(t, http.MethodGet, g.adminURL+"/metrics", "", "").want(t, http.StatusOK).body
	_, rest, ok := strings.Cut("\n"+string(body), "\n"+name+" ")
	var v float64
	if _, err := fmt.Sscan(rest, &v); !ok || err != nil {
		t.Fatalf("no metric %s: %v", name, err)
	}
	return v
}

// until waits for a metric to be at most that.
func (g *gateway) until(t *testing.T, name string, bound float64) {
	t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(30 * time.Second)
	for {
		v := g.metric(t, name)
		if v <= bound {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("%s is %v and does not come down to %v", name, v, bound)
		}
	}
}
