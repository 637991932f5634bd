package policy

import "cel.dev/cel-go/common/types"

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
		case at.guard == g.guard, matches && !at.cond.dryRun:
			want(s.meets(at.cond, in, g.wants(at.guard)))
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
		for _, other := range g.others() {
			switch {
			case in.Identity == nil || (in.Identity.Actor != "" && !other.namesWho), other.holds(in) != yes:
				want(1, true)
			default:
				x, _ := s.meets(other, in, false)
				want(x, false)
			}
		}
		if s.route.Object != nil && in.keyed != yes {
			want(0, false)
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
