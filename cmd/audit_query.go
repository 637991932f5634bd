package cmd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"sidegate/storage/audit"
)

// queryOptions are the flags of `audit query`.
type queryOptions struct {
	source       auditSource
	words        map[string]*string // of the flags that are compared as they are
	ip           string
	since, until string
	limit        int
	reverse      bool
	asJSON       bool
	quiet        bool
}

// maxFound bounds what `audit query` keeps in memory; `audit export` has no bound.
const maxFound = 10_000

func (p *program) newAuditQuery() *cobra.Command {
	o := queryOptions{source: auditSource{env: p.env}, words: map[string]*string{}}
	c := &cobra.Command{
		Use:   "query",
		Short: "Find requests: who did what, who touched a key, what was refused",
		Long: `Find requests, the newest first, each with its outcome: the two events of a request
are one result. A request whose gateway was killed, or that is still open, has
outcome=unknown. Refusals that were counted instead of written one by one are one
line with ×N. What is given for a flag has to be the whole value, as it came or as
tail and query show it; all flags that are given have to fit.`,
		Example: "  sidegate audit query --uid u1 --since 7d\n" +
			"  sidegate audit query --key users/u1/cat.jpg --json | jq .decision.request.ip\n" +
			"  sidegate audit query --firestore --project acme-prod --effect deny --route files --since 24h",
	}
	o.source.flags(c)
	f := c.Flags()
	for _, w := range [][2]string{
		{"uid", "who, as the token says"},
		{"namespace", "within which the uid means something"},
		{"actor", "the agent that acted for them"},
		{"key", "the object's key"},
		{"bucket", "the bucket's name in sidegate.yaml"},
		{"route", "the policy's route"},
		{"effect", "allow, deny or preflight"},
		{"code", "why: no_entry, no_token, rate, ..."},
		{"record", "the request's id: X-Request-Id"},
	} {
		o.words[w[0]] = f.String(w[0], "", w[1])
	}
	f.StringVar(&o.ip, "ip", "", "the caller's address, or a network as 192.0.2.0/24")
	f.StringVar(&o.since, "since", "", "only from then on: `TIME` as 2026-03-02T10:00:00+01:00, or how long ago, as 90m or 7d")
	f.StringVar(&o.until, "until", "", "only before `TIME`")
	f.IntVarP(&o.limit, "limit", "n", 100, "how many of the newest, up to 10,000")
	f.BoolVar(&o.reverse, "reverse", false, "show them oldest first")
	f.BoolVar(&o.asJSON, "json", false, `one JSON object each: {"decision": ..., "outcome": ... or null}, both as they are stored`)
	f.BoolVar(&o.quiet, "quiet", false, "tell no progress")
	_ = c.RegisterFlagCompletionFunc("effect", cobra.FixedCompletions([]string{"allow", "deny", "preflight"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.MarkFlagDirname("dir")
	c.RunE = func(c *cobra.Command, _ []string) error {
		filter, err := o.filter(c, time.Now())
		if err != nil {
			return usageError{err}
		}
		return p.queryAudit(c.Context(), &o, filter)
	}
	return c
}

// filter is what the flags ask for.
func (o *queryOptions) filter(c *cobra.Command, now time.Time) (*audit.Filter, error) {
	f := &audit.Filter{}
	for name, list := range map[string]*[]string{
		"record": &f.Record, "namespace": &f.Namespace, "uid": &f.UID, "actor": &f.Actor, "bucket": &f.Bucket,
		"key": &f.Key, "route": &f.Route, "effect": &f.Effect, "code": &f.Code,
	} {
		if word := *o.words[name]; word != "" {
			*list = audit.Spellings(word)
		} else if c.Flags().Changed(name) {
			return nil, fmt.Errorf("--%s is empty: leave it out to ask for any", name)
		}
	}
	if e := *o.words["effect"]; e != "" && !slices.Contains([]string{"allow", "deny", "preflight"}, e) {
		return nil, fmt.Errorf("--effect %q: it is allow, deny or preflight", e)
	}
	if o.limit < 1 || o.limit > maxFound {
		return nil, fmt.Errorf("-n %d: give a number from 1 to %d; `sidegate audit export` has no limit", o.limit, maxFound)
	}
	var err error
	if f.IP, err = network(o.ip); err != nil {
		return nil, err
	}
	f.Since, f.Until, err = timeSpan(o.since, o.until, now)
	return f, err
}

// network reads an address or a network; the zero Prefix where nothing is
// written.
func network(text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("--ip: %q is neither an address nor a network such as 192.0.2.0/24", text)
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 { // as the log has no address
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// timeSpan reads --since and --until.
func timeSpan(since, until string, now time.Time) (from, to time.Time, err error) {
	from, sinceErr := moment("--since", since, now)
	to, untilErr := moment("--until", until, now)
	if err := errors.Join(sinceErr, untilErr); err != nil {
		return from, to, err
	}
	if !from.IsZero() && !to.IsZero() && !from.Before(to) {
		return from, to, fmt.Errorf("--since %s is not before --until %s", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	return from, to, nil
}

// A found is what a query found: the newest requests first.
type found struct {
	newest
	broken
	notes []string
}

func (p *program) queryAudit(ctx context.Context, o *queryOptions, f *audit.Filter) error {
	r := &found{newest: newest{n: o.limit}, broken: broken{w: p.stderr}}
	told := p.progress("events read", o.quiet)
	var err error
	if o.source.firestore {
		err = o.source.findInCollection(ctx, f, r, told)
	} else {
		err = o.source.findInFolder(ctx, f, r, told)
	}
	told.end()
	r.trim()
	if o.reverse {
		slices.Reverse(r.list)
	}
	for i := range r.list {
		if werr := r.note(showRequest(p.stdout, &r.list[i], o.asJSON)); werr != nil {
			return werr
		}
	}
	if r.more {
		r.notes = append(r.notes, fmt.Sprintf("there are more: these are the newest %d; -n shows more, `sidegate audit export` all", o.limit))
	}
	for _, n := range r.notes {
		fmt.Fprintln(p.stderr, "note:", n)
	}
	return r.result(o.source.where(), err)
}

func (s *auditSource) findInFolder(ctx context.Context, f *audit.Filter, r *found, told *progress) error {
	j := audit.Joiner{Match: f.Match}
	notAwaited := 0
	var failed error
	for q, err := range j.Requests(counted(until(ctx, audit.Lines(s.dir)), told, &failed)) {
		switch {
		case err != nil:
			if err := r.note(err); err != nil {
				return err
			}
			continue
		case q.NotAwaited:
			notAwaited++
		}
		r.add(q)
	}
	if notAwaited > 0 {
		r.notes = append(r.notes, notAwaitedNote(notAwaited))
	}
	return failed
}

func notAwaitedNote(n int) string {
	return fmt.Sprintf("of %s the outcome was not looked for to the end: too many were open at once", count(n, "request", "requests"))
}

func (s *auditSource) findInCollection(ctx context.Context, f *audit.Filter, r *found, told *progress) error {
	client, log, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	named := map[string]bool{} // broken documents: the two questions may both find one
	note := func(err error) error {
		if c := (*audit.CorruptError)(nil); errors.As(err, &c) {
			if named[c.File] {
				return nil
			}
			named[c.File] = true
		}
		return r.note(err)
	}
	var records []string
	for l, err := range log.Decisions(ctx, f, r.n+1) {
		if err != nil {
			if err := note(err); err != nil {
				return err
			}
			continue
		}
		told.tell(len(r.list))
		q := audit.Joined{Decision: l}
		r.add(q)
		if r.over() {
			break
		}
		if id := q.Record(); id != "" {
			records = append(records, id)
		}
	}
	outcomes := map[string]audit.Line{}
	var failed error
	for l, err := range log.Outcomes(ctx, records) {
		if failed = note(err); failed != nil {
			break
		}
		if err == nil {
			outcomes[(&audit.Joined{Decision: l}).Record()] = l
		}
	}
	for i := range r.list {
		r.list[i].Outcome = outcomes[r.list[i].Record()]
	}
	return failed
}

// counted tells of each line of a folder that is read. An error ends them, for
// nothing is read behind it: it goes to failed.
func counted(lines iter.Seq2[audit.Line, error], told *progress, failed *error) iter.Seq2[audit.Line, error] {
	n := 0
	return func(yield func(audit.Line, error) bool) {
		for l, err := range lines {
			if err != nil {
				*failed = err
				return
			}
			n++
			told.tell(n)
			if !yield(l, nil) {
				return
			}
		}
	}
}

// newest keeps the newest n requests.
type newest struct {
	n    int
	list []audit.Joined
	more bool
}

func (r *newest) add(q audit.Joined) {
	r.list = append(r.list, q)
	if len(r.list) > 2*r.n+16 {
		r.trim()
	}
}

// over says whether there are more than are kept.
func (r *newest) over() bool { return len(r.list) > r.n }

func (r *newest) trim() {
	slices.SortFunc(r.list, func(x, y audit.Joined) int {
		return cmp.Or(y.Decision.Time.Compare(x.Decision.Time), cmp.Compare(y.Decision.Chain, x.Decision.Chain), cmp.Compare(y.Decision.Seq, x.Decision.Seq))
	})
	if r.over() {
		r.more = true
		clear(r.list[r.n:]) // their lines
		r.list = r.list[:r.n]
	}
}

// broken are lines that are not what was written. They are named, and what is
// behind them is read.
type broken struct {
	w     io.Writer
	count int
}

// maxBroken are how many lines are named.
const maxBroken = 20

// note names a broken line, and returns any other error.
func (b *broken) note(err error) error {
	if err == nil || !audit.IsCorrupt(err) {
		return err
	}
	if b.count++; b.count <= maxBroken {
		fmt.Fprintln(b.w, "broken:", audit.Printable(err.Error()))
	}
	return nil
}

// result is the error that reading ends with.
func (b *broken) result(where string, err error) error {
	if err == nil && b.count > 0 {
		err = fmt.Errorf("%s not what was written; `sidegate audit verify` says from where to where the log can be trusted",
			count(b.count, "line is", "lines are"))
	}
	if err == nil || errors.As(err, new(usageError)) {
		return err
	}
	return logError(where, err)
}

// showRequest is one line: terse text, or JSON with both lines as they are.
func showRequest(w io.Writer, q *audit.Joined, asJSON bool) error {
	e, err := q.Event()
	if err != nil {
		return err
	}
	if asJSON {
		for _, l := range []*audit.Line{&q.Decision, &q.Outcome} {
			if err := l.OneLine(); err != nil {
				return err
			}
		}
		outcome := q.Outcome.Raw
		if len(outcome) == 0 {
			outcome = []byte("null")
		}
		_, err := w.Write(bytes.Join([][]byte{[]byte(`{"decision":`), q.Decision.Raw, []byte(`,"outcome":`), outcome, []byte("}\n")}, nil))
		return err
	}
	text := describe(e)
	if e.Summary == nil && e.Outcome == nil {
		text += " outcome=unknown"
	}
	_, err = io.WriteString(w, text+"\n")
	return err
}
