package trial

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sidegate/policy"
)

// FuzzExample: whatever the target, the uid and the claims, the example lets
// nobody have what is not its own: no key outside users/<uid>/ (but for the
// caller's team folder and what is shared with it), no other user's files.
func FuzzExample(f *testing.F) {
	for _, s := range [][3]string{
		{"/v1/files/users/u_alice/uploads/1.jpg/download", "u_alice", "org_1"},
		{"/v1/files/users%2Fu_alice%2F..%2Fu_bob/download", "u_alice", ""},
		{"/v1/files/users/u_alice/../u_bob/1/download", "u_alice/../u_bob", ".."},
		{"/v1/users/u_bob/files/a", "", "org_1"},
		{"/v1/users/%2e%2e/files/a", "..", "."},
		{"/v1/users/a%252fb/files/a", "a%2fb", "%"},
		{"/v1/files/users/\u00fc/a/download", "\u00fc", "u\u0308"},
		{"http://gateway.test/v1/files//users/u_bob/a/download", "u_bob", "a/b"},
	} {
		f.Add(s[0], s[1], s[2], "GET")
	}
	g, file := load(f, "../../examples/policy/policy.yaml", "../../examples/policy/policy_test.yaml")
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, target, uid, org, method string) {
		id := &policy.Identity{Name: "users", Namespace: "users", UID: uid, AuthTime: now, Claims: policy.ClaimMap{
			"org_id": org, "plan": org, "roles": []any{org}, "orgs": map[string]any{org: "owner"},
		}}
		q := Request{Method: method, Target: target, Host: "gateway.test", IP: netip.MustParseAddr("192.0.2.1"), Time: now, Identity: id, Lookups: &file.fixtures,
			Body: []byte(`{"contentType": "image/jpeg", "size": 3}`)}
		j := g.Judge(&q)
		if !j.Allow || j.Input.Route == nil {
			return
		}
		own := "users/" + uid + "/"
		switch j.Input.Route.ID {
		case "presign-download":
			team := strings.HasPrefix(j.Key, "orgs/"+org+"/") && org != ""
			if j.Rule == "presign-download/shared-with-me" {
				return // by a document, which the fixtures hold for u_alice only
			}
			if (!strings.HasPrefix(j.Key, own) && !team) || !cleanKey(j.Key) {
				t.Fatalf("%q may read %q by %s", uid, j.Key, j.Rule)
			}
		case "presign-upload":
			if !strings.HasPrefix(j.Key, own+"uploads/") || strings.Count(j.Key, "/") != strings.Count(own, "/")+1 || !cleanKey(j.Key) {
				t.Fatalf("%q may write %q", uid, j.Key)
			}
		case "user-files":
			if got, _ := j.Input.Params.Get("uid"); (got != uid || uid == "") && org != "support" {
				t.Fatalf("%q may %s the files of %q", uid, method, got)
			}
		}
	})
}

func cleanKey(key string) bool {
	for seg := range strings.SplitSeq(key, "/") {
		if seg == "" || seg == "." || seg == ".." || strings.ContainsAny(seg, "\\\x00\r\n") {
			return false
		}
	}
	return true
}
