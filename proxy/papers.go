package proxy

import (
	"net/http"
	"sync"
	"time"

	"sidegate/policy"
	"sidegate/storage/audit"
)

// Papers are what an event is made of. A Recorder keeps none of it, so that one
// request's serve the next: an event takes no memory of its own.
type papers struct {
	event    audit.Event
	request  audit.Request
	identity audit.Identity
	decision audit.Decision
	outcome  audit.Outcome
	keys     [8]string // names in a query; more of them take memory
	inputs   policy.InputsRoom
}

var papersKept = sync.Pool{New: func() any { return new(papers) }}

// release gives them back, empty: no event shall hold what another one said.
// Where a Recorder panics they are not given back.
func (s *papers) release() {
	room := s.inputs
	room.Clear()
	*s = papers{inputs: room}
	papersKept.Put(s)
}

// decisionEvent is the first of a request's two events. It is made of s.
func (x *exchange) decisionEvent(s *papers) *audit.Event {
	e, r, d := &s.event, &s.request, &s.decision
	e.Type, e.Record, e.Time, e.Request, e.Decision = audit.TypeDecision, x.id, x.start, r, d
	r.Method, r.Host, r.Path = x.r.Method, x.target.host, x.auditPath()
	r.QueryKeys = queryKeys(s.keys[:0], x.target.query)
	r.UserAgent, r.Trace = x.userAgent(), x.trace
	if x.question != nil {
		r.ForwardAuth = string(x.question.dialect)
	}
	if x.ip.IsValid() {
		r.IP = x.ip.String()
	}
	if id := x.identity; id != nil {
		s.identity = audit.Identity{
			Name: id.Name, Namespace: id.Namespace, UID: id.UID, Actor: id.Actor, Tenant: id.Tenant,
			Issuer: id.Issuer, Provider: id.Provider, AuthTime: id.AuthTime, TokenHash: id.TokenHash,
		}
		e.Identity = &s.identity
	}
	kept, whole := x.onRecord(s)
	if kept != nil && kept.identity.Text != "" {
		e.KeptIdentity = &kept.identity
	}
	d.Effect, d.Route, d.Rule, d.Code = x.effect(), x.routeID(), x.decision.rule, x.decision.reason
	if !x.decision.allow {
		d.Status = http.StatusInternalServerError
		if x.decision.problem != nil {
			d.Status = x.decision.problem.status
		}
	}
	d.Policy = audit.Policy{Name: x.policy.Name, SHA256: x.policy.SHA256}
	d.Shadow = x.decision.shadow
	if whole && len(d.Shadow) == 0 { // beside which there may be no room for them
		d.KeptInputs = &kept.inputs
	} else if x.match.Route != nil {
		d.Inputs = x.policy.InputsIn(&s.inputs, &x.input)
	}
	e.Object = x.object
	return e
}

// outcomeEvent is the second: what was answered. It is made of s.
func (x *exchange) outcomeEvent(s *papers, truncated bool) *audit.Event {
	e, o, end := &s.event, &s.outcome, x.until()
	e.Type, e.Record, e.Time, e.Outcome = audit.TypeOutcome, x.id, end, o
	o.Status, o.BytesOut, o.Upstream, o.Truncated = x.w.status, x.w.bytes, x.upstream, truncated
	o.MS = float64(end.Sub(x.start)) / float64(time.Millisecond)
	if x.body != nil {
		o.BytesIn = x.body.read.Load()
	}
	if x.w.conn != nil {
		o.BytesIn, o.BytesOut = x.w.conn.in.Load(), x.w.conn.out.Load()
	}
	if x.failure != nil {
		o.Error = failureCode(x.failure)
	}
	return &s.event
}
