package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"sidegate/storage/upload"
)

// FuzzErrorAnswer: whatever a store writes, what is kept of it are words.
func FuzzErrorAnswer(f *testing.F) {
	f.Add([]byte(`<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>secret</Message><Region>eu-west-1</Region></Error>`))
	f.Add([]byte(`<Error><Code>a b</Code></Error>`))
	f.Add([]byte(`<!DOCTYPE x [<!ENTITY a "b">]><Error><Code>&a;</Code></Error>`))
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var a Answer
		a.readError(text)
		for _, s := range []string{a.Code, a.Region} {
			if s != "" && !aWord.MatchString(s) {
				t.Errorf("%q", s)
			}
		}
	})
}

// TestProbesTellNoSecrets: errors and answers hold no URL that was signed, and no
// word of the store.
func TestProbesTellNoSecrets(t *testing.T) {
	answer := func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "<Error><Code>AccessDenied</Code><Message>hunter2</Message></Error>")
	}
	server := httptest.NewServer(http.HandlerFunc(answer))
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, endpoint := range []string{server.URL, gone.URL} {
		b, err := Open(t.Context(), Options{Bucket: "photos", Endpoint: endpoint, PathStyle: true, Store: "other", AccessKey: "AKID", SecretKey: secret, backoff: 1})
		if err != nil {
			t.Fatal(err)
		}
		p := b.Probe()
		calls := map[string]func(context.Context) (Answer, error){
			"list":      func(ctx context.Context) (Answer, error) { return p.List(ctx, "users/") },
			"put":       func(ctx context.Context) (Answer, error) { return p.Put(ctx, "users/a", false) },
			"get":       func(ctx context.Context) (Answer, error) { return p.Get(ctx, "users/a", "") },
			"overreach": func(ctx context.Context) (Answer, error) { return p.Overreach(ctx, "a") },
			"delete":    func(ctx context.Context) (Answer, error) { return p.Delete(ctx, "users/a", "") },
			"unsigned":  func(ctx context.Context) (Answer, error) { return p.Unsigned(ctx, "users/a") },
			"head":      func(ctx context.Context) (Answer, error) { _, _, a, err := p.Head(ctx, "users/a"); return a, err },
			"multipart": func(ctx context.Context) (Answer, error) { _, a, err := p.Multipart(ctx, "users/a"); return a, err },
			"abort":     func(ctx context.Context) (Answer, error) { return p.Abort(ctx, "users/a", "id") },
			"parts":     func(ctx context.Context) (Answer, error) { return p.Parts(ctx, "users/a", "id") },
		}
		for name, call := range calls {
			a, err := call(t.Context())
			if (endpoint == gone.URL) != (err != nil) || err == nil && !a.Refused() {
				t.Errorf("%s at %s: %v, %v", name, endpoint, a, err)
			}
			if text := fmt.Sprintf("%v %v", a, err); strings.Contains(text, "Signature") || strings.Contains(text, "hunter2") || strings.Contains(text, "users/a") {
				t.Errorf("%s: %s", name, text)
			}
		}
	}
	server.Close()
}

// TestCauses: of errors that hold a URL, only what the network said is told.
func TestCauses(t *testing.T) {
	asked := &url.Error{Op: "Get", URL: "http://169.254.170.2/v2/credentials/5b2c", Err: errors.New("connection refused")}
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("%w: no AWS credentials: %w", upload.ErrUnavailable, asked), "connection refused"},
		{fmt.Errorf("get: %w", context.DeadlineExceeded), "no answer in time"},
		{fmt.Errorf("%w: too soon", upload.ErrUnavailable), "too soon"},
	} {
		if got := cause(c.err); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
