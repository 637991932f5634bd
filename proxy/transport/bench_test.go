package transport

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
)

// BenchmarkRoundTrip compares within one run what a request costs by net/http
// alone, by one address, and by several.
func BenchmarkRoundTrip(b *testing.B) {
	app, _ := newApp(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	one := newBench(b, Options{}, app)
	for _, by := range []struct {
		name string
		http.RoundTripper
	}{
		{"net/http", one.base},
		{"one address", one},
		{"three addresses", newBench(b, Options{}, app, app, app)},
		{"three addresses, least busy", newBench(b, Options{LeastBusy: true}, app, app, app)},
	} {
		b.Run(by.name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r := &http.Request{Method: "GET", URL: &url.URL{Scheme: "http", Host: app, Path: "/"}, Header: http.Header{}}
					res, err := by.RoundTrip(r.WithContext(b.Context()))
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			})
		})
	}
}

// BenchmarkPick is the choice alone.
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{2, 8, MaxAddresses} {
		for _, leastBusy := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/least_busy=%v", n, leastBusy), func(b *testing.B) {
				balancer, _ := testBalancer(n, leastBusy)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						balancer.ask(answered, 0)
					}
				})
			})
		}
	}
}
