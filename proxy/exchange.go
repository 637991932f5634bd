package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"sidegate/policy"
	"sidegate/storage/audit"
)

// An exchange is one request and its answer, from begin to finish. It belongs
// to the request's goroutine, but for what its own comments say.
type exchange struct {
	p      *Proxy
	r      *http.Request   // net/http's own; its body is to be read by way of body
	ctx    context.Context // the exchange's, which forward's copy of r has
	w      *responseWriter
	policy *policy.Policy // the one this request is judged by, whole
	start  time.Time
	done   time.Time // zero: it goes on
	id     string    // of the record
	trace  string    // the trace's id, 32 hexadecimal digits
	span   string    // the id of the request's own span or, where nothing is traced here, that of traceparent
	parent string    // traceparent as it is sent upstream
	states []string  // tracestate, of a trace that is continued
	spans  *spans    // of a request that is traced
	ip     netip.Addr

	target   target
	match    matched
	identity *policy.Identity
	input    policy.Input // of the policy; here because Decide's closures would move it to the heap
	object   *audit.Object
	upload   *uploadPlan            // of a route that the gateway answers itself
	uppy     *uppyCall              // of a route that serves Uppy
	batch    []*item                // what a request for several things at once is for
	looked   map[[2]string]lookedUp // for its items, by lookup and document
	waited   time.Duration          // for budgets of several gateways
	given    *Given                 // of a request that is only judged
	question *question              // by which another proxy asks about the request; nil: it is here itself
	appCheck string                 // why the App Check token that came is none; for the log
	decision decision

	// What is either so or not, in one place: between the others each would take
	// eight times its room.
	trusted     bool // the peer is a trusted proxy
	sampled     bool // the trace is kept
	continued   bool // the trace was begun by who sent the request
	cloudTrace  bool // who also says it in Google's older header
	further     bool // what is decided now is not the first of batch
	passed      bool // the policy's last word was yes
	preflight   bool // a browser asks what a page may send
	crowded     bool // more requests are served than may be
	undecidable bool // what the decision depends on is not on record
	decided     bool // a decision was made (and recorded, or the recording failed)
	unrecorded  bool // recording it failed
	absent      bool // in no log: for that, as its route asks, or for its place in a summary
	off         bool // as its route asks
	grpc        bool // it is a gRPC stream
	alone       bool // its headers to the upstream are made by passedOn
	duplex      bool // its body and its answer may pass at once, over HTTP/1.1
	cut         bool // its stream was ended when shown did, or for another reason of ours

	upstream  string
	assertion string // of the caller, for the upstream
	idToken   string // of the gateway, for the upstream's platform
	body      *requestBody
	failure   error             // what went wrong after the decision
	watch     *watchdog         // of a forwarded request
	outer     context.Context   // the request's own, which its server ends
	ends      func(cause error) // ctx, which ends with outer; end calls it
	late      laggard
	cancel    func(cause error) // ends it; anybody may call it, at any time
	maxBody   int64             // bytes of its body or, where it is a stream, of a message; 0: no bound
	shown     credential
	stream    *stream // that may outlive shown

	room room
}

// A matched is the route that was found for a request; its parameters are the
// input's.
type matched struct{ Route *policy.Route }

func (p *Proxy) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{p: p, r: r, policy: p.policy.Load(), start: p.o.Now(), parent: newTraceparent()}
	x.id = x.parent[3:35]
	x.ip, x.trusted = p.o.Trusted.client(r.RemoteAddr, r.Header)
	x.w = &x.room.w
	x.w.ResponseWriter, x.w.old, x.w.last = w, !r.ProtoAtLeast(1, 1), endsConnection(r)
	x.w.continues = r.ContentLength != 0 && hasToken(r.Header["Expect"], "100-continue")
	stall := p.o.IdleTimeout
	if r.ProtoMajor < 2 {
		x.w.idle, stall = stall, 0
	}
	if stall > 0 {
		x.w.guard = newGuard(stall, http.NewResponseController(w).SetWriteDeadline)
	}
	x.outer = r.Context()
	if c := connectionOf(r); c != nil && c.strict != nil && r.ProtoMajor < 2 {
		x.w.pace(c.strict)
		x.late.conn, x.late.x = c.strict, x
	}
	x.ctx, x.ends = context.WithCancelCause((*exchangeContext)(x))
	x.room.leash.Begin(x.ctx)
	if c := p.o.CORS; c != nil && !c.Upstream {
		x.w.final = x.allowCORS
	}
	x.traceContext()
	if r.Body != nil && r.Body != http.NoBody {
		x.body = &requestBody{ReadCloser: r.Body, control: http.NewResponseController(w), idle: x.w.idle, length: r.ContentLength}
		x.body.idler.L = &x.body.mu
		if x.w.continues {
			x.body.begun = &x.w.continued
		}
		if stall > 0 {
			x.body.guard = newGuard(stall, x.body.control.SetReadDeadline)
		}
		// A body that nobody reads is read by net/http, before it answers; it
		// also writes the 100 Continue.
		x.body.extend()
		x.w.extend()
	}
	p.metrics.inFlight.Inc()
	return x
}

// end ends the request's context, and what waits for its app. Anybody may call it,
// at any time.
func (x *exchange) end(cause error) {
	x.ends(cause)
	x.room.leash.Pull()
}

// outerEnded is the end that comes from outside: the connection's, or our stop.
func (x *exchange) outerEnded() { x.end(context.Cause(x.outer)) }

// endsConnection reports whether a connection ends with the answer, if it is
// not taken over: HTTP/1.0 has neither chunks nor upgrades, and what follows a
// request to upgrade may be written in the other protocol by a caller who
// takes it for granted.
func endsConnection(r *http.Request) bool {
	return !r.ProtoAtLeast(1, 1) || r.ProtoMajor == 1 && len(r.Header["Upgrade"]) > 0
}

// fail answers with the error, unless an answer has begun: then the connection
// is cut, so that nobody takes half an answer for a whole one.
func (x *exchange) fail(err error) {
	if x.decision.allow || x.unrecorded {
		x.failure = err
	}
	stopping := errors.Is(err, ErrStopping)
	if x.w.status != 0 || errors.Is(err, errClientGone) || stopping && !endsStream(err) {
		panic(http.ErrAbortHandler) // nobody is there, or what was said cannot be taken back
	}
	pr := problemOf(err)
	if pr.status == http.StatusServiceUnavailable && !endsStream(err) && x.goneCaller() {
		// What could not be told was cut off with the caller, or by our stop.
		x.failure = x.whoLeft()
		panic(http.ErrAbortHandler)
	}
	x.sawQuota(pr)
	x.tell(pr)
}

// endsStream reports whether the error is the end of a stream, which has words of
// its own for a stop.
func endsStream(err error) bool {
	var end *streamEnd
	return errors.As(err, &end)
}

// problemOf is what the caller is told of an error.
func problemOf(err error) *problem {
	if pr, ok := err.(*problem); ok { // nearly always
		return pr
	}
	var pr *problem
	if errors.As(err, &pr) {
		return pr
	}
	return &problem{status: http.StatusInternalServerError, code: codeInternal, detail: "something went wrong here", cause: err}
}

// tell sends a refusal. Where the rest of the body is still on its way it is
// taken for a moment, after the answer: a caller who reads only when all is
// sent would otherwise see a broken connection instead.
func (x *exchange) tell(pr *problem) {
	if x.question != nil {
		x.question.refuse(x, pr)
		return
	}
	unread := x.body != nil && !x.body.ended()
	if r := x.match.Route; r != nil && r.Serve == policy.Uppy {
		shown := *pr
		shown.uppy = true
		pr = &shown
	}
	pr.write(x.w, x.r, x.p.o.Name, x.id, unread || x.wantsWebSocket())
	x.w.status = pr.status                         // of a gRPC answer, whose HTTP status says nothing
	if unread && x.r.ProtoMajor < 2 && !x.duplex { // else finish does it
		_ = x.w.FlushError()
		x.body.discard(!hasToken(x.r.Header["Expect"], "100-continue"))
	}
}

// finish closes the exchange: it also runs on a panic, when the upstream broke
// off (ReverseProxy panics with http.ErrAbortHandler) and when the caller left.
func (p *Proxy) finish(x *exchange) {
	broken := recover()
	defer x.w.guard.stop()
	defer x.end(nil)
	x.release()
	panicked := broken != nil && broken != http.ErrAbortHandler
	if panicked {
		x.failure = fmt.Errorf("panic: %v", broken)
		p.o.Log.Error().Str("record", x.id).Bytes("stack", debug.Stack()).Msgf("panic: %v", broken)
	}
	if !x.decided {
		p.recordUndecided(x)
	}
	if panicked {
		broken = x.answerPanic()
	}
	if x.off {
		p.recordRefused(x, panicked)
	}
	if x.body != nil && x.body.finish() && x.w.idle > 0 {
		x.w.allow(2 * p.o.IdleTimeout) // net/http reads first, for up to one
	} else {
		x.w.extend() // for the last chunk, which net/http writes: what came before may be long ago
	}
	if broken != nil && x.failure == nil {
		x.failure = x.w.fault
	}
	x.tunnelEnded()
	if broken == nil {
		x.lastFlush()
	}
	truncated := broken != nil || x.cut
	x.done = p.o.Now()
	if !x.absent { // else callers who go on asking would fill what is full already
		if err := x.noteOutcome(truncated); err != nil {
			p.metrics.auditFailures.Inc()
		}
	}
	for _, e := range x.itemOutcomes() {
		if err := p.o.Recorder.Note(e); err != nil {
			p.metrics.auditFailures.Inc()
		}
	}
	p.metrics.inFlight.Dec()
	p.metrics.count(x)
	x.endTrace()
	p.log(x, truncated)
	if x.duplex && !x.w.hijacked {
		if !x.body.ended() {
			_ = x.w.FlushError() // what is there need not wait for a caller who still sends
		}
		x.body.settle(x.hearing(broken))
	}
	if broken != nil {
		panic(broken)
	}
}

// release lets go of what watches the exchange.
func (x *exchange) release() {
	x.late.remove()
	x.watch.stop()
	if x.body != nil {
		x.body.guard.stop()
	}
	if x.stream != nil {
		x.stream.remove()
	}
}

// tunnelEnded finds out whether the gateway ended a tunnel, which knows no other
// end than its bytes'.
func (x *exchange) tunnelEnded() {
	if x.w.conn == nil || x.failure != nil {
		return
	}
	if end := x.w.conn.ending.Load(); end != nil {
		x.failure, x.cut = end, true
	} else if context.Cause(x.outer) == ErrStopping {
		x.failure, x.cut = ErrStopping, true
	}
}

// hearing says how a caller is heard out who still sends a body that was
// answered.
func (x *exchange) hearing(broken any) hearing {
	switch {
	case broken != nil || x.w.continues && x.body.read.Load() == 0: // who waits to be told to go on sends nothing
		return hearNothing
	case x.w.Header().Get("Content-Length") == "": // the answer's end is net/http's to write, when the handler is done
		return hearLater
	}
	return hearOut
}

// lastFlush sees to it that what is on record as answered was taken: a stream of
// HTTP/2 may be held up by its caller when the handler is done, where nobody
// would notice.
func (x *exchange) lastFlush() {
	if x.r.ProtoMajor < 2 || x.w.bytes == 0 {
		return
	}
	if err := x.w.FlushError(); err != nil && x.failure == nil {
		x.failure, x.cut = x.w.fault, true
	}
}

// recordUndecided puts on record what broke before there was a decision.
func (p *Proxy) recordUndecided(x *exchange) {
	x.decision, x.decided = refuse(codeInternal, nil), true
	p.refusedLate(x)
}

// recordRefused puts on record what a route with `audit: off` allowed and the
// gateway refused after all: such a refusal is never off.
func (p *Proxy) recordRefused(x *exchange, panicked bool) {
	var pr *problem
	refused := errors.As(x.failure, &pr) && (pr.status >= 400 && pr.status < 500 || errors.Is(pr, errUpstreamFull))
	if !refused && !panicked {
		return
	}
	if !refused {
		pr = &problem{status: http.StatusInternalServerError, code: codeInternal}
	}
	x.decision = refuse(pr.code, pr).by(x.decision)
	x.absent, x.decision.allow = false, false
	p.refusedLate(x)
}

// answerPanic tells the caller of a fault of ours, where nothing was said yet;
// else it gives what cuts the connection.
func (x *exchange) answerPanic() (broken any) {
	if x.w.status != 0 || x.w.hijacked {
		return http.ErrAbortHandler
	}
	pr := &problem{status: http.StatusInternalServerError, code: codeInternal, detail: "something went wrong here", hangUp: true}
	x.tell(pr)
	return nil
}

// until is the request's end, once that has come, else now. It is what the clock
// says, not start and a duration: that may have been set meanwhile, and a log is
// kept for as long as its times say.
func (x *exchange) until() time.Time {
	if x.done.IsZero() {
		return x.p.o.Now()
	}
	return x.done
}

// duration is how long the request has taken, to its end once that has come:
// what is written of it says the same time.
func (x *exchange) duration() time.Duration { return x.until().Sub(x.start) }

func (x *exchange) routeID() string {
	if x.match.Route == nil {
		return ""
	}
	return x.match.Route.ID
}
