package firebase_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sidegate/proxy/firebase"
	"sidegate/proxy/oidc"
)

const (
	project = "acme-prod"
	keyID   = "k1"
	header  = `{"alg":"RS256","kid":"k1","typ":"JWT"}`
)

// goodKey is Google's in these tests, otherKey a stranger's.
var (
	goodKey  = sync.OnceValue(func() *rsa.PrivateKey { return mustKey(2048) })
	otherKey = sync.OnceValue(func() *rsa.PrivateKey { return mustKey(2048) })
)

func mustKey(bits int) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return key
}

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// rs256 signs any header and payload, however wrong.
func rs256(key *rsa.PrivateKey, header, payload string) string {
	signed := b64([]byte(header)) + "." + b64([]byte(payload))
	return signed + "." + b64(signature(key, signed))
}

func signature(key *rsa.PrivateKey, signed string) []byte {
	digest := sha256.Sum256([]byte(signed))
	s, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
	if err != nil {
		panic(err)
	}
	return s
}

type change func(claims map[string]any)

func set(name string, value any) change { return func(c map[string]any) { c[name] = value } }
func without(name string) change        { return func(c map[string]any) { delete(c, name) } }
func inFirebase(name string, value any) change {
	return func(c map[string]any) { c["firebase"].(map[string]any)[name] = value }
}

// Who issues ID tokens, and who session cookies.
const (
	tokenIssuer  = "https://securetoken.google.com/"
	cookieIssuer = "https://session.firebase.google.com/"
)

// issuer is what payload has in iss, before the project.
var issuer = tokenIssuer

// asCookies makes what f makes of session cookies: every payload in it is one.
func asCookies[T any](f func() T) T {
	issuer = cookieIssuer
	defer func() { issuer = tokenIssuer }()
	return f()
}

// payload is a good token's, changed.
func payload(now time.Time, changes ...change) string {
	claims := map[string]any{
		"iss": issuer + project, "aud": project,
		"sub": "alice", "user_id": "alice",
		"iat": now.Unix() - 10, "exp": now.Unix() + 3590, "auth_time": now.Unix() - 100,
		"email": "alice@example.com", "email_verified": true, "roles": []string{"editor"},
		"firebase": map[string]any{
			"sign_in_provider": "password",
			"identities":       map[string]any{"email": []string{"alice@example.com"}},
		},
	}
	for _, change := range changes {
		change(claims)
	}
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func good(now time.Time, changes ...change) string {
	return rs256(goodKey(), header, payload(now, changes...))
}

// A google answers for www.googleapis.com with the good key, in both forms.
type google struct {
	server  *httptest.Server
	roots   *x509.CertPool
	fetches atomic.Int64
}

func newGoogle(t testing.TB) *google {
	t.Helper()
	certificate, parsed := selfSigned(t, goodKey())
	g := &google{roots: x509.NewCertPool()}
	g.roots.AddCert(parsed)
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{
		Key: goodKey().Public(), KeyID: keyID, Algorithm: "RS256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	pems, err := json.Marshal(map[string]string{
		keyID: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: parsed.Raw}))})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	answer := func(body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			g.fetches.Add(1)
			w.Header().Set("Cache-Control", "public, max-age=20000")
			_, _ = w.Write(body)
		}
	}
	mux.Handle("/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com", answer(jwks))
	mux.Handle("/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com", answer(pems))
	mux.Handle("/identitytoolkit/v3/relyingparty/publicKeys", answer(pems))
	mux.Handle("/v1/jwks", answer(jwks))
	g.server = httptest.NewUnstartedServer(mux)
	g.server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	g.server.StartTLS()
	t.Cleanup(g.server.Close)
	return g
}

func selfSigned(t testing.TB, key *rsa.PrivateKey) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"www.googleapis.com", "firebaseappcheck.googleapis.com"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, parsed
}

// transport reaches the test's google under the real name.
func (g *google) transport() *http.Transport {
	return &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: g.roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, g.server.Listener.Addr().String())
		},
	}
}

// keySet gives the keys that g publishes.
func (g *google) keySet(now func() time.Time) func(string) (*oidc.KeySet, error) {
	return func(url string) (*oidc.KeySet, error) {
		return oidc.NewKeySet(oidc.KeySetOptions{URL: url, Client: &http.Client{Transport: g.transport()}, Now: now})
	}
}

// verifier is one as in production, its keys fetched from g.
func (g *google) verifier(t testing.TB, tenant string, now func() time.Time) *firebase.Verifier {
	t.Helper()
	v, err := firebase.New(firebase.Options{
		Name: "users", Namespace: "users", Project: project, Tenant: tenant,
		Leeway: oidc.DefaultLeeway, KeySet: g.keySet(now), Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Keys().Prefetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	return v
}

func newSet(t testing.TB, providers ...oidc.Provider) *oidc.Set {
	t.Helper()
	s, err := oidc.New(providers...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
