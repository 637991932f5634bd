package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// presignPolicy has every presign route but Uppy's.
const presignPolicy = `version: sidegate-policy/v1
name: presign
identities: [users]
routes:
  - id: put
    path: /v1/uploads/presign
    methods: [POST]
    serve: presign_upload
    allow: [{id: user, who: [users]}]
    object:
      key: users/${auth.uid}/uploads/${uuid}${ext}
      content_types: [text/plain, image/png]
      max_bytes: 25MiB
      expires: {default: 15m, min: 2s, max: 15m}
      metadata: [title]
  - id: form
    path: /v1/uploads/form
    methods: [POST]
    serve: presign_upload
    allow: [{id: user, who: [users]}]
    object:
      method: POST
      key: users/${auth.uid}/uploads/${uuid}${ext}
      content_types: [text/plain, image/png]
      max_bytes: 25MiB
      expires: {default: 15m, min: 2s, max: 15m}
  - id: batch
    path: /v1/uploads/batch
    methods: [POST]
    serve: presign_uploads
    allow: [{id: user, who: [users]}]
    object:
      key: users/${auth.uid}/uploads/${uuid}${ext}
      content_types: [text/plain]
      max_bytes: 1KiB
  - id: counted
    path: /v1/uploads/counted
    methods: [POST]
    serve: presign_upload
    allow: [{id: user, who: [users]}]
    quota: {objects: 3, bytes: 1KiB, window: 24h}
    object:
      key: users/${auth.uid}/uploads/${uuid}${ext}
      content_types: [text/plain]
      max_bytes: 1KiB
  - id: fixed
    path: /v1/avatar
    methods: [POST]
    serve: presign_upload
    allow: [{id: user, who: [users]}]
    object: {key: "users/${auth.uid}/avatar", content_types: [text/plain], max_bytes: 1KiB, overwrite: true}
  - id: parts
    path: "/v1/multipart/{op...}"
    methods: [GET, POST, DELETE]
    serve: multipart
    allow: [{id: user, who: [users]}]
    object:
      key: users/${auth.uid}/uploads/${uuid}${ext}
      content_types: [text/plain]
      max_bytes: 12MiB
      expires: {default: 15m, min: 2s, max: 15m}
  - {id: confirm, path: "/v1/uploads/{session}/confirm", methods: [POST], serve: confirm_upload, allow: [{id: user, who: [users]}]}
  - {id: get, path: "/v1/uploads/{session}", methods: [GET], serve: get_upload, allow: [{id: user, who: [users]}]}
  - {id: list, path: /v1/uploads, methods: [GET], serve: list_uploads, allow: [{id: user, who: [users]}]}
  - id: download
    path: /v1/files/{key...}/download
    methods: [GET]
    serve: presign_download
    allow: [{id: own, who: [users], key_prefix: "users/${auth.uid}/"}]
    object: {key: "${params.key}", expires: {default: 5m, min: 2s, max: 15m}}
  - id: downloads
    path: /v1/downloads
    methods: [POST]
    serve: presign_downloads
    allow: [{id: own, who: [users], key_prefix: "users/${auth.uid}/"}]
    object: {key: "${request.key}"}
  - id: delete
    path: /v1/files/{key...}
    methods: [DELETE]
    serve: delete_object
    allow: [{id: own, who: [users], key_prefix: "users/${auth.uid}/"}]
    object: {key: "${params.key}"}
  - id: objects
    path: /v1/files
    methods: [GET]
    serve: list_objects
    allow: [{id: user, who: [users]}]
    object: {prefix: "users/${auth.uid}/"}
`

// A signed is what the gateway answers where it signs, whatever the route.
type signed struct {
	Status                        any // of a batch's item its HTTP status
	Code                          string
	Key, Session, Method          string
	PutURL, PostURL, GetURL, URL  string
	Headers, Fields               map[string]string
	PartNumber                    int
	ExpiresSeconds                int
	ExpiresAt, ConfirmBy          string
	MinPartSize, MaxParts         int64
	ContentType, ETag, Checksum64 string
}

// A shipment is one request of a client to the store, as the gateway's answer
// has it, until a test changes it.
type shipment struct {
	method, url string
	header      http.Header
	body        []byte
	fields      [][2]string // of a form, whose file is the body
}

// ship makes the request that the answer asks for, and nothing else.
func (s signed) ship(body []byte) *shipment {
	x := &shipment{method: s.Method, url: s.PutURL + s.PostURL + s.GetURL + s.URL, header: http.Header{}, body: body}
	if x.method == "" {
		x.method = http.MethodGet
	}
	for name, value := range s.Headers {
		x.header.Set(name, value)
	}
	for name, value := range s.Fields {
		x.fields = append(x.fields, [2]string{name, value})
	}
	slices.SortFunc(x.fields, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return x
}

func (x *shipment) send(t *testing.T) answer {
	t.Helper()
	body, header := x.body, x.header.Clone()
	if len(x.fields) > 0 {
		var form bytes.Buffer
		w := multipart.NewWriter(&form)
		for _, f := range x.fields {
			if err := w.WriteField(f[0], f[1]); err != nil {
				t.Fatal(err)
			}
		}
		file, err := w.CreateFormFile("file", "file")
		if err != nil {
			t.Fatal(err)
		}
		file.Write(x.body)
		w.Close()
		body = form.Bytes()
		header.Set("Content-Type", w.FormDataContentType())
	}
	r, err := http.NewRequestWithContext(t.Context(), x.method, x.url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	return do(t, r)
}

// field gives the form's field another value, or adds it; "": removes it.
func (x *shipment) field(name, value string) {
	x.fields = slices.DeleteFunc(x.fields, func(f [2]string) bool { return f[0] == name })
	if value != "" {
		x.fields = append(x.fields, [2]string{name, value})
	}
}

// A presigner asks one gateway for one user.
type presigner struct {
	url, token string
}

// ask asks for something, and fails unless it is given.
func (p presigner) ask(t *testing.T, method, path, body string) signed {
	t.Helper()
	var s signed
	a := ask(t, method, p.url+path, p.token, body)
	if a.status != http.StatusOK {
		t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
	}
	a.decode(t, &s)
	return s
}

// idempotent asks with an Idempotency-Key.
func (p presigner) idempotent(t *testing.T, key, path, body string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+p.token)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", `"`+key+`"`)
	return do(t, r)
}

// begin begins an upload in parts.
func (p presigner) begin(t *testing.T, size int) signed {
	t.Helper()
	return p.ask(t, http.MethodPost, "/v1/multipart", fmt.Sprintf(`{"contentType": "text/plain", "size": %d}`, size))
}

// parts signs parts of these sizes, from number 1 on.
func (p presigner) parts(t *testing.T, session string, sizes ...int) []signed {
	t.Helper()
	var asked []string
	for i, size := range sizes {
		asked = append(asked, fmt.Sprintf(`{"partNumber": %d, "size": %d}`, i+1, size))
	}
	var got struct{ Parts []signed }
	ask(t, http.MethodPost, p.url+"/v1/multipart/"+session+"/parts", p.token, `{"parts": [`+strings.Join(asked, ",")+`]}`).
		want(t, http.StatusOK).decode(t, &got)
	if len(got.Parts) != len(sizes) {
		t.Fatalf("%d parts are signed, want %d", len(got.Parts), len(sizes))
	}
	return got.Parts
}

// sent sends the parts and gives what to complete with.
func sent(t *testing.T, parts []signed, content []byte) string {
	t.Helper()
	var done []string
	for _, part := range parts {
		size := min(5<<20, len(content))
		etag := part.ship(content[:size]).send(t).want(t, http.StatusOK).header.Get("ETag")
		content = content[size:]
		done = append(done, fmt.Sprintf(`{"partNumber": %d, "etag": %q}`, part.PartNumber, etag))
	}
	return `{"parts": [` + strings.Join(done, ",") + `]}`
}

// state is what the gateway says of a session.
func (p presigner) state(t *testing.T, session string) (status, reason string) {
	t.Helper()
	var s struct{ Status, Reason string }
	ask(t, http.MethodGet, p.url+"/v1/uploads/"+session, p.token, "").want(t, http.StatusOK).decode(t, &s)
	return s.Status, s.Reason
}

func (p presigner) confirm(t *testing.T, session string) answer {
	t.Helper()
	return confirm(t, p.url, p.token, session)
}

func (p presigner) complete(t *testing.T, session, parts string) answer {
	t.Helper()
	return ask(t, http.MethodPost, p.url+"/v1/multipart/"+session+"/complete", p.token, parts)
}

// oracle asks the store by Amazon's own SDK, past the gateway and any proxy.
func oracle() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(lab.store.url), UsePathStyle: true, Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider(lab.store.accessKey, lab.store.secretKey, ""),
	})
}

// holds is the object's content, and whether there is one.
func holds(t *testing.T, key string) bool {
	t.Helper()
	_, err := oracle().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String(bucket), Key: &key})
	if err != nil && !strings.Contains(err.Error(), "404") {
		t.Fatal(err)
	}
	return err == nil
}

// openUploads are the ids of the multipart uploads that the store has under keys
// with that prefix.
func openUploads(t *testing.T, prefix string) (ids []string) {
	t.Helper()
	out, err := oracle().ListMultipartUploads(context.WithoutCancel(t.Context()), &s3.ListMultipartUploadsInput{Bucket: aws.String(bucket), Prefix: &prefix})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range out.Uploads {
		ids = append(ids, *u.UploadId)
	}
	return ids
}

func sumOf(content []byte) string {
	sum := sha256.Sum256(content)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// sameJSON reports whether the two texts are the same value.
func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	xs, _ := json.Marshal(x)
	ys, _ := json.Marshal(y)
	return bytes.Equal(xs, ys)
}
