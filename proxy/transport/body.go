package transport

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// A requestBody knows whether it failed by itself, and stays open while another
// address may be asked: net/http closes a body where it cannot connect. nil is
// no body.
type requestBody struct {
	body    io.ReadCloser
	touched atomic.Bool // a byte of it was asked for
	broke   atomic.Bool
	closed  atomic.Bool

	mu   sync.Mutex
	held bool // Close waits for release
}

var errBodyClosed = errors.New("transport: read of a closed body")

func wrapBody(body io.ReadCloser, held bool) *requestBody {
	if body == nil || body == http.NoBody {
		return nil
	}
	return &requestBody{body: body, held: held}
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, errBodyClosed
	}
	b.touched.Store(true)
	n, err := b.body.Read(p)
	if err != nil && err != io.EOF {
		b.broke.Store(true)
	}
	return n, err
}

func (b *requestBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if closed := b.closed.Swap(true); closed || b.held {
		return nil
	}
	return b.body.Close()
}

// reopen makes it readable for another try. False: it is not whole any more.
func (b *requestBody) reopen() bool {
	if b == nil {
		return true
	}
	if b.touched.Load() {
		return false
	}
	b.closed.Store(false)
	return true
}

// release ends the holding; what was closed meanwhile is closed now.
func (b *requestBody) release() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = false
	if b.closed.Load() {
		_ = b.body.Close() // whoever closed it has been answered already
	}
}

func (b *requestBody) failed() bool { return b != nil && b.broke.Load() }

// An answerBody ends its request when it is closed.
type answerBody struct {
	io.ReadCloser
	t    *Transport
	l    lease
	once *onceOnly
	done atomic.Bool
}

func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	if b.done.CompareAndSwap(false, true) {
		b.t.over(b.l, b.once)
	}
	return err
}

// A tunnel is the body of an answer that left HTTP: it is written to, too.
type tunnel struct {
	*answerBody
	conn io.ReadWriteCloser
}

func (t tunnel) Write(p []byte) (int, error) { return t.conn.Write(p) }

// CloseWrite ends one direction of it.
func (t tunnel) CloseWrite() error {
	if c, ok := t.conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return http.ErrNotSupported
}

// follow sees an answer to its end.
func (t *Transport) follow(res *http.Response, l lease, once *onceOnly) {
	if res.Body == http.NoBody {
		t.over(l, once)
		return
	}
	if b, ok := res.Body.(*ownBody); ok {
		b.t, b.l = t, l
		return
	}
	body := &answerBody{ReadCloser: res.Body, t: t, l: l, once: once}
	if conn, ok := res.Body.(io.ReadWriteCloser); ok {
		res.Body = tunnel{body, conn}
		return
	}
	res.Body = body
}
