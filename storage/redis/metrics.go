package redis

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what docs/operations.md explains; nil: there are none.
type metrics struct {
	up       prometheus.Gauge
	failures *prometheus.CounterVec
	duration prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	if r == nil {
		return nil, nil
	}
	m := &metrics{
		up: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sidegate_redis_up", Help: "1 while Redis can be asked for the budgets that gateways share; 0: limits count for themselves, or refuse.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidegate_redis_failures_total", Help: "Questions to Redis that failed, by kind.",
		}, []string{"kind"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sidegate_redis_duration_seconds", Help: "Time of each question to Redis, failed ones included.",
			Buckets:                     []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}),
	}
	for _, kind := range kinds {
		m.failures.WithLabelValues(string(kind))
	}
	for _, c := range []prometheus.Collector{m.up, m.failures, m.duration} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("redis: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) reachable(yes bool) {
	if m == nil {
		return
	}
	m.up.Set(map[bool]float64{true: 1}[yes])
}

func (m *metrics) asked(took time.Duration, err error) {
	if m == nil {
		return
	}
	m.duration.Observe(took.Seconds())
	var f *Failure
	if errors.As(err, &f) {
		m.failures.WithLabelValues(string(f.Kind)).Inc()
	}
}
