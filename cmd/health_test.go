package cmd

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealth(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		status  int
	}{
		{"ready", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/health/ready" || r.Method != http.MethodGet {
				http.NotFound(w, r)
			}
		}, 0},
		{"not ready", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "keys", http.StatusServiceUnavailable) }, 1},
		{"somebody else", http.NotFound, 1},
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/health/live", http.StatusFound) }, 1},
		{"cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(tt.handler)
			defer server.Close()
			address := strings.TrimPrefix(server.URL, "http://")
			// A proxy of the environment is not asked.
			env := []string{"HTTP_PROXY=http://127.0.0.1:1"}
			err := Run(context.Background(), []string{"health", "--address", address}, env, io.Discard, io.Discard)
			if got := ExitStatus(err); got != tt.status {
				t.Errorf("status %d, want %d: %v", got, tt.status, err)
			}
		})
	}
}

func TestHealthGivesUp(t *testing.T) {
	hanging := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hanging }))
	defer server.Close()
	defer close(hanging)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := askHealth{path: readyPath, word: "ready"}.at(ctx, strings.TrimPrefix(server.URL, "http://"))
	if ExitStatus(err) != exitFailed {
		t.Errorf("got %v", err)
	}
}

// TestHealthQuestions: each question is asked where it is answered, and no two at once.
func TestHealthQuestions(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = append(asked, r.URL.Path) }))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	for _, tt := range []struct{ flag, path, said string }{
		{"--live", "/health/live", "live\n"}, {"--started", "/health/started", "started\n"}, {"--live=false", "/health/ready", "ready\n"},
	} {
		asked = nil
		var out strings.Builder
		if err := Run(t.Context(), []string{"health", tt.flag, "--address", address}, nil, &out, io.Discard); err != nil {
			t.Error(err)
		}
		if len(asked) != 1 || asked[0] != tt.path || out.String() != tt.said {
			t.Errorf("%s asked %v and said %q", tt.flag, asked, out.String())
		}
	}
	if err := Run(t.Context(), []string{"health", "--live", "--started", "--address", address}, nil, io.Discard, io.Discard); ExitStatus(err) != exitUsage {
		t.Errorf("two questions at once: %v", err)
	}
}
