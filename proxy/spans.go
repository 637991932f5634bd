package proxy

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"sidegate/policy"
	"sidegate/storage/audit"
)

// The stages of a request's way: each is a span beneath the request's own. They
// come one after the other, so that the next one's begin is the last one's end,
// and none can be left open. docs/operations.md says what they are.
const (
	stageIdentify = "identify"
	stageDecide   = "decide"
	stageRecord   = "record"
	stageSign     = "sign"
	stageStore    = "store"
	stageUpstream = "upstream"
)

// Attributes: the names of OpenTelemetry's semantic conventions that are stable,
// and ours.
const (
	attrMethod   = attribute.Key("http.request.method")
	attrPath     = attribute.Key("url.path")
	attrScheme   = attribute.Key("url.scheme")
	attrHost     = attribute.Key("server.address")
	attrPort     = attribute.Key("server.port")
	attrProtocol = attribute.Key("network.protocol.version")
	attrPattern  = attribute.Key("http.route")
	attrStatus   = attribute.Key("http.response.status_code")
	attrError    = attribute.Key("error.type")

	attrRecord      = attribute.Key("sidegate.record")
	attrRoute       = attribute.Key("sidegate.route")
	attrDecision    = attribute.Key("sidegate.decision")
	attrRule        = attribute.Key("sidegate.rule")
	attrCode        = attribute.Key("sidegate.code")
	attrIdentity    = attribute.Key("sidegate.identity")
	attrUpstream    = attribute.Key("sidegate.upstream")
	attrForwardAuth = attribute.Key("sidegate.forward_auth")
	attrSurvive     = attribute.Key("sidegate.survive")
	attrOperation   = attribute.Key("sidegate.operation")
	attrBucket      = attribute.Key("sidegate.bucket")
)

// spans are those that a request has open.
type spans struct {
	under context.Context // that of the request's own
	own   trace.Span
	stage trace.Span // nil: none
}

// startTrace begins the request's own span, where its trace is kept.
func (x *exchange) startTrace() {
	if x.p.o.Tracer == nil {
		return
	}
	if !x.continued {
		x.sampled = rand.Float64() < x.p.o.Sample
	}
	if !x.sampled {
		return
	}
	parent := trace.ContextWithSpanContext(context.Background(), x.parentSpan())
	s := &spans{}
	s.under, s.own = x.p.o.Tracer.Start(parent, spanMethod(x.r.Method), trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(x.start))
	x.spans = s
	x.span = x.passOn(s.own)
}

// parentSpan is whose child the request's own span is. A trace that begins here
// has an id, and no span yet.
func (x *exchange) parentSpan() trace.SpanContext {
	id, _ := trace.TraceIDFromHex(x.trace)
	c := trace.SpanContextConfig{TraceID: id, TraceFlags: trace.FlagsSampled}
	if x.continued {
		c.SpanID, _ = trace.SpanIDFromHex(x.span)
		c.Remote = true
		if states := strings.Join(x.states, ","); len(states) <= maxTraceState {
			c.TraceState, _ = trace.ParseTraceState(states) // malformed: none
		}
	}
	return trace.NewSpanContext(c)
}

// passOn makes a span the parent of what is asked next, and gives its id.
func (x *exchange) passOn(s trace.Span) string {
	id := s.SpanContext().SpanID().String()
	x.parent = "00-" + x.trace + "-" + id + "-01"
	return id
}

// spanMethod is a method that there is; of others there could be any number.
func spanMethod(method string) string {
	if policy.KnownMethod(method) {
		return method
	}
	return "_OTHER"
}

// stage begins the next part of the request's way.
func (x *exchange) stage(name string) {
	if x.spans != nil {
		x.begin(name, trace.SpanKindInternal)
		if name == stageRecord {
			x.spans.stage.SetAttributes(attrSurvive.String(x.survive().String()))
		}
	}
}

func (x *exchange) begin(name string, kind trace.SpanKind) {
	x.leaveStage(nil)
	_, x.spans.stage = x.p.o.Tracer.Start(x.spans.under, name, trace.WithSpanKind(kind), trace.WithTimestamp(x.p.o.Now()))
}

// leaveStage ends the part of the way that the request is on. The error says that
// it went wrong there; a refusal is nothing that went wrong.
func (x *exchange) leaveStage(err error) {
	if x.spans == nil || x.spans.stage == nil {
		return
	}
	if err != nil {
		x.spans.stage.SetStatus(codes.Error, "")
		x.spans.stage.SetAttributes(attrError.String(failureCode(err)))
	}
	x.spans.stage.End(trace.WithTimestamp(x.p.o.Now()))
	x.spans.stage = nil
}

// trouble is what kept a decision from being made; nil: one was.
func (d *decision) trouble() error {
	if d.problem == nil || d.problem.status < http.StatusInternalServerError {
		return nil
	}
	return d.problem
}

// stageServed begins what the gateway does for a request by itself.
func (x *exchange) stageServed() {
	if x.spans == nil || x.object == nil {
		return
	}
	name := stageStore
	switch x.object.Operation {
	case opPut, opPost, opGet, opHead, opBatch, opMultipartSign:
		name = stageSign
	}
	x.begin(name, trace.SpanKindInternal)
	x.spans.stage.SetAttributes(attrOperation.String(x.object.Operation))
	if x.object.Bucket != "" {
		x.spans.stage.SetAttributes(attrBucket.String(x.object.Bucket))
	}
}

// stageUpstream begins what an app does for it: the app's own spans are this
// one's children.
func (x *exchange) stageUpstream(f *forwarder) {
	if x.spans == nil {
		return
	}
	x.begin(stageUpstream, trace.SpanKindClient)
	x.passOn(x.spans.stage)
	x.spans.stage.SetAttributes(attrUpstream.String(f.name), attrMethod.String(spanMethod(x.r.Method)), attrHost.String(f.up.URL.Hostname()))
	if port, err := strconv.Atoi(f.up.URL.Port()); err == nil {
		x.spans.stage.SetAttributes(attrPort.Int(port))
	}
}

// upstreamAnswered notes the status of the app's answer: 4xx is the asker's
// failure, and here the gateway asked.
func (x *exchange) upstreamAnswered(status int) {
	if x.spans == nil || x.spans.stage == nil {
		return
	}
	x.spans.stage.SetAttributes(attrStatus.Int(status))
	if status >= http.StatusBadRequest {
		x.spans.stage.SetStatus(codes.Error, "")
		x.spans.stage.SetAttributes(attrError.String(strconv.Itoa(status)))
	}
}

// endTrace ends what is open, when all of the request is known.
func (x *exchange) endTrace() {
	s := x.spans
	if s == nil {
		return
	}
	x.leaveStage(x.failure)
	name := spanMethod(x.r.Method)
	s.own.SetAttributes(
		attrMethod.String(name), attrPath.String(spanText(x.auditPath())), attrScheme.String(x.spanScheme()),
		attrProtocol.String(spanProtocol(x.r)),
		attrRecord.String(x.id), attrDecision.String(x.effect()), attrCode.String(x.decision.reason))
	if x.target.host != "" {
		s.own.SetAttributes(attrHost.String(spanText(x.target.host)))
	}
	if r := x.match.Route; r != nil {
		s.own.SetAttributes(attrRoute.String(r.ID), attrPattern.String(r.Path()))
		s.own.SetName(name + " " + r.Path())
	}
	for key, value := range map[attribute.Key]string{attrRule: x.decision.rule, attrUpstream: x.upstream} {
		if value != "" {
			s.own.SetAttributes(key.String(value))
		}
	}
	if x.identity != nil {
		s.own.SetAttributes(attrIdentity.String(x.identity.Name))
	}
	if x.question != nil {
		s.own.SetAttributes(attrForwardAuth.String(string(x.question.dialect)))
	}
	x.spanOutcome()
	s.own.End(trace.WithTimestamp(x.p.o.Now()))
	x.spans = nil
}

// spanOutcome says what was answered, and what went wrong. Of a server's span only
// its own failures are errors.
func (x *exchange) spanOutcome() {
	own := x.spans.own
	if x.w.status != 0 {
		own.SetAttributes(attrStatus.Int(x.w.status))
	}
	switch {
	case x.w.status >= http.StatusInternalServerError:
		own.SetAttributes(attrError.String(strconv.Itoa(x.w.status)))
		own.SetStatus(codes.Error, "")
	case x.failure != nil:
		code := failureCode(x.failure)
		own.SetAttributes(attrError.String(code))
		if code == codeUpstreamFailed || code == codeUpstreamTimeout || code == codeInternal {
			own.SetStatus(codes.Error, "")
		}
	}
}

func (x *exchange) spanScheme() string {
	if s := x.scheme(); s != "" {
		return s
	}
	return "http"
}

func spanProtocol(r *http.Request) string {
	if r.ProtoMajor >= 2 {
		return strconv.Itoa(r.ProtoMajor)
	}
	return strconv.Itoa(r.ProtoMajor) + "." + strconv.Itoa(r.ProtoMinor)
}

// maxSpanText bounds what a caller puts into a span.
const maxSpanText = 1024

// spanText is what a caller wrote, as it may stand in a span: protobuf takes UTF-8
// alone, and a span in a queue must not hold on to a whole request line, of which
// a path is a part.
func spanText(s string) string {
	return audit.Printable(strings.Clone(s[:min(len(s), maxSpanText)]))
}
