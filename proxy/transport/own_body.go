package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"sync/atomic"
)

// An ownBody is an answer's body.
type ownBody struct {
	a     *asking
	from  io.Reader // chunks, or what net/http made of it; nil: the connection
	mine  bool      // it is in chunks, and the trailers behind them were not read
	left  int64     // bytes to its end; -1: whoever it is read from knows
	state atomic.Uint32
	err   error // that reading ended with; of whoever reads

	t    *Transport // whose request ends when the body is closed
	l    lease
	done atomic.Bool
}

const (
	bodyOpen uint32 = iota
	bodyOver
	bodyClosed
)

var (
	errReadClosed   = errors.New("read of an answer's body that was closed")
	errLongTrailers = errors.New("the trailers of the upstream's answer are too long, or have no end")
)

// is makes it the body of the answer whose head was read.
func (b *ownBody) is(a *asking, method string) {
	res := &a.res
	switch {
	case method == http.MethodHead, res.ContentLength == 0:
		res.Body = http.NoBody
		return
	case len(res.TransferEncoding) > 0:
		b.from, b.mine, b.left = httputil.NewChunkedReader(a.c.in), true, -1
	default:
		b.left = res.ContentLength
	}
	b.a, res.Body = a, b
}

func (b *ownBody) Read(p []byte) (int, error) {
	switch b.state.Load() {
	case bodyOver:
		return 0, b.err
	case bodyClosed:
		return 0, errReadClosed
	}
	n, err := b.read(p)
	if err == nil {
		return n, nil
	}
	if err != io.EOF {
		err = b.a.explain(err)
	}
	b.err = err
	if b.state.CompareAndSwap(bodyOpen, bodyOver) {
		b.a.end(err == io.EOF)
	}
	return n, err
}

// read sees the end together with the last byte where it can, since whoever
// copies an answer may not ask once more.
func (b *ownBody) read(p []byte) (int, error) {
	if b.from != nil {
		n, err := b.from.Read(p)
		if err == io.EOF && b.mine {
			err = b.trailers()
		}
		return n, err
	}
	if b.left < 0 {
		return b.a.c.in.Read(p)
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.a.c.in.Read(p)
	switch b.left -= int64(n); {
	case b.left == 0:
		err = io.EOF
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// trailers reads what follows the last chunk (RFC 9112, section 7.1.2), as much
// as the buffer holds, and gives io.EOF.
func (b *ownBody) trailers() error {
	in := b.a.c.in
	if end, err := in.Peek(2); err != nil {
		return unexpected(err)
	} else if string(end) == "\r\n" {
		_, _ = in.Discard(2)
		return io.EOF
	}
	for {
		buf, _ := in.Peek(in.Buffered())
		if bytes.Contains(buf, []byte("\r\n\r\n")) {
			break
		}
		if len(buf) == in.Size() {
			return errLongTrailers
		}
		if _, err := in.Peek(len(buf) + 1); err != nil {
			return unexpected(err)
		}
	}
	trailers, err := textproto.NewReader(in).ReadMIMEHeader()
	if err != nil {
		return unexpected(err)
	}
	if b.a.res.Trailer == nil {
		b.a.res.Trailer = http.Header{}
	}
	maps.Copy(b.a.res.Trailer, http.Header(trailers))
	return io.EOF
}

// Close ends the connection where the body was not read to its end: what is left
// could be much, and come slowly.
func (b *ownBody) Close() error {
	if b.state.CompareAndSwap(bodyOpen, bodyClosed) {
		b.a.sender.answered(false)
		b.a.end(false)
	}
	if b.t != nil && b.done.CompareAndSwap(false, true) {
		b.t.over(b.l, nil)
	}
	return nil
}

// explain says why the connection broke, where that was not the app's doing.
func (a *asking) explain(err error) error {
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	if fault := a.sender.fault(); fault != nil {
		return fault
	}
	return err
}
