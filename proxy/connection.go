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
