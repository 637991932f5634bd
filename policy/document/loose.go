package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"gopkg.in/yaml.v3"
)

// maxExpanded bounds the nodes of a file whose aliases are followed: more than
// a file of MaxBytes has without.
const maxExpanded = 4 << 20

// Loose reads a file that is not sidegate's own, YAML or JSON, and gives its
// top-level value: any keys, anchors, aliases, merge keys and tags are taken.
// The value is for looking at with Field, Entries, List and Show; mistakes that
// reading it finds are on no record. The error is an Error with the place.
func Loose(name string, data []byte) (Value, error) {
	d := New(name, nil)
	if len(data) > MaxBytes {
		return Value{}, Error{File: name, Text: fmt.Sprintf("is larger than %d MiB", MaxBytes>>20)}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	root, err := looseNode(d, data)
	if err == nil {
		f := follower{done: map[*yaml.Node]int{}}
		root, err = f.follow(root, 0)
	}
	var placed Error
	switch {
	case err == nil:
		return Value{d: d, n: root}, nil
	case errors.As(err, &placed):
		return Value{}, placed
	}
	return Value{}, Error{File: name, Text: err.Error()}
}

func looseNode(d *Document, data []byte) (*yaml.Node, error) {
	// JSON has a reader of its own: not all of it is YAML, such as the escapes
	// of characters beyond 16 bits.
	if start := bytes.TrimLeft(data, " \t\r\n"); len(start) > 0 && start[0] == '{' && json.Valid(data) {
		return newJSONReader(data).read()
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, Error{File: d.name, Text: "is empty"}
	} else if err != nil {
		d.addSyntax(err, data)
		return nil, d.errs[0]
	}
	return doc.Content[0], nil
}

// A follower puts what aliases and merge keys mean in their place. Nodes are
// shared, not copied, and counted as if they were copied.
type follower struct {
	done map[*yaml.Node]int // what a node counts for; 0 while it is followed
}

func (f *follower) follow(n *yaml.Node, depth int) (*yaml.Node, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if count, seen := f.done[n]; seen && count == 0 || depth > 1000 {
		return nil, errors.New("a value holds itself, or values are nested too deep")
	} else if seen {
		return n, nil
	}
	f.done[n] = 0
	count := 1
	for i, c := range n.Content {
		c, err := f.follow(c, depth+1)
		if err != nil {
			return nil, err
		}
		n.Content[i] = c
		if count += f.done[c]; count > maxExpanded {
			return nil, errors.New("its aliases make more of it than can be read")
		}
	}
	f.done[n] = count
	if n.Kind == yaml.MappingNode {
		merge(n)
	}
	return n, nil
}

// merge adds what `<<` names to a mapping; its own keys go first.
func merge(n *yaml.Node) {
	var own, from []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Tag != "!!merge":
			own = append(own, key, value)
		case value.Kind == yaml.SequenceNode:
			from = append(from, value.Content...)
		default:
			from = append(from, value)
		}
	}
	if from == nil {
		return
	}
	has := map[string]bool{}
	for i := 0; i < len(own); i += 2 {
		has[own[i].Value] = true
	}
	for _, m := range from {
		if m.Kind != yaml.MappingNode {
			continue
		}
		for i := 0; i+1 < len(m.Content); i += 2 {
			if key := m.Content[i]; !has[key.Value] {
				has[key.Value] = true
				own = append(own, key, m.Content[i+1])
			}
		}
	}
	n.Content = own
}
