package transport

import (
	"context"
	"net"
	"strings"
	"sync"
)

// Reach connects to each address as a Transport does, shakes hands where there is
// TLS, and sends nothing. It gives what failed, by the address.
func Reach(ctx context.Context, o Options) map[string]error {
	d := newDialer(o)
	addresses := o.Addresses
	if o.Socket != "" {
		addresses = []string{o.Socket}
	}
	failed := map[string]error{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, at := range addresses {
		all.Go(func() {
			if err := d.reach(ctx, at); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[at] = err
			}
		})
	}
	all.Wait()
	return failed
}

func (d dialer) reach(ctx context.Context, at string) error {
	port := "80"
	if d.tls != nil {
		port = "443"
	}
	if _, _, err := net.SplitHostPort(at); err != nil {
		at = net.JoinHostPort(strings.Trim(at, "[]"), port)
	}
	var conn net.Conn
	var err error
	if d.tls != nil {
		conn, err = d.dialTLS(ctx, "tcp", at, d.config(true))
	} else {
		conn, err = d.dial(ctx, "tcp", at)
	}
	if err != nil {
		return err
	}
	return conn.Close()
}
