package proxy

import (
	"net/http"
	"strings"
	"testing"
)

// targets are what strangers send, and whether it passes; want is the
// canonical path of those that do.
var targets = []struct {
	target string
	ok     bool
	want   string
}{
	{"/", true, "/"},
	{"/a", true, "/a"},
	{"/a/", true, "/a/"},
	{"/a?x=1&y=%20", true, "/a"},
	{"/a?", true, "/a"},
	{"/%61", true, "/a"},
	{"/a%20b", true, "/a b"},
	{"/%C3%BC", true, "/ü"},
	{"/%c3%bc", true, "/ü"},
	{"/a+b", true, "/a+b"},
	{"/a@b:c,d=e!$&'()*~", true, "/a@b:c,d=e!$&'()*~"},
	{"/a%25", true, "/a%"},
	{"/a%25zz", true, "/a%zz"},
	{"/...", true, "/..."},
	{"/..a", true, "/..a"},
	{"/a%2Fb", true, "/a/b"}, // refused later, by the route
	{"/[a]|{b}", true, "/[a]|{b}"},
	{"http://gateway.test/a?b", true, "/a"},
	{"HTTPS://gateway.test/a", true, "/a"},

	{"", false, ""},
	{"*", false, ""},
	{"a", false, ""},
	{"//a", false, ""},
	{"/a//b", false, ""},
	{"/a//", false, ""},
	{"/%2F", false, ""},
	{"/a/%2fb", false, ""},
	{"/.", false, ""},
	{"/..", false, ""},
	{"/a/../b", false, ""},
	{"/a/./b", false, ""},
	{"/a/%2e%2e/b", false, ""},
	{"/a/.%2E", false, ""},
	{"/a%2F..%2Fb", false, ""},
	{"/a/..%5cb", false, ""},
	{`/a\b`, false, ""},
	{"/a%5Cb", false, ""},
	{"/a;b", false, ""},
	{"/a%3bb", false, ""},
	{"/a/..;/b", false, ""},
	{"/a#b", false, ""},
	{"/a%23b", false, ""},
	{"/a%3Fb", false, ""},
	{"/a?b#c", false, ""},
	{"/a%00", false, ""},
	{"/a%0d%0aX: y", false, ""},
	{"/a%0a", false, ""},
	{"/a%09", false, ""},
	{"/a%7f", false, ""},
	{"/a%c2%85", false, ""}, // C1: next line
	{"/a b", false, ""},
	{"/ü", false, ""},
	{"/\x80", false, ""},
	{"/%80", false, ""},
	{"/%c0%af", false, ""},
	{"/%c0%ae%c0%ae/a", false, ""},
	{"/%ed%a0%80", false, ""},
	{"/%252e%252e/a", false, ""},
	{"/%252Fa", false, ""},
	{"/a%2541", false, ""},
	{"/%25u002f", false, ""},
	{"/%u002f", false, ""},
	{"/%", false, ""},
	{"/%2", false, ""},
	{"/%zz", false, ""},
	{"/" + strings.Repeat("a", maxPath), false, ""},
	{"/a?b;c", false, ""},
	{"/a?%zz", false, ""},
	{"/a?%", false, ""},
	{"/a?\x80", false, ""},
	{"/a?" + strings.Repeat("&", maxQueryParts), false, ""},
	{"http:///a", false, ""},
	{"http://gateway.test", false, ""},
	{"http://gateway.test?a", false, ""},
	{"http://u:p@gateway.test/a", false, ""},
	{"http://other.test/a", false, ""},
	{"http://gateway.test%2f/a", false, ""},
	{"ftp://gateway.test/a", false, ""},
	{"javascript://gateway.test/a", false, ""},
	{"gateway.test:443", false, ""},
}

func TestTargets(t *testing.T) {
	for _, c := range targets {
		got, err := canonicalise("GET", c.target, "gateway.test")
		if (err == nil) != c.ok {
			t.Errorf("%.80q: %v", c.target, err)
			continue
		}
		if c.ok && got.path != c.want {
			t.Errorf("%q gives %q, want %q", c.target, got.path, c.want)
		}
		if err != nil && len(c.target) > 4 && strings.Contains(err.Error(), c.target) {
			t.Errorf("%q: the error repeats the target", c.target)
		}
	}
}

func TestMethods(t *testing.T) {
	for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		if _, err := canonicalise(m, "/", "h"); err != nil {
			t.Error(m, err)
		}
	}
	for _, m := range []string{"", "get", "Get", "CONNECT", "TRACE", "PROPFIND", "PRI", "GET\x00"} {
		if _, err := canonicalise(m, "/", "h"); err == nil {
			t.Errorf("%q passes", m)
		}
	}
}

func TestHosts(t *testing.T) {
	for raw, want := range map[string][2]string{
		"acme.dev":         {"acme.dev", "acme.dev"},
		"ACME.dev.":        {"acme.dev", "acme.dev"},
		"acme.dev:8080":    {"acme.dev", "acme.dev:8080"},
		"acme.dev.:8080":   {"acme.dev", "acme.dev:8080"},
		"acme.dev:":        {"acme.dev", "acme.dev"},
		"my_host":          {"my_host", "my_host"},
		"[::1]:80":         {"[::1]", "[::1]:80"},
		"[::ffff:1.2.3.4]": {"[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"},
	} {
		host, hostPort, err := canonicalHost(raw)
		if err != nil || host != want[0] || hostPort != want[1] {
			t.Errorf("%q gives %q, %q, %v", raw, host, hostPort, err)
		}
	}
	for _, raw := range []string{
		"", ".", "..", "a..", "a..:80", "acme.dev...", "a..b", ".a", "a b", "a/b", `a\b`, "a@b", "a#b", "a?b", "a,b", "a;b", "a%2e", "a:b", "a:123456", "a:80:80",
		"[", "[]", "[0:0::1]", "[::0001]", "[0::0]", "[1.2.3.4]", "[::1", "[::1]x", "[::1%25eth0]", "[fe80::g]", "\x80", "a\x00", "a\r", "ü.dev", "\u212aelvin.dev", "a\u3002b", strings.Repeat("a", 300),
	} {
		if host, _, err := canonicalHost(raw); err == nil {
			t.Errorf("%q passes as %q", raw, host)
		}
	}
}

// lenient reads a target as the most careless server would: it stops at NUL,
// cuts fragment, query and parameters, decodes everything again and again,
// takes a backslash for a slash, merges slashes and resolves dot segments.
func lenient(target string) string {
	for range 3 {
		target = carelessDecode(target)
	}
	for _, end := range []string{"\x00", "#", "?"} {
		target, _, _ = strings.Cut(target, end)
	}
	target = strings.ReplaceAll(target, `\`, "/")
	var out []string
	segments := strings.Split(target, "/")
	for _, s := range segments {
		s, _, _ = strings.Cut(s, ";")
		switch s {
		case "", ".":
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, s)
		}
	}
	path := "/" + strings.Join(out, "/")
	if len(out) > 0 && strings.HasSuffix(target, "/") {
		path += "/"
	}
	return path
}

func carelessDecode(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			b.WriteByte(unhex(s[i+1])<<4 | unhex(s[i+2]))
			i += 2
		case s[i] == '%' && i+5 < len(s) && (s[i+1] == 'u' || s[i+1] == 'U') && isHex(s[i+2]) && isHex(s[i+3]) && isHex(s[i+4]) && isHex(s[i+5]):
			b.WriteRune(rune(unhex(s[i+2]))<<12 | rune(unhex(s[i+3]))<<8 | rune(unhex(s[i+4]))<<4 | rune(unhex(s[i+5])))
			i += 5
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// checkCanonical holds an accepted target against every reading of it.
func checkCanonical(t *testing.T, c target) {
	t.Helper()
	decoded, _, err := decodePath(c.escaped)
	if err != nil || decoded != c.path {
		t.Fatalf("forwarded %q is read as %q (%v), matched was %q", c.escaped, decoded, err, c.path)
	}
	if got := lenient(c.escaped); got != c.path {
		t.Fatalf("forwarded %q is %q to a lenient reader, matched was %q", c.escaped, got, c.path)
	}
	if again, err := canonicalise("GET", c.escaped, "h"); err != nil || again.path != c.path || again.escaped != c.escaped {
		t.Fatalf("%q is not stable: %+v, %v", c.escaped, again, err)
	}
	for i := range len(c.escaped) {
		if b := c.escaped[i]; b <= ' ' || b >= 0x7f || !literal[b] && b != '%' {
			t.Fatalf("forwarded %q holds %q", c.escaped, b)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, c := range targets {
		f.Add("GET", c.target, "gateway.test")
	}
	f.Add("POST", "http://A.b:80/x%2Fy?z", "A.b:80")
	f.Add("GET", "/", "\u212a")
	f.Fuzz(func(t *testing.T, method, uri, host string) {
		c, err := canonicalise(method, uri, host)
		if err != nil {
			return
		}
		checkCanonical(t, c)
		if strings.HasPrefix(uri, "/") && c.query != "" && !strings.HasSuffix(uri, "?"+c.query) {
			t.Fatalf("%q: the query is %q", uri, c.query)
		}
		for i := range len(c.hostPort) {
			if b := c.hostPort[i]; b <= ' ' || b >= 0x7f || b >= 'A' && b <= 'Z' || strings.IndexByte(`/\?#@%,;`, b) >= 0 {
				t.Fatalf("host %q", c.hostPort)
			}
		}
		if host2, hostPort2, err := canonicalHost(c.hostPort); err != nil || host2 != c.host || hostPort2 != c.hostPort || strings.HasSuffix(host2, ".") {
			t.Fatalf("host %q is not stable: %q, %v", c.hostPort, host2, err)
		}
	})
}

// TestTargetsEndToEnd: what the upstream reads on its request line, decoded
// once, is what was matched and audited; the query is the same bytes.
func TestTargetsEndToEnd(t *testing.T) {
	saw := make(chan string, 1)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) { saw <- r.RequestURI })
	g := newGate(t, app)
	for _, query := range []string{"", "?", "?a=b&a=c&d", "?%41=%2f%2F%00&+x", `?"<>'|{}[]^` + "`", "?a=?&/../x", "?%61&=&&==", "?x=//../%252e"} {
		for _, path := range []string{"/slash/a", "/slash/%61/", "/slash/a%2Fb", "/slash/%c3%bc%20%25zz", "/slash/!$&'()*+,=:@~-._", "/slash/[x]|^`{}\"<>", "http://gateway.test/slash/abs"} {
			a := g.send("GET", path+query, "")
			e := g.outcome()
			if a.err != nil || a.StatusCode != 200 {
				t.Fatalf("%s%s: %+v", path, query, a)
			}
			uri := <-saw
			rawPath, rawQuery, has := strings.Cut(uri, "?")
			decoded, _, err := decodePath(rawPath)
			d := g.decision()
			if err != nil || decoded != d.Request.Path || lenient(rawPath) != decoded || e.Record != d.Record {
				t.Errorf("%q: the upstream reads %q, audited is %q", path, decoded, d.Request.Path)
			}
			if has != (query != "") || has && "?"+rawQuery != query {
				t.Errorf("query %q came as %q", query, rawQuery)
			}
		}
	}
	for _, c := range targets {
		if c.ok || strings.ContainsAny(c.target, " ") || c.target == "" || c.target[0] != '/' {
			continue
		}
		a := g.send("GET", "/public"+c.target, "")
		if a.err != nil || a.StatusCode != 400 {
			t.Errorf("%.80q: %+v", c.target, a.Response)
		}
	}
	select {
	case uri := <-saw:
		t.Errorf("%q reached the upstream", uri)
	default:
	}
}

func TestAuditPathOfRefusedTargets(t *testing.T) {
	g := newGate(t, newApp(t, func(http.ResponseWriter, *http.Request) {}))
	for line, want := range map[string]string{
		"GET /a/../b?token=s HTTP/1.1\r\nHost: h\r\n\r\n":          "/a/../b",
		"GET http://u:p@h/a?token=s HTTP/1.1\r\nHost: h\r\n\r\n":   "/a",
		"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n":            "",
		"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n":                    "*",
		"GET http://h?token=s HTTP/1.1\r\nHost: h\r\n\r\n":         "",
		"GET http://%E2%84%AA.test/a HTTP/1.1\r\nHost: h\r\n\r\n":  "/a",
		"GET http://\u212a.test/a HTTP/1.1\r\nHost: h\r\n\r\n":     "/a",
		"GET /a HTTP/1.1\r\nHost: a..b\r\n\r\n":                    "/a",
		"GET http://gate%77ay.test/a HTTP/1.1\r\nHost: h\r\n\r\n":  "",
		"GET /public/a HTTP/1.1\r\nHost: h\r\nHost: other\r\n\r\n": "",
	} {
		a := g.raw(line)
		if a.err != nil || a.StatusCode != 400 {
			t.Errorf("%q: %+v", line, a.Response)
			continue
		}
		if a.Header.Get("X-Sidegate-Response") == "" {
			continue // net/http's own 400: nothing was handed over
		}
		g.outcome()
		if d := g.decision(); d.Request.Path != want || d.Decision.Code != codeBadTarget {
			t.Errorf("%q is audited as %q, %s", line, d.Request.Path, d.Decision.Code)
		}
	}
}
