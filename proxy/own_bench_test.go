package proxy_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"slices"
	"testing"

	"sidegate/proxy"
)

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
		bare(ownTransport(b, c.app.Host, false)),
		benchServer(benchGate(b, c.app, func(o *proxy.Options) {
			up := o.Upstreams["app"]
			up.Transport = ownTransport(b, c.app.Host, false)
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
