package proxy

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sidegate/policy"
	"sidegate/storage/s3"
	"sidegate/storage/upload"
)

const stagePresign = `version: sidegate-policy/v1
name: bench
identities: [users]
claims: {roles: list(string)}
routes:
  - id: presign
    path: /v1/uploads/presign
    methods: [POST]
    serve: presign_upload
    allow: [{id: user, who: [users], roles: [writer]}]
    object: {key: "users/${auth.uid}/uploads/${uuid}${ext}", content_types: [image/jpeg], max_bytes: 25MiB}
`

// unstored takes every session and keeps none: what a store costs is its own
// benchmark.
type unstored struct{ upload.Store }

func (unstored) Create(context.Context, *upload.Session, *upload.Quota) error { return nil }

func presignGate(tb testing.TB) *Proxy {
	bucket, err := s3.Open(tb.Context(), s3.Options{Bucket: "photos", Region: "eu-central-1", AccessKey: "AKIDEXAMPLE", SecretKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"})
	if err != nil {
		tb.Fatal(err)
	}
	p, err := New(Options{
		Name: "bench", Policy: loadPolicy(tb, stagePresign), Authenticator: someone{keptUser()}, Recorder: nowhere{},
		Uploads:     &upload.Uploads{Store: unstored{}, Buckets: map[string]upload.Bucket{"default": bucket}, Now: time.Now},
		IdleTimeout: time.Minute, Log: zerolog.New(io.Discard), Metrics: prometheus.NewRegistry(), Now: time.Now,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// A presignCall is one that can be served again and again.
type presignCall struct {
	body bytes.Reader
	r    *http.Request
	w    statusOnly
}

func newPresignCall(token string) *presignCall {
	c := &presignCall{w: statusOnly{discarded: discarded{http.Header{}}}}
	c.r = httptest.NewRequest("POST", "/v1/uploads/presign", nil)
	c.r.RequestURI = "/v1/uploads/presign"
	c.r.Header = http.Header{"Authorization": {"Bearer " + token}, "User-Agent": {"bench"}, "Accept": {"*/*"}, "Content-Type": {"application/json"}}
	return c
}

func (c *presignCall) serve(tb testing.TB, h http.Handler) {
	clear(c.w.header)
	c.body.Reset([]byte(`{"contentType": "image/jpeg", "fileExt": "jpg", "size": 1048576}`))
	c.r.Body = io.NopCloser(&c.body)
	c.r.ContentLength = c.body.Size()
	if h.ServeHTTP(&c.w, c.r); c.w.status != http.StatusOK {
		tb.Fatal(c.w.status)
	}
}

// BenchmarkStagePresign is all of a presigned upload but the wire and the store.
func BenchmarkStagePresign(b *testing.B) {
	p, c := presignGate(b), newPresignCall("alice")
	b.ReportAllocs()
	for b.Loop() {
		c.serve(b, p)
	}
}

// A statusOnly is whom an answer goes to that is looked at for its status alone.
type statusOnly struct {
	discarded
	status int
}

func (t *statusOnly) WriteHeader(status int) { t.status = status }

// BenchmarkStageRefused is a request that is answered by the policy, or for want
// of a token, without the wire.
func BenchmarkStageRefused(b *testing.B) {
	for status, token := range map[int]string{http.StatusForbidden: "Bearer bob", http.StatusUnauthorized: ""} {
		b.Run(http.StatusText(status), func(b *testing.B) {
			p, r, w := stageGate(b), stageRequest(), statusOnly{discarded: discarded{http.Header{}}}
			p.o.Authenticator = someone{&policy.Identity{Name: "users", Namespace: "users", UID: "bob", Kept: new(policy.Kept)}}
			r.RequestURI = "/admin/a/b/c"
			r.Header.Set("Authorization", token)
			if token == "" {
				r.Header.Del("Authorization")
			}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				if p.ServeHTTP(&w, r); w.status != status {
					b.Fatal(w.status)
				}
			}
		})
	}
}
