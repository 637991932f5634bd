// Package google gives the gateway's own Google identity: ID tokens by which a
// private service of Google Cloud, such as one on Cloud Run, lets the gateway in,
// and credentials that are made of a role of AWS. It says nothing of callers.
package google

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/api/idtoken"
)

const (
	// Google's ID tokens live for an hour. They are fetched anew well before
	// their end, and not used in its last moments: the request may be long on
	// its way.
	refreshBefore = 5 * time.Minute
	unusedBefore  = 30 * time.Second
	// unknownLife is that of a token whose end is not told.
	unknownLife = refreshBefore + time.Minute
	// wait bounds how long a request waits for a token.
	wait = 5 * time.Second
	// askTimeout bounds a question, for the ways of asking whose library does
	// not. While one is under way there is no other.
	askTimeout = 30 * time.Second
	// After a failure the next try is made after a time that doubles.
	minPause, maxPause = time.Second, time.Minute
)

// IDTokens are ID tokens of the machine's account (its service account, or
// GOOGLE_APPLICATION_CREDENTIALS) for one audience. They are safe for concurrent
// use; Run keeps one ready.
type IDTokens struct {
	audience string
	// ask gets a new token; it may take long, and ends when ctx does or by itself.
	ask func(ctx context.Context, audience string) (text string, expires time.Time, err error)
	now func() time.Time

	current atomic.Pointer[token] // nil: none yet

	mu     sync.Mutex
	flight *flight
}

type token struct {
	text    string
	expires time.Time
}

type flight struct {
	done chan struct{}
	err  error // set before done is closed
}

// NewIDTokens makes IDTokens. It asks nobody yet.
func NewIDTokens(audience string) (*IDTokens, error) {
	if audience == "" {
		return nil, errors.New("an ID token needs an audience")
	}
	return &IDTokens{audience: audience, ask: askGoogle, now: time.Now}, nil
}

func askGoogle(ctx context.Context, audience string) (string, time.Time, error) {
	// A source of its own each time: one that is used again gives what it has
	// until nearly its end.
	source, err := idtoken.NewTokenSource(ctx, audience)
	if err != nil {
		return "", time.Time{}, noIDToken(err)
	}
	t, err := source.Token()
	if err != nil {
		return "", time.Time{}, noIDToken(err)
	}
	// The library takes a token of the metadata server for new; that server may
	// have kept it.
	payload, err := idtoken.ParsePayload(t.AccessToken)
	if err != nil {
		return "", time.Time{}, errors.New("the answer is not an ID token") // and may not be shown
	}
	expires := t.Expiry
	if end := time.Unix(payload.Expires, 0); payload.Expires != 0 && (expires.IsZero() || end.Before(expires)) {
		expires = end
	}
	return t.AccessToken, expires, nil
}

// Token gives a token that is good for a while. Its error says that there is none
// now, and holds no token.
func (t *IDTokens) Token(ctx context.Context) (string, error) {
	if have := t.current.Load(); have != nil && t.now().Before(have.expires.Add(-unusedBefore)) {
		return have.text, nil
	}
	f := t.share()
	patience := time.NewTimer(wait)
	defer patience.Stop()
	select {
	case <-f.done:
	case <-patience.C:
		return "", fmt.Errorf("an ID token for %s: it takes more than %s", t.audience, wait)
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if f.err != nil {
		return "", fmt.Errorf("an ID token for %s: %w", t.audience, f.err)
	}
	return t.current.Load().text, nil
}

// share is the question under way, or a new one, on a context of its own: none of
// those who wait can end it for the others.
func (t *IDTokens) share() *flight {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flight != nil {
		return t.flight
	}
	f := &flight{done: make(chan struct{})}
	t.flight = f
	go func() {
		err := t.renew()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.flight, f.err = nil, err
		close(f.done)
	}()
	return f
}

// renew asks for a token and puts it in the old one's place. A panic costs a
// refresh, not the gateway.
func (t *IDTokens) renew() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("asking for it made a library panic")
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	text, expires, err := t.ask(ctx, t.audience)
	if err != nil {
		return err
	}
	if text == "" {
		return errors.New("the answer is empty")
	}
	if expires.IsZero() {
		expires = t.now().Add(unknownLife)
	}
	t.current.Store(&token{text, expires})
	return nil
}

// Run keeps a token ready until ctx ends. failed is told of each failure.
func (t *IDTokens) Run(ctx context.Context, failed func(error)) {
	pause := minPause
	for {
		next := time.Duration(0)
		if have := t.current.Load(); have != nil {
			next = max(have.expires.Add(-refreshBefore).Sub(t.now()), 0)
		}
		if !sleep(ctx, next) {
			return
		}
		f := t.share()
		select {
		case <-f.done:
		case <-ctx.Done():
			return
		}
		if f.err == nil {
			pause = minPause
			if have := t.current.Load(); have.expires.Add(-refreshBefore).After(t.now()) {
				continue
			}
		} else {
			failed(fmt.Errorf("an ID token for %s: %w", t.audience, f.err))
		}
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, maxPause)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
