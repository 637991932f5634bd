package transport

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are counters by upstream; docs/operations.md explains each.
type Metrics struct {
	duration *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	failures *prometheus.CounterVec
	ejected  *prometheus.GaugeVec
}

// NewMetrics registers the metrics of all upstreams of a gateway.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sidegate_upstream_duration_seconds", Help: "Time from sending a request to an upstream's address to the header of its answer; requests that were not answered are left out.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
			// Beside them native ones: see docs/operations.md.
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"upstream"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sidegate_upstream_requests_in_flight", Help: "Requests sent to an upstream whose answers have not ended, tunnels included.",
		}, []string{"upstream"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidegate_upstream_failures_total", Help: "Requests that an address of an upstream did not answer, by kind (connect, broken, timeout).",
		}, []string{"upstream", "kind"}),
		ejected: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sidegate_upstream_ejected_addresses", Help: "Addresses of an upstream that are left alone, since they kept failing.",
		}, []string{"upstream"}),
	}
	for _, c := range []prometheus.Collector{m.duration, m.inFlight, m.failures, m.ejected} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// upstreamMetrics are those of one upstream, looked up once.
type upstreamMetrics struct {
	duration          prometheus.Observer
	inFlight, ejected prometheus.Gauge
	failures          [outcomes]prometheus.Counter // nil: it is none
}

func (m *Metrics) of(upstream string) upstreamMetrics {
	u := upstreamMetrics{duration: m.duration.WithLabelValues(upstream), inFlight: m.inFlight.WithLabelValues(upstream), ejected: m.ejected.WithLabelValues(upstream)}
	u.failures[unreached] = m.failures.WithLabelValues(upstream, "connect")
	u.failures[broken] = m.failures.WithLabelValues(upstream, "broken")
	u.failures[silent] = m.failures.WithLabelValues(upstream, "timeout")
	return u
}
