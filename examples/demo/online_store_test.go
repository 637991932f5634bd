package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

// sharedStoreVariable makes this program a store, in the folder that it names: one
// process can hold only one, and the lab's has a single account.
const sharedStoreVariable = "SIDEGATE_TEST_SHARED_STORE"

func init() {
	if dir := os.Getenv(sharedStoreVariable); dir != "" {
		fmt.Fprintln(os.Stderr, serveSharedStore(dir, os.Getenv(sharedStoreVariable+"_AT")))
		os.Exit(1)
	}
}

// The store's accounts: its owner, and the one that bucket policies are about.
const (
	ownerKey, ownerSecret = "OWNEROWNEROWNER", "owner-secret-owner-secret"
	gateKey, gateSecret   = "GATEGATEGATEGATE", "gate-secret-gate-secret"
)

// serveSharedStore is versitygw with two accounts and versions of objects.
func serveSharedStore(dir, address string) error {
	objects, sidecar, versions, accounts := filepath.Join(dir, "objects"), filepath.Join(dir, "meta"), filepath.Join(dir, "versions"), filepath.Join(dir, "accounts")
	for _, folder := range []string{objects, sidecar, versions, accounts} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
	}
	attributes, err := meta.NewSideCar(sidecar)
	if err != nil {
		return err
	}
	backend, err := posix.New(objects, attributes, posix.PosixOpts{CopyObjectThreshold: 5 << 30, VersioningDir: versions})
	if err != nil {
		return err
	}
	iam, err := auth.NewInternal(auth.Account{Access: ownerKey, Secret: ownerSecret, Role: auth.RoleAdmin}, accounts)
	if err != nil {
		return err
	}
	if err := iam.CreateAccount(auth.Account{Access: gateKey, Secret: gateSecret, Role: auth.RoleUser}); err != nil {
		return err
	}
	return embedgw.RunVersityGW(context.Background(), backend, &embedgw.Config{
		RootUserAccess: ownerKey, RootUserSecret: ownerSecret,
		Ports: []string{address}, MaxConnections: 1024, MaxRequests: 1024, MultipartMaxParts: 10_000,
		HealthPath: "/health", Quiet: true, IAMService: iam,
	})
}

// A sharedStore is a real store with accounts, whose buckets have policies.
type sharedStore struct {
	url    string
	client *s3.Client // its owner's
	made   atomic.Int64
}

func startSharedStore(t *testing.T) *sharedStore {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	address := unusedAddress(t)
	c := exec.Command(program)
	c.Env = append(os.Environ(), sharedStoreVariable+"="+t.TempDir(), sharedStoreVariable+"_AT="+address)
	startComponent(t, c, "http://"+address+"/health")
	s := &sharedStore{url: "http://" + address}
	s.client = s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(s.url), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(ownerKey, ownerSecret, ""),
	})
	return s
}

// A bucketSetup says what a bucket allows. The zero setup is what a careful
// operator makes for the policy of the tests.
type bucketSetup struct {
	objects []string // actions on users/*; default: what the policy needs
	more    []any    // statements besides
	noList  bool
	noCORS  bool
	version bool
}

// bucket makes one, with the policy that bucketSetup says.
func (s *sharedStore) bucket(t *testing.T, b bucketSetup) string {
	t.Helper()
	name := fmt.Sprintf("bucket-%d", s.made.Add(1))
	ctx := t.Context()
	if _, err := s.client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(name)}); err != nil {
		t.Fatal(err)
	}
	if b.objects == nil {
		b.objects = []string{"s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}
	}
	statements := append([]any{allow("gate", "arn:aws:s3:::"+name+"/users/*", b.objects...)}, b.more...)
	if !b.noList {
		statements = append(statements, allow("gate", "arn:aws:s3:::"+name, "s3:ListBucket", "s3:ListBucketMultipartUploads"))
	}
	document, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(document), "BUCKET", name)
	if _, err := s.client.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: aws.String(name), Policy: aws.String(text)}); err != nil {
		t.Fatal(err)
	}
	if !b.noCORS {
		if _, err := s.client.PutBucketCors(ctx, &s3.PutBucketCorsInput{Bucket: aws.String(name), CORSConfiguration: &types.CORSConfiguration{CORSRules: []types.CORSRule{{
			AllowedOrigins: []string{pageOrigin}, AllowedMethods: []string{"PUT", "GET"}, AllowedHeaders: []string{"*"}, ExposeHeaders: []string{"ETag"},
		}}}}); err != nil {
			t.Fatal(err)
		}
	}
	if b.version {
		if _, err := s.client.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: aws.String(name),
			VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}}); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// allow is a statement of a bucket policy; BUCKET stands for the bucket.
func allow(who, resource string, actions ...string) map[string]any {
	who = map[string]string{"gate": gateKey, "everybody": "*"}[who]
	return map[string]any{"Effect": "Allow", "Principal": map[string]any{"AWS": []string{who}}, "Action": actions, "Resource": []string{resource}}
}

// objects are the keys that are in the bucket.
func (s *sharedStore) objects(t *testing.T, bucket string) (keys []string) {
	t.Helper()
	out, err := s.client.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: aws.String(bucket)})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range out.Versions {
		keys = append(keys, aws.ToString(v.Key))
	}
	for _, m := range out.DeleteMarkers {
		keys = append(keys, aws.ToString(m.Key)+" deleted")
	}
	return keys
}

// put stores an object as the store's owner.
func (s *sharedStore) put(t *testing.T, bucket, key string) {
	t.Helper()
	if _, err := s.client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String(key), Body: strings.NewReader("somebody's")}); err != nil {
		t.Fatal(err)
	}
}

// before is the address of a proxy before the store, which changes what passes.
func (s *sharedStore) before(t *testing.T, p storeChanges) string {
	t.Helper()
	to, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			if !p.rewritesHost {
				r.Out.Host = r.In.Host
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if p.answers != nil {
				p.answers(r)
			}
			return nil
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.asked != nil && p.asked(w, r) {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// A storeChanges says what is changed.
type storeChanges struct {
	rewritesHost bool
	asked        func(http.ResponseWriter, *http.Request) (answered bool)
	answers      func(*http.Response)
}

// forgetful stores what the store would refuse, as one that does not know a header:
// the bytes are kept by the owner, whoever sent them.
func (s *sharedStore) forgetful(t *testing.T, header string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || r.Header.Get(header) == "" {
			return false
		}
		var body bytes.Buffer
		if _, err := body.ReadFrom(r.Body); err != nil {
			t.Error(err)
		}
		bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if _, err := s.client.PutObject(context.Background(), &s3.PutObjectInput{
			Bucket: aws.String(bucket), Key: aws.String(key), ContentType: aws.String(r.Header.Get("Content-Type")), Body: bytes.NewReader(body.Bytes()),
		}); err != nil {
			t.Error(err)
			w.WriteHeader(http.StatusInternalServerError)
		}
		return true
	}
}

// failing has the store fail for as many uploads.
func failing(uploads int64) func(http.ResponseWriter, *http.Request) bool {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || n.Add(1) > uploads {
			return false
		}
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, "<Error><Code>InternalError</Code></Error>")
		return true
	}
}
