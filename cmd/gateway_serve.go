package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"sidegate/storage/audit"
)

// servePublic answers callers. Nothing but the proxy does: not even `OPTIONS *`
// is left to net/http.
func (g *gateway) servePublic(background context.Context) {
	c := g.s.config.Listen
	base, cutOff := context.WithCancelCause(background)
	g.cutOff = cutOff
	g.public = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			g.handlers.Add(1)
			defer g.handlers.Done()
			g.proxy.ServeHTTP(w, r)
		}),
		BaseContext:                  func(net.Listener) context.Context { return base },
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            c.HeaderTimeout,
		IdleTimeout:                  c.IdleTimeout,
		MaxHeaderBytes:               c.MaxHeaderBytes,
		ErrorLog:                     log.New(serverLog{g.log}, "", 0),
	}
	go g.serveOn(g.public, g.publicAt)
}

func (g *gateway) serveOn(s *http.Server, at net.Listener) {
	if err := s.Serve(at); !errors.Is(err, http.ErrServerClosed) {
		g.failed <- err
	}
}

// A serverLog takes what net/http says of connections: strangers cause most of
// it, so it is for those who look.
type serverLog struct{ log zerolog.Logger }

func (l serverLog) Write(p []byte) (int, error) {
	l.log.Debug().Msg(strings.TrimSpace(string(p)))
	return len(p), nil
}

// serveAdmin answers probes and the operator.
func (g *gateway) serveAdmin() {
	mux := http.NewServeMux()
	for _, path := range []string{"/health/live", "/healthz", "/ping"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, nil) })
	}
	for _, path := range []string{readyPath, "/readyz"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, g.notReady()) })
	}
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = writeJSON(w, readBuild())
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(g.metrics, promhttp.HandlerOpts{}))
	g.admin = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       75 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(serverLog{g.log}, "", 0),
	}
	g.onClose(g.admin.Close)
	go g.serveOn(g.admin, g.adminAt)
}

// notReady lists why the gateway should get no traffic; nil: it should.
func (g *gateway) notReady() []string {
	var why []string
	if !g.serving.Load() {
		why = append(why, "starting")
	}
	if g.draining.Load() {
		why = append(why, "stopping")
	}
	for _, k := range g.keys {
		if !k.Ready() {
			why = append(why, "the keys of "+k.Status().Source+" were never fetched")
		}
	}
	if g.ledger.Healthy() != nil {
		why = append(why, "the audit log cannot be written")
	}
	if g.s.config.Audit.Survive == audit.Machine && g.ledger.Shippable() != nil {
		why = append(why, "Firestore does not take the audit log")
	}
	return why
}

func writeHealth(w http.ResponseWriter, why []string) {
	status := http.StatusOK
	body := map[string]any{"status": "ok"}
	if len(why) > 0 {
		status = http.StatusServiceUnavailable
		body = map[string]any{"status": "unavailable", "why": why}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
