package proxy

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"sidegate/policy"
)

// An action is what is done for a request that is allowed and on record.
type action func(x *exchange) error

// decide finds what becomes of a request: cheap checks first, the network
// last. It has no effect on anything but x.
func (p *Proxy) decide(x *exchange) (decision, action) {
	if pr := checkHeaders(x.r); pr != nil {
		return refuse(pr.code, pr), nil
	}
	t, err := canonicalise(x.r.Method, x.r.RequestURI, x.r.Host)
	if err != nil {
		x.target.host = t.host
		return refuse(codeBadTarget, &problem{status: http.StatusBadRequest, code: codeBadTarget, detail: err.Error()}), nil
	}
	x.target = t
	if d, ok := x.route(); !ok {
		return d, nil
	}
	if d, ok := x.limit(x.match.Route.IPLimits, decision{}); !ok {
		return d, nil
	}
	if d, ok := x.identify(); !ok {
		return d, nil
	}
	if x.match.Route.Serve != "" {
		return p.decideServed(x)
	}
	return p.decideForwarded(x)
}

// checkHeaders refuses what two readers could take for different requests and
// net/http lets through.
func checkHeaders(r *http.Request) *problem {
	if len(r.Header["Authorization"]) > 1 {
		return &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "more than one Authorization header", hangUp: true}
	}
	if len(r.Header["Content-Length"]) > 1 || len(r.Header["Upgrade"]) > 1 {
		return &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "a header that must be single is repeated", hangUp: true}
	}
	return nil
}

// route finds the route: 404, 405, or 400 where the path came with an encoded
// slash that the route does not take.
func (x *exchange) route() (decision, bool) {
	x.match = x.policy.Match(x.target.host, x.target.path, x.r.Method)
	switch x.match.Code() {
	case policy.ReasonNoRoute:
		return refuse(codeNoRoute, &problem{status: http.StatusNotFound, code: codeNoRoute, detail: "nothing is here"}), false
	case policy.ReasonMethod:
		return refuse(codeMethod, &problem{status: http.StatusMethodNotAllowed, code: codeMethod, detail: "the method is not allowed here", allow: x.match.Allowed}), false
	}
	if x.target.encodedSlash && !x.match.Route.EncodedSlash {
		return refuse(codeBadTarget, &problem{status: http.StatusBadRequest, code: codeBadTarget, detail: "the path holds an encoded slash"}), false
	}
	x.input = policy.Input{
		Route: x.match.Route, Params: x.match.Params, Host: x.target.host, Path: x.target.path, Method: x.r.Method,
		IP: x.ip, Time: x.start, Lookups: x.lookups,
	}
	if x.given != nil {
		x.input.AppCheck, x.input.Recorded = x.given.AppCheck, x.given.Recorded
	}
	if x.wantsWebSocket() && (!x.match.Route.WebSocket || x.r.Method != http.MethodGet || x.r.ContentLength != 0) {
		return refuse(codeBadRequest, &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "no WebSocket can be opened here"}), false
	}
	return decision{}, true
}

func needsIdentity(r *policy.Route) bool { return r.Access == policy.AccessList }

// identify finds out who calls, as far as the route asks.
func (x *exchange) identify() (decision, bool) {
	if x.match.Route.Access == policy.AccessPublic {
		return decision{}, true
	}
	token, bearer := bearerToken(x.r.Header.Get("Authorization"))
	if !bearer {
		if needsIdentity(x.match.Route) {
			return refuse(codeNoToken, &problem{status: http.StatusUnauthorized, code: codeNoToken, detail: "a bearer token is needed here"}), false
		}
		return decision{}, true
	}
	id, err := x.p.o.Authenticator.Authenticate(x.r.Context(), token)
	var bad *TokenError
	switch {
	case errors.As(err, &bad):
		return refuse(codeInvalidToken, &problem{status: http.StatusUnauthorized, code: codeInvalidToken, detail: bad.Reason, challenge: codeInvalidToken, cause: bad}), false
	case err != nil || id == nil || id.UID == "":
		if err == nil {
			err = errors.New("the authenticator gave nobody")
		}
		return refuse(codeUnavailable, unavailable("the token cannot be verified now", err)), false
	}
	x.identity, x.input.Identity = id, id
	return decision{}, true
}

// bearerToken reads an Authorization header (RFC 6750, section 2.1; the scheme
// without regard to case, RFC 9110, section 11.1).
func bearerToken(header string) (token string, bearer bool) {
	const scheme = "Bearer"
	if len(header) < len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return "", false
	}
	rest := header[len(scheme):]
	if rest != "" && rest[0] != ' ' && rest[0] != '\t' {
		return "", false // a longer name
	}
	// A tab is no separator, but some take it for one: it stays in the token,
	// which is malformed then, and is not passed on as something else.
	return strings.TrimLeft(rest, " "), true
}

// Lookup reads a document for the policy.
func (x *exchange) Lookup(l *policy.Lookup, document string) (policy.Document, error) {
	ctx := x.r.Context()
	if x.identity == nil {
		ctx = context.WithValue(ctx, nobodyKey{}, true)
	}
	return x.p.lookups.get(ctx, l, document)
}

// limit takes the request from the budgets of its caller: 429 where one is used
// up.
func (x *exchange) limit(limits []*policy.Limit, d decision) (decision, bool) {
	if len(limits) == 0 || x.limits == nil {
		return d, true
	}
	retry, ok := x.limits.Take(limits, &x.input, x.p.o.Now())
	if ok {
		return d, true
	}
	return refuse(codeRate, &problem{status: http.StatusTooManyRequests, code: codeRate, detail: "too many requests; try again later", retry: retry}).by(d), false
}

// ask puts the request to the policy.
func (x *exchange) ask() policy.Decision {
	d := x.policy.Decide(&x.input)
	x.undecidable = d.Undecidable
	return d
}

// judged turns the policy's refusal into ours.
func (x *exchange) judged(d policy.Decision) decision {
	out := decision{allow: d.Allow, reason: d.Reason, rule: d.Rule, shadow: d.Shadow}
	switch {
	case d.Allow:
	case d.Status == http.StatusUnauthorized:
		out.problem = &problem{status: d.Status, code: codeNoToken, detail: "a bearer token is needed here"}
	case d.Status == http.StatusServiceUnavailable:
		out.problem = unavailable("this cannot be decided now", x.input.Failure())
	default:
		out.problem = &problem{status: http.StatusForbidden, code: codeNotAllowed, detail: "this is not allowed"}
		if d.ClaimWouldHelp {
			out.problem.challenge = "insufficient_scope"
		}
	}
	return out
}

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
	if limit > 0 && x.r.ContentLength > limit {
		return refuse(codeTooLarge, &problem{status: http.StatusRequestEntityTooLarge, code: codeTooLarge, detail: "the request's body is larger than is allowed here", hangUp: true}).by(d), nil
	}
	if x.body != nil {
		x.body.max = limit
	}
	if d, ok := x.limit(x.match.Route.Limits, d); !ok {
		return d, nil
	}
	return d, f.forward
}
