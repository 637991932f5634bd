package oidc

import (
	"fmt"
	"testing"
	"time"

	"sidegate/policy"
)

// TestCacheTellsTokensOfOneHashApart: a hash finds the place, and only the token
// itself the identity.
func TestCacheTellsTokensOfOneHashApart(t *testing.T) {
	c := newClock()
	cache, p, _ := newCache(t, c, CacheOptions{Entries: 640})
	s, set := &cache.shards[0], cache.set
	put := func(token string) *policy.Identity {
		id := &policy.Identity{UID: token}
		s.put(7, entry{token: token, set: set, provider: p, verified: Verified{Identity: id, Until: c.now().Add(time.Hour), Epoch: p.Epoch()}, used: c.now()})
		return id
	}
	first := put("first")
	if id, _, ok := s.get(set, 7, "second", c.now()); ok {
		t.Fatalf("the second token is %v's", id.UID)
	}
	if s.drop(7, "second"); s.entries.Len() != 1 {
		t.Error("one token's end was another's")
	}
	if id, _, ok := s.get(set, 7, "first", c.now()); !ok || id != first {
		t.Errorf("%v, %v", id, ok)
	}
	second := put("second")
	if id, _, ok := s.get(set, 7, "second", c.now()); !ok || id != second {
		t.Errorf("%v, %v", id, ok)
	}
	if _, _, ok := s.get(set, 7, "first", c.now()); ok {
		t.Error("the first token is still there")
	}
	if s.bytes != weight("second") || s.entries.Len() != 1 {
		t.Errorf("%d bytes, %d entries", s.bytes, s.entries.Len())
	}
	if s.drop(7, "second"); s.bytes != 0 {
		t.Errorf("empty, and %d bytes", s.bytes)
	}
}

// TestCacheForgetsTheOneNotUsed: to a second, the token that was not used for
// longest goes first; where the clock went back, use counts at once.
func TestCacheForgetsTheOneNotUsed(t *testing.T) {
	c := newClock()
	cache, p, _ := newCache(t, c, CacheOptions{Entries: 3 * shards})
	s, set := &cache.shards[0], cache.set
	put := func(n uint64) {
		s.put(n, entry{token: fmt.Sprint(n), set: set, provider: p, verified: Verified{Identity: new(policy.Identity), Until: c.now().Add(time.Hour), Epoch: p.Epoch()}, used: c.now()})
	}
	use := func(n uint64) {
		if _, _, ok := s.get(set, n, fmt.Sprint(n), c.now()); !ok {
			t.Errorf("%d is gone", n)
		}
	}
	put(1)
	put(2)
	put(3)
	c.move(usedFor)
	use(1)
	c.move(usedFor)
	put(4) // in the place of 2
	use(3)
	c.move(-2 * usedFor)
	use(1)
	c.move(2 * usedFor)
	put(5) // in the place of 4
	for _, n := range []uint64{1, 3, 5} {
		use(n)
	}
	if s.entries.Len() != 3 {
		t.Errorf("%d entries", s.entries.Len())
	}
}
