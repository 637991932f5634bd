package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestF19DescriptorsExhausted: callers take all of a gateway's file
// descriptors. It goes on with those that it has, each request on record (of many
// refusals the last ones as a count), also
// where a new segment of the audit log is due; it waits longer and longer
// before it tries to accept again; and it is as before when they have left.
func TestF19DescriptorsExhausted(t *testing.T) {
	prlimit, err := exec.LookPath("prlimit")
	if err != nil {
		needs(t, "prlimit", "apt-get install util-linux")
	}
	g := startGateway(t, setup{
		wrap:   []string{prlimit, "--nofile=64"},
		flags:  []string{"--log-level", "debug"},
		config: demoFile(t, "sidegate.yaml", "policy: policy.yaml\n", "policy: policy.yaml\naudit: {segment: 64KiB}\n"),
	})
	alice := token(t, "alice")
	first := dialGateway(t, g)
	if status := first.ask(t, "/v1/me", alice); status != http.StatusOK { // a connection to the app is open from now on
		t.Fatal(status)
	}
	var idle []*callerConn
	for range 80 { // the system accepts what the gateway does not
		idle = append(idle, dialGateway(t, g))
	}
	// net/http doubles its pause from 5 ms to a second.
	g.logs(t, "too many open files; retrying in 1s")
	if n := strings.Count(g.log.String(), "too many open files; retrying"); n > 12 {
		t.Errorf("%d tries to accept until it waits for a second", n)
	}

	// Enough for two segments: a decision and an outcome are a kilobyte.
	const requests = 150
	served, refused := 0, 0
	for range requests {
		switch status := first.ask(t, "/v1/me", alice); status {
		case http.StatusOK:
			served++
		default:
			t.Errorf("with the app's connection open: status %d", status)
		}
		if status := first.ask(t, "/v1/me", ""); status == http.StatusUnauthorized {
			refused++
		} else {
			t.Errorf("without a token: status %d", status)
		}
	}
	if n := segments(t, g); n != 1 {
		t.Errorf("%d segments while no file can be opened", n)
	}
	g.logs(t, "cannot begin a new segment")

	// A stream takes the connection to the app, and there is none for another.
	idle[0].send(t, "/v1/events", alice)
	if response, err := http.ReadResponse(idle[0].r, nil); err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(response, err)
	}
	if status := first.ask(t, "/v1/me", alice); status != http.StatusBadGateway {
		t.Errorf("without a descriptor for the app: status %d", status)
	}

	for _, c := range idle {
		c.Close()
	}
	eventually(t, g.url+"/v1/me", alice).want(t, http.StatusOK)
	first.ask(t, "/v1/me", alice)
	g.logs(t, "begins new segments again")
	ask(t, http.MethodGet, g.adminURL+"/health/ready", "", "").want(t, http.StatusOK)
	first.Close()
	if status := g.stop(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	decisions, outcomes := onRecord(t, g.dir)
	counted := 0
	for _, e := range readLedger(t, g.dir) {
		counted += e.Summary.Repeated
	}
	if len(decisions) != len(outcomes) || len(decisions)+counted < served+refused+5 || counted != refused-60 {
		t.Errorf("%d decisions, %d refusals counted and %d outcomes of %d requests", len(decisions), counted, len(outcomes), served+refused+5)
	}
	if n := segments(t, g); n < 2 {
		t.Error("no new segment was begun afterwards")
	}
}

func segments(t *testing.T, g *gateway) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(g.dir, "data", "audit", "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// logs waits until the gateway's log has that.
func (g *gateway) logs(t *testing.T, what string) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(30 * time.Second)
	for !strings.Contains(g.log.String(), what) {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("the log never says %q", what)
		}
	}
}

// A callerConn is a connection to the gateway that stays open.
type callerConn struct {
	net.Conn
	r *bufio.Reader
}

func dialGateway(t *testing.T, g *gateway) *callerConn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	return &callerConn{conn, bufio.NewReader(conn)}
}

// ask sends a GET and gives the answer's status.
func (c *callerConn) ask(t *testing.T, path, token string) int {
	t.Helper()
	c.send(t, path, token)
	response, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode
}

func (c *callerConn) send(t *testing.T, path, token string) {
	t.Helper()
	request := "GET " + path + " HTTP/1.1\r\nHost: gateway.test\r\n"
	if token != "" {
		request += "Authorization: Bearer " + token + "\r\n"
	}
	if _, err := fmt.Fprint(c, request+"\r\n"); err != nil {
		t.Fatal(err)
	}
}
