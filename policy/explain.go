package policy

import (
	"fmt"
	"strings"
)

// What became of a rule or a field.
const (
	Hit   = "hit"
	Miss  = "miss"
	Error = "error"
)

// An Explanation is every rule that a decision depends on, each evaluated,
// whichever of them decided.
type Explanation struct {
	Route   string      `json:"route"`
	Path    string      `json:"path"`
	Access  string      `json:"access"`            // list, optional or public
	Guards  []RuleTrace `json:"guards,omitempty"`  // those that match the request
	Entries []RuleTrace `json:"entries,omitempty"` // of the route's list
	Key     string      `json:"key,omitempty"`     // the object's key as the templates give it
}

// A RuleTrace is one guard or entry.
type RuleTrace struct {
	Rule   string       `json:"rule"`
	Kind   string       `json:"kind"` // deny, require or entry
	DryRun bool         `json:"dry_run,omitempty"`
	Result string       `json:"result"` // hit, miss or error: of the condition, so a hit of deny refuses
	Why    string       `json:"why,omitempty"`
	Fields []FieldTrace `json:"fields"`
}

// A FieldTrace is one field of a condition.
type FieldTrace struct {
	Field  string         `json:"field"`
	Want   string         `json:"want"` // as the policy has it
	Result string         `json:"result"`
	Why    string         `json:"why,omitempty"` // of an error
	Have   map[string]any `json:"have,omitempty"`
}

// Explain evaluates every rule that a decision on the input depends on.
// Documents are read as Decide reads them.
func (p *Policy) Explain(in *Input) Explanation {
	r := in.Route
	if r == nil {
		return Explanation{}
	}
	in.begin()
	in.makeKey()
	out := Explanation{Route: r.ID, Path: r.path.String(), Access: [...]string{"list", "optional", "public"}[r.Access], Key: in.asked}
	params := in.Params
	for i := range r.guards {
		g := &r.guards[i]
		if !g.matches(in) {
			continue
		}
		kind := "require"
		if g.deny {
			kind = "deny"
		}
		out.Guards = append(out.Guards, g.cond.trace(in, kind))
		in.Params = params
	}
	for _, e := range r.entries {
		t := e.trace(in, "entry")
		if in.Identity != nil && in.Identity.Actor != "" && !e.namesWho {
			t.Result, t.Why = Miss, "a caller with an actor needs an entry whose `who` names its identity"
		}
		out.Entries = append(out.Entries, t)
	}
	return out
}

func (v verdict) String() string {
	switch v {
	case yes:
		return Hit
	case no:
		return Miss
	}
	return Error
}

func (c *condition) trace(in *Input, kind string) RuleTrace {
	v := c.holds(in)
	out := RuleTrace{Rule: c.rule, Kind: kind, DryRun: c.dryRun, Result: v.String()}
	others := yes
	for i := range c.fields {
		f := &c.fields[i]
		t := FieldTrace{Field: f.key, Want: c.facts.at.At(f.key).Brief(), Have: map[string]any{}}
		if f.lookups != nil && others != yes {
			t.Result, t.Why = "skipped", "the other fields decide; no document is read"
			out.Fields = append(out.Fields, t)
			continue
		}
		got := no
		if !f.identity || in.Identity != nil {
			got = f.holds(in)
		} else {
			t.Why = "there is no identity"
		}
		if got == no || others == no {
			others = no // and no other field can mend it
		} else {
			others = max(others, got)
		}
		t.Result = got.String()
		for _, name := range f.reads {
			value, ok := in.value(name)
			if ok || (in.Identity != nil && strings.HasPrefix(name, "auth.")) {
				t.Have[name] = value // nil: the caller does not have it
			}
		}
		if got > yes {
			t.Why = c.whyError(f, in, got)
		}
		if got != yes && out.Why == "" && t.Why == "" {
			out.Why = "`" + f.key + "` is not met"
		} else if got != yes && out.Why == "" {
			out.Why = "`" + f.key + "`: " + t.Why
		}
		out.Fields = append(out.Fields, t)
	}
	if v == yes {
		out.Why = ""
	}
	return out
}

// whyError says what of a field could not be told.
func (c *condition) whyError(f *field, in *Input, v verdict) string {
	switch v {
	case unrecorded:
		return "what it reads is not on record"
	case unread:
		for _, l := range f.lookups {
			if r := in.lookedUp(l); r != nil && r.err != nil {
				return fmt.Sprintf("the document %s of lookup %s could not be read: %v", r.name, l.Name, r.err)
			}
		}
		return "a document could not be read"
	}
	if f.key == "if" && c.facts.expr != nil {
		if _, _, err := c.facts.expr.program.Eval((*celInput)(in)); err != nil {
			return err.Error()
		}
	}
	return "a value is of another type than the policy declares, or cannot be told"
}

// value is the value of an input by its name in conditions.
func (in *Input) value(name string) (any, bool) {
	group, rest, _ := strings.Cut(name, ".")
	switch group {
	case "params":
		v, ok := in.Params.Get(rest)
		return v, ok
	case "request":
		return in.requestValue(rest)
	case "object":
		switch {
		case rest == "key" && in.asked != "":
			return in.asked, true
		case rest == "size" && in.Size != nil:
			return *in.Size, true
		case rest == "content_type" && in.ContentType != "":
			return in.ContentType, true
		}
	case "lookup":
		lookup, field, _ := strings.Cut(rest, ".")
		for i := len(in.looked) - 1; i >= 0; i-- {
			if r := &in.looked[i]; r.of.Name == lookup {
				if field == "" {
					return r.doc.Exists, r.err == nil
				}
				v, ok := r.doc.Fields[field]
				return v, ok
			}
		}
	case "auth":
		return in.authValue(rest)
	}
	return nil, false
}

func (in *Input) requestValue(name string) (any, bool) {
	switch name {
	case "method":
		return in.method(), true
	case "host":
		return in.Host, true
	case "path":
		return in.Path, true
	case "time":
		return in.Time, true
	case "ip":
		return in.IP.String(), in.IP.IsValid()
	case "app_check":
		return in.AppCheck, true
	case "key":
		return in.BodyKey, in.BodyKey != ""
	}
	return nil, false
}

func (in *Input) authValue(name string) (any, bool) {
	id := in.Identity
	if id == nil {
		return nil, false
	}
	if claim, ok := strings.CutPrefix(name, "token."); ok {
		v, there := id.Claim(claim)
		return v, there
	}
	if source, ok := authSources["auth."+name]; ok {
		v, there := id.field(source)
		return v, there == yes
	}
	switch name {
	case "email_verified":
		return id.EmailVerified, true
	case "second_factor":
		return id.SecondFactor, id.SecondFactor != ""
	case "auth_time":
		return id.AuthTime, !id.AuthTime.IsZero()
	}
	return nil, false
}
