package cmd

import (
	"context"
	"errors"

	"sidegate/proxy/otlp"
)

// telemetryProbes ask the collector to take an export of nothing. Requests do not
// depend on it, so that what is wrong is a warning.
func telemetryProbes(s settings) []probe {
	at := s.config.Telemetry.OTLP
	if at == nil {
		return nil
	}
	return []probe{single("telemetry", at.Host, func(ctx context.Context, b probe) check {
		o, err := s.telemetry()
		if err != nil {
			return b.fails("mend `telemetry.ca`: the gateway does not start without it", "%v", err)
		}
		switch err := otlp.Probe(ctx, o); {
		case err == nil:
			return b.pass("the collector takes traces at %s", at.Path)
		case errors.Is(err, otlp.ErrForbidden):
			return b.warn("mend `telemetry.headers`: they are how the collector knows this gateway", "%v", err)
		case errors.Is(err, otlp.ErrNotCollector):
			return b.warn("write the URL of its OTLP receiver for HTTP, whose port is usually 4318 (4317 is gRPC's), with the path if it is not /v1/traces", "%v", err)
		default:
			return b.warn("see that the collector runs, and can be reached from here; traces are dropped until then", "%v", err)
		}
	})}
}
