// Package proxy is the gate: it brings a request into one form, finds out who
// calls, asks the policy, puts the decision on record, and only then acts: it
// forwards to an upstream, or signs a URL. It chooses no implementation and
// knows no cloud.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"sidegate/policy"
	"sidegate/storage/audit"
	"sidegate/storage/upload"
)

// ErrNotRecorded marks a Recorder's error that leaves the event in no log.
var ErrNotRecorded = errors.New("not on record")

// A Recorder keeps the audit log. It is safe for concurrent use. It keeps no
// event, nor a part of one: these are another's when it returns.
type Recorder interface {
	// Record returns once the event outlives what the level says. An error
	// means that it may be lost: the request must not go on. One that wraps
	// ErrNotRecorded says that it is lost, so that its outcome belongs to nothing.
	Record(ctx context.Context, e *audit.Event, level audit.Survive) error
	// Note hands over an event that nobody waits for.
	Note(e *audit.Event) error
}

// Options are what a Proxy is made of. All but Uploads are needed; Uploads
// where a policy serves presign routes.
type Options struct {
	Name          string // the realm of challenges
	Policy        *policy.Policy
	Authenticator Authenticator
	// SessionCookies verify the session cookies of these names. Their tokens
	// count in these cookies only, and bearer tokens in none.
	SessionCookies map[string]Authenticator
	// AppCheck verifies App Check tokens, by the identity's name: whoever it
	// gives is an app.
	AppCheck map[string]Authenticator
	// CORS is for pages of other origins; nil: OPTIONS is a method like any other.
	CORS *CORS
	// Assertions sign who calls, for upstreams; nil: nothing is signed.
	Assertions *Assertions
	Recorder   Recorder
	Survive    audit.Survive
	Upstreams  map[string]Upstream
	Uploads    *upload.Uploads
	Documents  DocumentReader // where policy lookups read; nil: nowhere
	// Limits keep the budgets that gateways share; nil: each has its own.
	Limits  Limits
	Trusted TrustedProxies
	// IdleTimeout ends a body, either way, in which the caller stalls.
	IdleTimeout time.Duration
	// MaxRequests bounds the requests that are served at once, tunnels included:
	// what comes then is 503. 0: no bound.
	MaxRequests int64
	// MaxPerConnection is how many requests a connection may bring, one after the
	// other or at once, before it is ended; 0: no bound. The server's ConnContext
	// must be CountRequests.
	MaxPerConnection int64
	// Tracer makes spans of requests; nil: nothing is traced. Each one that it
	// makes is kept: which traces are is decided here.
	Tracer trace.Tracer
	// Sample is the share, 0 to 1, that is kept of the traces which begin here.
	// Of one that a trusted proxy began, it says whether it is kept.
	Sample   float64
	Log      zerolog.Logger
	LogLines LogLines
	Metrics  prometheus.Registerer
	Now      func() time.Time
}

// An Upstream is an app behind the gateway.
type Upstream struct {
	// URL has the scheme and a host, which Transport may replace by that of the
	// address it chooses; where Host is not kept it is that address's, too.
	URL               *url.URL
	KeepHost          bool
	Timeout           time.Duration // to the answer's header
	IdleTimeout       time.Duration // an answer that stalls
	MaxBody           int64         // bytes of a request
	MaxRequests       int           // at once, until their answers end; 0: no bound
	KeepAuthorization bool
	// HTTP2 says that the app may be spoken to in HTTP/2, and so in gRPC.
	HTTP2 bool
	// Unlimited streams go on when the caller's token has ended.
	Unlimited bool
	Headers   Headers // by which the app is told who calls
	// IDToken gives the gateway's own token, which the app's platform asks for;
	// nil: none is sent. It honours the context.
	IDToken   func(context.Context) (string, error)
	Transport http.RoundTripper
}

// A Proxy answers the public listener. It is an http.Handler, safe for
// concurrent use.
type Proxy struct {
	o         Options
	policy    atomic.Pointer[policy.Policy]
	upstreams map[string]*forwarder
	metrics   *metrics
	lookups   *lookupCache
	reserved  map[string]bool // names of headers that header maps set, as foldName makes them
	limits    *policy.Limiter // outlives policies: a reload gives nobody a new budget
	running   atomic.Int64    // requests that are served now
	laggards  laggards
	streams   streams
	refusals  refusals // that are counted, and not written one by one
	lookEvery time.Duration

	localLimits *prometheus.CounterVec // nil where Options.Limits is
}

// New makes a Proxy. It opens nothing and dials nobody.
func New(o Options) (*Proxy, error) {
	switch {
	case o.Policy == nil:
		return nil, errors.New("proxy: no policy")
	case o.Authenticator == nil || o.Recorder == nil || o.Now == nil || o.Metrics == nil:
		return nil, errors.New("proxy: authenticator, recorder, clock and metrics are needed")
	}
	m, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	lm, err := newLookupMetrics(o.Metrics)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	p := &Proxy{o: o, metrics: m, upstreams: map[string]*forwarder{}, reserved: map[string]bool{}, lookups: newLookupCache(o.Documents, o.Now, lookupCacheBytes, lm), limits: policy.NewLimiter(0), lookEvery: lookEvery}
	if p.localLimits, err = newLocalLimits(&o); err != nil {
		return nil, err
	}
	for name, u := range o.Upstreams {
		if u.URL == nil || u.Transport == nil || u.Timeout <= 0 || u.IdleTimeout <= 0 {
			return nil, fmt.Errorf("proxy: upstream %s: URL, transport and time-outs are needed", name)
		}
		p.upstreams[name] = newForwarder(p, name, u)
		for _, header := range u.Headers.names {
			p.reserved[folded(header)] = true
		}
	}
	if err := p.registerReadings(o.Metrics); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	p.refusals.init()
	p.SetPolicy(o.Policy)
	return p, nil
}

// SetPolicy replaces the policy: requests that have begun keep the one they
// began with.
func (p *Proxy) SetPolicy(pol *policy.Policy) {
	p.policy.Store(pol)
	p.forgetOld(pol)
}

// Policy is the policy in force.
func (p *Proxy) Policy() *policy.Policy { return p.policy.Load() }

// ServeHTTP is begin, serve, finish. finish runs whatever happens in between:
// one answer, one outcome on record, one log line, one set of counters.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := p.begin(w, r)
	x.startTrace()
	p.enter(x, r)
	defer p.leave()
	defer p.finish(x)
	if err := p.serve(x); err != nil {
		x.fail(err)
	}
}

// serve is the order of things, and the order is the security: nothing is
// done for a request before the decision on it is on record.
func (p *Proxy) serve(x *exchange) error {
	d, act := p.decide(x)
	x.leaveStage(d.trouble())
	x.stage(stageRecord)
	err := p.record(x, d)
	x.leaveStage(err)
	if err != nil {
		return err
	}
	if !d.allow {
		return d.refused()
	}
	if x.question != nil {
		return x.question.answer(x)
	}
	x.stageServed()
	return act(x)
}

// A decision is what becomes of a request. The zero decision refuses.
type decision struct {
	allow   bool
	reason  string // the audit log's code
	rule    string
	shadow  map[string]string // what rules in dry_run say
	problem *problem          // of a refusal
}

func (d *decision) refused() error {
	if d.problem == nil {
		return &problem{status: http.StatusInternalServerError, code: codeInternal, detail: "something went wrong here"}
	}
	return d.problem
}

func refuse(reason string, p *problem) decision { return decision{reason: reason, problem: p} }

// record puts the decision on record as durably as asked, or gives a 503. A
// refusal may be counted instead.
func (p *Proxy) record(x *exchange, d decision) error {
	x.decision, x.decided = d, true
	counted := !d.allow && p.summarise(x, d.reason)
	if counted {
		x.absent = true
		if len(x.batch) == 0 {
			return nil
		}
	}
	ctx := x.ctx
	if !d.allow { // a refusal is told also where a broken body has ended the context
		ctx = context.WithoutCancel(ctx)
	}
	if d.allow && x.match.Route != nil && x.match.Route.Record == policy.RecordOff {
		x.absent, x.off = true, true
		p.metrics.unrecorded.WithLabelValues(x.routeID()).Inc()
		return nil
	}
	wait := &lazyTimeout{Context: ctx, most: recordTimeout}
	defer wait.release()
	var err error
	if len(x.batch) > 0 {
		err = p.recordItems(wait, x, func() error { return p.recordOwn(wait, x, counted) })
	} else {
		err = p.recordOwn(wait, x, counted)
	}
	if err != nil {
		x.unrecorded = true
		if x.goneCaller() { // it is unknown whether it is on record; nobody waits for it
			return unavailable("the caller went away", x.whoLeft())
		}
		p.metrics.auditFailures.Inc()
		return unavailable("the audit log cannot take this request now", fmt.Errorf("record the decision: %w", err))
	}
	return nil
}

// recordOwn puts the request's own decision on record, where it is not counted.
func (p *Proxy) recordOwn(ctx context.Context, x *exchange, counted bool) error {
	if counted {
		return nil
	}
	err := x.putOnRecord(ctx)
	x.absent = errors.Is(err, ErrNotRecorded)
	return err
}

// survive is the stronger of what sidegate.yaml and the route ask for.
func (x *exchange) survive() audit.Survive {
	level := audit.Crash
	if r := x.match.Route; r != nil {
		switch r.Record {
		case policy.RecordPower:
			level = audit.Power
		case policy.RecordMachine:
			level = audit.Machine
		}
	}
	return max(level, x.p.o.Survive)
}

// recordTimeout bounds the wait for the audit log: a disk or a Firestore that
// hangs is one that is away.
const recordTimeout = 10 * time.Second
