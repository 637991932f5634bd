package redis

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sidegate/policy"
)

// impostor is a listener in a Redis' place. It greets as one, and answers each
// question with what answer gives.
func impostor(t testing.TB, answer func(n int, conn net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var open sync.Map
	t.Cleanup(func() {
		_ = l.Close()
		open.Range(func(conn, _ any) bool { return conn.(net.Conn).Close() == nil || true })
		all.Wait()
	})
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Store(conn, true)
			all.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for n := 0; ; {
					name, err := command(in)
					if err != nil {
						return
					}
					if strings.EqualFold(name, "hello") {
						_, _ = io.WriteString(conn, "*4\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n")
						continue
					}
					answer(n, conn)
					n++
				}
			})
		}
	})
	return l.Addr().String()
}

// command reads a command, and gives its name.
func command(in *bufio.Reader) (name string, err error) {
	var parts int
	if _, err := fmt.Fscanf(in, "*%d\r\n", &parts); err != nil {
		return "", err
	}
	for i := range parts {
		var n int
		if _, err := fmt.Fscanf(in, "$%d\r\n", &n); err != nil {
			return "", err
		}
		text := make([]byte, n+2)
		if _, err := io.ReadFull(in, text); err != nil {
			return "", err
		}
		if i == 0 {
			name = string(text[:n])
		}
	}
	return name, nil
}

// TestAttackGarbage: whatever is in Redis' place answers, it is an error within
// the time-out, lets nobody through and takes no memory to speak of.
func TestAttackGarbage(t *testing.T) {
	one := []policy.Draw{draw(1, 1, time.Hour, 5)}
	for _, said := range []string{
		"*4\r\n:1\r\n:0\r\n:1\r\n:0\r\n", "*4\r\n:1\r\n:0\r\n:0\r\n:1\r\n", "*4\r\n:2\r\n:0\r\n:0\r\n:0\r\n", "*4\r\n:0\r\n:-1\r\n:0\r\n:1\r\n", "*4\r\n:0\r\n:0\r\n:1000000000\r\n:1\r\n",
		"*4\r\n:0\r\n:1\r\n:0\r\n:0\r\n", "*4\r\n:0\r\n:1\r\n:0\r\n:2\r\n", "*4\r\n:0\r\n:1\r\n:0\r\n:-1\r\n", "*3\r\n:1\r\n:0\r\n:0\r\n", "*5\r\n:1\r\n:0\r\n:0\r\n:0\r\n:0\r\n",
		"*0\r\n", "*-1\r\n", "$-1\r\n", "_\r\n", ":1\r\n", "+OK\r\n", "$1\r\n1\r\n", "*4\r\n$1\r\nx\r\n:0\r\n:0\r\n:0\r\n", "*4\r\n*1\r\n:1\r\n:0\r\n:0\r\n:0\r\n", "*4\r\n:99999999999999999999\r\n:0\r\n:0\r\n:0\r\n",
		"*2000000000\r\n", "*64\r\n*64\r\n*64\r\n*64\r\n*64\r\n*64\r\n*64\r\n", "$2000000000\r\n", "*9223372036854775807\r\n", "$9223372036854775807\r\n", "%1000000000\r\n", "~1000000000\r\n", ">1000000000\r\n", "|1000000000\r\n", "=1000000000\r\n", "!1000000000\r\n",
		"$ 5\r\nhello\r\n", "$+5\r\nhello\r\n", "*\r\n", "\r\n", "\n", "\x00", "-\r\n", "-x\r\n", "-ERR unknown command 'AUTH', with args beginning with: 's3cr3t'\r\n", "-MOVED 1 10.0.0.1:6379\r\n",
		"HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\n\r\nhello", "\x15\x03\x01\x00\x02\x02\x46", strings.Repeat("a", 100_000), "+" + strings.Repeat("a", 100_000) + "\r\n", strings.Repeat("*1\r\n", 100_000) + ":1\r\n",
		"*3\r\n:1\r\n", "(" + strings.Repeat("9", 4000) + "\r\n", "#t\r\n", ",1.5\r\n",
	} {
		l := opened(t, "redis://"+impostor(t, func(_ int, conn net.Conn) { _, _ = io.WriteString(conn, said) }), func(o *Options) { o.Timeout = 300 * time.Millisecond })
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		retry, _, ok, err := l.Take(t.Context(), one)
		runtime.ReadMemStats(&after)
		if ok || err == nil {
			t.Errorf("%.60q: %s %t %v", said, retry, ok, err)
			continue
		}
		if kindOf(err) == "" || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%.60q: %v", said, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
			t.Errorf("%.60q: %d bytes were taken for it", said, took)
		}
	}
}

// TestAttackEndless: one that sends without end, or nothing, costs no more than
// the time-out, and takes no memory to speak of.
func TestAttackEndless(t *testing.T) {
	one := []policy.Draw{draw(1, 1, time.Hour, 5)}
	for what, answer := range map[string]func(int, net.Conn){
		"a line without end": func(_ int, conn net.Conn) {
			for _, err := io.WriteString(conn, "+"); err == nil; {
				_, err = conn.Write(bytes.Repeat([]byte("x"), 1<<16))
			}
		},
		"attributes without end": func(_ int, conn net.Conn) {
			for err := error(nil); err == nil; {
				_, err = io.WriteString(conn, "|1\r\n+a\r\n+b\r\n")
			}
		},
		"lists in lists without end": func(_ int, conn net.Conn) {
			for err := error(nil); err == nil; {
				_, err = conn.Write(bytes.Repeat([]byte("*1\r\n"), 1<<14))
			}
		},
		"nothing": func(int, net.Conn) {},
		"the end": func(_ int, conn net.Conn) { _ = conn.Close() },
	} {
		t.Run(what, func(t *testing.T) {
			l := opened(t, "redis://"+impostor(t, answer), func(o *Options) { o.Timeout = 300 * time.Millisecond })
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, _, ok, err := l.Take(t.Context(), one); ok || err == nil {
				t.Errorf("%t %v", ok, err)
			}
			runtime.ReadMemStats(&after)
			if took := after.Sys - before.Sys; took > 32<<20 { // Sys has stacks, too, and never shrinks
				t.Errorf("%d bytes were taken for it", took)
			}
		})
	}
}

// TestAttackLateAnswer: an answer that comes after its time is nobody else's.
func TestAttackLateAnswer(t *testing.T) {
	late := make(chan net.Conn, 100)
	l := opened(t, "redis://"+impostor(t, func(_ int, conn net.Conn) { late <- conn }), func(o *Options) { o.Timeout = 100 * time.Millisecond })
	one := []policy.Draw{draw(1, 1, time.Hour, 5)}
	if _, _, ok, err := l.Take(t.Context(), one); ok || kindOf(err) != Timeout {
		t.Fatalf("%t %v", ok, err)
	}
	_, _ = io.WriteString(<-late, "*4\r\n:1\r\n:0\r\n:0\r\n:0\r\n") // it may be closed already
	if _, _, ok, err := l.Take(t.Context(), one); ok || err == nil {
		t.Errorf("somebody got another's answer: %t %v", ok, err)
	}
}

// TestBreaker: while Redis hangs nobody waits for it but the breaker, the change
// is told once, and it is asked again when it answers.
func TestBreaker(t *testing.T) {
	for name, fault := range map[string]struct{ begin, end func(*testing.T, *server) }{
		"frozen": {
			func(t *testing.T, s *server) { s.signal(t, syscall.SIGSTOP) },
			func(t *testing.T, s *server) { s.signal(t, syscall.SIGCONT) },
		},
		"killed, back empty": {
			func(_ *testing.T, s *server) { s.kill() },
			func(t *testing.T, s *server) { s.start(t) },
		},
		"full": {
			func(t *testing.T, s *server) { s.admin(t).ConfigSet(t.Context(), "maxmemory", "1") },
			func(t *testing.T, s *server) { s.admin(t).ConfigSet(t.Context(), "maxmemory", "0") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			told := &changes{}
			l := opened(t, "redis://"+s.address, func(o *Options) { o.Timeout, o.Changed = 200*time.Millisecond, told.add })
			l.Start(t.Context())
			one := []policy.Draw{draw(1, 1000, time.Second, 1000)}
			await(t, "it works", func() bool { _, _, ok, _ := l.Take(t.Context(), one); return ok })
			fault.begin(t, s)
			await(t, "the breaker opens", func() bool {
				_, _, ok, err := l.Take(t.Context(), one)
				if ok {
					t.Error("let through")
				}
				return err != nil && isAway(l) != nil
			})
			began := time.Now()
			for range 10_000 {
				if _, _, ok, err := l.Take(t.Context(), one); ok || err == nil {
					t.Fatal("asked")
				}
			}
			t.Logf("%s for 10,000 requests while it is away", time.Since(began))
			fault.end(t, s)
			await(t, "it is asked again", func() bool { _, _, ok, err := l.Take(t.Context(), one); return ok && err == nil })
			seen := told.seen()
			for n, err := range seen {
				if (n%2 == 0) != (err != nil) {
					t.Errorf("told %v", seen)
				}
			}
			if len(seen) < 2 || len(seen) > 4 { // a loaded machine may be slow once more
				t.Errorf("told %v", seen)
			}
		})
	}
}

func isAway(l *Limits) error {
	_, err := l.breaker.away()
	return err
}

// TestLateFailures: what was asked while Redis was away, and fails when it is back,
// does not send it away again; what is asked since does.
func TestLateFailures(t *testing.T) {
	told := &changes{}
	fails := errors.New("x")
	b := newBreaker(func(context.Context) error { return nil }, told.add)
	defer b.end()
	old, _ := b.away()
	b.trip(fails)
	await(t, "it is back", func() bool { _, err := b.away(); return err == nil })
	for range 100 {
		b.result(old, fails)
	}
	now, err := b.away()
	if err != nil || len(told.seen()) != 2 {
		t.Fatalf("%v, told %v", err, told.seen())
	}
	for n := range 2 * (tolerated + 1) { // a success begins anew
		if n == tolerated {
			b.result(now, nil)
		} else {
			b.result(now, fails)
		}
		if _, err := b.away(); (err != nil) != (n >= 2*tolerated+1) {
			t.Fatalf("after %d: %v", n, err)
		}
	}
}

// TestStartWithoutRedis: a start does not wait, and goes on.
func TestStartWithoutRedis(t *testing.T) {
	s := startServer(t)
	s.kill()
	told := &changes{}
	l := opened(t, "redis://"+s.address, func(o *Options) { o.Changed = told.add })
	l.Start(t.Context())
	if err := isAway(l); kindOf(err) != Connect || len(told.seen()) != 1 {
		t.Errorf("%v, told %v", err, told.seen())
	}
	s.start(t)
	await(t, "it is asked when it is there", func() bool { _, _, ok, _ := l.Take(t.Context(), []policy.Draw{draw(1, 1, time.Hour, 5)}); return ok })
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, _, ok, err := l.Take(t.Context(), []policy.Draw{draw(1, 1, time.Hour, 5)}); ok || err == nil {
		t.Errorf("after the end: %t %v", ok, err)
	}
}

// TestCloseDoesNotWait: the end does not wait for a Redis that hangs, be it before
// there is a connection (here amid TLS) or after.
func TestCloseDoesNotWait(t *testing.T) {
	asked := make(chan bool, 100)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	go func() {
		for conn, err := silent.Accept(); err == nil; conn, err = silent.Accept() {
			defer conn.Close()
			asked <- true
		}
	}()
	for what, url := range map[string]string{
		"before": "rediss://" + silent.Addr().String(),
		"after":  "redis://" + impostor(t, func(int, net.Conn) { asked <- true }),
	} {
		t.Run(what, func(t *testing.T) {
			l := opened(t, url, func(o *Options) { o.Timeout = time.Hour })
			l.breaker.trip(errAnswer)
			<-asked // by the breaker
			closed := make(chan error)
			go func() { closed <- l.Close() }()
			select {
			case err := <-closed:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(time.Minute):
				t.Fatal("it waits for what Redis will not say")
			}
		})
	}
}

// TestTenThousandAtOnce: requests that come all at once wait for a few
// connections, and not for each other's time-outs; each is counted once.
func TestTenThousandAtOnce(t *testing.T) {
	s := startServer(t)
	l := opened(t, "redis://"+s.address, func(o *Options) { o.Timeout = 30 * time.Second })
	one := []policy.Draw{draw(1, 1, time.Hour, 5000), draw(2, 1, time.Hour, 1_000_000)}
	var mu sync.Mutex
	taken, failed := 0, map[Kind]int{}
	var all sync.WaitGroup
	began := time.Now()
	for range 10_000 {
		all.Go(func() {
			_, _, ok, err := l.Take(context.Background(), one)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[kindOf(err)]++
			} else if ok {
				taken++
			}
		})
	}
	all.Wait()
	t.Logf("10,000 in %s", time.Since(began))
	if taken != 5000 || len(failed) != 0 {
		t.Errorf("%d taken of 5,000; failed: %v", taken, failed)
	}
	if n := s.admin(t).Info(t.Context(), "clients").Val(); !strings.Contains(n, "connected_clients:") || clients(n) > connections+1 {
		t.Errorf("%s", n)
	}
}

// TestTenThousandInNoTime: beyond what Redis answers in time everybody is told so
// soon, nobody gets more than there is, and then it works again.
func TestTenThousandInNoTime(t *testing.T) {
	s := startServer(t)
	l := opened(t, "redis://"+s.address, func(o *Options) { o.Timeout = 5 * time.Millisecond })
	one := []policy.Draw{draw(1, 1, time.Hour, 5000)}
	var taken, failed atomic.Int64
	var all sync.WaitGroup
	for range 10_000 {
		all.Go(func() {
			_, _, ok, err := l.Take(context.Background(), one)
			switch {
			case err != nil && kindOf(err) != Timeout:
				t.Error(err)
			case err != nil:
				failed.Add(1)
			case ok:
				taken.Add(1)
			}
		})
	}
	all.Wait()
	t.Logf("%d taken, %d not answered in time", taken.Load(), failed.Load())
	if taken.Load() > 5000 {
		t.Errorf("%d taken of 5,000", taken.Load())
	}
	await(t, "it works again", func() bool {
		_, _, ok, err := l.Take(t.Context(), []policy.Draw{draw(2, 1000, time.Second, 1000)})
		return ok && err == nil
	})
}

func clients(info string) (n int) {
	_, rest, _ := strings.Cut(info, "connected_clients:")
	_, _ = fmt.Sscan(rest, &n)
	return n
}

// FuzzBounds: however an answer comes in pieces, it is judged the same, and what
// is within the bounds announces no more than them.
func FuzzBounds(f *testing.F) {
	for _, s := range []string{"*3\r\n:1\r\n:0\r\n:0\r\n", "$5\r\nhello\r\n+x\r\n", "$4097\r\n", "*65\r\n", "*-1\r\n", "$-1\r\n*1\r\n$2\r\n*9\r\n", "%3\r\n", "$\r\n", "*00000001\r\n"} {
		f.Add([]byte(s), uint64(1))
	}
	f.Fuzz(func(t *testing.T, said []byte, seed uint64) {
		var whole, pieces bounds
		good := whole.scan(said)
		random := rand.New(rand.NewPCG(seed, 0))
		again := true
		for rest := said; len(rest) > 0 && again; {
			n := 1 + random.IntN(len(rest))
			again, rest = pieces.scan(rest[:n]), rest[n:]
		}
		if good != again {
			t.Fatalf("%q: %t whole, %t in pieces", said, good, again)
		}
		if len(whole.line) > 8 || whole.skip > maxString+2 || whole.skip < 0 || good && whole.size > maxLine {
			t.Fatalf("%q: %+v", said, whole)
		}
	})
}

// FuzzRead: whatever the script's answer is, it is a yes, a no with a time and one
// of the budgets, or an error.
func FuzzRead(f *testing.F) {
	f.Add(int64(1), int64(0), int64(0), int64(0), 4, 2)
	f.Add(int64(0), int64(1<<62), int64(5), int64(2), 4, 2)
	f.Fuzz(func(t *testing.T, a, b, c, d int64, n, budgets int) {
		answer := []int64{a, b, c, d, b}[:min(max(n, 0), 5)]
		budgets = max(budgets, 0)
		retry, spent, ok, err := read(answer, budgets)
		switch {
		case err != nil && (ok || retry != 0 || spent != 0), ok && (retry != 0 || spent != 0 || a != 1 || len(answer) != 4), err == nil && !ok && (retry <= 0 || spent < 0 || spent >= budgets):
			t.Fatalf("%v: %s %d %t %v", answer, retry, spent, ok, err)
		}
	})
}
