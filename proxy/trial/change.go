package trial

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"

	"sidegate/policy"
	"sidegate/proxy"
)

// A Decided is what became of a request, as far as changes are told by it.
type Decided struct {
	Allow  bool   `json:"allow"`
	Status int    `json:"status,omitempty"` // of a refusal
	Code   string `json:"code,omitempty"`   // the reason
	Route  string `json:"route,omitempty"`
	Rule   string `json:"rule,omitempty"`
	To     string `json:"to,omitempty"` // where an allowed request goes, as far as it is compared
}

// WhoCalls is the code of what depends on who calls, which a record does not
// say.
const WhoCalls = "who_calls"

// decidedOf takes a judgement.
func decidedOf(j *proxy.Judgement) Decided {
	d := Decided{Allow: j.Allow, Code: j.Code, Rule: j.Rule}
	if !j.Allow {
		d.Status = j.Status
	}
	if r := j.Input.Route; r != nil {
		d.Route = r.ID
		if j.Allow {
			d.To = leadsTo(r)
		}
	}
	return d
}

// leadsTo is what a route does with what it allows.
func leadsTo(r *policy.Route) string {
	if r.Upstream != "" {
		return "upstream " + r.Upstream
	}
	if r.Object != nil {
		return r.Serve + " in bucket " + r.Object.Bucket
	}
	return r.Serve
}

// String is a decision in a few words.
func (d Decided) String() string {
	out := "allow"
	switch {
	case d.Code == WhoCalls:
		out = "it depends on who calls, which is not on record"
	case !d.Allow:
		out = fmt.Sprintf("%d %s", d.Status, d.Code)
	}
	if d.Rule != "" {
		return out + " by " + d.Rule
	}
	if d.Route != "" {
		return out + " (route " + d.Route + ")"
	}
	return out
}

// same reports whether a caller could not tell two decisions apart.
func (d Decided) same(o Decided) bool {
	return d.Allow == o.Allow && d.Status == o.Status && (!d.Allow || d.To == o.To)
}

// A Change is all requests that were decided in one way and are in another, by
// the same rules.
type Change struct {
	Before   Decided   `json:"before"`
	After    Decided   `json:"after"`
	OtherKey bool      `json:"other_key,omitempty"` // the object that is signed is another
	Count    int       `json:"count"`
	Examples []Example `json:"examples"`
}

// An Example is one of the requests of a change.
type Example struct {
	From      string   `json:"from,omitempty"` // what the request was made for, or the test file's place
	Record    string   `json:"record,omitempty"`
	Time      string   `json:"time"`
	Method    string   `json:"method"`
	Host      string   `json:"host,omitempty"`
	Target    string   `json:"target"`
	As        string   `json:"as"`
	IP        string   `json:"ip,omitempty"`
	With      []string `json:"with,omitempty"` // what else of the request counts
	KeyBefore string   `json:"key_before,omitempty"`
	KeyAfter  string   `json:"key_after,omitempty"`

	place int // among all requests
}

// A changeKey is what the requests of one Change have in common.
type changeKey struct {
	before, after Decided
	otherKey      bool
}

// changes gathers equal changes. Of each it keeps the examples that came first,
// whatever the order in which they are added.
type changes struct {
	limit  int
	groups map[changeKey]*Change
}

func newChanges(limit int) *changes { return &changes{limit, map[changeKey]*Change{}} }

// add counts a change; example is asked only where it is kept.
func (c *changes) add(k changeKey, place int, example func() Example) {
	g := c.groups[k]
	if g == nil {
		g = &Change{Before: k.before, After: k.after, OtherKey: k.otherKey, Examples: []Example{}}
		c.groups[k] = g
	}
	g.Count++
	if n := len(g.Examples); c.limit <= 0 || (n >= c.limit && g.Examples[n-1].place < place) {
		return
	}
	e := example()
	e.place = place
	c.keep(g, e)
}

func (c *changes) keep(g *Change, e Example) {
	i, _ := slices.BinarySearchFunc(g.Examples, e.place, func(x Example, place int) int { return cmp.Compare(x.place, place) })
	g.Examples = slices.Insert(g.Examples, i, e)
	g.Examples = g.Examples[:min(len(g.Examples), max(c.limit, 0))]
}

// merge takes another's.
func (c *changes) merge(o *changes) {
	for k, g := range o.groups {
		own := c.groups[k]
		if own == nil {
			c.groups[k] = g
			continue
		}
		own.Count += g.Count
		for _, e := range g.Examples {
			c.keep(own, e)
		}
	}
}

// list is all changes: what is newly allowed first, then what is newly refused,
// then the rest; of each the most frequent first.
func (c *changes) list() []*Change {
	out := make([]*Change, 0, len(c.groups))
	for _, g := range c.groups {
		out = append(out, g)
	}
	rank := func(g *Change) int {
		switch {
		case g.After.Allow && !g.Before.Allow:
			return 0
		case g.Before.Allow && !g.After.Allow:
			return 1
		}
		return 2
	}
	slices.SortFunc(out, func(a, b *Change) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.Count, a.Count),
			cmp.Compare(fmt.Sprint(a.Before, a.After, a.OtherKey), fmt.Sprint(b.Before, b.After, b.OtherKey)))
	})
	return out
}

// madeAnew are the parts of a key that no two requests have in common.
var madeAnew = regexp.MustCompile(`[0-9a-f]{32}`)

// comparable is a key without what is made anew for each request.
func comparableKey(j *proxy.Judgement) string {
	if r := j.Input.Route; r != nil && r.BeginsUploads() {
		return madeAnew.ReplaceAllString(j.Key, "*")
	}
	return j.Key
}
