package document

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const testVersion = "sidegate-test/v1"

// read parses text under `version` and hands its top-level mapping, which may
// have any key, to f.
func read(text string, expand Expander, f func(Map)) error {
	d := New("t.yaml", expand)
	if v := d.Parse([]byte("version: "+testVersion+"\n"+text), testVersion); v.Present() && f != nil {
		f(Map{v})
	}
	return d.Err()
}

func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s:\ngot  %v\nwant %s", what, err, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "t.yaml: is empty; it must start with `version: sidegate-test/v1`"},
		{"# words only\n", "is empty"},
		{"- a", "t.yaml:1:1: want a mapping"},
		{"a: b", "t.yaml:1:1: `version` is missing"},
		{"version: sidegate-test/v2", "t.yaml:1:10: version is \"sidegate-test/v2\"; this sidegate reads \"sidegate-test/v1\""},
		{"version: sidegate-policy/v1", "this is a sidegate-policy file, where a sidegate-test file was expected"},
		{"version: sidegate-test/v1\n---\nb: c", "t.yaml:2:1: a second YAML document"},
		{"version: sidegate-test/v1\na: 1\na: 2", "t.yaml:3:1: duplicate key `a`, first in line 2"},
		{"version: sidegate-test/v1\na: &x 1", "t.yaml:2:4: YAML anchors are not allowed"},
		{"version: sidegate-test/v1\na: &x 1\nb: *x", "t.yaml:3:4: YAML aliases are not allowed"},
		{"version: sidegate-test/v1\na: &x {b: 1}\nc: {<<: *x}", "t.yaml:3:5: YAML merge keys are not allowed"},
		{"version: sidegate-test/v1\na: !!str 1", "t.yaml:2:4: YAML tags are not allowed"},
		{"version: sidegate-test/v1\na: []", "t.yaml:2:4: an empty list"},
		{"version: sidegate-test/v1\na:", "t.yaml:2:3: no value"},
		{"version: sidegate-test/v1\na: ~", "t.yaml:2:4: no value"},
		{"version: sidegate-test/v1\n1: a", "t.yaml:2:1: a key must be a string"},
		{"version: sidegate-test/v1\n? [a]\n: b", "a key must be a string"},
		{"version: sidegate-test/v1\na: 'b", "not YAML: "},
		{"version: sidegate-test/v1\na: ${env:X}", "t.yaml:2:4: ${env:} and ${file:} are for sidegate.yaml only"},
		{"version: sidegate-test/v1\na: *secret", "t.yaml:2:4: not YAML: an alias without an anchor"},
	} {
		d := New("t.yaml", nil)
		d.Parse([]byte(tt.text), testVersion)
		wantError(t, tt.text, d.Err(), tt.want)
		if err := d.Err(); err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the value shows: %v", tt.text, err)
		}
	}
}

func TestParseRefusesLargeFiles(t *testing.T) {
	d := New("t.yaml", nil)
	if v := d.Parse(make([]byte, MaxBytes+1), testVersion); v.Present() {
		t.Error("read")
	}
	wantError(t, "large", d.Err(), "is larger than 16 MiB")
}

// TestAliasBomb is the attack on YAML readers that expand aliases.
func TestAliasBomb(t *testing.T) {
	text := "a0: &a0 [x]\n"
	for i := 1; i < 30; i++ {
		text += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	wantError(t, "bomb", read(text, nil, nil), "YAML aliases are not allowed")
}

func TestErrorsAreInFileOrderAndOnce(t *testing.T) {
	err := read("a: 1\nb: 2\n", nil, func(m Map) {
		m.Get("b").Errorf("second")
		m.Get("a").Errorf("first")
		m.Get("a").Errorf("first")
	})
	if got, want := fmt.Sprint(err), "t.yaml:2:4: first\nt.yaml:3:4: second"; got != want {
		t.Errorf("got %q", got)
	}
	var list Errors
	if !errors.As(err, &list) || list[0] != (Error{"t.yaml", 2, 4, "first"}) {
		t.Errorf("got %#v", err)
	}
}

func TestMapKeys(t *testing.T) {
	keys := Keys{Known: []string{"version", "known"}, Later: []string{"later"}}
	err := read("knwon: 1\nlater: 2", nil, func(m Map) { m.Map(keys).Need("known") })
	for _, want := range []string{
		"t.yaml:1:1: `known` is missing",
		"t.yaml:2:1: unknown key `knwon`; did you mean \"known\"?",
		"t.yaml:3:1: `later` is not supported by this version of sidegate; remove it",
	} {
		wantError(t, "keys", err, want)
	}
	wantError(t, "no map", read("a: 1", nil, func(m Map) { m.Get("a").Map(keys).Need("known") }), "`a` must be a mapping, not a number")
}

func TestValues(t *testing.T) {
	for _, tt := range []struct {
		text string
		read func(Value) any
		want any
		err  string
	}{
		{"x", func(v Value) any { return v.String() }, "x", ""},
		{`"1"`, func(v Value) any { return v.String() }, "1", ""},
		{"1", func(v Value) any { return v.String() }, "", "must be a string, not a number (quote it)"},
		{"2026-01-01", func(v Value) any { return v.String() }, "", "not a date (quote it)"},
		{"[x]", func(v Value) any { return v.String() }, "", "not a list"},
		{"true", func(v Value) any { return v.Bool() }, true, ""},
		{"FALSE", func(v Value) any { return v.Bool() }, false, ""},
		{"yes", func(v Value) any { return v.Bool() }, false, "must be true or false, not a string"},
		{"7", func(v Value) any { return v.Int(0, 7) }, int64(7), ""},
		{"8", func(v Value) any { return v.Int(0, 7) }, int64(0), "from 0 to 7, not \"8\""},
		{"0x8", func(v Value) any { return v.Int(0, 99) }, int64(0), "must be a whole number"},
		{"1.5", func(v Value) any { return v.Int(0, 99) }, int64(0), "must be a whole number"},
		{"99999999999999999999", func(v Value) any { return v.Int(0, 99) }, int64(0), "whole number"},
		{"keep", func(v Value) any { return v.OneOf("keep", "drop") }, "keep", ""},
		{"off", func(v Value) any { return v.OneOf("off", "on") }, "off", ""},
		{"kep", func(v Value) any { return v.OneOf("keep", "drop") }, "", "did you mean \"keep\"?"},
		{"a-1", func(v Value) any { return v.Name() }, "a-1", ""},
		{"A", func(v Value) any { return v.Name() }, "A", "is no name"},
		{`""`, func(v Value) any { return v.Name() }, "", "is no name"},
		{"15m", func(v Value) any { return v.Duration() }, 15 * time.Minute, ""},
		{"1d2h3m4s5ms", func(v Value) any { return v.Duration() }, 26*time.Hour + 3*time.Minute + 4005*time.Millisecond, ""},
		{"0s", func(v Value) any { return v.Duration() }, time.Duration(0), ""},
		{"-1s", func(v Value) any { return v.Duration() }, time.Duration(0), "is no duration"},
		{"1.5h", func(v Value) any { return v.Duration() }, time.Duration(0), "is no duration"},
		{"15", func(v Value) any { return v.Duration() }, time.Duration(0), "must be a duration such as 15m, not a number"},
		{"999999999d", func(v Value) any { return v.Duration() }, time.Duration(0), "longer than this program can count"},
		{"106751d106751d", func(v Value) any { return v.Duration() }, time.Duration(0), "longer than this program can count"},
		{"5s", func(v Value) any { return v.DurationIn(time.Second, time.Minute) }, 5 * time.Second, ""},
		{"2m", func(v Value) any { return v.DurationIn(time.Second, 90*time.Second) }, time.Duration(0), "must be from 1s to 1m30s, not \"2m\""},
		{"32KiB", func(v Value) any { return v.Size() }, int64(32 << 10), ""},
		{"1GiB", func(v Value) any { return v.Size() }, int64(1 << 30), ""},
		{"1KB", func(v Value) any { return v.Size() }, int64(0), "is no size"},
		{"1", func(v Value) any { return v.Size() }, int64(0), "must be a size such as 25MiB, not a number"},
		{"99999999999GiB", func(v Value) any { return v.Size() }, int64(0), "larger than this program can count"},
		{"1KiB", func(v Value) any { return v.SizeIn(1, 1<<20) }, int64(1024), ""},
		{"2MiB", func(v Value) any { return v.SizeIn(1, 1<<20) }, int64(0), "must be from 1B to 1MiB"},
		{"[a, b]", func(v Value) any { return fmt.Sprint(v.Strings()) }, "[a b]", ""},
		{"[a, a]", func(v Value) any { return fmt.Sprint(v.Strings()) }, "[a]", "\"a\" is there twice"},
		{`[""]`, func(v Value) any { return fmt.Sprint(v.Strings()) }, "[]", "is an empty string"},
		{"a", func(v Value) any { return len(v.Strings()) }, 0, "must be a list, not a string"},
		{"[a]", func(v Value) any { return len(v.Entries()) }, 0, "must be a mapping, not a list"},
		{"{a: 1, b: 2}", func(v Value) any { return v.Entries()[1].Key + v.Entries()[1].Value.Path() }, "bk.b", ""},
		{"[[a]]", func(v Value) any { return v.List()[0].List()[0].Path() }, "k[0][0]", ""},
		{"x", func(v Value) any { return v.Place() }, "t.yaml:2:4", ""},
	} {
		var got any
		err := read("k: "+tt.text, nil, func(m Map) { got = tt.read(m.Get("k")) })
		if got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.text, got, tt.want)
		}
		wantError(t, tt.text, err, tt.err)
	}
}

func TestAbsentValuesAreZeroWithoutMistake(t *testing.T) {
	err := read("a: 1", nil, func(m Map) {
		v := m.Get("b")
		if v.Present() || v.String() != "" || v.Bool() || v.Int(1, 2) != 0 || v.Duration() != 0 || v.DurationIn(time.Hour, time.Hour) != 0 || v.Size() != 0 ||
			v.OneOf("x") != "" || v.List() != nil || v.Entries() != nil || v.Name() != "" || v.Show() != "" || !v.Literal() || v.Map(Keys{}).Get("c").Present() {
			t.Error("an absent value is something")
		}
		if v.Place() != "t.yaml" || (Value{}).Place() != "" {
			t.Error("an absent value is somewhere")
		}
	})
	wantError(t, "absent", err, "")
}

func TestExpand(t *testing.T) {
	expand := func(form, argument string) (string, error) {
		if argument == "BAD" {
			return "", errors.New("the variable BAD is not set")
		}
		return form + "=" + argument, nil
	}
	for _, tt := range []struct{ text, want, err string }{
		{"a${env:X}b${file:/y}c", "aenv=Xbfile=/yc", ""},
		{"${env:X:def:ault}", "env=X:def:ault", ""},
		{"$${env:X}", "${env:X}", ""},
		{"$$${env:X}", "$${env:X}", ""},
		{"$X {env:X}", "$X {env:X}", ""},
		{"${env:X", "", "`${` without `}`"},
		{"${X}", "", "`${` that starts neither"},
		{"${hunter2}", "", "`${` that starts neither"},
		{"${env:BAD}", "", "t.yaml:2:4: the variable BAD is not set"},
	} {
		var got string
		err := read("k: '"+tt.text+"'", expand, func(m Map) { got = m.Get("k").String() })
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.text, got, tt.want)
		}
		wantError(t, tt.text, err, tt.err)
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: one mistake, and no value: %v", tt.text, err)
		}
	}
}

// TestExpandedValuesAreNotShown reads a secret as everything that it is not.
func TestExpandedValuesAreNotShown(t *testing.T) {
	const secret = "hunter2 xyz"
	expand := func(string, string) (string, error) { return secret, nil }
	for name, f := range map[string]func(Value){
		"Bool":     func(v Value) { v.Bool() },
		"Int":      func(v Value) { v.Int(0, 1) },
		"OneOf":    func(v Value) { v.OneOf("a") },
		"Name":     func(v Value) { v.Name() },
		"Duration": func(v Value) { v.DurationIn(0, 1) },
		"Size":     func(v Value) { v.SizeIn(0, 1) },
		"List":     func(v Value) { v.List() },
		"Map":      func(v Value) { v.Map(Keys{}) },
		"Entries":  func(v Value) { v.Entries() },
	} {
		err := read(`k: "${env:X}"`, expand, func(m Map) {
			v := m.Get("k")
			if v.Literal() || v.String() != secret || v.Show() != "${env:X}" {
				t.Error("not expanded")
			}
			f(v)
		})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := read(`k: ["${env:X}", "${env:Y}"]`, expand, func(m Map) { m.Get("k").Strings() })
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Strings: %v", err)
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", time.Millisecond: "1ms", 90 * time.Second: "1m30s", 400 * 24 * time.Hour: "400d", time.Microsecond: "0s"} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%d: got %s, want %s", d, got, want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	words := []string{"identities", "upstreams", "name"}
	for s, want := range map[string]string{"identites": `; did you mean "identities"?`, "nam": `; did you mean "name"?`, "completely": "", "": ""} {
		if got := DidYouMean(s, words); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

func FuzzDocument(f *testing.F) {
	f.Add("a: 1\nb: [x, {c: d}]")
	f.Add("a: &x [1]\nb: *x")
	f.Add("k: 1d2h\nk2: ${env:X}")
	f.Add("- \n---\n? a")
	f.Add("a: !!binary x\n<<: {}")
	f.Add("version: sidegate-test/v1\nk: 7KiB")
	const secret = "hunter2-XyZZy"
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, secret) {
			t.Skip()
		}
		d := New("t.yaml", func(string, string) (string, error) { return secret, nil })
		for _, data := range []string{text, "version: " + testVersion + "\n" + text} {
			if v := d.Parse([]byte(data), testVersion); v.Present() {
				walk(v, 0)
			}
		}
		err := d.Err()
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Fatalf("the error shows the secret: %v", err)
		}
	})
}

// walk reads everything as everything.
func walk(v Value, depth int) {
	_, _, _, _, _, _ = v.String(), v.Bool(), v.Int(0, 9), v.Duration(), v.Size(), v.OneOf("a", "b")
	_, _, _ = v.Name(), v.Strings(), v.Map(Keys{Known: []string{"a"}, Later: []string{"b"}}).Need("c")
	if depth > 20 {
		return
	}
	for _, e := range v.Entries() {
		e.At.CheckName(e.Key)
		e.At.CheckIdent(e.Key)
		walk(e.Value, depth+1)
	}
	for _, e := range v.List() {
		walk(e, depth+1)
	}
}
