// Package otlp sends spans to an OpenTelemetry collector: OTLP over HTTP with
// protobuf. Only here is OpenTelemetry's SDK known.
//
// Traces matter less than requests. Nobody waits for them, what is kept of them
// is bounded, and what a collector does not take is counted and dropped.
package otlp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Options say where spans go, and of whom they are.
type Options struct {
	// URL is where the collector takes traces, whole: http or https, with the path.
	URL *url.URL
	// Headers are sent with each export. Nothing shows their values.
	Headers map[string]string
	// TLS is how an https collector is recognised; nil: as the machine does.
	TLS *tls.Config
	// Name, Version and Instance are service.name, service.version and
	// service.instance.id. OTEL_RESOURCE_ATTRIBUTES adds to them, which the SDK
	// reads; none of its other variables counts.
	Name, Version, Instance string
	// Changed is told when exports begin to fail, and why, and, with nil, when
	// they work again; it is called from one goroutine and must not block. Nil:
	// nobody is told.
	Changed func(err error)
}

// An Exporter takes spans and sends them in the background. It is safe for
// concurrent use.
type Exporter struct {
	provider *sdk.TracerProvider
	queue    *queue
	version  string
}

// Stats are counts since the start.
type Stats struct {
	Exported uint64 // spans that the collector took
	Dropped  uint64 // spans that it did not get, or refused
	Failures uint64 // exports that failed; some were repeated
}

type counts struct{ exported, dropped, failures atomic.Uint64 }

// limits bound what one span takes: a caller chooses how long a path is.
var limits = sdk.SpanLimits{
	AttributeValueLengthLimit: 1024, AttributeValueDepthLimit: 2,
	AttributeCountLimit: 32, EventCountLimit: 8, LinkCountLimit: 8,
	AttributePerEventCountLimit: 8, AttributePerLinkCountLimit: 8,
}

// Open begins to send. It does not ask whether anybody listens: a gateway starts
// without its collector, too.
func Open(o Options) (*Exporter, error) { return open(o, normal) }

func open(o Options, p pace) (*Exporter, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	res, err := resource.New(context.Background(), resource.WithTelemetrySDK(), resource.WithAttributes(encodable(resource.Environment())...), resource.WithAttributes(
		attribute.String("service.name", o.Name),
		attribute.String("service.version", o.Version),
		attribute.String("service.instance.id", o.Instance)))
	if err != nil {
		return nil, fmt.Errorf("otlp: describe this process: %w", err)
	}
	to, err := otlptrace.New(context.Background(), c)
	if err != nil {
		return nil, fmt.Errorf("otlp: %w", err)
	}
	q := newQueue(to, p, o.Changed)
	go q.run()
	return &Exporter{queue: q, version: o.Version, provider: sdk.NewTracerProvider(
		sdk.WithSpanProcessor(q), sdk.WithResource(res), sdk.WithRawSpanLimits(limits),
		sdk.WithSampler(sdk.AlwaysSample()), // whoever makes a span has decided that
		sdk.WithoutPanicRecording(),         // whose words could hold anything
	)}, nil
}

// encodable gives OTEL_RESOURCE_ATTRIBUTES, which the SDK reads, as protobuf takes
// them: with one byte in a value that is no UTF-8 (%ff) no export could be encoded.
func encodable(environment *resource.Resource) []attribute.KeyValue {
	out := environment.Attributes()
	for i, a := range out {
		out[i] = a.Key.String(strings.ToValidUTF8(a.Value.AsString(), "\ufffd"))
	}
	return out
}

// Tracer makes the spans. Each one is kept: what is not to be is not begun.
func (e *Exporter) Tracer() trace.Tracer {
	return e.provider.Tracer("sidegate", trace.WithInstrumentationVersion(e.version))
}

// Stats are the counts until now.
func (e *Exporter) Stats() Stats {
	c := &e.queue.counts
	return Stats{Exported: c.exported.Load(), Dropped: c.dropped.Load(), Failures: c.failures.Load()}
}

// Close sends what is left until ctx ends, and drops the rest. Spans that end
// later are dropped, too. The error says that some were.
func (e *Exporter) Close(ctx context.Context) error {
	before := e.Stats().Dropped
	if err := e.queue.Shutdown(ctx); err != nil { // not the provider's, which would forget to count late spans
		return fmt.Errorf("otlp: %w", err)
	}
	if n := e.Stats().Dropped - before; n > 0 {
		return fmt.Errorf("otlp: %d spans were not delivered: %w", n, errLost)
	}
	return nil
}

var errLost = errors.New("the collector did not take them in time")
