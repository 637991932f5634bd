package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// An own speaks HTTP/1.1 with the addresses of one upstream, each request on the
// goroutine of whoever asks: net/http's Transport hands every request to two
// goroutines of its connection, and back, which costs more than the request. It
// is safe for concurrent use.
type own struct {
	d         dialer
	addresses []ownAddress
	any       *tls.Config // offers HTTP/2, too; nil: there is no TLS
	http1     *tls.Config // for what leaves HTTP
}

// An ownAddress is one address, and the connections to it.
type ownAddress struct {
	endpoint string // host and port
	host     string // as the header Host has it
	idle     idleConns
	h2       atomic.Bool // it chose HTTP/2, and is asked by net/http
	handed   handedConns
}

// errHTTP2: the app chose HTTP/2. The connection waits for net/http; nothing of
// the request was sent, and nothing of its body read.
var errHTTP2 = errors.New("the app speaks HTTP/2")

func newOwn(d dialer, addresses []string) (*own, error) {
	o := &own{d: d, addresses: make([]ownAddress, len(addresses))}
	usual := "80"
	if d.tls != nil {
		usual = "443"
		o.any, o.http1 = d.config(true), d.config(false)
	}
	for i, address := range addresses {
		at := &o.addresses[i]
		ascii, err := httpguts.PunycodeHostPort(address)
		if err != nil {
			return nil, err
		}
		u := url.URL{Host: ascii}
		port := u.Port()
		if port == "" {
			port = usual
		}
		at.endpoint = net.JoinHostPort(u.Hostname(), port)
		at.host = withoutZone(ascii)
	}
	return o, nil
}

// takes: what it does not know, net/http does. None of it is frequent: trailers
// of a request, tunnels by CONNECT, and a body of a method that has none usually,
// and of which nobody said that it is there.
func (o *own) takes(req *http.Request, body *requestBody, address int, upgrade bool) bool {
	switch {
	case len(req.Trailer) > 0, req.Method == http.MethodConnect:
		return false
	case body != nil && unsaidLength(req) && !isChunked(req) && seldomHasBody(req.Method):
		return false
	}
	return upgrade || !o.addresses[address].h2.Load()
}

func unsaidLength(req *http.Request) bool { return req.ContentLength <= 0 }

func isChunked(req *http.Request) bool {
	return len(req.TransferEncoding) > 0 && req.TransferEncoding[0] == "chunked"
}

func seldomHasBody(method string) bool {
	switch method {
	case "", "GET", "HEAD", "DELETE", "OPTIONS", "PROPFIND", "SEARCH":
		return true
	}
	return false
}

// ask sends the request to an address, and gives the beginning of the answer.
// What an old connection broke off under is sent again on a new one where
// nothing of it was sent, or where it may be processed twice.
func (o *own) ask(req *http.Request, body *requestBody, address int, upgrade bool) (*http.Response, error) {
	ctx := req.Context()
	at := &o.addresses[address]
	if ctx.Err() != nil {
		closeBody(body)
		return nil, context.Cause(ctx)
	}
	if err := o.check(req); err != nil {
		closeBody(body)
		return nil, err
	}
	for fresh := false; ; {
		var c *ownConn
		if !fresh {
			c = at.idle.take(o.any == nil && body == nil)
		}
		if c == nil {
			var err error
			if c, err = o.connect(ctx, at, upgrade); err != nil {
				if err != errHTTP2 {
					closeBody(body)
				}
				return nil, err
			}
		}
		res, err, again := c.ask(ctx, req, body, at)
		if err == nil || !again {
			return res, err
		}
		fresh = err != errUnquiet
	}
}

func closeBody(body *requestBody) {
	if body != nil {
		_ = body.Close() // nothing is lost with it
	}
}

// connect makes a connection that speaks HTTP/1.1.
func (o *own) connect(ctx context.Context, at *ownAddress, upgrade bool) (*ownConn, error) {
	conn, err := o.d.dial(ctx, "tcp", at.endpoint)
	if err == nil && o.any != nil {
		config := o.any
		if upgrade {
			config = o.http1
		}
		var c *tls.Conn
		if c, err = o.d.shake(ctx, &records{Conn: conn}, at.endpoint, config); err == nil {
			if c.ConnectionState().NegotiatedProtocol == "h2" {
				at.handed.give(c)
				at.h2.Store(true)
				return nil, errHTTP2
			}
			return newOwnConn(c, conn), nil
		}
	}
	if err != nil {
		if ended(ctx) {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return newOwnConn(conn, conn), nil
}

// ended reports whether whoever asks gave up. A dialer may see a deadline a moment
// before its context says so, and that would be the app's failure.
func ended(ctx context.Context) bool {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		<-ctx.Done()
	}
	return ctx.Err() != nil
}

func (o *own) closeIdle() {
	for i := range o.addresses {
		o.addresses[i].idle.closeAll()
	}
}

// withoutZone: the zone of an IPv6 address means nothing elsewhere (RFC 6874,
// section 1).
func withoutZone(host string) string {
	if !strings.HasPrefix(host, "[") {
		return host
	}
	end := strings.LastIndexByte(host, ']')
	zone := strings.IndexByte(host, '%')
	if end < 0 || zone < 0 || zone > end {
		return host
	}
	return host[:zone] + host[end:]
}

const (
	// continueWait is how long an app that shall say whether it wants a body may
	// think about it (RFC 9110, section 10.1.1: no sender waits for ever).
	continueWait = time.Second
	// maxInformational bounds the answers before the answer: one that says every
	// 20 seconds that it is at work may do so for some hours.
	maxInformational = 1000
)
