package transport

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// keptHead is how much room for the head of a request stays with a connection.
const keptHead = 8 << 10

var errAnswerHeader = errors.New("the header of the upstream's answer is too large")

// An ownConn is a connection that speaks HTTP/1.1. One request at a time uses
// it, and whoever has it may read; its body's sender writes.
type ownConn struct {
	conn    net.Conn // TLS, where there is any
	records *records // nil: no TLS
	state   *tls.ConnectionState
	in      *bufio.Reader // of the connection itself
	odd     bool          // in reads another reader that holds bytes, too
	head    []byte        // of the request, made here
	left    int64         // bytes that may be read
	eof     bool          // seen
	reused  bool          // it has answered a request
	// idleSince is a sweep's number.
	idleSince uint

	socket syscall.RawConn // nil: it cannot be looked at
	look   func(fd uintptr)
	silent bool // by the last look
	peeked [1]byte
	say    func(fd uintptr) bool
	said   said

	abort func() // ends whoever reads or writes; once made, so that no request makes it
	once  sync.Once
}

// newOwnConn: conn speaks over socket, or is it.
func newOwnConn(conn, socket net.Conn) *ownConn {
	c := &ownConn{conn: conn, left: math.MaxInt64}
	c.in = bufio.NewReader(c)
	c.abort = c.interrupt
	if t, ok := conn.(*tls.Conn); ok {
		c.records, _ = t.NetConn().(*records)
		s := t.ConnectionState()
		c.state = &s
	}
	if s, ok := socket.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			c.socket, c.look, c.say = raw, c.peek, c.speak
		}
	}
	return c
}

// Read is where the answer comes from: bounded, so that a header has an end.
func (c *ownConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errAnswerHeader
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.conn.Read(p)
	if err == io.EOF {
		c.eof = true
	}
	c.left -= int64(n)
	return n, err
}

// past is a deadline that is over in any case.
var past = time.Unix(1, 0)

func (c *ownConn) interrupt() { _ = c.conn.SetDeadline(past) }

// clean reports whether nothing came behind the last answer. What is held back
// by TLS counts: it could be an answer that nobody asked for, which the next
// caller would get.
func (c *ownConn) clean() bool {
	if c.eof || c.odd || c.in.Buffered() > 0 || c.socket == nil {
		return false
	}
	if c.state == nil {
		return true
	}
	if c.records == nil || c.conn.SetReadDeadline(past) != nil {
		return false
	}
	n, err := c.conn.Read(c.peeked[:]) // of what TLS holds: the connection itself is not read
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && c.records.whole() && c.conn.SetReadDeadline(time.Time{}) == nil
}

// quiet reports whether an idle connection lives, and nothing came over it: a
// byte that came before a request is no answer to it.
func (c *ownConn) quiet() bool {
	c.silent = false
	return c.socket != nil && c.socket.Control(c.look) == nil && c.silent
}

// close ends it in order. What holds a request is cut, and not closed.
func (c *ownConn) close() { c.once.Do(func() { _ = c.conn.Close() }) }

// cut ends it at once: TLS would first write, and wait for whoever writes.
func (c *ownConn) cut() {
	c.once.Do(func() {
		if t, ok := c.conn.(*tls.Conn); ok {
			_ = t.NetConn().Close()
			return
		}
		_ = c.conn.Close()
	})
}
