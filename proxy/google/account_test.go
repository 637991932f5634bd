package google

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keyFile writes a service account's file whose tokens come from that URL.
func keyFile(t *testing.T, tokens string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "acme-prod", "client_email": "gate@acme-prod.iam.gserviceaccount.com", "client_id": "1", "private_key_id": "1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": tokens,
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
}

func TestAccountOfAKeyFile(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token": "hunter2", "token_type": "Bearer", "expires_in": 3600}`)
	}))
	defer server.Close()
	keyFile(t, server.URL)
	a, err := FindAccount(t.Context(), nil)
	if err != nil || a.Kind != KindServiceAccount || a.Email != "gate@acme-prod.iam.gserviceaccount.com" {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestAccountThatIsRefused: the error has the answer's codes, and none of its words.
func TestAccountThatIsRefused(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error": "invalid_grant", "error_description": "hunter2"}`)
	}))
	defer server.Close()
	keyFile(t, server.URL)
	_, err := FindAccount(t.Context(), nil)
	if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), server.URL) || !strings.Contains(err.Error(), "400") {
		t.Error(err)
	}
}

func TestAccountWithoutAFile(t *testing.T) {
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(t.TempDir(), "nothing.json"))
	if _, err := FindAccount(t.Context(), nil); err == nil {
		t.Error("credentials were found where there are none")
	}
}

// TestIDTokenThatIsRefused: its error goes to the log, and an answer may repeat the
// assertion that asked.
func TestIDTokenThatIsRefused(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error": "invalid_grant", "error_description": "hunter2"}`))
	}))
	defer server.Close()
	keyFile(t, server.URL)
	tokens, err := NewIDTokens("https://app.example")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Token(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "400") {
		t.Error(err)
	}
}
