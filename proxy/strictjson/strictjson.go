// Package strictjson reads JSON (RFC 8259) from the left to the right, without an
// allocation for each token and without a map for each object: what a text may
// hold, and how deep, is its caller's to say.
//
// encoding/json's decoder, read token by token, costs several times as much.
// Tests hold both against each other.
package strictjson

import (
	"encoding/json"
	"errors"
	"strings"
)

// ErrSyntax means that the text is no JSON.
var ErrSyntax = errors.New("not valid JSON")

// A Reader reads a text, which must be valid UTF-8. Its methods stand at the
// first character of what they read, and end behind the last one; after an error
// where it stands is of no use. The zero Reader is at the end of nothing.
type Reader struct {
	text string
	at   int
}

// NewReader is at the text's beginning.
func NewReader(text string) Reader { return Reader{text: text} }

// At is where it stands, in bytes from the beginning.
func (r *Reader) At() int { return r.at }

// Skip goes over white space and gives the character after it, 0 at the end.
func (r *Reader) Skip() byte {
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

// End goes over white space, and says whether nothing else is left. Skip's 0
// does not: it may stand in the text.
func (r *Reader) End() bool {
	r.Skip()
	return r.at == len(r.text)
}

// Take goes over one character if it is the next.
func (r *Reader) Take(c byte) bool {
	if r.at < len(r.text) && r.text[r.at] == c {
		r.at++
		return true
	}
	return false
}

// Word goes over true, false or null.
func (r *Reader) Word(word string) error {
	if !strings.HasPrefix(r.text[r.at:], word) {
		return ErrSyntax
	}
	r.at += len(word)
	return nil
}

// String reads a string, which may be a part of the text; what escapes in it mean
// is left to encoding/json.
func (r *Reader) String() (string, error) {
	literal, escaped, err := r.Literal()
	if err != nil {
		return "", err
	}
	if !escaped {
		return literal[1 : len(literal)-1], nil
	}
	var s string
	if json.Unmarshal([]byte(literal), &s) != nil {
		return "", ErrSyntax
	}
	return s, nil
}

// Literal goes over a string, and gives it as it is written, quotes included.
// Where it has escapes those may be none of JSON's.
func (r *Reader) Literal() (literal string, escaped bool, err error) {
	start := r.at
	if !r.Take('"') {
		return "", false, ErrSyntax
	}
	for ; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; {
		case c == '"':
			r.at++
			return r.text[start:r.at], escaped, nil
		case c == '\\':
			escaped = true
			r.at++ // whatever follows it, a quote for example
		case c < ' ':
			return "", false, ErrSyntax
		}
	}
	return "", false, ErrSyntax
}

// Number reads a number, as it is written.
func (r *Reader) Number() (json.Number, error) {
	start := r.at
	r.Take('-')
	if !r.Take('0') && !r.digits() {
		return "", ErrSyntax
	}
	if r.Take('.') && !r.digits() {
		return "", ErrSyntax
	}
	if r.Take('e') || r.Take('E') {
		_ = r.Take('+') || r.Take('-')
		if !r.digits() {
			return "", ErrSyntax
		}
	}
	return json.Number(r.text[start:r.at]), nil
}

// digits goes over digits and says whether there were any.
func (r *Reader) digits() bool {
	start := r.at
	for r.at < len(r.text) && '0' <= r.text[r.at] && r.text[r.at] <= '9' {
		r.at++
	}
	return r.at > start
}

// Raw goes over a value of any kind and depth, and gives it as it is written.
func (r *Reader) Raw() (string, error) {
	r.Skip()
	var value json.RawMessage
	d := json.NewDecoder(strings.NewReader(r.text[r.at:]))
	if err := d.Decode(&value); err != nil {
		return "", ErrSyntax
	}
	raw := r.text[r.at : r.at+int(d.InputOffset())]
	r.at += len(raw)
	return raw, nil
}
