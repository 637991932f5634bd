package proxy

import (
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"sidegate/storage/audit"
)

// What a caller sends keeps at most so many bytes of the log, as it does of the
// audit log: a line must stay far below the 256 KiB of Cloud Logging's entries,
// also where each byte is written as several.
const (
	logValue  = 4 << 10
	logAgent  = 512
	logMethod = 64
)

// LogLines says what a request's line in the log holds, and which requests have
// one. The zero value gives each its line.
type LogLines struct {
	// Project is the Google Cloud project of the traces: Cloud Logging shows a
	// line beside its trace only by the trace's whole name. Empty: it is not known.
	Project string
	// Sampled leaves out lines of requests that were allowed and went well, but
	// for Share of them, 0 to 1.
	Sampled bool
	Share   float64
}

// log writes the line of a request. docs/operations.md explains its fields,
// of which Cloud Logging knows httpRequest and logging.googleapis.com/*:
// https://cloud.google.com/logging/docs/structured-logging
func (p *Proxy) log(x *exchange, truncated bool) {
	wrong := x.w.status >= http.StatusInternalServerError || truncated
	thin := p.o.LogLines.Sampled && !wrong && x.wentWell()
	if thin && !drawn(x.id, p.o.LogLines.Share) {
		return
	}
	line := p.o.Log.Info()
	if wrong {
		line = p.o.Log.Warn()
	}
	if !line.Enabled() {
		return
	}
	line.Dict("httpRequest", x.httpRequest(line.CreateDict()))
	x.traceFields(line, p.o.LogLines.Project)
	line.Str("record", x.id).Str("decision", x.effect()).Str("code", x.decision.reason)
	given(line, "route", x.routeID())
	given(line, "rule", x.decision.rule)
	if x.identity != nil {
		line.Str("identity", x.identity.Name).Str("uid", loggable(x.identity.UID, logValue))
		given(line, "actor", loggable(x.identity.Actor, logValue))
	}
	given(line, "app_check", x.appCheck)
	given(line, "upstream", x.upstream)
	if truncated {
		line.Bool("truncated", true)
	}
	given(line, "error", x.logError())
	if thin {
		line.Float64("sampled", p.o.LogLines.Share)
	}
	line.Msg("request")
}

// httpRequest is what Cloud Logging calls so (google.logging.type.HttpRequest),
// with the path alone for the URL: queries hold signatures and tokens.
func (x *exchange) httpRequest(d *zerolog.Event) *zerolog.Event {
	var b [64]byte
	d.Str("requestMethod", loggable(x.r.Method, logMethod)).Str("requestUrl", loggable(x.auditPath(), logValue)).Int("status", x.w.status)
	if x.body != nil {
		d.Bytes("requestSize", strconv.AppendInt(b[:0], x.body.read.Load(), 10))
	}
	d.Bytes("responseSize", strconv.AppendInt(b[:0], x.w.bytes, 10))
	given(d, "userAgent", loggable(x.userAgent(), logAgent))
	if x.ip.IsValid() {
		d.Bytes("remoteIp", x.ip.AppendTo(b[:0]))
	}
	d.Bytes("latency", append(strconv.AppendFloat(b[:0], max(0, x.duration().Seconds()), 'f', 6, 64), 's'))
	return d.Str("protocol", x.r.Proto)
}

// traceFields names the trace as the audit log does, and as Cloud Logging asks
// for where the project is known.
func (x *exchange) traceFields(line *zerolog.Event, project string) {
	line.Str("trace", x.trace)
	if project == "" {
		return
	}
	var b [128]byte
	name := append(append(append(append(b[:0], "projects/"...), project...), "/traces/"...), x.trace...)
	line.Bytes("logging.googleapis.com/trace", name).Str("logging.googleapis.com/spanId", x.span).
		Bool("logging.googleapis.com/trace_sampled", x.sampled)
}

// wentWell reports whether nothing was refused and nothing failed: only such a
// request may be left out of the log.
func (x *exchange) wentWell() bool {
	for _, one := range x.batch {
		if !one.decision.allow || one.status >= http.StatusBadRequest {
			return false
		}
	}
	return x.decision.allow && x.failure == nil && x.w.status < http.StatusBadRequest
}

// drawn picks a share of records by their ids, which are random: the same ones
// whoever asks.
func drawn(record string, share float64) bool {
	const digits = 13 // all bits of them fit into a float64
	n, err := strconv.ParseUint(record[:min(digits, len(record))], 16, 64)
	return err != nil || float64(n) < share*(1<<(4*digits))
}

// logError is what went wrong, as it is said here and not to the caller.
func (x *exchange) logError() string {
	switch pr := x.decision.problem; {
	case x.failure != nil:
		return loggable(x.failure.Error(), logValue)
	case pr != nil && pr.cause != nil:
		return loggable(pr.cause.Error(), logValue)
	}
	return ""
}

// given adds a field that has a value.
func given(e *zerolog.Event, key, value string) {
	if value != "" {
		e.Str(key, value)
	}
}

// loggable is a value from outside as one line that steers no terminal, not even
// where a tool has undone JSON's escapes, of at most limit bytes as it came.
func loggable(s string, limit int) string {
	if len(s) <= limit {
		return audit.Printable(s)
	}
	end := limit
	for end > limit-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return audit.Printable(s[:end]) + "..."
}

// logItem says what went wrong with one item of a request.
func (p *Proxy) logItem(x *exchange, one *item, pr *problem) {
	p.o.Log.Warn().Str("record", one.record).Str("batch", x.id).Int("status", pr.status).Str("code", pr.code).
		Str("error", loggable(pr.Error(), logValue)).Msg("item")
}
