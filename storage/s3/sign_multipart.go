package s3

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"sidegate/storage/upload"
)

const (
	// maxParts and maxUploadID bound what is signed; S3's own upload ids are
	// some 100 characters long.
	// https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
	maxParts    = 10000
	maxUploadID = 1024
)

// SignMultipart signs calls of the multipart API, in their order: all of them
// or none. Credentials are asked for once.
func (b *Bucket) SignMultipart(ctx context.Context, calls []upload.MultipartCall) ([]upload.Signed, error) {
	longest := time.Duration(0)
	for _, c := range calls {
		longest = max(longest, c.Expires)
	}
	creds, last, err := b.credentials.lasting(ctx, longest)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", b.name, err)
	}
	out := make([]upload.Signed, len(calls))
	var key, path, id, escaped string // of the call before: most are of one upload
	for i, c := range calls {
		if c.Key != key || i == 0 {
			if err := upload.CheckKey(c.Key); err != nil {
				return nil, err
			}
			key, path = c.Key, b.path(c.Key)
		}
		if c.UploadID != id || i == 0 {
			id, escaped = c.UploadID, escapeQuery(c.UploadID)
		}
		r, err := b.multipartRequest(c, escaped)
		if err != nil {
			return nil, err
		}
		begin, life, err := b.window(c.At, c.Expires, last)
		if err != nil {
			return nil, err
		}
		out[i] = b.presign(creds, begin, life, r, path)
	}
	return out, nil
}

// multipartRequest is the call as its client will send it.
func (b *Bucket) multipartRequest(c upload.MultipartCall, uploadID string) (request, error) {
	if (uploadID == "") != (c.Op == upload.CreateUpload) || len(uploadID) > maxUploadID {
		return request{}, fmt.Errorf("%w: a multipart call has no upload id, or one that cannot be", upload.ErrNoUpload)
	}
	switch c.Op {
	case upload.CreateUpload:
		header, err := b.createHeader(c.Put)
		return request{method: http.MethodPost, key: c.Key, query: "&uploads=" + b.unsent.query, header: header, unsent: b.unsent.names}, err
	case upload.UploadPart:
		return b.partRequest(c, uploadID)
	case upload.ListParts:
		return request{method: http.MethodGet, key: c.Key, query: "&uploadId=" + uploadID + "&x-id=ListParts"}, nil
	case upload.CompleteUpload:
		header := http.Header{}
		if err := b.condition(header, c.Put); err != nil {
			return request{}, err
		}
		return request{method: http.MethodPost, key: c.Key, query: "&uploadId=" + uploadID, header: header}, nil
	case upload.AbortUpload:
		return request{method: http.MethodDelete, key: c.Key, query: "&uploadId=" + uploadID + "&x-id=AbortMultipartUpload"}, nil
	}
	return request{}, fmt.Errorf("%w: bucket %s: no such multipart call: %d", upload.ErrUnavailable, b.name, c.Op)
}

// createHeader are the headers that open a multipart upload.
func (b *Bucket) createHeader(p upload.Put) (http.Header, error) {
	header, err := b.objectHeader(p)
	if err != nil || !p.PartChecksums {
		return header, err
	}
	if b.limits.NoSHA256 {
		return nil, &upload.InvalidError{Field: "checksumSha256", Reason: "the store " + b.store + " does not know it"}
	}
	header["X-Amz-Checksum-Algorithm"] = []string{"SHA256"}
	return header, nil
}

// partRequest is the PUT of a part. S3 takes its checksum only where the upload
// was opened for it: "Checksum Type mismatch" otherwise.
func (b *Bucket) partRequest(c upload.MultipartCall, uploadID string) (request, error) {
	if c.Part < 1 || c.Part > maxParts {
		return request{}, &upload.InvalidError{Field: "partNumber", Reason: "is not 1 to " + strconv.Itoa(maxParts)}
	}
	r := request{
		method: http.MethodPut, key: c.Key, size: c.Size, unsent: b.unsent.names,
		query: "&partNumber=" + strconv.Itoa(c.Part) + "&uploadId=" + uploadID + b.unsent.query + "&x-id=UploadPart",
	}
	if c.Size == 0 {
		return request{}, &upload.InvalidError{Field: "size", Reason: "is 0, which cannot be signed for a part"}
	}
	name, sum, err := b.checksum(c.Put)
	if err != nil {
		return request{}, err
	}
	if sum != "" {
		r.header = http.Header{name: {sum}}
	}
	return r, nil
}
