package s3

import (
	"errors"
	"fmt"
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"sidegate/storage/upload"
)

// codeErrors are what a store's error codes say that is an answer, and no fault.
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
var codeErrors = map[string]error{
	"NoSuchUpload":               upload.ErrNoUpload,
	"InvalidPart":                upload.ErrParts,
	"InvalidPartOrder":           upload.ErrParts,
	"EntityTooSmall":             upload.ErrParts,
	"EntityTooLarge":             upload.ErrParts,
	"BadDigest":                  upload.ErrParts,
	"PreconditionFailed":         upload.ErrTaken,
	"ConditionalRequestConflict": upload.ErrTaken,
}

// codeHints say what to do about refusals that have nothing to do with permissions.
var codeHints = map[string]string{
	"RequestTimeTooSkewed":  "this machine's clock and the store's differ too much: set the clock",
	"SignatureDoesNotMatch": "the bucket's secret_key, or its region, is not the right one",
	"InvalidAccessKeyId":    "the store does not know the bucket's access_key",
	"ExpiredToken":          "the credentials are over",
	"NoSuchBucket":          "the store has no such bucket, or these credentials may not see it",
	"SlowDown":              "the store asks for fewer requests",
}

// storeError says what a call's error means. One of answers is given as it is;
// everything else wraps upload.ErrUnavailable. permission is what the call needs.
func (b *Bucket) storeError(doing string, err error, permission string, answers ...error) error {
	var api smithy.APIError
	code := ""
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	for _, known := range answers {
		if codeErrors[code] == known {
			return fmt.Errorf("bucket %s: %s: the store says %.64s: %w", b.name, doing, code, known)
		}
	}
	return fmt.Errorf("%w: bucket %s: %s%s: %w", upload.ErrUnavailable, b.name, doing, b.hint(code, err, permission), err)
}

// hint is what an operator can do, after a colon; empty: nothing.
func (b *Bucket) hint(code string, err error, permission string) string {
	if h := codeHints[code]; h != "" {
		return ": " + h
	}
	var answer *awshttp.ResponseError
	if !errors.As(err, &answer) || answer.Response == nil {
		return ""
	}
	if region := answer.Response.Header.Get("X-Amz-Bucket-Region"); region != "" && region != b.region {
		return fmt.Sprintf(": it is in region %.32q, and sidegate.yaml says %s", region, b.region)
	}
	if answer.HTTPStatusCode() == http.StatusForbidden {
		return ": the store refuses it (403): the gateway's credentials need " + permission
	}
	return fmt.Sprintf(": the store answered %d", answer.HTTPStatusCode())
}

// unavailable is an answer of the store that makes no sense.
func (b *Bucket) unavailable(doing, why string) error {
	return fmt.Errorf("%w: bucket %s: %s: %s", upload.ErrUnavailable, b.name, doing, why)
}

func isCode(err error, codes ...string) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	for _, c := range codes {
		if api.ErrorCode() == c {
			return true
		}
	}
	return false
}
