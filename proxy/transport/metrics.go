package transport

import "github.com/prometheus/client_golang/prometheus"

// Metrics are counters by upstream; docs/operations.md explains each.
type Metrics struct {
	inFlight *prometheus.GaugeVec
	failures *prometheus.CounterVec
	ejected  *prometheus.GaugeVec
}

// NewMetrics registers the metrics of all upstreams of a gateway.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
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
	for _, c := range []prometheus.Collector{m.inFlight, m.failures, m.ejected} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// upstreamMetrics are those of one upstream, looked up once.
type upstreamMetrics struct {
	inFlight, ejected prometheus.Gauge
	failures          [outcomes]prometheus.Counter // nil: it is none
}

func (m *Metrics) of(upstream string) upstreamMetrics {
	u := upstreamMetrics{inFlight: m.inFlight.WithLabelValues(upstream), ejected: m.ejected.WithLabelValues(upstream)}
	u.failures[unreached] = m.failures.WithLabelValues(upstream, "connect")
	u.failures[broken] = m.failures.WithLabelValues(upstream, "broken")
	u.failures[silent] = m.failures.WithLabelValues(upstream, "timeout")
	return u
}
