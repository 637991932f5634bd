package s3

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"sidegate/storage/upload"
)

// maxPages bounds how many pages of a list are asked for; stores give 1,000
// entries on one, or what they like.
const maxPages = 100

// CreateMultipart opens a multipart upload of the object. No checksum of the
// whole is named: S3 then computes CRC-64/NVME by itself, and a store that is
// told of it at the opening wants to hear that of each part at the end
// (versitygw v1.8.0). It is compared once the object is there. p.PartChecksums
// has the store want a SHA-256 with every part, and refuse those without.
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_Checksum.html
func (b *Bucket) CreateMultipart(ctx context.Context, p upload.Put) (string, error) {
	if err := upload.CheckKey(p.Key); err != nil {
		return "", err
	}
	header, err := b.createHeader(p)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, b.callTimeout)
	defer cancel()
	in := &s3.CreateMultipartUploadInput{Bucket: aws.String(b.name), Key: aws.String(p.Key)}
	// The headers are those that a signed call has: one place says them.
	out, err := b.client.CreateMultipartUpload(ctx, in, withHeader(header))
	if err != nil {
		return "", b.storeError("open a multipart upload", err, b.putPermission())
	}
	id := aws.ToString(out.UploadId)
	if id == "" || len(id) > maxUploadID {
		return "", b.unavailable("open a multipart upload", "the store gives no upload id, or one that cannot be")
	}
	return id, nil
}

// putPermission is what writing an object needs.
func (b *Bucket) putPermission() string {
	need := "s3:PutObject on it"
	for _, f := range b.fixed {
		switch f.header {
		case kmsHeader:
			need += ", kms:GenerateDataKey and kms:Decrypt on the key"
		case tagsHeader:
			need += ", s3:PutObjectTagging"
		}
	}
	return need
}

// CompleteMultipart makes the object of the parts, in the order of their
// numbers. S3 may answer 200 and say in the body that it failed: that is an
// error like any other. After a lost answer the second attempt can find the
// upload gone: then the error is [upload.ErrNoUpload], and the object is there.
func (b *Bucket) CompleteMultipart(ctx context.Context, p upload.Put, uploadID string, parts []upload.Part) error {
	const doing = "complete a multipart upload"
	named, err := completed(parts)
	if err != nil {
		return err
	}
	in := &s3.CompleteMultipartUploadInput{
		Bucket:          aws.String(b.name),
		Key:             aws.String(p.Key),
		UploadId:        aws.String(uploadID),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: named},
	}
	if !p.Overwrite {
		if b.limits.NoConditions {
			return b.unavailable(doing, "the store "+b.store+" cannot keep an object from being overwritten")
		}
		in.IfNoneMatch = aws.String("*")
	}
	ctx, cancel := context.WithTimeout(ctx, b.completeTimeout)
	defer cancel()
	out, err := b.client.CompleteMultipartUpload(ctx, in, func(o *s3.Options) { o.HTTPClient = b.slow })
	if err != nil {
		return b.storeError(doing, err, b.putPermission(), upload.ErrNoUpload, upload.ErrTaken, upload.ErrParts)
	}
	if aws.ToString(out.ETag) == "" {
		return b.unavailable(doing, "the store does not say what it made")
	}
	return nil
}

// completed are the parts as the store wants them named.
func completed(parts []upload.Part) ([]types.CompletedPart, error) {
	if len(parts) == 0 || len(parts) > maxParts {
		return nil, fmt.Errorf("%w: %d parts", upload.ErrParts, len(parts))
	}
	out := make([]types.CompletedPart, len(parts))
	last := 0
	for i, p := range parts {
		if p.Number <= last || p.Number > maxParts || p.ETag == "" {
			return nil, fmt.Errorf("%w: the numbers do not rise from 1 to %d, or an ETag is missing", upload.ErrParts, maxParts)
		}
		last = p.Number
		out[i] = types.CompletedPart{PartNumber: aws.Int32(int32(p.Number)), ETag: aws.String(p.ETag)}
		if p.Checksum != "" {
			out[i].ChecksumSHA256 = aws.String(p.Checksum)
		}
	}
	return out, nil
}

// AbortMultipart ends a multipart upload and frees its parts; that there is
// none is no error.
func (b *Bucket) AbortMultipart(ctx context.Context, key, uploadID string) error {
	ctx, cancel := context.WithTimeout(ctx, b.callTimeout)
	defer cancel()
	_, err := b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
		Bucket: aws.String(b.name), Key: aws.String(key), UploadId: aws.String(uploadID),
	})
	if err == nil {
		return nil
	}
	err = b.storeError("abort a multipart upload", err, "s3:AbortMultipartUpload on it", upload.ErrNoUpload)
	if errors.Is(err, upload.ErrNoUpload) {
		return nil
	}
	return err
}

// ListParts is every part that has arrived, by number.
func (b *Bucket) ListParts(ctx context.Context, key, uploadID string) ([]upload.Part, error) {
	const doing = "list parts"
	ctx, cancel := context.WithTimeout(ctx, b.listTimeout)
	defer cancel()
	var parts []upload.Part
	in := &s3.ListPartsInput{Bucket: aws.String(b.name), Key: aws.String(key), UploadId: aws.String(uploadID)}
	last := 0
	for range maxPages {
		out, err := b.client.ListParts(ctx, in)
		if err != nil {
			return nil, b.storeError(doing, err, "s3:ListMultipartUploadParts on it", upload.ErrNoUpload)
		}
		for _, p := range out.Parts {
			n := int(aws.ToInt32(p.PartNumber))
			if n <= last || n > maxParts || p.Size == nil || *p.Size < 0 {
				return nil, b.unavailable(doing, "the store's list makes no sense")
			}
			last = n
			parts = append(parts, upload.Part{Number: n, Size: *p.Size, ETag: aws.ToString(p.ETag), Checksum: aws.ToString(p.ChecksumSHA256)})
		}
		if !aws.ToBool(out.IsTruncated) {
			return parts, nil
		}
		if len(out.Parts) == 0 {
			return nil, b.unavailable(doing, "the store's list does not end")
		}
		in.PartNumberMarker = aws.String(strconv.Itoa(last))
	}
	return nil, b.unavailable(doing, "the store's list does not end")
}

// OpenMultiparts are the multipart uploads under exactly this key.
// The store lists by prefix, in the order of keys: the key itself comes first.
func (b *Bucket) OpenMultiparts(ctx context.Context, key string) ([]upload.OpenMultipart, error) {
	const doing = "list multipart uploads"
	ctx, cancel := context.WithTimeout(ctx, b.listTimeout)
	defer cancel()
	var open []upload.OpenMultipart
	in := &s3.ListMultipartUploadsInput{Bucket: aws.String(b.name), Prefix: aws.String(key), EncodingType: types.EncodingTypeUrl}
	for range maxPages {
		out, err := b.client.ListMultipartUploads(ctx, in)
		if err != nil {
			return nil, b.storeError(doing, err, "s3:ListBucketMultipartUploads on the bucket")
		}
		beyond := false
		for _, u := range out.Uploads {
			got, ok := decodeKey(aws.ToString(u.Key), out.EncodingType)
			if id := aws.ToString(u.UploadId); ok && got == key && id != "" {
				open = append(open, upload.OpenMultipart{ID: id, Begun: b.ours(out.ResultMetadata, u.Initiated)})
			}
			beyond = beyond || ok && got > key
		}
		if beyond || !aws.ToBool(out.IsTruncated) {
			return open, nil
		}
		marker, ok := decodeKey(aws.ToString(out.NextKeyMarker), out.EncodingType)
		id := aws.ToString(out.NextUploadIdMarker)
		if !ok || marker == "" || marker == aws.ToString(in.KeyMarker) && id == aws.ToString(in.UploadIdMarker) {
			return nil, b.unavailable(doing, "the store's list does not end")
		}
		in.KeyMarker, in.UploadIdMarker = aws.String(marker), aws.String(id)
	}
	return nil, b.unavailable(doing, "the store's list does not end")
}
