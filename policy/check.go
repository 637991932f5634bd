package policy

import (
	"regexp"
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
		case sourceLiteral:
			l.refuseBraces(v, p.literal, path)
		case sourceClaim:
			got, ok := l.claims[p.literal]
			if instead, taken := notCustom[p.literal]; taken {
				v.Errorf("${auth.token.%s}: write ${%s}", p.literal, instead)
				continue
			}
			if !ok && l.unknown.claims || ok && !got.known() {
				continue
			}
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

var braces = regexp.MustCompile(`\{([A-Za-z_][A-Za-z0-9_.]*?)(?:\.\.\.)?\}`)

// refuseBraces refuses {name} in a template where ${params.name} or ${name} must
// have been meant: it would be taken as it stands. A document's template, which
// has no path of its own, may be read on any route.
func (l *loader) refuseBraces(v document.Value, literal string, path *pattern) {
	captured := func(name string) bool {
		if path != nil {
			return slices.Contains(path.names(), name)
		}
		return slices.ContainsFunc(l.root.Field("routes").List(), func(r document.Value) bool {
			text := r.Field("path").Show()
			return strings.Contains(text, "{"+name+"}") || strings.Contains(text, "{"+name+"...}")
		})
	}
	for _, m := range braces.FindAllStringSubmatch(literal, -1) {
		instead := ""
		if _, err := parseSource(m[1]); err == nil {
			instead = m[1]
		} else if captured(m[1]) {
			instead = "params." + m[1]
		} else {
			instead = meant(m[1])
		}
		if instead != "" {
			v.Errorf("`%s`: %s would be taken as it stands; write ${%s}", v.Path(), m[0], instead)
		}
	}
}

// checkRoute holds what needs the whole route: what its key may be made of,
// and whom it may admit.
func (l *loader) checkRoute(m document.Map, r *Route) {
	if r.Object != nil && len(r.Object.template().parts) > 0 && len(r.entries) > 0 {
		at := m.Get("object").Field("key")
		if r.Serve == ListObjects {
			at = m.Get("object").Field("prefix")
		}
		l.checkKey(at, r)
	}
	l.checkDocuments(r)
	if l.env == nil || r.Access == AccessPublic {
		return
	}
	up := l.env.Upstreams[r.Upstream]
	names := r.admitted()
	if r.Access == AccessOptional {
		names = keysOf(l.env.Identities) // a token of any of them is taken
	}
	if all := l.namespaces(names); up.NoIdentity && len(all) > 1 {
		m.Errorf("SG009 route `%s` admits identities of several uid namespaces (%s) to an upstream whose headers do not tell them apart: limit it by `who`", r.ID, strings.Join(all, ", "))
	}
	if i := slices.IndexFunc(names, func(name string) bool { return l.env.Actors[name] }); up.NoActor && i >= 0 {
		m.Errorf("SG009 route `%s` admits callers of `%s`, who act for a user, to an upstream whose headers do not say so: limit it by `who`, or give the upstream headers that carry the actor", r.ID, names[i])
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

// isUID reports whether a capture is the uid where the condition holds: it is
// compared with it, by `uid` or in `if`.
func (f *facts) isUID(capture string) bool {
	return f.uidIs == capture && capture != "" ||
		f.expr != nil && slices.Contains(f.expr.reads, "auth.uid") && slices.Contains(f.expr.reads, "params."+capture)
}

// namedByUID reports whether the template names something by the uid: by itself,
// or by a capture that is the uid, hashed or not.
func (t template) namedByUID(f *facts) bool {
	return t.uses(sourceUID) || slices.ContainsFunc(t.params(), f.isUID)
}

// normal is the template's text with what it reads in one spelling: captures of
// whatever name are one, and those that are the uid are it.
func (t template) normal(f *facts) string {
	out := ""
	for _, p := range t.parts {
		out += p.normal(f)
	}
	return out
}

func (p part) normal(f *facts) string {
	isUID := p.source == sourceUID || (p.source == sourceParam || p.source == sourceParamHash) && f.isUID(p.literal)
	switch {
	case p.source == sourceLiteral:
		return p.literal
	case p.source == sourceParamHash && isUID:
		return "${sha256(uid)}"
	case p.source == sourceParamHash, p.source == sourceBodyKeyHash:
		return "${sha256()}"
	case isUID:
		return "${uid}"
	case p.source == sourceParam:
		return "${}"
	}
	return "${" + p.input() + "}"
}

// A uidFolder is where the uid stands in a key, a prefix or a document's name:
// the folder, and the text before it in its segment.
type uidFolder struct{ parent, lead string }

// uidFolder is ok where a uid names something, and the identity's name, by which
// each would have its own, does not stand before it: the two are never in one
// segment.
func (t template) uidFolder(f *facts) (in uidFolder, ok bool) {
	head := ""
	for _, p := range t.parts {
		switch {
		case p.source == sourceIdentity:
			return uidFolder{}, false
		case p.source == sourceUID, (p.source == sourceParam || p.source == sourceParamHash) && f.isUID(p.literal):
			i := strings.LastIndex(head, "/") + 1
			return uidFolder{head[:i], head[i:]}, true
		}
		head += p.normal(f)
	}
	return uidFolder{}, false
}

// meets reports whether some uid names the same in both: with `b-` before the
// one and nothing before the other, the other may begin so.
func (a uidFolder) meets(b uidFolder) bool {
	return a.parent == b.parent && (strings.HasPrefix(a.lead, b.lead) || strings.HasPrefix(b.lead, a.lead))
}

// checkFolders is SG009 for what entries of all routes share: each entry is of
// one namespace, but a folder in a bucket that a uid names would be of several.
func (l *loader) checkFolders(routes []*Route) {
	type owner struct {
		rule, namespace string
		folder          uidFolder
	}
	folders := map[string][]owner{} // by bucket and parent
	for _, r := range routes {
		if r.Object == nil {
			continue
		}
		for _, e := range r.entries {
			spaces := l.namespaces(e.facts.who)
			if len(spaces) != 1 {
				continue // refused where it uses the uid
			}
			prefix, _ := parseTemplate(e.facts.keyPrefix)
			for _, t := range []template{prefix, *r.Object.template()} {
				folder, ok := t.uidFolder(e.facts)
				if !ok {
					continue
				}
				at := r.Object.Bucket + "\x00" + folder.parent
				others := func(o owner) bool { return o.namespace != spaces[0] && o.folder.meets(folder) }
				known := func(o owner) bool { return o.namespace == spaces[0] && o.folder == folder }
				if i := slices.IndexFunc(folders[at], others); i >= 0 {
					first := folders[at][i]
					e.facts.at.Errorf("SG009 entry `%s` gives uids of `%s` the folder that entry `%s` gives those of `%s`: they are different people; give each namespace a folder of its own", e.rule, spaces[0], first.rule, first.namespace)
				} else if !slices.ContainsFunc(folders[at], known) {
					folders[at] = append(folders[at], owner{e.rule, spaces[0], folder})
				}
			}
		}
	}
}

// checkLookups is SG009 for documents that are named by a uid, or stand in a
// folder that is, or that a condition holds the uid against: read for identities
// of several namespaces, one person's document would speak for another.
func (l *loader) checkLookups(conditions []*condition) {
	who, last := map[string][]string{}, map[string]*Lookup{} // by the document's normal text: who is judged by it, the last lookup of it
	named := map[string]uidFolder{}                          // the same: where a uid stands in it
	for _, c := range conditions {
		if c.facts.expr == nil {
			continue
		}
		for _, look := range c.facts.expr.lookups {
			if look.document.namedByUID(c.facts) || slices.Contains(c.facts.expr.reads, "auth.uid") {
				text := look.document.normal(c.facts)
				if in, ok := look.document.uidFolder(c.facts); ok {
					named[text] = in
				}
				who[text] = append(who[text], c.facts.who...)
				if last[text] == nil || last[text].Name < look.Name {
					last[text] = look
				}
			}
		}
	}
	for _, text := range keysOf(who) {
		all := slices.Clone(who[text])
		mine, isNamed := named[text]
		for _, other := range keysOf(named) {
			if isNamed && other < text && named[other].meets(mine) {
				all = append(all, who[other]...)
			}
		}
		if all := l.namespaces(all); len(all) > 1 {
			name := last[text].Name
			l.lookups[name].doc.Errorf("SG009 lookup `%s` is about uids, and its documents are read for identities of several uid namespaces (%s): give each documents of its own", name, strings.Join(all, ", "))
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
	return single && every(r.entries, func(f *facts) bool { return f.uidIs == name || f.orgIs == name || f.unsure })
}

// checkKey holds rule 8 of the policy's reference: what the caller chose must
// not choose the key, but where every entry ties it to the caller.
func (l *loader) checkKey(v document.Value, r *Route) {
	t := r.Object.template()
	l.checkSources(v, *t, &r.path)
	if (t.uses(sourceUUID) || t.uses(sourceExt)) && !r.BeginsUploads() {
		v.Errorf("${uuid} and ${ext} exist only in keys of %s", anyOfWords(operationsOf("content_types")))
	}
	if t.uses(sourceEmail) && !every(r.entries, func(f *facts) bool { return f.verifiedEmail }) {
		v.Errorf("SG008 the key uses auth.email: every entry needs `verified_email: true`")
	}
	usesUID := slices.ContainsFunc(r.entries, func(e *condition) bool { return t.namedByUID(e.facts) })
	if l.checkBodyKey(v, r) {
		return
	}
	name, alone := t.isParam()
	alone = alone && (r.Serve == PresignDownload || r.Serve == DeleteObject)
	if alone && r.bounds("params."+name) {
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

// bounds reports whether every entry says which keys callers may name: by a
// prefix, or by a document that the key names, as sha256(source).
func (r *Route) bounds(source string) bool {
	return every(r.entries, func(f *facts) bool { return f.keyPrefix != "" || f.unsure || slices.Contains(f.hashes, source) })
}

// checkBodyKey allows ${request.key}, which is the caller's own word as a capture
// is, as the whole key of presign_downloads, which has no other. It reports
// whether there is no more to say.
func (l *loader) checkBodyKey(v document.Value, r *Route) (done bool) {
	t := r.Object.template()
	uses := t.uses(sourceBodyKey) || t.uses(sourceBodyKeyHash)
	alone := len(t.parts) == 1 && t.parts[0].source == sourceBodyKey
	switch {
	case r.Serve == PresignDownloads && !alone:
		v.Errorf("`serve: %s` signs the keys that the body names: write `key: ${request.key}`", r.Serve)
	case uses && r.Serve != PresignDownloads:
		v.Errorf("${request.key} exists only as the key of %s", PresignDownloads)
	case alone && !r.bounds(bodyKey):
		v.Errorf("SG004 the caller names the keys here, so every entry of `allow` needs a `key_prefix`, or an `if` that reads a lookup whose document is named by ${sha256(request.key)}")
	case alone:
		t.named = true
	}
	return uses || r.Serve == PresignDownloads
}

// checkKeyCapture allows a {x} in a key that every entry compares, and reports
// whether it is the uid then.
func (l *loader) checkKeyCapture(v document.Value, r *Route, name string, alone bool) (isUID bool) {
	if r.compares(name) {
		return slices.ContainsFunc(r.entries, func(e *condition) bool { return e.facts.uidIs == name })
	}
	_, ok := r.path.capturesAs(name)
	if alone {
		v.Errorf("SG004 the caller names the key here, so every entry of `allow` needs a `key_prefix`, or an `if` that reads a lookup whose document is named by ${sha256(params.%s)}", name)
	} else if ok {
		v.Errorf("SG004 ${params.%s} in a key: the caller would choose it; every entry must compare {%s} by `uid` or `org.id`, or write ${sha256(params.%s)}", name, name, name)
	}
	return false
}

func every(entries []*condition, holds func(*facts) bool) bool {
	return !slices.ContainsFunc(entries, func(e *condition) bool { return !holds(e.facts) })
}
