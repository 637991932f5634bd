package proxy

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
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
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidegate_requests_total", Help: "Requests by route, decision (allow, deny, preflight) and status.",
		}, []string{"route", "decision", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sidegate_request_duration_seconds", Help: "Time from the request's header to the answer's end, by route.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
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
	}
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.inFlight, m.auditFailures, m.unrecorded, m.summarised, m.shadow} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// count has bounded labels: routes are the policy's, statuses are numbers.
func (m *metrics) count(x *exchange) {
	effect := x.effect()
	if x.unrecorded {
		effect = "deny"
	}
	m.requests.WithLabelValues(x.routeID(), effect, strconv.Itoa(x.w.status)).Inc()
	for rule, result := range x.decision.shadow {
		m.shadow.WithLabelValues(rule, result).Inc()
	}
	m.duration.WithLabelValues(x.routeID()).Observe(x.duration().Seconds())
}
