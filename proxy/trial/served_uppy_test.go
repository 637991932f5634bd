package trial

import (
	"slices"
	"testing"

	"sidegate/policy"
)

// uppyPolicy is servedPolicy with Uppy's routes.
const uppyPolicy = servedPolicy + `  - {id: uppy, path: "/s3/{op...}", methods: [GET, POST, DELETE], serve: uppy, allow: [{who: [users], roles: [writer]}], object: {key: "users/${auth.uid}/${uuid}", content_types: [image/png], max_bytes: 1GiB}}
`

func TestProbesSeeUppyBothWays(t *testing.T) {
	g := gateOf(t, uppyPolicy)
	c := NewCoverage(g.Policy)
	allowed := map[string]bool{}
	for p := range policy.Probes(policy.MaxProbes, g.Policy).All() {
		j := g.Judge(probeRequest(p))
		c.See(&j)
		if j.Allow && j.Input.Route.ID == "uppy" {
			allowed[p.Method] = true
		}
	}
	if u := c.Untested(); len(u) > 0 || !allowed["GET"] || !allowed["POST"] || !allowed["DELETE"] {
		t.Errorf("never seen: %v; allowed %v", u, allowed)
	}
	for _, c := range []struct{ old, new string }{
		{`content_types: [image/png], max_bytes: 1GiB}}`, `content_types: [image/gif], max_bytes: 1GiB}}`},
		{`roles: [writer]}], object`, `roles: [author]}], object`},
	} {
		if d := Diff(gateOf(t, uppyPolicy), gateOf(t, changed(t, uppyPolicy, c.old, c.new)), nil, Comparison{Examples: 3}); d.Changed == 0 {
			t.Errorf("%s: nothing of %d probes shows", c.new, d.Probes)
		}
	}
}

// TestReplayOfUppy records what Uppy's clients ask for, and replays it.
func TestReplayOfUppy(t *testing.T) {
	gw := newLogged(t, uppyPolicy)
	gw.uploads.Store = oneSession{route: "uppy"}
	session := "/s3/multipart/" + sessionID
	for _, q := range [][3]string{
		{"GET", "/s3/params?filename=a.png&type=image/png", ""},
		{"GET", "/s3/params?filename=a.html&type=text/html", ""},
		{"POST", "/s3/multipart", `{"filename":"a.png","type":"image/png","metadata":{}}`},
		{"POST", "/s3/sign", `{"method":"PUT","key":"a.png","contentType":"image/png"}`},
		{"GET", session + "?key=users/alice/x", ""},
		{"GET", session + "/7?key=users/alice/x", ""},
		{"GET", session + "/batch?key=users/alice/x&partNumbers=1,2", ""},
		{"POST", session + "/complete?key=users/alice/x", `{"parts":[{"PartNumber":1,"ETag":"a"}]}`},
		{"DELETE", session + "?key=users/alice/x", ""},
	} {
		r := &Request{Method: q[0], Target: q[1], Host: defaultHost, IP: defaultIP, Time: when, Identity: &policy.Identity{
			Name: "users", Namespace: "users", UID: "alice", Claims: policy.ClaimMap{"roles": []any{"writer"}}, AuthTime: when,
		}}
		if q[2] != "" {
			r.Body = []byte(q[2])
		}
		gw.serve(r)
	}
	dir := gw.closed()
	same := replayOf(t, dir, uppyPolicy, Replay{Examples: 9})
	if same.Changed != 0 || same.Undecidable != 0 || same.Same < 9 {
		t.Errorf("%+v", same)
		for _, c := range same.Changes {
			t.Errorf("%+v", c)
		}
	}
	// What was asked about a session is judged by the session's key.
	held := replayOf(t, dir, changed(t, uppyPolicy, `deny: {key_prefix: users/secret/}`, `deny: {if: "has(object.key) && object.key == 'users/alice/x'"}`), Replay{Examples: 99})
	if held.Changed != 5 || held.Undecidable != 0 {
		t.Errorf("%+v", held)
	}
	other := replayOf(t, dir, changed(t, uppyPolicy, `content_types: [image/png], max_bytes: 1GiB}}`, `content_types: [image/gif], max_bytes: 1GiB}}`), Replay{Examples: 99})
	var got []string
	for _, c := range other.Changes {
		for _, x := range c.Examples {
			got = append(got, x.Method+" "+x.Target)
		}
	}
	slices.Sort(got)
	want := []string{"GET /s3/params?filename=a&type=image%2Fpng", "POST /s3/multipart", "POST /s3/sign"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
