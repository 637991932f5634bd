package proxy

import (
	"errors"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sidegate/policy"
	"sidegate/storage/upload"
)

// TestOpenAPI: every operation of configs/openapi.yaml is there, answers with each
// of its statuses and all of its members, and with nothing else; what it says of
// codes is what the gateway says.
func TestOpenAPI(t *testing.T) {
	c := readContract(t)
	for _, scene := range []func(*testing.T){sceneOfSuccess, sceneOfRefusals, sceneOfEnds, sceneOfFaults, sceneOfUppy} {
		scene(t)
	}
	for _, missing := range c.uncovered() {
		t.Error(missing)
	}
	described := c.codes()
	for code, status := range problemStatuses(t) {
		if described[code] != "" && described[code] != status {
			t.Errorf("%s is %s, and %s in configs/openapi.yaml", code, status, described[code])
		}
	}
	// Of a presign route all but those of apps, and of what no path of it has.
	for code := range problemStatuses(t) {
		if described[code] == "" && !slices.Contains([]string{"no_route", "method", "upstream_failed", "upstream_timeout", "identity_not_representable"}, code) {
			t.Errorf("%s is not in configs/openapi.yaml", code)
		}
	}
	p := loadPolicy(t, servedPolicy(t))
	for _, at := range c.paths {
		path := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(at.template, "x")
		for method := range at.item {
			if m := p.Match("gateway.test", path, strings.ToUpper(method)); method != "parameters" && (m.Route == nil || m.Route.Serve == "") {
				t.Errorf("%s %s is no route of examples/presign-gateway/policy.yaml", method, path)
			}
		}
	}
	served := map[string]bool{}
	for _, route := range []string{policy.PresignUpload, policy.PresignUploads, policy.ConfirmUpload, policy.PresignDownload, policy.PresignDownloads, policy.Multipart, policy.Uppy, policy.DeleteObject, policy.ListObjects, policy.ListUploads, policy.GetUpload} {
		served[route] = strings.Contains(servedPolicy(t), "serve: "+route+"\n")
	}
	if slices.Contains(slices.Collect(maps.Values(served)), false) {
		t.Errorf("examples/presign-gateway/policy.yaml does not serve all: %v", served)
	}
}

// problemStatuses are those of docs/http.md.
func problemStatuses(t *testing.T) map[string]string {
	page, err := os.ReadFile("../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([345][0-9][0-9]) \\|").FindAllStringSubmatch(string(page), -1) {
		out[m[1]] = m[2]
	}
	return out
}

// sceneOfSuccess has all that can be answered to who may.
func sceneOfSuccess(t *testing.T) {
	s := newServed(t)
	s.bucket.object = upload.Object{Size: 3, ContentType: "image/png", ETag: `"e"`, VersionID: "v", Checksum: sum, Checksum64: "AAAAAAAAAAA="}
	for i := range 3 {
		s.bucket.made["users/alice/"+strings.Repeat("a", i+1)] = upload.Object{Size: 3, ETag: `"e"`, Modified: time.Now()}
	}
	full := `{"contentType": "image/png", "fileExt": "png", "size": 3, "checksumSha256": "` + sum + `", "checksumCrc64nvme": "AAAAAAAAAAA=", "metadata": {"title": "x"}, "expiresSeconds": 60}`
	var one struct{ Session, Key string }
	s.ok(&one, "POST", "/v1/uploads/presign", "alice", full)
	s.bucket.head = nil
	s.ok(nil, "POST", "/v1/uploads/"+one.Session+"/confirm", "alice", "")
	s.bucket.head = upload.ErrNoObject
	s.ok(nil, "POST", "/v1/uploads/form", "alice", onePNG)
	s.uploads("alice", `{"uploads": [`+onePNG+`, {"contentType": "text/html", "size": 1}]}`)
	s.proxy.SetPolicy(loadPolicy(t, strings.Replace(servedPolicy(t), "limit: {rate: 300/m, burst: 100, per: uid}", "limit: {rate: 1/m, burst: 1, per: uid}", 1)))
	s.uploads("alice", batchOf(2, onePNG))
	s.proxy.SetPolicy(loadPolicy(t, strings.Replace(servedPolicy(t), "max_bytes: 25MiB\n    limit: {rate: 300/m", "max_bytes: 25MiB\n      method: POST\n    limit: {rate: 300/m", 1)))
	s.uploads("alice", batchOf(2, onePNG))
	s.proxy.SetPolicy(loadPolicy(t, servedPolicy(t)))
	at := "/v1/multipart/" + s.begin("alice")
	s.ok(nil, "POST", at+"/parts", "alice", `{"parts": [{"partNumber": 1, "size": 12582912}], "expiresSeconds": 60}`)
	s.bucket.send(s.store.session(strings.TrimPrefix(at, "/v1/multipart/")).UploadID, 1, 12582912)
	s.ok(nil, "GET", at+"/parts", "alice", "")
	s.bucket.set(func(b *fakeBucket) {
		b.whole = upload.Object{VersionID: "v", Checksum: sum, Checksum64: "AAAAAAAAAAA="}
	})
	s.ok(nil, "POST", at+"/complete", "alice", `{"parts": [{"partNumber": 1, "etag": "part-1"}]}`)
	s.ok(nil, "DELETE", "/v1/multipart/"+s.begin("alice"), "alice", "")
	var summed struct{ Session string }
	s.ok(&summed, "POST", "/v1/multipart", "alice", `{"contentType": "image/png", "size": 3, "partChecksums": "sha256"}`)
	s.ok(nil, "POST", "/v1/multipart/"+summed.Session+"/parts", "alice", `{"parts": [{"partNumber": 1, "checksumSha256": "`+sum+`"}]}`)
	id := s.store.session(summed.Session).UploadID
	s.bucket.send(id, 1, 3)
	s.bucket.set(func(b *fakeBucket) { b.parts[id][0].Checksum = sum })
	s.ok(nil, "GET", "/v1/multipart/"+summed.Session+"/parts", "alice", "")
	s.ok(nil, "GET", "/v1/uploads/"+summed.Session, "alice", "")
	rejected := s.begin("alice")
	s.bucket.send(s.store.session(rejected).UploadID, 1, 1)
	s.refused(422, codeMismatch, "POST", "/v1/multipart/"+rejected+"/complete", "alice", "")
	for _, session := range []string{one.Session, rejected} {
		s.ok(nil, "GET", "/v1/uploads/"+session, "alice", "")
	}
	s.ok(nil, "GET", "/v1/uploads", "alice", "")
	s.ok(nil, "GET", "/v1/uploads?pageSize=2", "alice", "")
	s.ok(nil, "GET", "/v1/files?prefix=users/alice/&pageSize=2", "alice", "")
	s.ok(nil, "DELETE", "/v1/files/users/alice/a", "alice", "")
	s.ok(nil, "GET", "/v1/files/users/alice/x/download?expiresSeconds=60", "alice", "")
	s.ok(nil, "HEAD", "/v1/files/users/alice/x/download", "alice", "")
	s.call("GET", "/v1/files/users/alice/x/download?redirect=1", "alice", "")
	s.call("HEAD", "/v1/files/users/alice/x/download?redirect=1", "alice", "")
	s.downloads("alice", `{"downloads": [{"key": "users/alice/a", "expiresSeconds": 60}, {"key": "users/bob/b"}, {"key": "users/alice/c", "expiresSeconds": 1}]}`)
	s.proxy.SetPolicy(loadPolicy(t, strings.Replace(servedPolicy(t), "limit: {rate: 1000/m, burst: 200, per: uid}", "limit: {rate: 1/m, burst: 1, per: uid}", 1)))
	s.downloads("alice", `{"downloads": [{"key": "users/alice/a"}, {"key": "users/alice/b"}]}`)
}

// everyOperation is one request of each operation that has a body, a query or
// neither.
func everyOperation() []struct{ name, method, path, body string } {
	return append(slices.Clone(servedOps),
		struct{ name, method, path, body string }{"batch", "POST", "/v1/uploads/batch", batchOf(1, onePNG)},
		struct{ name, method, path, body string }{"downloads", "POST", "/v1/downloads", `{"downloads": [{"key": "users/alice/x"}]}`},
	)
}

// sceneOfRefusals has those for what a request is.
func sceneOfRefusals(t *testing.T) {
	s, session := withSession(t)
	for _, op := range everyOperation() {
		path := strings.ReplaceAll(op.path, "SESSION", session)
		s.call(op.method, path, "", op.body)
		s.call(op.method, path, "x", op.body)
		s.call(op.method, path, "away", op.body)
		s.call(op.method, path, "alice", op.body, "Content-Type: a", "Content-Type: b")
		if strings.Contains(op.path, "SESSION") {
			s.call(op.method, strings.ReplaceAll(op.path, "SESSION", upload.NewID()), "alice", op.body)
		}
		if op.method == "POST" {
			s.call(op.method, path, "alice", `{"nobody": "knows"}`)
			s.call(op.method, path, "alice", strings.Repeat(" ", maxPartsComplete+1))
			s.call(op.method, path, "alice", `{"contentType": "text/html", "size": 1}`)
		} else {
			s.call(op.method, path+"?nobody=knows", "alice", "")
		}
	}
	s.proxy.SetPolicy(loadPolicy(t, regexp.MustCompile(`who: \[users\]`).ReplaceAllString(servedPolicy(t), "who: [users], verified_email: true, ip: [192.0.2.0/24]")))
	for _, op := range everyOperation() {
		s.call(op.method, strings.ReplaceAll(op.path, "SESSION", session), "alice", op.body)
	}
	limited := regexp.MustCompile(`(?m)^    limit: .*\n`).ReplaceAllString(servedPolicy(t), "")
	limited = regexp.MustCompile(`(?m)^    serve: `).ReplaceAllString(limited, "    limit: {rate: 1/h, burst: 1, per: ip}\n    serve: ")
	s.proxy.SetPolicy(loadPolicy(t, limited))
	for _, op := range everyOperation() {
		for range 2 {
			s.call(op.method, strings.ReplaceAll(op.path, "SESSION", session), "alice", op.body)
		}
	}
}

// sceneOfEnds has answers for what became of a session.
func sceneOfEnds(t *testing.T) {
	s, session := withSession(t)
	again := []string{"/v1/uploads/presign", "/v1/uploads/form", "/v1/multipart"}
	for _, path := range again {
		s.ok(nil, "POST", path, "alice", onePNG, "Idempotency-Key: k")
		s.refused(422, codeIdempotencyKey, "POST", path, "alice", `{"contentType": "image/png", "size": 2}`, "Idempotency-Key: k")
	}
	ops := func() {
		for _, op := range servedOps {
			if strings.Contains(op.path, "SESSION") {
				s.call(op.method, strings.ReplaceAll(op.path, "SESSION", session), "alice", op.body)
			}
		}
		for _, path := range again {
			s.call("POST", path, "alice", onePNG, "Idempotency-Key: k")
		}
	}
	s.refused(409, codeNotUploaded, "POST", "/v1/uploads/"+session+"/confirm", "alice", "")
	change := func(status upload.Status, reason string) {
		s.store.set(func(f *fakeStore) {
			for id, one := range f.sessions {
				one.Status, one.Reason = status, reason
				f.sessions[id] = one
			}
		})
	}
	for _, status := range []upload.Status{upload.Rejected, upload.Failed, upload.Aborted, upload.Expired} {
		change(status, "size: it differs")
		ops()
	}
	change(upload.Uploading, "")
	s.store.set(func(f *fakeStore) {
		for id, one := range f.sessions {
			one.ExpiresAt, one.ConfirmBy = one.CreatedAt.Add(-2*time.Hour), one.CreatedAt.Add(-time.Hour)
			f.sessions[id] = one
		}
	})
	s.call("POST", "/v1/multipart/"+session+"/parts", "alice", `{"parts": [{"partNumber": 1}]}`)
	ops()
}

// sceneOfFaults has ours and the store's.
func sceneOfFaults(t *testing.T) {
	s, session := withSession(t)
	s.proxy.o.Authenticator = fakeTokens{}
	for _, op := range everyOperation() {
		s.call(op.method, strings.ReplaceAll(op.path, "SESSION", session), "panic", op.body)
	}
	s.store.set(func(f *fakeStore) { f.before = errors.New("away") })
	for _, op := range servedOps {
		s.call(op.method, strings.ReplaceAll(op.path, "SESSION", session), "alice", op.body)
	}
}

// uppyOps are the calls of Uppy's clients, to an upload whose parts have arrived.
var uppyOps = []struct{ method, path, body string }{
	{"GET", "/uppy/s3/params?filename=a.png&type=image/png&size=3&metadata[name]=a.png", ""},
	{"POST", "/uppy/s3/multipart", `{"filename": "a.png", "type": "image/png", "metadata": {"name": "a.png"}}`},
	{"GET", "/uppy/s3/multipart/SESSION?key=KEY", ""},
	{"GET", "/uppy/s3/multipart/SESSION/batch?key=KEY&partNumbers=1,2", ""},
	{"GET", "/uppy/s3/multipart/SESSION/1?key=KEY", ""},
	{"POST", "/uppy/s3/sign", `{"method": "PUT", "key": "KEY", "uploadId": "UPLOAD", "partNumber": 1}`},
	{"POST", "/uppy/s3/multipart/SESSION/complete?key=KEY", `{"parts": [{"PartNumber": 1, "ETag": "part-1"}]}`},
	{"POST", "/uppy/s3/confirm?key=KEY", ""},
	{"DELETE", "/uppy/s3/multipart/SESSION?key=KEY", ""},
	{"GET", "/uppy/s3/sts", ""},
}

// uppyCalls gives the calls for an upload that was begun, or fails to be.
func (s *served) uppyCalls(begin bool) (session string, ask func(token string, change ...string)) {
	var one struct{ Key, UploadID string }
	if begin {
		s.ok(&one, "POST", "/uppy/s3/multipart", "alice", uppyOps[1].body)
		s.bucket.send(s.store.session(one.UploadID).UploadID, 1, 3)
	} else {
		one.Key, one.UploadID = "users/alice/uploads/none", upload.NewID()
	}
	return one.UploadID, func(token string, change ...string) {
		r := strings.NewReplacer(append(change, "SESSION", one.UploadID, "KEY", one.Key, "UPLOAD", s.store.session(one.UploadID).UploadID)...)
		for _, op := range uppyOps {
			s.call(op.method, r.Replace(op.path), token, r.Replace(op.body))
		}
	}
}

// sceneOfUppy has all that Uppy's clients are answered.
func sceneOfUppy(t *testing.T) {
	s := newServed(t)
	s.bucket.whole = upload.Object{VersionID: "v", Checksum: sum, Checksum64: "AAAAAAAAAAA="}
	_, ask := s.uppyCalls(true)
	ask("alice")
	ask("") // 401, and below 403 and 404
	ask("bob")
	_, ask = s.uppyCalls(true)
	ask("alice", "/complete?key=KEY", "/complete?key=KEY&x=1", "?filename", "?nobody=knows&filename", `{"filename"`, `{"nobody": 1, "filename"`, `{"method": "PUT"`, `{"nobody": 1, "method": "PUT"`, "?key=KEY", "?key=KEY&x=1")
	ask("alice", "image/png", "text/html")
	ask("alice", "size=3", "size=99999999999999")
	s.call("POST", "/uppy/s3/multipart", "alice", `{"filename": "a", "type": "image/png", "size": 99999999999999}`)
	s.call("POST", "/uppy/s3/sign", "alice", `{"method": "POST", "key": "x", "contentType": "image/png", "size": 99999999999999}`)
	s.call("POST", "/uppy/s3/sign", "alice", `{"method": "POST", "key": "x", "contentType": "text/html"}`)
	s.ok(nil, "POST", "/uppy/s3/sign", "alice", `{"method": "PUT", "key": "x", "contentType": "image/png"}`)
	s.ok(nil, "POST", "/uppy/s3/sign", "alice", `{"method": "POST", "key": "x", "contentType": "image/png"}`)
	s.proxy.SetPolicy(loadPolicy(t, strings.Replace(servedPolicy(t), "metadata: [name, type]", "method: PUT", 1)))
	s.ok(nil, "POST", "/uppy/s3/sign", "alice", `{"method": "PUT", "key": "x", "contentType": "image/png", "size": 3}`)
	s.ok(nil, "GET", "/uppy/s3/params?filename=a.png&type=image/png&size=3", "alice", "")
	s.proxy.SetPolicy(loadPolicy(t, servedPolicy(t)))
	ask("alice", "{", "[", "?", "?%zz&")
	for _, op := range uppyOps {
		s.call(op.method, op.path, "alice", op.body, "Content-Type: a", "Content-Type: b")
		s.call(op.method, op.path, "away", op.body)
		s.call(op.method, op.path, "panic", op.body)
		s.call(op.method, op.path, "alice", strings.Repeat(" ", maxPartsComplete+1))
	}
	for _, status := range []upload.Status{upload.Expired, upload.Aborted, upload.Rejected, upload.Uploading} {
		_, ask := s.uppyCalls(true)
		s.store.set(func(f *fakeStore) {
			for id, one := range f.sessions {
				one.Status, one.Reason = status, "size: it differs"
				f.sessions[id] = one
			}
		})
		ask("alice")
	}
	s.proxy.SetPolicy(loadPolicy(t, regexp.MustCompile(`who: \[users\]`).ReplaceAllString(servedPolicy(t), "who: [users], verified_email: true, ip: [192.0.2.0/24]")))
	ask("alice")
	limited := regexp.MustCompile(`(?m)^    limit: .*\n`).ReplaceAllString(servedPolicy(t), "")
	s.proxy.SetPolicy(loadPolicy(t, regexp.MustCompile(`(?m)^    serve: `).ReplaceAllString(limited, "    limit: {rate: 1/h, burst: 1, per: ip}\n    serve: ")))
	ask("alice")
	ask("alice")
}
