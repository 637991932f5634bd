package policy

import (
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// presence is SG114: a claim that a token may lack, read where has() did not
// find it. Of each claim the first such place in a condition is named.
func (t *linter) presence(x ruleAt) {
	w := presenceWalk{known: claimSet{}, missing: map[string]ast.Expr{}}
	for i := range x.cond.fields {
		// A field that is false without the claim makes the condition false,
		// whatever `if` makes of it.
		if f := &x.cond.fields[i]; f.key != "if" {
			for _, name := range f.reads {
				if claim, ok := strings.CutPrefix(name, "auth.token."); ok {
					w.known[claim] = true
				}
			}
		}
	}
	compiled := x.cond.facts.expr.ast.NativeRep()
	w.walk(compiled.Expr(), w.known)
	for _, claim := range w.order {
		at := compiled.SourceInfo().GetStartLocation(firstName(w.missing[claim]).ID())
		line, column := x.cond.facts.at.Field("if").PositionIn(at.Line(), at.Column()+1)
		t.warnAt(line, column, "SG114", "a token may lack the claim `%s`, and then this is an error: write has(auth.token.%s) && before it", claim, claim)
	}
}

// firstName is the leftmost name of a.b.c: where it begins.
func firstName(x ast.Expr) ast.Expr {
	for x.Kind() == ast.SelectKind {
		x = x.AsSelect().Operand()
	}
	return x
}

// A claimSet is claims that are certainly there.
type claimSet map[string]bool

func (a claimSet) and(b claimSet) claimSet {
	out := claimSet{}
	for name := range a {
		out[name] = b[name]
	}
	for name, in := range out {
		if !in {
			delete(out, name)
		}
	}
	return out
}

func (a claimSet) or(b claimSet) claimSet {
	out := claimSet{}
	for _, set := range []claimSet{a, b} {
		for name := range set {
			out[name] = true
		}
	}
	return out
}

type presenceWalk struct {
	known   claimSet
	missing map[string]ast.Expr
	order   []string
}

// walk looks at x where the known claims are there. CEL's && and || take
// either side's answer over the other's error, so each side protects the other.
func (w *presenceWalk) walk(x ast.Expr, known claimSet) {
	if claim, test := claimOf(x); claim != "" {
		if !test && !known[claim] && !slices.Contains(w.order, claim) {
			w.missing[claim] = x
			w.order = append(w.order, claim)
		}
		return
	}
	if x.Kind() != ast.CallKind {
		for _, part := range partsOf(x) {
			w.walk(part, known)
		}
		return
	}
	args := x.AsCall().Args()
	switch x.AsCall().FunctionName() {
	case operators.LogicalAnd, operators.LogicalOr:
		and := x.AsCall().FunctionName() == operators.LogicalAnd
		for i, arg := range args {
			here := known
			for j, other := range args {
				if i != j {
					there, absent := certain(other)
					if !and {
						there = absent
					}
					here = here.or(there)
				}
			}
			w.walk(arg, here)
		}
	case operators.Conditional:
		there, absent := certain(args[0])
		w.walk(args[0], known)
		w.walk(args[1], known.or(there))
		w.walk(args[2], known.or(absent))
	default:
		for _, part := range partsOf(x) {
			w.walk(part, known)
		}
	}
}

// certain says which claims are there if x is true, and which if it is false.
func certain(x ast.Expr) (ifTrue, ifFalse claimSet) {
	none := claimSet{}
	if claim, _ := claimOf(x); claim != "" && x.Kind() == ast.SelectKind && x.AsSelect().IsTestOnly() {
		return claimSet{claim: true}, none
	}
	if x.Kind() != ast.CallKind {
		return none, none
	}
	args := x.AsCall().Args()
	switch x.AsCall().FunctionName() {
	case operators.LogicalNot:
		ifTrue, ifFalse = certain(args[0])
		return ifFalse, ifTrue
	case operators.LogicalAnd, operators.LogicalOr:
		and := x.AsCall().FunctionName() == operators.LogicalAnd
		ifTrue, ifFalse = certain(args[0])
		for _, arg := range args[1:] {
			t, f := certain(arg)
			if and {
				ifTrue, ifFalse = ifTrue.or(t), ifFalse.and(f)
			} else {
				ifTrue, ifFalse = ifTrue.and(t), ifFalse.or(f)
			}
		}
		return ifTrue, ifFalse
	}
	return none, none
}

// claimOf is the claim that x reads: auth.token.NAME, or a part of it. test is
// true for has(auth.token.NAME) itself, which only asks.
func claimOf(x ast.Expr) (claim string, test bool) {
	path := namePath(x)
	if len(path) < 3 || path[0] != "auth" || path[1] != "token" {
		return "", false
	}
	return path[2], len(path) == 3 && x.AsSelect().IsTestOnly()
}

// partsOf are the expressions that x is made of.
func partsOf(x ast.Expr) []ast.Expr {
	switch x.Kind() {
	case ast.SelectKind:
		return []ast.Expr{x.AsSelect().Operand()}
	case ast.CallKind:
		c := x.AsCall()
		if c.IsMemberFunction() {
			return append([]ast.Expr{c.Target()}, c.Args()...)
		}
		return c.Args()
	case ast.ListKind:
		return x.AsList().Elements()
	case ast.MapKind:
		var out []ast.Expr
		for _, e := range x.AsMap().Entries() {
			out = append(out, e.AsMapEntry().Key(), e.AsMapEntry().Value())
		}
		return out
	case ast.ComprehensionKind:
		c := x.AsComprehension()
		return []ast.Expr{c.IterRange(), c.AccuInit(), c.LoopCondition(), c.LoopStep(), c.Result()}
	}
	return nil
}
