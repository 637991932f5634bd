package oidc

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep objects and lists nest in a token.
const maxDepth = 32

var (
	errUTF8   = errors.New("invalid UTF-8")
	errJSON   = errors.New("not valid JSON")
	errTwice  = errors.New("a name stands twice in an object")
	errDepth  = errors.New("nested too deep")
	errRange  = errors.New("a number out of range")
	errObject = errors.New("not a JSON object")
	errAfter  = errors.New("something follows the JSON object")
)

// parseObject reads exactly one JSON object (RFC 8259), more strictly than
// encoding/json: names are unique at every level, the text is valid UTF-8, and
// numbers are such that a float64 holds them, so that no two readers disagree
// about what a token says. Numbers become json.Number.
//
// encoding/json's decoder says nothing about names that stand twice, and to
// read it token by token costs a third of a signature's check; this reader
// costs a tenth. A fuzz test holds it against encoding/json.
func parseObject(data []byte) (object map[string]any, plain bool, err error) {
	if !utf8.Valid(data) {
		return nil, false, errUTF8
	}
	r := &jsonReader{text: string(data), plain: true}
	if r.skip() != '{' {
		return nil, false, errObject
	}
	if object, err = r.object(0); err != nil {
		return nil, false, err
	}
	if r.skip(); r.at != len(r.text) {
		return nil, false, errAfter
	}
	return object, r.plain, nil
}

// A jsonReader reads a text from the left to the right. Its methods stand at
// the first character of what they read and end behind the last one.
type jsonReader struct {
	text  string
	at    int
	plain bool // all names so far are
}

// skip goes over white space and gives the character after it, 0 at the end.
func (r *jsonReader) skip() byte {
	for r.at < len(r.text) {
		switch c := r.text[r.at]; c {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return c
		}
	}
	return 0
}

// take goes over one character if it is the next.
func (r *jsonReader) take(c byte) bool {
	if r.at < len(r.text) && r.text[r.at] == c {
		r.at++
		return true
	}
	return false
}

func (r *jsonReader) value(depth int) (any, error) {
	switch c := r.skip(); c {
	case '{':
		return r.object(depth)
	case '[':
		return r.list(depth)
	case '"':
		return r.string()
	case 't':
		return true, r.word("true")
	case 'f':
		return false, r.word("false")
	case 'n':
		return nil, r.word("null")
	}
	return r.number()
}

func (r *jsonReader) word(word string) error {
	if !strings.HasPrefix(r.text[r.at:], word) {
		return errJSON
	}
	r.at += len(word)
	return nil
}

// memberBytes is about how long a member is: the outermost object, which has
// most of them, need not grow.
const memberBytes = 32

func (r *jsonReader) object(depth int) (map[string]any, error) {
	if depth == maxDepth {
		return nil, errDepth
	}
	r.at++ // the brace
	hint := 0
	if depth == 0 {
		hint = len(r.text) / memberBytes
	}
	object := make(map[string]any, hint)
	if r.skip() == '}' {
		r.at++
		return object, nil
	}
	for {
		if r.skip() != '"' {
			return nil, errJSON
		}
		name, err := r.string()
		if err != nil {
			return nil, err
		}
		r.plain = r.plain && isPlain(name)
		if r.skip(); !r.take(':') {
			return nil, errJSON
		}
		value, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		names := len(object)
		if object[name] = value; len(object) == names {
			return nil, errTwice
		}
		if r.skip(); r.take('}') {
			return object, nil
		}
		if !r.take(',') {
			return nil, errJSON
		}
	}
}

func (r *jsonReader) list(depth int) ([]any, error) {
	if depth == maxDepth {
		return nil, errDepth
	}
	r.at++ // the bracket
	list := []any{}
	if r.skip() == ']' {
		r.at++
		return list, nil
	}
	for {
		value, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
		if r.skip(); r.take(']') {
			return list, nil
		}
		if !r.take(',') {
			return nil, errJSON
		}
	}
}

// string reads a string; what escapes in it mean is left to encoding/json.
func (r *jsonReader) string() (string, error) {
	start, escaped := r.at, false
	for r.at++; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; {
		case c == '"':
			r.at++
			literal := r.text[start:r.at]
			if !escaped {
				return literal[1 : len(literal)-1], nil
			}
			var s string
			if json.Unmarshal([]byte(literal), &s) != nil {
				return "", errJSON
			}
			return s, nil
		case c == '\\':
			escaped = true
			r.at++ // whatever follows it, a quote for example
		case c < ' ':
			return "", errJSON
		}
	}
	return "", errJSON
}

// safeDigits is how many characters a number without exponent may have to be
// sure to fit a float64, whose largest has 309 digits.
const safeDigits = 300

func (r *jsonReader) number() (json.Number, error) {
	start, exponent := r.at, false
	r.take('-')
	if !r.take('0') && !r.digits() {
		return "", errJSON
	}
	if r.take('.') && !r.digits() {
		return "", errJSON
	}
	if r.take('e') || r.take('E') {
		exponent = true
		_ = r.take('+') || r.take('-')
		if !r.digits() {
			return "", errJSON
		}
	}
	number := r.text[start:r.at]
	if exponent || len(number) > safeDigits {
		if _, err := strconv.ParseFloat(number, 64); err != nil {
			return "", errRange
		}
	}
	return json.Number(number), nil
}

// digits goes over digits and says whether there were any.
func (r *jsonReader) digits() bool {
	start := r.at
	for r.at < len(r.text) && '0' <= r.text[r.at] && r.text[r.at] <= '9' {
		r.at++
	}
	return r.at > start
}
