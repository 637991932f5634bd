package s3

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/storage/upload"
)

func TestHead(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodHead || r.URL.Path != "/photos/users/u1/a b.jpg" || r.Header.Get("X-Amz-Checksum-Mode") != "ENABLED" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		h := w.Header()
		h.Set("Date", "Mon, 02 Mar 2026 09:00:30 GMT") // an hour behind
		h.Set("Last-Modified", "Mon, 02 Mar 2026 09:00:00 GMT")
		h.Set("Content-Length", "5")
		h.Set("Content-Type", "image/jpeg")
		h.Set("Etag", `"e"`)
		h.Set("X-Amz-Version-Id", "v1")
		h.Set("X-Amz-Checksum-Sha256", emptySum)
	}))
	defer server.Close()
	b := open(t, Options{Endpoint: server.URL})
	got, err := b.Head(t.Context(), "users/u1/a b.jpg")
	if err != nil {
		t.Fatal(err)
	}
	want := upload.Object{Size: 5, ContentType: "image/jpeg", ETag: `"e"`, VersionID: "v1", Checksum: emptySum, Modified: clock.Add(-30 * time.Second)}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestHeadLeavesOutCompositeChecksums(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
		w.Header().Set("X-Amz-Checksum-Sha256", emptySum+"-3")
		w.Header().Set("X-Amz-Checksum-Type", "COMPOSITE")
	}))
	defer server.Close()
	b := open(t, Options{Endpoint: server.URL})
	if got, err := b.Head(t.Context(), "k"); err != nil || got.Checksum != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

// F22: only a clear 404 says that nothing is there.
func TestHeadFaults(t *testing.T) {
	for _, c := range []struct {
		status   int
		header   string
		want     error
		says     string
		attempts int32
	}{
		{404, "", upload.ErrNoObject, "", 1},
		{403, "", upload.ErrUnavailable, "s3:GetObject", 1},
		{403, "", upload.ErrUnavailable, "s3:ListBucket", 1},
		{301, "us-west-2", upload.ErrUnavailable, `is in region "us-west-2", and sidegate.yaml says eu-central-1`, 1},
		{400, "", upload.ErrUnavailable, "answered 400", 1},
		{500, "", upload.ErrUnavailable, "answered 500", 2},
		{503, "", upload.ErrUnavailable, "answered 503", 2},
	} {
		var attempts atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			attempts.Add(1)
			if c.header != "" {
				w.Header().Set("X-Amz-Bucket-Region", c.header)
			}
			w.WriteHeader(c.status)
		}))
		b := open(t, Options{Endpoint: server.URL})
		_, err := b.Head(t.Context(), "k")
		server.Close()
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret) {
			t.Errorf("%d: %v", c.status, err)
		}
		if c.want != upload.ErrNoObject && errors.Is(err, upload.ErrNoObject) {
			t.Errorf("%d: reads as not there", c.status)
		}
		if got := attempts.Load(); got != c.attempts {
			t.Errorf("%d: %d attempts, want %d", c.status, got, c.attempts)
		}
	}
}

func TestHeadHangs(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	b := open(t, Options{Endpoint: server.URL})
	b.headTimeout = 50 * time.Millisecond
	if _, err := b.Head(t.Context(), "k"); !errors.Is(err, upload.ErrUnavailable) {
		t.Errorf("hang: %v", err)
	}
}

func TestHeadRefusedConnection(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	b := open(t, Options{Endpoint: server.URL})
	if _, err := b.Head(t.Context(), "k"); !errors.Is(err, upload.ErrUnavailable) || errors.Is(err, upload.ErrNoObject) {
		t.Errorf("refused: %v", err)
	}
}
