package document

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// TestSyntaxPlaces: a mistake of form is told where it is. The mark « stands in
// front of the place.
func TestSyntaxPlaces(t *testing.T) {
	const routes = "name: a\nroutes:\n  - id: a\n    path: /a\n"
	const after = "    methods: [GET]\n    allow:\n      - {who: [users], uid: \"x\"}\n      - who: [users]\n        if: |\n          auth.uid == 'x' ||\n          \"a\" in auth.token.roles\n"
	for _, tt := range []struct{ text, want string }{
		// A quote that ends before the value does.
		{routes + "    allow:\n      - if: «\"admin\" in auth.token.roles\n" + after, hintQuoteEnd},
		{routes + "    allow:\n      - who: [users]\n        if: «'admin' in auth.token.roles\n      - {who: [b]}\n" + after, hintQuoteEnd},
		{routes + "    allow: [{if: «\"a\" in auth.token.roles}]\n" + after, hintQuoteEnd},
		{routes + "    upstream: «\"a\" c\n    id: x\n", hintQuoteEnd},
		{routes + "    upstream: «\"a\" c\n\n    # words\n    b: x\n", hintQuoteEnd},
		// Values that need quotes within {…} and […].
		{routes + "    allow:\n      - who: [users]\n        org: {id: «${params.org}, role: [admin]}\n" + after, hintFlow},
		{routes + "    allow:\n      - {who: [users], if: «auth.uid in ['a','b']}\n" + after, hintFlow},
		{routes + "    allow:\n      - {who: [users], if: «request.ip == '' ? true : false}\n" + after, hintFlow},
		{routes + "  - {id: b, path: «/v1/{rest...}, methods: [GET], upstream: app, allow: public}\n" + after, hintFlow},
		{routes + "    object: {key: «{uid}/x, bucket: b}\n", hintClosed},
		{"name: «[a] in b\nroutes: x\n", hintClosed},
		// Quotes and brackets that are left open.
		{routes + "    limit: {rate: 1/s, per: «\"uid}\n" + after, hintOpen},
		{routes + "    path: «\"/a\n" + after, hintOpen},
		{routes + "    path: «\"/a\n    b: c\n", hintOpen},
		{routes + "    allow: «[{who: [users]}\n" + after, "is not closed before line"},
		{routes + "    limit: «{rate: 1/s, per: uid\n" + after, "is not closed before line"},
		{routes + "    hosts: «[a]]\n" + after, hintClosed},
		// Indentation.
		{routes + "   «methods: [GET]\n" + after, hintIndent},
		{routes + "  «id: b\n    path: /b\n" + after, hintIndent},
		{routes + "     «upstream: app\n" + after, hintDeeper},
		{"claims:\n  roles: list(string)\n «b: c\n", hintIndent},
		{routes + "«\tb: c\n", hintTab},
		{routes + "    «\tb: c\n", hintTab},
		// Characters.
		{routes + "    allow:\n      - if: «!has(auth.token.x) && true\n" + after, hintBang},
		{routes + "    allow:\n      - if: «!request.host.startsWith(\"x\")\n" + after, hintBang},
		{routes + "    upstream: «@app\n" + after, hintBegin},
		{routes + "    upstream: «%app\n" + after, hintBegin},
		{routes + "    if: «a ? b : c\n" + after, hintColon},
		{routes + "    upstream: «*secret\n" + after, hintAlias},
		{routes + "    upstream: «*secret\n", hintAlias},
		{routes + "    <<: «*secret\n" + after, hintMerge},
		{"a: \x01\n", "control characters are not allowed"},
		{"a: b\n«c: \x01\n", "control characters are not allowed"},
	} {
		for _, text := range []string{tt.text, strings.ReplaceAll(tt.text, "\n", "\r\n")} {
			line, column := placeOfMark(text)
			d := New("t.yaml", nil)
			d.Parse([]byte(strings.Replace(text, "«", "", 1)), testVersion)
			err := fmt.Sprint(d.Err())
			if line > 0 && !strings.HasPrefix(err, fmt.Sprintf("t.yaml:%d:%d: ", line, column)) || !strings.Contains(err, tt.want) {
				t.Errorf("got  %s\nwant %d:%d %s\nin\n%s", err, line, column, tt.want, text)
			}
			if strings.Contains(err, "secret") {
				t.Errorf("the value shows: %v", err)
			}
		}
	}
}

func placeOfMark(text string) (line, column int) {
	before, _, ok := strings.Cut(text, "«")
	if !ok {
		return 0, 0
	}
	lines := strings.Split(before, "\n")
	return len(lines), len([]rune(lines[len(lines)-1])) + 1
}

// TestSyntaxShowsNothing: sidegate.yaml may hold secrets, and so what breaks it.
func TestSyntaxShowsNothing(t *testing.T) {
	quoted := regexp.MustCompile("[^-a-z]hunter2|hunter2[^-a-z]")
	for _, value := range []string{"\"hunter2\" hunter2", "!hunter2\"", "*hunter2", "&hunter2 *hunter2", "{hunter2", "hunter2: hunter2", "'hunter2", "@hunter2", "%hunter2", "\thunter2: [", "[hunter2}", "|hunter2", "> hunter2 hunter2", "!<hunter2", "!hunter2!hunter2 x", "hunter2]\n hunter2: b", "{a: hunter2{b}}"} {
		for _, form := range []string{"key: %s\n", "key: {a: %s}\n", "key: [%s]\nb: c\n", "- %s\nb: c\n", "%s\n", "%%%s\n"} {
			d := New("t.yaml", nil)
			d.Parse(fmt.Appendf(nil, form, value), testVersion)
			for _, e := range d.errs {
				if strings.HasPrefix(e.Text, "not YAML") && quoted.MatchString(e.Text) {
					t.Errorf("%q shows in %s", value, e)
				}
			}
		}
	}
}
