package policy

import (
	"encoding/json"
	"math"
	"net/netip"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

func isAuth(name string) bool { return strings.HasPrefix(name, "auth.") }

// Bounds of what is tried for one name that a condition reads.
const (
	maxValues = 60
	maxPool   = 40
)

// A pool holds what a condition compares with: its literals, and what its parts
// are for the attempt at hand.
type pool struct {
	names     *celTypes
	in        *Input
	texts     []string
	ints      []int64
	doubles   []float64
	durations []time.Duration
	times     []time.Time
	calendar  bool // it asks for an hour, a day, a month of a time
}

func put[T comparable](list *[]T, v T) {
	if len(*list) < maxPool {
		*list = appendNew(*list, v)
	}
}

// literals takes what stands in the expression itself.
func (p *pool) literals(x ast.Expr) {
	switch x.Kind() {
	case ast.LiteralKind:
		p.value(x.AsLiteral())
	case ast.SelectKind:
		if path := namePath(x); len(path) == 2 && path[0] == "vars" {
			p.variable(path[1])
			return
		}
		p.literals(x.AsSelect().Operand())
	case ast.CallKind:
		c := x.AsCall()
		name := c.FunctionName()
		p.calendar = p.calendar || strings.HasPrefix(name, "get")
		if c.IsMemberFunction() {
			p.literals(c.Target())
		}
		for _, a := range c.Args() {
			p.literals(a)
			if s, ok := literalText(a); ok {
				p.called(name, s)
			}
		}
	case ast.ListKind:
		for _, e := range x.AsList().Elements() {
			p.literals(e)
		}
	case ast.MapKind:
		for _, e := range x.AsMap().Entries() {
			p.literals(e.AsMapEntry().Key())
			p.literals(e.AsMapEntry().Value())
		}
	case ast.ComprehensionKind:
		c := x.AsComprehension()
		for _, e := range []ast.Expr{c.IterRange(), c.AccuInit(), c.LoopCondition(), c.LoopStep(), c.Result()} {
			p.literals(e)
		}
	}
}

// variable takes the value of one of the policy's vars.
func (p *pool) variable(name string) {
	if f := p.names.fields[typeVars][name]; f != nil {
		if v, err := f.GetFrom((*celInput)(p.in)); err == nil {
			p.value(p.names.NativeToValue(v))
		}
	}
}

func literalText(x ast.Expr) (string, bool) {
	if x.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := x.AsLiteral().(types.String)
	return string(s), ok
}

// called takes what functions make of text.
func (p *pool) called(function, text string) {
	switch function {
	case "matches":
		if re, err := syntax.Parse(text, syntax.Perl); err == nil {
			put(&p.texts, sample(re))
		}
	case "duration":
		if d, err := time.ParseDuration(text); err == nil {
			put(&p.durations, d)
		}
	case "timestamp":
		if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
			put(&p.times, t)
		}
	}
}

// sample is a short text that a regular expression matches.
func sample(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCharClass:
		for _, r := range "a0-_x." {
			for i := 0; i+1 < len(re.Rune); i += 2 {
				if re.Rune[i] <= r && r <= re.Rune[i+1] {
					return string(r)
				}
			}
		}
		if len(re.Rune) > 0 {
			return string(re.Rune[0])
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return "x"
	case syntax.OpCapture, syntax.OpPlus:
		return sample(re.Sub[0])
	case syntax.OpRepeat:
		return strings.Repeat(sample(re.Sub[0]), min(re.Min, maxValue))
	case syntax.OpAlternate:
		return sample(re.Sub[0])
	case syntax.OpConcat:
		out := ""
		for _, sub := range re.Sub {
			out += sample(sub)
		}
		return out
	}
	return ""
}

// value takes a value that a part of an expression has.
func (p *pool) value(v ref.Val) {
	switch v := v.(type) {
	case types.String:
		if len(v) <= maxString {
			put(&p.texts, string(v))
		}
	case types.Int:
		put(&p.ints, int64(v))
	case types.Uint:
		if v <= math.MaxInt64 {
			put(&p.ints, int64(v))
		}
	case types.Double:
		put(&p.doubles, float64(v))
	case types.Duration:
		put(&p.durations, v.Duration)
	case types.Timestamp:
		put(&p.times, v.Time.UTC())
	case traits.Lister:
		for it := v.Iterator(); it.HasNext() == types.True; {
			if e := it.Next(); !isList(e) {
				p.value(e)
			}
		}
	}
}

func isList(v ref.Val) bool {
	_, ok := v.(traits.Lister)
	return ok
}

// pool gathers for the attempt at hand.
func (m *mover) pool(e *expression, in *Input, values map[int64]ref.Val) *pool {
	p := &pool{names: e.compiler.names, in: in}
	p.literals(e.ast.NativeRep().Expr())
	for _, id := range sortedIDs(values) {
		p.value(values[id])
	}
	if in.Identity != nil {
		put(&p.texts, in.Identity.UID)
	}
	put(&p.texts, otherUID)
	for _, name := range in.Route.path.names() {
		if v, ok := in.Params.Get(name); ok {
			put(&p.texts, v)
		}
	}
	p.times = slices.Clip(p.times)
	for _, t := range append(p.times, in.Time) {
		for _, d := range p.durations {
			put(&p.times, t.Add(d))
			put(&p.times, t.Add(-d))
		}
	}
	put(&p.times, in.Time)
	return p
}

func sortedIDs(values map[int64]ref.Val) []int64 {
	out := make([]int64, 0, len(values))
	for id := range values {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// scalars are values of a type around those of the pool.
func (p *pool) scalars(scalar string) []any {
	var out []any
	add := func(v any) {
		if len(out) < maxValues {
			out = append(out, v)
		}
	}
	switch scalar {
	case "bool":
		return []any{true, false}
	case "string":
		for _, s := range p.texts {
			add(s)
		}
		for _, s := range p.texts {
			add(s + "x")
			add("x" + s)
		}
		add(otherName)
		add("")
	case "int":
		for _, n := range append(slices.Clone(p.ints), 0) {
			add(n)
			add(n + 1)
			add(n - 1)
		}
		for _, f := range p.doubles {
			add(int64(f))
			add(int64(f) + 1)
		}
	case "double":
		for _, f := range append(slices.Clone(p.doubles), 0) {
			add(f)
			add(math.Nextafter(f, math.Inf(1)))
			add(math.Nextafter(f, math.Inf(-1)))
		}
		for _, n := range p.ints {
			add(float64(n))
			add(float64(n) + 0.5)
			add(float64(n) - 0.5)
		}
	case "timestamp":
		for _, t := range p.times {
			add(t)
			add(t.Add(time.Second))
			add(t.Add(-time.Second))
		}
	}
	return out
}

// typed are values of a type around those of the pool; keys are what a map may
// be asked for.
func (p *pool) typed(t claimType) []any {
	scalars := p.scalars(t.scalar)
	switch t.container {
	case "list":
		out := []any{[]any{}}
		for _, v := range scalars {
			out = append(out, []any{v})
		}
		if len(scalars) > 0 {
			out = append(out, scalars)
		}
		for _, n := range p.ints { // size(list) is held against a number
			for _, size := range []int64{n - 1, n, n + 1} {
				if size < 2 || size > 50 {
					continue
				}
				for i := range min(len(scalars), 10) {
					out = append(out, slices.Repeat(scalars[i:i+1], int(size)))
				}
			}
		}
		return out
	case "map":
		out := []any{map[string]any{}}
		for _, key := range p.texts {
			for _, v := range scalars {
				if len(out) < 4*maxValues {
					out = append(out, map[string]any{key: v})
				}
			}
		}
		return out
	}
	return scalars
}

// moments are times of day, days and months, for conditions that ask for those.
func (p *pool) moments(at time.Time) []any {
	if !p.calendar {
		return nil
	}
	var out []any
	for hour := range 24 {
		out = append(out, time.Date(at.Year(), at.Month(), at.Day(), hour, 0, 0, 0, time.UTC))
	}
	for day := range 7 {
		out = append(out, at.AddDate(0, 0, day))
	}
	for month := range 12 {
		out = append(out, at.AddDate(0, month, 0))
	}
	for _, n := range p.ints {
		switch {
		case n >= 1970 && n <= 9000:
			out = append(out, at.AddDate(int(n)-at.Year(), 0, 0), at.AddDate(int(n)-at.Year()+1, 0, 0), at.AddDate(int(n)-at.Year()-1, 0, 0))
		case n >= 0 && n < 60:
			out = append(out, time.Date(at.Year(), at.Month(), at.Day(), at.Hour(), int(n), 0, 0, time.UTC))
		}
	}
	return out
}

// addresses are those that the pool's texts are, or begin.
func (p *pool) addresses() []any {
	var out []any
	for _, s := range p.texts {
		for _, more := range []string{"", "1", ".1", "0.1", ".0.1", "0.0.1", ":1", ":"} {
			if a, err := netip.ParseAddr(s + more); err == nil {
				out = append(out, a)
			}
		}
	}
	return append(out, probeIP)
}

// asClaim is a value as a token holds it, asField as a document does.
func asClaim(v any) any {
	switch v := v.(type) {
	case int64:
		return json.Number(strconv.FormatInt(v, 10))
	case float64:
		return json.Number(strconv.FormatFloat(v, 'g', -1, 64))
	case time.Time:
		return json.Number(strconv.FormatInt(v.Unix(), 10))
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = asClaim(v[i])
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k := range v {
			out[k] = asClaim(v[k])
		}
		return out
	}
	return v
}
