package redis

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	client "github.com/redis/go-redis/v9"
)

// refuseOthers refuses, when a connection was made, what is no Redis that can
// keep budgets. What does not say so shows it with the first question.
func refuseOthers(ctx context.Context, c *client.Conn) error {
	hello, err := c.Hello(ctx, 2, "", "", "").Result()
	if err != nil {
		if failed(err).(*Failure).Kind == Answer {
			return nil // it knows no HELLO, or does not let us
		}
		return failed(err)
	}
	switch {
	case hello["mode"] == "cluster":
		return &Failure{Kind: Cluster}
	case hello["role"] == "replica" || hello["role"] == "slave":
		return &Failure{Kind: ReadOnly}
	}
	return nil
}

// keepAlive notices a Redis whose machine is gone.
const keepAlive = 30 * time.Second

// dialer makes connections that are bounded; tls is nil where there is none.
func dialer(encryption *tls.Config) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		d := net.Dialer{KeepAlive: keepAlive}
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if encryption == nil {
			return &plainConn{boundedConn: boundedConn{Conn: conn}}, nil
		}
		over := tls.Client(conn, encryption)
		if err := over.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return &boundedConn{Conn: over}, nil
	}
}

// A boundedConn ends where Redis announces more than an answer of it can be: the
// client takes the memory for what is announced at once, before it is there. And
// it ends where more comes than an answer is: the client goes one call deeper for
// each list in a list, and a stack that is too deep ends the program.
type boundedConn struct {
	net.Conn
	bounds bounds
	came   atomic.Int64 // since something was asked
}

// maxAnswer is of all that comes for a question. HELLO's is the longest, with
// some hundred bytes.
const maxAnswer = 64 << 10

func (c *boundedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.came.Add(int64(n)) > maxAnswer || !c.bounds.scan(p[:n]) {
		return 0, errAnswer
	}
	return n, err
}

func (c *boundedConn) Write(p []byte) (int, error) {
	c.came.Store(0)
	return c.Conn.Write(p)
}

// A plainConn is one without TLS, of which the client sees whether it was closed
// while nobody used it.
type plainConn struct{ boundedConn }

func (c *plainConn) SyscallConn() (syscall.RawConn, error) {
	if raw, ok := c.Conn.(syscall.Conn); ok {
		return raw.SyscallConn()
	}
	return nil, syscall.ENOTSUP // a connection of TCP always is one
}

const (
	maxLine     = 4 << 10 // of an error, a status or a number
	maxString   = 4 << 10
	maxElements = 64 // of a list: HELLO's has 14, with a module's description more
)

// bounds follow what comes from Redis (RESP, redis.io/docs/reference/protocol-spec)
// as far as is needed to tell what each part announces.
type bounds struct {
	line []byte // so far, of one that announces a length: its type, and digits
	size int    // of the line so far
	skip int    // bytes of a string, with its end, that are still to come
}

// scan reports whether all of it is within the bounds.
func (b *bounds) scan(p []byte) bool {
	for len(p) > 0 {
		if b.skip > 0 {
			n := min(b.skip, len(p))
			b.skip, p = b.skip-n, p[n:]
			continue
		}
		c := p[0]
		p = p[1:]
		if c != '\n' {
			if b.size++; b.size > maxLine {
				return false
			}
			if len(b.line) < 8 && c != '\r' {
				b.line = append(b.line, c)
			}
			continue
		}
		if !b.announced() {
			return false
		}
		b.line, b.size = b.line[:0], 0
	}
	return true
}

// announced reads a whole line. A length of 7 digits is beyond every bound.
func (b *bounds) announced() bool {
	if len(b.line) == 0 {
		return true
	}
	kind, n := b.line[0], 0
	switch kind {
	case '$', '=', '!', '*', '%', '~', '>', '|':
	default:
		return true
	}
	for i, c := range b.line[1:] {
		switch {
		case c >= '0' && c <= '9':
			n = 10*n + int(c-'0')
		case i == 0 && c == '-':
			return string(b.line[1:]) == "-1"
		default:
			return false
		}
	}
	switch kind {
	case '$', '=', '!':
		if len(b.line) == 1 || n > maxString {
			return false
		}
		b.skip = n + 2
		return true
	}
	return len(b.line) > 1 && n <= maxElements
}
