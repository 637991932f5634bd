package transport

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
)

// TestLongHeadOverAUsedConnection: what the kernel does not take of a head at once
// is written when it has room.
func TestLongHeadOverAUsedConnection(t *testing.T) {
	long := strings.Repeat("x", 16<<20) // more than both sides of a connection hold
	app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
		for {
			r, _, err := takeRequest(in)
			if err != nil {
				return
			}
			if h := r.Header.Get("X-Long"); h != "" && h != long {
				t.Errorf("the header came with %d bytes", len(h))
			}
			_, _ = io.WriteString(conn, okay)
		}
	})
	b := newBench(t, Options{}, app.address)
	for _, value := range []string{"", long, "", long} {
		req := newRequest(t, "GET", "http", nil)
		if value != "" {
			req.Header.Set("X-Long", value)
		}
		if got, err := b.do(req); err != nil || got != "ok" {
			t.Fatalf("a header of %d bytes: %q, %v", len(value), got, err)
		}
	}
	if n := app.connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	b.idle()
}

// TestManyClosedIdleConnections: a request passes by all that the app closed, and
// is sent once.
func TestManyClosedIdleConnections(t *testing.T) {
	const n = 20
	all, end := make(chan struct{}, n), make(chan struct{})
	app := scripted(t, func(number int64, conn net.Conn, in *bufio.Reader) {
		if _, _, err := takeRequest(in); err != nil {
			return
		}
		if number <= n {
			all <- struct{}{}
			<-end
		}
		_, _ = io.WriteString(conn, okay)
		if number > n {
			_, _, _ = takeRequest(in)
		}
	})
	b := newBench(t, Options{}, app.address)
	answers := make(chan error, n)
	for range n {
		go func() {
			_, err := b.do(newRequest(t, "GET", "http", nil))
			answers <- err
		}()
	}
	for range n {
		<-all
	}
	close(end)
	for range n {
		if err := <-answers; err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range b.idleOf() {
		until(t, "the app has closed it", func() bool { return !c.quiet() })
	}
	if got, err := b.do(newRequest(t, "POST", "http", nil)); err != nil || got != "ok" {
		t.Errorf("%q, %v", got, err)
	}
	if got := app.connections.Load(); got != n+1 {
		t.Errorf("%d connections", got)
	}
	b.idle()
}
