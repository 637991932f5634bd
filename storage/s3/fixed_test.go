package s3

import (
	"errors"
	"fmt"
	"mime"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"sidegate/storage/upload"
)

// What the configuration says of an object is signed as the SDK would sign it,
// and so is the caller's metadata.
func TestFixedFieldsLikeTheSDK(t *testing.T) {
	o := fixed()
	b := open(t, o)
	o.Region = b.region
	sdk, err := oracle(o, b.credentials).PresignPutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &b.name, Key: aws.String("k"), ContentType: aws.String("image/jpeg"), ContentLength: aws.Int64(5), IfNoneMatch: aws.String("*"),
		ServerSideEncryption: types.ServerSideEncryptionAwsKms, SSEKMSKeyId: &o.KMSKey, StorageClass: types.StorageClassStandardIa,
		Tagging: aws.String("b=1&team=photos%20%3D%20co"), ChecksumCRC64NVME: aws.String("AAAAAAAAAAA="),
		Metadata: map[string]string{"origin": "sidegate", "owner": "=?UTF-8?B?Wm/Dqw==?=", "name": "a b.jpg"},
	})
	signsSame(t, b, sdk, err, func() (upload.Signed, error) {
		return b.SignPut(t.Context(), upload.Put{Key: "k", ContentType: "image/jpeg", Size: 5, Checksum64: "AAAAAAAAAAA=", Expires: 15 * time.Minute,
			Metadata: map[string]string{"name": "a b.jpg"}})
	})
	got, err := b.SignPut(t.Context(), upload.Put{Key: "k", ContentType: "image/jpeg", Size: 5, Expires: time.Minute, Metadata: map[string]string{"name": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(got.URL)
	want := "content-length;content-type;host;if-none-match;x-amz-meta-name;x-amz-meta-origin;x-amz-meta-owner;x-amz-server-side-encryption;" +
		"x-amz-server-side-encryption-aws-kms-key-id;x-amz-storage-class;x-amz-tagging"
	if s := u.Query().Get("X-Amz-SignedHeaders"); s != want {
		t.Errorf("signed %s, want %s", s, want)
	}
	if len(got.Headers) != len(strings.Split(want, ";"))-2 {
		t.Errorf("headers to send: %v", got.Headers)
	}
}

// The caller's metadata never overrides the configuration's, nor becomes
// another header.
func TestCallersMetadata(t *testing.T) {
	b := open(t, Options{Metadata: map[string]string{"origin": "sidegate"}})
	for says, m := range map[string]map[string]string{
		`"origin" is set by the gateway`: {"origin": "me"},
		"the name":                       {"Origin": "me"},
		"the name \"\"":                  {"": "x"},
		"the name \"a b\"":               {"a b": "x"},
		"the name \"a\\r\\nx-amz-acl\"":  {"a\r\nx-amz-acl": "x"},
		"the name \"ü\"":                 {"ü": "x"},
		"the name \"a_b\"":               {"a_b": "x"}, // a proxy can take it for a-b
		"control":                        {"a": "x\r\nX-Amz-Acl: public-read"},
		"control character":              {"a": "x\x00"},
		"2048 bytes":                     {"a": strings.Repeat("x", 2048-len("aoriginsidegate")+1)},
		"more than":                      {"a": strings.Repeat("é", 800)},
	} {
		_, err := b.SignPut(t.Context(), upload.Put{Key: "k", ContentType: "a/b", Size: 1, Expires: time.Minute, Metadata: m})
		var invalid *upload.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != "metadata" || !strings.Contains(invalid.Reason, says) {
			t.Errorf("%.40v: %v, want %s", m, err, says)
		}
	}
	got, err := b.SignPut(t.Context(), upload.Put{Key: "k", ContentType: "a/b", Size: 1, Expires: time.Minute,
		Metadata: map[string]string{"a": strings.Repeat("x", 2048-len("aoriginsidegate"))}})
	if err != nil || got.Headers.Get("X-Amz-Meta-Origin") != "sidegate" {
		t.Errorf("%v, %v", got.Headers, err)
	}
}

// Whoever decodes a value by RFC 2047 has the caller's bytes; whatever came in,
// what goes into a header is one line of ASCII.
func FuzzEncodeMeta(f *testing.F) {
	for _, v := range []string{"", "a b", " a", "a  b", "Zoë", "=?UTF-8?B?DQo=?=", "日本/🙂", "a\tb", "=?utf-8?q?x?="} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got := encodeMeta(value)
		for i := range len(got) {
			if got[i] < ' ' || got[i] > '~' {
				t.Fatalf("%q: %q", value, got)
			}
		}
		if decoded, err := new(mime.WordDecoder).DecodeHeader(got); utf8.ValidString(value) && (err != nil || decoded != value) {
			t.Fatalf("%q: %q decodes to %q, %v", value, got, decoded, err)
		}
	})
}

// An ACL can neither be configured nor come with metadata: no header or field
// of one is ever signed.
func TestNeverAnACL(t *testing.T) {
	b := open(t, fixed())
	for _, form := range []bool{false, true} {
		got, err := b.SignPut(t.Context(), upload.Put{Key: "k", ContentType: "a/b", Size: 1, Form: form, Expires: time.Minute, Metadata: map[string]string{"acl": "public-read"}})
		if err != nil {
			t.Fatal(err)
		}
		said := fmt.Sprint(got.Headers, got.Fields)
		if strings.Contains(strings.ToLower(said), "x-amz-acl") || strings.Contains(said, "x-amz-grant") || got.Fields["acl"] != "" {
			t.Errorf("%s", said)
		}
	}
}

func TestOpenRefusesWhatTheStoreCannot(t *testing.T) {
	hermetic(t)
	const at = "https://store.test"
	for want, o := range map[string]Options{
		"sse is not possible: the store r2":                  {Store: "r2", Endpoint: at, KMSKey: "k"},
		"store r2 encrypts":                                  {Store: "r2", Endpoint: at, AES256: true},
		"tags is not possible: the store r2":                 {Store: "r2", Endpoint: at, Tags: map[string]string{"a": "b"}},
		"storage_class is not possible: the store r2":        {Store: "r2", Endpoint: at, StorageClass: "GLACIER"},
		"endpoint is missing: the store r2":                  {Store: "r2"},
		"sse is not possible: the store gcs":                 {Store: "gcs", Endpoint: at, AES256: true},
		"tags is not possible: the store gcs":                {Store: "gcs", Endpoint: at, Tags: map[string]string{"a": "b"}},
		"storage_class is not possible: the store gcs":       {Store: "gcs", Endpoint: at, StorageClass: "STANDARD_IA"},
		"credentials.role is not possible: the store gcs":    {Store: "gcs", Endpoint: at, Role: &Role{ARN: "arn:aws:iam::111122223333:role/x"}},
		"sse is not possible: the store versitygw":           {Store: "versitygw", Endpoint: at, AES256: true},
		"storage_class is not possible: the store minio":     {Store: "minio", Endpoint: at, StorageClass: "STANDARD_IA"},
		"credentials.role is not possible: the store minio":  {Store: "minio", Endpoint: at, Role: &Role{ARN: "arn:aws:iam::111122223333:role/x"}},
		"storage_class is not possible: the store versitygw": {Store: "versitygw", Endpoint: at, StorageClass: "GLACIER"},
		"endpoint is missing: the store minio":               {Store: "minio"},
		"endpoint is not one of AWS":                         {Store: "aws", Endpoint: at},
		"store is not one of aws, minio":                     {Store: "ceph"},
		"both AES256":                                        {AES256: true, KMSKey: "k"},
		"not a role's ARN":                                   {Role: &Role{ARN: "sidegate"}},
		"storage class":                                      {StorageClass: "standard\r\n"},
		"a key's id or ARN":                                  {KMSKey: "a b"},
		"metadata has the name":                              {Metadata: map[string]string{"A": "b"}},
		"control character":                                  {Metadata: map[string]string{"a": "b\n"}},
		"more than 10":                                       {Tags: map[string]string{"1": "", "2": "", "3": "", "4": "", "5": "", "6": "", "7": "", "8": "", "9": "", "10": "", "11": ""}},
		"AWS's own":                                          {Tags: map[string]string{"aws:x": "y"}},
		"letters, digits":                                    {Tags: map[string]string{"a": "<"}},
	} {
		o.Bucket = "photos"
		if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
	for _, o := range []Options{
		{Store: "r2", Endpoint: at, StorageClass: "STANDARD_IA"}, {Store: "gcs", Endpoint: at, StorageClass: "NEARLINE"},
		{Store: "minio", Endpoint: at, AES256: true, Tags: map[string]string{"a": "b"}}, {Store: "versitygw", Endpoint: at, Tags: map[string]string{"a": "b"}},
		{Store: "aws", Endpoint: "https://s3.dualstack.eu-central-1.amazonaws.com"}, {Store: "other", Endpoint: at, KMSKey: "k"}, {},
	} {
		o.Bucket = "photos"
		if _, err := Open(t.Context(), o); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// A store without conditions signs none, and nothing that needs one.
func TestLimitsOfGCS(t *testing.T) {
	b := open(t, Options{Store: "gcs", Endpoint: "https://storage.googleapis.com"})
	put := upload.Put{Key: "k", ContentType: "a/b", Size: 1, Expires: time.Minute, Overwrite: true}
	got, err := b.SignPut(t.Context(), put)
	if err != nil || len(got.Headers) != 1 {
		t.Errorf("%v, %v", got.Headers, err)
	}
	for field, edit := range map[string]func(*upload.Put){
		"key": func(p *upload.Put) { p.Overwrite = false }, "checksumSha256": func(p *upload.Put) { p.Checksum = emptySum },
		"checksumCrc64nvme": func(p *upload.Put) { p.Checksum64 = "AAAAAAAAAAA=" }, "size": func(p *upload.Put) { p.Size = 0 },
	} {
		p := put
		edit(&p)
		_, err := b.SignPut(t.Context(), p)
		var invalid *upload.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if LimitsOf("aws") != (Limits{}) || LimitsOf("other") != (Limits{}) || !LimitsOf("minio").NoWholeCRC64 || !LimitsOf("r2").NoForm || LimitsOf("r2").NoConditions {
		t.Error("limits")
	}
}
