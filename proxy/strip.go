package proxy

import (
	"net/http"
	"strings"
)

// stripped are the headers that no caller may send to an upstream: those the
// gateway sets itself under any preset, those by which other proxies say who
// somebody is, and those that override what was matched. Names are in lower
// case with `-`; servers behind CGI or WSGI read `_` and `.` as `-`.
var stripped = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range []string{
		// identity
		"x-goog-iap-jwt-assertion", "x-forwarded-user", "remote-user", "remote-groups",
		"remote-name", "remote-email", "teleport-jwt-assertion",
		// set by the gateway
		"x-request-id", "traceparent", "tracestate", "forwarded",
		// overrides of what was matched
		"x-original-url", "x-rewrite-url", "x-original-uri", "x-original-host", "x-original-method",
		"x-http-method", "x-http-method-override", "x-method-override", "x-host",
		// the caller's address, in the spellings that apps are known to read
		"x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip",
		"fastly-client-ip", "x-originating-ip", "x-remote-ip", "x-url-scheme", "x-scheme",
	} {
		m[name] = true
	}
	return m
}()

// strippedPrefixes are whole families of them, by their first part.
var strippedPrefixes = []string{
	"x-sidegate-", "x-forwarded-", "x-auth-", "x-user-", "x-goog-authenticated-user-",
	"x-endpoint-api-", "x-apigateway-", "x-remote-", "x-pomerium-", "x-authentik-", "x-amzn-oidc-",
	"x-http-method",
}

// maxHeaderName is longer than any name in the lists.
const maxHeaderName = 256

// mustStrip reports whether a header of this name is the gateway's to set.
func mustStrip(name string) bool {
	var buf [maxHeaderName]byte
	if len(name) > len(buf) {
		return hasStrippedPrefix(strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name)))
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c == '_' || c == '.':
			c = '-'
		}
		buf[i] = c
	}
	folded := buf[:len(name)]
	return stripped[string(folded)] || hasStrippedPrefix(string(folded))
}

func hasStrippedPrefix(folded string) bool {
	if folded == "" || (folded[0] != 'x' && folded[0] != '-') {
		return false
	}
	for _, p := range strippedPrefixes {
		if strings.HasPrefix(folded, p) {
			return true
		}
	}
	return false
}

// strip removes from headers or trailers what only the gateway may set.
func strip(h http.Header) {
	for name := range h {
		if mustStrip(name) {
			delete(h, name)
		}
	}
}

// stripAnswer removes from an upstream's answer what speaks in the gateway's name.
func stripAnswer(h http.Header) {
	for name := range h {
		if len(name) >= 11 && strings.EqualFold(name[:11], "X-Sidegate-") {
			delete(h, name)
		}
	}
}
