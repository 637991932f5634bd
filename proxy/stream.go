package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"sidegate/policy"
)

// Answers that go on for as long as both sides like (WebSockets, gRPC streams,
// event streams) must not go on for a caller who would not be let in any more.
// They are looked at again while they last, and ended in their own protocol's
// words.

const (
	// lookEvery is how often a stream's token is verified again: by the cache,
	// which asks nobody for a token that it knows, and the issuer's own word on
	// revoked users where one is asked for.
	lookEvery = 5 * time.Second
	// lookWithin bounds one look.
	lookWithin = 15 * time.Second
)

// A streamEnd is why the gateway ends a stream, in the words of each protocol.
type streamEnd struct {
	outcome string // in the audit log
	text    string // for the caller
	close   uint16 // status of a WebSocket's close frame (RFC 6455, section 7.4.1)
	grpc    int
	cause   error
}

func (e *streamEnd) Error() string {
	if e.cause != nil {
		return e.text + ": " + e.cause.Error()
	}
	return e.text
}

func (e *streamEnd) Unwrap() error { return e.cause }

// problem is the answer where none has begun.
func (e *streamEnd) problem() *problem {
	if e.grpc == grpcUnauthenticated {
		return &problem{status: http.StatusUnauthorized, code: codeInvalidToken, detail: e.text, challenge: codeInvalidToken, cause: e}
	}
	return unavailable(e.text, e)
}

// The WebSocket statuses are those of RFC 6455, section 7.4.1, and 1013 of
// IANA's registry.
func tokenEnded(cause error) *streamEnd {
	return &streamEnd{outcome: "token_ended", text: "the token is not valid any more", close: 1008, grpc: grpcUnauthenticated, cause: cause}
}

func tokenUnknown(cause error) *streamEnd {
	return &streamEnd{outcome: codeUnavailable, text: "the token cannot be verified now", close: 1013, grpc: grpcUnavailable, cause: cause}
}

var (
	endStopping = &streamEnd{outcome: "gateway_stopped", text: "the gateway stops", close: 1001, grpc: grpcUnavailable, cause: ErrStopping}
	endBroken   = &streamEnd{outcome: codeBadRequest, text: "a control frame is larger than it may be", close: 1002, grpc: grpcInternal}
	endTooLarge = &streamEnd{outcome: codeTooLarge, text: "the message is larger than is allowed", close: 1009, grpc: grpcResourceExhausted}
)

// A credential is what a caller showed, for looking at it again.
type credential struct {
	by    Authenticator
	token string
}

// streams are those that are open now. The zero value has none. It is safe for
// concurrent use.
type streams struct {
	mu      sync.Mutex
	open    map[*stream]bool
	ending  *streamEnd    // of those that are endless: what is opened now ends at once
	endsAll bool          // and of all others
	none    chan struct{} // closed when the last one is over; nil: nobody waits
}

// A stream is one of them.
type stream struct {
	all     *streams
	x       *exchange
	endless bool // it has no end of its own: nobody waits for it when the gateway stops
	// end ends it; it may be called by anybody at any time, more than once, and
	// does not wait.
	end   func(*streamEnd)
	every time.Duration

	mu    sync.Mutex
	timer *time.Timer // nil: nothing is to be looked at, or it is over
	over  bool        // its connection may be another request's
}

// add puts a stream on the list, and sees to it that it ends with its token
// where mind says so. remove must be called when it is over.
func (s *streams) add(x *exchange, endless, mind bool, end func(*streamEnd)) *stream {
	one := &stream{all: s, x: x, endless: endless, end: end, every: x.p.lookEvery}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending != nil && (endless || s.endsAll) {
		end(s.ending)
		return one
	}
	if s.open == nil {
		s.open = map[*stream]bool{}
	}
	s.open[one] = true
	if mind && x.identity != nil && x.shown.by != nil {
		one.mu.Lock()
		one.timer = time.AfterFunc(one.next(x.identity), one.look)
		one.mu.Unlock()
	}
	return one
}

func (s *stream) remove() {
	s.all.mu.Lock()
	delete(s.all.open, s)
	if s.all.none != nil && len(s.all.open) == 0 {
		close(s.all.none)
		s.all.none = nil
	}
	s.all.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// isEndless says so of one that was not known to be.
func (s *stream) isEndless() {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.endless = true
	if s.all.ending != nil {
		s.end(s.all.ending)
	}
}

// EndStreams ends the streams that have no end of their own, WebSockets and
// event streams, and those that are opened from now on; with all, gRPC streams,
// too. It does not wait for them.
func (p *Proxy) EndStreams(all bool) {
	s := &p.streams
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending, s.endsAll = endStopping, s.endsAll || all
	for one := range s.open {
		if one.endless || all {
			one.end(endStopping)
		}
	}
}

// AwaitStreams waits until none is open, or ctx ends: tunnels are not the
// server's any more, and say goodbye on their own.
func (p *Proxy) AwaitStreams(ctx context.Context) {
	s := &p.streams
	s.mu.Lock()
	if len(s.open) == 0 {
		s.mu.Unlock()
		return
	}
	if s.none == nil {
		s.none = make(chan struct{})
	}
	none := s.none
	s.mu.Unlock()
	select {
	case <-none:
	case <-ctx.Done():
	}
}

// next is when to look at a token again: when it ends, at the latest.
func (s *stream) next(id *policy.Identity) time.Duration {
	if id.Expires.IsZero() {
		return s.every
	}
	left := id.Expires.Sub(s.x.p.o.Now())
	if left <= 0 {
		return s.every // within what the clocks may differ
	}
	return min(left, s.every)
}

// look verifies the token as a new request's would be: what would be refused
// there ends the stream, and what cannot be told does, too.
func (s *stream) look() {
	end := s.x.verifyAgain()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over: // it ended meanwhile
	case end != nil:
		s.end(end)
	default:
		s.timer.Reset(s.next(s.x.identity))
	}
}

// verifyAgain is why a stream must not go on; nil: it may. There is no request's
// goroutine here that would catch a panic: it would be the whole gateway's end.
func (x *exchange) verifyAgain() (end *streamEnd) {
	defer func() {
		if broken := recover(); broken != nil {
			x.p.o.Log.Error().Str("record", x.id).Bytes("stack", debug.Stack()).Msgf("panic: %v", broken)
			end = tokenUnknown(fmt.Errorf("panic: %v", broken))
		}
	}()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.ctx), lookWithin)
	defer cancel()
	id, err := x.shown.by.Authenticate(ctx, x.shown.token)
	var bad *TokenError
	switch {
	case errors.As(err, &bad):
		return tokenEnded(bad)
	case err != nil || id == nil || id.UID == "":
		return tokenUnknown(err)
	case id.UID != x.identity.UID || id.Namespace != x.identity.Namespace:
		return tokenEnded(errors.New("it is another's now"))
	}
	return nil
}

// endStream ends a stream that is no tunnel: at once where the caller takes what
// he is sent, and soon where he does not.
func (x *exchange) endStream(end *streamEnd) {
	x.cancel(end)
	x.w.hurry(farewell)
}

// streamEnded is why the gateway ended what the upstream answers; nil: it did not.
func (x *exchange) streamEnded(ctx context.Context) *streamEnd {
	var end *streamEnd
	switch {
	case errors.As(context.Cause(ctx), &end):
	case x.grpc && x.body.failure() == errBodyTooLarge:
		end = endTooLarge
	}
	return end
}
