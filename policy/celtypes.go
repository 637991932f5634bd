package policy

import (
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// Names of the types of what conditions read. Their values are the Input
// itself, or a document of it: a field's type says how it is read.
const (
	typeAuth    = "sidegate.auth"
	typeToken   = "sidegate.token"
	typeParams  = "sidegate.params"
	typeLookup  = "sidegate.lookup"
	typeVars    = "sidegate.vars"
	typeRequest = "sidegate.request"
	typeObject  = "sidegate.object"
)

// celTypes tells CEL the fields of these types (types.Provider).
type celTypes struct {
	*types.Registry
	fields map[string]map[string]*types.FieldType
	// open are groups whose names cannot be told, since what declares them has a
	// mistake: any name is of any type there. No such policy loads.
	open map[string]bool
}

// A celInput is an Input as CEL reads it (an Activation).
type celInput Input

func (in *celInput) ResolveName(name string) (any, bool) { return in, slices.Contains(roots, name) }
func (in *celInput) Parent() cel.Activation              { return nil }

// A celDocument is a document of a lookup as CEL reads it.
type celDocument struct{ of *lookedUp }

func (t *celTypes) FindStructType(name string) (*types.Type, bool) {
	if _, ok := t.fields[name]; ok {
		return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
	}
	return t.Registry.FindStructType(name)
}

func (t *celTypes) FindStructFieldNames(name string) ([]string, bool) {
	if fields, ok := t.fields[name]; ok {
		return keysOf(fields), true
	}
	return t.Registry.FindStructFieldNames(name)
}

func (t *celTypes) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if fields, ok := t.fields[name]; ok {
		f, there := fields[field]
		if !there && t.open[name] {
			return &types.FieldType{
				Type: types.DynType, IsSet: func(any) bool { return false },
				GetFrom: func(any) (any, error) { return nil, errAbsent },
			}, true
		}
		return f, there
	}
	return t.Registry.FindStructFieldType(name, field)
}

// NewValue refuses to make values of these types: a condition only reads them.
func (t *celTypes) NewValue(name string, fields map[string]ref.Val) ref.Val {
	if _, ok := t.fields[name]; ok {
		return types.NewErr("%s cannot be made", name)
	}
	return t.Registry.NewValue(name, fields)
}

// all are the names of all fields, for suggestions.
func (t *celTypes) all() []string {
	var out []string
	for _, fields := range t.fields {
		out = append(out, keysOf(fields)...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// example is a name that a group has.
func (t *celTypes) example(path []string) string {
	group := "sidegate." + path[0]
	switch {
	case len(path) > 1 && path[0] == "auth":
		group = typeToken
	case len(path) > 1:
		group += "." + path[1]
	}
	names := keysOf(t.fields[group])
	if slices.Contains(names, "uid") {
		return "uid"
	}
	if len(names) == 0 {
		return "name"
	}
	return names[0]
}

func (l *loader) celTypes() (*celTypes, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	t := &celTypes{Registry: registry, open: map[string]bool{typeToken: l.unknown.claims, typeVars: l.unknown.vars, typeLookup: l.unknown.lookups}, fields: map[string]map[string]*types.FieldType{
		typeAuth: authFields(), typeToken: {}, typeParams: {}, typeLookup: {}, typeVars: {}, typeRequest: requestFields(), typeObject: objectFields(),
	}}
	for name, kind := range l.claims {
		t.fields[typeToken][name] = claimFieldType(name, kind)
	}
	for name, v := range l.vars {
		if !v.kind.known() {
			t.open[typeVars] = true
			continue
		}
		value, err := v.celValue()
		if err != nil { // readVars refuses what is larger than policies count with
			return nil, fmt.Errorf("variable %s %w", name, err)
		}
		t.fields[typeVars][name] = inputField(v.kind.cel(), nil, func(*Input) (any, error) { return value, nil })
	}
	for name, look := range l.lookups {
		group := typeLookup + "." + name
		t.fields[typeLookup][name] = documentType(group, &look.Lookup)
		t.fields[group] = map[string]*types.FieldType{}
		t.open[group] = look.broken
		for field, kind := range look.types {
			t.fields[group][field] = documentField(name, field, kind)
		}
	}
	return t, nil
}

// setParams says which captures there are in the condition that is compiled
// next.
func (t *celTypes) setParams(names []string) {
	fields := map[string]*types.FieldType{}
	for _, name := range names {
		fields[name] = inputField(types.StringType, nil, func(in *Input) (any, error) {
			v, ok := in.Params.Get(name)
			if !ok {
				return nil, errAbsent
			}
			return v, nil
		})
	}
	t.fields[typeParams] = fields
}

// inputField is a field that is read of the Input; without set it is always
// there.
func inputField(t *types.Type, set func(*Input) bool, get func(*Input) (any, error)) *types.FieldType {
	if set == nil {
		set = func(*Input) bool { return true }
	}
	return &types.FieldType{
		Type:  t,
		IsSet: func(target any) bool { in, ok := target.(*celInput); return ok && set((*Input)(in)) },
		GetFrom: func(target any) (any, error) {
			in, ok := target.(*celInput)
			if !ok {
				return nil, fmt.Errorf("a condition read %T", target)
			}
			return get((*Input)(in))
		},
	}
}

// recorded holds a field to what a replayed decision has on record.
func recorded(name string, f *types.FieldType) *types.FieldType {
	set, get := f.IsSet, f.GetFrom
	known := func(target any) bool {
		in, ok := target.(*celInput)
		if ok && !(*Input)(in).knows(name) {
			in.missing = true
			return false
		}
		return ok
	}
	f.IsSet = func(target any) bool { return known(target) && set(target) }
	f.GetFrom = func(target any) (any, error) {
		if !known(target) {
			return nil, ErrUnrecorded
		}
		return get(target)
	}
	return f
}

func authFields() map[string]*types.FieldType {
	out := map[string]*types.FieldType{
		"token": {
			Type:    types.NewObjectType(typeToken),
			IsSet:   func(any) bool { return true },
			GetFrom: func(target any) (any, error) { return target, nil },
		},
		"email_verified": recorded("auth.email_verified", inputField(types.BoolType, nil, func(in *Input) (any, error) { return in.Identity.EmailVerified, nil })),
		"auth_time": inputField(types.TimestampType, func(in *Input) bool { return !in.Identity.AuthTime.IsZero() }, func(in *Input) (any, error) {
			if in.Identity.AuthTime.IsZero() {
				return nil, errAbsent
			}
			return in.Identity.AuthTime, nil
		}),
	}
	for name, source := range authSources {
		get := func(in *Input) string { s, _ := in.Identity.field(source); return s }
		f := inputField(types.StringType, func(in *Input) bool { return get(in) != "" }, func(in *Input) (any, error) {
			s := get(in)
			if len(s) > maxString {
				return nil, fmt.Errorf("%s is longer than %d bytes", name, maxString)
			}
			return s, nil
		})
		if name == "auth.email" {
			f = recorded(name, f)
		}
		out[strings.TrimPrefix(name, "auth.")] = f
	}
	return out
}

func claimFieldType(name string, kind claimType) *types.FieldType {
	return recorded("auth.token."+name, inputField(kind.cel(),
		func(in *Input) bool { return in.claimOnce(name).there },
		func(in *Input) (any, error) {
			claim := in.claimOnce(name)
			if !claim.there {
				return nil, fmt.Errorf("claim %s: %w", name, errAbsent)
			}
			out, err := claim.as(kind)
			if err != nil {
				return nil, fmt.Errorf("claim %s %w", name, err)
			}
			return out, nil
		}))
}

func requestFields() map[string]*types.FieldType {
	text := func(get func(*Input) string) *types.FieldType {
		return inputField(types.StringType, nil, func(in *Input) (any, error) { return get(in), nil })
	}
	return map[string]*types.FieldType{
		"method": text(func(in *Input) string {
			method := in.method()
			if method == "HEAD" { // GET includes it, here as elsewhere
				return "GET"
			}
			return method
		}),
		"host": text(func(in *Input) string { return in.Host }),
		"path": text(func(in *Input) string { return in.Path }),
		"ip": inputField(types.StringType, func(in *Input) bool { return in.IP.IsValid() }, func(in *Input) (any, error) {
			if !in.IP.IsValid() {
				return nil, errAbsent
			}
			return in.IP.Unmap().WithZone("").String(), nil
		}),
		"time": inputField(types.TimestampType, nil, func(in *Input) (any, error) {
			if in.Time.IsZero() {
				return nil, errAbsent
			}
			return in.Time, nil
		}),
	}
}

func objectFields() map[string]*types.FieldType {
	return map[string]*types.FieldType{
		"key": inputField(types.StringType, func(in *Input) bool { return in.keyed == yes }, func(in *Input) (any, error) {
			if in.keyed != yes {
				return nil, errAbsent
			}
			return in.key, nil
		}),
		"size": inputField(types.IntType, func(in *Input) bool { return in.Size != nil }, func(in *Input) (any, error) {
			if in.Size == nil {
				return nil, errAbsent
			}
			return *in.Size, nil
		}),
		"content_type": inputField(types.StringType, func(in *Input) bool { return in.ContentType != "" }, func(in *Input) (any, error) {
			if in.ContentType == "" {
				return nil, errAbsent
			}
			return in.ContentType, nil
		}),
	}
}

// documentType is `lookup.NAME`: has() of it says whether the document exists.
// It was read before the condition is evaluated.
func documentType(group string, l *Lookup) *types.FieldType {
	return inputField(types.NewObjectType(group),
		func(in *Input) bool { r := in.lookedUp(l); return r != nil && r.doc.Exists },
		func(in *Input) (any, error) {
			r := in.lookedUp(l)
			if r == nil || !r.doc.Exists {
				return nil, fmt.Errorf("the document of lookup %s does not exist", l.Name)
			}
			return &celDocument{r}, nil
		})
}

func documentField(lookup, name string, kind claimType) *types.FieldType {
	return &types.FieldType{
		Type: kind.cel(),
		IsSet: func(target any) bool {
			d, ok := target.(*celDocument)
			if !ok {
				return false
			}
			_, ok = d.of.doc.Fields[name]
			return ok
		},
		GetFrom: func(target any) (any, error) {
			d, ok := target.(*celDocument)
			if !ok {
				return nil, fmt.Errorf("a condition read %T", target)
			}
			v, ok := d.of.doc.Fields[name]
			if !ok {
				return nil, fmt.Errorf("field %s of lookup %s: %w", name, lookup, errAbsent)
			}
			out, err := once(&d.of.typed, name, kind, v)
			if err != nil {
				return nil, fmt.Errorf("field %s of lookup %s %w", name, lookup, err)
			}
			return out, nil
		},
	}
}

// cel is the type in CEL's terms.
func (t claimType) cel() *types.Type {
	if !t.known() {
		return types.DynType
	}
	scalar := map[string]*types.Type{"string": types.StringType, "int": types.IntType, "double": types.DoubleType, "bool": types.BoolType, "timestamp": types.TimestampType}[t.scalar]
	switch t.container {
	case "list":
		return types.NewListType(scalar)
	case "map":
		return types.NewMapType(types.StringType, scalar)
	}
	return scalar
}

// celValue is a variable's value as CEL takes it.
func (v *variable) celValue() (any, error) { return v.kind.typed(v.value) }
