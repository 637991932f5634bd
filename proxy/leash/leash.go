// Package leash ends what waits for an app at once when the request that it is
// done for ends. context.AfterFunc does so, too, and costs four pieces of memory
// and two turns in a map for each request, of which next to none ends early.
package leash

import (
	"context"
	"sync"
)

// Key is what a context that has a Leash is asked for it by.
type Key struct{}

// A Leash is of one context. Whoever cancels that context pulls the Leash then;
// there must be nothing else that cancels it. It is safe for concurrent use, and
// not to be copied.
type Leash struct {
	mu     sync.Mutex
	ctx    context.Context
	let    func() // nil: nothing is tied
	pulled bool
}

// Begin says whose it is, before anybody else has it.
func (l *Leash) Begin(ctx context.Context) { l.ctx = ctx }

// Tie has let called when the context ends, or at once where it has ended. let
// must not wait, and may be called once more by a second Pull. Nil: there is no
// Leash, it has something tied already, or something between the context and its
// own can end it alone. Else Untie must follow.
func Tie(ctx context.Context, let func()) *Leash {
	l, _ := ctx.Value(Key{}).(*Leash)
	if l == nil || l.ctx.Done() != ctx.Done() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.let != nil {
		return nil
	}
	l.let = let
	if l.pulled {
		let()
	}
	return l
}

// Untie reports whether let was not called. When it returns let is not called any
// more.
func (l *Leash) Untie() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.let = nil
	return !l.pulled
}

// Pull calls what is tied.
func (l *Leash) Pull() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pulled = true
	if l.let != nil {
		l.let()
	}
}
