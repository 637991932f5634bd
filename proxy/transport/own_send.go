package transport

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// lastWriteWait is how long the end of an answer waits for the sender of its
// request to see that it is done: the app may answer what was sent before the
// sender comes back from sending it.
const lastWriteWait = 50 * time.Millisecond

// A sender sends a request's body while the answer is read, since apps may
// answer before they have it all.
type sender struct {
	c      *ownConn
	body   *requestBody
	length int64 // -1: in chunks
	// proceed says whether the body is wanted, where the app is asked that; nil:
	// it is not.
	proceed chan bool

	last   atomic.Bool           // the write that ends the request has begun
	broken atomic.Pointer[error] // the body's own fault
	done   chan struct{}
	err    error // once done
}

var (
	errUnwanted = errors.New("the app did not want the body")
	lastChunk   = "0\r\n\r\n"
)

const (
	sendSize  = 32 << 10
	chunkHead = 10 // bytes, of the largest size of a chunk and more
)

var sendBuffers = sync.Pool{New: func() any { return new([chunkHead + sendSize + 2 + 5]byte) }}

func newSender(c *ownConn, req *http.Request, body *requestBody, length int64) *sender {
	s := &sender{c: c, body: body, length: length, done: make(chan struct{})}
	if req.ProtoAtLeast(1, 1) && httpguts.HeaderValuesContainsToken(req.Header["Expect"], "100-continue") {
		s.proceed = make(chan bool, 1)
	}
	return s
}

func (s *sender) run() {
	defer close(s.done)
	s.err = s.send()
	if err := s.body.Close(); s.err == nil {
		s.err = err
	}
}

func (s *sender) send() error {
	if !s.wanted() {
		return errUnwanted
	}
	buf := sendBuffers.Get().(*[chunkHead + sendSize + 2 + 5]byte)
	defer sendBuffers.Put(buf)
	if s.length < 0 {
		return s.chunks(buf[:])
	}
	return s.all(buf[:sendSize])
}

// wanted waits for the app's word, and not for ever.
func (s *sender) wanted() bool {
	if s.proceed == nil {
		return true
	}
	timer := time.NewTimer(continueWait)
	defer timer.Stop()
	select {
	case wanted := <-s.proceed:
		return wanted
	case <-timer.C:
		return true
	}
}

// answered tells what an answer says of the body: whether to send it. Only the
// first word counts.
func (s *sender) answered(send bool) {
	if s == nil || s.proceed == nil {
		return
	}
	select {
	case s.proceed <- send:
	default:
	}
}

// fails ends the request for a fault of the body.
func (s *sender) fails(err error) error {
	s.broken.Store(&err)
	s.c.abort()
	return err
}

// all sends a body whose length was said, and not a byte more: it would be the
// beginning of another request.
func (s *sender) all(buf []byte) error {
	for left := s.length; ; {
		n, err := s.body.Read(buf)
		if int64(n) > left {
			return s.fails(refuse("its body is longer than its Content-Length, %d", s.length))
		}
		left -= int64(n)
		if n > 0 {
			s.last.Store(left == 0)
			if _, werr := s.c.conn.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		switch {
		case err == io.EOF && left > 0:
			return s.fails(refuse("its body is shorter than its Content-Length, %d", s.length))
		case err == io.EOF:
			return nil
		case err != nil:
			return s.fails(err)
		}
	}
}

// chunks sends a body of which nobody knows the length (RFC 9112, section 7.1).
func (s *sender) chunks(buf []byte) error {
	for {
		n, err := s.body.Read(buf[chunkHead : chunkHead+sendSize])
		if err != nil && err != io.EOF {
			return s.fails(err)
		}
		out := buf[:0]
		if n > 0 {
			var digits [chunkHead]byte
			size := append(strconv.AppendInt(digits[:0], int64(n), 16), "\r\n"...)
			begin := chunkHead - len(size)
			copy(buf[begin:], size)
			out = append(buf[begin:chunkHead+n], "\r\n"...)
		}
		if err == io.EOF {
			out = append(out, lastChunk...)
			s.last.Store(true)
		}
		if len(out) > 0 {
			if _, err := s.c.conn.Write(out); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// whole reports, at the end of an answer, whether its request was sent to its
// end. An answer that ended before is an early one: what follows of the request
// could be taken for another, and so nothing is to follow.
func (s *sender) whole() bool {
	if s == nil {
		return true
	}
	select {
	case <-s.done:
		return s.err == nil
	default:
	}
	if !s.last.Load() {
		return false
	}
	timer := time.NewTimer(lastWriteWait)
	defer timer.Stop()
	select {
	case <-s.done:
		return s.err == nil
	case <-timer.C:
		return false
	}
}

// fault is the body's own, or nil.
func (s *sender) fault() error {
	if s != nil {
		if err := s.broken.Load(); err != nil {
			return *err
		}
	}
	return nil
}
