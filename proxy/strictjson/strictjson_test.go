package strictjson

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// tokens reads a text as a caller would, in encoding/json's tokens.
func tokens(text string) (out []json.Token, err error) {
	r := NewReader(text)
	if err := value(&r, &out); err != nil {
		return nil, err
	}
	if !r.End() {
		return nil, ErrSyntax
	}
	return out, nil
}

func value(r *Reader, out *[]json.Token) error {
	one := func(t json.Token, err error) error {
		*out = append(*out, t)
		return err
	}
	switch r.Skip() {
	case '{', '[':
		return inside(r, out)
	case '"':
		return one(r.String())
	case 't':
		return one(true, r.Word("true"))
	case 'f':
		return one(false, r.Word("false"))
	case 'n':
		return one(nil, r.Word("null"))
	}
	return one(r.Number())
}

// inside reads an object or a list.
func inside(r *Reader, out *[]json.Token) error {
	object, end := r.Take('{'), byte('}')
	if !object {
		r.Take('[')
		end = ']'
	}
	*out = append(*out, json.Delim(end-2)) // '{' and '[' come two characters before
	for first := true; ; first = false {
		r.Skip()
		if r.Take(end) {
			*out = append(*out, json.Delim(end))
			return nil
		}
		if !first && !r.Take(',') {
			return ErrSyntax
		}
		if object {
			r.Skip()
			name, err := r.String()
			if err != nil {
				return err
			}
			*out = append(*out, name)
			if r.Skip(); !r.Take(':') {
				return ErrSyntax
			}
		} else if !first && r.Skip() == end {
			return ErrSyntax
		}
		if err := value(r, out); err != nil {
			return err
		}
	}
}

// oracle is what encoding/json makes of it.
func oracle(t *testing.T, text string) (out []json.Token) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	for {
		next, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%q is valid, and encoding/json says %v", text, err)
		}
		out = append(out, next)
	}
}

var texts = []string{
	`{}`, `[]`, `{"a":1}`, ` { "a" : [ 1 , -0.5e+10 , "x" , true , false , null ] } `, `{"a":{"b":[{}]}}`, `"\ud800"`, `"\u00e9\\\""`, `"a\"`,
	``, ` `, `{`, `[`, `"`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `[1,]`, `[,1]`, `{,}`, `{"a" 1}`, `{a:1}`, `[1 2]`, `01`, `-`, `1.`, `.5`, `1e`, `+1`, `1x`,
	`nul`, `nulll`, `True`, `{"a":1}{}`, `{"a":1} x`, "\"\x00\"", "\"\x1f\"", "{\"a\":1}\x00", "\x00", `"\x"`, `"\u12"`, "\ufeff{}", `1E400`, `[[[[]]]]`, `/**/{}`,
}

// TestAsEncodingJSON holds texts that are no JSON, and some that are, against
// encoding/json.
func TestAsEncodingJSON(t *testing.T) {
	for _, text := range texts {
		compare(t, text)
	}
}

func FuzzReader(f *testing.F) {
	for _, text := range texts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) <= 4<<10 && utf8.ValidString(text) {
			compare(t, text)
		}
	})
}

func compare(t *testing.T, text string) {
	t.Helper()
	got, err := tokens(text)
	if valid := json.Valid([]byte(text)); valid != (err == nil) {
		t.Fatalf("%q: %v, and encoding/json says that it is valid: %t", text, err, valid)
	}
	r := NewReader(text)
	raw, rawErr := r.Raw()
	if err != nil {
		if !errors.Is(err, ErrSyntax) || rawErr == nil && r.End() {
			t.Fatalf("%q: %v, raw %q, %v", text, err, raw, rawErr)
		}
		return
	}
	if want := oracle(t, text); !slices.EqualFunc(got, want, func(a, b json.Token) bool { return reflect.DeepEqual(a, b) }) {
		t.Fatalf("%q: %v, and encoding/json says %v", text, got, want)
	}
	if rawErr != nil || raw != strings.Trim(text, " \t\r\n") || !r.End() {
		t.Fatalf("%q: raw %q, %v", text, raw, rawErr)
	}
}

func TestZeroReader(t *testing.T) {
	var r Reader
	if _, err := r.String(); err == nil {
		t.Error("a string of nothing")
	}
	if _, err := r.Number(); err == nil {
		t.Error("a number of nothing")
	}
	if _, err := r.Raw(); err == nil {
		t.Error("a value of nothing")
	}
	if r.Word("null") == nil || r.Take(0) || r.Skip() != 0 || !r.End() {
		t.Error("the zero Reader is not at the end of nothing")
	}
}
