package cmd

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestConnectionsFullShows: while all connections are open, and nothing happens to
// them, a scrape says so, which is what the alert asks for.
func TestConnectionsFullShows(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "here") }))
	defer up.Close()
	g := startGateway(t, up.URL, newIssuer(t), "", "listen:max_connections: 2")
	for range 2 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /open HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != http.StatusOK {
			t.Fatal(res, err)
		}
	}
	for range 2 {
		scrape := g.metrics(t)
		for _, want := range []string{`sidegate_connections{listener="public"} 2`, `sidegate_connections_max 2`} {
			if !strings.Contains(scrape, want+"\n") {
				t.Errorf("no %s", want)
			}
		}
	}
}
