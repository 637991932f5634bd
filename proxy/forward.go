package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
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

func contextWith(x *exchange) context.Context {
	return context.WithValue(x.r.Context(), exchangeKey{}, x)
}

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
	errClientGone = errors.New("the caller went away")
	// ErrStopping is the cause with which the server's base context ends when
	// the gateway stops: what still runs then was cut by us.
	ErrStopping        = errors.New("the gateway stops")
	errClientStalled   = errors.New("the caller stalled")
	errUpstreamSilent  = errors.New("the upstream sent no answer in time")
	errUpstreamStalled = errors.New("the upstream's answer stalled")
	errBadStatus       = errors.New("the upstream's status makes no sense here")
)

// forward is the action of an allowed request for an upstream.
func (f *forwarder) forward(x *exchange) error {
	x.upstream = f.name
	if err := f.assert(x); err != nil {
		return err
	}
	if f.up.IDToken != nil {
		var err error
		if x.idToken, err = f.up.IDToken(x.r.Context()); err != nil {
			return unavailable("the app cannot be called now", err)
		}
	}
	ctx, cancel := context.WithCancelCause(contextWith(x))
	defer cancel(nil)
	timeout := f.up.Timeout
	if t := x.match.Route.Timeout; t > 0 {
		timeout = t
	}
	x.watch = newWatchdog(timeout, cancel)
	if x.body != nil {
		x.body.watch = x.watch
	}
	if !x.upgrades() {
		delete(x.r.Header, "Upgrade") // or ReverseProxy passes it on
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
	strip(out.Header, f.p.reserved)
	out.Trailer = nil // ReverseProxy would announce them, and never send them
	if x.preflight {  // browsers send neither
		out.Header.Del("Authorization")
		out.Header.Del("Cookie")
	}
	if !f.up.KeepAuthorization {
		if dropsAuthorization(x) {
			out.Header.Del("Authorization")
		}
		dropCookies(out.Header, f.p.o.SessionCookies)
	}
	f.setForwarded(x, out.Header)
	if x.idToken != "" {
		out.Header.Set("X-Serverless-Authorization", "Bearer "+x.idToken)
	}
	if x.identity != nil {
		f.up.Headers.write(out.Header, x)
	}
}

// dropsAuthorization: a Bearer token goes to nobody but the gateway; other
// schemes are the app's own business where no identity is needed.
func dropsAuthorization(x *exchange) bool {
	return saysBearer(x.r.Header.Get("Authorization")) || needsIdentity(x.match.Route)
}

// answered looks at the upstream's answer before it is passed on.
func (f *forwarder) answered(res *http.Response) error {
	x := res.Request.Context().Value(exchangeKey{}).(*exchange)
	stripAnswer(res.Header)
	stripAnswer(res.Trailer)
	if res.StatusCode == http.StatusSwitchingProtocols && x.upgrades() {
		x.watch.stop()
		return nil
	}
	if res.StatusCode < http.StatusOK {
		return errBadStatus
	}
	x.watch.answering(f.up.IdleTimeout)
	res.Body = &answerBody{ReadCloser: res.Body, res: res, x: x}
	return nil
}

// failed answers for an upstream that did not.
func (f *forwarder) failed(_ http.ResponseWriter, r *http.Request, err error) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	cause := context.Cause(r.Context())
	var body error
	if x.body != nil {
		body = x.body.failure()
	}
	switch {
	case body == errBodyTooLarge:
		x.fail(&problem{status: http.StatusRequestEntityTooLarge, code: codeTooLarge, detail: "the request's body is larger than is allowed here", hangUp: true})
	case errors.Is(cause, errUpstreamSilent):
		x.fail(&problem{status: http.StatusGatewayTimeout, code: codeUpstreamTimeout, detail: "the upstream did not answer in time", cause: cause})
	case body != errClientStalled && x.goneCaller(), body == errClientGone:
		x.failure = x.whoLeft()
		panic(http.ErrAbortHandler)
	case body != nil:
		x.fail(&problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "the request's body is malformed or stalled", hangUp: true, cause: body})
	default:
		x.fail(&problem{status: http.StatusBadGateway, code: codeUpstreamFailed, detail: "the upstream could not be reached or broke off", cause: err})
	}
}

func (x *exchange) goneCaller() bool { return x.r.Context().Err() != nil }

// whoLeft is who ended the request's context: the caller, or the gateway's stop.
func (x *exchange) whoLeft() error {
	if context.Cause(x.r.Context()) == ErrStopping {
		return ErrStopping
	}
	return errClientGone
}

// An answerBody is an upstream's answer on its way out.
type answerBody struct {
	io.ReadCloser
	res *http.Response
	x   *exchange
}

func (b *answerBody) Read(p []byte) (int, error) {
	b.x.watch.asking()
	n, err := b.ReadCloser.Read(p)
	b.x.watch.asked()
	if err == nil {
		return n, nil
	}
	b.x.watch.stop()
	if err == io.EOF {
		stripAnswer(b.res.Trailer) // those that were not announced
		return n, err
	}
	switch {
	case b.x.goneCaller():
		b.x.failure = b.x.whoLeft()
	case context.Cause(b.res.Request.Context()) == errUpstreamStalled:
		b.x.failure = &problem{code: codeUpstreamTimeout, cause: errUpstreamStalled}
	default:
		b.x.failure = &problem{code: codeUpstreamFailed, cause: err}
	}
	return n, err
}

// A watchdog ends a forwarded request whose upstream is silent: until the
// answer's header, while the caller is not asked for more of the body; and
// then while the upstream is asked for more of the answer. There is no
// absolute deadline, and a slow caller's time is not the upstream's.
type watchdog struct {
	begun  time.Time
	cancel context.CancelCauseFunc
	// since is when the upstream began to be waited for, after begun; 0 while
	// it is not. Reads only store it: the timer finds out when it goes off.
	since atomic.Int64

	mu    sync.Mutex
	timer *time.Timer
	wait  time.Duration
	cause error // nil: stopped
}

func newWatchdog(wait time.Duration, cancel context.CancelCauseFunc) *watchdog {
	w := &watchdog{begun: time.Now(), wait: wait, cause: errUpstreamSilent, cancel: cancel}
	w.asking()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(wait, w.bark)
	return w
}

func (w *watchdog) bark() {
	if cause := w.overdue(); cause != nil {
		w.cancel(cause)
	}
}

// overdue is why the request must end; else it sets the timer anew.
func (w *watchdog) overdue() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause == nil {
		return nil
	}
	left := w.wait
	if since := w.since.Load(); since != 0 {
		if left -= time.Since(w.begun) - time.Duration(since); left <= 0 {
			return w.cause
		}
	}
	w.timer.Reset(left)
	return nil
}

// receiving says whether the caller is being waited for: before the answer,
// the upstream's time begins anew when it is not.
func (w *watchdog) receiving(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.cause != errUpstreamSilent:
	case on:
		w.asked()
	default:
		w.asking()
	}
}

// answering begins the second phase.
func (w *watchdog) answering(idle time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cause, w.wait = errUpstreamStalled, idle
	w.asked()
	w.timer.Reset(idle)
}

// asking and asked stand around each read of the answer.
func (w *watchdog) asking() { w.since.Store(max(int64(time.Since(w.begun)), 1)) }
func (w *watchdog) asked()  { w.since.Store(0) }

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
	return x.r.ProtoAtLeast(1, 1) && len(h["Upgrade"]) == 1 && strings.EqualFold(h["Upgrade"][0], "websocket") && hasToken(h["Connection"], "upgrade")
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
