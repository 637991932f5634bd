package s3

import (
	"context"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"sidegate/storage/upload"
)

const (
	// maxPage is how many keys the store lists at once.
	maxPage = 1000
	// maxToken bounds the store's page tokens, which pass through callers.
	maxToken = 4096
)

// Delete removes the object, or one version of it; that it is not there is no
// error. Without a version a versioned bucket keeps what was there.
func (b *Bucket) Delete(ctx context.Context, key, version string) error {
	ctx, cancel := context.WithTimeout(ctx, b.callTimeout)
	defer cancel()
	in := &s3.DeleteObjectInput{Bucket: aws.String(b.name), Key: aws.String(key)}
	permission := "s3:DeleteObject on it"
	if version != "" {
		in.VersionId = aws.String(version)
		permission = "s3:DeleteObjectVersion on it"
	}
	_, err := b.client.DeleteObject(ctx, in)
	if err == nil || isCode(err, "NoSuchKey", "NoSuchVersion") {
		return nil
	}
	return b.storeError("delete an object", err, permission)
}

// List is a page of the objects below prefix. Left out are keys that do not
// begin with it, whatever the store says, and those that this gateway would
// neither sign nor delete ([upload.CheckKey]), such as the markers with a slash
// at their end that some tools make for folders: a page can be shorter than
// limit, also empty, and not be the last.
func (b *Bucket) List(ctx context.Context, prefix, token string, limit int) ([]upload.Object, string, error) {
	if len(token) > maxToken {
		return nil, "", upload.ErrCursor
	}
	ctx, cancel := context.WithTimeout(ctx, b.callTimeout)
	defer cancel()
	in := &s3.ListObjectsV2Input{
		Bucket:       aws.String(b.name),
		Prefix:       aws.String(prefix),
		MaxKeys:      aws.Int32(int32(min(max(limit, 1), maxPage))),
		EncodingType: types.EncodingTypeUrl, // XML cannot hold every key
	}
	if token != "" {
		in.ContinuationToken = aws.String(token)
	}
	out, err := b.client.ListObjectsV2(ctx, in)
	if isForeignToken(token, err) {
		return nil, "", upload.ErrCursor
	}
	if err != nil {
		return nil, "", b.storeError("list objects", err, "s3:ListBucket on the bucket")
	}
	next := ""
	if aws.ToBool(out.IsTruncated) {
		next = aws.ToString(out.NextContinuationToken)
	}
	if len(next) > maxToken || next != "" && next == token {
		return nil, "", b.unavailable("list objects", "the store gives a token for the next page that cannot be")
	}
	return listed(out, prefix), next, nil
}

// isForeignToken: NotImplemented is how MinIO says that a token is of another
// prefix.
func isForeignToken(token string, err error) bool {
	return token != "" && isCode(err, "InvalidArgument", "InvalidToken", "InvalidRequest", "NotImplemented")
}

func listed(out *s3.ListObjectsV2Output, prefix string) []upload.Object {
	objects := make([]upload.Object, 0, len(out.Contents))
	for _, o := range out.Contents {
		key, ok := decodeKey(aws.ToString(o.Key), out.EncodingType)
		if !ok || !strings.HasPrefix(key, prefix) || upload.CheckKey(key) != nil || o.Size == nil {
			continue
		}
		objects = append(objects, upload.Object{Key: key, Size: *o.Size, ETag: aws.ToString(o.ETag), Modified: aws.ToTime(o.LastModified)})
	}
	return objects
}

// decodeKey undoes the encoding of a listed key, where the store says that it
// made one.
func decodeKey(key string, encoding types.EncodingType) (string, bool) {
	if encoding != types.EncodingTypeUrl {
		return key, true
	}
	decoded, err := url.QueryUnescape(key)
	return decoded, err == nil
}
