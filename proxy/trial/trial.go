// Package trial tries policies: it runs their tests, explains decisions, and
// finds what another policy, or a recorded past, decides otherwise. Requests
// are judged by the gate itself (proxy.Judge), so that what is tried is what
// runs. It knows no command line and asks no network.
package trial

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sidegate/policy"
	"sidegate/proxy"
	"sidegate/storage/audit"
	"sidegate/storage/upload"
)

// A Request is one that is tried.
type Request struct {
	Method   string
	Target   string // as it would stand in the request line
	Host     string
	IP       netip.Addr
	Time     time.Time
	Identity *policy.Identity // nil: no token is sent
	AppCheck bool
	Body     []byte
	Length   int64       // of a body of which nothing but its length is tried
	Header   http.Header // beside Authorization and Content-Type

	Lookups  policy.Lookups         // nil: no document can be read
	Limits   *policy.Limiter        // nil: nothing is limited
	Recorded func(name string) bool // policy.Input.Recorded
	Session  *upload.Session        // that the request is about; nil: none is known
}

// A Gate judges requests by one policy. It is not safe for concurrent use.
type Gate struct {
	Policy *policy.Policy
	proxy  *proxy.Proxy
	// Of the request that is judged.
	now      time.Time
	identity *policy.Identity
}

// New makes a gate for a policy. The upstreams are those that the policy
// names, with native identity headers where upstreams does not say otherwise.
func New(p *policy.Policy, upstreams map[string]proxy.Upstream) (*Gate, error) {
	g := &Gate{Policy: p}
	all := map[string]proxy.Upstream{}
	for _, r := range p.Routes {
		if r.Upstream == "" {
			continue
		}
		u, ok := upstreams[r.Upstream]
		if !ok {
			u = proxy.Upstream{URL: &url.URL{Scheme: "http", Host: r.Upstream + ".invalid"}, KeepHost: true, Headers: proxy.NativeHeaders(), MaxBody: defaultMaxBody}
		}
		u.Timeout, u.IdleTimeout, u.Transport = time.Minute, time.Minute, nothing{}
		all[r.Upstream] = u
	}
	var err error
	g.proxy, err = proxy.New(proxy.Options{
		Name: "trial", Policy: p, Authenticator: g, Recorder: nothing{}, Upstreams: all,
		Uploads: &upload.Uploads{},
		Log:     zerolog.Nop(), Metrics: prometheus.NewRegistry(), Now: g.clock, IdleTimeout: time.Minute,
	})
	return g, err
}

// defaultMaxBody is an upstream's max_body where no sidegate.yaml says another.
const defaultMaxBody = 10 << 20

func (g *Gate) clock() time.Time { return g.now }

// Authenticate gives the identity of the request that is judged: whatever its
// token is, it counts as verified.
func (g *Gate) Authenticate(context.Context, string) (*policy.Identity, error) {
	return g.identity, nil
}

// Judge decides a request.
func (g *Gate) Judge(q *Request) proxy.Judgement {
	g.now, g.identity = q.Time, q.Identity
	return g.proxy.Judge(q.http(), proxy.Given{AppCheck: q.AppCheck, Lookups: q.Lookups, Limits: q.Limits, Recorded: q.Recorded, Session: q.Session})
}

// http is the request as net/http gives it to a handler.
func (q *Request) http() *http.Request {
	r := &http.Request{
		Method: q.Method, RequestURI: q.Target, Host: q.Host, URL: &url.URL{}, Header: http.Header{},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
	}
	if _, rest, absolute := strings.Cut(q.Target, "://"); absolute && !strings.HasPrefix(q.Target, "/") {
		r.Host, _, _ = strings.Cut(rest, "/") // net/http gives handlers the target's
	}
	if path, query, _ := strings.Cut(q.Target, "?"); path != "" {
		r.URL.Path, r.URL.RawQuery = path, query
	}
	if q.IP.IsValid() {
		r.RemoteAddr = netip.AddrPortFrom(q.IP, 50000).String()
	}
	for name, values := range q.Header {
		r.Header[name] = values
	}
	if q.Identity != nil {
		r.Header["Authorization"] = []string{"Bearer trial"}
	}
	if q.Body != nil {
		r.Header["Content-Type"] = []string{"application/json"}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(q.Body)), int64(len(q.Body))
	} else if q.Length > 0 {
		r.ContentLength = q.Length
	}
	return r
}

// nothing is what is behind the gate: no judged request reaches it.
type nothing struct{}

var errJudged = errors.New("a request that is only judged went on")

func (nothing) Record(context.Context, *audit.Event, audit.Survive) error { return errJudged }
func (nothing) Note(*audit.Event) error                                   { return errJudged }
func (nothing) RoundTrip(*http.Request) (*http.Response, error)           { return nil, errJudged }
