package policy

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rated is a limit as a policy has it.
func rated(t testing.TB, rate string, burst int, by LimitBy) *Limit {
	t.Helper()
	count, period, ok := parseRate(rate)
	if !ok {
		t.Fatalf("rate %q", rate)
	}
	return &Limit{Count: count, Period: period, Burst: burst, By: by, id: "r/0"}
}

func only(l *Limit) []*Limit { return []*Limit{l} }

func from(ip string) *Input { return &Input{IP: netip.MustParseAddr(ip)} }

func as(change ...func(*Identity)) *Input { return &Input{Identity: bob(change...)} }

// takes is how many requests of up to most are let through at one instant.
func takes(l *Limiter, limits []*Limit, in *Input, now time.Time, most int) int {
	for n := range most {
		if _, ok := l.Take(limits, in, now); !ok {
			return n
		}
	}
	return most
}

// held is how many budgets there is state of.
func (l *Limiter) held() int {
	n := 0
	for i := range l.shards {
		s := &l.shards[i]
		if len(s.index) != len(s.all) || len(s.all) > s.max {
			panic(fmt.Sprintf("%d in the index, %d of at most %d", len(s.index), len(s.all), s.max))
		}
		for key, i := range s.index {
			if s.all[i].key != key {
				panic("the index leads to another budget")
			}
		}
		n += len(s.all)
	}
	return n
}

func TestParseRate(t *testing.T) {
	for s, want := range map[string]time.Duration{"1/s": time.Second, "30/m": time.Minute, "1000/h": time.Hour, "1000000/d": 24 * time.Hour} {
		count, period, ok := parseRate(s)
		if !ok || period != want || !strings.HasPrefix(s, fmt.Sprint(count, "/")) {
			t.Errorf("%s: %d %s %t", s, count, period, ok)
		}
	}
	for _, s := range []string{
		"", "/", "1", "1/", "/m", "0/m", "1000001/s", "99999999999999999999/s", "-1/s", "+1/s", "01/s", "1_0/s", "1.5/s", "1e3/s", "0x1/s",
		"1/S", "1/ms", "1/w", "1/m ", " 1/m", "1 /m", "1/ m", "1/m/", "1//m", "1/m\n", "１/m", "1\x00/m",
	} {
		if count, period, ok := parseRate(s); ok || count != 0 || period != 0 {
			t.Errorf("%q: %d %s %t", s, count, period, ok)
		}
	}
}

func FuzzRate(f *testing.F) {
	for _, s := range []string{"30/m", "1/s", "1000000/d", "01/h", "1/", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		count, period, ok := parseRate(s)
		if !ok {
			if count != 0 || period != 0 {
				t.Fatalf("%q: refused, and %d %s", s, count, period)
			}
			return
		}
		l := Limit{Count: count, Period: period, Burst: count}
		if !l.valid() {
			t.Fatalf("%q: %d %s", s, count, period)
		}
		unit := map[time.Duration]string{time.Second: "s", time.Minute: "m", time.Hour: "h", 24 * time.Hour: "d"}[period]
		if again := fmt.Sprintf("%d/%s", count, unit); again != s {
			t.Fatalf("%q and %q are the same rate", s, again)
		}
	})
}

func TestLimitBy(t *testing.T) {
	for by, want := range map[LimitBy]string{LimitUID: "uid", LimitIP: "ip", LimitActor: "actor", LimitRoute: "route", 4: "unknown", 255: "unknown"} {
		if by.String() != want {
			t.Errorf("%d: %s", by, by)
		}
	}
}

// TestMoments: sums are exact, and each moment has one form, whatever the parts
// add up to.
func TestMoments(t *testing.T) {
	parts := func(m moment, count uint32) *big.Int { // of a nanosecond
		n := new(big.Int).Mul(big.NewInt(m.sec), big.NewInt(1e9))
		n.Add(n, big.NewInt(int64(m.ns))).Mul(n, big.NewInt(int64(count)))
		return n.Add(n, big.NewInt(int64(m.frac)))
	}
	for _, count := range []uint32{1, 2, 3, 7, maxRequests - 1, maxRequests} {
		var all []moment
		for _, sec := range []int64{-1 << 33, -1, 0, 1, 1 << 37} {
			for _, ns := range []uint32{0, 1, 5e8, second - 1} {
				all = append(all, moment{sec, ns, 0}, moment{sec, ns, count / 2}, moment{sec, ns, count - 1})
			}
		}
		for _, a := range all {
			for _, b := range all {
				sum := a.add(b, count)
				if sum.ns >= second || sum.frac >= count || parts(sum, count).Cmp(new(big.Int).Add(parts(a, count), parts(b, count))) != 0 {
					t.Errorf("in parts of %d: %v and %v are %v", count, a, b, sum)
				}
				if want := parts(a, count).Cmp(parts(b, count)) > 0; a.after(b) != want {
					t.Errorf("in parts of %d: %v after %v is %t", count, a, b, !want)
				}
			}
		}
	}
	if d := (moment{sec: 1 << 37}).since(moment{}); d != math.MaxInt64 {
		t.Errorf("what no Duration holds: %s", d)
	}
	if d := (moment{sec: 1 << 33, ns: 1, frac: 1}).since(moment{sec: 1, ns: 2}); d != (1<<33-1)*time.Second {
		t.Errorf("%s", d)
	}
}

// TestLimitArithmetic: a burst at once, nothing before the nanosecond at which
// the next is due, and that is what retry says.
func TestLimitArithmetic(t *testing.T) {
	for _, c := range []struct {
		rate  string
		burst int
		after []time.Duration // of each request after the burst, from its time
	}{
		{"1/s", 1, []time.Duration{1e9, 2e9, 3e9}},
		{"1/s", 3, []time.Duration{1e9, 2e9, 3e9}},
		{"30/m", 10, []time.Duration{2e9, 4e9, 6e9}},
		{"3/s", 2, []time.Duration{333333334, 666666667, 1e9, 1333333334}},
		{"3/s", 1, []time.Duration{333333334, 666666668, 1000000002}}, // nothing is saved up, not even parts of a nanosecond
		{"7/s", 2, []time.Duration{142857143, 285714286, 428571429, 571428572, 714285715, 857142858, 1e9}},
		{"1000000/s", 1, []time.Duration{1000, 2000}},
		{"999999/s", 2, []time.Duration{1001, 2001, 3001}}, // 1000.001 each, rounded up
		{"7/d", 2, []time.Duration{12342857142858, 24685714285715}},
		{"1/d", 1, []time.Duration{86400e9, 2 * 86400e9}},
		{"1/d", 1000000, []time.Duration{86400e9, 2 * 86400e9}},
		{"1000000/s", 1000000, []time.Duration{1000, 2000}},
	} {
		t.Run(fmt.Sprint(c.rate, " ", c.burst), func(t *testing.T) {
			l, limits := NewLimiter(64), only(rated(t, c.rate, c.burst, LimitRoute))
			if n := takes(l, limits, &Input{}, noon, c.burst+1); n != c.burst {
				t.Fatalf("%d at once", n)
			}
			last := time.Duration(0)
			for _, due := range c.after {
				for _, at := range []time.Duration{last, due - 1} {
					if retry, ok := l.Take(limits, &Input{}, noon.Add(at)); ok || retry != due-at {
						t.Fatalf("at %s: %s %t, want %s", at, retry, ok, due-at)
					}
				}
				if retry, ok := l.Take(limits, &Input{}, noon.Add(due)); !ok || retry != 0 {
					t.Fatalf("at %s: %s %t", due, retry, ok)
				}
				last = due
			}
		})
	}
}

// TestLimitRefill: what was not used is there later, and never more than a burst.
func TestLimitRefill(t *testing.T) {
	l, limits := NewLimiter(64), only(rated(t, "30/m", 10, LimitRoute))
	takes(l, limits, &Input{}, noon, 10)
	for _, c := range []struct {
		at   time.Duration
		want int
	}{{6e9 - 1, 2}, {6e9, 1}, {26e9, 10}, {time.Hour, 10}, {24 * 365 * 200 * time.Hour, 10}, {24*365*200*time.Hour + 2e9, 1}} {
		if n := takes(l, limits, &Input{}, noon.Add(c.at), 20); n != c.want {
			t.Errorf("at %s: %d, want %d", c.at, n, c.want)
		}
	}
}

// A leak is the reference: a bucket that leaks count requests in each period, in
// whole numbers of one part in period of a request.
type leak struct {
	count, period, full, level *big.Int
	at                         time.Time
}

func newLeak(l *Limit, now time.Time) *leak {
	period := big.NewInt(int64(l.Period))
	return &leak{big.NewInt(int64(l.Count)), period, new(big.Int).Mul(period, big.NewInt(int64(l.Burst))), new(big.Int), now}
}

func (b *leak) take(now time.Time) (retry time.Duration, ok bool) {
	gone := new(big.Int).Mul(b.count, big.NewInt(int64(now.Sub(b.at))))
	if b.at = now; b.level.Sub(b.level, gone).Sign() < 0 {
		b.level.SetInt64(0)
	}
	over := new(big.Int).Add(b.level, b.period)
	if over.Sub(over, b.full).Sign() <= 0 {
		b.level.Add(b.level, b.period)
		return 0, true
	}
	over.Add(over, b.count).Sub(over, big.NewInt(1))
	return time.Duration(over.Div(over, b.count).Int64()), false // rounded up
}

// TestLimitAgainstReference holds every answer against an exact bucket, and what
// was let through in the whole against the rate.
func TestLimitAgainstReference(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	periods := []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour}
	upTo := func(n int) int { return 1 + int(math.Pow(float64(n), random.Float64())) - random.IntN(2) }
	for range 300 {
		limit := &Limit{Count: min(upTo(maxRequests), maxRequests), Period: periods[random.IntN(4)], Burst: min(upTo(maxRequests), maxRequests), By: LimitRoute}
		limit.Count, limit.Burst = max(limit.Count, 1), max(limit.Burst, 1)
		if random.IntN(2) == 0 {
			limit.Burst = 1 + random.IntN(20)
		}
		now := noon.Add(time.Duration(random.Int64N(int64(time.Hour))))
		l, want, begin, passed := NewLimiter(64), newLeak(limit, now), now, int64(0)
		cost := max(int64(limit.Period)/int64(limit.Count), 1)
		for range 500 {
			wait, ok := l.Take(only(limit), &Input{}, now)
			if refWait, refOK := want.take(now); ok != refOK || wait != refWait {
				t.Fatalf("seed %d: %+v after %s: %s %t, want %s %t", seed, limit, now.Sub(begin), wait, ok, refWait, refOK)
			}
			if ok {
				passed++
			}
			switch random.IntN(8) {
			case 0:
				now = now.Add(time.Duration(random.Int64N(3 * cost)))
			case 1:
				now = now.Add(wait)
			case 2:
				now = now.Add(max(wait-1, 0))
			case 3:
				now = now.Add(time.Duration(random.Int64N(10)))
			case 4:
				if random.IntN(50) == 0 {
					now = now.Add(time.Duration(cost) * time.Duration(random.IntN(min(limit.Burst, 1000))))
				}
			}
		}
		// passed <= burst + elapsed * count / period
		most := new(big.Int).Mul(big.NewInt(int64(now.Sub(begin))), want.count)
		if most.Add(most, want.full).Cmp(new(big.Int).Mul(big.NewInt(passed), want.period)) < 0 {
			t.Fatalf("seed %d: %+v: %d let through in %s", seed, limit, passed, now.Sub(begin))
		}
	}
}

// TestLimitLongRun: whoever comes exactly when told to gets the rate, to the
// nanosecond, and rounding adds up to nothing.
func TestLimitLongRun(t *testing.T) {
	for _, rate := range []string{"999983/s", "7/s", "999983/m", "13/h", "999983/d"} {
		limit := rated(t, rate, 5, LimitRoute)
		l, now, passed := NewLimiter(64), noon, 0
		for range 200_000 {
			retry, ok := l.Take(only(limit), &Input{}, now)
			if ok {
				passed++
			}
			now = now.Add(retry)
		}
		need := new(big.Int).Mul(big.NewInt(int64(passed-limit.Burst)), big.NewInt(int64(limit.Period)))
		part := big.NewInt(int64(limit.Count))
		need.Add(need, part).Sub(need, big.NewInt(1)).Div(need, part)
		// The last refusal moved now to when the request after it is due.
		elapsed := now.Sub(noon)
		if over := elapsed - time.Duration(need.Int64()); over < 0 || over > limit.Period/time.Duration(limit.Count)+1 {
			t.Errorf("%s: %d in %s, %s more than needed", rate, passed, elapsed, over)
		}
	}
}

// TestLimitBudgets: what shares a budget, and what does not.
func TestLimitBudgets(t *testing.T) {
	actor := func(name, actor string) func(*Identity) {
		return func(id *Identity) { id.Name, id.Actor = name, actor }
	}
	space := func(namespace, uid string) func(*Identity) {
		return func(id *Identity) { id.Namespace, id.UID = namespace, uid }
	}
	long := strings.Repeat("x", 2000)
	for _, c := range []struct {
		name string
		by   LimitBy
		a, b *Input
		same bool
	}{
		{"one uid", LimitUID, as(), as(), true},
		{"one uid, identities of one namespace", LimitUID, as(), as(named("mobile")), true},
		{"one uid, its actor", LimitUID, as(), as(actor("users", "bot")), true},
		{"another address", LimitUID, &Input{Identity: bob(), IP: netip.MustParseAddr("192.0.2.1")}, as(), true},
		{"another uid", LimitUID, as(), as(withUID("alice")), false},
		{"uid of another case", LimitUID, as(), as(withUID("Bob")), false},
		{"another namespace", LimitUID, as(), as(space("mobile", "bob")), false},
		{"parts moved", LimitUID, as(space("a", "bc")), as(space("ab", "c")), false},
		{"parts moved, with their lengths", LimitUID, as(space("a", "\x01b")), as(space("a\x01", "b")), false},
		{"NUL", LimitUID, as(space("a\x00", "b")), as(space("a", "\x00b")), false},
		{"long", LimitUID, as(withUID(long + "a")), as(withUID(long + "b")), false},
		{"long and the same", LimitUID, as(withUID(long)), as(withUID(strings.Clone(long))), true},
		{"one actor for several uids", LimitActor, as(actor("agents", "bot")), as(actor("agents", "bot"), withUID("alice")), true},
		{"another actor", LimitActor, as(actor("agents", "bot")), as(actor("agents", "bot2")), false},
		{"an actor of another identity", LimitActor, as(actor("agents", "bot")), as(actor("users", "bot")), false},
		{"an actor and the uid itself", LimitActor, as(actor("users", "bot")), as(), false},
		{"an actor named as a uid", LimitActor, as(actor("users", "bob")), as(), false},
		{"no actor", LimitActor, as(), as(named("mobile")), true},
		{"no actor, another uid", LimitActor, as(), as(withUID("alice")), false},
		{"one address", LimitIP, from("192.0.2.1"), from("192.0.2.1"), true},
		{"one address, several callers", LimitIP, from("192.0.2.1"), &Input{Identity: bob(), IP: netip.MustParseAddr("192.0.2.1")}, true},
		{"the next address", LimitIP, from("192.0.2.1"), from("192.0.2.2"), false},
		{"4 in 6", LimitIP, from("192.0.2.1"), from("::ffff:192.0.2.1"), true},
		{"4 in 6, in hex", LimitIP, from("192.0.2.1"), from("::ffff:c000:201"), true},
		{"4 in 6, another", LimitIP, from("::ffff:192.0.2.1"), from("::ffff:192.0.2.2"), false},
		{"4 compatible is no 4 in 6", LimitIP, from("192.0.2.1"), from("::192.0.2.1"), false},
		{"one /64", LimitIP, from("2001:db8:1:2::1"), from("2001:db8:1:2:ffff:ffff:ffff:ffff"), true},
		{"the next /64", LimitIP, from("2001:db8:1:2::1"), from("2001:db8:1:3::1"), false},
		{"a zone", LimitIP, from("fe80::1"), from("fe80::1%eth0"), true},
		{"6 that begins as 4", LimitIP, from("192.0.2.1"), from("c000:201::"), false},
		{"the route", LimitRoute, as(), from("192.0.2.1"), true},
	} {
		l, limits := NewLimiter(0), only(rated(t, "1/h", 1, c.by))
		if _, ok := l.Take(limits, c.a, noon); !ok {
			t.Errorf("%s: the first is refused", c.name)
		}
		if _, ok := l.Take(limits, c.a, noon); ok {
			t.Errorf("%s: the first is let through twice", c.name)
		}
		if _, ok := l.Take(limits, c.b, noon); ok == c.same {
			t.Errorf("%s: one budget is %t, want %t", c.name, !ok, c.same)
		}
	}
}

// TestLimitsAreApart: each limit has budgets of its own, and one that a reload
// left as it was keeps them.
func TestLimitsAreApart(t *testing.T) {
	base := Limit{Count: 10, Period: time.Hour, Burst: 3, By: LimitUID, id: "r/0"}
	for name, change := range map[string]func(*Limit){
		"the same": func(*Limit) {},
		"count":    func(l *Limit) { l.Count = 11 },
		"period":   func(l *Limit) { l.Period = time.Minute },
		"less":     func(l *Limit) { l.Burst = 1 },
		"more":     func(l *Limit) { l.Burst = 5 },
		"by":       func(l *Limit) { l.By = LimitActor },
		"index":    func(l *Limit) { l.id = "r/1" },
		"route":    func(l *Limit) { l.id = "s/0" },
	} {
		l, old, reloaded := NewLimiter(0), base, base
		change(&reloaded)
		if n := takes(l, only(&old), as(), noon, 9); n != 3 {
			t.Fatalf("%s: %d before", name, n)
		}
		want := reloaded.Burst
		if reloaded == old {
			want = 0
		}
		if n := takes(l, only(&reloaded), as(), noon, 9); n != want {
			t.Errorf("%s: %d after, want %d", name, n, want)
		}
		if n := takes(l, only(&old), as(), noon, 9); n != 0 {
			t.Errorf("%s: %d of the old one, which requests that began before still have", name, n)
		}
	}
}

func TestLimitFailsClosed(t *testing.T) {
	good := Limit{Count: 10, Period: time.Hour, Burst: 3, By: LimitRoute}
	for name, c := range map[string]struct {
		change func(*Limit)
		in     *Input
	}{
		"uid, nobody":    {func(l *Limit) { l.By = LimitUID }, from("192.0.2.1")},
		"actor, nobody":  {func(l *Limit) { l.By = LimitActor }, from("192.0.2.1")},
		"ip, no address": {func(l *Limit) { l.By = LimitIP }, as()},
		"unknown":        {func(l *Limit) { l.By = 4 }, as()},
		"zero limit":     {func(l *Limit) { *l = Limit{} }, as()},
		"no count":       {func(l *Limit) { l.Count = 0 }, as()},
		"negative count": {func(l *Limit) { l.Count = -1 }, as()},
		"great count":    {func(l *Limit) { l.Count = maxRequests + 1 }, as()},
		"no burst":       {func(l *Limit) { l.Burst = 0 }, as()},
		"great burst":    {func(l *Limit) { l.Burst = math.MaxInt }, as()},
		"no period":      {func(l *Limit) { l.Period = 0 }, as()},
		"another period": {func(l *Limit) { l.Period = time.Second + 1 }, as()},
	} {
		l, first, bad := NewLimiter(0), good, good
		c.change(&bad)
		for range 2 {
			if retry, ok := l.Take([]*Limit{&first, &bad}, c.in, noon); ok || retry != time.Second {
				t.Errorf("%s: %s %t", name, retry, ok)
			}
		}
		if n := takes(l, only(&first), c.in, noon, 9); n != 3 {
			t.Errorf("%s: %d left of the other limit", name, n)
		}
	}
	if retry, ok := NewLimiter(0).Take(nil, &Input{}, noon); !ok || retry != 0 {
		t.Errorf("no limits: %s %t", retry, ok)
	}
}

func TestLimitAllOrNone(t *testing.T) {
	many, few, slow := rated(t, "1/s", 5, LimitUID), rated(t, "1/m", 2, LimitRoute), rated(t, "1/h", 2, LimitUID)
	l := NewLimiter(0)
	for _, limits := range [][]*Limit{{many, few}, {few, many}} {
		if n := takes(l, limits, as(), noon, 1); n != 1 {
			t.Fatal("refused")
		}
	}
	for _, limits := range [][]*Limit{{many, few}, {few, many}} {
		for range 10 {
			if retry, ok := l.Take(limits, as(), noon); ok || retry != time.Minute {
				t.Fatalf("%s %t", retry, ok)
			}
		}
	}
	if n := takes(l, only(many), as(), noon, 9); n != 3 {
		t.Errorf("%d left of the first limit, want 3", n)
	}
	takes(l, only(slow), as(), noon, 2)
	if retry, ok := l.Take([]*Limit{few, slow, many}, as(), noon); ok || retry != time.Hour {
		t.Errorf("the longest of several: %s %t", retry, ok)
	}
	later := noon.Add(time.Hour)
	if retry, ok := l.Take([]*Limit{few, slow, many}, as(), later); !ok {
		t.Errorf("when it said: refused, %s", retry)
	}
}

// TestLimitManyOfARoute: more than Take has room for without memory.
func TestLimitManyOfARoute(t *testing.T) {
	l, limits := NewLimiter(0), []*Limit{}
	for i := range 200 {
		limit := rated(t, "1/h", 3+i%7, LimitBy(i%4))
		limit.id = fmt.Sprint("r/", i)
		limits = append(limits, limit)
	}
	in := &Input{Identity: bob(), IP: netip.MustParseAddr("192.0.2.1")}
	if n := takes(l, limits, in, noon, 9); n != 3 {
		t.Errorf("%d", n)
	}
}

// TestLimitClockGoesBack: a clock without a monotonic part never adds to a
// budget by going back, and locks nobody out for longer than a burst.
func TestLimitClockGoesBack(t *testing.T) {
	limit := rated(t, "30/m", 10, LimitRoute) // a burst is 20 s
	for _, back := range []time.Duration{1, 2e9, 19e9, 20e9, 20e9 + 1, time.Hour, 24 * 365 * 30 * time.Hour, math.MaxInt64} {
		l := NewLimiter(64)
		takes(l, only(limit), &Input{}, noon.Add(time.Hour), 10)
		now := noon.Add(time.Hour).Add(-back)
		retry, ok := l.Take(only(limit), &Input{}, now)
		want := 2*time.Second + back
		if back > 20*time.Second {
			want = 2 * time.Second
		}
		if ok || retry != want {
			t.Errorf("%s back: %s %t, want %s", back, retry, ok, want)
		}
		if retry, ok := l.Take(only(limit), &Input{}, now.Add(want-1)); ok || retry != 1 {
			t.Errorf("%s back, a nanosecond too early: %s %t", back, retry, ok)
		}
		if n := takes(l, only(limit), &Input{}, now.Add(want), 20); n != 1 {
			t.Errorf("%s back, when it said: %d", back, n)
		}
	}
	t.Run("what is left is not more", func(t *testing.T) {
		l := NewLimiter(64)
		takes(l, only(limit), &Input{}, noon, 4)
		if n := takes(l, only(limit), &Input{}, noon.Add(-4e9), 20); n != 4 {
			t.Errorf("%d, want 6 less the 2 that 4 s give", n)
		}
	})
	t.Run("back and forth", func(t *testing.T) {
		random, l, now, forth, passed := rand.New(rand.NewPCG(1, 2)), NewLimiter(64), noon, time.Duration(0), 0
		for range 20_000 {
			if _, ok := l.Take(only(limit), &Input{}, now); ok {
				passed++
			}
			d := time.Duration(random.Int64N(int64(6*time.Second))) - 3*time.Second
			if random.IntN(100) == 0 {
				d *= 1000
			}
			now = now.Add(d)
			forth += max(d, 0)
		}
		if most := 10 + int(forth/(2*time.Second)); passed > most {
			t.Errorf("%d let through, and going forth gave %d", passed, most)
		}
	})
}

// TestLimitLateClock: requests that read their clock up to a second before
// others, and come to Take after them, add nothing to a budget, however fast it
// fills and whatever was forgotten since.
func TestLimitLateClock(t *testing.T) {
	limit := rated(t, "1000/s", 10, LimitIP) // a burst is 10 ms
	random, l, passed := rand.New(rand.NewPCG(1, 2)), NewLimiter(0), 0
	takes(l, only(limit), from("192.0.2.1"), noon, 10)
	for i := range 20_000 {
		now := noon.Add(time.Duration(i) * 100 * time.Microsecond)
		if random.IntN(2) == 0 {
			now = now.Add(-time.Duration(random.Int64N(int64(time.Second))))
		}
		if _, ok := l.Take(only(limit), from("192.0.2.1"), now); ok {
			passed++
		}
	}
	if passed > 2000 || passed < 1900 {
		t.Errorf("%d let through in two seconds", passed)
	}
	takes(l, only(limit), from("192.0.2.1"), noon.Add(time.Minute), 10)
	for i := range 100 { // neighbours that look for what to forget
		takes(l, only(limit), from(fmt.Sprint("192.0.3.", i)), noon.Add(time.Minute+11*time.Millisecond), 1)
	}
	if n := takes(l, only(limit), from("192.0.2.1"), noon.Add(time.Minute), 20); n != 0 {
		t.Errorf("%d for a late request", n)
	}
}

// TestLimitExtremeTimes: no time makes it panic or give more than a burst.
func TestLimitExtremeTimes(t *testing.T) {
	times := []time.Time{noon, {}, time.Unix(0, 0), time.Unix(math.MaxInt64, 999999999), time.Unix(math.MinInt64, 0),
		time.Unix(-1<<62, 0), time.Unix(1<<62, 0), noon.Add(math.MaxInt64), noon.Add(math.MinInt64),
	}
	for _, first := range times {
		for _, rate := range []string{"1/d", "1000000/s"} {
			l, limits := NewLimiter(64), only(rated(t, rate, 2, LimitRoute))
			takes(l, limits, &Input{}, first, 1)
			for _, now := range times {
				if n := takes(l, limits, &Input{}, now, 4); n > 2 {
					t.Errorf("%s: %s after %s: %d", rate, now, first, n)
				}
			}
		}
	}
}

// addresses gives in the n-th of many addresses.
func addresses(n int) *Input {
	return &Input{IP: netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})}
}

// TestAttackLimitFlood: five times more addresses than there is room for make
// the Limiter forget each other, not budgets that were used up, nor any that
// count an identity.
func TestAttackLimitFlood(t *testing.T) {
	const entries = 64 * 32
	limit, user := rated(t, "60/h", 10, LimitIP), rated(t, "60/h", 10, LimitUID)
	l := NewLimiter(entries)
	for n := range 64 {
		takes(l, only(limit), addresses(n), noon, 10)
		takes(l, only(user), as(withUID(fmt.Sprint(n))), noon, 1)
	}
	for n := range 5 * entries {
		takes(l, only(limit), addresses(1<<20+n), noon.Add(time.Duration(n)), 1)
		if held := l.held(); n%100 == 0 && held > entries {
			t.Fatalf("%d of at most %d", held, entries)
		}
	}
	if held := l.held(); held < entries/2 || held > entries {
		t.Errorf("%d of at most %d", held, entries)
	}
	for n := range 64 {
		if got := takes(l, only(limit), addresses(n), noon.Add(time.Second), 20); got != 0 {
			t.Errorf("address %d, whose budget was used up: %d", n, got)
		}
		if got := takes(l, only(user), as(withUID(fmt.Sprint(n))), noon.Add(time.Second), 20); got != 9 {
			t.Errorf("uid %d, whose budget was hardly used: %d", n, got)
		}
	}
}

// TestLimitForgetsWhatIsWhole: budgets that are whole again make room, and
// before any other.
func TestLimitForgetsWhatIsWhole(t *testing.T) {
	const entries = 64 * 32
	short, long := rated(t, "60/m", 1, LimitIP), rated(t, "60/h", 10, LimitIP)
	l := NewLimiter(entries)
	for n := range entries {
		takes(l, only(short), addresses(n), noon, 1)
	}
	if held := l.held(); held < entries*4/10 {
		t.Fatalf("%d are held", held)
	}
	now := noon.Add(time.Minute)
	for n := range entries / 8 {
		takes(l, only(long), addresses(n), now, 1)
	}
	if held := l.held(); held < entries/8 || held > entries/4 {
		t.Errorf("%d are held, and all but %d are whole", held, entries/8)
	}
	for n := range entries / 8 {
		if got := takes(l, only(long), addresses(n), now, 20); got != 9 {
			t.Errorf("%d: %d left, want 9", n, got)
		}
	}
}

// TestLimitSmallest: one budget in each shard is the least, and whoever comes
// last has it.
func TestLimitSmallest(t *testing.T) {
	l, limit := NewLimiter(1), rated(t, "1/h", 1, LimitIP)
	for n := range 1000 {
		if got := takes(l, only(limit), addresses(n), noon, 2); got != 1 {
			t.Errorf("%d: %d", n, got)
		}
	}
	if held := l.held(); held > limitShards {
		t.Errorf("%d are held", held)
	}
}

// TestLimitDoesNotAllocate: a request whose budgets are there needs no memory,
// let through or refused.
func TestLimitDoesNotAllocate(t *testing.T) {
	in := &Input{Identity: bob(withUID(strings.Repeat("u", 255)), func(id *Identity) { id.Actor = strings.Repeat("a", 255); id.Issuer = "x" }), IP: netip.MustParseAddr("2001:db8::1")}
	for _, rate := range []string{"1000000/s", "1/d"} {
		var limits []*Limit
		for by := range LimitRoute + 1 {
			limits = append(limits, rated(t, rate, 50, by))
		}
		l, now := NewLimiter(0), noon
		l.Take(limits, in, now)
		if got := testing.AllocsPerRun(100, func() {
			now = now.Add(time.Microsecond)
			l.Take(limits, in, now)
		}); got != 0 {
			t.Errorf("%s: %v allocations", rate, got)
		}
	}
}

// TestLimitRace: however many come at one instant, a burst is let through.
func TestLimitRace(t *testing.T) {
	const callers, each = 64, 100
	for range 3 {
		l := NewLimiter(0)
		wide, narrow := rated(t, "1/d", 2000, LimitRoute), rated(t, "1/d", 700, LimitUID)
		var passed, rest atomic.Int64
		race := func(count *atomic.Int64, limits func(n int) []*Limit) {
			var all sync.WaitGroup
			for n := range callers {
				all.Go(func() {
					count.Add(int64(takes(l, limits(n), as(), noon, each)))
				})
			}
			all.Wait()
		}
		race(&passed, func(n int) []*Limit { // in both orders: nobody waits for ever
			if n%2 == 0 {
				return []*Limit{wide, narrow}
			}
			return []*Limit{narrow, wide}
		})
		if passed.Load() != 700 {
			t.Errorf("%d of both, want 700", passed.Load())
		}
		race(&rest, func(int) []*Limit { return only(wide) })
		if rest.Load() != 1300 {
			t.Errorf("%d of the wider, want 1300: a refusal must take nothing", rest.Load())
		}
	}
}

// TestLimitRaceOfNewcomers: budgets come and go under many callers at once, and
// the state stays bounded and whole.
func TestLimitRaceOfNewcomers(t *testing.T) {
	l, limits := NewLimiter(256), []*Limit{rated(t, "10/s", 2, LimitIP), rated(t, "1/h", 5, LimitIP), rated(t, "1000000/s", 100, LimitRoute)}
	limits[1].id = "r/1"
	var all sync.WaitGroup
	for n := range 64 {
		all.Go(func() {
			for i := range 300 {
				l.Take(limits, addresses(n*150+i), noon.Add(time.Duration(i)*time.Millisecond))
			}
		})
	}
	all.Wait()
	if held := l.held(); held > 256 {
		t.Errorf("%d are held", held)
	}
}

// BenchmarkTake is a request that is let through or refused, and one of an
// address that was not there, with all room in use.
func BenchmarkTake(b *testing.B) {
	user := &Input{Identity: bob(), IP: netip.MustParseAddr("192.0.2.1")}
	wide := rated(b, "1000000/s", 1_000_000, LimitUID)
	for _, c := range []struct {
		name   string
		limits []*Limit
	}{
		{"pass", only(wide)},
		{"refuse", only(rated(b, "1/d", 1, LimitUID))},
		{"pass four", []*Limit{wide, rated(b, "1000000/s", 1_000_000, LimitIP), rated(b, "1000000/s", 1_000_000, LimitActor), rated(b, "1000000/s", 1_000_000, LimitRoute)}},
	} {
		b.Run(c.name, func(b *testing.B) {
			l, now := NewLimiter(0), noon
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Microsecond)
				l.Take(c.limits, user, now)
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		l, limits := NewLimiter(0), only(rated(b, "1000000/s", 1_000_000, LimitIP))
		var callers atomic.Int64
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			in := addresses(int(callers.Add(1)))
			for pb.Next() {
				l.Take(limits, in, noon)
			}
		})
	})
	b.Run("flood", func(b *testing.B) {
		l, limits, n := NewLimiter(0), only(rated(b, "60/h", 10, LimitIP)), 0
		for ; n < 4*defaultBudgets; n++ {
			l.Take(limits, addresses(n), noon)
		}
		b.ReportAllocs()
		for b.Loop() {
			n++
			l.Take(limits, addresses(n), noon)
		}
	})
}

// TestLimitManyCallers: budgets that are whole and budgets that are used up, side
// by side at the place where room is looked for.
func TestLimitManyCallers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, entries := range []int{0, 64, 1 << 10} {
		l, limit, now := NewLimiter(entries), rated(t, "30/m", 30, LimitUID), noon
		for range 100_000 {
			now = now.Add(time.Duration(random.IntN(20)) * time.Millisecond)
			l.Take(only(limit), as(withUID(fmt.Sprint(random.IntN(3000)))), now)
		}
	}
}
