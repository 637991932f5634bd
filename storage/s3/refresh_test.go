package s3

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"sidegate/storage/upload"
)

// hanging gives credentials once, and never answers again.
type hanging struct {
	given bool
	asked chan struct{}
	end   chan struct{}
}

func (h *hanging) Retrieve(context.Context) (aws.Credentials, error) {
	if !h.given {
		h.given = true
		return aws.Credentials{AccessKeyID: "A", SecretAccessKey: "s", CanExpire: true, Expires: clock.Add(time.Hour)}, nil
	}
	h.asked <- struct{}{}
	<-h.end
	return aws.Credentials{}, context.Canceled
}

// Credentials that are good do not wait for better ones: a source that hangs
// while it is asked ahead of time holds no call up, whose time it would take.
func TestCallsDoNotWaitForNewerCredentials(t *testing.T) {
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "5") }))
	defer store.Close()
	b := open(t, Options{Endpoint: store.URL})
	now := clock
	source := &hanging{asked: make(chan struct{}, 1), end: make(chan struct{})}
	defer close(source.end)
	b.credentials = newCredentialSource(source, func() time.Time { return now })
	o := b.client.Options()
	o.Credentials = b.credentials
	b.client = s3.New(o)
	if err := b.CheckCredentials(t.Context()); err != nil {
		t.Fatal(err)
	}
	now = clock.Add(50 * time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-source.asked; cancel() }()
	if _, err := b.SignGet(ctx, upload.Get{Key: "k", Expires: 15 * time.Minute}); err != nil {
		t.Fatal(err)
	}
	b.headTimeout = time.Second
	if _, err := b.Head(t.Context(), "k"); err != nil {
		t.Error(err)
	}
}
