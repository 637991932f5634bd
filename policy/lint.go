package policy

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"sidegate/policy/document"
)

// Severities of findings.
const (
	SeverityError   = "error"   // Load refuses the policy
	SeverityWarning = "warning" // it loads, and may not be what was meant
)

// A Finding is what lint says of a place in a policy. Line and Column count
// from 1; Line 0 means the file as a whole.
type Finding struct {
	ID       string `json:"id,omitempty"` // SGnnn; errors of form have none
	Severity string `json:"severity"`
	File     string `json:"file"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Text     string `json:"text"`
}

// LintOptions is what Lint knows beside the policy.
type LintOptions struct {
	// Env is what sidegate.yaml defines; nil: names are not checked.
	Env *Environment
	// Now is the moment that the age of trials counts to. The zero Time: no
	// trial is too old.
	Now time.Time
	// Untested says, by guard's id or route/entry, what tests never saw of a
	// rule: "true", "false" or "either". Nil: tests were not asked.
	Untested map[string]string
}

// lintIDs are the warnings of Lint. The numbers never change.
var lintIDs = []string{
	"SG101", "SG102", "SG103", "SG104", "SG105", "SG106", "SG107", "SG108", "SG109",
	"SG110", "SG111", "SG112", "SG113", "SG114", "SG115", "SG116", "SG117", "SG118", "SG120", "SG121",
}

// Lint says what is wrong with a policy and, where nothing is, what in it may
// not be what was meant, in the order of the file. name is the file's name as
// it is to stand in findings.
func Lint(name string, data []byte, o LintOptions) []Finding {
	p, l, err := load(name, data, o.Env)
	if err != nil {
		return errorFindings(name, err)
	}
	t := &linter{p: p, l: l, o: o, name: name}
	t.entries()
	t.conditions()
	t.routes()
	t.unused()
	t.tests()
	t.cases()
	t.hosts()
	t.ignore()
	slices.SortStableFunc(t.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Text, b.Text))
	})
	return slices.Compact(t.found)
}

var numbered = regexp.MustCompile(`(?s)^(SG\d{3}) (.*)$`)

func errorFindings(name string, err error) []Finding {
	var all document.Errors
	if !errors.As(err, &all) {
		return []Finding{{Severity: SeverityError, File: name, Text: err.Error()}}
	}
	out := make([]Finding, len(all))
	for i, e := range all {
		out[i] = Finding{Severity: SeverityError, File: e.File, Line: e.Line, Column: e.Column, Text: e.Text}
		if m := numbered.FindStringSubmatch(e.Text); m != nil {
			out[i].ID, out[i].Text = m[1], m[2]
		}
	}
	return out
}

// A linter looks at one loaded policy.
type linter struct {
	p     *Policy
	l     *loader
	o     LintOptions
	name  string
	found []Finding
}

// warn adds a finding at a value's place.
func (t *linter) warn(at document.Value, id, format string, args ...any) {
	line, column := at.Position()
	t.warnAt(line, column, id, format, args...)
}

func (t *linter) warnAt(line, column int, id, format string, args ...any) {
	t.found = append(t.found, Finding{ID: id, Severity: SeverityWarning, File: t.name, Line: line, Column: column, Text: fmt.Sprintf(format, args...)})
}

// at is the place of a route's key, or of the route where the key is absent.
func (t *linter) at(r *Route, key string) document.Value {
	whole := t.l.places[r]
	if v := whole.At(key); v.Present() {
		return v
	}
	return whole
}

// A ruleAt is a guard's or an entry's condition, with what is around it.
type ruleAt struct {
	cond  *condition
	whole document.Value // the guard or entry
	path  *pattern       // whose captures it may read
}

// rules are all guards and entries, in the order of the file's sections.
func (t *linter) rules() []ruleAt {
	var out []ruleAt
	for _, g := range t.l.guards {
		path := g.path
		if path == nil {
			path = &pattern{}
		}
		out = append(out, ruleAt{g.cond, g.at, path})
	}
	for _, r := range t.p.Routes {
		for _, e := range r.entries {
			out = append(out, ruleAt{e, e.facts.at, &r.path})
		}
	}
	return out
}
