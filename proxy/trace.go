package proxy

import (
	"strconv"
	"strings"
)

// traceContext continues a trusted proxy's trace, or begins one whose id is
// the record's (W3C Trace Context, version 00). Where there is no traceparent,
// Google's older header says the same.
func (x *exchange) traceContext() {
	h := x.r.Header
	if x.trusted {
		parent, w3c, cloud := "", h["Traceparent"], h[headerCloudTrace]
		switch {
		case len(w3c) == 1 && validTraceparent(w3c[0]):
			parent, x.states = w3c[0], h["Tracestate"]
		case len(w3c) == 0 && len(cloud) == 1:
			parent = fromCloudTrace(cloud[0])
		}
		x.cloudTrace = len(cloud) > 0
		if parent != "" {
			x.parent, x.continued = parent, true
		}
	}
	x.trace, x.span, x.sampled = x.parent[3:35], x.parent[36:52], sampledFlag(x.parent)
}

func validTraceparent(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	for i, c := range []byte(s) {
		if i != 2 && i != 35 && i != 52 && !isLowerHex(c) {
			return false
		}
	}
	const zeros = "00000000000000000000000000000000"
	return s[3:35] != zeros && s[36:52] != zeros[:16]
}

func isLowerHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }

// sampledFlag reads the last bit of a valid traceparent (section 3.2.2.5.1).
func sampledFlag(parent string) bool {
	c := parent[54]
	if c >= 'a' {
		c -= 'a' - 10 // an even number, as '0' is
	}
	return c&1 != 0
}

// headerCloudTrace is TRACE/SPAN;o=OPTIONS: 32 hexadecimal digits, a decimal
// number, and 1 where the trace is sampled.
// https://docs.cloud.google.com/trace/docs/trace-context#legacy-http-header
const headerCloudTrace = "X-Cloud-Trace-Context"

// fromCloudTrace gives the traceparent that says the same; empty where the
// header is malformed. Without options the trace is not sampled.
func fromCloudTrace(s string) string {
	const digits = 32
	if len(s) < digits+2 || s[digits] != '/' {
		return ""
	}
	text, options, _ := strings.Cut(s[digits+1:], ";")
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return ""
	}
	flags := "-00"
	switch options {
	case "o=1":
		flags = "-01"
	case "", "o=0":
	default:
		return ""
	}
	span := strconv.FormatUint(n, 16)
	parent := "00-" + strings.ToLower(s[:digits]) + "-" + strings.Repeat("0", 16-len(span)) + span + flags
	if !validTraceparent(parent) {
		return ""
	}
	return parent
}

// toCloudTrace writes a valid traceparent as Google's older header.
func toCloudTrace(parent string) string {
	span, _ := strconv.ParseUint(parent[36:52], 16, 64)
	options := ";o=0"
	if sampledFlag(parent) {
		options = ";o=1"
	}
	return parent[3:35] + "/" + strconv.FormatUint(span, 10) + options
}

// setTrace tells an app which span its own are children of. Google's older
// header is there where it came: its platforms have apps that read nothing else.
func (x *exchange) setTrace(h map[string][]string) {
	h["Traceparent"] = x.room.line(x.parent)
	if x.cloudTrace {
		h[headerCloudTrace] = []string{toCloudTrace(x.parent)}
	}
}
