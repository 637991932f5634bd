package transport

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gaugeValue of a gauge that no registry has.
func gaugeValue(g prometheus.Gauge) float64 {
	r := prometheus.NewRegistry()
	r.MustRegister(g)
	families, err := r.Gather()
	if err != nil {
		panic(err)
	}
	return families[0].GetMetric()[0].GetGauge().GetValue()
}

// A clock stands still until it is told.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func testBalancer(n int, leastBusy bool) (*balancer, *clock) {
	c := newClock()
	return newBalancer(n, leastBusy, c.Now, prometheus.NewGauge(prometheus.GaugeOpts{Name: "ejected"})), c
}

// ask is a request from its beginning to its end.
func (b *balancer) ask(o outcome, tried uint64) lease {
	l := b.pick(tried)
	b.settle(l, o)
	b.release(l)
	return l
}

// but is all addresses but one.
func (b *balancer) but(i int) uint64 { return (1<<len(b.addresses) - 1) &^ (1 << i) }

// eject fails an address until it is left alone.
func (b *balancer) eject(i int) {
	for range failuresToEject {
		b.ask(broken, b.but(i))
	}
}

func TestShares(t *testing.T) {
	for _, leastBusy := range []bool{false, true} {
		for _, n := range []int{2, 3, 7, MaxAddresses} {
			b, _ := testBalancer(n, leastBusy)
			got := make([]int, n)
			for range 20 * n {
				got[b.ask(answered, 0).address]++
			}
			for i, g := range got {
				if g != 20 {
					t.Errorf("least busy %v, %d addresses: %d got %d of %d", leastBusy, n, i, g, 20*n)
				}
			}
		}
	}
}

// TestLeastBusy: an address that is slow to end its answers gets fewer.
func TestLeastBusy(t *testing.T) {
	b, _ := testBalancer(3, true)
	var held []lease
	for range 5 {
		held = append(held, b.pick(b.but(1)))
	}
	got := make([]int, 3)
	for range 10 {
		got[b.pick(0).address]++
	}
	if fmt.Sprint(got) != "[5 0 5]" {
		t.Errorf("got %v while 1 had five already", got)
	}
	for _, l := range held {
		b.release(l)
	}
	for range 5 {
		if l := b.pick(0); l.address != 1 {
			t.Errorf("picked %d; 1 has the fewest", l.address)
		}
	}
}

func TestEjectionAndReturn(t *testing.T) {
	for _, leastBusy := range []bool{false, true} {
		b, c := testBalancer(3, leastBusy)
		for range failuresToEject - 1 {
			b.ask(broken, b.but(1))
		}
		b.ask(answered, b.but(1)) // so they were not in a row
		for range failuresToEject - 1 {
			b.ask(unreached, b.but(1))
		}
		if b.addresses[1].out {
			t.Fatal("out too early")
		}
		for range 100 {
			b.ask(undecided, b.but(1))
		}
		if b.addresses[1].out {
			t.Fatal("out for what callers did")
		}
		b.ask(silent, b.but(1))
		for pause, tries := firstPause, 0; tries < 8; tries++ {
			if !b.addresses[1].out || gaugeValue(b.ejected) != 1 {
				t.Fatal("not out")
			}
			c.advance(pause - 1)
			for range 10 {
				if l := b.ask(answered, 0); l.address == 1 {
					t.Fatalf("asked %v after it was left alone for %v", pause-1, pause)
				}
			}
			c.advance(1)
			probe := b.pick(0)
			if probe.address != 1 || !probe.probe {
				t.Fatalf("not tried after %v: %+v", pause, probe)
			}
			for range 10 {
				if l := b.ask(answered, 0); l.address == 1 {
					t.Fatal("tried twice at once")
				}
			}
			b.settle(probe, unreached)
			b.release(probe)
			pause = min(2*pause, longestPause)
		}
		c.advance(longestPause)
		if l := b.ask(undecided, 0); l.address != 1 {
			t.Fatalf("not tried: %+v", l)
		}
		if l := b.ask(answered, 0); l.address != 1 { // since the other try told nothing
			t.Fatalf("not tried again: %+v", l)
		}
		if b.addresses[1].out || gaugeValue(b.ejected) != 0 {
			t.Fatal("not back")
		}
		// Out again while it comes back: for longer. Long after: for the first time.
		b.eject(1)
		if got := b.addresses[1].pause; got != longestPause {
			t.Errorf("left alone for %v", got)
		}
		c.advance(longestPause)
		b.ask(answered, 0)
		c.advance(slowReturn)
		b.eject(1)
		if got := b.addresses[1].pause; got != firstPause {
			t.Errorf("left alone for %v", got)
		}
	}
}

// TestSlowReturn: the share grows second by second.
func TestSlowReturn(t *testing.T) {
	b, c := testBalancer(2, false)
	b.eject(0)
	c.advance(firstPause)
	b.ask(answered, 0)
	last := 0
	for second := range 11 {
		n := 0
		for range 1000 {
			if b.ask(answered, 0).address == 0 {
				n++
			}
		}
		switch {
		case second == 0 && n > 20, second > 0 && n <= last && second < 11, second == 10 && n != 500:
			t.Errorf("after %d seconds: %d of 1000, %d before", second, n, last)
		}
		last = n
		c.advance(time.Second)
	}

	b, c = testBalancer(2, true)
	b.eject(0)
	c.advance(firstPause)
	b.ask(answered, 0)
	c.advance(slowReturn / 2)
	got := [2]int{}
	for range 90 {
		got[b.pick(0).address]++
	}
	if got != [2]int{30, 60} {
		t.Errorf("half way back, %v of 90 that are in flight at once", got)
	}
}

func TestAllOut(t *testing.T) {
	b, c := testBalancer(3, false)
	for _, i := range []int{2, 0, 1} {
		b.eject(i)
		c.advance(firstPause / 10)
	}
	// 2 comes back first; then, for who was there already, 0.
	for range 5 {
		if l := b.ask(unreached, 0); l.address != 2 || l.probe {
			t.Fatalf("%+v", l)
		}
		if l := b.ask(unreached, 1<<2); l.address != 0 {
			t.Fatalf("%+v", l)
		}
	}
	if p := b.addresses[2].pause; p != firstPause {
		t.Errorf("one that is out anyway is left alone for longer: %v", p)
	}
	if b.ask(answered, 0); b.addresses[2].out {
		t.Error("an answer did not bring it back")
	}
}

// TestOldNews: what was begun before an address went or came says nothing of it.
func TestOldNews(t *testing.T) {
	b, c := testBalancer(2, false)
	before := b.pick(b.but(0))
	b.eject(0)
	b.settle(before, answered)
	if !b.addresses[0].out {
		t.Error("back by an answer to what was asked before")
	}
	c.advance(firstPause)
	late := b.pick(0)
	b.ask(answered, b.but(0)) // as where all are out
	for range failuresToEject {
		b.settle(late, broken)
	}
	if b.addresses[0].out {
		t.Error("out by what was asked before it was back")
	}
}

// FuzzBalancer: whatever happens, a choice is one that may be made, nothing is
// lost, and in the end each address gets its share.
func FuzzBalancer(f *testing.F) {
	f.Add(uint8(2), false, []byte{0, 0, 0, 1, 2, 3})
	f.Add(uint8(5), true, []byte("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"))
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		steps := make([]byte, 400)
		for i := range steps {
			steps[i] = byte(random.Uint32())
		}
		f.Add(uint8(random.Uint32()), random.Uint32()%2 == 0, steps)
	}
	f.Fuzz(func(t *testing.T, size uint8, leastBusy bool, steps []byte) {
		n := 2 + int(size)%6
		b, c := testBalancer(n, leastBusy)
		m := model{t: t, b: b, c: c}
		for _, s := range steps {
			m.step(s)
		}
		m.end(leastBusy)
	})
}

type model struct {
	t    *testing.T
	b    *balancer
	c    *clock
	open []lease
}

func (m *model) step(s byte) {
	switch arg := int(s >> 2); s & 3 {
	case 0:
		m.pick(uint64(arg) & (1<<len(m.b.addresses) - 1))
	case 1:
		m.c.advance(time.Duration(arg) * firstPause / 4)
	default:
		if len(m.open) == 0 {
			m.pick(0)
			return
		}
		i := arg % len(m.open)
		l := m.open[i]
		m.open = append(m.open[:i], m.open[i+1:]...)
		m.b.settle(l, outcome(arg/4%int(outcomes)))
		m.b.release(l)
	}
}

func (m *model) pick(tried uint64) {
	if bits.OnesCount64(tried) == len(m.b.addresses) {
		tried = 0
	}
	now := m.c.Now()
	healthy := 0
	was := append([]address(nil), m.b.addresses...)
	for i, a := range was {
		if tried&(1<<i) == 0 && !a.out {
			healthy++
		}
	}
	l := m.b.pick(tried)
	a := was[l.address]
	switch {
	case tried&(1<<l.address) != 0:
		m.t.Fatal("one that was tried")
	case l.probe && (!a.out || a.probing || now.Before(a.until)):
		m.t.Fatalf("a try of %+v", a)
	case !l.probe && a.out && healthy > 0:
		m.t.Fatalf("one that is left alone, beside %d that are not", healthy)
	}
	m.open = append(m.open, l)
}

func (m *model) end(leastBusy bool) {
	busy := make([]int, len(m.b.addresses))
	for _, l := range m.open {
		busy[l.address]++
	}
	out := 0.0
	for i, a := range m.b.addresses {
		if a.busy != busy[i] {
			m.t.Fatalf("%d is said to have %d requests; it has %d", i, a.busy, busy[i])
		}
		if a.pause > longestPause || a.out && a.until.Sub(m.c.Now()) > longestPause {
			m.t.Fatalf("left alone for too long: %+v", a)
		}
		if a.out {
			out++
		}
	}
	if gaugeValue(m.b.ejected) != out {
		m.t.Fatalf("%v are out; the metric says %v", out, gaugeValue(m.b.ejected))
	}
	for _, l := range m.open {
		m.b.settle(l, undecided)
		m.b.release(l)
	}
	m.c.advance(longestPause)
	n := len(m.b.addresses)
	for range n { // each that is out is tried, and comes back
		m.b.ask(answered, 0)
	}
	m.c.advance(slowReturn)
	got := make([]int, n)
	for range 30 * n {
		l := m.b.ask(answered, 0)
		got[l.address]++
	}
	for i, g := range got {
		if m.b.addresses[i].busy != 0 || m.b.addresses[i].out || g < 30-n || g > 30+n {
			m.t.Fatalf("least busy %v: in the end %d got %d of %d: %+v", leastBusy, i, g, 30*n, m.b.addresses[i])
		}
	}
}
