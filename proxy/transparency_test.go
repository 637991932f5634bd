package proxy

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const openPolicy = `version: sidegate-policy/v1
name: test
identities: [users]
routes:
  - {id: all, path: "/{rest...}", methods: [GET, POST, PUT, PATCH, DELETE, OPTIONS], allow: public, upstream: app, encoded_slash: decode}
`

// A difference is one that the gateway makes between what was sent and what
// arrives. Each changes a message as it arrives directly into what is due
// through the gateway: one that is due and not made is a fault, too.
type difference struct {
	why   string
	apply func(m *message, s sample)
}

// requestDifferences are between what the caller sends and the app gets.
// docs/http.md has them all.
var requestDifferences = []difference{
	{"the target in its one form; the version is each connection's own", func(m *message, s sample) {
		part := strings.Split(m.first, " ")
		if s.target != "" {
			part[1] = s.target
		}
		m.first = part[0] + " " + part[1] + " HTTP/1.1"
	}},
	{"the host in its one form", func(m *message, s sample) {
		if s.host != "" {
			m.drop("Host")
			m.add("Host", s.host)
		}
	}},
	{"hop-by-hop headers end here (RFC 9110, 7.6.1); only that trailers are understood is said on", func(m *message, _ sample) {
		trailers := strings.Contains(m.value("TE"), "trailers")
		dropHops(m)
		if trailers {
			m.add("TE", "trailers")
		}
	}},
	{"trailers of requests end here", func(m *message, _ sample) {
		m.trailer = nil
		m.drop("Trailer")
	}},
	{"only the gateway may say these, or they are lies", func(m *message, _ sample) {
		m.fields = slices.DeleteFunc(m.fields, func(f headerLine) bool {
			return mustStrip(http.CanonicalHeaderKey(f.name), nil)
		})
	}},
	{"a token is the gateway's", func(m *message, _ sample) {
		if strings.HasPrefix(m.value("Authorization"), "Bearer") {
			m.drop("Authorization")
		}
	}},
	{"net/http sends one User-Agent, or none where it is empty", func(m *message, _ sample) {
		if all := m.values("User-Agent"); len(all) > 0 {
			m.drop("User-Agent")
			if all[0] != "" {
				m.add("User-Agent", all[0])
			}
		}
	}},
	sayNoCache,
}

// answerDifferences are between what the app sends and the caller gets.
var answerDifferences = []difference{
	{"the version is each connection's own, and net/http has its own words for a status", func(m *message, s sample) {
		words := http.StatusText(m.status())
		if words == "" {
			words = fmt.Sprint("status code ", m.status())
		}
		version := "HTTP/1.1"
		if s.old() {
			version = "HTTP/1.0"
		}
		m.first = fmt.Sprint(version, " ", m.status(), " ", words)
	}},
	{"hop-by-hop headers end here", func(m *message, _ sample) { dropHops(m) }},
	{"no app speaks in the gateway's name", func(m *message, _ sample) { m.drop("X-Sidegate-Uid", "X-Sidegate-Response") }},
	{"who passes on an answer without a date dates it (RFC 9110, 6.6.1)", func(m *message, _ sample) {
		if len(m.values("Date")) == 0 && m.status() >= 200 {
			m.add("Date", "now")
		}
	}},
	{"a caller who hangs up is told the same; HTTP/1.0 and a wish to upgrade end the connection", func(m *message, s sample) {
		if m.status() >= 200 && (s.old() || s.closes()) {
			m.add("Connection", "close")
		}
	}},
	{"an end that only the connection tells is told by chunks; HTTP/1.0 has none", func(m *message, s sample) {
		switch {
		case m.framing == "close" && !s.old():
			m.framing = "chunked"
		case m.framing == "chunked" && s.old():
			m.framing, m.trailer = "close", nil
		}
	}},
	{"an answer that has no body says nothing of one (RFC 9110, 8.6 and 15.4.5)", func(m *message, _ sample) {
		switch m.status() {
		case 204:
			m.drop("Content-Length")
		case 304:
			m.drop("Content-Length", "Content-Type")
		}
	}},
	sayNoCache,
}

// sayNoCache: who says it the old way only is taken at his word in the new way.
var sayNoCache = difference{"net/http adds Cache-Control: no-cache to a lone Pragma: no-cache", func(m *message, _ sample) {
	if m.value("Pragma") == "no-cache" && len(m.values("Cache-Control")) == 0 {
		m.add("Cache-Control", "no-cache")
	}
}}

var hopFields = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Transfer-Encoding", "Upgrade"}

// dropHops removes the fields of RFC 9110, section 7.6.1.
func dropHops(m *message) {
	for _, v := range m.values("Connection") {
		for name := range strings.SplitSeq(v, ",") {
			m.drop(strings.TrimSpace(name))
		}
	}
	m.drop(hopFields...)
}

func (s sample) old() bool { return strings.Contains(s.request, " HTTP/1.0\r\n") }
func (s sample) closes() bool {
	return strings.Contains(strings.ToLower(s.request), "connection: close") || strings.Contains(s.request, "\r\nUpgrade:")
}

// setByUs are the headers that the gateway sets, and what they look like.
var setByUs = map[string]*regexp.Regexp{
	"X-Forwarded-For":     regexp.MustCompile(`^127\.0\.0\.1$`),
	"X-Forwarded-Proto":   regexp.MustCompile(`^http$`),
	"X-Forwarded-Host":    regexp.MustCompile(`^[-a-z0-9._:\[\]]+$`),
	"X-Request-Id":        regexp.MustCompile(`^[0-9a-f]{32}$`),
	"Traceparent":         regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-00$`),
	"X-Sidegate-Uid":      regexp.MustCompile(`^alice$`),
	"X-Sidegate-Identity": regexp.MustCompile(`^users$`),
	"X-Sidegate-Email":    regexp.MustCompile(`^alice@acme\.dev$`),
}

// takeOurs removes what the gateway sets, once each.
func takeOurs(t *testing.T, m *message) {
	t.Helper()
	for name, form := range setByUs {
		all := m.values(name)
		if len(all) > 1 || len(all) == 1 && !form.MatchString(all[0]) {
			t.Errorf("%s: %q", name, all)
		}
		if len(all) == 0 && !strings.HasPrefix(name, "X-Sidegate-") {
			t.Errorf("%s is not set", name)
		}
		m.drop(name)
	}
}

// TestTransparency: what the app is asked and the caller is answered are the
// same through the gateway as without it, but for what the tables above say.
func TestTransparency(t *testing.T) {
	app := newMirrorApp(t)
	g := newGate(t, "http://"+app.address, func(o *Options) { o.Policy = loadPolicy(t, openPolicy) })
	all := corpus()
	if len(all) < 200 {
		t.Errorf("%d shapes only", len(all))
	}
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) { compare(t, app, g.address, s) })
	}
}

// TestAuthenticatedAnswersAreAsTheyWere: what an app tells those who are
// somebody is not made cacheable here, nor told anew: Cache-Control, Expires,
// Vary and all the others are the app's or are not there.
func TestAuthenticatedAnswersAreAsTheyWere(t *testing.T) {
	app := newMirrorApp(t)
	g := newGate(t, "http://"+app.address, func(o *Options) {
		o.Policy = loadPolicy(t, strings.Replace(openPolicy, "allow: public", "allow: [{id: user, who: [users]}]", 1))
	})
	for _, s := range slices.Concat(statusShapes(), answerHeaderShapes(), answerBodyShapes(), interimShapes()) {
		s.request = strings.Replace(s.request, "\r\n", "\r\nAuthorization: Bearer alice\r\n", 1)
		t.Run(s.name, func(t *testing.T) { compare(t, app, g.address, s) })
	}
}

func compare(t *testing.T, app *mirrorApp, gateway string, s sample) {
	t.Helper()
	exchange := func(address string) (asked, answered []*message) {
		app.next(s.answer, s.hangUp)
		answered, err := talk(address, s.request, max(s.answers, 1))
		if err != nil {
			t.Fatalf("%s: %v after %v", address, err, answered)
		}
		return app.asked(), answered
	}
	askedBefore, answeredBefore := exchange(app.address)
	asked, answered := exchange(gateway)
	for _, m := range asked {
		takeOurs(t, m)
	}
	for _, m := range answered {
		if at, err := http.ParseTime(m.value("Date")); err == nil && time.Since(at) < time.Minute {
			m.drop("Date")
			m.add("Date", "now")
		}
	}
	if s.old() { // which knows no interim answers (RFC 9110, section 15.2)
		answeredBefore = slices.DeleteFunc(answeredBefore, func(m *message) bool { return m.status() < 200 })
	}
	same(t, "the app was asked", askedBefore, asked, requestDifferences, s)
	same(t, "the caller was answered", answeredBefore, answered, answerDifferences, s)
}

// settle brings into one form what may be told in several: that there is no
// body, and the names in Trailer, which are a set.
func settle(m *message) {
	if m.body == "" && len(m.trailer) == 0 {
		m.framing = "none"
	}
	if names := m.value("Trailer"); names != "" {
		list := strings.Split(names, ", ")
		slices.Sort(list)
		m.drop("Trailer")
		m.add("Trailer", strings.Join(list, ", "))
	}
}

func same(t *testing.T, what string, before, got []*message, differences []difference, s sample) {
	t.Helper()
	var want, have strings.Builder
	for _, m := range before {
		for _, d := range differences {
			d.apply(m, s)
		}
		settle(m)
		want.WriteString(m.String())
	}
	for _, m := range got {
		settle(m)
		have.WriteString(m.String())
	}
	if want.String() != have.String() {
		t.Errorf("%s\n%s\nwant\n%s", what, have.String(), want.String())
	}
}

// TestLegalAndRefused: what HTTP allows and the gateway does not take.
func TestLegalAndRefused(t *testing.T) {
	g := newGate(t, newApp(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	for name, c := range map[string]struct{ request, code string }{
		"HTTP/1.0 without a host":     {"GET /public/a HTTP/1.0\r\n\r\n", codeBadTarget},
		"whitespace before extension": {request("POST", "/public/a", "", "Transfer-Encoding: chunked") + "1 ;a\r\nx\r\n0\r\n\r\n", codeBadRequest},
	} {
		if a := g.raw(c.request); a.err != nil || a.StatusCode != 400 || !strings.Contains(a.body, c.code) {
			t.Errorf("%s: %+v %s", name, a.Response, a.body)
		}
	}
}
