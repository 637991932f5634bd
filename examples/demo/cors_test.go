package main

import (
	"net/http"
	"testing"
)

// TestPagesOfAnotherOrigin does what a browser does for a page that asks for a
// signed URL: a preflight, the request, and a refusal that the page can read.
func TestPagesOfAnotherOrigin(t *testing.T) {
	const page = "https://app.example.com"
	g := startGateway(t, setup{config: demoFile(t, "sidegate.yaml", "upstreams:\n", "cors: {origins: ["+page+"]}\nupstreams:\n")})
	send := func(method, path, token string, headers ...string) answer {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, g.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", page)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		a := do(t, r)
		if got := a.header.Get("Access-Control-Allow-Origin"); got != page {
			t.Errorf("%s %s: Access-Control-Allow-Origin: %q", method, path, got)
		}
		return a
	}
	preflight := send(http.MethodOptions, "/v1/uploads/presign", "", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization, content-type").want(t, http.StatusNoContent)
	if h := preflight.header; h.Get("Access-Control-Allow-Methods") != "POST" || h.Get("Access-Control-Allow-Headers") != "Authorization, Content-Type" || h.Get("Access-Control-Max-Age") != "600" {
		t.Errorf("%v", h)
	}
	send(http.MethodGet, "/v1/me", token(t, "alice")).want(t, http.StatusOK)
	send(http.MethodGet, "/v1/me", "").problem(t, http.StatusUnauthorized, "no_token")
	key := "users/alice/uploads/x.txt"
	send(http.MethodGet, "/v1/files/"+key+"/download", token(t, "alice")).want(t, http.StatusOK)
	send(http.MethodOptions, "/v1/me", "", "Access-Control-Request-Method", "DELETE").problem(t, http.StatusMethodNotAllowed, "method")
	// Nobody is told of a page that is not named.
	stranger, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/welcome", nil)
	if err != nil {
		t.Fatal(err)
	}
	stranger.Header.Set("Origin", "https://evil.example")
	if h := do(t, stranger).want(t, http.StatusOK).header; h.Get("Access-Control-Allow-Origin") != "" || h.Get("Vary") != "Origin" {
		t.Errorf("%v", h)
	}
}
