package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sidegate/storage/upload"
)

// servedPolicy has every served route at the path that configs/openapi.yaml
// describes.
func servedPolicy(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "examples", "presign-gateway", "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A served is a gateway that serves, and what it stands on.
type served struct {
	*gate
	store    *fakeStore
	bucket   *fakeBucket
	contract *contract // what the answers are held against
}

// newServed starts a gateway with every served route. change rewrites the policy,
// in pairs of old and new.
func newServed(t testing.TB, change ...string) *served {
	t.Helper()
	return newServedBy(t, func(*Options) {}, change...)
}

func newServedBy(t testing.TB, options func(*Options), change ...string) *served {
	t.Helper()
	store, bucket, uploads := withUploads()
	text := servedPolicy(t)
	for i := 0; i+1 < len(change); i += 2 {
		if !strings.Contains(text, change[i]) {
			t.Fatalf("the policy has no %q", change[i])
		}
		text = strings.ReplaceAll(text, change[i], change[i+1])
	}
	g := newGate(t, "http://127.0.0.1:1", uploads, func(o *Options) { o.Policy = loadPolicy(t, text) }, options)
	return &served{g, store, bucket, readContract(t)}
}

// call sends a request with a JSON body, where there is one, and holds request and
// answer against the contract.
func (s *served) call(method, target, token, body string, lines ...string) answer {
	s.t.Helper()
	if body != "" {
		lines = append(lines, "Content-Type: application/json", fmt.Sprint("Content-Length: ", len(body)))
	}
	a := s.raw(request(method, target, token, lines...) + body)
	if a.err != nil {
		s.t.Fatalf("%s %s: %v", method, target, a.err)
	}
	s.contract.check(s.t, method, target, body, a)
	return a
}

// ok is call where it must succeed.
func (s *served) ok(to any, method, target, token, body string, lines ...string) answer {
	s.t.Helper()
	a := s.call(method, target, token, body, lines...)
	if a.StatusCode/100 != 2 {
		s.t.Fatalf("%s %s: %d %s", method, target, a.StatusCode, a.body)
	}
	s.outcome()
	if to != nil {
		if err := json.Unmarshal([]byte(a.body), to); err != nil {
			s.t.Fatalf("%s %s: %v: %s", method, target, err, a.body)
		}
	}
	return a
}

// refused is call where it must be refused.
func (s *served) refused(status int, code, method, target, token, body string, lines ...string) answer {
	s.t.Helper()
	signed := s.bucket.signed
	a := s.call(method, target, token, body, lines...)
	s.checkRefusal(a, status, code)
	if s.bucket.signed != signed && code != codeUnavailable {
		s.t.Errorf("%s %s: %d, and something was signed", method, target, status)
	}
	return a
}

// begin begins an upload in parts.
func (s *served) begin(token string) (session string) {
	s.t.Helper()
	var begun struct{ Session string }
	s.ok(&begun, "POST", "/v1/multipart", token, `{"contentType": "image/png", "size": 12582912}`)
	return begun.Session
}

func fieldOf(a answer) string {
	var p struct{ Field string }
	json.Unmarshal([]byte(a.body), &p)
	return p.Field
}

// TestForm is a form's answer: what the page must send, and nothing about a PUT.
func TestForm(t *testing.T) {
	s := newServed(t)
	a := s.ok(nil, "POST", "/v1/uploads/form", "alice", `{"contentType": "image/png"}`)
	want := `{"key":"users/alice/uploads/ID.png","postUrl":"https://bucket.test/","expiresSeconds":900,"session":"ID","method":"POST","headers":{},"fields":{"Content-Type":"image/png","key":"users/alice/uploads/ID.png","x-amz-signature":"secret"},"expiresAt":"TIME"}`
	if shape(a.body) != want {
		t.Errorf("%s", a.body)
	}
	if o := s.decision().Object; o.Operation != opPost || o.Size != -1 {
		t.Errorf("%+v", o)
	}
	if p := s.bucket.puts[0]; !p.Form || p.MaxSize != 25<<20 || p.Size != -1 {
		t.Errorf("%+v", p)
	}
}

// TestMetadata is taken by the names that the policy has, and as headers carry it.
func TestMetadata(t *testing.T) {
	s := newServed(t)
	const path = "/v1/uploads/presign"
	s.ok(nil, "POST", path, "alice", `{"contentType": "image/png", "size": 1, "metadata": {"title": "Ein schöner  Tag"}}`)
	if m := s.bucket.puts[0].Metadata["title"]; !strings.HasPrefix(m, "=?UTF-8?B?") || !visibleASCII(strings.ReplaceAll(m, " ", "")) {
		t.Errorf("%q", m)
	}
	for _, metadata := range []string{`{"other": "x"}`, `{"Title": "x"}`, `{"title": "a\r\nx-amz-acl: public-read"}`, `{"title": "` + strings.Repeat("x", 2048) + `"}`, `{"title": "` + strings.Repeat("ü", 1000) + `"}`} {
		a := s.refused(422, codeInvalidField, "POST", path, "alice", `{"contentType": "image/png", "size": 1, "metadata": `+metadata+`}`)
		if fieldOf(a) != "metadata" {
			t.Errorf("%s", a.body)
		}
	}
	for _, metadata := range []string{`{"title": {"a": "b"}}`, `["title"]`, `"title"`, `{"title": "a", "title": "b"}`} {
		s.refused(400, codeBadRequest, "POST", path, "alice", `{"contentType": "image/png", "size": 1, "metadata": `+metadata+`}`)
	}
	s.refused(422, codeInvalidField, "POST", path, "alice", `{"contentType": "image/png", "size": 1, "metadata": {"title": 1}}`)
}

// TestMultipart is the whole way of an upload in parts.
func TestMultipart(t *testing.T) {
	s := newServed(t)
	var begun struct {
		Session, Key, Status     string
		MinPartSize, MaxPartSize int64
		MaxParts                 int
	}
	s.ok(&begun, "POST", "/v1/multipart", "alice", `{"contentType": "image/png", "size": 12582912}`)
	if begun.Status != "uploading" || begun.MaxParts != 10_000 || begun.MinPartSize != 5<<20 || begun.MaxPartSize != 5<<30 || !strings.HasPrefix(begun.Key, "users/alice/uploads/") {
		t.Errorf("%+v", begun)
	}
	if o := s.decision().Object; o.Operation != opMultipartCreate || o.Session != begun.Session || o.Key != begun.Key {
		t.Errorf("%+v", o)
	}
	at := "/v1/multipart/" + begun.Session
	var signed struct {
		Parts []struct {
			PartNumber  int
			URL, Method string
			Headers     map[string]string
		}
		ExpiresSeconds int
	}
	s.ok(&signed, "POST", at+"/parts", "alice", `{"parts": [{"partNumber": 2, "size": 6291456}, {"partNumber": 1}, {"partNumber": 7}], "expiresSeconds": 60}`)
	if len(signed.Parts) != 3 || signed.Parts[0].PartNumber != 2 || !strings.Contains(signed.Parts[0].URL, "partNumber=2&") || len(signed.Parts[0].Headers) != 0 || signed.ExpiresSeconds != 60 {
		t.Errorf("%+v", signed)
	}
	if o := s.decision().Object; o.Operation != opMultipartSign || o.Parts != "1-2,7" || o.Key != begun.Key || o.Expires.IsZero() || o.Session != begun.Session {
		t.Errorf("%+v", o)
	}
	id := s.store.session(begun.Session).UploadID
	one, two := s.bucket.send(id, 1, 6291456), s.bucket.send(id, 2, 6291456)
	if a := s.ok(nil, "GET", at+"/parts", "alice", ""); a.body != `{"parts":[{"partNumber":1,"size":6291456,"etag":"\"part-1\""},{"partNumber":2,"size":6291456,"etag":"\"part-2\""}]}`+"\n" {
		t.Errorf("%s", a.body)
	}
	if a := s.refused(422, codeMismatch, "POST", at+"/complete", "alice", `{"parts": [{"partNumber": 1, "etag": "\"other\""}, {"partNumber": 2, "etag": "\"part-2\""}]}`); fieldOf(a) != "parts" {
		t.Errorf("%s", a.body)
	}
	for _, body := range []string{fmt.Sprintf(`{"parts": [{"partNumber": 2, "etag": %q}, {"partNumber": 1, "etag": %q}]}`, strings.Trim(two.ETag, `"`), one.ETag), ""} { // and again
		a := s.ok(nil, "POST", at+"/complete", "alice", body)
		want := `{"key":"users/alice/uploads/ID.png","status":"ready","size":12582912,"contentType":"image/png","etag":"\"whole-2\""}`
		if shape(a.body) != want {
			t.Errorf("%s", a.body)
		}
	}
	s.refused(409, codeState, "POST", at+"/parts", "alice", `{"parts": [{"partNumber": 1}]}`)
	s.refused(409, codeState, "DELETE", at, "alice", "")

	at = "/v1/multipart/" + s.begin("alice")
	for range 2 { // idempotent
		if a := s.ok(nil, "DELETE", at, "alice", ""); a.StatusCode != 204 || a.body != "" {
			t.Errorf("%+v", a.Response)
		}
	}
	if o := s.decision().Object; o.Operation != opMultipartAbort || len(s.bucket.of) != 0 {
		t.Errorf("%+v, open: %v", o, s.bucket.of)
	}
	s.refused(409, codeState, "POST", at+"/complete", "alice", "")
}

// TestPartChecksums: of an upload that began with them, each part comes with its
// own, from its URL to the list; of another, none does.
func TestPartChecksums(t *testing.T) {
	s := newServed(t)
	var begun struct{ Session string }
	s.ok(&begun, "POST", "/v1/multipart", "alice", `{"contentType": "image/png", "size": 12582912, "partChecksums": "sha256"}`)
	id := s.store.session(begun.Session).UploadID
	if put := s.bucket.puts[len(s.bucket.puts)-1]; !put.PartChecksums {
		t.Errorf("%+v", put)
	}
	at := "/v1/multipart/" + begun.Session
	a := s.refused(422, codeInvalidField, "POST", at+"/parts", "alice", `{"parts": [{"partNumber": 3, "checksumSha256": "`+sum+`"}, {"partNumber": 7}]}`)
	if fieldOf(a) != "parts[1].checksumSha256" || !strings.Contains(a.body, "part 7 ") {
		t.Errorf("%s", a.body)
	}
	if e := s.decision(); e.Decision.Effect == "allow" || e.Object.Operation != opMultipartSign {
		t.Errorf("%+v", e.Decision)
	}
	var signed struct {
		Parts []struct{ Headers map[string]string }
	}
	s.ok(&signed, "POST", at+"/parts", "alice", `{"parts": [{"partNumber": 1, "checksumSha256": "`+sum+`"}]}`)
	if len(signed.Parts) != 1 || signed.Parts[0].Headers["X-Amz-Checksum-Sha256"] != sum {
		t.Errorf("%+v", signed)
	}
	if a := s.ok(nil, "GET", "/v1/uploads/"+begun.Session, "alice", ""); !strings.Contains(a.body, `"partChecksums":"sha256"`) {
		t.Errorf("%s", a.body)
	}

	s.bucket.send(id, 1, 12582912)
	if a := s.refused(422, codeMismatch, "POST", at+"/complete", "alice", ""); fieldOf(a) != "parts" {
		t.Errorf("made of a part whose checksum the store does not say: %s", a.body)
	}
	s.bucket.set(func(b *fakeBucket) { b.parts[id][0].Checksum = sum })
	if a := s.ok(nil, "GET", at+"/parts", "alice", ""); !strings.Contains(a.body, `"checksumSha256":"`+sum+`"`) {
		t.Errorf("%s", a.body)
	}
	s.ok(nil, "POST", at+"/complete", "alice", "")

	a = s.refused(422, codeInvalidField, "POST", "/v1/multipart/"+s.begin("alice")+"/parts", "alice", `{"parts": [{"partNumber": 5, "checksumSha256": "`+sum+`"}]}`)
	if fieldOf(a) != "parts[0].checksumSha256" || !strings.Contains(a.body, "part 5 ") {
		t.Errorf("%s", a.body)
	}
	for _, path := range []string{"/v1/multipart", "/v1/uploads/presign"} {
		a := s.refused(422, codeInvalidField, "POST", path, "alice", `{"contentType": "image/png", "size": 3, "partChecksums": "md5"}`)
		if fieldOf(a) != "partChecksums" {
			t.Errorf("%s: %s", path, a.body)
		}
	}
}

// TestMultipartTooLarge: what came in parts is more than was said: it is given up.
func TestMultipartTooLarge(t *testing.T) {
	s := newServed(t)
	session := s.begin("alice")
	id := s.store.session(session).UploadID
	s.bucket.send(id, 1, 12582913)
	a := s.refused(422, codeMismatch, "POST", "/v1/multipart/"+session+"/complete", "alice", "")
	if fieldOf(a) != "size" || s.store.session(session).Status != upload.Rejected || len(s.bucket.of) != 0 {
		t.Errorf("%s, %+v, open: %v", a.body, s.store.session(session), s.bucket.of)
	}
}

// TestMultipartRequests: everything that is not exactly what is read.
func TestMultipartRequests(t *testing.T) {
	s := newServed(t)
	at := "/v1/multipart/" + s.begin("alice")
	for body, field := range map[string]string{
		`{"parts": []}`:                      "parts",
		`{}`:                                 "parts",
		`{"parts": {}}`:                      "parts",
		`{"parts": [{}]}`:                    "parts[0].partNumber",
		`{"parts": [{"partNumber": 0}]}`:     "parts[0].partNumber",
		`{"parts": [{"partNumber": 10001}]}`: "parts[0].partNumber",
		`{"parts": [{"partNumber": 1.0}]}`:   "parts[0].partNumber",
		`{"parts": [{"partNumber": "1"}]}`:   "parts[0].partNumber",
		`{"parts": [{"partNumber": 1}, {"partNumber": 1}]}`:                                 "parts[1].partNumber",
		`{"parts": [{"partNumber": 1, "size": -1}]}`:                                        "parts[0].size",
		`{"parts": [{"partNumber": 1, "size": 5368709121}]}`:                                "parts[0].size",
		`{"parts": [{"partNumber": 1, "checksumSha256": "x"}]}`:                             "parts[0].checksumSha256",
		`{"parts": [{"partNumber": 1, "size": 0, "checksumSha256": "` + sum + `"}]}`:        "parts[0].checksumSha256",
		`{"parts": [{"partNumber": 1, "uploadId": "x"}]}`:                                   "parts[0].uploadId",
		`{"parts": [{"partNumber": 1}], "key": "users/bob/x"}`:                              "key",
		`{"parts": [{"partNumber": 1}], "expiresSeconds": 59}`:                              "expiresSeconds",
		`{"parts": [{"partNumber": 1}], "expiresSeconds": 3601}`:                            "expiresSeconds",
		`{"parts": [` + strings.Repeat(`{"partNumber": 1},`, 1) + manyParts(2, 1001) + `]}`: "parts",
	} {
		if a := s.refused(422, codeInvalidField, "POST", at+"/parts", "alice", body); fieldOf(a) != field {
			t.Errorf("%.80s: %s", body, a.body)
		}
	}
	if a := s.refused(413, codeTooLarge, "POST", at+"/parts", "alice", `{"parts": [{"partNumber": 1, "size": 12582912}, {"partNumber": 2, "size": 1}]}`); fieldOf(a) != "size" {
		t.Errorf("%s", a.body)
	}
	s.refused(413, codeTooLarge, "POST", at+"/parts", "alice", `{"parts": [{"partNumber": 1}]`+strings.Repeat(" ", maxBatchRequest))
	for _, body := range []string{`{`, `[]`, `{"parts": [{"partNumber": 1}]} x`, `{"parts": [{"partNumber": 1, "partNumber": 1}]}`, `{"parts": [[1]]}`, `{"parts": [{"partNumber": {}}]}`, `{"parts": [{"partNumber": 1}`, "{\"parts\": [{\"partNumber\": 1}], \"\xff\": 1}"} {
		s.refused(400, codeBadRequest, "POST", at+"/parts", "alice", body)
	}
	for body, field := range map[string]string{
		`{"parts": []}`: "parts", `{"parts": [{"partNumber": 1}]}`: "parts[0].etag", `{"parts": [{"etag": "x"}]}`: "parts[0].partNumber",
		`{"parts": [{"partNumber": 1, "etag": "a"}, {"partNumber": 1, "etag": "b"}]}`: "parts[1].partNumber",
		`{"parts": [{"partNumber": 1, "etag": "a b"}]}`:                               "parts[0].etag",
		`{"parts": [{"partNumber": 1, "etag": "` + strings.Repeat("x", 257) + `"}]}`:  "parts[0].etag",
		`{"uploadId": "x"}`: "uploadId",
	} {
		if a := s.refused(422, codeInvalidField, "POST", at+"/complete", "alice", body); fieldOf(a) != field {
			t.Errorf("%.80s: %s", body, a.body)
		}
	}
	s.refused(413, codeTooLarge, "POST", at+"/complete", "alice", strings.Repeat(" ", maxPartsComplete+1))
	for _, c := range []struct{ method, path, allow string }{
		{"GET", "", "POST"}, {"DELETE", "", "POST"}, {"POST", "/x", "DELETE"}, {"GET", "/x", "DELETE"},
		{"DELETE", "/x/parts", "GET, HEAD, POST"}, {"GET", "/x/complete", "POST"}, {"DELETE", "/x/complete", "POST"},
	} {
		a := s.raw(request(c.method, "/v1/multipart"+c.path, "alice"))
		s.checkRefusal(a, 405, codeMethod)
		if a.Header.Get("Allow") != c.allow {
			t.Errorf("%s %s: Allow: %s", c.method, c.path, a.Header.Get("Allow"))
		}
	}
	for _, path := range []string{"/x/parts/1", "/x/y", "/x/complete/y", "/x/Parts"} {
		s.checkRefusal(s.raw(request("POST", "/v1/multipart"+path, "alice")), 404, codeNoRoute)
	}
	s.refused(422, codeInvalidField, "GET", at+"/parts?key=users/bob/x", "alice", "")
}

func manyParts(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		if i > from {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"partNumber": %d}`, i)
	}
	return b.String()
}

// TestOwnUploads are told to their owner, and to nobody else.
func TestOwnUploads(t *testing.T) {
	s := newServed(t)
	var one struct{ Session string }
	s.ok(&one, "POST", "/v1/uploads/presign", "alice", `{"contentType": "image/png", "size": 3, "checksumSha256": "`+sum+`"}`)
	a := s.ok(nil, "GET", "/v1/uploads/"+one.Session, "alice", "")
	want := `{"session":"ID","key":"users/alice/uploads/ID.png","status":"issued","contentType":"image/png","size":3,"checksumSha256":"` + sum + `","createdAt":"TIME","expiresAt":"TIME","confirmBy":"TIME"}`
	if shape(a.body) != want {
		t.Errorf("%s", a.body)
	}
	if o := s.decision().Object; o.Operation != opGetUpload || o.Session != one.Session {
		t.Errorf("%+v", o)
	}
	s.refused(404, codeNoSession, "GET", "/v1/uploads/"+one.Session, "bob", "")
	s.refused(404, codeNoSession, "GET", "/v1/uploads/"+upload.NewID(), "alice", "")
	s.refused(404, codeNoSession, "GET", "/v1/uploads/x", "alice", "")
	s.refused(422, codeInvalidField, "GET", "/v1/uploads/"+one.Session+"?uid=bob", "alice", "")
	for range 4 {
		s.ok(nil, "POST", "/v1/uploads/presign", "alice", `{"contentType": "image/png", "size": 3}`)
	}
	s.begin("bob")
	seen, token := map[string]bool{}, ""
	for range 3 {
		var page struct {
			Uploads       []struct{ Session, Key string }
			NextPageToken string
		}
		s.ok(&page, "GET", "/v1/uploads?pageSize=2&pageToken="+token, "alice", "")
		for _, u := range page.Uploads {
			if seen[u.Session] || !strings.HasPrefix(u.Key, "users/alice/") {
				t.Errorf("%+v", u)
			}
			seen[u.Session] = true
		}
		token = page.NextPageToken
	}
	if len(seen) != 5 || token != "" {
		t.Errorf("%d uploads, then %q", len(seen), token)
	}
	for query, field := range map[string]string{"pageSize=0": "pageSize", "pageSize=101": "pageSize", "pageSize=x": "pageSize", "pageSize=1&pageSize=1": "pageSize", "uid=bob": "uid", "pageToken=x": "pageToken", "pageToken=" + strings.Repeat("x", 4097): "pageToken"} {
		if a := s.refused(422, codeInvalidField, "GET", "/v1/uploads?"+query, "alice", ""); fieldOf(a) != field {
			t.Errorf("%s: %s", query, a.body)
		}
	}
}

// TestObjects are listed and deleted within the caller's own prefix.
func TestObjects(t *testing.T) {
	s := newServed(t)
	for _, key := range []string{"users/alice/a.png", "users/alice/b/c.png", "users/alice/d.png", "users/alicea/x", "users/bob/secret"} {
		s.bucket.made[key] = upload.Object{Size: 3, ETag: `"e"`, Modified: s.proxy.o.Now()}
	}
	list := func(query string) (keys []string, next string) {
		var page struct {
			Objects       []struct{ Key string }
			NextPageToken string
		}
		s.ok(&page, "GET", "/v1/files"+query, "alice", "")
		for _, o := range page.Objects {
			keys = append(keys, o.Key)
		}
		return keys, page.NextPageToken
	}
	if keys, next := list(""); strings.Join(keys, " ") != "users/alice/a.png users/alice/b/c.png users/alice/d.png" || next != "" {
		t.Errorf("%v %q", keys, next)
	}
	if keys, _ := list("?prefix=users/alice/b/"); strings.Join(keys, " ") != "users/alice/b/c.png" {
		t.Errorf("%v", keys)
	}
	if o := s.decision().Object; o.Operation != opList || o.Key != "users/alice/b/" {
		t.Errorf("%+v", o)
	}
	keys, next := list("?pageSize=2")
	more, last := list("?pageSize=2&pageToken=" + next)
	if strings.Join(append(keys, more...), " ") != "users/alice/a.png users/alice/b/c.png users/alice/d.png" || last != "" {
		t.Errorf("%v %v %q", keys, more, last)
	}
	for _, prefix := range []string{"users/", "users/bob/", "users/alicea/", "users/alice/../bob/", "users/alice/%2e%2e/bob/", "/", "users//", "users/alice//", "Users/alice/", "users/alice/%00/", "users/alice%2Fx/../../bob/"} {
		s.refused(403, codeNotAllowed, "GET", "/v1/files?prefix="+prefix, "alice", "")
	}
	for query, field := range map[string]string{"prefix=users/alice/a": "prefix", "prefix=users/alice/&prefix=users/bob/": "prefix", "delimiter=/": "delimiter", "pageSize=1001": "pageSize", "pageToken=users/bob/secret": "pageToken"} {
		if a := s.refused(422, codeInvalidField, "GET", "/v1/files?"+query, "alice", ""); fieldOf(a) != field {
			t.Errorf("%s: %s", query, a.body)
		}
	}

	if a := s.ok(nil, "DELETE", "/v1/files/users/alice/a.png", "alice", ""); a.StatusCode != 204 {
		t.Errorf("%+v", a.Response)
	}
	s.ok(nil, "DELETE", "/v1/files/users%2Falice%2Fd.png", "alice", "")
	if o := s.decision().Object; o.Operation != opDelete || o.Key != "users/alice/d.png" {
		t.Errorf("%+v", o)
	}
	s.refused(403, codeNotAllowed, "DELETE", "/v1/files/users/bob/secret", "alice", "")
	s.refused(422, codeInvalidField, "DELETE", "/v1/files/users/alice/b/c.png?versionId=1", "alice", "")
	s.refused(401, codeNoToken, "DELETE", "/v1/files/users/alice/b/c.png", "", "")
	if strings.Join(s.bucket.gone, " ") != "users/alice/a.png users/alice/d.png" {
		t.Errorf("%v", s.bucket.gone)
	}
}

// TestListOutsideThePrefix: a store that lists what was not asked for is broken,
// and tells nobody of others' keys.
func TestListOutsideThePrefix(t *testing.T) {
	s := newServed(t)
	s.bucket.made["users/bob/secret"] = upload.Object{}
	s.proxy.o.Uploads.Buckets["default"] = looseBucket{s.bucket}
	a := s.refused(503, codeUnavailable, "GET", "/v1/files", "alice", "")
	if strings.Contains(a.body, "bob") {
		t.Errorf("%s", a.body)
	}
}

// TestJudgeOfAnotherMethod: a route that takes a method, but not at this path below
// its own, was found; of a method that no route of the path has, theirs are told.
func TestJudgeOfAnotherMethod(t *testing.T) {
	s := newServed(t)
	for path, allowed := range map[string]bool{"/v1/multipart/" + upload.NewID() + "/complete": false, "/v1/uploads/presign": true} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer alice")
		j := s.proxy.Judge(r, Given{})
		if j.Status != http.StatusMethodNotAllowed || (len(j.Allowed) > 0) != allowed || (j.Input.Route == nil) != allowed {
			t.Errorf("%s: %d, methods %q, route %v", path, j.Status, j.Allowed, j.Input.Route)
		}
	}
}
