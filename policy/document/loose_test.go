package document

import (
	"errors"
	"strings"
	"testing"
)

func TestLoose(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"any keys", "a: 1\n2: {b: null, c: []}\n", "{a: 1, 2: {b: null, c: []}}"},
		{"aliases", "a: &x {b: 1}\nc: *x\nd: [*x, *x]\n", "{a: {b: 1}, c: {b: 1}, d: [{b: 1}, {b: 1}]}"},
		{"merge keys", "a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\ne: {<<: [*x, {f: 4}], g: 5}\n", "{a: {b: 1, c: 2}, d: {b: 3, c: 2}, e: {g: 5, b: 1, c: 2, f: 4}}"},
		{"tags", "a: !thing {b: !!str 1}\n", "{a: {b: 1}}"},
		{"${env:}", "a: ${env:X}\n", "{a: ${env:X}}"},
		{"JSON", "\ufeff{\"a\": [1, true, null, \"x\\/\\ud83d\\ude00\"],\n\t\"b\": {\"c\": 1.50}}", "{a: [1, true, null, x/😀], b: {c: 1.50}}"},
		{"YAML that looks like JSON", "{a: 1, b: [c]}", "{a: 1, b: [c]}"},
	} {
		v, err := Loose("t.yaml", []byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if got := v.Brief(); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func TestLooseRefuses(t *testing.T) {
	laughs := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'k'; c++ {
		laughs += strings.NewReplacer("B", string(c), "A", string(c-1)).Replace("B: &B [*A, *A, *A, *A, *A, *A, *A, *A, *A, *A]\n")
	}
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "t.yaml: is empty"},
		{"no YAML", "a: [", "t.yaml:1:1: not YAML: "},
		{"no JSON", "{\"a\": 1\n\"b\": 2}", "t.yaml:"},
		{"too large", strings.Repeat("#", MaxBytes+1), "t.yaml: is larger than 16 MiB"},
		{"a billion laughs", laughs, "t.yaml: its aliases make more of it than can be read"},
		{"a value that holds itself", "a: &a [*a]\n", "t.yaml: a value holds itself"},
		{"deep JSON", strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000), "nested too deep"},
		{"deep YAML", strings.Repeat("{a: ", 5000) + "1" + strings.Repeat("}", 5000), "nested too deep"},
	} {
		v, err := Loose("t.yaml", []byte(tt.text))
		wantError(t, tt.name, err, tt.want)
		if v.Present() {
			t.Errorf("%s: there is a value", tt.name)
		}
		if e := (Error{}); err != nil && !errors.As(err, &e) {
			t.Errorf("%s: %T", tt.name, err)
		}
	}
}

func TestLoosePlaces(t *testing.T) {
	const text = "{\n  \"é\": {\"b\": 1,\n    \"c\" : [ 2, \"d\" ]}\n}\n"
	var want []string
	for _, read := range []string{text, strings.ReplaceAll(text, "\n}\n", "\n,x: 1}\n")} { // JSON, and no JSON any more
		v, err := Loose("t.json", []byte(read))
		if err != nil {
			t.Fatal(err)
		}
		e := v.Entries()[0]
		c := e.Value.Entries()[1]
		got := []string{e.At.Place(), e.Value.Place(), c.At.Place(), c.Value.Place(), c.Value.List()[1].Place()}
		if want == nil {
			want = got
		}
		if s := strings.Join(got, " "); s != strings.Join(want, " ") || s != "t.json:2:3 t.json:2:8 t.json:3:5 t.json:3:11 t.json:3:16" {
			t.Errorf("got %s", s)
		}
	}
}

func FuzzLoose(f *testing.F) {
	for _, text := range []string{"a: &x [1]\nb: *x\n<<: {c: *x}", `{"a": ["\ud83d", {}]}`, "&a {<<: *a}", "? [a]\n: b\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := Loose("t.yaml", []byte(text))
		if err != nil && v.Present() {
			t.Error("a value and an error")
		}
		if len(text) < 1000 {
			v.Brief() // ends
		}
	})
}
