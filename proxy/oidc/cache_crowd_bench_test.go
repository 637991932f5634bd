package oidc

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkCacheHits is a hit for one user, and for a thousand in turn, whose
// tokens and identities the processor's caches hold less of.
func BenchmarkCacheHits(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := newClock()
			cache, _, _ := newCache(b, c, CacheOptions{Entries: 100_000})
			var tokens, sent []string
			for i := range n {
				tokens = append(tokens, mint(0, "k0", claims(c.now(), fmt.Sprintf(`"n":%d,"x":"%s"`, i, strings.Repeat("x", 400)))))
				sent = append(sent, strings.Clone(tokens[i]))
				if _, err := cache.Authenticate(b.Context(), tokens[i]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := cache.Authenticate(b.Context(), sent[i%n]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
