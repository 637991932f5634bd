package cmd

import (
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	"github.com/rs/zerolog/diode"

	"sidegate/proxy"
	"sidegate/proxy/oidc"
)

// logQueue is how many lines wait for a slow standard error; beyond it lines
// are dropped and counted: the log never holds up a request.
const logQueue = 4096

// logFlush bounds how long the end waits for a standard error that blocks.
const logFlush = 200 * time.Millisecond

// newLogger writes to standard error from a goroutine of its own.
func newLogger(s settings) (zerolog.Logger, func()) {
	level, err := zerolog.ParseLevel(s.config.Log.Level)
	if err != nil {
		level = zerolog.InfoLevel
	}
	var note zerolog.Logger
	// The diode closes what it can, and standard error is not ours to close.
	w := diode.NewWriter(struct{ io.Writer }{s.stderr}, logQueue, 0, func(missed int) { note.Warn().Int("lines", missed).Msg("log lines were dropped") })
	var out io.Writer = w
	if s.config.Log.Format == "console" {
		out = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: true}
	}
	log := zerolog.New(out).Level(level).Hook(severity{}).With().Timestamp().Logger()
	note = log
	return log, func() {
		closed := make(chan struct{})
		go func() { _ = w.Close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(logFlush): // nobody reads standard error any more
		}
	}
}

// severity adds Cloud Logging's name of the level.
type severity struct{}

func (severity) Run(e *zerolog.Event, level zerolog.Level, _ string) {
	switch level {
	case zerolog.DebugLevel:
		e.Str("severity", "DEBUG")
	case zerolog.InfoLevel:
		e.Str("severity", "INFO")
	case zerolog.WarnLevel:
		e.Str("severity", "WARNING")
	default:
		e.Str("severity", "ERROR")
	}
}

// newRegistry holds what is known of the process from the start.
func newRegistry(s settings) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sidegate_build_info", Help: "1; the version is the label."}, []string{"version"})
	info.WithLabelValues(s.version).Set(1)
	dangerous := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sidegate_insecure", Help: "1 for each --insecure-* switch that is on."}, []string{"switch"})
	for name, on := range map[string]bool{"emulator": s.insecure.emulator, "keys": s.insecure.keys != nil, "ephemeral": s.insecure.ephemeral} {
		dangerous.WithLabelValues(name).Set(boolToFloat(on))
	}
	warnings := prometheus.NewGauge(prometheus.GaugeOpts{Name: "sidegate_start_warnings", Help: "Warnings that the configuration gave at the start."})
	warnings.Set(float64(len(s.warnings)))
	r.MustRegister(info, dangerous, warnings)
	return r
}

func boolToFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// reloadMetrics tell how reading the policy anew went.
type reloadMetrics struct {
	total *prometheus.CounterVec
	last  prometheus.Gauge
	bad   bool // the last policy that was read was refused
}

func (m *reloadMetrics) failed() {
	m.total.WithLabelValues("refused").Inc()
	m.last.Set(0)
	m.bad = true
}

// good reports whether that ends an alarm.
func (m *reloadMetrics) good() (mended bool) {
	mended, m.bad = m.bad, false
	m.total.WithLabelValues("loaded").Inc()
	m.last.Set(1)
	return mended
}

// watchMetrics registers what is asked for when metrics are read.
func (g *gateway) watchMetrics(authenticator proxy.Authenticator) {
	g.reloads.total = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sidegate_policy_reloads_total", Help: "Policies read anew, by result (loaded, refused)."}, []string{"result"})
	g.reloads.last = prometheus.NewGauge(prometheus.GaugeOpts{Name: "sidegate_policy_last_reload_ok", Help: "1 unless the last policy that was read was refused."})
	g.reloads.last.Set(1)
	g.metrics.MustRegister(g.reloads.total, g.reloads.last)
	gauge := func(name, help string, f func() float64) {
		g.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	counter := func(name, help string, f func() float64) {
		g.metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f))
	}
	gauge("sidegate_ready", "1 while the gateway should get traffic.", func() float64 { return boolToFloat(g.notReady() == nil) })
	gauge("sidegate_keys_age_seconds", "Age of the oldest issuer's keys; -1 while some were never fetched.", g.keysAge)
	counter("sidegate_keys_failures_total", "Failed fetches of issuers' keys.", func() float64 {
		sum := uint64(0)
		for _, k := range g.keys {
			sum += k.Status().Failed
		}
		return float64(sum)
	})
	if cache, ok := authenticator.(*oidc.Cache); ok {
		counter("sidegate_token_cache_hits_total", "Tokens that were verified before.", func() float64 { return float64(cache.Stats().Hits) })
		counter("sidegate_token_cache_misses_total", "Tokens that were not.", func() float64 { return float64(cache.Stats().Misses) })
		gauge("sidegate_token_cache_entries", "Verified tokens kept.", func() float64 { return float64(cache.Stats().Entries) })
	}
	counter("sidegate_audit_events_total", "Events written to the ledger since it was begun.", func() float64 { return float64(g.ledger.Stats().Seq) })
	gauge("sidegate_audit_waiting_bytes", "Bytes of events that wait for Firestore.", func() float64 { return float64(g.ledger.Stats().Waiting) })
	gauge("sidegate_audit_lag_seconds", "How long the oldest event has waited for Firestore.", func() float64 { return g.ledger.Stats().Lag.Seconds() })
	gauge("sidegate_audit_outage", "1 while Firestore does not take events.", func() float64 { return boolToFloat(g.ledger.Stats().Outage != nil) })
	gauge("sidegate_audit_unstorable", "Events in the dead-letter file since the start.", func() float64 { return float64(g.ledger.Stats().Unstorable) })
	gauge("sidegate_audit_healthy", "1 while the ledger can be written.", func() float64 { return boolToFloat(g.ledger.Healthy() == nil) })
}

func (g *gateway) keysAge() float64 {
	age := 0.0
	for _, k := range g.keys {
		s := k.Status()
		if s.Fetched.IsZero() {
			return -1
		}
		age = max(age, s.Age.Seconds())
	}
	return age
}
