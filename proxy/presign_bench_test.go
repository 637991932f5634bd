package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sidegate/policy"
	"sidegate/proxy"
	"sidegate/proxy/oidc"
	"sidegate/storage/audit"
	"sidegate/storage/local"
	"sidegate/storage/s3"
	"sidegate/storage/upload"
)

const benchServed = `version: sidegate-policy/v1
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
  - id: multipart
    path: /v1/multipart/{op...}
    methods: [GET, POST, DELETE]
    serve: multipart
    allow: [{id: user, who: [users], roles: [writer]}]
    object: {key: "users/${auth.uid}/uploads/${uuid}${ext}", content_types: [image/jpeg], max_bytes: 100GiB}
`

// benchServe is a gateway that signs, over the embedded store and a real signer.
func benchServe(b *testing.B) (*proxy.Proxy, *local.Store) {
	store, err := local.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	bucket, err := s3.Open(b.Context(), s3.Options{Bucket: "photos", Region: "eu-central-1", AccessKey: "AKIDEXAMPLE", SecretKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"})
	if err != nil {
		b.Fatal(err)
	}
	p, err := policy.Load("policy.yaml", []byte(benchServed), nil)
	if err != nil {
		b.Fatal(err)
	}
	ledger, err := audit.Open(audit.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ledger.Close(context.Background()) })
	set, err := oidc.New(anyone{})
	if err != nil {
		b.Fatal(err)
	}
	cache, err := oidc.NewCache(set, oidc.CacheOptions{Entries: 1000})
	if err != nil {
		b.Fatal(err)
	}
	gate, err := proxy.New(proxy.Options{
		Name: "bench", Policy: p, Authenticator: cache, Recorder: recorder{ledger},
		Uploads:     &upload.Uploads{Store: store, Index: store, Buckets: map[string]upload.Bucket{"default": bucket}, Now: time.Now},
		IdleTimeout: 75 * time.Second, Log: zerolog.New(io.Discard), Metrics: prometheus.NewRegistry(), Now: time.Now,
	})
	if err != nil {
		b.Fatal(err)
	}
	return gate, store
}

// BenchmarkPresign is CPU per upload that is presigned, over HTTP, with its session
// in the embedded store, against a proxied request's in the same process, slice by
// slice in turns. x-proxied is the median ratio.
func BenchmarkPresign(b *testing.B) {
	c := startChild(b)
	proxied := httptest.NewServer(benchGate(b, c.app))
	defer proxied.Close()
	gate, _ := benchServe(b)
	signing := httptest.NewServer(gate)
	defer signing.Close()
	token := benchToken()
	c.slice(proxied.Listener.Addr().String(), token)
	c.slice(signing.Listener.Addr().String(), "presign "+token)
	for b.Loop() {
		var ratios []float64
		var costs []time.Duration
		for range benchRounds {
			plain := c.slice(proxied.Listener.Addr().String(), token)
			ours := c.slice(signing.Listener.Addr().String(), "presign "+token)
			ratios = append(ratios, float64(ours)/float64(plain))
			costs = append(costs, ours/benchRequests)
		}
		slices.Sort(ratios)
		slices.Sort(costs)
		b.ReportMetric(ratios[len(ratios)/2], "x-proxied")
		b.ReportMetric(float64(costs[len(costs)/2].Nanoseconds()), "cpu-ns/presign")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSignParts is CPU for the URLs of a thousand parts in one request, all of
// it: body, session, policy, record, signatures and answer.
func BenchmarkSignParts(b *testing.B) {
	gate, store := benchServe(b)
	now := time.Now()
	id := upload.NewID()
	err := store.Create(b.Context(), &upload.Session{
		ID: id, UID: "alice", Namespace: "users", Identity: "users", Key: "users/alice/uploads/" + id + ".jpg", Bucket: "default", ContentType: "image/jpeg", Size: -1,
		Status: upload.Uploading, CreatedAt: now, ExpiresAt: now.Add(time.Hour), ConfirmBy: now.Add(24 * time.Hour), Route: "multipart", Multipart: true, UploadID: strings.Repeat("u", 128),
	}, nil)
	if err != nil {
		b.Fatal(err)
	}
	var body strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&body, `,{"partNumber":%d,"size":8388608}`, i+1)
	}
	text := `{"parts":[` + body.String()[1:] + `]}`
	token := benchToken()
	b.ReportAllocs()
	before, n := cpu(), 0
	for b.Loop() {
		r := httptest.NewRequest("POST", "/v1/multipart/"+id+"/parts", strings.NewReader(text))
		r.RequestURI = r.URL.Path
		r.Header = http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}}
		w := httptest.NewRecorder()
		gate.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatalf("%d %s", w.Code, w.Body)
		}
		n++
	}
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(n)/1000, "cpu-ms/batch")
}
