package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"time"
)

// StrictFraming gives a listener whose connections carry no HTTP/1 request
// that frames itself in two ways: Content-Length beside Transfer-Encoding, one
// of them twice, even with equal values, or Transfer-Encoding in HTTP/1.0.
// net/http chooses between them before any handler sees the request; whatever
// stands in front of the gateway may have chosen otherwise, and then the two
// disagree on where the next request begins (RFC 9112, sections 6.1 and 11.2).
// net/http answers 400 to such a request and closes the connection.
//
// HTTP/2 without TLS passes untouched, if the connection begins with it. A
// connection with TLS must have completed its handshake before Accept gives
// it, and must not have negotiated HTTP/2, since net/http speaks that on a
// *tls.Conn alone; such a connection is not wrapped.
//
// Where the server's ConnContext is CountRequests, a Proxy that serves requests of
// such a connection looks out itself for callers who leave, by requests that take
// their time; net/http need not do it by all.
//
// refused, where it is set, is told of each connection that brought such a
// request, or one whose framing is broken otherwise; it can be called by several
// goroutines at once.
func StrictFraming(l net.Listener, refused func()) net.Listener { return strictListener{l, refused} }

type strictListener struct {
	net.Listener
	refused func()
}

func (l strictListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return strict(conn, l.refused), nil
}

// strict is what StrictFraming makes of each connection. One goroutine at
// a time may read, as net/http does; the rest is as concurrent as conn is.
func strict(conn net.Conn, refused func()) net.Conn {
	secure, ok := conn.(connectionStater)
	if !ok {
		c := &strictConn{Conn: conn, refused: refused}
		c.init()
		return c
	}
	if secure.ConnectionState().NegotiatedProtocol == "h2" {
		return conn
	}
	c := &strictTLSConn{strictConn: strictConn{Conn: conn, refused: refused}, connectionStater: secure}
	c.framing.preface = notHTTP2
	c.init()
	// After a write that failed for its deadline TLS writes nothing more.
	c.writing.exact = true
	return c
}

// connectionStater is how net/http finds out that a connection which is no
// *tls.Conn has TLS.
type connectionStater interface {
	ConnectionState() tls.ConnectionState
}

type strictTLSConn struct {
	strictConn
	connectionStater
}

// What a strictConn's next bytes are.
type strictMode uint8

const (
	strictHTTP strictMode = iota
	// strictBroken: nobody reads any further in what came.
	strictBroken
	// strictUpgrade: the last request asked to leave HTTP. What follows it is
	// for whatever takes the connection over, and never another request.
	strictUpgrade
	// strictOpen: it is not HTTP/1 (any more).
	strictOpen
)

type strictConn struct {
	net.Conn
	framing framer
	mode    strictMode
	spent   bool   // the one byte that a mode has to give is given
	early   []byte // what came behind a request that asked to leave HTTP
	refused func() // nil: nobody is told

	reading, writing deadline
	writes           sync.Mutex // a write can take several of Conn's
	out              lookout
}

func (c *strictConn) init() {
	c.reading.set, c.writing.set = c.Conn.SetReadDeadline, c.Conn.SetWriteDeadline
	c.out.ended.L = &c.out.mu
}

var errFraming = errors.New("the request's framing is ambiguous or broken")

// Read passes on what it has followed. It changes one byte, and only of what
// it has no single reading for: there it puts a NUL, which is good nowhere in
// a request's frame, so that net/http itself refuses the request.
func (c *strictConn) Read(p []byte) (int, error) {
	switch c.mode {
	case strictOpen:
		if len(c.early) > 0 {
			n := copy(p, c.early)
			c.early = c.early[n:]
			return n, nil
		}
		return c.read(p)
	case strictBroken:
		return c.readBroken(p)
	case strictUpgrade:
		return c.readUpgrade(p)
	}
	if len(p) == 1 && c.framing.between() && c.out.readsAhead() {
		return 0, nil
	}
	n, err := c.read(p)
	good, next := c.framing.follow(p[:n])
	switch next {
	case strictBroken:
		c.mode = next
		if c.refused != nil {
			c.refused()
		}
		if good < n {
			p[good] = 0
			good++
		}
		return good, nil
	case strictUpgrade:
		c.mode = next
		c.early = slices.Clone(p[good:n])
		return good, err
	}
	c.mode = next
	return n, err
}

// readBroken ends the line that was broken, so that nobody waits for its end,
// and then fails. The line's end also serves the byte that net/http reads
// ahead while a handler runs: an error there would end the request before the
// broken one.
func (c *strictConn) readBroken(p []byte) (int, error) {
	if c.spent || len(p) == 0 {
		return 0, errFraming
	}
	c.spent = true
	p[0] = '\n'
	return 1, nil
}

// readUpgrade gives the byte that net/http reads ahead while the handler runs.
// Whoever reads more without having taken the connection over is looking for
// another request.
func (c *strictConn) readUpgrade(p []byte) (n int, err error) {
	switch {
	case c.spent:
		return 0, errFraming
	case len(p) == 0:
		return 0, nil
	case len(c.early) > 0:
		n = copy(p[:1], c.early)
		c.early = c.early[n:]
	default:
		n, err = c.read(p[:1])
	}
	c.spent = n > 0
	return n, err
}

// tunnel ends the watch over a connection that was taken over.
func (c *strictConn) tunnel() {
	c.endLookOut()
	c.mode = strictOpen
}

// CloseWrite ends one direction of the connection; errors.ErrUnsupported where
// it cannot be ended alone.
func (c *strictConn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported // net/http calls it before a last answer is read: closing would lose that
}

// itself finds it also in a strictTLSConn.
func (c *strictConn) itself() *strictConn { return c }

func (c *strictConn) read(p []byte) (n int, err error) {
	if n := c.take(p); n > 0 {
		return n, nil
	}
	if err := c.reading.begin(); err != nil {
		return 0, err
	}
	for again := true; again; {
		n, err = c.Conn.Read(p)
		if again = c.reading.leave(err); again && n > 0 {
			again, err = false, nil
			c.reading.leave(nil)
		}
	}
	return n, err
}

// Write writes all of p, or fails.
func (c *strictConn) Write(p []byte) (n int, err error) {
	c.writes.Lock()
	defer c.writes.Unlock()
	if err := c.writing.begin(); err != nil {
		return 0, err
	}
	for again := true; again; {
		var wrote int
		wrote, err = c.Conn.Write(p[n:])
		n += wrote
		again = c.writing.leave(err)
	}
	return n, err
}

// SetReadDeadline, SetWriteDeadline and SetDeadline do what a net.Conn's do, but
// tell of a connection that is closed only by the next Read or Write.
func (c *strictConn) SetReadDeadline(t time.Time) error { return c.reading.wish(t) }

func (c *strictConn) SetWriteDeadline(t time.Time) error { return c.writing.wish(t) }

func (c *strictConn) SetDeadline(t time.Time) error {
	return errors.Join(c.reading.wish(t), c.writing.wish(t))
}

// pace gives each write this long to be taken, from its begin, until the write
// deadline is set: net/http does that when the answer is written.
func (c *strictConn) pace(each time.Duration) { c.writing.pace(each) }
