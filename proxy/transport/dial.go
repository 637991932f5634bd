package transport

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"sidegate/proxy/splice"
)

const (
	dialTimeout      = 5 * time.Second
	handshakeTimeout = 5 * time.Second
	// maxIdle connections are kept of each address: with net/http's own two,
	// most would be closed and dialled anew all the time under load.
	maxIdle     = 256
	idleTimeout = 90 * time.Second
	// maxAnswerHeader bounds the header of an answer, in bytes.
	maxAnswerHeader = 256 << 10
	// pingAfter is how long an HTTP/2 connection with requests may say nothing
	// before it is asked whether it lives. Servers of gRPC take no more than one
	// ping in five minutes of a silent stream, and else close the connection
	// (gRPC proposal A8, permit_keepalive_time; "too_many_pings").
	pingAfter   = 5*time.Minute + 10*time.Second
	pingTimeout = 15 * time.Second
	// answerWindow is how much of an answer over HTTP/2 may wait for a caller who
	// takes his time; net/http's own is 4 MiB for each.
	answerWindow = 256 << 10
)

// keepAlive has the kernel notice peers that are gone, also on idle connections,
// within a minute.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

// A connectError says that there was no connection, and so that nothing of the
// request was sent.
type connectError struct{ err error }

func (e *connectError) Error() string { return "connect: " + e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// A dialer connects to the addresses of one upstream.
type dialer struct {
	connect func(ctx context.Context, network, address string) (net.Conn, error)
	socket  string
	tls     *tls.Config
}

func newDialer(o Options) dialer {
	nd := &net.Dialer{Timeout: dialTimeout, KeepAliveConfig: keepAlive}
	d := dialer{connect: nd.DialContext, socket: o.Socket, tls: o.TLS}
	if o.connect != nil {
		d.connect = o.connect
	}
	return d
}

// http1 is the only protocol of connections that can be upgraded.
func http1() *http.Protocols {
	var p http.Protocols
	p.SetHTTP1(true)
	return &p
}

func protocols(o Options) *http.Protocols {
	p := http1()
	p.SetHTTP2(o.TLS != nil)
	if o.H2C {
		p.SetHTTP1(false) // or net/http would prefer it
		p.SetUnencryptedHTTP2(true)
	}
	return p
}

// transport connects by d. The apps are ours: no proxy of the environment, and
// no decompression.
func (d dialer) transport(p *http.Protocols) *http.Transport {
	t := &http.Transport{
		DialContext:            d.dial,
		Protocols:              p,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, MaxReceiveBufferPerStream: answerWindow},
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxAnswerHeader,
		DisableCompression:     true,
	}
	if d.tls != nil {
		config := d.config(p.HTTP2())
		t.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			return d.dialTLS(ctx, network, address, config)
		}
	}
	return t
}

func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if d.socket != "" {
		network, address = "unix", d.socket
	}
	conn, err := d.connect(ctx, network, address)
	if err != nil {
		return nil, &connectError{err}
	}
	if d.tls == nil {
		conn = splice.Conn(conn) // for large answers
	}
	return conn, nil
}

// config is that of TLS, with what is offered to be spoken over it.
func (d dialer) config(h2 bool) *tls.Config {
	config := d.tls.Clone()
	config.NextProtos = []string{"http/1.1"}
	if h2 {
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	return config
}

// dialTLS also shakes hands, so that what fails of it is known as a connection
// that never was.
func (d dialer) dialTLS(ctx context.Context, network, address string, config *tls.Config) (net.Conn, error) {
	conn, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return d.shake(ctx, conn, address, config)
}

// shake makes TLS of a connection, which it closes where it cannot.
func (d dialer) shake(ctx context.Context, conn net.Conn, address string, config *tls.Config) (*tls.Conn, error) {
	var err error
	config = config.Clone()
	if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
		conn.Close()
		return nil, &connectError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	c := tls.Client(conn, config)
	if err := c.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, &connectError{err}
	}
	return c, nil
}
