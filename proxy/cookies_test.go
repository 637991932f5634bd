package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/websocket"

	"sidegate/policy"
	"sidegate/storage/audit"
)

const cookiePolicy = `version: sidegate-policy/v1
name: cookies
identities: [users, staff]
routes:
  - {id: public, path: "/public/{rest...}", methods: [GET, POST], allow: public, upstream: app, websocket: true}
  - {id: optional, path: "/optional/{rest...}", methods: [GET, POST], allow: optional, upstream: app}
  - {id: private, path: "/private/{rest...}", methods: [GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS], upstream: app, allow: [{id: any, who: [users, staff]}]}
  - {id: socket, path: /socket, methods: [GET], upstream: app, websocket: true, allow: [{id: any, who: [users, staff]}]}
`

// cookieTokens holds the contract of what verifies session cookies: none of its
// tokens is a bearer token of fakeTokens, and the other way round.
type cookieTokens struct {
	name  string
	calls *atomic.Int64
}

func (c cookieTokens) Authenticate(_ context.Context, token string) (*policy.Identity, error) {
	c.calls.Add(1)
	switch token {
	case "s-alice", "s-bob":
		id := user(strings.TrimPrefix(token, "s-"))
		id.Name, id.Namespace = c.name, c.name
		return id, nil
	case "away":
		return nil, fmt.Errorf("keys: %w", ErrUnavailable)
	case "odd":
		return nil, errors.New("something else")
	case "nobody":
		return nil, nil
	}
	return nil, &TokenError{Reason: "the token is malformed", Detail: "for the log"}
}

// cookieGate has two session cookies, each of an identity of its own. calls
// counts how often one was looked at.
func cookieGate(t testing.TB, app string, change ...func(*Options)) (g *gate, calls *atomic.Int64) {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte(cookiePolicy), &policy.Environment{
		Identities: map[string]string{"users": "users", "staff": "staff"}, Upstreams: map[string]policy.Upstream{"app": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	calls = new(atomic.Int64)
	change = append([]func(*Options){func(o *Options) {
		o.Policy = p
		o.SessionCookies = map[string]Authenticator{"__session": cookieTokens{"users", calls}, "__Host-staff": cookieTokens{"staff", calls}}
	}}, change...)
	return newGate(t, app, change...), calls
}

// whoApp answers as whom it was asked.
func whoApp(t testing.TB) string {
	return newApp(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s/%s", r.Header.Get(headerIdentity), r.Header.Get(headerUID))
	})
}

// TestSessionCookie: which cookie headers name somebody, and what the others
// are answered. want is the app's answer, or the code of a refusal.
func TestSessionCookie(t *testing.T) {
	g, _ := cookieGate(t, whoApp(t))
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"alone", []string{"Cookie: __session=s-alice"}, "users/alice"},
		{"the other name", []string{"Cookie: __Host-staff=s-alice"}, "staff/alice"},
		{"among others", []string{"Cookie: a=1; __session=s-alice; b=2"}, "users/alice"},
		{"among others, without spaces", []string{"Cookie: a=1;__session=s-alice;b=2"}, "users/alice"},
		{"spaces and tabs around", []string{"Cookie: a=1; \t __session=s-alice \t ; b=2"}, "users/alice"},
		{"in the second of two lines", []string{"Cookie: a=1", "Cookie: __session=s-alice"}, "users/alice"},
		{"the header's name in lower case", []string{"cookie: __session=s-alice"}, "users/alice"},
		{"beside an empty one", []string{"Cookie: __session=; __session=s-alice"}, "users/alice"},
		{"beside an empty one of the other name", []string{"Cookie: __session=s-alice; __Host-staff="}, "users/alice"},
		{"beside one without a value", []string{"Cookie: __session; __session=s-alice"}, "users/alice"},
		{"beside its name in other case", []string{"Cookie: __SESSION=s-bob; __session=s-alice"}, "users/alice"},
		{"its value holds a =", []string{"Cookie: __session=s-alice=s-bob"}, codeInvalidToken},

		{"none", nil, codeNoToken},
		{"empty header", []string{"Cookie:"}, codeNoToken},
		{"empty value", []string{"Cookie: __session="}, codeNoToken},
		{"no value", []string{"Cookie: __session"}, codeNoToken},
		{"the name in other case", []string{"Cookie: __Session=s-alice"}, codeNoToken},
		{"a longer name", []string{"Cookie: __session2=s-alice"}, codeNoToken},
		{"a name that ends like it", []string{"Cookie: my__session=s-alice"}, codeNoToken},
		{"another prefix", []string{"Cookie: __Secure-staff=s-alice"}, codeNoToken},
		{"the prefix in other case", []string{"Cookie: __host-staff=s-alice"}, codeNoToken},
		{"percent-encoded", []string{"Cookie: %5f_session=s-alice"}, codeNoToken},
		{"inside of another's value", []string{"Cookie: a=__session=s-alice"}, codeNoToken},
		{"after a comma", []string{"Cookie: a=1, __session=s-alice"}, codeNoToken},
		{"a space before the =", []string{"Cookie: __session =s-alice"}, codeNoToken},
		{"as a header that only folds to it", []string{"Cookie_: __session=s-alice"}, codeNoToken},
		{"as Set-Cookie", []string{"Set-Cookie: __session=s-alice"}, codeNoToken},

		{"bad", []string{"Cookie: __session=x"}, codeInvalidToken},
		{"quoted", []string{`Cookie: __session="s-alice"`}, codeInvalidToken},
		{"a space before the value", []string{"Cookie: __session= s-alice"}, codeInvalidToken},
		{"twice", []string{"Cookie: __session=s-alice; __session=s-bob"}, codeInvalidToken},
		{"twice the same", []string{"Cookie: __session=s-alice; __session=s-alice"}, codeInvalidToken},
		{"in two lines", []string{"Cookie: __session=s-alice", "Cookie: __session=s-alice"}, codeInvalidToken},
		{"two names", []string{"Cookie: __session=s-alice; __Host-staff=s-alice"}, codeInvalidToken},
		{"two names, the one bad", []string{"Cookie: __Host-staff=x; __session=s-alice"}, codeInvalidToken},
		{"three", []string{"Cookie: __session=s-alice; a=1; __session=s-alice; __session=s-alice"}, codeInvalidToken},

		{"away", []string{"Cookie: __session=away"}, codeUnavailable},
		{"an error of no kind", []string{"Cookie: __session=odd"}, codeUnavailable},
		{"nobody", []string{"Cookie: __session=nobody"}, codeUnavailable},
		{"twice, the one away", []string{"Cookie: __session=away; __session=s-alice"}, codeInvalidToken},
	} {
		a := g.send("GET", "/private/a", "", c.lines...)
		if strings.Contains(c.want, "/") {
			if a.err != nil || a.StatusCode != 200 || a.body != c.want {
				t.Errorf("%s: %+v %q", c.name, a.Response, a.body)
			}
			g.outcome()
			continue
		}
		g.checkRefusal(a, map[string]int{codeNoToken: 401, codeInvalidToken: 401, codeUnavailable: 503}[c.want], c.want)
		if d := g.decision(); d.Identity != nil || d.Decision.Code != c.want {
			t.Errorf("%s: on record are %+v and %+v", c.name, d.Identity, d.Decision)
		}
	}
}

// TestTwoSessionCookiesSaySo: the challenge names what is wrong, and nothing of
// the cookies.
func TestTwoSessionCookiesSaySo(t *testing.T) {
	g, calls := cookieGate(t, whoApp(t))
	a := g.send("GET", "/private/a", "", "Cookie: __session=s-alice; __session=s-bob")
	want := `Bearer realm="photos", error="invalid_token", error_description="more than one session cookie came"`
	if a.StatusCode != 401 || a.Header.Get("WWW-Authenticate") != want || strings.Contains(a.body, "s-") {
		t.Errorf("%+v %s", a.Response, a.body)
	}
	if calls.Load() != 0 {
		t.Error("one of two was verified")
	}
}

// TestAuthorizationBeforeCookies: with an Authorization header, whatever it
// says, no cookie is looked at. An attacker who could add a header would else
// choose by which of two identities a request counts.
func TestAuthorizationBeforeCookies(t *testing.T) {
	g, calls := cookieGate(t, whoApp(t))
	for _, c := range []struct{ target, authorization, want string }{
		{"/private/a", "Bearer bob", "users/bob"},
		{"/private/a", "bearer bob", "users/bob"},
		{"/private/a", "Basic YTpi", codeNoToken},
		{"/private/a", "", codeNoToken},
		{"/private/a", "Bearerish s-alice", codeNoToken},
		{"/private/a", "Bearer", codeInvalidToken},
		{"/private/a", "Bearer bad", codeInvalidToken},
		{"/private/a", "Bearer s-alice", codeInvalidToken}, // a cookie's token counts in its cookie only
		{"/private/a", "Bearer away", codeUnavailable},
		{"/optional/a", "Bearer bob", "users/bob"},
		{"/optional/a", "Basic YTpi", "/"},
		{"/optional/a", "", "/"},
		{"/optional/a", "Bearer bad", codeInvalidToken},
		{"/optional/a", "Bearer s-alice", codeInvalidToken},
	} {
		a := g.send("GET", c.target, "", "Authorization: "+c.authorization, "Cookie: __session=s-alice")
		if got := a.body; strings.Contains(c.want, "/") && (a.StatusCode != 200 || got != c.want) || !strings.Contains(c.want, "/") && !strings.Contains(got, `"code":"`+c.want+`"`) {
			t.Errorf("%s %q: %d %s", c.target, c.authorization, a.StatusCode, a.body)
		}
	}
	for _, lines := range [][]string{{"Authorization: Basic YTpi", "Authorization: Basic YTpi"}, {"Authorization:", "Authorization:"}} {
		for _, target := range []string{"/private/a", "/optional/a", "/public/a"} {
			if a := g.send("GET", target, "", append(lines, "Cookie: __session=s-alice")...); a.StatusCode != 400 {
				t.Errorf("%s %v: %d", target, lines, a.StatusCode)
			}
		}
	}
	if calls.Load() != 0 {
		t.Errorf("a cookie was looked at %d times", calls.Load())
	}
	// The other way round: bearer tokens count in no cookie.
	for _, cookie := range []string{"__session=bob", "__session=root", "__Host-staff=bob", "__session=Bearer bob", "Authorization=Bearer bob", "access_token=bob"} {
		if a := g.send("GET", "/private/a", "", "Cookie: "+cookie); a.StatusCode != 401 {
			t.Errorf("%s: %d %s", cookie, a.StatusCode, a.body)
		}
	}
}

// TestSessionCookieWhereNoneIsNeeded: on optional routes a bad cookie is nobody,
// since browsers send old ones unasked; one of which it cannot be told is 503.
// On public routes no cookie is looked at.
func TestSessionCookieWhereNoneIsNeeded(t *testing.T) {
	g, calls := cookieGate(t, whoApp(t))
	for _, c := range []struct {
		target, cookie string
		status         int
		body           string
		looked         int64
	}{
		{"/optional/a", "__session=s-alice", 200, "users/alice", 1},
		{"/optional/a", "__session=", 200, "/", 0},
		{"/optional/a", "__session=x", 200, "/", 1},
		{"/optional/a", "__session=s-alice; __session=s-alice", 200, "/", 0},
		{"/optional/a", "__session=away", 503, codeUnavailable, 1},
		{"/optional/a", "__session=odd", 503, codeUnavailable, 1},
		{"/optional/a", "__session=nobody", 503, codeUnavailable, 1},
		{"/public/a", "__session=s-alice", 200, "/", 0},
		{"/public/a", "__session=x", 200, "/", 0},
		{"/public/a", "__session=away", 200, "/", 0},
		{"/public/a", "__session=s-alice; __session=s-bob", 200, "/", 0},
	} {
		calls.Store(0)
		a := g.send("GET", c.target, "", "Cookie: "+c.cookie)
		if a.err != nil || a.StatusCode != c.status || c.status == 200 && a.body != c.body || !strings.Contains(a.body, c.body) || calls.Load() != c.looked {
			t.Errorf("%s %s: %d %s, looked at %d times", c.target, c.cookie, a.StatusCode, a.body, calls.Load())
		}
		if d := g.decision(); (d.Identity != nil) != (c.body == "users/alice") {
			t.Errorf("%s %s: on record is %+v", c.target, c.cookie, d.Identity)
		}
	}
	// A bad cookie is nobody also where another site sends it: there is nobody
	// whose name could be misused.
	if a := g.send("POST", "/optional/a", "", "Cookie: __session=x", "Sec-Fetch-Site: cross-site", "Content-Length: 0"); a.StatusCode != 200 || a.body != "/" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	for _, target := range []string{"/optional/a", "/private/a"} {
		a := g.send("POST", target, "", "Cookie: __session=s-alice", "Sec-Fetch-Site: cross-site", "Content-Length: 0")
		if a.StatusCode != 403 || !strings.Contains(a.body, `"code":"cross_origin"`) {
			t.Errorf("%s: %d %s", target, a.StatusCode, a.body)
		}
	}
	if a := g.send("POST", "/public/a", "", "Cookie: __session=s-alice", "Sec-Fetch-Site: cross-site", "Content-Length: 0"); a.StatusCode != 200 || a.body != "/" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// fromSite are the headers by which a browser says which site made a request,
// and whether that is this one. The gateway is asked as gateway.test.
var fromSite = []struct {
	lines []string
	same  bool
}{
	{[]string{"Sec-Fetch-Site: same-origin"}, true},
	{[]string{"Sec-Fetch-Site: none"}, true},
	{[]string{"sec-fetch-site: same-origin"}, true},
	{[]string{"Sec-Fetch-Site: same-site"}, false},
	{[]string{"Sec-Fetch-Site: cross-site"}, false},
	{[]string{"Sec-Fetch-Site: Same-Origin"}, false},
	{[]string{"Sec-Fetch-Site: same-origin,none"}, false},
	{[]string{"Sec-Fetch-Site: same-origin;a"}, false},
	{[]string{"Sec-Fetch-Site: garbage"}, false},
	{[]string{"Sec-Fetch-Site:"}, false},
	{[]string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: same-origin"}, false},
	{[]string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"}, false},
	{[]string{"Sec_Fetch_Site: same-origin"}, false},
	// Where it is there the origin does not count, either way.
	{[]string{"Sec-Fetch-Site: same-origin", "Origin: https://evil.test"}, true},
	{[]string{"Sec-Fetch-Site: cross-site", "Origin: http://gateway.test"}, false},
	{[]string{"Sec-Fetch-Site:", "Origin: http://gateway.test"}, false},

	{nil, false},
	{[]string{"Origin: http://gateway.test"}, true},
	{[]string{"Origin: https://gateway.test"}, true}, // TLS ends before the gateway
	{[]string{"Origin: http://gateway.test:80"}, true},
	{[]string{"Origin: https://gateway.test:443"}, true},
	{[]string{"Origin: HTTP://GATEWAY.TEST"}, true},
	{[]string{"Origin: https://gateway.test:80"}, false},
	{[]string{"Origin: http://gateway.test:443"}, false},
	{[]string{"Origin: http://gateway.test:8080"}, false},
	{[]string{"Origin: http://gateway.test:080"}, false},
	{[]string{"Origin: http://evil.test"}, false},
	{[]string{"Origin: http://gateway.test.evil.test"}, false},
	{[]string{"Origin: http://evil-gateway.test"}, false},
	{[]string{"Origin: http://a.gateway.test"}, false},
	{[]string{"Origin: null"}, false},
	{[]string{"Origin:"}, false},
	{[]string{"Origin: gateway.test"}, false},
	{[]string{"Origin: //gateway.test"}, false},
	{[]string{"Origin: http:gateway.test"}, false},
	{[]string{"Origin: http://"}, false},
	{[]string{"Origin: ftp://gateway.test"}, false},
	{[]string{"Origin: chrome-extension://gateway.test"}, false},
	{[]string{"Origin: http://gateway.test/"}, false},
	{[]string{"Origin: http://gateway.test/a"}, false},
	{[]string{"Origin: http://gateway.test?a"}, false},
	{[]string{"Origin: http://gateway.test#a"}, false},
	{[]string{"Origin: http://gateway.test@evil.test"}, false},
	{[]string{"Origin: http://evil.test@gateway.test"}, false},
	{[]string{"Origin: http://@gateway.test"}, false},
	{[]string{`Origin: http://evil.test\@gateway.test`}, false},
	{[]string{"Origin: http://gateway.test http://gateway.test"}, false},
	{[]string{"Origin: http://gateway.test, http://evil.test"}, false},
	{[]string{"Origin: http://gateway.test", "Origin: http://gateway.test"}, false},
	{[]string{"Origin: http://gateway.test", "Origin: http://evil.test"}, false},
	{[]string{"Origin: http://[::1]"}, false},
	{[]string{"Origin: http://%"}, false},
	{[]string{"Referer: http://gateway.test/a"}, false},
	{[]string{"X-Forwarded-Host: evil.test", "Origin: http://evil.test"}, false},
}

// TestCrossOrigin: a session cookie counts for what can change something only
// where the gateway's own site asks. Else another site could act as whoever
// looks at it.
func TestCrossOrigin(t *testing.T) {
	g, _ := cookieGate(t, whoApp(t))
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"} {
		safe := method == "GET" || method == "HEAD" || method == "OPTIONS"
		for _, from := range fromSite {
			lines := append([]string{"Cookie: __session=s-alice", "Content-Length: 0"}, from.lines...)
			a := g.send(method, "/private/a", "", lines...)
			if safe || from.same {
				if a.err != nil || a.StatusCode != 200 || method != "HEAD" && a.body != "users/alice" {
					t.Errorf("%s %q: %+v %s", method, from.lines, a.Response, a.body)
				}
				g.outcome()
				continue
			}
			g.checkRefusal(a, 403, codeCrossOrigin)
			if a.Header.Get("WWW-Authenticate") != "" {
				t.Errorf("%s %q: a challenge", method, from.lines)
			}
			d := g.decision()
			if d.Decision.Effect != "deny" || d.Decision.Code != codeCrossOrigin || d.Identity == nil || d.Identity.UID != "alice" || d.Identity.Name != "users" || d.Identity.TokenHash == "" {
				t.Errorf("%s %q: on record are %+v and %+v", method, from.lines, d.Decision, d.Identity)
			}
			// A token that some code put into the header was not sent by a browser
			// of its own accord.
			if b := g.send(method, "/private/a", "bob", lines...); b.StatusCode != 200 || b.body != "users/bob" {
				t.Errorf("%s %q with a token: %+v %s", method, from.lines, b.Response, b.body)
			}
			g.outcome()
		}
	}
}

// TestCrossOriginByHost: the origin is compared with the Host, each without the
// port that the origin's scheme has anyway.
func TestCrossOriginByHost(t *testing.T) {
	g, _ := cookieGate(t, whoApp(t))
	for _, c := range []struct {
		host, origin string
		same         bool
	}{
		{"gateway.test:8080", "http://gateway.test:8080", true},
		{"gateway.test:8080", "https://gateway.test:8080", true},
		{"gateway.test:8080", "http://gateway.test", false},
		{"gateway.test:8080", "http://gateway.test:80", false},
		{"gateway.test:8080", "http://gateway.test:8081", false},
		{"gateway.test:80", "http://gateway.test", true},
		{"gateway.test:80", "https://gateway.test", false},
		{"gateway.test:443", "https://gateway.test", true},
		{"gateway.test:443", "http://gateway.test", false},
		{"gateway.test:443", "https://gateway.test:443", true},
		{"GateWay.Test", "http://gateway.test", true},
		{"[::1]", "http://[::1]", true},
		{"[::1]", "http://[::1]:80", true},
		{"[::1]:8080", "http://[::1]:8080", true},
		{"[::1]:8080", "http://[::1]", false},
		{"[2001:db8::80]", "http://[2001:db8::]", false},
		{"[2001:db8::]", "http://[2001:db8::80]", false},
		{"[::1]", "http://[::2]", false},
		{"[::1]", "http://[0:0::1]", false},
		{"[::1]", "http://[::1%25a]", false},
		{"127.0.0.1:80", "http://127.0.0.1", true},
		{"127.0.0.1", "http://127.1", false},
		{"localhost", "http://127.0.0.1", false},
	} {
		raw := fmt.Sprintf("POST /private/a HTTP/1.1\r\nHost: %s\r\nCookie: __session=s-alice\r\nContent-Length: 0\r\nOrigin: %s\r\n\r\n", c.host, c.origin)
		if a := g.raw(raw); a.err != nil || (a.StatusCode == 200) != c.same || !c.same && (a.StatusCode != 403 || !strings.Contains(a.body, codeCrossOrigin)) {
			t.Errorf("%s asked by %s: %d %s", c.host, c.origin, a.StatusCode, a.body)
		}
	}
	// In a target with a host of its own that host counts.
	for origin, status := range map[string]int{"http://gateway.test": 200, "http://evil.test": 403} {
		raw := "POST http://gateway.test/private/a HTTP/1.1\r\nHost: evil.test\r\nCookie: __session=s-alice\r\nContent-Length: 0\r\nOrigin: " + origin + "\r\n\r\n"
		if a := g.raw(raw); a.StatusCode != status {
			t.Errorf("%s: %d %s", origin, a.StatusCode, a.body)
		}
	}
}

// TestCrossOriginOfWebSockets: a handshake is a GET, and what it opens can
// change anything. Browsers let every site open one, with the cookies.
func TestCrossOriginOfWebSockets(t *testing.T) {
	echo := websocket.Server{Handler: func(c *websocket.Conn) { websocket.Message.Send(c, c.Request().Header.Get(headerUID)) }}
	g, _ := cookieGate(t, newApp(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			io.WriteString(w, "no upgrade")
			return
		}
		echo.ServeHTTP(w, r)
	}))
	const handshake = "Connection: %s|Upgrade: %s|Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==|Sec-WebSocket-Version: 13"
	for _, words := range [][2]string{{"Upgrade", "websocket"}, {"keep-alive, upgrade", "WebSocket"}, {"UPGRADE", "WEBSOCKET"}} {
		for _, from := range fromSite {
			lines := append(strings.Split(fmt.Sprintf(handshake, words[0], words[1]), "|"), "Cookie: __session=s-alice")
			a := g.raw(request("GET", "/socket", "", append(lines, from.lines...)...))
			if a.err != nil && !errors.Is(a.err, io.ErrUnexpectedEOF) && !from.same {
				t.Errorf("%q: %v", from.lines, a.err)
				continue
			}
			if from.same {
				if a.Response == nil || a.StatusCode != 101 {
					t.Errorf("%q: %+v", from.lines, a.Response)
				}
				continue
			}
			if a.StatusCode != 403 || !a.Close || !strings.Contains(a.body, codeCrossOrigin) {
				t.Errorf("%q: %+v %s", from.lines, a.Response, a.body)
			}
			if d := g.decision(); d.Identity == nil || d.Identity.UID != "alice" || d.Decision.Code != codeCrossOrigin {
				t.Errorf("%q: on record are %+v and %+v", from.lines, d.Decision, d.Identity)
			}
		}
	}
	// What is no handshake opens nothing, and is a GET like every other.
	for _, lines := range [][]string{{"Upgrade: websocket"}, {"Connection: Upgrade"}, {"Connection: Upgrade", "Upgrade: h2c"}, {"Connection: Upgrade", "Upgrade: websocket/13"}} {
		a := g.send("GET", "/socket", "", append(lines, "Cookie: __session=s-alice", "Sec-Fetch-Site: cross-site")...)
		if a.StatusCode != 200 || a.body != "no upgrade" {
			t.Errorf("%q: %+v %s", lines, a.Response, a.body)
		}
	}
}

// cookieApp answers with the Cookie headers that it got, each in a line.
func cookieApp(t testing.TB) string {
	return rawApp(t, func(conn net.Conn, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		body := ""
		for _, line := range r.Header["Cookie"] {
			body += line + "\n"
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	})
}

// droppedCookies are Cookie headers, and what an app gets of them.
var droppedCookies = []struct{ in, out []string }{
	{nil, nil},
	{[]string{"a=1"}, []string{"a=1"}},
	{[]string{"a=1; b=2"}, []string{"a=1; b=2"}},
	{[]string{`b="x y, z"; a=1;c=%00ü; ;d`}, []string{`b="x y, z"; a=1;c=%00ü; ;d`}},
	{[]string{"a=1", "b=2", "a=3"}, []string{"a=1", "b=2", "a=3"}},
	{[]string{"__session=s-alice"}, nil},
	{[]string{"__session"}, nil},
	{[]string{"__session="}, nil},
	{[]string{"__session =s-alice"}, nil},
	{[]string{"__session\t=s-alice"}, nil},
	{[]string{"__session=s-alice; a=1"}, []string{"a=1"}},
	{[]string{"a=1; __session=s-alice"}, []string{"a=1"}},
	{[]string{"a=1; __session=s-alice; b=2"}, []string{"a=1; b=2"}},
	{[]string{"a=1;__session=s-alice;b=2"}, []string{"a=1;b=2"}},
	{[]string{"z=1; __session=x; __session=y; a=2; __Host-staff=z; a=1"}, []string{"z=1; a=2; a=1"}},
	{[]string{"__session=s-alice; __Host-staff=s-bob"}, nil},
	{[]string{"__session=s-alice", "a=1"}, []string{"a=1"}},
	{[]string{"a=1", "__session=s-alice", "b=2; __session=x; c=3"}, []string{"a=1", "b=2; c=3"}},
	{[]string{"a=__session=s-alice; b=2"}, []string{"a=__session=s-alice; b=2"}},
	{[]string{"__Session=x; my__session=y; __session2=z"}, []string{"__Session=x; my__session=y; __session2=z"}},
}

// TestSessionCookieStaysHere: an app that could read the cookie could act as
// the user elsewhere. Others pass byte for byte, in their order.
func TestSessionCookieStaysHere(t *testing.T) {
	drop, _ := cookieGate(t, cookieApp(t))
	keep, _ := cookieGate(t, cookieApp(t), upstream(func(u *Upstream) { u.KeepAuthorization = true }))
	lines := func(cookies []string) string {
		if len(cookies) == 0 {
			return ""
		}
		return strings.Join(cookies, "\n") + "\n"
	}
	for _, c := range droppedCookies {
		for _, target := range []string{"/public/a", "/optional/a", "/private/a"} {
			for _, g := range []*gate{drop, keep} {
				want := lines(c.out)
				if g == keep {
					want = lines(c.in)
				}
				headers := []string{"X-A: 1"}
				for _, line := range c.in {
					headers = append(headers, "Cookie: "+line)
				}
				a := g.send("GET", target, "alice", headers...)
				if a.err != nil || a.StatusCode != 200 || a.body != want {
					t.Errorf("%s %q (keep %v): %+v\n%s", target, c.in, g == keep, a.Response, a.body)
				}
			}
		}
	}
	// By the cookie itself, too, and in a handshake.
	for _, target := range []string{"/optional/a", "/private/a"} {
		if a := drop.send("GET", target, "", "Cookie: a=1; __session=s-alice; b=2"); a.body != "a=1; b=2\n" {
			t.Errorf("%s: %q", target, a.body)
		}
	}
	for _, target := range []string{"/socket", "/public/a"} {
		a := drop.send("GET", target, "", "Cookie: a=1; __session=s-alice; b=2", "Connection: Upgrade", "Upgrade: websocket", "Sec-Fetch-Site: same-origin")
		if a.body != "a=1; b=2\n" {
			t.Errorf("%s: %+v %q", target, a.Response, a.body)
		}
	}
}

// TestSessionCookieIsInNoLog: neither what it says nor that of a bad one.
func TestSessionCookieIsInNoLog(t *testing.T) {
	g, _ := cookieGate(t, whoApp(t))
	for _, cookie := range []string{"__session=s-alice", "__session=secret1", "__session=s-alice; __session=secret2"} {
		g.send("POST", "/private/a", "", "Content-Length: 0", "Cookie: "+cookie)
		g.outcome()
	}
	if err := g.tape.ledger.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	text := g.log.String()
	for line, err := range audit.Lines(g.dir) {
		if err != nil {
			t.Fatal(err)
		}
		text += string(line.Raw) + "\n"
	}
	if !strings.Contains(text, codeCrossOrigin) || strings.Contains(text, "s-alice") || strings.Contains(text, "secret") {
		t.Errorf("%s", text)
	}
}

// FuzzDropCookies: what is left holds no session cookie by the rules of net/http
// or by ours, everything else in its order, and where nothing is dropped not a
// byte differs.
func FuzzDropCookies(f *testing.F) {
	for _, c := range droppedCookies {
		f.Add(strings.Join(c.in, "\n"))
	}
	names := map[string]Authenticator{"__session": fakeTokens{}, "__Host-staff": fakeTokens{}}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }) {
			return // no header holds that
		}
		var in []string
		for line := range strings.SplitSeq(text, "\n") {
			in = append(in, strings.Trim(line, " \t")) // as net/http gives it
		}
		h := http.Header{"Cookie": append([]string{}, in...)}
		dropCookies(h, names)
		var want, got []string
		for _, line := range in {
			for pair := range strings.SplitSeq(line, ";") {
				name, _, _ := strings.Cut(pair, "=")
				if name = strings.Trim(name, " \t"); names[name] == nil {
					want = append(want, strings.Trim(pair, " \t"))
				}
			}
		}
		for _, line := range h["Cookie"] {
			for pair := range strings.SplitSeq(line, ";") {
				got = append(got, strings.Trim(pair, " \t"))
			}
		}
		// Empty pairs say nothing: one may go with its line.
		if a, b := strings.Join(nonEmpty(want), ";"), strings.Join(nonEmpty(got), ";"); a != b {
			t.Fatalf("%q: %q instead of %q", in, b, a)
		}
		for _, c := range (&http.Request{Header: h}).Cookies() {
			if names[c.Name] != nil {
				t.Fatalf("%q: %q is left", in, c.Name)
			}
		}
		x := &exchange{p: &Proxy{o: Options{SessionCookies: names}}, r: &http.Request{Header: h}}
		if _, _, there := x.sessionCookie(); there {
			t.Fatalf("%q: a session cookie is left in %q", in, h["Cookie"])
		}
		if !strings.Contains(text, "__") && strings.Join(in, "\n") != strings.Join(h["Cookie"], "\n") {
			t.Fatalf("%q became %q", in, h["Cookie"])
		}
	})
}

func nonEmpty(list []string) []string {
	var out []string
	for _, s := range list {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}
