package cmd

import (
	"errors"
	"net"
	"os"
)

// A resetListener's connections are reset where a caller took nothing until
// the deadline of a write. Closed as others are, the system would go on
// offering him what he was sent, and hold megabytes of it for each of them,
// for minutes.
type resetListener struct{ net.Listener }

func (l resetListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if t, ok := conn.(*net.TCPConn); ok {
		return &resetConn{t}, err
	}
	return conn, err
}

type resetConn struct{ *net.TCPConn }

// Write notices what net/http does not tell: it closes such a connection by
// itself.
func (c *resetConn) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = c.SetLinger(0)
	}
	return n, err
}
