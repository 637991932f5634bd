package proxy

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/text/unicode/norm"

	"sidegate/policy"
	"sidegate/storage/upload"
)

// Defects of peers, each as a test that it is none here: Uppy's Companion and the
// many small signers that were written after its example (S3 multipart endpoints
// that sign whatever key and uploadId they are told).

// TestAttackSigningACallersString: nothing of a caller is a key, an upload's id, a
// bucket, a header or a method of what is signed.
func TestAttackSigningACallersString(t *testing.T) {
	s := newServed(t)
	session := s.begin("alice")
	for _, c := range [][2]string{
		{"/v1/uploads/presign", `{"contentType": "image/png", "size": 1, "key": "users/bob/x"}`},
		{"/v1/uploads/presign", `{"contentType": "image/png", "size": 1, "bucket": "other"}`},
		{"/v1/uploads/presign", `{"contentType": "image/png", "size": 1, "headers": {"x-amz-acl": "public-read"}}`},
		{"/v1/uploads/presign", `{"contentType": "image/png", "size": 1, "method": "DELETE"}`},
		{"/v1/uploads/presign", `{"contentType": "image/png", "size": 1, "canonicalRequest": "DELETE\n/x"}`},
		{"/v1/multipart", `{"contentType": "image/png", "size": 1, "key": "users/bob/x"}`},
		{"/v1/multipart/" + session + "/parts", `{"parts": [{"partNumber": 1}], "uploadId": "upload-9"}`},
		{"/v1/multipart/" + session + "/parts", `{"parts": [{"partNumber": 1, "key": "users/bob/x"}]}`},
		{"/v1/multipart/" + session + "/complete", `{"key": "users/bob/x"}`},
	} {
		a := s.call("POST", c[0], "alice", c[1])
		if a.StatusCode != 422 && a.StatusCode != 400 {
			t.Errorf("%s %s: %d %s", c[0], c[1], a.StatusCode, a.body)
		}
	}
	if s.bucket.signed != 0 {
		t.Errorf("%v", s.bucket.urls)
	}
}

// TestAttackAnothersSession: a session is its owner's, at the route and in the
// bucket where it began: all others learn what they would of one that never was.
func TestAttackAnothersSession(t *testing.T) {
	second := `  - id: multipart2
    path: /v2/multipart/{op...}
    methods: [GET, POST, DELETE]
    serve: multipart
    allow: [{id: user, who: [users]}]
    object: {bucket: other, key: "users/${auth.uid}/uploads/${uuid}${ext}", content_types: [image/png]}
`
	s := newServed(t, "  # Only who began an upload confirms it", second+"  # Only who began an upload confirms it")
	mine := s.begin("alice")
	never := upload.NewID()
	moved := func(change func(*upload.Session)) string {
		id := upload.NewID()
		one := s.store.session(mine)
		one.ID = id
		change(&one)
		s.store.set(func(f *fakeStore) { f.sessions[id] = one })
		return id
	}
	bucket := moved(func(u *upload.Session) { u.Bucket = "other" })
	route := moved(func(u *upload.Session) { u.Route = "presign-upload" })
	namespace := moved(func(u *upload.Session) { u.Namespace = "others" })
	ops := []struct{ method, path, body string }{
		{"POST", "/parts", `{"parts": [{"partNumber": 1}]}`}, {"GET", "/parts", ""}, {"POST", "/complete", ""}, {"POST", "/complete", `{"parts": [{"partNumber": 1, "etag": "x"}]}`}, {"DELETE", "", ""},
	}
	for _, op := range ops {
		want := s.refused(404, codeNoSession, op.method, "/v1/multipart/"+never+op.path, "alice", op.body)
		for _, c := range []struct{ token, at string }{
			{"bob", "/v1/multipart/" + mine}, {"root", "/v1/multipart/" + mine}, {"alice", "/v2/multipart/" + mine},
			{"alice", "/v1/multipart/" + bucket}, {"alice", "/v1/multipart/" + route}, {"alice", "/v1/multipart/" + namespace},
			{"alice", "/v1/multipart/" + strings.ToUpper(mine) + "x"}, {"alice", "/v1/multipart/%E2%80%AE" + mine},
		} {
			a := s.raw(request(op.method, c.at+op.path, c.token, "Content-Length: "+fmt.Sprint(len(op.body))) + op.body)
			s.checkRefusal(a, 404, codeNoSession)
			if hex32.ReplaceAllString(a.body, "") != hex32.ReplaceAllString(want.body, "") {
				t.Errorf("%s is told from %s", a.body, want.body)
			}
		}
	}
	for _, path := range []string{"/v1/uploads/" + mine, "/v1/uploads/" + namespace} {
		token := "bob"
		if strings.HasSuffix(path, namespace) {
			token = "alice"
		}
		s.refused(404, codeNoSession, "GET", path, token, "")
		s.refused(404, codeNoSession, "POST", path+"/confirm", token, "")
	}
	if len(s.bucket.of) != 1 || s.bucket.signed != 0 || s.store.session(mine).Status != upload.Uploading {
		t.Errorf("open %v, %d signatures, %+v", s.bucket.of, s.bucket.signed, s.store.session(mine))
	}
	for _, call := range s.bucket.calls[1:] {
		t.Errorf("the store was asked: %s", call)
	}
}

// TestAttackCompleteByAStranger is who has neither token nor session; and who may
// no longer do what they could when the upload began.
func TestAttackCompleteByAStranger(t *testing.T) {
	s := newServed(t)
	at := "/v1/multipart/" + s.begin("alice")
	for _, op := range []struct{ method, path, body string }{{"POST", "/complete", ""}, {"DELETE", "", ""}, {"POST", "/parts", `{"parts": [{"partNumber": 1}]}`}, {"GET", "/parts", ""}} {
		s.refused(401, codeNoToken, op.method, at+op.path, "", op.body)
		s.refused(401, codeInvalidToken, op.method, at+op.path, "mallory", op.body)
		s.refused(503, codeUnavailable, op.method, at+op.path, "away", op.body)
	}
	s.proxy.SetPolicy(loadPolicy(t, strings.ReplaceAll(servedPolicy(t), "allow: [{id: user, who: [users]}]", "allow: [{id: user, who: [users], roles: [admin]}]")))
	for _, op := range []struct{ method, path, body string }{{"POST", "/complete", ""}, {"DELETE", "", ""}, {"POST", "/parts", `{"parts": [{"partNumber": 1}]}`}, {"GET", "/parts", ""}} {
		s.refused(403, codeNotAllowed, op.method, at+op.path, "alice", op.body)
		// 401 and 403 come before 404: who may not, learns of no session.
		s.refused(403, codeNotAllowed, op.method, "/v1/multipart/"+upload.NewID()+op.path, "alice", op.body)
	}
	s.refused(403, codeNotAllowed, "GET", "/v1/uploads/"+upload.NewID(), "alice", "")
	if calls := strings.Join(s.bucket.calls, " "); calls != "create_multipart" {
		t.Errorf("the store was asked: %s", calls)
	}
}

// TestAttackForgedOrigin: a page elsewhere cannot use a session cookie, also where
// a GET is all it needs.
func TestAttackForgedOrigin(t *testing.T) {
	store, bucket, uploads := withUploads()
	g := newGate(t, "http://127.0.0.1:1", uploads, func(o *Options) {
		o.Policy = loadPolicy(t, servedPolicy(t))
		o.SessionCookies = map[string]Authenticator{"session": fakeTokens{}}
	})
	s := &served{g, store, bucket, readContract(t)}
	at := "/v1/multipart/" + s.begin("alice")
	for _, c := range []struct {
		method, path string
		safe         bool
	}{
		{"GET", at + "/parts", false}, {"HEAD", at + "/parts", false}, {"DELETE", at, false}, {"POST", at + "/complete", false},
		{"DELETE", "/v1/files/users/alice/x", false}, {"GET", "/v1/files", true}, {"GET", "/v1/uploads", true}, {"GET", "/v1/files/users/alice/x/download", true},
	} {
		for _, site := range []string{"cross-site", "same-site", ""} {
			lines := []string{"Cookie: session=alice"}
			if site != "" {
				lines = append(lines, "Sec-Fetch-Site: "+site)
			}
			a := s.raw(request(c.method, c.path, "", lines...))
			if refused := a.StatusCode == 403; refused == c.safe {
				t.Errorf("%s %s from %q: %d", c.method, c.path, site, a.StatusCode)
			}
		}
	}
	if a := s.raw(request("GET", at+"/parts", "", "Cookie: session=alice", "Sec-Fetch-Site: same-origin")); a.StatusCode != 200 {
		t.Errorf("from this site: %d %s", a.StatusCode, a.body)
	}
}

// hostileNames are names that somebody reads as something else.
// (storage/upload/key.go has the rules that each is held against.)
var hostileNames = []string{
	"..", ".", "a/../b", "../bob", "../../etc/passwd", "a/./b", "a//b", "/a", "a/", "/", "", " ", "a b",
	"a\x00b", "a\nb", "a\rb", "a\tb", "a\x01b", "a\x7fb", "a\u0085b", "a\u2028b", "a\u2029b",
	"a\u202eb", "a\u202ab", "a\u2066b", "\u200e", "\u200f", "\u061c", "\ufeff", "a\u200db",
	"e\u0301", "\u00e9", "\u212b", "\u1e9b\u0323", "ﬁ", "Å", "K", // Angstrom and Kelvin
	`a\b`, `..\bob`, "%2e%2e", "%2E%2E%2Fbob", "%2f", "%2F", "%5c", "%00", "%", "%25", "%c0%ae", "a%0d%0ab",
	"a?b", "a#b", "a;b", "a&b", "a=b", "a+b", "a:b", "a@b", "a,b", "a$b", "a!b", "a*b", "a'b", "a(b)", "a~b", `a"b`, "a<b>", "a|b", "a^b", "a`b", "a{b}", "a[b]",
	"${uuid}", "${filename}", "${auth.uid}", "$", "{session}", "{}",
	"🙂", "日本", "naïve", "\U000e0001", "\ud7ff", "\ue000", "soap", "con", "CON.txt", "a.", ".a", "...", "…", "．．", "／", "＼", "∕",
	strings.Repeat("k", 256), strings.Repeat("k", 257), strings.Repeat("k", 1024), strings.Repeat("k", 1025), strings.Repeat("é", 512), strings.Repeat("a/", 300) + "a",
	"\xff", "\xc0\xaf", "\xed\xa0\x80", "a\xfe", "users/bob", "bob/..", "..;/bob", "alice/../bob",
}

// staysWithin is the invariant of everything that is signed, listed or deleted: a
// key of the caller's own, the same to everybody who reads it.
func staysWithin(t *testing.T, what, key, prefix string) {
	t.Helper()
	if !strings.HasPrefix(key, prefix) || len(key) == len(prefix) || len(key) > 1024 || !utf8.ValidString(key) || !norm.NFC.IsNormalString(key) {
		t.Errorf("%s: %q is not within %q", what, key, prefix)
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment == "." || segment == ".." {
			t.Errorf("%s: %q has the segment %q", what, key, segment)
		}
	}
	for _, r := range key {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\\' || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			t.Errorf("%s: %q has %U", what, key, r)
		}
	}
	// URL collapse: a reader that resolves dots, or decodes again, finds the same.
	at := &url.URL{Scheme: "https", Host: "bucket.test", Path: "/" + key}
	if resolved := at.ResolveReference(&url.URL{Path: at.Path}); resolved.Path != at.Path {
		t.Errorf("%s: %q is resolved to %q", what, key, resolved.Path)
	}
}

// hostileRequests ask for a name in every way in which a caller can say one. said
// are the keys and prefixes that they name, byte for byte.
func hostileRequests(token, name string) (requests []string, said map[string]bool) {
	said = map[string]bool{}
	ask := func(method, target, body string) {
		requests = append(requests, request(method, target, token, fmt.Sprint("Content-Length: ", len(body)))+body)
	}
	for _, key := range []string{"users/alice/" + name, name} {
		said[key], said[key+"/"] = true, true
		for _, e := range []string{url.PathEscape(key), (&url.URL{Path: key}).EscapedPath(), key} {
			if strings.ContainsAny(e, "\r\n ") {
				continue // another request, which is another test's
			}
			if once, err := url.PathUnescape(e); err == nil {
				said[once] = true
			}
			ask("GET", "/v1/files/"+e+"/download", "")
			ask("DELETE", "/v1/files/"+e, "")
		}
		ask("GET", "/v1/files?prefix="+url.QueryEscape(key+"/"), "")
		body, _ := json.Marshal(map[string]any{"downloads": []any{map[string]string{"key": key}}})
		var written string // JSON has no bytes that are not UTF-8
		if quoted, err := json.Marshal(key); err == nil && json.Unmarshal(quoted, &written) == nil {
			said[written] = true
		}
		ask("POST", "/v1/downloads", string(body))
		ask("POST", "/v1/downloads", `{"downloads": [{"key": "`+key+`"}]}`)
	}
	for _, field := range []map[string]any{{"contentType": "image/png", "fileExt": name}, {"contentType": name}, {"contentType": "image/png", "metadata": map[string]string{"title": name}}} {
		field["size"] = 1
		body, _ := json.Marshal(field)
		for _, path := range []string{"/v1/uploads/presign", "/v1/uploads/form", "/v1/multipart"} {
			ask("POST", path, string(body))
		}
	}
	return requests, said
}

// checkTaken holds all that came to the store against the invariant.
func (b *fakeBucket) checkTaken(t *testing.T, name, prefix string, said map[string]bool) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, at := range b.keys {
		key := strings.TrimSuffix(at.key, "/")
		staysWithin(t, at.call+" of "+name, key+strings.Repeat("/x", len(at.key)-len(key)), prefix)
		switch at.call {
		case "sign_put", "create_multipart":
			if rest := strings.TrimPrefix(key, prefix+"uploads/"); len(rest) < 32 || !hex32.MatchString(rest[:32]) || strings.Contains(rest, "/") {
				t.Errorf("%q made the key %q", name, key)
			}
		default:
			if said != nil && !said[at.key] && at.key != prefix {
				t.Errorf("%q: %s of %q, which nobody named", name, at.call, at.key)
			}
		}
	}
	b.keys = nil
}

// unlimited are the lines of a policy without its limits.
func unlimited(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if at := strings.TrimSpace(line); !strings.HasPrefix(at, "limit:") && !strings.HasPrefix(at, "quota:") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// TestHostileKeys: refused, or signed byte for byte, and never outside of the
// caller's prefix.
func TestHostileKeys(t *testing.T) {
	s := newServed(t)
	s.proxy.SetPolicy(loadPolicy(t, unlimited(servedPolicy(t))))
	taken := 0
	for _, name := range hostileNames {
		requests, said := hostileRequests("alice", name)
		for _, r := range requests {
			a := s.raw(r)
			if a.err != nil || a.StatusCode >= 500 && a.StatusCode != 505 {
				t.Errorf("%q: %v %+v %s", r, a.err, a.Response, a.body)
			}
		}
		taken += len(s.bucket.keys)
		s.bucket.checkTaken(t, name, "users/alice/", said)
	}
	if taken < 500 {
		t.Errorf("only %d were taken: this shows nothing", taken)
	}
}

// TestHostileUIDs: a uid is one segment of a key, or there is none.
func TestHostileUIDs(t *testing.T) {
	s := newServed(t)
	s.proxy.SetPolicy(loadPolicy(t, unlimited(servedPolicy(t))))
	s.proxy.o.Authenticator = hostileUIDs{}
	taken := 0
	for _, uid := range hostileNames {
		if uid == "" {
			continue
		}
		token := hex.EncodeToString([]byte(uid))
		for _, r := range []string{
			request("POST", "/v1/uploads/presign", token, "Content-Length: 38") + `{"contentType": "image/png", "size":1}`,
			request("POST", "/v1/uploads/form", token, "Content-Length: 38") + `{"contentType": "image/png", "size":1}`,
			request("POST", "/v1/multipart", token, "Content-Length: 38") + `{"contentType": "image/png", "size":1}`,
			request("GET", "/v1/files", token),
			request("GET", "/v1/files/users/bob/x/download", token),
			request("DELETE", "/v1/files/users/bob/x", token),
			request("GET", "/v1/files/users%2F"+url.PathEscape(uid)+"%2Fx/download", token),
		} {
			if a := s.raw(r); a.err != nil || a.StatusCode >= 500 {
				t.Errorf("uid %q: %v %+v %s", uid, a.err, a.Response, a.body)
			}
		}
		taken += len(s.bucket.keys)
		s.bucket.checkTaken(t, uid, "users/"+uid+"/", nil)
	}
	if taken < 100 {
		t.Errorf("only %d were taken: this shows nothing", taken)
	}
}

// FuzzServedKeys holds whatever a caller says, and is called, to the same.
func FuzzServedKeys(f *testing.F) {
	for i, name := range hostileNames {
		f.Add(name, hostileNames[(i*7+3)%len(hostileNames)])
	}
	store, bucket, uploads := withUploads()
	p, err := New(Options{
		Name: "fuzz", Policy: loadPolicy(f, unlimited(servedPolicy(f))), Authenticator: hostileUIDs{}, Recorder: nowhere{},
		Log: zerolog.Nop(), Metrics: prometheus.NewRegistry(), Now: time.Now, IdleTimeout: time.Minute, Uploads: uploadsOf(uploads),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name, uid string) {
		for _, who := range []string{"alice", uid} {
			requests, said := hostileRequests(hex.EncodeToString([]byte(who)), name)
			for _, text := range requests {
				r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
				if err != nil {
					continue
				}
				r.RemoteAddr = "192.0.2.1:1"
				w := httptest.NewRecorder()
				p.ServeHTTP(w, r)
				if w.Code >= 500 {
					t.Fatalf("%q: %d %s", text, w.Code, w.Body)
				}
			}
			if strings.HasPrefix("users/"+who+"/", "users/alice/") {
				bucket.checkTaken(t, name, "users/alice/", said)
			} else {
				bucket.checkTaken(t, name, "users/"+who+"/", nil)
			}
			store.set(func(s *fakeStore) { clear(s.sessions) })
		}
	})
}

// uploadsOf are those that a change of options would set.
func uploadsOf(change func(*Options)) *upload.Uploads {
	o := Options{Now: time.Now}
	change(&o)
	return o.Uploads
}

// hostileUIDs reads a token as the hex of its uid.
type hostileUIDs struct{}

func (hostileUIDs) Authenticate(_ context.Context, token string) (*policy.Identity, error) {
	uid, err := hex.DecodeString(token)
	if err != nil || len(uid) == 0 {
		return nil, &TokenError{Reason: "the token is malformed"}
	}
	return user(string(uid), "writer"), nil
}
