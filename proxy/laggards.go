package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// laggardAge is how long a request may take before anything is spent on the case
// that it takes long. It becomes a laggard when it is this old, and before it is
// twice as old.
const laggardAge = 50 * time.Millisecond

// laggards find the requests that take their time, of all that are served. Nearly
// none do, so a request costs nothing here but to be on a list: one timer looks
// at all of them, as long as there are any, and takes off the list those that it
// has seen before. The zero value is ready. It is safe for concurrent use.
type laggards struct {
	lists   [16]laggardList
	ticking atomic.Bool
}

// A laggardList is part of them: one for all would be where all requests meet.
type laggardList struct {
	mu    sync.Mutex
	young *laggard // not seen yet
	seen  *laggard
	_     [64]byte // lists have no cache line in common
}

// A laggard is a request that is, or may become, one.
type laggard struct {
	prev, next *laggard // of its list's lock
	on         bool     // a list
	seen       bool     // by the timer
	list       *laggardList

	mu    sync.Mutex
	late  bool      // it is one
	watch *watchdog // of its upstream; nil: it has none yet
	conn  *strictConn
	x     *exchange // whose it is; nil where conn is
	// unfollow ends following what the exchange's context comes from.
	unfollow func() bool
}

// add puts a request on a list; its number is any that spreads well. remove must
// follow.
func (l *laggards) add(one *laggard, number uint8) {
	one.list = &l.lists[number%uint8(len(l.lists))]
	one.list.mu.Lock()
	one.on = true
	one.list.push(&one.list.young, one)
	one.list.mu.Unlock()
	if !l.ticking.Load() && l.ticking.CompareAndSwap(false, true) {
		time.AfterFunc(laggardAge, l.tick)
	}
}

// remove is for the request's end. When it returns nothing is done for it any
// more, or with what it holds.
func (one *laggard) remove() {
	if one.list != nil {
		one.list.mu.Lock()
		if one.on {
			one.list.pull(one)
		}
		one.list.mu.Unlock()
	}
	one.mu.Lock() // else tick may have it still
	defer one.mu.Unlock()
	if one.unfollow != nil {
		one.unfollow()
	}
	if one.late && one.conn != nil {
		one.conn.endLookOut()
	}
}

// follow ends the exchange when what its context comes from does. Before a request
// is late that is our stop, or the end of a connection that nobody reads or
// writes. The lock is held, or nobody else knows it yet.
func (one *laggard) follow() {
	if one.conn != nil {
		one.unfollow = context.AfterFunc(one.x.outer, one.x.outerEnded)
	}
}

func (l *laggardList) push(head **laggard, one *laggard) {
	one.prev, one.next = nil, *head
	if one.next != nil {
		one.next.prev = one
	}
	*head = one
}

func (l *laggardList) pull(one *laggard) {
	switch {
	case one.prev != nil:
		one.prev.next = one.next
	case one.seen:
		l.seen = one.next
	default:
		l.young = one.next
	}
	if one.next != nil {
		one.next.prev = one.prev
	}
	one.on, one.prev, one.next = false, nil, nil
}

// tick makes laggards of the requests that the last one has seen.
func (l *laggards) tick() {
	any := false
	for i := range l.lists {
		list := &l.lists[i]
		for list.age() {
		}
		list.mu.Lock()
		for one := list.young; one != nil; one = one.next {
			one.seen = true
		}
		list.seen, list.young = list.young, nil
		any = any || list.seen != nil
		list.mu.Unlock()
	}
	if any {
		time.AfterFunc(laggardAge, l.tick)
		return
	}
	l.ticking.Store(false)
	// A request that came meanwhile may have seen that there is a timer.
	if l.waiting() && l.ticking.CompareAndSwap(false, true) {
		time.AfterFunc(laggardAge, l.tick)
	}
}

// age makes a laggard of one request. False: there is none.
func (l *laggardList) age() bool {
	l.mu.Lock()
	one := l.seen
	if one == nil {
		l.mu.Unlock()
		return false
	}
	l.pull(one)
	one.mu.Lock() // before the list's is given back: remove waits for it
	defer one.mu.Unlock()
	l.mu.Unlock()
	one.late = true
	one.follow()
	if one.watch != nil {
		one.watch.arm()
	}
	if one.conn != nil {
		one.conn.lookOut(one.x.end)
	}
	return true
}

func (l *laggards) waiting() bool {
	for i := range l.lists {
		list := &l.lists[i]
		list.mu.Lock()
		some := list.young != nil
		list.mu.Unlock()
		if some {
			return true
		}
	}
	return false
}

// watched has the watchdog of the request's upstream armed when it is needed.
func (one *laggard) watched(w *watchdog) {
	one.mu.Lock()
	defer one.mu.Unlock()
	one.watch = w
	if one.late || one.list == nil {
		w.arm()
	}
}
