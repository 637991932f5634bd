package proxy

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// Native histograms beside the classic buckets: at most this many, each at
	// most a tenth wider than the one before; what was once too wide is taken
	// back an hour later at the earliest.
	nativeFactor  = 1.1
	nativeBuckets = 100
	nativeReset   = time.Hour
)

// metrics are the gate's counters; docs/operations.md explains each.
type metrics struct {
	requests      *prometheus.CounterVec
	duration      *prometheus.HistogramVec
	inFlight      prometheus.Gauge
	auditFailures prometheus.Counter
	unrecorded    *prometheus.CounterVec
	summarised    prometheus.Counter
	shadow        *prometheus.CounterVec
	identified    *prometheus.CounterVec
	appChecks     *prometheus.CounterVec
	limited       *prometheus.CounterVec

	routes children[string, *routeMetrics]
	seen   children[sighting, prometheus.Counter]
}

// routeMetrics are one route's, so that a request need not find them by their labels.
type routeMetrics struct {
	duration prometheus.Observer
	answers  children[routeAnswer, prometheus.Counter]
}

// A routeAnswer is how a request ended.
type routeAnswer struct {
	effect string
	status int // or, of an app's own, its first digit
}

// counted is a status as it is counted: an app may have its callers choose one of
// 800, and those that mean nothing to anybody else are counted as a class.
func counted(status int) int {
	if http.StatusText(status) == "" {
		return status / 100
	}
	return status
}

// code is the label.
func (a routeAnswer) code() string {
	if a.status > 0 && a.status < 10 {
		return strconv.Itoa(a.status) + "xx"
	}
	return strconv.Itoa(a.status)
}

// A sighting is what came of a look for the caller.
type sighting struct {
	identity string // its name in sidegate.yaml; empty where none could be told
	outcome  string
}

// Outcomes of a look for the caller.
const (
	callerVerified    = "verified"
	callerNone        = "none" // there was nothing to look at
	callerInvalid     = "invalid"
	callerUnavailable = "unavailable"
	callerCrossOrigin = "cross_origin" // the cookie is good, and another site had it sent
)

// limitedByQuota stands for the quota of uploads, beside what limits are by.
const limitedByQuota = "quota"

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidegate_requests_total", Help: "Requests by route, decision (allow, deny, preflight) and status.",
		}, []string{"route", "decision", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sidegate_request_duration_seconds", Help: "Time from the request's header to the answer's end, by route.",
			Buckets:                     []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
			NativeHistogramBucketFactor: nativeFactor, NativeHistogramMaxBucketNumber: nativeBuckets, NativeHistogramMinResetDuration: nativeReset,
		}, []string{"route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sidegate_requests_in_flight", Help: "Requests that have begun and not ended.",
		}),
		auditFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sidegate_audit_failures_total", Help: "Events that the audit log did not take; their requests got 503.",
		}),
		unrecorded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidegate_audit_off_total", Help: "Requests that were allowed on a route with `audit: off`, by route: no log has them.",
		}, []string{"route"}),
		summarised: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sidegate_audit_summarised_total", Help: "Refusals beyond the rate up to which each has an event: they are counted in the audit log's summaries.",
		}),
		shadow: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidegate_policy_shadow_total", Help: "What guards and entries in dry_run said, by rule and result (allow, pass, deny, error).",
		}, []string{"rule", "result"}),
		identified: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidegate_identifications_total", Help: "Looks for the caller of a request, by identity and outcome (verified, none, invalid, unavailable, cross_origin).",
		}, []string{"identity", "outcome"}),
		appChecks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidegate_app_checks_total", Help: "Looks for App Check's word, where a route asks for it, by outcome (verified, none, invalid, unavailable).",
		}, []string{"outcome"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidegate_limited_total", Help: "Requests, and items of requests, that a limit or a quota refused, by route and by whose budget was used up (uid, ip, actor, route, quota).",
		}, []string{"route", "per"}),
	}
	for _, outcome := range []string{callerVerified, callerNone, callerInvalid, callerUnavailable} {
		m.appChecks.WithLabelValues(outcome)
	}
	m.routes.make = func(route string) *routeMetrics {
		one := &routeMetrics{duration: m.duration.WithLabelValues(route)}
		one.answers.make = func(a routeAnswer) prometheus.Counter {
			return m.requests.WithLabelValues(route, a.effect, a.code())
		}
		return one
	}
	m.seen.make = func(s sighting) prometheus.Counter { return m.identified.WithLabelValues(s.identity, s.outcome) }
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.inFlight, m.auditFailures, m.unrecorded, m.summarised, m.shadow, m.identified, m.appChecks, m.limited} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// registerReadings registers what is asked for when metrics are read.
func (p *Proxy) registerReadings(r prometheus.Registerer) error {
	for _, g := range []struct {
		name, help string
		read       func() float64
	}{
		{"sidegate_limit_budgets", "Budgets of limits that are kept in memory: drawn on, and not whole again.", func() float64 { return float64(p.limits.Held()) }},
		{"sidegate_lookup_cache_entries", "Documents of lookups that are kept.", func() float64 { n, _ := p.lookups.kept.size(); return float64(n) }},
		{"sidegate_lookup_cache_bytes", "About how much memory they take.", func() float64 { _, n := p.lookups.kept.size(); return float64(n) }},
	} {
		if err := r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, g.read)); err != nil {
			return err
		}
	}
	return nil
}

// count has bounded labels: routes are the policy's, statuses are HTTP's.
func (m *metrics) count(x *exchange) {
	effect := x.effect()
	if x.unrecorded {
		effect = "deny"
	}
	route := m.routes.get(x.routeID())
	route.answers.get(routeAnswer{effect, counted(x.w.status)}).Inc()
	for rule, result := range x.decision.shadow {
		m.shadow.WithLabelValues(rule, result).Inc()
	}
	route.duration.Observe(x.duration().Seconds())
}

// saw counts a look for the caller. Identities are those of sidegate.yaml, so
// that no caller makes one up. What is only judged does not count.
func (x *exchange) saw(identity, outcome string) {
	if x.given == nil {
		x.p.metrics.seen.get(sighting{identity, outcome}).Inc()
	}
}

// sawLimit counts a refusal for want of budget.
func (x *exchange) sawLimit(per string) {
	if x.given == nil {
		x.p.metrics.limited.WithLabelValues(x.routeID(), per).Inc()
	}
}

// sawQuota counts a refusal for want of quota, where it is one.
func (x *exchange) sawQuota(pr *problem) {
	if pr.code == codeQuota {
		x.sawLimit(limitedByQuota)
	}
}
