package s3

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sidegate/storage/upload"
)

// minioSays is MinIO's answer to a signed request with these headers: it takes
// each signed header from the request, else from the query, and signs.
// https://github.com/minio/minio/blob/master/cmd/signature-v4-utils.go (extractSignedHeaders)
func minioSays(t *testing.T, b *Bucket, s upload.Signed, size int64, more http.Header) int {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	sent := s.Headers.Clone()
	for name, values := range more {
		sent[name] = values
	}
	q := u.Query()
	r := request{method: s.Method, key: strings.TrimPrefix(u.Path, "/photos/"), header: http.Header{}, size: size}
	for name := range strings.SplitSeq(q.Get("X-Amz-SignedHeaders"), ";") {
		key := http.CanonicalHeaderKey(name)
		switch values, ok := sent[key]; {
		case name == "host" || name == "content-length":
		case ok:
			r.header[key] = values
		case q.Has(name):
			r.header[key] = q[name]
		default:
			return http.StatusForbidden
		}
	}
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		if !strings.HasPrefix(pair, "X-Amz-") {
			r.query += "&" + pair
		}
	}
	creds, err := b.credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if byTheSDK(t, b, creds, clock, time.Minute, r) != s.URL {
		return http.StatusForbidden
	}
	return http.StatusOK
}

// MinIO obeys headers that nobody signed. Those that would make a copy of
// another's object of an upload, or what can be neither looked at nor deleted,
// are signed as empty.
func TestMinIOObeysNoUnsignedHeader(t *testing.T) {
	b := open(t, Options{Store: "minio", Endpoint: "http://minio.test:9000", PathStyle: true})
	const size = 5
	put, err := b.SignPut(t.Context(), upload.Put{Key: "k", ContentType: "a/b", Size: size, Expires: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	calls, err := b.SignMultipart(t.Context(), []upload.MultipartCall{
		{Op: upload.UploadPart, UploadID: "id", Part: 1, Put: upload.Put{Key: "k", Size: size, Expires: time.Minute}},
		{Op: upload.CreateUpload, Put: upload.Put{Key: "k", ContentType: "a/b", Expires: time.Minute}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		signed upload.Signed
		size   int64
	}{{"put", put, size}, {"part", calls[0], size}, {"create", calls[1], 0}} {
		if got := minioSays(t, b, c.signed, c.size, nil); got != http.StatusOK {
			t.Errorf("%s: %d: %s", c.name, got, c.signed.URL)
		}
		for header, value := range map[string]string{
			"X-Amz-Copy-Source": "/photos/users/another/secret", "X-Amz-Object-Lock-Mode": "COMPLIANCE",
			"X-Amz-Object-Lock-Legal-Hold": "ON", "X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256",
		} {
			if got := minioSays(t, b, c.signed, c.size, http.Header{header: {value}}); got != http.StatusForbidden {
				t.Errorf("%s with %s: %d", c.name, header, got)
			}
			if c.signed.Headers.Get(header) != "" || len(c.signed.Headers[header]) != 0 {
				t.Errorf("%s: clients are to send %s", c.name, header)
			}
		}
	}
}
