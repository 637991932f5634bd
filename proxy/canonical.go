package proxy

import (
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"

	"sidegate/policy"
)

// Bounds of a request's target.
const (
	maxPath       = 4 << 10 // decoded, in bytes
	maxQueryParts = 1000    // net/url drops what lies beyond 10,000, unseen
)

// A target is what a request asks for, in one form: what routes match, the
// audit log records and the upstream gets are the same bytes.
type target struct {
	host     string // lower case, without port and final dot
	hostPort string // the same with the port as it came, for the upstream
	path     string // decoded once
	escaped  string // path encoded again: decoding it gives path
	query    string // byte for byte
	// encodedSlash: the path came with a %2F, which is a slash now.
	encodedSlash bool
}

// canonicalise reads a request's target or refuses it: it never repairs and
// never redirects. The error is for the caller and holds nothing of the target.
//
// host is net/http's Request.Host, which for a target in absolute form is the
// target's own authority; a Host header beside it was discarded there, as
// RFC 9112, section 3.2.2, demands, and reaches nobody.
func canonicalise(method, requestURI, host string) (target, error) {
	var t target
	if !policy.KnownMethod(method) {
		return t, errors.New("the method is not one that this gateway knows")
	}
	path, authority, err := originForm(requestURI)
	if err != nil {
		return t, err
	}
	if authority != "" && authority != host {
		return t, errors.New("the target's host is malformed") // net/url decoded it
	}
	path, query, _ := strings.Cut(path, "?")
	if t.host, t.hostPort, err = canonicalHost(host); err != nil {
		return t, err
	}
	if t.path, t.encodedSlash, err = decodePath(path); err != nil {
		return t, err
	}
	if err := checkPath(t.path); err != nil {
		return t, err
	}
	if err := checkQuery(query); err != nil {
		return t, err
	}
	t.query = query
	t.escaped = encodePath(t.path)
	return t, nil
}

// originForm cuts scheme and authority from a target in absolute form.
func originForm(uri string) (path, authority string, err error) {
	if strings.HasPrefix(uri, "/") {
		return uri, "", nil
	}
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok || (!strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https")) {
		return "", "", errors.New("the target is neither a path nor an http URL")
	}
	i := strings.IndexAny(rest, "/?#")
	if i < 0 || rest[i] != '/' {
		return "", "", errors.New("the target has no path")
	}
	authority = rest[:i]
	switch {
	case authority == "":
		return "", "", errors.New("the target has no host")
	case strings.Contains(authority, "@"):
		return "", "", errors.New("the target holds user information")
	}
	return rest[i:], authority, nil
}

var errHost = errors.New("the host is malformed")

// canonicalHost gives the host in lower case without its final dot, alone and
// with its port.
func canonicalHost(raw string) (host, hostPort string, err error) {
	if len(raw) > 260 {
		return "", "", errHost
	}
	for i := range len(raw) {
		if raw[i] >= 0x80 { // before ToLower: it makes of a Kelvin sign a k
			return "", "", errHost
		}
	}
	raw = strings.ToLower(raw)
	host, port := raw, ""
	if strings.HasPrefix(raw, "[") {
		end := strings.IndexByte(raw, ']')
		if end < 0 {
			return "", "", errHost
		}
		host, port = raw[:end+1], raw[end+1:]
		// One address has many spellings; a route's host is the shortest.
		if a, err := netip.ParseAddr(host[1:end]); err != nil || !a.Is6() || a.Zone() != "" || a.String() != host[1:end] {
			return "", "", errHost
		}
	} else {
		if i := strings.IndexByte(raw, ':'); i >= 0 {
			host, port = raw[:i], raw[i:]
		}
		if strings.Contains(host, "..") {
			return "", "", errHost
		}
		host = strings.TrimSuffix(host, ".")
		for i := range len(host) {
			c := host[i]
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_') {
				return "", "", errHost
			}
		}
		if strings.HasPrefix(host, ".") || host == "" { // HTTP/1.0 may lack one; no route should hang on that
			return "", "", errHost
		}
	}
	if port != "" {
		if len(port) > 6 || port[0] != ':' || strings.Trim(port[1:], "0123456789") != "" {
			return "", "", errHost
		}
		if port == ":" {
			port = ""
		}
	}
	if len(host)+len(port) == len(raw) {
		return host, raw, nil
	}
	return host, host + port, nil
}

// decodePath undoes percent-encoding once. What comes as bytes beyond ASCII's
// printable ones is refused: a target has none (RFC 9112, section 3.2).
func decodePath(raw string) (path string, slash bool, err error) {
	if len(raw) > 3*maxPath {
		return "", false, errPathLong
	}
	plain := true
	for i := range len(raw) {
		c := raw[i]
		if c <= ' ' || c >= 0x7f {
			return "", false, errors.New("the path holds bytes that must be percent-encoded")
		}
		if c == '%' {
			plain = false
		}
	}
	if plain {
		return raw, false, nil
	}
	buf := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			if i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
				return "", false, errors.New("the path holds a broken percent-encoding")
			}
			c = unhex(raw[i+1])<<4 | unhex(raw[i+2])
			slash = slash || c == '/'
			i += 2
		}
		buf = append(buf, c)
	}
	return string(buf), slash, nil
}

var errPathLong = errors.New("the path is longer than 4 KiB")

// checkPath refuses a decoded path that two readers could take for different
// ones: one that merges slashes, resolves dots, decodes again, cuts parameters,
// or takes a backslash for a slash.
func checkPath(path string) error {
	if len(path) > maxPath {
		return errPathLong
	}
	if !utf8.ValidString(path) {
		return errors.New("the path is not UTF-8")
	}
	for i, r := range path {
		switch {
		case r < 0x20 || r >= 0x7f && r < 0xa0:
			return errors.New("the path holds a control character")
		case r == '\\' || r == ';' || r == '?' || r == '#':
			return errors.New("the path holds one of \\ ; ? #")
		case r == '%' && decodable(path[i+1:]):
			return errors.New("the path is encoded twice")
		}
	}
	for rest, more := path[1:], true; more; {
		var seg string
		seg, rest, more = strings.Cut(rest, "/")
		if seg == "." || seg == ".." {
			return errors.New("the path holds a dot segment")
		}
		if seg == "" && (more || len(path) > 1 && path[len(path)-1] != '/') {
			return errors.New("the path holds an empty segment")
		}
	}
	return nil
}

// decodable reports whether what follows a percent sign would be decoded by a
// reader that decodes again: XX, or uXXXX as some servers take it.
func decodable(s string) bool {
	if len(s) >= 2 && isHex(s[0]) && isHex(s[1]) {
		return true
	}
	return len(s) >= 5 && (s[0] == 'u' || s[0] == 'U') && isHex(s[1]) && isHex(s[2]) && isHex(s[3]) && isHex(s[4])
}

// checkQuery refuses what httputil.ReverseProxy would change, so that all
// else passes byte for byte.
func checkQuery(query string) error {
	if query == "" {
		return nil
	}
	if strings.Count(query, "&") >= maxQueryParts {
		return errors.New("the query has more than 1000 parameters")
	}
	for i := 0; i < len(query); i++ {
		switch c := query[i]; {
		case c <= ' ' || c >= 0x7f:
			return errors.New("the query holds bytes that must be percent-encoded")
		case c == ';' || c == '#':
			return errors.New("the query holds one of ; #")
		case c == '%':
			if i+2 >= len(query) || !isHex(query[i+1]) || !isHex(query[i+2]) {
				return errors.New("the query holds a broken percent-encoding")
			}
			i += 2
		}
	}
	return nil
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}

const upperHex = "0123456789ABCDEF"

// literal are the bytes of a path that stand for themselves: unreserved,
// sub-delims, and : @ / (RFC 3986, section 3.3).
var literal = func() (t [256]bool) {
	for c := range 256 {
		b := byte(c)
		t[c] = b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' ||
			strings.IndexByte("-._~!$&'()*+,;=:@/", b) >= 0
	}
	return t
}()

func encodePath(path string) string {
	extra := 0
	for i := range len(path) {
		if !literal[path[i]] {
			extra += 2
		}
	}
	if extra == 0 {
		return path
	}
	buf := make([]byte, 0, len(path)+extra)
	for i := range len(path) {
		if c := path[i]; literal[c] {
			buf = append(buf, c)
		} else {
			buf = append(buf, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(buf)
}

// queryKeys are the names in a query, never values: for the audit log. They are
// put into out, which is empty.
func queryKeys(out []string, query string) []string {
	if query == "" {
		return nil
	}
	for rest, more := query, true; more && len(out) < 32; {
		var part string
		part, rest, more = strings.Cut(rest, "&")
		name, _, ok := strings.Cut(part, "=")
		if !ok {
			continue // a value, for all we know
		}
		if decoded, _, err := decodePath(name); err == nil {
			name = decoded
		}
		if name == "" || len(name) > 64 {
			continue
		}
		known := false
		for _, o := range out {
			known = known || o == name
		}
		if !known {
			out = append(out, name)
		}
	}
	return out
}
