package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// TestStopTellsStreams: at SIGTERM a WebSocket is closed with 1001 and an event
// stream ends as if the app had ended it, so that both go elsewhere; a request
// that runs is answered; the program ends well, with all of it on record.
func TestStopTellsStreams(t *testing.T) {
	g := startGateway(t, setup{})
	header := http.Header{"Authorization": {"Bearer " + token(t, "alice")}}
	c, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(g.url, "http")+"/v1/echo", &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if _, _, err := c.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	// One event stream over each protocol.
	streams := map[string]*http.Response{}
	for _, old := range []bool{true, false} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(old)
		protocols.SetUnencryptedHTTP2(!old)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/v1/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = header
		res, err := (&http.Transport{Protocols: protocols}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if line, err := bufio.NewReader(res.Body).ReadString('\n'); line != "data: watching as alice\n" {
			t.Fatalf("%q %v", line, err)
		}
		streams[res.Proto] = res
	}
	// And a request whose body is half sent.
	body, rest := io.Pipe()
	defer rest.Close()
	answered := make(chan string, 1)
	go func() {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPatch, g.url+"/v1/me", body)
		r.Header = header
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			answered <- err.Error()
			return
		}
		res.Body.Close()
		answered <- res.Status
	}()
	rest.Write([]byte("half "))
	awaitDecision(t, g, "me allow")

	if err := g.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the WebSocket ends with %v, want 1001", err)
	}
	if streams["HTTP/1.1"] == nil || streams["HTTP/2.0"] == nil {
		t.Fatal(streams)
	}
	for proto, res := range streams {
		if _, err := io.ReadAll(res.Body); err != nil {
			t.Errorf("%s: the event stream ends with %v", proto, err)
		}
	}
	if res, err := http.Get(g.adminURL + "/health/ready"); err != nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("ready while it stops: %v %v", res, err)
	}
	rest.Write([]byte("and half"))
	rest.Close()
	if status := <-answered; status != "200 OK" {
		t.Errorf("the request that ran: %s", status)
	}
	if status := g.status(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	stopped := 0
	events := readLedger(t, g.dir)
	for _, e := range events {
		if e.Outcome.Error == "gateway_stopped" {
			stopped++
		}
	}
	if stopped != 3 {
		t.Errorf("%d of 3 streams are on record as ended by the stop", stopped)
	}
	if d := decisionsByRoute(events); slices.Index(d, "echo allow") < 0 {
		t.Errorf("%q", d)
	}
}

// awaitDecision waits until the audit log holds a decision of this kind, as
// decisionsByRoute names them.
func awaitDecision(t *testing.T, g *gateway, kind string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	pause := time.NewTicker(10 * time.Millisecond)
	defer pause.Stop()
	for !slices.Contains(decisionsByRoute(readLedger(t, g.dir)), kind) {
		select {
		case <-pause.C:
		case <-ctx.Done():
			t.Fatalf("the audit log never holds %q", kind)
		}
	}
}
