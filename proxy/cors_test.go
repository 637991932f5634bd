package proxy

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sidegate/policy"
)

const corsPolicy = `version: sidegate-policy/v1
identities: [users]
guards:
  - {id: office, path: "/private/{rest...}", methods: [GET, POST, OPTIONS], require: {who: [users]}}
routes:
  - {id: private, path: "/private/{rest...}", methods: [GET, POST], upstream: app, allow: [{id: any, who: [users]}]}
  - {id: asked, path: "/options", methods: [OPTIONS, PUT], upstream: app, allow: [{id: any, who: [users]}]}
  - {id: limited, path: /limited, methods: [GET], upstream: app, allow: public, limit: {rate: 1/h, burst: 2, per: ip}}
  - {id: confirm, path: "/uploads/{session}", methods: [POST], serve: confirm_upload, allow: [{id: any, who: [users]}]}
`

const (
	page     = "https://app.acme.dev"
	stranger = "https://evil.example"
)

// corsGate is in front of an app that has CORS of its own, and answers with the
// headers that it got.
func corsGate(t testing.TB, c *CORS, change ...func(*Options)) *gate {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte(corsPolicy), &policy.Environment{
		Identities: map[string]string{"users": "users"}, Upstreams: map[string]policy.Upstream{"app": {}}, Buckets: map[string]policy.Bucket{"default": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", stranger)
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Add("Access-Control-Allow-Headers", "X-App")
		h.Set("Access-Control-Allow-Methods", "TRACE")
		h.Set("Access-Control-Max-Age", "99")
		h.Set("Access-Control-Expose-Headers", "Etag")
		h.Set("Vary", "Accept-Encoding, origin")
		io.WriteString(w, r.Method+" auth="+r.Header.Get("Authorization")+" cookie="+r.Header.Get("Cookie")+" uid="+r.Header.Get("X-Sidegate-Uid"))
	})
	return newGate(t, app, append([]func(*Options){func(o *Options) { o.Policy, o.CORS = p, c }}, change...)...)
}

func asked(origin, method string) []string {
	return []string{"Origin: " + origin, "Access-Control-Request-Method: " + method, "Access-Control-Request-Headers: authorization"}
}

// wantCORS compares what an answer says of CORS with "Name: value" lines.
func wantCORS(t *testing.T, what string, h http.Header, want ...string) {
	t.Helper()
	var got []string
	for name, values := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			for _, v := range values {
				got = append(got, strings.TrimPrefix(name, "Access-Control-")+": "+v)
			}
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}

func answering() *CORS {
	return &CORS{Origins: []string{page, "http://localhost:3000"}, Headers: []string{"Authorization", "Content-Type"}, Credentials: true, MaxAge: 10 * time.Minute}
}

func TestCORSPreflightAnsweredHere(t *testing.T) {
	g := corsGate(t, answering())
	for _, c := range []struct {
		name, target, origin, method string
		status                       int
		want                         []string
	}{
		{"of a page", "/private/a", page, "POST", 204, []string{"Allow-Credentials: true", "Allow-Headers: Authorization, Content-Type", "Allow-Methods: POST", "Allow-Origin: " + page, "Max-Age: 600"}},
		{"of a served route", "/uploads/x", page, "POST", 204, []string{"Allow-Credentials: true", "Allow-Headers: Authorization, Content-Type", "Allow-Methods: POST", "Allow-Origin: " + page, "Max-Age: 600"}},
		{"of a stranger", "/private/a", stranger, "POST", 204, nil},
		{"of no origin", "/private/a", "null", "POST", 204, nil},
		{"of an origin that begins so", "/private/a", page + ".evil.example", "POST", 204, nil},
		{"of an origin in another case", "/private/a", strings.ToUpper(page), "POST", 204, nil},
		{"for a method that there is not", "/private/a", page, "DELETE", 405, []string{"Allow-Credentials: true", "Allow-Origin: " + page, "Expose-Headers: " + exposed}},
		{"for a method that is none", "/private/a", page, "CONNECT", 405, []string{"Allow-Credentials: true", "Allow-Origin: " + page, "Expose-Headers: " + exposed}},
		{"for a path that there is not", "/nowhere", page, "GET", 404, []string{"Allow-Credentials: true", "Allow-Origin: " + page, "Expose-Headers: " + exposed}},
		{"for an ambiguous path", "/private/../a", page, "GET", 400, []string{"Allow-Credentials: true", "Allow-Origin: " + page, "Expose-Headers: " + exposed}},
	} {
		a := g.send("OPTIONS", c.target, "", asked(c.origin, c.method)...)
		d := g.decision()
		g.outcome()
		if a.err != nil || a.StatusCode != c.status || !ownHeader(a.Header, "no-store") || a.StatusCode == 204 && (a.body != "" || d.Decision.Effect != "preflight" || d.Decision.Code != "preflight" || d.Identity != nil) {
			t.Errorf("%s: %d %s, %+v", c.name, a.StatusCode, a.body, d.Decision)
		}
		wantCORS(t, c.name, a.Header, c.want...)
		if !slices.Contains(a.Header["Vary"], "Origin") {
			t.Errorf("%s: Vary: %q", c.name, a.Header["Vary"])
		}
	}
	// Limits per ip count for preflights, too.
	statuses := []int{}
	for range 3 {
		statuses = append(statuses, g.send("OPTIONS", "/limited", "", asked(page, "GET")...).StatusCode)
	}
	if !slices.Equal(statuses, []int{204, 204, 429}) {
		t.Errorf("limited: %v", statuses)
	}
}

// What is no preflight is a request like any other, and needs what they need.
func TestOptionsThatAreNoPreflights(t *testing.T) {
	g := corsGate(t, answering())
	for name, lines := range map[string][]string{
		"no method asked for":   {"Origin: " + page},
		"no origin":             {"Access-Control-Request-Method: PUT"},
		"two origins":           {"Origin: " + page, "Origin: " + page, "Access-Control-Request-Method: PUT"},
		"two methods asked for": {"Origin: " + page, "Access-Control-Request-Method: PUT", "Access-Control-Request-Method: GET"},
	} {
		if a := g.send("OPTIONS", "/options", "", lines...); a.StatusCode != 401 {
			t.Errorf("%s, nobody: %d", name, a.StatusCode)
		}
		g.outcome()
		if a := g.send("OPTIONS", "/options", "alice", lines...); a.StatusCode != 200 || !strings.HasPrefix(a.body, "OPTIONS ") {
			t.Errorf("%s, alice: %d %s", name, a.StatusCode, a.body)
		}
		g.outcome()
	}
}

// The app's answers, and the gateway's own, are readable by the same pages, and
// nothing is said twice.
func TestCORSOfAnswers(t *testing.T) {
	g := corsGate(t, answering())
	allowed := []string{"Allow-Credentials: true", "Allow-Origin: " + page}
	a := g.send("GET", "/private/a", "alice", "Origin: "+page)
	wantCORS(t, "the app's", a.Header, append(slices.Clone(allowed), "Expose-Headers: Etag")...)
	if a.StatusCode != 200 || !slices.Equal(a.Header["Vary"], []string{"Accept-Encoding, origin"}) {
		t.Errorf("%d, Vary: %q", a.StatusCode, a.Header["Vary"])
	}
	wantCORS(t, "401", g.send("GET", "/private/a", "", "Origin: "+page).Header, append(slices.Clone(allowed), "Expose-Headers: "+exposed)...)
	wantCORS(t, "404", g.send("GET", "/nowhere", "", "Origin: "+page).Header, append(slices.Clone(allowed), "Expose-Headers: "+exposed)...)
	wantCORS(t, "a stranger's", g.send("GET", "/private/a", "alice", "Origin: "+stranger).Header, "Expose-Headers: Etag")
	none := g.send("GET", "/private/a", "alice")
	wantCORS(t, "without an origin", none.Header, "Expose-Headers: Etag")
	two := g.send("GET", "/private/a", "alice", "Origin: "+page, "Origin: "+stranger)
	wantCORS(t, "with two", two.Header, "Expose-Headers: Etag")
}

func TestCORSForEverybody(t *testing.T) {
	g := corsGate(t, &CORS{Origins: []string{"*"}, Headers: []string{"*"}, MaxAge: time.Minute})
	wantCORS(t, "a preflight", g.send("OPTIONS", "/private/a", "", asked(stranger, "GET")...).Header,
		"Allow-Headers: *", "Allow-Methods: GET", "Allow-Origin: *", "Max-Age: 60")
	a := g.send("GET", "/private/a", "alice", "Origin: "+stranger)
	wantCORS(t, "an answer", a.Header, "Allow-Origin: *", "Expose-Headers: Etag")
}

// With `cors: upstream` the app answers preflights, and is told nobody's name.
func TestCORSPreflightsPass(t *testing.T) {
	g := corsGate(t, &CORS{Upstream: true})
	a := g.send("OPTIONS", "/private/a", "alice", append(asked(page, "POST"), "Cookie: a=b")...)
	if a.StatusCode != 200 || a.body != "OPTIONS auth= cookie= uid=" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
	if d := g.decision(); d.Decision.Effect != "preflight" || d.Decision.Route != "private" || d.Identity != nil {
		t.Errorf("%+v", d.Decision)
	}
	wantCORS(t, "the app's own", a.Header, "Allow-Credentials: true", "Allow-Headers: X-App", "Allow-Methods: TRACE", "Allow-Origin: "+stranger, "Expose-Headers: Etag", "Max-Age: 99")
	g.outcome()
	served := g.send("OPTIONS", "/uploads/x", "", asked(page, "POST")...)
	if served.StatusCode != 405 || served.Header.Get("Allow") != "POST" {
		t.Errorf("a served route: %d, Allow: %s", served.StatusCode, served.Header.Get("Allow"))
	}
	g.outcome()
	for target, method := range map[string]string{"/nowhere": "GET", "/private/a": "DELETE"} {
		if a := g.send("OPTIONS", target, "", asked(page, method)...); a.StatusCode != 404 && a.StatusCode != 405 || strings.Contains(a.body, "OPTIONS") {
			t.Errorf("%s %s: %d", method, target, a.StatusCode)
		}
		g.outcome()
	}
}

// Without `cors` a preflight is an OPTIONS request, and nothing is added.
func TestNoCORS(t *testing.T) {
	g := corsGate(t, nil)
	if a := g.send("OPTIONS", "/private/a", "", asked(page, "GET")...); a.StatusCode != 405 || a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	g.outcome()
	a := g.send("GET", "/private/a", "alice", "Origin: "+page)
	wantCORS(t, "the app's", a.Header, "Allow-Credentials: true", "Allow-Headers: X-App", "Allow-Methods: TRACE", "Allow-Origin: "+stranger, "Expose-Headers: Etag", "Max-Age: 99")
}

// A session cookie counts for the pages that may send cookies, and for no others.
func TestSessionCookiesOfAllowedOrigins(t *testing.T) {
	for _, c := range []struct {
		cors   *CORS
		origin string
		status int
	}{
		{answering(), page, 200}, {answering(), stranger, 403}, {answering(), "null", 403},
		{&CORS{Origins: []string{page}}, page, 403}, {&CORS{Upstream: true}, page, 403}, {nil, page, 403},
		{&CORS{Origins: []string{"*"}}, page, 403},
	} {
		g, _ := cookieGate(t, lenientApp(t), func(o *Options) { o.CORS = c.cors })
		a := g.send("POST", "/private/a", "", "Cookie: __session=s-alice", "Origin: "+c.origin, "Sec-Fetch-Site: cross-site", "Content-Length: 0")
		if a.StatusCode != c.status {
			t.Errorf("%+v from %s: %d %s", c.cors, c.origin, a.StatusCode, a.body)
		}
	}
}
