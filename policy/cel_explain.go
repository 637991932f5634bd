package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/common"

	"sidegate/policy/document"
)

// A celMistake is a mistake in a condition's text: line and column count from 1.
type celMistake struct {
	line, column int
	text         string
}

// mistakes puts cel-go's words for what is wrong with a condition into ours.
func (t *celTypes) mistakes(text string, all []*common.Error) []celMistake {
	if slices.ContainsFunc(all, func(e *common.Error) bool { return strings.HasPrefix(e.Message, syntaxError) }) {
		return []celMistake{syntaxMistake(text, all[0])} // the others follow from it
	}
	var out []celMistake
	for _, e := range all {
		at := placeIn(text, e.Location.Line(), e.Location.Column())
		message, _, _ := strings.Cut(e.Message, "\n")
		column := at.column + 1
		if undefinedField.MatchString(message) || undeclared.MatchString(message) {
			column = at.name() + 1
		}
		out = append(out, celMistake{e.Location.Line(), column, t.explain(message, at)})
	}
	return out
}

// A celPlace is a place in the text of a condition; its column counts from 0.
type celPlace struct {
	line   []rune
	column int
}

func placeIn(text string, line, column int) celPlace {
	lines := strings.Split(text, "\n")
	if line < 1 || line > len(lines) {
		return celPlace{}
	}
	whole := []rune(lines[line-1])
	return celPlace{whole, min(max(column, 0), len(whole))}
}

func (p celPlace) before() string { return string(p.line[:p.column]) }
func (p celPlace) after() string  { return string(p.line[p.column:]) }

// group is the dotted name that ends before the place: of has(a.b.c), whose
// place is that of its parenthesis, that in it.
func (p celPlace) group() string {
	if m := argument.FindStringSubmatch(p.after()); m != nil {
		return m[1]
	}
	return lastName.FindString(strings.TrimRight(p.before(), " "))
}

// name is where the name begins that cel-go means by its dot or parenthesis.
func (p celPlace) name() int {
	after := p.after()
	switch {
	case strings.HasPrefix(after, "."):
		return p.column + 1 + len(after[1:]) - len(strings.TrimLeft(after[1:], " "))
	case argument.MatchString(after):
		m := argument.FindStringSubmatchIndex(after)
		return p.column + m[3] + 1
	case strings.HasPrefix(after, "("):
		before := strings.TrimRight(p.before(), " ")
		return len([]rune(before)) - len(lastWord.FindString(before))
	}
	return p.column
}

var (
	lastName = regexp.MustCompile(`[A-Za-z0-9_.]*$`)
	lastWord = regexp.MustCompile(`[A-Za-z0-9_]*$`)
	argument = regexp.MustCompile(`^\(\s*([A-Za-z0-9_.]+)\.[A-Za-z0-9_]+\s*\)`)

	undefinedField = regexp.MustCompile(`^undefined field '([^']*)'`)
	undeclared     = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	noOverload     = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(?:(.*)\.)?\((.*)\)'`)
	wantedType     = regexp.MustCompile(`^expected type '([^']*)' but found '([^']*)'`)
	unselectable   = regexp.MustCompile(`^type '([^']*)' does not support field selection`)
)

// explain says what one mistake is, but for those of syntax.
func (t *celTypes) explain(message string, at celPlace) string {
	if m := undefinedField.FindStringSubmatch(message); m != nil {
		return t.undeclaredName(at.group(), m[1])
	}
	if m := undeclared.FindStringSubmatch(message); m != nil {
		return "`if`: " + t.undeclaredRoot(m[1], strings.HasPrefix(at.after(), "("))
	}
	if m := noOverload.FindStringSubmatch(message); m != nil {
		return "`if`: " + overload(m[1], plainTypes(m[2]), typeList(m[3]), at)
	}
	if m := unselectable.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("`if`: this is a %s, and has no fields", plainTypes(m[1]))
	}
	if m := wantedType.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("`if`: %s is needed here, and this is %s", an(plainTypes(m[1])), an(plainTypes(m[2])))
	}
	switch {
	case strings.HasPrefix(message, "regex program size"):
		return fmt.Sprintf("`if`: the regular expression is too large (its program may have %d instructions): shorten it, above all counts such as {1,128}", maxRegex)
	case strings.HasPrefix(message, "error parsing regexp"):
		return "`if`: " + plainer["invalid matches argument"]
	}
	if better, ok := plainer[message]; ok {
		return "`if`: " + better
	}
	return "`if`: " + plainTypes(message)
}

// plainer says in words what cel-go says of arguments.
var plainer = map[string]string{
	"invalid matches argument":            "the regular expression is malformed (RE2 syntax)",
	"invalid duration argument":           "the duration is malformed: write it as 300s, 5m or 2h",
	"invalid timestamp argument":          "the time is malformed: write it as RFC 3339 does, 2026-03-02T10:00:00Z",
	"comprehension exceeds nesting limit": "a loop (exists, all, map, filter) within another: what it costs has no small bound",
}

func plainTypes(s string) string { return strings.ReplaceAll(s, "sidegate.", "") }

// typeList are the types of a call's arguments.
func typeList(s string) []string {
	var out []string
	depth, start := 0, 0
	for i, r := range s {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				out = append(out, plainTypes(strings.TrimSpace(s[start:i])))
				start = i + 1
			}
		}
	}
	return append(out, plainTypes(strings.TrimSpace(s[start:])))
}

// habits are names that other languages of rules have, and what is written here
// instead. Keys are a group and a name.
var habits = map[string]string{
	"request.auth":     "write `auth.uid` and so on: `auth` stands on its own here",
	"request.resource": "there are no documents that a request writes: of uploads there are `object.size` and `object.content_type`; bodies cannot be read",
	"request.query":    noBody, "request.headers": noBody, "request.body": noBody, "request.url": noBody, "request.cookies": noBody,
	"request.params":            "captures of the path stand on their own here: write `params.NAME`",
	"auth.token.email":          "write `auth.email`, with `verified_email: true` beside it",
	"auth.token.email_verified": "write `verified_email: true` beside `if`, or `auth.email_verified`",
	"auth.token.sub":            "write `auth.uid`",
	"auth.token.user_id":        "write `auth.uid`",
	"auth.token.uid":            "write `auth.uid`",
	"auth.token.auth_time":      "write `auth.auth_time`, or `signed_in: 15m` beside `if`",
	"auth.token.firebase":       "write `providers: [password]` and so on beside `if`, `mfa: 15m`, or `auth.provider` and `auth.tenant`",
	"object.contentType":        "write `object.content_type`",
	"object.name":               "write `object.key`",
	"object.prefix":             "write `object.key`: of list_objects it is the prefix",
	"request.key":               "write `object.key`: of presign_downloads it is the key that the body names",
}

const noBody = "a condition sees no query, header or body; there are `request.method`, `host`, `path`, `ip` and `time`"

// undeclaredName says what to do about a name that a group does not have.
func (t *celTypes) undeclaredName(group, name string) string {
	words := keysOf(t.fields["sidegate."+group])
	say := func(id, what, where string) string {
		return fmt.Sprintf("%s`if`: %s `%s` is not there; %s%s", id, what, name, where, document.DidYouMean(name, words))
	}
	if habit, ok := habits[group+"."+name]; ok {
		return fmt.Sprintf("`if`: there is no `%s.%s` here: %s", group, name, habit)
	}
	switch kind, lookup, _ := strings.Cut(group, "."); {
	case group == "auth.token":
		words = keysOf(t.fields[typeToken])
		return say("SG003 ", "claim", "declare it under `claims`")
	case group == "vars":
		return say("SG003 ", "variable", "add it under `vars`")
	case group == "params":
		return say("SG003 ", "capture", "the path has none of that name")
	case group == "lookup":
		return say("SG003 ", "lookup", "declare it under `lookups`")
	case kind == "lookup":
		return say("SG003 ", "field", "declare it under `fields` of lookup `"+lookup+"`")
	case len(words) == 0:
		words = t.all()
	}
	return fmt.Sprintf("`if`: there is no `%s` here%s", name, document.DidYouMean(name, words))
}

// functions are those that conditions have, by how they are called.
var functions = []string{"contains", "startsWith", "endsWith", "matches", "size", "has", "exists", "exists_one", "all", "map", "filter",
	"int", "double", "string", "bool", "timestamp", "duration",
	"getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getHours", "getMinutes", "getSeconds", "getMilliseconds"}

// functionHabits are functions of other languages of rules.
var functionHabits = map[string]string{
	"get": noGet, "getAfter": noGet, "existsAfter": noGet,
	"exists":  "`exists` is for lists, as auth.token.roles.exists(r, r == \"a\"); documents are declared under `lookups`, and has(lookup.NAME) says whether one exists",
	"hasAny":  "write auth.token.roles.exists(r, r in [\"a\", \"b\"]), or the field `roles`",
	"hasAll":  "write [\"a\", \"b\"].all(r, r in auth.token.roles), or the field `scopes`",
	"hasOnly": "write auth.token.roles.all(r, r in [\"a\", \"b\"])",
}

const noGet = "documents are declared under `lookups`, and read as lookup.NAME.FIELD"

// undeclaredRoot is for a name that begins an expression, or a function's.
func (t *celTypes) undeclaredRoot(name string, call bool) string {
	if call {
		if habit, ok := functionHabits[name]; ok {
			return fmt.Sprintf("there is no function `%s` here: %s", name, habit)
		}
		if i := slices.IndexFunc(functions, func(f string) bool { return strings.EqualFold(f, name) }); i >= 0 {
			return fmt.Sprintf("there is no function `%s`; did you mean %q?", name, functions[i])
		}
		guess := document.DidYouMean(name, functions)
		if guess == "" {
			guess = "; there are " + strings.Join(functions, ", ")
		}
		return fmt.Sprintf("there is no function `%s`%s", name, guess)
	}
	if name == "resource" {
		return "there is no `resource` here: of uploads there are `object.size`, `object.content_type` and `object.key`; bodies cannot be read, and documents are declared under `lookups`"
	}
	for _, group := range []string{"params", "auth", "vars", "object", "request"} {
		if _, ok := t.fields["sidegate."+group][name]; ok {
			return fmt.Sprintf("there is no name `%s`; did you mean \"%s.%s\"?", name, group, name)
		}
	}
	if _, ok := t.fields[typeToken][name]; ok {
		return fmt.Sprintf("there is no name `%s`; did you mean \"auth.token.%s\"?", name, name)
	}
	return fmt.Sprintf("there is no name `%s`; names begin with %s%s", name, strings.Join(roots, ", "), document.DidYouMean(name, roots))
}

// verbs are what operators do with two values.
var verbs = map[string]string{
	"_==_": "compared with", "_!=_": "compared with", "_<_": "compared with", "_<=_": "compared with", "_>_": "compared with", "_>=_": "compared with",
	"_+_": "added to", "_-_": "subtracted from", "_*_": "multiplied by", "_/_": "divided by", "_%_": "divided by",
}

var (
	bracketed = regexp.MustCompile(`^\[\s*["']([A-Za-z_][A-Za-z0-9_]*)["']\s*\]`)
	nextName  = regexp.MustCompile(`^[=!<>]*\s*([A-Za-z_][A-Za-z0-9_.]*)`)
)

// overload says why a function or an operator does not take its arguments.
func overload(function, target string, args []string, at celPlace) string {
	if len(args) == 2 && (function == "_==_" || function == "_!=_") && slices.Contains(args, "null") {
		name := at.group()
		if args[0] == "null" {
			name = ""
			if m := nextName.FindStringSubmatch(at.after()); m != nil {
				name = m[1]
			}
		}
		return nullText(function, name)
	}
	verb := verbs[function]
	switch {
	case verb != "" && len(args) == 2 && args[0] == args[1]:
		return fmt.Sprintf("one %s cannot be %s another", args[0], verb)
	case verb != "" && len(args) == 2:
		return fmt.Sprintf("%s cannot be %s %s%s", an(args[0]), verb, an(args[1]), convert(args))
	case function == "@in" && len(args) == 2 && !strings.HasPrefix(args[1], "list(") && !strings.HasPrefix(args[1], "map("):
		return fmt.Sprintf("`in` looks in a list or a map, and this is %s%s", an(args[1]), map[bool]string{true: "; for a part of a string write contains()"}[args[1] == "string"])
	case function == "@in" && len(args) == 2:
		return fmt.Sprintf("%s is never in a %s", an(args[0]), args[1])
	case function == "_[_]" && len(args) == 2:
		if m := bracketed.FindStringSubmatch(at.after()); m != nil && !strings.HasPrefix(args[0], "list(") {
			return fmt.Sprintf("a name is written with a dot: `%s.%s`", at.group(), m[1])
		}
		return fmt.Sprintf("of %s there is no element by %s", an(args[0]), an(args[1]))
	case function == "!_":
		return fmt.Sprintf("`!` needs true or false, and this is %s", an(strings.Join(args, ", ")))
	case function == "_?_:_" && len(args) == 3:
		return fmt.Sprintf("what stands before and after `:` must be of one type, not %s and %s", an(args[1]), an(args[2]))
	case target != "":
		return fmt.Sprintf("%s() is not for %s with (%s)", function, an(target), strings.Join(args, ", "))
	case len(args) > 1 && slices.Contains([]string{"startsWith", "endsWith", "contains", "matches"}, function):
		return fmt.Sprintf("write a.%s(b), not %s(a, b)", function, function)
	}
	return fmt.Sprintf("%s() does not take (%s)", function, strings.Join(args, ", "))
}

// nullText is for a comparison with null: nothing here is ever null.
func nullText(function, name string) string {
	if name == "auth" || name == "auth.token" {
		return "nothing is null here: an entry of `allow` is only for who has a token; leave this out"
	}
	has := "has()"
	if strings.Contains(name, ".") {
		has = "has(" + name + ")"
	}
	if function == "_==_" {
		has = "!" + has
	}
	return fmt.Sprintf("nothing is null here: what is not there is absent; write %s", has)
}

func an(kind string) string {
	if kind == "int" {
		return "an int"
	}
	return "a " + kind
}

// convert says how numbers and times are written that another type has.
func convert(args []string) string {
	has := func(kind string) bool { return slices.Contains(args, kind) }
	switch {
	case has("int") && has("double"):
		return ": write double(x), or the number with or without a point"
	case has("timestamp") && has("string"):
		return ": write timestamp(\"2026-03-02T10:00:00Z\")"
	case has("duration") && has("int"):
		return ": write duration(\"300s\")"
	case has("timestamp") && has("int"):
		return ": write a - b < duration(\"5m\")"
	}
	return ""
}

const syntaxError = "Syntax error: "

// syntaxHabits are ways to write that other languages have. Strings are blanked
// out before they are looked for.
var syntaxHabits = []struct {
	form *regexp.Regexp
	say  string // with the form's first group in place of %s
}{
	{regexp.MustCompile(`\$\{\s*([^}]*?)\s*\}`), "names stand in `if` without ${}: write `%s`"},
	{regexp.MustCompile(`\$\((\w*)\)`), "documents are declared under `lookups`, and captures are params.NAME%.0s"},
	{regexp.MustCompile(`(?:^|[^=!<>])(===?)=`), ""},
	{regexp.MustCompile(`[^=!<>](=)[^=]`), "write `=%s` to compare"},
	{regexp.MustCompile(`(!==)`), "write `!=`, not `%s`"},
	{regexp.MustCompile(`(<>)`), "write `!=`, not `%s`"},
	{regexp.MustCompile(`(?i)(?:^|[\s)])(and)(?:[\s(]|$)`), "write `&&`, not `%s`"},
	{regexp.MustCompile(`(?i)(?:^|[\s)])(or)(?:[\s(]|$)`), "write `||`, not `%s`"},
	{regexp.MustCompile(`(?i)(?:^|[\s(])(not)(?:[\s(]|$)`), "write `!`, not `%s`; of a list `!(x in y)`"},
	{regexp.MustCompile(`(?i)\s(is)\s`), "write `==`, not `%s`"},
	{regexp.MustCompile(`[^&](&)[^&]`), "write `&&`, not `%s`"},
	{regexp.MustCompile(`[^|](\|)[^|]`), "write `||`, not `%s`"},
	{regexp.MustCompile(`(?:^|[^\w.])(\d+(?:ms|[dhms]))\b`), "write duration(\"%s\")"},
	{regexp.MustCompile(`(;)`), "`%s` does not end a condition: it is one expression, joined by && and ||"},
}

// syntaxMistake is the first thing that is wrong with a condition's form.
func syntaxMistake(text string, first *common.Error) celMistake {
	blank := withoutStrings(text)
	line, column, say := 0, 0, ""
	for _, h := range syntaxHabits {
		m := h.form.FindStringSubmatchIndex(blank)
		if m == nil {
			continue
		}
		start := m[2]
		if strings.HasPrefix(h.say, "names stand") || strings.HasPrefix(h.say, "documents") {
			start = m[0]
		}
		l := strings.Count(blank[:start], "\n") + 1
		c := len([]rune(blank[strings.LastIndexByte(blank[:start], '\n')+1:start])) + 1
		if line != 0 && (l > line || l == line && c >= column) {
			continue
		}
		line, column = l, c
		if say = "write `==`, not `===`"; h.say != "" {
			say = fmt.Sprintf(h.say, blank[m[2]:m[3]])
		}
	}
	if line != 0 {
		return celMistake{line, column, "`if`: " + say}
	}
	line, column = first.Location.Line(), first.Location.Column()+1
	if end := strings.TrimRight(text, " \n"); line > strings.Count(end, "\n")+1 { // behind the last line
		line = strings.Count(end, "\n") + 1
		column = len([]rune(end[strings.LastIndexByte(end, '\n')+1:])) + 1
	}
	return celMistake{line, column, "`if`: " + unexpected(strings.TrimPrefix(first.Message, syntaxError))}
}

// withoutStrings is a condition with blanks for what its strings and comments
// hold: as many bytes, so that places stay.
func withoutStrings(text string) string {
	return stringForm.ReplaceAllStringFunc(text, func(s string) string {
		out := []byte(s)
		for i := range out {
			if out[i] != '\n' && out[i] < 0x80 {
				out[i] = ' '
			}
		}
		out[0], out[len(out)-1] = '"', '"'
		return string(out)
	})
}

var (
	stringForm   = regexp.MustCompile(`"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|//[^\n]*`)
	unexpectedAt = regexp.MustCompile(`(?s)^(?:mismatched input|extraneous input|no viable alternative at input) '(.*?)'(?: expecting.*)?$`)
	missingAt    = regexp.MustCompile(`(?s)^missing '(.*?)' at '(.*)'$`)
	notToken     = regexp.MustCompile(`(?s)^token recognition error at: '(.*)'$`)
)

// unexpected says what the parser stumbled over, without all that it would have
// taken.
func unexpected(message string) string {
	word := func(s string) string {
		if s == "<EOF>" {
			return "the end"
		}
		return "`" + strings.TrimSpace(s) + "`"
	}
	if m := unexpectedAt.FindStringSubmatch(message); m != nil {
		if m[1] == "<EOF>" {
			return "it ends where something must follow"
		}
		return "unexpected " + word(m[1])
	}
	if m := missingAt.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("`%s` is missing before %s", m[1], word(m[2]))
	}
	if m := notToken.FindStringSubmatch(message); m != nil {
		if strings.HasPrefix(m[1], "'") || strings.HasPrefix(m[1], "\"") {
			if strings.Contains(m[1], "\\") {
				return "a string that does not end, or holds a \\ that begins no escape: a \\ itself is written \\\\, or put r before the string"
			}
			return "a string that does not end"
		}
		return "unexpected " + word(m[1])
	}
	message, _, _ = strings.Cut(message, " expecting ")
	return message
}
