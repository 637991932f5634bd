package cmd

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sidegate/proxy/oidc"
)

// newRegistry holds what is known of the process from the start.
func newRegistry(s settings) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sidegate_build_info", Help: "1; which program this is, is in the labels."}, []string{"version", "revision", "go_version"})
	b := readBuild()
	info.WithLabelValues(s.version, b.Revision, b.Go).Set(1)
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

	loaded atomic.Int64 // when the policy in force was, in seconds since 1970
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
func (g *gateway) watchMetrics() {
	g.reloads.total = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sidegate_policy_reloads_total", Help: "Policies read anew, by result (loaded, refused)."}, []string{"result"})
	for _, result := range []string{"loaded", "refused"} {
		g.reloads.total.WithLabelValues(result)
	}
	g.reloads.last = prometheus.NewGauge(prometheus.GaugeOpts{Name: "sidegate_policy_last_reload_ok", Help: "1 unless the last policy that was read was refused."})
	g.reloads.last.Set(1)
	g.reloads.loaded.Store(time.Now().Unix())
	g.metrics.MustRegister(g.reloads.total, g.reloads.last, policyMetrics{g})
	gauge := func(name, help string, f func() float64) {
		g.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	counter := func(name, help string, f func() float64) {
		g.metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f))
	}
	gauge("sidegate_ready", "1 while the gateway should get traffic.", func() float64 { return boolToFloat(g.notReady() == nil) })
	g.metrics.MustRegister(keyMetrics(g.keys))
	if len(g.users) > 0 {
		counter("sidegate_revocation_lookups_total", "Questions to Firebase whether a user is revoked or disabled.", func() float64 { asked, _ := g.lookups(); return asked })
		gauge("sidegate_revocation_users", "Users that are remembered, with whether they are revoked or disabled.", g.rememberedUsers)
		counter("sidegate_revocation_failures_total", "Those of them that were not answered.", func() float64 { _, failed := g.lookups(); return failed })
	}
	if cache := g.tokens; cache != nil {
		counter("sidegate_token_cache_hits_total", "Tokens that were verified before.", func() float64 { return float64(cache.Stats().Hits) })
		counter("sidegate_token_cache_misses_total", "Tokens that were not.", func() float64 { return float64(cache.Stats().Misses) })
		gauge("sidegate_token_cache_entries", "Verified tokens kept.", func() float64 { return float64(cache.Stats().Entries) })
		gauge("sidegate_token_cache_bytes", "About how much memory they take.", func() float64 { return float64(cache.Stats().Bytes) })
	}
	a := auditMetrics{ledger: g.ledger}
	if g.s.config.Audit.Firestore != nil {
		a.room = g.s.config.Audit.MaxSize
	}
	g.metrics.MustRegister(a)
}

func (g *gateway) lookups() (asked, failed float64) {
	for _, u := range g.users {
		a, f := u.Counts()
		asked, failed = asked+float64(a), failed+float64(f)
	}
	return asked, failed
}

func (g *gateway) rememberedUsers() float64 {
	n := 0
	for _, u := range g.users {
		n += u.Remembered()
	}
	return float64(n)
}

// keyMetrics tell how the key sets do, by where their keys come from. They are
// asked for when metrics are read.
type keyMetrics []*oidc.KeySet

var (
	keysLabels   = []string{"source"}
	keysAge      = prometheus.NewDesc("sidegate_keys_age_seconds", "Age of an issuer's keys; -1 while they were never fetched.", keysLabels, nil)
	keysFailures = prometheus.NewDesc("sidegate_keys_failures_total", "Failed fetches of an issuer's keys.", keysLabels, nil)
	keysKnown    = prometheus.NewDesc("sidegate_keys", "Keys of an issuer that can be used.", keysLabels, nil)
	keysStored   = prometheus.NewDesc("sidegate_keys_stored", "1 while an issuer's keys are those that keys_cache kept of an earlier process.", keysLabels, nil)
	keysUnkept   = prometheus.NewDesc("sidegate_keys_cache_failed", "1 while an issuer's last good keys could not be written to keys_cache, or read from it.", keysLabels, nil)
)

func (m keyMetrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{keysAge, keysFailures, keysKnown, keysStored, keysUnkept} {
		descriptions <- d
	}
}

func (m keyMetrics) Collect(metrics chan<- prometheus.Metric) {
	for _, k := range m {
		s := k.Status()
		age := -1.0
		if !s.Fetched.IsZero() {
			age = s.Age.Seconds()
		}
		gauge := func(d *prometheus.Desc, v float64) {
			metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.Source)
		}
		gauge(keysAge, age)
		gauge(keysKnown, float64(s.Keys))
		gauge(keysStored, boolToFloat(s.Stored))
		gauge(keysUnkept, boolToFloat(s.Unkept != nil))
		metrics <- prometheus.MustNewConstMetric(keysFailures, prometheus.CounterValue, float64(s.Failed), s.Source)
	}
}
