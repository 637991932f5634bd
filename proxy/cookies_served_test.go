package proxy

import (
	"strings"
	"sync/atomic"
	"testing"
)

// TestAttackCrossSiteGETThatWrites: below the paths of multipart and uppy a GET
// can begin an upload or go on with one. Another site can have a browser send it,
// cookie and all, by no more than a picture.
func TestAttackCrossSiteGETThatWrites(t *testing.T) {
	_, _, uploads := withUploads()
	g := newGate(t, "http://127.0.0.1:1", uploads, func(o *Options) {
		o.Policy = loadPolicy(t, `version: sidegate-policy/v1
identities: [users]
routes:
  - {id: parts, path: "/parts/{op...}", methods: [GET, POST, DELETE], serve: multipart, allow: [{who: [users]}], object: {key: "u/${auth.uid}/${uuid}"}}
  - {id: uppy, path: "/uppy/{op...}", methods: [GET, POST, DELETE], serve: uppy, allow: [{who: [users]}], object: {key: "u/${auth.uid}/${uuid}"}}
  - {id: list, path: /list, methods: [GET], serve: list_objects, allow: [{who: [users]}], object: {prefix: "u/${auth.uid}/"}}
`)
		o.SessionCookies = map[string]Authenticator{"__session": cookieTokens{"users", new(atomic.Int64)}}
	})
	const cookie = "Cookie: __session=s-alice"
	for _, target := range []string{"/parts/0123456789abcdef0123456789abcdef/parts", "/uppy/params?filename=a.png&type=image/png"} {
		for _, method := range []string{"GET", "HEAD"} {
			for _, lines := range [][]string{{"Sec-Fetch-Site: cross-site"}, {"Sec-Fetch-Site: same-site"}, {}} {
				if a := g.send(method, target, "", append([]string{cookie}, lines...)...); a.StatusCode != 403 || method == "GET" && !strings.Contains(a.body, codeCrossOrigin) {
					t.Errorf("%s %s %s: %d %s", method, target, lines, a.StatusCode, a.body)
				}
			}
			if a := g.send(method, target, "", cookie, "Sec-Fetch-Site: same-origin"); a.StatusCode == 403 {
				t.Errorf("%s %s from the own site: %d %s", method, target, a.StatusCode, a.body)
			}
		}
	}
	// What only looks is as safe as it was: another site learns nothing of it.
	if a := g.send("GET", "/list", "", cookie, "Sec-Fetch-Site: cross-site"); a.StatusCode == 403 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}
