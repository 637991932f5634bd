package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"
)

// expression adds moves for every name that the condition's `if` reads.
func (m *mover) expression(a *attempt) {
	e := m.facts.expr
	in, ok := m.scene.inputFor(a, m.guard)
	if !ok {
		return
	}
	p := m.pool(e, in, m.scene.set.valuesOf(e, in))
	for _, l := range e.lookups {
		m.document(l)
	}
	for _, name := range e.reads {
		group, rest, _ := strings.Cut(name, ".")
		switch group {
		case "auth":
			m.authName(e, p, rest)
		case "params":
			m.paramName(p, rest)
		case "lookup":
			m.lookupName(e, p, rest)
		case "request":
			m.requestName(p, in, rest)
		case "object":
			m.objectName(p, rest)
		}
	}
}

// try adds a move for each value of a name.
func (m *mover) try(name string, values []any, set func(a *attempt, v any) bool) {
	for _, v := range values {
		m.out = append(m.out, move{name, v, func(a *attempt) bool { return set(a, v) }})
	}
}

// show is a value in a few words.
func show(v any) string {
	text := ""
	switch v := v.(type) {
	case string:
		text = fmt.Sprintf("%q", v)
	case time.Time:
		text = v.Format(time.RFC3339)
	default:
		text = fmt.Sprint(v)
	}
	if len(text) > 60 {
		text = text[:57] + "..."
	}
	return text
}

func (m *mover) authName(e *expression, p *pool, name string) {
	texts := p.scalars("string")
	text := func(set func(a *attempt, s string)) {
		m.try("auth."+name, texts, func(a *attempt, v any) bool { set(a, v.(string)); return true })
	}
	if claim, ok := strings.CutPrefix(name, "token."); ok {
		m.claimName(e, p, claim)
		return
	}
	switch name {
	case "uid":
		m.try("auth.uid", texts, func(a *attempt, v any) bool { a.who.uid = v.(string); return v != "" })
	case "actor":
		text(func(a *attempt, s string) { a.who.actor = s })
	case "tenant":
		text(func(a *attempt, s string) { a.who.tenant = s })
	case "provider":
		text(func(a *attempt, s string) { a.who.provider = s })
	case "email":
		text(func(a *attempt, s string) { a.who.email, a.who.verified = s, true })
	case "email_verified":
		m.try("auth.email_verified", p.scalars("bool"), func(a *attempt, v any) bool { a.who.verified = v.(bool); return true })
	case "auth_time":
		m.try("auth.auth_time", p.scalars("timestamp"), func(a *attempt, v any) bool {
			a.who.age, a.who.ageless = a.at.Sub(v.(time.Time)), false
			return true
		})
		m.add("a sign-in of no time", func(a *attempt) bool { a.who.ageless = true; return true })
	}
}

func (m *mover) claimName(e *expression, p *pool, claim string) {
	f := e.compiler.names.fields[typeToken][claim]
	if f == nil {
		return
	}
	m.try("claim "+claim, p.typed(typeOf(f.Type)), func(a *attempt, v any) bool { a.setClaim(claim, asClaim(v)); return true })
	m.wrong(claim)
}

// typeOf is the type that a policy declares for a type of CEL.
func typeOf(t *types.Type) claimType {
	scalar := func(t *types.Type) string {
		switch t.Kind() {
		case types.IntKind:
			return "int"
		case types.DoubleKind:
			return "double"
		case types.BoolKind:
			return "bool"
		case types.TimestampKind:
			return "timestamp"
		}
		return "string"
	}
	switch t.Kind() {
	case types.ListKind:
		return claimType{"list", scalar(t.Parameters()[0])}
	case types.MapKind:
		return claimType{"map", scalar(t.Parameters()[1])}
	}
	return claimType{"", scalar(t)}
}

func (m *mover) paramName(p *pool, name string) {
	m.try("params."+name, p.scalars("string"), func(a *attempt, v any) bool { return m.setCapture(a, name, v.(string)) })
}

func (m *mover) requestName(p *pool, in *Input, name string) {
	switch name {
	case "time":
		m.try("request.time", append(p.scalars("timestamp"), p.moments(in.Time)...), func(a *attempt, v any) bool { a.at = v.(time.Time).UTC(); return true })
	case "ip":
		m.try("request.ip", p.addresses(), func(a *attempt, v any) bool { a.ip = v.(netip.Addr); return true })
	case "host":
		m.try("request.host", p.scalars("string"), func(a *attempt, v any) bool { a.host = v.(string); return validName(a.host) })
	case "path":
		var paths []any
		for _, s := range p.texts {
			for _, more := range []string{"", "x", "/x"} {
				paths = append(paths, s+more)
			}
		}
		m.try("request.path", paths, func(a *attempt, v any) bool { return m.scene.setPath(a, v.(string)) })
	}
}

func (m *mover) objectName(p *pool, name string) {
	switch name {
	case "key":
		if named := m.scene.named(); named != nil {
			m.try("object.key", p.scalars("string"), func(a *attempt, v any) bool { named.set(a, v.(string)); return v != "" })
		}
	case "size":
		m.try("object.size", p.scalars("int"), func(a *attempt, v any) bool { n := v.(int64); a.size = &n; return n >= 0 })
		m.add("no size", func(a *attempt) bool { a.size = nil; return true })
	case "content_type":
		m.try("object.content_type", p.scalars("string"), func(a *attempt, v any) bool { a.contentType = v.(string); return true })
	}
}

// document are the moves of a lookup's document as a whole.
func (m *mover) document(l *Lookup) {
	m.add("document of "+l.Name, func(a *attempt) bool {
		m.fill(a, l.document)
		in, ok := m.scene.inputFor(a, m.guard)
		if !ok {
			return false
		}
		a.setDoc(l.Name, usualDocument(l, in))
		return true
	})
	m.add("no document of "+l.Name, func(a *attempt) bool { a.setDoc(l.Name, ProbeDocument{}); return true })
	m.add("the document of "+l.Name+" cannot be read", func(a *attempt) bool {
		a.setDoc(l.Name, ProbeDocument{Unavailable: true})
		return true
	})
}

// usualDocument is one that lets the caller in, as far as one can guess: its
// lists hold the caller's uid, and its times lie ahead.
func usualDocument(l *Lookup, in *Input) ProbeDocument {
	uid := probeUID
	if in.Identity != nil {
		uid = in.Identity.UID
	}
	scalar := map[string]any{"string": uid, "int": int64(1), "double": 1.0, "bool": true, "timestamp": in.Time.Add(time.Hour)}
	d := ProbeDocument{Document: Document{Exists: true, Fields: map[string]any{}}}
	for _, name := range l.Fields {
		t := l.types[name]
		v := scalar[t.scalar]
		switch t.container {
		case "list":
			v = []any{v}
		case "map":
			v = map[string]any{uid: v}
		}
		d.Fields[name] = v
	}
	return d
}

func (m *mover) lookupName(e *expression, p *pool, rest string) {
	lookup, field, isField := strings.Cut(rest, ".")
	if !isField {
		return
	}
	for _, l := range e.lookups {
		if l.Name != lookup {
			continue
		}
		change := func(a *attempt, do func(fields map[string]any) map[string]any) bool {
			d := a.docs[lookup]
			if in, ok := m.scene.inputFor(a, m.guard); !d.Exists && ok {
				d = usualDocument(l, in)
			}
			d.Fields = do(d.Fields)
			a.setDoc(lookup, d)
			return true
		}
		m.try("lookup."+rest, p.typed(l.types[field]), func(a *attempt, v any) bool {
			return change(a, func(fields map[string]any) map[string]any { return with(fields, field, v) })
		})
		m.add("lookup."+rest+" is absent", func(a *attempt) bool {
			return change(a, func(fields map[string]any) map[string]any { return without(fields, field) })
		})
		m.add("lookup."+rest+" is of another type", func(a *attempt) bool {
			return change(a, func(fields map[string]any) map[string]any {
				return with(fields, field, any(map[string]any{"a": []any{true}}))
			})
		})
	}
}
