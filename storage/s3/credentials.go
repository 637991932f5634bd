package s3

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"

	"sidegate/storage/upload"
)

const (
	// retrieveTimeout bounds the search for credentials: without any, the
	// last in the chain waits for an instance's metadata service.
	retrieveTimeout = 5 * time.Second
	// credentialMargin is how long before its credentials a URL ends: the
	// store's clock may be ahead.
	credentialMargin = time.Minute
	// refreshBelow is what may be left of the credentials, the margin taken
	// off, before new ones are asked for out of turn; refreshEvery is how
	// often, as long as the same ones come back.
	refreshBelow = time.Minute
	refreshEvery = time.Second
	// Credentials that cut a URL short, and are past half of their life, are
	// asked for anew as well, but not as urgently: some sources give the same
	// ones until shortly before their end.
	renewEvery = 30 * time.Second
)

// A credentialSource is the cached credentials of a bucket: many requests at
// once ask for them once.
type credentialSource struct {
	cache *aws.CredentialsCache // nil: there is no provider at all
	now   func() time.Time

	// have are those of the last answer: signing takes them without asking the
	// cache as long as they last.
	have atomic.Pointer[held]

	mu     sync.Mutex
	forced time.Time // when they were last asked for out of turn
}

type held struct {
	aws.Credentials
	since time.Time
}

// left is how long they may sign yet.
func (h *held) left(now time.Time) time.Duration { return h.Expires.Add(-credentialMargin).Sub(now) }

// renewAt is what may be left of them before a URL of that life has them asked
// for anew.
func (h *held) renewAt(want time.Duration) time.Duration {
	return max(min(want, h.Expires.Sub(h.since)/2), refreshBelow)
}

func newCredentialSource(p aws.CredentialsProvider, now func() time.Time) *credentialSource {
	c := &credentialSource{now: now}
	switch p := p.(type) {
	case nil:
	case *aws.CredentialsCache:
		c.cache = p
	default:
		c.cache = aws.NewCredentialsCache(p)
	}
	return c
}

// Retrieve is the credentials in force. Those at hand are, until their end:
// no call waits for better ones, whose source may hang. Its error wraps
// upload.ErrUnavailable.
func (c *credentialSource) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if have := c.have.Load(); have != nil && (!have.CanExpire || have.left(c.now()) > 0) {
		return have.Credentials, nil
	}
	return c.ask(ctx)
}

// ask asks the cache, and by it their source where it holds none or was emptied.
func (c *credentialSource) ask(ctx context.Context) (aws.Credentials, error) {
	if c.cache == nil {
		return aws.Credentials{}, noCredentials("no source is configured")
	}
	ctx, cancel := context.WithTimeout(ctx, retrieveTimeout)
	defer cancel()
	got, err := c.cache.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, noCredentials(withoutOutput(err))
	}
	if !got.HasKeys() {
		return aws.Credentials{}, noCredentials("they are empty")
	}
	if have := c.have.Load(); have == nil || have.AccessKeyID != got.AccessKeyID || have.Expires != got.Expires {
		c.have.Store(&held{got, c.now()})
	}
	return got, nil
}

// lasting is the credentials with the end of what they may sign, for a URL of
// that life; where they would cut it short, new ones are asked for first. The
// end is zero where they have none.
func (c *credentialSource) lasting(ctx context.Context, want time.Duration) (creds aws.Credentials, end time.Time, err error) {
	have := c.have.Load()
	if have == nil || have.CanExpire && have.left(c.now()) <= 0 {
		if _, err = c.Retrieve(ctx); err != nil {
			return aws.Credentials{}, time.Time{}, err
		}
		have = c.have.Load()
	}
	if left := have.left(c.now()); have.CanExpire && left < have.renewAt(want) && c.mayForce(left) {
		c.cache.Invalidate()
		// Those at hand may still do, if there are no better ones.
		if _, err := c.ask(ctx); err == nil {
			have = c.have.Load()
		}
	}
	if !have.CanExpire {
		return have.Credentials, time.Time{}, nil
	}
	return have.Credentials, have.Expires.Add(-credentialMargin), nil
}

func (c *credentialSource) mayForce(left time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	every := refreshEvery
	if left >= refreshBelow {
		every = renewEvery
	}
	now := c.now()
	if !c.forced.IsZero() && now.Sub(c.forced) < every {
		return false
	}
	c.forced = now
	return true
}

// withoutOutput is an error of where credentials come from, without the output of
// a profile's credential_process: the SDK tells all of it, keys included, where it
// is not the JSON that it should be.
func withoutOutput(err error) error {
	var process *processcreds.ProviderError
	if errors.As(err, &process) && strings.Contains(err.Error(), "process output") {
		return errors.New("the output of the profile's credential_process is not what it should be: one JSON object with Version 1, AccessKeyId and SecretAccessKey")
	}
	return err
}

func noCredentials(why any) error {
	const hint = "give this process a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the bucket's credentials in sidegate.yaml"
	if err, ok := why.(error); ok {
		return fmt.Errorf("%w: no AWS credentials (%s): %w", upload.ErrUnavailable, hint, err)
	}
	return fmt.Errorf("%w: no AWS credentials (%s): %v", upload.ErrUnavailable, hint, why)
}
