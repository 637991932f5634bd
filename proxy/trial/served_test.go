package trial

import (
	"context"
	"slices"
	"strings"
	"testing"

	"sidegate/policy"
	"sidegate/storage/audit"
	"sidegate/storage/upload"
)

// servedPolicy has each operation that the gateway serves.
const servedPolicy = `version: sidegate-policy/v1
identities: [users]
claims: {roles: list(string)}
lookups:
  share: {document: "shares/${sha256(request.key)}", fields: {readers: list(string)}}
guards:
  - {id: no-secrets, deny: {key_prefix: users/secret/}}
  - {id: writers, methods: [POST, DELETE], path: "/parts/{op...}", require: {roles: [writer]}}
routes:
  - {id: up, path: /up, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "users/${auth.uid}/${uuid}${ext}", content_types: [image/png], max_bytes: 1KiB, checksum: crc64nvme}}
  - {id: form, path: /form, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "users/${auth.uid}/${uuid}", method: POST, max_bytes: 1KiB}}
  - {id: ups, path: /ups, methods: [POST], serve: presign_uploads, allow: [{who: [users]}], object: {key: "users/${auth.uid}/${uuid}", content_types: [image/png]}}
  - {id: confirm, path: "/up/{session}", methods: [POST], serve: confirm_upload, allow: [{who: [users]}]}
  - {id: state, path: "/up/{session}", methods: [GET], serve: get_upload, allow: [{who: [users]}]}
  - {id: mine, path: /mine, methods: [GET], serve: list_uploads, allow: [{who: [users]}]}
  - {id: down, path: "/down/{key...}", methods: [GET], serve: presign_download, allow: [{who: [users], key_prefix: "users/${auth.uid}/"}], object: {key: "${params.key}"}}
  - id: downs
    path: /downs
    methods: [POST]
    serve: presign_downloads
    allow: [{id: own, who: [users], key_prefix: "users/${auth.uid}/"}, {id: shared, who: [users], if: auth.uid in lookup.share.readers}]
    object: {key: "${request.key}"}
  - {id: parts, path: "/parts/{op...}", methods: [GET, POST, DELETE], serve: multipart, allow: [{who: [users]}], object: {key: "users/${auth.uid}/${uuid}", max_bytes: 1GiB}}
  - {id: sums, path: "/sums/{op...}", methods: [GET, POST, DELETE], serve: multipart, allow: [{who: [users]}], object: {key: "users/${auth.uid}/${uuid}", checksum: sha256}}
  - {id: remove, path: "/down/{key...}", methods: [DELETE], serve: delete_object, allow: [{who: [users], key_prefix: "users/${auth.uid}/"}], object: {key: "${params.key}"}}
  - {id: list, path: /list, methods: [GET], serve: list_objects, allow: [{id: own, who: [users], key_prefix: "users/${auth.uid}/"}, {id: staff, roles: [staff]}], object: {prefix: users/}}
`

// TestProbesSeeServedRoutesBothWays: the generated requests make every rule true
// and false, and every route allow.
func TestProbesSeeServedRoutesBothWays(t *testing.T) {
	g := gateOf(t, servedPolicy)
	c := NewCoverage(g.Policy)
	allowed := map[string]bool{}
	for p := range policy.Probes(policy.MaxProbes, g.Policy).All() {
		j := g.Judge(probeRequest(p))
		c.See(&j)
		if j.Allow {
			allowed[j.Input.Route.ID] = true
		}
	}
	if u := c.Untested(); len(u) > 0 {
		t.Errorf("never seen: %v", u)
	}
	for _, r := range g.Policy.Routes {
		if !allowed[r.ID] {
			t.Errorf("route %s never allowed anything", r.ID)
		}
	}
}

// TestDiffOfServedRoutes: what changes whom or what a served route is for shows.
func TestDiffOfServedRoutes(t *testing.T) {
	for _, c := range []struct{ old, new string }{
		{`checksum: crc64nvme`, `checksum: sha256`},
		{`method: POST, max_bytes: 1KiB`, `method: POST, max_bytes: 1B`},
		{`max_bytes: 1GiB`, `max_bytes: 2GiB`},
		{`, checksum: sha256}`, `, checksum: crc64nvme}`},
		{`object: {prefix: users/}`, `object: {prefix: "users/${auth.uid}/"}`},
		{`{id: staff, roles: [staff]}`, `{id: staff, roles: [admin]}`},
		{`[{id: own, who: [users], key_prefix: "users/${auth.uid}/"}, {id: shared`, `[{id: own, who: [users], key_prefix: "users/"}, {id: shared`},
		{`deny: {key_prefix: users/secret/}`, `deny: {key_prefix: users/secret/a/}`},
		{`methods: [POST, DELETE], path: "/parts/{op...}"`, `methods: [DELETE], path: "/parts/{op...}"`},
		{`{id: ups, path: /ups, methods: [POST], serve: presign_uploads, allow: [{who: [users]}], object: {key: "users/${auth.uid}/${uuid}"`, `{id: ups, path: /ups, methods: [POST], serve: presign_uploads, allow: [{who: [users]}], object: {key: "users/${auth.uid}/a/${uuid}"`},
	} {
		d := Diff(gateOf(t, servedPolicy), gateOf(t, changed(t, servedPolicy, c.old, c.new)), nil, Comparison{Examples: 3})
		if d.Changed == 0 {
			t.Errorf("%s: nothing of %d probes shows", c.new, d.Probes)
		}
	}
	for _, c := range []struct{ old, new, says string }{
		{`max_bytes: 1GiB}`, `max_bytes: 1GiB}, quota: {objects: 3, window: 1h}`, "quota of route parts"},
		{`max_bytes: 1GiB}`, `max_bytes: 1GiB, late: delete, metadata: [a]}`, "late, metadata of route parts"},
		{`${uuid}", content_types`, `${uuid}", method: POST, content_types`, "method of route ups"},
	} {
		if got := policy.Uncompared(gateOf(t, servedPolicy).Policy, gateOf(t, changed(t, servedPolicy, c.old, c.new)).Policy); !slices.Equal(got, []string{c.says}) {
			t.Errorf("%s: %q", c.new, got)
		}
	}
}

// oneSession is a store with one session of alice, that began at the route.
type oneSession struct {
	noStore
	route string
}

const sessionID = "0123456789abcdef0123456789abcdef"

func (s oneSession) Get(_ context.Context, id string) (*upload.Session, error) {
	if id != sessionID {
		return nil, upload.ErrNotFound
	}
	return &upload.Session{ID: id, Namespace: "users", UID: "alice", Identity: "users", Route: s.route, Bucket: "default", Key: "users/alice/x", ContentType: "image/png", Size: 8 << 20, Multipart: true, Status: upload.Uploading}, nil
}

// TestReplayOfServedRoutes records each operation, and replays the log by the same
// policy and by others: what it depended on is on record.
func TestReplayOfServedRoutes(t *testing.T) {
	gw := newLogged(t, servedPolicy)
	gw.uploads.Store = oneSession{route: "parts"}
	alice := func(method, target, body string) *Request {
		q := &Request{Method: method, Target: target, Host: defaultHost, IP: defaultIP, Time: when, Identity: &policy.Identity{
			Name: "users", Namespace: "users", UID: "alice", Claims: policy.ClaimMap{"roles": []any{"writer"}}, AuthTime: when,
		}}
		if body != "" {
			q.Body = []byte(body)
		}
		return q
	}
	for _, q := range []*Request{
		alice("POST", "/up", `{"contentType":"image/png","size":9,"checksumCrc64nvme":"rosUhgp5mIg="}`),
		alice("POST", "/up", `{"contentType":"image/png","size":9000,"checksumCrc64nvme":"rosUhgp5mIg="}`),
		alice("POST", "/form", `{"contentType":"image/png"}`),
		alice("POST", "/sums", `{"contentType":"image/png","partChecksums":"sha256"}`),
		alice("POST", "/ups", `{"uploads":[{"contentType":"image/png"},{"contentType":"image/gif"}]}`),
		alice("POST", "/up/"+sessionID, ""),
		alice("GET", "/up/"+sessionID, ""),
		alice("GET", "/mine", ""),
		alice("GET", "/down/users/alice/x", ""),
		alice("POST", "/downs", `{"downloads":[{"key":"users/alice/a"},{"key":"users/bob/b"},{"key":"users/secret/c"}]}`),
		alice("POST", "/parts", `{"contentType":"image/png","size":9}`),
		alice("POST", "/parts/"+sessionID+"/parts", `{"parts":[{"partNumber":1},{"partNumber":2},{"partNumber":7}]}`),
		alice("GET", "/parts/"+sessionID+"/parts", ""),
		alice("POST", "/parts/"+sessionID+"/complete", ""),
		alice("DELETE", "/parts/"+sessionID, ""),
		alice("DELETE", "/down/users/alice/x", ""),
		alice("GET", "/list?prefix=users/alice/", ""),
		alice("GET", "/list?prefix=users/bob/", ""),
		alice("GET", "/list", ""),
	} {
		gw.serve(q)
	}
	dir := gw.closed()
	events := 0
	for l, err := range audit.Lines(dir) {
		if err == nil && l.Type == audit.TypeDecision {
			events++
		}
	}
	same := replayOf(t, dir, servedPolicy, Replay{Examples: 9})
	// Two batches whose items are on record by themselves. What a broken store
	// refused was allowed by the policy, and so counts.
	if same.Codes["batch"] != 2 || same.Changed != 0 || same.Undecidable != 0 || same.Same+same.Skipped != events || same.Same < 18 {
		t.Errorf("%d events: %+v", events, same)
		for _, c := range same.Changes {
			t.Errorf("%+v", c)
		}
	}
	for name, c := range map[string]struct {
		old, new string
		targets  []string // whose decisions change
	}{
		"sessions are judged by their own keys": {`deny: {key_prefix: users/secret/}`, `deny: {key_prefix: users/alice/x/}`, []string{"GET /list?prefix=users%2Falice%2F"}},
		"a guard of the session's key": {`deny: {key_prefix: users/secret/}`, `deny: {if: "has(object.key) && object.key == 'users/alice/x'"}`,
			[]string{"DELETE /down/users/alice/x", "DELETE /parts/" + sessionID, "GET /down/users/alice/x", "GET /parts/" + sessionID + "/parts", "POST /parts/" + sessionID + "/complete", "POST /parts/" + sessionID + "/parts"}},
		"a guard of listed prefixes":    {`deny: {key_prefix: users/secret/}`, `deny: {key_prefix: users/alice/z/}`, []string{"GET /list?prefix=users%2Falice%2F"}},
		"a guard of keys in a body":     {`deny: {key_prefix: users/secret/}`, `deny: {if: "request.path == '/downs' && object.key.startsWith('users/alice/')"}`, []string{"POST /downs"}},
		"another type for many uploads": {`${uuid}", content_types: [image/png]`, `${uuid}", content_types: [image/gif]`, []string{"POST /ups", "POST /ups"}},
		"a smaller size":                {`max_bytes: 1GiB`, `max_bytes: 1B`, []string{"POST /parts"}},
	} {
		r := replayOf(t, dir, changed(t, servedPolicy, c.old, c.new), Replay{Examples: 99})
		var got []string
		for _, change := range r.Changes {
			for _, x := range change.Examples {
				got = append(got, x.Method+" "+x.Target)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, c.targets) {
			t.Errorf("%s: %s\nundecidable: %v", name, strings.Join(got, "\n\t"), r.Why)
		}
	}
}
