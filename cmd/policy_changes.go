package cmd

import (
	"fmt"
	"io"
	"strings"

	"sidegate/policy"
	"sidegate/proxy/trial"
	"sidegate/storage/audit"
)

// maxExamples bounds --limit: each change keeps so many.
const maxExamples = 1000

func checkLimit(limit int) error {
	if limit < 0 || limit > maxExamples {
		return usageError{fmt.Errorf("--limit is a number of examples from 0 to %d, not %d", maxExamples, limit)}
	}
	return nil
}

// A namedPolicy is one of those that are compared.
type namedPolicy struct {
	File   string `json:"file"`
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

func nameOf(path string, p *policy.Policy) namedPolicy {
	return namedPolicy{shortPath(absolute(path)), p.Name, p.SHA256}
}

// count is a number of things.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// showChanges writes changes with their examples; noun is what changed.
func showChanges(out *printer, changes []*trial.Change, one, many string, colour bool) {
	for _, c := range changes {
		mark := "33"
		if c.After.Allow && !c.Before.Allow {
			mark = "31" // somebody is let in
		}
		out.line("%s %s: %s -> %s", paint(colour, mark)("CHANGED"), count(c.Count, one, many), shownDecided(c.Before), shownDecided(c.After))
		if c.OtherKey {
			out.line("    another object is signed")
		}
		if c.Before.Allow && c.After.Allow && c.Before.To != c.After.To {
			out.line("    it goes to %s, and went to %s", c.After.To, c.Before.To)
		}
		for _, e := range c.Examples {
			showExample(out, e)
		}
		if more := c.Count - len(c.Examples); more > 0 && len(c.Examples) > 0 {
			out.line("    and %d more", more)
		}
	}
}

// shownDecided is a decision for a terminal: what a record says may be a
// stranger's.
func shownDecided(d trial.Decided) string { return audit.Printable(d.String()) }

func showExample(out *printer, e trial.Example) {
	line := description{}
	line.add(e.Time)
	line.add(e.As)
	line.add(e.Method)
	line.add(e.Host + e.Target)
	if e.IP != "" {
		line.add("from")
		line.add(e.IP)
	}
	if e.Record != "" {
		line.add("record=" + e.Record)
	}
	out.line("    %s", line.text)
	if len(e.With) > 0 {
		out.line("      with %s", printable(strings.Join(e.With, "; ")))
	}
	if e.KeyBefore != "" || e.KeyAfter != "" {
		out.line("      key %s, and was %s", audit.Printable(e.KeyAfter), audit.Printable(e.KeyBefore))
	}
	if e.From != "" {
		out.line("      (%s)", printable(e.From))
	}
}

// printable is text that cannot steer a terminal, with quotes as they are.
func printable(s string) string { return quotes.Replace(audit.Printable(s)) }

var quotes = strings.NewReplacer(`\"`, `"`, `\\`, `\`)

// changeText is a change in one line, for annotations and test reports.
func changeText(c *trial.Change, one, many string) string {
	return fmt.Sprintf("%s: %s -> %s", count(c.Count, one, many), shownDecided(c.Before), shownDecided(c.After))
}

// changesGithub writes an annotation for each change, at the rule of the new
// policy that it is about.
func changesGithub(out *printer, changes []*trial.Change, file, title string, rules []policy.Rule, one, many string) {
	for _, c := range changes {
		line, column := placeOf(c, rules)
		out.line("%s", githubCommand("warning", file, line, column, title, changeText(c, one, many)))
	}
}

func placeOf(c *trial.Change, rules []policy.Rule) (line, column int) {
	for _, id := range []string{c.After.Rule, c.Before.Rule} {
		for _, r := range rules {
			if r.ID == id && id != "" {
				return r.Line, r.Column
			}
		}
	}
	return 0, 0
}

// changesJUnit writes a failed case for each change, or one that passed.
func changesJUnit(w io.Writer, suite, file string, changes []*trial.Change, rules []policy.Rule, one, many string) error {
	s := junitSuite{Name: suite}
	for _, c := range changes {
		var text strings.Builder
		out := printer{w: &text}
		showChanges(&out, []*trial.Change{c}, one, many, false)
		line, _ := placeOf(c, rules)
		s.add(junitCase{Class: suite, Name: shownDecided(c.Before) + " -> " + shownDecided(c.After), File: file, Line: line,
			Failure: &junitFailure{changeText(c, one, many), text.String()}})
	}
	if len(changes) == 0 {
		s.add(junitCase{Class: suite, Name: "no decision changed", File: file})
	}
	return writeJUnit(w, []junitSuite{s})
}

// A changeList is what diff or replay found, for people and for CI systems.
type changeList struct {
	changes   []*trial.Change
	rules     []policy.Rule
	file      string // of the policy that is new
	command   string
	suite     string // its name in JUnit's XML
	one, many string // what changed
}

// write writes the list; the printer is for what comes after it.
func (c *changeList) write(p *program, format string) (printer, error) {
	out := printer{w: p.stdout}
	switch format {
	case "junit":
		out.w = p.stderr // the document is one of XML
		return out, changesJUnit(p.stdout, c.suite, c.file, c.changes, c.rules, c.one, c.many)
	case "github":
		changesGithub(&out, c.changes, c.file, c.command, c.rules, c.one, c.many)
	default:
		showChanges(&out, c.changes, c.one, c.many, p.colour(p.stdout))
	}
	return out, out.err
}
