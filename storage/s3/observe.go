package s3

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"

	"sidegate/storage/upload"
)

// A Call is a call of the store that ended, its second attempt included.
type Call struct {
	Operation string // S3's name of it, such as HeadObject
	Took      time.Duration
	Failure   string // one of Failures; empty: the store answered, be it that there is no such object
}

// Failures are the kinds of failures of a Call.
var Failures = []string{FailureDenied, FailureThrottled, FailureTimeout, FailureUnreachable, FailureCredentials, FailureOther}

const (
	FailureDenied      = "denied"      // 401 or 403: a permission is missing, or a key is wrong
	FailureThrottled   = "throttled"   // the store asks for fewer requests
	FailureTimeout     = "timeout"     // no answer in time
	FailureUnreachable = "unreachable" // no answer at all
	FailureCredentials = "credentials" // there are none to ask with
	FailureOther       = "other"       // another answer, or one that makes no sense
)

// observing has observe told of each call. A call that ended with its caller
// says nothing of the store, and is left out.
func observing(observe func(Call), now func() time.Time) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("SidegateObserve",
			func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				began := now()
				out, meta, err := next.HandleInitialize(ctx, in)
				if err != nil && ctx.Err() == context.Canceled {
					return out, meta, err
				}
				c := Call{Operation: middleware.GetOperationName(ctx), Took: now().Sub(began)}
				if !isAnswer(in.Parameters, err) {
					c.Failure = failureOf(err)
				}
				observe(c)
				return out, meta, err
			}), middleware.After)
	}
}

// isAnswer reports whether an error is what the store says of what was asked
// for, and no fault of it or of the gateway's permissions.
func isAnswer(asked any, err error) bool {
	if err == nil || isCode(err, "NoSuchKey", "NoSuchVersion", "NotFound") {
		return true
	}
	if list, ok := asked.(*s3.ListObjectsV2Input); ok && isForeignToken(aws.ToString(list.ContinuationToken), err) {
		return true
	}
	for code := range codeErrors {
		if isCode(err, code) {
			return true
		}
	}
	return false
}

func failureOf(err error) string {
	var answer *awshttp.ResponseError
	var late interface{ Timeout() bool }
	switch {
	case errors.Is(err, upload.ErrUnavailable): // which is no word of the SDK's, but of our source of credentials
		return FailureCredentials
	case errors.As(err, &answer) && answer.HTTPStatusCode() > 0:
		return failureOfStatus(answer.HTTPStatusCode(), err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &late) && late.Timeout():
		return FailureTimeout
	}
	return FailureUnreachable
}

func failureOfStatus(status int, err error) string {
	switch {
	case status == http.StatusTooManyRequests || isCode(err, "SlowDown"):
		return FailureThrottled
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return FailureDenied
	}
	return FailureOther
}
