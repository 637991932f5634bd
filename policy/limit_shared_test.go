package policy

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestDraws: of two callers or limits whose budgets are apart in a Limiter the
// Draws have different keys, of those that share one they have the same, and a
// second Limiter, which is another gateway, makes no difference.
func TestDraws(t *testing.T) {
	inputs := []*Input{
		as(), as(named("mobile")), as(withUID("alice")), as(withUID("Bob")), as(func(id *Identity) { id.Namespace = "mobile" }),
		as(func(id *Identity) { id.Namespace, id.UID = "ab", "c" }), as(func(id *Identity) { id.Namespace, id.UID = "a", "bc" }),
		as(func(id *Identity) { id.Namespace, id.UID = "a", "\x01b" }), as(func(id *Identity) { id.Namespace, id.UID = "a\x01", "b" }),
		as(func(id *Identity) { id.Name, id.Actor = "agents", "bot" }), as(func(id *Identity) { id.Name, id.Actor = "users", "bob" }),
		as(withUID(strings.Repeat("x", 2000) + "a")), as(withUID(strings.Repeat("x", 2000) + "b")),
		from("192.0.2.1"), from("::ffff:192.0.2.1"), from("192.0.2.2"), from("c000:201::"), from("2001:db8:1:2::1"), from("2001:db8:1:2::2"), from("2001:db8:1:3::1"), from("fe80::1%eth0"), from("fe80::1"),
	}
	var limits []*Limit
	for by := LimitUID; by <= LimitRoute; by++ {
		base := Limit{Count: 10, Period: time.Hour, Burst: 1, By: by, id: "r/0"}
		for _, change := range []func(*Limit){
			func(*Limit) {}, func(l *Limit) { l.Count = 11 }, func(l *Limit) { l.Period = time.Minute }, func(l *Limit) { l.Burst = 2 },
			func(l *Limit) { l.id = "r/1" }, func(l *Limit) { l.id = "r/01" }, func(l *Limit) { l.id = "" }, func(l *Limit) { l.Refuse = true },
		} {
			one := base
			change(&one)
			limits = append(limits, &one)
		}
	}
	type budgetOf struct{ limit, in int }
	of := map[budgetKey]budgetOf{}
	keys := map[[24]byte]budgetKey{}
	l := NewLimiter(0)
	for i, limit := range limits {
		for j, in := range inputs {
			b, ok := l.budget(limit, in)
			draws, drawn := Draws(nil, only(limit), in)
			if ok != drawn {
				t.Fatalf("%+v of %+v: a Limiter has a budget: %t, and Draws: %t", limit, in, ok, drawn)
			}
			if !ok {
				continue
			}
			d := draws[0]
			if d.Count != limit.Count || d.Period != limit.Period || d.Burst != limit.Burst {
				t.Errorf("%+v is drawn as %+v", limit, d)
			}
			if key, known := keys[d.Key]; known && key != b.key {
				t.Errorf("%+v of %d shares a key with %+v", limit, j, of[key])
			}
			for other, key := range keys {
				if key == b.key && other != d.Key {
					t.Errorf("%+v of %d has two keys", limit, j)
				}
			}
			keys[d.Key], of[b.key] = b.key, budgetOf{i, j}
		}
	}
	if len(keys) < 100 {
		t.Errorf("%d keys", len(keys))
	}
}

// TestDrawsFailClosed: no Draw where it cannot be told whose budget it is.
func TestDrawsFailClosed(t *testing.T) {
	good := &Limit{Count: 10, Period: time.Hour, Burst: 3, By: LimitRoute, id: "r/0"}
	for name, c := range map[string]struct {
		limit Limit
		in    *Input
	}{
		"uid, nobody":    {Limit{Count: 1, Period: time.Hour, Burst: 1, By: LimitUID}, from("192.0.2.1")},
		"actor, nobody":  {Limit{Count: 1, Period: time.Hour, Burst: 1, By: LimitActor}, from("192.0.2.1")},
		"ip, no address": {Limit{Count: 1, Period: time.Hour, Burst: 1, By: LimitIP}, &Input{IP: netip.Addr{}, Identity: bob()}},
		"unknown":        {Limit{Count: 1, Period: time.Hour, Burst: 1, By: 4}, as()},
		"zero limit":     {Limit{}, as()},
		"great burst":    {Limit{Count: 1, Period: time.Hour, Burst: maxRequests + 1, By: LimitRoute}, as()},
		"another period": {Limit{Count: 1, Period: time.Hour + 1, Burst: 1, By: LimitRoute}, as()},
	} {
		if draws, ok := Draws(nil, []*Limit{good, &c.limit}, c.in); ok || draws != nil {
			t.Errorf("%s: %v %t", name, draws, ok)
		}
	}
}

// TestDrawsTellNothing: what is sent away holds no uid and no address.
func TestDrawsTellNothing(t *testing.T) {
	limits := []*Limit{rated(t, "1/h", 1, LimitUID), rated(t, "2/h", 1, LimitIP)}
	in := &Input{Identity: bob(withUID("alice")), IP: netip.MustParseAddr("192.0.2.1")}
	draws, ok := Draws(nil, limits, in)
	if !ok || len(draws) != 2 {
		t.Fatalf("%v %t", draws, ok)
	}
	for _, d := range draws {
		if text := string(d.Key[:]); strings.Contains(text, "alice") || strings.Contains(text, "\xc0\x00\x02\x01") {
			t.Errorf("%q", text)
		}
	}
}

func TestUnavailable(t *testing.T) {
	for text, want := range map[string]bool{"": false, ", unavailable: local": false, ", unavailable: refuse": true} {
		p, err := Load("policy.yaml", []byte("version: sidegate-policy/v1\nroutes:\n  - {id: a, path: /a, methods: [GET], upstream: app, allow: public, limit: {rate: 1/s, per: ip"+text+"}}\n"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Routes[0].IPLimits[0].Refuse; got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}
