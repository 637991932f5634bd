package policy

import "strings"

// A hostTable finds routes: the exact host's first, then those of the longest
// *.suffix, then those of any host. A host whose routes do not match the path
// leaves it to the next.
type hostTable struct {
	exact  map[string]*table
	suffix map[string]*table // by the suffix with its dot: ".acme.dev"
	any    *table
}

func (h *hostTable) find(host string, parts []string) *group {
	if g := h.exact[host].find(parts); g != nil {
		return g
	}
	if len(h.suffix) > 0 {
		for i := 1; i < len(host); i++ {
			if host[i] != '.' {
				continue
			}
			if g := h.suffix[host[i:]].find(parts); g != nil {
				return g
			}
		}
	}
	return h.any.find(parts)
}

// of is the table of a host as a policy writes it; "" is any host.
func (h *hostTable) of(host string) *table {
	if host == "" {
		if h.any == nil {
			h.any = newTable()
		}
		return h.any
	}
	tables := &h.exact
	if suffix, ok := strings.CutPrefix(host, "*"); ok {
		tables, host = &h.suffix, suffix
	}
	if *tables == nil {
		*tables = map[string]*table{}
	}
	if (*tables)[host] == nil {
		(*tables)[host] = newTable()
	}
	return (*tables)[host]
}

// A table is the routes of one host, as a trie of segments.
type table struct {
	root   *node
	groups []*group
}

// A group is the routes of one path: their methods are disjoint.
type group struct {
	path   pattern
	routes []*Route
	// rank counts the table's paths that hold this one. A path that matches a
	// request together with another either holds it or lies within it, so of
	// those that match the highest rank is the most specific.
	rank int
}

// A node is a place after some prefix segments.
type node struct {
	literal map[string]*node
	capture *node
	end     *group   // a path that ends here
	rest    *endNode // paths whose {x...} starts here, by their last segments
}

// An endNode is a place before some suffix segments, read from the end.
type endNode struct {
	literal map[string]*endNode
	group   *group
}

func newTable() *table { return &table{root: &node{}} }

// find gives the most specific group whose path matches; nil where none does
// or there is no table.
func (t *table) find(parts []string) *group {
	if t == nil {
		return nil
	}
	return t.root.find(parts, nil)
}

// find gives the most specific of best and what matches below n. A node is
// visited at most once in a lookup: its depth is its place in parts.
func (n *node) find(parts []string, best *group) *group {
	if n.rest != nil {
		best = n.rest.find(parts, best)
	}
	if len(parts) == 0 {
		return better(best, n.end)
	}
	if n.capture != nil {
		best = n.capture.find(parts[1:], best)
	}
	if next := n.literal[parts[0]]; next != nil {
		best = next.find(parts[1:], best)
	}
	return best
}

func (n *endNode) find(parts []string, best *group) *group {
	for {
		best = better(best, n.group)
		if len(parts) == 0 {
			return best
		}
		next := n.literal[parts[len(parts)-1]]
		if next == nil {
			return best
		}
		n, parts = next, parts[:len(parts)-1]
	}
}

func better(a, b *group) *group {
	if a == nil || (b != nil && b.rank > a.rank) {
		return b
	}
	return a
}

// place is the group of a path, made where there is none yet. Paths that
// differ only in the names of captures are the same.
func (t *table) place(p pattern) *group {
	n := t.root
	for _, s := range p.prefix {
		n = n.next(s)
	}
	at := &n.end
	if p.rest {
		if n.rest == nil {
			n.rest = &endNode{}
		}
		e := n.rest
		for i := len(p.suffix) - 1; i >= 0; i-- {
			e = e.next(p.suffix[i])
		}
		at = &e.group
	}
	if *at == nil {
		*at = &group{path: p}
		t.groups = append(t.groups, *at)
	}
	return *at
}

func (n *endNode) next(literal string) *endNode {
	if n.literal == nil {
		n.literal = map[string]*endNode{}
	}
	if n.literal[literal] == nil {
		n.literal[literal] = &endNode{}
	}
	return n.literal[literal]
}

func (n *node) next(s segment) *node {
	if s.captures() {
		if n.capture == nil {
			n.capture = &node{}
		}
		return n.capture
	}
	if n.literal == nil {
		n.literal = map[string]*node{}
	}
	if n.literal[s.literal] == nil {
		n.literal[s.literal] = &node{}
	}
	return n.literal[s.literal]
}

// near calls visit for every group below n whose path may meet one that goes
// on with these prefix segments, and then, where rest is true, with anything
// and the suffix. Whether it does is for the caller to see: near only keeps
// the check of a large policy far from comparing every pair.
func (n *node) near(prefix []segment, rest bool, suffix []string, visit func(*group)) {
	n.rest.near(tail{prefix, rest, suffix}, visit)
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
		n.capture.near(prefix, rest, suffix, visit)
	}
	if first.literal != "" {
		if next := n.literal[first.literal]; next != nil {
			next.near(prefix, rest, suffix, visit)
		}
		return
	}
	for _, next := range n.literal { // a capture, or within the rest
		next.near(prefix, rest, suffix, visit)
	}
}

// A tail is what a path still holds after some place.
type tail struct {
	prefix []segment
	rest   bool
	suffix []string
}

// last takes the last segment off: open where it can be any or none.
func (t *tail) last() (s segment, open, ok bool) {
	if n := len(t.suffix); n > 0 {
		s.literal = t.suffix[n-1]
		t.suffix = t.suffix[:n-1]
		return s, false, true
	}
	if t.rest {
		return s, true, true
	}
	if n := len(t.prefix); n > 0 {
		s = t.prefix[n-1]
		t.prefix = t.prefix[:n-1]
		return s, false, true
	}
	return s, false, false
}

func (n *endNode) near(t tail, visit func(*group)) {
	if n == nil {
		return
	}
	if n.group != nil {
		visit(n.group)
	}
	s, open, ok := t.last()
	if !ok {
		return
	}
	if !open && !s.captures() {
		n.literal[s.literal].near(t, visit)
		return
	}
	for _, next := range n.literal {
		next.near(t, visit)
	}
}

// settle ranks the groups and calls conflict for every pair whose paths meet
// while neither lies within the other.
func (t *table) settle(conflict func(a, b *group, witness string)) {
	for _, g := range t.groups {
		g.rank = 0
		t.root.near(g.path.prefix, g.path.rest, g.path.suffix, func(other *group) {
			if other == g {
				return
			}
			switch {
			case g.path.within(other.path):
				g.rank++
			case other.path.within(g.path):
			default:
				if witness, ok := g.path.meet(other.path); ok {
					conflict(g, other, witness)
				}
			}
		})
	}
}

// all is every host's table.
func (h *hostTable) all() []*table {
	var out []*table
	for _, t := range h.exact {
		out = append(out, t)
	}
	for _, t := range h.suffix {
		out = append(out, t)
	}
	if h.any != nil {
		out = append(out, h.any)
	}
	return out
}
