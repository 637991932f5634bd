package oidc

import (
	"context"
	"errors"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"sidegate/policy"
	"sidegate/proxy"
)

const (
	// shards keep concurrent requests from waiting for one lock; a power of
	// two.
	shards = 64
	// entryFactor and entryBytes estimate what an entry holds: the token, the
	// text of its claims and places in it, the claims once more in what upstreams
	// are told and in what the audit log says, and what every entry has.
	entryFactor = 5
	entryBytes  = 3 << 9
	// defaultEntryBytes is room for a token of 1.3 KB, and for longer ones
	// where others are shorter.
	defaultEntryBytes = 8 << 10
)

// A Cache remembers the tokens that a Set verified, until verification would
// refuse them as expired or their provider's Epoch changes. It is keyed by the
// whole token, and remembers no refusal: a stranger cannot push out what
// callers with good tokens have there. What a provider says of the user (Stands)
// is asked each time, and a token whose user is none any more is forgotten. It
// is safe for concurrent use.
type Cache struct {
	set    *Set
	now    func() time.Time
	seed   maphash.Seed
	shards [shards]shard

	hits, misses atomic.Uint64
}

var _ proxy.Authenticator = (*Cache)(nil)

type shard struct {
	mu       sync.Mutex
	entries  *simplelru.LRU[uint64, entry] // by the token's hash
	bytes    int
	maxBytes int
	_        [64]byte // no two shards' locks in one cache line
}

// An entry lies in one piece, within the list's own, so that a hit looks at few
// places of memory beside the token itself.
type entry struct {
	token    string // the whole: tokens of one hash are told apart by it
	set      *Set   // that verified it: another would not have to
	verified Verified
	provider Provider
	used     time.Time // about
}

// usedFor is how exactly it is known when an entry was used last. To make it the
// newest touches those beside it in the order, which are other callers' and not
// in the processor's cache.
const usedFor = time.Second

// CacheOptions bound a Cache.
type CacheOptions struct {
	Entries int   // tokens at most, at least 1
	Bytes   int64 // about as much memory at most (each shard has room for one token); 0: 8 KiB for each of Entries
	// Now is the clock; the default is time.Now. It must be that of the
	// providers.
	Now func() time.Time
}

// NewCache puts a Cache before a Set.
func NewCache(set *Set, o CacheOptions) (*Cache, error) {
	if set == nil || o.Entries < 1 || o.Bytes < 0 {
		return nil, errors.New("a token cache needs a set of providers and room for at least one token")
	}
	c := &Cache{set: set, now: o.Now, seed: maphash.MakeSeed()}
	if c.now == nil {
		c.now = time.Now
	}
	if o.Bytes == 0 {
		o.Bytes = int64(o.Entries) * defaultEntryBytes
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.maxBytes = max(int(o.Bytes/shards), weight("")+entryFactor*MaxTokenBytes)
		size := (o.Entries + shards - 1) / shards
		var err error
		s.entries, err = simplelru.NewLRU(size, func(_ uint64, e entry) { s.bytes -= weight(e.token) })
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

func weight(token string) int { return entryFactor*len(token) + entryBytes }

// Authenticate gives the identity of a token that was verified before, or has
// it verified.
func (c *Cache) Authenticate(ctx context.Context, token string) (*policy.Identity, error) {
	return c.authenticate(ctx, c.set, token)
}

// For is the Cache before another Set: they share the room, and what one of
// them verified counts for nothing with the other.
func (c *Cache) For(set *Set) proxy.Authenticator { return view{c, set} }

type view struct {
	cache *Cache
	set   *Set
}

func (v view) Authenticate(ctx context.Context, token string) (*policy.Identity, error) {
	return v.cache.authenticate(ctx, v.set, token)
}

func (c *Cache) authenticate(ctx context.Context, set *Set, token string) (*policy.Identity, error) {
	if len(token) > MaxTokenBytes {
		return set.Authenticate(ctx, token) // which refuses it: not worth a hash
	}
	hash := maphash.String(c.seed, token)
	s := &c.shards[hash%shards]
	if id, stands, ok := s.get(set, hash, token, c.now()); ok {
		if stands != nil {
			if err := stands(ctx); err != nil {
				if !errors.Is(err, proxy.ErrUnavailable) {
					s.drop(hash, token)
				}
				return nil, err
			}
		}
		c.hits.Add(1)
		return id, nil
	}
	c.misses.Add(1)
	// A copy: the caller's is part of all the headers of its request, and the
	// identity keeps parts of it.
	token = strings.Clone(token)
	v, provider, err := set.verify(ctx, token)
	if err != nil {
		return nil, err
	}
	v.Identity = v.Identity.Keep()
	s.put(hash, entry{token: token, set: set, verified: v, provider: provider, used: c.now()})
	return v.Identity, nil
}

func (s *shard) get(set *Set, hash uint64, token string, now time.Time) (id *policy.Identity, stands func(context.Context) error, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries.Peek(hash)
	if !ok || e.token != token || e.set != set {
		return nil, nil, false
	}
	if !now.Before(e.verified.Until) || e.verified.Epoch != e.provider.Epoch() {
		s.entries.Remove(hash)
		return nil, nil, false
	}
	if since := now.Sub(e.used); since >= usedFor || since < 0 { // or the clock went back
		e.used = now
		s.entries.Add(hash, e) // in its own place, and the newest
	}
	return e.verified.Identity, e.verified.Stands, true
}

func (s *shard) drop(hash uint64, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.entries.Peek(hash); ok && e.token == token {
		s.entries.Remove(hash)
	}
}

func (s *shard) put(hash uint64, e entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Another request with the token may have been as fast; another token of the
	// same hash, which chance alone could find, makes room for this one.
	s.entries.Remove(hash)
	s.entries.Add(hash, e)
	s.bytes += weight(e.token)
	for s.bytes > s.maxBytes {
		s.entries.RemoveOldest()
	}
}

// CacheStats count what a Cache did and holds.
type CacheStats struct {
	Hits, Misses uint64
	Entries      int
	Bytes        int64 // an estimate
}

// Stats tells the counts; entries that have ended count until they are asked
// for or pushed out.
func (c *Cache) Stats() CacheStats {
	stats := CacheStats{Hits: c.hits.Load(), Misses: c.misses.Load()}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		stats.Entries += s.entries.Len()
		stats.Bytes += int64(s.bytes)
		s.mu.Unlock()
	}
	return stats
}
