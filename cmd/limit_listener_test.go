package cmd

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
)

// TestLimitConnections: the next comes in when one has gone, a direction can be
// ended alone, and whoever waits for a place is let go when the listener closes.
func TestLimitConnections(t *testing.T) {
	bare, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var waits atomic.Int64
	l := limitConnections(bare, 2, func() { waits.Add(1) })
	accepted := make(chan net.Conn)
	var gone atomic.Bool // the first one
	var early atomic.Bool
	ended := make(chan error, 1)
	go func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			if n == 3 {
				early.Store(!gone.Load())
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", bare.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	first := dial()
	one := <-accepted
	dial()
	two := <-accepted
	dial()
	if err := one.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := first.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the caller reads %v", err)
	}
	if _, err := first.Write([]byte("a")); err != nil {
		t.Error(err)
	}
	if _, err := one.Read(make([]byte, 1)); err != nil {
		t.Errorf("the other direction: %v", err)
	}
	gone.Store(true)
	one.Close()
	one.Close() // gives back no second place
	three := <-accepted
	if early.Load() {
		t.Error("a third was accepted beside two")
	}
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	two.Close()
	three.Close()
	if n := waits.Load(); n < 1 || n > 2 { // for the third, and perhaps for a fourth that did not come
		t.Errorf("%d waits were told of", n)
	}
}
