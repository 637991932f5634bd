package leash

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func begun(t *testing.T) (l *Leash, ctx context.Context, end func()) {
	l = &Leash{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), Key{}, l))
	l.Begin(ctx)
	return l, ctx, func() { cancel(); l.Pull() }
}

// TestLeash: what is tied is let go once the context has ended, and never after
// it was untied.
func TestLeash(t *testing.T) {
	_, ctx, end := begun(t)
	let := 0
	a := Tie(ctx, func() { let++ })
	if a == nil || Tie(ctx, func() {}) != nil {
		t.Fatal("one at a time")
	}
	if !a.Untie() || let != 0 {
		t.Error("let go before the end")
	}
	a = Tie(context.WithValue(ctx, t, 1), func() { let++ })
	end()
	if let != 1 || a.Untie() {
		t.Errorf("let go %d times", let)
	}
	end()
	if let != 1 {
		t.Error("let go when it was untied")
	}
	if a = Tie(ctx, func() { let++ }); let != 2 || a.Untie() {
		t.Error("not let go when the context had ended before")
	}
}

// TestNotTied: a context that can end while the Leash's does not is watched
// otherwise.
func TestNotTied(t *testing.T) {
	_, ctx, _ := begun(t)
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	hasty, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	for name, ctx := range map[string]context.Context{"none": t.Context(), "child": child, "deadline": hasty, "without": context.WithoutCancel(ctx)} {
		if Tie(ctx, func() {}) != nil {
			t.Errorf("%s: tied", name)
		}
	}
}

// TestLeashAtOnce: Untie says what became of it, whoever comes first.
func TestLeashAtOnce(t *testing.T) {
	for range 1000 {
		_, ctx, end := begun(t)
		var let atomic.Bool
		var all sync.WaitGroup
		all.Go(end)
		a := Tie(ctx, func() { let.Store(true) })
		free := a.Untie()
		if was := let.Load(); free == was {
			t.Fatalf("free %v, let go %v", free, was)
		}
		all.Wait()
		if free == let.Load() {
			t.Fatal("let go when it was untied")
		}
	}
}
