package policy

import (
	"net/netip"
	"strings"
	"time"
)

// Input is what a decision reads. Everything in it is the request's own, but
// for Identity, which is shared and not changed.
type Input struct {
	Route    *Route
	Params   Params
	Host     string // canonical
	Path     string // canonical, decoded
	Method   string
	Identity *Identity // nil: nobody
	IP       netip.Addr
	Time     time.Time
	AppCheck bool // Firebase App Check vouches for the app that calls
	// AppCheckFailure is why that cannot be told now; nil: it can.
	AppCheckFailure error
	Lookups         Lookups // nil: no document can be read

	// Of presign_upload.
	UUID        string // 32 hex digits, new for each request
	Ext         string // UploadRequest.Ext
	Size        *int64 // bytes, nil: not said
	ContentType string // UploadRequest.MediaType
	Checksum    bool   // it came with one; for the record only

	// SessionKey is the key of the upload session that the request is about
	// (multipart, uppy): the key then, whatever the template gives.
	SessionKey string
	// BodyKey is ${request.key}: the key that the body names (presign_downloads).
	BodyKey string
	// Prefix is what list_objects is asked for; empty: the route's own prefix.
	Prefix string

	// Recorded is for replays of a decision: it reports whether the value of an
	// input is known. Nil: every one is.
	Recorded func(name string) bool

	asked   string // the object's key as the templates give it
	key     string // the same where it is one that may be signed
	keyed   verdict
	looked  []lookedUp
	claims  []claimMade // those that conditions asked for
	missing bool        // a condition read what is not on record
}

// A Decision is what a policy says of a request. The zero Decision denies.
type Decision struct {
	Allow  bool
	Status int    // of the refusal: 401, 403 or 503
	Reason string // one of the Reason constants
	Rule   string // the guard or allow entry that decided: its id, or route/entry
	Key    string // the object's key, where the route has one and it is allowed
	// AskedKey is the key of a refusal, for the record only.
	AskedKey string
	// ClaimWouldHelp: a role, scope or claim is all that was missing
	// (RFC 6750: insufficient_scope).
	ClaimWouldHelp bool
	// Shadow is what the guards and entries in dry_run say, by rule: pass, deny,
	// error (guards), allow, deny, error (entries). It changes nothing.
	Shadow map[string]string
	// Undecidable: what the decision depends on is not on record (replays).
	Undecidable bool
}

// Decide judges a request whose route was found: guards first, then the
// route's own list. The zero Input is denied.
func (p *Policy) Decide(in *Input) Decision {
	r := in.Route
	if r == nil {
		return Decision{Status: 404, Reason: ReasonNoRoute}
	}
	if r.Access == AccessList && in.Identity == nil {
		return Decision{Status: 401, Reason: ReasonNoToken}
	}
	in.begin()
	in.makeKey()
	d := Decision{AskedKey: in.asked}
	if len(r.guards) > 0 && !r.pass(in, &d) {
		return d
	}
	if r.Access != AccessList {
		d.Allow, d.Status, d.Reason = true, 0, ReasonPublic
		return d
	}
	r.admit(in, &d)
	return d
}

// begin forgets what a decision before has read.
func (in *Input) begin() {
	in.looked, in.missing = in.looked[:0], false
	if !in.sameCaller() {
		in.claims = in.claims[:0]
	}
}

// Results of rules in dry_run.
const (
	ShadowAllow = "allow"
	ShadowPass  = "pass"
	ShadowDeny  = "deny"
	ShadowError = "error"
)

func (d *Decision) shadow(rule string, v verdict, good string) {
	if d.Shadow == nil {
		d.Shadow = map[string]string{}
	}
	switch v {
	case yes:
		d.Shadow[rule] = good
	case no:
		d.Shadow[rule] = ShadowDeny
	default:
		d.Shadow[rule] = ShadowError
	}
}

// pass reports whether every guard that matches lets the request pass; else d
// is the refusal. One that certainly refuses decides; only where none does, one
// that could not be told refuses too: the first whose document could not be
// read, else the first.
func (r *Route) pass(in *Input, d *Decision) bool {
	params := in.Params
	refused, failed := false, yes
	for i := range r.guards {
		g := &r.guards[i]
		if refused && (!g.cond.dryRun || g.cond.reads()) {
			continue // nothing is read any more for what is refused
		}
		if !g.matches(in) {
			continue
		}
		v := g.judge(in)
		in.Params = params
		switch {
		case g.cond.dryRun:
			d.shadow(g.id, v, ShadowPass)
		case v == no:
			refused = true
			d.refuse(403, g.reason(v), g.id)
			d.Undecidable = false
		case v > failed: // not yes; a document that could not be read counts most
			failed = v
			d.cannotTell(v, g.reason(v), g.id)
		}
	}
	in.Params = params
	return !refused && failed == yes
}

// reads reports whether the condition reads documents.
func (c *condition) reads() bool {
	n := len(c.fields)
	return n > 0 && c.fields[n-1].lookups != nil
}

func (d *Decision) refuse(status int, reason, rule string) {
	d.Status, d.Reason, d.Rule = status, reason, rule
}

// cannotTell refuses because of a rule that is in error: 503 where a document
// could not be read.
func (d *Decision) cannotTell(v verdict, reason, rule string) {
	d.refuse(403, reason, rule)
	switch v {
	case unread:
		d.refuse(503, ReasonUnavailable, rule)
	case unrecorded:
		d.Undecidable = true
	}
}

// admit looks for the first entry that is true.
func (r *Route) admit(in *Input, d *Decision) {
	var found *condition
	failed, by := no, ""
	for _, e := range r.entries {
		if found != nil && (!e.dryRun || e.reads()) {
			continue
		}
		v := no
		if in.Identity.Actor == "" || e.namesWho {
			v = e.holds(in)
		}
		switch {
		case e.dryRun:
			d.shadow(e.rule, v, ShadowAllow)
		case v == yes:
			found = e
		case v > failed:
			failed, by = v, e.rule
		}
	}
	switch {
	case found != nil && r.Object != nil && in.keyed != yes:
		d.refuse(403, ReasonNoKey, found.rule)
		d.Undecidable = in.keyed == unrecorded
	case found != nil:
		*d = Decision{Allow: true, Reason: ReasonEntry, Rule: found.rule, Key: in.key, Shadow: d.Shadow}
		// Another entry before it might have been true, and named: the request
		// is allowed all the same.
	case failed == no:
		d.refuse(403, ReasonNoEntry, "")
		d.ClaimWouldHelp = r.claimWouldHelp(in)
	default:
		d.cannotTell(failed, ReasonEntryError, "")
		if failed == unread {
			d.Rule = by
		} else {
			d.ClaimWouldHelp = r.claimWouldHelp(in)
		}
	}
}

// makeKey makes the object's key, or forgets that of a decision before.
func (in *Input) makeKey() {
	in.asked, in.key, in.keyed = "", "", no
	o := in.Route.Object
	if o == nil || in.Identity == nil {
		return
	}
	var known verdict
	valid := ValidKey
	switch serve := in.Route.Serve; {
	case serve == ListObjects:
		in.asked, known = o.listed(in)
		valid = validPrefix
	case in.SessionKey != "" && (serve == Multipart || serve == Uppy):
		in.asked, known = in.SessionKey, yes
	default:
		in.asked, known = o.key.render(in)
	}
	if known == yes && (!valid(in.asked) || o.Form && strings.Contains(in.asked, formVariable)) {
		known = no
	}
	if in.keyed = known; known == yes {
		in.key = in.asked
	}
}

// formVariable is what S3 replaces in a form's fields by the name of the file
// that is sent (Creating an HTML form: ${filename}), also where a uid is called
// so.
const formVariable = "${filename}"

// listed is the prefix that is to be listed: what was asked for where it lies
// within the route's own, else no. The slash between them is part of the route's:
// users/u1 is not within users/u1/, and would list users/u10.
func (o *Object) listed(in *Input) (string, verdict) {
	folder, known := o.prefix.render(in)
	if known != yes {
		return in.Prefix, known
	}
	folder += "/"
	if in.Prefix == "" {
		return folder, yes
	}
	return in.Prefix, verdictOf(strings.HasPrefix(in.Prefix, folder))
}

// validPrefix reports whether a prefix may be listed: the start of a key that
// may be signed, up to the end of a segment or within one.
func validPrefix(prefix string) bool {
	return len(prefix) <= maxKey && ValidKey(strings.TrimSuffix(prefix, "/"))
}

// claimWouldHelp reports whether some entry lacks only roles, scopes or claims.
// It reads no documents.
func (r *Route) claimWouldHelp(in *Input) bool {
	for _, e := range r.entries {
		if e.dryRun || e.reads() || (in.Identity.Actor != "" && !e.namesWho) {
			continue
		}
		only, some := true, false
		for i := range e.fields {
			if e.fields[i].claim {
				some = true
				continue
			}
			if e.fields[i].holds(in) != yes {
				only = false
			}
		}
		if only && some {
			return true
		}
	}
	return false
}
