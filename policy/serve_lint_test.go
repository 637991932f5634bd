package policy

import (
	"fmt"
	"slices"
	"testing"
)

// TestLintOfServedRoutes: what is said of the routes that the gateway answers
// itself, «SG102» and so on where it is said.
func TestLintOfServedRoutes(t *testing.T) {
	marked := lintHeader + `routes:
  - {id: up, path: /up, methods: [POST], serve: «SG105»presign_uploads, allow: [{who: [users]}], object: {key: "u/${uuid}", content_types: [«SG113»'*/*'], expires: {max: «SG106»1h}}}
  - {id: down, path: /down, methods: [POST], serve: «SG105»presign_downloads, allow: [{who: [users], key_prefix: a/}], object: {key: "${request.key}", expires: {max: «SG106»1h}}}
  - {id: parts, path: "/parts/{op...}", methods: [GET, POST, DELETE], serve: «SG105»multipart, allow: [{who: [users]}], object: {key: "u/${uuid}", content_types: [«SG113»text/html]}}
  - {id: uppy, path: "/uppy/{op...}", methods: [GET, POST, DELETE], serve: «SG105»uppy, allow: [{who: [users], methods: «SG102»[POST, DELETE]}], object: {key: "u/${uuid}"}}
  - {id: some, path: "/some/{op...}", methods: [GET, POST, DELETE], serve: uppy, allow: [{who: [users], methods: [POST]}, «SG101»{who: [users], roles: [a], methods: [POST]}, {who: [users], methods: [DELETE]}], object: {key: "u/${uuid}"}, limit: {rate: 1/s, per: uid}}
  - {id: remove, path: /remove, methods: [DELETE], serve: «SG105»delete_object, allow: [{who: [users]}], object: {key: a}}
  - {id: list, path: /list, methods: [GET], serve: «SG105»list_objects, allow: [{who: [users]}], object: {prefix: a/}}
  - {id: mine, path: /mine, methods: [GET], serve: list_uploads, allow: [{who: [users]}]}
  - {id: agents, path: /agents, methods: [GET], upstream: app, allow: [{who: [agents]}]}
`
	text, want := unmarked(marked)
	var got []string
	for _, f := range Lint("policy.yaml", []byte(text), LintOptions{Now: lintNow}) {
		got = append(got, fmt.Sprintf("%d:%d %s", f.Line, f.Column, f.ID))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	// A guard about GET meets no request of uppy's, and one about POST all of them.
	guarded := lintHeader + `guards:
  - {id: reads, methods: [GET], path: "/uppy/{op...}", deny: {roles: [a]}}
routes:
  - {id: uppy, path: "/uppy/{op...}", methods: [GET, POST, DELETE], serve: uppy, allow: [{who: [users, agents]}], object: {key: "u/${uuid}"}, limit: {rate: 1/s, per: uid}}
`
	var ids []string
	for _, f := range Lint("policy.yaml", []byte(guarded), LintOptions{Now: lintNow}) {
		ids = append(ids, f.ID)
	}
	if !slices.Equal(ids, []string{"SG102"}) {
		t.Errorf("%v", ids)
	}
}
