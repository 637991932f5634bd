package cmd

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sidegate/proxy/trial"
	"sidegate/storage/audit"
)

// replayOptions are the flags of `policy replay`.
type replayOptions struct {
	source         auditSource
	since, until   string
	config, format string
	limit          int
	quiet          bool
}

func (p *program) newPolicyReplay() *cobra.Command {
	o := replayOptions{source: auditSource{env: p.env}}
	c := &cobra.Command{
		Use:   "replay NEW",
		Short: "Say what of the past a policy would have decided otherwise",
		Long: `Judge the recorded decisions of an audit log anew, by a policy that need not be in
force, and list those that it decides otherwise. The log holds what its policy read
of callers and documents: what depends on anything else is undecidable, and never
guessed. Not replayed are refusals for a rate, those that no policy made (a bad
token, a bad target, an outage), and those that the log only counts. Not on record,
and so not seen, are what a route with ` + "`audit: off`" + ` allowed, encoded slashes,
upgrades to WebSocket and the length of bodies. It ends with 6 where a decision
changed, with 3 where the policy does not load, and with 1 where the log cannot be
read or holds no decision.`,
		Example: "  sidegate policy replay policy.yaml --since 168h\n" +
			"  sidegate policy replay policy.new.yaml --audit /var/lib/sidegate/audit --format json\n" +
			"  sidegate policy replay policy.yaml --firestore --project acme-prod",
		RunE: func(c *cobra.Command, args []string) error {
			return p.replayPolicy(c.Context(), args[0], &o)
		},
	}
	o.source.flagsAs(c, "audit")
	c.Args = exactly("NEW")
	f := c.Flags()
	f.StringVar(&o.since, "since", "", "only decisions from then on: `TIME` as 2026-03-02T10:00:00+01:00, or how long ago, as 90m or 7d")
	f.StringVar(&o.until, "until", "", "only decisions before `TIME`")
	f.StringVar(&o.config, "config", "", "judge with this sidegate.yaml: its identities, upstreams and buckets")
	f.IntVar(&o.limit, "limit", 3, "how many examples of each change to show")
	f.StringVar(&o.format, "format", "text", "text, json, junit or github")
	f.BoolVar(&o.quiet, "quiet", false, "tell no progress")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	_ = c.MarkFlagFilename("config", "yaml", "yml")
	_ = c.MarkFlagDirname("audit")
	return c
}

// A replayReport is what replay found, also as JSON.
type replayReport struct {
	Policy      namedPolicy     `json:"policy"`
	Decisions   int             `json:"decisions"`
	Same        int             `json:"same"`
	Changed     int             `json:"changed"`
	Undecidable int             `json:"undecidable"`
	Limited     int             `json:"limited"`    // refused for their rate
	Skipped     int             `json:"skipped"`    // no policy decided
	Why         map[string]int  `json:"why"`        // why they are undecidable
	Codes       map[string]int  `json:"codes"`      // of those skipped
	Stubs       int             `json:"stubs"`      // events of which only the hash is there
	Summarised  int             `json:"summarised"` // refusals that are only counted
	From        *time.Time      `json:"from"`       // the first decision
	To          *time.Time      `json:"to"`         // the last
	Changes     []*trial.Change `json:"changes"`
}

var errNothing = errors.New("there is no decision to replay")

func (p *program) replayPolicy(ctx context.Context, path string, o *replayOptions) error {
	now := time.Now()
	since, until, spanErr := timeSpan(o.since, o.until, now)
	if err := errors.Join(checkFormat(o.format), checkLimit(o.limit), spanErr); err != nil {
		return usageError{err}
	}
	t, err := p.newTryout(o.config)
	if err != nil {
		return err
	}
	g, err := t.gate(absolute(path))
	if err != nil {
		return p.refuse(o.format, "policy replay", err)
	}
	lines, closed, err := o.source.lines(ctx)
	if err != nil {
		return err
	}
	defer closed()
	told := p.progress("events read", o.quiet)
	r, err := trial.Replay{Since: since, Until: until, Examples: o.limit, Progress: told.tell}.Run(lines, func() (*trial.Gate, error) { return t.newGate(g.Policy) })
	told.end()
	if err != nil && (r == nil || r.Decisions == 0) {
		return logError(o.source.where(), err)
	}
	report := newReplayReport(nameOf(path, g.Policy), r)
	if werr := report.write(p, o, g); werr != nil {
		return werr
	}
	switch {
	case err != nil: // what could be read is told; for the rest nothing is known
		return logError(o.source.where(), err)
	case r.Changed > 0:
		return reported{errChanged}
	case r.Same+r.Undecidable == 0:
		return fmt.Errorf("audit log %s: %w", o.source.where(), errNothing)
	}
	return nil
}

var agoForm = regexp.MustCompile(`^(\d{1,6})d$`)

// moment reads a time, or how long ago it was; the zero Time where nothing is
// written.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if m := agoForm.FindStringSubmatch(text); m != nil {
		days, _ := strconv.Atoi(m[1])
		return now.AddDate(0, 0, -days), nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, fmt.Errorf("%s: %q is neither a time such as 2026-03-02T10:00:00+01:00 nor an age such as 90m or 7d", flag, text)
}

// lines are those of the folder or the collection, until ctx ends.
func (s *auditSource) lines(ctx context.Context) (lines iter.Seq2[audit.Line, error], closed func(), err error) {
	if !s.firestore {
		return until(ctx, audit.Lines(s.dir)), func() {}, nil
	}
	client, log, err := s.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	return until(ctx, log.Lines(ctx)), func() { client.Close() }, nil
}

// where is the log's place, for errors.
func (s *auditSource) where() string {
	if s.firestore {
		return "in Firestore"
	}
	return s.dir
}

func until(ctx context.Context, lines iter.Seq2[audit.Line, error]) iter.Seq2[audit.Line, error] {
	return func(yield func(audit.Line, error) bool) {
		for l, err := range lines {
			if ctx.Err() != nil {
				yield(audit.Line{}, ctx.Err())
				return
			}
			if !yield(l, err) {
				return
			}
		}
	}
}

func newReplayReport(name namedPolicy, r *trial.Replayed) *replayReport {
	out := &replayReport{
		Policy: name, Decisions: r.Decisions, Same: r.Same, Changed: r.Changed, Undecidable: r.Undecidable, Limited: r.Limited,
		Skipped: r.Skipped, Why: r.Why, Codes: r.Codes, Stubs: r.Stubs, Summarised: r.Summarised, Changes: r.Changes,
	}
	if r.Decisions > 0 {
		out.From, out.To = &r.First, &r.Last
	}
	return out
}

func (r *replayReport) write(p *program, o *replayOptions, g *trial.Gate) error {
	const one, many = "decision", "decisions"
	if o.format == "json" {
		return writeJSON(p.stdout, r)
	}
	c := changeList{r.Changes, g.Policy.Rules(), r.Policy.File, "policy replay", "policy replay " + r.Policy.File, one, many}
	out, err := c.write(p, o.format)
	if err != nil {
		return err
	}
	for _, why := range slices.Sorted(maps.Keys(r.Why)) {
		out.line("undecidable, %s: %s", count(r.Why[why], one, many), audit.Printable(why))
	}
	if r.Stubs > 0 {
		out.line("note: of %s only the hash is in the log", count(r.Stubs, "event", "events"))
	}
	if r.Summarised > 0 {
		out.line("note: %s not replayed: the log only counts them", count(r.Summarised, "more refusal is", "more refusals are"))
	}
	out.line("%s", r.totals())
	return out.err
}

// totals is the last line.
func (r *replayReport) totals() string {
	var b strings.Builder
	if r.From != nil {
		fmt.Fprintf(&b, "%s to %s: ", r.From.UTC().Format(time.RFC3339), r.To.UTC().Format(time.RFC3339))
	}
	fmt.Fprintf(&b, "%s: %d the same, %d changed, %d undecidable", count(r.Decisions, "decision", "decisions"), r.Same, r.Changed, r.Undecidable)
	if r.Limited > 0 {
		fmt.Fprintf(&b, ", %d refused for their rate", r.Limited)
	}
	if r.Skipped > 0 {
		var codes []string
		for _, code := range slices.Sorted(maps.Keys(r.Codes)) {
			codes = append(codes, fmt.Sprintf("%s %d", audit.Printable(code), r.Codes[code]))
		}
		fmt.Fprintf(&b, ", %d not a policy's (%s)", r.Skipped, strings.Join(codes, ", "))
	}
	return b.String()
}
