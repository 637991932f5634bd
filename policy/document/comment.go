package document

import (
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// A Comment is a comment and the lines of the file that it speaks of: those of
// what begins in the line below it, where only comments lie between; its own
// line where it ends one. For all others that is the comment's line, too.
type Comment struct {
	Text        string // without # and the space around it
	Line        int    // of the comment itself
	Column      int    // of its #
	First, Last int    // lines it speaks of
}

// Comments are the comments of the document that v is the top of, in file
// order. They are found in the text of the file and not in the tree: the YAML
// library gives those within flow collections and behind a value to the wrong
// line or to none.
func (v Value) Comments() []Comment {
	if v.n == nil || v.d.line(1) == "" && len(v.d.lines) < 2 {
		return nil
	}
	s := &commentScan{lines: v.d.lines, scalars: map[spot]scalarAt{}, starts: map[int][]startAt{}}
	s.tree(v.n, -1)
	s.scan()
	s.settle()
	return s.found
}

// PositionIn is the place in the file of a place within the value's text, as
// ErrorIn takes it.
func (v Value) PositionIn(line, column int) (int, int) {
	if v.n == nil {
		return 0, 0
	}
	return v.within(line, column)
}

// A spot is a place in the file, counted from 1.
type spot struct{ line, column int }

// A scalarAt is a scalar that may hold what looks like a comment.
type scalarAt struct {
	style  yaml.Style
	indent int // of the collection that holds it: a block's lines are deeper
}

// A startAt is where a key or a value begins, and the last line of the value.
type startAt struct {
	column, last int
	key          bool
}

type commentScan struct {
	lines   []string
	scalars map[spot]scalarAt
	starts  map[int][]startAt // by line
	found   []Comment
	alone   []bool // of found: nothing else stands in its line
}

// tree notes where the values at and below n begin. indent is that of the
// collection around n.
func (s *commentScan) tree(n *yaml.Node, indent int) {
	switch n.Kind {
	case yaml.ScalarNode:
		s.scalars[spot{n.Line, n.Column}] = scalarAt{n.Style, indent}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			s.tree(key, indent)
			s.start(key, lastLine(value), true)
			s.start(value, lastLine(value), false)
			s.tree(value, key.Column-1)
		}
	default:
		for _, c := range n.Content {
			s.start(c, lastLine(c), false)
			s.tree(c, n.Column-1)
		}
	}
}

func (s *commentScan) start(n *yaml.Node, last int, key bool) {
	s.starts[n.Line] = append(s.starts[n.Line], startAt{n.Column, last, key})
}

// lastLine is the last line in which something at or below n begins.
func lastLine(n *yaml.Node) int {
	last := n.Line
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		last += strings.Count(n.Value, "\n")
	}
	for _, c := range n.Content {
		last = max(last, lastLine(c))
	}
	return last
}

// scan finds the comments: # at the start of a line or after a space, and not
// within a quoted scalar or a block.
func (s *commentScan) scan() {
	var quote rune
	for i := 0; i < len(s.lines); i++ {
		line := []rune(strings.TrimSuffix(s.lines[i], "\r"))
		next := i
		for c := 0; c < len(line); c++ {
			if quote != 0 {
				c, quote = pastQuote(line, c, quote)
				continue
			}
			if line[c] == '#' && (c == 0 || line[c-1] == ' ' || line[c-1] == '\t') {
				s.add(i+1, c+1, line)
				break
			}
			at, ok := s.scalars[spot{i + 1, c + 1}]
			switch r := line[c]; {
			case !ok:
			case r == '"' && at.style&yaml.DoubleQuotedStyle != 0, r == '\'' && at.style&yaml.SingleQuotedStyle != 0:
				quote = r
			case r == '|' && at.style&yaml.LiteralStyle != 0, r == '>' && at.style&yaml.FoldedStyle != 0:
				next = s.pastBlock(i, at.indent, line[c+1:])
			}
		}
		i = next
	}
}

// pastQuote looks at the character at c of a quoted scalar, and says where to
// go on and which quote is open then.
func pastQuote(line []rune, c int, quote rune) (int, rune) {
	switch {
	case quote == '"' && line[c] == '\\':
		return c + 1, quote
	case line[c] != quote:
	case quote == '\'' && c+1 < len(line) && line[c+1] == quote:
		return c + 1, quote
	default:
		quote = 0
	}
	return c, quote
}

// pastBlock is the index of the last line of a block scalar whose header stands
// in line i: `|` or `>`, and what follows it in the line.
func (s *commentScan) pastBlock(i, indent int, header []rune) int {
	deep := 0 // the content's own indentation
	for _, r := range header {
		if r == ' ' || r == '#' {
			break
		}
		if r >= '1' && r <= '9' {
			deep = max(indent, 0) + int(r-'0')
		}
	}
	last := i
	for j := i + 1; j < len(s.lines); j++ {
		line := strings.TrimRight(s.lines[j], " \r")
		if line == "" {
			continue
		}
		n := len(line) - len(strings.TrimLeft(line, " "))
		if deep == 0 {
			deep = max(n, indent+1)
		}
		if n < deep {
			break
		}
		last = j
	}
	return last
}

func (s *commentScan) add(line, column int, text []rune) {
	words := strings.TrimSpace(strings.TrimLeft(string(text[column-1:]), "#"))
	if words == "" {
		return
	}
	s.found = append(s.found, Comment{words, line, column, line, line})
	s.alone = append(s.alone, strings.TrimSpace(string(text[:column-1])) == "")
}

// settle gives those that stand alone the lines of what is below them.
func (s *commentScan) settle() {
	for i := len(s.found) - 1; i >= 0; i-- {
		c := &s.found[i]
		if !s.alone[i] {
			continue
		}
		if i+1 < len(s.found) && s.alone[i+1] && s.found[i+1].Line == c.Line+1 {
			c.First, c.Last = s.found[i+1].First, s.found[i+1].Last
			if c.First == s.found[i+1].Line { // that speaks of nothing either
				c.First, c.Last = c.Line, c.Line
			}
			continue
		}
		if last := s.beginsIn(c.Line + 1); last != 0 {
			c.First, c.Last = c.Line+1, last
		}
	}
}

// beginsIn is the last line of what begins first in a line: an item of a list,
// or a key with its value. 0: nothing does.
func (s *commentScan) beginsIn(line int) int {
	if line > len(s.lines) {
		return 0
	}
	text := []rune(s.lines[line-1])
	column := slices.IndexFunc(text, func(r rune) bool { return r != ' ' && r != '\t' && r != '\r' }) + 1
	starts := s.starts[line]
	if column == 0 {
		return 0
	}
	item := text[column-1] == '-' && (column == len(text) || text[column] == ' ')
	if item { // the list itself begins at its first item's dash
		starts = slices.DeleteFunc(slices.Clone(starts), func(at startAt) bool { return at.column <= column })
	}
	if len(starts) == 0 {
		return 0
	}
	first := slices.MinFunc(starts, func(a, b startAt) int { return a.column - b.column })
	if first.column != column && !item {
		return 0
	}
	last := 0
	for _, at := range starts {
		switch {
		case at.column != first.column:
		case at.key && !item:
			return at.last
		default:
			last = max(last, at.last)
		}
	}
	return last
}
