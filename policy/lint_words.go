package policy

import (
	"regexp/syntax"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"

	"sidegate/policy/document"
)

// patterns is SG120: a regular expression that a part of the text can satisfy.
// In other languages of rules matches() is of the whole, here it is RE2's search.
func (t *linter) patterns(x ruleAt) {
	e := x.cond.facts.expr
	compiled := e.ast.NativeRep()
	var walk func(ast.Expr)
	walk = func(part ast.Expr) {
		if literal, ok := patternOf(part); ok && !whole(literal) {
			at := compiled.SourceInfo().GetStartLocation(part.ID())
			column := placeIn(e.text, at.Line(), at.Column()).name() + 1
			line, column := x.cond.facts.at.Field("if").PositionIn(at.Line(), column)
			t.warnAt(line, column, "SG120", "matches() is true where a part of the text fits: write ^ at the start and $ at the end of the pattern, or .* where anything may stand")
		}
		for _, p := range partsOf(part) {
			walk(p)
		}
	}
	walk(compiled.Expr())
}

// patternOf is the pattern of a call of matches().
func patternOf(x ast.Expr) (string, bool) {
	if x.Kind() != ast.CallKind || x.AsCall().FunctionName() != "matches" || len(x.AsCall().Args()) == 0 {
		return "", false
	}
	last := x.AsCall().Args()[len(x.AsCall().Args())-1]
	if last.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := last.AsLiteral().Value().(string)
	return s, ok
}

// whole reports whether a pattern says how the text begins and how it ends, be
// it by .* in words.
func whole(pattern string) bool {
	re, err := syntax.Parse(pattern, syntax.Perl)
	return err != nil || fixed(re, syntax.OpBeginText, 0) && fixed(re, syntax.OpEndText, -1)
}

// fixed reports whether every way through re has the anchor at its end: index 0
// is the start, -1 the end.
func fixed(re *syntax.Regexp, anchor syntax.Op, index int) bool {
	switch re.Op {
	case anchor:
		return true
	case syntax.OpCapture:
		return fixed(re.Sub[0], anchor, index)
	case syntax.OpConcat:
		return fixed(re.Sub[(index+len(re.Sub))%len(re.Sub)], anchor, index)
	case syntax.OpAlternate:
		return !slices.ContainsFunc(re.Sub, func(s *syntax.Regexp) bool { return !fixed(s, anchor, index) })
	case syntax.OpStar:
		return re.Sub[0].Op == syntax.OpAnyChar || re.Sub[0].Op == syntax.OpAnyCharNotNL
	}
	return false
}

// signInProviders are those of Firebase (firebase.google.com/docs/reference/rules/rules.firestore.Request#auth);
// those of SAML and OpenID Connect have names of their own behind `saml.` and `oidc.`.
var signInProviders = []string{"password", "google.com", "facebook.com", "apple.com", "github.com", "twitter.com", "microsoft.com", "yahoo.com",
	"phone", "anonymous", "custom", "gc.apple.com", "playgames.google.com"}

// providerWords are other words for some of them.
var providerWords = map[string]string{"email": "password", "sms": "phone", "anon": "anonymous", "playgames": "playgames.google.com", "gamecenter": "gc.apple.com", "x.com": "twitter.com", "saml": "saml.NAME", "oidc": "oidc.NAME"}

// providers is SG121: a sign-in provider that no token names so. Identities that
// are not Firebase's have providers of any name, so that only a near miss counts.
func (t *linter) providers(x ruleAt) {
	for _, e := range x.cond.facts.at.Field("providers").List() {
		name := e.Show()
		if meant := providerMeant(name); meant != "" {
			t.warn(e, "SG121", "no sign-in provider is called %q; did you mean %q?", name, meant)
		}
	}
}

func providerMeant(name string) string {
	lower := strings.ToLower(name)
	switch {
	case slices.Contains(signInProviders, name):
		return ""
	case slices.Contains(signInProviders, lower+".com"):
		return lower + ".com"
	case providerWords[lower] != "":
		return providerWords[lower]
	}
	return document.Near(name, signInProviders)
}
