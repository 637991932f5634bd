package upload

import (
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCheckKey(t *testing.T) {
	good := []string{
		"a", "users/u1/uploads/0f.jpg", "a b", "...", "a/..b/c", "a/%2e%2e/b", "日本/🙂", "caf\u00e9", "a+b&c=d;e~!*'()", "?#",
		strings.Repeat("k", 1024),
	}
	bad := []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/./b", "a/../b", "users/u1/..", `a\b`, `..\..`,
		"a\x00", "a\nb", "a\rb", "a\tb", "a\x7f", "a\u0085", "a\u2028", "a\u2029", "a\u202egpj.exe", "a\u2066", "a\u200f", "a\u061c",
		"\xff", "a\xc0\xaf", "\xed\xa0\x80", "cafe\u0301", "\u212b", strings.Repeat("k", 1025), strings.Repeat("é", 513),
	}
	for _, k := range good {
		if err := CheckKey(k); err != nil {
			t.Errorf("%q: %v", k, err)
		}
	}
	for _, k := range bad {
		if CheckKey(k) == nil {
			t.Errorf("%q passes", k)
		}
	}
}

// A key that passes reaches the store as it was signed, whatever lies between
// normalises paths once, and stays under its prefix.
func FuzzCheckKey(f *testing.F) {
	for _, k := range []string{"a/b", "a/../b", "a/%2e%2e/b", "..", "a//b", `a\..\b`, "a/.\u202e./b", "é/\u0301", "a/..;/b", "a%2fb", "a?b#c"} {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if CheckKey(key) != nil {
			return
		}
		if len(key) == 0 || len(key) > 1024 || !utf8.ValidString(key) {
			t.Fatalf("%q passes", key)
		}
		if path.Clean("/users/u1/"+key) != "/users/u1/"+key {
			t.Fatalf("%q: cleaned to %q", key, path.Clean("/users/u1/"+key))
		}
		signed := (&url.URL{Scheme: "https", Host: "store.test", Path: "/bucket/" + key}).String()
		if got := whatwg(strings.TrimPrefix(signed, "https://store.test")); got != "/bucket/"+key {
			t.Fatalf("%q: a browser asks for %q", key, got)
		}
	})
}

// whatwg is the path state of the WHATWG URL parser for a special scheme, and
// the decoded path that comes out. https://url.spec.whatwg.org/#path-state
func whatwg(target string) string {
	target = strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(strings.TrimFunc(target, func(r rune) bool { return r <= ' ' }))
	if i := strings.IndexAny(target, "?#"); i >= 0 {
		target = target[:i]
	}
	var out []string
	segments := strings.Split(strings.ReplaceAll(target, `\`, "/"), "/")[1:]
	for i, s := range segments {
		last := i == len(segments)-1
		switch strings.ReplaceAll(strings.ToLower(s), "%2e", ".") {
		case "..":
			out = out[:max(len(out)-1, 0)]
			if last {
				out = append(out, "")
			}
		case ".":
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	decoded, err := url.PathUnescape("/" + strings.Join(out, "/"))
	if err != nil {
		return err.Error()
	}
	return decoded
}
