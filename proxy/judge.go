package proxy

import (
	"net/http"
	"net/http/httputil"

	"sidegate/policy"
	"sidegate/storage/upload"
)

// Given is what a judged request is decided by, beside itself and the identity
// that the Authenticator finds.
type Given struct {
	AppCheck bool
	Lookups  policy.Lookups         // nil: no document can be read
	Limits   *policy.Limiter        // nil: nothing is limited
	Recorded func(name string) bool // policy.Input.Recorded
	// Session is that which the request is about: none is looked up. Nil: the
	// policy is asked of an object such as the route would make.
	Session *upload.Session
}

// A Judgement is what would become of a request.
type Judgement struct {
	Allow  bool
	Status int    // of a refusal
	Code   string // the audit log's code
	Rule   string
	Shadow map[string]string
	// Allowed are the methods of the path's routes, where the request's is none of
	// them, and so no route was found.
	Allowed     []string
	Detail      string // what the caller of a refusal is told
	Field       string // of invalid_field
	Key         string // of the object that would be signed
	Undecidable bool   // what the decision depends on is not on record
	// Headers are those that the upstream would get; nil where none is asked.
	Headers http.Header
	// Policy and Input are what was asked of the policy: Policy.Explain takes
	// the Input. Its Route is nil where none was found.
	Policy *policy.Policy
	Input  policy.Input
}

// Judge decides a request as ServeHTTP does, by the same steps in the same
// order, and does nothing: nothing is recorded, forwarded or signed. It is for
// trying policies.
func (p *Proxy) Judge(r *http.Request, given Given) Judgement {
	x := p.begin(nobodyWriter{}, r)
	x.late.follow() // nobody finds it late
	defer x.end(nil)
	defer p.metrics.inFlight.Dec()
	defer x.w.guard.stop()
	defer x.release()
	x.given = &given
	d, _ := p.decide(x)
	j := Judgement{Allow: d.allow, Code: d.reason, Rule: d.rule, Shadow: d.shadow, Undecidable: x.undecidable, Policy: x.policy, Input: x.input}
	if x.object != nil {
		j.Key = x.object.Key
	}
	if !d.allow {
		j.Status = http.StatusInternalServerError
		if d.problem != nil {
			j.Status, j.Detail, j.Field = d.problem.status, d.problem.detail, d.problem.field
			if x.match.Route == nil { // else it is the route that takes no such method there
				j.Allowed = d.problem.allow
			}
		}
		return j
	}
	if x.match.Route == nil { // the gateway's own
		return j
	}
	if f := p.upstreams[x.match.Route.Upstream]; f != nil {
		j.Headers = f.headers(x)
	}
	return j
}

// headers are those that the upstream of an allowed request would get.
func (f *forwarder) headers(x *exchange) http.Header {
	out := x.r.Clone(x.ctx)
	f.rewrite(&httputil.ProxyRequest{In: x.r, Out: out})
	return out.Header.Clone() // what is kept with the identity is not the asker's to change
}

// nobodyWriter is an answer that nobody gets.
type nobodyWriter struct{}

func (nobodyWriter) Header() http.Header         { return http.Header{} }
func (nobodyWriter) Write(p []byte) (int, error) { return len(p), nil }
func (nobodyWriter) WriteHeader(int)             {}
