package policy

import (
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// maxTrial is how long a rule may be in dry_run before lint asks for it.
const maxTrial = 30 * 24 * time.Hour

// conditions is SG102 and what else can be said of single conditions: SG108,
// SG111, SG112, SG114, SG120, SG121.
func (t *linter) conditions() {
	for _, x := range t.rules() {
		f := x.cond.facts
		for _, e := range f.ip.List() {
			if strings.HasSuffix(e.Show(), "/0") {
				t.warn(e, "SG108", "%s is every address of its kind: leave `ip` out, or name networks", e.Show())
			}
		}
		t.trial(x)
		t.providers(x)
		if f.expr == nil {
			continue
		}
		at := f.at.Field("if")
		if !f.expr.bounded {
			t.warn(at, "SG112", "by the sizes that claims and documents may have, this could cost more than %d units, and is an error then: compare fewer or shorter values", maxCost)
		}
		if value, ok := t.folds(x); ok {
			t.warn(at, "SG102", "this is always %t: it says nothing about the request; remove it", value)
			continue
		}
		if f.expr.fails() {
			t.warn(at, "SG102", "this is an error for every request, and so never true: correct it, or remove it")
			continue
		}
		t.presence(x)
		t.patterns(x)
	}
	t.routeMethods()
	for _, g := range t.l.guards {
		t.guard(g)
	}
}

// trial is SG111, by days: whoever asks twice a day is told the same.
func (t *linter) trial(x ruleAt) {
	if !x.cond.dryRun || t.o.Now.IsZero() {
		return
	}
	year, month, day := t.o.Now.Date()
	age := time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Sub(x.cond.facts.since)
	if age < -24*time.Hour { // what is tomorrow in UTC is today somewhere
		t.warn(x.whole.Field("since"), "SG111", "the trial of `%s` begins in %d days, it says: `since` is the day on which it began; correct it", x.cond.rule, -age/(24*time.Hour))
	}
	if age > maxTrial {
		t.warn(x.whole.Field("since"), "SG111", "`%s` has been in dry_run for %d days: enforce it, remove it, or begin a new trial", x.cond.rule, age/(24*time.Hour))
	}
}

// fails reports whether a condition that reads nothing is an error.
func (e *expression) fails() bool {
	var reads func(ast.Expr) bool
	reads = func(x ast.Expr) bool {
		if x.Kind() == ast.IdentKind && slices.Contains(roots, x.AsIdent()) {
			return true
		}
		return slices.ContainsFunc(partsOf(x), reads)
	}
	return !reads(e.ast.NativeRep().Expr()) && e.eval(&Input{}) == unknown
}

// folds reports whether a condition in CEL is the same for every request, and
// what it is. Variables count as what may be changed.
func (t *linter) folds(x ruleAt) (value, ok bool) {
	t.l.cel.names.setParams(x.path.names())
	folding, err := cel.NewConstantFoldingOptimizer()
	if err != nil {
		return false, false
	}
	optimizer, err := cel.NewStaticOptimizer(folding)
	if err != nil {
		return false, false
	}
	out, issues := optimizer.Optimize(t.l.cel.env, x.cond.facts.expr.ast)
	if issues.Err() != nil {
		return false, false // what fails for every request is no constant
	}
	if e := out.NativeRep().Expr(); e.Kind() == ast.LiteralKind {
		b, isBool := e.AsLiteral().(types.Bool)
		return bool(b), isBool
	}
	return false, false
}

// routeMethods is SG102 for `methods` in entries.
func (t *linter) routeMethods() {
	for _, r := range t.p.Routes {
		for _, e := range r.entries {
			if e.facts.methods == r.counted() {
				t.warn(e.facts.at.Field("methods"), "SG102", "these are all methods of route `%s`: `methods` here is always true; remove it", r.ID)
			}
		}
	}
}

// guard is SG102 for guards: one that matches nothing, and one that says the
// same of every request that it matches.
func (t *linter) guard(g *guard) {
	t.guardMethods(g)
	var public []string
	matched := 0
	for _, r := range t.p.Routes {
		if _, may := g.meets(r); !may || !hostsMeet(g.hosts, r.hosts) {
			continue
		}
		matched++
		if r.Access == AccessPublic {
			public = append(public, r.ID)
		}
	}
	f := g.cond.facts
	switch {
	case matched == 0:
		t.warn(g.at, "SG102", "guard `%s` matches the requests of no route: it never refuses anything; correct host, path or methods, or remove it", g.id)
	case len(public) == 0 || !f.identity:
	case !g.deny:
		t.warn(f.at, "SG102", "guard `%s` requires what only an identity has, and on a public route nobody has one: it refuses every request of %s that it matches; limit it by host, path or methods", g.id, routeNames(public))
	case len(public) == matched:
		t.warn(f.at, "SG102", "guard `%s` denies what only an identity has, and all routes that it matches are public, where nobody has one: it never refuses anything", g.id)
	}
}

// guardMethods is SG102 for `methods` in a guard's condition, beside those that
// it matches.
func (t *linter) guardMethods(g *guard) {
	f := g.cond.facts
	at := f.at.Field("methods")
	switch {
	case g.methods == 0 || f.methods == 0:
	case g.methods&f.methods == 0:
		t.warn(at, "SG102", "guard `%s` matches %s only: `methods` here is always false", g.id, g.methods)
	case g.methods&^f.methods == 0:
		t.warn(at, "SG102", "guard `%s` matches %s only: `methods` here is always true; remove it", g.id, g.methods)
	}
}

// routeNames names some of the routes.
func routeNames(ids []string) string {
	const some = 3
	shown := ids[:min(len(ids), some)]
	text := "`" + strings.Join(shown, "`, `") + "`"
	if len(ids) > some {
		text += " and others"
	}
	return text
}

// hostsMeet reports whether some host is one of both lists; no list, and "",
// are any host.
func hostsMeet(a, b []string) bool {
	if len(a) == 0 || len(b) == 0 {
		return true
	}
	return slices.ContainsFunc(a, func(x string) bool {
		return slices.ContainsFunc(b, func(y string) bool { return hostCovers(x, y) || hostCovers(y, x) })
	})
}

// hostCovers reports whether every host that b means is one that a means.
func hostCovers(a, b string) bool {
	if a == "" || a == b {
		return true
	}
	suffix, wild := strings.CutPrefix(a, "*")
	b = strings.TrimPrefix(b, "*")
	return wild && len(b) > len(suffix) && strings.HasSuffix(b, suffix)
}
