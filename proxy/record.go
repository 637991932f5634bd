package proxy

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"sidegate/storage/audit"
)

// decisionEvent is the first of a request's two events.
func (x *exchange) decisionEvent() *audit.Event {
	e := &audit.Event{Type: audit.TypeDecision, Record: x.id, Time: x.start}
	e.Request = &audit.Request{
		Method:    x.r.Method,
		Host:      x.target.host,
		Path:      x.auditPath(),
		QueryKeys: queryKeys(x.target.query),
		UserAgent: x.r.UserAgent(),
		Trace:     x.trace,
	}
	if x.question != nil {
		e.Request.ForwardAuth = string(x.question.dialect)
	}
	if x.ip.IsValid() {
		e.Request.IP = x.ip.String()
	}
	e.Identity = x.auditIdentity()
	d := &audit.Decision{Effect: x.effect(), Route: x.routeID(), Rule: x.decision.rule, Code: x.decision.reason}
	if !x.decision.allow {
		d.Status = http.StatusInternalServerError
		if x.decision.problem != nil {
			d.Status = x.decision.problem.status
		}
	}
	d.Policy = audit.Policy{Name: x.policy.Name, SHA256: x.policy.SHA256}
	if x.match.Route != nil {
		d.Inputs = x.policy.Inputs(&x.input)
	}
	d.Shadow = x.decision.shadow
	e.Decision = d
	e.Object = x.object
	return e
}

func (x *exchange) auditIdentity() *audit.Identity {
	id := x.identity
	if id == nil {
		return nil
	}
	return &audit.Identity{
		Name: id.Name, Namespace: id.Namespace, UID: id.UID, Actor: id.Actor, Tenant: id.Tenant,
		Issuer: id.Issuer, Provider: id.Provider, AuthTime: id.AuthTime, TokenHash: id.TokenHash,
	}
}

// auditPath is the canonical path; of a target that was refused as ambiguous,
// what came, without query and authority, which can hold secrets.
func (x *exchange) auditPath() string {
	if x.target.path != "" {
		return x.target.path
	}
	raw := x.r.RequestURI
	if i := strings.IndexAny(raw, "?#"); i >= 0 {
		raw = raw[:i]
	}
	if strings.HasPrefix(raw, "/") || raw == "*" {
		return raw
	}
	_, rest, _ := strings.Cut(raw, "://")
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return rest[i:]
	}
	return "" // nothing but an authority
}

// outcomeEvent is the second: what was answered.
func (x *exchange) outcomeEvent(truncated bool) *audit.Event {
	o := &audit.Outcome{
		Status:    x.w.status,
		BytesOut:  x.w.bytes,
		MS:        float64(x.duration()) / float64(time.Millisecond),
		Upstream:  x.upstream,
		Truncated: truncated,
	}
	if x.body != nil {
		o.BytesIn = x.body.read.Load()
	}
	if x.w.conn != nil {
		o.BytesIn, o.BytesOut = x.w.conn.in.Load(), x.w.conn.out.Load()
	}
	if x.failure != nil {
		o.Error = failureCode(x.failure)
	}
	return &audit.Event{Type: audit.TypeOutcome, Record: x.id, Time: x.p.o.Now(), Outcome: o}
}

// failureCode names a failure without the words of whoever caused it.
func failureCode(err error) string {
	var pr *problem
	var end *streamEnd
	switch {
	case errors.As(err, &end):
		return end.outcome
	case errors.Is(err, ErrStopping):
		return "gateway_stopped"
	case errors.Is(err, errClientGone):
		return "client_gone"
	case errors.Is(err, errClientStalled):
		return "client_stalled"
	case errors.As(err, &pr):
		return pr.code
	}
	return codeInternal
}
