package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/policy"
)

// sharedBudgets are Limits that hold the contract: a whole number of requests for
// each key, taken from all or from none. They fail in both ways: before a request
// was taken, and after.
type sharedBudgets struct {
	mu    sync.Mutex
	taken map[[24]byte]int
	asked int
	fail  error
	after bool   // it fails once the request was taken
	slow  func() // for each question
}

func (s *sharedBudgets) Take(_ context.Context, draws []policy.Draw) (retry time.Duration, spent int, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.slow != nil {
		s.slow()
	}
	if s.fail != nil && !s.after {
		return 0, 0, false, s.fail
	}
	for i, d := range draws {
		if s.taken[d.Key] >= d.Burst {
			return d.Period, i, false, s.fail
		}
	}
	for _, d := range draws {
		s.taken[d.Key]++
	}
	return 0, 0, true, s.fail
}

func (s *sharedBudgets) set(fail error, after bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail, s.after = fail, after
}

const sharedPolicy = `version: sidegate-policy/v1
name: shared
identities: [users]
routes:
  - {id: local, path: /local, methods: [GET], upstream: app, limit: {rate: 1/h, burst: 3, per: uid}, allow: [{id: user, who: [users]}]}
  - {id: refuse, path: /refuse, methods: [GET], upstream: app, limit: [{rate: 1/h, burst: 3, per: uid}, {rate: 2/h, burst: 9, per: uid, unavailable: refuse}], allow: [{id: user, who: [users]}]}
  - {id: several, path: /several, methods: [GET], upstream: app, limit: [{rate: 1/s, burst: 1, per: uid}, {rate: 3/h, per: route}], allow: [{id: user, who: [users]}]}
  - {id: ip, path: /ip, methods: [GET], upstream: app, limit: {rate: 1/h, burst: 3, per: ip, unavailable: refuse}, allow: public}
  - {id: free, path: /free, methods: [GET], upstream: app, allow: public}
`

// sharedGate is a gateway that shares budgets.
func sharedGate(t *testing.T, s *sharedBudgets, change ...func(*Options)) *gate {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte(sharedPolicy), nil)
	if err != nil {
		t.Fatal(err)
	}
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {})
	return newGate(t, app, append(change, func(o *Options) { o.Policy, o.Limits = p, s })...)
}

// asks sends requests until one is refused, and gives how many were not, and the
// refusal.
func (g *gate) asks(target, token string, most int) (passed int, refusal answer) {
	g.t.Helper()
	for range most {
		a := g.send("GET", target, token, "Connection: close")
		g.outcome()
		if a.StatusCode != 200 {
			return passed, a
		}
		passed++
	}
	return passed, refusal
}

var errShared = errors.New("redis: it did not answer within redis.timeout")

// TestSharedLimits: gateways take from one budget, each request from all of its
// budgets or from none, and a route without a limit asks nobody.
func TestSharedLimits(t *testing.T) {
	shared := &sharedBudgets{taken: map[[24]byte]int{}}
	one, two := sharedGate(t, shared), sharedGate(t, shared)
	if n, _ := one.asks("/local", "bob", 2); n != 2 {
		t.Fatal(n)
	}
	n, a := two.asks("/local", "bob", 9)
	if n != 1 || a.StatusCode != 429 || a.Header.Get("Retry-After") != "3600" {
		t.Errorf("%d passed, then %d", n, a.StatusCode)
	}
	if n, _ := two.asks("/local", "alice", 9); n != 3 {
		t.Errorf("%d of another caller", n)
	}
	before := shared.asked
	if n, _ := one.asks("/free", "", 3); n != 3 || shared.asked != before {
		t.Errorf("%d, asked %d times", n, shared.asked-before)
	}
	if n, _ := one.asks("/ip", "", 2); n != 2 {
		t.Error(n)
	}
	if n, a := two.asks("/ip", "", 9); n != 1 || a.StatusCode != 429 {
		t.Errorf("%d, then %d", n, a.StatusCode)
	}
}

// TestSharedLimitsAway: while the shared budgets cannot be asked the gateway's own
// hold, which begin where its own requests left them, or nobody passes; and what
// was refused so took from no budget.
func TestSharedLimitsAway(t *testing.T) {
	for name, after := range map[string]bool{"failed": false, "failed, and taken": true} {
		t.Run(name, func(t *testing.T) {
			shared := &sharedBudgets{taken: map[[24]byte]int{}}
			one, two := sharedGate(t, shared), sharedGate(t, shared)
			one.asks("/local", "bob", 2)
			shared.set(errShared, after)
			if n, a := one.asks("/local", "bob", 9); n != 1 || a.StatusCode != 429 {
				t.Errorf("%d of its own are left, then %d; want 3 less 2 that passed here", n, a.StatusCode)
			}
			if n, a := two.asks("/local", "bob", 9); n != 3 || a.StatusCode != 429 {
				t.Errorf("%d at the other one, then %d", n, a.StatusCode)
			}
			if n := two.counter("sidegate_limits_local_total", "local"); n != 4 {
				t.Errorf("counted %v", n)
			}
			for _, target := range []string{"/refuse", "/ip"} {
				n, a := one.asks(target, "bob", 3)
				if n != 0 || a.StatusCode != 503 || !strings.Contains(a.body, `"code":"unavailable"`) || strings.Contains(a.body, "redis") {
					t.Errorf("%s: %d passed, then %d %s", target, n, a.StatusCode, a.body)
				}
			}
			if !strings.Contains(one.log.String(), errShared.Error()) {
				t.Error("the log does not say why")
			}
			shared.set(nil, false)
			clear(shared.taken)
			if n, _ := one.asks("/refuse", "bob", 9); n != 3 {
				t.Errorf("%d when it is back: a refusal took from the gateway's own budget", n)
			}
			if n, _ := one.asks("/local", "bob", 9); n != 3 {
				t.Errorf("%d of the shared budget when it is back, whatever the gateway's own says", n)
			}
		})
	}
}

// TestAttackFlappingLimits: a store that is made to fail every other time gives
// nobody a full budget with each failure.
func TestAttackFlappingLimits(t *testing.T) {
	shared := &sharedBudgets{taken: map[[24]byte]int{}}
	g := sharedGate(t, shared)
	passed := 0
	for n := range 30 {
		shared.set(map[bool]error{true: errShared}[n%2 == 1], false)
		if a := g.send("GET", "/local", "bob", "Connection: close"); a.StatusCode == 200 {
			passed++
		}
		g.outcome()
	}
	if passed > 2*3 {
		t.Errorf("%d passed: the shared budget and the gateway's own are 3 each", passed)
	}
}

// TestSharedLimitsSayWhich: the limit that is counted as the one that refused is
// the one of which the shared budgets say so, whatever the gateway's own say.
func TestSharedLimitsSayWhich(t *testing.T) {
	shared := &sharedBudgets{taken: map[[24]byte]int{}}
	one, two := sharedGate(t, shared), sharedGate(t, shared)
	for _, who := range []string{"alice", "bob", "root"} {
		if n, _ := one.asks("/several", who, 1); n != 1 {
			t.Fatalf("%s was refused", who)
		}
	}
	for _, who := range []string{"strange", "strange"} { // whose own budget is full
		if n, a := two.asks("/several", who, 1); n != 0 || a.StatusCode != 429 {
			t.Fatalf("%d passed, then %d", n, a.StatusCode)
		}
	}
	if n := two.labelled("sidegate_limited_total", "route", "several"); n != 2 {
		t.Errorf("%v of 2 are counted as the route's", n)
	}
}

// TestOwnBudgetsFollow: what the shared budgets gave is taken from each of the
// gateway's own, though one of these has nothing left.
func TestOwnBudgetsFollow(t *testing.T) {
	shared := &sharedBudgets{taken: map[[24]byte]int{}}
	var late atomic.Int64
	g := sharedGate(t, shared, func(o *Options) {
		now := o.Now
		o.Now = func() time.Time { return now().Add(time.Duration(late.Load())) }
	})
	for range 3 {
		clear(shared.taken) // its clock is ahead of ours
		if n, _ := g.asks("/several", "bob", 1); n != 1 {
			t.Fatal("refused")
		}
	}
	shared.set(errShared, false)
	late.Store(int64(2 * time.Second))
	if n, _ := g.asks("/several", "bob", 1); n != 0 {
		t.Error("three an hour passed, and there is a fourth: the budget of the route was left full while that of the uid was empty")
	}
}

// TestBatchOfSlowBudgets: a request for a hundred things asks the shared budgets
// once for each, and no longer than a little while where they are slow.
func TestBatchOfSlowBudgets(t *testing.T) {
	for _, c := range []struct {
		took   time.Duration
		asked  int // by the request's address, and for each item
		passed int
		limits string
	}{
		{5 * time.Millisecond, 101, 100, "limit: [{rate: 300/m, burst: 100, per: uid, unavailable: refuse}, {rate: 100/m, per: ip}]"},
		{100 * time.Millisecond, 20, 100, "limit: [{rate: 300/m, burst: 100, per: uid}, {rate: 100/m, per: ip}]"},
		{100 * time.Millisecond, 20, 19, "limit: [{rate: 300/m, burst: 100, per: uid, unavailable: refuse}, {rate: 100/m, per: ip}]"},
	} {
		var late atomic.Int64
		shared := &sharedBudgets{taken: map[[24]byte]int{}, slow: func() { late.Add(int64(c.took)) }}
		s := newServedBy(t, func(o *Options) {
			now := time.Now()
			o.Limits, o.Now = shared, func() time.Time { return now.Add(time.Duration(late.Load())) }
		}, "limit: {rate: 300/m, burst: 100, per: uid}", c.limits)
		passed := 0
		for _, p := range s.uploads("alice", batchOf(100, onePNG)) {
			switch p.Status {
			case 200:
				passed++
			case 503:
			default:
				t.Errorf("%+v", p)
			}
		}
		if shared.asked != c.asked || passed != c.passed {
			t.Errorf("%+v: asked %d times, and %d passed", c, shared.asked, passed)
		}
	}
}

// TestOwnLimitsTakeNoMemory: a gateway without shared budgets pays nothing for
// those that others have.
func TestOwnLimitsTakeNoMemory(t *testing.T) {
	p, err := policy.Load("policy.yaml", []byte(strings.ReplaceAll(sharedPolicy, "rate: 1/h, burst: 3", "rate: 1000000/s")), nil)
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange{p: &Proxy{o: Options{Now: time.Now}, limits: policy.NewLimiter(0)}}
	m := p.Match("", "/ip", "GET")
	x.input = policy.Input{IP: netip.MustParseAddr("192.0.2.1")}
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := x.limit(m.Route.IPLimits, decision{}); !ok {
			t.Error("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
