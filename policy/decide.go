package policy

import "time"

// Input is what a decision reads. Everything in it is the request's own, but
// for Identity, which is shared and not changed.
type Input struct {
	Route    *Route
	Params   Params
	Method   string
	Identity *Identity // nil: nobody
	Time     time.Time
	UUID     string // of presign_upload: 32 hex digits, new for each request
	Ext      string // of presign_upload: UploadRequest.Ext

	asked string // the object's key as the templates give it
	key   string // the same where it is one that may be signed
	keyed verdict
}

// A Decision is what a policy says of a request. The zero Decision denies.
type Decision struct {
	Allow  bool
	Status int    // of the refusal: 401 or 403
	Reason string // one of the Reason constants
	Rule   string // the allow entry that decided, as route/entry
	Key    string // the object's key, where the route has one and it is allowed
	// AskedKey is the key of a refusal, for the record only.
	AskedKey string
	// ClaimWouldHelp: a role, scope or claim is all that was missing
	// (RFC 6750: insufficient_scope).
	ClaimWouldHelp bool
}

// An entry is one of a route's allow list.
type entry struct {
	rule   string // route/id
	fields []field
	// namesWho: the entry has a `who`. Only such an entry lets a caller with an
	// actor in.
	namesWho bool
}

// A field is one condition of an entry.
type field struct {
	claim bool // reads a role, scope or claim
	holds func(in *Input) verdict
}

// Decide judges a request whose route was found. The zero Input is denied.
func (p *Policy) Decide(in *Input) Decision {
	r := in.Route
	if r == nil {
		return Decision{Status: 404, Reason: ReasonNoRoute}
	}
	if r.Access != AccessList {
		return Decision{Allow: true, Reason: ReasonPublic}
	}
	if in.Identity == nil {
		return Decision{Status: 401, Reason: ReasonNoToken}
	}
	in.makeKey(r.Object)
	failed := false
	for _, e := range r.entries {
		switch e.holds(in) {
		case yes:
			if r.Object != nil && in.keyed != yes {
				return Decision{Status: 403, Reason: ReasonNoKey, Rule: e.rule, AskedKey: in.asked}
			}
			return Decision{Allow: true, Reason: ReasonEntry, Rule: e.rule, Key: in.key}
		case unknown:
			failed = true
		}
	}
	d := Decision{Status: 403, Reason: ReasonNoEntry, AskedKey: in.asked, ClaimWouldHelp: r.claimWouldHelp(in)}
	if failed {
		d.Reason = ReasonEntryError
	}
	return d
}

// makeKey makes the object's key, or forgets that of a decision before.
func (in *Input) makeKey(o *Object) {
	in.asked, in.key, in.keyed = "", "", no
	if o == nil {
		return
	}
	key, known := o.key.render(in)
	in.asked = key
	if known == yes && !ValidKey(key) {
		known = no
	}
	if in.keyed = known; known == yes {
		in.key = key
	}
}

// holds is the AND of the fields: one that is false makes it false, whatever
// the others are; else one that could not be told makes it unknown.
func (e *entry) holds(in *Input) verdict {
	if in.Identity.Actor != "" && !e.namesWho {
		return no
	}
	all := yes
	for i := range e.fields {
		switch e.fields[i].holds(in) {
		case no:
			return no
		case unknown:
			all = unknown
		}
	}
	return all
}

// claimWouldHelp reports whether some entry lacks only roles, scopes or claims.
func (r *Route) claimWouldHelp(in *Input) bool {
	for _, e := range r.entries {
		if in.Identity.Actor != "" && !e.namesWho {
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

// An inputSet names what a route's entries read of an identity beside what
// every audit record holds, so that a decision can be replayed.
type inputSet struct {
	claims        []string
	email         bool
	emailVerified bool
}

// Inputs is what the decision on this route read of the identity, by name;
// nil where it read nothing that the audit record does not hold anyway.
func (r *Route) Inputs(id *Identity) map[string]any {
	if id == nil || (len(r.inputs.claims) == 0 && !r.inputs.email && !r.inputs.emailVerified) {
		return nil
	}
	out := map[string]any{}
	claims := map[string]any{}
	for _, name := range r.inputs.claims {
		if v, ok := id.Claims[name]; ok {
			claims[name] = v
		}
	}
	if len(claims) > 0 {
		out["claims"] = claims
	}
	if r.inputs.email {
		out["email"] = id.Email
	}
	if r.inputs.emailVerified {
		out["email_verified"] = id.EmailVerified
	}
	return out
}
