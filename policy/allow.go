package policy

import (
	"strconv"

	"sidegate/policy/document"
)

// readAllow reads `allow`: public, optional or a list of entries.
func (l *loader) readAllow(v document.Value, r *Route) {
	if v.IsString() {
		switch text, ok := v.Text(); text {
		case "public":
			r.Access = AccessPublic
		case "optional":
			r.Access = AccessOptional
		default:
			if ok {
				v.Errorf("`%s` must be %s, not %q%s", v.Path(), allowRule, v.Show(), document.DidYouMean(text, []string{"public", "optional"}))
			}
			return
		}
		if r.Serve != "" {
			v.Errorf("a route that serves `%s` needs a list in `allow`", r.Serve)
		}
		return
	}
	if v.Present() && !v.IsList() {
		if !v.Failed() {
			v.Errorf("`%s` must be %s", v.Path(), allowRule)
		}
		return
	}
	l.needIdentities = l.needIdentities || v.Present()
	seen := map[string]bool{}
	for i, e := range v.List() {
		if c := l.entry(e, r, i, seen); c != nil {
			r.entries = append(r.entries, c)
		}
	}
}

// allowRule is what `allow` may be, for errors.
const allowRule = "public, optional or a list of entries such as [{who: [users]}]"

// entry reads one entry of an allow list.
func (l *loader) entry(v document.Value, r *Route, index int, seen map[string]bool) *condition {
	m := v.Map(entryKeys)
	if !m.IsMap() {
		return nil
	}
	id := m.Get("id").Name()
	if seen[id] && id != "" {
		m.Get("id").Errorf("SG002 entry id `%s` is there twice in route `%s`", id, r.ID)
	}
	seen[id] = true
	if id == "" {
		id = strconv.Itoa(index + 1)
	}
	b := l.newBuilder(m, r.ID+"/"+id, inEntry, &r.path, r)
	b.c.dryRun, b.facts.since = readMode(m)
	b.readFields()
	conditions := len(v.Entries())
	for _, key := range []string{"id", "mode", "since"} {
		if m.Get(key).Present() {
			conditions--
		}
	}
	if conditions == 0 {
		v.Errorf("an entry without conditions lets everybody in; say `who`, or `allow: public`")
	}
	return b.c
}
