package s3

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// seen keeps what an Observe is told.
type seen struct {
	mu    sync.Mutex
	calls []Call
}

func (s *seen) observe(c Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, c)
}

// TestObserve: each call is told of once, by S3's name and with what its failure was.
func TestObserve(t *testing.T) {
	names := map[string]string{
		"head": "HeadObject", "delete": "DeleteObject", "delete version": "DeleteObject", "list": "ListObjectsV2", "create": "CreateMultipartUpload",
		"complete": "CompleteMultipartUpload", "abort": "AbortMultipartUpload", "list parts": "ListParts", "open": "ListMultipartUploads",
	}
	for _, c := range []struct {
		status        int
		code, failure string
	}{
		{403, "AccessDenied", FailureDenied},
		{401, "", FailureDenied},
		{503, "SlowDown", FailureThrottled},
		{429, "TooManyRequests", FailureThrottled},
		{500, "InternalError", FailureOther},
		{503, "ServiceUnavailable", FailureOther},
		{404, "NoSuchKey", ""},
		{404, "NoSuchUpload", ""},
		{412, "PreconditionFailed", ""},
	} {
		for what, call := range calls {
			var s seen
			b := observed(t, &s, c.status, errorBody(c.code))
			_ = call.do(t.Context(), b)
			want := c.failure
			if what == "head" {
				want = headFailure(c.status) // whose answer has no body, and so no code
			}
			if len(s.calls) != 1 || s.calls[0].Operation != names[what] || s.calls[0].Failure != want || s.calls[0].Took < 0 {
				t.Errorf("%s, %d %s: %+v, want %q", what, c.status, c.code, s.calls, want)
			}
			if want != "" && !slices.Contains(Failures, want) {
				t.Errorf("%s is no kind", want)
			}
		}
	}
}

func headFailure(status int) string {
	switch status {
	case 401, 403:
		return FailureDenied
	case 404, 412:
		return ""
	case 429:
		return FailureThrottled
	}
	return FailureOther
}

func observed(t *testing.T, s *seen, status int, body string) *Bucket {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return open(t, Options{Endpoint: server.URL, Observe: s.observe})
}

// TestObserveNoAnswer: a store that is away, one that is silent, and a caller who
// went away, which says nothing of the store.
func TestObserveNoAnswer(t *testing.T) {
	var s seen
	begun := make(chan struct{}, 4)
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-r.Context().Done()
	}))
	defer silent.Close()
	b := open(t, Options{Endpoint: silent.URL, Observe: s.observe})
	b.headTimeout = 50 * time.Millisecond
	if _, err := b.Head(t.Context(), "k"); err == nil {
		t.Error("no error")
	}
	<-begun
	b.headTimeout = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if _, err := b.Head(ctx, "k"); err == nil {
		t.Error("no error")
	}
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	if _, err := open(t, Options{Endpoint: away.URL, Observe: s.observe}).Head(t.Context(), "k"); err == nil {
		t.Error("no error")
	}
	if len(s.calls) != 2 || s.calls[0].Failure != FailureTimeout || s.calls[1].Failure != FailureUnreachable {
		t.Errorf("%+v", s.calls)
	}
}

// TestObserveForeignToken: whoever makes a page's token up is no failure of the store.
func TestObserveForeignToken(t *testing.T) {
	var s seen
	b := observed(t, &s, 400, errorBody("InvalidArgument"))
	for _, token := range []string{"made-up", ""} {
		_, _, _ = b.List(t.Context(), "u/", token, 10)
	}
	if len(s.calls) != 2 || s.calls[0].Failure != "" || s.calls[1].Failure != FailureOther {
		t.Errorf("%+v", s.calls)
	}
}
