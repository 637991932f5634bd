package upload

import (
	"mime"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDisposition(t *testing.T) {
	for _, c := range []struct {
		d         Disposition
		key, want string
	}{
		{Attachment, "users/u1/a.jpg", `attachment; filename="a.jpg"; filename*=UTF-8''a.jpg`},
		{Inline, "a b.pdf", `inline; filename="a b.pdf"; filename*=UTF-8''a%20b.pdf`},
		{Attachment, "x/naïve 日.txt", `attachment; filename="na_ve _.txt"; filename*=UTF-8''na%C3%AFve%20%E6%97%A5.txt`},
		{Attachment, `x/a"; filename=evil.exe`, `attachment; filename="a_; filename=evil.exe"; filename*=UTF-8''a%22%3B%20filename%3Devil.exe`},
		{Attachment, `x/50%41.txt`, `attachment; filename="50_41.txt"; filename*=UTF-8''50%2541.txt`},
		{Attachment, "x/it's", `attachment; filename="it's"; filename*=UTF-8''it%27s`},
		{Attachment, "x/", `attachment`},
		{Disposition(9), "a", `attachment; filename="a"; filename*=UTF-8''a`},
	} {
		if got := c.d.header(c.key); got != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.key, got, c.want)
		}
	}
}

// Header injection: whatever the key is, the value is one line, one type, two
// parameters, and the name they hold has no path.
func FuzzDisposition(f *testing.F) {
	for _, k := range []string{"a/b.jpg", "a\"\r\nSet-Cookie: x=y", `..\..\x`, "\u202egpj.exe", "'\"%22;", "\xff", strings.Repeat("é", 300), "x/~"} {
		f.Add(k, true)
	}
	f.Fuzz(func(t *testing.T, key string, inline bool) {
		d, want := Attachment, "attachment"
		if inline {
			d, want = Inline, "inline"
		}
		v := d.header(key)
		for i := range len(v) {
			if v[i] < ' ' || v[i] > '~' {
				t.Fatalf("%q: byte %q in %s", key, v[i], v)
			}
		}
		if !strings.Contains(v, ";") {
			return
		}
		plain, rest, ok := strings.Cut(strings.TrimPrefix(v, want+`; filename="`), `"; filename*=UTF-8''`)
		if !ok || strings.ContainsAny(plain, `"\`) || strings.ContainsAny(rest, `"; '`) {
			t.Fatalf("%q: %s", key, v)
		}
		got, params, err := mime.ParseMediaType(want + "; filename*=UTF-8''" + rest)
		if err != nil || got != want || len(params) != 1 {
			t.Fatalf("%q: %s: %v", key, v, err)
		}
		name := params["filename"]
		if !utf8.ValidString(name) || strings.ContainsAny(name, `/\`) || len(name) > maxFilename || strings.ContainsFunc(name, misleading) {
			t.Fatalf("%q: names the file %q", key, name)
		}
	})
}
