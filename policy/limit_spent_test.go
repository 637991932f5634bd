package policy

import (
	"testing"
	"time"
)

// TestSpent: it names the limit that has nothing left, of several the one that is
// to be waited for longest, else the first, and takes nothing by looking.
func TestSpent(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	l := NewLimiter(0)
	uid, route := rated(t, "1/m", 2, LimitUID), rated(t, "1/m", 3, LimitRoute)
	route.id = "r/1"
	both := []*Limit{route, uid}
	for n := range 2 {
		if spent := l.Spent(both, as(), now); spent != nil {
			t.Fatalf("after %d: %v", n, spent.By)
		}
		if _, ok := l.Take(both, as(), now); !ok {
			t.Fatalf("looking took something: %d", n)
		}
	}
	if _, ok := l.Take(both, as(), now); ok || l.Spent(both, as(), now) != uid {
		t.Errorf("not the limit by uid")
	}
	carol := as(func(i *Identity) { i.UID = "carol" })
	if _, ok := l.Take(both, carol, now); !ok || l.Spent(both, carol, now) != route || l.Spent(both, as(), now) != route {
		t.Errorf("not the limit by route")
	}
	if spent := l.Spent(both, carol, now.Add(time.Minute)); spent != nil {
		t.Errorf("later: %v", spent.By)
	}
	if spent := l.Spent(both, &Input{}, now.Add(time.Hour)); spent != uid {
		t.Errorf("of nobody: %v", spent)
	}
	hourly := rated(t, "1/h", 3, LimitRoute)
	hourly.id = "r/2"
	for range 3 {
		l.Take([]*Limit{hourly}, carol, now)
	}
	if spent := l.Spent([]*Limit{route, hourly}, carol, now); spent != hourly {
		t.Errorf("of two that are used up: %v", spent)
	}
	if n := l.Held(); n != 4 || n != l.held() {
		t.Errorf("%d budgets", n)
	}
}
