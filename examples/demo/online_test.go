package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pageOrigin is where the pages of the checked gateway come from.
const pageOrigin = "https://app.example.com"

// gatewayUser is as whom checks run where these tests are root.
const gatewayUser = 65532

// An online is an environment that `sidegate check --online` is asked about: real
// files, a real issuer and a real store, in which nothing is wrong.
type online struct {
	dir                  string
	store                *sharedStore
	address, admin       string
	issuer               string
	bucket               string
	endpoint, publicURL  string
	accessKey, secretKey string // empty: no credentials are configured
	region               string
	key                  string // audit.key as it is written
	app                  string // keys of the app besides, after a comma
	behind               string // the app's address
	policy               string
	env, flags           []string
	asRoot               bool
	serve                func(w http.ResponseWriter, r *http.Request) bool // before the issuer; true: answered
	before               func(t *testing.T)                                // once the files are there
}

const onlineConfig = `version: sidegate-config/v1
name: checked
listen: {address: ADDRESS}
admin: {address: ADMIN}
identities: {users: {oidc: {issuer: "ISSUER", audience: [api]}}}
upstreams: {app: {url: "http://BEHIND"APP}}
cors: {origins: ["` + pageOrigin + `"]}
buckets:
  default: {bucket: BUCKET, store: versitygw, endpoint: "ENDPOINT", path_style: true, region: REGIONPUBLICCREDENTIALS}
storage: {local: {dir: data}}
audit: {dir: data/auditKEY}
`

const onlinePolicy = `version: sidegate-policy/v1
name: checked
identities: [users]
routes:
  - id: presign
    path: /v1/uploads/presign
    methods: [POST]
    serve: presign_upload
    allow: [{id: user, who: [users]}]
    object: {key: "users/${auth.uid}/${uuid}${ext}", content_types: [image/png], max_bytes: 25MiB}
    limit: {rate: 30/m, burst: 10, per: uid}
    quota: {objects: 1000, window: 24h}
  - id: multipart
    path: /v1/multipart/{op...}
    methods: [GET, POST, DELETE]
    serve: multipart
    allow: [{id: user, who: [users]}]
    object: {key: "users/${auth.uid}/${uuid}${ext}", content_types: [video/mp4], max_bytes: 1GiB}
    limit: {rate: 60/m, per: uid}
    quota: {objects: 1000, window: 24h}
  - {id: confirm, path: "/v1/uploads/{session}/confirm", methods: [POST], serve: confirm_upload, allow: [{id: user, who: [users]}]}
  - id: download
    path: /v1/files/{key...}
    methods: [GET]
    serve: presign_download
    encoded_slash: decode
    allow: [{id: own, who: [users], key_prefix: "users/${auth.uid}/"}]
    object: {key: "${params.key}"}
    limit: {rate: 30/m, per: uid}
`

const deleteRoute = `  - id: remove
    path: /v1/files/{key...}
    methods: [DELETE]
    serve: delete_object
    encoded_slash: decode
    allow: [{id: own, who: [users], key_prefix: "users/${auth.uid}/"}]
    object: {key: "${params.key}"}
    limit: {rate: 30/m, per: uid}
`

// TestCheckOnline breaks one thing at a time. The check names it, and nothing else;
// nothing is left in the bucket.
func TestCheckOnline(t *testing.T) {
	store := startSharedStore(t)
	program := sharedProgram(t)
	writer := []string{"s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}
	cases := []struct {
		name   string
		bucket bucketSetup
		breaks func(t *testing.T, e *online)
		// want are the checks that are not ok, "status id", in any order. Those
		// that are skipped because of one of them are not named.
		want []string
		// says is a part of what the first of want says, or does.
		says string
		// left are the objects that are in the bucket afterwards.
		left []string
	}{
		{name: "nothing", bucket: bucketSetup{objects: writer}},
		{name: "may write and not delete", left: []string{"users/.sidegate-check"}},
		{name: "versions are kept", bucket: bucketSetup{objects: append([]string{"s3:DeleteObjectVersion"}, writer...), version: true}},
		{name: "versions are kept, which it may not delete", bucket: bucketSetup{objects: writer, version: true},
			left: []string{"users/.sidegate-check", "users/.sidegate-check deleted"}},
		{name: "no Google credentials", bucket: bucketSetup{objects: writer}, want: []string{"fail credentials.google"}, says: "mount the file",
			breaks: func(_ *testing.T, e *online) {
				e.app = ", id_token: https://app.example.com"
				e.env = append(e.env, "GOOGLE_APPLICATION_CREDENTIALS="+filepath.Join(e.dir, "nothing.json"))
			}},
		{name: "the app is not there", bucket: bucketSetup{objects: writer}, want: []string{"warn upstream.reach"}, says: "connection refused",
			breaks: func(t *testing.T, e *online) { e.behind = unusedAddress(t) }},
		{name: "the sessions are locked", bucket: bucketSetup{objects: writer}, want: []string{"fail storage.lock"}, says: "no gateway answers",
			breaks: func(t *testing.T, e *online) {
				e.before = func(t *testing.T) {
					at := filepath.Join(e.dir, "data", "sidegate.db")
					change(t, os.WriteFile(at, []byte("a store"), 0o666))
					change(t, os.Chmod(at, 0o666))
					lockFile(t, at)
				}
			}},
		{name: "the audit log was changed", bucket: bucketSetup{objects: writer}, want: []string{"fail audit.ledger"}, says: "sidegate audit repair",
			breaks: func(t *testing.T, e *online) {
				e.before = func(t *testing.T) {
					at := filepath.Join(e.dir, "data", "audit", "00000000000000000001.jsonl")
					change(t, os.WriteFile(at, []byte("{}\n"), 0o666))
					change(t, os.Chmod(at, 0o666))
				}
			}},
		{name: "the port is taken", bucket: bucketSetup{objects: writer}, want: []string{"fail port"}, says: "taken by another process",
			breaks: func(t *testing.T, e *online) { listenAt(t, e.address) }},
		{name: "the admin port is taken", bucket: bucketSetup{objects: writer}, want: []string{"fail admin.port"}, says: "ss -ltnp",
			breaks: func(t *testing.T, e *online) { listenAt(t, e.admin) }},
		{name: "a gateway runs", bucket: bucketSetup{objects: writer}, want: []string{"warn port", "warn admin.port", "warn audit.lock", "warn storage.lock", "skip audit.ledger"}, says: "a gateway runs here",
			breaks: func(t *testing.T, e *online) {
				e.before = func(t *testing.T) { e.runs(t, program) }
			}},
		{name: "audit.dir is locked", bucket: bucketSetup{objects: writer}, want: []string{"fail audit.lock", "skip audit.ledger"}, says: "no gateway answers",
			breaks: func(t *testing.T, e *online) {
				e.before = func(t *testing.T) { lockFile(t, filepath.Join(e.dir, "data", "audit", "lock")) }
			}},
		{name: "audit.dir is another user's", bucket: bucketSetup{objects: writer}, want: []string{"fail audit.dir"}, says: "permission denied",
			breaks: func(t *testing.T, e *online) {
				e.before = func(t *testing.T) { change(t, os.Chmod(filepath.Join(e.dir, "data", "audit"), 0o500)) }
			}},
		{name: "audit.dir is a file", bucket: bucketSetup{objects: writer}, want: []string{"fail audit.dir"}, says: "is no folder",
			breaks: func(t *testing.T, e *online) {
				e.before = func(t *testing.T) {
					at := filepath.Join(e.dir, "data", "audit")
					change(t, errors.Join(os.Remove(at), os.WriteFile(at, nil, 0o600)))
				}
			}},
		{name: "a secret that everybody reads", bucket: bucketSetup{objects: writer}, want: []string{"warn host.secrets"}, says: "chmod o-rwx",
			breaks: func(t *testing.T, e *online) {
				e.before = func(t *testing.T) { change(t, os.Chmod(filepath.Join(e.dir, "audit.key"), 0o644)) }
			}},
		{name: "a policy that everybody writes", bucket: bucketSetup{objects: writer}, want: []string{"warn host.writable"}, says: "policy.yaml",
			breaks: func(t *testing.T, e *online) {
				e.before = func(t *testing.T) { change(t, os.Chmod(filepath.Join(e.dir, "policy.yaml"), 0o666)) }
			}},
		{name: "no audit.key", bucket: bucketSetup{objects: writer}, want: []string{"warn audit.key"}, says: "not set",
			breaks: func(_ *testing.T, e *online) { e.key = "" }},
		{name: "the policy is lax", bucket: bucketSetup{objects: writer}, want: []string{"warn policy.lint"}, says: "SG105",
			breaks: func(_ *testing.T, e *online) {
				e.policy = strings.Replace(e.policy, "    limit: {rate: 30/m, per: uid}\n", "", 1)
			}},
		{name: "keys of anybody", bucket: bucketSetup{objects: writer}, want: []string{"warn insecure.keys"},
			breaks: func(_ *testing.T, e *online) { e.flags = append(e.flags, "--insecure-keys", lab.keysURL) }},

		{name: "the issuer answers garbage", bucket: bucketSetup{objects: writer}, want: []string{"fail keys"}, says: "not a JSON object",
			breaks: func(_ *testing.T, e *online) {
				e.serve = func(w http.ResponseWriter, r *http.Request) bool {
					_, err := io.WriteString(w, "<html>sign in to the hotel's network</html>")
					return err == nil
				}
			}},
		{name: "the issuer has no keys", bucket: bucketSetup{objects: writer}, want: []string{"fail keys"}, says: "no key that can be used",
			breaks: func(_ *testing.T, e *online) { e.serve = answersKeys(`{"keys": []}`) }},
		{name: "the issuer fails", bucket: bucketSetup{objects: writer}, want: []string{"fail keys"}, says: "503",
			breaks: func(_ *testing.T, e *online) {
				e.serve = func(w http.ResponseWriter, _ *http.Request) bool {
					w.WriteHeader(http.StatusServiceUnavailable)
					return true
				}
			}},
		{name: "the issuer is another", bucket: bucketSetup{objects: writer}, want: []string{"fail keys"}, says: "another issuer",
			breaks: func(_ *testing.T, e *online) {
				e.serve = func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.HasPrefix(r.URL.Path, "/.well-known/") {
						return false
					}
					fmt.Fprintf(w, `{"issuer": "https://other.example", "jwks_uri": "https://%s/keys"}`, r.Host)
					return true
				}
			}},
		{name: "nobody is at the issuer's address", bucket: bucketSetup{objects: writer}, want: []string{"fail keys"}, says: "connection refused",
			breaks: func(t *testing.T, e *online) { e.issuer = "https://" + unusedAddress(t) }},
		{name: "the issuer's certificate is a stranger's", bucket: bucketSetup{objects: writer}, want: []string{"fail keys"}, says: "SSL_CERT_FILE",
			breaks: func(_ *testing.T, e *online) { e.env = append(e.env, "SSL_CERT_FILE=/dev/null") }},
		{name: "the proxy on the way is down", bucket: bucketSetup{objects: writer}, want: []string{"fail keys"}, says: "proxy",
			breaks: func(t *testing.T, e *online) {
				e.issuer = "https://example.com" // of this machine there is no proxy
				e.env = append(e.env, "HTTPS_PROXY=http://"+unusedAddress(t))
			}},
		{name: "this clock is some seconds off", bucket: bucketSetup{objects: writer}, want: []string{"warn clock"}, says: "behind",
			breaks: func(_ *testing.T, e *online) { e.serve = saysTime(20 * time.Second) }},
		{name: "this clock is minutes off", bucket: bucketSetup{objects: writer}, want: []string{"fail clock"}, says: "timedatectl",
			breaks: func(_ *testing.T, e *online) { e.serve = saysTime(-10 * time.Minute) }},
		{name: "the store's clock is minutes off", bucket: bucketSetup{objects: writer}, want: []string{"fail clock"}, says: "the store",
			breaks: func(t *testing.T, e *online) {
				e.endpoint = e.store.before(t, storeChanges{answers: func(r *http.Response) {
					r.Header.Set("Date", time.Now().Add(5*time.Minute).UTC().Format(http.TimeFormat))
				}})
			}},

		{name: "no credentials", want: []string{"fail credentials.aws"}, says: "no credentials to sign with",
			breaks: func(_ *testing.T, e *online) { e.accessKey, e.secretKey = "", "" }},
		{name: "an access key of nobody", want: []string{"fail credentials.aws"}, says: "InvalidAccessKeyId",
			breaks: func(_ *testing.T, e *online) { e.accessKey = "NOBODYNOBODYNOBO" }},
		{name: "another's secret key", want: []string{"fail credentials.aws"}, says: "SignatureDoesNotMatch",
			breaks: func(_ *testing.T, e *online) { e.secretKey = ownerSecret }},
		{name: "another region", want: []string{"fail bucket.reach"}, says: "region",
			breaks: func(_ *testing.T, e *online) { e.region = "eu-central-1" }},
		{name: "no bucket", want: []string{"fail bucket.reach"}, says: "NoSuchBucket",
			breaks: func(_ *testing.T, e *online) { e.bucket = "never-made" }},
		{name: "the store is down", want: []string{"fail bucket.reach"}, says: "connection refused",
			breaks: func(t *testing.T, e *online) { e.endpoint = "http://" + unusedAddress(t) }},
		{name: "the store is another server", want: []string{"fail bucket.reach"}, says: "404",
			breaks: func(t *testing.T, e *online) {
				server := httptest.NewServer(http.NotFoundHandler())
				t.Cleanup(server.Close)
				e.endpoint = server.URL
			}},

		{name: "may not write", bucket: bucketSetup{objects: []string{"s3:GetObject"}}, want: []string{"fail bucket.put"}, says: "allow s3:PutObject on"},
		{name: "may not read", bucket: bucketSetup{objects: []string{"s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}},
			want: []string{"fail bucket.head"}, says: "allow s3:GetObject on"},
		{name: "may not abort", bucket: bucketSetup{objects: []string{"s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:ListMultipartUploadParts"}},
			want: []string{"fail bucket.multipart"}, says: "allow s3:AbortMultipartUpload on"},
		{name: "may not delete, and the policy does", want: []string{"fail bucket.delete"}, says: "allow s3:DeleteObject on", left: []string{"users/.sidegate-check"},
			breaks: func(_ *testing.T, e *online) { e.policy += deleteRoute }},
		{name: "may write anywhere", bucket: bucketSetup{objects: writer, more: []any{allow("gate", "arn:aws:s3:::BUCKET/*", "s3:PutObject")}},
			want: []string{"warn bucket.scope"}, says: "outside the policy's prefixes"},
		{name: "a store that compares nothing", bucket: bucketSetup{objects: writer, more: []any{allow("gate", "arn:aws:s3:::BUCKET/*", "s3:PutObject", "s3:DeleteObject")}},
			want: []string{"fail bucket.scope"}, says: "checksums are wrong",
			breaks: func(t *testing.T, e *online) {
				e.endpoint = e.store.before(t, storeChanges{asked: e.store.forgetful(t, "Content-Md5")})
			}},
		{name: "a store that replaces", bucket: bucketSetup{objects: writer}, want: []string{"fail bucket.conditional"}, says: "ignores If-None-Match",
			breaks: func(t *testing.T, e *online) {
				forgets := e.store.forgetful(t, "If-None-Match")
				e.endpoint = e.store.before(t, storeChanges{asked: func(w http.ResponseWriter, r *http.Request) bool {
					return r.Header.Get("Content-Md5") == "" && forgets(w, r)
				}})
			}},
		{name: "a store that fails once", bucket: bucketSetup{objects: writer},
			breaks: func(t *testing.T, e *online) {
				e.endpoint = e.store.before(t, storeChanges{asked: failing(1)})
			}},
		{name: "a store that fails", bucket: bucketSetup{objects: writer}, want: []string{"fail bucket.put"}, says: "InternalError",
			breaks: func(t *testing.T, e *online) {
				e.endpoint = e.store.before(t, storeChanges{asked: failing(1000)})
			}},
		{name: "everybody reads", bucket: bucketSetup{objects: writer, more: []any{allow("everybody", "arn:aws:s3:::BUCKET/*", "s3:GetObject")}},
			want: []string{"fail bucket.public"}, says: "anybody may read objects"},
		{name: "everybody lists", bucket: bucketSetup{objects: writer, more: []any{allow("everybody", "arn:aws:s3:::BUCKET", "s3:ListBucket")}},
			want: []string{"fail bucket.public"}, says: "anybody may list"},
		{name: "no CORS", bucket: bucketSetup{objects: writer, noCORS: true}, want: []string{"fail bucket.cors"}, says: "put-bucket-cors"},
		{name: "CORS that hides ETag", bucket: bucketSetup{objects: writer}, want: []string{"fail bucket.cors"}, says: "lacks ETag",
			breaks: func(t *testing.T, e *online) { // which this store itself never does
				e.endpoint = e.store.before(t, storeChanges{answers: func(r *http.Response) { r.Header.Del("Access-Control-Expose-Headers") }})
			}},
		{name: "replaces without versions", bucket: bucketSetup{objects: writer}, want: []string{"warn bucket.versioning"}, says: "put-bucket-versioning",
			breaks: func(_ *testing.T, e *online) {
				e.policy = strings.Replace(e.policy, "max_bytes: 25MiB}", "max_bytes: 25MiB, overwrite: true}", 1)
			}},
		{name: "a proxy changes the host", bucket: bucketSetup{objects: writer}, want: []string{"fail bucket.signature"}, says: "public_endpoint",
			breaks: func(t *testing.T, e *online) { e.publicURL = e.store.before(t, storeChanges{rewritesHost: true}) }},
		{name: "clients' address is not reached from here", bucket: bucketSetup{objects: writer}, want: []string{"warn bucket.signature"}, says: "curl -sI",
			breaks: func(t *testing.T, e *online) { e.publicURL = "http://" + unusedAddress(t) }},
		{name: "somebody's object has the name", bucket: bucketSetup{objects: writer}, want: []string{"skip bucket.put"}, says: "nothing was written", left: []string{"users/.sidegate-check"},
			breaks: func(t *testing.T, e *online) { e.store.put(t, e.bucket, "users/.sidegate-check") }},
		{name: "the keys never come", bucket: bucketSetup{objects: writer}, want: []string{"fail keys"}, says: "no answer in time",
			breaks: func(_ *testing.T, e *online) {
				e.serve = func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
			}},
		{name: "root", bucket: bucketSetup{objects: writer}, want: []string{"warn host.root"}, says: "65532",
			breaks: func(t *testing.T, e *online) {
				if os.Geteuid() != 0 {
					needs(t, "root", "run this as root")
				}
				e.asRoot = true
			}},
		{name: "the disk is full", bucket: bucketSetup{objects: writer}, want: []string{"fail audit.dir", "warn host.ephemeral", "warn insecure.ephemeral"}, says: "no space left",
			breaks: func(t *testing.T, e *online) {
				e.flags = append(e.flags, "--insecure-ephemeral")
				e.before = func(t *testing.T) { fullDisk(t, filepath.Join(e.dir, "data", "audit")) }
			}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newOnline(t, store, c.bucket)
			if c.breaks != nil {
				c.breaks(t, e)
			}
			r := e.check(t, program)
			var got []string
			for _, one := range r.Checks {
				if one.Status != "ok" && !strings.HasPrefix(one.Text, "not looked at: first mend ") {
					got = append(got, one.Status+" "+one.ID)
				}
				if one.Status != "ok" && one.Status != "skip" && one.Do == "" {
					t.Errorf("%s says nothing to do", one.ID)
				}
			}
			slices.Sort(got)
			want := slices.Sorted(slices.Values(c.want))
			if !slices.Equal(slices.Compact(got), want) {
				t.Errorf("not ok are %q, want %q", got, want)
			}
			failed := slices.ContainsFunc(want, func(s string) bool { return strings.HasPrefix(s, "fail ") })
			if r.OK == failed || r.status != map[bool]int{false: 0, true: 1}[failed] {
				t.Errorf("ok is %v and the status %d", r.OK, r.status)
			}
			if len(c.want) > 0 && !r.says(c.want[0], c.says) {
				t.Errorf("%s does not say %q", c.want[0], c.says)
			}
			if e.bucket != "never-made" {
				if left := store.objects(t, e.bucket); !slices.Equal(left, c.left) {
					t.Errorf("in the bucket are %q, want %q", left, c.left)
				}
			}
			for _, secret := range []string{e.secretKey, "X-Amz-Signature", "X-Amz-Credential"} {
				if secret != "" && strings.Contains(r.text, secret) {
					t.Errorf("it shows %s", secret)
				}
			}
			if t.Failed() {
				t.Log(r.text)
			}
		})
	}
}

// TestCheckOnlineAtOnce: instances that are started together check one bucket
// together. No check takes another's object for its own, and none is left.
func TestCheckOnlineAtOnce(t *testing.T) {
	store := startSharedStore(t)
	program := sharedProgram(t)
	e := newOnline(t, store, bucketSetup{objects: []string{"s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}})
	e.write(t, program)
	var all []*exec.Cmd
	var out [6]bytes.Buffer
	for i := range out {
		c := e.command(t, program, "check", "--online")
		c.Stdout, c.Stderr = &out[i], &out[i]
		change(t, c.Start())
		all = append(all, c)
	}
	for i, c := range all {
		if err := c.Wait(); err != nil && strings.Contains(out[i].String(), "bucket") {
			for line := range strings.Lines(out[i].String()) {
				// Their ports are the same, and may be taken for a moment.
				if strings.HasPrefix(line, "fail") && !strings.Contains(line, "port") {
					t.Errorf("check %d: %s", i, line)
				}
			}
		}
		if !strings.Contains(out[i].String(), "ok    bucket.delete default") {
			t.Errorf("check %d: %s", i, &out[i])
		}
	}
	if left := store.objects(t, e.bucket); len(left) > 0 {
		t.Errorf("in the bucket are %q", left)
	}
}

// sharedProgram is a copy of sidegate that every user may run.
func sharedProgram(t *testing.T) string {
	t.Helper()
	dir := openFolder(t)
	to := filepath.Join(dir, "sidegate")
	text, err := os.ReadFile(lab.sidegate)
	change(t, err)
	change(t, os.WriteFile(to, text, 0o755))
	return to
}

// openFolder is one that every user may enter.
func openFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sidegate-online-")
	change(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	change(t, os.Chmod(dir, 0o755))
	return dir
}

func change(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newOnline(t *testing.T, store *sharedStore, b bucketSetup) *online {
	t.Helper()
	e := &online{
		dir: openFolder(t), store: store, address: unusedAddress(t), admin: unusedAddress(t), endpoint: store.url, region: "us-east-1",
		accessKey: gateKey, secretKey: gateSecret, key: `, key: "${file:audit.key}"`, policy: onlinePolicy, bucket: store.bucket(t, b),
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if e.serve != nil && e.serve(w, r) {
			return
		}
		if r.URL.Path == "/keys" {
			_, _ = w.Write(lab.issuer.keys)
			return
		}
		fmt.Fprintf(w, `{"issuer": %q, "jwks_uri": %q}`, "https://"+r.Host, "https://"+r.Host+"/keys")
	}))
	t.Cleanup(server.Close)
	e.issuer, e.behind = server.URL, server.Listener.Addr().String()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	change(t, os.WriteFile(filepath.Join(e.dir, "authority.pem"), authority, 0o644))
	return e
}

// write writes the files, which belong to the gateway's user.
func (e *online) write(t *testing.T, program string) {
	t.Helper()
	public, creds := "", ""
	if e.publicURL != "" {
		public = fmt.Sprintf(", public_endpoint: %q", e.publicURL)
	}
	if e.accessKey != "" {
		creds = fmt.Sprintf(", credentials: {access_key: %s, secret_key: \"${file:secret.key}\"}", e.accessKey)
	}
	config := strings.NewReplacer("ADDRESS", e.address, "BEHIND", e.behind, "APP", e.app, "ADMIN", e.admin, "ISSUER", e.issuer, "BUCKET", e.bucket, "ENDPOINT", e.endpoint,
		"REGIONPUBLICCREDENTIALS", e.region+public+creds, "KEY", e.key).Replace(onlineConfig)
	for name, text := range map[string]string{"sidegate.yaml": config, "policy.yaml": e.policy, "secret.key": e.secretKey} {
		change(t, os.WriteFile(filepath.Join(e.dir, name), []byte(text), 0o600))
	}
	keygen := exec.Command(program, "audit", "keygen", "--out", filepath.Join(e.dir, "audit.key"))
	if out, err := keygen.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	change(t, os.MkdirAll(filepath.Join(e.dir, "data", "audit"), 0o700))
	if os.Geteuid() == 0 {
		for _, name := range []string{".", "sidegate.yaml", "policy.yaml", "secret.key", "audit.key", "data", "data/audit"} {
			change(t, os.Chown(filepath.Join(e.dir, name), gatewayUser, gatewayUser))
		}
	}
	if e.before != nil {
		e.before(t)
	}
}

// command is one of sidegate's, as the gateway's user.
func (e *online) command(t *testing.T, program string, args ...string) *exec.Cmd {
	c := exec.CommandContext(t.Context(), program, args...)
	c.Dir = e.dir
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + e.dir, "AWS_EC2_METADATA_DISABLED=true",
		"SSL_CERT_FILE=" + filepath.Join(e.dir, "authority.pem")}, e.env...)
	if os.Geteuid() == 0 && !e.asRoot {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: gatewayUser, Gid: gatewayUser}}
	}
	return c
}

// An onlineReport is what check --online prints.
type onlineReport struct {
	OK     bool
	Checks []struct{ ID, Subject, Status, Text, Do string }

	text   string
	status int
}

// says reports whether a check with that status and id says so.
func (r *onlineReport) says(what, text string) bool {
	for _, c := range r.Checks {
		if c.Status+" "+c.ID == what && strings.Contains(c.Text+"\n"+c.Do, text) {
			return true
		}
	}
	return false
}

func (e *online) check(t *testing.T, program string) *onlineReport {
	t.Helper()
	e.write(t, program)
	c := e.command(t, program, append([]string{"check", "--online", "--json"}, e.flags...)...)
	out, err := c.Output()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	r := &onlineReport{text: string(out), status: c.ProcessState.ExitCode()}
	if err := json.Unmarshal(out, r); err != nil || len(r.Checks) < 15 {
		complaint := ""
		if ended != nil {
			complaint = string(ended.Stderr)
		}
		t.Fatalf("%v, status %d:\n%s%s", err, r.status, out, complaint)
	}
	return r
}

// runs starts a gateway with these files.
func (e *online) runs(t *testing.T, program string) {
	t.Helper()
	c := e.command(t, program, "run")
	startComponent(t, c, "http://"+e.admin+"/health/ready")
}

func listenAt(t *testing.T, address string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	change(t, err)
	t.Cleanup(func() { l.Close() })
}

func lockFile(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	change(t, err)
	t.Cleanup(func() { f.Close() })
	change(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
}

// fullDisk puts a disk of memory without room in the place of the folder.
func fullDisk(t *testing.T, dir string) {
	t.Helper()
	if err := mountSmall(dir); err != nil {
		needs(t, "a small tmpfs", "mount says "+err.Error()+": run this as root, where mount(2) is allowed")
	}
	t.Cleanup(func() {
		if err := unmount(dir); err != nil {
			t.Error(err)
		}
	})
	change(t, os.Chmod(dir, 0o777))
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	change(t, err)
	defer ballast.Close()
	for err == nil {
		_, err = ballast.Write(make([]byte, 4096))
	}
}

func answersKeys(text string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/keys" {
			return false
		}
		_, err := io.WriteString(w, text)
		return err == nil
	}
}

// saysTime has the issuer's clock that far ahead.
func saysTime(ahead time.Duration) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		return false
	}
}
