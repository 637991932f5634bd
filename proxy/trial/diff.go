package trial

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"sidegate/policy"
)

// A Pair is a test file as both policies read it; nil where it does not load
// for one of them.
type Pair struct {
	Name     string
	Old, New *File
}

// A Comparison says how policies are compared.
type Comparison struct {
	Rules    bool // also by the rule and the reason that decide
	Examples int  // of each change
	// Progress is told how many requests were judged; nil: nobody is.
	Progress func(done int)
	Stop     <-chan struct{} // where it is closed, Diff ends early
}

// Differences are what two policies decide otherwise.
type Differences struct {
	Probes  int  // requests that were made from the policies
	Cases   int  // requests of test files
	Cut     bool // more requests could have been made
	Changed int
	Changes []*Change
}

// Diff judges requests by both gates: those that are made to meet every rule of
// both policies, and those of test files, whatever these expect of them.
// Nothing is limited: rates are not compared.
func Diff(old, new *Gate, files []Pair, c Comparison) *Differences {
	d := &differ{old: old, new: new, c: c, changes: newChanges(c.Examples)}
	for _, f := range files {
		d.file(f)
	}
	d.out.Cases = d.done
	probes := policy.Probes(policy.MaxProbes, old.Policy, new.Policy)
	for p := range probes.All() {
		if d.stopped() {
			break
		}
		q := probeRequest(p)
		d.judge(q, q, func() Example { return probeExample(p, q) })
	}
	d.out.Probes, d.out.Cut = d.done-d.out.Cases, probes.Cut()
	d.out.Changes = d.changes.list()
	return &d.out
}

func (d *differ) stopped() bool {
	select {
	case <-d.c.Stop:
		return true
	default:
		return false
	}
}

type differ struct {
	old, new *Gate
	c        Comparison
	changes  *changes
	done     int
	out      Differences
}

func (d *differ) judge(before, after *Request, example func() Example) {
	if d.done++; d.c.Progress != nil {
		d.c.Progress(d.done)
	}
	b, a := d.old.Judge(before), d.new.Judge(after)
	k := changeKey{before: decidedOf(&b), after: decidedOf(&a)}
	oldKey, newKey := comparableKey(&b), comparableKey(&a)
	k.otherKey = b.Allow && a.Allow && oldKey != newKey
	if k.before.same(k.after) && !k.otherKey && !(d.c.Rules && (k.before.Rule != k.after.Rule || k.before.Code != k.after.Code)) {
		return
	}
	d.out.Changed++
	d.changes.add(k, d.done, func() Example {
		e := example()
		if k.otherKey {
			e.KeyBefore, e.KeyAfter = oldKey, newKey
		}
		return e
	})
}

// file judges a file's cases: each policy its own reading of them, since a
// fixture's documents are named by the policy's lookups.
func (d *differ) file(f Pair) {
	before, after := cmpOr(f.Old, f.New), cmpOr(f.New, f.Old)
	if before == nil {
		return
	}
	for i := range before.Tests {
		for j := range before.Tests[i].Cases {
			b, a := &before.Tests[i].Cases[j], &after.Tests[i].Cases[j]
			d.judge(&b.Request, &a.Request, func() Example { return caseExample(f.Name, a) })
		}
	}
}

func cmpOr(a, b *File) *File {
	if a != nil {
		return a
	}
	return b
}

func exampleOf(q *Request) Example {
	e := Example{Time: q.Time.Format(time.RFC3339), Method: q.Method, Host: q.Host, Target: q.Target, As: who(q.Identity)}
	if q.IP.IsValid() {
		e.IP = q.IP.String()
	}
	e.With = append(e.With, traits(q)...)
	return e
}

func probeExample(p *policy.Probe, q *Request) Example {
	e := exampleOf(q)
	e.From = p.About
	for _, name := range sortedKeys(p.Documents) {
		switch d := p.Documents[name]; {
		case d.Unavailable:
			e.With = append(e.With, "document "+name+" cannot be read")
		case d.Exists:
			e.With = append(e.With, "document "+name+" "+brief(d.Fields))
		}
	}
	return e
}

func caseExample(file string, c *Case) Example {
	e := exampleOf(&c.Request)
	e.From = fmt.Sprintf("%s:%d:%d", file, c.Line, c.Column)
	return e
}

// who is a caller as the audit log's readers know one.
func who(id *policy.Identity) string {
	if id == nil {
		return "nobody"
	}
	return id.Name + ":" + id.UID
}

// traits are what else of a request a policy can read.
func traits(q *Request) (out []string) {
	if id := q.Identity; id != nil {
		if id.Actor != "" {
			out = append(out, "actor "+id.Actor)
		}
		if id.Claims != nil && len(id.Claims.All()) > 0 {
			out = append(out, "claims "+brief(id.Claims.All()))
		}
		if id.SecondFactor != "" {
			out = append(out, "a second factor")
		}
		switch age := q.Time.Sub(id.AuthTime); {
		case id.AuthTime.IsZero():
			out = append(out, "a sign-in of no time")
		default:
			out = append(out, "signed in "+age.String()+" ago")
		}
		if id.Email != "" {
			out = append(out, "e-mail address "+id.Email+map[bool]string{true: "", false: " (not verified)"}[id.EmailVerified])
		}
		for _, s := range []struct{ name, value string }{{"tenant", id.Tenant}, {"provider", id.Provider}} {
			if s.value != "" {
				out = append(out, s.name+" "+s.value)
			}
		}
	}
	if q.AppCheck {
		out = append(out, "app check")
	}
	if q.Body != nil {
		out = append(out, "body "+shorten(string(q.Body)))
	}
	if q.Length > 0 {
		out = append(out, fmt.Sprintf("a body of %d bytes", q.Length))
	}
	if len(q.Header["Upgrade"]) > 0 {
		out = append(out, "an upgrade to WebSocket")
	}
	return out
}

func brief(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return shorten(string(text))
}

func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
