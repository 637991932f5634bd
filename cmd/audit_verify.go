package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"sidegate/storage/audit"
)

func newAuditVerify(env environment, stdout, stderr io.Writer) *cobra.Command {
	s := auditSource{env: env}
	var with checkpointFlags
	c := &cobra.Command{
		Use:   "verify",
		Short: "Recompute the log's chain and name what does not fit",
		Long: `Recompute the hash chain over every line and name the first line that is not what
was written. With --key, hold the lines against the signed checkpoints beside them
and in --checkpoint; a chain that none of them is about is a failure then. It says
from where to where it vouches, and what it cannot know: events that were removed
from the end show only against a checkpoint that was kept elsewhere.`,
		Example: "  sidegate audit verify --dir data/audit\n" +
			"  sidegate audit verify --key audit.pub --checkpoint /safe/head.note\n" +
			"  sidegate audit verify --firestore --project acme-prod --key audit.pub",
	}
	s.flags(c)
	with.add(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		v, err := with.verification()
		if err != nil {
			return err
		}
		told := (&program{stderr: stderr}).progress("events verified", false)
		v.Progress = told.tell
		r, err := s.verify(c.Context(), v)
		told.end()
		if werr := showVerified(stdout, &r); werr != nil {
			return werr
		}
		if err != nil {
			return err
		}
		if err := r.Failure(); err != nil {
			return fmt.Errorf("%s: %s%s", verdict(&r), audit.Printable(err.Error()), perhapsShipping(&r, s.firestore))
		}
		if len(r.Reports) == 0 {
			return errors.New("there are no events: nothing was verified. Is it the right folder, or collection?")
		}
		return nil
	}
	return c
}

// verdict says what a failure shows. A note of a key that was not given, and a
// chain without a checkpoint, can be a forgery or a forgotten flag.
func verdict(r *audit.Result) string {
	if len(r.Missing) == 0 && !slices.ContainsFunc(r.Reports, isBroken) {
		return "it is not shown that the audit log is what was written"
	}
	return "the audit log is not what was written"
}

func isBroken(r audit.Report) bool { return r.Broken != nil }

// perhapsShipping says what else can leave a hole at a collection's end: the
// writes of a batch are stored in any order.
func perhapsShipping(r *audit.Result, firestore bool) string {
	if !firestore || !slices.ContainsFunc(r.Reports, isBroken) {
		return ""
	}
	return "; where a gateway is shipping, the end can be a part of its last batch: run verify again"
}

// checkpointFlags are what signed checkpoints are checked with.
type checkpointFlags struct {
	keys, files []string
	unsigned    bool
}

func (f *checkpointFlags) add(c *cobra.Command) {
	f.addKey(c)
	c.Flags().StringArrayVar(&f.files, "checkpoint", nil, "a signed checkpoint that was kept elsewhere, such as a copy of head.note; may be repeated")
	c.Flags().BoolVar(&f.unsigned, "allow-unsigned", false, "with --key: a chain that no checkpoint vouches for is no failure, such as one from before there was a key")
}

func (f *checkpointFlags) addKey(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.keys, "key", nil, "the public key that checkpoints are verified with, or a file that holds it; may be repeated")
}

func (f *checkpointFlags) verification() (audit.Verification, error) {
	var v audit.Verification
	if len(f.files) > 0 && len(f.keys) == 0 {
		return v, usageError{errors.New("--checkpoint needs --key: without it nobody knows who signed")}
	}
	for _, name := range f.files {
		n, err := audit.ReadNote(name)
		if err != nil {
			return v, fmt.Errorf("--checkpoint: %w", err)
		}
		n.Name = name
		v.Notes = append(v.Notes, n)
	}
	var err error
	v.AllowUnsigned = f.unsigned
	v.Keys, err = f.verifiers()
	return v, err
}

// verifiers are nil where no key was given.
func (f *checkpointFlags) verifiers() (note.Verifiers, error) {
	var list []note.Verifier
	for _, text := range f.keys {
		v, err := readVerifier(text)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	if len(list) == 0 {
		return nil, nil
	}
	return note.VerifierList(list...), nil
}

// maxKeyFile bounds a file with a key, in bytes.
const maxKeyFile = 4096

// secretKey is how a key to sign with begins (golang.org/x/mod/sumdb/note).
const secretKey = "PRIVATE+KEY+"

// readVerifier reads a public key, or the file of one. What is no such key is
// never repeated: it could be the secret one.
func readVerifier(text string) (note.Verifier, error) {
	if v, err := note.NewVerifier(text); err == nil {
		return v, nil
	}
	if strings.HasPrefix(text, secretKey) {
		return nil, usageError{errors.New("--key: this is the key to sign with, which belongs on no command line; give the public one that `sidegate audit keygen` printed")}
	}
	f, err := os.Open(text)
	if err != nil {
		return nil, fmt.Errorf("--key: it is no public key as `sidegate audit keygen` prints it, and no such file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	v, err := note.NewVerifier(strings.TrimSpace(string(data)))
	switch {
	case err == nil:
		return v, nil
	case strings.HasPrefix(string(data), secretKey):
		return nil, fmt.Errorf("--key: %s holds the key to sign with; give the public one that `sidegate audit keygen` printed", text)
	}
	return nil, fmt.Errorf("--key: %s holds no public key as `sidegate audit keygen` prints it", text)
}

func (s *auditSource) verify(ctx context.Context, v audit.Verification) (audit.Result, error) {
	if s.firestore {
		client, log, err := s.open(ctx)
		if err != nil {
			return audit.Result{}, err
		}
		defer client.Close()
		heads, err := log.Checkpoints(ctx) // before the lines, which are there before them
		if err != nil {
			return audit.Result{}, err
		}
		v.Notes, v.Now = append(v.Notes, heads...), time.Now()
		return v.Lines(ctx, log.Lines(ctx))
	}
	r, err := v.Dir(ctx, s.dir)
	if err != nil {
		return r, logError(s.dir, err)
	}
	return r, nil
}

// maxListed is how many checkpoints are named one by one.
const maxListed = 20

func showVerified(w io.Writer, r *audit.Result) error {
	p := printer{w: w}
	for i := range r.Reports {
		p.report(&r.Reports[i])
	}
	for _, err := range slices.Concat(r.Missing, r.Refused, r.Unsigned) {
		p.line("BROKEN: %s", audit.Printable(err.Error()))
	}
	if len(r.Missing) > 0 {
		p.line("a chain that a repair put away is in the folder damaged-TIME within audit.dir: verify that one with --dir")
	}
	if len(r.Refused) > 0 {
		p.line("where the key was changed, give --key for each public key that was in use")
	}
	if len(r.Unsigned) > 0 {
		p.line("give --checkpoint with a note that was kept; where you know that there was no key yet, --allow-unsigned")
	}
	for i, name := range r.Unchecked {
		if i == maxListed {
			p.line("and %d more checkpoints: not checked", len(r.Unchecked)-i)
			break
		}
		p.line("checkpoint %s: not checked, for want of --key", audit.Printable(name))
	}
	return p.err
}

func (p *printer) report(r *audit.Report) {
	p.line("chain %s", audit.Printable(r.Chain))
	if r.First != 0 {
		p.line("  verified seq %d (%s) to %d (%s)", r.First, r.From.Format(time.RFC3339), r.Last, r.To.Format(time.RFC3339))
		p.line("  head %s", r.Head)
	}
	if r.First > 1 {
		p.beginning(r)
	}
	for _, g := range r.Gaps {
		p.line("  seq %d to %d are missing: they may have expired, or were removed", g.From, g.To)
	}
	for _, seq := range r.Stubs {
		p.line("  seq %d: only its hash is here; the event is in the gateway's dead-letter.jsonl", seq)
	}
	if r.Torn > 0 {
		p.line("  the last %d bytes are no whole line: a gateway is writing it, or died there", r.Torn)
	}
	if r.Checkpoints > 0 {
		p.line("  %d signed checkpoints fit, the newest of seq %d (%s)", r.Checkpoints, r.Newest.Seq, r.Newest.Time.Format(time.RFC3339))
	}
	if r.Passed > 0 {
		p.line("  %d checkpoints are of events that are not here any more: they say nothing", r.Passed)
	}
	if r.Broken != nil {
		p.line("  BROKEN: %s", audit.Printable(r.Broken.Error()))
		seq, _ := r.Vouched()
		p.line("  nothing is vouched for after seq %d", seq)
		return
	}
	p.end(r)
}

// beginning says what is known of what was before the first event.
func (p *printer) beginning(r *audit.Report) {
	switch {
	case r.Retired >= r.First-1:
		p.line("  the events before seq %d were deleted by retention, as the log itself says", r.First)
	default:
		p.line("  the events before seq %d are not here: nothing is known of them", r.First)
	}
	if r.Anchored {
		p.line("  a signed checkpoint of seq %d vouches for where seq %d begins", r.First-1, r.First)
	}
}

// end says what is not known of the end.
func (p *printer) end(r *audit.Report) {
	switch {
	case r.Newest.Seq == 0:
		p.line("  intact as a chain, and no signed checkpoint vouches for it: events removed after seq %d, or a chain computed anew, would not show here. Compare with a checkpoint kept elsewhere", r.Last)
	case r.Newest.Seq < r.Last:
		p.line("  intact. Seq %d to %d are vouched for by the chain alone: events removed after seq %d, or these computed anew, would not show here", r.Newest.Seq+1, r.Last, r.Last)
	default:
		p.line("  intact, and signed to its end. Events removed after seq %d would show only against a newer checkpoint kept elsewhere", r.Last)
	}
}
