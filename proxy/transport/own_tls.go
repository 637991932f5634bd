package transport

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// records counts where the records of TLS end (RFC 8446, section 5.1) in what is
// read. A connection that is used again must not hold the beginning of one: it
// would be the beginning of the next request's answer.
type records struct {
	net.Conn
	head [5]byte
	have int // bytes of head
	left int // of the record
}

func (r *records) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	for p = p[:n]; len(p) > 0; {
		if r.left > 0 {
			skip := min(r.left, len(p))
			r.left -= skip
			p = p[skip:]
			continue
		}
		took := copy(r.head[r.have:], p)
		r.have += took
		p = p[took:]
		if r.have == len(r.head) {
			r.have, r.left = 0, int(r.head[3])<<8|int(r.head[4])
		}
	}
	return n, err
}

// whole: what was read ends where a record does.
func (r *records) whole() bool { return r.have == 0 && r.left == 0 }

// handOver has net/http take connections over which the app chose HTTP/2, before
// it dials.
func (o *own) handOver(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		for i := range o.addresses {
			if at := &o.addresses[i]; at.endpoint == address {
				if c := at.handed.take(); c != nil {
					return c, nil
				}
			}
		}
		return dial(ctx, network, address)
	}
}

// askedElsewhere: net/http sent a request. handed: there was a connection for it
// to take.
func (o *own) askedElsewhere(address int, handed bool, res *http.Response) {
	at := &o.addresses[address]
	if handed {
		at.handed.drop()
	}
	if res != nil && res.ProtoMajor == 1 {
		at.h2.Store(false) // the app changed its mind
	}
}

// handedConns are connections over which the app chose HTTP/2, for net/http to
// take. The zero value is ready.
type handedConns struct {
	mu    sync.Mutex
	conns []*tls.Conn
}

func (h *handedConns) give(c *tls.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns = append(h.conns, c)
}

func (h *handedConns) take() *tls.Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.conns) - 1
	if n < 0 {
		return nil
	}
	c := h.conns[n]
	h.conns[n] = nil
	h.conns = h.conns[:n]
	return c
}

// drop closes one that nobody took: net/http had another.
func (h *handedConns) drop() {
	if c := h.take(); c != nil {
		_ = c.Close()
	}
}
