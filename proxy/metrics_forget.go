package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"sidegate/policy"
)

// A vector is a metric of several series.
type vector interface {
	prometheus.Collector
	DeletePartialMatch(prometheus.Labels) int
}

// forgetOld drops the series of what the policy in force does not have: a gateway
// that lives through many policies would keep those of all. A request that began
// under the old one may make some anew, which the next policy's turn drops.
func (p *Proxy) forgetOld(pol *policy.Policy) {
	routes := map[string]bool{"": true} // of requests that no route is found for
	for _, r := range pol.Routes {
		routes[r.ID] = true
	}
	rules := map[string]bool{}
	for _, name := range pol.DryRuns() {
		rules[name] = true
	}
	lookups := map[string]bool{}
	for name := range pol.Lookups() {
		lookups[name] = true
	}
	m, l := p.metrics, p.lookups.metrics
	byRoute := []vector{m.requests, m.duration, m.unrecorded, m.limited}
	if p.localLimits != nil {
		byRoute = append(byRoute, p.localLimits)
	}
	for _, v := range byRoute {
		forget(v, "route", routes)
	}
	m.routes.keep(routes)
	forget(m.shadow, "rule", rules)
	forget(l.lookups, "lookup", lookups)
	forget(l.duration, "lookup", lookups)
}

// forget drops the series whose label has none of these values.
func forget(v vector, label string, stays map[string]bool) {
	alone := prometheus.NewRegistry()
	alone.MustRegister(v)
	families, _ := alone.Gather() // what is wrong with a series shows where metrics are read
	gone := map[string]bool{}
	for _, f := range families {
		for _, one := range f.Metric {
			for _, l := range one.Label {
				if l.GetName() == label && !stays[l.GetValue()] {
					gone[l.GetValue()] = true
				}
			}
		}
	}
	for value := range gone {
		v.DeletePartialMatch(prometheus.Labels{label: value})
	}
}
