package s3

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// byTheSDK is the URL as the SDK's signer makes it.
func byTheSDK(t *testing.T, b *Bucket, creds aws.Credentials, at time.Time, life time.Duration, r request) string {
	t.Helper()
	u, err := url.Parse(b.public.origin)
	if err != nil {
		t.Fatal(err)
	}
	u.Opaque, u.RawQuery = "//"+u.Host+b.path(r.key), "X-Amz-Expires="+strconv.Itoa(int(life/time.Second))+r.query
	s := v4.NewSigner(func(s *v4.SignerOptions) { s.DisableURIPathEscaping, s.DisableHeaderHoisting = true, true })
	signed, _, err := s.PresignHTTP(t.Context(), creds, &http.Request{Method: r.method, URL: u, Host: u.Host, Header: r.header.Clone(), ContentLength: r.size},
		unsignedPayload, "s3", b.region, at)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// What a signature shares with the one before is never that of another day or
// of other credentials, whoever signs at the same time.
func TestKeysAreThoseOfTheDayAndTheCredentials(t *testing.T) {
	b := open(t, Options{})
	r := request{method: http.MethodPut, key: "users/u1/a.jpg", query: "&x-id=PutObject", header: http.Header{"Content-Type": {"image/jpeg"}}, size: 5}
	sets := []aws.Credentials{
		{AccessKeyID: "A", SecretAccessKey: "s"}, {AccessKeyID: "B", SecretAccessKey: "s"}, {AccessKeyID: "A", SecretAccessKey: "other"},
		{AccessKeyID: "A", SecretAccessKey: "s", SessionToken: "t+/="}, {AccessKeyID: "A", SecretAccessKey: "s", SessionToken: "u u"},
	}
	var all sync.WaitGroup
	for _, at := range []time.Time{clock, clock.Add(13*time.Hour + 59*time.Minute + 59*time.Second), clock.Add(14 * time.Hour), clock.AddDate(1, 0, 0)} {
		for _, creds := range sets {
			want := byTheSDK(t, b, creds, at, time.Minute, r)
			all.Go(func() {
				for range 50 {
					if got := b.presign(creds, at, time.Minute, r, b.path(r.key)); got.URL != want {
						t.Errorf("signed\n%s, the SDK\n%s", got.URL, want)
					}
				}
			})
		}
	}
	all.Wait()
}

func FuzzSignerLikeTheSDKs(f *testing.F) {
	f.Add("X-Amz-Meta-A", " two  spaces ", "X-Amz-Tagging", "a=b&c=d", "up/lo+ad=id&x~_-.é", "token", int64(0))
	f.Add("If-None-Match", "*", "Content-Type", "text/plain;  charset=\"utf-8\"", "", "", int64(5))
	b := open(f, Options{Endpoint: "https://minio.test:443", PathStyle: true})
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2, id, token string, size int64) {
		header := http.Header{}
		for name, value := range map[string]string{name1: value1, name2: value2} {
			// What is signed has these names only, and no control characters.
			if http.CanonicalHeaderKey(name) != name || !strings.HasPrefix(name, "X-Amz-") && name != "If-None-Match" && name != "Content-Type" ||
				strings.ContainsFunc(name, func(r rune) bool { return r > '~' || r <= ' ' }) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
				return
			}
			header[name] = []string{value}
		}
		r := request{method: http.MethodPut, key: "users/u1/é.jpg", query: "&partNumber=1&uploadId=" + escapeQuery(id) + "&x-id=UploadPart", header: header, size: size}
		creds := aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: secret, SessionToken: token}
		got := b.presign(creds, clock, time.Minute, r, b.path(r.key))
		if want := byTheSDK(t, b, creds, clock, time.Minute, r); got.URL != want {
			t.Errorf("signed\n%s, the SDK\n%s", got.URL, want)
		}
	})
}
