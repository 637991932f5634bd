package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"sidegate/policy/document"
)

// A Lookup is a document that conditions read when a request is decided. Its
// fields are never changed after Load.
type Lookup struct {
	Name    string
	Cache   time.Duration // how long a document may be taken for what it was; 0: it is read for each request
	Timeout time.Duration // of one read
	Fields  []string      // the fields that are read, sorted

	document template
	types    map[string]claimType
}

// A Document is what a lookup found. Values are string, bool, int64, float64,
// time.Time, []any and map[string]any; anything else is of a wrong type for
// whatever reads it.
type Document struct {
	Exists bool
	Fields map[string]any
}

// Lookups reads documents for a decision. An error means that it cannot be
// told now whether the document exists or what it holds.
type Lookups interface {
	Lookup(l *Lookup, document string) (Document, error)
}

// A lookedUp is a document that was read for a decision, or was to be.
type lookedUp struct {
	of    *Lookup
	name  string // of the document
	doc   Document
	err   error
	known verdict
	typed []typedValue // its lists and maps, once they were read as declared
}

// A typedValue is a list or a map as the policy declares it, made once for a
// decision: conditions in a loop read it again and again.
type typedValue struct {
	name  string
	value any
	err   error
}

// once gives a value as declared; a list or a map is made the first time only.
func once(kept *[]typedValue, name string, kind claimType, raw any) (any, error) {
	if kind.container == "" {
		return kind.typed(raw)
	}
	for _, v := range *kept {
		if v.name == name {
			return v.value, v.err
		}
	}
	v := typedValue{name: name}
	v.value, v.err = kind.typed(raw)
	*kept = append(*kept, v)
	return v.value, v.err
}

// record is the document for the audit log, for replay: what ReadInputs reads.
// `absent` lists the fields that were asked for and are not there, `not` says of
// those whose value is of another type than the policy declares, which that is:
// JSON has no timestamps, so that the value alone would not tell.
func (r *lookedUp) record() map[string]any {
	out := map[string]any{"document": r.name}
	switch {
	case r.err != nil:
		out["failed"] = true
	case !r.doc.Exists:
		out["exists"] = false
	default:
		fields := make(map[string]any, len(r.of.Fields))
		var absent []string
		not := map[string]any{}
		for _, name := range r.of.Fields {
			v, ok := r.doc.Fields[name]
			if !ok {
				absent = append(absent, name)
				continue
			}
			if _, err := r.of.types[name].typed(v); err != nil {
				not[name], v = r.of.types[name].String(), nil // no replay may use what it was
			}
			fields[name] = v
		}
		out["fields"] = fields
		if absent != nil {
			out["absent"] = absent
		}
		if len(not) > 0 {
			out["not"] = not
		}
	}
	return out
}

// nameOf makes the name of a lookup's document.
func (l *Lookup) nameOf(in *Input, strict bool) (name string, known verdict) {
	t := l.document
	t.strict = strict
	name, known = t.render(in)
	if known == yes && !validDocument(name) {
		known = no
	}
	if known == no && strict { // also where the claim that names it is absent
		known = unknown
	}
	return name, known
}

// document reads a lookup's document, once for a decision and the captures that
// name it: yes where it is known what it holds, or that it does not exist. A
// name that cannot be made is no for an entry; strict is for guards, where it
// is an error.
func (in *Input) document(l *Lookup, strict bool) verdict {
	name, known := l.nameOf(in, strict)
	if known != yes {
		return known
	}
	for i := range in.looked {
		if r := &in.looked[i]; r.of == l && r.name == name {
			known := r.known // of this one: it is moved
			in.current(i)
			return known
		}
	}
	r := lookedUp{of: l, name: name, known: yes}
	if in.Lookups == nil {
		r.err = errors.New("no documents can be read here")
	} else {
		r.doc, r.err = in.Lookups.Lookup(l, name)
	}
	switch {
	case errors.Is(r.err, ErrUnrecorded):
		r.known = unrecorded
	case r.err != nil:
		r.known = unread
	}
	in.looked = append(in.looked, r)
	return r.known
}

// current moves a document behind all others, where lookedUp finds it first: a
// guard and an entry may name different documents of one lookup.
func (in *Input) current(i int) {
	r := in.looked[i]
	copy(in.looked[i:], in.looked[i+1:])
	in.looked[len(in.looked)-1] = r
}

// Failure says which document could not be read for the last decision, and why;
// nil where all could. It is for the log.
func (in *Input) Failure() error {
	for i := range in.looked {
		if r := &in.looked[i]; r.err != nil {
			return fmt.Errorf("lookup %s: read %s: %w", r.of.Name, r.name, r.err)
		}
	}
	return nil
}

// lookedUp is the document of a lookup that was read last.
func (in *Input) lookedUp(l *Lookup) *lookedUp {
	for i := len(in.looked) - 1; i >= 0; i-- {
		if in.looked[i].of == l {
			return &in.looked[i]
		}
	}
	return nil
}

// A lookupFacts is a lookup as the loader has it.
type lookupFacts struct {
	Lookup
	at, key document.Value
	doc     document.Value
	used    bool
	broken  bool // what fields it has, or what names it, cannot be told
}

var lookupKeys = document.Keys{Known: []string{"document", "fields", "cache", "timeout"}}

// Bounds of what a lookup may ask for.
const (
	maxLookupCache   = 24 * time.Hour
	maxLookupTimeout = 10 * time.Second
	lookupTimeout    = 300 * time.Millisecond
	maxLookupFields  = 50
)

func (l *loader) readLookups(v document.Value) {
	l.lookups = map[string]*lookupFacts{}
	l.unknown.lookups = v.Present() && !v.IsMap()
	for _, e := range v.Entries() {
		if !e.At.CheckIdent(e.Key) {
			continue
		}
		m := e.Value.Map(lookupKeys)
		if !m.IsMap() {
			l.lookups[e.Key] = &lookupFacts{Lookup: Lookup{Name: e.Key}, at: e.Value, key: e.At, broken: true}
			continue
		}
		f := &lookupFacts{Lookup: Lookup{Name: e.Key, Timeout: lookupTimeout}, at: e.Value, key: e.At, doc: m.Need("document")}
		if t := m.Get("timeout"); t.Present() {
			f.Timeout = t.DurationIn(time.Millisecond, maxLookupTimeout)
		}
		if c := m.Get("cache"); c.Present() {
			f.Cache = c.DurationIn(0, maxLookupCache)
		}
		f.types = l.readFields(m.Need("fields"))
		f.Fields = keysOf(f.types)
		l.readDocument(f)
		f.broken = len(f.types) == 0 || len(f.document.parts) == 0
		l.lookups[e.Key] = f
	}
	if v.Present() && l.env != nil && !l.env.Lookups {
		v.Errorf("`lookups` needs `lookups.firestore` in sidegate.yaml: it says where documents are read")
	}
}

// validDocument reports whether a document can have this name.
func validDocument(name string) bool {
	return ValidKey(name) && !(strings.Contains(name, "__") && reservedID.MatchString("/"+name+"/"))
}

// reservedID are collection and document ids that no document can have
// (firebase.google.com/docs/firestore/quotas).
var reservedID = regexp.MustCompile(`/__[^/]*__/`)

func (l *loader) readFields(v document.Value) map[string]claimType {
	out := map[string]claimType{}
	entries := v.Entries()
	for _, e := range entries {
		if !e.At.CheckIdent(e.Key) {
			continue
		}
		text, isText := e.Value.Text()
		t, ok := parseClaimType(text)
		if !ok && isText {
			e.Value.Errorf("%q is no type: %s", text, typeHint(text))
		}
		out[e.Key] = t // of no type that is known where it has a mistake
	}
	if v.IsMap() && (len(entries) == 0 || len(entries) > maxLookupFields) {
		v.Errorf("`%s`: name 1 to %d fields", v.Path(), maxLookupFields)
	}
	return out
}

// readDocument reads the document's name: collection/id, and so on in pairs.
func (l *loader) readDocument(f *lookupFacts) {
	text, ok := f.doc.Text()
	if !ok {
		return
	}
	t, err := parseTemplate(text)
	if err == nil && strings.HasPrefix(text, "/") {
		err = errors.New("a document's name does not begin with `/`")
	}
	if err == nil {
		err = t.check()
	}
	if errors.Is(err, errNoKey) {
		err = errors.New("can never be the name of a document: no empty, `.` or `..` segments, no backslash and control characters, at most 1024 bytes")
	}
	if err != nil {
		f.doc.Errorf("%s: %v", f.doc.Path(), err)
		return
	}
	slashes := 0
	for _, p := range t.parts {
		switch p.source {
		case sourceLiteral:
			for _, c := range p.literal {
				if c == '/' {
					slashes++
				}
			}
		case sourceUUID, sourceExt:
			f.doc.Errorf("`%s`: ${uuid} and ${ext} are for the key", f.doc.Path())
		case sourceBodyKey:
			f.doc.Errorf("SG004 `%s`: ${request.key} is the caller's own word; write ${sha256(request.key)}", f.doc.Path())
		}
	}
	if slashes%2 == 0 {
		f.doc.Errorf("`%s`: a document is named by pairs of collection and id, as shares/${auth.uid}", f.doc.Path())
	}
	l.checkSources(f.doc, t, nil)
	if reservedID.MatchString("/" + text + "/") {
		f.doc.Errorf("`%s`: Firestore keeps ids of the form __x__ for itself", f.doc.Path())
	}
	f.document = t
}

// useLookup holds a lookup against the place where a condition reads it: its
// document may be named by captures that are there, and by a uid that means
// one person.
func (b *builder) useLookup(v document.Value, look *Lookup) {
	if b.l.lookups[look.Name].broken {
		b.facts.unsure = true
	}
	for _, p := range look.document.parts {
		switch p.source {
		case sourceParam, sourceParamHash:
			if _, ok := b.path.capturesAs(p.literal); !ok {
				v.Errorf("SG003 lookup `%s` names its document by {%s}, and the path has no such capture", look.Name, p.literal)
			} else if p.source == sourceParamHash && !slices.Contains(b.facts.hashes, p.input()) {
				b.facts.hashes = append(b.facts.hashes, p.input())
			}
		case sourceBodyKeyHash:
			if b.route == nil || b.route.Serve != PresignDownloads {
				v.Errorf("SG003 lookup `%s` names its document by request.key, which only routes have that serve %s", look.Name, PresignDownloads)
			} else if !slices.Contains(b.facts.hashes, bodyKey) {
				b.facts.hashes = append(b.facts.hashes, bodyKey)
			}
		case sourceUID:
			b.facts.usesUID = append(b.facts.usesUID, v)
		case sourceEmail:
			if !b.facts.verifiedEmail {
				v.Errorf("SG008 lookup `%s` names its document by auth.email: add `verified_email: true` to this %s", look.Name, b.noun())
			}
		}
	}
	if b.route == nil && len(look.document.bareParams()) > 0 {
		v.Errorf("SG004 lookup `%s` names its document by a capture: a guard can only read it as ${sha256(params.%s)}", look.Name, look.document.bareParams()[0])
	}
}

// params are the captures that a template reads, hashed or not.
func (t template) params() []string {
	var out []string
	for _, p := range t.parts {
		if p.source == sourceParam || p.source == sourceParamHash {
			out = append(out, p.literal)
		}
	}
	return out
}

// bareParams are those that it reads as they are.
func (t template) bareParams() []string {
	var out []string
	for _, p := range t.parts {
		if p.source == sourceParam {
			out = append(out, p.literal)
		}
	}
	return out
}
