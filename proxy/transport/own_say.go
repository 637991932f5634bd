package transport

import "errors"

// errUnquiet: an idle connection was closed by the app, or something came over it
// unasked. Nothing was sent.
var errUnquiet = errors.New("the idle connection is over")

// said is what became of a request's head.
type said struct {
	n   int // bytes of it that were written
	err error
	all bool // it was written to its end, and the answer waited for
}

// send sends the request's head. alone: it has no body. Then, over a connection
// that was used before, it is one step with the look at the connection and the
// wait for the answer. Who writes, and then reads, reads in vain before he waits,
// since no app answers at once; and who waits without having read must have begun
// to wait before he wrote: else an answer could come between, and nobody would
// hear of it again.
func (c *ownConn) send(alone bool) (n int, err error) {
	if !alone || !c.reused || c.state != nil {
		return c.conn.Write(c.head)
	}
	c.said, c.silent = said{}, false
	err = c.socket.Read(c.say)
	switch {
	case c.said.all:
		return c.said.n, nil // what ended the wait, whoever reads is told again
	case err != nil:
		return 0, err // it could not begin
	case !c.silent:
		return 0, errUnquiet
	case c.said.err != nil:
		return c.said.n, c.said.err
	}
	n, err = c.conn.Write(c.head[c.said.n:])
	return c.said.n + n, err
}
