package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"sidegate/proxy/leash"
)

// leashed is a request whose context has a leash; end ends both.
func leashed(t *testing.T, method string) (req *http.Request, end func()) {
	l := &leash.Leash{}
	ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), leash.Key{}, l))
	l.Begin(ctx)
	return newRequest(t, method, "http", nil).WithContext(ctx), func() { cancel(errLet); l.Pull() }
}

var errLet = errors.New("the request is let go")

// TestLeashPulledTooLate: a connection that went back is another request's, which
// the end of the one before does not touch.
func TestLeashPulledTooLate(t *testing.T) {
	here, answer := make(chan struct{}), make(chan struct{}, 1)
	app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
		for {
			if _, _, err := takeRequest(in); err != nil {
				return
			}
			here <- struct{}{}
			<-answer
			_, _ = io.WriteString(conn, okay)
		}
	})
	b := newBench(t, Options{}, app.address)
	before := func() {}
	for range 3 {
		req, end := leashed(t, "POST")
		last := before
		go func() {
			<-here
			last()
			answer <- struct{}{}
		}()
		if got, err := b.do(req); err != nil || got != "ok" {
			t.Fatalf("%q, %v", got, err)
		}
		before = end
	}
	before()
	if n := app.connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	b.idle()
}

// TestLeashPulledBeforeTheEnd: a connection whose request ended before its answer
// did has a deadline that is over, and is for nobody else, though the rest of the
// answer was there already.
func TestLeashPulledBeforeTheEnd(t *testing.T) {
	app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
		for {
			if _, _, err := takeRequest(in); err != nil {
				return
			}
			_, _ = io.WriteString(conn, okay)
		}
	})
	b := newBench(t, Options{}, app.address)
	for range 3 {
		req, end := leashed(t, "POST")
		res, err := b.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		end()
		_, _ = io.ReadAll(res.Body) // it may be cut off
		res.Body.Close()
		if n := len(b.idleOf()); n != 0 {
			t.Fatalf("%d connections are kept", n)
		}
	}
	b.idle()
}

// TestLeashOfASilentApp: who waits for an answer is let go, over a new connection
// and over one that was used before, and hears why.
func TestLeashOfASilentApp(t *testing.T) {
	here := make(chan struct{})
	app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
		for {
			r, _, err := takeRequest(in)
			if err != nil {
				return
			}
			if r.Method == "GET" {
				here <- struct{}{}
				continue
			}
			_, _ = io.WriteString(conn, okay)
		}
	})
	b := newBench(t, Options{}, app.address)
	for _, used := range []bool{false, true} {
		if used {
			if got, err := b.do(newRequest(t, "POST", "http", nil)); err != nil || got != "ok" {
				t.Fatalf("%q, %v", got, err)
			}
		}
		req, end := leashed(t, "GET")
		go func() {
			<-here
			end()
		}()
		if _, err := b.do(req); !errors.Is(err, errLet) {
			t.Errorf("used before %v: %v", used, err)
		}
		if n := len(b.idleOf()); n != 0 {
			t.Errorf("used before %v: %d connections are kept", used, n)
		}
	}
	b.idle()
}
