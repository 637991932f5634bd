package proxy

import (
	"errors"
	"io"
	"net/http"
	"syscall"

	"sidegate/proxy/splice"
)

// Large answers pass from the app's connection to the caller's within the kernel
// where both are TCP without TLS. All that watches an answer sees it pass as it
// sees one that is copied: who waits for whom, how much came, how it ended.

// spliceFrom is how long an answer must be: for shorter ones the steps that are
// saved are fewer than those that are added.
const spliceFrom = 256 << 10

// passes reports whether the answer may. One that says when it ends is not an
// endless stream, of which each byte must go at once.
func (b *answerBody) passes() bool {
	_, writes := b.x.w.ResponseWriter.(io.ReaderFrom)
	return writes && b.left >= spliceFrom && !b.events && b.res.ProtoMajor == 1 && b.res.TLS == nil &&
		b.x.r.ProtoMajor == 1 && b.x.r.TLS == nil && b.x.r.Method != http.MethodHead
}

var errNotTaken = errors.New("the caller did not take the answer")

// pass passes on what of the answer goes by a Pipe. What is left then, all of it
// where no Pipe is to be had, is ReverseProxy's to copy, and so is what makes an
// end of it. err is of reading; where taken is false, the caller's writer knows why.
func (b *answerBody) pass() (err error, taken bool) {
	pipe := splice.Get()
	if pipe == nil {
		return nil, true
	}
	defer pipe.Put()
	flushed := false // what was written is out, the header first of all
	ahead := 0       // bytes of the answer that no Pipe was filled with
	for room := pipe.Buffer(); err == nil && b.left >= splice.MinRead; {
		var n int
		n, err = b.take(room[:min(int64(len(room)), b.left)])
		if pipe.Taken() == 0 { // it was read ahead, with the header
			flushed = false
			if b.x.w.writePieces(room[:n]) != nil {
				return nil, false
			}
			if ahead += n; ahead > splice.MinRead {
				break // or by no connection of TCP, and the Pipe is for others
			}
			continue
		}
		if !flushed && b.x.w.FlushError() != nil || b.x.w.splice(pipe) != nil {
			return nil, false
		}
		flushed = true
	}
	return err, true
}

// splice writes what a Pipe holds. Each time that the caller takes some of it his
// time begins anew.
func (w *responseWriter) splice(p *splice.Pipe) error {
	for p.Held() > 0 {
		w.extend()
		n, err := w.ResponseWriter.(io.ReaderFrom).ReadFrom(p)
		w.bytes += n
		if w.failed(err); err != nil {
			return err
		}
	}
	return nil
}

// writePieces gives the caller as much time for a byte as a copied answer does.
func (w *responseWriter) writePieces(p []byte) error {
	for len(p) > 0 {
		n, err := w.Write(p[:min(len(p), 32<<10)])
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// ReadFrom is how net/http has a connection take an answer from a Pipe: some of
// it, since whoever calls gives the caller anew what time he has. Anything else is
// copied.
func (c *strictConn) ReadFrom(src io.Reader) (int64, error) {
	p, ok := src.(*splice.Pipe)
	if raw := c.socket(); ok && raw != nil {
		return c.pour(p, raw)
	}
	buf := buffers.Get()
	defer buffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{src}, buf)
}

// pour writes some of what a Pipe holds, under the rules of Write.
func (c *strictConn) pour(p *splice.Pipe, raw syscall.RawConn) (int64, error) {
	c.writes.Lock()
	defer c.writes.Unlock()
	if err := c.writing.begin(); err != nil {
		return 0, err
	}
	for {
		n, err := p.Pour(raw)
		if !c.writing.leave(err) {
			return int64(n), err
		}
	}
}

// socket is the connection itself, if nothing stands between it and what is
// written; nil: it cannot be had.
func (c *strictConn) socket() syscall.RawConn {
	if s, ok := c.Conn.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}
