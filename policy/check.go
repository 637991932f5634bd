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
// type string, captures of the path.
func (l *loader) checkSources(v document.Value, t template, r *Route) {
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
			if _, ok := r.path.capturesAs(p.literal); !ok {
				v.Errorf("SG003 the path has no capture {%s}%s", p.literal, document.DidYouMean(p.literal, r.path.names()))
			}
		}
	}
}

// checkRoute holds what needs the whole route: what its key may be made of,
// and whom it may admit.
func (l *loader) checkRoute(m document.Map, r *Route, entries []entryFacts) {
	if r.Object != nil && len(r.Object.key.parts) > 0 && len(entries) > 0 {
		l.checkKey(m.Get("object").Field("key"), r, entries)
	}
	l.checkPrefixes(m.Get("allow"), r, entries)
	if l.env == nil || !l.env.Upstreams[r.Upstream].Anonymous || r.Access == AccessPublic {
		return
	}
	names := admitted(entries)
	if r.Access == AccessOptional {
		names = keysOf(l.env.Identities) // a token of any of them is taken
	}
	if all := l.namespaces(names); len(all) > 1 {
		m.Errorf("SG009 route `%s` admits identities of several uid namespaces (%s) to an upstream whose headers do not tell them apart: limit it by `who`", r.ID, strings.Join(all, ", "))
	}
}

// admitted are the identities that some entry can let in.
func admitted(entries []entryFacts) []string {
	var out []string
	for _, e := range entries {
		for _, name := range e.who {
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// checkPrefixes is SG009 for entries that share a prefix with the uid in it:
// each is of one namespace, but the folder would be of several.
func (l *loader) checkPrefixes(v document.Value, r *Route, entries []entryFacts) {
	byPrefix := map[string][]entryFacts{}
	for i, e := range entries {
		t, err := parseTemplate(e.keyPrefix)
		if err != nil || !t.uses(sourceUID) {
			continue
		}
		same := append(byPrefix[e.keyPrefix], e)
		byPrefix[e.keyPrefix] = same
		if all := l.namespaces(admitted(same)); len(same) > 1 && len(all) > 1 && len(l.namespaces(e.who)) == 1 {
			v.List()[i].Errorf("SG009 entry `%s` has the `key_prefix` of another entry, for identities of another uid namespace (%s): give each its own", r.entries[i].rule, strings.Join(all, ", "))
		}
	}
}

// checkKey holds rule 8 of the policy's reference: what the caller chose must
// not choose the key, but where every entry ties it to the caller.
func (l *loader) checkKey(v document.Value, r *Route, entries []entryFacts) {
	t := &r.Object.key
	l.checkSources(v, *t, r)
	r.inputs.note(*t)
	if (t.uses(sourceUUID) || t.uses(sourceExt)) && r.Serve != PresignUpload {
		v.Errorf("${uuid} and ${ext} exist only in keys of %s", PresignUpload)
	}
	if t.uses(sourceEmail) && !every(entries, func(e entryFacts) bool { return e.verifiedEmail }) {
		v.Errorf("SG008 the key uses auth.email: every entry needs `verified_email: true`")
	}
	usesUID := t.uses(sourceUID)
	_, alone := t.isParam()
	if alone && r.Serve == PresignDownload && every(entries, func(e entryFacts) bool { return e.keyPrefix != "" }) {
		t.named = true
		return
	}
	for _, p := range t.parts {
		if p.source == sourceParam && l.checkKeyCapture(v, r, entries, p.literal, alone) {
			usesUID = true
		}
	}
	if all := l.namespaces(admitted(entries)); usesUID && len(all) > 1 {
		v.Errorf("SG009 the key uses the uid, and the route admits identities of several uid namespaces (%s): limit its entries by `who`", strings.Join(all, ", "))
	}
}

// checkKeyCapture allows a {x} in a key that every entry compares, and reports
// whether it is the uid then.
func (l *loader) checkKeyCapture(v document.Value, r *Route, entries []entryFacts, name string, alone bool) (isUID bool) {
	single, ok := r.path.capturesAs(name)
	if single && every(entries, func(e entryFacts) bool { return e.uidIs == name || e.orgIs == name }) {
		return slices.ContainsFunc(entries, func(e entryFacts) bool { return e.uidIs == name })
	}
	if alone && r.Serve == PresignDownload {
		v.Errorf("SG004 the caller names the key here, so every entry of `allow` needs a `key_prefix`")
	} else if ok {
		v.Errorf("SG004 ${params.%s} in a key: the caller would choose it; every entry must compare {%s} by `uid` or `org.id`, or write ${sha256(params.%s)}", name, name, name)
	}
	return false
}

func every(entries []entryFacts, holds func(entryFacts) bool) bool {
	return !slices.ContainsFunc(entries, func(e entryFacts) bool { return !holds(e) })
}
