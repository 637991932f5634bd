package document

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

var (
	yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(.*)`)
	// A secret that starts with `*` reads as an alias, and the library would
	// show it.
	unknownAlias = regexp.MustCompile(`^unknown anchor .*`)
	// fromParser are mistakes whose line the library counts from 0, and which is
	// that of what they stand in: where it begins, not where it goes wrong.
	fromParser = regexp.MustCompile(`^(did not find expected (<.*|key|node content|'-' indicator|',' or '[]}]')|found (undefined|duplicate|incompatible) )`)
)

// Hints for the usual causes. None shows a part of the line: sidegate.yaml may
// hold secrets.
const (
	hintTab      = "a tab cannot indent: write spaces"
	hintBang     = "an expression that begins with `!` needs quotes, since YAML takes it for a tag: put the whole of it in quotes, or write it in a line of its own behind `|`"
	hintAnchor   = "a value cannot begin with `&`: quote it"
	hintBegin    = "a value cannot begin with %, @ or `: quote it"
	hintQuoteEnd = "a value that begins with a quote ends at the next one: put the whole of it in quotes of the other kind, as 'a \"b\" c', or write it in a line of its own behind `|`"
	hintOpen     = "the quote that begins here does not end in this line"
	hintFlow     = "within {…} and […] a value that holds any of { } [ ] or `,` or `: ` needs quotes, also one with ${…}"
	hintClosed   = "a value that begins with { or [ ends at the bracket that closes it: quote it where it is text"
	hintColon    = "a value that holds `: ` needs quotes"
	hintDeeper   = "this line is indented deeper than the one above it, whose key has a value already: keys of one mapping begin in one column"
	hintIndent   = "the indentation fits none of the lines above it: keys of one mapping begin in one column, and each item of a list with `- `"
	hintAlias    = "an alias without an anchor (quote a value that starts with `*`)"
	hintMerge    = "YAML aliases and merge keys are not allowed: write the keys where they are used"
)

// addSyntax adds a mistake that the YAML library found in data.
func (d *Document) addSyntax(err error, data []byte) {
	m := yamlLine.FindStringSubmatch(err.Error())
	s := syntax{text: m[2]}
	s.line, _ = strconv.Atoi(m[1])
	if utf8.Valid(data) {
		s.lines = strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	}
	if unknownAlias.MatchString(s.text) {
		s.text = hintAlias
	}
	s.find(data)
	d.add(s.line, s.column, "not YAML: "+s.text)
}

// A syntax is a mistake of form while its place and its cause are looked for.
type syntax struct {
	line, column int
	text         string
	lines        []string // nil where they are no UTF-8
}

// find says where the mistake is and, where that can be seen, what to do.
func (s *syntax) find(data []byte) {
	begins := s.line // of what the mistake stands in
	parser := fromParser.MatchString(s.text)
	if parser {
		begins++
	}
	if parser || s.line == 0 {
		s.line = s.readLine(data)
	}
	if s.line == 0 {
		return
	}
	s.column = 1
	if s.line > len(s.lines) {
		return
	}
	text := s.lines[s.line-1]
	s.column = len([]rune(text)) - len([]rune(strings.TrimLeft(text, " "))) + 1
	if s.text == hintAlias {
		s.alias()
		return
	}
	switch {
	case s.text == notAllowedHere:
		begins = 1
	case !parser:
		begins = s.line
	}
	if s.openQuote(begins) {
		return
	}
	s.hint(text, begins)
}

// readUntil is how many bytes the library reads before it gives up, or comes to
// the end. It is given them one by one, so that this is where it noticed, but
// for what it looks ahead.
func readUntil(parts ...[]byte) (read int, err error) {
	var all []io.Reader
	for _, p := range parts {
		all = append(all, bytes.NewReader(p))
	}
	one := &oneByOne{from: io.MultiReader(all...)}
	dec := yaml.NewDecoder(one)
	for {
		var n yaml.Node
		if err := dec.Decode(&n); errors.Is(err, io.EOF) {
			return one.count, nil
		} else if err != nil {
			return one.count, err
		}
	}
}

type oneByOne struct {
	from  io.Reader
	count int
}

func (o *oneByOne) Read(p []byte) (int, error) {
	n, err := o.from.Read(p[:min(1, len(p))])
	o.count += n
	return n, err
}

// Bounds of how the true line is looked for.
const (
	maxSteps    = 8 // lines that two tokens and their comments can lie back
	maxStepFile = 1 << 20
)

// readLine is the first line with which the file can no longer be YAML. The
// library looks two tokens ahead, over the ends of lines too, so that it is the
// one in which the library stopped, or one above.
func (s *syntax) readLine(data []byte) int {
	read, _ := readUntil(data)
	head := data[:min(read, len(data))]
	line := bytes.Count(head, []byte("\n")) + 1
	if n := len(head); n > 0 && head[n-1] == '\n' {
		line-- // its end was read, and no more
	}
	for range maxSteps {
		above := s.above(line)
		if above == line || len(data) > maxStepFile || !impossible(linesOf(data, above)) {
			break
		}
		line = above
	}
	return line
}

// linesOf are the first n lines.
func linesOf(data []byte, n int) []byte {
	end := 0
	for range n {
		i := bytes.IndexByte(data[end:], '\n')
		if i < 0 {
			return data
		}
		end += i + 1
	}
	return data[:end]
}

// impossible reports whether nothing can follow this start of a file: not its
// end, nor what would go on in brackets or in quotes. What follows is many short
// tokens, so that the library does not come to their end by looking ahead.
func impossible(start []byte) bool {
	if _, err := readUntil(start); err == nil {
		return false
	}
	for _, more := range []string{`"x", `, `, "x"`, `'x', `, `, 'x'`} {
		more = strings.Repeat(more, 8)
		if read, _ := readUntil(start, []byte(more)); read == len(start)+len(more) {
			return false
		}
	}
	return true
}

// above is the next line above that is neither blank nor a comment.
func (s *syntax) above(line int) int {
	for n := line - 1; n >= 1 && n <= len(s.lines); n-- {
		if text := strings.TrimSpace(s.lines[n-1]); text != "" && text[0] != '#' {
			return n
		}
	}
	return line
}

var aliasForm = regexp.MustCompile(`(?:^|[\s\[{,])(\*)[^\s\[\]{},*]`)

// alias finds the alias that the library stopped at: the last one that it read.
func (s *syntax) alias() {
	for n := s.line; n >= 1; n-- {
		text := s.lines[n-1]
		all := aliasForm.FindAllStringSubmatchIndex(text, -1)
		if all == nil {
			continue
		}
		s.line, s.column = n, utf8.RuneCountInString(text[:all[len(all)-1][2]])+1
		if strings.HasPrefix(strings.TrimSpace(text), "<<") {
			s.text = hintMerge
		}
		return
	}
}

// notAllowedHere is the library's word for a `: ` too many.
const notAllowedHere = "mapping values are not allowed in this context"

// maxQuote is how far back a quote that was left open is looked for.
const maxQuote = 50

// openQuote finds a line above whose quote goes on to where the library
// stopped.
func (s *syntax) openQuote(begins int) bool {
	for n := s.line - 1; n >= max(begins, s.line-maxQuote, 1); n-- {
		if h := scanLine(s.lines[n-1]); h.text == hintOpen {
			s.line, s.column, s.text = n, h.column, h.text
			return true
		}
	}
	return false
}

// hint looks for the usual causes in the line, and then in the one in which
// what it stands in begins.
func (s *syntax) hint(text string, begins int) {
	for n := s.line; n <= min(s.line+1, len(s.lines)); n++ { // the library names the line before
		text := strings.TrimLeft(s.lines[n-1], " ")
		if strings.HasPrefix(text, "\t") && strings.TrimSpace(text) != "" && (n == s.line || strings.Contains(s.text, "tab")) {
			s.line, s.column, s.text = n, len(s.lines[n-1])-len(text)+1, hintTab
			return
		}
	}
	h := scanLine(text)
	unclosed := strings.HasPrefix(s.text, "did not find expected ',' or ")
	switch {
	case h.text != "":
		s.column, s.text = h.column, h.text
	case s.text == notAllowedHere:
		s.text = hintDeeper
	case s.text == "did not find expected key", s.text == "did not find expected '-' indicator":
		s.text = hintIndent
	case unclosed && begins >= 1 && begins < s.line:
		if h := scanLine(s.lines[begins-1]); h.open > 0 {
			s.text = "a { or [ that begins here is not closed before line " + strconv.Itoa(s.line) + ", and what stands there cannot stand within it"
			s.line, s.column = begins, h.open
		}
	}
}

// A lineHint is a usual mistake in a line; no text: none was seen. open is the
// column of the innermost bracket that the line leaves open.
type lineHint struct {
	column int
	text   string
	open   int
}

// A lineScan reads one line as YAML, as far as that can be done without those
// around it.
type lineScan struct {
	text   []rune
	at     int
	begins int   // the column of what is read
	open   []int // columns of brackets
	keyed  bool  // a key of the block was read
}

func scanLine(text string) lineHint {
	s := &lineScan{text: []rune(strings.TrimRight(text, "\r"))}
	for {
		s.blanks()
		for len(s.open) == 0 && !s.keyed && s.is('-') && s.blankAt(s.at+1) {
			s.at++
			s.blanks()
		}
		if s.ended() {
			break
		}
		start := s.at
		s.begins = start + 1
		if hint := s.node(); hint != "" {
			return lineHint{column: s.begins, text: hint}
		}
	}
	out := lineHint{}
	if len(s.open) > 0 {
		out.open = s.open[len(s.open)-1]
	}
	return out
}

func (s *lineScan) is(r rune) bool { return s.at < len(s.text) && s.text[s.at] == r }

func (s *lineScan) blankAt(i int) bool {
	return i >= len(s.text) || s.text[i] == ' ' || s.text[i] == '\t'
}

func (s *lineScan) blanks() {
	for s.at < len(s.text) && s.blankAt(s.at) {
		s.at++
	}
}

// ended reports whether nothing but a comment is left.
func (s *lineScan) ended() bool {
	return s.at >= len(s.text) || s.is('#') && (s.at == 0 || s.blankAt(s.at-1))
}

// node reads a key or a value, or a bracket.
func (s *lineScan) node() string {
	switch r := s.text[s.at]; r {
	case '"', '\'':
		return s.quoted(r)
	case '!':
		return hintBang
	case '&':
		if s.at+1 < len(s.text) && !isWord(s.text[s.at+1]) {
			return hintAnchor
		}
	case '%', '@', '`':
		return hintBegin
	case '|', '>':
		if len(s.open) == 0 {
			s.at = len(s.text)
			return ""
		}
	case '{', '[':
		s.at++
		s.open = append(s.open, s.at)
		return ""
	case '}', ']':
		if n := len(s.open); n > 0 {
			s.begins, s.open = s.open[n-1], s.open[:n-1]
		}
		s.at++
		return s.after(hintClosed)
	case ',':
		s.at++
		return ""
	}
	return s.plain()
}

func isWord(r rune) bool {
	return r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

func (s *lineScan) quoted(quote rune) string {
	for s.at++; s.at < len(s.text); s.at++ {
		switch {
		case quote == '"' && s.is('\\'):
			s.at++
		case !s.is(quote):
		case quote == '\'' && s.at+1 < len(s.text) && s.text[s.at+1] == quote:
			s.at++
		default:
			s.at++
			return s.after(hintQuoteEnd)
		}
	}
	return hintOpen
}

// after looks at what follows a value that has an end of its own: otherwise is
// for what cannot follow one.
func (s *lineScan) after(otherwise string) string {
	s.blanks()
	switch {
	case s.ended():
	case s.is(':') && (s.blankAt(s.at+1) || len(s.open) > 0):
		s.at++
		s.keyed = true
	case len(s.open) > 0 && slices.Contains([]rune("]},"), s.text[s.at]):
	default:
		return otherwise
	}
	return ""
}

// plain reads a key or a value without quotes.
func (s *lineScan) plain() string {
	flow := len(s.open) > 0
	valued := s.afterColon()
	for ; s.at < len(s.text); s.at++ {
		switch {
		case s.is('#') && s.blankAt(s.at-1):
			return ""
		case s.is(':') && s.blankAt(s.at+1):
			if valued && flow {
				return hintFlow
			}
			if valued {
				return hintColon
			}
			s.at++
			s.keyed = true
			return ""
		case !flow:
		case s.is(','), s.is('}'), s.is(']'):
			return ""
		case s.is('{'), s.is('['):
			return hintFlow
		}
	}
	return ""
}

// afterColon reports whether what begins here is the value of a key in this
// line.
func (s *lineScan) afterColon() bool {
	i := s.at - 1
	for i >= 0 && s.blankAt(i) {
		i--
	}
	return i >= 0 && i < s.at-1 && s.text[i] == ':'
}
