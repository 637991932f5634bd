package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A pattern is a path of literals and captures: prefix segments (a literal, or
// {x} for one segment of any text), then at most one {x...} for any number of
// segments, none included, then literals only.
type pattern struct {
	prefix   []segment
	rest     bool
	restName string
	suffix   []string
	broken   bool // it could not be read: what it captures is not known
}

// A segment is a literal, or, with a name, a capture.
type segment struct {
	literal string
	name    string
}

func (s segment) captures() bool { return s.name != "" }

// covers reports whether s matches whatever t matches.
func (s segment) covers(t segment) bool {
	return s.captures() || (!t.captures() && s.literal == t.literal)
}

// meets reports whether some text matches both.
func (s segment) meets(t segment) bool {
	return s.captures() || t.captures() || s.literal == t.literal
}

// maxPath is the longest path of a canonical request, in bytes.
const maxPath = 4 << 10

func parsePattern(text string) (pattern, error) {
	var p pattern
	if !strings.HasPrefix(text, "/") {
		return p, errors.New("a path starts with `/`")
	}
	if len(text) > maxPath {
		return p, fmt.Errorf("longer than %d bytes: no request has such a path", maxPath)
	}
	if text == "/" {
		return p, nil
	}
	seen := map[string]bool{}
	for _, part := range strings.Split(strings.TrimSuffix(text[1:], "/"), "/") {
		seg, rest, err := parseSegment(part)
		if err != nil {
			return p, err
		}
		if seg.captures() && seen[seg.name] {
			return p, fmt.Errorf("{%s} is there twice", seg.name)
		}
		seen[seg.name] = true
		switch {
		case rest && p.rest:
			return p, errors.New("only one {x...} can be in a path")
		case rest:
			p.rest, p.restName = true, seg.name
		case p.rest && seg.captures():
			return p, fmt.Errorf("after {%s...} only literal segments can follow, not {%s}", p.restName, seg.name)
		case p.rest:
			p.suffix = append(p.suffix, seg.literal)
		default:
			p.prefix = append(p.prefix, seg)
		}
	}
	return p, nil
}

func parseSegment(part string) (seg segment, rest bool, err error) {
	inner, isCapture := strings.CutPrefix(part, "{")
	if !isCapture {
		if err := checkLiteral(part); err != nil {
			return seg, false, err
		}
		return segment{literal: part}, false, nil
	}
	inner, closed := strings.CutSuffix(inner, "}")
	inner, rest = strings.CutSuffix(inner, "...")
	if !closed || !isIdent(inner) {
		return seg, false, fmt.Errorf("`%s` is no capture; write {name} or {name...} as a whole segment", part)
	}
	return segment{name: inner}, rest, nil
}

// checkLiteral refuses what no canonical request can match.
func checkLiteral(s string) error {
	switch {
	case s == "":
		return errors.New("an empty segment (`//`) matches no request")
	case s == "." || s == "..":
		return fmt.Errorf("the segment `%s` matches no request", s)
	case strings.ContainsAny(s, "{}"):
		return fmt.Errorf("`%s`: a capture is a whole segment, {name} or {name...}", s)
	case s == "*" || s == "**":
		return errors.New("`*` cannot stand in a path: for the rest of a path write {rest...}, for one segment {name}")
	case strings.HasPrefix(s, ":") && isIdent(s[1:]):
		return fmt.Errorf("`%s` would be taken as it stands: a capture is written {%s}", s, s[1:])
	case strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">") && isIdent(s[1:len(s)-1]):
		return fmt.Errorf("`%s` would be taken as it stands: a capture is written {%s}", s, s[1:len(s)-1])
	case strings.ContainsAny(s, "\\;?#*"):
		return fmt.Errorf("`%s`: the characters \\ ; ? # * cannot stand in a path", s)
	case strings.Contains(s, "%"):
		return fmt.Errorf("`%s`: paths are written decoded, without %%", s)
	}
	if !cleanText(s) {
		return fmt.Errorf("%q: control characters cannot stand in a path", s)
	}
	return nil
}

func isIdent(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

func (p pattern) String() string {
	var b strings.Builder
	for _, s := range p.prefix {
		if s.captures() {
			b.WriteString("/{" + s.name + "}")
		} else {
			b.WriteString("/" + s.literal)
		}
	}
	if p.rest {
		b.WriteString("/{" + p.restName + "...}")
	}
	for _, s := range p.suffix {
		b.WriteString("/" + s)
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// names are the captures, in order.
func (p pattern) names() []string {
	var out []string
	for _, s := range p.prefix {
		if s.captures() {
			out = append(out, s.name)
		}
	}
	if p.rest {
		out = append(out, p.restName)
	}
	return out
}

// capturesAs finds a capture of this name; single is false for {name...}.
func (p pattern) capturesAs(name string) (single, ok bool) {
	if p.broken {
		return true, true
	}
	for _, s := range p.prefix {
		if s.captures() && s.name == name {
			return true, true
		}
	}
	return false, p.rest && p.restName == name
}

// within reports whether every path that p matches is one that q matches.
func (p pattern) within(q pattern) bool {
	if !q.rest {
		if p.rest || len(p.prefix) != len(q.prefix) {
			return false
		}
		for i := range q.prefix {
			if !q.prefix[i].covers(p.prefix[i]) {
				return false
			}
		}
		return true
	}
	if len(p.prefix)+len(p.suffix) < len(q.prefix)+len(q.suffix) {
		return false // p's shortest path is too short for q
	}
	for i, s := range q.prefix {
		switch {
		case i < len(p.prefix):
			if !s.covers(p.prefix[i]) {
				return false
			}
		case !s.captures(): // p has anything here
			return false
		}
	}
	tail := p.tail(len(q.suffix))
	if tail == nil && len(q.suffix) > 0 {
		return false
	}
	for i, s := range q.suffix {
		if tail[i].captures() || tail[i].literal != s {
			return false
		}
	}
	return true
}

// matches reports whether the segments of a path are one that p matches.
func (p *pattern) matches(parts []string) bool {
	fixed := len(p.prefix) + len(p.suffix)
	if len(parts) < fixed || (!p.rest && len(parts) != fixed) {
		return false
	}
	for i, s := range p.prefix {
		if !s.captures() && s.literal != parts[i] {
			return false
		}
	}
	for i, s := range p.suffix {
		if s != parts[len(parts)-len(p.suffix)+i] {
			return false
		}
	}
	return true
}

// tail is the last n segments of every path p matches, or nil where they are
// not fixed in place.
func (p pattern) tail(n int) []segment {
	all := p.prefix
	if p.rest {
		all = nil
		for _, s := range p.suffix {
			all = append(all, segment{literal: s})
		}
	}
	if len(all) < n {
		return nil
	}
	return all[len(all)-n:]
}

// meet gives a path that both match, and whether there is one.
func (p pattern) meet(q pattern) (witness string, ok bool) {
	if p.rest && !q.rest {
		p, q = q, p
	}
	var segs []segment
	if !p.rest {
		segs, ok = p.meetFixed(q)
	} else {
		segs, ok = p.meetRest(q)
	}
	if !ok {
		return "", false
	}
	var b strings.Builder
	for _, s := range segs {
		if s.captures() {
			b.WriteString("/x")
		} else {
			b.WriteString("/" + s.literal)
		}
	}
	if b.Len() == 0 {
		return "/", true
	}
	return b.String(), true
}

// meetFixed is for a p without {x...}.
func (p pattern) meetFixed(q pattern) ([]segment, bool) {
	n := len(p.prefix)
	fixed := len(q.prefix) + len(q.suffix)
	if n < fixed || (!q.rest && n != fixed) {
		return nil, false
	}
	out := slices.Clone(p.prefix)
	put := func(i int, s segment) bool {
		ok := out[i].meets(s)
		if out[i].captures() {
			out[i] = s
		}
		return ok
	}
	for i, s := range q.prefix {
		if !put(i, s) {
			return nil, false
		}
	}
	for i, s := range q.suffix {
		if !put(n-len(q.suffix)+i, segment{literal: s}) {
			return nil, false
		}
	}
	return out, true
}

// meetRest is for two patterns with {x...}: both rests can be made as long as
// is needed, so only the common starts and the common ends must meet.
func (p pattern) meetRest(q pattern) ([]segment, bool) {
	long, short := p.prefix, q.prefix
	if len(long) < len(short) {
		long, short = short, long
	}
	out := slices.Clone(long)
	for i, s := range short {
		if !out[i].meets(s) {
			return nil, false
		}
		if out[i].captures() {
			out[i] = s
		}
	}
	longEnd, shortEnd := p.suffix, q.suffix
	if len(longEnd) < len(shortEnd) {
		longEnd, shortEnd = shortEnd, longEnd
	}
	if !slices.Equal(longEnd[len(longEnd)-len(shortEnd):], shortEnd) {
		return nil, false
	}
	for _, s := range longEnd {
		out = append(out, segment{literal: s})
	}
	return out, true
}

// Params are a route's captures for one request.
type Params struct {
	pattern *pattern
	values  [4]string
	more    []string // where there are more than values holds
}

// capture takes the captures of a path that p matches.
func (p *pattern) capture(parts []string, path string) Params {
	out := Params{pattern: p}
	n := 0
	put := func(v string) {
		if n < len(out.values) {
			out.values[n] = v
		} else {
			out.more = append(out.more, v)
		}
		n++
	}
	for i, s := range p.prefix {
		if s.captures() {
			put(parts[i])
		}
	}
	if p.rest {
		put(restOf(path, len(p.prefix), len(p.suffix)))
	}
	return out
}

// restOf cuts `before` segments from the start of the path and `after` from
// its end, the slashes around them with it.
func restOf(path string, before, after int) string {
	path = strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/")
	for range before {
		_, path, _ = strings.Cut(path, "/")
	}
	for range after {
		i := strings.LastIndexByte(path, '/')
		path = path[:max(i, 0)]
	}
	return path
}

// Get is the value of a capture, and whether there is one of that name.
func (p *Params) Get(name string) (string, bool) {
	if p.pattern == nil {
		return "", false
	}
	n := 0
	for _, s := range p.pattern.prefix {
		if !s.captures() {
			continue
		}
		if s.name == name {
			return p.at(n), true
		}
		n++
	}
	if p.pattern.rest && p.pattern.restName == name {
		return p.at(n), true
	}
	return "", false
}

// Rest is what {x...} captured; "" where the pattern has none.
func (p *Params) Rest() string {
	if p.pattern == nil || !p.pattern.rest {
		return ""
	}
	v, _ := p.Get(p.pattern.restName)
	return v
}

func (p *Params) at(n int) string {
	if n < len(p.values) {
		return p.values[n]
	}
	return p.more[n-len(p.values)]
}
