package proxy

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
)

// connectionKey finds a connection in the context of its requests.
type connectionKey struct{}

// A connection is what a Proxy knows of one.
type connection struct {
	requests atomic.Int64 // that it has brought
	strict   *strictConn  // nil: it is none of StrictFraming's
}

// CountRequests is an http.Server's ConnContext: without it
// Options.MaxPerConnection bounds nothing, and what StrictFraming's connections
// spare their requests is not spared.
func CountRequests(ctx context.Context, conn net.Conn) context.Context {
	c := &connection{}
	if own, ok := conn.(interface{ itself() *strictConn }); ok {
		c.strict = own.itself()
	}
	return context.WithValue(ctx, connectionKey{}, c)
}

// connectionOf is nil where the server has no CountRequests.
func connectionOf(r *http.Request) *connection {
	c, _ := r.Context().Value(connectionKey{}).(*connection)
	return c
}

// lastOfConnection reports whether this request is the last one that its
// connection may bring.
func (p *Proxy) lastOfConnection(r *http.Request) bool {
	if p.o.MaxPerConnection <= 0 {
		return false
	}
	c := connectionOf(r)
	return c != nil && c.requests.Add(1) >= p.o.MaxPerConnection
}

// enter counts a request, sent is as net/http gave it, among those that are
// served at once and those of its connection, until leave.
func (p *Proxy) enter(x *exchange, sent *http.Request) {
	if x.late.conn != nil {
		x.late.conn.spare()
	}
	p.laggards.add(&x.late, x.id[len(x.id)-1])
	x.crowded = p.running.Add(1) > p.o.MaxRequests && p.o.MaxRequests > 0
	x.w.last = x.w.last || p.lastOfConnection(sent)
}

func (p *Proxy) leave() { p.running.Add(-1) }
