package proxy

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// What was done to gateways of this kind, by its name. Each test says what an
// attacker would gain.

// attackGate is a gateway before an app that tells on which path and as whom
// it was asked, and counts.
func attackGate(t *testing.T, change ...func(*Options)) (*gate, *atomic.Int64) {
	var hits atomic.Int64
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		fmt.Fprintf(w, "%s as %v", r.RequestURI, r.Header["X-Sidegate-Uid"])
	})
	return newGate(t, app, change...), &hits
}

// refused sends requests that must reach nobody.
func refused(t *testing.T, g *gate, hits *atomic.Int64, status int, targets ...string) {
	t.Helper()
	before := hits.Load()
	for _, target := range targets {
		if a := g.send("GET", target, "alice"); a.err != nil || a.StatusCode != status {
			t.Errorf("%q: %+v", target, a.Response)
		}
	}
	if hits.Load() != before {
		t.Error("the app was reached")
	}
}

func TestHopByHopIdentityHeader(t *testing.T) {
	g, _ := attackGate(t)
	for _, connection := range []string{"X-Sidegate-Uid", "x-sidegate-uid", "close, X-SIDEGATE-UID", "X-Sidegate-Uid, Authorization, X-Forwarded-For"} {
		for _, spelled := range []string{"Connection", "connection", "CONNECTION"} {
			if a := g.send("GET", "/private/a", "alice", spelled+": "+connection); a.body != "/private/a as [alice]" {
				t.Errorf("%s: %s: %q", spelled, connection, a.body)
			}
		}
	}
}

func TestUnderscoreSmuggling(t *testing.T) {
	g := newGate(t, lenientApp(t))
	for _, target := range []string{"/public/a", "/private/a"} {
		a := g.send("GET", target, "alice", "X_Sidegate_Uid: evil", "x-sidegate_uid: evil", "X.Sidegate.Uid: evil", "X_Forwarded_Email: evil", "REMOTE_USER: evil", "Remote.User: evil")
		if strings.Contains(a.body, "evil") {
			t.Errorf("%s", a.body)
		}
	}
}

func TestIdentityHeadersOnPublicRoutes(t *testing.T) {
	g, _ := attackGate(t)
	for _, target := range []string{"/public/a", "/optional/a"} {
		if a := g.send("GET", target, "", "X-Sidegate-Uid: root"); a.body != target+" as []" {
			t.Errorf("%q", a.body)
		}
	}
}

func TestDotSegments(t *testing.T) {
	g, hits := attackGate(t)
	refused(t, g, hits, 400, "/public/../admin/a", "/public/./a", "/public/..", "/public/%2e%2e/admin/a", "/public/.%2e/admin/a", "/public/..%2fadmin/a",
		"/slash/..%2fadmin/a", "/slash/%2e%2e%2fadmin", "/public/..;/admin/a", "/public/..%00/admin", "/public/..%5cadmin", `/public/..\admin`)
}

func TestDoubleEncoding(t *testing.T) {
	g, hits := attackGate(t)
	refused(t, g, hits, 400, "/public/%252e%252e/admin/a", "/slash/%252f..%252fadmin", "/public/%2561", "/public/%25%32%65", "/public/%25u002e", "/public/%u002e%u002e/admin")
}

func TestDoubleSlash(t *testing.T) {
	g, hits := attackGate(t)
	refused(t, g, hits, 400, "//admin/a", "//gateway.test/admin/a", "/public//admin/a", "/public/a//", "/slash/a%2f%2fb", "///")
}

func TestBackslash(t *testing.T) {
	g, hits := attackGate(t)
	refused(t, g, hits, 400, `/public\admin`, "/public%5cadmin", `\admin`)
}

func TestEncodedSlash(t *testing.T) {
	g, hits := attackGate(t)
	refused(t, g, hits, 400, "/public/a%2fb", "/public%2Fa", "/own/alice%2f")
	if a := g.send("GET", "/slash/a%2fb", ""); a.body != "/slash/a/b as []" {
		t.Errorf("%q", a.body)
	}
}

func TestFragmentInPath(t *testing.T) {
	g, hits := attackGate(t)
	refused(t, g, hits, 400, "/admin/a#/public/a", "/public/a#x", "/admin/a%23/public", "/public/a?x#y")
}

func TestPathParameters(t *testing.T) {
	g, hits := attackGate(t)
	refused(t, g, hits, 400, "/public/a;x=/admin", "/admin;/a", "/public/%3b/a")
}

func TestEncodedQuestionMark(t *testing.T) {
	g, hits := attackGate(t)
	refused(t, g, hits, 400, "/admin/a%3f/public/a", "/public/a%3Fx")
}

func TestNulAndControlBytes(t *testing.T) {
	g, hits := attackGate(t)
	refused(t, g, hits, 400, "/public/a%00.png", "/public/a%0d%0aX-Sidegate-Uid:%20root", "/public/%7f", "/public/%c2%9b")
}

func TestInvalidUTF8(t *testing.T) {
	g, hits := attackGate(t)
	refused(t, g, hits, 400, "/public/%ff", "/public/%c0%ae%c0%ae/admin", "/public/%ed%a0%80")
}

func TestQueryNotMatched(t *testing.T) {
	g, hits := attackGate(t)
	refused(t, g, hits, 403, "/admin/a?/public/a", "/admin/a?x=/public/", "/admin/a?../public/a")
	refused(t, g, hits, 404, "/?/public/a")
	refused(t, g, hits, 400, "/public/a?a;b", "/public/a?%zz", "/public/a?"+strings.Repeat("a&", 1001))
}

func TestTwoAuthorizationHeaders(t *testing.T) {
	g, hits := attackGate(t)
	for _, target := range []string{"/private/a", "/public/a", "/optional/a"} {
		for _, second := range []string{"Bearer alice", "Basic YTpi", "", "Bearer away"} {
			if a := g.send("GET", target, "alice", "authorization: "+second); a.StatusCode != 400 || !a.Close {
				t.Errorf("%s: %d", target, a.StatusCode)
			}
		}
	}
	if hits.Load() != 0 {
		t.Error("the app was reached")
	}
}

func TestTwoHosts(t *testing.T) {
	g, hits := attackGate(t)
	for _, raw := range []string{
		"GET /public/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET /public/a HTTP/1.1\r\n\r\n",
		"GET /public/a HTTP/1.1\r\nHost: a b\r\n\r\n",
		"GET /public/a HTTP/1.1\r\nHost: u@a\r\n\r\n",
	} {
		if a := g.raw(raw); a.err != nil || a.StatusCode != 400 {
			t.Errorf("%q: %+v", raw, a.Response)
		}
	}
	if hits.Load() != 0 {
		t.Error("the app was reached")
	}
}

func TestOverrideHeaders(t *testing.T) {
	g := newGate(t, lenientApp(t))
	a := g.send("GET", "/public/a", "", "X-Original-URL: /admin/evil", "X-Rewrite-URL: /admin/evil", "X-HTTP-Method-Override: evil", "X-HTTP-Method: evil", "X-Method-Override: evil", "X-Forwarded-Uri: /evil", "X-Forwarded-Prefix: /evil", "X-Host: evil")
	if a.StatusCode != 200 || strings.Contains(a.body, "evil") {
		t.Errorf("%s", a.body)
	}
}

func TestMethodCaseAndConnect(t *testing.T) {
	g, hits := attackGate(t)
	for _, m := range []string{"get", "Get", "CONNECT", "TRACE", "PROPFIND", "GETX"} {
		if a := g.send(m, "/public/a", ""); a.err != nil || a.StatusCode != 400 || !a.Close {
			t.Errorf("%s: %+v", m, a.Response)
		}
	}
	if hits.Load() != 0 {
		t.Error("the app was reached")
	}
}

func TestUserAgentSwitchesNothing(t *testing.T) {
	g, hits := attackGate(t)
	for _, ua := range []string{"GoogleHC/1.0", "kube-probe/1.30", "ELB-HealthChecker/2.0"} {
		if a := g.send("GET", "/private/a", "", "User-Agent: "+ua); a.StatusCode != 401 {
			t.Errorf("%s: %d", ua, a.StatusCode)
		}
	}
	if hits.Load() != 0 {
		t.Error("the app was reached")
	}
}

func TestForwardedHeaderSpoof(t *testing.T) {
	g, _ := attackGate(t)
	g.send("GET", "/public/a", "", "X-Forwarded-For: 10.0.0.1", "X-Real-Ip: 10.0.0.1", "Forwarded: for=10.0.0.1")
	if ip := g.decision().Request.IP; ip != "127.0.0.1" {
		t.Errorf("%s", ip)
	}
}

// TestRequestSmuggling: what has two readings of where it ends is refused or
// closes the connection; a second request hidden in it is never answered.
func TestRequestSmuggling(t *testing.T) {
	g, _ := attackGate(t)
	hidden := "GET /public/hidden HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
	for name, head := range map[string]string{
		"two lengths":        "Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
		"length and chunks":  "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"unknown encoding":   "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"two encodings":      "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"space before colon": "Content-Length : 5\r\n\r\n",
		"signed length":      "Content-Length: +5\r\n\r\n",
		"obsolete fold":      "X: a\r\n Content-Length: 5\r\nContent-Length: zz\r\n\r\n",
		"bare LF in chunks":  "Transfer-Encoding: chunked\r\n\r\n0\n\n",
		"bare LF behind":     "Transfer-Encoding: chunked\r\n\r\n0\r\n\n",
		"equal lengths":      "Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
	} {
		conn := g.dial()
		io.WriteString(conn, "POST /private/a HTTP/1.1\r\nHost: gateway.test\r\n"+head+hidden)
		conn.(interface{ CloseWrite() error }).CloseWrite()
		all, _ := io.ReadAll(bufio.NewReader(conn))
		if strings.Contains(string(all), "/public/hidden as") {
			t.Errorf("%s: %s", name, all)
		}
	}
}

// TestLogInjection: whatever a stranger sends, an event is one line of JSON and
// gives the same bytes back; so is a line of the log.
func TestLogInjection(t *testing.T) {
	g, _ := attackGate(t)
	nasty := []string{"\u2028\u2029", `"}{"type":"decision"`, "\x1b[2J", "${jndi:ldap://x}", "%n%s", "\u202e", strings.Repeat("a", 3000), "\xff\xfe", "<script>"}
	for _, s := range nasty {
		g.send("GET", "/public/a?"+strings.NewReplacer("%", "%25", "\x1b", "%1b", "\"", "%22", "\u2028\u2029", "%e2%80%a8", "\u202e", "%e2%80%ae", "\xff\xfe", "%ff").Replace(s), "", "User-Agent: "+strings.ReplaceAll(s, "\x1b", ""))
		g.outcome()
	}
	events := len(g.ledger())
	if events < len(nasty)-1 {
		t.Errorf("%d records of %d requests", events, len(nasty))
	}
	for _, line := range strings.Split(strings.TrimSpace(g.log.String()), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("%q", line)
		}
	}
}

// TestSecretsStayOut of the audit log, the log and the answers.
func TestSecretsStayOut(t *testing.T) {
	g, _ := attackGate(t)
	for _, token := range []string{"alice", "bad-s3cret", "away"} {
		a := g.send("GET", "/private/a?access_token=s3cret", token, "Cookie: session=s3cret", "Proxy-Authorization: s3cret", "X-Api-Key: s3cret")
		e, _ := json.Marshal(g.decision())
		o, _ := json.Marshal(g.outcome())
		if all := string(e) + string(o) + g.log.String(); strings.Contains(all, "s3cret") || token != "alice" && strings.Contains(a.body, "s3cret") {
			t.Errorf("%s: %s", token, all)
		}
	}
}

func TestSpoofedGatewayAnswer(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Sidegate-Response", "true")
		w.WriteHeader(http.StatusUnauthorized)
	})
	if a := newGate(t, app).send("GET", "/public/a", ""); a.StatusCode != 401 || a.Header["X-Sidegate-Response"] != nil {
		t.Errorf("%+v", a.Response)
	}
}

func TestSlowBodyOfARefusedRequest(t *testing.T) {
	g := newGate(t, "http://127.0.0.1:1", short)
	for _, head := range []string{"Content-Length: 1000000", "Transfer-Encoding: chunked"} {
		if a := g.send("POST", "/private/a", "", head); a.err != nil || a.StatusCode != 401 {
			t.Errorf("%s: %+v", head, a)
		}
	}
}

// TestHostWithManyFinalDots: one final dot is nothing, two are another name
// to the router and the same site to an app.
func TestHostWithManyFinalDots(t *testing.T) {
	g, hits := attackGate(t)
	for _, host := range []string{"gateway.test..", "gateway.test..:80", "gateway.test...", "", ".."} {
		a := g.raw("GET /public/a HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		if a.StatusCode != 400 || hits.Load() != 0 {
			t.Errorf("%q: %d", host, a.StatusCode)
		}
	}
	if a := g.raw("GET http://gateway.test../public/a HTTP/1.1\r\nHost: gateway.test..\r\n\r\n"); a.StatusCode != 400 {
		t.Errorf("absolute form: %d", a.StatusCode)
	}
}

// TestFramingHeadersInOddSpelling: an app that reads `_` and `.` as `-` would
// take these for the length or the end of a message on a shared connection.
func TestFramingHeadersInOddSpelling(t *testing.T) {
	g := newGate(t, lenientApp(t))
	for _, name := range []string{"Transfer_Encoding", "Content_Length", "Content.Length", "Proxy_Authorization", "Keep_Alive", "Sec_WebSocket_Key", "Proxy", "X_Envoy_Original_Path"} {
		if a := g.send("GET", "/public/a", "", name+": smuggled"); a.StatusCode != 200 || strings.Contains(a.body, "smuggled") {
			t.Errorf("%s: %d %q", name, a.StatusCode, a.body)
		}
	}
	for _, name := range []string{"X_My_Header", "Sec-WebSocket-Key", "Cookie"} {
		if a := g.send("GET", "/public/a", "", name+": kept"); !strings.Contains(a.body, "kept") {
			t.Errorf("%s does not pass: %q", name, a.body)
		}
	}
}

// TestRefusalDoesNotWaitForTheBody: who sends less than was announced gets the
// refusal at once, and holds no connection.
func TestRefusalDoesNotWaitForTheBody(t *testing.T) {
	g, hits := attackGate(t)
	for _, body := range []string{"Content-Length: 200000\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n"} {
		a := g.raw("POST /private/a HTTP/1.1\r\nHost: gateway.test\r\n" + body)
		if a.err != nil || a.StatusCode < 400 || !a.Close || hits.Load() != 0 {
			t.Errorf("%q: %+v", body, a)
		}
	}
}

// TestOldHTTP: HTTP/1.0 has neither chunks nor upgrades, so its connection
// ends with its answer.
func TestOldHTTP(t *testing.T) {
	g, _ := attackGate(t)
	a := g.raw("GET /public/a HTTP/1.0\r\nHost: gateway.test\r\nConnection: keep-alive\r\n\r\n")
	if a.StatusCode != 200 || a.Header.Get("Connection") == "keep-alive" {
		t.Errorf("%+v", a.Response)
	}
}

// TestTerminalEscapesInTheLog: what steers a terminal or turns text around is
// escaped in the gateway's own log too.
func TestTerminalEscapesInTheLog(t *testing.T) {
	g, _ := attackGate(t)
	g.send("GET", "/public/x\xc2\x9b31m\xe2\x80\xaeRED", "")
	g.send("GET", "/public/x%e2%80%aeRED", "")
	g.outcome()
	g.outcome()
	if log := g.log.String(); strings.ContainsAny(log, "\u202e\u009b") {
		t.Errorf("%q", log)
	}
}

// TestRefusalIsReadAfterTheWholeBody: a caller who sends all before reading
// sees the refusal, however slowly the body comes.
func TestRefusalIsReadAfterTheWholeBody(t *testing.T) {
	g, hits := attackGate(t)
	conn := g.dial()
	const size = 1 << 20
	io.WriteString(conn, request("POST", "/private/a", "", fmt.Sprint("Content-Length: ", size)))
	step := make([]byte, size/16)
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for range 16 {
		<-pace.C
		if _, err := conn.Write(step); err != nil {
			t.Fatal(err)
		}
	}
	a := g.read(bufio.NewReader(conn), "POST")
	if a.err != nil || a.StatusCode != 401 || !a.Close || hits.Load() != 0 {
		t.Errorf("%+v", a)
	}
}

// TestRefusedConnectionIsNotHeld: whoever stops sending a refused body loses
// the connection soon, not after the idle time-out.
func TestRefusedConnectionIsNotHeld(t *testing.T) {
	g, _ := attackGate(t)
	conn := g.dial()
	io.WriteString(conn, request("POST", "/private/a", "", "Content-Length: 200000")+"abc")
	r := bufio.NewReader(conn)
	if a := g.read(r, "POST"); a.StatusCode != 401 {
		t.Errorf("%+v", a)
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second)) // the idle time-out is 10s
	if _, err := r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is still open: %v", err)
	}
}

// TestRefusedUpgradeEndsTheConnection: what follows a refused handshake is not
// HTTP.
func TestRefusedUpgradeEndsTheConnection(t *testing.T) {
	g, hits := attackGate(t)
	a := g.raw("GET /public/a HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /public/a HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
	if a.StatusCode != 400 || !a.Close || hits.Load() != 0 {
		t.Errorf("%+v", a.Response)
	}
}
