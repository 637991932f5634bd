package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"sidegate/storage/upload"
)

const uppyPolicy = `version: sidegate-policy/v1
identities: [users]
claims: {roles: list(string)}
routes:
  - id: uppy
    path: /uppy/s3/{op...}
    methods: [GET, POST, DELETE]
    serve: uppy
    allow: [{id: user, who: [users]}]
    object: {key: "users/${auth.uid}/${uuid}${ext}", content_types: [image/png, application/octet-stream], max_bytes: 20MiB, metadata: [name, caption], expires: {default: 15m, min: 1m, max: 15m}}
  - id: put
    path: /put/s3/{op...}
    methods: [GET, POST, DELETE]
    serve: uppy
    allow: [{id: user, who: [users]}]
    object: {key: "users/${auth.uid}/${uuid}${ext}", max_bytes: 20MiB, method: PUT}
  - id: writers
    path: /writers/s3/{op...}
    methods: [GET, POST, DELETE]
    serve: uppy
    allow: [{id: writer, who: [users], roles: [writer]}]
    object: {key: "users/${auth.uid}/${uuid}${ext}"}
`

// A uppyGate is a gate whose policy serves Uppy.
type uppyGate struct {
	*gate
	store  *fakeStore
	bucket *fakeBucket
}

func newUppyGate(t *testing.T) *uppyGate {
	store, bucket, uploads := withUploads()
	return &uppyGate{newGate(t, "http://127.0.0.1:1", uploads, func(o *Options) { o.Policy = loadPolicy(t, uppyPolicy) }), store, bucket}
}

// call sends METHOD target with a body, below /uppy/s3 where the target is no
// path of its own.
func (g *uppyGate) call(token, call, body string) answer {
	g.t.Helper()
	method, target, _ := strings.Cut(call, " ")
	if !strings.HasPrefix(target, "/") {
		target = "/uppy/s3/" + target
	}
	var lines []string
	if body != "" {
		lines = []string{"Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body))}
	}
	return g.raw(request(method, target, token, lines...) + body)
}

// done is what a call that is allowed answers, read into the value; no client
// reads an empty answer, and one with a member `error` is a failure to it.
func (g *uppyGate) done(token, call, body string, into any) string {
	g.t.Helper()
	a := g.call(token, call, body)
	g.own(a, 200)
	g.outcome()
	var loose any
	if err := json.Unmarshal([]byte(a.body), &loose); err != nil || a.Header.Get("Content-Type") != "application/json" {
		g.t.Fatalf("%s: %v: %s", call, err, a.body)
	}
	if members, ok := loose.(map[string]any); ok && members["error"] != nil {
		g.t.Errorf("%s: %s", call, a.body)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(a.body), into); err != nil {
			g.t.Fatal(err)
		}
	}
	return a.body
}

// refused holds that a call is refused, in the shape that both RFC 9457 and
// Uppy's clients have.
func (g *uppyGate) refused(token, call, body string, status int, code string) {
	g.t.Helper()
	signed := g.bucket.signed
	a := g.call(token, call, body)
	g.checkRefusal(a, status, code)
	var got struct {
		Detail, Message, RequestID string
		Error                      struct{ Code string }
		Record                     string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || got.Message != got.Detail || got.Message == "" || got.Error.Code != code || got.RequestID != got.Record {
		g.t.Errorf("%s: %v: %s", call, err, a.body)
	}
	if g.bucket.signed != signed {
		g.t.Errorf("%s is refused, and something was signed", call)
	}
}

// begun is a multipart upload of alice's.
type begun struct{ Key, UploadID, Bucket string }

// query is that of the calls of Companion.
func (b begun) query() string { return "?" + url.Values{"key": {b.Key}}.Encode() }

func (g *uppyGate) begin(token string) (b begun) {
	g.t.Helper()
	g.done(token, "POST multipart", `{"filename":"a.png","type":"image/png","metadata":{"name":"a.png"}}`, &b)
	return b
}

func TestUppyWholeFile(t *testing.T) {
	g := newUppyGate(t)
	body := g.done("alice", "GET params?filename=a.png&type=image%2Fpng&metadata%5Bname%5D=%C3%BC.png&metadata%5Btype%5D=image%2Fpng", "", nil)
	want := `{"method":"POST","url":"https://bucket.test/","fields":{"Content-Type":"image/png","key":"users/alice/ID.png","x-amz-signature":"secret"},"expires":900,"key":"users/alice/ID.png"}`
	if shape(body) != want {
		t.Errorf("%s", body)
	}
	put := g.bucket.puts[0]
	if len(put.Metadata) != 1 || put.Metadata["name"] != upload.EncodeMetadata("ü.png") || put.MaxSize != 20<<20 || put.Size != -1 || !put.Form {
		t.Errorf("%+v", put)
	}
	o := g.decision().Object
	if o.Operation != opPost || o.Session == "" || o.Expires.IsZero() {
		t.Errorf("%+v", o)
	}
	if s := g.store.session(o.Session); !s.AutoConfirm || s.Route != "uppy" || s.UID != "alice" {
		t.Errorf("%+v", s)
	}
	// The page may say that it is there.
	confirm := "POST confirm?key=" + url.QueryEscape(o.Key)
	g.refused("alice", confirm, "", 409, codeNotUploaded)
	g.refused("bob", confirm, "", 404, codeNoSession)
	g.bucket.set(func(b *fakeBucket) { b.made[o.Key] = upload.Object{Size: 3, ContentType: "image/png", ETag: `"e"`} })
	if body := g.done("alice", confirm, "", nil); !strings.Contains(body, `"status":"ready"`) {
		t.Errorf("%s", body)
	}

	// A store without forms: a PUT, which can only be held to one size.
	g.refused("alice", "GET /put/s3/params?filename=a.png&type=image/png", "", 422, codeInvalidField)
	body = g.done("alice", "GET /put/s3/params?filename=a.png&type=image/png&size=3", "", nil)
	want = `{"method":"PUT","url":"https://bucket.test/users/alice/ID.png?method=PUT\u0026a=1\u0026X-Amz-Signature=secret","fields":{},"headers":{"Content-Type":"image/png","If-None-Match":"*"},"expires":900,"key":"users/alice/ID.png"}`
	if shape(body) != strings.ReplaceAll(want, `\u0026`, "&") {
		t.Errorf("%s", body)
	}
}

func TestUppyMultipart(t *testing.T) {
	g := newUppyGate(t)
	b := g.begin("alice")
	if b.Bucket != "default" || !strings.HasPrefix(b.Key, "users/alice/") || g.store.session(b.UploadID).Status != upload.Uploading {
		t.Fatalf("%+v", b)
	}
	at, q := "multipart/"+b.UploadID, b.query()
	if body := g.done("alice", "GET "+at+q, "", nil); body != "[]\n" {
		t.Errorf("%q", body)
	}
	var one struct {
		URL     string
		Expires int64
		Headers map[string]string
	}
	g.done("alice", "GET "+at+"/10000"+q, "", &one)
	if !strings.Contains(one.URL, "partNumber=10000") || !strings.Contains(one.URL, "uploadId=upload-1") || one.Expires != 900 || one.Headers != nil {
		t.Errorf("%+v", one)
	}
	if o := g.decision().Object; o.Operation != opMultipartSign || o.Parts != "10000" || o.Key != b.Key || o.Session != b.UploadID || o.Expires.IsZero() {
		t.Errorf("%+v", o)
	}
	var batch struct{ PresignedURLs map[string]string }
	g.done("alice", "GET "+at+"/batch"+q+"&partNumbers=4,5,7", "", &batch)
	if len(batch.PresignedURLs) != 3 || !strings.Contains(batch.PresignedURLs["7"], "partNumber=7") || g.decision().Object.Parts != "4-5,7" {
		t.Errorf("%+v", batch)
	}
	for n := range 2 {
		g.bucket.send("upload-1", n+1, 5<<20)
	}
	if body := g.done("alice", "GET "+at+q, "", nil); body != `[{"PartNumber":1,"ETag":"\"part-1\"","Size":5242880},{"PartNumber":2,"ETag":"\"part-2\"","Size":5242880}]`+"\n" {
		t.Errorf("%s", body)
	}
	g.refused("alice", "POST "+at+"/complete"+q, `{"parts":[{"PartNumber":1,"ETag":"part-1"}]}`, 422, codeMismatch)
	for _, quote := range []string{"", `\"`} { // version 6 leaves the quotes out; and asking again is no fault
		var done struct{ Location, Key, Bucket string }
		g.done("alice", "POST "+at+"/complete"+q, strings.ReplaceAll(`{"parts":[{"ETag":"Qpart-2Q","PartNumber":2},{"PartNumber":1,"ETag":"Qpart-1Q"}]}`, "Q", quote), &done)
		if done.Location != "https://bucket.test/"+b.Key || done.Key != b.Key || done.Bucket != "default" {
			t.Errorf("%+v", done)
		}
	}
	if s := g.store.session(b.UploadID); s.Status != upload.Ready || s.Size != 10<<20 {
		t.Errorf("%+v", s)
	}
	g.refused("alice", "GET "+at+"/3"+q, "", 409, codeState)

	c := g.begin("alice")
	for range 2 {
		if body := g.done("alice", "DELETE multipart/"+c.UploadID+c.query(), "", nil); body != "{}\n" {
			t.Errorf("%q", body)
		}
	}
	if s := g.store.session(c.UploadID); s.Status != upload.Aborted || len(g.bucket.of) != 0 {
		t.Errorf("%+v %v", s, g.bucket.of)
	}
	if strings.Contains(g.log.String(), "secret") {
		t.Error("a signature is in the log")
	}
}

// TestUppySignRequest is version 6 with a callback: the client talks to the store
// itself, and each of its calls is signed here.
func TestUppySignRequest(t *testing.T) {
	g := newUppyGate(t)
	sign := func(request string) (out struct {
		URL, Key string
		Fields   map[string]string
	}) {
		t.Helper()
		g.done("alice", "POST sign", request, &out)
		return out
	}
	if put := sign(`{"method":"PUT","key":"mine.png","contentType":"image/png"}`); put.Fields["key"] != put.Key || !strings.HasPrefix(put.Key, "users/alice/") {
		t.Errorf("%+v", put)
	}
	created := sign(`{"method":"POST","key":"../../users/bob/x","contentType":"image/png"}`)
	if !strings.HasPrefix(created.Key, "users/alice/") || !strings.Contains(created.URL, created.Key) {
		t.Fatalf("%+v", created)
	}
	session := g.decision().Object.Session
	of := func(method, id, more string) string {
		return fmt.Sprintf(`{"method":%q,"key":%q,"uploadId":%q%s}`, method, created.Key, id, more)
	}
	// Nothing was opened yet, whatever the client says.
	g.refused("alice", "POST sign", of("PUT", "upload-9", `,"partNumber":1`), 404, codeNoSession)
	id, err := g.bucket.CreateMultipart(t.Context(), upload.Put{Key: created.Key})
	if err != nil {
		t.Fatal(err)
	}
	part := sign(of("PUT", id, `,"partNumber":1,"expiresIn":60`))
	if !strings.Contains(part.URL, "partNumber=1") || !strings.Contains(part.URL, created.Key) || part.Key != "" || g.decision().Object.Parts != "1" {
		t.Errorf("%+v", part)
	}
	if s := g.store.session(session); s.Status != upload.Uploading || s.UploadID != id {
		t.Errorf("%+v", s)
	}
	g.refused("alice", "POST sign", of("PUT", id, `,"partNumber":1,"expiresIn":604800`), 422, codeInvalidField)
	sign(of("GET", id, ""))
	g.bucket.send(id, 1, 5<<20)
	sign(of("POST", id, ""))
	g.bucket.send(id, 2, 20<<20) // more than max_bytes
	g.refused("alice", "POST sign", of("POST", id, ""), 422, codeMismatch)
	if s := g.store.session(session); s.Status != upload.Rejected || len(g.bucket.of) != 0 {
		t.Errorf("%+v %v", s, g.bucket.of)
	}

	created = sign(`{"method":"POST","key":"x"}`)
	if id, err = g.bucket.CreateMultipart(t.Context(), upload.Put{Key: created.Key}); err != nil {
		t.Fatal(err)
	}
	session = g.store.find(created.Key)
	for range 2 { // an answer may be lost
		if aborted := sign(of("DELETE", id, "")); aborted.URL == "" || g.store.session(session).Status != upload.Aborted || len(g.bucket.of) != 0 {
			t.Errorf("%+v: %+v", aborted, g.store.session(session))
		}
	}
	g.refused("alice", "POST sign", of("PUT", id, `,"partNumber":1`), 409, codeState)
}

// TestUppySignRequestOutgrown: between the look at the parts and the client's own
// completion nobody stands. What came of it is found, and is not ready; and a
// guard closes the way.
func TestUppySignRequestOutgrown(t *testing.T) {
	g := newUppyGate(t)
	var created struct{ Key string }
	g.done("alice", "POST sign", `{"method":"POST","key":"x","contentType":"image/png"}`, &created)
	id, err := g.bucket.CreateMultipart(t.Context(), upload.Put{Key: created.Key})
	if err != nil {
		t.Fatal(err)
	}
	call := fmt.Sprintf(`{"method":"POST","key":%q,"uploadId":%q}`, created.Key, id)
	g.bucket.send(id, 1, 5<<20)
	g.done("alice", "POST sign", call, nil)
	larger := g.bucket.send(id, 2, 20<<20)
	if err := g.bucket.CompleteMultipart(t.Context(), upload.Put{Key: created.Key, ContentType: "image/png"}, id, []upload.Part{{Number: 1, Size: 5 << 20, ETag: "part-1"}, larger}); err != nil {
		t.Fatal(err)
	}
	g.refused("alice", "POST confirm?key="+url.QueryEscape(created.Key), "", 422, codeMismatch)
	if s := g.store.session(g.store.find(created.Key)); s.Status != upload.Rejected {
		t.Errorf("%+v", s)
	}

	closed := strings.Replace(uppyPolicy, "routes:\n", "guards:\n  - {id: companion-only, path: /uppy/s3/sign, deny: {who: [users]}}\nroutes:\n", 1)
	_, bucket, uploads := withUploads()
	g = &uppyGate{newGate(t, "http://127.0.0.1:1", uploads, func(o *Options) { o.Policy = loadPolicy(t, closed) }), nil, bucket}
	g.refused("alice", "POST sign", `{"method":"POST","key":"x","contentType":"image/png"}`, 403, codeNotAllowed)
	g.begin("alice")
}

func (s *fakeStore) find(key string) string {
	one, err := s.Find(context.Background(), "users", "alice", key)
	if err != nil {
		return ""
	}
	return one.ID
}

// TestCompanionSignsAnyKey: Companion signs whatever key and uploadId it is asked
// about (transloadit/uppy, controllers/s3): who knows one can write to it, list
// it, complete and abort it.
func TestCompanionSignsAnyKey(t *testing.T) {
	g := newUppyGate(t)
	b, other := g.begin("alice"), g.begin("alice")
	g.bucket.send("upload-1", 1, 5<<20)
	complete := `{"parts":[{"PartNumber":1,"ETag":"part-1"}]}`
	calls := func(id, query string) []string {
		return []string{"GET multipart/" + id + query, "GET multipart/" + id + "/1" + query, "GET multipart/" + id + "/batch" + query + "&partNumbers=1",
			"POST multipart/" + id + "/complete" + query, "DELETE multipart/" + id + query}
	}
	body := func(call string) string {
		if strings.HasPrefix(call, "POST") {
			return complete
		}
		return ""
	}
	for _, c := range map[string]struct{ token, id, query, path string }{
		"another's uploadId":             {"bob", b.UploadID, b.query(), ""},
		"another key":                    {"alice", b.UploadID, "?key=users/bob/x", ""},
		"another upload's key":           {"alice", b.UploadID, other.query(), ""},
		"a key with dots":                {"alice", b.UploadID, "?key=" + b.Key + "/../../bob/x", ""},
		"the store's own id":             {"alice", "upload-1", b.query(), ""},
		"no such upload":                 {"alice", strings.Repeat("0", 32), b.query(), ""},
		"an upload of the other route's": {"alice", b.UploadID, b.query(), "/put/s3/"},
	} {
		for _, call := range calls(c.id, c.query) {
			if c.path != "" {
				call = strings.Replace(call, " ", " "+c.path, 1)
			}
			g.refused(c.token, call, body(call), 404, codeNoSession)
		}
	}
	for _, call := range calls(b.UploadID, b.query()) {
		g.refused("", call, body(call), 401, codeNoToken)
		g.refused("bob", strings.Replace(call, " ", " /writers/s3/", 1), body(call), 403, codeNotAllowed)
	}
	if len(g.bucket.of) != 2 || g.store.session(b.UploadID).Status != upload.Uploading {
		t.Errorf("%v %+v", g.bucket.of, g.store.session(b.UploadID))
	}
}

// TestSignRequestSignsAnyKey: what is usually written for signRequest signs the
// key that the browser proposes.
func TestSignRequestSignsAnyKey(t *testing.T) {
	g := newUppyGate(t)
	b := g.begin("alice")
	sign := func(method, key, id, more string) string {
		return fmt.Sprintf(`{"method":%q,"key":%q,"uploadId":%q%s}`, method, key, id, more)
	}
	for _, c := range map[string]struct{ token, key, id string }{
		"another's key":        {"bob", b.Key, "upload-1"},
		"a key of nobody's":    {"alice", "users/bob/x", "upload-1"},
		"a key with dots":      {"alice", "users/alice/../bob/x", "upload-1"},
		"another upload's id":  {"alice", b.Key, "upload-2"},
		"our session as an id": {"alice", b.Key, b.UploadID},
	} {
		for _, request := range []string{sign("PUT", c.key, c.id, `,"partNumber":1`), sign("GET", c.key, c.id, ""), sign("POST", c.key, c.id, ""), sign("DELETE", c.key, c.id, "")} {
			g.refused(c.token, "POST sign", request, 404, codeNoSession)
		}
	}
	// Objects are deleted, and read, at other routes.
	g.refused("alice", "POST sign", fmt.Sprintf(`{"method":"DELETE","key":%q}`, b.Key), 422, codeInvalidField)
	g.refused("alice", "POST sign", `{"method":"DELETE","key":"users/bob/x"}`, 422, codeInvalidField)
	g.refused("alice", "POST sign", fmt.Sprintf(`{"method":"GET","key":%q}`, b.Key), 422, codeInvalidField)
	if len(g.bucket.gone) != 0 || g.store.session(b.UploadID).Status != upload.Uploading {
		t.Errorf("%v %+v", g.bucket.gone, g.store.session(b.UploadID))
	}
}

func TestUppyRefusals(t *testing.T) {
	g := newUppyGate(t)
	b := g.begin("alice")
	g.refused("alice", "GET sts", "", 400, codeBadRequest)
	g.refused("", "GET sts", "", 401, codeNoToken)
	if g.decision().Object != nil {
		t.Errorf("%+v", g.decision().Object)
	}
	g.refused("alice", "GET multipart/"+b.UploadID+"/10001"+b.query(), "", 422, codeInvalidField)
	g.refused("alice", "GET params?filename=a.html&type=text/html", "", 415, codeUnsupportedType)
	g.refused("alice", "POST multipart", `{"filename":"a.html","type":"text/html"}`, 415, codeUnsupportedType)
	g.refused("alice", "POST sign", `{"method":"PUT","key":"a","contentType":"text/html"}`, 415, codeUnsupportedType)
	g.refused("alice", "POST multipart", `{"filename":"a.png","type":"image/png","size":20971521}`, 413, codeTooLarge)
	g.refused("alice", "GET unknown", "", 404, codeNoRoute)
	g.refused("alice", "POST params", "", 405, codeMethod)
	g.refused("alice", "POST confirm?key=users/alice/none", "", 404, codeNoSession)
	// Neither yes nor no.
	g.store.set(func(s *fakeStore) { s.before = errors.New("away") })
	g.refused("alice", "GET params?filename=a.png&type=image/png", "", 503, codeUnavailable)
	g.refused("alice", "GET multipart/"+b.UploadID+"/1"+b.query(), "", 503, codeUnavailable)
	g.refused("alice", "POST confirm?key=x", "", 503, codeUnavailable)
	g.store.set(func(s *fakeStore) { s.before = nil })
	for _, call := range []string{"sign_put", "create_multipart", "list_parts", "sign_multipart", "head", "open_multiparts"} {
		g.bucket.fail[call] = upload.ErrUnavailable
	}
	g.refused("alice", "GET params?filename=a.png&type=image/png", "", 503, codeUnavailable)
	g.refused("alice", "POST multipart", `{"filename":"a.png","type":"image/png"}`, 503, codeUnavailable)
	g.refused("alice", "GET multipart/"+b.UploadID+b.query(), "", 503, codeUnavailable)
	g.refused("alice", "GET multipart/"+b.UploadID+"/1"+b.query(), "", 503, codeUnavailable)
	g.refused("alice", "POST multipart/"+b.UploadID+"/complete"+b.query(), `{"parts":[{"PartNumber":1,"ETag":"e"}]}`, 503, codeUnavailable)
	g.refused("alice", "DELETE multipart/"+b.UploadID+b.query(), "", 503, codeUnavailable)
}
