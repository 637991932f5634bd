package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// These tests go over an Event by reflection, so that a field which is added
// later is held to the same.

// A filler gives what stands in an event. It is told the name of the field.
type filler interface {
	text(field string) string
	number() int64
	instant() time.Time
	there() bool                // whether an optional part is
	inputs() map[string]any     // as a line gives them back
	strings(field string) []int // an element for each that a list or a map gets
}

// fillEvent sets every field of an event but those that are the ledger's.
func fillEvent(e *Event, by filler) *Event {
	fillValue(reflect.ValueOf(e).Elem(), "", by)
	return e
}

func fillValue(v reflect.Value, path string, by filler) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(by.text(path))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(by.number())
	case reflect.Float64:
		v.SetFloat(float64(by.number()) / 1000) // a line holds three decimals
	case reflect.Pointer:
		if by.there() {
			v.Set(reflect.New(v.Type().Elem()))
			fillValue(v.Elem(), path, by)
		}
	case reflect.Slice:
		for range by.strings(path) {
			x := reflect.New(v.Type().Elem()).Elem()
			fillValue(x, path, by)
			v.Set(reflect.Append(v, x))
		}
	case reflect.Map:
		if v.Type() == reflect.TypeFor[map[string]any]() {
			v.Set(reflect.ValueOf(by.inputs()))
			return
		}
		for range by.strings(path) {
			if v.IsNil() {
				v.Set(reflect.MakeMap(v.Type()))
			}
			k, x := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fillValue(k, path, by)
			fillValue(x, path, by)
			v.SetMapIndex(k, x)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(by.instant()))
			return
		}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if v.Type() == reflect.TypeFor[Event]() && slices.Contains([]string{"Chain", "Seq", "Prev", "Cut"}, f.Name) {
				continue
			}
			if f.Type == reflect.TypeFor[*Kept]() { // TestKeptIsAsFresh
				continue
			}
			fillValue(v.Field(i), fieldPath(path, f), by)
		}
	default:
		panic(fmt.Sprintf("%s: how is a %s filled?", path, v.Type()))
	}
}

func fieldPath(path string, f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if path == "" {
		return name
	}
	return path + "." + name
}

// everywhere fills every field, and every string with the same.
type everywhere string

func (s everywhere) text(string) string   { return string(s) }
func (s everywhere) number() int64        { return 403 }
func (s everywhere) instant() time.Time   { return noon }
func (s everywhere) there() bool          { return true }
func (s everywhere) strings(string) []int { return []int{0} }
func (s everywhere) inputs() map[string]any {
	return map[string]any{string(s): []any{string(s), true, nil, json.Number("1.50"), map[string]any{string(s): string(s)}}}
}

func everything(s string) *Event { return fillEvent(new(Event), everywhere(s)) }

// checkSteersNothing wants a line in which nothing ends it, steers a terminal,
// reorders text or is invisible.
func checkSteersNothing(t *testing.T, line []byte) {
	t.Helper()
	for i := 0; i < len(line); {
		r, n := utf8.DecodeRune(line[i:])
		if r == utf8.RuneError && n == 1 || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			t.Fatalf("%q stands unescaped at byte %d of %q", line[i:i+n], i, line[max(0, i-40):min(len(line), i+40)])
		}
		i += n
	}
}

// checkHostile encodes an event that holds s everywhere, and wants one line that
// steers nothing and gives back what went in, up to where it says that it cut.
func checkHostile(t *testing.T, s string) {
	t.Helper()
	line := encode(t, everything(s))
	checkSteersNothing(t, line)
	if !json.Valid(line) || len(line) > MaxLine {
		t.Fatalf("%d bytes, valid JSON: %v", len(line), json.Valid(line))
	}
	if s == "" { // an empty value is left out
		return
	}
	got, want := decode(t, line), everything(s)
	for _, name := range got.Cut {
		if len(s) < 500 && name != "summary.source" {
			t.Fatalf("%q was cut: %v", s, name)
		}
	}
	if len(got.Cut) == 0 {
		got.Chain, got.Seq, got.Prev = "", 0, ""
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q came back as\n%+v\nline %s", s, got, line)
		}
		return
	}
	checkCut(t, reflect.ValueOf(got).Elem(), reflect.ValueOf(want).Elem(), "", got.Cut, s)
}

// checkCut walks over what came back: each string is the beginning of s, and
// where it is not all of it, or is not there, cut names the field.
func checkCut(t *testing.T, got, want reflect.Value, path string, cut []string, s string) {
	t.Helper()
	short := func() {
		if !slices.Contains(cut, path) {
			t.Fatalf("%s is not whole, and cut says %q", path, cut)
		}
	}
	switch want.Kind() {
	case reflect.String:
		if !strings.HasPrefix(s, got.String()) {
			t.Fatalf("%s is %.60q", path, got.String())
		}
		if got.String() != s {
			short()
		}
	case reflect.Pointer:
		if got.IsNil() {
			t.Fatalf("%s is not there", path)
		}
		checkCut(t, got.Elem(), want.Elem(), path, cut, s)
	case reflect.Slice:
		if got.Len() != want.Len() {
			short()
			return
		}
		for i := range got.Len() {
			checkCut(t, got.Index(i), want.Index(i), path, cut, s)
		}
	case reflect.Map:
		if got.Len() != want.Len() {
			short()
			return
		}
		for _, k := range got.MapKeys() {
			checkCut(t, k, want.MapKeys()[0], path, cut, s)
			if want.Type().Elem().Kind() == reflect.String {
				checkCut(t, got.MapIndex(k), want.MapIndex(want.MapKeys()[0]), path, cut, s)
			}
		}
	case reflect.Struct:
		if want.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range want.NumField() {
			f := want.Type().Field(i)
			if want.Type() == reflect.TypeFor[Event]() && slices.Contains([]string{"Chain", "Seq", "Prev", "Cut"}, f.Name) {
				continue
			}
			if f.Type == reflect.TypeFor[*Kept]() { // TestKeptIsAsFresh
				continue
			}
			checkCut(t, got.Field(i), want.Field(i), fieldPath(path, f), cut, s)
		}
	default:
		if !got.Equal(want) {
			t.Fatalf("%s is %v", path, got)
		}
	}
}

var hostile = []string{
	"", "plain", "ünïcödé 日本 😀", "\x00\x1b[2J\x7f\r\n", "\xff\xfe", `\xff`, `\\xff`, "\\\xff", `\x5c`, `a\b\u0041`, `"},{"seq":9`,
	"\u202eevil\u2066", "\u2028\u2029\ufeff\u0085", "\U000e0001\U0001d173", "\xed\xb3\xbf", "\ufffd", "\xe2\x80", "trailing\\",
	`{"type":"decision"}`, strings.Repeat("\x01", 5000), strings.Repeat("é", 3000), strings.Repeat("\xff", 9000), "\\x", "x",
	"\x1b]0;title\x07\x1bP\x9b31m\u009b31m", "a\nb\r\nc", `{"a":[1,{"b":"\n"}]}`, "\x1b]8;;http://x\x1b\\", "\xf0\x9f\x98", "%0a%1b[31m", "\b\b\b\a",
}

// megabytes are the same in front of, within and behind what nobody needs.
func megabytes() []string {
	var out []string
	for _, s := range []string{"x", "\x1b[2J", "\xff", `\x`, `"`, "é", "\u202e", "😀", `{"a":"`} {
		out = append(out, strings.Repeat(s, (1<<20)/len(s)))
	}
	return out
}

func TestHostileValuesStayOneLine(t *testing.T) {
	for _, s := range hostile {
		checkHostile(t, s)
	}
	for _, s := range megabytes() {
		checkHostile(t, s)
	}
}

// TestFillerReachesEveryField: what these tests do not set they do not hold.
func TestFillerReachesEveryField(t *testing.T) {
	var fields map[string]any
	if err := json.Unmarshal(encode(t, everything("value")), &fields); err != nil {
		t.Fatal(err)
	}
	var named func(typ reflect.Type, in map[string]any, path string) int
	named = func(typ reflect.Type, in map[string]any, path string) (n int) {
		for f := range typ.Fields() {
			name := fieldPath("", f)
			if name == "cut" || name == "-" {
				continue
			}
			v, there := in[name]
			if !there {
				t.Errorf("%s is not on the line", fieldPath(path, f))
			}
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if part, ok := v.(map[string]any); ok && inner.Kind() == reflect.Struct {
				n += named(inner, part, fieldPath(path, f))
			}
			n++
		}
		return n
	}
	if n := named(reflect.TypeFor[Event](), fields, ""); n < 60 {
		t.Errorf("only %d fields were found", n)
	}
}

func FuzzEventLine(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Fuzz(checkHostile)
}

// random fills parts of an event with anything that a line can hold.
type random struct {
	*rand.Rand
	pool []string
}

func (r random) text(field string) string {
	s := r.pool[r.IntN(len(r.pool))]
	for r.IntN(3) == 0 && len(s) < 200 {
		s += r.pool[r.IntN(len(r.pool))]
	}
	if field == "summary.source" {
		return s[:min(len(s), maxSource)]
	}
	return s[:min(len(s), 400)]
}

func (r random) number() int64 { return r.Int64N(1 << 40) }
func (r random) there() bool   { return r.IntN(3) > 0 }

func (r random) instant() time.Time {
	return time.UnixMicro(r.Int64N(4e15)).UTC() // a line holds microseconds
}

func (r random) strings(string) []int { return make([]int, r.IntN(4)) }

func (r random) inputs() map[string]any {
	out := map[string]any{}
	for range 1 + r.IntN(4) {
		out[r.text("")] = r.value(0)
	}
	return out
}

func (r random) value(depth int) any {
	if depth > 3 {
		return nil
	}
	switch r.IntN(7) {
	case 0:
		return json.Number(fmt.Sprint(r.Int64()))
	case 1:
		return json.Number(fmt.Sprintf("%d.%d", r.IntN(100), 1+r.IntN(9)))
	case 2:
		return r.IntN(2) == 0
	case 3:
		list := []any{}
		for range r.IntN(4) {
			list = append(list, r.value(depth+1))
		}
		return list
	case 4:
		m := map[string]any{}
		for range r.IntN(4) {
			m[r.text("")] = r.value(depth + 1)
		}
		return m
	case 5:
		return nil
	}
	return r.text("")
}

// checkRandom writes a random event and wants the same back, and from that the
// same line again; false: it was cut.
func checkRandom(t *testing.T, seed uint64, s string) bool {
	t.Helper()
	r := random{rand.New(rand.NewPCG(seed, 1)), append([]string{s, s}, hostile[:18]...)}
	e := fillEvent(new(Event), r)
	if e.ID == "" { // the ledger would give it one
		e.ID = "id"
	}
	line := encode(t, e)
	checkSteersNothing(t, line)
	got := decode(t, line)
	if e.Gateway == nil { // the ledger's own
		got.Gateway = nil
	}
	got.Chain, got.Seq, got.Prev = "", 0, ""
	if len(got.Cut) > 0 { // all maps together have a bound
		return false
	}
	if !reflect.DeepEqual(got, e) {
		t.Fatalf("got  %s\nwant %s\nline %s", pretty(got), pretty(e), line)
	}
	if again := encode(t, got); !bytes.Equal(again, line) {
		t.Fatalf("%s\n%s", again, line)
	}
	return true
}

func pretty(e *Event) string {
	b, _ := json.MarshalIndent(e, "", " ")
	return string(b)
}

func FuzzEventRoundTrip(f *testing.F) {
	for i, s := range hostile {
		f.Add(uint64(i), s)
	}
	f.Fuzz(func(t *testing.T, seed uint64, s string) { checkRandom(t, seed, s) })
}

func TestRandomEventsComeBack(t *testing.T) {
	whole := 0
	for seed := range uint64(2000) {
		if checkRandom(t, seed, hostile[seed%uint64(len(hostile))]) {
			whole++
		}
	}
	if whole < 1500 {
		t.Errorf("only %d were not cut", whole)
	}
}
