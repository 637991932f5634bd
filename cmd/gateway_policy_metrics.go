package cmd

import "github.com/prometheus/client_golang/prometheus"

// policyMetrics tell which policy is in force. They are asked for when metrics
// are read, so that of a policy that was replaced nothing stays.
type policyMetrics struct{ g *gateway }

var (
	policyInfo   = prometheus.NewDesc("sidegate_policy_info", "1; which policy is in force, is in the labels.", []string{"name", "sha256"}, nil)
	policyLoaded = prometheus.NewDesc("sidegate_policy_loaded_timestamp_seconds", "When this process took the policy that is in force.", nil, nil)
	policyRoutes = prometheus.NewDesc("sidegate_policy_routes", "Routes of the policy that is in force.", nil, nil)
)

func (policyMetrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{policyInfo, policyLoaded, policyRoutes} {
		descriptions <- d
	}
}

func (m policyMetrics) Collect(metrics chan<- prometheus.Metric) {
	pol := m.g.proxy.Policy()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(policyInfo, 1, pol.Name, pol.SHA256)
	gauge(policyLoaded, float64(m.g.reloads.loaded.Load()))
	gauge(policyRoutes, float64(len(pol.Routes)))
}
