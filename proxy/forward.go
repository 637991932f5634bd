package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"
)

// A forwarder sends requests to one upstream.
type forwarder struct {
	p     *Proxy
	name  string
	up    Upstream
	proxy *httputil.ReverseProxy
}

// exchangeKey finds the exchange of a forwarded request in its context.
type exchangeKey struct{}

func newForwarder(p *Proxy, name string, u Upstream) *forwarder {
	f := &forwarder{p: p, name: name, up: u}
	f.proxy = &httputil.ReverseProxy{
		Rewrite:        f.rewrite,
		ModifyResponse: f.answered,
		ErrorHandler:   f.failed,
		Transport:      u.Transport,
		BufferPool:     buffers,
		ErrorLog:       quietLog, // what it says is in the outcome and our own log
	}
	return f
}

var (
	errClientGone      = errors.New("the caller went away")
	errUpstreamSilent  = errors.New("the upstream sent no answer in time")
	errUpstreamStalled = errors.New("the upstream's answer stalled")
)

// forward is the action of an allowed request for an upstream.
func (f *forwarder) forward(x *exchange) error {
	x.upstream = f.name
	ctx, cancel := context.WithCancelCause(context.WithValue(x.r.Context(), exchangeKey{}, x))
	defer cancel(nil)
	timeout := f.up.Timeout
	if t := x.match.Route.Timeout; t > 0 {
		timeout = t
	}
	x.watch = newWatchdog(timeout, cancel)
	if x.body != nil {
		x.body.progress = x.watch.sending
	}
	f.proxy.ServeHTTP(x.w, x.r.WithContext(ctx))
	return nil
}

// rewrite makes the upstream's request: what only the gateway may say is
// removed first, in every spelling, and then set.
func (f *forwarder) rewrite(pr *httputil.ProxyRequest) {
	x := pr.In.Context().Value(exchangeKey{}).(*exchange)
	out := pr.Out
	out.URL.Scheme, out.URL.Host = f.up.URL.Scheme, f.up.URL.Host
	out.URL.Path, out.URL.RawPath = x.target.path, x.target.escaped
	out.URL.RawQuery, out.URL.Opaque, out.URL.User = x.target.query, "", nil
	out.Host = f.up.URL.Host
	if f.up.KeepHost {
		out.Host = x.target.hostPort
	}
	strip(out.Header)
	strip(out.Trailer)
	if !x.upgrades() {
		out.Header.Del("Connection")
		out.Header.Del("Upgrade")
	}
	if !f.up.KeepAuthorization && dropsAuthorization(x) {
		out.Header.Del("Authorization")
	}
	f.setForwarded(x, out.Header)
	if f.up.Identity {
		setIdentity(out.Header, x)
	}
}

// dropsAuthorization: a Bearer token goes to nobody but the gateway; other
// schemes are the app's own business where no identity is needed.
func dropsAuthorization(x *exchange) bool {
	_, bearer := bearerToken(x.r.Header.Get("Authorization"))
	return bearer || needsIdentity(x.match.Route)
}

// answered looks at the upstream's answer before it is passed on.
func (f *forwarder) answered(res *http.Response) error {
	x := res.Request.Context().Value(exchangeKey{}).(*exchange)
	stripAnswer(res.Header)
	stripAnswer(res.Trailer)
	if res.StatusCode == http.StatusSwitchingProtocols {
		x.watch.stop()
		return nil
	}
	x.watch.answering(f.up.IdleTimeout)
	res.Body = &answerBody{ReadCloser: res.Body, res: res, watch: x.watch}
	return nil
}

// failed answers for an upstream that did not.
func (f *forwarder) failed(_ http.ResponseWriter, r *http.Request, err error) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	cause := context.Cause(r.Context())
	switch {
	case x.body != nil && x.body.tooLarge.Load():
		x.fail(&problem{status: http.StatusRequestEntityTooLarge, code: codeTooLarge, detail: "the request's body is larger than is allowed here", hangUp: true})
	case errors.Is(cause, errUpstreamSilent):
		x.fail(&problem{status: http.StatusGatewayTimeout, code: codeUpstreamTimeout, detail: "the upstream did not answer in time", cause: cause})
	case x.goneCaller():
		x.failure = errClientGone
		panic(http.ErrAbortHandler)
	case x.body != nil && x.body.broken.Load():
		x.fail(&problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "the request's body is malformed or stalled", hangUp: true, cause: err})
	default:
		x.fail(&problem{status: http.StatusBadGateway, code: codeUpstreamFailed, detail: "the upstream could not be reached or broke off", cause: err})
	}
}

func (x *exchange) goneCaller() bool { return x.r.Context().Err() != nil }

// An answerBody is an upstream's answer on its way out.
type answerBody struct {
	io.ReadCloser
	res   *http.Response
	watch *watchdog
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		b.watch.touch()
		return n, nil
	}
	b.watch.stop()
	if err == io.EOF {
		stripAnswer(b.res.Trailer) // those that were not announced
	}
	return n, err
}

// A watchdog ends a forwarded request whose upstream is silent: until the
// answer's header since the last byte that the caller sent, and then between
// the answer's bytes. There is no absolute deadline.
type watchdog struct {
	mu     sync.Mutex
	timer  *time.Timer
	wait   time.Duration
	cause  error
	cancel context.CancelCauseFunc
}

func newWatchdog(wait time.Duration, cancel context.CancelCauseFunc) *watchdog {
	w := &watchdog{wait: wait, cause: errUpstreamSilent, cancel: cancel}
	w.timer = time.AfterFunc(wait, w.bark)
	return w
}

func (w *watchdog) bark() {
	w.mu.Lock()
	cause := w.cause
	w.mu.Unlock()
	if cause != nil {
		w.cancel(cause)
	}
}

// sending says that the caller's body moves: before the answer, that is life.
func (w *watchdog) sending() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause == errUpstreamSilent {
		w.timer.Reset(w.wait)
	}
}

// answering begins the second phase.
func (w *watchdog) answering(idle time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cause, w.wait = errUpstreamStalled, idle
	w.timer.Reset(idle)
}

func (w *watchdog) touch() { w.timer.Reset(w.wait) }

func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cause = nil
	w.timer.Stop()
}

// buffers are reused from answer to answer.
var buffers = &bufferPool{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}}

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte  { return *p.pool.Get().(*[]byte) }
func (p *bufferPool) Put(b []byte) { p.pool.Put(&b) }

// upgrades reports whether the request may leave HTTP: a WebSocket handshake
// on a route that says so. Every other Upgrade is ignored, as RFC 9110,
// section 7.8, allows, and is not passed on.
func (x *exchange) upgrades() bool {
	return x.match.Route.WebSocket && x.wantsWebSocket()
}

func (x *exchange) wantsWebSocket() bool {
	h := x.r.Header
	return len(h["Upgrade"]) == 1 && strings.EqualFold(h["Upgrade"][0], "websocket") && hasToken(h["Connection"], "upgrade")
}

func hasToken(values []string, token string) bool {
	for _, v := range values {
		for one := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(one), token) {
				return true
			}
		}
	}
	return false
}
