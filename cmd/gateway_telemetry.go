package cmd

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"sidegate/proxy/otlp"
)

// openTelemetry begins to send spans; nil: nothing is traced. It is opened early,
// and so closed late: what else is flushed at a stop matters more.
func (g *gateway) openTelemetry() (trace.Tracer, error) {
	if g.s.config.Telemetry.OTLP == nil {
		return nil, nil
	}
	o, err := g.s.telemetry()
	if err != nil {
		return nil, err
	}
	o.Instance = g.instance
	o.Changed = func(err error) {
		if err != nil {
			g.log.Warn().Err(err).Msg("traces are not delivered; requests do not wait for them")
			return
		}
		g.log.Info().Msg("traces are delivered again")
	}
	e, err := otlp.Open(o)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	for name, m := range map[string]struct {
		help string
		of   func(otlp.Stats) uint64
	}{
		"sidegate_telemetry_exported_total": {"Spans that the collector took.", func(s otlp.Stats) uint64 { return s.Exported }},
		"sidegate_telemetry_dropped_total":  {"Spans that the collector did not take in time, or refused.", func(s otlp.Stats) uint64 { return s.Dropped }},
		"sidegate_telemetry_failures_total": {"Exports to the collector that failed; some were repeated.", func(s otlp.Stats) uint64 { return s.Failures }},
	} {
		g.metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: m.help}, func() float64 { return float64(m.of(e.Stats())) }))
	}
	g.onClose(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), g.telemetryTime())
		defer cancel()
		if err := e.Close(ctx); err != nil {
			g.log.Warn().Err(err).Msg("the last traces are lost")
		}
		return nil // a stop without them is a good one
	})
	return e.Tracer(), nil
}

// telemetryTime is how long the last spans may take at a stop: what is left of
// shutdown_grace, and not much of it.
func (g *gateway) telemetryTime() time.Duration {
	const least, most = 100 * time.Millisecond, 2 * time.Second
	if g.graceEnd.IsZero() {
		return least // it did not start
	}
	return min(max(time.Until(g.graceEnd), least), most)
}

// telemetry says where spans go. The configuration has a collector.
func (s *settings) telemetry() (otlp.Options, error) {
	t := s.config.Telemetry
	o := otlp.Options{URL: t.OTLP, Name: s.config.Name, Version: s.version, Headers: map[string]string{}}
	for name, value := range t.Headers {
		o.Headers[name] = value.Reveal()
	}
	if t.CA != "" {
		pool, err := readAuthorities(t.CA)
		if err != nil {
			return o, fmt.Errorf("telemetry.ca: %w", err)
		}
		o.TLS = &tls.Config{RootCAs: pool}
	}
	return o, nil
}
