package proxy_test

import (
	"context"
	"net/http/httptest"
	"slices"
	"testing"

	"sidegate/proxy"
	"sidegate/proxy/otlp"
)

// BenchmarkProxyTraced is CPU per proxied request with traces, in the terms of
// BenchmarkProxy: x-none is the gateway that traces, and keeps none, against one
// that does not trace; x-tenth keeps one in ten, x-all keeps all. The collector is
// the other process.
func BenchmarkProxyTraced(b *testing.B) {
	c := startChild(b)
	e, err := otlp.Open(otlp.Options{URL: c.app.JoinPath("v1/traces"), Name: "bench", Version: "v0", Instance: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Close(context.Background()) })
	gates := []*httptest.Server{httptest.NewServer(benchGate(b, c.app))}
	for _, share := range []float64{0, 0.1, 1} {
		gates = append(gates, httptest.NewServer(benchGate(b, c.app, func(o *proxy.Options) { o.Tracer, o.Sample = e.Tracer(), share })))
	}
	token := benchToken()
	for _, s := range gates {
		defer s.Close()
		c.slice(s.Listener.Addr().String(), token)
	}
	for b.Loop() {
		ratios := make([][]float64, len(gates))
		for range benchRounds {
			off := c.slice(gates[0].Listener.Addr().String(), token)
			for i := 1; i < len(gates); i++ {
				ratios[i] = append(ratios[i], float64(c.slice(gates[i].Listener.Addr().String(), token))/float64(off))
			}
		}
		for i, name := range []string{"", "x-none", "x-tenth", "x-all"} {
			if i > 0 {
				slices.Sort(ratios[i])
				b.ReportMetric(ratios[i][benchRounds/2], name)
			}
		}
	}
	s := e.Stats()
	if s.Exported == 0 {
		b.Fatalf("no span was taken: %+v", s)
	}
	b.ReportMetric(float64(s.Dropped)/float64(s.Exported+s.Dropped), "dropped")
	b.ReportMetric(0, "ns/op")
}
