package google

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/auth"
)

const (
	// tokenWait bounds one question of a token, and tokenAsk all of them.
	tokenWait = 10 * time.Second
	tokenAsk  = 25 * time.Second
	// renewBefore is when a new token is asked for: before Google's library, which
	// keeps one until then, would give the old one again for the last time.
	renewBefore = 3 * time.Minute
)

// federatedTokens are the tokens of Google's library. It asks one at a time with a
// lock held, for which everybody waits however long they have; it takes an answer
// without a token for one, and repeats in its errors what a server wrote. Here all
// wait for one question as long as they may, and for none while there is a token.
type federatedTokens struct {
	from auth.TokenProvider
	now  func() time.Time

	mu     sync.Mutex
	have   *auth.Token
	flight *tokenFlight
}

type tokenFlight struct {
	done  chan struct{}
	token *auth.Token // set, or err, before done is closed
	err   error
}

// Token implements auth.TokenProvider.
func (t *federatedTokens) Token(ctx context.Context) (*auth.Token, error) {
	have, f := t.share()
	if f == nil || have != nil {
		return have, nil
	}
	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// share gives the token that is good yet, and the question for a new one where it
// is time for it.
func (t *federatedTokens) share() (*auth.Token, *tokenFlight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	have := t.have
	switch left := t.left(have); {
	case left > renewBefore:
		return have, nil
	case left <= unusedBefore:
		have = nil
	}
	if t.flight == nil {
		f := &tokenFlight{done: make(chan struct{})}
		t.flight = f
		go func() {
			f.token, f.err = t.ask()
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.flight = nil; f.err == nil {
				t.have = f.token
			}
			close(f.done)
		}()
	}
	return have, t.flight
}

// left is how long a token is good yet.
func (t *federatedTokens) left(token *auth.Token) time.Duration {
	if token == nil {
		return 0
	}
	return token.Expiry.Sub(t.now())
}

func (t *federatedTokens) ask() (token *auth.Token, err error) {
	defer func() {
		if p := recover(); p != nil {
			token, err = nil, errors.New("asking for a token of Google's made a library panic")
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), tokenAsk)
	defer cancel()
	token, err = t.from.Token(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("a token by workload identity federation: %w", withoutAnswer(err))
	case token == nil || len(token.Value) > maxToken || !tokenText.MatchString(token.Value) || token.Type != "" && !strings.EqualFold(token.Type, "Bearer"):
		return nil, errors.New("a token by workload identity federation: Google's answer holds none")
	case t.left(token) <= 0:
		return nil, errors.New("a token by workload identity federation: the one that came is over: is this machine's clock right?")
	}
	return token, nil
}

// tokenText is what a bearer token may be: RFC 6750, section 2.1.
var tokenText = regexp.MustCompile(`^[A-Za-z0-9._~+/=-]+$`)

// maxToken bounds a token, which stands in the header of each request, in bytes.
const maxToken = 16 << 10

var statusCode = regexp.MustCompile(`status code ([0-9]{3}):`)

// withoutAnswer is an error of the library without what a server wrote.
func withoutAnswer(err error) error {
	var keys *keysError
	var asked *url.Error
	switch {
	case errors.As(err, &keys):
		return keys.error
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return errors.New("no answer in time")
	case errors.As(err, &asked):
		return noConnection(asked.Err)
	}
	if m := statusCode.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Errorf("the answer of Google is %s: does the pool's provider trust this role of AWS, and may it be the service account (roles/iam.workloadIdentityUser)?", m[1])
	}
	return errors.New("the answer of Google makes no sense")
}

// noConnection is what this machine says of a connection. net/http repeats what it
// could not read of an answer, which may hold what was asked.
func noConnection(err error) error {
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	var slow net.Error
	switch {
	case errors.As(err, &network):
		return network
	case errors.As(err, &certificate):
		return certificate
	case errors.As(err, &slow) && slow.Timeout():
		return errors.New("no answer in time")
	}
	return errors.New("the connection broke, a proxy on the way refused it, or what came is no HTTP")
}
