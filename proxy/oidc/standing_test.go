package oidc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/policy"
	"sidegate/proxy"
)

// A standing provider says of each user, whenever the identity is used again,
// whether there still is one.
type standing struct {
	*plain
	mu    sync.Mutex
	gone  map[string]error // by uid
	asked atomic.Int64
}

func (s *standing) set(uid string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone[uid] = err
}

func (s *standing) of(uid string) error {
	s.asked.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone[uid]
}

func (s *standing) Verify(ctx context.Context, t *Token) (Verified, error) {
	v, err := s.plain.Verify(ctx, t)
	if err != nil {
		return v, err
	}
	uid := v.Identity.UID
	v.Stands = func(context.Context) error { return s.of(uid) }
	return v, v.Stands(ctx)
}

func newStanding(t testing.TB, c *clock, entries int) (*Cache, *standing) {
	t.Helper()
	p := &standing{plain: newPlain("users", issuer, "app", goodKeys(t, c), c.now), gone: map[string]error{}}
	set, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := NewCache(set, CacheOptions{Entries: entries, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return cache, p
}

// A cached token is as good as its user: who was revoked is refused at once and
// forgotten, and where it cannot be told the answer is 503 and the token stays.
func TestCacheAsksWhetherTheUserStands(t *testing.T) {
	c := newClock()
	cache, p := newStanding(t, c, 100)
	token := mint(0, "k0", claims(c.now()))
	use := func() (*policy.Identity, error) { return cache.Authenticate(t.Context(), token) }
	counts := func(what string, verified, asked int64, entries int) {
		t.Helper()
		if p.verified.Load() != verified || p.asked.Load() != asked || cache.Stats().Entries != entries {
			t.Errorf("%s: verified %d times, asked %d times, %+v", what, p.verified.Load(), p.asked.Load(), cache.Stats())
		}
	}
	first, err := use()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if id, err := use(); err != nil || id != first {
			t.Errorf("%v, %v", id, err)
		}
	}
	counts("good", 1, 4, 1)

	// It cannot be told: nobody is let in, nothing is forgotten.
	p.set("alice", fmt.Errorf("users: %w: %w", proxy.ErrUnavailable, errors.New("down")))
	for range 2 {
		id, err := use()
		wantUnavailable(t, "unavailable", err)
		if id != nil {
			t.Errorf("unavailable, and %+v", id)
		}
	}
	counts("unavailable", 1, 6, 1)
	p.set("alice", nil)
	if id, err := use(); err != nil || id != first {
		t.Errorf("available again: %v, %v", id, err)
	}
	counts("available again", 1, 7, 1)

	// Revoked: refused, forgotten, and from then on by the provider.
	for i, reason := range []string{ReasonRevoked, ReasonDisabled} {
		p.set("alice", Refuse(reason, "since today"))
		id, err := use()
		wantReason(t, reason, err, reason)
		if id != nil {
			t.Errorf("%s, and %+v", reason, id)
		}
		counts(reason, int64(1+i*2), int64(8+i*3), 0)
		id, err = use()
		wantReason(t, reason+", again", err, reason)
		if id != nil {
			t.Errorf("%s again, and %+v", reason, id)
		}
		p.set("alice", nil)
		if _, err := use(); err != nil {
			t.Errorf("who was taken back: %v", err)
		}
		counts(reason+", taken back", int64(3+i*2), int64(10+i*3), 1)
	}
	if st := cache.Stats(); st.Hits != 4 {
		t.Errorf("refusals count as hits: %+v", st)
	}
	// An error that says neither is no way in.
	p.set("alice", errors.New("neither"))
	if id, err := use(); err == nil || id != nil {
		t.Errorf("%v, %v", id, err)
	}
}

// A token that is revoked is not asked about after it has ended: it is refused
// for that, as without a cache.
func TestCacheStandsEndsWithTheToken(t *testing.T) {
	c := newClock()
	cache, p := newStanding(t, c, 100)
	token := mint(0, "k0", claims(c.now()))
	if _, err := cache.Authenticate(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	p.set("alice", Refuse(ReasonRevoked, ""))
	c.move(time.Hour + DefaultLeeway)
	_, err := cache.Authenticate(t.Context(), token)
	wantReason(t, "ended and revoked", err, ReasonExpired)
	if p.asked.Load() != 1 {
		t.Errorf("asked %d times", p.asked.Load())
	}
}

// What one set verified another has to verify again, though they share the room.
func TestCacheForAnotherSet(t *testing.T) {
	c := newClock()
	cache, a, _ := newCache(t, c, CacheOptions{Entries: 100})
	b := newPlain("other", issuer, "app", a.keys, c.now)
	second, err := New(b)
	if err != nil {
		t.Fatal(err)
	}
	strangers, err := New(newPlain("strangers", issuer, "elsewhere", a.keys, c.now))
	if err != nil {
		t.Fatal(err)
	}
	first, other, none := cache.For(cache.set), cache.For(second), cache.For(strangers)
	token := mint(0, "k0", claims(c.now()))
	use := func(a proxy.Authenticator, name string) {
		t.Helper()
		if id, err := a.Authenticate(t.Context(), token); err != nil || id.Name != name {
			t.Errorf("%+v, %v; want %s", id, err, name)
		}
	}
	use(first, "users")
	use(cache, "users") // For the cache's own set it is the cache
	if a.verified.Load() != 1 {
		t.Errorf("verified %d times", a.verified.Load())
	}
	// A set that has no such audience refuses it, cached or not, again and again.
	for range 3 {
		id, err := none.Authenticate(t.Context(), token)
		wantReason(t, "another set", err, ReasonAudience)
		if id != nil {
			t.Errorf("%+v", id)
		}
	}
	use(first, "users")
	if a.verified.Load() != 1 {
		t.Error("a refusal by one set made another forget")
	}
	use(other, "other")
	use(other, "other")
	if b.verified.Load() != 1 || cache.Stats().Entries != 1 {
		t.Errorf("verified %d times, %+v", b.verified.Load(), cache.Stats())
	}
	use(first, "users")
	if a.verified.Load() != 2 {
		t.Errorf("served for the first set what the second verified: verified %d times", a.verified.Load())
	}
	// They share the room: what one puts in pushes out another's.
	small, p, _ := newCache(t, c, CacheOptions{Entries: 1})
	view := small.For(second)
	for i := range 2 * shards {
		if _, err := view.Authenticate(t.Context(), mint(0, "k0", claims(c.now(), fmt.Sprintf(`"n":%d`, i)))); err != nil {
			t.Fatal(err)
		}
	}
	if st := small.Stats(); st.Entries > shards || st.Entries == 0 || p.verified.Load() != 0 {
		t.Errorf("%+v", st)
	}
	// One set for one provider: Only has the same rules.
	only := cache.For(Only(a))
	use(only, "users")
	use(only, "users")
	if a.verified.Load() != 3 {
		t.Errorf("verified %d times", a.verified.Load())
	}
	if _, err := only.Authenticate(t.Context(), strings.Repeat("x", MaxTokenBytes+1)); err == nil {
		t.Error("accepted")
	}
}

// Many callers, several sets, users that come and go: who is revoked is never
// served, who is not always is, and no set gets another's.
func TestCacheStandsConcurrently(t *testing.T) {
	c := newClock()
	cache, p := newStanding(t, c, 32)
	other, err := New(newPlain("other", issuer, "app", p.keys, c.now))
	if err != nil {
		t.Fatal(err)
	}
	views := []proxy.Authenticator{cache, cache.For(cache.set), cache.For(other)}
	names := []string{"users", "users", "other"}
	var tokens []string
	for i := range 48 {
		tokens = append(tokens, mint(0, "k0", strings.Replace(claims(c.now()), "alice", fmt.Sprintf("user-%d", i), 1)))
		switch i % 4 {
		case 1:
			p.set(fmt.Sprintf("user-%d", i), Refuse(ReasonRevoked, ""))
		case 2:
			p.set(fmt.Sprintf("user-%d", i), proxy.ErrUnavailable)
		}
	}
	var wg sync.WaitGroup
	for worker := range 64 {
		wg.Go(func() {
			for i := range 60 {
				n, v := (worker*13+i)%len(tokens), (worker+i)%len(views)
				uid := fmt.Sprintf("user-%d", n)
				id, err := views[v].Authenticate(t.Context(), tokens[n])
				switch {
				case v != 2 && n%4 == 1:
					wantReason(t, uid, err, ReasonRevoked)
				case v != 2 && n%4 == 2:
					wantUnavailable(t, uid, err)
				case v != 2 && n%4 == 3:
					// Changes all the time: either is right, both at once are not.
					if (err == nil) != (id != nil) {
						t.Errorf("%+v, %v", id, err)
					}
					p.set(uid, map[bool]error{true: Refuse(ReasonRevoked, "")}[i%2 == 0])
				case err != nil || id.Name != names[v] || id.UID != uid:
					t.Errorf("%s by %s: %+v, %v", uid, names[v], id, err)
				}
				if i == 30 {
					_ = cache.Stats()
				}
			}
		})
	}
	wg.Wait()
	// Whatever happened before, what is true now is what the cache says now.
	for i := range tokens {
		uid := fmt.Sprintf("user-%d", i)
		p.set(uid, nil)
		if id, err := cache.Authenticate(t.Context(), tokens[i]); err != nil || id.UID != uid {
			t.Errorf("%s: %+v, %v", uid, id, err)
		}
		p.set(uid, Refuse(ReasonRevoked, ""))
		_, err := cache.Authenticate(t.Context(), tokens[i])
		wantReason(t, uid, err, ReasonRevoked)
	}
}

// A hit costs no allocation, whoever is asked and by whichever view.
func TestCacheHitWithStandsAllocatesNothing(t *testing.T) {
	c := newClock()
	cache, p := newStanding(t, c, 100)
	token := mint(0, "k0", claims(c.now()))
	for name, a := range map[string]proxy.Authenticator{"the cache": cache, "a view": cache.For(cache.set)} {
		if _, err := a.Authenticate(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		asked := p.asked.Load()
		if n := testing.AllocsPerRun(100, func() {
			if _, err := a.Authenticate(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}); n != 0 || p.asked.Load() < asked+100 {
			t.Errorf("%s: %v allocations, asked %d times", name, n, p.asked.Load()-asked)
		}
	}
}
