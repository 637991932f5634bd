package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sidegate/storage/audit"
	"sidegate/storage/upload"
)

// servedOps are one request of each operation, to a session or key that is there.
var servedOps = []struct{ name, method, path, body string }{
	{"presign", "POST", "/v1/uploads/presign", onePNG},
	{"form", "POST", "/v1/uploads/form", onePNG},
	{"create", "POST", "/v1/multipart", onePNG},
	{"sign parts", "POST", "/v1/multipart/SESSION/parts", `{"parts": [{"partNumber": 1}]}`},
	{"list parts", "GET", "/v1/multipart/SESSION/parts", ""},
	{"complete", "POST", "/v1/multipart/SESSION/complete", ""},
	{"abort", "DELETE", "/v1/multipart/SESSION", ""},
	{"get", "GET", "/v1/uploads/SESSION", ""},
	{"confirm", "POST", "/v1/uploads/SESSION/confirm", ""},
	{"list", "GET", "/v1/uploads", ""},
	{"download", "GET", "/v1/files/users/alice/x/download", ""},
	{"redirect", "GET", "/v1/files/users/alice/x/download?redirect=1", ""},
	{"objects", "GET", "/v1/files", ""},
	{"delete", "DELETE", "/v1/files/users/alice/x", ""},
}

// withSession is a gateway with a session whose parts have arrived.
func withSession(t *testing.T) (*served, string) {
	s := newServed(t)
	session := s.begin("alice")
	id := s.store.session(session).UploadID
	s.bucket.send(id, 1, 6291456)
	s.bucket.send(id, 2, 6291456)
	s.bucket.set(func(b *fakeBucket) { b.calls, b.signed = nil, 0 })
	s.store.set(func(f *fakeStore) { f.calls = nil })
	return s, session
}

// TestStoreFaults: whatever fails, before it is done or after, is a 503 and no
// other answer; no caller learns why; nothing is signed for what may be on no
// record; and the same request comes to its end once the fault is over.
func TestStoreFaults(t *testing.T) {
	secret := errors.New("403 Forbidden: secret")
	for _, op := range servedOps {
		met := 0
		s, session := withSession(t)
		s.call(op.method, strings.ReplaceAll(op.path, "SESSION", session), "alice", op.body)
		slices.Sort(s.bucket.calls)
		calls := append(slices.Compact(s.bucket.calls), "store", "store, done")
		for _, call := range calls {
			for _, after := range []bool{false, true} {
				s, session := withSession(t)
				path := strings.ReplaceAll(op.path, "SESSION", session)
				switch {
				case call == "store" && !after:
					s.store.set(func(f *fakeStore) { f.before = secret })
				case call == "store, done" && !after:
					s.store.set(func(f *fakeStore) { f.after = secret })
				case after:
					s.bucket.set(func(b *fakeBucket) { b.after[call] = secret })
				default:
					s.bucket.set(func(b *fakeBucket) { b.fail[call] = secret })
				}
				a := s.call(op.method, path, "alice", op.body)
				failed := slices.Contains(s.bucket.calls, call) && !(after && !slices.Contains([]string{"delete", "create_multipart", "complete_multipart", "abort_multipart"}, call))
				if call == "store" || call == "store, done" {
					failed = !after && len(s.store.calls) > 0 && (call == "store" || a.StatusCode == 503)
				}
				if failed {
					met++
				}
				what := fmt.Sprintf("%s, %s fails (after it was done: %t)", op.name, call, after)
				if failed != (a.StatusCode == 503) && !(op.name == "complete" || op.name == "abort" || op.name == "confirm") {
					t.Errorf("%s: %d %s", what, a.StatusCode, a.body)
				}
				if a.StatusCode >= 400 && a.StatusCode != 503 && op.name != "confirm" || strings.Contains(a.body, "Forbidden") {
					t.Errorf("%s: %d %s", what, a.StatusCode, a.body)
				}
				if a.StatusCode == 503 && (strings.Contains(a.body, "X-Amz") || a.Header.Get("Location") != "") {
					t.Errorf("%s: %s", what, a.body)
				}
				if s.bucket.late || strings.HasPrefix(call, "store") && failed && op.name != "list parts" && s.bucket.signed > 0 {
					t.Errorf("%s: signed, and the session may be on no record", what)
				}
				s.bucket.set(func(b *fakeBucket) { clear(b.fail); clear(b.after) })
				s.store.set(func(f *fakeStore) { f.before, f.after = nil, nil })
				if a := s.call(op.method, path, "alice", op.body); a.StatusCode >= 400 && op.name != "confirm" {
					t.Errorf("%s: again: %d %s", what, a.StatusCode, a.body)
				}
				checkSession(t, what, s, session, op.name)
			}
		}
		if met == 0 {
			t.Errorf("%s met no fault", op.name)
		}
	}
}

// checkSession holds what is on record of the session against what is at the store.
func checkSession(t *testing.T, what string, s *served, session, op string) {
	t.Helper()
	one := s.store.session(session)
	_, made := s.bucket.made[one.Key]
	_, open := s.bucket.of[one.UploadID]
	want := upload.Uploading
	switch op {
	case "complete":
		want = upload.Ready
	case "abort":
		want = upload.Aborted
	}
	if one.Status != want || made != (want == upload.Ready) || open != (want == upload.Uploading) {
		t.Errorf("%s: %s, object %t, upload open %t", what, one.Status, made, open)
	}
}

// TestRuleReadsTheSession: where the session cannot be read, a rule about its
// object cannot be told. That is no word on the caller, who would take a 403 for
// the last one; and whom a rule refuses for certain it still does.
func TestRuleReadsTheSession(t *testing.T) {
	s := newServed(t, "deny: {roles: [suspended]}", "deny: {roles: [admin]}",
		"    serve: multipart\n    allow: [{id: user, who: [users]}]",
		"    serve: multipart\n    allow: [{id: user, who: [users], if: \"object.size > 1 && object.content_type == 'image/png'\"}]")
	target := "/v1/multipart/" + s.begin("alice") + "/parts"
	s.ok(nil, "GET", target, "alice", "")
	s.store.set(func(f *fakeStore) { f.before = errors.New("away") })
	s.refused(503, codeUnavailable, "GET", target, "alice", "")
	s.refused(403, codeNotAllowed, "GET", target, "root", "")
	s.store.set(func(f *fakeStore) { f.before = nil })
	s.ok(nil, "GET", target, "alice", "")
	s.refused(403, codeNotAllowed, "GET", target, "bob", "") // there is no object of which it would hold
}

// TestNothingIsDoneUnrecorded: where the audit log does not take the decision,
// neither the store nor the sessions are changed, and nothing is signed.
func TestNothingIsDoneUnrecorded(t *testing.T) {
	for _, op := range servedOps {
		s, session := withSession(t)
		before := s.store.session(session)
		s.tape.set(func(r *tape) { r.before = fmt.Errorf("%w: %w", ErrNotRecorded, errRecord) })
		a := s.call(op.method, strings.ReplaceAll(op.path, "SESSION", session), "alice", op.body)
		if a.StatusCode != 503 || len(s.bucket.calls) != 0 || s.bucket.signed != 0 || len(s.store.sessions) != 1 || s.store.session(session) != before {
			t.Errorf("%s: %d %s; calls %v", op.name, a.StatusCode, a.body, s.bucket.calls)
		}
	}
}

// TestNoSignatureLeaks: no signature is in the log or on record, whatever happens.
func TestNoSignatureLeaks(t *testing.T) {
	s, session := withSession(t)
	for _, op := range servedOps {
		s.call(op.method, strings.ReplaceAll(op.path, "SESSION", session), "alice", op.body)
	}
	s.uploads("alice", batchOf(2, onePNG))
	if strings.Contains(s.log.String(), "secret") || strings.Contains(s.log.String(), "X-Amz") {
		t.Error("a signature is in the log")
	}
	if err := s.tape.ledger.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for line, err := range audit.Lines(s.dir) {
		if err != nil {
			t.Fatal(err)
		}
		if text := string(line.Raw); strings.Contains(text, "secret") || strings.Contains(text, "X-Amz") {
			t.Errorf("%s", text)
		}
	}
}
