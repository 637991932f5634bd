package document

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Substitute replaces ${<prefix>NAME} in every string at and below v with what
// find gives for NAME: a string that is nothing else becomes the value itself,
// whatever its type; within longer text only a scalar can stand. Text under the
// keys named in except is left as it is. A name that find does not know is a mistake, and
// find is told where (so that it can say what there is).
func (v Value) Substitute(prefix string, find func(name string, at Value) (Value, bool), except ...string) {
	if v.n == nil {
		return
	}
	s := substitution{prefix: "${" + prefix, find: find, except: except}
	s.walk(v)
}

type substitution struct {
	prefix string
	find   func(name string, at Value) (Value, bool)
	except []string
}

func (s *substitution) walk(v Value) {
	switch v.n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(v.n.Content); i += 2 {
			key, value := v.n.Content[i].Value, v.n.Content[i+1]
			if value.Kind != yaml.ScalarNode || !slices.Contains(s.except, key) {
				s.walk(Value{v.d, value, join(v.path, key)})
			}
		}
	case yaml.SequenceNode:
		for i, c := range v.n.Content {
			s.walk(Value{v.d, c, fmt.Sprintf("%s[%d]", v.path, i)})
		}
	case yaml.ScalarNode:
		if v.n.Tag == "!!str" && strings.Contains(v.n.Value, s.prefix) {
			s.replace(v)
		}
	}
}

func (s *substitution) replace(v Value) {
	var out strings.Builder
	rest, replaced := v.n.Value, 0
	var from []string
	for {
		i := strings.Index(rest, s.prefix)
		if i < 0 {
			break
		}
		end := strings.IndexByte(rest[i:], '}')
		if end < 0 {
			break // the template's reader says so
		}
		name := rest[i+len(s.prefix) : i+end]
		with, ok := s.find(name, v)
		if !ok {
			v.d.failed[v.n] = true
			return
		}
		from = append(from, fmt.Sprintf("`%s`, line %d", with.path, with.n.Line))
		if i == 0 && end+1 == len(v.n.Value) {
			*v.n = *moved(with.n, v.n.Line, v.n.Column)
			v.d.comesFrom(v.n, from)
			return
		}
		if with.n.Kind != yaml.ScalarNode {
			v.d.failed[v.n] = true
			v.Errorf("`%s`: %s%s} is %s, which cannot stand within text", v.path, s.prefix, name, kind(with.n))
			return
		}
		replaced++
		out.WriteString(rest[:i] + with.n.Value)
		rest = rest[i+end+1:]
	}
	text := out.String() + rest
	if strings.Count(text, "${") != strings.Count(v.n.Value, "${")-replaced {
		v.d.failed[v.n] = true
		v.Errorf("`%s`: %q makes a new ${...} of the text around a variable; write it out", v.path, v.n.Value)
		return
	}
	v.n.Value = text
	v.d.comesFrom(v.n, from)
}

// comesFrom remembers which variables a value was made of: mistakes in it say
// so.
func (d *Document) comesFrom(n *yaml.Node, variables []string) {
	if len(variables) == 0 {
		return
	}
	d.origin[n] = " (from " + strings.Join(variables, " and ") + ")"
	for _, c := range n.Content {
		d.comesFrom(c, variables)
	}
}

// moved is a copy of a value that stands where it is used: mistakes are told
// there.
func moved(n *yaml.Node, line, column int) *yaml.Node {
	out := *n
	out.Line, out.Column = line, column
	out.HeadComment, out.LineComment, out.FootComment = "", "", ""
	out.Content = nil
	for _, c := range n.Content {
		out.Content = append(out.Content, moved(c, line, column))
	}
	return &out
}

// ErrorIn adds a mistake at a place within the value's text: line and column
// count from 1 and in characters, as readers of other languages tell them.
// Where the text does not stand in the file as it is read (folded, escaped,
// substituted), the place is that of the value.
func (v Value) ErrorIn(line, column int, format string, args ...any) {
	if v.d == nil || v.n == nil {
		return
	}
	l, c := v.within(line, column)
	v.d.add(l, c, fmt.Sprintf(format, args...)+v.d.origin[v.n])
}

func (v Value) within(line, column int) (int, int) {
	texts := strings.Split(v.n.Value, "\n")
	if line < 1 || line > len(texts) || column < 1 {
		return v.n.Line, v.n.Column
	}
	text := texts[line-1]
	switch {
	case v.n.Style&yaml.LiteralStyle != 0:
		source := v.d.line(v.n.Line + line)
		if indent := len(source) - len(strings.TrimLeft(source, " ")); strings.TrimSpace(source) == strings.TrimSpace(text) {
			shift := len(text) - len(strings.TrimLeft(text, " "))
			return v.n.Line + line, indent - shift + column
		}
	case len(texts) == 1:
		source, at := v.d.line(v.n.Line), v.n.Column
		if v.n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
			at++
		}
		if runes := []rune(source); at >= 1 && at <= len(runes) && strings.HasPrefix(string(runes[at-1:]), text) {
			return v.n.Line, at + column - 1
		}
	}
	return v.n.Line, v.n.Column
}

// line is a line of the file, counted from 1, without its end.
func (d *Document) line(n int) string {
	if d.lines == nil && utf8.Valid(d.source) {
		d.lines = strings.Split(strings.ReplaceAll(string(d.source), "\r\n", "\n"), "\n")
	}
	if n < 1 || n > len(d.lines) {
		return ""
	}
	return d.lines[n-1]
}
