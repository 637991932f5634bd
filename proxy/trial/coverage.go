package trial

import (
	"strings"

	"sidegate/policy"
	"sidegate/proxy"
)

// Coverage is what tests saw of each rule.
type Coverage struct {
	rules []policy.Rule
	seen  map[string][2]bool // false, true
}

// NewCoverage begins for a policy of which nothing was seen.
func NewCoverage(p *policy.Policy) *Coverage {
	return &Coverage{p.Rules(), map[string][2]bool{}}
}

// See adds a decision. Rules that were not reached were not seen: those of a
// request that was refused before, and entries behind a guard that refuses.
func (c *Coverage) See(j *proxy.Judgement) {
	c.seeNobody(j)
	if !reachedPolicy(j) {
		return
	}
	x := j.Policy.Explain(&j.Input)
	refused := false
	for _, t := range x.Guards {
		c.note(t)
		hit := t.Result == policy.Hit
		refused = refused || (!t.DryRun && (t.Result == policy.Error || hit == (t.Kind == "deny")))
	}
	if refused {
		return
	}
	for _, t := range x.Entries {
		c.note(t)
	}
}

// seeNobody adds what a request without an identity shows of the entries that
// let in everybody else: nothing else can show it. For any other entry it would
// be too little: who may not read another's files is not shown by nobody.
func (c *Coverage) seeNobody(j *proxy.Judgement) {
	if j.Code != policy.ReasonNoToken || j.Input.Route == nil {
		return
	}
	for _, r := range c.rules {
		if route, _, _ := strings.Cut(r.ID, "/"); r.AnyIdentity && route == j.Input.Route.ID {
			c.note(policy.RuleTrace{Rule: r.ID, Result: policy.Miss})
		}
	}
}

// reachedPolicy reports whether guards and entries were asked at all.
func reachedPolicy(j *proxy.Judgement) bool {
	r := j.Input.Route
	if r == nil || (r.Access == policy.AccessList && j.Input.Identity == nil) {
		return false
	}
	switch j.Code {
	case "bad_target", "bad_request", "method", "no_route":
		return j.Rule != ""
	case "rate": // before identity, where no rule is named, or after all
		return j.Rule != ""
	}
	return true
}

func (c *Coverage) note(t policy.RuleTrace) {
	s := c.seen[t.Rule]
	switch t.Result {
	case policy.Hit:
		s[1] = true
	case policy.Miss:
		s[0] = true
	}
	c.seen[t.Rule] = s
}

// Untested names the rules that were not seen both ways, and what was not
// seen: true, false or either.
func (c *Coverage) Untested() map[string]string {
	out := map[string]string{}
	for _, r := range c.rules {
		switch c.seen[r.ID] {
		case [2]bool{false, false}:
			out[r.ID] = "either"
		case [2]bool{true, false}:
			out[r.ID] = "true"
		case [2]bool{false, true}:
			out[r.ID] = "false"
		}
	}
	return out
}

// Rules are all rules, in file order.
func (c *Coverage) Rules() []policy.Rule { return c.rules }

// Percent is the share of outcomes that were seen, two for each rule. A policy
// without rules is covered.
func (c *Coverage) Percent() float64 {
	if len(c.rules) == 0 {
		return 100
	}
	n := 0
	for _, r := range c.rules {
		s := c.seen[r.ID]
		for _, saw := range s {
			if saw {
				n++
			}
		}
	}
	return 100 * float64(n) / float64(2*len(c.rules))
}
