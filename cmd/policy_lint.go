package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sidegate/policy"
	"sidegate/policy/document"
)

// lintOptions are the flags of `policy lint`.
type lintOptions struct {
	config, now, openapi string
	format, errorOn      string
}

func (p *program) newPolicyLint() *cobra.Command {
	var o lintOptions
	c := &cobra.Command{
		Use:   "lint [FILE]",
		Short: "Say what in a policy is likely not meant",
		Long: `Say what is wrong with a policy and, where nothing is, what in it is likely not
meant. The rules and their numbers are in docs/policy.md; a comment
# lint:ignore SG105 reason in words
keeps one silent. Rules that the tests beside the policy (*_test.yaml) never saw
both true and false are findings, where there are tests.
It ends with 3 where the policy, or a test file beside it, does not load, and with 5
where there are findings.`,
		Example: "  sidegate policy lint\n  sidegate policy lint policy.yaml --config sidegate.yaml --format github\n  sidegate policy lint --openapi openapi.json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return p.lintPolicy(c.Context(), args, &o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.config, "config", "", "judge with this sidegate.yaml: its identities, upstreams and buckets")
	f.StringVar(&o.now, "now", "", "the day, as 2026-03-02, that the age of trials counts to (default today)")
	f.StringVar(&o.openapi, "openapi", "", "also list the operations of this OpenAPI `file` that no route covers")
	f.StringVar(&o.format, "format", "text", "text, json, junit or github")
	f.StringVar(&o.errorOn, "error-on", "warning", "warning: findings make the status 5; error: they are only shown")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("error-on", cobra.FixedCompletions(severities, cobra.ShellCompDirectiveNoFileComp))
	_ = c.MarkFlagFilename("config", "yaml", "yml")
	_ = c.MarkFlagFilename("openapi", "yaml", "yml", "json")
	return c
}

// severities of findings, the least first.
var severities = []string{policy.SeverityWarning, policy.SeverityError}

// day is --now, or today.
func (o *lintOptions) day() (time.Time, error) {
	if o.now == "" {
		return time.Now(), nil
	}
	day, err := time.Parse(time.DateOnly, o.now)
	if err != nil {
		return day, usageError{fmt.Errorf("--now: %q is no day such as 2026-03-02", o.now)}
	}
	return day, nil
}

func (p *program) lintPolicy(ctx context.Context, args []string, o *lintOptions) error {
	if err := checkFormat(o.format); err != nil {
		return err
	}
	if !slices.Contains(severities, o.errorOn) {
		return usageError{fmt.Errorf("--error-on must be warning or error, not %q", o.errorOn)}
	}
	now, err := o.day()
	if err != nil {
		return err
	}
	t, err := p.newTryout(o.config)
	if err != nil {
		return err
	}
	path := "policy.yaml"
	switch {
	case len(args) > 0:
		path = args[0]
	case t.config != nil:
		path = t.config.Policy
	}
	r := lintReport{file: shortPath(absolute(path))}
	options := policy.LintOptions{Env: policyEnvironment(t.config), Now: now}
	loads, err := r.lint(path, options, func() (map[string]string, error) { return t.untested(ctx, path) })
	if err != nil {
		return err
	}
	if o.openapi != "" && loads {
		if err := r.operations(path, o.openapi, options.Env); err != nil {
			return err
		}
	}
	failed := r.has(o.errorOn, policy.SeverityError)
	if err := r.write(p.stdout, o, !failed, p.colour(p.stdout)); err != nil {
		return err
	}
	switch {
	case r.has(policy.SeverityError):
		return reported{invalid{errInvalid}}
	case failed:
		return reported{errFindings}
	}
	return nil
}

// A lintReport is what lint found in a policy, and beside it.
type lintReport struct {
	file     string
	findings []policy.Finding
}

func (r *lintReport) has(severities ...string) bool {
	return slices.ContainsFunc(r.findings, func(f policy.Finding) bool { return slices.Contains(severities, f.Severity) })
}

// lint looks at the policy first: tests of one that does not load say nothing.
func (r *lintReport) lint(path string, o policy.LintOptions, untested func() (map[string]string, error)) (loads bool, err error) {
	data, err := readBounded(path, document.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("no policy: %w; name another, or `sidegate init` writes one", err)
	}
	if err != nil {
		return false, fmt.Errorf("read the policy: %w", err)
	}
	r.findings = policy.Lint(r.file, data, o)
	if r.has(policy.SeverityError) {
		return false, nil
	}
	o.Untested, err = untested()
	if errors.Is(err, errInvalid) { // tests that cannot be read are a finding beside the others
		for _, f := range findings(err) {
			r.findings = append(r.findings, policy.Finding{Severity: policy.SeverityError, File: f.File, Line: f.Line, Column: f.Column, Text: f.Text})
		}
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if o.Untested != nil {
		r.findings = policy.Lint(r.file, data, o)
	}
	return true, nil
}

// operations adds those of an OpenAPI file that no route covers.
func (r *lintReport) operations(path, openapi string, env *policy.Environment) error {
	data, err := readBounded(path, document.MaxBytes)
	if err != nil {
		return fmt.Errorf("read the policy: %w", err)
	}
	pol, err := policy.Load(r.file, data, env)
	if err != nil {
		return invalid{err}
	}
	if data, err = readBounded(openapi, document.MaxBytes); err != nil {
		return fmt.Errorf("read the OpenAPI file: %w", err)
	}
	found, err := pol.Uncovered(shortPath(absolute(openapi)), data)
	if err != nil {
		return err
	}
	r.findings = append(r.findings, found...)
	return nil
}

func (r *lintReport) write(w io.Writer, o *lintOptions, ok, colour bool) error {
	switch o.format {
	case "json":
		if r.findings == nil {
			r.findings = []policy.Finding{}
		}
		return writeJSON(w, struct {
			OK       bool             `json:"ok"`
			Policy   string           `json:"policy"`
			Findings []policy.Finding `json:"findings"`
		}{ok, r.file, r.findings})
	case "junit":
		return r.junit(w, o)
	}
	out := printer{w: w}
	for _, f := range r.findings {
		if o.format == "github" {
			out.line("%s", githubCommand(f.Severity, f.File, f.Line, f.Column, titleOf(f), f.Text))
		} else {
			out.line("%s", findingText(f, colour))
		}
	}
	if o.format == "text" && len(r.findings) == 0 {
		out.line("%s: %s", paint(colour, "32")("ok"), r.file)
	}
	return out.err
}

// titleOf names a finding's rule.
func titleOf(f policy.Finding) string {
	if f.ID == "" {
		return "policy lint"
	}
	return f.ID
}

// findingText is a finding as editors and people find it: file:line:column.
func findingText(f policy.Finding, colour bool) string {
	code := "33"
	if f.Severity == policy.SeverityError {
		code = "31"
	}
	text := paint(colour, code)(f.Severity) + ": " + strings.TrimSpace(f.ID+" "+f.Text)
	return document.Error{File: f.File, Line: f.Line, Column: f.Column, Text: text}.Error()
}

// junit writes a case for each finding; those that do not count have passed.
func (r *lintReport) junit(w io.Writer, o *lintOptions) error {
	s := junitSuite{Name: "policy lint"}
	for _, f := range r.findings {
		c := junitCase{Class: f.File, Name: findingText(f, false), File: f.File, Line: f.Line}
		if f.Severity == policy.SeverityError || o.errorOn == policy.SeverityWarning {
			c.Failure = &junitFailure{titleOf(f), findingText(f, false)}
		}
		s.add(c)
	}
	if len(r.findings) == 0 {
		s.add(junitCase{Class: r.file, Name: "lint", File: r.file})
	}
	return writeJUnit(w, []junitSuite{s})
}
