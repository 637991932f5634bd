package redis

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	client "github.com/redis/go-redis/v9"

	"sidegate/policy"
)

// The script asks Redis for the time and knows no other one. Tests have a script
// of their own, made of it, to which time is handed in, and whose keys do not
// expire by Redis' clock meanwhile.
func timedScript(t testing.TB) *client.Script {
	t.Helper()
	text := script
	for old, new := range map[string]string{
		`redis.call('TIME')`: `{ARGV[#ARGV - 1], '0'}`,
		`local now = {tonumber(clock[1]), tonumber(clock[2]) * 1000, 0}`: `local now = {tonumber(clock[1]), tonumber(ARGV[#ARGV]), 0}`,
		`local ttl = left[1] * 1000 + math.ceil(left[2] / 1e6) + 1000`:   `local ttl = 3600000`,
	} {
		if strings.Count(text, old) != 1 {
			t.Fatalf("the script holds %q %d times", old, strings.Count(text, old))
		}
		text = strings.Replace(text, old, new, 1)
	}
	return client.NewScript(text)
}

// A clocked draws by the script at times of the test's own.
type clocked struct {
	t      testing.TB
	client *client.Client
	script *client.Script
	prefix string
}

func (c *clocked) take(draws []policy.Draw, now time.Time) (time.Duration, bool) {
	c.t.Helper()
	retry, _, ok := c.asks(draws, now)
	return retry, ok
}

func (c *clocked) asks(draws []policy.Draw, now time.Time) (retry time.Duration, spent int, ok bool) {
	c.t.Helper()
	var keys []string
	var args []any
	for _, d := range draws {
		keys = append(keys, c.prefix+fmt.Sprintf("%x", d.Key))
		args = append(args, d.Count, int64(d.Period/time.Second), d.Burst)
	}
	args = append(args, now.Unix(), now.Nanosecond())
	answer, err := c.script.Run(context.Background(), c.client, keys, args...).Int64Slice()
	if err != nil {
		c.t.Fatal(err)
	}
	retry, spent, ok, err = read(answer, len(draws))
	if err != nil {
		c.t.Fatal(err, answer)
	}
	return retry, spent, ok
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// loaded are the limits of a policy, which only a policy can make.
func loaded(t testing.TB, limits ...string) []*policy.Limit {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte("version: sidegate-policy/v1\nroutes:\n  - {id: r, path: /r, methods: [GET], upstream: app, allow: public, limit: ["+strings.Join(limits, ", ")+"]}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.Routes[0].Limits
}

func rate(count int, unit string, burst int) string {
	return fmt.Sprintf("{rate: %d/%s, burst: %d, per: route}", count, unit, burst)
}

// TestScriptAgainstLimiter holds each answer of the script, with which of the
// budgets it refused for, against those of a policy.Limiter: random rates, bursts and numbers of limits, at random times,
// among them those that were told, one nanosecond before, and earlier ones.
func TestScriptAgainstLimiter(t *testing.T) {
	s := startServer(t)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	c := &clocked{t: t, client: s.admin(t), script: timedScript(t)}
	upTo := func(n int) int { return max(min(1+int(math.Pow(float64(n), random.Float64()))-random.IntN(2), n), 1) }
	rounds := 150
	if testing.Short() {
		rounds = 30
	}
	for round := range rounds {
		c.prefix = fmt.Sprint(round, ":")
		var texts []string
		for range 1 + random.IntN(3) {
			burst := upTo(1_000_000)
			if random.IntN(2) == 0 {
				burst = 1 + random.IntN(20)
			}
			texts = append(texts, rate(upTo(1_000_000), []string{"s", "m", "h", "d"}[random.IntN(4)], burst))
		}
		limits := loaded(t, texts...)
		oracle := policy.NewLimiter(0)
		now := noon.Add(time.Duration(random.Int64N(int64(time.Hour))))
		draws, ok := policy.Draws(nil, limits, &policy.Input{})
		if !ok {
			t.Fatal("no draws")
		}
		cost := max(int64(limits[0].Period)/int64(limits[0].Count), 1)
		for step := range 150 {
			wantSpent := oracle.Spent(limits, &policy.Input{}, now)
			retry, spent, ok := c.asks(draws, now)
			wantRetry, wantOK := oracle.Take(limits, &policy.Input{}, now)
			if ok != wantOK || retry != wantRetry || !ok && limits[spent] != wantSpent {
				t.Fatalf("seed %d, step %d of %v at %s: %s %t of %d, want %s %t", seed, step, texts, now, retry, ok, spent, wantRetry, wantOK)
			}
			switch random.IntN(9) {
			case 0:
				now = now.Add(time.Duration(random.Int64N(3 * cost)))
			case 1:
				now = now.Add(retry)
			case 2:
				now = now.Add(max(retry-1, 0))
			case 3:
				now = now.Add(time.Duration(random.Int64N(10)))
			case 4:
				now = now.Add(-time.Duration(random.Int64N(10 * cost)))
			case 5:
				if random.IntN(10) == 0 {
					now = now.Add(time.Duration(random.Int64N(int64(4*time.Hour))) - 2*time.Hour)
				}
			case 6:
				if random.IntN(20) == 0 {
					now = now.Add(time.Duration(cost) * time.Duration(random.IntN(min(limits[0].Burst, 1000))))
				}
			}
		}
	}
}

// FuzzScript is the same for single limits, at the times that the fuzzer finds.
func FuzzScript(f *testing.F) {
	s := startServer(f)
	c := &clocked{client: s.admin(f), script: timedScript(f)}
	f.Add(uint32(1), byte(3), uint32(1_000_000), int64(1), int64(-1), int64(86_400e9))
	f.Add(uint32(999_999), byte(0), uint32(2), int64(1000), int64(1), int64(1))
	f.Add(uint32(7), byte(1), uint32(1), int64(0), int64(8571428572), int64(math.MinInt64))
	n := 0
	f.Fuzz(func(t *testing.T, count uint32, unit byte, burst uint32, a, b, d int64) {
		c.t = t
		n++
		c.prefix = fmt.Sprint("fuzz:", n, ":")
		limits := loaded(t, rate(int(count%1_000_000)+1, string("smhd"[unit%4]), int(burst%1_000_000)+1))
		draws, _ := policy.Draws(nil, limits, &policy.Input{})
		oracle, now := policy.NewLimiter(0), noon
		for _, step := range []int64{0, 0, a, b, d, a, b} {
			// A Limiter counts from its first time, and a time before 1970 is none.
			if now = now.Add(time.Duration(step)); now.Before(time.Unix(0, 0)) {
				now = noon
			}
			for range 2 {
				retry, ok := c.take(draws, now)
				if wantRetry, wantOK := oracle.Take(limits, &policy.Input{}, now); ok != wantOK || retry != wantRetry {
					t.Fatalf("%+v at %s: %s %t, want %s %t", *limits[0], now, retry, ok, wantRetry, wantOK)
				}
			}
		}
	})
}

// TestScriptLongestBurst: a million requests at one a day are taken one by one
// without a rounding, and what is left then is told.
func TestScriptLongestBurst(t *testing.T) {
	s := startServer(t)
	c := &clocked{t: t, client: s.admin(t), script: timedScript(t)}
	limits := loaded(t, rate(1, "d", 1_000_000))
	draws, _ := policy.Draws(nil, limits, &policy.Input{})
	if _, ok := c.take(draws, noon); !ok {
		t.Fatal("refused")
	}
	// All but two of the rest, as they would be written.
	key := fmt.Sprintf("%x", draws[0].Key)
	whole := noon.Unix() + 999_998*86_400
	if err := c.client.Set(t.Context(), key, fmt.Sprint(whole, " 0 0"), 0).Err(); err != nil {
		t.Fatal(err)
	}
	for n, want := range []bool{true, true, false, false} {
		retry, ok := c.take(draws, noon)
		if ok != want || !ok && retry != 24*time.Hour {
			t.Errorf("%d: %s %t", n, retry, ok)
		}
	}
	if state := c.client.Get(t.Context(), key).Val(); state != strconv.FormatInt(noon.Unix()+1_000_000*86_400, 10)+" 0 0" {
		t.Errorf("state %q", state)
	}
}

// TestAttackForeignStates: whatever stands where a state should be gives nobody
// more than nothing, is mended by the first who finds it, and locks nobody out
// for longer than a used-up budget would.
func TestAttackForeignStates(t *testing.T) {
	s := startServer(t)
	c := &clocked{t: t, client: s.admin(t), script: timedScript(t)}
	limits := loaded(t, rate(1, "m", 3))
	draws, _ := policy.Draws(nil, limits, &policy.Input{})
	key := fmt.Sprintf("%x", draws[0].Key)
	ctx := t.Context()
	now := noon
	for _, text := range []string{
		"", " ", "x", "0", "0 0", "0 0 0 0", "-1 0 0", "1e3 0 0", "0x10 0 0", "1.5 0 0", "nan nan nan", "inf 0 0", "9999999999999999 0 0",
		"999999999999999 999999999 0", "1790000000 9999999999 0", "1790000000 0 99999999", "1790000000 0 1", "1790000000  0 0", "1790000000 0 0\n", "\x00", strings.Repeat("9", 100_000), "１ 0 0",
	} {
		if err := c.client.Set(ctx, key, text, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if retry, ok := c.take(draws, now); ok || retry != time.Minute {
			t.Errorf("%.40q: %s %t", text, retry, ok)
		}
		if _, ok := c.take(draws, now.Add(time.Minute)); !ok {
			t.Errorf("%.40q: it stays", text)
		}
		now = now.Add(time.Hour)
	}
	for what, make := range map[string]func() error{
		"list": func() error { return c.client.LPush(ctx, key, "x").Err() },
		"hash": func() error { return c.client.HSet(ctx, key, "x", "y").Err() },
		"set":  func() error { return c.client.SAdd(ctx, key, "x").Err() },
	} {
		c.client.Del(ctx, key)
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if retry, ok := c.take(draws, now); ok || retry != time.Minute {
			t.Errorf("a %s: %s %t", what, retry, ok)
		}
		if _, ok := c.take(draws, now.Add(time.Minute)); !ok {
			t.Errorf("a %s: it stays", what)
		}
		now = now.Add(time.Hour)
	}
	// A state that is none does not keep the other budgets from staying whole.
	pair := loaded(t, rate(1, "m", 1), rate(2, "m", 1))
	both, _ := policy.Draws(nil, pair, &policy.Input{})
	c.client.Set(ctx, fmt.Sprintf("%x", both[1].Key), "garbage", 0)
	if _, ok := c.take(both, now); ok {
		t.Error("let through by garbage")
	}
	if _, ok := c.take(both[:1], now); !ok {
		t.Error("a refused request took from the other budget")
	}
}
