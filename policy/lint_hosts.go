package policy

// hosts is SG116: a route for some hosts that takes requests away from a
// stricter route for more hosts, which leads to the same. Callers choose the
// host that they name.
func (t *linter) hosts() {
	tables := t.p.hosts.tables()
	told := map[*Route]*Route{}
	for _, narrow := range tables {
		for _, wide := range tables {
			if narrow.host == wide.host || !hostCovers(wide.host, narrow.host) {
				continue
			}
			for _, g := range narrow.groups {
				wide.root.near(g.path.prefix, g.path.rest, g.path.suffix, func(other *group) {
					t.hides(narrow.host, wide.host, g, other, told)
				})
			}
		}
	}
	for _, a := range t.p.Routes {
		if b := told[a]; b != nil {
			t.warn(t.at(a, "host"), "SG116", "on this host route `%s` takes requests that route `%s` in line %d would judge more strictly, and both lead to the same: whoever names this host is not held to that rule", a.ID, b.ID, t.l.line(b))
		}
	}
}

// hides notes of each route of a group the first of the other that it hides.
func (t *linter) hides(host, otherHost string, g, other *group, told map[*Route]*Route) {
	for _, a := range g.routes {
		for _, b := range other.routes {
			common := a.methods & b.methods
			if a == b || common == 0 || a.leadsTo() != b.leadsTo() || !b.stricter(a, a.counted()&b.counted()) {
				continue
			}
			if first := told[a]; first != nil && !t.l.before(b, first) {
				continue
			}
			for w := range twins(&a.path, &b.path, false) {
				if t.selects(host, w.path, common, a) && t.selects(otherHost, w.path, common, b) {
					told[a] = b
					break
				}
			}
		}
	}
}

// leadsTo names what a route gives access to.
func (r *Route) leadsTo() string {
	if r.Upstream != "" {
		return "upstream:" + r.Upstream
	}
	if r.Object == nil {
		return r.Serve
	}
	return r.Serve + ":" + r.Object.Bucket
}

// selects reports whether requests of a host and path, with one of the
// methods, select the route.
func (t *linter) selects(host, path string, among methodSet, r *Route) bool {
	for _, m := range among.list() {
		if got := t.p.Match(exampleHost(host), path, m); got.Route == r {
			return true
		}
	}
	return false
}

// exampleHost is a host that this one means and no other of the policy does.
func exampleHost(host string) string {
	switch {
	case host == "":
		return anyText
	case host[0] == '*':
		return anyText + host[1:]
	}
	return host
}

// A hostOf is the routes of one host.
type hostOf struct {
	host string // as the policy writes it; "": any
	*table
}

// tables are those of all hosts, in an order that is the same each time.
func (h *hostTable) tables() []hostOf {
	var out []hostOf
	for _, host := range keysOf(h.exact) {
		out = append(out, hostOf{host, h.exact[host]})
	}
	for _, suffix := range keysOf(h.suffix) {
		out = append(out, hostOf{"*" + suffix, h.suffix[suffix]})
	}
	if h.any != nil {
		out = append(out, hostOf{"", h.any})
	}
	return out
}
