package main

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A link is the network between a gateway and Firestore's emulator, which keeps
// its data in memory and so cannot be stopped itself. It passes everything on
// until it is told otherwise. Nothing is dropped from within a connection: what
// is held comes later, as TCP repeats what a dead network swallowed.
type link struct {
	address, to string

	mu      sync.Mutex
	accepts net.Listener // nil: refused
	conns   map[*linkConn]bool
	delay   time.Duration
	held    [2]chan struct{} // by direction; closed when it passes again; nil: it passes
	fuse    int              // so many pieces more, and all is reset; 0: none
}

// Directions of a link.
const (
	asking = iota
	answering
)

type linkConn struct {
	caller, server net.Conn
	ctx            context.Context // ends with the connection
	end            context.CancelFunc
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	l := &link{address: unusedAddress(t), to: to, conns: map[*linkConn]bool{}}
	l.mend(t)
	t.Cleanup(l.cut)
	return l
}

// cut ends what is connected, with a reset, and refuses who comes.
func (l *link) cut() {
	l.mu.Lock()
	if l.accepts != nil {
		l.accepts.Close()
		l.accepts = nil
	}
	l.mu.Unlock()
	l.reset()
}

// mend takes connections again after a cut.
func (l *link) mend(t *testing.T) {
	t.Helper()
	accepts, err := net.Listen("tcp", l.address)
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.accepts = accepts
	l.mu.Unlock()
	go func() {
		for {
			caller, err := accepts.Accept()
			if err != nil {
				return
			}
			go l.connect(caller)
		}
	}()
}

// reset ends what is connected, and goes on with who comes.
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		for _, side := range []net.Conn{c.caller, c.server} {
			side.(*net.TCPConn).SetLinger(0)
			side.Close()
		}
		c.end()
	}
}

// resetAfter resets what is connected when so many pieces have passed; 0: not any
// more.
func (l *link) resetAfter(pieces int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fuse = pieces
}

// burns counts a piece, and reports whether it was the last.
func (l *link) burns() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fuse == 0 {
		return false
	}
	l.fuse--
	return l.fuse == 0
}

// slow delays each direction by that.
func (l *link) slow(by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = by
}

// hold lets nothing through in these directions until release.
func (l *link) hold(directions ...int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range directions {
		l.held[d] = make(chan struct{})
	}
}

func (l *link) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for d, held := range l.held {
		if held != nil {
			close(held)
		}
		l.held[d] = nil
	}
}

func (l *link) connect(caller net.Conn) {
	server, err := net.Dial("tcp", l.to)
	if err != nil {
		caller.Close()
		return
	}
	c := &linkConn{caller: caller, server: server}
	c.ctx, c.end = context.WithCancel(context.Background())
	l.mu.Lock()
	l.conns[c] = true
	refused := l.accepts == nil // it was cut meanwhile
	l.mu.Unlock()
	if refused {
		c.end()
	}
	go l.pump(c, server, caller, asking)
	go l.pump(c, caller, server, answering)
	<-c.ctx.Done()
	caller.Close()
	server.Close()
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
}

// pump brings one direction's bytes over until the connection ends.
func (l *link) pump(c *linkConn, to io.Writer, from io.Reader, direction int) {
	type piece struct {
		bytes []byte
		due   time.Time
	}
	pieces := make(chan piece, 1024)
	go func() {
		defer close(pieces)
		for {
			buf := make([]byte, 32<<10)
			n, err := from.Read(buf)
			l.mu.Lock()
			due := time.Now().Add(l.delay)
			l.mu.Unlock()
			if err != nil {
				return
			}
			select {
			case pieces <- piece{buf[:n], due}:
			case <-c.ctx.Done():
				return
			}
		}
	}()
	defer c.end()
	for p := range pieces {
		if !l.passes(c, p.due, direction) {
			return
		}
		if _, err := to.Write(p.bytes); err != nil {
			return
		}
		if l.burns() {
			l.reset()
		}
	}
}

// passes waits until a piece may go on; false: its connection has ended.
func (l *link) passes(c *linkConn, due time.Time, direction int) bool {
	if wait := time.Until(due); wait > 0 {
		select {
		case <-time.After(wait):
		case <-c.ctx.Done():
			return false
		}
	}
	for {
		l.mu.Lock()
		held := l.held[direction]
		l.mu.Unlock()
		if held == nil {
			return true
		}
		select {
		case <-held:
		case <-c.ctx.Done():
			return false
		}
	}
}
