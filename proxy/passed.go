package proxy

import (
	"net/http"
	"strings"
)

// ofConnection reports whether a header is of a connection and not of a request
// (RFC 9110, section 7.6.1, and those that were such before), by the name that
// net/http gives it.
func ofConnection(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// endsHere reports whether the request's Connection header names no other header
// and the request does not want to leave HTTP or have trailers: then what goes to
// the upstream is what came without those of ofConnection. Of all others ReverseProxy makes it.
func endsHere(h http.Header) bool {
	if h["Te"] != nil || h["Upgrade"] != nil {
		return false
	}
	switch c := h["Connection"]; len(c) {
	case 0:
		return true
	case 1:
		return strings.EqualFold(c[0], "keep-alive") || strings.EqualFold(c[0], "close")
	}
	return false
}

// passedOn is the part of a request's headers that its upstream gets, with room
// for what the gateway says itself. ReverseProxy would copy all of them, take
// away what is of the connection, and have the copy grow several times.
func (f *forwarder) passedOn(x *exchange) http.Header {
	in := x.r.Header
	n := len(in) + forwardedLines
	if in["Authorization"] != nil && !f.up.KeepAuthorization {
		n--
	}
	if x.identity != nil && f.up.Headers.tell != nil {
		n += len(f.up.Headers.tell.of(x).headers)
	}
	out := make(http.Header, n)
	for name, values := range in {
		if !ofConnection(name) && !mustStrip(name, f.p.reserved) {
			out[name] = values
		}
	}
	return out
}

// forwardedLines is how many headers setForwarded sets, for most requests.
const forwardedLines = 5

// handOn gives the caller's answer the headers of the upstream's, which ReverseProxy
// has looked through. It would copy them, value by value. By the Content-Type it
// finds out whether each part of an answer is to go at once.
func handOn(to http.Header, res *http.Response) {
	if streamsEvents(res.Header["Content-Type"]) {
		return
	}
	for name, values := range res.Header {
		if have := to[name]; len(have) > 0 {
			values = append(have, values...)
		}
		if len(values) > 0 {
			to[name] = values
		}
	}
	res.Header = nil
}

// streamsEvents: it may be what ReverseProxy takes for an event stream.
func streamsEvents(types []string) bool {
	const events = "text/event-stream"
	for _, t := range types {
		if t = strings.TrimSpace(t); len(t) >= len(events) && strings.EqualFold(t[:len(events)], events) {
			return true
		}
	}
	return false
}
