package firebase_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"sidegate/proxy/oidc"
)

// One run of -bench Verify shows what a token costs: one that is new, here and
// with the Admin SDK, beside the RSA check that both need, and one that was
// verified before. Compare them with each other: machines are noisy.

func BenchmarkVerifyCold(b *testing.B) {
	authenticator := newSet(b, newGoogle(b).verifier(b, "", nil))
	token := good(time.Now())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := authenticator.Authenticate(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyColdAdminSDK(b *testing.B) {
	client := adminSDK(b, newGoogle(b))
	token := good(time.Now())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.VerifyIDToken(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyBareRSA is the hash of a token and the check of its signature,
// and nothing else.
func BenchmarkVerifyBareRSA(b *testing.B) {
	token := good(time.Now())
	at := strings.LastIndexByte(token, '.')
	signed, key := []byte(token[:at]), &goodKey().PublicKey
	sum := signature(goodKey(), token[:at])
	b.ReportAllocs()
	for b.Loop() {
		digest := sha256.Sum256(signed)
		if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], sum); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyCached(b *testing.B) {
	cache, err := oidc.NewCache(newSet(b, newGoogle(b).verifier(b, "", nil)), oidc.CacheOptions{Entries: 100_000})
	if err != nil {
		b.Fatal(err)
	}
	token := good(time.Now())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cache.Authenticate(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
