package trial

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"sidegate/policy"
	"sidegate/proxy"
	"sidegate/storage/audit"
)

var errUnavailable = errors.New("the fixture says that it is unavailable")

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// A Result is what became of one case.
type Result struct {
	File         string
	Test         string
	Line, Column int
	Case         string // in a line
	Failure      string // "": it passed
}

// Run runs the cases of a test file against its policy, each with fresh limits,
// and tells seen of every decision.
func (g *Gate) Run(f *File, seen func(*proxy.Judgement)) []Result {
	var out []Result
	for _, t := range f.Tests {
		for i := range t.Cases {
			c := &t.Cases[i]
			out = append(out, Result{File: f.Name, Test: t.Name, Line: c.Line, Column: c.Column, Case: c.String(), Failure: g.run(c, seen)})
		}
	}
	return out
}

// String is a case as people would say it.
func (c *Case) String() string {
	out := c.Request.Method + " " + c.Request.Target + " as " + c.As
	if c.Times > 1 {
		out += fmt.Sprintf(", %d times", c.Times)
	}
	return out
}

// caseBudgets is room for the budgets of one case: with less, a Limiter may
// forget one of them for another.
const caseBudgets = 1 << 14

func (g *Gate) run(c *Case, seen func(*proxy.Judgement)) string {
	q := c.Request
	q.Limits = policy.NewLimiter(caseBudgets)
	var j proxy.Judgement
	for range c.Times {
		j = g.Judge(&q)
		if seen != nil {
			seen(&j)
		}
	}
	if problem := c.Expect.differs(&j); problem != "" {
		return problem + because(&j)
	}
	return ""
}

// differs says what of a judgement was not expected; "" where all was.
func (e *Expectation) differs(j *proxy.Judgement) string {
	if j.Allow != e.Allow || (!j.Allow && j.Status != e.Status) {
		return "got " + Outcome(j) + ", want " + e.outcome()
	}
	switch {
	case e.By != "" && !decidedBy(j, e.By):
		return "got " + Outcome(j) + ", want it by " + e.By
	case e.Reason != "" && e.Reason != j.Code:
		return "got the reason " + j.Code + ", want " + e.Reason
	}
	if e.Key != "" {
		if ok, err := path.Match(e.Key, j.Key); !ok || err != nil {
			return fmt.Sprintf("got the key %q, want %q", j.Key, e.Key)
		}
	}
	for _, rule := range sortedKeys(e.Shadow) {
		if got := j.Shadow[rule]; got != e.Shadow[rule] {
			if got == "" {
				got = "nothing (it does not match the request, or was not reached)"
			}
			return fmt.Sprintf("shadow %s: got %s, want %s", rule, got, e.Shadow[rule])
		}
	}
	return ""
}

// decidedBy reports whether the rule decided: a route's id stands for any of
// its entries.
func decidedBy(j *proxy.Judgement, by string) bool {
	if j.Rule == by {
		return true
	}
	r := j.Input.Route
	return r != nil && r.ID == by && (j.Rule == "" || strings.HasPrefix(j.Rule, by+"/"))
}

func (e *Expectation) outcome() string {
	out := "allow"
	switch {
	case e.Allow:
	case e.Status == 403:
		out = "deny (403)"
	default:
		out = fmt.Sprint(e.Status)
	}
	if e.By != "" {
		out += " by " + e.By
	}
	return out
}

// Outcome is a judgement in a few words.
func Outcome(j *proxy.Judgement) string {
	out := "allow"
	switch {
	case j.Allow:
	case j.Status == 403:
		out = "deny (403 " + j.Code + ")"
	default:
		out = fmt.Sprintf("%d %s", j.Status, j.Code)
	}
	if j.Rule != "" {
		out += " by " + j.Rule
	}
	return out
}

// because says why nothing allowed a request, or what is wrong with it.
func because(j *proxy.Judgement) string {
	if j.Allow || j.Input.Route == nil {
		if j.Detail != "" {
			return "\n" + j.Detail
		}
		return ""
	}
	var out strings.Builder
	if j.Field != "" || j.Status == 413 || j.Status == 415 || j.Status == 429 || j.Status == 400 || j.Status == 401 {
		fmt.Fprintf(&out, "\n%s", j.Detail)
		return out.String()
	}
	x := j.Policy.Explain(&j.Input)
	for _, t := range slices.Concat(x.Guards, x.Entries) {
		if t.Why != "" || t.Kind == "deny" && t.Result == policy.Hit {
			fmt.Fprintf(&out, "\n%s %s: %s", t.Kind, t.Rule, t.Result)
			if t.Why != "" {
				fmt.Fprintf(&out, ": %s", audit.Printable(t.Why))
			}
		}
	}
	return out.String()
}
