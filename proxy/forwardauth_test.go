package proxy

import (
	"bufio"
	"context"
	"crypto/elliptic"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/policy"
	"sidegate/storage/audit"
)

var dialects = []Dialect{DialectNginx, DialectTraefik, DialectEnvoy}

// asking is the same gateway at a forward-auth listener.
func (g *gate) asking(d Dialect) *gate {
	g.t.Helper()
	s := httptest.NewUnstartedServer(g.proxy.ForwardAuth(d))
	s.Config.DisableGeneralOptionsHandler = true
	s.Config.ErrorLog = quietLog
	s.Config.ConnContext = CountRequests
	s.Listener = StrictFraming(s.Listener, nil)
	s.Start()
	g.t.Cleanup(s.Close)
	other := *g
	other.url, other.address = s.URL, s.Listener.Addr().String()
	return &other
}

// question is what a proxy of this dialect sends for a request to gateway.test.
func (d Dialect) question(method, target, token string, lines ...string) string {
	lines = append([]string{"X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https"}, lines...)
	switch d {
	case DialectNginx:
		return request("GET", "/ask?x=..", token, append(lines, "X-Original-Method: "+method, "X-Original-URI: "+target)...)
	case DialectTraefik:
		lines = append(lines, "X-Forwarded-Method: "+method, "X-Forwarded-Uri: "+target, "X-Forwarded-Host: gateway.test")
		return strings.Replace(request("GET", "/", token, lines...), "Host: gateway.test", "Host: sidegate:9181", 1)
	}
	return request(method, target, token, lines...)
}

// forwarded is a gateway whose app must never hear of anything.
func forwarded(t *testing.T, change ...func(*Options)) *gate {
	t.Helper()
	g := newGate(t, newApp(t, func(http.ResponseWriter, *http.Request) { t.Error("the app was asked") }), change...)
	return g
}

func TestForwardAuthAllows(t *testing.T) {
	for _, d := range dialects {
		g := forwarded(t).asking(d)
		a := g.raw(d.question("GET", "/private/%61?q=secret", "alice", "User-Agent: curl/8"))
		o := g.outcome()
		if a.StatusCode != 200 || a.body != "" || a.Header.Get("Content-Length") != "0" || !ownHeader(a.Header, "no-store") {
			t.Fatalf("%s: %+v", d, a)
		}
		e := g.decision()
		for name, want := range map[string]string{
			"X-Sidegate-Uid": "alice", "X-Sidegate-Identity": "users", "X-Sidegate-Email": "alice@acme.dev", "X-Sidegate-Roles": "writer",
			"X-Request-Id": e.Record, "X-Sidegate-Upgrade": "", "Upgrade": "", "Connection": "",
			"X-Sidegate-Status": "", "Traceparent": "00-" + e.Request.Trace + a.Header.Get("Traceparent")[35:],
		} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", d, name, got, want)
			}
		}
		r := e.Request
		if e.Decision.Effect != "allow" || e.Decision.Route != "private" || r.Method != "GET" || r.Host != "gateway.test" || r.Path != "/private/a" ||
			fmt.Sprint(r.QueryKeys) != "[q]" || r.IP != "203.0.113.9" || r.UserAgent != "curl/8" || r.ForwardAuth != string(d) || e.Identity.UID != "alice" {
			t.Errorf("%s: recorded is %+v %+v", d, r, e.Decision)
		}
		if o.Record != e.Record || o.Outcome.Status != 200 || o.Outcome.Upstream != "" {
			t.Errorf("%s: the outcome is %+v", d, o.Outcome)
		}
		if a = g.raw(d.question("GET", "/public/a", "alice")); a.StatusCode != 200 || a.Header.Get("X-Sidegate-Uid") != "" {
			t.Errorf("%s: a public route: %+v", d, a)
		}
		g.outcome()
	}
}

// ingress-nginx says all of it in one URL.
func TestForwardAuthByURL(t *testing.T) {
	g := forwarded(t).asking(DialectNginx)
	a := g.raw(request("GET", "/ask", "alice", "X-Original-Method: POST", "X-Original-URL: HTTPS://Photos.acme.dev:8443/private/a?b=c", "X-Forwarded-Proto: http", "X-Forwarded-For: 203.0.113.9"))
	if r := g.decision().Request; a.StatusCode != 200 || r.Method != "POST" || r.Host != "photos.acme.dev" || r.Path != "/private/a" {
		t.Errorf("%+v, %+v", a, r)
	}
	g.outcome()
}

// TestForwardAuthDecidesLikeTheListener: for every target and every refusal the
// decision on a question is that on the request itself.
func TestForwardAuthDecidesLikeTheListener(t *testing.T) {
	var targetsOf []string
	for _, c := range targets {
		if strings.HasPrefix(c.target, "/") && !strings.Contains(c.target, " ") {
			targetsOf = append(targetsOf, c.target, "/public"+c.target, "/slash"+c.target, "/admin"+c.target)
		}
	}
	targetsOf = append(targetsOf, "/own/alice", "/own/bob", "/lost", "/nowhere", "/small", "/optional/a", "/private/a%2fb")
	g := newGate(t, newApp(t, func(http.ResponseWriter, *http.Request) {}))
	type decided struct{ effect, code, route, rule, path string }
	last := func() decided {
		e := g.decision()
		return decided{e.Decision.Effect, e.Decision.Code, e.Decision.Route, e.Decision.Rule, e.Request.Path}
	}
	for _, d := range dialects {
		asked := g.asking(d)
		for _, target := range targetsOf {
			for _, method := range []string{"GET", "DELETE", "get"} {
				for _, token := range []string{"", "alice", "bad", "away"} {
					if a := g.send(method, target, token); a.err != nil || a.Header.Get("X-Request-Id") == "" && a.Header.Get("Content-Length") == "" {
						continue // net/http refused the request line
					}
					g.outcome()
					want := last()
					a := asked.raw(d.question(method, target, token))
					if a.err != nil {
						t.Fatal(a.err)
					}
					o := g.outcome()
					if got := last(); got != want {
						t.Errorf("%s: %s %.80q as %q: %+v, and %+v on the listener", d, method, target, token, got, want)
					}
					if (o.Outcome.Status == 200) != (want.effect == "allow") || a.StatusCode != o.Outcome.Status {
						t.Errorf("%s: %s %.80q as %q is %s, and answered %d", d, method, target, token, want.effect, a.StatusCode)
					}
				}
			}
		}
	}
}

// TestForwardAuthRefusals: as on the public listener; nginx, which takes only
// 401 and 403, gets the real status beside.
func TestForwardAuthRefusals(t *testing.T) {
	for _, c := range []struct {
		status              int
		code                string
		method, path, token string
		line                string
	}{
		{401, codeNoToken, "GET", "/private/a", "", "X: y"},
		{401, codeInvalidToken, "GET", "/private/a", "bad", "X: y"},
		{403, codeNotAllowed, "GET", "/admin/a", "alice", "X: y"},
		{400, codeBadTarget, "GET", "/private/../a", "alice", "X: y"},
		{400, codeBadRequest, "GET", "/private/a", "alice", "Authorization: Bearer alice"},
		{404, codeNoRoute, "GET", "/nowhere", "alice", "X: y"},
		{405, codeMethod, "DELETE", "/private/a", "alice", "X: y"},
		{500, codeInternal, "GET", "/lost", "", "X: y"},
		{503, codeUnavailable, "GET", "/private/a", "away", "X: y"},
		{500, codeInternal, "GET", "/private/a", "panic", "X: y"},
	} {
		for _, d := range dialects {
			g := forwarded(t).asking(d)
			a := g.raw(d.question(c.method, c.path, c.token, c.line))
			o := g.outcome()
			status, real := c.status, ""
			if d == DialectNginx {
				real = fmt.Sprint(status)
				if status != 401 {
					status = 403
				}
			}
			if a.err != nil || a.StatusCode != status || !ownHeader(a.Header, "no-store") || a.Header.Get("X-Sidegate-Status") != real || !strings.Contains(a.body, `"code":"`+c.code+`"`) ||
				(a.Header.Get("WWW-Authenticate") == "") != (c.status != 401 && c.path != "/admin/a") {
				t.Errorf("%s: %s: %+v", d, c.code, a)
			}
			if e := g.decision(); o.Outcome.Status != status || e.Record != o.Record || e.Decision.Status != c.status || e.Request.ForwardAuth == "" {
				t.Errorf("%s: %s: recorded is %+v and %+v", d, c.code, e.Decision, o.Outcome)
			}
		}
	}
}

// A gRPC caller's refusal is 200 elsewhere, and 200 is a yes here.
func TestForwardAuthRefusesGRPCByStatus(t *testing.T) {
	for _, d := range dialects {
		g := forwarded(t).asking(d)
		for _, token := range []string{"", "bad", "bob", "away", "panic"} {
			a := g.raw(d.question("GET", "/admin/a", token, "Content-Type: application/grpc", "Te: trailers"))
			if g.outcome(); a.err != nil || a.StatusCode < 400 || !ownHeader(a.Header, "no-store") || a.Header.Get("Grpc-Status") != "" {
				t.Errorf("%s: %q: %+v", d, token, a)
			}
		}
	}
}

// TestForwardedTargetSpoof (CVE-2026-40575, CVE-2026-76835): of two targets one
// can be the caller's, and a target in another dialect's words is none.
func TestForwardedTargetSpoof(t *testing.T) {
	line := func(s ...string) []string { return append(s, "X-Forwarded-For: 203.0.113.9") }
	for d, questions := range map[Dialect][][]string{
		DialectNginx: {
			line(),
			line("X-Original-Method: GET"),
			line("X-Original-URI: /public/a"),
			line("X-Original-Method: GET", "X-Original-URI:"),
			line("X-Original-Method:", "X-Original-URI: /public/a"),
			line("X-Original-Method: GET", "X-Original-URI: /public/a", "X-Original-URI: /private/a"),
			line("X-Original-Method: GET", "X-Original-Method: GET", "X-Original-URI: /public/a"),
			line("X-Original-Method: GET", "X-Original-URI: /public/a", "X-Original-URL: http://gateway.test/private/a"),
			line("X-Original-Method: GET", "X-Original-URL: http://gateway.test/public/a", "X-Original-URL: http://gateway.test/public/a"),
			line("X-Original-Method: GET", "X-Original-URL: /public/a"),
			line("X-Original-Method: GET", "X-Original-URL: ftp://gateway.test/public/a"),
			line("X-Original-Method: GET", "X-Original-URL: http://u@gateway.test/public/a"),
			line("X-Original-Method: GET", "X-Original-URL: http:///public/a"),
			line("X-Original-Method: GET", "X-Original-URL: http://gateway.test"),
			line("X-Original-Method: GET", "X-Original-URI: http://gateway.test/public/a"),
			line("X-Original-Method: GET", "X-Original-URI: public/a"),
			line("X-Original-Method: GET", "X-Original-URI: *"),
			line("X-Original-Method: GET", "X-Original-URI: /public/a", "X-Forwarded-Proto: http", "X-Forwarded-Proto: https"),
			line("X-Forwarded-Method: GET", "X-Forwarded-Uri: /public/a", "X-Forwarded-Host: gateway.test"),
			line("X_Original_Method: GET", "X_Original_URI: /public/a"),
		},
		DialectTraefik: {
			line(),
			line("X-Forwarded-Method: GET", "X-Forwarded-Uri: /public/a"),
			line("X-Forwarded-Method: GET", "X-Forwarded-Host: gateway.test"),
			line("X-Forwarded-Uri: /public/a", "X-Forwarded-Host: gateway.test"),
			line("X-Forwarded-Method: GET", "X-Forwarded-Uri: /public/a", "X-Forwarded-Uri: /private/a", "X-Forwarded-Host: gateway.test"),
			line("X-Forwarded-Method: GET", "X-Forwarded-Method: POST", "X-Forwarded-Uri: /public/a", "X-Forwarded-Host: gateway.test"),
			line("X-Forwarded-Method: GET", "X-Forwarded-Uri: /public/a", "X-Forwarded-Host: gateway.test", "X-Forwarded-Host: gateway.test"),
			line("X-Forwarded-Method: GET", "X-Forwarded-Uri: http://gateway.test/public/a", "X-Forwarded-Host: gateway.test"),
			line("X-Original-Method: GET", "X-Original-URI: /public/a"),
			line("X_Forwarded_Method: GET", "X_Forwarded_Uri: /public/a", "X_Forwarded_Host: gateway.test"),
		},
		Dialect("other"): {
			line("X-Original-Method: GET", "X-Original-URI: /public/a", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /public/a", "X-Forwarded-Host: gateway.test"),
		},
	} {
		g := forwarded(t).asking(d)
		for _, lines := range questions {
			a := g.raw(request("GET", "/public/a", "alice", lines...))
			g.outcome()
			real := a.Header.Get("X-Sidegate-Status")
			if d != DialectNginx {
				real = fmt.Sprint(a.StatusCode)
			}
			if e := g.decision(); real != "400" || e.Decision.Effect != "deny" || e.Decision.Code != codeBadRequest && e.Decision.Code != codeBadTarget {
				t.Errorf("%s: %v: %+v", d, lines, a)
			}
		}
	}
}

// The words of one dialect are the caller's business in another.
func TestForwardAuthKnowsItsOwnWordsOnly(t *testing.T) {
	others := []string{"X-Original-Method: DELETE", "X-Original-URI: /nowhere", "X-Original-URL: http://evil.test/nowhere", "X-Forwarded-Method: DELETE",
		"X-Forwarded-Uri: /nowhere", "X-Forwarded-Host: evil.test", "X-Rewrite-URL: /nowhere", "X-HTTP-Method-Override: DELETE", "Forwarded: host=evil.test"}
	for _, d := range dialects {
		g := forwarded(t).asking(d)
		a := g.raw(d.question("GET", "/private/a", "alice", slices.DeleteFunc(slices.Clone(others), func(l string) bool {
			return d == DialectNginx && strings.HasPrefix(l, "X-Original") || d == DialectTraefik && (strings.HasPrefix(l, "X-Forwarded-M") || strings.HasPrefix(l, "X-Forwarded-U") || strings.HasPrefix(l, "X-Forwarded-H"))
		})...))
		g.outcome()
		if r := g.decision().Request; a.StatusCode != 200 || r.Path != "/private/a" || r.Method != "GET" || r.Host != "gateway.test" {
			t.Errorf("%s: %+v, %+v", d, a, r)
		}
	}
}

// What the gateway serves itself would go to an app behind another proxy.
func TestForwardAuthServesNothing(t *testing.T) {
	store, bucket, uploads := withUploads()
	catchAll := loadPolicy(t, testPolicy+"  - {id: rest, path: \"/{rest...}\", methods: [GET], allow: public, upstream: app}\n")
	for _, d := range dialects {
		g := forwarded(t, uploads, func(o *Options) { o.Policy, o.Assertions = catchAll, testAssertions(t) }).asking(d)
		for _, q := range []string{
			d.question("POST", "/v1/uploads/presign", "alice"), d.question("POST", "/v1/uploads/presign", ""),
			d.question("GET", "/v1/files/users/alice/a/download", "alice"),
			d.question("POST", "/v1/uploads/"+strings.Repeat("0", 32)+"/confirm", "alice"), d.question("GET", "/.sidegate/jwks.json", ""),
		} {
			a := g.raw(q)
			g.outcome()
			if e := g.decision(); a.StatusCode < 403 || e.Decision.Status != 404 || e.Decision.Code != codeNoRoute {
				t.Errorf("%s: %.60q: %+v, %+v", d, q, a, e.Decision)
			}
		}
	}
	if store.count() != 0 || bucket.signed != 0 {
		t.Error("something was signed")
	}
}

func testAssertions(t testing.TB) *Assertions {
	t.Helper()
	_, pem := newKey(t, elliptic.P256())
	a, err := NewAssertions("photos", pem, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestForwardAuthTellsWhoCalls(t *testing.T) {
	custom, err := HeaderMap(map[string]string{"X-Who": "${auth.uid}", "X-Signed": "${assertion}"}, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		headers Headers
		names   []string
	}{
		{NativeHeaders(), []string{"X-Sidegate-Uid", "X-Sidegate-Assertion"}},
		{OAuth2ProxyHeaders(), []string{"X-Forwarded-User", "X-Forwarded-Email"}},
		{custom, []string{"X-Who", "X-Signed"}},
	} {
		for _, d := range dialects {
			g := forwarded(t, upstream(func(u *Upstream) { u.Headers = c.headers }), func(o *Options) { o.Assertions = testAssertions(t) }).asking(d)
			a := g.raw(d.question("GET", "/private/a", "alice"))
			g.outcome()
			for _, name := range c.names {
				if len(a.Header[name]) != 1 {
					t.Errorf("%s: %s: %v", c.headers.Preset, name, a.Header)
				}
			}
			// Callers who cannot be told are refused here, too.
			if c.headers.Preset == "oauth2-proxy" {
				if a = g.raw(d.question("GET", "/private/a", "strange")); a.StatusCode != 403 {
					t.Errorf("%s: %+v", d, a)
				}
				g.outcome()
			}
		}
	}
}

// TestForwardAuthUpgrade (nginx ticket 1472): an Upgrade that the public listener
// would not pass on is refused, since another proxy might pass it on.
func TestForwardAuthUpgrade(t *testing.T) {
	ws := []string{"Upgrade: websocket", "Connection: Upgrade"}
	key := "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
	for _, c := range []struct {
		method, path string
		lines        []string
		status       int
	}{
		{"GET", "/socket", ws, 200},
		{"GET", "/socket", []string{"Upgrade: WebSocket"}, 200}, // Connection is between the proxies
		{"GET", "/socket", []string{key}, 200},                  // as Traefik shows it
		{"GET", "/private/a", ws, 400},
		{"GET", "/private/a", []string{"Upgrade: websocket"}, 400},
		{"GET", "/private/a", []string{key}, 400},
		{"GET", "/private/a", []string{"Sec-WebSocket-Version: 13"}, 400},
		{"POST", "/private/a", ws, 400},
		{"GET", "/private/a", []string{"Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AA"}, 400},
		{"GET", "/socket", []string{"Upgrade: h2c"}, 400},
		{"GET", "/socket", []string{"Upgrade: websocket, h2c"}, 400},
		{"GET", "/socket", []string{"Upgrade: websocket", "Upgrade: websocket"}, 400},
		{"GET", "/socket", []string{"Upgrade:"}, 400},
		{"GET", "/public/a", []string{"Upgrade: TLS/1.0"}, 400},
	} {
		for _, d := range dialects {
			g := forwarded(t).asking(d)
			a := g.raw(d.question(c.method, c.path, "alice", c.lines...))
			g.outcome()
			status, upgrade := g.decision().Decision.Status, ""
			if status == 0 {
				status, upgrade = 200, "websocket"
			}
			if status != c.status || a.Header.Get("X-Sidegate-Upgrade") != upgrade || (a.StatusCode == 200) != (c.status == 200) ||
				d == DialectTraefik && a.Header.Get("Upgrade") != upgrade {
				t.Errorf("%s: %s %s %v: %d, %+v", d, c.method, c.path, c.lines, status, a)
			}
		}
	}
	// Behind a proxy that says it in the scheme.
	g := forwarded(t).asking(DialectTraefik)
	for path, status := range map[string]int{"/socket": 200, "/private/a": 400} {
		a := g.raw(strings.Replace(DialectTraefik.question("GET", path, "alice"), "Proto: https", "Proto: wss", 1))
		if g.outcome(); a.StatusCode != status {
			t.Errorf("%s: %+v", path, a)
		}
	}
}

// TestForwardAuthCookies: a session cookie goes by the method, Origin, host and
// scheme of the request, and not by those of the question.
func TestForwardAuthCookies(t *testing.T) {
	for _, c := range []struct {
		method string
		lines  []string
		status int
	}{
		{"GET", nil, 200},
		{"POST", nil, 403},
		{"POST", []string{"Origin: https://gateway.test"}, 200},
		{"POST", []string{"Origin: http://gateway.test"}, 403},
		{"POST", []string{"Origin: https://evil.test"}, 403},
		{"POST", []string{"Origin: http://sidegate:9181"}, 403},
		{"POST", []string{"Sec-Fetch-Site: same-origin"}, 200},
		{"POST", []string{"Sec-Fetch-Site: cross-site", "Origin: https://gateway.test"}, 403},
		{"GET", []string{"Sec-WebSocket-Key: x"}, 403},
	} {
		for _, d := range dialects {
			g, _ := cookieGate(t, whoApp(t))
			g = g.asking(d)
			path := "/private/a"
			if len(c.lines) > 0 && strings.HasPrefix(c.lines[0], "Sec-WebSocket") {
				path = "/socket"
			}
			a := g.raw(d.question(c.method, path, "", append(c.lines, "Cookie: __session=s-alice")...))
			g.outcome()
			if a.StatusCode != c.status || c.status == 200 && a.Header.Get("X-Sidegate-Uid") != "alice" {
				t.Errorf("%s: %s %v: %+v", d, c.method, c.lines, a)
			}
		}
	}
}

// TestForwardAuthAddress: the other proxy is one hop, and its word is needed.
func TestForwardAuthAddress(t *testing.T) {
	trusted := func(o *Options) { o.Trusted.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{nil, ""},
		{[]string{"X-Forwarded-For:"}, ""},
		{[]string{"X-Forwarded-For: unknown"}, ""},
		{[]string{"X-Forwarded-For: 203.0.113.9"}, "203.0.113.9"},
		{[]string{"X-Forwarded-For: 198.51.100.1, 203.0.113.9"}, "203.0.113.9"},
		{[]string{"X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 203.0.113.9"}, "203.0.113.9"},
		{[]string{"X-Forwarded-For: 203.0.113.9, 10.1.2.3"}, "203.0.113.9"},
		{[]string{"X-Forwarded-For: 203.0.113.9, unknown"}, ""},
		{[]string{"X-Forwarded-For: evil, 10.1.2.3"}, "10.1.2.3"},
		{[]string{"X-Forwarded-For: [2001:db8::1]:77"}, "2001:db8::1"},
	} {
		g := forwarded(t, trusted).asking(DialectNginx)
		a := g.raw(request("GET", "/", "alice", append(c.lines, "X-Original-Method: GET", "X-Original-URI: /private/a")...))
		if g.outcome(); a.StatusCode != 200 || g.decision().Request.IP != c.want {
			t.Errorf("%v: %q, want %q", c.lines, g.decision().Request.IP, c.want)
		}
	}
}

// Where the address is unknown, nothing that goes by it lets anybody in.
func TestForwardAuthUnknownAddress(t *testing.T) {
	p := loadPolicy(t, `version: sidegate-policy/v1
name: test
identities: [users]
routes:
  - {id: near, path: /near, methods: [GET], upstream: app, allow: [{id: near, who: [users], ip: [127.0.0.0/8, "::1/128"]}]}
  - {id: few, path: /few, methods: [GET], upstream: app, allow: public, limit: {per: ip, rate: 100/m}}
`)
	g := forwarded(t, func(o *Options) { o.Policy = p }).asking(DialectNginx)
	for _, path := range []string{"/near", "/few"} {
		a := g.raw(request("GET", "/", "alice", "X-Original-Method: GET", "X-Original-URI: "+path))
		if g.outcome(); a.StatusCode != 403 {
			t.Errorf("%s: %+v", path, a)
		}
	}
}

// TestForwardAuthEnvoyRemoves (CVE-2026-30851 is of a proxy that left the
// caller's header where the answer had none): Envoy is told which to drop.
func TestForwardAuthEnvoyRemoves(t *testing.T) {
	custom, err := HeaderMap(map[string]string{"X-Badge": "${auth.uid}"}, false)
	if err != nil {
		t.Fatal(err)
	}
	g := forwarded(t, func(o *Options) {
		o.Upstreams["other"] = Upstream{URL: o.Upstreams["app"].URL, Timeout: 1, IdleTimeout: 1, Headers: custom, Transport: http.DefaultTransport}
	}).asking(DialectEnvoy)
	var lines []string
	for _, name := range hostile {
		for i, s := range spellings(name) {
			lines = append(lines, fmt.Sprintf("%s: forged%d", s, i))
		}
	}
	lines = append(lines, "X-Badge: me", "x_badge: me", "X-Envoy-Internal: true", "Accept: */*", "X-Harmless: 1")
	for start := 0; start < len(lines); start += 60 { // a header has a bound
		part := lines[start:min(start+60, len(lines))]
		for _, token := range []string{"alice", ""} {
			a := g.raw(DialectEnvoy.question("GET", "/optional/a", token, part...))
			g.outcome()
			if a.StatusCode != 200 {
				t.Fatalf("%+v", a)
			}
			removed := strings.Split(a.Header.Get("X-Envoy-Auth-Headers-To-Remove"), ",")
			for _, line := range part {
				name, _, _ := strings.Cut(line, ":")
				replaced := a.Header[http.CanonicalHeaderKey(name)] != nil
				gone := slices.Contains(removed, strings.ToLower(name))
				if want := mustStrip(name, g.proxy.reserved) && !replaced && !ofEnvoy(name); gone != want {
					t.Errorf("%s: removed %v, replaced %v", name, gone, replaced)
				}
			}
			// Those that Envoy did not show, too.
			for _, name := range []string{"x-sidegate-tenant", "x-sidegate-assertion", "remote-user", "x-badge", "x-forwarded-user", "x-endpoint-api-userinfo"} {
				if !slices.Contains(removed, name) {
					t.Errorf("%s is not removed", name)
				}
			}
			if slices.Contains(removed, "x-sidegate-uid") != (token == "") {
				t.Errorf("as %q removed are %v", token, removed)
			}
		}
	}
}

// TestNginxExampleNamesEveryHeader: nginx can only be told whole names, and
// examples/nginx-forward-auth tells it all of those that are stripped here.
func TestNginxExampleNamesEveryHeader(t *testing.T) {
	text, err := os.ReadFile("../examples/nginx-forward-auth/to-app.conf")
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "proxy_set_header" {
			set[strings.ToLower(f[1])] = true
		}
	}
	for name := range stripped {
		if !set[name] {
			t.Errorf("%s is not in it", name)
		}
	}
	for _, name := range append(hostile, identityHeaders...) {
		if !set[strings.ToLower(name)] && name != "X-Sidegate-Anything" {
			t.Errorf("%s is not in it", name)
		}
	}
}

// The body of a question is nobody's business: it delays nothing.
func TestForwardAuthIgnoresBodies(t *testing.T) {
	for _, d := range dialects {
		g := forwarded(t).asking(d)
		for _, token := range []string{"alice", ""} {
			conn := g.dial()
			io.WriteString(conn, d.question("POST", "/private/a", token, "Content-Length: 100000000000"))
			a := g.read(bufio.NewReader(conn), "POST") // returns before the body ever comes
			g.outcome()
			if a.err != nil || (a.StatusCode == 200) != (token != "") || !a.Close {
				t.Errorf("%s: %+v", d, a)
			}
			conn.Close()
		}
		a := g.raw(d.question("POST", "/private/a", "alice", "Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n")
		if g.outcome(); a.StatusCode != 200 {
			t.Errorf("%s: %+v", d, a)
		}
	}
}

func TestForwardAuthPreflights(t *testing.T) {
	for _, c := range []struct {
		cors   *CORS
		status int
	}{{nil, 405}, {answering(), 405}, {&CORS{Upstream: true}, 0}} {
		for _, d := range dialects {
			g := corsGate(t, c.cors).asking(d)
			a := g.raw(d.question("OPTIONS", "/private/a", "", asked(page, "GET")...))
			g.outcome()
			if e := g.decision(); e.Decision.Status != c.status || (a.StatusCode == 200) != (c.status == 0) || a.Header.Get("X-Sidegate-Uid") != "" {
				t.Errorf("%s: %+v: %+v", d, a, e.Decision)
			}
		}
	}
	// A refusal that reaches a page may be read by it.
	a := corsGate(t, answering()).asking(DialectTraefik).raw(DialectTraefik.question("GET", "/private/a", "", "Origin: "+page))
	if a.StatusCode != 401 || a.Header.Get("Access-Control-Allow-Origin") != page {
		t.Errorf("%+v", a)
	}
}

// Nobody is let in whose decision is not on record.
func TestForwardAuthNeedsTheRecord(t *testing.T) {
	for _, d := range dialects {
		g := forwarded(t).asking(d)
		for _, fail := range []func(*tape){func(r *tape) { r.before = errRecord }, func(r *tape) { r.before, r.after = nil, errRecord }, func(r *tape) { r.after, r.panics = nil, true }} {
			g.tape.set(fail)
			a := g.raw(d.question("GET", "/private/a", "alice"))
			if a.err == nil && (a.StatusCode < 400 || a.Header.Get("X-Sidegate-Uid") != "") {
				t.Errorf("%s: %+v", d, a)
			}
			select {
			case <-g.tape.outcomes:
			default:
			}
		}
	}
}

// A proxy that hangs up waits for nothing, and the record says so.
func TestForwardAuthProxyLeaves(t *testing.T) {
	h := hanging{make(chan struct{}, 1)}
	g := forwarded(t, func(o *Options) { o.Authenticator = h }).asking(DialectNginx)
	conn := g.dial()
	io.WriteString(conn, DialectNginx.question("GET", "/private/a", "alice"))
	<-h.asked
	conn.Close()
	if o := g.outcome(); o.Outcome.Error != "client_gone" || o.Outcome.Status != 0 {
		t.Errorf("%+v", o.Outcome)
	}
}

// memory is a Recorder that keeps the last decision.
type memory struct{ last *audit.Event }

func (m *memory) Record(_ context.Context, e *audit.Event, _ audit.Survive) error {
	m.last = copyOf(e)
	return nil
}
func (m *memory) Note(*audit.Event) error { return nil }

// FuzzForwardAuth: whatever is asked, what is decided is what ServeHTTP decides
// for the request that the other proxy said it holds, and an allowed path is the
// one decoding of what it said.
func FuzzForwardAuth(f *testing.F) {
	for _, c := range targets {
		f.Add(uint8(0), "GET", c.target, "gateway.test", "https", "", "alice")
	}
	f.Add(uint8(1), "POST", "/private/%61?x", "A.b:80", "wss", "websocket", "alice")
	f.Add(uint8(2), "GET", "/socket", "h", "", "websocket", "bob")
	f.Add(uint8(3), "GET", "/public/a", "h", "ftp", "h2c", "")
	var reached atomic.Bool
	transport := roundTrip(func(r *http.Request) (*http.Response, error) {
		reached.Store(true)
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: r, ProtoMajor: 1, ProtoMinor: 1}, nil
	})
	tape := &memory{}
	g := newGate(f, "http://app.test", func(o *Options) { o.Recorder = tape }, upstream(func(u *Upstream) { u.Transport = transport }))
	f.Fuzz(func(t *testing.T, kind uint8, method, uri, host, proto, upgrade, token string) {
		d := DialectNginx
		h := http.Header{"X-Forwarded-For": {"203.0.113.9"}}
		set := func(name, value string) {
			if value != "" {
				h[name] = []string{value}
			}
		}
		set("X-Forwarded-Proto", proto)
		set("Upgrade", upgrade)
		if token != "" {
			set("Authorization", "Bearer "+token)
		}
		if kind%4 == 1 && strings.ContainsAny(host, "/?#@") {
			return // no host of a URL
		}
		question := &http.Request{Method: "GET", RequestURI: "/ask", Host: host, Header: h, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, RemoteAddr: "127.0.0.1:9"}
		switch kind % 4 {
		case 0:
			set("X-Original-Method", method)
			set("X-Original-Uri", uri)
		case 1:
			set("X-Original-Method", method)
			set("X-Original-Url", "https://"+host+uri)
		case 2:
			d = DialectTraefik
			set("X-Forwarded-Method", method)
			set("X-Forwarded-Uri", uri)
			set("X-Forwarded-Host", host)
		case 3:
			d = DialectEnvoy
			question.Method, question.RequestURI = method, uri
		}
		tape.last = nil
		answer := httptest.NewRecorder()
		g.proxy.ForwardAuth(d).ServeHTTP(answer, question)
		asked := tape.last
		if asked == nil || reached.Load() {
			t.Fatal("not on record, or the app was asked")
		}
		if allowed := answer.Code == 200; allowed != (asked.Decision.Effect == "allow") || answer.Code < 300 && !allowed {
			t.Fatalf("answered %d, decided %+v", answer.Code, asked.Decision)
		}
		if asked.Decision.Effect != "allow" {
			return
		}
		want, err := canonicalise(method, uri, host)
		if err != nil || asked.Request.Path != want.path || asked.Request.Host != want.host || asked.Request.Method != method {
			t.Fatalf("%q %q at %q: allowed as %+v (%v)", method, uri, host, asked.Request, err)
		}
		direct := &http.Request{Method: method, RequestURI: uri, Host: host, Header: http.Header{}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, RemoteAddr: "203.0.113.9:9", URL: &url.URL{}}
		if token != "" {
			direct.Header.Set("Authorization", "Bearer "+token)
		}
		if scheme := strings.ToLower(proto); upgrade != "" || kind%4 != 1 && (scheme == "ws" || scheme == "wss") {
			direct.Header.Set("Upgrade", "websocket")
			direct.Header.Set("Connection", "Upgrade")
		}
		j := g.proxy.Judge(direct.WithContext(t.Context()), Given{Limits: policy.NewLimiter(0)})
		if !j.Allow || j.Rule != asked.Decision.Rule || j.Input.Path != asked.Request.Path {
			t.Fatalf("%q %q at %q: allowed when asked for, and not by itself: %+v", method, uri, host, j)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
