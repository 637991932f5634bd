// Package document reads sidegate's YAML files strictly: what a person wrote
// by mistake is refused with its place (file:line:column), all mistakes of a
// file in one run. It knows YAML and nothing of what the keys mean.
//
// Refused everywhere: unknown keys, wrong types, duplicate keys, a second
// document, null and empty lists, anchors, aliases, merge keys and tags.
package document

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// MaxBytes bounds a file: policies of ten thousand routes stay far below it.
const MaxBytes = 16 << 20

// An Error is one mistake and its place. Line and Column count from 1; Line 0
// means the file as a whole.
type Error struct {
	File         string
	Line, Column int
	Text         string
}

func (e Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Text)
}

// Errors are all mistakes of a file, in file order.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// An Expander gives the value of ${form:argument} in a scalar, for the forms
// env and file. Its error must not hold the value.
type Expander func(form, argument string) (string, error)

// A Document collects the mistakes of one file while it is read.
type Document struct {
	name     string
	expand   Expander
	errs     Errors
	source   []byte
	lines    []string // of source, once somebody asked
	expanded map[*yaml.Node]string
	failed   map[*yaml.Node]bool   // a mistake in the text itself is on record
	origin   map[*yaml.Node]string // of what stands here by substitution
	values   map[*yaml.Node]bool   // texts with ${auth.uid} and the like, which only Template reads
	literals map[*yaml.Node]bool   // texts that hold a ${ which is none
	bangs    map[[2]int]bool       // lines and columns of each `!`: the library forgets one that a blank follows
}

// New makes a reader for the file of that name. Without an Expander the forms
// ${env:} and ${file:} are mistakes.
func New(name string, expand Expander) *Document {
	return &Document{name: name, expand: expand, expanded: map[*yaml.Node]string{}, failed: map[*yaml.Node]bool{}, values: map[*yaml.Node]bool{}, literals: map[*yaml.Node]bool{}, origin: map[*yaml.Node]string{}}
}

// Parse reads data and returns its top-level value. version is what the
// file's `version` key must say, for example "sidegate-policy/v1".
func (d *Document) Parse(data []byte, version string) Value {
	if len(data) > MaxBytes {
		d.add(0, 0, fmt.Sprintf("is larger than %d MiB", MaxBytes>>20))
		return Value{}
	}
	d.source = data
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			d.add(0, 0, "is empty; it must start with `version: "+version+"`")
		} else {
			d.addSyntax(err, data)
		}
		return Value{}
	}
	root := doc.Content[0]
	v := Value{d: d, n: root}
	if v.IsMap() && d.otherVersion(v, version) {
		return Value{} // nothing else that it says can be judged
	}
	d.bangs = bangsIn(data)
	d.check(root)
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		d.add(second.Line, second.Column, "a second YAML document; one file holds one")
	} else if !errors.Is(err, io.EOF) {
		d.addSyntax(err, data)
	}
	if root.Kind != yaml.MappingNode {
		d.add(root.Line, root.Column, "want a mapping that starts with `version: "+version+"`")
		return Value{}
	}
	if !v.lookup("version").Present() {
		d.add(root.Line, root.Column, "`version` is missing; write `version: "+version+"`")
	}
	return v
}

// otherVersion refuses a file of another kind or version.
func (d *Document) otherVersion(root Value, want string) bool {
	v := root.lookup("version")
	if !v.Present() || v.n.Value == want {
		return false
	}
	kind, _, _ := strings.Cut(want, "/")
	got, _, _ := strings.Cut(v.n.Value, "/")
	if got != kind && strings.HasPrefix(got, "sidegate-") {
		v.Errorf("this is a %s file, where a %s file was expected", got, kind)
		return true
	}
	v.Errorf("version is %q; this sidegate reads %q", v.n.Value, want)
	return true
}

// Err is nil, or Errors with every mistake found so far.
func (d *Document) Err() error {
	if len(d.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(d.errs, func(a, b Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		if a.Column != b.Column {
			return a.Column - b.Column
		}
		return strings.Compare(a.Text, b.Text)
	})
	return slices.Compact(d.errs)
}

// Name is the file's name as it stands in errors.
func (d *Document) Name() string { return d.name }

func (d *Document) add(line, column int, text string) {
	d.errs = append(d.errs, Error{File: d.name, Line: line, Column: column, Text: text})
}

// check walks the tree once for what is refused wherever it stands.
func (d *Document) check(n *yaml.Node) {
	bad := func(text string) { d.add(n.Line, n.Column, text) }
	if n.Anchor != "" {
		bad("YAML anchors are not allowed: write the value where it is used")
	}
	switch {
	case n.Style&yaml.TaggedStyle != 0 && strings.HasPrefix(n.Tag, "!!"):
		bad("YAML tags are not allowed")
	case n.Style&yaml.TaggedStyle != 0, d.bangs[[2]int{n.Line, n.Column}]:
		d.failed[n] = true
		bad("YAML tags are not allowed: " + hintBang)
		return
	}
	switch n.Kind {
	case yaml.AliasNode:
		d.failed[n] = true
		bad("YAML aliases are not allowed: write the value where it is used")
		return
	case yaml.ScalarNode:
		d.checkScalar(n)
	case yaml.SequenceNode:
		if len(n.Content) == 0 {
			bad("an empty list: leave the key out, or name something")
		}
		for _, c := range n.Content {
			d.check(c)
		}
	case yaml.MappingNode:
		d.checkKeys(n)
		for i := 1; i < len(n.Content); i += 2 {
			d.checkIn(n, n.Content[i])
		}
	}
}

// checkIn checks a value of a mapping.
func (d *Document) checkIn(mapping, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Value == "" && mapping.Style&yaml.FlowStyle != 0 {
		d.failed[n] = true
		d.add(n.Line, n.Column, "no value: leave the key out, or give it one; "+hintFlow)
		return
	}
	d.check(n)
}

// bangsIn are the places of each `!` that stands alone.
func bangsIn(data []byte) map[[2]int]bool {
	if bytes.IndexByte(data, '!') < 0 {
		return nil
	}
	out := map[[2]int]bool{}
	line, column := 1, 0
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		i += size
		column++
		switch {
		case r == '\n':
			line, column = line+1, 0
		case r == '!' && (i == len(data) || strings.IndexByte(" \t\r\n,]}", data[i]) >= 0):
			out[[2]int{line, column}] = true
		}
	}
	return out
}

func (d *Document) checkKeys(n *yaml.Node) {
	first := map[string]int{}
	for i := 0; i < len(n.Content); i += 2 {
		k := n.Content[i]
		switch {
		case k.Tag == "!!merge":
			d.add(k.Line, k.Column, "YAML merge keys are not allowed")
		case k.Kind != yaml.ScalarNode || k.Tag != "!!str":
			d.add(k.Line, k.Column, "a key must be a string (quote it)")
		case k.Anchor != "" || k.Style&yaml.TaggedStyle != 0:
			d.add(k.Line, k.Column, "YAML anchors and tags are not allowed")
		case first[k.Value] != 0:
			d.add(k.Line, k.Column, fmt.Sprintf("duplicate key `%s`, first in line %d", k.Value, first[k.Value]))
		default:
			first[k.Value] = k.Line
		}
	}
}

func (d *Document) checkScalar(n *yaml.Node) {
	if n.Tag == "!!null" {
		d.failed[n] = true
		d.add(n.Line, n.Column, "no value: leave the key out, or give it one")
		return
	}
	if n.Tag != "!!str" || !strings.Contains(n.Value, "${") {
		return
	}
	if d.expand == nil {
		if strings.Contains(n.Value, "${env:") || strings.Contains(n.Value, "${file:") {
			d.failed[n] = true
			d.add(n.Line, n.Column, "${env:} and ${file:} are for sidegate.yaml only: a policy means the same wherever it is read")
		}
		return
	}
	e, err := d.expandAll(n.Value)
	if err != nil {
		d.failed[n] = true
		d.add(n.Line, n.Column, err.Error())
		return
	}
	d.values[n], d.literals[n] = e.values, e.literal
	if !e.values || e.filled {
		d.expanded[n] = e.text
	}
}

// An expansion is a text whose variables have their values.
type expansion struct {
	text    string
	filled  bool // it differs from what was written
	values  bool // something is left for requests: ${auth.uid} and the like
	literal bool // it holds a ${ that is left for nobody: written as a literal one, or made by a variable
}

// ofRequests reports whether ${name} is what a request gives later.
func ofRequests(name string) bool { return strings.HasPrefix(name, "auth.") || name == "assertion" }

// expandAll replaces every ${form:argument}; $${ stands for a literal ${.
func (d *Document) expandAll(s string) (e expansion, err error) {
	var out strings.Builder
	left := 0 // for requests
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			out.WriteString(s)
			e.text = out.String()
			e.values, e.literal = left > 0, strings.Count(e.text, "${") > left
			return e, nil
		}
		if i > 0 && s[i-1] == '$' {
			out.WriteString(s[:i-1] + "${")
			s, e.filled = s[i+2:], true
			continue
		}
		end := strings.IndexByte(s[i:], '}')
		if end < 0 {
			return expansion{}, errors.New("`${` without `}` (a literal one is written `$${`)")
		}
		inner := s[i+2 : i+end]
		if ofRequests(inner) {
			out.WriteString(s[:i+end+1])
			s = s[i+end+1:]
			left++
			continue
		}
		form, argument, ok := strings.Cut(inner, ":")
		if !ok || (form != "env" && form != "file") {
			// What stands there may be a secret that holds `${`: it is not shown.
			return expansion{}, errors.New("`${` that starts neither ${env:NAME}, ${env:NAME:default} nor ${file:PATH} (a literal one is written `$${`)")
		}
		value, err := d.expand(form, argument)
		if err != nil {
			return expansion{}, err
		}
		out.WriteString(s[:i] + value)
		s, e.filled = s[i+end+1:], true
	}
}
