package proxy

import (
	"crypto/elliptic"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// What it costs to tell an app who calls.

// BenchmarkAssertion is one signature with what is signed.
func BenchmarkAssertion(b *testing.B) {
	_, key := newKey(b, elliptic.P256())
	a := newAssertions(b, key, nil, time.Now)
	x := asserting(b, a, people()["rich"])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.sign(x, "app"); err != nil {
			b.Fatal(err)
		}
	}
}

// instantly is an app that answers at once and in the same process, so that
// what is left is ours.
type instantly struct{}

func (instantly) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"text/plain"}},
		Body: io.NopCloser(strings.NewReader("ok")), ContentLength: 2, Request: r,
	}, nil
}

// BenchmarkRequest is a request from header to answer, without the network, with
// and without an assertion: their difference is the assertion's price.
func BenchmarkRequest(b *testing.B) {
	_, key := newKey(b, elliptic.P256())
	for _, name := range []string{"plain", "asserted"} {
		var a *Assertions
		if name == "asserted" {
			a = newAssertions(b, key, nil, time.Now)
		}
		b.Run(name, func(b *testing.B) {
			p, err := New(Options{
				Name: "bench", Policy: loadPolicy(b, testPolicy), Authenticator: someone{people()["rich"]}, Recorder: nowhere{}, Assertions: a,
				Upstreams: map[string]Upstream{"app": {URL: mustURL(b, "http://127.0.0.1:1"), Transport: instantly{}, Headers: NativeHeaders(), KeepHost: true, Timeout: time.Minute, IdleTimeout: time.Minute}},
				Log:       zerolog.Nop(), Metrics: prometheus.NewRegistry(), Now: time.Now,
			})
			if err != nil {
				b.Fatal(err)
			}
			r := httptest.NewRequest("GET", "/private/a/b/c?x=1&y=2", nil)
			r.RequestURI = "/private/a/b/c?x=1&y=2"
			r.Header = http.Header{"Authorization": {"Bearer alice"}, "User-Agent": {"bench"}, "Accept": {"*/*"}, "Cookie": {"a=b"}}
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				p.ServeHTTP(w, r)
				if w.Code != 200 {
					b.Fatal(w.Code)
				}
			}
		})
	}
}

// BenchmarkSetHeaders is each preset for a caller of whom much is known.
func BenchmarkSetHeaders(b *testing.B) {
	esp := mustHeaders(b)(ESPHeaders(ESPPrefix))
	templates := mustHeaders(b)(HeaderMap(presetMap, false))
	x := asserting(b, nil, people()["rich"])
	for name, hs := range map[string]Headers{"native": NativeHeaders(), "oauth2-proxy": OAuth2ProxyHeaders(), "esp": esp, "map": templates} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h := make(http.Header, 16)
				hs.write(h, x)
				if len(h) == 0 {
					b.Fatal("nothing is told")
				}
			}
		})
	}
}

// BenchmarkDropCookies is what every request with cookies pays, whether the
// session cookie is among them or not.
func BenchmarkDropCookies(b *testing.B) {
	names := map[string]Authenticator{"__session": fakeTokens{}}
	for name, line := range map[string]string{
		"without":  "theme=dark; _ga=GA1.2.1234567890.1700000000; lang=de; csrf=" + strings.Repeat("c", 32),
		"with":     "theme=dark; _ga=GA1.2.1234567890.1700000000; __session=" + strings.Repeat("s", 900) + "; csrf=" + strings.Repeat("c", 32),
		"many":     strings.Repeat("a=b; ", 2000) + "__session=x",
		"no names": "theme=dark; lang=de",
	} {
		b.Run(name, func(b *testing.B) {
			set := names
			if name == "no names" {
				set = nil
			}
			lines := []string{line}
			h := http.Header{}
			b.ReportAllocs()
			for b.Loop() {
				h["Cookie"] = lines
				dropCookies(h, set)
			}
		})
	}
}

// BenchmarkTellFirst is what upstreams and the audit log are told of a caller whose
// token comes for the first time.
func BenchmarkTellFirst(b *testing.B) {
	p, x := benchExchange(b)
	if d, _ := p.decide(x); !d.allow {
		b.Fatal(d)
	}
	hs, h, first := NativeHeaders(), http.Header{}, *x.identity
	b.ReportAllocs()
	for b.Loop() {
		x.identity = first.Keep()
		x.input.Identity = x.identity
		hs.write(h, x)
		if err := x.putOnRecord(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
