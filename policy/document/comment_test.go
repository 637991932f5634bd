package document

import (
	"fmt"
	"strings"
	"testing"
)

// comments are those of a text as line:column[first-last] words.
func comments(t *testing.T, text string) []string {
	t.Helper()
	d := New("t.yaml", nil)
	v := d.Parse([]byte(text), testVersion)
	if err := d.Err(); err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	var out []string
	for _, c := range v.Comments() {
		out = append(out, fmt.Sprintf("%d:%d[%d-%d] %s", c.Line, c.Column, c.First, c.Last, c.Text))
	}
	return out
}

const versionLine = "version: " + testVersion + "\n"

func TestComments(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"at the end of a line", "a: 1   #  words  \n", "2:8[2-2] words"},
		{"no space before #", "a: b#c\n", ""},
		{"no words", "a: 1 #\n#\n", ""},
		{"above a key", "# one\na: 1\nb: 2\n", "2:1[3-3] one"},
		{"above a key with a list", "# one\na:\n  - b\n  - c\nd: 1\n", "2:1[3-5] one"},
		{"above the first item", "a:\n  # one\n  - b: 1\n    c: 2\n  - d: 1\n", "3:3[4-5] one"},
		{"above another item", "a:\n  - b: 1\n  # one\n  - d: 1\n    e: 2\n", "4:3[5-6] one"},
		{"above the first key of an item", "a:\n  -\n    # one\n    b: 1\n    c: 2\n", "4:5[5-5] one"},
		{"above an item that is a list", "a:\n  # one\n  - - b\n    - c\n  - - d\n", "3:3[4-5] one"},
		{"above the first key of a mapping", "a:\n  # one\n  b: 1\n  c: 2\n", "3:3[4-4] one"},
		{"two lines", "# one\n# two\na: 1\n", "2:1[4-4] one; 3:1[4-4] two"},
		{"a blank line between", "# one\n\na: 1\n", "2:1[2-2] one"},
		{"two lines and a blank one", "# one\n# two\n\na: 1\n", "2:1[2-2] one; 3:1[3-3] two"},
		{"at the end of the file", "a: 1\n# one", "3:1[3-3] one"},
		{"below a value, above the next item", "a:\n  - b: 1\n    # one\n  - c: 1\n", "4:5[5-5] one"},
		{"in a flow list", "a: [\n  # one\n  {b: 1,\n   c: 2}, # two\n  {d: 1}, # three\n]\n", "3:3[4-5] one; 5:11[5-5] two; 6:11[6-6] three"},
		{"above what closes a list", "a: [\n  b\n  # one\n]\n", "4:3[4-4] one"},
		{"in a flow mapping", "a: {b: 1, # one\n  # two\n  c: {d: 1,\n  e: 2}}\n", "2:11[2-2] one; 3:3[4-5] two"},
		{"behind a key", "a: # one\n  b: 1\n", "2:4[2-2] one"},
		{"in quotes", "a: \"b # no\"   # one\nc: 'it''s # no' # two\n\"d # no\": 1\n", "2:15[2-2] one; 3:17[3-3] two"},
		{"in quotes over lines", "a: \"b\n  # no \\\" # no\n  \" # one\n", "4:5[4-4] one"},
		{"after an apostrophe", "a: don't # one\n", "2:10[2-2] one"},
		{"in a block", "a: | # one\n  b # no\n  # no\n\n  # no\n# two\nc: 1\n", "2:6[2-2] one; 7:1[8-8] two"},
		{"a block's keys above", "# one\na: |\n  b\n  c\nd: 1\n", "2:1[3-5] one"},
		{"less deep than a block", "a:\n  - b: >-\n      c # no\n    # one\n    d: 1\n", "5:5[6-6] one"},
		{"a block in a list", "a:\n- |\n  # no\n  b\n# one\n- c\n", "6:1[7-7] one"},
		{"a block with its own indentation", "a: |2\n    # no\n  # no\n # one\nb: 1\n", "5:2[6-6] one"},
		{"an empty block", "a: |\nb: 1 # one\n", "3:6[3-3] one"},
		{"wide characters before", "ä: \"ö # no\" # one\n", "2:13[2-2] one"},
		{"CRLF", "# one\r\na: 1 # two\r\n", "2:1[3-3] one; 3:6[3-3] two"},
	} {
		got := strings.Join(comments(t, versionLine+tt.text), "; ")
		if got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

// TestCommentsAfterSubstitution: what was put in the place of a variable has
// neither the quotes nor the comments of the place.
func TestCommentsAfterSubstitution(t *testing.T) {
	d := New("t.yaml", nil)
	v := d.Parse([]byte(versionLine+"vars:\n  x: \"a # no\"\n  y: |\n    b\n    # no\nuse: ${x} # one\nagain: \"${y}\" # two\n"), testVersion)
	vars := v.Field("vars")
	v.Substitute("", func(name string, _ Value) (Value, bool) { return vars.Field(name), true }, "vars")
	var got []string
	for _, c := range v.Comments() {
		got = append(got, fmt.Sprintf("%d %s", c.Line, c.Text))
	}
	if s := strings.Join(got, "; "); s != "7 one; 8 two" {
		t.Errorf("got %s", s)
	}
}

func FuzzComments(f *testing.F) {
	for _, text := range []string{"a: 1 # x\n", "a: |2\n   # no\n# x", "a: [\n# x\n 'b''', \"\\\"\"]", "- - # x\n   - |\n", "\ufeffa: >\n\n\t# x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := New("t.yaml", nil)
		v := d.Parse([]byte(versionLine+text), testVersion)
		line := 0
		for _, c := range v.Comments() {
			if c.Line < line || c.First < c.Line || c.Last < c.First || c.Text == "" || !strings.Contains(d.line(c.Line), "#") {
				t.Errorf("%+v", c)
			}
			line = c.Line
		}
	})
}
