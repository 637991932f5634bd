package s3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"sidegate/storage/upload"
)

const awkwardID = "up/lo+ad=id&x~_-.é"

func TestPartsLikeTheSDK(t *testing.T) {
	for name, o := range map[string]Options{"virtual host": {}, "by path": {Endpoint: "https://minio.test:8443", PathStyle: true}} {
		t.Run(name, func(t *testing.T) {
			b := open(t, o)
			o.Region = b.region
			for _, key := range awkwardKeys {
				for part, sum := range map[int32]string{1: "", 9999: emptySum, 10000: ""} {
					in := &s3.UploadPartInput{Bucket: &b.name, Key: &key, UploadId: aws.String(awkwardID), PartNumber: &part, ContentLength: aws.Int64(5)}
					if sum != "" {
						in.ChecksumSHA256 = &sum
					}
					sdk, err := oracle(o, b.credentials).PresignUploadPart(t.Context(), in)
					signsSame(t, b, sdk, err, func() (upload.Signed, error) {
						got, err := b.SignMultipart(t.Context(), []upload.MultipartCall{{Op: upload.UploadPart, UploadID: awkwardID, Part: int(part),
							Put: upload.Put{Key: key, Size: 5, Checksum: sum, Expires: 15 * time.Minute}}})
						if err != nil || len(got) != 1 {
							return upload.Signed{}, err
						}
						return got[0], nil
					})
				}
			}
		})
	}
}

// captured takes the SDK's real calls, which its presigner has not: what they
// send is what a signed URL must let its holder send.
type captured struct{ request *http.Request }

func (c *captured) Do(r *http.Request) (*http.Response, error) {
	c.request = r
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("<x></x>"))}, nil
}

func TestCallsLikeTheSDK(t *testing.T) {
	b := open(t, fixed())
	o := fixed()
	caught := &captured{}
	client := s3.New(s3.Options{Region: b.region, Credentials: b.credentials, HTTPClient: caught, RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired})
	put := upload.Put{Key: "users/u1/a b.jpg", ContentType: "image/jpeg", Size: 5, Expires: time.Minute, Metadata: map[string]string{"name": "x"}}
	id, part := aws.String(awkwardID), []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: aws.String("e")}}
	for op, call := range map[upload.MultipartOp]func(context.Context) error{
		upload.CreateUpload: func(ctx context.Context) error {
			_, err := client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &b.name, Key: &put.Key, ContentType: &put.ContentType,
				ServerSideEncryption: types.ServerSideEncryptionAwsKms, SSEKMSKeyId: &o.KMSKey, StorageClass: types.StorageClassStandardIa,
				Tagging: aws.String(tagHeader(o.Tags)), Metadata: map[string]string{"origin": "sidegate", "owner": encodeMeta("Zoë"), "name": "x"}})
			return err
		},
		upload.ListParts: func(ctx context.Context) error {
			_, err := client.ListParts(ctx, &s3.ListPartsInput{Bucket: &b.name, Key: &put.Key, UploadId: id})
			return err
		},
		upload.CompleteUpload: func(ctx context.Context) error {
			_, err := client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: &b.name, Key: &put.Key, UploadId: id,
				IfNoneMatch: aws.String("*"), MultipartUpload: &types.CompletedMultipartUpload{Parts: part}})
			return err
		},
		upload.AbortUpload: func(ctx context.Context) error {
			_, err := client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.name, Key: &put.Key, UploadId: id})
			return err
		},
	} {
		if err := call(t.Context()); err != nil {
			t.Fatal(err)
		}
		c := upload.MultipartCall{Op: op, UploadID: awkwardID, Put: put}
		if op == upload.CreateUpload {
			c.UploadID = ""
		}
		got, err := b.SignMultipart(t.Context(), []upload.MultipartCall{c})
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(got[0].URL)
		if err != nil {
			t.Fatal(err)
		}
		query := u.Query()
		for name := range query {
			if strings.HasPrefix(name, "X-Amz-") {
				query.Del(name)
			}
		}
		want := caught.request
		if got[0].Method != want.Method || u.Host != want.URL.Host || u.EscapedPath() != want.URL.EscapedPath() || query.Encode() != want.URL.Query().Encode() {
			t.Errorf("%d: signed\n%s %s, the SDK\n%s %s", op, got[0].Method, u, want.Method, want.URL)
		}
		sent := map[string]bool{"X-Amz-Date": true, "X-Amz-Content-Sha256": true, "Amz-Sdk-Invocation-Id": true, "Amz-Sdk-Request": true, "Authorization": true,
			"User-Agent": true, "Accept-Encoding": true, "Content-Length": true}
		for name := range want.Header {
			if !sent[name] && got[0].Headers.Get(name) != want.Header.Get(name) && (name != "Content-Type" || op != upload.CompleteUpload) {
				t.Errorf("%d: %s: %q, the SDK %q", op, name, got[0].Headers.Get(name), want.Header.Get(name))
			}
		}
		for name := range got[0].Headers {
			if want.Header.Get(name) == "" {
				t.Errorf("%d: %s is signed, and the SDK sends none", op, name)
			}
		}
	}
}

func TestSignMultipartRefuses(t *testing.T) {
	b := open(t, Options{})
	part := upload.MultipartCall{Op: upload.UploadPart, UploadID: "id", Part: 1, Put: upload.Put{Key: "k", Size: 5, Expires: time.Minute}}
	for name, edit := range map[string]func(*upload.MultipartCall){
		"part 0":            func(c *upload.MultipartCall) { c.Part = 0 },
		"part 10001":        func(c *upload.MultipartCall) { c.Part = 10001 },
		"a negative part":   func(c *upload.MultipartCall) { c.Part = -1 },
		"no upload id":      func(c *upload.MultipartCall) { c.UploadID = "" },
		"a long upload id":  func(c *upload.MultipartCall) { c.UploadID = strings.Repeat("x", 1025) },
		"no operation":      func(c *upload.MultipartCall) { c.Op = 0 },
		"an operation of 9": func(c *upload.MultipartCall) { c.Op = 9 },
		"a hostile key":     func(c *upload.MultipartCall) { c.Key = "users/u1/../u2/k" },
		"create with an id": func(c *upload.MultipartCall) { c.Op = upload.CreateUpload },
		"no time":           func(c *upload.MultipartCall) { c.Expires = 0 },
	} {
		bad := part
		edit(&bad)
		if got, err := b.SignMultipart(t.Context(), []upload.MultipartCall{part, bad, part}); err == nil || got != nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A thousand parts ask for credentials once.
func TestBatchAsksForCredentialsOnce(t *testing.T) {
	b := open(t, Options{})
	source := &rotating{ends: []time.Duration{time.Hour}}
	b.credentials = newCredentialSource(source, b.now)
	got, err := b.SignMultipart(t.Context(), thousand("k"))
	if err != nil || source.asked != 1 {
		t.Fatalf("asked %d times, %v", source.asked, err)
	}
	seen := map[string]bool{}
	for i, s := range got {
		u, _ := url.Parse(s.URL)
		if seen[s.URL] || u.Query().Get("partNumber") == "" || u.Query().Get("X-Amz-SignedHeaders") != "content-length;host" || !s.Expires.Equal(clock.Add(15*time.Minute)) {
			t.Fatalf("%d: %s", i, s.URL)
		}
		seen[s.URL] = true
	}
}

func TestBatchOfSeveralUploads(t *testing.T) {
	b := open(t, Options{})
	var calls []upload.MultipartCall
	for _, key := range []string{"a", "b", "a"} {
		for _, id := range []string{"1", "2"} {
			calls = append(calls, upload.MultipartCall{Op: upload.AbortUpload, UploadID: id, Put: upload.Put{Key: key, Expires: time.Minute}})
		}
	}
	got, err := b.SignMultipart(t.Context(), calls)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range got {
		if u, _ := url.Parse(s.URL); u.Path != "/"+calls[i].Key || u.Query().Get("uploadId") != calls[i].UploadID {
			t.Errorf("%d: %s", i, s.URL)
		}
	}
	if none, err := b.SignMultipart(t.Context(), nil); err != nil || len(none) != 0 {
		t.Errorf("%v, %v", none, err)
	}
	b.credentials = newCredentialSource(nil, b.now)
	if _, err := b.SignMultipart(t.Context(), calls); !errors.Is(err, upload.ErrUnavailable) {
		t.Error(err)
	}
}

func thousand(key string) []upload.MultipartCall {
	calls := make([]upload.MultipartCall, 1000)
	for i := range calls {
		calls[i] = upload.MultipartCall{Op: upload.UploadPart, UploadID: strings.Repeat("u", 128), Part: i + 1,
			Put: upload.Put{Key: key, Size: 8 << 20, Expires: 15 * time.Minute}}
	}
	return calls
}

// BenchmarkSignThousandParts: less than 20 ms is asked for.
func BenchmarkSignThousandParts(b *testing.B) {
	bucket := open(b, Options{})
	calls := thousand("users/u1/0123456789abcdef0123456789abcdef.mp4")
	for b.Loop() {
		if _, err := bucket.SignMultipart(b.Context(), calls); err != nil {
			b.Fatal(err)
		}
	}
}
