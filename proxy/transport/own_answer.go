package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"

	"sidegate/proxy/leash"
)

// An asking is one request on its connection, to the end of its answer.
type asking struct {
	c      *ownConn
	at     *ownAddress
	ctx    context.Context
	leash  *leash.Leash // of ctx; nil: stop watches over it
	stop   func() bool  // nil: ctx never ends, or has a leash
	sender *sender      // nil: there is no body
	broken bool         // the request could not be written
	last   bool         // the connection ends with this answer
	res    http.Response
	body   ownBody
}

// ask sends the request and reads the beginning of its answer. again: the
// connection was an old one that broke, and the request may be sent once more.
func (c *ownConn) ask(ctx context.Context, req *http.Request, body *requestBody, at *ownAddress) (res *http.Response, err error, again bool) {
	length := bodyLength(req, body)
	if c.head, err = appendHead(c.head[:0], req, at.host, length); err != nil {
		c.keepHead()
		if c.clean() { // nothing was written
			at.idle.put(c)
		} else {
			c.cut()
		}
		closeBody(body)
		return nil, err, false
	}
	a := &asking{c: c, at: at, ctx: ctx, last: req.Close}
	a.watch()
	n, werr := c.send(body == nil)
	c.keepHead()
	switch {
	case werr == errUnquiet:
		a.end(false)
		return nil, werr, true // nothing was sent
	case werr == nil && body != nil:
		a.sender = newSender(c, req, body, length)
		go a.sender.run()
	case werr != nil && n == 0 && c.reused && ctx.Err() == nil:
		a.end(false)
		return nil, werr, true // nothing was sent
	case werr != nil:
		a.broken = true // there may be an answer nevertheless
		closeBody(body)
	}
	res, begun, err := a.answer(req)
	if err == nil {
		return res, nil, false
	}
	a.sender.answered(false)
	a.end(false)
	switch fault := a.sender.fault(); {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case fault != nil:
		err = fault
	case c.reused && !begun && body == nil && isSafe(req.Method):
		return nil, err, true
	case werr != nil:
		err = fmt.Errorf("%w (%w)", werr, err)
	}
	return nil, err, false
}

// keepHead gives up room that few requests need.
func (c *ownConn) keepHead() {
	if cap(c.head) > keptHead {
		c.head = nil
	}
}

// isSafe: RFC 9110, section 9.2.1; only these may be processed twice, whatever
// their sender says of idempotency.
func isSafe(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// answer reads answers up to the one that counts. begun: something came.
func (a *asking) answer(req *http.Request) (res *http.Response, begun bool, err error) {
	c := a.c
	c.left = maxAnswerHeader // of all of them together
	if _, err := c.in.Peek(1); err != nil {
		return nil, false, err
	}
	for n := 0; ; n++ {
		if res, err = a.head(req); err != nil {
			if c.left <= 0 {
				err = errAnswerHeader
			}
			return nil, true, err
		}
		if res.StatusCode < 100 || res.StatusCode > 199 || res.StatusCode == http.StatusSwitchingProtocols {
			break
		}
		if n == maxInformational {
			return nil, true, errors.New("the upstream answers with nothing but 1xx")
		}
		if err := a.inform(res); err != nil {
			return nil, true, err
		}
	}
	c.left = math.MaxInt64
	res.TLS = c.state
	return a.begin(res)
}

// head reads the head of one answer. Where net/http must say what it means, the
// connection ends with it: an app that is odd in one place is so in others.
func (a *asking) head(req *http.Request) (*http.Response, error) {
	head, err := a.c.readHead()
	if err != nil {
		return nil, err
	}
	a.res = http.Response{}
	if parseHead(head, req.Method, &a.res) {
		a.res.Request = req
		a.body.is(a, req.Method)
		return &a.res, nil
	}
	a.last = true
	a.c.in, a.c.odd = bufio.NewReader(io.MultiReader(strings.NewReader(head), a.c.in)), true
	res, err := http.ReadResponse(a.c.in, req)
	if err != nil {
		return nil, err
	}
	if res.Body != http.NoBody {
		a.body = ownBody{a: a, from: res.Body}
		res.Body = &a.body
	}
	return res, nil
}

// inform passes on a 1xx.
func (a *asking) inform(res *http.Response) error {
	if res.StatusCode == http.StatusContinue {
		a.sender.answered(true)
	}
	trace := httptrace.ContextClientTrace(a.ctx)
	if trace == nil || trace.Got1xxResponse == nil {
		return nil
	}
	return trace.Got1xxResponse(res.StatusCode, textproto.MIMEHeader(res.Header))
}

// begin makes of an answer's head the answer.
func (a *asking) begin(res *http.Response) (*http.Response, bool, error) {
	a.last = a.last || res.Close || res.StatusCode < 200
	a.sender.answered(!a.last) // who wants the body without saying so, and keeps the connection, gets it
	switch {
	case switches(res):
		if !a.sender.whole() {
			return nil, true, errors.New("the upstream changed the protocol in the middle of a request")
		}
		if !a.unwatch() {
			return nil, true, context.Cause(a.ctx)
		}
		a.c.once.Do(func() {}) // it is the caller's now
		res.Body = newOwnTunnel(a.c)
	case res.Body == http.NoBody:
		a.end(true)
	}
	return res, true, nil
}

// switches: RFC 9110, section 15.2.2.
func switches(res *http.Response) bool {
	return res.StatusCode == http.StatusSwitchingProtocols && res.Header.Get("Upgrade") != "" &&
		httpguts.HeaderValuesContainsToken(res.Header["Connection"], "upgrade")
}

// watch has the connection broken off when ctx ends.
func (a *asking) watch() {
	if a.ctx.Done() == nil {
		return
	}
	if a.leash = leash.Tie(a.ctx, a.c.abort); a.leash == nil {
		a.stop = context.AfterFunc(a.ctx, a.c.abort)
	}
}

// unwatch reports whether ctx has not ended. It must not be undone twice: the
// leash may be tied by another then.
func (a *asking) unwatch() bool {
	switch {
	case a.leash != nil:
		l := a.leash
		a.leash = nil
		return l.Untie()
	case a.stop != nil:
		return a.stop()
	}
	return true
}

// end is where the request has its connection no more. It is used again only
// where there is nothing left of either side's words: the answer was read to its
// end, the request written to its own, and nobody ended it meanwhile.
func (a *asking) end(whole bool) {
	if !a.unwatch() {
		whole = false // and abort may still come
	}
	if whole && !a.broken && !a.last && a.sender.whole() && a.c.clean() {
		a.at.idle.put(a.c)
		return
	}
	a.c.cut()
}

// An ownTunnel is a connection that left HTTP.
type ownTunnel struct {
	net.Conn
	in *bufio.Reader // of it: what came behind the answer is there, or behind it
}

func newOwnTunnel(c *ownConn) *ownTunnel {
	c.head = nil // no request comes any more
	return &ownTunnel{Conn: c.conn, in: c.in}
}

func (t *ownTunnel) Read(p []byte) (int, error) { return t.in.Read(p) }

// CloseWrite ends one direction of it.
func (t *ownTunnel) CloseWrite() error {
	if c, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return http.ErrNotSupported
}
