package policy

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxRequests bounds the count of a rate, and a burst.
const maxRequests = 1_000_000

// LimitBy says whose budget a limit counts.
type LimitBy uint8

const (
	LimitUID   LimitBy = iota // each uid of a namespace has its own
	LimitIP                   // each IPv4 address, each /64 of IPv6
	LimitActor                // each actor of an identity; a caller without one as LimitUID
	LimitRoute                // one for all callers
)

var limitBy = [...]string{"uid", "ip", "actor", "route"}

// String is the word that a policy has for it.
func (b LimitBy) String() string {
	if int(b) < len(limitBy) {
		return limitBy[b]
	}
	return "unknown"
}

// A Limit is a rate that a route allows: Burst requests at once, and Count in
// each Period in the long run. It is never changed after Load. The zero Limit
// allows nothing.
type Limit struct {
	Count  int           // requests in each Period, 1 to 1,000,000
	Period time.Duration // 1s, 1m, 1h or 24h
	Burst  int           // 1 to 1,000,000
	By     LimitBy
	// Refuse (`unavailable: refuse`) is of budgets that gateways share: nobody is
	// let through while they cannot be asked. Else each gateway's own hold then.
	Refuse bool
	// id is the route's id, a slash, and the index in the route's list. State is
	// kept by it, Count, Period, Burst and By: a reload keeps the budgets of a limit
	// that stayed the same, and one that was changed begins with full budgets.
	id string
}

// ratePeriods are the units of a rate.
var ratePeriods = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

// parseRate reads "30/m": a count of 1 to 1,000,000 in plain digits, and s, m,
// h or d. Each rate has one spelling.
func parseRate(s string) (count int, period time.Duration, ok bool) {
	digits, unit, _ := strings.Cut(s, "/")
	period = ratePeriods[unit]
	n, err := strconv.ParseUint(digits, 10, 32)
	if period == 0 || err != nil || n < 1 || n > maxRequests || digits[0] == '0' {
		return 0, 0, false
	}
	return int(n), period, true
}

// valid reports whether the limit is one that a policy can hold. It bounds what
// the arithmetic works with.
func (l *Limit) valid() bool {
	switch l.Period {
	case time.Second, time.Minute, time.Hour, 24 * time.Hour:
		return l.Count >= 1 && l.Count <= maxRequests && l.Burst >= 1 && l.Burst <= maxRequests
	}
	return false
}

// A moment is a time since a Limiter's first, or a length of time: seconds,
// nanoseconds, and a fraction of a nanosecond in parts of the limit's Count. So
// a Period that Count does not divide is counted exactly, and the longest burst
// (a million requests at 1/d, 2,737 years) does not overflow.
type moment struct {
	sec  int64
	ns   uint32 // below 1e9
	frac uint32 // below the limit's Count
}

const second = uint32(time.Second)

func momentOf(d time.Duration) moment {
	sec, ns := d/time.Second, d%time.Second
	if ns < 0 {
		sec, ns = sec-1, ns+time.Second
	}
	return moment{sec: int64(sec), ns: uint32(ns)}
}

// of is how long the rate takes to give n requests, exactly.
func (l *Limit) of(n int) moment {
	total, count := int64(n)*int64(l.Period/time.Second), int64(l.Count)
	ns := total % count * int64(time.Second)
	return moment{sec: total / count, ns: uint32(ns / count), frac: uint32(ns % count)}
}

func (m moment) add(d moment, count uint32) moment {
	m.sec, m.ns, m.frac = m.sec+d.sec, m.ns+d.ns, m.frac+d.frac
	if m.frac >= count {
		m.ns, m.frac = m.ns+1, m.frac-count
	}
	if m.ns >= second {
		m.sec, m.ns = m.sec+1, m.ns-second
	}
	return m
}

// after compares moments of one Count; those of different ones it compares to
// the nanosecond.
func (m moment) after(o moment) bool {
	switch {
	case m.sec != o.sec:
		return m.sec > o.sec
	case m.ns != o.ns:
		return m.ns > o.ns
	}
	return m.frac > o.frac
}

// since is the time from o to m, which is not earlier, in whole nanoseconds,
// rounded up.
func (m moment) since(o moment) time.Duration {
	sec, ns := m.sec-o.sec, int64(m.ns)-int64(o.ns)
	if m.frac > o.frac {
		ns++
	}
	if sec > math.MaxInt64/int64(time.Second)-1 {
		return math.MaxInt64
	}
	return time.Duration(sec)*time.Second + time.Duration(ns)
}

// lateness is how long ago a caller of Take may have read its clock.
var lateness = moment{sec: 1}

// A budget is one caller's share of one limit, while Take looks at it.
type budget struct {
	key   budgetKey
	shard uint8
	count uint32
	cost  moment // of one request
	burst moment // of all that there can be
	next  moment // what draw found: the state that is to be kept
}

// draw tries to take one request from a budget in state at, which is the time
// at which it will be whole again (the theoretical arrival time of GCRA, the
// generic cell rate algorithm of ATM Forum's Traffic Management 4.0, 4.4.3). It
// leaves the new state in next; changed is whether there is one.
func (b *budget) draw(at, now moment) (retry time.Duration, changed, ok bool) {
	spent := now.add(b.burst, b.count) // the state of a budget with nothing left
	if now.after(at) {
		at = now
	}
	if at.after(spent.add(lateness, b.count)) && at.after(spent.add(b.burst, b.count)) {
		// The clock went back: else no request can have left this state.
		b.next = spent
		return b.cost.since(moment{}), true, false
	}
	b.next = at.add(b.cost, b.count)
	if b.next.after(spent) {
		return b.next.since(spent), false, false
	}
	return 0, true, true
}

// A budgetKey is a hash of what a budget is of, by seeds that nobody knows:
// that two budgets meet in one is left to chance, and 128 bits leave none.
type budgetKey [2]uint64

const (
	// limitShards keep concurrent requests from waiting for one lock. A set of
	// them is the bits of a uint64.
	limitShards = 64
	// addressShards are those of them that hold the budgets of addresses.
	addressShards = limitShards / 2
	// defaultBudgets need about 40 MB when all are in use, and nothing before.
	defaultBudgets = 1 << 18
	// sweepLook is how many budgets a new one looks at for room.
	sweepLook = 8
)

// A Limiter holds the budgets that were drawn on and are not whole again: a
// budget that it does not hold is whole. It is safe for concurrent use.
//
// Its memory is bounded. Where there is no room for a new budget, one of a few
// others is forgotten, the one that will be whole soonest: a budget that was
// used up stays where others were hardly drawn on. What is forgotten is whole
// again, so that nobody is ever refused for want of room. To have a used-up
// budget of its own forgotten, a caller must come with about as many addresses
// as there is room for and leave each of them as far from whole; where a limit
// of a long period is at hand, one request each does that. It gains little: each
// of those addresses had a budget of its own. Whoever has that many (a /48 of
// IPv6 is 65,536 of them) is not held by a limit by ip, but by one by uid or by
// route: the budgets of addresses have half of the room, and all others the
// other half, so that strangers cannot push out what identities have used.
type Limiter struct {
	seeds  [2]maphash.Seed
	start  atomic.Pointer[time.Time] // the first now
	shards [limitShards]budgets
}

// budgets are those of one shard.
type budgets struct {
	mu     sync.Mutex
	index  map[budgetKey]int32 // where a budget is in all
	all    []heldBudget
	max    int
	cursor int      // where the next sweep begins
	_      [64]byte // no two shards' locks in one cache line
}

type heldBudget struct {
	key budgetKey
	at  moment
}

// NewLimiter makes the state for at most entries budgets, but for one in each
// of its 64 shards; 0: the default, 1<<18.
func NewLimiter(entries int) *Limiter {
	if entries <= 0 {
		entries = defaultBudgets
	}
	l := &Limiter{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	for i := range l.shards {
		l.shards[i].index = map[budgetKey]int32{}
		l.shards[i].max = min(max(entries/limitShards, 1), math.MaxInt32)
	}
	return l
}

// Take takes one request from every one of the limits, or from none of them:
// where one has nothing left, ok is false and retry is how long until all of
// them would have, at least a nanosecond. No limit may be there twice. Where in
// does not say whose budget it is (no identity for uid and actor, no address for
// ip), it is refused, with a second to retry. Concurrent calls are as one after
// the other.
//
// now is the clock, read no more than a second before. Times from time.Now are
// compared by their monotonic part, which does not go back. Where a clock
// without one goes back, it adds to no budget, and refuses nobody for longer
// than it takes to fill a whole one (or a second, where that is more) beyond
// what retry would have been: a budget that is further behind than that counts
// as used up just now. Where it goes forth, it gives what the rate gives in that
// time, at most a burst.
func (l *Limiter) Take(limits []*Limit, in *Input, now time.Time) (retry time.Duration, ok bool) {
	var room [4]budget // so that the usual call needs no memory
	drawn, locks := room[:0], uint64(0)
	for _, limit := range limits {
		b, ok := l.budget(limit, in)
		if !ok {
			return time.Second, false
		}
		drawn = append(drawn, b)
		locks |= 1 << b.shard
	}
	when := l.moment(now)
	l.lock(locks)
	defer l.unlock(locks)
	ok = true
	for i := range drawn {
		b := &drawn[i]
		s := &l.shards[b.shard]
		wait, changed, has := b.draw(s.at(b.key, when), when)
		if has {
			continue
		}
		ok, retry = false, max(retry, wait)
		if changed {
			s.put(b.key, b.next, when)
		}
	}
	if !ok {
		return max(retry, 1), false
	}
	for i := range drawn {
		b := &drawn[i]
		l.shards[b.shard].put(b.key, b.next, when)
	}
	return 0, true
}

// lock locks a set of shards, always in the same order, so that no two calls
// wait for each other.
func (l *Limiter) lock(set uint64) {
	for ; set != 0; set &= set - 1 {
		l.shards[bits.TrailingZeros64(set)].mu.Lock()
	}
}

func (l *Limiter) unlock(set uint64) {
	for ; set != 0; set &= set - 1 {
		l.shards[bits.TrailingZeros64(set)].mu.Unlock()
	}
}

// moment is now as time since the first one. Sub saturates, at 292 years.
func (l *Limiter) moment(now time.Time) moment {
	start := l.start.Load()
	if start == nil {
		first := now // a copy, so that only the first now is on the heap
		l.start.CompareAndSwap(nil, &first)
		start = l.start.Load()
	}
	return momentOf(now.Sub(*start))
}

// budget finds whose the request's budget is. It is not ok where that cannot be
// told.
func (l *Limiter) budget(limit *Limit, in *Input) (b budget, ok bool) {
	if !limit.valid() {
		return budget{}, false
	}
	var room [512]byte // so that no key of a usual length needs memory
	text, ok := limit.appendName(room[:0], in)
	if !ok {
		return budget{}, false
	}
	b = budget{
		key:   budgetKey{maphash.Bytes(l.seeds[0], text), maphash.Bytes(l.seeds[1], text)},
		count: uint32(limit.Count), cost: limit.of(1), burst: limit.of(limit.Burst),
	}
	b.shard = uint8(b.key[0] % addressShards)
	if limit.By != LimitIP {
		b.shard += addressShards
	}
	return b, true
}

// appendName appends what tells this budget from all others: which limit it is
// of, and whose it is.
func (l *Limit) appendName(text []byte, in *Input) (_ []byte, ok bool) {
	text = append(text, byte(l.By))
	text = binary.BigEndian.AppendUint32(text, uint32(l.Count))
	text = binary.BigEndian.AppendUint32(text, uint32(l.Burst))
	text = binary.BigEndian.AppendUint64(text, uint64(l.Period))
	return appendWhose(appendPart(text, l.id), l.By, in)
}

// appendWhose appends what tells the budgets of one limit apart.
func appendWhose(text []byte, by LimitBy, in *Input) (_ []byte, ok bool) {
	switch by {
	case LimitUID, LimitActor:
		id := in.Identity
		switch {
		case id == nil:
			return nil, false
		case by == LimitActor && id.Actor != "":
			return appendPart(appendPart(append(text, 'a'), id.Name), id.Actor), true
		}
		return appendPart(appendPart(append(text, 'u'), id.Namespace), id.UID), true
	case LimitIP:
		ip := in.IP.Unmap()
		switch {
		case !ip.IsValid():
			return nil, false
		case ip.Is4():
			a := ip.As4()
			return append(append(text, '4'), a[:]...), true
		}
		a := ip.As16() // without its zone: a caller could choose that
		return append(append(text, '6'), a[:8]...), true
	case LimitRoute:
		return text, true
	}
	return nil, false
}

// appendPart appends a string so that its end can be told: ("a", "bc") is not
// ("ab", "c").
func appendPart(text []byte, part string) []byte {
	return append(binary.AppendUvarint(text, uint64(len(part))), part...)
}

// at is the state of a budget; now where it is whole.
func (s *budgets) at(key budgetKey, now moment) moment {
	if i, ok := s.index[key]; ok {
		return s.all[i].at
	}
	return now
}

// put keeps the state of a budget.
func (s *budgets) put(key budgetKey, at, now moment) {
	i, ok := s.index[key]
	if !ok {
		i = s.room(now)
		s.index[key] = i
	}
	s.all[i] = heldBudget{key, at}
}

// room makes room for one more budget. Each call looks at a few, in turn, and
// forgets those that are whole, for every caller whose clock is not too late:
// there is no need of them. A budget is forgotten once for each time it was
// new, so that the cost stays the same however many there are. Where none of
// the few was whole and no room is left, it forgets the one that will be soonest.
func (s *budgets) room(now moment) int32 {
	soonest, late := 0, moment{sec: now.sec - lateness.sec, ns: now.ns}
	for n := range min(sweepLook, len(s.all)) {
		if s.cursor >= len(s.all) {
			s.cursor = 0
		}
		i := s.cursor
		if !s.all[i].at.after(late) {
			if s.forget(i); len(s.all) == 0 {
				break
			}
			soonest = 0 // there is room now, and what it was may have moved
			continue    // with the one that is in its place now
		}
		if n == 0 || s.all[soonest].at.after(s.all[i].at) {
			soonest = i
		}
		s.cursor++
	}
	if len(s.all) < s.max {
		s.all = append(s.all, heldBudget{})
		return int32(len(s.all) - 1)
	}
	delete(s.index, s.all[soonest].key) // nothing was whole: nothing has moved
	return int32(soonest)
}

// forget removes a budget and has the last one take its place.
func (s *budgets) forget(i int) {
	delete(s.index, s.all[i].key)
	last := len(s.all) - 1
	if i != last {
		s.all[i] = s.all[last]
		s.index[s.all[i].key] = int32(i)
	}
	s.all = s.all[:last]
}
