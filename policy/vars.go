package policy

import (
	"slices"
	"strings"

	"sidegate/policy/document"
)

// A variable is one of `vars`: a value that the policy writes once.
type variable struct {
	at    document.Value
	key   document.Value
	value any       // string, int64, float64, bool, or []any of one of these
	kind  claimType // not known where the value has a mistake
	used  bool
}

func (l *loader) readVars(v document.Value) {
	l.vars = map[string]*variable{}
	l.unknown.vars = v.Present() && !v.IsMap()
	for _, e := range v.Entries() {
		if !e.At.CheckIdent(e.Key) {
			continue
		}
		x := &variable{at: e.Value, key: e.At}
		if e.Value.IsList() {
			x.value, x.kind = l.listVariable(e.Value)
		} else {
			x.value, x.kind = scalarVariable(e.Value)
		}
		l.vars[e.Key] = x
	}
}

func (l *loader) listVariable(v document.Value) (any, claimType) {
	list := []any{}
	kind := claimType{container: "list"}
	if n := len(v.List()); n > maxElements {
		v.Errorf("`%s` holds %d elements; at most %d", v.Path(), n, maxElements)
	}
	for _, e := range v.List() {
		value, t := scalarVariable(e)
		switch {
		case t.scalar == "":
		case kind.scalar == "" || kind.scalar == t.scalar:
			kind.scalar = t.scalar
			list = append(list, value)
		default:
			e.Errorf("`%s`: a list is of one type, and this is no %s", e.Path(), kind.scalar)
		}
	}
	return list, kind
}

// scalarVariable reads a value of the type that it was written in.
func scalarVariable(v document.Value) (any, claimType) {
	switch {
	case v.IsBool():
		return v.Bool(), claimType{scalar: "bool"}
	case v.IsInt():
		return v.Int(-1<<53, 1<<53), claimType{scalar: "int"}
	case v.IsFloat():
		return v.Float(), claimType{scalar: "double"}
	}
	s, ok := v.Text()
	switch {
	case !ok:
		return nil, claimType{}
	case len(s) > maxString:
		v.Errorf("`%s` is longer than %d bytes", v.Path(), maxString)
		return nil, claimType{}
	case strings.Contains(s, "${"):
		v.Errorf("`%s`: a variable's value is written out, without ${...}", v.Path())
		return nil, claimType{}
	}
	return s, claimType{scalar: "string"}
}

// substitute puts the variables where ${vars.NAME} is written. Conditions in
// `if` name them without `${}`.
func (l *loader) substitute(v document.Value) {
	v.Substitute("vars.", func(name string, at document.Value) (document.Value, bool) {
		x := l.vars[name]
		if x == nil && l.unknown.vars || x != nil && !x.kind.known() {
			return document.Value{}, false // told where it is declared
		}
		if x == nil {
			at.Errorf("SG003 variable `%s` is not defined; add it under `vars`%s", name, document.DidYouMean(name, keysOf(l.vars)))
			return document.Value{}, false
		}
		x.used = true
		return x.at, true
	}, "if")
	l.refuseStrays(v)
}

// templated are the keys whose text is read as a template or a condition.
var templated = []string{"uid", "id", "key", "key_prefix", "prefix", "document", "if"}

// refuseStrays refuses ${...} where it would be taken for plain text: a rule
// that waits for it could never hold.
func (l *loader) refuseStrays(v document.Value) {
	switch {
	case v.IsMap():
		for _, e := range v.Entries() {
			if !e.Value.IsString() || !slices.Contains(templated, e.Key) {
				l.refuseStrays(e.Value)
			}
		}
	case v.IsList():
		for _, e := range v.List() {
			l.refuseStrays(e)
		}
	case v.IsString() && strings.Contains(v.Show(), "${") && !v.Failed():
		v.Errorf("`%s`: %q would be taken as it stands: ${vars.NAME} is replaced everywhere, other forms only in uid, org.id, key, key_prefix, prefix and document", v.Path(), v.Show())
	}
}
