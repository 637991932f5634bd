package proxy

import (
	"maps"
	"sync"
	"sync/atomic"
)

// children are parts of a metric that were looked up once. To find one again
// takes neither a lock nor memory; a new one copies all, which is done once for
// each. It is safe for concurrent use once make is set.
type children[K comparable, V any] struct {
	make  func(K) V // what is made twice must be the same
	known atomic.Pointer[map[K]V]
	mu    sync.Mutex // held to add one
}

func (c *children[K, V]) get(key K) V {
	if known := c.known.Load(); known != nil {
		if v, ok := (*known)[key]; ok {
			return v
		}
	}
	return c.add(key)
}

func (c *children[K, V]) add(key K) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := map[K]V{}
	if known := c.known.Load(); known != nil {
		if v, ok := (*known)[key]; ok { // another was as fast
			return v
		}
		next = maps.Clone(*known)
	}
	v := c.make(key)
	next[key] = v
	c.known.Store(&next)
	return v
}

// keep lets go of all others.
func (c *children[K, V]) keep(keys map[K]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := map[K]V{}
	if known := c.known.Load(); known != nil {
		for key, v := range *known {
			if keys[key] {
				next[key] = v
			}
		}
	}
	c.known.Store(&next)
}
