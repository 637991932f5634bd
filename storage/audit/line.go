package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Line is one event as it is stored: its exact bytes, and where they are.
type Line struct {
	Raw   []byte // without line feed; its reader says how long it stays valid
	Type  string
	ID    string
	Time  time.Time
	Chain string
	Seq   uint64
	Prev  [sha256.Size]byte // SHA-256 of the line before

	// Stub says that only the line's hash is kept here (SHA256) because the
	// sink could not store it; Raw is empty when it was read from there.
	Stub   bool
	SHA256 [sha256.Size]byte // of a stub

	Expires time.Time // when a TTL may delete it from the sink; zero: never

	File   string // the segment's name, or the document's
	Number int    // line of the file, from 1
	Offset int64  // its first byte in the file
}

// Hash is the SHA-256 of the line, which the next one holds as prev.
func (l *Line) Hash() [sha256.Size]byte {
	if l.Stub && len(l.Raw) == 0 {
		return l.SHA256
	}
	return sha256.Sum256(l.Raw)
}

// OneLine is nil where the line is text of one line, as all that a ledger writes,
// which escapes every control character. An error is a *CorruptError. Whoever
// shows lines as they are asks first: JSON may hold line feeds between its
// tokens, and what steers a terminal within its strings.
func (l *Line) OneLine() error {
	if utf8.Valid(l.Raw) && !bytes.ContainsFunc(l.Raw, unicode.IsControl) {
		return nil
	}
	return &CorruptError{File: l.File, Line: l.Number, Offset: l.Offset, Seq: l.Seq, Reason: "it holds bytes that a ledger escapes"}
}

// Event reads the whole line. Its values are unescaped: the bytes as they came.
func (l *Line) Event() (*Event, error) {
	dec := json.NewDecoder(bytes.NewReader(l.Raw))
	dec.UseNumber()
	e := new(Event)
	if err := dec.Decode(e); err != nil {
		return nil, fmt.Errorf("audit line %d of %s: %w", l.Number, l.File, err)
	}
	if bytes.Contains(l.Raw, []byte(`\\x`)) {
		unescape(reflect.ValueOf(e).Elem())
	}
	return e, nil
}

// unescape undoes \xHH in every string that v holds.
func unescape(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(Unescape(v.String()))
	case reflect.Pointer:
		if !v.IsNil() {
			unescape(v.Elem())
		}
	case reflect.Struct:
		if v.Type() != reflect.TypeFor[time.Time]() {
			for i := range v.NumField() {
				unescape(v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			unescape(v.Index(i))
		}
	case reflect.Interface:
		if !v.IsNil() {
			x := reflect.New(v.Elem().Type()).Elem()
			x.Set(v.Elem())
			unescape(x)
			v.Set(x)
		}
	case reflect.Map:
		if v.IsNil() {
			return
		}
		// Into another map: what one key becomes can be what another is yet.
		out := reflect.MakeMapWithSize(v.Type(), v.Len())
		for _, k := range v.MapKeys() {
			key, x := reflect.New(k.Type()).Elem(), reflect.New(v.Type().Elem()).Elem()
			key.Set(k)
			x.Set(v.MapIndex(k))
			unescape(key)
			unescape(x)
			out.SetMapIndex(key, x)
		}
		v.Set(out)
	}
}

var errNoHeader = errors.New("it does not start as an event does (type, id, time, chain, seq, prev)")

// ParseLine reads what every line starts with, in the order in which a ledger
// writes it. The rest it leaves alone: the chain vouches for it. The Line
// keeps raw.
func ParseLine(raw []byte) (Line, error) {
	l, err := parseHeader(string(raw[:min(len(raw), usualHeader)]))
	if err != nil && len(raw) > usualHeader {
		l, err = parseHeader(string(raw))
	}
	l.Raw = raw
	return l, err
}

// usualHeader holds what parseHeader reads, unless somebody else than
// NewID made the ids.
const usualHeader = 512

func parseHeader(s string) (l Line, err error) {
	var record, prev, when string
	for _, f := range []struct {
		name     string
		to       *string
		optional bool
	}{
		{`{"type":"`, &l.Type, false},
		{`,"id":"`, &l.ID, false},
		{`,"record":"`, &record, true},
		{`,"time":"`, &when, false},
		{`,"chain":"`, &l.Chain, false},
	} {
		rest, ok := strings.CutPrefix(s, f.name)
		if !ok {
			if f.optional {
				continue
			}
			return Line{}, errNoHeader
		}
		n := stringEnd(rest)
		if n < 0 {
			return Line{}, errNoHeader
		}
		*f.to, s = rest[:n], rest[n+1:]
	}
	s, ok := strings.CutPrefix(s, `,"seq":`)
	digits, rest, ok2 := strings.Cut(s, `,"prev":"`)
	if !ok || !ok2 || len(rest) < 2*sha256.Size+2 {
		return Line{}, errNoHeader
	}
	prev = rest[:2*sha256.Size]
	if rest[len(prev)] != '"' {
		return Line{}, errNoHeader
	}
	if l.Seq, err = strconv.ParseUint(digits, 10, 63); err != nil {
		return Line{}, errors.New("its seq is not a number")
	}
	if l.Time, err = time.Parse(time.RFC3339Nano, when); err != nil {
		return Line{}, errors.New("its time is not a time of RFC 3339")
	}
	if _, err = hex.Decode(l.Prev[:], []byte(prev)); err != nil {
		return Line{}, errors.New("its prev is not a SHA-256 in hex")
	}
	l.Type, l.ID, l.Chain = strings.Clone(l.Type), strings.Clone(l.ID), strings.Clone(l.Chain)
	return l, nil
}

// stringEnd is the index of the quote that ends a JSON string, or -1.
func stringEnd(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// A CorruptError names the place where a ledger is not what was written.
type CorruptError struct {
	File   string // the segment's name, or the document's
	Line   int    // from 1; 0: the file as a whole
	Offset int64  // of the line's first byte
	Seq    uint64 // of the line, or the one that should be here
	Reason string
}

func (e *CorruptError) Error() string {
	switch {
	case e.Line == 0 && e.Seq == 0:
		return fmt.Sprintf("%s: %s", e.File, e.Reason)
	case e.Line == 0:
		return fmt.Sprintf("%s: seq %d: %s", e.File, e.Seq, e.Reason)
	}
	return fmt.Sprintf("%s: line %d, byte offset %d, seq %d: %s", e.File, e.Line, e.Offset, e.Seq, e.Reason)
}

// A link is the state of a chain: what the next line has to continue.
type link struct {
	chain string
	seq   uint64 // of the last line; 0: none yet
	hash  [sha256.Size]byte
}

// check says why l does not continue the chain, or follows it.
func (k *link) check(l *Line) error {
	bad := func(format string, args ...any) error {
		return &CorruptError{File: l.File, Line: l.Number, Offset: l.Offset, Seq: l.Seq, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case l.Chain == "": // no checkpoint can be about such a line, so none would fail it
		return bad("it names no chain")
	case k.chain != "" && l.Chain != k.chain:
		return bad("it is of chain %s, and the line before of chain %s", Printable(l.Chain), Printable(k.chain))
	case k.seq != 0 && l.Seq != k.seq+1:
		return bad("the line before has seq %d: lines were removed, inserted or swapped", k.seq)
	case k.seq != 0 && !l.Stub && l.Prev != k.hash:
		return bad("its prev is not the SHA-256 of the line before: one of the two was changed")
	case l.Seq == 0:
		return bad("seq counts from 1")
	case l.Seq == 1 && !l.Stub && l.Prev != [sha256.Size]byte{}:
		return bad("the first line of a chain has a prev of zeros")
	}
	k.chain, k.seq, k.hash = l.Chain, l.Seq, l.Hash()
	return nil
}
