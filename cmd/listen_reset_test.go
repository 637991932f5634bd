package cmd

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sidegate/proxy"
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
	go server.Serve(resetListener{Listener: tcp})
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

// A lateConn tells of writes that met a deadline.
type lateConn struct {
	*resetConn
	late chan struct{}
}

func (c lateConn) Write(p []byte) (int, error) {
	n, err := c.resetConn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.late <- struct{}{}
	}
	return n, err
}

type lateListener struct {
	net.Listener
	late chan struct{}
}

func (l lateListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return lateConn{conn.(*resetConn), l.late}, nil
}

// TestSlowCallerGetsAll: a deadline of the connection that is not due any more ends
// no write, and so it does not make a reset of the end.
func TestSlowCallerGetsAll(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	late := make(chan struct{}, 1)
	l := proxy.StrictFraming(lateListener{resetListener{tcp, true}, late}, nil)
	defer l.Close()
	caller, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 16<<20)
	conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write(data[:1]); err != nil {
		t.Fatal(err)
	}
	conn.SetWriteDeadline(time.Now().Add(time.Hour))
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(data[1:])
		written <- err
	}()
	<-late
	// He takes no more than it needs until the rest is the system's to send.
	taken, piece, over := 0, make([]byte, 64<<10), false
	for !over && taken < len(data) {
		select {
		case err = <-written:
			over = true
		default:
			n, err := caller.Read(piece)
			if taken += n; err != nil {
				t.Fatal(err)
			}
		}
	}
	if !over { // he has it all before the writer says so
		err = <-written
	}
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	rest, err := io.Copy(io.Discard, caller)
	if err != nil || taken+int(rest) != len(data) {
		t.Errorf("%d of %d bytes, %v", taken+int(rest), len(data), err)
	}
}

// TestRawConnIsReset: by what passes within the kernel, too; and it can, through all
// that stands between the listener and its guard.
func TestRawConnIsReset(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := newConnectionMetrics(prometheus.NewRegistry())
	l := limitConnections(m.counting(resetListener{tcp, true}, "public"), 1, func() {})
	defer l.Close()
	caller, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	piece := make([]byte, 64<<10)
	err = raw.Write(func(fd uintptr) bool {
		for {
			if _, err := syscall.Write(int(fd), piece); err != nil {
				return false // until there is room
			}
		}
	})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	conn.Close()
	if _, err := io.Copy(io.Discard, caller); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection of who took nothing ended with %v", err)
	}
}
