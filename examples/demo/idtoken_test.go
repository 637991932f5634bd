package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestPrivateUpstream: an app that its platform lets only known accounts call
// gets the gateway's own token, from the metadata server of Google Cloud (here a
// local one, found by the variable that Google's libraries have for that).
func TestPrivateUpstream(t *testing.T) {
	const audience = "https://photos-abc123-ew.a.run.app"
	var away atomic.Bool
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		if away.Load() || r.Header.Get("Metadata-Flavor") != "Google" || !strings.HasSuffix(r.URL.Path, "/service-accounts/default/identity") || r.URL.Query().Get("audience") != audience {
			http.Error(w, "no", http.StatusNotFound)
			return
		}
		b64 := base64.RawURLEncoding.EncodeToString
		fmt.Fprintf(w, "%s.%s.sig", b64([]byte(`{"alg":"RS256"}`)), b64(fmt.Appendf(nil, `{"aud":%q,"exp":%d}`, audience, time.Now().Add(time.Hour).Unix())))
	}))
	t.Cleanup(metadata.Close)
	s := setup{
		config: demoFile(t, "sidegate.yaml", `app: {url: "${env:DEMO_APP_URL}"}`, `app: {url: "${env:DEMO_APP_URL}", id_token: "`+audience+`"}`),
		env:    []string{"GCE_METADATA_HOST=" + strings.TrimPrefix(metadata.URL, "http://"), "NO_PROXY=127.0.0.1"},
	}
	g := startGateway(t, s)
	var seen struct{ Headers map[string]string }
	ask(t, http.MethodGet, g.url+"/v1/me", token(t, "alice"), "").want(t, http.StatusOK).decode(t, &seen)
	got, bearer := strings.CutPrefix(seen.Headers["X-Serverless-Authorization"], "Bearer ")
	if !bearer || strings.Count(got, ".") != 2 || seen.Headers["Authorization"] != "" || seen.Headers["X-Sidegate-Uid"] != "alice" {
		t.Errorf("the app saw %v", seen.Headers)
	}
	if strings.Contains(g.log.String(), got) {
		t.Error("the token is in the log")
	}
	away.Store(true)
	g = startGateway(t, s)
	ask(t, http.MethodGet, g.url+"/v1/me", token(t, "alice"), "").problem(t, http.StatusServiceUnavailable, "unavailable")
	ask(t, http.MethodGet, g.url+"/v1/me", "", "").problem(t, http.StatusUnauthorized, "no_token")
}
