package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestListenerWithTLS: callers connect with TLS, the app hears so, and a
// certificate that is replaced is shown from the next connection on.
func TestListenerWithTLS(t *testing.T) {
	dir := t.TempDir()
	put := func() *x509.CertPool {
		t.Helper()
		authority, pair := newAuthority(t, "localhost")
		key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		var chain []byte
		for _, der := range pair.Certificate {
			chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		for name, data := range map[string][]byte{"tls.crt": chain, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(authority) {
			t.Fatal("no certificate of the authority")
		}
		return pool
	}
	first := put()
	g := startGateway(t, setup{dir: dir, config: demoFile(t, "sidegate.yaml", `listen: {address: "${env:DEMO_ADDRESS}"}`, `listen: {address: "${env:DEMO_ADDRESS}", tls: {cert: tls.crt, key: tls.key}}`)})
	get := func(roots *x509.CertPool) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.Replace(g.url, "http://", "https://", 1)+"/v1/me", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token(t, "alice"))
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}}
		t.Cleanup(transport.CloseIdleConnections)
		return transport.RoundTrip(r)
	}
	response, err := get(first)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var seen struct{ Headers map[string]string }
	if err := json.NewDecoder(response.Body).Decode(&seen); err != nil || seen.Headers["X-Forwarded-Proto"] != "https" || seen.Headers["X-Sidegate-Uid"] != "alice" {
		t.Errorf("%v, the app saw %v", err, seen.Headers)
	}
	second := put()
	if again, err := get(second); err != nil {
		t.Errorf("with the new certificate: %v", err)
	} else {
		again.Body.Close()
	}
	if old, err := get(first); err == nil {
		old.Body.Close()
		t.Error("the old certificate was shown after it was replaced")
	}
	if plain, err := http.Get(g.url + "/welcome"); err == nil { // net/http answers 400, and may cut it short
		plain.Body.Close()
		if plain.StatusCode == http.StatusOK {
			t.Error("answered without TLS")
		}
	}
}
