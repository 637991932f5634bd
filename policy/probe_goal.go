package policy

// A goal is a request that is looked for: one that makes an entry or a guard
// true while nothing else refuses it.
type goal struct {
	scene    *scene
	about    string
	entry    *condition // nil: no entry has to be true
	guard    *guard     // nil: no guard has to be met
	refused  bool       // the guard, which requires something, is to refuse, and to be all that does
	identity string     // to begin with; empty: nobody
	alone    bool       // no other entry is to be true
	pin      *pin
	around   bool // its near misses are probed too

	a     attempt
	score float64
	met   bool
}

// A pin asks that a part of a condition be true, or false, beside the goal.
type pin struct {
	of   *condition
	atom int64
	want bool
}

// start begins on a path that the guard meets too, and climbs.
func (g *goal) start(at *guard, host, method string) bool {
	key := goalKey{g.entry, g.guard, g.identity}
	if a, ok := g.scene.solved[key]; ok { // for another host or method
		a.host, a.method, g.alone = host, method, a.alone
		if g.a = a.attempt; g.climbed() {
			return true
		}
	}
	a, ok := g.scene.beginFor(at, host, method)
	if !ok {
		return false
	}
	if a.nobody = g.identity == "" && g.scene.route.Access != AccessList; g.identity != "" {
		a.who.name = g.identity
	}
	g.a = a
	g.alone = g.entry != nil && len(g.scene.route.entries) > 1
	if g.climb(); g.alone && !g.met {
		g.alone = false
		g.climb()
	}
	if g.met {
		g.scene.solved[key] = solution{g.a, g.alone}
	}
	return true
}

// A goalKey is what goals for several hosts and methods have in common, and a
// solution the request that was found for one of them.
type (
	goalKey struct {
		entry    *condition
		guard    *guard
		identity string
	}
	solution struct {
		attempt
		alone bool
	}
)

// climbed reports whether the goal is met already.
func (g *goal) climbed() bool {
	g.score, g.met = g.of(&g.a)
	return g.met
}

// Bounds of the search for one goal.
const (
	maxSweeps   = 6
	maxAttempts = 2000
)

// climb changes one part of the attempt at a time and keeps what comes nearer
// to the goal.
func (g *goal) climb() {
	g.score, g.met = g.of(&g.a)
	tries, all := 0, false
	for range maxSweeps {
		before := g.score
		for _, m := range g.moves(all) {
			if g.met || tries > maxAttempts {
				return
			}
			b := g.a
			if !m.do(&b) {
				continue
			}
			tries++
			if score, met := g.of(&b); met || score > g.score+1e-9 {
				g.a, g.score, g.met = b, score, met
			}
		}
		if g.score <= before {
			if all {
				return
			}
			all = true // what is as it should be may be so in another way
		}
	}
}

// moves are those of the conditions that are not yet as the goal wants them, or
// of all that it depends on.
func (g *goal) moves(all bool) []move {
	s := g.scene
	in, ok := s.input(&g.a)
	if !ok {
		return nil
	}
	var out []move
	add := func(c *condition, at *guard, met bool) {
		if all || !met {
			out = append(out, s.moves(c, at, &g.a)...)
		}
	}
	params := in.Params
	for i := range s.route.guards {
		at := &s.route.guards[i]
		if at.cond.dryRun && at.guard != g.guard {
			continue
		}
		met := !at.matches(in)
		if !met {
			_, met = s.meets(at.cond, in, g.wants(at.guard))
		}
		in.Params = params
		add(at.cond, at.guard, met && (g.pin == nil || at.guard != g.guard))
	}
	if g.entry != nil {
		_, met := s.meets(g.entry, in, true)
		add(g.entry, nil, met && (g.pin == nil || g.guard != nil))
	}
	for _, e := range g.others() {
		add(e, nil, e.holds(in) != yes)
	}
	return append(out, s.keyMoves()...)
}

// wants is whether a guard's condition is to be true.
func (g *goal) wants(at *guard) bool {
	if at == g.guard {
		return !g.refused
	}
	return !at.deny
}

// maxOthers bounds how many other entries a goal keeps false.
const maxOthers = 16

// others are the entries that are to be false, where the goal is to be alone.
func (g *goal) others() []*condition {
	if !g.alone {
		return nil
	}
	var out []*condition
	for _, e := range g.scene.route.entries {
		if e != g.entry && !e.dryRun && len(out) < maxOthers {
			out = append(out, e)
		}
	}
	return out
}

// reached probes the goal itself.
func (g *goal) reached(emit func(*Probe) bool) bool {
	about := g.about + ": true"
	if !g.met {
		about = g.about + ": as near as was found"
	}
	return g.scene.emit(&g.a, about, emit)
}

// misses probes what differs from the goal in one part.
func (g *goal) misses(emit func(*Probe) bool) bool {
	if !g.around {
		return true
	}
	s := g.scene
	var all []move
	if g.refused {
		return g.each(s.everywhere(), emit)
	}
	if g.guard != nil {
		all = append(all, s.moves(g.guard.cond, g.guard, &g.a)...)
	}
	if g.entry != nil {
		all = append(all, s.moves(g.entry, nil, &g.a)...)
	}
	return g.each(append(all, s.everywhere()...), emit)
}

// each probes the goal with one move at a time.
func (g *goal) each(moves []move, emit func(*Probe) bool) bool {
	for _, m := range moves {
		b := g.a
		if m.do(&b) && !g.scene.emit(&b, g.about+": "+m.about(), emit) {
			return false
		}
	}
	return true
}

// maxAtoms bounds of how many parts of a condition each is tried both ways.
const maxAtoms = 16

// atoms are the goals in which a part of the condition's `if` is true, and
// those in which it is false, while the whole is true: the other side of an
// `||`.
func (g *goal) atoms(c *condition, at *guard, yield func(*goal) bool) bool {
	if c.facts.expr == nil || !g.met {
		return true
	}
	atoms := choices(c.facts.expr.ast.NativeRep().Expr(), true, false)
	for _, atom := range atoms[:min(len(atoms), maxAtoms)] {
		for _, want := range []bool{true, false} {
			p := &pin{c, atom, want}
			b := *g
			b.pin = p
			if in, ok := g.scene.inputFor(&g.a, at); ok {
				if _, there := g.scene.pinned(p, in); there {
					continue // the goal itself has it so
				}
			}
			if b.climb(); b.met && !yield(&b) {
				return false
			}
		}
	}
	return true
}
