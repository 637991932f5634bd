package policy

import (
	"errors"
	"slices"
	"strings"
)

// Names of inputs that conditions read by fields of their own and not by name.
const (
	inputSecondFactor = "auth.second_factor"
	inputAppCheck     = "request.app_check"
)

// ErrUnrecorded marks the error of a Lookups that replays a decision whose
// record does not hold the document.
var ErrUnrecorded = errors.New("not on record")

// knows reports whether an input's value is known: in a replay only what the
// record holds is.
func (in *Input) knows(name string) bool {
	return in.Recorded == nil || in.Recorded(name)
}

// recordable are the inputs that the audit log holds only for the policies
// that read them; all others it always does.
func recordable(name string) bool {
	switch name {
	case "auth.email", "auth.email_verified", inputSecondFactor, inputAppCheck:
		return true
	}
	return strings.HasPrefix(name, "auth.token.")
}

// noteReads remembers what the conditions of a policy read, for the record.
func (p *Policy) noteReads(names []string) {
	for _, name := range names {
		claim, isClaim := strings.CutPrefix(name, "auth.token.")
		switch {
		case isClaim && !slices.Contains(p.inputs.claims, claim):
			p.inputs.claims = append(p.inputs.claims, claim)
		case name == "auth.email" || name == "auth.email_verified":
			p.inputs.email = true
		case name == inputSecondFactor:
			p.inputs.secondFactor = true
		case name == inputAppCheck:
			p.inputs.appCheck = true
		}
	}
}

// An inputSet names what a policy reads beside what every audit record holds.
type inputSet struct {
	claims       []string
	email        bool
	secondFactor bool
	appCheck     bool
	none         bool // nothing of all this
	number       uint64
}

// AsksAppCheck reports whether an entry of the route, or a guard that some of
// its requests meet, asks for App Check.
func (r *Route) AsksAppCheck() bool { return r.asksAppCheck }

func (r *Route) noteAppCheck() {
	asks := func(c *condition) bool { return c.facts.appCheck }
	r.asksAppCheck = slices.ContainsFunc(r.entries, asks) || slices.ContainsFunc(r.guards, func(g guardAt) bool { return asks(g.cond) })
}

// Inputs is what the policy reads of a request beside what the audit record
// holds anyway, by name; nil where that is nothing. `absent` lists the claims
// that it reads and the token does not have, `lookups` the documents that were
// read for this decision, and `checksum` is there where an upload's body had one.
func (p *Policy) Inputs(in *Input) map[string]any { return p.InputsIn(new(InputsRoom), in) }

// LastingInputs gives a number, other than 0, by which what Inputs gives may be
// kept for the identity: it gives the same for all of its requests, until there
// is another policy. 0: some of it is the request's, or there is nothing.
func (p *Policy) LastingInputs(in *Input) uint64 {
	if in.Route == nil || in.Identity == nil || p.inputs.none || p.inputs.appCheck || len(in.looked) > 0 || in.Checksum {
		return 0
	}
	return p.inputs.number
}

// An InputsRoom is memory that one request's inputs leave to the next's. The zero
// value has none yet.
type InputsRoom struct{ all, claims map[string]any }

// Clear empties it: what InputsIn gave is gone then.
func (r *InputsRoom) Clear() {
	clear(r.all)
	clear(r.claims)
}

// InputsIn is Inputs in a room that is empty.
func (p *Policy) InputsIn(room *InputsRoom, in *Input) map[string]any {
	if in.Route == nil || (p.inputs.none && len(in.looked) == 0 && !in.Checksum) {
		return nil
	}
	if room.all == nil {
		room.all, room.claims = map[string]any{}, map[string]any{}
	}
	out := room.all
	if in.Identity != nil {
		p.identityInputs(in, out, room.claims)
	}
	if p.inputs.appCheck && in.AppCheckFailure == nil {
		out["app_check"] = in.AppCheck
	}
	if in.Checksum {
		out["checksum"] = true
	}
	if len(in.looked) > 0 {
		out["lookups"] = in.recordLookups()
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// recordLookups are the documents that were read, by lookup: a list where a
// guard and an entry named different documents of one.
func (in *Input) recordLookups() map[string]any {
	out := map[string]any{}
	for i := range in.looked {
		name, record := in.looked[i].of.Name, in.looked[i].record()
		switch before := out[name].(type) {
		case nil:
			out[name] = record
		case []any:
			out[name] = append(before, record)
		default:
			out[name] = []any{before, record}
		}
	}
	return out
}

func (p *Policy) identityInputs(in *Input, out, claims map[string]any) {
	id := in.Identity
	var absent []string
	for _, name := range p.inputs.claims {
		if v, ok := in.claim(name); ok {
			claims[name] = v
		} else {
			absent = append(absent, name)
		}
	}
	if len(claims) > 0 {
		out["claims"] = claims
	}
	if len(absent) > 0 {
		out["absent"] = absent
	}
	if p.inputs.email {
		out["email"], out["email_verified"] = id.Email, id.EmailVerified
	}
	if p.inputs.secondFactor {
		out["second_factor"] = id.SecondFactor
	}
}
