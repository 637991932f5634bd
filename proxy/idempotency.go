package proxy

import (
	"net/http"
	"strings"
)

// maxIdempotencyKey is the longest that is taken, in bytes.
const maxIdempotencyKey = 255

// idempotencyKey is what the caller calls the request by
// (draft-ietf-httpapi-idempotency-key-header): a string of RFC 9651, or the same
// without quotes, as many clients send it. "" where there is none.
func idempotencyKey(h http.Header) (string, *problem) {
	lines := h["Idempotency-Key"]
	if len(lines) == 0 {
		return "", nil
	}
	key, ok := lines[0], len(lines) == 1
	if rest, quoted := strings.CutPrefix(key, `"`); quoted {
		key, ok = unquote(rest)
		ok = ok && len(lines) == 1
	} else {
		// A comma is what two headers are joined by.
		ok = ok && !strings.ContainsAny(key, `",\`)
	}
	if !ok || key == "" || len(key) > maxIdempotencyKey || !visibleASCII(key) {
		return "", malformed("Idempotency-Key is one string of 1 to 255 visible ASCII characters")
	}
	return key, nil
}

// unquote reads the rest of a string of RFC 9651 (section 4.2.5), with its last
// quote.
func unquote(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), i == len(s)-1
		case '\\':
			i++
			if i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", false
}

func visibleASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
