package policy

import (
	"iter"
	"slices"
	"strconv"
)

// A scene is a route of a policy, of which probes are made.
type scene struct {
	set    *ProbeSet
	policy *Policy
	route  *Route
	takes  []string            // hosts that lead to the route
	near   []string            // hosts that do not, but look so
	tried  map[*condition]bool // whose near misses are probed, or will be
	solved map[goalKey]solution
}

func (s *ProbeSet) scene(p *Policy, r *Route) *scene {
	sc := &scene{set: s, policy: p, route: r, tried: map[*condition]bool{}, solved: map[goalKey]solution{}}
	sc.takes, sc.near = hostsOf(r)
	return sc
}

// bare probes the route with every method and on every host, as nobody.
func (s *scene) bare(emit func(*Probe) bool) bool {
	about := "route " + s.route.ID
	own := s.route.methods.list()
	for i, host := range slices.Concat(s.takes, s.near, s.set.hosts) {
		a, ok := s.at(host, own[0])
		if !ok {
			break
		}
		a.nobody = true
		tried := own
		if i >= len(s.takes) {
			tried = own[:1]
		}
		for _, m := range tried {
			a.method = m
			if !s.emit(&a, about+", "+m+": nobody", emit) {
				return false
			}
		}
		a.method = s.lacking()
		if i < len(s.takes) && a.method != "" && !s.emit(&a, about+", a method that it lacks", emit) {
			return false
		}
	}
	return true
}

// at begins on a host, also where no request to it is the route's: which is
// worth a look.
func (s *scene) at(host, method string) (attempt, bool) {
	a, ok := s.begin(host, method)
	if !ok {
		a, ok = s.begin(s.takes[0], method)
		a.host = host
	}
	return a, ok
}

// plain probes the route with every identity, without claims: with every method
// and on every host, and on paths of other lengths, where another guard may
// stand.
func (s *scene) plain(emit func(*Probe) bool) bool {
	about := "route " + s.route.ID
	own := s.route.methods.list()
	for i, host := range slices.Concat(s.takes, s.near, s.set.hosts) {
		a, ok := s.at(host, own[0])
		if !ok {
			break
		}
		tried := own
		if i >= len(s.takes) {
			tried = own[:1]
		}
		for _, m := range tried {
			a.method = m
			if !s.callers(&a, about+", "+m, emit) {
				return false
			}
		}
	}
	a, ok := s.begin(s.takes[0], own[0])
	if !ok || !s.route.path.rest {
		return true
	}
	for _, rest := range shapes {
		a.setParam(s.route.path.restName, rest)
		if !s.callers(&a, about+", {"+s.route.path.restName+"...} is "+strconv.Quote(rest), emit) {
			return false
		}
	}
	return true
}

func (s *scene) callers(a *attempt, about string, emit func(*Probe) bool) bool {
	for _, name := range s.set.identities {
		b := *a
		b.who.name = name
		if !s.emit(&b, about+": "+name, emit) {
			return false
		}
		b.who.actor = probeActor
		if !s.emit(&b, about+": "+name+" with an actor", emit) {
			return false
		}
	}
	return true
}

// lacking is a method that the route does not take.
func (s *scene) lacking() string {
	for i, m := range methods {
		if s.route.methods&(1<<i) == 0 {
			return m
		}
	}
	return ""
}

func (s *scene) emit(a *attempt, about string, emit func(*Probe) bool) bool {
	p := s.probe(a, about)
	return p == nil || emit(p)
}

// goals are the requests that the scene tries to make: for each entry and each
// guard one that makes it true while nothing else refuses, for every host and
// method by which guards and entries tell requests apart.
func (s *scene) goals() iter.Seq[*goal] {
	return func(yield func(*goal) bool) {
		seen := map[string]bool{}
		for _, host := range slices.Concat(s.takes, s.set.hosts) {
			for _, method := range s.route.methods.list() {
				if _, ok := s.begin(host, method); !ok {
					continue
				}
				kind := s.kind(host, method)
				if seen[kind] {
					continue
				}
				seen[kind] = true
				if !s.goalsAt(host, method, yield) {
					return
				}
			}
		}
	}
}

// kind is the same for hosts and methods that no guard and no entry tells
// apart.
func (s *scene) kind(host, method string) string {
	var out []byte
	if s.route.operation().below { // each method has operations of its own there
		out = append(out, method...)
	}
	method = s.route.CountsAs(method)
	bit := methodBit(method)
	note := func(same bool) {
		if same {
			out = append(out, '1')
		} else {
			out = append(out, '0')
		}
	}
	reads := func(c *condition) {
		note(c.facts.methods&bit != 0)
		if e := c.facts.expr; e != nil && slices.Contains(e.reads, "request.method") {
			out = append(out, method...)
		}
		if e := c.facts.expr; e != nil && slices.Contains(e.reads, "request.host") {
			out = append(out, host...)
		}
	}
	for _, g := range s.route.guards {
		note(len(g.hosts) == 0 || hostIn(host, g.hosts))
		note(g.methods == 0 || g.methods&bit != 0)
		reads(g.cond)
	}
	for _, e := range s.route.entries {
		reads(e)
	}
	return string(out)
}

func (s *scene) goalsAt(host, method string, yield func(*goal) bool) bool {
	if s.route.Access != AccessList {
		g := &goal{scene: s, about: "route " + s.route.ID, around: s.first(nil)}
		if g.start(nil, host, method) && !yield(g) {
			return false
		}
	}
	for _, e := range s.route.entries {
		if !s.entryGoals(e, host, method, yield) {
			return false
		}
	}
	for i := range s.route.guards {
		if !s.guardGoals(s.route.guards[i].guard, host, method, yield) {
			return false
		}
	}
	return true
}

// first reports whether the condition's near misses are still to be probed on
// this route; nil stands for a route without conditions.
func (s *scene) first(c *condition) bool {
	was := s.tried[c]
	s.tried[c] = true
	return !was
}

// takes reports whether the condition can be true of a request with the method.
func (c *condition) takes(method string) bool {
	return c.facts.methods == 0 || c.facts.methods&methodBit(method) != 0
}

// maxWho bounds for how many identities an entry is tried.
const maxWho = 8

func (s *scene) entryGoals(e *condition, host, method string, yield func(*goal) bool) bool {
	if !e.takes(s.route.CountsAs(method)) {
		return true
	}
	about := "entry " + e.rule
	met := false
	var best *goal
	for _, name := range e.facts.who[:min(len(e.facts.who), maxWho)] {
		g := &goal{scene: s, about: about, entry: e, identity: name}
		if !g.start(nil, host, method) {
			continue
		}
		if !g.met {
			if best == nil || g.score > best.score {
				best = g
			}
			continue
		}
		g.around = !met
		met = true
		if !yield(g) || (g.around && !g.atoms(e, nil, yield)) {
			return false
		}
	}
	if met || best == nil {
		return true
	}
	// It cannot be made true with this method or host, or it was not found out
	// how: its misses count once.
	best.around = s.first(e)
	return yield(best) && (!best.around || best.atoms(e, nil, yield))
}

// maxGuardRoutes bounds on how many routes a guard's near misses are probed.
const maxGuardRoutes = 20

func (s *scene) guardGoals(at *guard, host, method string, yield func(*goal) bool) bool {
	counts := s.route.CountsAs(method)
	stands := (at.methods == 0 || at.methods&methodBit(counts) != 0) && (len(at.hosts) == 0 || hostIn(host, at.hosts))
	if !stands || !at.cond.takes(counts) {
		return true
	}
	var best *goal
	entries := slices.Clone(s.route.entries)
	if len(entries) == 0 {
		entries = []*condition{nil}
	}
	callers := at.cond.facts.who[:min(len(at.cond.facts.who), maxWho)]
	if len(callers) == 0 {
		callers = []string{""}
	}
	for _, e := range append(entries, nil) { // at last without any: the route may let nobody in whom the guard is about
		for _, name := range callers {
			if e != nil && at.cond.namesWho && !slices.Contains(e.facts.who, name) {
				continue // the entry lets nobody in whom the guard is about
			}
			g := &goal{scene: s, about: "guard " + at.id + " on route " + s.route.ID, entry: e, guard: at, identity: name}
			if !g.start(at, host, method) {
				continue
			}
			if best == nil || (g.met && !best.met) || (g.met == best.met && g.score > best.score) {
				best = g
			}
		}
		if best != nil && best.met {
			break
		}
	}
	if best == nil {
		return true
	}
	if !at.deny && best.met && !s.refusal(*best, yield) {
		return false
	}
	if s.set.guards[at] < maxGuardRoutes {
		s.set.guards[at]++
		best.around = true
	}
	return yield(best) && (!best.around || best.atoms(at.cond, at, yield))
}

// refusal looks for the request that only this guard refuses, from one that it
// lets pass: it tells on which hosts, paths and methods the guard stands.
func (s *scene) refusal(g goal, yield func(*goal) bool) bool {
	g.refused, g.about = true, g.about+", refusing"
	g.climb()
	if !g.met {
		return true
	}
	g.around = s.set.guards[g.guard] < maxGuardRoutes
	return yield(&g)
}
