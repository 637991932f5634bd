package proxy

import (
	"context"
	"sync"
	"time"
)

// A lazyTimeout is a context that ends at most so long after somebody began to wait
// for its end. Most records are made before anybody does: then it costs no timer.
// It is safe for concurrent use.
type lazyTimeout struct {
	context.Context // what it ends with in any case
	most            time.Duration

	mu     sync.Mutex
	inner  context.Context // nil: nobody waits
	cancel context.CancelFunc
}

// bounded is the context with the bound, which has begun where begin is true.
func (p *lazyTimeout) bounded(begin bool) context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inner == nil {
		if !begin {
			return p.Context
		}
		p.inner, p.cancel = context.WithTimeout(p.Context, p.most)
	}
	return p.inner
}

func (p *lazyTimeout) Done() <-chan struct{} { return p.bounded(true).Done() }

// Deadline is asked for by who hands it on, and so begins the wait.
func (p *lazyTimeout) Deadline() (time.Time, bool) { return p.bounded(true).Deadline() }

func (p *lazyTimeout) Err() error { return p.bounded(false).Err() }

// Value knows the bound, so that context.Cause does.
func (p *lazyTimeout) Value(key any) any { return p.bounded(false).Value(key) }

// release stops the timer, where there is one.
func (p *lazyTimeout) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel != nil {
		p.cancel()
	}
}
