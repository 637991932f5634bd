package transport

import (
	"sync"
	"time"
)

const (
	// sweepEvery is how often idle connections are looked at, those of an address
	// at once: one timer, and none for a connection.
	sweepEvery = 15 * time.Second
	sweeps     = uint(idleTimeout / sweepEvery)
)

// idleConns are the connections to one address that nobody uses, the oldest
// first. The youngest is used next, so that those which are too many grow old.
// The zero value is ready.
type idleConns struct {
	mu    sync.Mutex
	conns []*ownConn
	swept uint        // times
	timer *time.Timer // nil: there is nothing to sweep
	shut  bool        // those that come back are closed, until somebody asks again
}

// take gives a connection that lives and over which nothing came unasked, or
// nil. unseen: whoever takes it looks himself.
func (l *idleConns) take(unseen bool) *ownConn {
	for {
		c := l.pop()
		if c == nil || unseen || c.quiet() {
			return c
		}
		c.close()
	}
}

func (l *idleConns) pop() *ownConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut = false
	n := len(l.conns) - 1
	if n < 0 {
		return nil
	}
	c := l.conns[n]
	l.conns[n] = nil
	l.conns = l.conns[:n]
	return c
}

// put keeps a connection, or closes it.
func (l *idleConns) put(c *ownConn) {
	if !l.keep(c) {
		c.close()
	}
}

func (l *idleConns) keep(c *ownConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shut || len(l.conns) >= maxIdle {
		return false
	}
	c.reused, c.idleSince = true, l.swept
	l.conns = append(l.conns, c)
	if l.timer == nil {
		l.timer = time.AfterFunc(sweepEvery, l.sweep)
	}
	return true
}

// sweep closes what was idle for long, and what the app closed meanwhile: its
// side of it would else wait as long.
func (l *idleConns) sweep() {
	for _, c := range l.stale() {
		c.close()
	}
}

func (l *idleConns) stale() []*ownConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.swept++
	var stale []*ownConn
	kept := l.conns[:0]
	for _, c := range l.conns {
		if l.swept-c.idleSince >= sweeps || !c.quiet() {
			stale = append(stale, c)
		} else {
			kept = append(kept, c)
		}
	}
	clear(l.conns[len(kept):])
	l.conns = kept
	if l.timer == nil {
		return stale // closeAll came first
	}
	if len(kept) == 0 {
		l.timer = nil
		return stale
	}
	l.timer.Reset(sweepEvery)
	return stale
}

func (l *idleConns) closeAll() {
	l.mu.Lock()
	conns := l.conns
	l.conns, l.shut = nil, true
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.mu.Unlock()
	for _, c := range conns {
		c.close()
	}
}
