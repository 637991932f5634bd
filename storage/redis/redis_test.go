package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/policy"
)

// draw is one of a budget of the test's own.
func draw(key byte, count int, period time.Duration, burst int) policy.Draw {
	d := policy.Draw{Count: count, Period: period, Burst: burst}
	d.Key[0] = key
	return d
}

func kindOf(err error) Kind {
	var f *Failure
	if errors.As(err, &f) {
		return f.Kind
	}
	return ""
}

// TestSharedBudget: two gateways take from one budget, and none of them more
// than there is.
func TestSharedBudget(t *testing.T) {
	s := startServer(t)
	both := []*Limits{opened(t, "redis://"+s.address), opened(t, "redis://"+s.address)}
	one := []policy.Draw{draw(1, 1, time.Hour, 100)}
	var taken atomic.Int64
	var all sync.WaitGroup
	for n := range 16 {
		all.Go(func() {
			for range 20 {
				retry, _, ok, err := both[n%2].Take(t.Context(), one)
				switch {
				case err != nil:
					t.Error(err)
				case ok:
					taken.Add(1)
				case retry <= 0 || retry > time.Hour:
					t.Errorf("retry %s", retry)
				}
			}
		})
	}
	all.Wait()
	if taken.Load() != 100 {
		t.Errorf("%d taken of 100", taken.Load())
	}
	if _, _, ok, err := both[0].Take(t.Context(), []policy.Draw{draw(2, 1, time.Hour, 100), one[0]}); ok || err != nil {
		t.Errorf("a used-up budget beside another: %t %v", ok, err)
	}
	for range 100 {
		if _, _, ok, err := both[1].Take(t.Context(), []policy.Draw{draw(2, 1, time.Hour, 100)}); !ok || err != nil {
			t.Fatalf("a refused request took from the other budget: %v", err)
		}
	}
	if retry, _, ok, err := both[0].Take(t.Context(), nil); !ok || retry != 0 || err != nil {
		t.Errorf("no limits: %s %t %v", retry, ok, err)
	}
}

// TestPrefixesAreApart: gateways of another prefix have other budgets.
func TestPrefixesAreApart(t *testing.T) {
	s := startServer(t)
	one := []policy.Draw{draw(1, 1, time.Hour, 1)}
	for _, prefix := range []string{"a:", "b:"} {
		l := opened(t, "redis://"+s.address, func(o *Options) { o.Prefix = prefix })
		for _, want := range []bool{true, false} {
			if _, _, ok, err := l.Take(t.Context(), one); ok != want || err != nil {
				t.Errorf("%s: %t %v", prefix, ok, err)
			}
		}
	}
}

// TestMemoryIsBounded: every key expires about when its budget is whole, so that
// what Redis holds is what was drawn on lately, whoever comes.
func TestMemoryIsBounded(t *testing.T) {
	s := startServer(t)
	l, admin := opened(t, "redis://"+s.address), s.admin(t)
	for n, c := range []struct {
		count  int
		period time.Duration
		burst  int
		takes  int
		whole  time.Duration
	}{
		{1, time.Hour, 5, 1, time.Hour},
		{1, time.Hour, 5, 3, 3 * time.Hour},
		{1, 24 * time.Hour, 1_000_000, 1, 24 * time.Hour},
		{1_000_000, time.Second, 1, 1, 0},
		{60, time.Minute, 2, 9, 2 * time.Second},
	} {
		d := draw(byte(n), c.count, c.period, c.burst)
		for range c.takes {
			if _, _, _, err := l.Take(t.Context(), []policy.Draw{d}); err != nil {
				t.Fatal(err)
			}
		}
		keys := admin.Keys(t.Context(), "*").Val()
		if len(keys) != 1 || !strings.HasPrefix(keys[0], "sidegate:test:") || len(keys[0]) != len("sidegate:test:")+32 {
			t.Fatalf("keys %q", keys)
		}
		ttl := admin.PTTL(t.Context(), keys[0]).Val()
		if ttl <= 0 && c.whole != 0 || ttl > c.whole+time.Second+2*time.Millisecond || ttl < c.whole-30*time.Second {
			t.Errorf("%+v expires in %s", c, ttl)
		}
		admin.FlushAll(t.Context())
	}
	// A flood of callers is gone a second after their budgets are whole.
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for i := range 250 {
				d := draw(byte(n), 1000, time.Second, 1)
				d.Key[1] = byte(i)
				if _, _, _, err := l.Take(t.Context(), []policy.Draw{d}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	await(t, "nothing is held", func() bool { return len(admin.Keys(t.Context(), "*").Val()) == 0 })
}

// TestFaults: what each fault is told as, that it costs nobody more than the
// time-out, and that nothing of what is secret is in it.
func TestFaults(t *testing.T) {
	const password = "s3cr3t-p4ssw0rd"
	one := []policy.Draw{draw(1, 1, time.Hour, 5)}
	wants := func(t *testing.T, l *Limits, want Kind) {
		t.Helper()
		_, _, ok, err := l.Take(t.Context(), one)
		if ok != (want == "") || kindOf(err) != want {
			t.Errorf("%t %v, want %q", ok, err, want)
		}
		if err != nil && strings.Contains(err.Error(), password) {
			t.Errorf("the password is in %q", err)
		}
	}
	t.Run("nobody listens", func(t *testing.T) {
		wants(t, opened(t, "redis://:"+password+"@"+freeAddress(t)), Connect)
	})
	t.Run("no such host", func(t *testing.T) {
		wants(t, opened(t, "redis://redis.invalid:6379"), Connect)
	})
	t.Run("password", func(t *testing.T) {
		s := startServer(t, "--requirepass", password)
		wants(t, opened(t, "redis://"+s.address), Denied)
		wants(t, opened(t, "redis://:"+password+"x@"+s.address), Denied)
		wants(t, opened(t, "redis://nobody:"+password+"@"+s.address), Denied)
		wants(t, opened(t, "redis://:"+password+"@"+s.address), "")
	})
	t.Run("least user", func(t *testing.T) { // as docs/configuration.md has it
		s := startServer(t, "--user", "gateway", "on", ">"+password, "~sidegate:*", "+hello", "+auth", "+select", "+eval", "+evalsha", "+get", "+set", "+time")
		l := opened(t, "redis://gateway:"+password+"@"+s.address+"/3")
		wants(t, l, "")
		other := opened(t, "redis://gateway:"+password+"@"+s.address, func(o *Options) { o.Prefix = "other:" })
		wants(t, other, Denied)
	})
	t.Run("replica", func(t *testing.T) {
		primary := startServer(t)
		host, port, _ := strings.Cut(primary.address, ":")
		s := startServer(t, "--replicaof", host, port)
		wants(t, opened(t, "redis://"+s.address), ReadOnly)
	})
	t.Run("became a replica", func(t *testing.T) {
		primary, s := startServer(t), startServer(t)
		l := opened(t, "redis://"+s.address)
		wants(t, l, "")
		host, port, _ := strings.Cut(primary.address, ":")
		if err := s.admin(t).ReplicaOf(t.Context(), host, port).Err(); err != nil {
			t.Fatal(err)
		}
		wants(t, l, ReadOnly)
		if err := s.admin(t).ReplicaOf(t.Context(), "no", "one").Err(); err != nil {
			t.Fatal(err)
		}
		wants(t, l, "")
	})
	t.Run("full", func(t *testing.T) {
		s := startServer(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
		l := opened(t, "redis://"+s.address)
		wants(t, l, Full)
		if n := s.admin(t).DBSize(t.Context()).Val(); n != 0 {
			t.Errorf("%d keys of a Redis without memory", n)
		}
		s.admin(t).ConfigSet(t.Context(), "maxmemory", "0")
		wants(t, l, "")
	})
	t.Run("cluster", func(t *testing.T) {
		s := startServer(t, "--cluster-enabled", "yes", "--cluster-port", portOf(freeAddress(t))) // else it is 10,000 more than its own, which may be anybody's
		wants(t, opened(t, "redis://"+s.address), Cluster)
	})
	t.Run("scripts are lost", func(t *testing.T) {
		s := startServer(t)
		l := opened(t, "redis://"+s.address)
		for range 3 {
			wants(t, l, "")
			if err := s.admin(t).ScriptFlush(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, ok, err := l.Take(t.Context(), []policy.Draw{draw(1, 1, time.Hour, 5), draw(2, 1, time.Hour, 5)}); !ok || err != nil {
			t.Errorf("%t %v", ok, err)
		}
		if _, _, ok, _ := l.Take(t.Context(), one); !ok {
			t.Error("each request was taken more than once")
		}
		if _, _, ok, _ := l.Take(t.Context(), one); ok {
			t.Error("a sixth of five")
		}
	})
}

func TestTLS(t *testing.T) {
	ca, cert, key := certificates(t)
	s := startServer(t)
	s.kill()
	_, port, _ := strings.Cut(s.address, ":")
	s.args = []string{"--port", "0", "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca, "--tls-auth-clients", "no"}
	s.start(t)
	one := []policy.Draw{draw(1, 1, time.Hour, 50)}
	own := func(o *Options) { o.Authorities = authorities(t, ca) }
	l := opened(t, "rediss://"+s.address, own)
	for range 10 {
		if _, _, ok, err := l.Take(t.Context(), one); !ok || err != nil {
			t.Fatalf("%t %v", ok, err)
		}
	}
	for what, l := range map[string]*Limits{
		"an authority that nobody knows": opened(t, "rediss://"+s.address),
		"another name":                   opened(t, "rediss://localhost:"+port, own),
	} {
		if _, _, ok, err := l.Take(t.Context(), one); ok || kindOf(err) != TLS {
			t.Errorf("%s: %t %v", what, ok, err)
		}
	}
	if _, _, ok, err := opened(t, "redis://"+s.address).Take(t.Context(), one); ok || err == nil {
		t.Errorf("without TLS: %t %v", ok, err)
	}
	plain := startServer(t)
	if _, _, ok, err := opened(t, "rediss://"+plain.address, own, func(o *Options) { o.Timeout = 200 * time.Millisecond }).Take(t.Context(), one); ok || err == nil { // it waits for the end of a line

		t.Errorf("TLS to one without: %t %v", ok, err)
	}
}

func TestURL(t *testing.T) {
	for s, want := range map[string]string{
		"redis://h": "h:6379  0", "redis://h:1": "h:1  0", "redis://:pw@h": "h:6379 pw 0", "redis://u:p%40w@h:1/7": "h:1 p@w 7",
		"redis://[::1]": "[::1]:6379  0", "redis://h/": "h:6379  0", "rediss://h:6380": "h:6380  0",
	} {
		o, err := parseURL(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if got := fmt.Sprint(o.Addr, " ", o.Password, " ", o.DB); got != want || strings.HasPrefix(s, "rediss") != (o.TLSConfig != nil) {
			t.Errorf("%s: %s", s, got)
		}
	}
	for _, s := range []string{
		"", "h:6379", "http://h", "unix:///x", "redis://", "redis:h", "redis://:6379", "redis://h:", "redis://h:0", "redis://h:65536", "redis://h:x", "redis://h/x", "redis://h/-1",
		"redis://h/0/1", "redis://h/70000", "redis://h?pool_size=9", "redis://h?", "redis://h#", "redis://u@h", "redis://u:@h", "redis://SECRET:SECRET@h:x", "redis://SECRET\x00@h", "REDIS-SECRET://h", "redis://%zzSECRET@h",
	} {
		if _, err := parseURL(s); err == nil {
			t.Errorf("%q is taken", s)
		} else if strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// TestCallerLeaves: that a caller has left is no failure of Redis, and what was
// asked for him is answered.
func TestCallerLeaves(t *testing.T) {
	s := startServer(t)
	l := opened(t, "redis://"+s.address)
	gone, leave := context.WithCancel(t.Context())
	leave()
	for range 10 {
		if _, _, ok, err := l.Take(gone, []policy.Draw{draw(1, 1, time.Hour, 100)}); !ok || err != nil {
			t.Fatalf("%t %v", ok, err)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	s := startServer(b)
	l := opened(b, "redis://"+s.address)
	for _, limits := range []int{1, 3} {
		var draws []policy.Draw
		for n := range limits {
			draws = append(draws, draw(byte(n), 1_000_000, time.Second, 1_000_000))
		}
		for _, parallel := range []int{1, 64} {
			b.Run(fmt.Sprintf("limits=%d/callers=%d", limits, parallel), func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(parallel)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, _, _, err := l.Take(context.Background(), draws); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}
