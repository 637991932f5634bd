package oidc

import (
	"slices"
	"testing"
	"time"
)

// For each algorithm what the bare check of a signature costs, what all of a
// token's verification does, and what a token that is cached does. To compare
// are figures of one run: the second by the first, which is to stay near 1.
func BenchmarkAlgorithms(b *testing.B) {
	c := newClock()
	v := newVerifier(b, allKeys(b, c), c, func(o *Options) {
		o.Claims = map[string]Path{"roles": {"realm_access", "roles"}}
	})
	set, err := New(v)
	if err != nil {
		b.Fatal(err)
	}
	cache, err := NewCache(set, CacheOptions{Entries: 1000, Now: c.now})
	if err != nil {
		b.Fatal(err)
	}
	// Of the size of an access token with a few claims of its own.
	claims := payload(c, "realm_access", `{"roles":["reader","writer"]}`, "scope", `"openid profile photos.read"`, "email", `"alice@acme.example"`,
		"email_verified", "true", "jti", `"4f7c9f3e-5f0c-4a58-9b8e-0a3f3f1c2d4e"`, "azp", `"photos"`, "session_state", `"5b0d0a4e-8a57-4c02-9c7e-5d7a1c0f3b2a"`)
	for _, alg := range Algorithms() {
		raw := by(alg).token(claims)
		b.Run(alg+"/signature", func(b *testing.B) {
			token, a, key := parsed(b, raw), algorithms[alg], by(alg).private.Public()
			signed := []byte(token.signed)
			b.ReportAllocs()
			for b.Loop() {
				if !a.verify(key, a.digest(signed), token.signature) {
					b.Fatal("refused")
				}
			}
		})
		b.Run(alg+"/token", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := set.Authenticate(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
		// The ratio of the medians, measured by turns: what the machine does
		// besides meets both, and counts for neither.
		b.Run(alg+"/ratio", func(b *testing.B) {
			token, a, key := parsed(b, raw), algorithms[alg], by(alg).private.Public()
			signed := []byte(token.signed)
			var bare, whole []time.Duration
			for b.Loop() {
				start := time.Now()
				a.verify(key, a.digest(signed), token.signature)
				between := time.Now()
				if _, err := set.Authenticate(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
				bare, whole = append(bare, between.Sub(start)), append(whole, time.Since(between))
			}
			slices.Sort(bare)
			slices.Sort(whole)
			b.ReportMetric(float64(whole[len(whole)/2])/float64(bare[len(bare)/2]), "token/signature")
		})
		b.Run(alg+"/cached", func(b *testing.B) {
			if _, err := cache.Authenticate(b.Context(), raw); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := cache.Authenticate(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A hit of which the provider is asked whether the user still stands.
func BenchmarkCacheHitStands(b *testing.B) {
	c := newClock()
	cache, _ := newStanding(b, c, 100)
	token := mint(0, "k0", claims(c.now()))
	if _, err := cache.Authenticate(b.Context(), token); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cache.Authenticate(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
