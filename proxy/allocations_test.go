//go:build !race

// The race detector has pools forget on purpose.

package proxy

import (
	"bytes"
	"net/http"
	"reflect"
	"testing"
)

// TestAllocations pins how much memory is asked for on the way of an allowed
// request, in pieces: each one costs, and one more must be worth it. One that is
// saved is to be saved for good: the pin goes down with it.
func TestAllocations(t *testing.T) {
	p := stageGate(t)
	r, w := stageRequest(), discarded{http.Header{}}
	x := p.begin(w, r)
	d, act := p.decide(x)
	if !d.allow || act == nil {
		t.Fatalf("%+v", d)
	}
	f := p.upstreams["app"]
	var line bytes.Buffer
	p.o.Log = p.o.Log.Output(&line)
	serve := func(h http.Handler) func() {
		return func() {
			clear(w.header)
			h.ServeHTTP(w, r)
			if w.header["Content-Type"] == nil {
				t.Fatal("there was no answer")
			}
		}
	}
	bare := allocations(serve(bareProxy(t)))
	for _, stage := range []struct {
		name string
		run  func()
		pin  float64
	}{
		{"begin", func() { p.begin(w, r) }, pinBegin},
		{"canonicalise", func() {
			if _, err := canonicalise("GET", r.RequestURI, "photos.acme.dev:8443"); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"identify", func() { x.identify() }, 0},
		{"decide", func() { p.decide(x) }, 0},
		{"headers", func() { f.stageHeaders(x) }, pinHeaders},
		{"record", func() { _ = p.record(x, d) }, pinRecord},
		{"metrics", func() { p.metrics.count(x) }, 0},
		{"log line", func() { line.Reset(); p.log(x, false) }, 0},
		{"whole, beside a bare ReverseProxy's", serve(p), pinWhole + bare},
	} {
		switch n := allocations(stage.run); {
		case n > stage.pin:
			t.Errorf("%s: %v pieces of memory, at most %v are paid for", stage.name, n, stage.pin)
		case n < stage.pin:
			t.Errorf("%s: %v pieces of memory; the pin is at %v, and is to go down", stage.name, n, stage.pin)
		}
	}
	t.Logf("a bare ReverseProxy takes %v", bare)
}

// TestTheExchangesSize: Go gives memory in steps. What is one byte beyond this takes
// 256 bytes more of each request.
func TestTheExchangesSize(t *testing.T) {
	const step, header = 1536, 8
	if n := reflect.TypeFor[exchange]().Size(); n > step-header {
		t.Errorf("an exchange has %d bytes, and is to have %d at most", n, step-header)
	}
}

// What is left, in pieces.
const (
	pinBegin   = 4 // the exchange, its ids, and a context
	pinHeaders = 4 // the map
	pinRecord  = 2
	pinWhole   = 4 // beside a bare ReverseProxy's
)

// allocations is the least of a few looks: what else the process does counts, too.
func allocations(run func()) float64 {
	least := testing.AllocsPerRun(100, run)
	for range 4 {
		least = min(least, testing.AllocsPerRun(100, run))
	}
	return least
}
