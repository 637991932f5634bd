package proxy

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"sidegate/policy"
)

// An action is what is done for a request that is allowed and on record.
type action func(x *exchange) error

// decide finds what becomes of a request: cheap checks first, the network
// last. It has no effect on anything but x.
func (p *Proxy) decide(x *exchange) (decision, action) {
	if x.crowded {
		return refuse(codeUnavailable, unavailable("too many requests are served now", errCrowded)), nil
	}
	if x.question != nil && x.question.problem != nil {
		return refuse(x.question.problem.code, x.question.problem), nil
	}
	if pr := checkHeaders(x.r); pr != nil {
		return refuse(pr.code, pr), nil
	}
	t, err := canonicalise(x.r.Method, x.r.RequestURI, x.r.Host)
	if err != nil {
		x.target.host = t.host
		// What follows a CONNECT is a tunnel to its sender, and an unknown method
		// may say that something else does (HTTP/2's preface has one).
		return refuse(codeBadTarget, &problem{status: http.StatusBadRequest, code: codeBadTarget, detail: err.Error(), hangUp: !policy.KnownMethod(x.r.Method)}), nil
	}
	x.target = t
	if p.o.Assertions != nil && t.path == jwksPath && !t.encodedSlash {
		if x.question != nil {
			return x.notHere(), nil
		}
		return p.decideKeys(x)
	}
	if x.isPreflight() {
		return p.decidePreflight(x)
	}
	if d, ok := x.route(x.r.Method); !ok {
		return d, nil
	}
	if d, ok := x.limit(x.match.Route.IPLimits, decision{}); !ok {
		return d, nil
	}
	x.stage(stageIdentify)
	if d, ok := x.identify(); !ok {
		return d, nil
	}
	x.checkApp()
	x.stage(stageDecide)
	if x.match.Route.Serve != "" {
		return p.decideServed(x)
	}
	return p.decideForwarded(x)
}

// errCrowded is for the log.
var errCrowded = errors.New("listen.max_requests are being served")

// checkHeaders refuses what two readers could take for different requests and
// net/http lets through.
func checkHeaders(r *http.Request) *problem {
	if len(r.Header["Authorization"]) > 1 {
		return &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "more than one Authorization header", hangUp: true}
	}
	// net/http leaves a Host only beside HTTP/2's :authority, which is what
	// counts and is passed on (RFC 9113, section 8.3.1).
	if h := r.Header["Host"]; len(h) > 1 || len(h) == 1 && h[0] != r.Host {
		return &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "more than one host"}
	}
	// Of a length that is none, net/http makes 0 in HTTP/2.
	if n := r.Header["Content-Length"]; r.ProtoMajor > 1 && len(n) == 1 {
		if _, err := strconv.ParseUint(n[0], 10, 63); err != nil {
			return &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "the length of the body is malformed"}
		}
	}
	if len(r.Header["Content-Length"]) > 1 || len(r.Header["Upgrade"]) > 1 || len(r.Header["Content-Type"]) > 1 {
		return &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "a header that must be single is repeated", hangUp: true}
	}
	return nil
}

// route finds the route of a method: 404, 405, or 400 where the path came with
// an encoded slash that the route does not take.
func (x *exchange) route(method string) (decision, bool) {
	m := x.policy.Match(x.target.host, x.target.path, method)
	x.match.Route = m.Route
	switch m.Code() {
	case policy.ReasonNoRoute:
		return refuse(codeNoRoute, &problem{status: http.StatusNotFound, code: codeNoRoute, detail: "nothing is here"}), false
	case policy.ReasonMethod:
		return refuse(codeMethod, &problem{status: http.StatusMethodNotAllowed, code: codeMethod, detail: "the method is not allowed here", allow: m.Allowed}), false
	}
	if x.question != nil && x.match.Route.Serve != "" {
		return x.notHere(), false
	}
	if x.target.encodedSlash && !x.match.Route.EncodedSlash {
		return refuse(codeBadTarget, &problem{status: http.StatusBadRequest, code: codeBadTarget, detail: "the path holds an encoded slash"}), false
	}
	in := &x.input // which is empty: nothing finds two routes
	in.Route, in.Params, in.Host, in.Path, in.Method = m.Route, m.Params, x.target.host, x.target.path, x.r.Method
	in.IP, in.Time, in.Lookups, in.AppCheckFailure = x.ip, x.start, x, errNotLookedAt
	if x.given != nil {
		in.AppCheck, in.Lookups, in.Recorded = x.given.AppCheck, x.given.Lookups, x.given.Recorded
	}
	if x.wantsWebSocket() && (!x.match.Route.WebSocket || x.r.Method != http.MethodGet || x.r.ContentLength != 0) {
		return refuse(codeBadRequest, &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "no WebSocket can be opened here"}), false
	}
	return decision{}, true
}

// Lookup reads a document for the policy.
func (x *exchange) Lookup(l *policy.Lookup, document string) (policy.Document, error) {
	ctx := x.ctx
	if x.identity == nil {
		ctx = context.WithValue(ctx, nobodyKey{}, true)
	}
	switch x.match.Route.Serve {
	default:
		return x.p.lookups.get(ctx, l, document)
	case policy.PresignUploads, policy.PresignDownloads:
	}
	// One request is judged by one state of a document, and asks for it once,
	// however many items it has.
	if x.looked == nil {
		x.looked = map[[2]string]lookedUp{}
	}
	key := [2]string{l.Name, document}
	found, ok := x.looked[key]
	if !ok {
		found.document, found.err = x.p.lookups.get(ctx, l, document)
		x.looked[key] = found
	}
	return found.document, found.err
}

// lookedUp is what a lookup found.
type lookedUp struct {
	document policy.Document
	err      error
}

// ask puts the request to the policy.
func (x *exchange) ask() policy.Decision {
	d := x.policy.Decide(&x.input)
	x.undecidable = d.Undecidable
	return d
}

// judged turns the policy's refusal into ours.
func (x *exchange) judged(d policy.Decision) decision {
	x.passed = d.Allow
	out := decision{allow: d.Allow, reason: d.Reason, rule: d.Rule, shadow: d.Shadow}
	switch {
	case d.Allow:
	case d.Status == http.StatusUnauthorized:
		out.problem = errNoToken
	case d.Status == http.StatusServiceUnavailable:
		cause := x.input.Failure()
		if x.input.AppCheckFailure != errNotLookedAt {
			cause = errors.Join(x.input.AppCheckFailure, cause)
		}
		out.problem = unavailable("this cannot be decided now", cause)
	case d.ClaimWouldHelp:
		out.problem = errClaimMissing
	default:
		out.problem = errNotAllowed
	}
	return out
}

// What a policy's refusals are told as, all of them: nobody changes one.
var (
	errNoToken      = &problem{status: http.StatusUnauthorized, code: codeNoToken, detail: "a bearer token is needed here"}
	errNotAllowed   = &problem{status: http.StatusForbidden, code: codeNotAllowed, detail: "this is not allowed"}
	errClaimMissing = &problem{status: http.StatusForbidden, code: codeNotAllowed, detail: "this is not allowed", challenge: "insufficient_scope"}
)

func (p *Proxy) decideForwarded(x *exchange) (decision, action) {
	d := x.judged(x.ask())
	if !d.allow {
		return d, nil
	}
	f := p.upstreams[x.match.Route.Upstream]
	if f == nil {
		return refuse(codeInternal, &problem{status: http.StatusInternalServerError, code: codeInternal, detail: "something went wrong here",
			cause: errors.New("the policy names an upstream that this gateway does not have")}).by(d), nil
	}
	limit := f.up.MaxBody
	if m := x.match.Route.MaxBody; m > 0 {
		limit = m
	}
	x.maxBody, x.grpc = limit, f.up.HTTP2 && x.body != nil && isGRPC(x.r)
	if limit > 0 && x.r.ContentLength > limit && !x.grpc {
		return refuse(codeTooLarge, &problem{status: http.StatusRequestEntityTooLarge, code: codeTooLarge, detail: "the request's body is larger than is allowed here", hangUp: true}).by(d), nil
	}
	switch {
	case x.grpc:
		x.body.stream(limit, f.up.IdleTimeout)
	case x.body != nil:
		x.body.max.Store(limit)
	}
	if !f.up.Headers.carry(x) {
		return refuse(codeNotRepresentable, &problem{status: http.StatusForbidden, code: codeNotRepresentable, detail: "what is known of the caller cannot be told to the app here"}).by(d), nil
	}
	if d, ok := x.limit(x.match.Route.Limits, d); !ok {
		return d, nil
	}
	return d, f.act
}
