package policy

import (
	"fmt"
	"strings"
)

// Recorded is what an audit record holds of what a decision read: what
// Policy.Inputs gave, after it went through JSON. It answers for one decision.
type Recorded struct {
	claims    map[string]any
	absent    map[string]bool
	scalars   map[string]any // email, second_factor and the like
	documents map[string][]map[string]any
	cut       bool
	missing   string
}

// ReadInputs reads the inputs of a record; cut says that the record does not
// hold all of them, so that none counts.
func ReadInputs(inputs map[string]any, cut bool) *Recorded {
	r := &Recorded{cut: cut, scalars: inputs}
	r.claims, _ = inputs["claims"].(map[string]any)
	r.absent = nameSet(inputs["absent"])
	lookups, _ := inputs["lookups"].(map[string]any)
	for name, v := range lookups {
		if r.documents == nil {
			r.documents = map[string][]map[string]any{}
		}
		switch v := v.(type) {
		case map[string]any:
			r.documents[name] = append(r.documents[name], v)
		case []any:
			for _, one := range v {
				if d, ok := one.(map[string]any); ok {
					r.documents[name] = append(r.documents[name], d)
				}
			}
		}
	}
	return r
}

// nameSet reads a list of names.
func nameSet(v any) map[string]bool {
	list, _ := v.([]any)
	if len(list) == 0 {
		return nil
	}
	out := make(map[string]bool, len(list))
	for _, e := range list {
		if s, ok := e.(string); ok {
			out[s] = true
		}
	}
	return out
}

// Missing is the first input that was asked for and is not on record; "" where
// there was none.
func (r *Recorded) Missing() string { return r.missing }

func (r *Recorded) lacks(what string) {
	if r.missing == "" {
		r.missing = what
	}
}

// recordedAs are the inputs with a name of their own in the record.
var recordedAs = map[string]string{"auth.email": "email", "auth.email_verified": "email_verified", inputSecondFactor: "second_factor", inputAppCheck: "app_check"}

// Knows reports whether an input's value is on record (Input.Recorded).
func (r *Recorded) Knows(name string) bool {
	known := false
	if claim, ok := strings.CutPrefix(name, "auth.token."); ok {
		_, there := r.claims[claim]
		known = there || r.absent[claim]
	} else if as, ok := recordedAs[name]; ok {
		_, known = r.scalars[as]
	} else {
		return true // the record holds it whatever a policy reads
	}
	if known = known && !r.cut; !known {
		r.lacks(name)
	}
	return known
}

// Fill gives an identity what the record holds of it. The rest of it stands in
// the record by itself.
func (r *Recorded) Fill(id *Identity) {
	id.Claims = ClaimMap(r.claims)
	id.Email, _ = r.scalars["email"].(string)
	id.EmailVerified, _ = r.scalars["email_verified"].(bool)
	id.SecondFactor, _ = r.scalars["second_factor"].(string)
}

// AppCheck reports whether App Check vouched for the caller's app.
func (r *Recorded) AppCheck() bool {
	ok, _ := r.scalars["app_check"].(bool)
	return ok
}

// Checksum reports whether an upload's body had one.
func (r *Recorded) Checksum() bool {
	ok, _ := r.scalars["checksum"].(bool)
	return ok
}

// Failed reports whether a document could not be read.
func (r *Recorded) Failed() bool {
	for _, list := range r.documents {
		for _, d := range list {
			if d["failed"] == true {
				return true
			}
		}
	}
	return false
}

// otherType is a value of no type that a policy can declare.
type otherType struct{}

// Lookup gives a document as it was read then (Lookups): an error that is
// ErrUnrecorded where it was not, and another where it could not be read.
func (r *Recorded) Lookup(l *Lookup, document string) (Document, error) {
	unknown := func() (Document, error) {
		what := "a document of lookup " + l.Name
		r.lacks(what)
		return Document{}, fmt.Errorf("%s: %w", what, ErrUnrecorded)
	}
	for _, d := range r.documents[l.Name] {
		if d["document"] != document || r.cut {
			continue
		}
		if d["failed"] == true {
			return Document{}, fmt.Errorf("document %s could not be read then", document)
		}
		if d["exists"] == false {
			return Document{}, nil
		}
		recorded, _ := d["fields"].(map[string]any)
		absent := nameSet(d["absent"])
		not, _ := d["not"].(map[string]any)
		out := Document{Exists: true, Fields: make(map[string]any, len(l.Fields))}
		for _, field := range l.Fields {
			v, there := recorded[field]
			was, wrong := not[field]
			switch {
			case !there && absent[field]:
			case !there, wrong && was != l.types[field].String(): // nobody asked then; or not for this type, which it may be
				return unknown()
			case wrong:
				out.Fields[field] = otherType{}
			default:
				out.Fields[field] = v
			}
		}
		return out, nil
	}
	return unknown()
}
