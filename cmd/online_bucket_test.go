package cmd

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sidegate/policy"
)

// A fakeStore speaks as much S3 as a check asks, with the faults that real stores
// have and that no real store of these tests has.
type fakeStore struct {
	*httptest.Server
	before func(w http.ResponseWriter, r *http.Request) bool // true: answered
	after  func(r *http.Request)                             // what was asked was done, and is not answered yet

	mu      sync.Mutex
	types   map[string]string // of each object, by its key
	open    map[string]string // multipart uploads: their key by their id
	ignores bool              // If-None-Match
	asked   []string
}

func newFakeStore(t *testing.T) *fakeStore {
	t.Helper()
	s := &fakeStore{types: map[string]string{}, open: map[string]string{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *fakeStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	if s.before != nil && s.before(w, r) {
		return
	}
	_, _ = io.Copy(io.Discard, r.Body) // else the server does not see that the client left
	status, body := s.answer(r)
	if s.after != nil {
		s.after(r)
	}
	if r.Method == http.MethodHead && status == http.StatusOK {
		s.mu.Lock()
		w.Header().Set("Content-Type", s.types[strings.TrimPrefix(r.URL.Path, "/acme/")])
		s.mu.Unlock()
		w.Header().Set("Content-Length", "80")
		w.Header().Set("Last-Modified", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func (s *fakeStore) answer(r *http.Request) (status int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := strings.TrimPrefix(r.URL.Path, "/acme/")
	_, there := s.types[key]
	q := r.URL.Query()
	signed := q.Get("X-Amz-Signature") != "" || r.Header.Get("Authorization") != ""
	switch {
	case !signed:
		return http.StatusForbidden, "<Error><Code>AccessDenied</Code></Error>"
	case r.Method == http.MethodPost && q.Has("uploads"):
		id := fmt.Sprint("id", len(s.open))
		s.open[id] = key
		return http.StatusOK, "<InitiateMultipartUploadResult><UploadId>" + id + "</UploadId></InitiateMultipartUploadResult>"
	case q.Has("uploads"):
		body = "<ListMultipartUploadsResult>"
		for id, key := range s.open {
			if key == q.Get("prefix") {
				body += "<Upload><Key>" + key + "</Key><UploadId>" + id + "</UploadId></Upload>"
			}
		}
		return http.StatusOK, body + "</ListMultipartUploadsResult>"
	case q.Get("uploadId") != "" && r.Method == http.MethodDelete:
		delete(s.open, q.Get("uploadId"))
		return http.StatusNoContent, ""
	case q.Get("uploadId") != "":
		return http.StatusOK, "<ListPartsResult></ListPartsResult>"
	case q.Has("list-type"):
		return http.StatusOK, "<ListBucketResult></ListBucketResult>"
	case r.Method == http.MethodDelete:
		delete(s.types, key)
		return http.StatusNoContent, ""
	case r.Method == http.MethodPut && r.Header.Get("Content-Md5") != "":
		return http.StatusBadRequest, "<Error><Code>BadDigest</Code></Error>"
	case r.Method == http.MethodPut && there && r.Header.Get("If-None-Match") != "" && !s.ignores:
		return http.StatusPreconditionFailed, "<Error><Code>PreconditionFailed</Code></Error>"
	case r.Method == http.MethodPut:
		s.types[key] = r.Header.Get("Content-Type")
		return http.StatusOK, ""
	case !there:
		return http.StatusNotFound, "<Error><Code>NoSuchKey</Code></Error>"
	}
	return http.StatusOK, ""
}

// objects are the keys that are there, and the open uploads.
func (s *fakeStore) objects() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.types {
		out = append(out, key)
	}
	for _, key := range s.open {
		out = append(out, key+" in parts")
	}
	slices.Sort(out)
	return out
}

// wrote says which requests could have changed an object.
func (s *fakeStore) wrote() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if !strings.HasPrefix(a, "GET ") && !strings.HasPrefix(a, "HEAD ") && !strings.HasPrefix(a, "OPTIONS ") {
			out = append(out, a)
		}
	}
	return out
}

const fakeObject = `object: {key: "u/${uuid}", content_types: [image/png], max_bytes: 1MiB%s}`

// look runs the checks of a bucket of that kind of store, for routes whose uploads
// have these further keys.
func (s *fakeStore) look(ctx context.Context, t *testing.T, store, object string, serve ...string) map[string]check {
	t.Helper()
	c := mustLoad(t, place{env: map[string]string{"KEY": "the-secret-key"}}, `identities: {users: {oidc: {issuer: "https://issuer.example", audience: [api]}}}
buckets: {default: {bucket: acme, store: `+store+`, endpoint: "`+s.URL+`", path_style: true, credentials: {access_key: AKIAEXAMPLE, secret_key: "${env:KEY}"}}}
`)
	text := "version: sidegate-policy/v1\nidentities: [users]\nroutes:\n"
	for i, how := range append([]string{"presign_upload"}, serve...) {
		path, methods := fmt.Sprint("/", i), "POST"
		if how == "multipart" {
			path, methods = path+"/{op...}", "GET, POST, DELETE"
		}
		text += fmt.Sprintf("  - {id: r%d, path: \"%s\", methods: [%s], serve: %s, allow: [{id: a, who: [users]}], "+fakeObject+"}\n", i, path, methods, how, object)
	}
	pol, err := policy.Load("policy.yaml", []byte(text), policyEnvironment(c))
	if err != nil {
		t.Fatal(err)
	}
	probes := bucketProbes(settings{config: c}, pol)
	if len(probes) != 1 {
		t.Fatalf("%d probes", len(probes))
	}
	out := map[string]check{}
	for _, got := range probes[0].run(ctx) {
		if strings.Contains(fmt.Sprint(got), "the-secret-key") || strings.Contains(fmt.Sprint(got), "X-Amz-Signature") {
			t.Errorf("a secret is told: %+v", got)
		}
		out[got.ID] = got
	}
	return out
}

// refuseHead is a store that says of no object whether it is there.
func refuseHead(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusForbidden)
	}
	return r.Method == http.MethodHead
}

// TestNothingIsWrittenBlindly: where a store does not say what is at the check's
// key, and may ignore If-None-Match, somebody's object stays as it is.
func TestNothingIsWrittenBlindly(t *testing.T) {
	for store, object := range map[string]string{"other": "", "minio": "", "versitygw": "", "gcs": ", overwrite: true"} {
		s := newFakeStore(t)
		s.ignores, s.before = true, refuseHead
		s.types["u/.sidegate-check"] = "image/png"
		got := s.look(t.Context(), t, store, object)
		if len(s.wrote()) > 0 || s.types["u/.sidegate-check"] != "image/png" {
			t.Errorf("%s: %q", store, s.wrote())
		}
		if got["bucket.head"].Status != statusFail || got["bucket.put"].Status != statusSkip {
			t.Errorf("%s: %+v", store, got)
		}
		odd := newFakeStore(t)
		odd.ignores, odd.before = true, func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusTeapot)
			}
			return r.Method == http.MethodHead
		}
		if got := odd.look(t.Context(), t, store, object); len(odd.wrote()) > 0 || got["bucket.head"].Status != statusFail {
			t.Errorf("%s: %q, %+v", store, odd.wrote(), got)
		}
	}
	// R2, as AWS, obeys it, and the upload says whether it may.
	s := newFakeStore(t)
	s.before = refuseHead
	s.types["u/.sidegate-check"] = "image/png"
	if got := s.look(t.Context(), t, "r2", ""); s.types["u/.sidegate-check"] != "image/png" || got["bucket.put"].Status == statusSkip {
		t.Errorf("%+v", got)
	}
}

// TestStoreWithoutConditions: what such a store works with is not told for broken.
func TestStoreWithoutConditions(t *testing.T) {
	gcs := newFakeStore(t)
	gcs.ignores = true
	odd := newFakeStore(t)
	odd.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotImplemented)
			return true
		}
		return false
	}
	for store, s := range map[string]*fakeStore{"gcs": gcs, "other": odd} {
		got := s.look(t.Context(), t, store, ", overwrite: true")
		for _, id := range []string{"bucket.put", "bucket.head", "bucket.delete"} {
			if got[id].Status != statusOK {
				t.Errorf("%s: %+v", store, got[id])
			}
		}
		if left := s.objects(); len(left) > 0 {
			t.Errorf("%s: left: %q", store, left)
		}
	}
}

// TestCheckEndsInTheMiddle: what an upload without an answer left is removed too.
func TestCheckEndsInTheMiddle(t *testing.T) {
	for _, at := range []string{"PUT /acme/u/.sidegate-check", "PUT /acme/.sidegate-check-scope-", "POST /acme/u/.sidegate-check-"} {
		s := newFakeStore(t)
		ctx, stop := context.WithCancel(t.Context())
		hit := false
		s.after = func(r *http.Request) {
			if strings.HasPrefix(r.Method+" "+r.URL.Path, at) && ctx.Err() == nil {
				if strings.Contains(at, "scope") { // a store that compares no checksum
					s.mu.Lock()
					s.types[strings.TrimPrefix(r.URL.Path, "/acme/")] = r.Header.Get("Content-Type")
					s.mu.Unlock()
				}
				hit = true
				stop()
				<-r.Context().Done()
			}
		}
		got := s.look(ctx, t, "other", "", "multipart")
		stop()
		if left := s.objects(); !hit || len(left) > 0 {
			t.Errorf("%s (asked: %v): left: %q\n%+v", at, hit, left, got)
		}
	}
}

// TestHostileStores: what a store answers is neither repeated nor waited for.
func TestHostileStores(t *testing.T) {
	for name, text := range map[string]string{
		"garbage":  "hunter2 is no HTTP\r\n\r\n",
		"redirect": "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://[hunter2\r\nContent-Length: 0\r\n\r\n",
		"header":   "HTTP/1.1 200 OK\r\nhunter2\r\n\r\n",
		"length":   "HTTP/1.1 200 OK\r\nContent-Length: hunter2\r\n\r\n",
		"encoding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: hunter2\r\n\r\n",
	} {
		s := newFakeStore(t)
		s.before = func(w http.ResponseWriter, _ *http.Request) bool {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return true
			}
			_, _ = io.WriteString(conn, text)
			_ = conn.Close()
			return true
		}
		got := s.look(t.Context(), t, "other", "")
		if got["bucket.reach"].Status != statusFail || strings.Contains(fmt.Sprint(got), "hunter2") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
