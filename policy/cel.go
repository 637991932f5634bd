package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"

	"sidegate/policy/document"
)

// Bounds of a condition in `if`.
const (
	maxExpression = 4 << 10 // characters
	// maxCost is what a condition may cost at most, in CEL's units (about one
	// simple operation each). What could cost more by the sizes that claims and
	// documents may have runs with this limit, and is an error beyond it.
	maxCost = 100_000
	// maxRegex bounds the program of a regular expression.
	maxRegex = 1000
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
	compiled, issues := c.env.Compile(text)
	if err := issues.Err(); err != nil {
		for _, one := range issues.Errors() {
			line, column := one.Location.Line(), one.Location.Column()
			v.ErrorIn(line, column+1, "%s", c.names.explain(one.Message, nameBefore(text, line, column)))
		}
		return nil
	}
	e := &expression{text: text, ast: compiled, strict: b.facts.place != inEntry, compiler: c, params: b.path.names()}
	w := astWalk{b: b, at: v, e: e, source: compiled.NativeRep().SourceInfo()}
	w.walk(compiled.NativeRep().Expr(), false)
	if w.failed {
		return nil
	}
	if t := compiled.OutputType(); !t.IsExactType(types.BoolType) {
		v.Errorf("SG006 `if` must be a condition, true or false; this is of type %s", strings.ReplaceAll(t.String(), "sidegate.", ""))
		return nil
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	estimate, err := c.env.EstimateCost(compiled, sizes{})
	if e.bounded = err == nil && estimate.Max <= maxCost; !e.bounded {
		options = append(options, cel.CostLimit(maxCost))
	}
	if e.program, err = c.env.Program(compiled, options...); err != nil {
		v.Errorf("`if`: %v", err)
		return nil
	}
	return e
}

// sizes estimates by what claims, documents and targets may hold at most.
type sizes struct{}

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

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// An astWalk finds what a condition reads, and refuses what has no meaning.
type astWalk struct {
	b      *builder
	at     document.Value
	e      *expression
	source *ast.SourceInfo
	failed bool
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
		w.checkPattern(x, c)
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
	if c.Args()[len(c.Args())-1].Kind() != ast.LiteralKind {
		w.errorf(x, "`if`: the regular expression of matches() must be written out")
	}
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
		if w.b.route != nil && w.b.route.Object == nil {
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
	if at := w.source.GetStartLocation(x.ID()); at.Line() > 0 {
		line, column = at.Line(), at.Column()+1
	}
	w.at.ErrorIn(line, column, format, args...)
}

// nameBefore is the dotted name that ends before a place of the text: line
// counts from 1, column from 0.
func nameBefore(text string, line, column int) string {
	lines := strings.Split(text, "\n")
	if line < 1 || line > len(lines) {
		return ""
	}
	whole := []rune(lines[line-1])
	at := min(max(column, 0), len(whole))
	if m := argument.FindStringSubmatch(string(whole[at:])); m != nil {
		return m[1] // of has(a.b.c), whose place is that of its parenthesis
	}
	return lastName.FindString(string(whole[:at]))
}

var (
	lastName = regexp.MustCompile(`[A-Za-z0-9_.]*$`)
	argument = regexp.MustCompile(`^\(\s*([A-Za-z0-9_.]+)\.[A-Za-z0-9_]+\s*\)`)
)

// undeclaredName says what to do about a name that a group does not have.
func (t *celTypes) undeclaredName(group, name string) string {
	words := keysOf(t.fields["sidegate."+group])
	say := func(id, what, where string) string {
		return fmt.Sprintf("%s`if`: %s `%s` is not there; %s%s", id, what, name, where, document.DidYouMean(name, words))
	}
	switch kind, lookup, _ := strings.Cut(group, "."); {
	case group == "auth.token":
		words = keysOf(t.fields[typeToken])
		return say("SG003 ", "claim", "declare it under `claims`")
	case group == "vars":
		return say("SG003 ", "variable", "add it under `vars`")
	case group == "params":
		return say("SG003 ", "capture", "the path has none of that name")
	case group == "lookup":
		return say("SG003 ", "lookup", "declare it under `lookups`")
	case kind == "lookup":
		return say("SG003 ", "field", "declare it under `fields` of lookup `"+lookup+"`")
	case len(words) == 0:
		words = t.all()
	}
	return fmt.Sprintf("`if`: there is no `%s` here%s", name, document.DidYouMean(name, words))
}

// explain puts cel-go's words for a mistake into ours where that helps. group is
// the name before the mistake.
func (t *celTypes) explain(message, group string) string {
	message, _, _ = strings.Cut(message, "\n")
	if m := undefinedField.FindStringSubmatch(message); m != nil {
		return t.undeclaredName(group, m[1])
	}
	return "`if`: " + t.plain(message)
}

func (t *celTypes) plain(message string) string {
	if m := undeclared.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("there is no name or function `%s`; names begin with %s%s", m[1], strings.Join(roots, ", "), document.DidYouMean(m[1], roots))
	}
	if better, ok := plainer[message]; ok {
		return better
	}
	return strings.ReplaceAll(message, "sidegate.", "")
}

// plainer says in words what cel-go says of arguments.
var plainer = map[string]string{
	"invalid matches argument":            "the regular expression is malformed (RE2 syntax)",
	"invalid duration argument":           "the duration is malformed: write it as 300s, 5m or 2h",
	"invalid timestamp argument":          "the time is malformed: write it as RFC 3339 does, 2026-03-02T10:00:00Z",
	"comprehension exceeds nesting limit": "a loop (exists, all, map, filter) within another: what it costs has no small bound",
}

var (
	undefinedField = regexp.MustCompile(`^undefined field '([^']*)'`)
	undeclared     = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
)

var errAbsent = errors.New("is absent")
