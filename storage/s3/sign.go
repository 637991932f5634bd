package s3

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/aws/smithy-go/encoding/httpbinding"

	"sidegate/storage/upload"
)

const (
	// maxExpires is the longest life of a signed URL.
	// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
	maxExpires = 7 * 24 * time.Hour
	// unsignedPayload stands for the body's hash, which the signer cannot
	// know; what binds the body is its length and checksum.
	unsignedPayload = "UNSIGNED-PAYLOAD"
	// emptySum is the SHA-256 of no bytes, in base64.
	emptySum = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
)

// A request is what one URL lets its holder do.
type request struct {
	method  string
	key     string
	query   url.Values
	header  http.Header
	size    int64 // Content-Length; not signed where it is not above 0
	at      time.Time
	expires time.Duration
}

// SignPut signs an upload. Signed are the host, the content type, the length
// where it is known, the checksum where one is given, and If-None-Match
// unless overwriting is wanted: the store refuses whatever differs. A length
// of 0 cannot be signed (the SDK leaves Content-Length: 0 out): there the
// checksum of the empty object is.
func (b *Bucket) SignPut(ctx context.Context, p upload.Put) (upload.Signed, error) {
	header := http.Header{"Content-Type": {p.ContentType}}
	if p.Size == 0 {
		p.Checksum = emptySum
	}
	if p.Checksum != "" {
		header.Set("X-Amz-Checksum-Sha256", p.Checksum)
	}
	if !p.Overwrite {
		header.Set("If-None-Match", "*")
	}
	return b.sign(ctx, request{
		method:  http.MethodPut,
		key:     p.Key,
		query:   url.Values{"x-id": {"PutObject"}},
		header:  header,
		size:    p.Size,
		at:      p.At,
		expires: p.Expires,
	})
}

// SignGet signs a download, or the look at one.
func (b *Bucket) SignGet(ctx context.Context, g upload.Get) (upload.Signed, error) {
	r := request{method: http.MethodGet, key: g.Key, query: url.Values{}, expires: g.Expires}
	if g.Head {
		r.method = http.MethodHead
	} else {
		r.query.Set("x-id", "GetObject")
	}
	if g.Disposition != "" {
		r.query.Set("response-content-disposition", g.Disposition)
	}
	return b.sign(ctx, r)
}

func (b *Bucket) sign(ctx context.Context, r request) (upload.Signed, error) {
	if err := upload.CheckKey(r.key); err != nil {
		return upload.Signed{}, err
	}
	creds, last, err := b.credentials.lasting(ctx)
	if err != nil {
		return upload.Signed{}, fmt.Errorf("bucket %s: %w", b.name, err)
	}
	begin, life, err := b.window(r.at, r.expires, last)
	if err != nil {
		return upload.Signed{}, err
	}
	r.query.Set("X-Amz-Expires", strconv.FormatInt(int64(life/time.Second), 10))
	signed, header, err := b.signer.PresignHTTP(ctx, creds, b.unsigned(r), unsignedPayload, "s3", b.region, begin)
	if err != nil {
		return upload.Signed{}, fmt.Errorf("%w: bucket %s: sign %s: %w", upload.ErrUnavailable, b.name, r.method, err)
	}
	header.Del("Host")
	header.Del("Content-Length")
	return upload.Signed{URL: signed, Method: r.method, Headers: header, Expires: begin.Add(life)}, nil
}

// unsigned is the request as the client will send it.
func (b *Bucket) unsigned(r request) *http.Request {
	u := b.public
	prefix := u.EscapedPath()
	u.Path += "/" + r.key
	u.RawPath = prefix + "/" + httpbinding.EscapePath(r.key, false)
	u.RawQuery = r.query.Encode()
	if r.header == nil {
		r.header = http.Header{}
	}
	return &http.Request{
		Method:        r.method,
		URL:           &u,
		Host:          u.Host,
		Header:        r.header,
		ContentLength: r.size,
	}
}

// window is when a URL begins and how long it lives, in whole seconds: as
// asked, at most what S3 allows, and never beyond last, the end of what the
// credentials may sign (zero: they have none).
func (b *Bucket) window(at time.Time, want time.Duration, last time.Time) (begin time.Time, life time.Duration, err error) {
	now := b.now()
	if at.IsZero() {
		at = now
	}
	begin = at.UTC().Truncate(time.Second)
	end := begin.Add(min(want, maxExpires).Truncate(time.Second))
	if !last.IsZero() && last.Before(end) {
		end = last.UTC().Truncate(time.Second)
	}
	if end.Sub(now) < time.Second {
		if !last.IsZero() && last.Sub(now) < time.Second {
			return begin, 0, fmt.Errorf("%w: bucket %s: the credentials end at %s, too soon to sign with, and no newer ones come",
				upload.ErrUnavailable, b.name, last.Add(credentialMargin).UTC().Format(time.RFC3339))
		}
		return begin, 0, fmt.Errorf("%w: bucket %s: the URL would be over before it is used", upload.ErrUnavailable, b.name)
	}
	return begin, end.Sub(begin), nil
}
