package policy

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// entries is SG101: an entry that an earlier one of its route makes
// unreachable. Entries in dry_run let nobody in, and are on trial themselves.
func (t *linter) entries() {
	for _, r := range t.p.Routes {
		for i, e := range r.entries {
			if e.dryRun {
				continue
			}
			for _, earlier := range r.entries[:i] {
				if !earlier.dryRun && earlier.broader(e, r.counted()) {
					t.warn(e.facts.at, "SG101", "entry `%s` is never the one that decides: whatever it allows, `%s` before it does; remove it, or narrow that one", e.rule, earlier.rule)
					break
				}
			}
		}
	}
}

// broader reports whether c is true whenever d is, for requests of these
// methods, so far as that can be told field by field: each field of c must
// follow from d's.
func (c *condition) broader(d *condition, within methodSet) bool {
	a, b := c.facts, d.facts
	if d.namesWho && !c.namesWho {
		return false // of callers with an actor only d can be true
	}
	return b.methodsIn(within)&^a.methodsIn(within) == 0 &&
		subset(b.who, a.who) &&
		(a.uid == "" || a.uid == b.uid) &&
		anyFollows(a.roles, b.roles) &&
		subset(a.scopes, b.scopes) &&
		(a.orgID == "" || a.orgID == b.orgID && subset(b.orgRoles, a.orgRoles)) &&
		claimsFollow(a.claims, b.claims) &&
		networksFollow(a.networks(), b.networks()) &&
		(a.time == "" || a.time == b.time) &&
		ageFollows(a.mfa, b.mfa) &&
		(ageFollows(a.signedIn, b.signedIn) || ageFollows(a.signedIn, b.mfa)) &&
		(!a.verifiedEmail || b.verifiedEmail) &&
		anyFollows(a.providers, b.providers) &&
		(!a.appCheck || b.appCheck) &&
		// Both end in a slash, so a prefix of the text is one of the folder.
		strings.HasPrefix(b.keyPrefix, a.keyPrefix) &&
		(a.expr == nil || b.expr != nil && a.expr.text == b.expr.text)
}

// methodsIn are those of the methods of which the condition can be true.
func (f *facts) methodsIn(within methodSet) methodSet {
	if f.methods == 0 {
		return within
	}
	return f.methods & within
}

func subset[T comparable](some, of []T) bool {
	return !slices.ContainsFunc(some, func(v T) bool { return !slices.Contains(of, v) })
}

// anyFollows is for fields that hold for any of their values: none at all is no
// field.
func anyFollows(a, b []string) bool {
	return len(a) == 0 || len(b) > 0 && subset(b, a)
}

func claimsFollow(a, b map[string][]any) bool {
	for name, values := range a {
		if other, ok := b[name]; !ok || !subset(other, values) {
			return false
		}
	}
	return true
}

func networksFollow(a, b []netip.Prefix) bool {
	if len(a) == 0 {
		return true
	}
	inside := func(p netip.Prefix) bool {
		return slices.ContainsFunc(a, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) })
	}
	return len(b) > 0 && !slices.ContainsFunc(b, func(p netip.Prefix) bool { return !inside(p) })
}

// ageFollows is for fields that ask that something is no older than an age.
func ageFollows(a, b time.Duration) bool { return a == 0 || b != 0 && b <= a }

// stricter reports whether r keeps somebody out whom other lets in, for
// requests of these methods.
func (r *Route) stricter(other *Route, within methodSet) bool {
	if r.Access != other.Access || r.Access != AccessList {
		return r.Access < other.Access
	}
	for _, e := range other.entries {
		if e.dryRun || e.facts.methodsIn(within) == 0 {
			continue
		}
		if !slices.ContainsFunc(r.entries, func(mine *condition) bool { return !mine.dryRun && mine.broader(e, within) }) {
			return true
		}
	}
	return false
}
