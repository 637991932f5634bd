package proxy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sidegate/policy"
)

// hostile are names that no caller's header may have when it reaches an app:
// every one of docs/http.md, families by an example.
var hostile = []string{
	"X-Sidegate-Uid", "X-Sidegate-Identity", "X-Sidegate-Email", "X-Sidegate-Roles", "X-Sidegate-Actor", "X-Sidegate-Tenant",
	"X-Sidegate-Claims", "X-Sidegate-Assertion", "X-Sidegate-Response", "X-Sidegate-Anything",
	"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token",
	"X-Forwarded-Uri", "X-Forwarded-Prefix", "X-Forwarded-Method", "X-Forwarded-Server", "X-Forwarded-Port", "X-Forwarded-Tls-Client-Cert",
	"X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Token", "X-Auth-User",
	"X-User-Id", "X-User-Email", "X-Goog-Authenticated-User-Id", "X-Goog-Authenticated-User-Email", "X-Goog-Iap-Jwt-Assertion",
	"X-Endpoint-Api-Userinfo", "X-Apigateway-Api-Userinfo", "Remote-User", "Remote-Groups", "Remote-Name", "Remote-Email",
	"X-Remote-User", "X-Remote-Group", "X-Pomerium-Jwt-Assertion", "X-Pomerium-Claim-Email", "X-Authentik-Username", "X-Authentik-Jwt",
	"X-Amzn-Oidc-Data", "X-Amzn-Oidc-Identity", "Teleport-Jwt-Assertion", "X-Serverless-Authorization",
	"X-Original-Url", "X-Rewrite-Url", "X-Http-Method", "X-Http-Method-Override", "X-Method-Override",
	"Forwarded", "Tracestate", "X-Real-Ip", "True-Client-Ip", "X-Client-Ip", "Cf-Connecting-Ip",
}

// spellings are what servers are known to read as the same name.
func spellings(name string) []string {
	return []string{
		name, strings.ToLower(name), strings.ToUpper(name),
		strings.ReplaceAll(name, "-", "_"), strings.ToLower(strings.ReplaceAll(name, "-", "_")),
		strings.ReplaceAll(name, "-", "."), strings.Replace(name, "-", "_", 1),
		strings.ReplaceAll(name, "-", "!"), strings.ReplaceAll(name, "-", "~"), // lighttpd's CGI
	}
}

// lenientApp answers with every header line that it got, as a careless server
// reads them: any byte of a name that is no letter or digit is a dash.
func lenientApp(t testing.TB) string {
	return rawApp(t, func(conn net.Conn, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		var b strings.Builder
		for name, values := range r.Header {
			for _, v := range values {
				b.WriteString(careless(name) + ": " + v + "\n")
			}
		}
		for name, values := range r.Trailer {
			b.WriteString("trailer " + careless(name) + ": " + strings.Join(values, ",") + "\n")
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", b.Len(), b.String())
	})
}

func careless(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			return c
		}
		return '-'
	}, strings.ToLower(name))
}

func TestStripList(t *testing.T) {
	g := newGate(t, lenientApp(t))
	for _, name := range hostile {
		for _, target := range []string{"/public/a", "/optional/a", "/private/a"} {
			var lines []string
			for _, s := range spellings(name) {
				lines = append(lines, s+": evil")
			}
			a := g.send("GET", target, map[string]string{"/private/a": "alice"}[target], lines...)
			if a.err != nil || a.StatusCode != 200 || strings.Contains(a.body, "evil") {
				t.Errorf("%s %s: %+v\n%s", target, name, a.Response, a.body)
			}
		}
	}
}

func TestHarmlessHeadersPass(t *testing.T) {
	g := newGate(t, lenientApp(t))
	for _, name := range []string{"X-Custom", "X_Custom", "Accept", "Range", "If-None-Match", "Cookie", "X-Sidegat", "Xsidegate-Uid", "X-Users", "Remote-Users", "X-Authors", "Content-Type", "Origin", "X-" + strings.Repeat("a", 200)} {
		if a := g.send("GET", "/public/a", "", name+": kept"); !strings.Contains(a.body, careless(name)+": kept") {
			t.Errorf("%s is lost: %s", name, a.body)
		}
	}
}

func TestIdentityHeaders(t *testing.T) {
	g := newGate(t, lenientApp(t))
	has := func(a answer, lines ...string) {
		t.Helper()
		for _, l := range lines {
			if !strings.Contains("\n"+a.body, "\n"+l+"\n") {
				t.Errorf("%q is missing in\n%s", l, a.body)
			}
		}
	}
	a := g.send("GET", "/private/a", "alice")
	has(a, "x-sidegate-uid: alice", "x-sidegate-identity: users", "x-sidegate-email: alice@acme.dev", "x-sidegate-roles: writer",
		"x-sidegate-claims: eyJyb2xlcyI6WyJ3cml0ZXIiXX0", "x-forwarded-host: gateway.test", "x-forwarded-proto: http", "x-forwarded-for: 127.0.0.1",
		"x-request-id: "+g.outcome().Record)
	if strings.Contains(a.body, "authorization") {
		t.Errorf("the token went upstream:\n%s", a.body)
	}
	a = g.send("GET", "/private/a", "strange")
	has(a, "x-sidegate-uid: ali%20ce%252F%00,%C3%BC", "x-sidegate-email: a%0D%0AX-Evil:%201@b")
	a = g.send("GET", "/optional/a", "bob")
	has(a, "x-sidegate-uid: bob")
	for _, a := range []answer{g.send("GET", "/public/a", "alice"), g.send("GET", "/optional/a", "")} {
		if strings.Contains(a.body, "x-sidegate") {
			t.Errorf("an identity where there is none:\n%s", a.body)
		}
	}
	h := http.Header{}
	NativeHeaders().write(h, &exchange{policy: loadPolicy(t, testPolicy), identity: &policy.Identity{Name: "users", UID: "u", Actor: "agent", Tenant: "t", Email: "e@x"}})
	if h.Get(headerActor) != "agent" || h.Get(headerTenant) != "t" || h[headerEmail] != nil || h[headerRoles] != nil || h[headerClaims] != nil {
		t.Errorf("%v", h)
	}
	none := newGate(t, lenientApp(t), upstream(func(u *Upstream) { u.Headers = Headers{} }))
	if a := none.send("GET", "/private/a", "alice", "X-Sidegate-Uid: evil"); a.StatusCode != 200 || strings.Contains(a.body, "x-sidegate") {
		t.Errorf("%s", a.body)
	}
}

func TestAuthorizationHeader(t *testing.T) {
	drop := newGate(t, lenientApp(t))
	keep := newGate(t, lenientApp(t), upstream(func(u *Upstream) { u.KeepAuthorization = true }))
	for _, c := range []struct {
		target, value string
		dropped, kept bool // passed on with `authorization: drop` and `keep`
	}{
		{"/public/a", "Bearer anything", false, true},
		{"/public/a", "bearer\tanything", false, true},
		{"/public/a", "Basic YTpi", true, true},
		{"/public/a", "Bearerish x", true, true},
		{"/optional/a", "Bearer alice", false, true},
		{"/optional/a", "Basic YTpi", true, true},
		{"/private/a", "Bearer alice", false, true},
		{"/private/a", "BEARER  alice", false, true},
	} {
		for _, g := range []*gate{drop, keep} {
			want := c.dropped
			if g == keep {
				want = c.kept
			}
			a := g.send("GET", c.target, "", "Authorization: "+c.value)
			if a.StatusCode != 200 || strings.Contains(a.body, "authorization: ") != want {
				t.Errorf("%s %s (keep %v): %d\n%s", c.target, c.value, g == keep, a.StatusCode, a.body)
			}
		}
	}
}

func TestForwardedHeadersAfreshOrContinued(t *testing.T) {
	lines := []string{"X-Forwarded-For: 203.0.113.9, 198.51.100.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: Photos.Acme.dev.",
		"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	a := newGate(t, lenientApp(t)).send("GET", "/public/a", "", lines...)
	for _, want := range []string{"x-forwarded-for: 127.0.0.1\n", "x-forwarded-proto: http\n", "x-forwarded-host: gateway.test\n"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("%s is missing in\n%s", want, a.body)
		}
	}
	if strings.Contains(a.body, "0af7651916cd43dd8448eb211c80319c") {
		t.Error("a stranger's trace is continued")
	}
	g := newGate(t, lenientApp(t), func(o *Options) { o.Trusted = TrustedProxies{Peer: true} })
	a = g.send("GET", "/public/a", "", lines...)
	for _, want := range []string{"x-forwarded-for: 203.0.113.9, 198.51.100.1, 127.0.0.1\n", "x-forwarded-proto: https\n", "x-forwarded-host: photos.acme.dev\n", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("%s is missing in\n%s", want, a.body)
		}
	}
	g.outcome()
	if d := g.decision(); d.Request.IP != "198.51.100.1" || d.Request.Trace != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("%+v", d.Request)
	}
	a = g.send("GET", "/public/a", "", "X-Forwarded-Proto: ftp", "X-Forwarded-Host: a/b", "Traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01")
	if !strings.Contains(a.body, "x-forwarded-proto: http\n") || !strings.Contains(a.body, "x-forwarded-host: gateway.test\n") || strings.Contains(a.body, "00-00000000") {
		t.Errorf("%s", a.body)
	}
}

func TestHostHeader(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	raw := "GET /public/a HTTP/1.1\r\nHost: Photos.ACME.dev.:8443\r\n\r\n"
	if a := newGate(t, app).raw(raw); a.body != "photos.acme.dev:8443" {
		t.Errorf("kept: %q", a.body)
	}
	g := newGate(t, app, upstream(func(u *Upstream) { u.KeepHost = false }))
	if a := g.raw(raw); "http://"+a.body != app {
		t.Errorf("the upstream's: %q", a.body)
	}
}

func TestHopByHopHeaders(t *testing.T) {
	g := newGate(t, lenientApp(t))
	a := g.send("GET", "/public/a", "", "Connection: keep-alive, X-Drop", "X-Drop: evil", "Keep-Alive: evil", "Proxy-Authorization: evil", "Proxy-Connection: evil", "Te: trailers, evil", "Trailer: evil")
	if strings.Contains(a.body, "evil") {
		t.Errorf("%s", a.body)
	}
}

func TestRequestTrailersAreDropped(t *testing.T) {
	g := newGate(t, lenientApp(t))
	for _, announce := range []string{"Trailer: X-Sidegate-Uid, X-Other", "X-None: 1"} {
		a := g.raw(request("POST", "/public/a", "", "Transfer-Encoding: chunked", announce) + "1\r\na\r\n0\r\nX-Sidegate-Uid: evil\r\nX-Other: evil\r\n\r\n")
		if a.StatusCode != 200 || strings.Contains(a.body, "evil") || strings.Contains(a.body, "trailer") {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
	}
}

// TestAnswersDoNotSpeakForTheGateway: X-Sidegate-* of an app's answer is
// removed from headers, interim answers and trailers, announced or not.
func TestAnswersDoNotSpeakForTheGateway(t *testing.T) {
	app := rawApp(t, func(conn net.Conn, r *http.Request) {
		announced := ""
		if r.URL.Path == "/public/announced" {
			announced = "Trailer: X-Sidegate-Response, X-Good\r\n"
		}
		io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nx-sidegate-response: evil\r\n\r\n"+
			"HTTP/1.1 200 OK\r\nConnection: close\r\nX-SIDEGATE-Uid: evil\r\nX-Fine: yes\r\n"+announced+"Transfer-Encoding: chunked\r\n\r\n"+
			"2\r\nok\r\n0\r\nX-Sidegate-Response: evil\r\nX-Good: yes\r\n\r\n")
	})
	g := newGate(t, app)
	for _, target := range []string{"/public/announced", "/public/unannounced"} {
		conn := g.dial()
		io.WriteString(conn, request("GET", target, "", "Connection: close"))
		all, err := io.ReadAll(conn)
		text := string(all)
		if err != nil || !strings.HasPrefix(text, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n") ||
			!strings.Contains(text, "X-Fine: yes\r\n") || !strings.Contains(text, "X-Good: yes\r\n") || strings.Contains(strings.ToLower(text), "x-sidegate") {
			t.Errorf("%s: %v\n%s", target, err, text)
		}
	}
}

func TestStripMatchesItsFolding(t *testing.T) {
	for name := range stripped {
		if name != careless(name) || len(name) >= maxHeaderName || !mustStrip(strings.ToUpper(name), nil) {
			t.Errorf("%q", name)
		}
	}
	for _, p := range strippedPrefixes {
		if p != careless(p) || !mustStrip(p+strings.Repeat("a", 300), nil) || mustStrip(p[:len(p)-2], nil) {
			t.Errorf("%q", p)
		}
	}
	if mustStrip("", nil) || mustStrip("x", nil) {
		t.Error("too much")
	}
}

// TestTraceState goes with the trace that it belongs to, and with no other.
func TestTraceState(t *testing.T) {
	const trace = "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for name, c := range map[string]struct {
		trusted bool
		lines   []string
		want    bool
	}{
		"of a trusted proxy":     {true, []string{trace, "Tracestate: a=state"}, true},
		"of a stranger":          {false, []string{trace, "Tracestate: a=state"}, false},
		"without a trace":        {true, []string{"Tracestate: a=state"}, false},
		"of a malformed trace":   {true, []string{trace + "0", "Tracestate: a=state"}, false},
		"too long":               {true, []string{trace, "Tracestate: a=state" + strings.Repeat("x", 512)}, false},
		"in another's spelling":  {true, []string{trace, "Trace_state: a=state"}, true}, // a header like any other
		"folded to its own name": {true, []string{trace, "tracestate_: a=other"}, false},
	} {
		g := newGate(t, lenientApp(t), func(o *Options) {
			if c.trusted {
				o.Trusted = TrustedProxies{Prefixes: prefixes("127.0.0.0/8")}
			}
		})
		if a := g.send("GET", "/public/a", "", c.lines...); a.StatusCode != 200 || strings.Contains(a.body, "a=state") != c.want {
			t.Errorf("%s: %s", name, a.body)
		}
	}
}

// FuzzStrip: what is left of a caller's headers, read by the most careless app,
// is none that only the gateway may set, and no harmless one is lost.
func FuzzStrip(f *testing.F) {
	for _, name := range []string{"X-Sidegate-Uid", "x_sidegate.uid", "Accept", "Forwarded", "TRANSFER_ENCODING", "Transfer-Encoding", "X-Forwardedx", "X-Own", "x own", ""} {
		f.Add(name)
	}
	own := map[string]bool{"x-own": true}
	f.Fuzz(func(t *testing.T, name string) {
		h := http.Header{name: {"evil"}}
		strip(h, own)
		read := ""
		for _, c := range []byte(name) { // byte by byte, as CGI does
			read += careless(string(rune(c)))
		}
		if len(read) > maxHeaderName {
			read = read[:maxHeaderName]
		}
		bad := stripped[read] || own[read] || framing[read] && careless(name) != strings.ToLower(name)
		for _, p := range strippedPrefixes {
			bad = bad || strings.HasPrefix(read, p)
		}
		if _, left := h[name]; left == bad {
			t.Errorf("%q, read as %q: left %v", name, read, left)
		}
	})
}

func FuzzHeaderValue(f *testing.F) {
	f.Add("a", "b")
	f.Add("a,b", "a%2Cb")
	f.Add("\x00ü\r\n", "%")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, list := range []bool{false, true} {
			ea, eb := headerValue(a, list), headerValue(b, list)
			if (ea == eb) != (a == b) {
				t.Fatalf("%q and %q give %q", a, b, ea)
			}
			for i := range len(ea) {
				if ea[i] < 0x21 || ea[i] > 0x7e || list && ea[i] == ',' {
					t.Fatalf("%q gives %q", a, ea)
				}
			}
		}
		one, two := strings.Split(a, "|"), strings.Split(b, "|")
		if (headerList(one) == headerList(two)) != slices.Equal(one, two) {
			t.Fatalf("%q and %q give %q", one, two, headerList(one))
		}
	})
}

// FuzzEncodeClaims: what is written without encoding/json is what it writes.
func FuzzEncodeClaims(f *testing.F) {
	for _, text := range []string{richClaims, bobsClaims, agentClaims, `{"a":["x",["<&>",null,{"b":1.50}],true,-0]}`, `{"é\u2028":"\u0000\"\\","a":[]}`, `{}`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		var all policy.ClaimMap
		if d.Decode(&all) != nil {
			return
		}
		id := &policy.Identity{Claims: all}
		declared := append(slices.Collect(maps.Keys(all)), "no claim of the token")
		slices.Sort(declared)
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(declaredClaims(id, declared)); err != nil {
			t.Fatal(err)
		}
		is, err := base64.RawURLEncoding.DecodeString(encodeClaims(id, declared))
		if err != nil || string(is)+"\n" != want.String() && len(all) > 0 || len(all) == 0 && len(is) > 0 {
			t.Fatalf("%s, %v; not %s", is, err, want.String())
		}
	})
}
