package proxy

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// CORS says which pages of other origins may read what the gateway answers (the
// Fetch standard's CORS protocol, fetch.spec.whatwg.org).
type CORS struct {
	// Upstream leaves it to the upstreams: preflights pass, without an identity,
	// and the gateway adds nothing.
	Upstream bool
	// Origins are those that may, as browsers write them, or `*` alone: all.
	Origins []string
	// Headers are the request headers that they may send.
	Headers []string
	// Credentials lets them send cookies; never with `*`.
	Credentials bool
	// MaxAge is how long a browser may keep a preflight's answer.
	MaxAge time.Duration
}

func (c *CORS) anybody() bool { return slices.Contains(c.Origins, "*") }

func (c *CORS) allows(origin string) bool { return origin != "" && slices.Contains(c.Origins, origin) }

const (
	reasonPreflight = "preflight"

	headerRequestMethod = "Access-Control-Request-Method"
)

// isPreflight reports whether a browser asks what a page may send. An OPTIONS
// that is none is a method like any other.
func (x *exchange) isPreflight() bool {
	h := x.r.Header
	if x.question != nil && x.p.o.CORS != nil && !x.p.o.CORS.Upstream {
		return false // the other proxy would pass it on, and nobody would answer it here
	}
	return x.p.o.CORS != nil && x.r.Method == http.MethodOptions && x.body == nil && len(h["Origin"]) == 1 && len(h[headerRequestMethod]) == 1
}

// decidePreflight routes a preflight by the method that the page wants to use.
// Browsers send it without what says who somebody is: neither identity nor
// guards nor entries count for it, and it leads to nothing but headers.
func (p *Proxy) decidePreflight(x *exchange) (decision, action) {
	x.preflight = true
	if d, ok := x.route(x.r.Header[headerRequestMethod][0]); !ok {
		return d, nil
	}
	if d, ok := x.limit(x.match.Route.IPLimits, decision{}); !ok {
		return d, nil
	}
	d := decision{allow: true, reason: reasonPreflight}
	if !p.o.CORS.Upstream {
		return d, answerPreflight
	}
	f := p.upstreams[x.match.Route.Upstream]
	if f == nil { // the gateway serves it, and no app answers for it
		return refuse(codeMethod, &problem{status: http.StatusMethodNotAllowed, code: codeMethod, detail: "the method is not allowed here",
			allow: x.policy.Match(x.target.host, x.target.path, "").Allowed}), nil
	}
	return d, f.forward
}

func answerPreflight(x *exchange) error {
	ownAnswer(x.w.Header(), x.id)
	x.w.WriteHeader(http.StatusNoContent) // which adds what allowCORS does
	return nil
}

// exposed are the gateway's own headers that pages may read.
const exposed = "Retry-After, WWW-Authenticate, X-Request-Id, X-Sidegate-Response"

// allowCORS says to a browser whether the page may read this answer, whoever
// gave it: what an upstream says of it is removed, so that nothing is said
// twice. Which response headers a page may read is the upstream's to say.
func (x *exchange) allowCORS(h http.Header) {
	c := x.p.o.CORS
	for _, name := range []string{"Origin", "Credentials", "Methods", "Headers"} {
		h.Del("Access-Control-Allow-" + name)
	}
	h.Del("Access-Control-Max-Age")
	origin := "*"
	if !c.anybody() {
		vary(h, "Origin") // caches keep one answer for each, also where nobody asked
		origin = ""
		if sent := x.r.Header["Origin"]; len(sent) == 1 && c.allows(sent[0]) {
			origin = sent[0]
		}
	}
	if origin == "" {
		return
	}
	h.Set("Access-Control-Allow-Origin", origin)
	if c.Credentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	switch {
	case x.preflight && x.decision.allow:
		h.Set("Access-Control-Allow-Methods", x.r.Header[headerRequestMethod][0])
		if len(c.Headers) > 0 {
			h.Set("Access-Control-Allow-Headers", strings.Join(c.Headers, ", "))
		}
		h.Set("Access-Control-Max-Age", strconv.Itoa(int(c.MaxAge/time.Second)))
	case h.Get("X-Sidegate-Response") != "":
		h.Set("Access-Control-Expose-Headers", exposed)
	}
}

// vary adds a name to Vary where it is not there yet.
func vary(h http.Header, name string) {
	if !hasToken(h["Vary"], name) && !hasToken(h["Vary"], "*") {
		h.Add("Vary", name)
	}
}

// fromAllowedOrigin reports whether a page that may send cookies sent the
// request.
func (x *exchange) fromAllowedOrigin() bool {
	c, origin := x.p.o.CORS, x.r.Header["Origin"]
	return c != nil && c.Credentials && len(origin) == 1 && c.allows(origin[0])
}

// effect is a decision's in the audit log and the metrics.
func (x *exchange) effect() string {
	switch {
	case !x.decision.allow:
		return "deny"
	case x.preflight:
		return "preflight"
	}
	return "allow"
}
