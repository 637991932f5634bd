package cmd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sidegate/policy"
	"sidegate/policy/document"
	"sidegate/proxy/trial"
)

// diffOptions are the flags of `policy diff`.
type diffOptions struct {
	tests          []string
	config, format string
	rules, quiet   bool
	limit          int
}

func (p *program) newPolicyDiff() *cobra.Command {
	var o diffOptions
	c := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say what two policies decide otherwise",
		Long: `Judge requests by two policies and list those that they decide otherwise: requests
that are made to meet every route, entry and guard of both, at the boundaries of
all their fields, and those of test files, whatever these expect of them. Rates are
not compared, nor what becomes of a request once it is decided. That nothing is
found says that nothing was found: a condition in ` + "`if`" + ` is met by trying values.
It ends with 6 where a decision changed, and with 3 where a policy does not load.`,
		Example: "  sidegate policy diff policy.yaml policy.new.yaml\n" +
			"  git show main:policy.yaml > /tmp/before.yaml && sidegate policy diff /tmp/before.yaml policy.yaml --format github",
		Args: exactly("OLD", "NEW"),
		RunE: func(c *cobra.Command, args []string) error {
			return p.diffPolicies(c.Context(), args[0], args[1], &o)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&o.tests, "tests", nil, "a test `file`, or a folder of them; may be repeated (default: those beside NEW that name one of the two)")
	f.StringVar(&o.config, "config", "", "judge with this sidegate.yaml: its identities, upstreams and buckets")
	f.BoolVar(&o.rules, "rules", false, "also list requests that another rule decides, or for another reason")
	f.IntVar(&o.limit, "limit", 1, "how many examples of each change to show")
	f.StringVar(&o.format, "format", "text", "text, json, junit or github")
	f.BoolVar(&o.quiet, "quiet", false, "tell no progress")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	_ = c.MarkFlagFilename("config", "yaml", "yml")
	return c
}

// A diffReport is what diff found, also as JSON.
type diffReport struct {
	Old     namedPolicy     `json:"old"`
	New     namedPolicy     `json:"new"`
	Probes  int             `json:"probes"` // requests that were made
	Cases   int             `json:"cases"`  // requests of test files
	Cut     bool            `json:"cut"`    // more requests could have been made
	Changed int             `json:"changed"`
	Changes []*trial.Change `json:"changes"`
	Notes   []string        `json:"notes"`
}

func (p *program) diffPolicies(ctx context.Context, oldPath, newPath string, o *diffOptions) error {
	if err := errors.Join(checkFormat(o.format), checkLimit(o.limit)); err != nil {
		return usageError{err}
	}
	t, err := p.newTryout(o.config)
	if err != nil {
		return err
	}
	before, oldErr := t.gate(absolute(oldPath))
	after, newErr := t.gate(absolute(newPath))
	if err := joined(oldErr, newErr); err != nil {
		return p.refuse(o.format, "policy diff", err)
	}
	r := diffReport{Old: nameOf(oldPath, before.Policy), New: nameOf(newPath, after.Policy), Notes: []string{}}
	files, err := o.pairs(t, oldPath, newPath, before, after, &r)
	if err != nil {
		return err
	}
	told := p.progress("requests judged", o.quiet)
	d := trial.Diff(before, after, files, trial.Comparison{Rules: o.rules, Examples: o.limit, Progress: told.tell, Stop: ctx.Done()})
	told.end()
	if err := ctx.Err(); err != nil {
		return err
	}
	r.Probes, r.Cases, r.Cut, r.Changed, r.Changes = d.Probes, d.Cases, d.Cut, d.Changed, d.Changes
	if r.Cut {
		r.Notes = append(r.Notes, fmt.Sprintf("only %d requests were made: for policies of this size more would be needed to meet every boundary", r.Probes))
	}
	if rest := policy.Uncompared(before.Policy, after.Policy); len(rest) > 0 {
		r.Notes = append(r.Notes, "these differ, and no request shows it: "+strings.Join(rest, "; "))
	}
	if err := r.write(p, o, after); err != nil {
		return err
	}
	if r.Changed > 0 {
		return reported{errChanged}
	}
	return nil
}

// joined is both errors, where both are mistakes in files; else that which is
// none.
func joined(a, b error) error {
	switch {
	case a == nil:
		return b
	case b == nil || !errors.Is(a, errInvalid):
		return a
	case !errors.Is(b, errInvalid):
		return b
	}
	return invalid{errors.Join(a, b)}
}

// pairs reads the test files, for each policy.
func (o *diffOptions) pairs(t *tryout, oldPath, newPath string, before, after *trial.Gate, r *diffReport) ([]trial.Pair, error) {
	named := len(o.tests) > 0
	where := o.tests
	if !named {
		where = []string{filepath.Dir(newPath)}
	}
	paths, err := testFiles(where)
	if err != nil {
		return nil, err
	}
	var out []trial.Pair
	for _, path := range paths {
		name := shortPath(absolute(path))
		data, err := readBounded(path, maxTestFile)
		if err != nil {
			return nil, fmt.Errorf("read the test file: %w", err)
		}
		of, err := trial.ReadPolicyName(name, data)
		if err == nil {
			of = policyOf(path, of)
		}
		if !named && (err != nil || (of != absolute(oldPath) && of != absolute(newPath))) {
			continue // of another policy
		}
		pair := trial.Pair{Name: name}
		var oldErr, newErr error
		pair.Old, oldErr = trial.ReadTests(name, data, before.Policy, t.namespaces())
		pair.New, newErr = trial.ReadTests(name, data, after.Policy, t.namespaces())
		switch {
		case oldErr != nil && newErr != nil:
			return nil, invalid{newErr}
		case oldErr != nil:
			r.Notes = append(r.Notes, onlyFor(name, r.Old.File, r.New.File, oldErr))
		case newErr != nil:
			r.Notes = append(r.Notes, onlyFor(name, r.New.File, r.Old.File, newErr))
		}
		out = append(out, pair)
	}
	return out, nil
}

// onlyFor says that a file loads for one policy only.
func onlyFor(name, not, but string, err error) string {
	why := err.Error()
	var list document.Errors
	if errors.As(err, &list) && len(list) > 0 {
		why = list[0].Text
	}
	return fmt.Sprintf("%s does not load for %s (%s): its requests are judged as it reads for %s", name, not, why, but)
}

func (r *diffReport) write(p *program, o *diffOptions, after *trial.Gate) error {
	const one, many = "request", "requests"
	if o.format == "json" {
		return writeJSON(p.stdout, r)
	}
	c := changeList{r.Changes, after.Policy.Rules(), r.New.File, "policy diff", "policy diff " + r.Old.File + " " + r.New.File, one, many}
	out, err := c.write(p, o.format)
	if err != nil {
		return err
	}
	for _, n := range r.Notes {
		out.line("note: %s", n)
	}
	line := fmt.Sprintf("%s made from the policies and %s of test files: ", count(r.Probes, one, many), count(r.Cases, one, many))
	if r.Changed == 0 {
		out.line("%sall decided as before", line)
	} else {
		out.line("%s%d decided otherwise, in %s", line, r.Changed, count(len(r.Changes), "way", "ways"))
	}
	return out.err
}
