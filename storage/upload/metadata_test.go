package upload

import (
	"mime"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestRequestChecksSumsAndMetadata(t *testing.T) {
	for _, c := range []struct {
		field string // empty: passes
		edit  func(*Request)
	}{
		{"", func(r *Request) { r.Checksum64 = "rosUhgp5mIg=" }},
		{"checksumCrc64nvme", func(r *Request) { r.Checksum64 = "rosUhgp5mIg" }},
		{"checksumCrc64nvme", func(r *Request) { r.Checksum64 = "rosUhgp5mIh=" }},
		{"checksumCrc64nvme", func(r *Request) { r.Checksum64 = "rosUhgp5mIg=\n" }},
		{"checksumCrc64nvme", func(r *Request) { r.Checksum64 = "AAAA" }},
		{"checksumCrc64nvme", func(r *Request) { r.Size, r.Checksum64 = 0, "rosUhgp5mIg=" }},
		{"", func(r *Request) { r.Size, r.Checksum64 = 0, "AAAAAAAAAAA=" }},
		{"size", func(r *Request) { r.Size = 5<<30 + 1 }},
		{"size", func(r *Request) { r.MaxBytes = 4 }},
		{"", func(r *Request) { r.MaxBytes = 5 }},
		{"", func(r *Request) {
			r.Metadata = map[string]string{"name": "a b.jpg", "x-1": "", "t": "=?UTF-8?B?w6k=?="}
		}},
		{"metadata", func(r *Request) { r.Metadata = map[string]string{"": "a"} }},
		{"metadata", func(r *Request) { r.Metadata = map[string]string{"Name": "a"} }},
		{"metadata", func(r *Request) { r.Metadata = map[string]string{"na me": "a"} }},
		{"metadata", func(r *Request) { r.Metadata = map[string]string{"a\r\nx-amz-acl": "a"} }},
		{"metadata", func(r *Request) { r.Metadata = map[string]string{strings.Repeat("n", 129): "a"} }},
		{"metadata", func(r *Request) { r.Metadata = map[string]string{"a": "b\r\nx-amz-acl: public-read"} }},
		{"metadata", func(r *Request) { r.Metadata = map[string]string{"a": "é"} }},
		{"metadata", func(r *Request) { r.Metadata = map[string]string{"a": " b"} }},
		{"metadata", func(r *Request) { r.Metadata = map[string]string{"a": strings.Repeat("b", 2048)} }},
		{"", func(r *Request) { r.Metadata = map[string]string{"a": strings.Repeat("b", 2047)} }},
	} {
		f, r := newEmpty(t), owned(jpeg())
		c.edit(&r)
		_, _, err := f.Begin(t.Context(), r)
		if invalidField(err) != c.field || (err == nil) != (c.field == "") {
			t.Errorf("%+v: %v, want %q", r, err, c.field)
		}
		if err == nil {
			p := f.bucket.puts[0]
			if p.Checksum64 != r.Checksum64 || len(p.Metadata) != len(r.Metadata) {
				t.Errorf("signed %+v of %+v", p, r)
			}
		}
	}
	f, r := newEmpty(t), video()
	r.Size, r.MaxBytes = 10_000*(5<<30)+1, 0
	if _, err := f.BeginMultipart(t.Context(), r); invalidField(err) != "size" {
		t.Error(err)
	}
	r.Size--
	if _, err := f.BeginMultipart(t.Context(), r); err != nil {
		t.Error(err)
	}
}

// The bytes of CRC-64/NVME are compared as those of SHA-256 are: a store that
// does not say them vouches for nothing.
func TestConfirmCRC64(t *testing.T) {
	for stored, want := range map[string]Status{"rosUhgp5mIg=": Ready, "AAAAAAAAAAA=": Rejected, "": Rejected} {
		f, r := newEmpty(t), owned(jpeg())
		r.Checksum64 = "rosUhgp5mIg="
		s := f.begin(t, r)
		f.bucket.put(r.Key, Object{Size: 5, ContentType: "image/jpeg", Checksum64: stored}, false)
		got, err := f.Confirm(t.Context(), s)
		if got.Status != want || (err == nil) != (want == Ready) {
			t.Errorf("%q: %+v, %v", stored, got, err)
		}
		if want == Rejected && !strings.HasPrefix(got.Reason, "checksumCrc64nvme: ") {
			t.Errorf("%q: %s", stored, got.Reason)
		}
	}
}

// A form whose size is not bound has its bound, and what landed is held to it.
func TestForms(t *testing.T) {
	for size, want := range map[int64]Status{0: Ready, 100: Ready, 101: Rejected} {
		f, r := newEmpty(t), owned(jpeg())
		r.Form, r.Size, r.MaxBytes = true, -1, 100
		s := f.begin(t, r)
		if p := f.bucket.puts[0]; !p.Form || p.Size != -1 || p.MaxSize != 100 {
			t.Errorf("signed %+v", p)
		}
		f.bucket.put(r.Key, Object{Size: size, ContentType: "image/jpeg"}, false)
		if got, _ := f.Confirm(t.Context(), s); got.Status != want {
			t.Errorf("%d bytes: %+v", size, got)
		}
	}
}

func TestInertType(t *testing.T) {
	for key, want := range map[string]string{
		"a.html": "application/octet-stream", "a.SVG": "application/octet-stream", "u/a.b.Xml": "application/octet-stream", "a.mjs": "application/octet-stream",
		".html": "application/octet-stream", "a.html ": "application/octet-stream",
		"a.jpg": "", "html": "", "a.html/b.pdf": "", "a.html.txt": "",
	} {
		if got := inertType(key); got != want {
			t.Errorf("%q: %q", key, got)
		}
	}
}

// Whatever the value, what is sent is one line that signatures keep, and says
// the same.
func FuzzEncodeMetadata(f *testing.F) {
	for _, v := range []string{"", "a b", " a", "a  b", "é", "日本/🙂.jpg", "a\r\nb: c", "=?UTF-8?B?w6k=?=", "\xff", strings.Repeat("ü", 200)} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got := EncodeMetadata(value)
		if !headerText(got) {
			t.Fatalf("%q: %q", value, got)
		}
		for word := range strings.SplitSeq(got, " ") {
			if strings.HasPrefix(word, "=?") && len(word) > 75 {
				t.Fatalf("%q: the word %q is too long", value, word)
			}
		}
		back, err := new(mime.WordDecoder).DecodeHeader(got)
		if err != nil || utf8.ValidString(value) && back != value {
			t.Fatalf("%q: %q, which says %q, %v", value, got, back, err)
		}
	})
}
