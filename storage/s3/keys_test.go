package s3

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"sidegate/storage/upload"
)

// hostileKeys are what was used against gateways of this kind: dot segments,
// empty segments, controls, what turns text around, other forms of Unicode,
// what URLs give a meaning to.
var hostileKeys = []string{
	"users/u1/../u2/x", "users/u1/..", "..", ".", "users/./u1", "users//u1", "/users/u1", "users/u1/", "//evil.test/x", "users/u1/%2e%2e/u2", "users/u1/%2E%2E%2Fu2",
	"users/u1/..%2fu2", "users/u1/.%2e/u2", `users\u1\..\u2`, `users/u1/..\u2`, "users/u1/..;/u2", "users/u1/a\x00", "users/u1/a\r\nx-amz-acl: public-read", "users/u1/\tx",
	"users/u1/a\x7f", "users/u1/\u0085", "users/u1/\u2028", "users/u1/\u202egpj.exe", "users/u1/\u2066x", "users/u1/\u200f", "users/u1/e\u0301", "users/u1/\u212b",
	"users/u1/\xff", "users/u1/\xc0\xae\xc0\xae", "users/u1/\xed\xa0\x80", strings.Repeat("k", 1024), strings.Repeat("k", 1025), strings.Repeat("é", 513),
	"users/u1/x?uploadId=1", "users/u1/x?X-Amz-Expires=604800", "users/u1/x#fragment", "users/u1/a%2Fb", "users/u1/%", "users/u1/%zz", "users/u1/🙂.jpg", "users/u1/a+b c&d=e;f",
	"users/u1/@evil.test", "http://evil.test/x", "users/u1/${filename}", "users/u1/<script>", "users/u1/'\"", "users/u1/soap", "...", "users/u1/...", " ", "users/u1/ ", "users/u1/~",
}

// signers are every way to have a key signed.
var signers = map[string]func(context.Context, *Bucket, string) ([]upload.Signed, error){
	"put": func(ctx context.Context, b *Bucket, key string) ([]upload.Signed, error) {
		s, err := b.SignPut(ctx, upload.Put{Key: key, ContentType: "a/b", Size: 1, Expires: time.Minute})
		return []upload.Signed{s}, err
	},
	"get": func(ctx context.Context, b *Bucket, key string) ([]upload.Signed, error) {
		s, err := b.SignGet(ctx, upload.Get{Key: key, Expires: time.Minute})
		return []upload.Signed{s}, err
	},
	"multipart": func(ctx context.Context, b *Bucket, key string) ([]upload.Signed, error) {
		put := upload.Put{Key: key, ContentType: "a/b", Size: 1, Expires: time.Minute}
		return b.SignMultipart(ctx, []upload.MultipartCall{
			{Op: upload.CreateUpload, Put: put}, {Op: upload.UploadPart, UploadID: "id", Part: 1, Put: put}, {Op: upload.ListParts, UploadID: "id", Put: put},
			{Op: upload.CompleteUpload, UploadID: "id", Put: put}, {Op: upload.AbortUpload, UploadID: "id", Put: put},
		})
	},
}

// signsExactly: the key is refused, or every URL is for it, byte for byte, at
// this host and in this bucket, whoever reads the URL.
func signsExactly(t *testing.T, b *Bucket, prefix, key string) {
	t.Helper()
	for name, sign := range signers {
		signed, err := sign(t.Context(), b, key)
		var invalid *upload.InvalidError
		if err != nil {
			if !errors.As(err, &invalid) || invalid.Field != "key" || len(signed) > 0 && signed[0].URL != "" {
				t.Errorf("%s: %q: %v", name, key, err)
			}
			continue
		}
		for _, s := range signed {
			rest, ok := strings.CutPrefix(s.URL, prefix)
			raw, query, _ := strings.Cut(rest, "?")
			path, err := url.PathUnescape(raw)
			if !ok || err != nil || path != key || strings.ContainsFunc(s.URL, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' || r == '\\' }) {
				t.Errorf("%s: %q is signed as %s", name, key, s.URL)
			}
			for segment := range strings.SplitSeq(raw, "/") {
				// WHATWG URL takes these for dot segments, escaped or not.
				if dots := strings.ReplaceAll(strings.ToLower(segment), "%2e", "."); dots == "." || dots == ".." || dots == "" {
					t.Errorf("%s: %q is signed as %s", name, key, s.URL)
				}
			}
			values, err := url.ParseQuery(query)
			if err != nil || values.Get("X-Amz-Expires") != "60" || len(values["X-Amz-Signature"]) != 1 || len(values["uploadId"]) > 1 || values.Get("uploadId") != "" && values.Get("uploadId") != "id" {
				t.Errorf("%s: %q: the query is %s", name, key, query)
			}
		}
	}
	form, err := b.SignPut(t.Context(), upload.Put{Key: key, ContentType: "a/b", Size: 1, Form: true, Expires: time.Minute})
	if err == nil && (form.Fields["key"] != key || form.URL != prefix || strings.Contains(key, "${")) {
		t.Errorf("form: %q is signed as %q at %s", key, form.Fields["key"], form.URL)
	}
}

func TestHostileKeys(t *testing.T) {
	virtual, byPath := open(t, Options{}), open(t, Options{Endpoint: "http://127.0.0.1:9000"})
	for _, key := range append(hostileKeys, awkwardKeys...) {
		signsExactly(t, virtual, "https://photos.s3.eu-central-1.amazonaws.com/", key)
		signsExactly(t, byPath, "http://127.0.0.1:9000/photos/", key)
	}
}

func FuzzSignedKeys(f *testing.F) {
	for _, key := range append(hostileKeys, awkwardKeys...) {
		f.Add(key)
	}
	b := open(f, Options{Endpoint: "http://127.0.0.1:9000"})
	f.Fuzz(func(t *testing.T, key string) { signsExactly(t, b, "http://127.0.0.1:9000/photos/", key) })
}

// The upload id of a call is one parameter, whatever is in it: it comes from a
// store, or from a client.
func FuzzSignedUploadID(f *testing.F) {
	for _, id := range []string{"id", awkwardID, "a&partNumber=2", "a#b", "a%26b", "a;b", "\x00", "../x", "a&uploadId=b", ""} {
		f.Add(id, 1)
	}
	b := open(f, Options{})
	f.Fuzz(func(t *testing.T, id string, part int) {
		got, err := b.SignMultipart(t.Context(), []upload.MultipartCall{{Op: upload.UploadPart, UploadID: id, Part: part, Put: upload.Put{Key: "k", Size: 1, Expires: time.Minute}}})
		if err != nil {
			return
		}
		u, err := url.Parse(got[0].URL)
		if err != nil {
			t.Fatal(err)
		}
		q, err := url.ParseQuery(u.RawQuery)
		if err != nil || u.Path != "/k" || len(q["uploadId"]) != 1 || q.Get("uploadId") != id || len(q["partNumber"]) != 1 || part < 1 || part > maxParts || len(q) != 9 {
			t.Fatalf("%q %d: %s", id, part, got[0].URL)
		}
	})
}

// Browsers write a host in small letters, in the Host header that is signed too.
func TestHostsAsBrowsersSendThem(t *testing.T) {
	b := open(t, Options{Endpoint: "https://MinIO.Acme.test:9000"})
	put, err := b.SignPut(t.Context(), upload.Put{Key: "K", ContentType: "a/b", Size: 1, Expires: time.Minute})
	if err != nil || !strings.HasPrefix(put.URL, "https://photos.minio.acme.test:9000/K?") || b.public.signed != "photos.minio.acme.test:9000" {
		t.Errorf("%s, signed for %s, %v", put.URL, b.public.signed, err)
	}
}
