package policy

import (
	"fmt"
	"slices"

	"sidegate/policy/document"
)

// readLimits reads `limit`: one, or a list.
func (l *loader) readLimits(v document.Value, r *Route) {
	list := []document.Value{v}
	if v.IsList() {
		list = v.List()
	} else if !v.Present() {
		return
	}
	for i, e := range list {
		m := e.Map(limitKeys)
		if !m.IsMap() {
			continue
		}
		limit := &Limit{id: fmt.Sprintf("%s/%d", r.ID, i)}
		rate := m.Need("rate")
		if rate.IsInt() {
			rate.Errorf("`%s` must be a rate, not a number: write %[2]s/m for each minute, or %[2]s/s", rate.Path(), rate.Show())
		} else if text, ok := rate.Text(); ok {
			if limit.Count, limit.Period, ok = parseRate(text); !ok {
				rate.Errorf("%q is no rate: write a count and s, m, h or d, as 30/m", text)
			}
		}
		limit.Burst = limit.Count
		if b := m.Get("burst"); b.Present() {
			limit.Burst = int(b.Int(1, maxRequests))
		}
		l.readLimitBy(m.Need("per"), limit, r)
		if v := m.Get("unavailable"); v.Present() {
			limit.Refuse = v.OneOf("local", "refuse") == "refuse"
		}
		if limit.By == LimitIP {
			r.IPLimits = append(r.IPLimits, limit)
		} else {
			r.Limits = append(r.Limits, limit)
		}
	}
}

func (l *loader) readLimitBy(v document.Value, limit *Limit, r *Route) {
	word := v.OneOf(limitBy[:]...)
	limit.By = LimitBy(max(slices.Index(limitBy[:], word), 0))
	switch {
	case word == "uid" || word == "actor":
		if r.Access != AccessList {
			v.Errorf("`%s: %s`: on a public or optional route nobody needs to say who calls; count per ip, or per route", v.Path(), word)
		}
	case word == "ip":
		l.needAddress(v)
	}
}

// needAddress refuses what depends on the caller's address where everybody has
// the same.
func (l *loader) needAddress(v document.Value) {
	if l.env != nil && l.env.NoAddress {
		v.Errorf("`%s` reads the caller's address, and on Cloud Run everybody has the load balancer's: write `listen: {trusted_proxies: [cloud-run]}` in sidegate.yaml", v.Path())
	}
}

// readRecord reads `audit`.
func (l *loader) readRecord(v document.Value, r *Route) {
	switch v.OneOf("power", "machine", "off") {
	case "power":
		r.Record = RecordPower
	case "machine":
		r.Record = RecordMachine
		if l.env != nil && !l.env.Shipping {
			v.Errorf("`audit: machine` needs `audit.firestore` in sidegate.yaml: nothing else outlives this machine")
		}
	case "off":
		r.Record = RecordOff
		if r.Access != AccessPublic {
			v.Errorf("`audit: off` is for routes with `allow: public` only: what somebody was let do is on record")
		}
	}
}

// note gathers what the policy's conditions and keys read, for the record, and
// which of its rules are in dry_run.
func (l *loader) note(p *Policy) {
	conditions := make([]*condition, 0, len(l.guards))
	for _, g := range l.guards {
		conditions = append(conditions, g.cond)
	}
	for _, r := range p.Routes {
		conditions = append(conditions, r.entries...)
		r.noteAppCheck()
		if r.Object != nil {
			p.noteReads(r.Object.template().reads())
		}
	}
	l.checkLookups(conditions)
	l.checkFolders(p.Routes)
	for _, c := range conditions {
		if c.dryRun {
			p.shadow = append(p.shadow, c.rule)
		}
		for i := range c.fields {
			p.noteReads(c.fields[i].reads)
			for _, look := range c.fields[i].lookups {
				p.noteReads(look.document.reads())
			}
		}
	}
	slices.Sort(p.inputs.claims)
	p.inputs.none = len(p.inputs.claims) == 0 && !p.inputs.email && !p.inputs.secondFactor && !p.inputs.appCheck
	p.inputs.number = conditionNumber.Add(1)
}
