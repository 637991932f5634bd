package audit

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// encode is an event's line as the first of a chain.
func encode(t testing.TB, e *Event) []byte {
	t.Helper()
	enc := newEncoder(Gateway{Name: "photos", Version: "v1", Instance: "i"})
	enc.line(e, atNoon, strings.Repeat("c", 32), 1, new([32]byte))
	return enc.buf
}

func decode(t testing.TB, line []byte) *Event {
	t.Helper()
	l, err := ParseLine(line)
	if err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	e, err := l.Event()
	if err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	return e
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 123456000, time.UTC)

func atNoon() time.Time { return noon }

func TestLongValueIsCutAtARune(t *testing.T) {
	e := decode(t, encode(t, &Event{Request: &Request{Path: "/" + strings.Repeat("é", 3000)}}))
	if p := e.Request.Path; len(p) != 4095 || !utf8.ValidString(p) {
		t.Errorf("the path has %d bytes, valid %v", len(p), utf8.ValidString(p))
	}
	if len(e.Cut) != 1 || e.Cut[0] != "request.path" {
		t.Errorf("cut says %q", e.Cut)
	}
}

func TestLargestEventFits(t *testing.T) {
	worst := strings.Repeat("\x01", 8000)
	e := everything(worst)
	for i := range 5000 {
		s := worst[:i%4000] + string(rune('a'+i%26))
		e.Decision.Inputs[s] = []any{s, e.Decision.Inputs[worst]}
		e.Decision.Shadow[s] = s
		e.System.Detail[s] = s
		e.Request.QueryKeys = append(e.Request.QueryKeys, s)
	}
	deep := map[string]any{}
	for range 1000 {
		deep = map[string]any{"d": deep}
	}
	e.Decision.Inputs["deep"] = deep
	line := encode(t, e)
	if len(line) > MaxLine || !json.Valid(line) {
		t.Errorf("%d bytes, valid %v", len(line), json.Valid(line))
	}
}

func TestInputsAreDeterministic(t *testing.T) {
	e := &Event{Time: noon, ID: "i", Decision: &Decision{Inputs: map[string]any{
		"z": 1, "a": []string{"x"}, "m": map[string]any{"b": 2.5, "a": noon}, "n": json.Number(`"no`), "bad": struct{ X int }{1},
		"n2": json.Number("-1e3"), "n3": json.Number("1 "), "i64": int64(-1), "u": uint64(1 << 63), "nil": nil,
	}}}
	first := string(encode(t, e))
	for range 50 {
		if again := string(encode(t, e)); again != first {
			t.Fatalf("%s\n%s", first, again)
		}
	}
	const want = `"inputs":{"a":["x"],"bad":"(a value of type struct { X int })","i64":-1,"m":{"a":"2026-11-23T12:00:00.123456Z","b":2.5},` +
		`"n":"\"no","n2":-1e3,"n3":"1 ","nil":null,"u":9223372036854775808,"z":1}`
	if !strings.Contains(first, want) {
		t.Error(first)
	}
}

func TestUnknownSizeIsAbsent(t *testing.T) {
	for _, size := range []int64{-1, 0, 7} {
		line := encode(t, &Event{Object: &Object{Key: "k", Size: size}})
		if got := decode(t, line).Object.Size; got != size || strings.Contains(string(line), "size") != (size >= 0) {
			t.Errorf("%d: %d in %s", size, got, line)
		}
	}
}

func TestNewIDsDiffer(t *testing.T) {
	seen := map[string]bool{}
	enc := newEncoder(Gateway{})
	for range 2000 {
		enc.buf = enc.buf[:0]
		enc.line(&Event{}, atNoon, "c", 1, new([32]byte))
		for _, id := range []string{NewID(), decode(t, enc.buf).ID} {
			if len(id) != 32 || seen[id] {
				t.Fatalf("id %q", id)
			}
			seen[id] = true
		}
	}
}

// TestInputsComeBackAsTheyWere is what a replay depends on: what a line gives
// back is what was read, or the line says that it is not.
func TestInputsComeBackAsTheyWere(t *testing.T) {
	back := func(v any) (got any, cut []string) {
		e := decode(t, encode(t, &Event{Decision: &Decision{Inputs: map[string]any{"v": v}}}))
		return e.Decision.Inputs["v"], e.Cut
	}
	for _, c := range []struct{ in, want any }{
		{json.Number("1"), json.Number("1")},
		{json.Number("1.0"), json.Number("1.0")},
		{json.Number("1e3"), json.Number("1e3")},
		{json.Number("-0"), json.Number("-0")},
		{int64(2), json.Number("2")},
		{2.0, json.Number("2.0")}, // no integer, as it was none
		{-1e21, json.Number("-1e+21")},
		{0.1, json.Number("0.1")},
		{[]any{"a", nil, map[string]any{"b": []any{true}}}, []any{"a", nil, map[string]any{"b": []any{true}}}},
		{[]string{"a", "b"}, []any{"a", "b"}},
		{map[string]any{}, map[string]any{}},
		{noon, "2026-11-23T12:00:00.123456Z"},
	} {
		if got, cut := back(c.in); !reflect.DeepEqual(got, c.want) || cut != nil {
			t.Errorf("%#v came back as %#v, cut %q", c.in, got, cut)
		}
	}
	deep := any("end")
	for range 20 {
		deep = []any{deep}
	}
	long := make([]any, 5000)
	for i := range long {
		long[i] = "12345"
	}
	for _, v := range []any{
		[]byte("x"), struct{}{}, math.NaN(), math.Inf(1), json.Number(strings.Repeat("1", 65)), json.Number("x"),
		strings.Repeat("x", 5000), []any{strings.Repeat("x", 5000)}, deep, long,
	} {
		if got, cut := back(v); !slices.Equal(cut, []string{"decision.inputs"}) {
			t.Errorf("%T came back as %.60v, cut %q", v, got, cut)
		}
	}
}

// TestKeysThatUnescapeToAnother: one key's escaped form is another key.
func TestKeysThatUnescapeToAnother(t *testing.T) {
	want := map[string]any{`\xff`: "the four characters", "\xff": "the byte", `\x5cxff`: "longer"}
	for range 20 {
		e := decode(t, encode(t, &Event{Decision: &Decision{Inputs: want}}))
		if !reflect.DeepEqual(e.Decision.Inputs, want) {
			t.Fatalf("%q", e.Decision.Inputs)
		}
	}
}

// TestPlainPrefix: what is passed over eight bytes at a time is what would be
// byte by byte, whatever stands beside it.
func TestPlainPrefix(t *testing.T) {
	for at := range 24 {
		for c := range 256 {
			b := []byte(strings.Repeat("~ a!}[#]", 3))
			b[at] = byte(c)
			s := string(b)
			n := plainPrefix(s)
			for i := range n {
				if !plain[s[i]] {
					t.Fatalf("%q: byte %d of %d", s, i, n)
				}
			}
			if plain[c] && n != len(s) || !plain[c] && n != at/8*8 {
				t.Fatalf("%q: %d", s, n)
			}
		}
	}
}
