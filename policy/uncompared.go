package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Uncompared names what of two policies differs in routes of the same id without
// a single request showing it: rates, times, and what becomes of a request once
// it is allowed.
func Uncompared(a, b *Policy) []string {
	byID := map[string]*Route{}
	for _, r := range a.Routes {
		byID[r.ID] = r
	}
	var out []string
	for _, r := range b.Routes {
		was := byID[r.ID]
		if was == nil {
			continue
		}
		var keys []string
		note := func(key string, differs bool) {
			if differs {
				keys = append(keys, key)
			}
		}
		note("limit", limitsText(was) != limitsText(r))
		note("timeout", was.Timeout != r.Timeout)
		note("audit", was.Record != r.Record)
		note("quota", quotaText(was) != quotaText(r))
		if o, p := was.Object, r.Object; o != nil && p != nil {
			note("method", o.Form != p.Form)
			note("late", o.DeleteLate != p.DeleteLate)
			note("metadata", !slices.Equal(slices.Sorted(slices.Values(o.Metadata)), slices.Sorted(slices.Values(p.Metadata))))
			note("expires.default", o.DefaultExpiry != p.DefaultExpiry)
			note("confirm_within", o.ConfirmWithin != p.ConfirmWithin)
			note("overwrite", o.Overwrite != p.Overwrite)
			note("disposition", o.Inline != p.Inline)
		}
		if len(keys) > 0 {
			out = append(out, fmt.Sprintf("%s of route %s", strings.Join(keys, ", "), r.ID))
		}
	}
	for _, name := range keysOf(b.lookups) {
		was, is := a.lookups[name], b.lookups[name]
		if was != nil && (was.Cache != is.Cache || was.Timeout != is.Timeout) {
			out = append(out, "cache or timeout of lookup "+name)
		}
	}
	return out
}

func quotaText(r *Route) string {
	if r.Quota == nil {
		return ""
	}
	return fmt.Sprint(*r.Quota)
}

func limitsText(r *Route) string {
	var b strings.Builder
	for _, list := range [][]*Limit{r.IPLimits, r.Limits} {
		for _, l := range list {
			fmt.Fprintln(&b, l.Count, l.Period, l.Burst, l.By, l.Refuse)
		}
	}
	return b.String()
}
