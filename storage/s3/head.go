package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"sidegate/storage/upload"
)

// Head looks at the object under the key. What is not the store's clear 404
// wraps upload.ErrUnavailable.
func (b *Bucket) Head(ctx context.Context, key string) (upload.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, b.headTimeout)
	defer cancel()
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{
		Bucket:       aws.String(b.name),
		Key:          aws.String(key),
		ChecksumMode: types.ChecksumModeEnabled,
	})
	if err != nil {
		return upload.Object{}, b.headError(err)
	}
	if out.ContentLength == nil {
		return upload.Object{}, fmt.Errorf("%w: bucket %s: the store does not say the object's size", upload.ErrUnavailable, b.name)
	}
	o := upload.Object{
		Size:        *out.ContentLength,
		ContentType: aws.ToString(out.ContentType),
		ETag:        aws.ToString(out.ETag),
		VersionID:   aws.ToString(out.VersionId),
	}
	// A composite checksum is that of the parts' checksums, not of the bytes.
	if sum := aws.ToString(out.ChecksumSHA256); out.ChecksumType != types.ChecksumTypeComposite && !strings.Contains(sum, "-") {
		o.Checksum = sum
	}
	// The store's clock says how old the object is, ours what time that was.
	if date, ok := awsmiddleware.GetServerTime(out.ResultMetadata); ok && out.LastModified != nil {
		o.Modified = b.now().Add(-date.Sub(*out.LastModified))
	}
	return o, nil
}

func (b *Bucket) headError(err error) error {
	var answer *awshttp.ResponseError
	if !errors.As(err, &answer) {
		return fmt.Errorf("%w: bucket %s: %w", upload.ErrUnavailable, b.name, err)
	}
	switch status := answer.HTTPStatusCode(); status {
	case http.StatusNotFound:
		return upload.ErrNoObject
	case http.StatusForbidden:
		return fmt.Errorf("%w: bucket %s: the store refuses to show the object (403): the gateway's credentials need s3:GetObject on it, "+
			"s3:ListBucket on the bucket (without it a missing object is a 403 too), and kms:Decrypt where it is encrypted with a KMS key: %w",
			upload.ErrUnavailable, b.name, err)
	case http.StatusMovedPermanently, http.StatusTemporaryRedirect, http.StatusBadRequest:
		if region := answer.Response.Header.Get("X-Amz-Bucket-Region"); region != "" && region != b.region {
			return fmt.Errorf("%w: bucket %s: is in region %.32q, and sidegate.yaml says %s: %w", upload.ErrUnavailable, b.name, region, b.region, err)
		}
		fallthrough
	default:
		return fmt.Errorf("%w: bucket %s: the store answered %d: %w", upload.ErrUnavailable, b.name, status, err)
	}
}
