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

	"sidegate/proxy/leash"
)

// A forwarder sends requests to one upstream.
type forwarder struct {
	p     *Proxy
	name  string
	up    Upstream
	proxy *httputil.ReverseProxy
	busy  atomic.Int64 // requests that have entered
	act   action       // forward, made into a value once
}

// exchangeKey finds a request's exchange in its context.
type exchangeKey struct{}

// An exchangeContext is an exchange as the context that its own comes from: it has
// the exchange beside what the request's has.
type exchangeContext exchange

// Value implements context.Context.
func (c *exchangeContext) Value(key any) any {
	switch key {
	case exchangeKey{}:
		return (*exchange)(c)
	case leash.Key{}:
		if c.late.conn != nil {
			return &c.room.leash
		}
	}
	return c.outer.Value(key)
}

// Deadline implements context.Context.
func (c *exchangeContext) Deadline() (time.Time, bool) { return c.outer.Deadline() }

// Done is never closed where a laggard follows its parent: the exchange's own
// context, which is this one's child, ends by end alone, and need not be among its
// parent's children.
func (c *exchangeContext) Done() <-chan struct{} {
	if c.late.conn != nil {
		return nil
	}
	return c.outer.Done()
}

// Err implements context.Context.
func (c *exchangeContext) Err() error {
	if c.late.conn != nil {
		return nil
	}
	return c.outer.Err()
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
	f.act = f.forward
	return f
}

var (
	errClientGone = errors.New("the caller went away")
	// ErrStopping is the cause with which the server's base context ends when
	// the gateway stops: what still runs then was cut by us.
	ErrStopping        = errors.New("the gateway stops")
	errClientStalled   = errors.New("the caller stalled")
	errUpstreamSilent  = error(silence{})
	errUpstreamStalled = errors.New("the upstream's answer stalled")
	errBadHeader       = errors.New("a header's name in the upstream's answer holds a space")
	errBadStatus       = errors.New("the upstream's status makes no sense here")
)

// forward is the action of an allowed request for an upstream.
func (f *forwarder) forward(x *exchange) error {
	x.upstream = f.name
	if err := f.enter(); err != nil {
		return err
	}
	defer f.leave()
	if err := f.assert(x); err != nil {
		return err
	}
	if f.up.IDToken != nil {
		var err error
		if x.idToken, err = f.up.IDToken(x.ctx); err != nil {
			return unavailable("the app cannot be called now", err)
		}
	}
	defer x.end(nil)
	x.cancel = func(cause error) {
		x.end(cause)
		if x.body != nil {
			x.body.abort()
		}
	}
	timeout := f.up.Timeout
	if t := x.match.Route.Timeout; t > 0 {
		timeout = t
	}
	x.watch = newWatchdog(timeout, x.cancel)
	if x.watch.impatient() {
		x.watch.arm()
	}
	x.late.watched(x.watch)
	x.stageUpstream(f)
	if x.body != nil {
		x.body.watch = x.watch
		// Apps may answer while they are still being sent to. HTTP/2 is so anyway.
		if x.r.ProtoMajor < 2 && http.NewResponseController(x.w).EnableFullDuplex() == nil {
			x.duplex, x.w.unread = true, func() bool { return !x.body.ended() }
		}
	}
	if speaksGRPC(x.r) && !x.upgrades() {
		x.stream = f.p.streams.add(x, false, !f.up.Unlimited, x.endStream)
	}
	if !x.upgrades() {
		delete(x.r.Header, "Upgrade") // or it is passed on
	}
	f.proxy.ServeHTTP(x.w, x.inbound())
	return nil
}

// inbound is the request as ReverseProxy has it.
func (x *exchange) inbound() *http.Request {
	in := x.r.WithContext(x.ctx)
	if x.body != nil {
		in.Body = x.body
	}
	if x.alone = endsHere(in.Header); x.alone {
		in.Header = nil // rewrite makes the upstream's, without what ReverseProxy would look for
	}
	return in
}

// rewrite makes the upstream's request: what only the gateway may say is
// removed first, in every spelling, and then set.
func (f *forwarder) rewrite(pr *httputil.ProxyRequest) {
	out := pr.Out
	x := out.Context().Value(exchangeKey{}).(*exchange)
	out.URL.Scheme, out.URL.Host = f.up.URL.Scheme, f.up.URL.Host
	out.URL.Path, out.URL.RawPath = x.target.path, x.target.escaped
	out.URL.RawQuery, out.URL.Opaque, out.URL.User = x.target.query, "", nil
	out.Host = "" // that of the address which the transport chooses
	if f.up.KeepHost {
		out.Host = x.target.hostPort
	}
	if x.alone {
		out.Header = f.passedOn(x)
	} else {
		strip(out.Header, f.p.reserved)
	}
	out.Trailer = nil // ReverseProxy would announce them, and never send them
	if x.preflight {  // browsers send neither
		delete(out.Header, "Authorization")
		delete(out.Header, "Cookie")
	}
	if !f.up.KeepAuthorization {
		if sent := out.Header["Authorization"]; len(sent) > 0 && dropsAuthorization(x, sent[0]) {
			delete(out.Header, "Authorization")
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
func dropsAuthorization(x *exchange, sent string) bool {
	return needsIdentity(x.match.Route) || saysBearer(sent)
}

// answered looks at the upstream's answer before it is passed on.
func (f *forwarder) answered(res *http.Response) error {
	x := res.Request.Context().Value(exchangeKey{}).(*exchange)
	spaced := stripAnswer(res.Header)
	stripAnswer(res.Trailer)
	if res.StatusCode == http.StatusSwitchingProtocols && x.upgrades() {
		x.watch.stop()
		x.upstreamAnswered(res.StatusCode)
		f.open(x, res)
		return nil
	}
	if res.StatusCode < http.StatusOK {
		return errBadStatus
	}
	if spaced {
		return errBadHeader
	}
	x.upstreamAnswered(res.StatusCode)
	x.watch.answering(f.up.IdleTimeout)
	body := &x.room.answer
	*body = answerBody{ReadCloser: res.Body, res: res, x: x, events: isEventStream(res.Header), grpc: hasGRPCType(res.Header, nativeGRPC), left: res.ContentLength}
	body.large = body.passes()
	if x.grpc && body.grpc {
		x.body.max.Store(0) // it is gRPC indeed, and bounded message by message
	}
	// What the answer is counts, whatever the request said.
	switch {
	case x.stream != nil && body.events:
		x.stream.isEndless()
	case x.stream == nil && (body.events || hasGRPCType(res.Header, anyGRPC)):
		x.stream = f.p.streams.add(x, body.events, !f.up.Unlimited, x.endStream)
	}
	res.Body = body
	if !body.grpc { // else how it ends may be looked up there
		handOn(x.w.Header(), res)
	}
	return nil
}

// open makes a tunnel of the upstream's connection and, when ReverseProxy takes
// it over, of the caller's.
func (f *forwarder) open(x *exchange, res *http.Response) {
	app, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		return // ReverseProxy says so
	}
	x.w.opened = func(t *tunnel) {
		end := func(e *streamEnd) { t.end(e, func() { x.cancel(e) }) }
		t.asks.max, t.tooMuch = x.maxBody, end
		x.stream = f.p.streams.add(x, true, !f.up.Unlimited, end)
	}
	res.Body = &appTunnel{ReadWriteCloser: app, why: func() *streamEnd {
		if x.w.conn == nil {
			return nil
		}
		return x.w.conn.ending.Load()
	}}
}

// isEventStream: WHATWG HTML, section 9.2, server-sent events.
func isEventStream(h http.Header) bool {
	const events = "text/event-stream"
	t := h.Get("Content-Type")
	return len(t) >= len(events) && strings.EqualFold(t[:len(events)], events) && (len(t) == len(events) || strings.IndexByte("; ", t[len(events)]) >= 0)
}

// failed answers for an upstream that did not.
func (f *forwarder) failed(_ http.ResponseWriter, r *http.Request, err error) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	cause := context.Cause(r.Context())
	var body error
	if x.body != nil {
		body = x.body.failure()
	}
	var end *streamEnd
	switch {
	case errors.As(cause, &end):
		x.fail(end.problem())
	case body == errBodyTooLarge:
		x.fail(bodyProblem(body))
	case errors.Is(cause, errUpstreamSilent):
		x.fail(&problem{status: http.StatusGatewayTimeout, code: codeUpstreamTimeout, detail: "the upstream did not answer in time", cause: cause})
	case body != errClientStalled && x.goneCaller(), body == errClientGone:
		x.failure = x.whoLeft()
		panic(http.ErrAbortHandler)
	case body != nil:
		x.fail(bodyProblem(body))
	case x.pastDeadline():
		x.fail(&problem{status: http.StatusGatewayTimeout, code: codeUpstreamTimeout, detail: "the call's deadline has passed", cause: err})
	default:
		x.fail(&problem{status: http.StatusBadGateway, code: codeUpstreamFailed, detail: "the upstream could not be reached or broke off", cause: err})
	}
}

// bodyProblem is what is wrong with the caller's body.
func bodyProblem(err error) error {
	switch err {
	case errClientGone:
		return err
	case errBodyTooLarge:
		return &problem{status: http.StatusRequestEntityTooLarge, code: codeTooLarge, detail: "the request's body is larger than is allowed here", hangUp: true}
	}
	return &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "the request's body is malformed or stalled", hangUp: true, cause: err}
}

// goneCaller reports whether the caller has left, or the gateway's stop has cut
// him off: net/http says so by its own context, and a lookout by the cause.
func (x *exchange) goneCaller() bool {
	return x.outer.Err() != nil || context.Cause(x.ctx) == errClientGone
}

// whoLeft is who it was.
func (x *exchange) whoLeft() error {
	switch {
	case context.Cause(x.outer) == ErrStopping:
		return ErrStopping
	case x.w.guard.barked(): // who takes nothing of a stream has it reset
		return errClientStalled
	}
	return errClientGone
}

// An answerBody is an upstream's answer on its way out.
type answerBody struct {
	io.ReadCloser
	res    *http.Response
	x      *exchange
	events bool  // an event stream
	grpc   bool  // gRPC's own
	large  bool  // it may pass within the kernel
	left   int64 // of its Content-Length
}

func (b *answerBody) Read(p []byte) (int, error) {
	var n int
	var err error
	if b.large && b.x.w.status != 0 {
		b.large = false
		var taken bool
		if err, taken = b.pass(); !taken {
			return 0, errNotTaken // as if ReverseProxy could not write
		}
	}
	if err == nil {
		n, err = b.take(p)
	}
	if err == nil {
		return n, nil
	}
	b.x.watch.stop()
	if err == io.EOF {
		stripAnswer(b.res.Trailer) // those that were not announced
		return n, err
	}
	if end := b.x.streamEnded(b.res.Request.Context()); end != nil && b.ends(end) {
		return n, io.EOF
	}
	switch {
	case b.x.failure != nil:
	case context.Cause(b.res.Request.Context()) == errUpstreamStalled: // which also ended the caller's side
		b.x.failure = &problem{code: codeUpstreamTimeout, cause: errUpstreamStalled}
	case b.x.goneCaller():
		b.x.failure = b.x.whoLeft()
	case b.x.body != nil && b.x.body.failure() != nil:
		b.x.failure = bodyProblem(b.x.body.failure())
	default:
		b.x.failure = &problem{code: codeUpstreamFailed, cause: err}
	}
	return n, err
}

// take waits for the upstream.
func (b *answerBody) take(p []byte) (int, error) {
	b.x.watch.asking()
	n, err := b.ReadCloser.Read(p)
	b.x.watch.asked()
	b.left -= int64(n)
	if err == nil && b.x.body != nil {
		b.x.body.heard()
	}
	return n, err
}

// ends writes down that a stream was ended by us, and says so where the
// protocol has words for it behind an answer's body. False: it has none, and
// the answer must break off.
func (b *answerBody) ends(end *streamEnd) bool {
	b.x.failure, b.x.cut = end, true
	switch {
	case b.res.ContentLength >= 0 || !b.x.r.ProtoAtLeast(1, 1):
	case b.grpc && b.res.Header.Get("Grpc-Status") == "":
		// Not by res.Trailer: ReverseProxy takes as many trailers as the app
		// announced for those that it announced.
		b.res.Trailer = nil
		status := http.Header{}
		setGRPCStatus(status, end.grpc, end.text)
		for name, values := range status {
			b.x.w.Header()[http.TrailerPrefix+name] = values
		}
		return true
	case b.events:
		return true
	}
	return false
}

// buffers are reused from answer to answer.
var buffers = &bufferPool{sync.Pool{New: func() any { return new(buffer) }}}

type bufferPool struct{ pool sync.Pool }

// A buffer goes into the pool by its address, which takes no memory.
type buffer [32 << 10]byte

func (p *bufferPool) Get() []byte  { return p.pool.Get().(*buffer)[:] }
func (p *bufferPool) Put(b []byte) { p.pool.Put((*buffer)(b)) }

// upgrades reports whether the request may leave HTTP: a WebSocket handshake
// on a route that says so. Every other Upgrade is ignored, as RFC 9110,
// section 7.8, allows, and is not passed on.
func (x *exchange) upgrades() bool {
	return x.match.Route.WebSocket && x.wantsWebSocket()
}

func (x *exchange) wantsWebSocket() bool {
	h := x.r.Header
	return x.r.ProtoMajor == 1 && x.r.ProtoMinor >= 1 && len(h["Upgrade"]) == 1 && strings.EqualFold(h["Upgrade"][0], "websocket") && hasToken(h["Connection"], "upgrade")
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
