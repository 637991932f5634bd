package s3

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"sidegate/storage/upload"
)

// fixed is a bucket whose configuration says all that one can say.
func fixed() Options {
	return Options{
		KMSKey: "arn:aws:kms:eu-central-1:111122223333:key/k", StorageClass: "STANDARD_IA",
		Tags:     map[string]string{"team": "photos = co", "b": "1"},
		Metadata: map[string]string{"origin": "sidegate", "owner": "Zoë"},
	}
}

// formOf asks the SDK for the same form. It reads the wall clock.
func formOf(t *testing.T, o Options, p aws.CredentialsProvider, key string, conditions []any) *s3.PresignedPostRequest {
	t.Helper()
	got, err := oracle(o, p).PresignPostObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(o.Bucket), Key: aws.String(key)},
		func(po *s3.PresignPostOptions) { po.Expires, po.Conditions = 15*time.Minute, conditions })
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestFormLikeTheSDK(t *testing.T) {
	for name, o := range map[string]Options{
		"virtual host":  {Bucket: "photos"},
		"path style":    {Bucket: "photos", PathStyle: true},
		"address":       {Bucket: "photos", Endpoint: "http://127.0.0.1:9000"},
		"below a path":  {Bucket: "photos", Endpoint: "https://minio.test/store/", PathStyle: true},
		"custom host":   {Bucket: "photos", Endpoint: "https://minio.test:8443"},
		"session token": {Bucket: "photos"},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, o)
			o.Region = b.region
			if name == "session token" {
				b.credentials = newCredentialSource(credentials.NewStaticCredentialsProvider("ASIA", secret, "to/k+en=="), b.now)
			}
			for _, key := range awkwardKeys {
				sdk := formOf(t, o, b.credentials, key, []any{
					[]any{"content-length-range", 0, 1000},
					map[string]string{"Content-Type": "image/jpeg"}, map[string]string{"success_action_status": "201"},
				})
				at, err := time.Parse("20060102T150405Z", sdk.Values["X-Amz-Date"])
				if err != nil {
					t.Fatal(err)
				}
				b.now = func() time.Time { return at }
				got, err := b.SignPut(t.Context(), upload.Put{Key: key, ContentType: "image/jpeg", Size: -1, MaxSize: 1000, Form: true, Expires: 15 * time.Minute})
				if err != nil {
					t.Fatal(err)
				}
				want := maps.Clone(sdk.Values)
				want["Content-Type"], want["success_action_status"] = "image/jpeg", "201"
				if got.URL != strings.TrimSuffix(sdk.URL, "/")+"/" || got.Method != "POST" || !maps.Equal(got.Fields, want) {
					t.Errorf("%q: signed\n%s %v, the SDK\n%s %v", key, got.URL, got.Fields, sdk.URL, want)
				}
			}
		})
	}
}

// Each field has a condition with its whole value, and there is no other
// condition but the length's: nothing can be added, changed or left out.
func TestFormConditionsAreExact(t *testing.T) {
	o := fixed()
	b := open(t, o)
	b.credentials = newCredentialSource(credentials.NewStaticCredentialsProvider("ASIA", secret, "token"), b.now)
	for _, p := range []upload.Put{
		{Size: 5, Checksum: sumOf("hello")}, {Size: -1, MaxSize: 7, Metadata: map[string]string{"name": "a b.jpg"}}, {Size: 0}, {Size: -1}, {Size: 9, Checksum64: crcOf("123456789")},
	} {
		p.Key, p.ContentType, p.Form, p.Expires = "users/u1/<a>&b.jpg", "image/jpeg", true, time.Minute
		got, err := b.SignPut(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		exact, ranges := conditionsOf(t, got.Fields["policy"])
		want := maps.Clone(got.Fields)
		delete(want, "policy")
		delete(want, "X-Amz-Signature")
		want["bucket"] = "photos"
		if !maps.Equal(exact, want) {
			t.Errorf("conditions %v, fields %v", exact, want)
		}
		most := map[int64]float64{5: 5, 0: 0, 9: 9, -1: upload.MaxPut}[p.Size]
		if p.MaxSize > 0 {
			most = float64(p.MaxSize)
		}
		least := float64(max(p.Size, 0))
		if !reflect.DeepEqual(ranges, [][]any{{"content-length-range", least, most}}) {
			t.Errorf("size %d: %v", p.Size, ranges)
		}
		for name, value := range map[string]string{
			"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": o.KMSKey, "x-amz-storage-class": "STANDARD_IA",
			"x-amz-meta-origin": "sidegate", "x-amz-meta-owner": "=?UTF-8?B?Wm/Dqw==?=", "success_action_status": "201", "X-Amz-Security-Token": "token",
			"tagging": "<Tagging><TagSet><Tag><Key>b</Key><Value>1</Value></Tag><Tag><Key>team</Key><Value>photos = co</Value></Tag></TagSet></Tagging>",
		} {
			if got.Fields[name] != value {
				t.Errorf("%s: %q", name, got.Fields[name])
			}
		}
		if got.Fields["acl"] != "" || len(got.Headers) != 0 {
			t.Errorf("%+v", got)
		}
		if p.Size == 0 && got.Fields["x-amz-checksum-sha256"] != emptySum {
			t.Errorf("an empty file is not bound: %v", got.Fields)
		}
	}
}

// conditionsOf takes a policy apart as a store does.
func conditionsOf(t *testing.T, policy string) (exact map[string]string, others [][]any) {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(policy)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Conditions []json.RawMessage }
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	exact = map[string]string{}
	for _, c := range doc.Conditions {
		var one map[string]string
		if json.Unmarshal(c, &one) == nil {
			for k, v := range one {
				if _, twice := exact[k]; twice {
					t.Errorf("two conditions for %s", k)
				}
				exact[k] = v
			}
			continue
		}
		var other []any
		if err := json.Unmarshal(c, &other); err != nil {
			t.Fatal(err)
		}
		others = append(others, other)
	}
	return exact, others
}

func TestFormRefuses(t *testing.T) {
	b := open(t, Options{Metadata: map[string]string{"origin": "sidegate"}})
	put := upload.Put{Key: "k", ContentType: "a/b", Size: 5, Form: true, Expires: time.Minute}
	for field, edit := range map[string]func(*upload.Put){
		"key":               func(p *upload.Put) { p.Key = "users/u1/${filename}" },
		"metadata":          func(p *upload.Put) { p.Metadata = map[string]string{"origin": "me"} },
		"checksumCrc64nvme": func(p *upload.Put) { p.Checksum, p.Checksum64 = emptySum, "AAAAAAAAAAA=" },
	} {
		p := put
		edit(&p)
		_, err := b.SignPut(t.Context(), p)
		var invalid *upload.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, store := range []string{"r2", "gcs"} {
		b := open(t, Options{Endpoint: "https://store.test", Store: store})
		if _, err := b.SignPut(t.Context(), put); !errors.Is(err, upload.ErrUnavailable) {
			t.Errorf("%s: %v", store, err)
		}
	}
}

// A form never outlives its credentials, nor S3's longest.
func TestFormExpiry(t *testing.T) {
	b := open(t, Options{})
	b.credentials = newCredentialSource(&rotating{ends: []time.Duration{10 * time.Minute}}, b.now)
	got, err := b.SignPut(t.Context(), upload.Put{Key: "k", ContentType: "a/b", Size: 1, Form: true, Expires: time.Hour})
	if err != nil || !got.Expires.Equal(clock.Add(9*time.Minute)) {
		t.Fatalf("%v, %v", got.Expires, err)
	}
	text, _ := base64.StdEncoding.DecodeString(got.Fields["policy"])
	if !strings.Contains(string(text), `"expiration":"`+clock.Add(9*time.Minute).Format(time.RFC3339)+`"`) {
		t.Errorf("%s", text)
	}
}

func FuzzFormConditionsAreExact(f *testing.F) {
	for _, k := range awkwardKeys {
		f.Add(k, "name", "a\"b\\")
	}
	f.Add("a$}{b", "x", "${filename}")
	f.Add("a", "origin", "=?UTF-8?B?DQo=?=")
	b := open(f, Options{Metadata: map[string]string{"origin": "sidegate"}})
	f.Fuzz(func(t *testing.T, key, name, value string) {
		got, err := b.SignPut(t.Context(), upload.Put{Key: key, ContentType: "a/b", Size: 1, Form: true, Expires: time.Minute, Metadata: map[string]string{name: value}})
		if err != nil {
			return
		}
		exact, _ := conditionsOf(t, got.Fields["policy"])
		if exact["key"] != key || got.Fields["key"] != key || strings.Contains(key, "${") || upload.CheckKey(key) != nil {
			t.Fatalf("%q is signed as %q", key, exact["key"])
		}
		for name, v := range got.Fields {
			if name != "policy" && name != "X-Amz-Signature" && exact[name] != v {
				t.Fatalf("%s: %q, the condition %q", name, v, exact[name])
			}
			if strings.ContainsAny(name, "\r\n") || name != "key" && strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("%q: %q", name, v)
			}
		}
		if exact["x-amz-meta-origin"] != "sidegate" || name == "origin" {
			t.Fatalf("the caller overrides: %v", slices.Sorted(maps.Keys(exact)))
		}
	})
}
