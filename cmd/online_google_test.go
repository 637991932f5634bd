package cmd

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestGoogleFromAWSIsChecked: in a container of AWS the credentials are those that
// the gateway makes there, which Google's library does not find by itself; that
// they give no ID tokens is told of the app that needs some.
func TestGoogleFromAWSIsChecked(t *testing.T) {
	roles := http.StatusOK
	mux := http.NewServeMux()
	mux.HandleFunc("GET /role", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "hunter2", "Token": "hunter2", "Expiration": %q}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	})
	mux.HandleFunc("POST /v1/token", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(roles)
		fmt.Fprint(w, `{"access_token": "hunter2", "token_type": "Bearer", "expires_in": 3600}`)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	file := filepath.Join(t.TempDir(), "google.json")
	text := fmt.Sprintf(`{"type": "external_account", "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/aws/providers/aws",
		"subject_token_type": "urn:ietf:params:aws:token-type:aws4_request", "token_url": %q, "credential_source": {"environment_id": "aws1"}}`, server.URL+"/v1/token")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": file, "AWS_CONTAINER_CREDENTIALS_FULL_URI": server.URL + "/role", "AWS_REGION": "eu-central-1"}
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true"} {
		t.Setenv(name, value)
	}
	for name, value := range env {
		t.Setenv(name, value) // the libraries read it themselves
	}
	at := place{env: env}
	c := mustLoad(t, at, `upstreams: {app: {url: "https://app.example", id_token: "https://app.example"}}`)
	look := func() map[string]check {
		out := map[string]check{}
		for _, b := range googleProbes(settings{config: c, env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}) {
			for _, got := range b.run(t.Context()) {
				if strings.Contains(fmt.Sprint(got), "hunter2") {
					t.Errorf("a secret: %+v", got)
				}
				out[got.ID] = got
			}
		}
		return out
	}
	got := look()
	if c := got["credentials.google"]; c.Status != statusOK || !strings.Contains(c.Text, "role of AWS") {
		t.Errorf("%+v", c)
	}
	if c := got["upstream.id_token"]; c.Status != statusFail || c.Do == "" || !strings.Contains(c.Text, "no ID token for https://app.example") {
		t.Errorf("%+v", c)
	}
	roles = http.StatusForbidden
	if c := look()["credentials.google"]; c.Status != statusFail || !strings.Contains(c.Text, "403") {
		t.Errorf("%+v", c)
	}
}
