package oidc

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"sidegate/proxy/strictjson"
)

// maxDepth bounds how deep objects and lists nest in a token.
const maxDepth = 32

var (
	errUTF8   = errors.New("invalid UTF-8")
	errJSON   = strictjson.ErrSyntax
	errTwice  = errors.New("a name stands twice in an object")
	errDepth  = errors.New("nested too deep")
	errRange  = errors.New("a number out of range")
	errObject = errors.New("not a JSON object")
	errAfter  = errors.New("something follows the JSON object")
	errLong   = errors.New("too long")
)

// maxText bounds a text, so that places in it, and in what its escapes say, are
// short numbers. No part of a token is as long.
const maxText = 1 << 15

// parseObject reads exactly one JSON object (RFC 8259), more strictly than
// encoding/json: names are unique at every level, the text is valid UTF-8, and
// numbers are such that a float64 holds them, so that no two readers disagree
// about what a token says. Numbers become json.Number.
//
// encoding/json's decoder says nothing about names that stand twice, and to
// read it token by token costs a third of a signature's check; this reader
// costs a fraction of it. A fuzz test holds it against encoding/json.
func parseObject(data []byte) (object Object, plain bool, err error) {
	return new(jsonReader).read(data)
}

// A jsonReader reads what a token's object holds. It can read one text after the
// other.
type jsonReader struct {
	strictjson.Reader
	text  string
	said  []byte // what strings with escapes say; its places count behind the text
	nodes []node
	plain bool // all names so far are
}

func (r *jsonReader) read(data []byte) (object Object, plain bool, err error) {
	if len(data) > maxText {
		return Object{}, false, errLong
	}
	if !utf8.Valid(data) {
		return Object{}, false, errUTF8
	}
	r.text, r.said, r.nodes, r.plain = string(data), r.said[:0], r.nodes[:0], true
	r.Reader = strictjson.NewReader(r.text)
	defer func() { r.text, r.Reader = "", strictjson.Reader{} }() // which is its token's
	if r.Skip() != '{' {
		return Object{}, false, errObject
	}
	if err := r.value(0, span{}); err != nil {
		return Object{}, false, err
	}
	if !r.End() {
		return Object{}, false, errAfter
	}
	return Object{doc: &document{text: r.text + string(r.said), nodes: slices.Clone(r.nodes)}}, r.plain, nil
}

// value reads a value with its name, which only an object's members have.
func (r *jsonReader) value(depth int, name span) (err error) {
	c, from, self := r.Skip(), r.At(), len(r.nodes)
	r.nodes = append(r.nodes, node{kind: c, name: name})
	is := span{}
	switch c {
	case '{':
		err = r.object(depth, self)
	case '[':
		err = r.list(depth)
	case '"':
		is, err = r.string()
	case 't':
		err = r.Word("true")
	case 'f':
		err = r.Word("false")
	case 'n':
		err = r.Word("null")
	default:
		err = r.number()
		is = span{uint16(from), uint16(r.At())}
	}
	n := &r.nodes[self]
	n.is, n.next = is, uint16(len(r.nodes))
	return err
}

func (r *jsonReader) object(depth, self int) error {
	if depth == maxDepth {
		return errDepth
	}
	r.Take('{')
	if r.Skip(); r.Take('}') {
		return nil
	}
	var many map[string]bool // the names, where they are many
	for n := 0; ; n++ {
		if r.Skip() != '"' {
			return errJSON
		}
		place, err := r.string()
		if err != nil {
			return err
		}
		name := r.textAt(place)
		if many, err = r.once(self, n, name, many); err != nil {
			return err
		}
		r.plain = r.plain && isPlain(name)
		if r.Skip(); !r.Take(':') {
			return errJSON
		}
		if err := r.value(depth+1, place); err != nil {
			return err
		}
		if r.Skip(); r.Take('}') {
			return nil
		}
		if !r.Take(',') {
			return errJSON
		}
	}
}

// fewNames are so many that to look at each of them takes no longer than a map.
const fewNames = 24

// once refuses a name that one of the n members before has, of the object that is
// being read.
func (r *jsonReader) once(self, n int, name string, many map[string]bool) (map[string]bool, error) {
	if n > fewNames {
		if many[name] {
			return many, errTwice
		}
		many[name] = true
		return many, nil
	}
	if n == fewNames {
		many = map[string]bool{name: true}
	}
	for i := self + 1; i < len(r.nodes); i = int(r.nodes[i].next) {
		other := r.nodes[i].name
		if r.isAt(other, name) {
			return many, errTwice
		}
		if many != nil {
			many[r.textAt(other)] = true
		}
	}
	return many, nil
}

func (r *jsonReader) textAt(s span) string {
	if n := len(r.text); int(s.from) >= n && s.to > s.from {
		return string(r.said[int(s.from)-n : int(s.to)-n])
	}
	return r.text[s.from:s.to]
}

func (r *jsonReader) isAt(s span, text string) bool {
	if int(s.to-s.from) != len(text) {
		return false
	}
	if n := len(r.text); int(s.from) >= n && s.to > s.from {
		return string(r.said[int(s.from)-n:int(s.to)-n]) == text // which takes no memory
	}
	return r.text[s.from:s.to] == text
}

func (r *jsonReader) list(depth int) error {
	if depth == maxDepth {
		return errDepth
	}
	r.Take('[')
	if r.Skip(); r.Take(']') {
		return nil
	}
	for {
		if err := r.value(depth+1, span{}); err != nil {
			return err
		}
		if r.Skip(); r.Take(']') {
			return nil
		}
		if !r.Take(',') {
			return errJSON
		}
	}
}

// string reads a string; what escapes in it mean is left to encoding/json.
func (r *jsonReader) string() (span, error) {
	start := r.At()
	literal, escaped, err := r.Literal()
	if err != nil {
		return span{}, err
	}
	if escaped {
		return r.unescape(literal)
	}
	return span{uint16(start + 1), uint16(r.At() - 1)}, nil
}

// unescape puts what a string with escapes says behind the text. It is not longer
// than the string.
func (r *jsonReader) unescape(literal string) (span, error) {
	var s string
	if json.Unmarshal([]byte(literal), &s) != nil {
		return span{}, errJSON
	}
	from := len(r.text) + len(r.said)
	r.said = append(r.said, s...)
	return span{uint16(from), uint16(from + len(s))}, nil
}

// safeDigits is how many characters a number without exponent may have to be
// sure to fit a float64, whose largest has 309 digits.
const safeDigits = 300

func (r *jsonReader) number() error {
	number, err := r.Number()
	if err != nil {
		return err
	}
	if len(number) > safeDigits || strings.ContainsAny(string(number), "eE") {
		if _, err := number.Float64(); err != nil {
			return errRange
		}
	}
	return nil
}
