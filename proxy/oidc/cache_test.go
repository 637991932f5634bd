package oidc

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func newCache(t testing.TB, c *clock, o CacheOptions) (*Cache, *plain, *keyServer) {
	t.Helper()
	s := newKeyServer(t, publish(jwks(0)))
	p := newPlain("users", issuer, "app", fetched(t, newKeys(t, s, c)), c.now)
	set, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	o.Now = c.now
	cache, err := NewCache(set, o)
	if err != nil {
		t.Fatal(err)
	}
	return cache, p, s
}

func TestCacheEndsExactlyAsVerification(t *testing.T) {
	c := newClock()
	cache, p, _ := newCache(t, c, CacheOptions{Entries: 100})
	token := mint(0, "k0", claims(c.now()))
	first, err := cache.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	c.move(time.Hour + DefaultLeeway - time.Nanosecond)
	second, err := cache.Authenticate(t.Context(), strings.Clone(token))
	if err != nil || second != first || p.verified.Load() != 1 {
		t.Errorf("%v, %v, verified %d times", second, err, p.verified.Load())
	}
	c.move(time.Nanosecond)
	_, err = cache.Authenticate(t.Context(), token)
	wantReason(t, "at its end", err, ReasonExpired)
	if st := cache.Stats(); st != (CacheStats{Hits: 1, Misses: 2}) {
		t.Errorf("%+v", st)
	}
}

func TestCacheForgetsWhenAKeyIsWithdrawn(t *testing.T) {
	c := newClock()
	cache, p, s := newCache(t, c, CacheOptions{Entries: 100})
	token := mint(0, "k0", strings.Replace(claims(c.now()), `"exp":`, `"exp":9`, 1))
	if _, err := cache.Authenticate(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	s.now(publish(jwks(1)))
	c.move(2 * time.Hour)
	if _, err := cache.Authenticate(t.Context(), token); err != nil || p.verified.Load() != 1 {
		t.Errorf("before the fetch: %v", err)
	}
	fetched(t, p.keys)
	_, err := cache.Authenticate(t.Context(), token)
	wantReason(t, "by a withdrawn key", err, ReasonUnknownKey)
}

func TestCacheKeepsOnlyWhatIsGood(t *testing.T) {
	c := newClock()
	cache, p, _ := newCache(t, c, CacheOptions{Entries: 100})
	good := mint(0, "k0", claims(c.now()))
	if _, err := cache.Authenticate(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	// Everything but the signature is that of a cached token.
	at := strings.LastIndexByte(good, '.') + 1
	forged := good[:at] + mint(1, "k0", claims(c.now()))[at:]
	for _, bad := range []string{forged, good + "\n", good[:len(good)-6], good + ".", strings.Repeat(good, 20), ""} {
		for range 2 {
			if id, err := cache.Authenticate(t.Context(), bad); err == nil || id != nil {
				t.Errorf("%.20q... of %d bytes: accepted", bad, len(bad))
			}
		}
	}
	if st := cache.Stats(); st.Entries != 1 || st.Hits != 0 || p.verified.Load() != 5 {
		t.Errorf("%+v, verified %d times", st, p.verified.Load())
	}
}

func TestCacheBounds(t *testing.T) {
	c := newClock()
	cache, _, _ := newCache(t, c, CacheOptions{Entries: 128, Bytes: 1})
	for i := range 400 {
		if _, err := cache.Authenticate(t.Context(), mint(0, "k0", claims(c.now(), fmt.Sprintf(`"n":%d,"x":"%s"`, i, strings.Repeat("x", 2000))))); err != nil {
			t.Fatal(err)
		}
	}
	st := cache.Stats()
	most := int64(0)
	for i := range cache.shards {
		most = max(most, int64(cache.shards[i].bytes))
		if n := cache.shards[i].entries.Len(); n > 2 {
			t.Errorf("a shard of 2 holds %d", n)
		}
	}
	if st.Entries > 128 || st.Entries < 64 || st.Bytes <= 0 || most > int64(entryFactor*MaxTokenBytes+entryBytes) {
		t.Errorf("%+v, the largest shard %d", st, most)
	}
	for i := range cache.shards {
		cache.shards[i].entries.Purge()
	}
	if st := cache.Stats(); st.Bytes != 0 || st.Entries != 0 {
		t.Errorf("empty: %+v", st)
	}
	for _, o := range []CacheOptions{{}, {Entries: -1}, {Entries: 1, Bytes: -1}} {
		if _, err := NewCache(cache.set, o); err == nil {
			t.Errorf("%+v: accepted", o)
		}
	}
	if _, err := NewCache(nil, CacheOptions{Entries: 1}); err == nil {
		t.Error("a cache of nothing was made")
	}
}

func TestCacheConcurrently(t *testing.T) {
	c := newClock()
	cache, p, s := newCache(t, c, CacheOptions{Entries: 64})
	var tokens []string
	for i := range 100 {
		tokens = append(tokens, mint(0, "k0", strings.Replace(claims(c.now()), "alice", fmt.Sprintf("user-%d", i), 1)))
	}
	s.now(publish(jwks(0, 1)))
	var wg sync.WaitGroup
	for worker := range 64 {
		wg.Go(func() {
			for i := range 40 {
				n := (worker*7 + i) % len(tokens)
				if id, err := cache.Authenticate(t.Context(), tokens[n]); err != nil || id.UID != fmt.Sprintf("user-%d", n) {
					t.Errorf("%v, %v", id, err)
				}
			}
			if worker == 0 {
				_ = p.keys.Status()
				_ = cache.Stats()
				_ = p.keys.Verify(t.Context(), &Token{Algorithm: RS256, KeyID: "k9", signature: []byte{1}}, []string{RS256})
			}
		})
	}
	wg.Wait()
}

func TestCacheHitAllocatesNothing(t *testing.T) {
	c := newClock()
	cache, _, _ := newCache(t, c, CacheOptions{Entries: 100})
	token := mint(0, "k0", claims(c.now()))
	if n := testing.AllocsPerRun(100, func() {
		if _, err := cache.Authenticate(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCacheHit(b *testing.B) {
	c := newClock()
	cache, _, _ := newCache(b, c, CacheOptions{Entries: 100_000})
	token := mint(0, "k0", claims(c.now(), `"x":"`+strings.Repeat("x", 400)+`"`))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cache.Authenticate(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCacheHitParallel(b *testing.B) {
	c := newClock()
	cache, _, _ := newCache(b, c, CacheOptions{Entries: 100_000})
	var tokens []string
	for i := range 256 {
		tokens = append(tokens, mint(0, "k0", claims(c.now(), fmt.Sprintf(`"n":%d`, i))))
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := cache.Authenticate(b.Context(), tokens[i%len(tokens)]); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	token := mint(0, "k0", claims(time.Now(), `"x":"`+strings.Repeat("x", 200)+`"`))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(token); err != nil {
			b.Fatal(err)
		}
	}
}

// The bare RSA check, which BenchmarkVerify is to be compared with.
func BenchmarkRS256(b *testing.B) {
	token := parsed(b, mint(0, "k0", claims(time.Now())))
	key, signed := testKeys()[0].Public(), []byte(token.signed)
	for b.Loop() {
		if !verifyRS256(key, sum256(signed), token.signature) {
			b.Fatal("refused")
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	c := newClock()
	cache, _, _ := newCache(b, c, CacheOptions{Entries: 1})
	token := mint(0, "k0", claims(c.now()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cache.set.Authenticate(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
