package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// byTransport has the gate ask these addresses as a gateway does.
func byTransport(t *testing.T, addresses ...string) func(*Upstream) {
	t.Helper()
	tr := ownTransport(t, prometheus.NewRegistry(), addresses...)
	return func(u *Upstream) { u.Transport, u.URL = tr, mustURL(t, "http://placeholder") }
}

func says(a answer, code string) bool { return strings.Contains(a.body, `"code":"`+code+`"`) }

// TestMaxRequests: an answer that has not ended takes a place, and whoever finds
// none is told so, on record, without the app being asked.
func TestMaxRequests(t *testing.T) {
	hold := make(chan struct{})
	app := newApp(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		<-hold
	})
	g := newGate(t, app, upstream(func(u *Upstream) { u.MaxRequests = 2 }))
	var begun []*http.Response
	for range 2 {
		res, err := http.Get(g.server.URL + "/public/a")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		begun = append(begun, res)
	}
	for range 3 {
		a := g.send("GET", "/public/a", "")
		if a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || !says(a, codeUnavailable) {
			t.Errorf("%d %v %s", a.StatusCode, a.Header, a.body)
		}
		if o := g.outcome().Outcome; o.Status != 503 || o.Error != codeUnavailable {
			t.Errorf("on record: %+v", o)
		}
	}
	close(hold)
	for _, res := range begun {
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "begun" {
			t.Errorf("%q, %v", body, err)
		}
		g.outcome()
	}
	if a := g.send("GET", "/public/a", ""); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if n := g.proxy.upstreams["app"].busy.Load(); n != 0 {
		t.Errorf("%d places are taken", n)
	}
}

// TestReachedTooLateOrNever: 502 and 504 are told apart, also where several
// addresses are asked, and a Host that is the upstream's is that of the address.
func TestReachedTooLateOrNever(t *testing.T) {
	app := mustURL(t, newApp(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })).Host
	silent := mustURL(t, newApp(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })).Host
	const nobody = "127.0.0.1:1" // tcpmux, which nothing here serves
	for _, tt := range []struct {
		addresses []string
		status    int
		code      string
	}{
		{[]string{nobody}, 502, codeUpstreamFailed},
		{[]string{nobody, nobody}, 502, codeUpstreamFailed},
		{[]string{silent}, 504, codeUpstreamTimeout},
		{[]string{silent, silent}, 504, codeUpstreamTimeout},
		{[]string{nobody, app}, 200, ""},
	} {
		g := newGate(t, "http://placeholder", upstream(byTransport(t, tt.addresses...)), upstream(func(u *Upstream) {
			u.KeepHost = false
			if tt.status == 504 {
				u.Timeout = time.Millisecond
			}
		}))
		a := g.send("POST", "/public/a", "")
		if a.StatusCode != tt.status || tt.status != 200 && !says(a, tt.code) || tt.status == 200 && a.body != app {
			t.Errorf("%v: %d %s", tt.addresses, a.StatusCode, a.body)
		}
		if o := g.outcome().Outcome; o.Status != tt.status || o.Error != tt.code {
			t.Errorf("%v, on record: %+v", tt.addresses, o)
		}
	}
}
