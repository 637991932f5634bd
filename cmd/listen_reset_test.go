package cmd

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// TestStalledCallersAreReset: what a caller does not take is not kept for him,
// and those who do take it see a clean end.
func TestStalledCallersAreReset(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/small" {
			return
		}
		defer close(ended)
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		for piece := make([]byte, 1<<20); ; {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})}
	go server.Serve(resetListener{tcp})
	defer server.Close()
	ask := func(path string) net.Conn {
		conn, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		return conn
	}
	stalled := ask("/large")
	<-ended
	if _, err := io.Copy(io.Discard, stalled); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection of who took nothing ended with %v", err)
	}
	if _, err := io.Copy(io.Discard, ask("/small")); err != nil {
		t.Errorf("another ended with %v", err)
	}
}
