package proxy

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
)

// connectionKey finds a connection's count of requests in its context.
type connectionKey struct{}

// CountRequests is an http.Server's ConnContext: without it
// Options.MaxPerConnection bounds nothing.
func CountRequests(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, new(atomic.Int64))
}

// lastOfConnection reports whether this request is the last one that its
// connection may bring.
func (p *Proxy) lastOfConnection(r *http.Request) bool {
	if p.o.MaxPerConnection <= 0 {
		return false
	}
	n, ok := r.Context().Value(connectionKey{}).(*atomic.Int64)
	return ok && n.Add(1) >= p.o.MaxPerConnection
}

// enter counts a request, sent is as net/http gave it, among those that are
// served at once and those of its connection, until leave.
func (p *Proxy) enter(x *exchange, sent *http.Request) {
	x.crowded = p.running.Add(1) > p.o.MaxRequests && p.o.MaxRequests > 0
	x.w.last = x.w.last || p.lastOfConnection(sent)
}

func (p *Proxy) leave() { p.running.Add(-1) }
