package proxy

import "strings"

// headerValue writes a value so that two different ones never give the same
// header: every byte outside %x21-7E, and `%` itself, is percent-encoded. In a
// list the comma is, too.
func headerValue(s string, list bool) string {
	extra := 0
	for i := range len(s) {
		if mustEncode(s[i], list) {
			extra += 2
		}
	}
	if extra == 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + extra)
	for i := range len(s) {
		if c := s[i]; mustEncode(c, list) {
			b.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func mustEncode(c byte, list bool) bool {
	return c < 0x21 || c > 0x7e || c == '%' || (list && c == ',')
}

// headerList writes values as one header, separated by commas.
func headerList(values []string) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = headerValue(v, true)
	}
	return strings.Join(out, ",")
}
