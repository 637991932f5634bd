package proxy

import (
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// A Dialect is how another proxy asks whether a request may pass.
type Dialect string

const (
	// DialectNginx is nginx's auth_request, as people configure it and as
	// ingress-nginx does: X-Original-Method, and X-Original-URI or X-Original-URL.
	DialectNginx Dialect = "nginx"
	// DialectTraefik is Traefik's forwardAuth, and Caddy's forward_auth:
	// X-Forwarded-Method, -Uri, -Host and -Proto.
	DialectTraefik Dialect = "traefik"
	// DialectEnvoy is Envoy's ext_authz over HTTP: the question is the request,
	// but for its body.
	DialectEnvoy Dialect = "envoy"
)

// A question is what another proxy asks of a request that it holds.
type question struct {
	dialect Dialect
	sent    *http.Request // as the proxy sent it
	problem *problem      // why it asks nothing that could be decided; nil: it does
	// body: something is behind the question's header. Nobody reads it, so that
	// the connection ends with the answer.
	body bool
}

// readQuestion gives the request that is asked about, in the shape in which
// net/http would have handed it over. Where the question is no good, the
// request has what is certain of it, for the record.
func readQuestion(d Dialect, r *http.Request) (*http.Request, *question) {
	q := &question{dialect: d, sent: r, body: r.Body != nil && r.Body != http.NoBody}
	asked := &http.Request{
		URL: &url.URL{}, Header: maps.Clone(r.Header), Body: http.NoBody, RemoteAddr: r.RemoteAddr,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, // that of the original is not told
	}
	if asked.Header == nil {
		asked.Header = http.Header{}
	}
	for _, name := range ofTheQuestion {
		delete(asked.Header, name)
	}
	target, ok := d.target(r)
	asked.Method, asked.RequestURI, asked.Host = target.method, target.uri, target.host
	q.problem = q.readUpgrade(asked.Header, target.scheme == "ws" || target.scheme == "wss")
	if !ok {
		q.problem = &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "the question does not say, once each, which method and which target are asked for"}
	}
	delete(asked.Header, "X-Forwarded-Proto")
	switch target.scheme {
	case "http", "ws":
		asked.Header["X-Forwarded-Proto"] = []string{"http"}
	case "https", "wss":
		asked.Header["X-Forwarded-Proto"] = []string{"https"}
	}
	return asked.WithContext(r.Context()), q
}

// ofTheQuestion are headers that frame the question, or are its words: they say
// nothing of the request that is asked about.
var ofTheQuestion = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Content-Length", "Expect", "Upgrade",
	"X-Original-Method", "X-Original-Uri", "X-Original-Url", "X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Host",
}

// An askedTarget is what a question says of the request's first line.
type askedTarget struct{ method, uri, host, scheme string }

// target reads a question's words, each of which must be there exactly once: of
// two, one can be the caller's own. False: they are not.
func (d Dialect) target(r *http.Request) (t askedTarget, ok bool) {
	ok = true
	once := func(name string) string {
		v := r.Header[name]
		if len(v) != 1 || v[0] == "" {
			ok = false
			return ""
		}
		return v[0]
	}
	if len(r.Header["X-Forwarded-Proto"]) > 0 {
		t.scheme = strings.ToLower(once("X-Forwarded-Proto"))
	}
	switch d {
	case DialectNginx:
		t.method = once("X-Original-Method")
		if _, whole := r.Header["X-Original-Url"]; whole {
			_, both := r.Header["X-Original-Uri"]
			whole = t.readURL(once("X-Original-Url"))
			return t, whole && ok && !both
		}
		t.uri, t.host = once("X-Original-Uri"), r.Host
	case DialectTraefik:
		t.method, t.uri, t.host = once("X-Forwarded-Method"), once("X-Forwarded-Uri"), once("X-Forwarded-Host")
	case DialectEnvoy:
		t.method, t.uri, t.host = r.Method, r.RequestURI, r.Host
		return t, ok
	default:
		return t, false
	}
	// The path and query of the original: a target with a host of its own was
	// read by the proxy, and its other half would be unknown here.
	return t, ok && strings.HasPrefix(t.uri, "/")
}

// readURL takes an absolute URL apart, as ingress-nginx sends it.
func (t *askedTarget) readURL(raw string) bool {
	path, authority, err := originForm(raw)
	if err != nil || authority == "" {
		return false
	}
	scheme, _, _ := strings.Cut(raw, ":")
	t.uri, t.host, t.scheme = path, authority, strings.ToLower(scheme)
	return true
}

// readUpgrade puts into h how the original wants to leave HTTP. What becomes of
// it is in the other proxy's hands, so that an Upgrade which would be ignored on
// the public listener is refused here. Some proxies keep Upgrade to themselves
// and pass on what goes with a WebSocket's; that says as much.
func (q *question) readUpgrade(h http.Header, socket bool) *problem {
	upgrade, there := q.sent.Header["Upgrade"]
	for name := range h {
		socket = socket || strings.HasPrefix(name, "Sec-Websocket-")
	}
	switch {
	case there && (len(upgrade) != 1 || !strings.EqualFold(upgrade[0], "websocket")):
		return &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "no other protocol than WebSocket can be asked for here"}
	case there || socket:
		h["Upgrade"], h["Connection"] = []string{"websocket"}, []string{"Upgrade"}
	}
	return nil
}

// askedBy is the caller's address and whether it is known: what the other proxy
// says of it, as on the public listener where the peer is a trusted proxy. A
// proxy that says nothing, or nothing that could be read, leaves it unknown:
// its own address is everybody's.
func (p *Proxy) askedBy(r *http.Request) netip.Addr {
	hops := TrustedProxies{Prefixes: p.o.Trusted.Prefixes, Peer: true}
	lines := r.Header["X-Forwarded-For"]
	if len(lines) == 0 {
		return netip.Addr{}
	}
	last := lines[len(lines)-1]
	if _, ok := parseForwarded(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])); !ok {
		return netip.Addr{}
	}
	ip, _ := hops.client(r.RemoteAddr, r.Header)
	return ip
}
