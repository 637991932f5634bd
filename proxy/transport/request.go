package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync/atomic"
)

// outgoing is the request as it is sent to an address; it is req itself where
// nothing differs. GetBody is not taken over: by it net/http would send a body
// twice.
func (t *Transport) outgoing(req *http.Request, body *requestBody, address string) *http.Request {
	renamed := replayable(req)
	if body == nil && req.URL.Host == address && !renamed {
		return req
	}
	out := *req
	if out.URL.Host != address {
		u := *req.URL
		u.Host = address
		out.URL = &u
	}
	out.GetBody = nil
	if body != nil {
		out.Body = body
	}
	if renamed {
		out.Header = maps.Clone(req.Header)
		for canonical, other := range idempotencyKeys {
			if v, ok := out.Header[canonical]; ok {
				delete(out.Header, canonical)
				out.Header[other] = slices.Concat(v, out.Header[other])
			}
		}
	}
	return &out
}

// idempotencyKeys are the headers by which net/http takes any request without a
// body for one that may be sent again, though whoever sends them promises that
// to the app and not to us. It looks for the canonical spelling only; the other
// is the same header to the app.
var idempotencyKeys = map[string]string{"Idempotency-Key": "idempotency-key", "X-Idempotency-Key": "x-idempotency-key"}

func replayable(req *http.Request) bool {
	if !sensitive(req) {
		return false
	}
	for canonical := range idempotencyKeys {
		if _, ok := req.Header[canonical]; ok {
			return true
		}
	}
	return false
}

// sensitive: a request that net/http could send again, since it has no body, and
// must not, since its method is not safe (RFC 9110, section 9.2.1).
func sensitive(req *http.Request) bool {
	if req.Body != nil && req.Body != http.NoBody {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return false
	}
	return true
}

// A onceOnly keeps a sensitive request from being sent again on an HTTP/2
// connection: net/http does so for every method if there is no body and the
// stream was reset with PROTOCOL_ERROR, which says nothing of whether it was
// processed. With it goes the second try after GOAWAY and REFUSED_STREAM, which
// requests with a body do not have either: the three look the same from here.
type onceOnly struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	h2     atomic.Bool // of the connection it was given last
	sent   atomic.Bool
}

var errSentBefore = errors.New("the upstream dropped the request, and may have processed it")

func sendOnce(req *http.Request, h2c bool) (*onceOnly, *http.Request) {
	o := &onceOnly{}
	o.ctx, o.cancel = context.WithCancelCause(req.Context())
	traced := httptrace.WithClientTrace(o.ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if o.sent.Load() {
				o.cancel(errSentBefore) // before anything of it is written
			}
			c, ok := info.Conn.(*tls.Conn)
			o.h2.Store(h2c || ok && c.ConnectionState().NegotiatedProtocol == "h2")
		},
		WroteHeaders: func() {
			if o.h2.Load() {
				o.sent.Store(true)
			}
		},
	})
	return o, req.WithContext(traced)
}

// explain gives the reason where it was us who ended the request.
func (o *onceOnly) explain(err error) error {
	if o != nil && context.Cause(o.ctx) == errSentBefore {
		return errSentBefore
	}
	return err
}

func (o *onceOnly) over() {
	if o != nil {
		o.cancel(nil)
	}
}

// An outcome is what the beginning of a request says of its address.
type outcome int

const (
	undecided outcome = iota // the caller left, or the caller's body broke
	answered                 // there was an answer, whatever its status
	unreached                // no connection, and nothing sent
	broken                   // the connection broke, or what came was no answer
	silent                   // no answer in time
	outcomes
)

// fault says whose doing an error is.
func (t *Transport) fault(req *http.Request, body *requestBody, err error) outcome {
	var refused *refusedRequest
	if body.failed() || errors.As(err, &refused) {
		return undecided
	}
	if ctx := req.Context(); ctx.Err() != nil {
		if overdue(context.Cause(ctx)) {
			return silent
		}
		return undecided
	}
	var unconnected *connectError
	if errors.As(err, &unconnected) {
		return unreached
	}
	return broken
}

// overdue: whoever gave up waiting for the upstream ends the request's context
// with a cause whose Timeout method says so. A deadline of the context itself is
// the caller's own haste, by which no address may be made to look sick.
func overdue(cause error) bool {
	var t interface{ Timeout() bool }
	return !errors.Is(cause, context.DeadlineExceeded) && errors.As(cause, &t) && t.Timeout()
}
