package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// A tokenSet is a file of tokens, one a line, that a load sends in turn.
type tokenSet string

const (
	one       tokenSet = "one"       // a user's who may
	users     tokenSet = "users"     // 1,000 users', who may
	fresh     tokenSet = "fresh"     // more than the gateway's cache holds, of users who may
	reader    tokenSet = "reader"    // a user's who may not
	malformed tokenSet = "malformed" // no JWT
	forged    tokenSet = "forged"    // with the signature of another token
)

const (
	project = "demo-peers" // Firebase gives no project a name that begins so
	keyID   = "peers-1"
	issuer  = "https://securetoken.google.com/" + project

	userCount = 1000
	// firstSeenCache is the smallest cache there is, one token for each of its
	// shards, and freshCount so many that none is still there when its turn
	// comes again: what is measured is a token that was never seen, its place in
	// the cache included. The run asks the gateway whether that was so.
	firstSeenCache = 64
	freshCount     = 2000
)

// An issuerKey signs tokens, and is published in the forms that the proxies
// read.
type issuerKey struct{ key *rsa.PrivateKey }

func newIssuerKey() (*issuerKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	return &issuerKey{key}, err
}

// sign makes a Firebase ID token (RS256) of about 1,200 bytes, good for a day:
// https://firebase.google.com/docs/auth/admin/verify-id-tokens lists the
// claims.
func (k *issuerKey) sign(uid, role string, now time.Time) (string, error) {
	email := uid + "@example.com"
	claims, err := json.Marshal(map[string]any{
		"iss": issuer, "aud": project, "sub": uid, "user_id": uid,
		"iat": now.Unix(), "auth_time": now.Unix(), "exp": now.Add(24 * time.Hour).Unix(),
		"email": email, "email_verified": true, "roles": []string{role, "member"},
		"name":     "Somebody With A Name Of Ordinary Length",
		"picture":  "https://images.example.com/a/" + strings.Repeat("x", 180) + "/photo.jpg",
		"firebase": map[string]any{"sign_in_provider": "password", "identities": map[string]any{"email": []string{email}}},
	})
	if err != nil {
		return "", err
	}
	text := encode([]byte(`{"alg":"RS256","kid":"`+keyID+`","typ":"JWT"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(nil, k.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return text + "." + encode(signature), nil
}

var encode = base64.RawURLEncoding.EncodeToString

// write makes the files of the sets, and gives their names.
func (k *issuerKey) write(dir string, sets map[tokenSet]bool) (map[tokenSet]string, error) {
	files := map[tokenSet]string{}
	for set := range sets {
		tokens, err := k.tokens(set)
		if err != nil {
			return nil, err
		}
		files[set] = filepath.Join(dir, "tokens-"+string(set))
		if err := os.WriteFile(files[set], []byte(strings.Join(tokens, "\n")+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func (k *issuerKey) tokens(set tokenSet) ([]string, error) {
	switch set {
	case malformed:
		return []string{"0123456789abcdef0123456789abcdef"}, nil
	case reader:
		return k.many(1, "reader", "reader")
	case users:
		return k.many(userCount, "user", "writer")
	case fresh:
		return k.many(freshCount, "fresh", "writer")
	case forged:
		two, err := k.many(2, "forged", "writer")
		if err != nil {
			return nil, err
		}
		text, _, _ := cutLast(two[0], ".")
		_, signature, _ := cutLast(two[1], ".")
		return []string{text + "." + signature}, nil
	}
	return k.many(1, "user", "writer")
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// many signs with all cores.
func (k *issuerKey) many(n int, name, role string) ([]string, error) {
	out, now := make([]string, n), time.Now()
	errs := make([]error, n)
	var all sync.WaitGroup
	cores := runtime.GOMAXPROCS(0)
	for core := range cores {
		all.Go(func() {
			for i := core; i < n; i += cores {
				out[i], errs[i] = k.sign(fmt.Sprintf("%s%05d", name, i), role, now)
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ServeHTTP answers with the JWK set of RFC 7517.
func (k *issuerKey) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=86400")
	json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{
		"kty": "RSA", "kid": keyID, "alg": "RS256", "use": "sig",
		"n": encode(k.key.N.Bytes()), "e": encode(big.NewInt(int64(k.key.E)).Bytes()),
	}}})
}

// publicPEM is the key as HAProxy reads it.
func (k *issuerKey) publicPEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(&k.key.PublicKey)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
}

// certificate is the key as mod_auth_openidc reads it.
func (k *issuerKey) certificate() ([]byte, error) {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "peers"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &k.key.PublicKey, k.key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

// assertionKey is a private key for sidegate's assertions.
func assertionKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return bytes.TrimSpace(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), err
}

// checkRSA verifies a signature again and again for so long, and gives what a
// check costs in CPU of this process, which does nothing else meanwhile.
func (k *issuerKey) checkRSA(long time.Duration) (time.Duration, error) {
	sum := sha256.Sum256([]byte("peers"))
	signature, err := rsa.SignPKCS1v15(nil, k.key, crypto.SHA256, sum[:])
	if err != nil {
		return 0, err
	}
	self := []int{os.Getpid()}
	before, err := cpuOf(self)
	if err != nil {
		return 0, err
	}
	n := 0
	for end := time.Now().Add(long); time.Now().Before(end); n++ {
		if err := rsa.VerifyPKCS1v15(&k.key.PublicKey, crypto.SHA256, sum[:], signature); err != nil {
			return 0, err
		}
	}
	after, err := cpuOf(self)
	return (after - before) / time.Duration(n), err
}
