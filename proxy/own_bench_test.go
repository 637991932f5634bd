package proxy_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"sidegate/proxy"
	"sidegate/proxy/transport"
)

// ownTransport is how the gateway asks an app that is configured with no more
// than its URL.
func ownTransport(b *testing.B, app *url.URL) *transport.Transport {
	m, err := transport.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	t, err := transport.New(transport.Options{Name: "app", Addresses: []string{app.Host}, Metrics: m})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(t.CloseIdleConnections)
	return t
}

// BenchmarkProxyOwn is BenchmarkProxy with the gateway's own transport: x-bare is
// the gate with it, and x-transport a bare ReverseProxy with it, each against a
// bare ReverseProxy with net/http's.
func BenchmarkProxyOwn(b *testing.B) {
	c := startChild(b)
	bare := func(by http.RoundTripper) *httptest.Server {
		return httptest.NewServer(&httputil.ReverseProxy{
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(c.app); r.SetXForwarded() },
			Transport: by, BufferPool: pool{}, ErrorLog: log.New(io.Discard, "", 0),
		})
	}
	servers := []*httptest.Server{
		bare(benchTransport()),
		bare(ownTransport(b, c.app)),
		httptest.NewServer(benchGate(b, c.app, func(o *proxy.Options) {
			up := o.Upstreams["app"]
			up.Transport = ownTransport(b, c.app)
			o.Upstreams["app"] = up
		})),
	}
	token := benchToken()
	for _, s := range servers {
		defer s.Close()
		c.slice(s.Listener.Addr().String(), token) // connections, caches
	}
	for b.Loop() {
		var ratios [2][]float64
		for range benchRounds {
			plain := c.slice(servers[0].Listener.Addr().String(), token)
			for i := range ratios {
				ratios[i] = append(ratios[i], float64(c.slice(servers[i+1].Listener.Addr().String(), token))/float64(plain))
			}
		}
		for i, unit := range []string{"x-transport", "x-bare"} {
			slices.Sort(ratios[i])
			b.ReportMetric(ratios[i][len(ratios[i])/2], unit)
		}
	}
	b.ReportMetric(0, "ns/op")
}
