package main

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What the gateway's memory may come to, in KiB: what is resident, pages of the
// program's file included.
const (
	idleMemory = 30 << 10
	busyMemory = 64 << 10 // 64 connections, 1,000 tokens
	// net/http keeps two buffers of 4 KiB and a stack of 8 KiB for each connection
	// that waits for its next request; 10,000 of them are 173 MiB of a bare
	// ReverseProxy. waitingMemory is for each, with what is the system's and the
	// gateway's.
	waitingMemory = 24
)

// TestMemory holds what docs/deployment.md says under "Sizing".
func TestMemory(t *testing.T) {
	listen := `listen: {address: "${env:DEMO_ADDRESS}"`
	g := startGateway(t, setup{
		flags:  []string{"--log-level", "error"},
		config: demoFile(t, "sidegate.yaml", listen, listen+", max_connections: 20000"),
	})
	// What only the start needs goes right after it.
	awaits(t, "memory of the start is given back", func() bool { return g.memory(t, "VmRSS") < idleMemory })
	tokens := make([]string, 1000)
	for n := range tokens {
		var err error
		if tokens[n], err = lab.issuer.token(user{UID: fmt.Sprintf("u%d", n)}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	g.askAtOnce(t, 1, 1, tokens) // it uses some of them
	idle := g.memory(t, "VmRSS")
	if idle > idleMemory {
		t.Errorf("idle: %d KiB", idle)
	}
	busy := 0
	for range 5 {
		g.askAtOnce(t, 64, 100, tokens)
		busy = max(busy, g.memory(t, "VmRSS"))
	}
	if busy > busyMemory {
		t.Errorf("64 connections, %d tokens: %d KiB", len(tokens), busy)
	}
	t.Logf("resident: idle %d KiB; at work %d KiB; at most, and at the start, %d KiB", idle, busy, g.memory(t, "VmHWM"))

	t.Run("waiting", func(t *testing.T) { g.testWaiting(t, tokens, idle) })
	if status := g.stop(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// testWaiting has 10,000 connections wait for their second request.
func (g *gateway) testWaiting(t *testing.T, tokens []string, idle int) {
	const connections = 10_000
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Max < connections+1000 {
		needs(t, "a limit of 11,000 open files", "ulimit -Hn 11000")
	}
	for n := range connections {
		if status := dialGateway(t, g).ask(t, "/v1/me", tokens[n%len(tokens)]); status != http.StatusOK {
			t.Fatalf("connection %d: status %d", n, status)
		}
	}
	bound := idle + connections*waitingMemory
	awaits(t, "memory is that of connections", func() bool { return g.memory(t, "VmRSS") < bound })
	t.Logf("%d connections: resident %d KiB, of %d KiB", connections, g.memory(t, "VmRSS"), bound)
}

// askAtOnce sends so many requests on each of so many connections.
func (g *gateway) askAtOnce(t *testing.T, connections, requests int, tokens []string) {
	t.Helper()
	var all sync.WaitGroup
	failed := make(chan error, connections)
	for c := range connections {
		all.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute} // a connection of its own
			defer client.CloseIdleConnections()
			for n := range requests {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/v1/me", nil)
				if err != nil {
					failed <- err
					return
				}
				r.Header.Set("Authorization", "Bearer "+tokens[(c*requests+n)%len(tokens)])
				res, err := client.Do(r)
				if err == nil {
					_, err = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				if err != nil || res.StatusCode != http.StatusOK {
					failed <- fmt.Errorf("%v, %v", res, err)
					return
				}
			}
		})
	}
	all.Wait()
	close(failed)
	for err := range failed {
		t.Fatal(err)
	}
}
