package document

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// A Value is a place in a Document; the zero Value is an absent one. Reading
// it as a type adds a mistake to the Document where it is of another, and
// reading an absent one gives the type's zero value without a mistake.
type Value struct {
	d    *Document
	n    *yaml.Node
	path string
}

// Present reports whether the key was written.
func (v Value) Present() bool { return v.n != nil }

// Failed reports whether a mistake in the value's own text is on record.
func (v Value) Failed() bool { return v.n != nil && v.d.failed[v.n] }

// Path is where the value stands, for example "routes[2].object.key".
func (v Value) Path() string { return v.path }

// Position is the value's place, counted from 1; 0 where absent.
func (v Value) Position() (line, column int) {
	if v.n == nil {
		return 0, 0
	}
	return v.n.Line, v.n.Column
}

// Place is the value's file:line:column, for a mistake elsewhere that names
// it; the file alone where absent.
func (v Value) Place() string {
	if v.d == nil {
		return ""
	}
	line, column := v.Position()
	if line == 0 {
		return v.d.name
	}
	return fmt.Sprintf("%s:%d:%d", v.d.name, line, column)
}

// Errorf adds a mistake at the value's place.
func (v Value) Errorf(format string, args ...any) {
	if v.d == nil {
		return
	}
	line, column := v.Position()
	v.d.add(line, column, fmt.Sprintf(format, args...)+v.d.origin[v.n])
}

// Show is the value's text as it was written: what ${env:} and ${file:} gave
// never shows.
func (v Value) Show() string {
	if v.n == nil {
		return ""
	}
	return v.n.Value
}

// Quote is Show in quotes; of text that a variable gave it says that.
func (v Value) Quote() string {
	if v.Literal() {
		return strconv.Quote(v.Show())
	}
	return "what " + v.Show() + " holds"
}

// Literal reports whether the value is plain text: it came from no variable.
func (v Value) Literal() bool {
	if v.n == nil {
		return true
	}
	_, ok := v.d.expanded[v.n]
	return !ok
}

// IsMap, IsList and IsString tell what was written, for keys of several forms.
func (v Value) IsMap() bool  { return v.n != nil && v.n.Kind == yaml.MappingNode }
func (v Value) IsList() bool { return v.n != nil && v.n.Kind == yaml.SequenceNode }
func (v Value) IsString() bool {
	return v.n != nil && v.n.Kind == yaml.ScalarNode && v.n.Tag == "!!str"
}

// Field is the value of a key of a mapping whose keys are checked elsewhere.
func (v Value) Field(key string) Value { return v.lookup(key) }

func (v Value) lookup(key string) Value {
	if !v.IsMap() {
		return Value{d: v.d, path: join(v.path, key)}
	}
	for i := 0; i+1 < len(v.n.Content); i += 2 {
		if v.n.Content[i].Value == key {
			return Value{d: v.d, n: v.n.Content[i+1], path: join(v.path, key)}
		}
	}
	return Value{d: v.d, path: join(v.path, key)}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// A Map is a mapping whose keys were checked.
type Map struct{ Value }

// Keys says which keys a mapping may have. Later holds those that belong to
// the format but whose feature this version does not have: they are refused
// with words of their own, never accepted and ignored.
type Keys struct {
	Known, Later []string
	// Hints say what to write in place of keys that are often taken for others.
	Hints map[string]string
}

// Map reads a mapping with these keys.
func (v Value) Map(keys Keys) Map {
	if v.n == nil {
		return Map{v}
	}
	if v.d.failed[v.n] {
		return Map{Value{d: v.d, path: v.path}}
	}
	if !v.IsMap() {
		v.Errorf("`%s` must be a mapping, not %s", v.path, kind(v.n))
		return Map{Value{d: v.d, path: v.path}}
	}
	for i := 0; i < len(v.n.Content); i += 2 {
		k := v.n.Content[i]
		if k.Kind != yaml.ScalarNode || slices.Contains(keys.Known, k.Value) {
			continue
		}
		if slices.Contains(keys.Later, k.Value) {
			v.d.add(k.Line, k.Column, fmt.Sprintf("`%s` is not supported by this version of sidegate; remove it", join(v.path, k.Value)))
			continue
		}
		hint := DidYouMean(k.Value, keys.Known)
		if h, ok := keys.Hints[k.Value]; ok {
			hint = ": " + h
		}
		v.d.add(k.Line, k.Column, fmt.Sprintf("unknown key `%s`%s", join(v.path, k.Value), hint))
	}
	return Map{v}
}

// Get is the value of a key; absent if it was not written.
func (m Map) Get(key string) Value { return m.lookup(key) }

// Need is the value of a key that must be there.
func (m Map) Need(key string) Value {
	v := m.lookup(key)
	if !v.Present() && m.n != nil {
		m.Errorf("`%s` is missing", v.path)
	}
	return v
}

// An Entry is one key of a mapping whose keys are names of the writer's own.
type Entry struct {
	Key   string
	At    Value // the key itself, for mistakes about it
	Value Value
}

// Entries reads a mapping with keys of the writer's own choice, in file order.
func (v Value) Entries() []Entry {
	if v.n == nil || v.d.failed[v.n] {
		return nil
	}
	if !v.IsMap() {
		v.Errorf("`%s` must be a mapping, not %s", v.path, kind(v.n))
		return nil
	}
	var out []Entry
	for i := 0; i+1 < len(v.n.Content); i += 2 {
		k := v.n.Content[i]
		path := join(v.path, k.Value)
		out = append(out, Entry{k.Value, Value{v.d, k, path}, Value{v.d, v.n.Content[i+1], path}})
	}
	return out
}

// List reads a sequence.
func (v Value) List() []Value {
	if v.n == nil || v.d.failed[v.n] {
		return nil
	}
	if !v.IsList() {
		v.Errorf("`%s` must be a list, not %s", v.path, kind(v.n))
		return nil
	}
	out := make([]Value, len(v.n.Content))
	for i, c := range v.n.Content {
		out[i] = Value{v.d, c, fmt.Sprintf("%s[%d]", v.path, i)}
	}
	return out
}

// scalar is the text of a scalar, expanded; ok is false (and a mistake is on
// record) where the value is no scalar or not of the YAML type tag. What a
// variable gave is text, so it fits every tag.
func (v Value) scalar(want string, tags ...string) (string, bool) {
	if v.n == nil {
		return "", false
	}
	if v.n.Kind != yaml.ScalarNode {
		v.Errorf("`%s` must be %s, not %s", v.path, want, kind(v.n))
		return "", false
	}
	if v.d.failed[v.n] {
		return "", false
	}
	if v.d.values[v.n] {
		v.d.failed[v.n] = true
		v.Errorf("`%s`: ${auth.} and ${assertion} are of requests, and stand in the headers of an upstream only", v.path)
		return "", false
	}
	if text, ok := v.d.expanded[v.n]; ok {
		return text, true
	}
	if !slices.Contains(tags, v.n.Tag) {
		hint := ""
		if slices.Contains(tags, "!!str") {
			hint = " (quote it)"
		}
		v.Errorf("`%s` must be %s, not %s%s", v.path, want, kind(v.n), hint)
		return "", false
	}
	return v.n.Value, true
}

// Text reads text; ok is false where the value is absent or cannot be read,
// which is then on record.
func (v Value) Text() (s string, ok bool) { return v.scalar("a string", "!!str") }

// Template is Text where ${auth.uid} and the like may stand: they are left as
// they are. A literal ${ cannot: who reads the template could not tell it.
func (v Value) Template() (s string, ok bool) {
	if v.n != nil && v.d.literals[v.n] && !v.d.failed[v.n] {
		v.d.failed[v.n] = true
		v.Errorf("`%s`: neither a literal `${` nor a variable that makes one can stand here", v.path)
		return "", false
	}
	if v.n != nil && v.d.values[v.n] && !v.d.failed[v.n] {
		if text, ok := v.d.expanded[v.n]; ok {
			return text, true
		}
		return v.n.Value, true
	}
	return v.Text()
}

// String reads text.
func (v Value) String() string {
	s, _ := v.Text()
	return s
}

// Bool reads true or false.
func (v Value) Bool() bool {
	s, ok := v.scalar("true or false", "!!bool")
	if !ok {
		return false
	}
	switch s {
	case "true", "True", "TRUE":
		return true
	case "false", "False", "FALSE":
		return false
	}
	v.Errorf("`%s` must be true or false, not %s", v.path, v.Quote())
	return false
}

// Int reads a whole number from min to max.
func (v Value) Int(min, max int64) int64 {
	s, ok := v.scalar("a whole number", "!!int")
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < min || n > max {
		v.Errorf("`%s` must be a whole number from %d to %d, not %s", v.path, min, max, v.Quote())
		return 0
	}
	return n
}

// Float reads a finite number.
func (v Value) Float() float64 {
	s, ok := v.scalar("a number", "!!int", "!!float")
	if !ok {
		return 0
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		v.Errorf("`%s` must be a number, not %s", v.path, v.Quote())
		return 0
	}
	return f
}

// Date reads a day as 2026-02-20, as midnight UTC.
func (v Value) Date() time.Time { return v.time(time.DateOnly, "a day such as 2026-02-20") }

// Time reads a moment as RFC 3339 writes it: 2026-03-02T10:00:00+01:00.
func (v Value) Time() time.Time {
	return v.time(time.RFC3339, "a time such as 2026-03-02T10:00:00+01:00")
}

func (v Value) time(layout, want string) time.Time {
	s, ok := v.scalar(want, "!!str", "!!timestamp")
	if !ok {
		return time.Time{}
	}
	t, err := time.Parse(layout, s)
	if err != nil {
		v.Errorf("`%s` must be %s, not %s", v.path, want, v.Quote())
		return time.Time{}
	}
	return t
}

// IsTime tells whether a moment or a day was written without quotes.
func (v Value) IsTime() bool {
	return v.n != nil && v.n.Kind == yaml.ScalarNode && v.n.Tag == "!!timestamp"
}

// IsBool, IsInt and IsFloat tell which scalar was written.
func (v Value) IsBool() bool { return v.n != nil && v.n.Kind == yaml.ScalarNode && v.n.Tag == "!!bool" }
func (v Value) IsInt() bool  { return v.n != nil && v.n.Kind == yaml.ScalarNode && v.n.Tag == "!!int" }
func (v Value) IsFloat() bool {
	return v.n != nil && v.n.Kind == yaml.ScalarNode && v.n.Tag == "!!float"
}

// OneOf reads one of the given words; the empty string where it is another.
func (v Value) OneOf(words ...string) string {
	s, ok := v.scalar("a string", "!!str", "!!bool")
	if !ok || slices.Contains(words, s) {
		return s
	}
	switch {
	case len(words) == 1 && words[0] == "true":
		v.Errorf("`%s` must be true, not %s: leave the key out otherwise", v.path, v.Quote())
	case len(words) == 1:
		v.Errorf("`%s` must be %s, not %s", v.path, words[0], v.Quote())
	default:
		v.Errorf("`%s` must be one of %s, not %s%s", v.path, strings.Join(words, ", "), v.Quote(), DidYouMean(v.Show(), words))
	}
	return ""
}

// Name reads a name as identities, upstreams, buckets, routes and entries have.
func (v Value) Name() string {
	s, ok := v.Text()
	if ok && !isName(s) {
		v.Errorf("%q is no name: %s", v.Show(), nameRule)
	}
	return s
}

var (
	nameForm  = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	identForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

const nameRule = "lower-case letters, digits and `-`, starting with a letter"

func isName(s string) bool { return nameForm.MatchString(s) && len(s) <= 128 }

// CheckName adds a mistake where s is not of the form [a-z][a-z0-9-]*.
func (v Value) CheckName(s string) bool {
	if !isName(s) {
		v.Errorf("%q is no name: %s", s, nameRule)
		return false
	}
	return true
}

// CheckIdent adds a mistake where s is not of the form [A-Za-z_][A-Za-z0-9_]*.
func (v Value) CheckIdent(s string) bool {
	if !identForm.MatchString(s) || len(s) > 128 {
		v.Errorf("%q is no identifier: letters, digits and `_`, not starting with a digit", s)
		return false
	}
	return true
}

// Strings reads a list of non-empty, different strings.
func (v Value) Strings() []string {
	var out []string
	if v.IsString() && !v.Failed() {
		v.Errorf("`%s` must be a list, not a string: write %s", v.path, v.asList())
		v.d.failed[v.n] = true
	}
	for _, e := range v.List() {
		s := e.String()
		switch {
		case e.Failed():
		case s == "" && e.IsString():
			e.Errorf("`%s` is an empty string", e.path)
		case s == "":
		case slices.Contains(out, s):
			e.Errorf("`%s`: %q is there twice", v.path, e.Show())
		default:
			out = append(out, s)
		}
	}
	return out
}

// asList shows a word as a list of it, in files that hold no secrets.
func (v Value) asList() string {
	if v.d.expand != nil || !wordForm.MatchString(v.n.Value) {
		return "it in [ ]"
	}
	return "[" + v.n.Value + "]"
}

var wordForm = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

var durationForm = regexp.MustCompile(`^(?:\d+(?:d|h|ms|m|s))+$`)
var durationPart = regexp.MustCompile(`(\d+)(d|h|ms|m|s)`)

// Duration reads a length of time as `15m`, `1h30m`, `400d`, `300ms`; units are
// d h m s ms.
func (v Value) Duration() time.Duration {
	d, _ := v.duration()
	return d
}

// DurationIn reads a length of time from min to max.
func (v Value) DurationIn(min, max time.Duration) time.Duration {
	d, ok := v.duration()
	if ok && (d < min || d > max) {
		v.Errorf("`%s` must be from %s to %s, not %s", v.path, FormatDuration(min), FormatDuration(max), v.Quote())
		return 0
	}
	return d
}

// durationUnits are the units that files may use, the longest first.
var durationUnits = []struct {
	name string
	unit time.Duration
}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}}

// FormatDuration writes d as Duration reads it, without what is below 1ms.
func FormatDuration(d time.Duration) string {
	var out strings.Builder
	for _, u := range durationUnits {
		if n := d / u.unit; n > 0 {
			fmt.Fprintf(&out, "%d%s", n, u.name)
			d -= n * u.unit
		}
	}
	if out.Len() == 0 {
		return "0s"
	}
	return out.String()
}

func (v Value) duration() (time.Duration, bool) {
	if v.IsInt() && !v.Failed() {
		v.Errorf("`%s` must be a duration such as 15m, not a number: write %[2]sm for minutes, or %[2]ss for seconds", v.path, v.Show())
		return 0, false
	}
	s, ok := v.scalar("a duration such as 15m", "!!str")
	if !ok {
		return 0, false
	}
	if !durationForm.MatchString(s) {
		v.Errorf("`%s`: %s is no duration; write it as 300ms, 10s, 15m, 12h or 90d", v.path, v.Quote())
		return 0, false
	}
	var sum time.Duration
	for _, part := range durationPart.FindAllStringSubmatch(s, -1) {
		n, err := strconv.ParseInt(part[1], 10, 64)
		unit := unitOf(part[2])
		if err != nil || n > int64((math.MaxInt64-sum)/unit) {
			v.Errorf("`%s`: %s is longer than this program can count", v.path, v.Quote())
			return 0, false
		}
		sum += time.Duration(n) * unit
	}
	return sum, true
}

func unitOf(name string) time.Duration {
	for _, u := range durationUnits {
		if u.name == name {
			return u.unit
		}
	}
	return 0
}

var sizeForm = regexp.MustCompile(`^(\d+)(B|KiB|MiB|GiB)$`)

// Size reads a number of bytes as `512B`, `32KiB`, `25MiB`, `1GiB`.
func (v Value) Size() int64 {
	n, _ := v.size()
	return n
}

// SizeIn reads a number of bytes from min to max.
func (v Value) SizeIn(min, max int64) int64 {
	n, ok := v.size()
	if ok && (n < min || n > max) {
		v.Errorf("`%s` must be from %s to %s, not %s", v.path, formatSize(min), formatSize(max), v.Quote())
		return 0
	}
	return n
}

func formatSize(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB"}
	i := 0
	for ; i < len(units)-1 && n != 0 && n%1024 == 0; i++ {
		n /= 1024
	}
	return strconv.FormatInt(n, 10) + units[i]
}

func (v Value) size() (int64, bool) {
	if n, err := strconv.ParseInt(v.Show(), 10, 64); v.IsInt() && err == nil && n >= 0 && !v.Failed() {
		v.Errorf("`%s` must be a size such as 25MiB, not a number: write %s", v.path, formatSize(n))
		return 0, false
	}
	s, ok := v.scalar("a size such as 25MiB", "!!str")
	if !ok {
		return 0, false
	}
	m := sizeForm.FindStringSubmatch(s)
	if m == nil {
		v.Errorf("`%s`: %s is no size; write it as 512B, 32KiB, 25MiB or 1GiB", v.path, v.Quote())
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	shift := map[string]uint{"B": 0, "KiB": 10, "MiB": 20, "GiB": 30}[m[2]]
	if err != nil || n > math.MaxInt64>>shift {
		v.Errorf("`%s`: %s is larger than this program can count", v.path, v.Quote())
		return 0, false
	}
	return n << shift, true
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!str":
		return "a string"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date"
	}
	return "no value"
}

// DidYouMean is "" or `; did you mean "x"?` for the nearest of the words.
func DidYouMean(s string, words []string) string {
	best, distance := "", len(s)/3+2
	for _, w := range words {
		d := editDistance(s, w)
		if strings.EqualFold(s, w) {
			d = 0
		}
		if d < distance {
			best, distance = w, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// Near is the word that s was certainly meant to be: it differs by its case or
// by one letter; "" where there is none.
func Near(s string, words []string) string {
	for _, w := range words {
		if strings.EqualFold(s, w) || len(s) > 3 && editDistance(s, w) == 1 {
			return w
		}
	}
	return ""
}

// editDistance is Levenshtein's, over bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next := min(row[j]+1, row[j-1]+1, diagonal+cost)
			diagonal, row[j] = row[j], next
		}
	}
	return row[len(b)]
}

// At is the value at a dotted path below v, absent where there is none.
func (v Value) At(path string) Value {
	for _, key := range strings.Split(path, ".") {
		v = v.lookup(key)
	}
	return v
}

// Brief is the value as YAML's flow style writes it, for people.
func (v Value) Brief() string {
	if v.n == nil {
		return ""
	}
	switch v.n.Kind {
	case yaml.MappingNode:
		var parts []string
		for _, e := range v.Entries() {
			parts = append(parts, e.Key+": "+e.Value.Brief())
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case yaml.SequenceNode:
		var parts []string
		for _, e := range v.List() {
			parts = append(parts, e.Brief())
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return v.n.Value
}

// Plain is the value as JSON would give it: nested []any and map[string]any of
// strings, booleans and json.Number. A time is its text.
func (v Value) Plain() any {
	if v.n == nil {
		return nil
	}
	switch v.n.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		for _, e := range v.Entries() {
			out[e.Key] = e.Value.Plain()
		}
		return out
	case yaml.SequenceNode:
		out := []any{}
		for _, e := range v.List() {
			out = append(out, e.Plain())
		}
		return out
	}
	switch v.n.Tag {
	case "!!bool":
		return v.Bool()
	case "!!int", "!!float":
		if json.Valid([]byte(v.n.Value)) {
			return json.Number(v.n.Value)
		}
		v.Errorf("`%s` must be a number as JSON writes it, not %q", v.path, v.Show())
	}
	return v.n.Value
}
