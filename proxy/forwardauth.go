package proxy

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ForwardAuth answers another proxy that asks, in a dialect, whether a request
// which it holds may pass: 200 with the headers by which the app is told who
// calls, or the refusal. The request is decided and recorded as ServeHTTP does
// it, by the same steps; only what is done then differs. Of a request without a
// known dialect nothing is allowed.
//
// It promises less than ServeHTTP: the other proxy must ask about what it
// forwards, and strip what callers may not send. Whoever reaches the handler can
// ask in anybody's name, so its listener is for that proxy alone.
func (p *Proxy) ForwardAuth(d Dialect) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, q := readQuestion(d, r)
		if q.body { // nobody reads it, and net/http would wait for it after the answer
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(discardPause))
		}
		x := p.begin(w, asked)
		x.question, x.ip, x.trusted = q, p.askedBy(r), true
		x.traceContext()
		x.startTrace()
		p.enter(x, r)
		defer p.leave()
		defer p.finish(x)
		if err := p.serve(x); err != nil {
			x.fail(err)
		}
	})
}

const (
	// headerStatus is the real status of a refusal that nginx must get as 403.
	headerStatus = "X-Sidegate-Status"
	// headerUpgrade is there where the request may become a WebSocket.
	headerUpgrade = "X-Sidegate-Upgrade"
)

// notHere refuses what only the gateway itself could answer: another proxy
// would send it to an app.
func (x *exchange) notHere() decision {
	return refuse(codeNoRoute, &problem{status: http.StatusNotFound, code: codeNoRoute, detail: "nothing is here"})
}

// answer is the action of an allowed question.
func (q *question) answer(x *exchange) error {
	h := x.w.Header()
	if f := x.p.upstreams[x.match.Route.Upstream]; f != nil && x.identity != nil {
		if err := f.assert(x); err != nil {
			return err
		}
		f.up.Headers.write(h, x)
	}
	ownAnswer(h, x.id)
	h["Traceparent"] = []string{x.parent}
	h.Set("Content-Length", "0")
	if x.upgrades() {
		h.Set(headerUpgrade, "websocket")
		if q.dialect == DialectTraefik { // which cannot rename
			h.Set("Upgrade", "websocket")
		}
	}
	if q.dialect == DialectEnvoy {
		h.Set("X-Envoy-Auth-Headers-To-Remove", strings.Join(q.toRemove(h, x.p.reserved), ","))
	}
	if q.body {
		h.Set("Connection", "close")
	}
	x.w.final = nil // what pages may read is the app's to say
	x.w.WriteHeader(http.StatusOK)
	return nil
}

// refuse answers with a problem. There is no gRPC here: its refusals are 200,
// which the other proxy would take for a yes.
func (q *question) refuse(x *exchange, pr *problem) {
	out := *pr
	out.hangUp = q.body // else the connection is the proxy's, and sound
	to := &http.Request{Method: q.sent.Method, ProtoMajor: q.sent.ProtoMajor}
	out.write(&refusalWriter{ResponseWriter: x.w, dialect: q.dialect}, to, x.p.o.Name, x.id, false)
}

// A refusalWriter sends a refusal's status as its reader takes it, and never one
// that could mean yes.
type refusalWriter struct {
	http.ResponseWriter
	dialect Dialect
}

func (w *refusalWriter) WriteHeader(status int) {
	if status < http.StatusBadRequest {
		status = http.StatusInternalServerError
	}
	if w.dialect == DialectNginx { // to which all but these two is a fault of ours, answered 500
		w.Header().Set(headerStatus, strconv.Itoa(status))
		if status != http.StatusUnauthorized {
			status = http.StatusForbidden
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// toRemove are the names of the headers that Envoy must not pass on: of those
// that came with the question, as they came, all that callers may not send and
// the answer does not replace; and, whether they came or not, since Envoy need
// not show all, those by which gateways say who calls.
func (q *question) toRemove(answer http.Header, reserved map[string]bool) []string {
	var out []string
	for name := range q.sent.Header {
		if mustStrip(name, reserved) && answer[name] == nil && !ofEnvoy(name) {
			out = append(out, strings.ToLower(name))
		}
	}
	for _, name := range identityHeaders {
		if answer[http.CanonicalHeaderKey(name)] == nil {
			out = append(out, name)
		}
	}
	for name := range reserved {
		if answer[http.CanonicalHeaderKey(name)] == nil {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// identityHeaders are all by whose whole names somebody is said to be somebody:
// the presets' own, and other gateways'.
var identityHeaders = func() []string {
	out := slices.Clone(identityNames)
	for _, name := range []string{
		headerUID, headerIdentity, headerEmail, headerRoles, headerActor, headerTenant, headerClaims, headerAssertion,
		"X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token",
		ESPPrefix + "API-UserInfo", "X-Apigateway-Api-Userinfo",
	} {
		out = append(out, strings.ToLower(name))
	}
	return out
}()

// ofEnvoy: what Envoy itself sets, for the app or for its own filters, whatever
// the caller sent (its documentation, "HTTP header manipulation").
func ofEnvoy(name string) bool {
	fold := strings.ToLower(name)
	return fold == "x-forwarded-for" || fold == "x-forwarded-proto" || strings.HasPrefix(fold, "x-envoy-")
}
