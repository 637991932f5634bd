package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"sidegate/storage/upload"
)

// A Probe tries what the gateway and its clients will ask of a bucket, for an
// operator who wants to know beforehand. It is safe for concurrent use. Its calls
// end with ctx; their errors say why there was no answer, and hold neither a URL
// that was signed nor what a store wrote beside its codes.
type Probe struct{ b *Bucket }

// Probe gives the bucket's.
func (b *Bucket) Probe() Probe { return Probe{b} }

// An Answer is how a store answered.
type Answer struct {
	Status int         // of HTTP
	Code   string      // the store's error code, such as AccessDenied; empty where it gave none
	Region string      // in which the bucket is, where the store says so
	Header http.Header // of answers to Put, Get, Preflight and Unsigned
	// Version is that of the object that Put made, or of what Delete left in
	// its place; empty: the bucket keeps no versions.
	Version string
}

// OK reports whether the store did as asked.
func (a Answer) OK() bool { return a.Status >= 200 && a.Status < 300 }

// Refused reports whether the store says that this may not be done.
func (a Answer) Refused() bool {
	return a.Status == http.StatusForbidden || a.Status == http.StatusUnauthorized
}

// String is the status and the code.
func (a Answer) String() string {
	if a.Code == "" {
		return fmt.Sprintf("status %d", a.Status)
	}
	return fmt.Sprintf("%s (%d)", a.Code, a.Status)
}

// probeType is the content type by which the object of a check is known again.
const probeType = "application/vnd.sidegate.check"

const probeText = "Written by `sidegate check --online` to see that it may; it can be deleted.\n"

// probeLife is that of the URLs that probes sign: they are used at once.
const probeLife = time.Minute

// maxProbeAnswer bounds what is read of an answer.
const maxProbeAnswer = 64 << 10

// Credentials says where the bucket's credentials come from, in the SDK's word
// for it, and when they end; zero: they do not, and are long-lived keys.
func (p Probe) Credentials(ctx context.Context) (source string, expires time.Time, err error) {
	got, err := p.b.credentials.Retrieve(ctx)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("%w: %s", upload.ErrUnavailable, cause(err))
	}
	if got.CanExpire {
		expires = got.Expires
	}
	return got.Source, expires, nil
}

// Skew is how far the store's clock is ahead, as [Bucket.Skew].
func (p Probe) Skew() (time.Duration, bool) { return p.b.Skew() }

// List asks for one key below the prefix.
func (p Probe) List(ctx context.Context, prefix string) (Answer, error) {
	_, err := p.b.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
		Bucket: aws.String(p.b.name), Prefix: aws.String(prefix), MaxKeys: aws.Int32(1),
	}, once)
	return answerOf(err)
}

// once sends a call once: what a probe finds is to be told, not mended.
func once(o *s3.Options) { o.Retryer = retry.AddWithMaxAttempts(o.Retryer, 1) }

// Head looks at the object as the gateway does. Its answer is 404 where there is
// none. ours: it is the object of a check.
func (p Probe) Head(ctx context.Context, key string) (o upload.Object, ours bool, a Answer, err error) {
	o, err = p.b.Head(ctx, key)
	switch {
	case err == nil:
		return o, o.ContentType == probeType, Answer{Status: http.StatusOK}, nil
	case errors.Is(err, upload.ErrNoObject):
		return o, false, Answer{Status: http.StatusNotFound}, nil
	}
	a, err = answerOf(err)
	return o, false, a, err
}

// Put uploads the object of a check by a signed URL, as clients do. Where
// overwrite is false a store that knows conditions refuses it (412) if there is
// one.
func (p Probe) Put(ctx context.Context, key string, overwrite bool) (Answer, error) {
	put := p.object(key)
	put.Overwrite = overwrite
	signed, err := p.b.SignPut(ctx, put)
	if err != nil {
		return Answer{}, errors.New(cause(err))
	}
	return p.send(ctx, signed.Method, signed.URL, signed.Headers, probeText)
}

func (p Probe) object(key string) upload.Put {
	put := upload.Put{Key: key, ContentType: probeType, Size: int64(len(probeText)), Overwrite: p.b.limits.NoConditions, Expires: probeLife}
	if !p.b.limits.NoSHA256 {
		sum := sha256.Sum256([]byte(probeText))
		put.Checksum = base64.StdEncoding.EncodeToString(sum[:])
	}
	return put
}

// Conditional says whether uploads to this kind of store can be signed such that
// they replace nothing, as far as is known.
func (p Probe) Conditional() bool { return !p.b.limits.NoConditions }

// Keeps says that the store obeys If-None-Match for certain: it is a service that
// has but one version. What else speaks S3 may ignore it, whatever its kind.
func (p Probe) Keeps() bool { return p.b.store == "aws" || p.b.store == "r2" }

// UploadHeaders are the headers that a browser must be let to send with an
// upload, in lower case and sorted.
func (p Probe) UploadHeaders() ([]string, error) {
	header, err := p.b.putHeader(p.object(".sidegate-check"))
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range header {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	return names, nil
}

// Overreach sends an upload that a store must refuse, whatever its sender is
// allowed: it is like [Probe.Put], and says checksums that its bytes do not have.
// Who may not write the key hears so (403); who may, that they differ (400). Only a
// store that compares no checksum stores it: then the answer is OK, and the caller
// has to delete it. The key must be one that nothing can be at.
//
// If-Match with an ETag that cannot be would do as well at AWS, but it takes
// s3:GetObject too, without which its 403 says nothing of writing, and older
// stores do not know it; a Content-MD5 is held against the bytes by all of them.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
func (p Probe) Overreach(ctx context.Context, key string) (Answer, error) {
	put := p.object(key)
	const other = "not what is sent"
	if put.Checksum != "" {
		sum := sha256.Sum256([]byte(other))
		put.Checksum = base64.StdEncoding.EncodeToString(sum[:])
	}
	header, err := p.b.putHeader(put)
	if err != nil {
		return Answer{}, err
	}
	sum := md5.Sum([]byte(other)) // which is what the header is made of
	header["Content-Md5"] = []string{base64.StdEncoding.EncodeToString(sum[:])}
	signed, err := p.b.sign(ctx, time.Time{}, probeLife, request{
		method: http.MethodPut, key: key, query: p.b.unsent.query + "&x-id=PutObject", header: header, size: put.Size, unsent: p.b.unsent.names,
	})
	if err != nil {
		return Answer{}, errors.New(cause(err))
	}
	return p.send(ctx, signed.Method, signed.URL, signed.Headers, probeText)
}

// Get downloads by a signed URL, as a client does whose page has that origin;
// empty: it is none. ours says that the object of a check came.
func (p Probe) Get(ctx context.Context, key, origin string) (a Answer, err error) {
	signed, err := p.b.SignGet(ctx, upload.Get{Key: key, Expires: probeLife})
	if err != nil {
		return Answer{}, errors.New(cause(err))
	}
	header := http.Header{}
	if origin != "" {
		header.Set("Origin", origin)
	}
	return p.send(ctx, signed.Method, signed.URL, header, "")
}

// Delete removes the object, or one version, as the gateway does.
func (p Probe) Delete(ctx context.Context, key, version string) (Answer, error) {
	in := &s3.DeleteObjectInput{Bucket: aws.String(p.b.name), Key: aws.String(key)}
	if version != "" {
		in.VersionId = aws.String(version)
	}
	out, err := p.b.client.DeleteObject(ctx, in, once)
	a, err := answerOf(err)
	if out != nil {
		a.Version = keptVersion(aws.ToString(out.VersionId))
	}
	return a, err
}

// keptVersion is empty for the one that stands for none.
func keptVersion(id string) string {
	if id == "null" {
		return ""
	}
	return id
}

// Multipart opens a multipart upload of the object, and gives its id.
func (p Probe) Multipart(ctx context.Context, key string) (id string, a Answer, err error) {
	id, err = p.b.CreateMultipart(ctx, p.object(key))
	a, err = answerOf(err)
	return id, a, err
}

// Opened are the multipart uploads of the key that are open.
func (p Probe) Opened(ctx context.Context, key string) (ids []string, a Answer, err error) {
	open, err := p.b.OpenMultiparts(ctx, key)
	for _, u := range open {
		ids = append(ids, u.ID)
	}
	a, err = answerOf(err)
	return ids, a, err
}

// Parts lists those of a multipart upload.
func (p Probe) Parts(ctx context.Context, key, id string) (Answer, error) {
	_, err := p.b.ListParts(ctx, key, id)
	return answerOf(err)
}

// Abort ends a multipart upload.
func (p Probe) Abort(ctx context.Context, key, id string) (Answer, error) {
	return answerOf(p.b.AbortMultipart(ctx, key, id))
}

// Preflight asks as a browser does before a page of that origin may send such a
// request.
func (p Probe) Preflight(ctx context.Context, key, origin, method string, headers []string) (Answer, error) {
	h := http.Header{"Origin": {origin}, "Access-Control-Request-Method": {method}}
	if len(headers) > 0 {
		h.Set("Access-Control-Request-Headers", strings.Join(headers, ","))
	}
	path := p.b.public.path + "/"
	if method != http.MethodPost { // a form goes to the bucket
		path = p.b.path(key)
	}
	return p.send(ctx, http.MethodOptions, p.b.public.origin+path, h, "")
}

// Unsigned asks as a stranger for the object, or, where the key is empty, for the
// names of all.
func (p Probe) Unsigned(ctx context.Context, key string) (Answer, error) {
	to := p.b.public.origin + p.b.path(key)
	if key == "" {
		to = p.b.public.origin + p.b.public.path + "/?list-type=2&max-keys=1"
	}
	return p.send(ctx, http.MethodGet, to, nil, "")
}

// Public is the host that clients go to.
func (p Probe) Public() string { return p.b.public.origin }

// send sends one request as it is. What a store says beside a code is not kept.
func (p Probe) send(ctx context.Context, method, to string, header http.Header, body string) (Answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(body))
	if err != nil {
		return Answer{}, errors.New("the URL cannot be asked")
	}
	if body == "" {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	for name, values := range header {
		r.Header[name] = values
	}
	got, err := p.b.slow.Do(r)
	if err != nil {
		return Answer{}, errors.New(cause(err))
	}
	defer got.Body.Close()
	text, err := io.ReadAll(io.LimitReader(got.Body, maxProbeAnswer))
	if err != nil {
		return Answer{}, errors.New(cause(err))
	}
	a := Answer{Status: got.StatusCode, Header: got.Header, Version: keptVersion(got.Header.Get("X-Amz-Version-Id")), Region: region(got.Header)}
	if !a.OK() {
		a.readError(text)
	}
	return a, nil
}

func region(h http.Header) string { return word(h.Get("X-Amz-Bucket-Region")) }

// readError reads an error's code and region.
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#RESTErrorResponses
func (a *Answer) readError(text []byte) {
	var said struct{ Code, Region string }
	if xml.NewDecoder(bytes.NewReader(text)).Decode(&said) != nil {
		return
	}
	a.Code = word(said.Code)
	if a.Region == "" {
		a.Region = word(said.Region)
	}
}

var aWord = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// word is a store's word, or nothing where it is more than that.
func word(s string) string {
	if aWord.MatchString(s) {
		return s
	}
	return ""
}

// answerOf is the answer that a call's error tells of; the error is that there
// was none.
func answerOf(err error) (Answer, error) {
	if err == nil {
		return Answer{Status: http.StatusOK}, nil
	}
	var got *awshttp.ResponseError
	if !errors.As(err, &got) || got.Response == nil || got.HTTPStatusCode() == 0 {
		return Answer{}, errors.New(cause(err))
	}
	a := Answer{Status: got.HTTPStatusCode(), Region: region(got.Response.Header)}
	var api smithy.APIError
	if errors.As(err, &api) {
		a.Code = word(api.ErrorCode())
	}
	if a.Code == "Unknown" || a.Code == "Forbidden" || a.Code == "NotFound" || a.Code == "BadRequest" {
		a.Code = "" // the SDK's word for an answer without a code
	}
	return a, nil
}

// cause is what an error says of the network or of files, without the URL, which
// may be signed, and without words of a server.
func cause(err error) string {
	var (
		asked *url.Error
		file  *fs.PathError
		api   smithy.APIError
		got   *awshttp.ResponseError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, context.Canceled):
		return "stopped"
	case errors.As(err, &asked):
		return asked.Err.Error()
	case errors.As(err, &file):
		return file.Error()
	case errors.As(err, &api):
		return "the answer is " + word(api.ErrorCode())
	case errors.As(err, &got):
		return fmt.Sprintf("the answer is status %d", got.HTTPStatusCode())
	}
	if text, ok := strings.CutPrefix(err.Error(), upload.ErrUnavailable.Error()+": "); ok {
		return text
	}
	return err.Error()
}
