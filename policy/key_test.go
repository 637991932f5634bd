package policy

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// keyRoutes has a route for each way that a key is made or held against a
// prefix.
const keyRoutes = header + `
  - {id: up, path: /up, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "users/${auth.uid}/${uuid}${ext}"}}
  - {id: own, path: "/own/{uid}", methods: [POST], serve: presign_upload, allow: [{who: [users], uid: "${params.uid}"}], object: {key: "users/${params.uid}/a"}}
  - {id: org, path: "/org/{o}", methods: [POST], serve: presign_upload, allow: [{who: [users, agents], org: {id: "${params.o}", role: [owner]}}], object: {key: "orgs/${params.o}/a"}}
  - {id: hash, path: "/hash/{x...}", methods: [GET], serve: presign_download, allow: [{who: [users]}], object: {key: "users/${auth.uid}/${sha256(params.x)}"}}
  - {id: get, path: "/get/{key...}", methods: [GET], serve: presign_download, allow: [{who: [users], key_prefix: "users/${auth.uid}/"}], object: {key: "${params.key}"}}
  - {id: mine, path: "/mine/{uid}", methods: [GET], serve: presign_download, allow: [{who: [users], uid: "${params.uid}"}], object: {key: "${params.uid}"}}
`

// hostile are uids that somebody could wish for.
var hostile = []string{
	"", ".", "..", "/", "a/b", "../alice", "..\\alice", "alice/..", "alice/", "/alice", "a\\b", "a\x00b", "a\r\nb", "a\nb", "a\x7fb",
	"a\u0085b", "a\u2028b", "a\u202eb", "a\u2066b", "a\u200fb", "\xff\xfe", "a\xc0\xafb", strings.Repeat("x", maxValue+1),
}

// strange are uids that are odd and yet stay within their segment.
var strange = []string{"%2f", "%2e%2e", "..%2falice", "...", "~", " ", "a b", "a:b", "é", "日本", "${auth.uid}", "*", "?", "#", strings.Repeat("x", maxValue)}

// TestAttackUIDAsObjectKey: a uid never leads a key out of its prefix.
func TestAttackUIDAsObjectKey(t *testing.T) {
	p := mustLoad(t, keyRoutes)
	for _, uid := range hostile {
		_, d := ask(p, bob(withUID(uid)), "POST", "", "/up")
		if d.Allow || d.Key != "" || d.Status != 403 || d.Reason != ReasonNoKey || d.Rule != "up/1" {
			t.Errorf("uid %.20q: %+v", uid, d)
		}
		for _, key := range []string{"users/" + uid + "/a", "users/alice/a", "users//a", "users/a"} {
			if _, d := ask(p, bob(withUID(uid)), "GET", "", "/get/"+key); d.Allow {
				t.Errorf("uid %.20q reads %.40q", uid, key)
			}
		}
	}
	for _, uid := range strange {
		_, d := ask(p, bob(withUID(uid)), "POST", "", "/up")
		if want := "users/" + uid + "/" + someUUID + ".jpg"; !d.Allow || d.Key != want {
			t.Errorf("uid %.20q: %+v", uid, d)
		}
		if parts := strings.Split(d.Key, "/"); len(parts) != 3 || parts[1] != uid {
			t.Errorf("uid %.20q: segments %q", uid, parts)
		}
		if _, d := ask(p, bob(withUID(uid)), "GET", "", "/get/users/"+uid+"/a"); !d.Allow {
			t.Errorf("uid %.20q does not read its own key: %+v", uid, d)
		}
	}
}

// TestAttackCallerNamesTheKey: what stands in the path never gives a key
// outside the caller's prefix.
func TestAttackCallerNamesTheKey(t *testing.T) {
	p := mustLoad(t, keyRoutes)
	for _, key := range []string{
		"users/alice/a", "users/bob", "users/bob/", "users/bobby/a", "users/bob/../alice/a", "users/bob/..", "users/bob/./a", "users/bob//a",
		"/users/bob/a", "users\\bob\\a", "users/bob/a\\..\\b", "users/bob/a\x00", "users/bob/\r\nx", "users/bob/\u202ea", "users/bob/\xff",
		"Users/bob/a", "users/Bob/a", "users/bob/" + strings.Repeat("x", maxKey), "",
	} {
		if _, d := ask(p, bob(), "GET", "", "/get/"+key); d.Allow || d.Key != "" {
			t.Errorf("%.40q: %+v", key, d)
		}
	}
	for _, key := range []string{"users/bob/a", "users/bob/a/b", "users/bob/..a", "users/bob/%2e%2e/alice", "users/bob/" + strings.Repeat("x", maxKey-len("users/bob/"))} {
		if _, d := ask(p, bob(), "GET", "", "/get/"+key); !d.Allow || d.Key != key {
			t.Errorf("%.40q: %+v", key, d)
		}
	}
}

func TestKeysOfComparedCaptures(t *testing.T) {
	p := mustLoad(t, keyRoutes)
	owner := bob(claim("orgs", map[string]any{"acme": "owner", "..": "owner"}))
	long := strings.Repeat("x", maxValue+1)
	for _, c := range []struct {
		id                 *Identity
		request, want, key string
	}{
		{bob(), "POST /own/bob", "own/1", "users/bob/a"},
		{bob(), "POST /own/alice", "403 no_entry", ""},
		{bob(withUID("..")), "POST /own/..", "403 no_key", ""},
		{owner, "POST /org/acme", "org/1", "orgs/acme/a"},
		{owner, "POST /org/..", "403 no_key", ""},
		{owner, "POST /org/other", "403 no_entry claim", ""},
		{bob(), "GET /hash/../alice", "hash/1", "users/bob/" + "5b36dc7b5d5d5b5b"},
		{bob(), "GET /mine/bob", "mine/1", "bob"},
		{bob(withUID(long)), "GET /mine/" + long, "403 no_key", ""},
	} {
		method, path, _ := strings.Cut(c.request, " ")
		m, d := ask(p, c.id, method, "", path)
		key := d.Key
		if m.Route != nil && m.Route.ID == "hash" && ValidKey(key) && len(key) == len("users/bob/")+64 {
			key = c.key
		}
		if got := outcome(m, d); got != c.want || key != c.key {
			t.Errorf("%.40s: %s %q, want %s %q", c.request, got, d.Key, c.want, c.key)
		}
	}
}

func TestValidKey(t *testing.T) {
	for key, want := range map[string]bool{
		"": false, "a": true, "/": false, "a/": false, "/a": false, "a//b": false, "a/b": true, ".": false, "..": false, "a/..": false,
		"../a": false, "a/./b": false, "...": true, ".a": true, "a\\b": false, "a\n": false, "a\x7f": false, "a\u0080": false, "é": true,
		"\xff": false, "a\u2029": false, "a\u061c": false, "a b": true, strings.Repeat("a", 1024): true, strings.Repeat("a", 1025): false,
	} {
		if got := ValidKey(key); got != want {
			t.Errorf("%.20q: %v", key, got)
		}
	}
}

func FuzzKey(f *testing.F) {
	for _, s := range append(hostile, strange...) {
		f.Add(s, "users/"+s+"/a")
		f.Add("bob", "users/bob/"+s)
	}
	p := mustLoad(f, keyRoutes)
	f.Fuzz(func(t *testing.T, uid, key string) {
		if ValidKey(key) {
			if !utf8.ValidString(key) || key == "" || len(key) > 1024 || strings.ContainsAny(key, "\\\x00\r\n\x7f") {
				t.Fatalf("%q is valid", key)
			}
			for _, seg := range strings.Split(key, "/") {
				if seg == "" || seg == "." || seg == ".." {
					t.Fatalf("%q is valid", key)
				}
			}
		}
		id := bob(withUID(uid))
		if _, d := ask(p, id, "POST", "", "/up"); d.Allow {
			parts := strings.Split(d.Key, "/")
			if !ValidKey(d.Key) || len(parts) != 3 || parts[0] != "users" || parts[1] != uid || parts[2] != someUUID+".jpg" {
				t.Fatalf("uid %q: %q", uid, d.Key)
			}
		}
		m := p.Match("", "/get/"+key, "GET")
		if m.Route == nil || m.Route.ID != "get" {
			return
		}
		d := p.Decide(&Input{Route: m.Route, Params: m.Params, Method: "GET", Identity: id, Time: noon})
		if !d.Allow {
			if d.Key != "" {
				t.Fatalf("refused with a key: %+v", d)
			}
			return
		}
		prefix := "users/" + uid + "/"
		if !ValidKey(d.Key) || !strings.HasPrefix(d.Key, prefix) || len(d.Key) == len(prefix) || strings.Contains(uid, "/") || uid == "" {
			t.Fatalf("uid %q reads %q", uid, d.Key)
		}
	})
}
