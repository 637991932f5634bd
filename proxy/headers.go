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
	"strconv"
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
		if v, ok := id.Claim(name); ok {
			claims[name] = v
		}
	}
	return claims
}

// encodeClaims is the base64url JSON, without padding, of the claims that the
// policy declares and the token has: of declaredClaims. declared is sorted.
func encodeClaims(id *policy.Identity, declared []string) string {
	var room [512]byte
	data := append(room[:0], '{')
	for _, name := range declared {
		v, ok := id.Claim(name)
		if !ok {
			continue
		}
		if len(data) > 1 {
			data = append(data, ',')
		}
		var err error
		if data, err = appendClaim(append(appendText(data, name, false), ':'), v); err != nil {
			return ""
		}
	}
	if len(data) == 1 {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(append(data, '}'))
}

// appendClaim writes a claim as encoding/json does: text, a truth and lists itself,
// which most are and for which that takes longer.
func appendClaim(b []byte, claim any) ([]byte, error) {
	switch claim := claim.(type) {
	case string:
		return appendText(b, claim, false), nil
	case bool:
		return strconv.AppendBool(b, claim), nil
	case []any:
		if claim == nil {
			return append(b, "null"...), nil
		}
		b = append(b, '[')
		for i, v := range claim {
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if b, err = appendClaim(b, v); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // which would make six bytes of one
	if err := enc.Encode(claim); err != nil {
		return nil, err
	}
	return append(b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...), nil
}
