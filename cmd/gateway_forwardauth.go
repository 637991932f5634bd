package cmd

import (
	"context"
	"log"
	"net"
	"net/http"

	"sidegate/proxy"
)

// A forwardAuth is the listener at which another proxy asks; the zero one is
// not there.
type forwardAuth struct {
	server *http.Server
	at     net.Listener
	cutOff context.CancelCauseFunc
}

// listenForwardAuth takes the address at which another proxy asks, if the config
// has one.
func (g *gateway) listenForwardAuth() (err error) {
	if c := g.s.config.ForwardAuth; c.Address != "" {
		if g.asked.at, err = g.listen("forward_auth.address", c.Address); err == nil {
			g.asked.at = g.connections.counting(g.asked.at, "forward_auth")
			g.asked.at = proxy.StrictFraming(g.asked.at, g.connections.framing("forward_auth"))
		}
	}
	return err
}

// serveForwardAuth answers the other proxy, under the bounds of the public
// listener.
func (g *gateway) serveForwardAuth(background context.Context) {
	if g.asked.at == nil {
		return
	}
	c := g.s.config.Listen
	var base context.Context
	base, g.asked.cutOff = context.WithCancelCause(background)
	answer := g.proxy.ForwardAuth(g.s.config.ForwardAuth.Dialect)
	g.asked.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			g.handlers.Add(1)
			defer g.handlers.Done()
			answer.ServeHTTP(w, r)
		}),
		BaseContext:                  func(net.Listener) context.Context { return base },
		ConnContext:                  proxy.CountRequests,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            c.HeaderTimeout,
		IdleTimeout:                  c.IdleTimeout,
		MaxHeaderBytes:               c.MaxHeaderBytes,
		ErrorLog:                     log.New(serverLog{g.log}, "", 0),
	}
	go g.serveOn(g.asked.server, g.asked.at)
}

// drainForwardAuth ends it with the public listener: no new questions, and those
// that run are answered until ctx ends. The function waits for that, and cuts
// what is left.
func (g *gateway) drainForwardAuth(ctx context.Context) (wait func()) {
	if g.asked.server == nil {
		return func() {}
	}
	drained := make(chan error, 1)
	go func() { drained <- g.asked.server.Shutdown(ctx) }()
	return func() {
		if err := <-drained; err != nil {
			g.log.Warn().Msg("questions of another proxy were still open at the end of shutdown_grace; they are cut")
		}
		g.asked.cutOff(proxy.ErrStopping)
		_ = g.asked.server.Close()
	}
}
