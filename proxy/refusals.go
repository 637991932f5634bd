package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sidegate/storage/audit"
)

// Anybody can be refused as often as they like, so what is refused must not
// fill the audit log. In each window so many refusals are written in full, of
// one source and of all; the others are counted, and each flush puts the counts
// on record: one event for a source. What was allowed never comes here.
const (
	refusalWindow      = time.Minute
	refusalsPerSource  = 60
	refusalsPerGateway = 600 // of strangers; and as many again of verified callers
	// maxSummaries bounds the sources that are told apart between two flushes.
	// Those that come later are one.
	maxSummaries = 1000
	// maxTallies bounds the routes, and the codes, that one of them tells apart.
	maxTallies = 32
	// maxSourceUID is of what is kept of a uid, in bytes: more than a line of the
	// audit log does, so that the line says that it was cut.
	maxSourceUID = 5 << 10
)

// refusalRates are the full refusals of a window.
type refusalRates struct{ source, gateway int }

// refusals are those that are not written in full. Strangers and verified
// callers are kept apart: a flood of the ones must not push the others' refusals
// out of the full record.
type refusals struct {
	strangers, verified refusalTable
	flushing            chan struct{} // holds one while somebody flushes
}

func (r *refusals) init() {
	r.flushing = make(chan struct{}, 1)
	for _, t := range []*refusalTable{&r.strangers, &r.verified} {
		t.init(refusalRates{refusalsPerSource, refusalsPerGateway})
	}
}

// A refusalSource is who is refused: an address (of IPv6 the /64, which is one
// customer's; the zero Prefix: unknown) or, once verified, a user.
type refusalSource struct {
	ip             netip.Prefix
	namespace, uid string
}

func (x *exchange) refusalSource() refusalSource {
	if id := x.identity; id != nil {
		return refusalSource{namespace: id.Namespace, uid: id.UID[:min(len(id.UID), maxSourceUID)]}
	}
	bits := x.ip.BitLen()
	if bits == 128 {
		bits = 64
	}
	p, _ := x.ip.Prefix(bits)
	return refusalSource{ip: p}
}

// summarise counts a refusal whose source, or the gateway, has had its full ones
// for now. It has no events of its own then.
func (p *Proxy) summarise(x *exchange, reason string) bool {
	t := &p.refusals.strangers
	if x.identity != nil {
		t = &p.refusals.verified
	}
	if !t.count(x.refusalSource(), x.routeID(), reason, p.o.Now()) {
		return false
	}
	p.metrics.summarised.Inc()
	return true
}

// A refusalTable is what is known of sources of one kind. Its size is bounded:
// an entry of full stands for a refusal that was written.
type refusalTable struct {
	rates refusalRates

	mu      sync.Mutex
	began   time.Time // of the window
	written int       // in full, in it
	full    map[refusalSource]int
	counted refusalCounts // since the last flush
	ended   bool          // nobody flushes any more: all is written in full
}

func (t *refusalTable) init(rates refusalRates) {
	t.rates, t.full = rates, map[refusalSource]int{}
}

// count reports whether a refusal is counted instead of written.
func (t *refusalTable) count(by refusalSource, route, code string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return false
	}
	// Of two who look at the clock at once the later may be here first.
	if passed := now.Sub(t.began); passed >= refusalWindow || passed < -refusalWindow {
		t.began, t.written = now, 0
		clear(t.full)
	}
	had, known := t.full[by]
	if t.written < t.rates.gateway && had < t.rates.source {
		if !known {
			by.uid = strings.Clone(by.uid) // it may be a part of a whole token
		}
		t.written++
		t.full[by] = had + 1
		return false
	}
	t.counted.of(by).add(1, route, code, now)
	return true
}

// refusalCounts are those of a table. The zero value is empty.
type refusalCounts struct {
	sources map[refusalSource]*refusalCount
	list    []*refusalCount // the sources', in the order of their first refusal
	rest    refusalCount    // of all who find no room
}

// of is where a source's refusals are counted.
func (c *refusalCounts) of(by refusalSource) *refusalCount {
	if n := c.sources[by]; n != nil {
		return n
	}
	if len(c.list) >= maxSummaries {
		c.rest.rest = true
		return &c.rest
	}
	if c.sources == nil {
		c.sources = map[refusalSource]*refusalCount{}
	}
	by.uid = strings.Clone(by.uid)
	n := &refusalCount{by: by}
	c.sources[by] = n
	c.list = append(c.list, n)
	return n
}

// take empties the table; last: for good.
func (t *refusalTable) take(last bool) []*refusalCount {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = t.ended || last
	out := t.counted.list
	if rest := t.counted.rest; rest.n > 0 {
		out = append(out, &rest)
	}
	t.counted = refusalCounts{}
	return out
}

// putBack takes counts again that could not be put on record.
func (t *refusalTable) putBack(list []*refusalCount) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, old := range list {
		if old.rest {
			t.counted.rest.rest = true
			t.counted.rest.merge(old)
			continue
		}
		t.counted.of(old.by).merge(old)
	}
}

// A refusalCount is what becomes one event.
type refusalCount struct {
	by            refusalSource
	rest          bool // of many sources
	n             int
	from, to      time.Time // of the first and the last
	routes, codes tallies
}

func (c *refusalCount) add(n int, route, code string, at time.Time) {
	c.span(at, at)
	c.n += n
	c.routes.add(route, n)
	c.codes.add(code, n)
}

func (c *refusalCount) span(from, to time.Time) {
	if c.n == 0 || from.Before(c.from) {
		c.from = from
	}
	if c.n == 0 || to.After(c.to) {
		c.to = to
	}
}

func (c *refusalCount) merge(o *refusalCount) {
	c.span(o.from, o.to)
	c.n += o.n
	for _, t := range o.routes {
		c.routes.add(t.name, t.n)
	}
	for _, t := range o.codes {
		c.codes.add(t.name, t.n)
	}
}

// tallies count by name, few of them, in the order in which they came.
type tallies []tally

type tally struct {
	name string
	n    int
}

// Names that no route and no code has.
const (
	tallyNone  = "(none)"
	tallyOther = "(other)" // beyond maxTallies
)

func (t *tallies) add(name string, n int) {
	if name == "" {
		name = tallyNone
	}
	if len(*t) >= maxTallies-1 && !t.has(name) {
		name = tallyOther
	}
	for i := range *t {
		if (*t)[i].name == name {
			(*t)[i].n += n
			return
		}
	}
	*t = append(*t, tally{name, n})
}

func (t *tallies) has(name string) bool {
	for i := range *t {
		if (*t)[i].name == name {
			return true
		}
	}
	return false
}

func (t tallies) byName() map[string]int {
	out := make(map[string]int, len(t))
	for _, one := range t {
		out[one.name] = one.n
	}
	return out
}

// event is a decision that stands for many. It has no record: no request has it.
func (c *refusalCount) event(now time.Time) *audit.Event {
	e := &audit.Event{
		Type: audit.TypeDecision, Time: now, Decision: &audit.Decision{Effect: "deny"},
		Summary: &audit.Summary{Repeated: c.n, Source: audit.SourceIP, From: c.from, To: c.to, Routes: c.routes.byName(), Codes: c.codes.byName()},
	}
	switch ip := c.by.ip; {
	case c.rest:
		e.Summary.Source = audit.SourceRest
	case c.by.uid != "":
		e.Summary.Source = audit.SourceUID
		e.Identity = &audit.Identity{Namespace: c.by.namespace, UID: c.by.uid}
	case ip.IsValid() && ip.IsSingleIP():
		e.Request = &audit.Request{IP: ip.Addr().String()}
	case ip.IsValid():
		e.Request = &audit.Request{IP: ip.String()}
	}
	return e
}

// FlushRefusals puts on record how many refusals were not written one by one,
// and is to be called once a minute. What the audit log does not take is kept
// for the next time. The last time, after the last request, whatever is refused
// later is written in full; the error then says how many are in no log.
func (p *Proxy) FlushRefusals(ctx context.Context, last bool) error {
	select {
	case p.refusals.flushing <- struct{}{}:
		defer func() { <-p.refusals.flushing }()
	case <-ctx.Done(): // a disk that hangs must not hold up a stop for longer than that has
		return fmt.Errorf("refusals that were only counted are not on record: an earlier try has not ended: %w", context.Cause(ctx))
	}
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	return errors.Join(p.flushRefusals(ctx, &p.refusals.strangers, last), p.flushRefusals(ctx, &p.refusals.verified, last))
}

// flushTogether is how many summaries wait for the audit log at once: one by
// one, a slow disk would have them wait longer than a minute.
const flushTogether = 64

func (p *Proxy) flushRefusals(ctx context.Context, t *refusalTable, last bool) error {
	var left []*refusalCount
	var failure error
	missing := 0
	for some := range slices.Chunk(t.take(last), flushTogether) {
		errs := make([]error, len(some))
		if failure == nil {
			errs = p.recordCounts(ctx, some)
		} else { // the log fails: the next time is soon enough
			for i := range errs {
				errs[i] = ErrNotRecorded
			}
		}
		for i, err := range errs {
			if err == nil {
				continue
			}
			missing += some[i].n
			if failure == nil {
				failure = err
			}
			if errors.Is(err, ErrNotRecorded) { // else it may be on record, and must not be there twice
				left = append(left, some[i])
			}
		}
	}
	t.putBack(left)
	if failure != nil {
		return fmt.Errorf("%d refusals that were only counted are not on record: %w", missing, failure)
	}
	return nil
}

// recordCounts puts them on record at once, and gives each one's error.
func (p *Proxy) recordCounts(ctx context.Context, some []*refusalCount) []error {
	errs := make([]error, len(some))
	var all sync.WaitGroup
	for i, c := range some {
		all.Go(func() {
			if errs[i] = p.o.Recorder.Record(ctx, c.event(p.o.Now()), audit.Crash); errs[i] != nil {
				p.metrics.auditFailures.Inc()
			}
		})
	}
	all.Wait()
	return errs
}

// refusedLate puts on record what was refused when its time for that had passed.
func (p *Proxy) refusedLate(x *exchange) {
	if p.summarise(x, x.decision.reason) {
		x.absent = true
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.ctx), recordTimeout)
	defer cancel()
	if err := x.putOnRecord(ctx); err != nil {
		x.unrecorded, x.absent = true, errors.Is(err, ErrNotRecorded)
		p.metrics.auditFailures.Inc()
	}
}
