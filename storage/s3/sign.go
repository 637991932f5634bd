package s3

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
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
	method string
	key    string
	query  string      // escaped, by name, with a & before each; without those of the signature
	header http.Header // what to send, one value each, in net/http's spelling
	size   int64       // Content-Length; not signed where it is not above 0
	unsent []string    // headers that must not be sent; their query parameters are part of query
}

// SignPut signs an upload. Signed are the host, the content type, the length
// where it is known, the checksum where one is given, If-None-Match unless
// overwriting is wanted, the caller's metadata, and what the bucket's
// configuration says of every object: the store refuses whatever differs. A
// length of 0 is not signed (the SDK leaves Content-Length: 0 out): there
// the checksum of the empty object is.
func (b *Bucket) SignPut(ctx context.Context, p upload.Put) (upload.Signed, error) {
	if p.Form {
		return b.signForm(ctx, p)
	}
	header, err := b.putHeader(p)
	if err != nil {
		return upload.Signed{}, err
	}
	return b.sign(ctx, p.At, p.Expires, request{
		method: http.MethodPut, key: p.Key, query: b.unsent.query + "&x-id=PutObject", header: header, size: p.Size, unsent: b.unsent.names,
	})
}

// SignGet signs a download, or the look at one.
func (b *Bucket) SignGet(ctx context.Context, g upload.Get) (upload.Signed, error) {
	r := request{method: http.MethodGet, key: g.Key}
	if g.Disposition != "" {
		r.query += "&response-content-disposition=" + escapeQuery(g.Disposition)
	}
	if g.ContentType != "" {
		r.query += "&response-content-type=" + escapeQuery(g.ContentType)
	}
	if g.Head {
		r.method = http.MethodHead
	} else {
		r.query += "&x-id=GetObject"
	}
	return b.sign(ctx, time.Time{}, g.Expires, r)
}

func (b *Bucket) sign(ctx context.Context, at time.Time, expires time.Duration, r request) (upload.Signed, error) {
	if err := upload.CheckKey(r.key); err != nil {
		return upload.Signed{}, err
	}
	creds, last, err := b.credentials.lasting(ctx, expires)
	if err != nil {
		return upload.Signed{}, fmt.Errorf("bucket %s: %w", b.name, err)
	}
	begin, life, err := b.window(at, expires, last)
	if err != nil {
		return upload.Signed{}, err
	}
	return b.presign(creds, begin, life, r, b.path(r.key)), nil
}

// path is where the key lies, escaped.
func (b *Bucket) path(key string) string {
	for i := range len(key) {
		if !plainInPath(key[i]) {
			return b.public.path + "/" + httpbinding.EscapePath(key, false)
		}
	}
	return b.public.path + "/" + key
}

// plainInPath tells bytes that no escape is needed for, as most keys have them
// only; those that it does not know are the library's matter.
func plainInPath(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c == '/' || c == '-' || c == '.' || c == '_'
}

// presign signs a request for a key that lies there.
func (b *Bucket) presign(creds aws.Credentials, begin time.Time, life time.Duration, r request, path string) upload.Signed {
	headers := r.header
	if headers == nil {
		headers = http.Header{}
	}
	url := b.signer.presign(creds, begin, life, r, b.public.origin, b.public.signed, path)
	return upload.Signed{URL: url, Method: r.method, Headers: headers, Expires: begin.Add(life)}
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
