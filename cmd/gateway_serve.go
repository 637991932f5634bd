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

	"sidegate/proxy"
	"sidegate/storage/audit"
)

// servePublic answers callers. Nothing but the proxy does: not even `OPTIONS *`
// is left to net/http.
func (g *gateway) servePublic(background context.Context) {
	base, cutOff := context.WithCancelCause(background)
	g.cutOff = cutOff
	g.public = publicServer(g.s.config)
	g.public.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.handlers.Add(1)
		defer g.handlers.Done()
		g.proxy.ServeHTTP(w, r)
	})
	g.public.BaseContext = func(net.Listener) context.Context { return base }
	g.public.ConnContext = proxy.CountRequests
	g.public.ErrorLog = log.New(serverLog{g.log}, "", 0)
	go g.serveOn(g.public, g.publicAt)
}

const (
	// pingAfter and pingWait find callers of HTTP/2 who are away while their
	// streams are open: TCP alone does not tell while nothing is sent.
	pingAfter = 30 * time.Second
	pingWait  = 15 * time.Second
	// maxStreams are those of one connection at once (RFC 9113, section 6.5.2,
	// asks for no less than 100).
	maxStreams = 100
	// streamWindow is what may come of a body that nobody reads. It is a small
	// part of the connection's, or an app that takes its time with one body would
	// hold up all others that come by the same connection. Net/http takes no more
	// than connectionWindow.
	streamWindow     = 64 << 10
	connectionWindow = 4<<20 - 1
	// largestFrame is the smallest bound that there may be (RFC 9113, section
	// 6.5.2): one frame must fit into a stream's window.
	largestFrame = 16 << 10
)

// publicServer is how callers are spoken to: HTTP/1.1 and HTTP/2, which TLS
// negotiates, and which without TLS they just begin with (h2c by prior
// knowledge; RFC 9113, section 3.3).
func publicServer(c *Config) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(c.Listen.TLS.Cert != "")
	protocols.SetUnencryptedHTTP2(c.Listen.TLS.Cert == "")
	return &http.Server{
		Protocols: protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReadFrameSize:              largestFrame,
			MaxReceiveBufferPerStream:     streamWindow,
			MaxReceiveBufferPerConnection: connectionWindow,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingWait,
			WriteByteTimeout:              c.Listen.IdleTimeout,
		},
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            c.Listen.HeaderTimeout,
		IdleTimeout:                  c.Listen.IdleTimeout,
		MaxHeaderBytes:               c.Listen.MaxHeaderBytes,
	}
}

func (g *gateway) serveOn(s *http.Server, at net.Listener) {
	if err := s.Serve(at); !errors.Is(err, http.ErrServerClosed) {
		g.failed <- err
	}
}

// A serverLog takes what net/http says of connections: strangers cause most of
// it, so it is for those who look. A panic is nobody's but ours.
type serverLog struct{ log zerolog.Logger }

func (l serverLog) Write(p []byte) (int, error) {
	// What came on an idle connection is somebody's answer, with all that is in one.
	text, _, _ := strings.Cut(strings.TrimSpace(string(p)), " starting with ")
	level := zerolog.DebugLevel
	if strings.HasPrefix(text, "http: panic serving ") || strings.HasPrefix(text, "http2: panic serving ") {
		level = zerolog.ErrorLevel
	}
	l.log.WithLevel(level).Msg(text)
	return len(p), nil
}

// serveAdmin answers probes and the operator.
func (g *gateway) serveAdmin() {
	mux := http.NewServeMux()
	for _, path := range []string{livePath, "/healthz", "/ping"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, nil) })
	}
	for _, path := range []string{readyPath, "/readyz"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, g.notReady()) })
	}
	mux.HandleFunc("GET "+startedPath, func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, g.notStarted()) })
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = writeJSON(w, readBuild())
	})
	g.serveLogLevel(mux)
	mux.Handle("GET /metrics", promhttp.HandlerFor(g.metrics, promhttp.HandlerOpts{}))
	if g.s.pprof {
		servePprof(mux)
	}
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

// notStarted lists why the gateway was never ready; nil: it was, whatever it is
// now. It is for who asks one question about a deployment and about a task that
// runs: a new version that cannot work is not to replace one that does, and an
// outage elsewhere is not to have the gateway replaced.
func (g *gateway) notStarted() []string {
	if g.started.Load() {
		return nil
	}
	why := g.notReady()
	// That Firestore does not take the log shows only after some tries, and until
	// then the gateway is ready. It took the start, which is on record, or it was
	// never seen to take anything.
	if len(why) == 0 && g.s.config.Audit.Survive == audit.Machine && g.ledger.Stats().ShippedAt.IsZero() {
		why = append(why, "Firestore has not taken anything of the audit log yet")
	}
	if len(why) == 0 {
		g.started.Store(true)
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
