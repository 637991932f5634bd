package policy

import (
	"maps"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// A tracked is an expression compiled so that an evaluation tells the value of
// each of its parts, and evaluates all of them.
type tracked struct {
	program cel.Program
	root    ast.Expr
}

// track compiles the expression again. It changes nothing that others see.
func (e *expression) track() (*tracked, error) {
	names := &celTypes{Registry: e.compiler.names.Registry, fields: maps.Clone(e.compiler.names.fields)}
	names.setParams(e.params)
	env, err := e.compiler.env.Extend(cel.CustomTypeProvider(names), cel.CustomTypeAdapter(trackedValues{names.Registry}))
	if err != nil {
		return nil, err
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptExhaustiveEval)}
	if !e.bounded {
		options = append(options, cel.CostLimit(maxCost))
	}
	program, err := env.Program(e.ast, options...)
	if err != nil {
		return nil, err
	}
	return &tracked{program, e.ast.NativeRep().Expr()}, nil
}

// trackedValues spares what is tracked and no value of CEL: it would be printed
// whole into an error that nobody reads.
type trackedValues struct{ *types.Registry }

func (t trackedValues) NativeToValue(v any) ref.Val {
	switch v.(type) {
	case *celInput, *celDocument:
		return types.NullValue
	}
	return t.Registry.NativeToValue(v)
}

// values are what the parts of an expression are for an input, by their ids.
func (t *tracked) values(in *Input, lookups []*Lookup, strict bool) map[int64]ref.Val {
	out := map[int64]ref.Val{}
	for _, l := range lookups {
		in.document(l, strict)
	}
	_, details, _ := t.program.Eval((*celInput)(in))
	if details == nil || details.State() == nil {
		return out
	}
	state := details.State()
	for _, id := range state.IDs() {
		if v, ok := state.Value(id); ok && v != nil {
			out[id] = v
		}
	}
	return out
}

// parts are the two sides of a logical operator, and whether it is one.
func parts(x ast.Expr) (operator string, args []ast.Expr) {
	if x.Kind() != ast.CallKind {
		return "", nil
	}
	c := x.AsCall()
	switch c.FunctionName() {
	case operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.Conditional:
		return c.FunctionName(), c.Args()
	}
	return "", nil
}

// near is how near the values of an expression's parts come to making it what
// is wanted: 1 where it is.
func near(x ast.Expr, values map[int64]ref.Val, want bool) float64 {
	b, known := values[x.ID()].(types.Bool)
	if known && bool(b) == want {
		return 1
	}
	operator, args := parts(x)
	side := func(i int, want bool) float64 { return near(args[i], values, want) }
	// Whatever is not there yet is less than 1, else climbing would stop early.
	const most = 0.99
	switch {
	case operator == operators.LogicalNot:
		return side(0, !want) * most
	case operator == operators.LogicalAnd && want, operator == operators.LogicalOr && !want:
		return (side(0, want) + side(1, want)) / 2 * most
	case operator == operators.LogicalAnd, operator == operators.LogicalOr:
		return max(side(0, want), side(1, want)) * most
	case operator == operators.Conditional:
		return max(side(0, true)+side(1, want), side(0, false)+side(2, want)) / 2 * most
	case known: // an error is still further away
		return 0.1
	}
	return 0
}

// choices are the parts that may be true as well as false while the whole is
// what is wanted: those below an `||`, or an `&&` that is to be false.
func choices(x ast.Expr, want, free bool) []int64 {
	operator, args := parts(x)
	switch operator {
	case "":
		if !free {
			return nil
		}
		return []int64{x.ID()}
	case operators.LogicalNot:
		return choices(args[0], !want, free)
	case operators.LogicalAnd:
		free = free || !want
	default:
		free = free || operator == operators.Conditional || want
	}
	var out []int64
	for _, a := range args {
		out = append(out, choices(a, want, free)...)
	}
	return out
}

// tracker is the expression's tracked form, made when it is first asked for.
func (s *ProbeSet) tracker(e *expression) *tracked {
	t, ok := s.trackers[e]
	if !ok {
		t, _ = e.track() // nil where it cannot be tracked: then its parts are not known
		s.trackers[e] = t
	}
	return t
}

// valuesOf are what the expression's parts are for an input.
func (s *ProbeSet) valuesOf(e *expression, in *Input) map[int64]ref.Val {
	t := s.tracker(e)
	if t == nil || in.Identity == nil && slices.ContainsFunc(e.reads, isAuth) {
		return nil
	}
	return t.values(in, e.lookups, e.strict)
}
