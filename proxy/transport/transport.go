// Package transport asks the apps behind the gateway: an http.RoundTripper over
// the addresses of one upstream. It chooses an address, leaves one alone that
// keeps failing, and asks another where nothing of a request was sent. It never
// sends a request twice that could have been processed, but for those whose
// method is safe.
package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// MaxAddresses is how many one upstream can have: a request keeps those it has tried in a word.
const MaxAddresses = 64

// Options are what a Transport is made of. Either Addresses or Socket is
// needed, and Metrics are.
type Options struct {
	Name string // of the upstream, for metrics
	// Addresses are hosts with or without port, as they stand in a URL; the
	// port is the scheme's own where none is written.
	Addresses []string
	// Socket is the path of a unix socket, in the place of Addresses.
	Socket string
	// TLS is how https addresses are recognised; nil: they are asked without.
	// Of NextProtos and ServerName nothing is taken.
	TLS *tls.Config
	// H2C speaks HTTP/2 without TLS (RFC 9113, section 3.3, prior knowledge).
	H2C bool
	// NetHTTP speaks HTTP/1.1 by net/http's Transport, too, which speaks HTTP/2 in
	// any case.
	NetHTTP bool
	// LeastBusy chooses the address with the fewest requests in flight, and not
	// one after the other.
	LeastBusy bool
	Metrics   *Metrics
	Now       func() time.Time // nil: time.Now

	connect func(ctx context.Context, network, address string) (net.Conn, error) // of tests
}

// A Transport asks one upstream. It is safe for concurrent use. The host of a
// request's URL is a placeholder: the chosen address takes its place, as it
// takes that of the Host header where Request.Host is empty.
type Transport struct {
	addresses []string
	h2        bool // connections can be HTTP/2
	h2c       bool
	own       *own // nil: net/http speaks HTTP/1.1, too
	base      *http.Transport
	upgrades  *http.Transport // for requests that leave HTTP; nil: there can be none
	balancer  *balancer       // nil: there is one address, and nothing to choose
	metrics   upstreamMetrics
	now       func() time.Time
}

// errNoUpgrade: RFC 9113, section 8.6, has no Upgrade.
var errNoUpgrade = errors.New("HTTP/2 without TLS has no upgrade to another protocol")

// New makes a Transport. It dials nobody.
func New(o Options) (*Transport, error) {
	addresses := o.Addresses
	if o.Socket != "" {
		addresses = []string{"localhost"}
	}
	switch {
	case len(addresses) == 0 || len(addresses) > MaxAddresses:
		return nil, fmt.Errorf("transport: %d addresses; there must be 1 to %d", len(addresses), MaxAddresses)
	case o.Socket != "" && len(o.Addresses) > 0:
		return nil, errors.New("transport: a socket stands alone")
	case o.H2C && o.TLS != nil:
		return nil, errors.New("transport: h2c is without TLS")
	case o.Metrics == nil:
		return nil, errors.New("transport: metrics are needed")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	t := &Transport{addresses: addresses, h2: o.H2C || o.TLS != nil, h2c: o.H2C, metrics: o.Metrics.of(o.Name), now: o.Now}
	d := newDialer(o)
	t.base = d.transport(protocols(o))
	switch {
	case o.TLS != nil:
		// net/http takes HTTP/2 wherever TLS agreed on it, so what needs
		// HTTP/1.1 has connections of its own, which agree on nothing else.
		t.upgrades = d.transport(http1())
	case !o.H2C:
		t.upgrades = t.base
	}
	if !o.H2C && !o.NetHTTP {
		var err error
		if t.own, err = newOwn(d, addresses); err != nil {
			return nil, fmt.Errorf("transport: %w", err)
		}
		if o.TLS != nil {
			t.base.DialTLSContext = t.own.handOver(t.base.DialTLSContext)
		}
	}
	if len(addresses) > 1 {
		t.balancer = newBalancer(len(addresses), o.LeastBusy, o.Now, t.metrics.ejected)
	}
	return t, nil
}

// CloseIdleConnections closes the connections that nobody uses.
func (t *Transport) CloseIdleConnections() {
	t.base.CloseIdleConnections()
	if t.own != nil {
		t.own.closeIdle()
	}
	if t.upgrades != nil {
		t.upgrades.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper. An error that is none of the caller's
// body or context is the upstream's.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	by := t.base
	if len(req.Header["Upgrade"]) > 0 {
		if by = t.upgrades; by == nil {
			if req.Body != nil {
				_ = req.Body.Close() // nothing is lost with it
			}
			return nil, errNoUpgrade
		}
	}
	if t.balancer == nil {
		return t.try(by, req, wrapBody(req.Body, false), lease{})
	}
	return t.several(by, req)
}

// several asks one address and, where it cannot be connected to, others, each
// once: nothing of the request was sent.
func (t *Transport) several(by *http.Transport, req *http.Request) (*http.Response, error) {
	body := wrapBody(req.Body, true)
	defer body.release()
	for tried := uint64(0); ; {
		l := t.balancer.pick(tried)
		tried |= 1 << l.address
		res, err := t.try(by, req, body, l)
		var unconnected *connectError
		if err == nil || !errors.As(err, &unconnected) || req.Context().Err() != nil ||
			tried == 1<<len(t.addresses)-1 || !body.reopen() {
			return res, err
		}
	}
}

// try asks the address of a lease, and gives the lease back once the answer is
// over.
func (t *Transport) try(by *http.Transport, req *http.Request, body *requestBody, l lease) (*http.Response, error) {
	t.metrics.inFlight.Inc()
	began := t.now()
	res, once, err := t.ask(by, req, body, l.address)
	if err != nil {
		err = once.explain(err)
		kind := t.fault(req, body, err)
		t.settle(l, kind)
		t.over(l, once)
		return nil, err
	}
	t.metrics.duration.Observe(t.now().Sub(began).Seconds())
	t.settle(l, answered)
	res.Request = req
	t.follow(res, l, once)
	return res, nil
}

// ask sends the request by our own means, or by net/http's.
func (t *Transport) ask(by *http.Transport, req *http.Request, body *requestBody, address int) (*http.Response, *onceOnly, error) {
	handed, upgrade := false, len(req.Header["Upgrade"]) > 0
	if t.own != nil && t.own.takes(req, body, address, upgrade) {
		res, err := t.own.ask(req, body, address, upgrade)
		if err != errHTTP2 {
			return res, nil, err
		}
		handed = true
	}
	out := t.outgoing(req, body, t.addresses[address])
	var once *onceOnly
	if t.h2 && sensitive(out) {
		once, out = sendOnce(out, t.h2c)
	}
	res, err := by.RoundTrip(out)
	if t.own != nil {
		t.own.askedElsewhere(address, handed, res)
	}
	return res, once, err
}

// settle says what became of a request's beginning.
func (t *Transport) settle(l lease, o outcome) {
	if c := t.metrics.failures[o]; c != nil {
		c.Inc()
	}
	if t.balancer != nil {
		t.balancer.settle(l, o)
	}
}

// over ends a request, its answer's body included.
func (t *Transport) over(l lease, once *onceOnly) {
	t.metrics.inFlight.Dec()
	once.over()
	if t.balancer != nil {
		t.balancer.release(l)
	}
}
