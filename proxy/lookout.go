package proxy

import (
	"errors"
	"os"
	"sync"
)

// A lookout finds out that a caller has gone away while his request is served.
//
// net/http does so by reading on while a handler runs: a goroutine that waits in
// a read of one byte, which must be broken off when the handler is done. That is
// a system call, a wait and two deadlines for each request, and next to no
// request takes long enough for anybody to leave. So the connection answers that
// read at once, with nothing: (0, nil). net/http's goroutine then ends, there is
// nothing to break off, and there is no other such read before the next request,
// since net/http begins one for each, by the end of its body. A Proxy, which has
// said by spare that it does, looks out itself for requests that take their time:
// by the same read, whose byte is kept for net/http's next one.
//
// Which read it is can be told: at a request's end nobody but that goroutine asks
// for one byte alone. Whoever reads requests asks for as much as the buffer has
// room for, and its room is one byte only when there is nearly a buffer of an
// unfinished request in it; a limit on a header's size cannot leave one byte
// either before the header has begun.
//
// A lookout is begun and ended by the request's goroutine or one of its Proxy's,
// and may go on beside net/http's reads: they end it first, so that two never
// read at once and no byte overtakes another.
type lookout struct {
	mu    sync.Mutex
	ended sync.Cond // of mu: told when looking becomes false

	spared  bool // the Proxy looks out
	ahead   bool // net/http has its answer, and reads nothing more before the request is over
	late    bool // the request is one that is looked out for
	looking bool
	ending  bool // looking is to end

	kept bool    // a byte was read, and nobody has had it yet
	one  [1]byte // it; looking's own while that is true
}

// spare says that a Proxy looks out for this connection's requests.
func (c *strictConn) spare() {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.spared = true
}

// readsAhead reports whether a read of one byte at a request's end is to be
// answered at once.
func (l *lookout) readsAhead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.looking:
		return true
	case !l.spared || l.late || l.kept:
		return false // net/http may look out itself
	}
	l.ahead = true
	return true
}

// take ends a lookout since net/http reads, and gives it what was kept.
func (c *strictConn) take(p []byte) (n int) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.ahead = false
	c.endLookingLocked()
	if c.out.kept {
		if n = copy(p, c.out.one[:]); n > 0 {
			c.out.kept = false
		}
	}
	return n
}

// lookOut is told of a request that takes its time. gone is called, once at most
// and not after endLookOut, when its caller has left.
func (c *strictConn) lookOut(gone func(error)) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.late = true
	if c.out.ahead && !c.out.looking && !c.out.kept {
		c.out.looking = true
		go c.look(gone)
	}
}

// look waits for one byte. A caller who sends the next request already is not
// looked out for any more, as by net/http.
func (c *strictConn) look(gone func(error)) {
	var n int
	err := c.reading.begin()
	for again := err == nil; again; {
		n, err = c.Conn.Read(c.out.one[:])
		if again = c.reading.leave(err); again && (n > 0 || c.lookEnds()) {
			c.reading.leave(nil)
			again, err = false, nil
		}
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		gone(errClientGone)
	}
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.kept, c.out.looking = n > 0, false
	c.out.ended.Broadcast()
}

func (c *strictConn) lookEnds() bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.ending
}

// endLookOut is for the request's end.
func (c *strictConn) endLookOut() {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.late = false
	c.endLookingLocked()
}

func (c *strictConn) endLookingLocked() {
	if !c.out.looking {
		return
	}
	c.out.ending = true
	c.reading.interrupt()
	for c.out.looking {
		c.out.ended.Wait()
	}
	c.out.ending = false
}
