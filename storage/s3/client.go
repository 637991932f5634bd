package s3

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	// headTimeout bounds a look at an object, and callTimeout another call, the
	// second attempt included; listTimeout all pages of a list.
	headTimeout = 5 * time.Second
	callTimeout = 10 * time.Second
	listTimeout = 30 * time.Second
	// completeTimeout bounds a completion, which takes S3 up to minutes: the
	// next one that is asked for finds what became of it.
	completeTimeout = 60 * time.Second
	attempts        = 2
	maxBackoff      = time.Second
	// maxAnswer bounds what is read of one answer: 1,000 keys of 1,024 bytes,
	// each escaped, are some 4 MiB.
	maxAnswer = 16 << 20
)

// A watchedClient sends requests, bounds what comes back, and reads the store's
// clock off its answers.
type watchedClient struct {
	to   aws.HTTPClient
	skew *skew
}

func (c *watchedClient) Do(r *http.Request) (*http.Response, error) {
	begin := c.skew.now()
	answer, err := c.to.Do(r)
	if answer == nil {
		return answer, err
	}
	c.skew.measure(answer.Header, begin, c.skew.now())
	bound(answer, maxAnswer)
	return answer, err
}

// bound has no more read of an answer than that many bytes.
func bound(answer *http.Response, most int64) {
	if answer.Body != nil {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(answer.Body, most), answer.Body}
	}
}

// httpClients are the client of most calls, whose attempts share callTimeout,
// and one for calls that take long.
func httpClients(base aws.HTTPClient, s *skew) (usual, slow aws.HTTPClient) {
	b, ok := base.(*awshttp.BuildableClient)
	if base != nil && !ok {
		both := &watchedClient{base, s}
		return both, both
	}
	if !ok {
		b = awshttp.NewBuildableClient()
	}
	return &watchedClient{b.WithTimeout(callTimeout / attempts), s}, &watchedClient{b.WithTimeout(completeTimeout), s}
}

// clientOptions are those of the client that calls the store. The SDK's
// newer checksums of requests and answers are left out where S3 does not
// demand them: other stores refuse them.
func clientOptions(cfg aws.Config, o Options, creds aws.CredentialsProvider, client aws.HTTPClient) s3.Options {
	out := s3.Options{
		Region:       cfg.Region,
		Credentials:  creds,
		UsePathStyle: o.PathStyle,
		HTTPClient:   client,
		Retryer: retry.NewStandard(func(r *retry.StandardOptions) {
			r.MaxAttempts = attempts
			r.MaxBackoff = maxBackoff
			if o.backoff != 0 {
				r.MaxBackoff = o.backoff
			}
		}),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	}
	if o.Endpoint != "" {
		out.BaseEndpoint = aws.String(o.Endpoint)
	}
	if o.Observe != nil {
		out.APIOptions = append(out.APIOptions, observing(o.Observe, o.Now))
	}
	if o.Store == "gcs" {
		out.APIOptions = append(out.APIOptions, signNoAcceptEncoding)
	}
	return out
}

// signNoAcceptEncoding leaves out a header that the SDK signs and that Google's
// front end changes on the way, so that no signature would match.
// https://github.com/aws/aws-sdk-go-v2/issues/1816
func signNoAcceptEncoding(stack *middleware.Stack) error {
	const id = "DisableAcceptEncodingGzip"
	if _, ok := stack.Finalize.Get(id); ok {
		_, err := stack.Finalize.Remove(id)
		return err
	}
	return nil
}

// withHeader has a call sent with these headers; they are signed.
func withHeader(header http.Header) func(*s3.Options) {
	return s3.WithAPIOptions(func(stack *middleware.Stack) error {
		return stack.Build.Add(middleware.BuildMiddlewareFunc("SidegateHeader",
			func(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
				if r, ok := in.Request.(*smithyhttp.Request); ok {
					for name, values := range header {
						r.Header[name] = values
					}
				}
				return next.HandleBuild(ctx, in)
			}), middleware.After)
	})
}
