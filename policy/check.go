package policy

import (
	"slices"
	"strings"

	"sidegate/policy/document"
)

// namespaces are the different uid namespaces of the named identities.
func (l *loader) namespaces(names []string) []string {
	var out []string
	for _, name := range names {
		ns := name
		if l.env != nil {
			if of, ok := l.env.Identities[name]; ok {
				ns = of
			}
		}
		if !slices.Contains(out, ns) {
			out = append(out, ns)
		}
	}
	return out
}

// checkSources checks that what a template reads exists: declared claims of
// type string, captures of the path (where path is not nil).
func (l *loader) checkSources(v document.Value, t template, path *pattern) {
	for _, p := range t.parts {
		switch p.source {
		case sourceClaim:
			got, ok := l.claims[p.literal]
			if !ok {
				v.Errorf("SG003 claim `%s` is not declared; add `%s: string` under `claims`%s", p.literal, p.literal, document.DidYouMean(p.literal, keysOf(l.claims)))
			} else if got != (claimType{scalar: "string"}) {
				v.Errorf("claim `%s` is a %s: only a string can stand in a template", p.literal, got)
			}
		case sourceParam, sourceParamHash:
			if path == nil {
				continue
			}
			if _, ok := path.capturesAs(p.literal); !ok {
				v.Errorf("SG003 the path has no capture {%s}%s", p.literal, document.DidYouMean(p.literal, path.names()))
			}
		}
	}
}

// checkRoute holds what needs the whole route: what its key may be made of,
// and whom it may admit.
func (l *loader) checkRoute(m document.Map, r *Route) {
	if r.Object != nil && len(r.Object.key.parts) > 0 && len(r.entries) > 0 {
		l.checkKey(m.Get("object").Field("key"), r)
	}
	l.checkPrefixes(r)
	l.checkDocuments(r)
	if l.env == nil || !l.env.Upstreams[r.Upstream].Anonymous || r.Access == AccessPublic {
		return
	}
	names := r.admitted()
	if r.Access == AccessOptional {
		names = keysOf(l.env.Identities) // a token of any of them is taken
	}
	if all := l.namespaces(names); len(all) > 1 {
		m.Errorf("SG009 route `%s` admits identities of several uid namespaces (%s) to an upstream whose headers do not tell them apart: limit it by `who`", r.ID, strings.Join(all, ", "))
	}
}

// admitted are the identities that some entry can let in, those in dry_run too:
// they are to be enforced one day.
func (r *Route) admitted() []string { return admitted(r.entries) }

func admitted(entries []*condition) []string {
	var out []string
	for _, e := range entries {
		for _, name := range e.facts.who {
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// checkPrefixes is SG009 for entries that share a prefix with the uid in it:
// each is of one namespace, but the folder would be of several.
func (l *loader) checkPrefixes(r *Route) {
	byPrefix := map[string][]*condition{}
	for _, e := range r.entries {
		prefix := e.facts.keyPrefix
		t, err := parseTemplate(prefix)
		if err != nil || !t.uses(sourceUID) {
			continue
		}
		var same []*condition
		for other, list := range byPrefix { // the same folder, or one within the other
			if strings.HasPrefix(other, prefix) || strings.HasPrefix(prefix, other) {
				same = append(same, list...)
			}
		}
		same = append(same, e)
		byPrefix[prefix] = append(byPrefix[prefix], e)
		if all := l.namespaces(admitted(same)); len(same) > 1 && len(all) > 1 && len(l.namespaces(e.facts.who)) == 1 {
			e.facts.at.Errorf("SG009 entry `%s` has the `key_prefix` of another entry, or one within it, for identities of another uid namespace (%s): give each its own", e.rule, strings.Join(all, ", "))
		}
	}
}

// checkLookups is SG009 for documents that are named by a uid: read for
// identities of several namespaces, one person's document would speak for
// another.
func (l *loader) checkLookups(conditions []*condition) {
	by := map[*Lookup][]string{} // who may be judged by it
	for _, c := range conditions {
		if c.facts.expr == nil {
			continue
		}
		for _, look := range c.facts.expr.lookups {
			if look.document.uses(sourceUID) || (c.facts.uidIs != "" && slices.Contains(look.document.bareParams(), c.facts.uidIs)) {
				by[look] = append(by[look], c.facts.who...)
			}
		}
	}
	for _, name := range keysOf(l.lookups) {
		f := l.lookups[name]
		if all := l.namespaces(by[&f.Lookup]); len(all) > 1 {
			f.doc.Errorf("SG009 lookup `%s` names its document by the uid, and is read for identities of several uid namespaces (%s): give each a lookup of its own", name, strings.Join(all, ", "))
		}
	}
}

// checkDocuments holds rule 8 for the documents of lookups: a capture names one
// only where every entry ties it to the caller.
func (l *loader) checkDocuments(r *Route) {
	for _, e := range r.entries {
		if e.facts.expr == nil {
			continue
		}
		for _, look := range e.facts.expr.lookups {
			for _, name := range look.document.bareParams() {
				if !r.compares(name) {
					e.facts.at.Errorf("SG004 lookup `%s` names its document by ${params.%s}: every entry must compare {%s} by `uid` or `org.id`, or the lookup be written with ${sha256(params.%s)}", look.Name, name, name, name)
				}
			}
		}
	}
}

// compares reports whether every entry compares the capture {x}.
func (r *Route) compares(name string) bool {
	single, _ := r.path.capturesAs(name)
	return single && every(r.entries, func(f *facts) bool { return f.uidIs == name || f.orgIs == name })
}

// checkKey holds rule 8 of the policy's reference: what the caller chose must
// not choose the key, but where every entry ties it to the caller.
func (l *loader) checkKey(v document.Value, r *Route) {
	t := &r.Object.key
	l.checkSources(v, *t, &r.path)
	if (t.uses(sourceUUID) || t.uses(sourceExt)) && r.Serve != PresignUpload {
		v.Errorf("${uuid} and ${ext} exist only in keys of %s", PresignUpload)
	}
	if t.uses(sourceEmail) && !every(r.entries, func(f *facts) bool { return f.verifiedEmail }) {
		v.Errorf("SG008 the key uses auth.email: every entry needs `verified_email: true`")
	}
	usesUID := t.uses(sourceUID)
	name, alone := t.isParam()
	if alone && r.Serve == PresignDownload && every(r.entries, func(f *facts) bool { return f.keyPrefix != "" || slices.Contains(f.hashes, name) }) {
		t.named = true
		return
	}
	for _, p := range t.parts {
		if p.source == sourceParam && l.checkKeyCapture(v, r, p.literal, alone) {
			usesUID = true
		}
	}
	if all := l.namespaces(r.admitted()); usesUID && len(all) > 1 {
		v.Errorf("SG009 the key uses the uid, and the route admits identities of several uid namespaces (%s): limit its entries by `who`", strings.Join(all, ", "))
	}
}

// checkKeyCapture allows a {x} in a key that every entry compares, and reports
// whether it is the uid then.
func (l *loader) checkKeyCapture(v document.Value, r *Route, name string, alone bool) (isUID bool) {
	if r.compares(name) {
		return slices.ContainsFunc(r.entries, func(e *condition) bool { return e.facts.uidIs == name })
	}
	_, ok := r.path.capturesAs(name)
	if alone && r.Serve == PresignDownload {
		v.Errorf("SG004 the caller names the key here, so every entry of `allow` needs a `key_prefix`, or an `if` that reads a lookup whose document is named by ${sha256(params.%s)}", name)
	} else if ok {
		v.Errorf("SG004 ${params.%s} in a key: the caller would choose it; every entry must compare {%s} by `uid` or `org.id`, or write ${sha256(params.%s)}", name, name, name)
	}
	return false
}

func every(entries []*condition, holds func(*facts) bool) bool {
	return !slices.ContainsFunc(entries, func(e *condition) bool { return !holds(e.facts) })
}
