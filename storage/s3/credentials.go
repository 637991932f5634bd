package s3

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

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
)

// A credentialSource is the cached credentials of a bucket: many requests at
// once ask for them once.
type credentialSource struct {
	cache *aws.CredentialsCache // nil: there is no provider at all
	now   func() time.Time

	// have are those of the last answer: signing takes them without asking the
	// cache as long as their end is far.
	have atomic.Pointer[aws.Credentials]

	mu     sync.Mutex
	forced time.Time // when they were last asked for out of turn
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

// Retrieve is the credentials in force. Its error wraps upload.ErrUnavailable.
func (c *credentialSource) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if c.cache == nil {
		return aws.Credentials{}, noCredentials("no source is configured")
	}
	ctx, cancel := context.WithTimeout(ctx, retrieveTimeout)
	defer cancel()
	got, err := c.cache.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, noCredentials(err)
	}
	if !got.HasKeys() {
		return aws.Credentials{}, noCredentials("they are empty")
	}
	c.have.Store(&got)
	return got, nil
}

// lasting is the credentials with the end of what they may sign; where that
// is near, new ones are asked for first. The end is zero where they have none.
func (c *credentialSource) lasting(ctx context.Context) (got aws.Credentials, end time.Time, err error) {
	if have := c.have.Load(); have != nil {
		if !have.CanExpire {
			return *have, time.Time{}, nil
		}
		if have.Expires.Sub(c.now()) >= credentialMargin+refreshBelow {
			return *have, have.Expires.Add(-credentialMargin), nil
		}
	}
	got, err = c.Retrieve(ctx)
	if err != nil || !got.CanExpire {
		return got, time.Time{}, err
	}
	if got.Expires.Sub(c.now()) < credentialMargin+refreshBelow && c.mayForce() {
		c.cache.Invalidate()
		// Those at hand may still do, if there are no better ones.
		if fresh, err := c.Retrieve(ctx); err == nil {
			got = fresh
		}
	}
	if !got.CanExpire {
		return got, time.Time{}, nil
	}
	return got, got.Expires.Add(-credentialMargin), nil
}

func (c *credentialSource) mayForce() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if !c.forced.IsZero() && now.Sub(c.forced) < refreshEvery {
		return false
	}
	c.forced = now
	return true
}

func noCredentials(why any) error {
	const hint = "give this process a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the bucket's credentials in sidegate.yaml"
	if err, ok := why.(error); ok {
		return fmt.Errorf("%w: no AWS credentials (%s): %w", upload.ErrUnavailable, hint, err)
	}
	return fmt.Errorf("%w: no AWS credentials (%s): %v", upload.ErrUnavailable, hint, why)
}
