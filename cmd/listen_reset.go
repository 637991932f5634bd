package cmd

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// A resetListener's connections are reset where a caller took nothing until
// the deadline of a write. Closed as others are, the system would go on
// offering him what he was sent, and hold megabytes of it for each of them,
// for minutes.
type resetListener struct {
	net.Listener
	// lazy: whoever writes may have set the deadline too early, and then goes on,
	// as StrictFraming does. TLS never does: all that it writes then is its goodbye.
	lazy bool
}

func (l resetListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if t, ok := conn.(*net.TCPConn); ok {
		return &resetConn{TCPConn: t, lazy: l.lazy}, err
	}
	return conn, err
}

// One goroutine at a time may write to it, as StrictFraming and TLS do.
type resetConn struct {
	*net.TCPConn
	lazy   bool
	resets bool // closing it does
}

// Write notices what net/http does not tell: it closes such a connection by
// itself.
func (c *resetConn) Write(p []byte) (int, error) {
	c.writes()
	n, err := c.TCPConn.Write(p)
	c.wrote(err)
	return n, err
}

// SyscallConn is for large answers, which pass within the kernel. It is written
// to by the same rules.
func (c *resetConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.TCPConn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return resetRaw{raw, c}, nil
}

type resetRaw struct {
	syscall.RawConn
	conn *resetConn
}

func (r resetRaw) Write(f func(fd uintptr) (done bool)) error {
	r.conn.writes()
	err := r.RawConn.Write(f)
	r.conn.wrote(err)
	return err
}

// writes takes it back where somebody goes on: who takes his time gets all that he
// is sent.
func (c *resetConn) writes() {
	if c.resets && c.lazy {
		c.resets = false
		_ = c.SetLinger(-1)
	}
}

func (c *resetConn) wrote(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.resets = true
		_ = c.SetLinger(0)
	}
}
