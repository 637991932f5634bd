package cmd

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/semaphore"
)

// A limitListener bounds the connections that are open at once: the next is
// accepted when one is closed. Of each, one direction can still be ended alone,
// which a WebSocket's end and net/http's own refusals rest on.
type limitListener struct {
	net.Listener
	places *semaphore.Weighted
	full   func()
	open   context.Context
	close  context.CancelFunc
}

// limitConnections tells full of each time that the next connection has to wait
// for the end of another.
func limitConnections(l net.Listener, n int, full func()) net.Listener {
	out := &limitListener{Listener: l, places: semaphore.NewWeighted(int64(n)), full: full}
	out.open, out.close = context.WithCancel(context.Background())
	return out
}

func (l *limitListener) Accept() (net.Conn, error) {
	if !l.places.TryAcquire(1) {
		l.full()
		if l.places.Acquire(l.open, 1) != nil {
			return nil, net.ErrClosed
		}
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		l.places.Release(1)
		return nil, err
	}
	return &limitedConn{Conn: conn, places: l.places}, nil
}

func (l *limitListener) Close() error {
	l.close()
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	places *semaphore.Weighted
	left   atomic.Bool
}

func (c *limitedConn) Close() error {
	defer func() {
		if !c.left.Swap(true) {
			c.places.Release(1)
		}
	}()
	return c.Conn.Close()
}

// SyscallConn is for large answers, which pass within the kernel.
func (c *limitedConn) SyscallConn() (syscall.RawConn, error) {
	if raw, ok := c.Conn.(syscall.Conn); ok {
		return raw.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

func (c *limitedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
