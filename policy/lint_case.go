package policy

import "strings"

// cases is SG115: a request that differs from a route's in the case of letters
// only is another request here, and the same for many apps. Where it comes to
// the app by a route that lets in more, or past a guard, the app would serve
// what the rule keeps from the caller.
//
// Only routes to the same upstream are held against each other: another app
// has other paths. A route that the gateway answers itself has no such double.
func (t *linter) cases() {
	c := &caseLint{linter: t, tables: t.p.hosts.tables(), folded: map[*node]map[string][]*node{}}
	for _, strict := range c.tables {
		for _, g := range strict.groups {
			if g.path.cased() {
				c.route(strict.host, g)
			}
		}
	}
	for _, r := range t.p.Routes {
		if miss, ok := c.missed[r]; ok {
			t.warn(t.at(r, "path"), "SG115", "`%s` selects route `%s` in line %d, which lets in more: an app that ignores case would serve it like `%s`; refuse other cases by a guard on request.path, or make the app compare case", example(miss.other), miss.by.ID, t.l.line(miss.by), example(miss.path))
		}
	}
	for _, g := range t.l.guards {
		if g.path != nil && g.path.cased() && !g.cond.dryRun {
			c.guard(g)
		}
	}
}

type caseLint struct {
	*linter
	tables []hostOf
	missed map[*Route]miss
	// folded are children of large nodes, by their literal in lower case.
	folded map[*node]map[string][]*node
}

// A miss is a twin that is judged by another route.
type miss struct {
	twin
	by *Route
}

// route looks for the routes that take the requests of g's in another case.
func (c *caseLint) route(host string, g *group) {
	for _, lax := range c.tables {
		at, ok := narrower(host, lax.host)
		if !ok {
			continue
		}
		c.near(lax.root, g.path.prefix, g.path.rest, func(other *group) {
			for _, r := range g.routes {
				for _, b := range other.routes {
					c.compare(at, r, b)
				}
			}
		})
	}
}

func (c *caseLint) compare(host string, r, b *Route) {
	common := r.methods & b.methods
	if r == b || common == 0 || r.Upstream == "" || r.Upstream != b.Upstream || !r.stricter(b, common) {
		return
	}
	if first, told := c.missed[r]; told && !c.l.before(b, first.by) {
		return
	}
	for w := range twins(&r.path, &b.path, true) {
		if c.selects(host, w.path, common, r) && c.selects(host, w.other, common, b) {
			if c.missed == nil {
				c.missed = map[*Route]miss{}
			}
			c.missed[r] = miss{w, b}
			return
		}
	}
}

// guard looks for the requests that pass g by in another case.
func (c *caseLint) guard(g *guard) {
	hosts := g.hosts
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	var first *miss
	for _, host := range hosts {
		for _, table := range c.tables {
			at, ok := narrower(host, table.host)
			if !ok {
				continue
			}
			c.near(table.root, g.path.prefix, g.path.rest, func(other *group) {
				for _, b := range other.routes {
					if first != nil && !c.l.before(b, first.by) {
						continue
					}
					if w, ok := c.passes(at, g, b); ok {
						first = &miss{w, b}
					}
				}
			})
		}
	}
	if first != nil {
		c.warn(g.at.Field("path"), "SG115", "`%s` comes to route `%s` in line %d past guard `%s`: an app that ignores case would serve it like `%s`; refuse other cases by a guard on request.path, or make the app compare case", example(first.other), first.by.ID, c.l.line(first.by), g.id, example(first.path))
	}
}

// passes finds a request of b that is one of the guard's in another case,
// where the guard's own leads to the same app.
func (c *caseLint) passes(host string, g *guard, b *Route) (twin, bool) {
	f := g.cond.facts
	methods := b.methods
	if g.methods != 0 {
		methods &= g.methods
	}
	if g.deny {
		methods = f.methodsIn(methods)
	}
	// Of nobody such a guard is never true, so there is nothing to pass by.
	harmless := g.deny && f.identity && b.Access == AccessPublic
	if b.Upstream == "" || harmless {
		return twin{}, false
	}
	for w := range twins(g.path, &b.path, true) {
		parts, _ := split(nil, w.other)
		if g.path.matches(parts) {
			continue
		}
		for _, m := range methods.list() {
			own, other := c.p.Match(exampleHost(host), w.path, m), c.p.Match(exampleHost(host), w.other, m)
			if own.Route != nil && own.Route.Upstream == b.Upstream && other.Route == b {
				return w, true
			}
		}
	}
	return twin{}, false
}

// narrower is the narrower of two hosts of which one means every host that the
// other does.
func narrower(a, b string) (string, bool) {
	switch {
	case hostCovers(a, b):
		return b, true
	case hostCovers(b, a):
		return a, true
	}
	return "", false
}

// near calls visit for every group below n that may match a path with these
// prefix segments in whatever case. Whether one does is for the caller to see.
func (c *caseLint) near(n *node, prefix []segment, rest bool, visit func(*group)) {
	n.rest.each(visit)
	if len(prefix) == 0 {
		if n.end != nil {
			visit(n.end)
		}
		if !rest {
			return
		}
	}
	var first segment
	if len(prefix) > 0 {
		first, prefix = prefix[0], prefix[1:]
	}
	if n.capture != nil {
		c.near(n.capture, prefix, rest, visit)
	}
	if first.literal == "" {
		for _, next := range n.literal {
			c.near(next, prefix, rest, visit)
		}
		return
	}
	for _, next := range c.children(n, first.literal) {
		c.near(next, prefix, rest, visit)
	}
}

// children are those of n whose literal is this one in some case.
func (c *caseLint) children(n *node, literal string) []*node {
	all := c.folded[n]
	if all == nil {
		all = make(map[string][]*node, len(n.literal))
		for s, next := range n.literal {
			s = strings.ToLower(s)
			all[s] = append(all[s], next)
		}
		c.folded[n] = all
	}
	return all[strings.ToLower(literal)]
}

// each calls visit for every group at and below n.
func (n *endNode) each(visit func(*group)) {
	if n == nil {
		return
	}
	if n.group != nil {
		visit(n.group)
	}
	for _, next := range n.literal {
		next.each(visit)
	}
}
