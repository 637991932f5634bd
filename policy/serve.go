package policy

import (
	"net/http"
	"slices"
	"strings"

	"sidegate/policy/document"
)

// An operation is what the loader, and decisions, know of a served operation.
type operation struct {
	name    string
	methods []string // those of its routes, no more and no less
	object  []string // the keys that its `object` may have; nil: it has none
	session bool     // the path names a session: it has a capture {session}
	below   bool     // one route takes all paths below its own: it ends in {x...}
}

// servedOperations are all that can be served.
var servedOperations = []operation{
	{name: PresignUpload, methods: post, object: uploadKeys},
	{name: PresignUploads, methods: post, object: uploadKeys},
	{name: ConfirmUpload, methods: post, session: true},
	{name: PresignDownload, methods: get, object: downloadKeys},
	{name: PresignDownloads, methods: post, object: downloadKeys},
	{name: Multipart, methods: below, object: multipartKeys, below: true},
	{name: Uppy, methods: below, object: uppyKeys, below: true},
	{name: DeleteObject, methods: []string{http.MethodDelete}, object: []string{"bucket", "key"}},
	{name: ListObjects, methods: get, object: []string{"bucket", "prefix"}},
	{name: ListUploads, methods: get},
	{name: GetUpload, methods: get, session: true},
}

var (
	get   = []string{http.MethodGet}
	post  = []string{http.MethodPost}
	below = []string{http.MethodGet, http.MethodPost, http.MethodDelete}

	downloadKeys = []string{"bucket", "key", "expires", "disposition"}
	// A store says no SHA-256 of the whole of a multipart upload, and Uppy's
	// clients name no checksums and no way of their own to send: readChecksum.
	multipartKeys = []string{"bucket", "key", "content_types", "max_bytes", "checksum", "expires", "confirm_within", "overwrite", "late", "metadata"}
	uploadKeys    = append(slices.Clone(multipartKeys), "method")
	uppyKeys      = slices.DeleteFunc(slices.Clone(uploadKeys), func(key string) bool { return key == "checksum" })
)

// served are their names.
var served = func() (names []string) {
	for _, o := range servedOperations {
		names = append(names, o.name)
	}
	return names
}()

// operation is what is known of what the route serves; the zero one where it
// serves nothing.
func (r *Route) operation() operation {
	for _, o := range servedOperations {
		if o.name == r.Serve {
			return o
		}
	}
	return operation{}
}

// signs reports whether objects are made, read or removed by the operation.
func (o operation) signs() bool { return o.object != nil }

// signsURLs reports whether the operation makes URLs.
func (o operation) signsURLs() bool { return slices.Contains(o.object, "expires") }

// begins reports whether uploads begin by the operation.
func (o operation) begins() bool { return slices.Contains(o.object, "content_types") }

// BeginsUploads reports whether uploads begin at the route.
func (r *Route) BeginsUploads() bool { return r.operation().begins() }

// operationsOf names the operations that a key of `object` is for.
func operationsOf(key string) []string {
	var names []string
	for _, o := range servedOperations {
		if slices.Contains(o.object, key) {
			names = append(names, o.name)
		}
	}
	return names
}

// CountsAs is the method that a request counts as, in guards, entries,
// conditions and the rule for cookies: what it can do. Below the path of
// multipart and uppy a GET can lead to a write, and counts as POST.
func (r *Route) CountsAs(method string) string {
	if r != nil && (r.Serve == Multipart || r.Serve == Uppy) && (method == http.MethodGet || method == http.MethodHead) {
		return http.MethodPost
	}
	return method
}

// counted are the route's methods as they count.
func (r *Route) counted() methodSet {
	if r.Serve != Multipart && r.Serve != Uppy {
		return r.methods
	}
	var set methodSet
	for _, m := range r.methods.list() {
		set |= methodBit(r.CountsAs(m))
	}
	return set
}

// method is the method that the request counts as.
func (in *Input) method() string { return in.Route.CountsAs(in.Method) }

// checkServe holds a route's methods and path against what it serves.
func (l *loader) checkServe(m document.Map, r *Route) {
	o := r.operation()
	if o.name == "" {
		return
	}
	var want methodSet
	for _, method := range o.methods {
		want |= methodsOf(method)
	}
	if r.methods != 0 && r.methods != want {
		all := strings.Join(o.methods, ", ")
		m.Get("methods").Errorf("`serve: %s` answers to %s: write `methods: [%s]`", o.name, all, all)
	}
	for _, key := range []string{"websocket", "timeout", "max_body"} {
		if v := m.Get(key); v.Present() {
			v.Errorf("`%s` is for routes with an upstream", key)
		}
	}
	path := m.Get("path")
	if single, _ := r.path.capturesAs("session"); o.session && !single && path.IsString() {
		path.Errorf("`serve: %s` needs a capture {session} in its path", o.name)
	}
	if o.below && !r.path.broken && path.IsString() && (!r.path.rest || len(r.path.suffix) > 0) {
		path.Errorf("`serve: %s` answers to all paths below its own: end the path in a capture of the rest, as /uploads/{op...}", o.name)
	}
}

// Path is the route's path as the policy writes it.
func (r *Route) Path() string { return r.path.String() }
