package policy

import (
	"fmt"
	"strings"
	"testing"
)

func TestGrants(t *testing.T) {
	p := mustLoad(t, `version: sidegate-policy/v1
identities: [users]
claims: {roles: list(string)}
vars: {folder: media}
lookups: {share: {document: "shares/${sha256(params.key)}", fields: {readers: list(string)}}}
routes:
  - {id: put, path: /put, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "users/${auth.uid}/${uuid}", late: delete}}
  - {id: form, path: /form, methods: [POST], serve: presign_uploads, allow: [{who: [users]}], object: {bucket: archive, key: "a/b-${uuid}", method: POST, expires: {max: 1h}}}
  - {id: one, path: /one, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: site/logo.png, overwrite: true}}
  - {id: parts, path: "/parts/{op...}", methods: [GET, POST, DELETE], serve: multipart, allow: [{who: [users]}], object: {key: "${vars.folder}/${auth.uid}/${uuid}"}}
  - {id: uppy, path: "/uppy/{op...}", methods: [GET, POST, DELETE], serve: uppy, allow: [{who: [users]}], object: {bucket: archive, key: "${auth.uid}/${uuid}"}}
  - id: get
    path: "/get/{key...}"
    methods: [GET]
    serve: presign_download
    allow:
      - {who: [users], key_prefix: "users/${auth.uid}/"}
      - {roles: [staff], key_prefix: users/}
      - {roles: [chief], key_prefix: reports/}
      - {roles: [trial], key_prefix: secret/, mode: dry_run, since: 2026-01-01}
    object: {key: "${params.key}"}
  - {id: shared, path: "/shared/{key...}", methods: [GET], serve: presign_download, allow: [{who: [users], key_prefix: a/}, {who: [users], if: auth.uid in lookup.share.readers}], object: {bucket: archive, key: "${params.key}"}}
  - {id: remove, path: "/get/{key...}", methods: [DELETE], serve: delete_object, allow: [{who: [users], key_prefix: "users/${auth.uid}/x/"}], object: {key: "${params.key}"}}
  - {id: list, path: /list, methods: [GET], serve: list_objects, allow: [{who: [users]}], object: {prefix: "users/${auth.uid}/"}}
  - {id: listed, path: /listed, methods: [GET], serve: list_objects, allow: [{who: [users]}], object: {prefix: site/}}
  - {id: trial, path: /trial, methods: [GET], serve: presign_download, allow: [{who: [users], mode: dry_run, since: 2026-01-01}], object: {key: trial/a}}
  - {id: mine, path: /mine, methods: [GET], serve: list_uploads, allow: [{who: [users]}]}
`)
	var got []string
	for _, g := range p.Grants() {
		text := fmt.Sprintf("%s %s %s:%s", g.Route, g.Does, g.Bucket, g.Prefix)
		for _, flag := range []struct {
			set  bool
			name string
		}{{g.Exact, "exact"}, {g.Overwrite, "overwrite"}, {g.Form, "form"}, {g.Expires > 0, g.Expires.String()}} {
			if flag.set {
				text += " " + flag.name
			}
		}
		got = append(got, text)
	}
	want := `shared get archive: 15m0s
uppy multipart archive: 15m0s
uppy purge archive:
uppy put archive: form 15m0s
form put archive:a/b- form 1h0m0s
parts multipart default:media/ 15m0s
get get default:reports/ 15m0s
listed list default:site/
one put default:site/logo.png exact overwrite 15m0s
remove delete default:users/
get get default:users/ 15m0s
list list default:users/
put purge default:users/
put put default:users/ 15m0s`
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("got\n%s", text)
	}
}
