package s3

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"sidegate/storage/upload"
)

const secret = "sEcReTsEcReTsEcReT"

// clock lies ahead of the wall clock, which the SDK's cache of credentials reads:
// to the cache they never end.
var clock = time.Date(2126, 3, 2, 10, 0, 0, 0, time.UTC)

// hermetic keeps the machine's AWS configuration out of a test.
func hermetic(t testing.TB) {
	t.Helper()
	for name, v := range map[string]string{
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_PROFILE": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "",
		"AWS_WEB_IDENTITY_TOKEN_FILE": "", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "",
	} {
		t.Setenv(name, v)
	}
}

// open is a bucket with static keys, at the clock's time.
func open(t testing.TB, o Options) *Bucket {
	t.Helper()
	hermetic(t)
	if o.Bucket == "" {
		o.Bucket = "photos"
	}
	if o.Region == "" {
		o.Region = "eu-central-1"
	}
	o.AccessKey, o.SecretKey, o.backoff = "AKID", secret, time.Millisecond
	if o.Now == nil {
		o.Now = func() time.Time { return clock }
	}
	b, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// oracle is the SDK's own presigner for the same bucket. It reads the wall clock.
func oracle(o Options, p aws.CredentialsProvider) *s3.PresignClient {
	so := s3.Options{Region: o.Region, UsePathStyle: o.PathStyle, Credentials: p,
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired}
	if o.Endpoint != "" {
		so.BaseEndpoint = aws.String(o.Endpoint)
	}
	return s3.NewPresignClient(s3.New(so), func(po *s3.PresignOptions) { po.Expires = 15 * time.Minute })
}

// signsSame signs at the moment the SDK did, and compares.
func signsSame(t *testing.T, b *Bucket, sdk *v4.PresignedHTTPRequest, err error, sign func() (upload.Signed, error)) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	want, err := url.Parse(sdk.URL)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse("20060102T150405Z", want.Query().Get("X-Amz-Date"))
	if err != nil {
		t.Fatal(err)
	}
	b.now = func() time.Time { return at }
	ours, err := sign()
	if err != nil {
		t.Fatal(err)
	}
	if ours.URL != sdk.URL || ours.Method != sdk.Method {
		t.Errorf("signed\n%s %s, the SDK\n%s %s", ours.Method, ours.URL, sdk.Method, sdk.URL)
	}
}

var awkwardKeys = []string{
	"users/u1/uploads/0f.jpg", "a b", "a+b", "é/ü", "~!*'()", "日本/🙂", "%2F?#", "%", "a&b=c;d:e@f,g$h", "...", "a/..b", "[x]{y}|^`<>\"",
}

func TestSignsLikeTheSDK(t *testing.T) {
	session := credentials.NewStaticCredentialsProvider("ASIA", secret, "to/k+en==")
	for name, o := range map[string]Options{
		"virtual host":        {},
		"us-east-1":           {Region: "us-east-1"},
		"china":               {Region: "cn-north-1"},
		"path style":          {PathStyle: true},
		"dotted":              {Bucket: "my.photos"},
		"address":             {Endpoint: "http://127.0.0.1:9000"},
		"custom host":         {Endpoint: "https://minio.test"},
		"custom host by path": {Endpoint: "https://minio.test:8443", PathStyle: true},
		"default port":        {Endpoint: "https://minio.test:443", PathStyle: true},
		"below a path":        {Endpoint: "https://minio.test/store/", PathStyle: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, o)
			o.Region = b.region
			for _, p := range []aws.CredentialsProvider{b.credentials, session} {
				b.credentials = newCredentialSource(p, b.now)
				sdk := oracle(o, p)
				for _, key := range awkwardKeys {
					in := &s3.PutObjectInput{Bucket: &b.name, Key: &key, ContentType: aws.String("image/jpeg"),
						ContentLength: aws.Int64(5), IfNoneMatch: aws.String("*"), ChecksumSHA256: aws.String(emptySum)}
					want, err := sdk.PresignPutObject(t.Context(), in)
					signsSame(t, b, want, err, func() (upload.Signed, error) {
						return b.SignPut(t.Context(), upload.Put{Key: key, ContentType: "image/jpeg", Size: 5, Checksum: emptySum, Expires: 15 * time.Minute})
					})
					disposition := "attachment; filename=\"a b\"; filename*=UTF-8''a%20b"
					want, err = sdk.PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: &b.name, Key: &key, ResponseContentDisposition: &disposition})
					signsSame(t, b, want, err, func() (upload.Signed, error) {
						return b.SignGet(t.Context(), upload.Get{Key: key, Disposition: disposition, Expires: 15 * time.Minute})
					})
					want, err = sdk.PresignHeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b.name, Key: &key})
					signsSame(t, b, want, err, func() (upload.Signed, error) {
						return b.SignGet(t.Context(), upload.Get{Key: key, Head: true, Expires: 15 * time.Minute})
					})
				}
			}
		})
	}
}

func FuzzSignsLikeTheSDK(f *testing.F) {
	for _, k := range awkwardKeys {
		f.Add(k, "image/jpeg", int64(5))
	}
	f.Add("a", "text/plain; charset=\"utf-8\"", int64(-1))
	b := open(f, Options{})
	sdk := oracle(Options{Region: b.region}, b.credentials)
	f.Fuzz(func(t *testing.T, key, contentType string, size int64) {
		if upload.CheckKey(key) != nil || size == 0 || strings.ContainsFunc(contentType, func(r rune) bool { return r < ' ' || r > '~' }) || contentType == "" {
			return
		}
		in := &s3.PutObjectInput{Bucket: &b.name, Key: &key, ContentType: &contentType, IfNoneMatch: aws.String("*")}
		if size > 0 {
			in.ContentLength = &size
		}
		want, err := sdk.PresignPutObject(t.Context(), in)
		signsSame(t, b, want, err, func() (upload.Signed, error) {
			return b.SignPut(t.Context(), upload.Put{Key: key, ContentType: contentType, Size: size, Expires: 15 * time.Minute})
		})
	})
}

func TestSignedHeadersAreExactlyThose(t *testing.T) {
	b := open(t, Options{})
	sum := strings.Repeat("A", 43) + "="
	for _, c := range []struct {
		put     upload.Put
		signed  string
		headers http.Header
	}{
		{upload.Put{Size: -1, Overwrite: true}, "content-type;host", http.Header{}},
		{upload.Put{Size: 5}, "content-length;content-type;host;if-none-match", http.Header{"If-None-Match": {"*"}}},
		{upload.Put{Size: 5, Checksum: sum, Overwrite: true}, "content-length;content-type;host;x-amz-checksum-sha256",
			http.Header{"X-Amz-Checksum-Sha256": {sum}}},
		{upload.Put{Size: 0, Overwrite: true}, "content-type;host;x-amz-checksum-sha256", http.Header{"X-Amz-Checksum-Sha256": {emptySum}}},
	} {
		c.put.Key, c.put.ContentType, c.put.Expires = "k", "image/jpeg", time.Minute
		got, err := b.SignPut(t.Context(), c.put)
		if err != nil {
			t.Fatal(err)
		}
		u, _ := url.Parse(got.URL)
		if s := u.Query().Get("X-Amz-SignedHeaders"); s != c.signed {
			t.Errorf("%+v signs %s, want %s", c.put, s, c.signed)
		}
		c.headers.Set("Content-Type", "image/jpeg")
		if len(got.Headers) != len(c.headers) {
			t.Errorf("%+v: headers %v, want %v", c.put, got.Headers, c.headers)
		}
		for k := range c.headers {
			if got.Headers.Get(k) != c.headers.Get(k) {
				t.Errorf("%+v: headers %v, want %v", c.put, got.Headers, c.headers)
			}
		}
		if strings.Contains(got.URL, secret) {
			t.Error("the secret key is in the URL")
		}
	}
	get, err := b.SignGet(t.Context(), upload.Get{Key: "k", Expires: time.Minute})
	if err != nil || len(get.Headers) != 0 || get.Method != http.MethodGet {
		t.Errorf("get: %+v, %v", get, err)
	}
	head, err := b.SignGet(t.Context(), upload.Get{Key: "k", Head: true, Expires: time.Minute})
	if err != nil || head.Method != http.MethodHead || head.URL == get.URL {
		t.Errorf("head: %+v, %v", head, err)
	}
}

func TestPublicEndpointIsWhatIsSigned(t *testing.T) {
	b := open(t, Options{Endpoint: "http://10.0.0.7:9000", PublicEndpoint: "https://files.acme.test", PathStyle: true})
	got, err := b.SignPut(t.Context(), upload.Put{Key: "k", ContentType: "a/b", Size: 1, Expires: time.Minute})
	if err != nil || !strings.HasPrefix(got.URL, "https://files.acme.test/photos/k?") {
		t.Errorf("%s, %v", got.URL, err)
	}
}

// rotating are credentials that end, and what follows them.
type rotating struct {
	ends    []time.Duration // after the clock; the last one stays
	asked   int
	broken  error
	breakAt int
}

func (r *rotating) Retrieve(context.Context) (aws.Credentials, error) {
	r.asked++
	if r.broken != nil && r.asked >= r.breakAt {
		return aws.Credentials{}, r.broken
	}
	end := r.ends[min(r.asked-1, len(r.ends)-1)]
	return aws.Credentials{AccessKeyID: "ASIA", SecretAccessKey: secret, SessionToken: "t", CanExpire: true, Expires: clock.Add(end)}, nil
}

func TestExpiry(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name       string
		ends       []time.Duration // none: static
		want, gets time.Duration   // gets 0: unavailable
		asked      int
	}{
		{"as asked", nil, 15 * time.Minute, 15 * time.Minute, 0},
		{"whole seconds", nil, 90*time.Second + 700*time.Millisecond, 90 * time.Second, 0},
		{"at most S3's", nil, 30 * day, 7 * day, 0},
		{"less than a second", nil, 500 * time.Millisecond, 0, 0},
		{"credentials end later", []time.Duration{time.Hour}, 15 * time.Minute, 15 * time.Minute, 1},
		{"credentials end sooner", []time.Duration{10*time.Minute + 500*time.Millisecond}, 15 * time.Minute, 9 * time.Minute, 1},
		{"near their end, newer come", []time.Duration{90 * time.Second, time.Hour}, 15 * time.Minute, 15 * time.Minute, 2},
		{"near their end, none newer", []time.Duration{90 * time.Second}, 15 * time.Minute, 30 * time.Second, 2},
		{"a minute from their end, newer come", []time.Duration{time.Minute, time.Hour}, 15 * time.Minute, 15 * time.Minute, 2},
		{"a minute from their end", []time.Duration{time.Minute}, 15 * time.Minute, 0, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := open(t, Options{})
			source := &rotating{ends: c.ends}
			if c.ends != nil {
				b.credentials = newCredentialSource(source, b.now)
			}
			got, err := b.SignPut(t.Context(), upload.Put{Key: "k", ContentType: "a/b", Expires: c.want})
			if c.gets == 0 {
				if !errors.Is(err, upload.ErrUnavailable) || got.URL != "" {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			u, _ := url.Parse(got.URL)
			if s := u.Query().Get("X-Amz-Expires"); s != strconv.Itoa(int(c.gets/time.Second)) || !got.Expires.Equal(clock.Add(c.gets)) {
				t.Errorf("X-Amz-Expires=%s, Expires %v, want %v", s, got.Expires, c.gets)
			}
			if source.asked != c.asked {
				t.Errorf("asked %d times for credentials, want %d", source.asked, c.asked)
			}
		})
	}
}

// BenchmarkSignPut compares with the SDK's presigner: look at the ratio.
func BenchmarkSignPut(b *testing.B) {
	bucket := open(b, Options{})
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			if _, err := bucket.SignPut(b.Context(), upload.Put{Key: "users/u1/a.jpg", ContentType: "image/jpeg", Size: 5, Expires: time.Minute}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sdk", func(b *testing.B) {
		sdk := oracle(Options{Region: bucket.region}, bucket.credentials)
		in := &s3.PutObjectInput{Bucket: &bucket.name, Key: aws.String("users/u1/a.jpg"), ContentType: aws.String("image/jpeg"),
			ContentLength: aws.Int64(5), IfNoneMatch: aws.String("*")}
		for b.Loop() {
			if _, err := sdk.PresignPutObject(b.Context(), in); err != nil {
				b.Fatal(err)
			}
		}
	})
}
