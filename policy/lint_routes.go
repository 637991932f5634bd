package policy

import (
	"slices"
	"time"

	"sidegate/policy/document"
)

// longExpiry is how long a signed URL may hold before lint asks: whoever gets
// hold of one needs nothing else.
const longExpiry = 15 * time.Minute

// writes are the methods that change something.
var writes = methodBit("POST") | methodBit("PUT") | methodBit("PATCH") | methodBit("DELETE")

// routes is what can be said of single routes: SG103 to SG107, SG113, SG117.
func (t *linter) routes() {
	for _, r := range t.p.Routes {
		if r.Access == AccessPublic && r.methods&writes != 0 {
			t.warn(t.at(r, "methods"), "SG103", "route `%s` is public and takes %s: anybody can change something, and nobody is on record for it; ask for an identity, or leave these methods out", r.ID, r.methods&writes)
		}
		t.catchAll(r)
		if r.operation().signs() {
			t.presign(r)
		}
		if r.Access != AccessList && r.Record != RecordOff && len(r.IPLimits) == 0 {
			t.warn(t.at(r, "allow"), "SG107", "route `%s` records what anybody sends: whoever sends much fills the audit log; add limit: {rate: 20/s, per: ip}", r.ID)
		}
		if r.Record == RecordOff {
			t.warn(t.at(r, "audit"), "SG117", "what route `%s` allows is in no log", r.ID)
		}
	}
}

// catchAll is SG104.
func (t *linter) catchAll(r *Route) {
	if !r.path.rest || len(r.path.prefix)+len(r.path.suffix) > 0 {
		return
	}
	open := func(e *condition) bool {
		return !e.dryRun && !slices.ContainsFunc(e.fields, func(f field) bool { return f.key != "who" && f.key != "methods" })
	}
	switch i := slices.IndexFunc(r.entries, open); {
	case r.Access != AccessList:
		t.warn(t.at(r, "path"), "SG104", "route `%s` lets everybody reach every path that no other route has, those that are added later too: name the paths", r.ID)
	case i >= 0:
		t.warn(t.at(r, "path"), "SG104", "entry `%s` lets its callers reach every path that no other route has, those that are added later too: name the paths, or add a condition", r.entries[i].rule)
	}
}

// presign is SG105, SG106 and SG113.
func (t *linter) presign(r *Route) {
	if len(r.IPLimits)+len(r.Limits) == 0 {
		does := "signs as many URLs"
		if !r.operation().signsURLs() {
			does = "asks the store as often"
		}
		t.warn(t.at(r, "serve"), "SG105", "route `%s` %s as somebody asks for: add limit: {rate: 30/m, per: uid}", r.ID, does)
	}
	if o := r.Object; o.MaxExpiry > longExpiry { // the default is never beyond it
		t.warn(t.at(r, "object.expires.max"), "SG106", "a URL of route `%s` can hold for %s, and whoever gets hold of it can use it until then: %s is enough for most", r.ID, document.FormatDuration(o.MaxExpiry), document.FormatDuration(longExpiry))
	}
	for _, e := range t.l.places[r].At("object.content_types").List() {
		switch s := e.Show(); {
		case s == "*/*":
			t.warn(e, "SG113", "*/* takes what a browser runs too, as HTML and SVG: name the types")
		case scriptable(s):
			t.warn(e, "SG113", "a browser that opens %s runs what is in it: leave it out, or serve it from an origin that has nothing to lose", s)
		}
	}
}
