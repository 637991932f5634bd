package policy

import (
	"errors"
	"slices"
	"strings"
)

// A Rule is what tests can see both ways: an entry of `allow`, or a guard.
type Rule struct {
	ID     string // route/entry, or the guard's id
	Kind   string // entry, deny or require
	DryRun bool
	// AnyIdentity: it lets in every caller whom the policy may let in at all, so
	// that it is false only of one without an identity.
	AnyIdentity  bool
	Line, Column int
}

// Rules are the policy's guards and entries, in file order.
func (p *Policy) Rules() []Rule {
	var out []Rule
	add := func(c *condition, kind string) {
		line, column := c.facts.at.Position()
		out = append(out, Rule{c.rule, kind, c.dryRun, kind == "entry" && c.anyIdentity(p.identities), line, column})
	}
	for _, g := range p.guards {
		if g.deny {
			add(g.cond, "deny")
		} else {
			add(g.cond, "require")
		}
	}
	for _, r := range p.Routes {
		for _, e := range r.entries {
			add(e, "entry")
		}
	}
	slices.SortStableFunc(out, func(a, b Rule) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return out
}

func (c *condition) anyIdentity(identities []string) bool {
	return subset(identities, c.facts.who) && !slices.ContainsFunc(c.fields, func(f field) bool { return f.key != "who" })
}

// AsksWho reports whether the decision on the input can depend on who calls: its
// route has a list, or it is optional and a guard that matches reads an identity.
func (p *Policy) AsksWho(in *Input) bool {
	r := in.Route
	if r == nil || r.Access != AccessOptional {
		return r != nil && r.Access == AccessList
	}
	params := in.Params
	defer func() { in.Params = params }()
	return slices.ContainsFunc(r.guards, func(g guardAt) bool { return g.cond.facts.identity && g.matches(in) })
}

// Identities are the names that the policy may let in. They must not be changed.
func (p *Policy) Identities() []string { return p.identities }

// Lookups are the documents that the policy reads, by name. They must not be
// changed.
func (p *Policy) Lookups() map[string]*Lookup { return p.lookups }

// Named is the name of the lookup's document where what it is named by is the
// value. Where it is named by more than one value, or by none, the document's
// whole name is what has to be given.
func (l *Lookup) Named(value string) (string, error) {
	var varying int
	for _, p := range l.document.parts {
		if p.source != sourceLiteral {
			varying++
		}
	}
	name := value
	if varying == 1 {
		var b strings.Builder
		for _, p := range l.document.parts {
			switch p.source {
			case sourceLiteral:
				b.WriteString(p.literal)
			case sourceParamHash, sourceBodyKeyHash:
				b.WriteString(hashed(value))
			default:
				if !p.safe(value) {
					return "", errors.New("no request can name a document by this value")
				}
				b.WriteString(value)
			}
		}
		name = b.String()
	}
	if !validDocument(name) {
		return "", errors.New("is no document's name: collection/id")
	}
	return name, nil
}
