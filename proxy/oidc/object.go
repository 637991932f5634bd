package oidc

import (
	"encoding/json"
	"strings"
)

// An Object is a JSON object of a token. It never changes. The zero Object has no
// members.
//
// It is a text and places in it, two pieces of memory without a pointer: what a
// verified token says stays in memory until it ends, and as maps and values of Go
// it would be about thirty pieces, for Go's collector to look at again and again.
// Values are made when they are asked for.
type Object struct {
	doc *document
	at  int // its node
}

type document struct {
	text  string // as it came, and behind it what strings with escapes say
	nodes []node
}

// A node is a value. Those of what is within it follow it.
type node struct {
	kind byte   // the character that it begins with; of a number any other
	name span   // of a member
	is   span   // the text of a string or a number
	next uint16 // the node after it and all that is within it
}

// A span is a part of a document's text.
type span struct{ from, to uint16 }

func (d *document) part(s span) string { return d.text[s.from:s.to] }

// find gives a member's node.
func (o Object) find(name string) (at int, there bool) {
	if o.doc == nil {
		return 0, false
	}
	nodes := o.doc.nodes
	for i, end := o.at+1, int(nodes[o.at].next); i < end; {
		n := &nodes[i]
		if int(n.name.to-n.name.from) == len(name) && o.doc.part(n.name) == name {
			return i, true
		}
		i = int(n.next)
	}
	return 0, false
}

// Claim gives a member: a string, a bool, a json.Number, nil, []any or
// map[string]any, made for who asks.
func (o Object) Claim(name string) (value any, there bool) {
	at, there := o.find(name)
	if !there {
		return nil, false
	}
	return o.doc.value(at), true
}

// Has reports whether there is such a member.
func (o Object) Has(name string) bool {
	_, there := o.find(name)
	return there
}

// Text gives a member that is text. Where it is not there, or something else, it
// is empty, and ok says whether it is text.
func (o Object) Text(name string) (text string, ok bool) {
	at, there := o.find(name)
	if !there || o.doc.nodes[at].kind != '"' {
		return "", false
	}
	return o.doc.part(o.doc.nodes[at].is), true
}

// number gives a member that is a number; ok says whether it is.
func (o Object) number(name string) (number string, there, ok bool) {
	at, there := o.find(name)
	if !there {
		return "", false, false
	}
	n := &o.doc.nodes[at]
	if strings.IndexByte(`"tfn[{`, n.kind) >= 0 {
		return "", true, false
	}
	return o.doc.part(n.is), true, true
}

// Object gives a member that is an object; ok says whether it is.
func (o Object) Object(name string) (member Object, ok bool) {
	at, there := o.find(name)
	if !there || o.doc.nodes[at].kind != '{' {
		return Object{}, false
	}
	return Object{o.doc, at}, true
}

// Names are those of the members.
func (o Object) Names(yield func(string) bool) {
	if o.doc == nil {
		return
	}
	nodes := o.doc.nodes
	for i, end := o.at+1, int(nodes[o.at].next); i < end; i = int(nodes[i].next) {
		if !yield(o.doc.part(nodes[i].name)) {
			return
		}
	}
}

// All gives all members.
func (o Object) All() map[string]any {
	if o.doc == nil {
		return nil
	}
	all, _ := o.doc.value(o.at).(map[string]any)
	return all
}

func (d *document) value(at int) any {
	n := &d.nodes[at]
	switch n.kind {
	case '"':
		return d.part(n.is)
	case 't', 'f':
		return n.kind == 't'
	case 'n':
		return nil
	case '[':
		list := make([]any, 0, d.within(at))
		for i := at + 1; i < int(n.next); i = int(d.nodes[i].next) {
			list = append(list, d.value(i))
		}
		return list
	case '{':
		object := make(map[string]any, d.within(at))
		for i := at + 1; i < int(n.next); i = int(d.nodes[i].next) {
			object[d.part(d.nodes[i].name)] = d.value(i)
		}
		return object
	}
	return json.Number(d.part(n.is))
}

// within is how many members an object or a list has: what is made of it need not
// grow, which a long list did a dozen times.
func (d *document) within(at int) (n int) {
	for i := at + 1; i < int(d.nodes[at].next); i = int(d.nodes[i].next) {
		n++
	}
	return n
}
