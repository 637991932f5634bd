package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pair is a connection within the process, from both sides.
func pair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	m := newInProcess()
	made := make(chan net.Conn)
	go func() {
		c, _ := m.Accept()
		made <- c
	}()
	far, err := m.dial(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	return <-made, far
}

// open is a strictConn that follows no HTTP.
func open(conn net.Conn) *strictConn {
	c := strict(conn, nil).(interface{ itself() *strictConn }).itself()
	c.tunnel()
	return c
}

// playDeadlines reads and writes on one side of a connection while deadlines come
// and go and the other side does now this and now that. It gives what the calls
// returned, and when. Who waits, who changes and what is due never meet at the
// same millisecond, so that there is one right outcome.
func playDeadlines(t *testing.T, seed uint64, wrap func(net.Conn) net.Conn) []string {
	near, far := pair(t)
	conn := wrap(near)
	begun := time.Now()
	var mu sync.Mutex
	var said []string
	call := func(what string, f func([]byte) (int, error), buf []byte) bool {
		n, err := f(buf)
		mu.Lock()
		said = append(said, fmt.Sprintf("%s %v: %d of %d, %v %v", what, time.Since(begun), n, len(buf), errors.Is(err, os.ErrDeadlineExceeded), err == nil))
		mu.Unlock()
		if err != nil { // until a time that is nobody else's
			time.Sleep(10*time.Millisecond - time.Since(begun)%(10*time.Millisecond) + 7*time.Millisecond)
		}
		return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
	}
	var both sync.WaitGroup
	r := rand.New(rand.NewPCG(seed, 1))
	sizes := func(most int) (out []int) {
		for range 40 {
			out = append(out, 1+r.IntN(most))
		}
		return out
	}
	reads, writes := sizes(50), sizes(2*halfBuffer)
	both.Go(func() {
		for _, n := range reads {
			if !call("read", conn.Read, make([]byte, n)) {
				return
			}
		}
	})
	both.Go(func() {
		for i, n := range writes {
			if !call("write", conn.Write, []byte(fmt.Sprintf("%0*d", n, i))) {
				return
			}
		}
	})
	for range 60 {
		time.Sleep(10 * time.Millisecond)
		end := time.Now().Add(time.Duration(r.IntN(8))*10*time.Millisecond + 3*time.Millisecond)
		switch r.IntN(4) {
		case 0:
			end = time.Time{}
		case 1:
			end = longAgo
		}
		switch r.IntN(6) {
		case 0, 1:
			conn.SetReadDeadline(end)
		case 2, 3:
			conn.SetWriteDeadline(end)
		case 4:
			far.Write(make([]byte, 1+r.IntN(100)))
		default:
			buf := make([]byte, halfBuffer)
			far.SetReadDeadline(time.Now())
			if buf = buf[:1+r.IntN(len(buf))]; r.IntN(2) == 0 {
				far.SetReadDeadline(time.Now().Add(time.Millisecond))
			}
			n, _ := far.Read(buf)
			mu.Lock()
			said = append(said, fmt.Sprintf("far %v: %d %x", time.Since(begun), n, buf[:min(n, 20)]))
			mu.Unlock()
		}
	}
	time.Sleep(10 * time.Millisecond)
	conn.SetDeadline(longAgo)
	time.Sleep(10 * time.Millisecond)
	far.Close()
	time.Sleep(time.Second)
	conn.Close()
	both.Wait()
	slices.Sort(said) // of what happens at one time the order is nobody's
	return said
}

// TestDeadlinesAreTheConnections: whoever reads and writes sees the deadlines as
// the connection itself would keep them, to the millisecond and to the byte.
func TestDeadlinesAreTheConnections(t *testing.T) {
	failed := 0
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			want := playDeadlines(t, seed, func(c net.Conn) net.Conn { return c })
			for name, exact := range map[string]bool{"lazy": false, "exact": true} {
				got := playDeadlines(t, seed, func(c net.Conn) net.Conn {
					s := open(c)
					s.writing.exact = exact
					return s
				})
				if !slices.Equal(got, want) {
					for i := range max(len(got), len(want)) {
						if i >= len(got) || i >= len(want) || got[i] != want[i] {
							t.Fatalf("%s, %d: from %d on\n%q\nwant\n%q", name, seed, i, got[i:min(len(got), i+3)], want[i:min(len(want), i+3)])
						}
					}
				}
			}
			for _, line := range want {
				if len(line) > 11 && line[len(line)-10:] == "true false" {
					failed++
				}
			}
		})
	}
	if failed < 400 {
		t.Errorf("only %d calls met a deadline: the test shows little", failed)
	}
}

// TestDeadlineMovesWhileSomebodyWaits: one that is put off does not end the wait,
// and one that is put forward does, at once.
func TestDeadlineMovesWhileSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := pair(t)
		defer far.Close()
		c := open(near)
		defer c.Close()
		begun := time.Now()
		c.SetReadDeadline(begun.Add(time.Second))
		go func() {
			time.Sleep(500 * time.Millisecond)
			c.SetReadDeadline(begun.Add(time.Hour))
			time.Sleep(10 * time.Second)
			c.SetReadDeadline(begun)
		}()
		_, err := c.Read(make([]byte, 1))
		if took := time.Since(begun); !errors.Is(err, os.ErrDeadlineExceeded) || took != 10500*time.Millisecond {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// TestPacedWrites: each write has its own time from its begin, however long ago
// the last one was, and however much of it was taken.
func TestPacedWrites(t *testing.T) {
	for name, exact := range map[string]bool{"lazy": false, "exact": true} {
		synctest.Test(t, func(t *testing.T) {
			near, far := pair(t)
			defer far.Close()
			c := open(near)
			defer c.Close()
			c.writing.exact = exact
			c.pace(time.Minute)
			for range 3 {
				if n, err := c.Write(make([]byte, 10)); n != 10 || err != nil {
					t.Fatal(name, n, err)
				}
				time.Sleep(time.Hour)
			}
			taken := make(chan error)
			go func() { // a caller who takes his time, but not too much of it
				time.Sleep(59 * time.Second)
				_, err := io.CopyN(io.Discard, far, 30+1000)
				taken <- err
			}()
			begun := time.Now()
			if n, err := c.Write(make([]byte, halfBuffer+1000)); n != halfBuffer+1000 || err != nil || time.Since(begun) != 59*time.Second {
				t.Error(name, n, err, time.Since(begun))
			}
			if err := <-taken; err != nil {
				t.Error(name, err)
			}
			begun = time.Now()
			if n, err := c.Write(make([]byte, halfBuffer)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != time.Minute {
				t.Error(name, n, err, time.Since(begun))
			}
		})
	}
}

// A writesConn counts the writes, and has had enough of them at some time.
type writesConn struct {
	*tls.Conn
	writes int
}

func (c *writesConn) Write(p []byte) (int, error) {
	if c.writes++; c.writes > 5 {
		return 0, errors.New("again and again")
	}
	return c.Conn.Write(p)
}

// TestBrokenTLSIsNotTriedAgain: after a write that failed for its deadline TLS fails
// with the same error for ever, also where the next one has all the time.
func TestBrokenTLSIsNotTriedAgain(t *testing.T) {
	sample := httptest.NewTLSServer(nil)
	defer sample.Close()
	for name, later := range map[string]func(c *strictConn){
		"without a deadline": func(c *strictConn) { c.SetWriteDeadline(time.Time{}) },
		"with a later one":   func(c *strictConn) { c.SetWriteDeadline(time.Now().Add(time.Hour)) },
		"at its pace":        func(c *strictConn) { c.pace(time.Hour) },
	} {
		near, far := pair(t)
		caller := tls.Client(far, &tls.Config{ServerName: "example.com", RootCAs: pool(t, sample)})
		shaken := make(chan error, 1)
		go func() { shaken <- caller.Handshake() }()
		secure := &writesConn{Conn: tls.Server(near, &tls.Config{Certificates: sample.TLS.Certificates})}
		if err := errors.Join(secure.Handshake(), <-shaken); err != nil {
			t.Fatal(err)
		}
		c := strict(secure, nil).(*strictTLSConn)
		c.SetWriteDeadline(longAgo)
		if _, err := c.Write([]byte("a")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(name, err)
		}
		secure.writes = 0
		later(&c.strictConn)
		if _, err := c.Write([]byte("a")); !errors.Is(err, os.ErrDeadlineExceeded) || secure.writes != 1 {
			t.Errorf("%s: %v after %d writes", name, err, secure.writes)
		}
		near.Close()
		far.Close()
	}
}

// A settingConn counts how often a deadline is set.
type settingConn struct {
	net.Conn
	set *atomic.Int64
}

func (c settingConn) SetReadDeadline(t time.Time) error {
	c.set.Add(1)
	return c.Conn.SetReadDeadline(t)
}

func (c settingConn) SetWriteDeadline(t time.Time) error {
	c.set.Add(1)
	return c.Conn.SetWriteDeadline(t)
}

type settingListener struct {
	net.Listener
	set *atomic.Int64
}

func (l settingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return settingConn{conn, l.set}, err
}

// TestDeadlinesAreRarelySet: not by each request.
func TestDeadlinesAreRarelySet(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "done") })
	g := unserved(t, app)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var set atomic.Int64
	server := &http.Server{Handler: g.proxy, ConnContext: CountRequests, ReadHeaderTimeout: time.Minute, IdleTimeout: time.Minute, ErrorLog: quietLog}
	go server.Serve(StrictFraming(settingListener{l, &set}, nil))
	defer server.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for range 100 {
		io.WriteString(conn, request("GET", "/public/a", ""))
		if a := g.read(r, "GET"); a.err != nil || a.StatusCode != 200 {
			t.Fatalf("%+v", a)
		}
	}
	if n := set.Load(); n > 300 {
		t.Errorf("%d for 100 requests", n)
	}
}
