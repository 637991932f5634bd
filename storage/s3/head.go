package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"

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
	whole := func(sum *string) string {
		if s := aws.ToString(sum); out.ChecksumType != types.ChecksumTypeComposite && !strings.Contains(s, "-") {
			return s
		}
		return ""
	}
	o.Checksum, o.Checksum64 = whole(out.ChecksumSHA256), whole(out.ChecksumCRC64NVME)
	o.Modified = b.ours(out.ResultMetadata, out.LastModified)
	return o, nil
}

// ours is what time it was here at a time that the store's answer tells: the
// store's clock says how long ago, ours when that was. Zero: it cannot be told.
func (b *Bucket) ours(answer middleware.Metadata, at *time.Time) time.Time {
	date, ok := awsmiddleware.GetServerTime(answer)
	if !ok || at == nil || at.Unix() <= 0 { // some say the zero time where they do not know
		return time.Time{}
	}
	return b.now().Add(-date.Sub(*at))
}

const headPermission = "s3:GetObject on it, s3:ListBucket on the bucket (without it a missing object is a 403 too), " +
	"and kms:Decrypt where it is encrypted with a KMS key"

func (b *Bucket) headError(err error) error {
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) && answer.HTTPStatusCode() == http.StatusNotFound {
		return upload.ErrNoObject
	}
	return b.storeError("look at an object", err, headPermission)
}
