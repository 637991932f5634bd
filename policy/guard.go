package policy

import (
	"strings"

	"sidegate/policy/document"
)

// A guard takes access away from the requests that it matches, whatever route
// was selected.
type guard struct {
	id      string
	hosts   []string
	path    *pattern  // nil: every path
	methods methodSet // 0: every method
	deny    bool      // else it requires
	cond    *condition
	// captures: its templates or its condition read captures of its own path.
	captures bool
	at       document.Value
}

// A guardAt is a guard that may match the requests of one route.
type guardAt struct {
	*guard
	always bool // host, path and methods of every request of the route match
}

var guardKeys = document.Keys{Known: []string{"id", "host", "path", "methods", "deny", "require", "mode", "since"}}

func (l *loader) readGuards(v document.Value) {
	ids := map[string]document.Value{}
	for _, e := range v.List() {
		if g := l.guard(e, ids); g != nil {
			l.guards = append(l.guards, g)
		}
	}
}

func (l *loader) guard(v document.Value, ids map[string]document.Value) *guard {
	m := v.Map(guardKeys)
	if !m.IsMap() {
		return nil
	}
	g := &guard{at: v}
	at := m.Need("id")
	g.id = at.Name()
	if first, taken := ids[g.id]; taken && g.id != "" {
		line, _ := first.Position()
		at.Errorf("SG002 guard id `%s` is taken by the guard in line %d", g.id, line)
	}
	ids[g.id] = at
	g.hosts = readHosts(m.Get("host"))
	if p := m.Get("path"); p.Present() {
		if path, ok := readPattern(p); ok {
			g.path = &path
		}
	}
	g.methods = readMethods(m.Get("methods"))
	deny, require := m.Get("deny"), m.Get("require")
	if deny.Present() == require.Present() {
		m.Errorf("a guard has exactly one of `deny` and `require`")
		return nil
	}
	where, cond := inRequire, require
	if g.deny = deny.Present(); g.deny {
		where, cond = inDeny, deny
	}
	c := cond.Map(guardConditionKeys)
	if !c.IsMap() {
		return nil
	}
	if len(c.Entries()) == 0 {
		cond.Errorf("`%s` names no condition", cond.Path())
	}
	path := g.path
	if path == nil {
		path = &pattern{}
	}
	b := l.newBuilder(c, g.id, where, path, nil)
	b.c.dryRun, b.facts.since = readMode(m)
	b.readFields()
	g.cond = b.c
	for _, f := range g.cond.fields {
		for _, name := range f.reads {
			g.captures = g.captures || strings.HasPrefix(name, "params.")
		}
		for _, look := range f.lookups {
			g.captures = g.captures || len(look.document.params()) > 0
		}
	}
	return g
}

// attach finds the guards that may match the requests of a route.
func (l *loader) attach(r *Route) {
	for _, g := range l.guards {
		if always, may := g.meets(r); may {
			r.guards = append(r.guards, guardAt{g, always})
		}
	}
}

// meets reports whether some request of the route is one of the guard's, and
// whether all are.
func (g *guard) meets(r *Route) (always, may bool) {
	always = len(g.hosts) == 0 && !g.captures
	if g.methods != 0 {
		counted := r.counted()
		if g.methods&counted == 0 {
			return false, false
		}
		always = always && counted&^g.methods == 0
	}
	if g.path == nil {
		return always, true
	}
	if r.path.within(*g.path) {
		return always, true
	}
	_, may = r.path.meet(*g.path)
	return false, may
}

// matches reports whether a request of the route is one of the guard's; where
// the guard reads captures, in has its own then.
func (g *guardAt) matches(in *Input) bool {
	if g.always {
		return true
	}
	if g.methods != 0 && g.methods&methodBit(in.method()) == 0 {
		return false
	}
	if len(g.hosts) > 0 && !hostIn(in.Host, g.hosts) {
		return false
	}
	if g.path == nil {
		return true
	}
	var segments [32]string
	parts, ok := split(segments[:0], in.Path)
	if !ok || !g.path.matches(parts) {
		return false
	}
	if g.captures {
		in.Params = g.path.capture(parts, in.Path)
	}
	return true
}

func hostIn(host string, hosts []string) bool {
	for _, h := range hosts {
		if suffix, wild := strings.CutPrefix(h, "*"); h == host || (wild && len(host) > len(suffix) && strings.HasSuffix(host, suffix)) {
			return true
		}
	}
	return false
}

// judge says what the guard does with a request that it matches: yes, it lets
// it pass; no, it refuses it; else that cannot be told.
func (g *guard) judge(in *Input) verdict {
	v := g.cond.holds(in)
	if g.deny {
		switch v {
		case yes:
			return no
		case no:
			return yes
		}
	}
	return v
}

func (g *guard) reason(v verdict) string {
	switch {
	case g.deny && v == no:
		return ReasonDenyTrue
	case g.deny:
		return ReasonDenyError
	case v == no:
		return ReasonRequireFalse
	}
	return ReasonRequireError
}
