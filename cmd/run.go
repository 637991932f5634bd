package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sidegate/policy"
	"sidegate/policy/document"
	"sidegate/proxy"
	"sidegate/proxy/firebase"
	"sidegate/proxy/google"
	"sidegate/proxy/oidc"
	"sidegate/storage/audit"
)

const (
	// prefetchWait is how long the start waits for the issuers' keys before
	// the gateway answers, with 503 where it needs them.
	prefetchWait = 5 * time.Second
	// prefetchPause is between its tries.
	prefetchPause = 250 * time.Millisecond
	// flushReserve is the part of shutdown_grace that is kept for the audit
	// log once requests have ended, a quarter but for a very short grace.
	flushReserve = 4
)

// runGateway opens everything, runs until ctx ends, and closes it in reverse.
func runGateway(ctx context.Context, s settings) (err error) {
	log := newLog(s)
	defer log.close()
	if s.stderr == io.Writer(os.Stderr) {
		// What libraries tell Go's own logger, net/http's transport with a lock
		// held, must not wait for who reads it either.
		stdlog.SetOutput(serverLog{log.Logger})
		defer stdlog.SetOutput(os.Stderr)
		defer tuneProcess(s.env, log.Logger)()
	}
	for _, w := range s.warnings {
		log.Warn().Msg(w)
	}
	registry := newRegistry(s)
	g := &gateway{s: s, log: log.Logger, levels: levelControl{level: log.level}, instance: newInstance(), metrics: registry, connections: newConnectionMetrics(registry), failed: make(chan error, 3), hangups: make(chan os.Signal, 1)}
	if s.stderr == io.Writer(os.Stderr) && s.env.get("GOGC") == "" {
		g.served = func() { giveBack(log.Logger) }
	}
	g.refusedFiles = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sidegate_tls_files_refused_total",
		Help: "Replaced files of certificates that are no good, so that the last good ones stay in use."}, []string{"key"})
	g.metrics.MustRegister(g.refusedFiles, log.queue.metrics())
	// From the first moment to the last: by itself the signal ends the program.
	signal.Notify(g.hangups, syscall.SIGHUP)
	defer signal.Stop(g.hangups)
	defer func() { err = errors.Join(err, g.close()) }()
	if err := g.open(ctx); err != nil {
		return err
	}
	return g.run(ctx)
}

func newInstance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + "-" + audit.NewID()[:8]
}

// A gateway is a running sidegate: what is open, in the order of opening.
type gateway struct {
	s   settings
	log zerolog.Logger
	// instance tells this process from others of its name.
	instance string
	metrics  *prometheus.Registry
	closers  []func() error

	policySeen atomic.Pointer[fingerprint] // of the file that was read last
	hangups    chan os.Signal
	ledger     *audit.Ledger
	rescues    bool // it has a last resort: see memoryDisk
	keys       []*oidc.KeySet
	keysClient *http.Client // fetches them; nil: by the environment's proxy and authorities
	users      []*firebase.Users
	idTokens   []*google.IDTokens
	tokens     *oidc.Cache // nil: verified tokens are not kept
	proxy      *proxy.Proxy
	public     *http.Server
	admin      *http.Server
	publicAt   net.Listener
	adminAt    net.Listener
	asked      forwardAuth

	serving  atomic.Bool // callers can connect
	draining atomic.Bool
	started  atomic.Bool    // was ready when somebody asked whether it has started
	handlers sync.WaitGroup // requests that are not answered yet, tunnels included
	cutOff   context.CancelCauseFunc
	failed   chan error // a listener's
	graceEnd time.Time
	reloads  reloadMetrics
	levels   levelControl
	served   func() // called when callers can connect; nil: nothing

	refusedFiles *prometheus.CounterVec // of certificates
	sweeping     *sweeping
	connections  *connectionMetrics
}

func (g *gateway) onClose(f func() error) { g.closers = append(g.closers, f) }

// close undoes open, the last first.
func (g *gateway) close() error {
	var errs []error
	for i := len(g.closers) - 1; i >= 0; i-- {
		errs = append(errs, g.closers[i]())
	}
	g.closers = nil
	return errors.Join(errs...)
}

// open checks and opens, the cheap first: files, listeners, stores.
func (g *gateway) open(ctx context.Context) error {
	c := g.s.config
	pol, err := g.readPolicy()
	if err != nil {
		return err
	}
	if g.adminAt, err = g.listen("admin.address", c.AdminAddress); err != nil {
		return err
	}
	tracer, err := g.openTelemetry()
	if err != nil {
		return err
	}
	stores, err := g.openStores(ctx)
	if err != nil {
		return err
	}
	callers, err := g.openIdentities(ctx)
	if err != nil {
		return err
	}
	assertions, err := g.openAssertions()
	if err != nil {
		return err
	}
	upstreams, err := g.upstreams()
	if err != nil {
		return err
	}
	limits, err := g.openLimits(ctx)
	if err != nil {
		return err
	}
	g.serveAdmin()
	g.prefetch(ctx)
	if err := g.listenForwardAuth(); err != nil {
		return err
	}
	if err := g.listenPublic(); err != nil {
		return err
	}
	g.proxy, err = proxy.New(proxy.Options{
		Name:          c.Name,
		Policy:        pol,
		Authenticator: callers.tokens, SessionCookies: callers.cookies, AppCheck: callers.appCheck, Assertions: assertions, CORS: c.CORS,
		Recorder:    recorder{g.ledger},
		Survive:     c.Audit.Survive,
		Upstreams:   upstreams,
		Uploads:     stores.uploads,
		Documents:   stores.lookups,
		Limits:      limits,
		Trusted:     proxy.TrustedProxies{Prefixes: c.Listen.TrustedProxies, Peer: c.Listen.TrustPeer},
		IdleTimeout: c.Listen.IdleTimeout,
		MaxRequests: c.Listen.MaxRequests, MaxPerConnection: c.Listen.MaxPerConnection,
		Tracer: tracer, Sample: c.Telemetry.Sample,
		Log:      g.log,
		LogLines: g.logLines(),
		Metrics:  g.metrics,
		Now:      time.Now,
	})
	if err != nil {
		return err
	}
	if g.s.everyRefusal {
		g.flushLastRefusals(ctx)
	}
	g.watchMetrics()
	g.warnOfCredentials(ctx, stores.buckets)
	return g.recordStart(ctx)
}

// listenPublic takes the address that callers connect to: the last thing to be
// opened, so that nobody connects to a gateway that is not able to answer.
func (g *gateway) listenPublic() (err error) {
	c := g.s.config.Listen
	encryption, err := g.s.config.listenTLS(g.fileRefused("listen.tls"))
	if err != nil {
		return err
	}
	if g.publicAt, err = g.listen("listen.address", c.Address); err != nil {
		return err
	}
	m := g.connections
	g.publicAt = m.counting(resetListener{g.publicAt, encryption == nil}, "public")
	m.most.Set(float64(c.MaxConnections))
	if c.MaxConnections > 0 {
		g.publicAt = limitConnections(g.publicAt, c.MaxConnections, m.full.Inc)
	}
	if encryption != nil {
		g.publicAt = newTLSListener(g.publicAt, encryption, c.HeaderTimeout, func(from net.Addr, err error) {
			m.handshakes.Inc()
			g.log.Debug().Str("from", from.String()).Err(err).Msg("a TLS handshake failed")
		})
	}
	g.publicAt = proxy.StrictFraming(g.publicAt, m.framing("public"))
	return nil
}

// fileRefused tells of files of certificates that were replaced while the gateway
// runs, and are none.
func (g *gateway) fileRefused(key string) func(error) {
	count := g.refusedFiles.WithLabelValues(key)
	return func(err error) {
		count.Inc()
		g.log.Warn().Str("key", key).Err(err).Msg("the new files do not fit together, or are no good; the last good ones stay in use")
	}
}

func (g *gateway) listen(key, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, listenHint(err))
	}
	g.onClose(func() error { return ignoreClosed(l.Close()) })
	return l, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// recordStart puts the start on record: a gateway that cannot write its audit
// log does not start.
func (g *gateway) recordStart(ctx context.Context) error {
	detail := map[string]string{"version": g.s.version, "policy": g.proxy.Policy().Name, "policy_sha256": g.proxy.Policy().SHA256}
	detail["survive"] = g.s.config.Audit.Survive.String()
	if f := g.s.config.Audit.Firestore; f != nil {
		detail["firestore"] = f.Project + "/" + f.Database + "/" + f.Collection
	}
	if name := g.s.insecure.emulators(); name != "" {
		detail["insecure_emulator"] = name
	}
	if g.s.insecure.keys != nil {
		detail["insecure_keys"] = "true"
	}
	if g.s.insecure.ephemeral {
		detail["insecure_ephemeral"] = "true"
	}
	if r := g.ledger.Recovered(); r != nil {
		g.log.Warn().Str("file", r.File).Int64("offset", r.Offset).Msg("the audit log's last line was torn by a crash and cut off; nobody was told that it was on record")
	}
	return g.recordSystem(ctx, "start", detail)
}

func (g *gateway) recordSystem(ctx context.Context, event string, detail map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	e := &audit.Event{Type: audit.TypeSystem, Time: time.Now(), System: &audit.System{Event: event, Detail: detail}}
	if err := (recorder{g.ledger}).Record(ctx, e, audit.Crash); err != nil {
		return fmt.Errorf("record %q in the audit log: %w", event, err)
	}
	return nil
}

// run serves until ctx ends or a listener fails.
func (g *gateway) run(ctx context.Context) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for _, k := range g.keys {
		running.Go(func() { k.Run(background) })
	}
	for _, tokens := range g.idTokens {
		running.Go(func() {
			tokens.Run(background, func(err error) {
				g.log.Warn().Err(err).Msg("an app cannot be called until there is a token for it")
			})
		})
	}
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default: // one is waiting, and will see this change too
		}
	}
	if at, err := os.Stat(g.s.policy); err != nil || at.Mode().IsRegular() { // a pipe was read, and has no more
		running.Go(func() { watchFile(background, g.s.policy, func() fingerprint { return *g.policySeen.Load() }, poke) })
	}
	running.Go(func() { onHangup(background, g.hangups, poke) })
	running.Go(func() { g.reloadOn(background, changed) })

	running.Go(func() { g.watchLedger(background) })
	running.Go(func() { g.flushRefusals(background) })
	running.Go(func() { g.sweep(background, ctx) })
	g.serveForwardAuth(background)
	g.servePublic(background)
	g.serving.Store(true)
	serving := g.log.Info().Str("address", g.publicAt.Addr().String()).Str("admin", g.adminAt.Addr().String())
	if g.asked.at != nil {
		serving.Str("forward_auth", g.asked.at.Addr().String())
	}
	serving.Str("policy", g.proxy.Policy().SHA256).Str("version", g.s.version).Msg("sidegate is serving")
	if g.served != nil {
		g.served()
	}

	var err error
	select {
	case <-ctx.Done():
		g.log.Info().Msg("stopping")
	case err = <-g.failed:
		g.log.Error().Err(err).Msg("a listener failed; stopping")
	}
	return errors.Join(err, g.shutdown())
}

// prefetch waits a little for the issuers' keys. What does not come now is
// fetched in the background; until then the gateway is not ready.
func (g *gateway) prefetch(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, prefetchWait)
	defer cancel()
	var all sync.WaitGroup
	for _, k := range g.keys {
		all.Go(func() {
			err := prefetchOne(ctx, k)
			switch {
			case err != nil && k.Ready():
				g.log.Warn().Err(err).Msg("the issuer's keys cannot be fetched; those that keys_cache kept are in use until they can")
			case err != nil:
				g.log.Warn().Err(err).Msg("the issuer's keys cannot be fetched; tokens get 503 until they can")
			}
			if s := k.Status(); s.Unkept != nil {
				g.log.Warn().Err(s.Unkept).Msg("keys_cache does not work for an issuer: a restart while it is away would be without its keys")
			}
		})
	}
	all.Wait()
}

// prefetchOne tries until the keys are there or ctx ends, and once where those
// of an earlier process are; the error is then the last try's that says more
// than that.
func prefetchOne(ctx context.Context, k *oidc.KeySet) error {
	pause := time.NewTicker(prefetchPause)
	defer pause.Stop()
	var last error
	for {
		err := k.Prefetch(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if k.Ready() {
			return last
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return last
		}
	}
}

// shutdown ends within shutdown_grace: not ready, no new requests, streams are
// told to go elsewhere, the running requests end, what is left is cut, the stop
// is on record, and the audit log is flushed (by close).
func (g *gateway) shutdown() error {
	grace := g.s.config.Listen.ShutdownGrace
	g.graceEnd = time.Now().Add(grace)
	g.draining.Store(true)
	deadline := g.graceEnd.Add(-grace / flushReserve)
	if d := g.s.config.Listen.DrainDelay; d > 0 {
		pause := time.NewTimer(min(d, time.Until(deadline)))
		<-pause.C
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	// Who holds one of these has no reason of his own to end it; gRPC's streams
	// may have, and get most of the time that there is.
	g.proxy.EndStreams(false)
	last := time.AfterFunc(time.Until(deadline)*3/4, func() { g.proxy.EndStreams(true) })
	defer last.Stop()
	waitForwardAuth := g.drainForwardAuth(ctx)
	if err := g.public.Shutdown(ctx); err != nil {
		g.log.Warn().Msg("requests were still running at the end of shutdown_grace; they are cut")
	}
	waitForwardAuth()
	g.proxy.AwaitStreams(ctx)
	g.cutOff(proxy.ErrStopping) // tunnels are not the server's any more
	_ = g.public.Close()
	ended := make(chan struct{})
	go func() { g.handlers.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(max(time.Until(g.graceEnd)/2, 100*time.Millisecond)):
		g.log.Warn().Msg("some requests did not end when they were cut; their outcome is unknown")
	}
	stopCtx, cancelStop := context.WithDeadline(context.Background(), g.graceEnd)
	defer cancelStop()
	g.flushLastRefusals(stopCtx)
	err := g.recordSystem(stopCtx, "stop", nil)
	adminCtx, done := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer done()
	_ = g.admin.Shutdown(adminCtx)
	_ = g.admin.Close()
	return err
}

// A recorder is the ledger as the proxy sees it.
type recorder struct{ ledger *audit.Ledger }

func (r recorder) Record(ctx context.Context, e *audit.Event, level audit.Survive) error {
	if level == audit.Machine {
		if err := r.ledger.Shippable(); err != nil {
			return fmt.Errorf("%w: %w", proxy.ErrNotRecorded, err)
		}
	}
	t, err := r.ledger.Append(e)
	if err != nil {
		return fmt.Errorf("%w: %w", proxy.ErrNotRecorded, err)
	}
	if err = t.Wait(ctx, level); errors.Is(err, audit.ErrNotWritten) {
		return fmt.Errorf("%w: %w", proxy.ErrNotRecorded, err)
	}
	return err
}

func (r recorder) Note(e *audit.Event) error {
	_, err := r.ledger.Append(e)
	return err
}

// reloadOn reads the policy anew at each change.
func (g *gateway) reloadOn(ctx context.Context, changed <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			g.reload(ctx)
		}
	}
}

// seePolicy remembers which state of the file was read last, so that the
// watcher tells a change of the file from what is known of it. The zero
// fingerprint is no file's: it makes the watcher look again.
func (g *gateway) seePolicy(f fingerprint) { g.policySeen.Store(&f) }

// readPolicy reads the policy's file. What it saw is remembered before the file
// is understood: a change meanwhile is seen once, and not twice.
func (g *gateway) readPolicy() (*policy.Policy, error) {
	data, seen, err := readPolicy(g.s.policy)
	g.seePolicy(seen)
	if err != nil {
		return nil, err
	}
	return parsePolicy(g.s.policy, data, g.s.config)
}

// reload replaces the policy, or keeps the last good one and says why.
func (g *gateway) reload(ctx context.Context) {
	old := g.proxy.Policy()
	pol, err := g.readPolicy()
	if err != nil {
		g.reloads.failed()
		g.log.Error().Err(err).Str("policy", old.SHA256).Msg("the new policy is refused; the old one stays in force")
		if err := g.recordSystem(ctx, "policy_refused", map[string]string{"error": firstError(err), "policy_sha256": old.SHA256}); err != nil {
			g.log.Error().Err(err).Msg("a refused policy is not on record")
		}
		return
	}
	if pol.SHA256 == old.SHA256 {
		if g.reloads.good() {
			g.log.Info().Str("policy", old.SHA256).Msg("the policy's file is again the policy in force")
		}
		return
	}
	if err := g.recordSystem(ctx, "policy_loaded", map[string]string{"policy": pol.Name, "policy_sha256": pol.SHA256, "before": old.SHA256}); err != nil {
		g.reloads.failed()
		g.seePolicy(fingerprint{}) // try again at the next look
		g.log.Error().Err(err).Msg("the new policy cannot be put on record; the old one stays in force")
		return
	}
	g.proxy.SetPolicy(pol)
	g.reloads.loaded.Store(time.Now().Unix())
	g.reloads.good()
	g.log.Info().Str("policy", pol.SHA256).Str("before", old.SHA256).Msg("the policy was replaced")
}

// firstError is the first mistake of a file, which says enough.
func firstError(err error) string {
	var all document.Errors
	if errors.As(err, &all) && len(all) > 0 {
		return all[0].Error()
	}
	return err.Error()
}
