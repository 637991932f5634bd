package policy

import (
	"errors"
	"regexp/syntax"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"sidegate/policy/document"
)

// Bounds of a condition in `if`.
const (
	maxExpression = 4 << 10 // characters
	// maxCost is what a condition may cost at most, in CEL's units (about one
	// simple operation each). What could cost more by the sizes that claims and
	// documents may have runs with this limit, and is an error beyond it.
	maxCost = 100_000
	// maxRegex bounds the program of a regular expression, in instructions: each
	// byte of a text may cost all of them.
	maxRegex = 300
	// maxExtent is the length that the estimate takes for what has no bound of
	// its own.
	maxExtent = maxString
)

// An expression is a compiled condition of `if`.
type expression struct {
	text    string
	program cel.Program
	ast     *cel.Ast
	lookups []*Lookup
	reads   []string
	bounded bool // it can never cost more than maxCost
	strict  bool // in a guard: a document's name that cannot be made is an error

	compiler *compiler
	params   []string // the captures that it may read
}

// eval evaluates the condition: unknown where CEL gives an error.
func (e *expression) eval(in *Input) verdict {
	if len(e.lookups) > 1 { // nothing is read where one of them cannot be named
		for _, l := range e.lookups {
			if _, v := l.nameOf(in, e.strict); v != yes {
				return v
			}
		}
	}
	for _, l := range e.lookups {
		if v := in.document(l, e.strict); v != yes {
			return v
		}
	}
	in.missing = false
	out, _, err := e.program.Eval((*celInput)(in))
	if in.missing {
		return unrecorded
	}
	if b, ok := out.(types.Bool); ok && err == nil {
		return verdictOf(bool(b))
	}
	return unknown
}

// A compiler compiles the conditions of one policy.
type compiler struct {
	env   *cel.Env
	names *celTypes
}

// newCompiler declares the names that conditions may read, with their types.
func (l *loader) newCompiler() (*compiler, error) {
	names, err := l.celTypes()
	if err != nil {
		return nil, err
	}
	env, err := cel.NewEnv(
		cel.CustomTypeProvider(names), cel.CustomTypeAdapter(names.Registry),
		cel.Variable("auth", cel.ObjectType(typeAuth)),
		cel.Variable("params", cel.ObjectType(typeParams)),
		cel.Variable("lookup", cel.ObjectType(typeLookup)),
		cel.Variable("vars", cel.ObjectType(typeVars)),
		cel.Variable("request", cel.ObjectType(typeRequest)),
		cel.Variable("object", cel.ObjectType(typeObject)),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(),
			cel.ValidateHomogeneousAggregateLiterals(), cel.ValidateComprehensionNestingLimit(1)),
		cel.ParserExpressionSizeLimit(maxExpression), cel.ParserRecursionLimit(64), cel.RegexProgramSizeLimit(maxRegex),
		cel.DefaultUTCTimeZone(true), cel.StrictTimestampParsing(true),
	)
	if err != nil {
		return nil, err
	}
	return &compiler{env, names}, nil
}

func (b *builder) readIf() {
	v := b.m.Get("if")
	if !v.Present() {
		return
	}
	text, ok := v.Text()
	if !ok {
		return
	}
	if b.l.cel == nil {
		var err error
		if b.l.cel, err = b.l.newCompiler(); err != nil {
			v.Errorf("`%s`: %v", v.Path(), err)
			return
		}
	}
	e := b.compile(v, text)
	if e == nil {
		b.facts.unsure = true
		return
	}
	b.facts.expr = e
	identity := slices.ContainsFunc(e.reads, func(name string) bool { return strings.HasPrefix(name, "auth.") })
	for _, look := range e.lookups {
		identity = identity || look.document.readsIdentity()
		b.useLookup(v, look)
	}
	b.add("if", field{identity: identity, lookups: e.lookups, reads: e.reads}, e.eval)
}

// compile compiles a condition; nil where it has a mistake, which is on record.
func (b *builder) compile(v document.Value, text string) *expression {
	c := b.l.cel
	c.names.setParams(b.path.names())
	c.names.open[typeParams] = b.path.broken
	compiled, issues := c.env.Compile(text)
	if err := issues.Err(); err != nil {
		for _, one := range c.names.mistakes(text, issues.Errors()) {
			v.ErrorIn(one.line, one.column, "%s", one.text)
		}
		return nil
	}
	e := &expression{text: text, ast: compiled, strict: b.facts.place != inEntry, compiler: c, params: b.path.names()}
	costs := sizes{patterns: map[string]int{}}
	w := astWalk{b: b, at: v, e: e, source: compiled.NativeRep().SourceInfo(), patterns: costs.patterns}
	w.walk(compiled.NativeRep().Expr(), false)
	if w.failed {
		return nil
	}
	if t := compiled.OutputType(); !t.IsExactType(types.BoolType) {
		v.Errorf("SG006 `if` must be a condition, true or false; this is of type %s", strings.ReplaceAll(t.String(), "sidegate.", ""))
		return nil
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	estimate, err := c.env.EstimateCost(compiled, costs)
	if e.bounded = err == nil && estimate.Max <= maxCost; !e.bounded {
		options = append(options, cel.CostTracking(costs), cel.CostLimit(maxCost))
	}
	if e.program, err = c.env.Program(compiled, options...); err != nil {
		v.Errorf("`if`: %v", err)
		return nil
	}
	return e
}

// sizes estimates by what claims, documents and targets may hold at most.
type sizes struct {
	patterns map[string]int // the condition's regular expressions: the sizes of their programs
}

func (sizes) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	switch node.Type().Kind() {
	case types.ListKind, types.MapKind:
		return &cost.SizeEstimate{Min: 0, Max: maxElements}
	case types.StringKind, types.BytesKind:
		if p := node.Path(); len(p) > 0 && (p[0] == "params" || slices.Equal(p, []string{"request", "path"})) {
			return &cost.SizeEstimate{Min: 0, Max: maxPath}
		}
		return &cost.SizeEstimate{Min: 0, Max: maxExtent}
	}
	return nil
}

// EstimateCallCost knows better than CEL what matches() costs: CEL counts the
// length of the pattern, and a few characters of one make a large program.
func (s sizes) EstimateCallCost(function, _ string, target *cost.AstNode, args []cost.AstNode) *cost.CallEstimate {
	if function != "matches" || len(args) == 0 {
		return nil
	}
	text, pattern := target, args[len(args)-1]
	if text == nil {
		text = &args[0]
	}
	longest := uint64(maxExtent)
	if size := (*text).ComputedSize(); size != nil {
		longest = size.Max
	} else if size := s.EstimateSize(*text); size != nil {
		longest = size.Max
	}
	literal := ""
	if x := pattern.Expr(); x.Kind() == ast.LiteralKind { // every other is refused
		literal, _ = x.AsLiteral().Value().(string)
	}
	return cost.NewCallEstimate(cost.Estimate{Min: 1, Max: s.matchCost(longest, literal)}, nil)
}

// CallCost is the same while a condition runs that is counted.
func (s sizes) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	if function != "matches" || len(args) != 2 {
		return nil
	}
	text, _ := args[0].Value().(string)
	pattern, _ := args[1].Value().(string)
	n := s.matchCost(uint64(len(text)), pattern)
	return &n
}

// matchCost is what matching may cost, in steps of about the size of CEL's: each
// byte may go through every instruction, some tens of them in a step's time.
func (s sizes) matchCost(length uint64, pattern string) uint64 {
	size, known := s.patterns[pattern] // compiling it again would cost more than matching
	if !known {
		size = maxRegex
	}
	return 1 + length*uint64(size)/40
}

// instructions is the size of a regular expression's program; that of the
// largest that is allowed where it has none.
func instructions(pattern string) int {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return maxRegex
	}
	program, err := syntax.Compile(re.Simplify())
	if err != nil {
		return maxRegex
	}
	return len(program.Inst)
}

// An astWalk finds what a condition reads, and refuses what has no meaning.
type astWalk struct {
	b      *builder
	at     document.Value
	e      *expression
	source *ast.SourceInfo
	failed bool

	patterns map[string]int // sizes.patterns
}

var roots = []string{"auth", "params", "lookup", "vars", "request", "object"}

func (w *astWalk) walk(x ast.Expr, testOnly bool) {
	if path := namePath(x); path != nil {
		if strings.HasPrefix(path[0], ".") {
			w.errorf(x, "`if`: a name does not begin with a dot")
			return
		}
		if slices.Contains(roots, path[0]) {
			w.name(x, path, testOnly || (x.Kind() == ast.SelectKind && x.AsSelect().IsTestOnly()))
		}
		return
	}
	switch x.Kind() {
	case ast.SelectKind:
		w.walk(x.AsSelect().Operand(), false)
	case ast.CallKind:
		c := x.AsCall()
		if c.FunctionName() == "dyn" {
			w.errorf(x, "`if`: dyn() is not for conditions: it hides the type by which a value is judged")
			return
		}
		w.checkPattern(x, c)
		if w.checkNull(x, c) {
			return
		}
		w.checkWholes(x, c)
		if c.IsMemberFunction() {
			w.walk(c.Target(), false)
		}
		for _, a := range c.Args() {
			w.walk(a, false)
		}
	case ast.ListKind:
		for _, a := range x.AsList().Elements() {
			w.walk(a, false)
		}
	case ast.MapKind:
		for _, m := range x.AsMap().Entries() {
			w.walk(m.AsMapEntry().Key(), false)
			w.walk(m.AsMapEntry().Value(), false)
		}
	case ast.ComprehensionKind:
		c := x.AsComprehension()
		for _, name := range []string{c.IterVar(), c.IterVar2(), c.AccuVar()} {
			if slices.Contains(roots, name) {
				w.errorf(x, "`if`: a loop cannot name its element `%s`; choose another name", name)
				return
			}
		}
		for _, a := range []ast.Expr{c.IterRange(), c.AccuInit(), c.LoopCondition(), c.LoopStep(), c.Result()} {
			w.walk(a, false)
		}
	case ast.LiteralKind:
	default: // messages, and whatever a later version of the language has
		w.errorf(x, "`if`: messages cannot be made here")
	}
}

// checkPattern refuses a regular expression that is not written out: what it
// costs to compile one is its writer's choice, and here callers would write it.
func (w *astWalk) checkPattern(x ast.Expr, c ast.CallExpr) {
	if c.FunctionName() != "matches" || len(c.Args()) == 0 {
		return
	}
	pattern := c.Args()[len(c.Args())-1]
	if pattern.Kind() != ast.LiteralKind {
		w.errorf(x, "`if`: the regular expression of matches() must be written out")
		return
	}
	if text, ok := pattern.AsLiteral().Value().(string); ok {
		w.patterns[text] = instructions(text)
	}
}

// checkWholes refuses to compare lists and maps as wholes: that is one step to
// whoever counts, however long they are.
func (w *astWalk) checkWholes(x ast.Expr, c ast.CallExpr) {
	switch c.FunctionName() {
	case operators.Equals, operators.NotEquals, operators.In:
	default:
		return
	}
	for i, a := range c.Args() {
		kind := w.e.ast.NativeRep().GetType(a.ID()).Kind()
		element := c.FunctionName() == operators.In && i == 1 // the list that is looked through
		if !element && (kind == types.ListKind || kind == types.MapKind) {
			w.errorf(x, "`if`: lists and maps cannot be compared as wholes: look at their elements with all() or exists(), or at size()")
			return
		}
	}
}

// checkNull refuses a comparison with null, which CEL takes for groups of names
// and would never hold.
func (w *astWalk) checkNull(x ast.Expr, c ast.CallExpr) bool {
	if name := c.FunctionName(); name != operators.Equals && name != operators.NotEquals || len(c.Args()) != 2 {
		return false
	}
	for i, arg := range c.Args() {
		if arg.Kind() == ast.LiteralKind && arg.AsLiteral() == types.NullValue {
			w.errorf(x, "`if`: %s", nullText(c.FunctionName(), strings.Join(namePath(c.Args()[1-i]), ".")))
			return true
		}
	}
	return false
}

// namePath is a.b.c as its parts; nil where x is no such name.
func namePath(x ast.Expr) []string {
	switch x.Kind() {
	case ast.IdentKind:
		return []string{x.AsIdent()}
	case ast.SelectKind:
		if p := namePath(x.AsSelect().Operand()); p != nil {
			return append(p, x.AsSelect().FieldName())
		}
	}
	return nil
}

// name notes that a condition reads a name.
func (w *astWalk) name(x ast.Expr, path []string, testOnly bool) {
	whole := strings.Join(path, ".")
	want := 2
	switch {
	case strings.HasPrefix(whole, "auth.token"):
		want = 3
	case path[0] == "lookup" && !testOnly:
		want = 3
	}
	if len(path) < want {
		w.errorf(x, "`if`: `%s` is a group of names; write one of them, as `%s.%s`", whole, whole, w.b.l.cel.names.example(path))
		return
	}
	name := strings.Join(path[:min(len(path), want)], ".")
	switch path[0] {
	case "lookup":
		look := w.b.l.lookups[path[1]]
		if look == nil && w.b.l.unknown.lookups {
			return
		}
		if look == nil {
			w.errorf(x, "`if`: there is no lookup `%s`", path[1])
			return
		}
		look.used = true
		if !slices.Contains(w.e.lookups, &look.Lookup) {
			w.e.lookups = append(w.e.lookups, &look.Lookup)
		}
	case "vars":
		v := w.b.l.vars[path[1]]
		if v == nil && w.b.l.unknown.vars {
			return
		}
		if v == nil {
			w.errorf(x, "`if`: there is no variable `%s`", path[1])
			return
		}
		v.used = true
	case "auth":
		w.auth(x, name)
	case "request":
		if name == "request.ip" {
			w.b.l.needAddress(w.at)
		}
	case "object":
		if w.b.l.lacksObject(w.b.route) {
			w.errorf(x, "`if`: `%s` is for routes whose `object` has a key", name)
		}
	}
	if path[0] != "vars" && !slices.Contains(w.e.reads, name) {
		w.e.reads = append(w.e.reads, name)
	}
}

func (w *astWalk) auth(x ast.Expr, name string) {
	switch name {
	case "auth.uid":
		w.b.facts.usesUID = append(w.b.facts.usesUID, w.at)
	case "auth.email":
		if !w.b.facts.verifiedEmail {
			w.errorf(x, "SG008 `if` uses auth.email: add `verified_email: true` to this %s", w.b.noun())
		}
	}
}

func (w *astWalk) errorf(x ast.Expr, format string, args ...any) {
	w.failed = true
	line, column := 1, 1
	call := x.Kind() == ast.CallKind && !strings.ContainsAny(x.AsCall().FunctionName(), "_!@")
	if at := w.source.GetStartLocation(firstName(x).ID()); at.Line() > 0 {
		line, column = at.Line(), at.Column()+1
		if call || x.Kind() == ast.SelectKind && x.AsSelect().IsTestOnly() {
			column = placeIn(w.e.text, at.Line(), at.Column()).name() + 1
		}
	}
	w.at.ErrorIn(line, column, format, args...)
}

var errAbsent = errors.New("is absent")
