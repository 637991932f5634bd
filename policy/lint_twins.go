package policy

import (
	"iter"
	"strings"
	"unicode"
)

// anyText stands for whatever a capture can hold: no literal of a policy is
// expected to be this.
const anyText = "~any~"

// A twin is a path of a pattern, and the same in another case, which is one of
// another pattern.
type twin struct{ path, other string }

// twins gives paths that p matches with others that q matches. Where recased
// is false they are the same path, which both match; where it is true they
// differ in the case of letters, everywhere where p has a literal and q a
// capture. Captures are filled with what nothing else has, so that of all
// routes only those match that match whatever stands there.
func twins(p, q *pattern, recased bool) iter.Seq[twin] {
	least, most := lengths(p), lengths(q)
	from, to := max(least, most), least+most+1 // beyond that nothing new comes
	if !p.rest {
		to = least
	}
	if !q.rest {
		to = min(to, most)
	}
	return func(yield func(twin) bool) {
		for n := from; n <= to; n++ {
			if w, ok := twinOf(p, q, n, recased); ok && (w.path != w.other) == recased && !yield(w) {
				return
			}
		}
	}
}

func lengths(p *pattern) int { return len(p.prefix) + len(p.suffix) }

func twinOf(p, q *pattern, n int, recased bool) (twin, bool) {
	a, okA := p.stretched(n)
	b, okB := q.stretched(n)
	if !okA || !okB {
		return twin{}, false
	}
	var path, other strings.Builder
	for i := range n {
		x, y := a[i].literal, b[i].literal
		switch {
		case x == "" && y == "":
			x, y = anyText, anyText
		case x == "":
			x = y
		case y == "" && recased:
			y = otherCase(x)
		case y == "":
			y = x
		case x != y && !(recased && strings.EqualFold(x, y)):
			return twin{}, false
		}
		path.WriteString("/" + x)
		other.WriteString("/" + y)
	}
	if n == 0 {
		return twin{"/", "/"}, true
	}
	return twin{path.String(), other.String()}, true
}

// stretched is the pattern as n segments, {x...} as so many captures; not ok
// where it matches no such path.
func (p *pattern) stretched(n int) ([]segment, bool) {
	fixed := lengths(p)
	if n < fixed || (!p.rest && n != fixed) {
		return nil, false
	}
	out := make([]segment, 0, n)
	out = append(out, p.prefix...)
	for range n - fixed {
		out = append(out, segment{name: p.restName})
	}
	for _, s := range p.suffix {
		out = append(out, segment{literal: s})
	}
	return out, true
}

// otherCase is s in another case, or s where there are no letters in it.
func otherCase(s string) string {
	if strings.ContainsFunc(s, unicode.IsLower) {
		return strings.ToUpper(s)
	}
	return strings.ToLower(s)
}

// cased reports whether the pattern has literals with letters in them.
func (p *pattern) cased() bool {
	for _, s := range p.prefix {
		if otherCase(s.literal) != s.literal {
			return true
		}
	}
	for _, s := range p.suffix {
		if otherCase(s) != s {
			return true
		}
	}
	return false
}

// example is a path for people: captures read as x.
func example(path string) string { return strings.ReplaceAll(path, anyText, "x") }
