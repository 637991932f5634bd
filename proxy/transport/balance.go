package transport

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// failuresToEject in a row take an address out: one can be a chance, and
	// each costs a caller.
	failuresToEject = 3
	firstPause      = time.Second // of an address that is taken out
	longestPause    = 30 * time.Second
	// slowReturn is the time in which the share of an address that is back grows
	// from nothing to that of the others: an app that starts is slow at first.
	slowReturn = 10 * time.Second
	fullShare  = 64
)

// A balancer chooses among several addresses. It is safe for concurrent use.
type balancer struct {
	leastBusy bool
	now       func() time.Time
	ejected   prometheus.Gauge

	mu        sync.Mutex
	addresses []address
	last      int // chosen
}

// An address is what is known of one.
type address struct {
	busy     int // requests whose answers have not ended
	credit   int // of the rounds: the one with the most is next
	failures int // in a row
	// epoch changes when it is taken out and when it comes back: what was begun
	// before says nothing of it any more.
	epoch   uint
	out     bool
	until   time.Time     // then one request tries it
	pause   time.Duration // how long it was taken out the last time
	probing bool
	back    time.Time // when it came back; zero: long ago, or it was never out
}

// A lease is the right to ask an address once.
type lease struct {
	address int
	epoch   uint
	probe   bool // of an address that is out
}

func newBalancer(n int, leastBusy bool, now func() time.Time, ejected prometheus.Gauge) *balancer {
	return &balancer{leastBusy: leastBusy, now: now, ejected: ejected, addresses: make([]address, n), last: n - 1}
}

// pick chooses an address whose bit in tried is not set; one such must be. An
// address that is out is chosen by the one request that tries it when its time
// is over; and where no other is left, since a refusal without a try helps
// nobody. Each lease is settled at most once, and then released.
func (b *balancer) pick(tried uint64) lease {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	i, probe := b.due(tried, now), true
	if i < 0 {
		probe = false
		if b.leastBusy {
			i = b.idlest(tried, now)
		} else {
			i = b.next(tried, now)
		}
	}
	if i < 0 {
		i = b.soonest(tried)
	}
	a := &b.addresses[i]
	a.busy++
	a.probing = a.probing || probe
	b.last = i
	return lease{i, a.epoch, probe}
}

// due is an address whose time out is over and that nobody tries, or -1.
func (b *balancer) due(tried uint64, now time.Time) int {
	for i := range b.addresses {
		a := &b.addresses[i]
		if tried&(1<<i) == 0 && a.out && !a.probing && !now.Before(a.until) {
			return i
		}
	}
	return -1
}

// next goes round, each by its share: whoever waited longest for its share is
// next, so that a small one is spread out.
func (b *balancer) next(tried uint64, now time.Time) int {
	best, total := -1, 0
	for i := range b.addresses {
		a := &b.addresses[i]
		if tried&(1<<i) != 0 || a.out {
			continue
		}
		share := a.share(now)
		a.credit += share
		total += share
		if best < 0 || a.credit > b.addresses[best].credit {
			best = i
		}
	}
	if best >= 0 {
		b.addresses[best].credit -= total
	}
	return best
}

// idlest has the fewest requests for its share; among equals it goes round.
func (b *balancer) idlest(tried uint64, now time.Time) int {
	best, load, share := -1, 0, 1
	for n := range b.addresses {
		i := (b.last + 1 + n) % len(b.addresses)
		a := &b.addresses[i]
		if tried&(1<<i) != 0 || a.out {
			continue
		}
		if s := a.share(now); best < 0 || (a.busy+1)*share < load*s {
			best, load, share = i, a.busy+1, s
		}
	}
	return best
}

// soonest is the address that comes back first.
func (b *balancer) soonest(tried uint64) int {
	best := -1
	for i := range b.addresses {
		if tried&(1<<i) == 0 && (best < 0 || b.addresses[i].until.Before(b.addresses[best].until)) {
			best = i
		}
	}
	return best
}

// settle says what the address of a lease did with the request.
func (b *balancer) settle(l lease, o outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := &b.addresses[l.address]
	if l.epoch != a.epoch {
		return
	}
	if l.probe {
		a.probing = false
	}
	switch {
	case o == undecided:
	case o == answered:
		a.failures = 0
		if a.out {
			a.out, a.probing, a.back = false, false, b.now()
			b.ejected.Dec()
			b.changed(a)
		}
	case !a.out:
		if a.failures++; a.failures >= failuresToEject {
			a.leave(b.now())
			b.ejected.Inc()
			b.changed(a)
		}
	case l.probe: // others that failed meanwhile say nothing new
		a.leave(b.now())
	}
}

// changed: what was begun before says nothing of the address any more, and the
// rounds begin anew, without the credit of one that was not in them.
func (b *balancer) changed(a *address) {
	a.epoch++
	for i := range b.addresses {
		b.addresses[i].credit = 0
	}
}

// leave takes the address out, each time for longer.
func (a *address) leave(now time.Time) {
	a.share(now) // which forgets what was long ago
	a.pause = min(max(2*a.pause, firstPause), longestPause)
	a.out, a.until, a.failures, a.back = true, now.Add(a.pause), 0, time.Time{}
}

// share is the address's part of the requests, from 1 to fullShare.
func (a *address) share(now time.Time) int {
	if a.out || a.back.IsZero() {
		return fullShare
	}
	since := now.Sub(a.back)
	if since >= slowReturn {
		a.back, a.pause = time.Time{}, 0
		return fullShare
	}
	return max(1, int(fullShare*since/slowReturn))
}

// release ends a lease.
func (b *balancer) release(l lease) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addresses[l.address].busy--
}
