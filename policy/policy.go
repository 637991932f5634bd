// Package policy answers one question: may this identity do this? A policy is
// loaded from YAML, whole or not at all, and is immutable afterwards. Nothing
// here asks the network or the clock, and nothing logs.
//
// The order of the rules is in docs/policy.md. The zero Decision denies.
package policy

import (
	"net/http"
	"strings"
	"time"
)

// Version is the format that Load reads.
const Version = "sidegate-policy/v1"

// Reason codes of decisions. A refusal for another reason bears the error code
// of the HTTP reference (docs/http.md).
const (
	ReasonEntry      = "entry"       // an allow entry is true
	ReasonPublic     = "public"      // the route is public or optional
	ReasonNoEntry    = "no_entry"    // no allow entry is true
	ReasonEntryError = "entry_error" // none is true, and one could not be told
	ReasonNoRoute    = "no_route"
	ReasonMethod     = "method"
	ReasonNoToken    = "no_token"
	ReasonNoKey      = "no_key" // the object key could not be made

	ReasonDenyTrue     = "deny_true"     // a guard's deny is true
	ReasonDenyError    = "deny_error"    // it could not be told
	ReasonRequireFalse = "require_false" // a guard's require is false
	ReasonRequireError = "require_error" // it could not be told
	ReasonUnavailable  = "unavailable"   // a document could not be read: 503
)

// A Policy is one loaded file. It is safe for concurrent use.
type Policy struct {
	Name   string
	SHA256 string // of the file, lower-case hex
	Routes []*Route

	hosts  hostTable
	claims []string
	inputs inputSet
	shadow []string
	guards []*guard

	identities []string
	lookups    map[string]*Lookup
}

// DryRuns are the guards and entries in dry_run: the only names that a
// Decision's Shadow can have. It must not be changed.
func (p *Policy) DryRuns() []string { return p.shadow }

// Claims are the names of the claims that the policy declares, sorted: what an
// upstream is told of an identity beside its uid. It must not be changed.
func (p *Policy) Claims() []string { return p.claims }

// Access says who needs a token on a route.
type Access uint8

const (
	AccessList     Access = iota // an identity, and an entry that is true
	AccessOptional               // a token is verified where there is one
	AccessPublic                 // the token is not looked at
)

// Served operations.
const (
	PresignUpload    = "presign_upload"
	PresignUploads   = "presign_uploads" // up to 100 in one request
	ConfirmUpload    = "confirm_upload"
	PresignDownload  = "presign_download"
	PresignDownloads = "presign_downloads" // up to 100, whose keys the body names
	Multipart        = "multipart"         // create, parts, complete and abort below one path
	Uppy             = "uppy"              // what Uppy's clients call, below one path
	DeleteObject     = "delete_object"
	ListObjects      = "list_objects"
	ListUploads      = "list_uploads" // of the caller's own
	GetUpload        = "get_upload"   // of the caller's own
)

// A Route says what happens to the requests it matches. Its fields are never
// changed after Load.
type Route struct {
	ID       string
	Access   Access
	Upstream string  // or
	Serve    string  // one of the served operations
	Object   *Object // of the served operations that make or read objects
	Quota    *Quota  // of what a user uploads; nil: none

	EncodedSlash bool          // %2F in the target is decoded instead of refused
	WebSocket    bool          // upgrades to websocket pass
	Timeout      time.Duration // to the upstream's response header; 0: the upstream's own
	MaxBody      int64         // bytes; 0: the upstream's own
	Record       Record        // how the audit log treats its requests

	IPLimits []*Limit // per ip: they come before identity
	Limits   []*Limit // all others: they come after allow

	hosts   []string
	path    pattern
	methods methodSet
	guards  []guardAt
	entries []*condition

	asksAppCheck bool
}

// A Quota bounds what one user begins to upload at a route within a window.
type Quota struct {
	Bytes   int64 // 0: no bound
	Objects int64 // 0: no bound
	Window  time.Duration
}

// Record is a route's own word on the audit log.
type Record uint8

const (
	RecordDefault Record = iota // as sidegate.yaml says
	RecordPower                 // at least fsynced
	RecordMachine               // at least acknowledged by Firestore
	RecordOff                   // not recorded where allowed (public routes only)
)

// Match is the outcome of routing.
type Match struct {
	Route  *Route // nil where no route fits
	Params Params
	// Allowed lists the methods of the path, where the request's is none of
	// them; Route is nil then.
	Allowed []string
}

// Code is "" where a route was found, else ReasonNoRoute or ReasonMethod.
func (m *Match) Code() string {
	switch {
	case m.Route != nil:
		return ""
	case m.Allowed != nil:
		return ReasonMethod
	}
	return ReasonNoRoute
}

// ownSegment begins the paths that are the gateway's own.
const ownSegment = ".sidegate"

// maxHost is the longest name that DNS has, in bytes (RFC 1035, 2.3.4).
const maxHost = 253

// Match finds the route of a canonical request: host in lower case without
// port or final dot, path decoded, method one that KnownMethod knows. No route
// fits a path that is not canonical (`//`, no slash at its start), nor one of
// the gateway's own, whatever a catch-all says.
func (p *Policy) Match(host, path, method string) Match {
	bit := methodBit(method)
	var segments [32]string
	parts, ok := split(segments[:0], path)
	if !ok || len(host) > maxHost || (len(parts) > 0 && parts[0] == ownSegment) {
		return Match{}
	}
	g := p.hosts.find(host, parts)
	if g == nil {
		return Match{}
	}
	for _, r := range g.routes {
		if r.methods&bit != 0 {
			return Match{Route: r, Params: r.path.capture(parts, path)}
		}
	}
	var all methodSet
	for _, r := range g.routes {
		all |= r.methods
	}
	return Match{Allowed: all.list()}
}

// methods are those that a request may have; every other is malformed.
var methods = [...]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions}

// A methodSet has one bit for each of methods.
type methodSet uint8

func methodBit(method string) methodSet {
	for i, m := range methods {
		if m == method {
			return 1 << i
		}
	}
	return 0
}

// KnownMethod reports whether requests of this method can be routed at all.
func KnownMethod(method string) bool { return methodBit(method) != 0 }

func (s methodSet) list() []string {
	out := []string{}
	for i, m := range methods {
		if s&(1<<i) != 0 {
			out = append(out, m)
		}
	}
	return out
}

func (s methodSet) String() string { return strings.Join(s.list(), ", ") }

// split cuts a path into segments: "/" has none, and one final slash counts
// for nothing. It is not ok where the path does not start with a slash or has
// an empty segment: no capture may ever hold one.
func split(dst []string, path string) (parts []string, ok bool) {
	path, ok = strings.CutPrefix(path, "/")
	if path == "" || !ok {
		return dst, ok
	}
	for rest, more := strings.TrimSuffix(path, "/"), true; more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if part == "" {
			return dst, false
		}
		dst = append(dst, part)
	}
	return dst, true
}
