package proxy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"

	"sidegate/policy"
)

var quietLog = log.New(io.Discard, "", 0)

// setForwarded says where the request came from: afresh, or continued where
// the peer is a trusted proxy.
func (f *forwarder) setForwarded(x *exchange, h http.Header) {
	peer, _, err := net.SplitHostPort(x.r.RemoteAddr)
	if err != nil {
		peer = x.r.RemoteAddr
	}
	proto, host := "http", x.target.hostPort
	if x.r.TLS != nil {
		proto = "https"
	}
	if in := x.r.Header; x.trusted {
		if prior := in["X-Forwarded-For"]; len(prior) > 0 {
			peer = strings.Join(prior, ", ") + ", " + peer
		}
		if v := in["X-Forwarded-Proto"]; len(v) == 1 && (v[0] == "http" || v[0] == "https") {
			proto = v[0]
		}
		if v := in["X-Forwarded-Host"]; len(v) == 1 {
			if _, hostPort, err := canonicalHost(v[0]); err == nil {
				host = hostPort
			}
		}
	}
	h["X-Forwarded-For"] = x.room.line(peer)
	h["X-Forwarded-Proto"] = x.room.line(proto)
	if host != "" { // HTTP/1.0 has none
		h["X-Forwarded-Host"] = x.room.line(host)
	}
	h["X-Request-Id"] = x.room.line(x.id)
	x.setTrace(h)
	if len(x.states) > 0 {
		if n := len(strings.Join(x.states, ",")); n > 0 && n <= maxTraceState {
			h["Tracestate"] = slices.Clone(x.states)
		}
	}
}

// maxTraceState is what has to be passed on (W3C Trace Context, section 3.3.1.5);
// dropping more is allowed.
const maxTraceState = 512

// stringList is a claim that is a list of strings; nil where it is anything else.
func stringList(claim any) []string {
	list, ok := claim.([]any)
	if !ok {
		return nil
	}
	var out []string
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil
		}
		out = append(out, s)
	}
	return out
}

// declaredClaims are the claims that the policy declares and the token has.
func declaredClaims(id *policy.Identity, declared []string) map[string]any {
	claims := map[string]any{}
	for _, name := range declared {
		if v, ok := id.Claims[name]; ok {
			claims[name] = v
		}
	}
	return claims
}

// encodeClaims is the base64url JSON, without padding, of the claims that the
// policy declares and the token has.
func encodeClaims(id *policy.Identity, declared []string) string {
	claims := declaredClaims(id, declared)
	if len(claims) == 0 {
		return ""
	}
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetEscapeHTML(false) // which would make six bytes of one
	if err := enc.Encode(claims); err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(bytes.TrimSuffix(data.Bytes(), []byte("\n")))
}
