package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func h2cServer(s *httptest.Server) {
	s.Config.Protocols = protocols(Options{H2C: true})
}

func TestH2C(t *testing.T) {
	app, _ := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		echo(w, r)
		w.Header().Set("Grpc-Status", "0")
	}, h2cServer)
	b := newBench(t, Options{H2C: true}, closedAddress(t), app)
	for range 10 {
		r := newRequest(t, "POST", "http", unknownLength{strings.NewReader("text")})
		r.Header.Set("Te", "trailers")
		res, err := b.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || string(body) != "HTTP/2.0 "+app+" text" || res.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("%q, %v, %v", body, res.Trailer, err)
		}
		res.Body.Close()
	}
	upgrade := newRequest(t, "GET", "http", nil)
	upgrade.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
	if _, err := b.do(upgrade); !errors.Is(err, errNoUpgrade) {
		t.Errorf("an upgrade by h2c: %v", err)
	}
	if n := b.value("failures_total", "broken"); n != 0 {
		t.Errorf("%v failures", n)
	}
	b.idle()

	old, _ := newApp(t, echo) // speaks HTTP/1.1 only
	b = newBench(t, Options{H2C: true}, old)
	if got, err := b.do(newRequest(t, "GET", "http", nil)); err == nil {
		t.Errorf("%q of an app without HTTP/2", got)
	}
	b.idle()
}

// TestALPN: HTTP/2 where the app agrees, and HTTP/1.1 for what leaves HTTP.
func TestALPN(t *testing.T) { both(t, testALPN) }

func testALPN(t *testing.T, netHTTP bool) {
	for _, h2 := range []bool{false, true} {
		app, server := newApp(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") == "" {
				echo(w, r)
				return
			}
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.WriteHeader(http.StatusSwitchingProtocols)
		}, func(s *httptest.Server) { s.EnableHTTP2, s.TLS = h2, &tls.Config{} })
		known := x509.NewCertPool()
		known.AddCert(server.Certificate())
		b := newBench(t, Options{NetHTTP: netHTTP, TLS: &tls.Config{RootCAs: known}}, app, app)
		want := "HTTP/1.1 "
		if h2 {
			want = "HTTP/2.0 "
		}
		for _, method := range []string{"GET", "POST", "GET", "DELETE"} {
			if got, err := b.do(newRequest(t, method, "https", nil)); err != nil || got != want+app+" " {
				t.Errorf("%s, h2 %v: %q, %v", method, h2, got, err)
			}
			upgrade := newRequest(t, "GET", "https", nil)
			upgrade.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
			res, err := b.RoundTrip(upgrade)
			if err != nil || res.StatusCode != http.StatusSwitchingProtocols || res.Proto != "HTTP/1.1" {
				t.Fatalf("h2 %v: %v, %v", h2, res, err)
			}
			res.Body.Close()
		}
		b.idle()
	}
}
