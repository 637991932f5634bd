package proxy

import (
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

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
	var room [1 << 10]byte
	// The fields behind it come with the first one's value: zerolog would put
	// together each alone, and the first in a place of its own.
	line.RawJSON("httpRequest", x.appendFields(room[:0], truncated))
	if thin {
		line.Float64("sampled", p.o.LogLines.Share)
	}
	line.Msg("request")
}

// appendFields adds the value of httpRequest, and the fields behind it.
func (x *exchange) appendFields(b []byte, truncated bool) []byte {
	b = x.appendHTTPRequest(b)
	b = x.appendTraceFields(b, x.p.o.LogLines.Project)
	b = appendField(b, `,"record":`, x.id)
	b = appendField(b, `,"decision":`, x.effect())
	b = appendField(b, `,"code":`, x.decision.reason)
	b = appendGiven(b, `,"route":`, x.routeID())
	b = appendGiven(b, `,"rule":`, x.decision.rule)
	if id := x.identity; id != nil {
		b = appendField(b, `,"identity":`, id.Name)
		b = appendField(b, `,"uid":`, loggable(id.UID, logValue))
		b = appendGiven(b, `,"actor":`, loggable(id.Actor, logValue))
	}
	b = appendGiven(b, `,"app_check":`, x.appCheck)
	b = appendGiven(b, `,"upstream":`, x.upstream)
	if truncated {
		b = append(b, `,"truncated":true`...)
	}
	return appendGiven(b, `,"error":`, x.logError())
}

// appendHTTPRequest adds what Cloud Logging calls so (google.logging.type.HttpRequest),
// with the path alone for the URL: queries hold signatures and tokens.
func (x *exchange) appendHTTPRequest(b []byte) []byte {
	b = appendField(b, `{"requestMethod":`, loggable(x.r.Method, logMethod))
	b = appendField(b, `,"requestUrl":`, loggable(x.auditPath(), logValue))
	b = strconv.AppendInt(append(b, `,"status":`...), int64(x.w.status), 10)
	if x.body != nil {
		b = append(strconv.AppendInt(append(b, `,"requestSize":"`...), x.body.read.Load(), 10), '"')
	}
	b = append(strconv.AppendInt(append(b, `,"responseSize":"`...), x.w.bytes, 10), '"')
	b = appendGiven(b, `,"userAgent":`, loggable(x.userAgent(), logAgent))
	switch {
	case x.ip.Zone() != "": // which may hold anything
		b = appendField(b, `,"remoteIp":`, x.ip.String())
	case x.ip.IsValid():
		b = append(x.ip.AppendTo(append(b, `,"remoteIp":"`...)), '"')
	}
	b = append(appendSeconds(append(b, `,"latency":"`...), x.duration()), 's', '"')
	return append(appendField(b, `,"protocol":`, x.r.Proto), '}')
}

// appendSeconds adds a time in seconds with all six digits of its microseconds;
// one below zero is none.
func appendSeconds(b []byte, d time.Duration) []byte {
	micros := max(0, int64(d.Round(time.Microsecond)/time.Microsecond))
	const second = 1_000_000
	b = append(strconv.AppendInt(b, micros/second, 10), '.')
	for unit := int64(second / 10); unit > 0; unit /= 10 {
		b = append(b, byte('0'+micros/unit%10))
	}
	return b
}

// appendTraceFields names the trace as the audit log does, and as Cloud Logging
// asks for where the project is known.
func (x *exchange) appendTraceFields(b []byte, project string) []byte {
	b = appendField(b, `,"trace":`, x.trace)
	if project == "" {
		return b
	}
	var room [64]byte
	name := appendText(room[:0], project, false)
	b = append(append(b, `,"logging.googleapis.com/trace":"projects/`...), name[1:len(name)-1]...)
	b = append(append(append(b, "/traces/"...), x.trace...), '"')
	b = appendField(b, `,"logging.googleapis.com/spanId":`, x.span)
	return strconv.AppendBool(append(b, `,"logging.googleapis.com/trace_sampled":`...), x.sampled)
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

// appendField adds a field; key is what stands before its value.
func appendField(b []byte, key, value string) []byte {
	return appendText(append(b, key...), value, false)
}

// appendGiven adds a field that has a value.
func appendGiven(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return appendField(b, key, value)
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
