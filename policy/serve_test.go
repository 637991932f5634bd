package policy

import (
	"slices"
	"strings"
	"testing"
)

// serveRoutes has a route for each operation whose key or prefix the caller has
// a word in.
const serveRoutes = `version: sidegate-policy/v1
identities: [users]
claims: {roles: list(string)}
lookups:
  share: {document: "shares/${sha256(request.key)}", fields: {readers: list(string)}}
routes:
  - {id: up, path: "/up/{op...}", methods: [GET, POST, DELETE], serve: multipart, allow: [{who: [users]}], object: {key: "users/${auth.uid}/${uuid}"}}
  - {id: uppy, path: "/uppy/{op...}", methods: [GET, POST, DELETE], serve: uppy, allow: [{who: [users], key_prefix: "users/${auth.uid}/"}], object: {key: "users/${auth.uid}/${uuid}"}}
  - id: batch
    path: /batch
    methods: [POST]
    serve: presign_downloads
    allow: [{id: own, who: [users], key_prefix: "users/${auth.uid}/"}, {id: shared, who: [users], if: auth.uid in lookup.share.readers}]
    object: {key: "${request.key}"}
  - {id: list, path: /list, methods: [GET], serve: list_objects, allow: [{who: [users]}], object: {prefix: "users/${auth.uid}/"}}
  - {id: all, path: /all, methods: [GET], serve: list_objects, allow: [{id: own, who: [users], key_prefix: "users/${auth.uid}/"}, {id: staff, roles: [staff]}], object: {prefix: users/}}
  - {id: remove, path: "/files/{key...}", methods: [DELETE], serve: delete_object, allow: [{who: [users], key_prefix: "users/${auth.uid}/"}], object: {key: "${params.key}"}}
`

func servedInput(p *Policy, id *Identity, method, path string, change func(*Input)) *Input {
	m := p.Match("", path, method)
	in := &Input{Route: m.Route, Params: m.Params, Path: path, Method: method, Identity: id, UUID: someUUID, Ext: ".jpg"}
	if change != nil {
		change(in)
	}
	return in
}

func TestServedKeys(t *testing.T) {
	p := mustLoad(t, serveRoutes)
	u1 := bob(withUID("u1"))
	docs := lookupsFunc(func(_ *Lookup, document string) (Document, error) {
		return Document{Exists: document == "shares/"+hashed("users/u2/shared"), Fields: map[string]any{"readers": []any{"u1"}}}, nil
	})
	session := func(key string) func(*Input) { return func(in *Input) { in.SessionKey = key } }
	body := func(key string) func(*Input) { return func(in *Input) { in.BodyKey, in.Lookups = key, docs } }
	prefix := func(prefix string) func(*Input) { return func(in *Input) { in.Prefix = prefix } }
	for _, c := range []struct {
		name, method, path string
		change             func(*Input)
		want               string // the key; else the reason
	}{
		{"a new upload", "POST", "/up/", nil, "users/u1/" + someUUID},
		{"its session", "POST", "/up/s/parts", session("users/u1/x"), "users/u1/x"},
		{"a session's key that cannot be", "POST", "/up/s/parts", session("users/../x"), ReasonNoKey},
		{"a session below the prefix", "GET", "/uppy/multipart/s", session("users/u1/x"), "users/u1/x"},
		{"a session beside the prefix", "GET", "/uppy/multipart/s", session("users/u10/x"), ReasonNoEntry},
		{"a session's key elsewhere counts for nothing", "DELETE", "/files/users/u2/x", session("users/u1/x"), ReasonNoEntry},
		{"one's own key in a body", "POST", "/batch", body("users/u1/a/b"), "users/u1/a/b"},
		{"another's key in a body", "POST", "/batch", body("users/u2/a"), ReasonEntryError}, // the document does not exist
		{"a shared key in a body", "POST", "/batch", body("users/u2/shared"), "users/u2/shared"},
		{"a key in a body that begins the same", "POST", "/batch", body("users/u10/a"), ReasonEntryError},
		{"no key in a body", "POST", "/batch", body(""), ReasonNoEntry},
		{"a key in a body that cannot be", "POST", "/batch", body("users/u1/../u2/a"), ReasonEntryError},
		{"a list without a wish", "GET", "/list", nil, "users/u1/"},
		{"a list of one's own", "GET", "/list", prefix("users/u1/"), "users/u1/"},
		{"a list of a folder", "GET", "/list", prefix("users/u1/2026/"), "users/u1/2026/"},
		{"a list within a segment", "GET", "/list", prefix("users/u1/2026/im"), "users/u1/2026/im"},
		{"a list of everybody whose uid begins the same", "GET", "/list", prefix("users/u1"), ReasonNoKey},
		{"a list of another whose uid begins the same", "GET", "/list", prefix("users/u10/"), ReasonNoKey},
		{"a list of all", "GET", "/list", prefix("users/"), ReasonNoKey},
		{"a list by dots", "GET", "/list", prefix("users/u1/.."), ReasonNoKey},
		{"a list by dots and more", "GET", "/list", prefix("users/u1/../u2/"), ReasonNoKey},
		{"a list with an empty segment", "GET", "/list", prefix("users/u1//"), ReasonNoKey},
		{"a list with a control character", "GET", "/list", prefix("users/u1/a\n"), ReasonNoKey},
		{"a list by a long prefix", "GET", "/list", prefix("users/u1/" + strings.Repeat("x", 1024)), ReasonNoKey},
		{"a narrower entry and no wish", "GET", "/all", nil, ReasonNoEntry},
		{"a narrower entry and its folder", "GET", "/all", prefix("users/u1/"), "users/u1/"},
		{"a narrower entry without the slash", "GET", "/all", prefix("users/u1"), ReasonNoEntry},
		{"one's own to be removed", "DELETE", "/files/users/u1/a", nil, "users/u1/a"},
		{"another's to be removed", "DELETE", "/files/users/u10/a", nil, ReasonNoEntry},
		{"the folder to be removed", "DELETE", "/files/users/u1", nil, ReasonNoEntry},
	} {
		d := p.Decide(servedInput(p, u1, c.method, c.path, c.change))
		if got := d.Key + map[bool]string{false: d.Reason}[d.Allow]; got != c.want {
			t.Errorf("%s: %q, want %q (%+v)", c.name, got, c.want, d)
		}
	}
	staff := bob(withUID("u1"), claim("roles", []any{"staff"}))
	if d := p.Decide(servedInput(p, staff, "GET", "/all", nil)); !d.Allow || d.Key != "users/" || d.Rule != "all/staff" {
		t.Errorf("%+v", d)
	}
}

// lookupsFunc is a Lookups of one function.
type lookupsFunc func(*Lookup, string) (Document, error)

func (f lookupsFunc) Lookup(l *Lookup, document string) (Document, error) { return f(l, document) }

// TestAttackHostilePrefixes: no uid and no wish lists outside the caller's own
// folder.
func TestAttackHostilePrefixes(t *testing.T) {
	p := mustLoad(t, serveRoutes)
	for _, uid := range slices.Concat(hostile, strange) {
		for _, prefix := range []string{"", "users/" + uid, "users/" + uid + "/", "users/" + uid + "/..", "users/" + uid + "/../", "users/" + uid + "/x", "users/", "/", uid} {
			d := p.Decide(servedInput(p, bob(withUID(uid)), "GET", "/list", func(in *Input) { in.Prefix = prefix }))
			if d.Allow && (!strings.HasPrefix(d.Key, "users/"+uid+"/") || slices.Contains(hostile, uid)) {
				t.Errorf("uid %.20q lists %.40q", uid, d.Key)
			}
		}
	}
}

// TestAttackFormVariable: S3 puts the name of the file that is sent in the place
// of ${filename} in a form's fields, so that a uid of that name would be the
// sender's choice.
func TestAttackFormVariable(t *testing.T) {
	p := mustLoad(t, header+`
  - {id: form, path: /form, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "users/${auth.uid}/${uuid}", method: POST, metadata: [name]}}
  - {id: put, path: /put, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "users/${auth.uid}/${uuid}", metadata: [name]}}
`)
	evil := bob(withUID("${filename}"))
	if _, d := ask(p, evil, "POST", "", "/form"); d.Allow || d.Reason != ReasonNoKey {
		t.Errorf("%+v", d)
	}
	m, d := ask(p, evil, "POST", "", "/put")
	if !d.Allow {
		t.Errorf("%+v", d)
	}
	u := UploadRequest{ContentType: "image/png", Metadata: map[string]string{"name": "a ${filename}"}}
	if v := m.Route.Object.Check(&u); v != nil {
		t.Errorf("%+v", v)
	}
	m, _ = ask(p, bob(), "POST", "", "/form")
	if v := m.Route.Object.Check(&u); v == nil || v.Field != "metadata" {
		t.Errorf("%+v", v)
	}
}

// TestAttackGETThatWrites: below the paths of multipart and uppy a GET signs
// uploads, so that a rule about POST is about it too.
func TestAttackGETThatWrites(t *testing.T) {
	p := mustLoad(t, `version: sidegate-policy/v1
identities: [users]
claims: {roles: list(string)}
guards:
  - {id: writers, methods: [POST, PUT, PATCH], require: {roles: [writer]}}
  - {id: removers, methods: [DELETE], require: {roles: [remover]}}
routes:
  - {id: uppy, path: "/uppy/{op...}", methods: [GET, POST, DELETE], serve: uppy, allow: [{who: [users]}], object: {key: "u/${uuid}"}}
  - {id: parts, path: "/parts/{op...}", methods: [GET, POST, DELETE], serve: multipart, allow: [{id: post, who: [users], methods: [POST]}, {id: cel, if: "request.method == 'GET'"}], object: {key: "u/${uuid}"}}
  - {id: get, path: /get, methods: [GET], serve: presign_download, allow: [{who: [users]}], object: {key: a}}
  - {id: remove, path: /remove, methods: [DELETE], serve: delete_object, allow: [{who: [users]}], object: {key: a}}
`)
	none, writer, remover := bob(), bob(claim("roles", []any{"writer"})), bob(claim("roles", []any{"remover"}))
	for _, c := range []struct {
		id           *Identity
		method, path string
		want         string
	}{
		{none, "GET", "/uppy/params", "writers"},
		{none, "HEAD", "/uppy/params", "writers"},
		{none, "POST", "/uppy/multipart", "writers"},
		{none, "DELETE", "/uppy/multipart/x", "removers"},
		{writer, "GET", "/uppy/params", "uppy/1"},
		{writer, "DELETE", "/uppy/multipart/x", "removers"},
		{remover, "DELETE", "/uppy/multipart/x", "uppy/1"},
		{none, "GET", "/parts/x/parts", "writers"},
		{writer, "GET", "/parts/x/parts", "parts/post"}, // and not the one for GET
		{writer, "HEAD", "/parts/x/parts", "parts/post"},
		{none, "GET", "/get", "get/1"},
		{none, "DELETE", "/remove", "removers"},
	} {
		if _, d := ask(p, c.id, c.method, "", c.path); d.Rule != c.want {
			t.Errorf("%s %s: %+v, want %s", c.method, c.path, d, c.want)
		}
	}
	if got := (*Route)(nil).CountsAs("GET"); got != "GET" {
		t.Error(got)
	}
}

// TestDenyMeetsBroaderLists: what lists more than a denied folder lists the
// folder too.
func TestDenyMeetsBroaderLists(t *testing.T) {
	p := mustLoad(t, `version: sidegate-policy/v1
identities: [users]
guards:
  - {id: secret, deny: {key_prefix: users/secret/}}
routes:
  - {id: list, path: /list, methods: [GET], serve: list_objects, allow: [{who: [users]}], object: {prefix: users/}}
  - {id: get, path: "/get/{key...}", methods: [GET], serve: presign_download, allow: [{who: [users], key_prefix: users/}], object: {key: "${params.key}"}}
`)
	for prefix, allowed := range map[string]bool{"": false, "users/": false, "users/s": false, "users/secret/": false, "users/secret/a": false, "users/secreta": true, "users/u1/": true} {
		if d := p.Decide(servedInput(p, bob(), "GET", "/list", func(in *Input) { in.Prefix = prefix })); d.Allow != allowed {
			t.Errorf("%q: %+v", prefix, d)
		}
	}
	for key, allowed := range map[string]bool{"users/secret/a": false, "users/secret": true, "users/u": true} {
		if _, d := ask(p, bob(), "GET", "", "/get/"+key); d.Allow != allowed {
			t.Errorf("%q: %+v", key, d)
		}
	}
}

// FuzzPrefix: what is listed lies within the caller's folder and could begin a
// key, whatever the uid and the wish.
func FuzzPrefix(f *testing.F) {
	for _, s := range slices.Concat(hostile, strange) {
		f.Add(s, "users/"+s+"/")
		f.Add("u1", s)
		f.Add("u1", "users/u1/"+s)
	}
	p := mustLoad(f, serveRoutes)
	f.Fuzz(func(t *testing.T, uid, prefix string) {
		d := p.Decide(servedInput(p, bob(withUID(uid)), "GET", "/list", func(in *Input) { in.Prefix = prefix }))
		if !d.Allow {
			return
		}
		rest, ok := strings.CutPrefix(d.Key, "users/"+uid+"/")
		if !ok || strings.Contains(uid, "/") || len(d.Key) < maxKey && !ValidKey("users/"+uid+"/"+rest+"x") || (prefix != "" && d.Key != prefix) {
			t.Fatalf("uid %q, prefix %q: lists %q", uid, prefix, d.Key)
		}
	})
}

// FuzzBodyKey: a key that a body names is signed byte for byte or not at all,
// and lies where an entry says.
func FuzzBodyKey(f *testing.F) {
	for _, s := range slices.Concat(hostile, strange) {
		f.Add(s, "users/"+s+"/a")
		f.Add("u1", "users/u1/"+s)
	}
	p := mustLoad(f, serveRoutes)
	f.Fuzz(func(t *testing.T, uid, key string) {
		d := p.Decide(servedInput(p, bob(withUID(uid)), "POST", "/batch", func(in *Input) { in.BodyKey = key }))
		if d.Allow && (d.Key != key || !ValidKey(key) || !strings.HasPrefix(key, "users/"+uid+"/") || strings.Contains(uid, "/")) {
			t.Fatalf("uid %q, key %q: signs %q", uid, key, d.Key)
		}
	})
}
