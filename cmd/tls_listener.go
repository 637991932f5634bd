package cmd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// A tlsListener gives connections whose handshake is over. net/http would do it
// itself, but then nothing could stand between TLS and HTTP/1.1.
// Handshakes run beside each other: one that takes its time delays nobody.
type tlsListener struct {
	net.Listener
	config *tls.Config
	within time.Duration
	failed func(from net.Addr, err error)

	ready  chan accepted
	closed chan struct{}
	once   sync.Once
}

type accepted struct {
	conn net.Conn
	err  error
}

// newTLSListener begins to accept at once. failed is told of handshakes that
// did not come to an end, within the time given; it can be called by several
// goroutines at once.
func newTLSListener(l net.Listener, config *tls.Config, within time.Duration, failed func(from net.Addr, err error)) net.Listener {
	t := &tlsListener{Listener: l, config: config, within: within, failed: failed, ready: make(chan accepted), closed: make(chan struct{})}
	go t.run()
	return t
}

// run ends with an error that is no passing one, such as that of Close.
func (l *tlsListener) run() {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			// Whoever accepts decides how long to wait before the next try.
			if !l.give(accepted{err: err}) || !isTemporary(err) {
				return
			}
			continue
		}
		go l.handshake(conn)
	}
}

func isTemporary(err error) bool {
	// net/http asks the same before it goes on accepting; the method is
	// deprecated for errors in general, and well defined for those of Accept.
	t, ok := err.(interface{ Temporary() bool })
	return ok && t.Temporary()
}

func (l *tlsListener) handshake(raw net.Conn) {
	defer func() { // as net/http does: a panic ends one connection, and not the gateway
		if broken := recover(); broken != nil {
			_ = raw.Close()
			l.failed(raw.RemoteAddr(), fmt.Errorf("panic: %v\n%s", broken, debug.Stack()))
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), l.within)
	defer cancel()
	conn := tls.Server(raw, l.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		l.failed(raw.RemoteAddr(), err)
		var other tls.RecordHeaderError
		if errors.As(err, &other) && other.Conn != nil && isHTTP(other.RecordHeader[:]) {
			_, _ = io.WriteString(other.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nTLS is spoken here: use https.\n")
		}
		_ = raw.Close()
		return
	}
	if !l.give(accepted{conn: conn}) {
		_ = raw.Close()
	}
}

// isHTTP reports whether a connection began with a request instead of TLS.
func isHTTP(begin []byte) bool {
	for _, method := range []string{"GET /", "HEAD ", "POST ", "PUT /", "PATCH", "DELET", "OPTIO"} {
		if bytes.HasPrefix(begin, []byte(method)) {
			return true
		}
	}
	return false
}

// give hands over what was accepted; false: the listener is closed.
func (l *tlsListener) give(a accepted) bool {
	select {
	case l.ready <- a:
		return true
	case <-l.closed:
		return false
	}
}

func (l *tlsListener) Accept() (net.Conn, error) {
	select {
	case a := <-l.ready:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *tlsListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
