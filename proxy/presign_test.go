package proxy

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sidegate/policy"
	"sidegate/storage/upload"
)

var (
	hex32   = regexp.MustCompile(`[0-9a-f]{32}`)
	instant = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
)

// shape is an answer with ids and times made the same.
func shape(body string) string {
	return strings.TrimSpace(instant.ReplaceAllString(hex32.ReplaceAllString(body, "ID"), "TIME"))
}

func (g *gate) own(a answer, status int) {
	g.t.Helper()
	if a.err != nil || a.StatusCode != status || !ownHeader(a.Header, "no-store") {
		g.t.Fatalf("want %d: %+v %s", status, a.Response, a.body)
	}
}

func TestUploadConfirmDownload(t *testing.T) {
	store, bucket, uploads := withUploads()
	g := newGate(t, "http://127.0.0.1:1", uploads)
	a := g.raw(presignRequest("alice", `{"contentType": "image/jpeg", "fileExt": "jpg", "expiresSeconds": 600, "size": 3}`))
	g.own(a, 200)
	want := `{"key":"users/alice/ID.jpg","putUrl":"https://bucket.test/users/alice/ID.jpg?method=PUT&a=1&X-Amz-Signature=secret","expiresSeconds":600,"session":"ID","method":"PUT","headers":{"Content-Type":"image/jpeg","If-None-Match":"*"},"expiresAt":"TIME"}`
	if shape(a.body) != want || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s", a.body)
	}
	var issued struct{ Key, Session string }
	if err := json.Unmarshal([]byte(a.body), &issued); err != nil {
		t.Fatal(err)
	}
	o := g.decision().Object
	if o == nil || o.Bucket != "default" || o.Key != issued.Key || o.Operation != "put" || o.ContentType != "image/jpeg" || o.Size != 3 || o.Session != issued.Session || o.Expires.IsZero() {
		t.Errorf("%+v", o)
	}
	if s := store.sessions[issued.Session]; s.Status != upload.Issued || s.Record != g.decision().Record || s.UID != "alice" || bucket.late {
		t.Errorf("%+v", s)
	}

	confirm := request("POST", "/v1/uploads/"+issued.Session+"/confirm", "alice")
	g.outcome()
	g.checkRefusal(g.raw(confirm), 409, codeNotUploaded)
	g.checkRefusal(g.raw(strings.Replace(confirm, "alice", "bob", 1)), 404, codeNoSession)
	g.checkRefusal(g.send("POST", "/v1/uploads/"+strings.ToUpper(issued.Session)+"x/confirm", "alice"), 404, codeNoSession)
	bucket.head = errors.New("403")
	g.checkRefusal(g.raw(confirm), 503, codeUnavailable)
	bucket.head, bucket.object = nil, upload.Object{Size: 3, ContentType: "image/jpeg", ETag: `"e"`, VersionID: "v"}
	for range 2 { // idempotent
		a = g.raw(confirm)
		g.own(a, 200)
		g.outcome()
		want = `{"key":"users/alice/ID.jpg","status":"ready","size":3,"contentType":"image/jpeg","etag":"\"e\"","versionId":"v"}`
		if shape(a.body) != want {
			t.Errorf("%s", a.body)
		}
	}
	if o := g.decision().Object; o.Operation != "confirm" || o.Session != issued.Session || o.Key != issued.Key {
		t.Errorf("%+v", o)
	}

	for _, target := range []string{"/v1/files/" + issued.Key + "/download", "/v1/files/" + strings.ReplaceAll(issued.Key, "/", "%2F") + "/download"} {
		a = g.send("GET", target+"?expiresSeconds=60", "alice")
		g.own(a, 200)
		want = `{"getUrl":"https://bucket.test/users/alice/ID.jpg?method=GET&X-Amz-Signature=secret","expiresSeconds":60,"expiresAt":"TIME"}`
		if shape(a.body) != want {
			t.Errorf("%s", a.body)
		}
		if o := g.decision().Object; o.Operation != "get" || o.Key != issued.Key || o.Expires.IsZero() {
			t.Errorf("%+v", o)
		}
	}
	a = g.send("GET", "/v1/files/"+issued.Key+"/download?redirect=1", "alice")
	g.own(a, 302)
	if !strings.Contains(a.Header.Get("Location"), "method=GET") || a.body != "" {
		t.Errorf("%+v", a.Response)
	}
	a = g.send("HEAD", "/v1/files/"+issued.Key+"/download?redirect=1", "alice")
	g.own(a, 302)
	if !strings.Contains(a.Header.Get("Location"), "method=HEAD") || g.decision().Object.Operation != "head" {
		t.Errorf("%+v", a.Response)
	}
	signed := bucket.signed
	g.own(g.send("HEAD", "/v1/files/"+issued.Key+"/download", "alice"), 200)
	if a = g.send("GET", "/v1/files/"+issued.Key+"/download", "bob"); a.StatusCode != 403 || bucket.signed != signed {
		t.Errorf("another's file: %d", a.StatusCode)
	}
	if strings.Contains(g.log.String(), "secret") {
		t.Error("a signature is in the log")
	}
}

func TestConfirmRefusals(t *testing.T) {
	store, bucket, uploads := withUploads()
	g := newGate(t, "http://127.0.0.1:1", uploads)
	session := func(change func(*upload.Session)) string {
		id := upload.NewID()
		now := g.proxy.o.Now()
		s := upload.Session{ID: id, UID: "alice", Namespace: "users", Identity: "users", Key: "users/alice/x", Bucket: "default",
			ContentType: "image/png", Size: 3, Status: upload.Issued, CreatedAt: now, ExpiresAt: now.Add(1e9), ConfirmBy: now.Add(1e12)}
		change(&s)
		store.sessions[id] = s
		return "/v1/uploads/" + id + "/confirm"
	}
	bucket.head, bucket.object = nil, upload.Object{Size: 4, ContentType: "image/png"}
	target := session(func(*upload.Session) {})
	for range 2 {
		a := g.send("POST", target, "alice")
		g.checkRefusal(a, 422, codeMismatch)
		if !strings.Contains(a.body, `"field":"size"`) {
			t.Errorf("%s", a.body)
		}
	}
	g.checkRefusal(g.send("POST", session(func(s *upload.Session) { s.ConfirmBy = s.CreatedAt.Add(-1e9) }), "alice"), 410, codeExpired)
	g.checkRefusal(g.send("POST", session(func(s *upload.Session) { s.Namespace = "other" }), "alice"), 404, codeNoSession)
}

// TestStoreFails both ways: nothing is signed for a session that may not be
// stored.
func TestStoreFails(t *testing.T) {
	store, bucket, uploads := withUploads()
	g := newGate(t, "http://127.0.0.1:1", uploads)
	body := `{"contentType": "image/png", "size": 1}`
	store.before = errors.New("away")
	g.checkRefusal(g.raw(presignRequest("alice", body)), 503, codeUnavailable)
	g.checkRefusal(g.send("POST", "/v1/uploads/"+upload.NewID()+"/confirm", "alice"), 503, codeUnavailable)
	store.before, store.after = nil, errors.New("away")
	g.checkRefusal(g.raw(presignRequest("alice", body)), 503, codeUnavailable)
	store.after, bucket.sign = nil, errors.New("no credentials: secret")
	a := g.raw(presignRequest("alice", body))
	g.checkRefusal(a, 503, codeUnavailable)
	g.checkRefusal(g.send("GET", "/v1/files/users/alice/x/download", "alice"), 503, codeUnavailable)
	if bucket.signed != 0 || strings.Contains(a.body, "credentials") {
		t.Errorf("%d signatures; %s", bucket.signed, a.body)
	}
}

func TestUploadRequests(t *testing.T) {
	_, bucket, uploads := withUploads()
	g := newGate(t, "http://127.0.0.1:1", uploads)
	for _, c := range []struct {
		body   string
		status int
		code   string
		field  string
	}{
		{``, 400, codeBadRequest, ""},
		{`[]`, 400, codeBadRequest, ""},
		{`"x"`, 400, codeBadRequest, ""},
		{`null`, 400, codeBadRequest, ""},
		{`{`, 400, codeBadRequest, ""},
		{`{"contentType": "image/png"`, 400, codeBadRequest, ""},
		{`{"contentType": "image/png",}`, 400, codeBadRequest, ""},
		{`{"contentType" "image/png"}`, 400, codeBadRequest, ""},
		{`{"contentType": "image/png", "size": 1} {}`, 400, codeBadRequest, ""},
		{`{"contentType": "image/png", "size": 1} x`, 400, codeBadRequest, ""},
		{`{"contentType": "image/png", "contentType": "image/png"}`, 400, codeBadRequest, ""},
		{`{"contentType": "image/png", "content\u0054ype": "image/gif"}`, 400, codeBadRequest, ""},
		{`{"contentType": {"a": 1}}`, 400, codeBadRequest, ""},
		{`{"contentType": ["a"]}`, 400, codeBadRequest, ""},
		{strings.Repeat(`{"a":`, 5000), 413, codeTooLarge, ""},
		{strings.Repeat(`[`, 10_000), 400, codeBadRequest, ""},
		{`{"contentType": "` + strings.Repeat("a", maxRequest) + `"}`, 413, codeTooLarge, ""},
		{`{"contentType": 1}`, 422, codeInvalidField, "contentType"},
		{`{"contentType": null}`, 422, codeInvalidField, "contentType"},
		{`{"contentType": "image/png", "size": "1"}`, 422, codeInvalidField, "size"},
		{`{"contentType": "image/png", "size": 1.0}`, 422, codeInvalidField, "size"},
		{`{"contentType": "image/png", "size": 1e2}`, 422, codeInvalidField, "size"},
		{`{"contentType": "image/png", "size": -1}`, 422, codeInvalidField, "size"},
		{`{"contentType": "image/png", "size": 99999999999999999999}`, 422, codeInvalidField, "size"},
		{`{"contentType": "image/png", "size": true}`, 422, codeInvalidField, "size"},
		{`{"contentType": "image/png", "size": 1, "key": "users/bob/x"}`, 422, codeInvalidField, "key"},
		{`{"ContentType": "image/png", "size": 1}`, 422, codeInvalidField, "ContentType"},
		{`{"contentType": "image/png", "size": 1, "fileExt": "exe"}`, 422, codeInvalidField, "fileExt"},
		{`{"contentType": "image/png", "size": 1, "expiresSeconds": 59}`, 422, codeInvalidField, "expiresSeconds"},
		{`{"contentType": "image/png", "size": 1, "expiresSeconds": 901}`, 422, codeInvalidField, "expiresSeconds"},
		{`{"contentType": "image/png", "size": 1, "checksumSha256": "x"}`, 422, codeInvalidField, "checksumSha256"},
		{`{"contentType": "image/png\r\nX: y", "size": 1}`, 422, codeInvalidField, "contentType"},
		{`{"size": 1}`, 422, codeInvalidField, "contentType"},
	} {
		a := g.raw(presignRequest("alice", c.body))
		g.checkRefusal(a, c.status, c.code)
		var got struct{ Field string }
		if json.Unmarshal([]byte(a.body), &got); got.Field != c.field {
			t.Errorf("%.60s: field %q", c.body, got.Field)
		}
	}
	for _, query := range []string{"expiresSeconds=x", "expiresSeconds=", "expiresSeconds=60&expiresSeconds=61", "expiresSeconds=1", "redirect=2", "redirect=1&redirect=1"} {
		g.checkRefusal(g.send("GET", "/v1/files/users/alice/x/download?"+query, "alice"), 422, codeInvalidField)
	}
	if bucket.signed != 0 {
		t.Errorf("%d signatures", bucket.signed)
	}
}

func FuzzUploadRequest(f *testing.F) {
	f.Add([]byte(`{"contentType": "image/png", "fileExt": ".png", "size": 1, "expiresSeconds": 60, "checksumSha256": "x"}`))
	f.Add([]byte(`{"a":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var u policy.UploadRequest
		problem := readUploadRequest(body, &u)
		if problem != nil {
			if problem.status < 400 || problem.status > 422 || len(problem.field) > 64 {
				t.Fatalf("%+v", problem)
			}
			return
		}
		var loose map[string]any
		if err := json.Unmarshal(body, &loose); err != nil {
			t.Fatalf("%q is taken: %v", body, err)
		}
		if s, _ := loose["contentType"].(string); s != u.ContentType {
			t.Fatalf("%q is read as %q", body, u.ContentType)
		}
	})
}

// TestDrippedPresignBody: each byte in time, and the whole all the same not
// for ever: the body is small, and its sender holds a connection.
func TestDrippedPresignBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, uploads := withUploads()
		g, _ := inProcessGate(t, nil, uploads, func(o *Options) { o.IdleTimeout = time.Minute })
		conn := g.dial()
		begin := time.Now()
		io.WriteString(conn, request("POST", "/v1/uploads/presign", "alice", "Content-Length: 10000"))
		answered := make(chan answer)
		go func() { answered <- g.read(bufio.NewReader(conn), "POST") }()
		drip := time.NewTicker(10 * time.Second)
		defer drip.Stop()
		for {
			select {
			case <-drip.C:
				io.WriteString(conn, " ") // fails once the gateway has hung up
			case a := <-answered:
				if a.StatusCode != 400 || !a.Close {
					t.Errorf("%+v %s", a.Response, a.body)
				}
				if took := time.Since(begin); took > 3*time.Minute {
					t.Errorf("the body was waited for for %v", took)
				}
				return
			}
		}
	})
}

// FuzzPolicyIsNoWeaker: what the policy lets through, uploads do not refuse:
// else a request would be on record as allowed and then be told no.
func FuzzPolicyIsNoWeaker(f *testing.F) {
	for _, key := range []string{"users/a/b.jpg", "users/a/e\u0301", "users/a/\u00e9", "a//b", "../a", "a\u202eb", "a\\b", strings.Repeat("k", 1025)} {
		f.Add(key, "image/png", int64(3), "")
	}
	f.Add("a", "text/plain;  charset=utf-8", int64(3), "")
	f.Add("a", "text/plain; charset=utf-8", int64(0), "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=")
	f.Fuzz(func(t *testing.T, key, contentType string, size int64, sum string) {
		if policy.ValidKey(key) != (upload.CheckKey(key) == nil) {
			t.Errorf("key %q: policy %t, upload %v", key, policy.ValidKey(key), upload.CheckKey(key))
		}
		o := policy.Object{ContentTypes: []string{"*/*"}, MinExpiry: time.Minute, DefaultExpiry: time.Minute, MaxExpiry: time.Minute}
		if o.Check(&policy.UploadRequest{ContentType: contentType, Size: &size, ChecksumSHA256: sum}) != nil {
			return
		}
		store, _, _ := withUploads()
		u := upload.Uploads{Store: store, Buckets: map[string]upload.Bucket{}, Now: time.Now}
		_, _, err := u.Begin(t.Context(), upload.Request{
			ID: upload.NewID(), Namespace: "n", UID: "u", Bucket: "none", Key: "k", ContentType: contentType, Size: size, Checksum: sum, Expires: time.Minute,
		})
		var invalid *upload.InvalidError
		if errors.As(err, &invalid) {
			t.Errorf("type %q, size %d, sum %q: %v", contentType, size, sum, err)
		}
	})
}
