package policy

import "cel.dev/cel-go/common/types"

// A goal is a request that is looked for: one that makes an entry or a guard
// true while nothing else refuses it.
type goal struct {
	scene    *scene
	about    string
	entry    *condition // nil: no entry has to be true
	guard    *guard     // nil: no guard has to be met
	refused  bool       // the guard, which requires something, is to refuse, and to be all that does
	identity string     // to begin with; empty: nobody
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
	a, ok := g.scene.beginFor(at, host, method)
	if !ok {
		return false
	}
	if a.nobody = g.identity == "" && g.scene.route.Access != AccessList; g.identity != "" {
		a.who.name = g.identity
	}
	g.a = a
	g.climb()
	return true
}

// Bounds of the search for one goal.
const (
	maxSweeps   = 6
	maxAttempts = 4000
)

// climb changes one part of the attempt at a time and keeps what comes nearer
// to the goal.
func (g *goal) climb() {
	g.score, g.met = g.of(&g.a)
	tries := 0
	for range maxSweeps {
		before := g.score
		for _, m := range g.moves() {
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
			return
		}
	}
}

// moves are those of every condition that the goal depends on.
func (g *goal) moves() []move {
	s := g.scene
	var out []move
	for i := range s.route.guards {
		at := s.route.guards[i].guard
		if !at.cond.dryRun || at == g.guard {
			out = append(out, s.moves(at.cond, at, &g.a)...)
		}
	}
	if g.entry != nil {
		out = append(out, s.moves(g.entry, nil, &g.a)...)
	}
	return append(out, s.keyMoves()...)
}

// of is how near an attempt comes to the goal, and whether it is there.
func (g *goal) of(a *attempt) (score float64, met bool) {
	s := g.scene
	in, ok := s.input(a)
	if !ok {
		return -1, false
	}
	sum, n := 0.0, 0
	met = true
	want := func(x float64, ok bool) {
		sum, n, met = sum+x, n+1, met && ok
	}
	params := in.Params
	for i := range s.route.guards {
		at := &s.route.guards[i]
		switch matches := at.matches(in); {
		case at.guard == g.guard && !matches:
			want(0, false)
		case at.guard == g.guard:
			want(s.meets(at.cond, in, !g.refused))
		case matches && !at.cond.dryRun:
			want(s.meets(at.cond, in, !at.deny))
		}
		if g.pin != nil && at.guard == g.guard {
			want(s.pinned(g.pin, in))
		}
		in.Params = params
	}
	if s.route.Access == AccessList && in.Identity == nil {
		want(0, false)
	}
	if e := g.entry; e != nil {
		want(s.meets(e, in, true))
		if in.Identity != nil && in.Identity.Actor != "" && !e.namesWho {
			want(0, false)
		}
		if s.route.Object != nil {
			want(0, in.keyed == yes)
		}
		if g.pin != nil && g.guard == nil {
			want(s.pinned(g.pin, in))
		}
	}
	if n == 0 {
		return 1, true
	}
	return sum / float64(n), met
}

// meets is how near an input comes to making the condition what is wanted: 1
// where it is.
func (s *scene) meets(c *condition, in *Input, want bool) (score float64, met bool) {
	sum, best := 0.0, 0.0
	met = want
	for i := range c.fields {
		f := &c.fields[i]
		v := no
		if !f.identity || in.Identity != nil {
			v = f.holds(in)
		}
		switch {
		case want && v == yes:
			sum++
		case !want && v == no:
			return 1, true
		default:
			met = false
			x := 0.0
			if f.key == "if" {
				e := c.facts.expr
				x = near(e.ast.NativeRep().Expr(), s.set.valuesOf(e, in), want)
			}
			sum, best = sum+x*0.99, max(best, x*0.99)
		}
	}
	if want {
		return sum / float64(len(c.fields)), met
	}
	return best, met
}

// pinned is whether the pinned part is as it is wanted.
func (s *scene) pinned(p *pin, in *Input) (float64, bool) {
	if b, ok := s.set.valuesOf(p.of.facts.expr, in)[p.atom].(types.Bool); ok && bool(b) == p.want {
		return 1, true
	}
	return 0, false
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
		if m.do(&b) && !g.scene.emit(&b, g.about+": "+m.about, emit) {
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
	atoms := leaves(c.facts.expr.ast.NativeRep().Expr())
	if len(atoms) < 2 {
		return true
	}
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
