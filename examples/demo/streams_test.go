package main

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

func TestWebSocketThroughGateway(t *testing.T) {
	g := startGateway(t, setup{})
	address := "ws" + strings.TrimPrefix(g.url, "http") + "/v1/echo"

	_, refusal, err := websocket.Dial(t.Context(), address, nil)
	if err == nil || refusal == nil || refusal.StatusCode != http.StatusUnauthorized {
		t.Fatalf("a WebSocket without a token: %v, %v; want 401", refusal, err)
	}

	header := http.Header{
		"Authorization":  {"Bearer " + token(t, "alice")},
		"X-Sidegate-Uid": {"bob"}, // which the gateway replaces
	}
	c, _, err := websocket.Dial(t.Context(), address, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if _, hello, err := c.Read(t.Context()); err != nil || string(hello) != "hello alice" {
		t.Fatalf("the app says %q, %v; want hello alice", hello, err)
	}
	for _, message := range []string{"one", strings.Repeat("x", 20_000), "three"} {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, back, err := c.Read(t.Context()); err != nil || string(back) != message {
			t.Fatalf("%d bytes came back, %v; want the %d that were sent", len(back), err, len(message))
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
	wantDecision(t, g, "echo allow", 1)
	wantDecision(t, g, "echo 401 no_token", 1)
}

// TestEventStream reads a line that another request causes while the stream is
// open: nothing between the app and the reader holds it back.
func TestEventStream(t *testing.T) {
	g := startGateway(t, setup{})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token(t, "alice"))
	r.Header.Set("Accept", "text/event-stream")
	stream, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	if stream.StatusCode != http.StatusOK || stream.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s, %s", stream.Status, stream.Header.Get("Content-Type"))
	}
	lines := bufio.NewReader(stream.Body)
	next := func(want string) {
		t.Helper()
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("%v, want %q", err, want)
			}
			if data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: "); ok {
				if data != want {
					t.Fatalf("the stream says %q, want %q", data, want)
				}
				return
			}
		}
	}
	next("watching as alice")
	ask(t, http.MethodGet, g.url+"/v1/me", token(t, "bob"), "").want(t, http.StatusOK)
	next("GET /v1/me")
	ask(t, http.MethodGet, g.url+"/v1/users/bob/notes/a%20b", token(t, "bob"), "").want(t, http.StatusOK)
	next("GET /v1/users/bob/notes/a b")
}

// wantDecision fails unless the audit log holds so many decisions of this
// kind, as decisionsByRoute names them.
func wantDecision(t *testing.T, g *gateway, kind string, n int) {
	t.Helper()
	found := 0
	all := decisionsByRoute(readLedger(t, g.dir))
	for _, d := range all {
		if d == kind {
			found++
		}
	}
	if found != n {
		t.Errorf("the audit log holds %d times %q, want %d: %q", found, kind, n, all)
	}
}
