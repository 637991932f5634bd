package proxy

import (
	"net/http"
	"slices"
	"strings"
)

// identityNames are headers by which gateways say who somebody is. Names are in
// lower case with `-`.
var identityNames = []string{
	"x-goog-iap-jwt-assertion", "x-forwarded-user", "remote-user", "remote-groups",
	"remote-name", "remote-email", "teleport-jwt-assertion", "x-jwt-assertion", "x-anonymous-consumer",
	"x-user", "x-userinfo", "x-jwt-payload",
	"client-cert", "client-cert-chain", // RFC 9440
	"x-arr-clientcert", "x-ssl-cert", "x-client-verify", "x-client-dn",
}

// otherNames are those that override what was matched, say where a request came
// from, or are the gateway's own to set.
var otherNames = []string{
	// set by the gateway
	"x-request-id", "traceparent", "tracestate", "x-cloud-trace-context", "forwarded", "x-serverless-authorization",
	// overrides of what was matched
	"x-original-url", "x-rewrite-url", "x-original-uri", "x-original-host", "x-original-method",
	"x-http-method", "x-http-method-override", "x-method-override", "x-host",
	// the caller's address, in the spellings that apps are known to read
	"x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip",
	"fastly-client-ip", "x-originating-ip", "x-remote-ip", "x-url-scheme", "x-scheme",
	"client-ip", "x-proxyuser-ip", "x-forwarded", "x-method", "x-middleware-subrequest",
	"proxy", // CGI makes HTTP_PROXY of it
}

// stripped are the headers that no caller may send to an upstream.
var stripped = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range slices.Concat(identityNames, otherNames) {
		m[name] = true
	}
	return m
}()

// strippedPrefixes are whole families of them, by their first part.
var strippedPrefixes = []string{
	"x-sidegate-", "x-forwarded-", "x-auth-", "x-user-", "x-goog-authenticated-user-",
	"x-endpoint-api-", "x-apigateway-", "x-remote-", "x-pomerium-", "x-authentik-", "x-amzn-oidc-", "x-amzn-mtls-",
	"x-http-method", "x-envoy-", "x-authenticated-", "x-webauth-", "x-vouch-", "x-consumer-", "x-credential-",
	"x-ms-client-principal", "x-ms-token-", "x-ssl-client-", "x-client-cert",
	"cf-access-", "tailscale-", "oidc-", "impersonate-", "ssl-client-",
}

// lengthsByByte has a bit for each length of a stripped name, by its first byte:
// most other names have a length that none of them has.
var lengthsByByte = func() (by [256]uint64) {
	for name := range stripped {
		by[name[0]] |= 1 << len(name)
	}
	return by
}()

// prefixesByByte are strippedPrefixes by their first byte: most names begin with
// none of them.
var prefixesByByte = func() (by [256][]string) {
	for _, p := range strippedPrefixes {
		by[p[0]] = append(by[p[0]], p)
	}
	return by
}()

// framing are headers that say where a message ends, what it is and who sends
// it. Under their own names they are net/http's and the app's business; under
// a name that only folds to theirs they would mean it to some apps and not to
// us.
var framing = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range []string{
		"content-length", "transfer-encoding", "connection", "proxy-connection", "keep-alive", "upgrade", "te", "trailer",
		"host", "expect", "content-type", "content-encoding", "range", "authorization", "proxy-authorization", "cookie",
		"origin", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol", "sec-websocket-extensions", "sec-fetch-site",
	} {
		m[name] = true
	}
	return m
}()

// maxHeaderName is longer than any name in the lists: what lies beyond does
// not matter.
const maxHeaderName = 64

// mustStrip reports whether a header of this name is the gateway's to set,
// reserved names (folded) included. Case does not count, and every byte that is
// no letter and no digit is a `-`: servers behind CGI or WSGI make `_` of `-`,
// and some of all the others.
func mustStrip(name string, reserved map[string]bool) bool {
	var buf [maxHeaderName]byte
	folded := buf[:min(len(name), maxHeaderName)]
	odd := false // the name has other bytes than letters, digits and dashes
	for i := range folded {
		folded[i] = foldedBytes[name[i]]
		odd = odd || (folded[i] == '-' && name[i] != '-')
	}
	if len(folded) == 0 {
		return false
	}
	if lengthsByByte[folded[0]]>>len(folded)&1 != 0 && stripped[string(folded)] {
		return true
	}
	if len(reserved) > 0 && reserved[string(folded)] || odd && framing[string(folded)] {
		return true
	}
	for _, p := range prefixesByByte[folded[0]] {
		if len(folded) >= len(p) && folded[2] == p[2] && string(folded[:len(p)]) == p {
			return true
		}
	}
	return false
}

var foldedBytes = func() (by [256]byte) {
	for c := range by {
		by[c] = foldName(byte(c))
	}
	return by
}()

// folded is a header's name as it stands in the lists.
func folded(name string) string {
	b := []byte(name)
	for i, c := range b {
		b[i] = foldName(c)
	}
	return string(b)
}

func foldName(c byte) byte {
	switch {
	case c >= 'A' && c <= 'Z':
		return c + 'a' - 'A'
	case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
		return c
	}
	return '-'
}

// strip removes from headers or trailers what only the gateway may set.
func strip(h http.Header, reserved map[string]bool) {
	for name := range h {
		if mustStrip(name, reserved) {
			delete(h, name)
		}
	}
}

// stripAnswer removes from an upstream's answer what speaks in the gateway's
// name. It reports whether a name holds a space: the one byte that net/http lets
// by, and then drops.
func stripAnswer(h http.Header) (spaced bool) {
	for name := range h {
		if len(name) >= 11 && name[0]|0x20 == 'x' && strings.EqualFold(name[:11], "X-Sidegate-") {
			delete(h, name)
			continue
		}
		spaced = spaced || strings.IndexByte(name, ' ') >= 0
	}
	return spaced
}
