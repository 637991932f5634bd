package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"sidegate/policy"
	"sidegate/policy/document"
)

func (p *program) newCheck() *cobra.Command {
	var format string
	var asJSON bool
	var o onlineOptions
	c := &cobra.Command{
		Use:   "check",
		Short: "Say what is wrong with sidegate.yaml and policy.yaml",
		Long: `Load sidegate.yaml and policy.yaml as run would, and print everything that is
wrong with them. Nothing is opened, asked or changed.

With --online then ask what the gateway will need: ports, the issuers' keys, clocks,
credentials, each bucket, Firestore, Redis, the audit log's folder. It is printed as a
checklist, with what to do about each line that is not ok; the status is 1 where a
line is fail. Run it where the gateway is to run, as its user. In each bucket one
small object is written and deleted again; docs/operations.md says what each line
asks, and which permissions that takes.`,
		Example: "  sidegate check\n  sidegate check --config prod.yaml --policy policy.yaml --json\n  sidegate check --online",
		Args:    cobra.NoArgs,
	}
	flags := addSettingsFlags(c)
	c.Flags().StringVar(&format, "format", "text", "text or json")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, as --format json does")
	c.Flags().BoolVar(&o.on, "online", false, "also ask what the gateway will need, as a checklist")
	c.Flags().DurationVar(&o.timeout, "timeout", probeTimeout, "how long each part of --online may take")
	c.MarkFlagsMutuallyExclusive("format", "json")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	c.RunE = func(c *cobra.Command, _ []string) error {
		if asJSON {
			format = "json"
		}
		if format != "text" && format != "json" {
			return usageError{fmt.Errorf("--format must be text or json, not %q", format)}
		}
		if err := o.check(c.Flags().Changed("timeout")); err != nil {
			return err
		}
		r, s, pol, err := p.check(flags)
		if err != nil {
			return err
		}
		if !o.on || !r.OK {
			return r.print(p, format)
		}
		return p.checkOnline(c.Context(), r, s, pol, o.timeout, format)
	}
	return c
}

// A checkResult is what check found.
type checkResult struct {
	OK       bool          `json:"ok"`
	Config   string        `json:"config"`
	Policy   *policyResult `json:"policy,omitempty"`
	Findings []finding     `json:"findings"`
}

type policyResult struct {
	File   string `json:"file"`
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Routes int    `json:"routes"`
}

// A finding is one thing that is wrong, or, of severity warning, that may be.
type finding struct {
	Severity string `json:"severity"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Text     string `json:"text"`
}

func (f finding) String() string {
	if f.File == "" {
		return f.Text
	}
	return document.Error{File: f.File, Line: f.Line, Column: f.Column, Text: f.Text}.Error()
}

// check loads both files, and gives them where nothing is wrong with them. Its
// error is of what kept it from looking.
func (p *program) check(flags *settingsFlags) (checkResult, settings, *policy.Policy, error) {
	r := checkResult{Config: flags.config, Findings: []finding{}}
	s, configErr := p.loadSettings(flags)
	if configErr != nil && !errors.Is(configErr, errInvalid) {
		return r, s, nil, configErr
	}
	path := s.policy
	if s.config == nil {
		path = guessPolicy(flags)
	}
	loaded, policyErr := loadPolicy(path, s.config)
	switch {
	case policyErr == nil:
		r.Policy = describePolicy(path, loaded)
	case s.config == nil && errors.Is(policyErr, fs.ErrNotExist):
		policyErr = nil // where the policy lies stands in a config that cannot be read
	case !errors.Is(policyErr, errInvalid):
		return r, s, nil, policyErr
	}
	for _, err := range []error{configErr, policyErr} {
		r.Findings = append(r.Findings, findings(err)...)
	}
	r.OK = len(r.Findings) == 0
	for _, w := range s.warnings {
		r.Findings = append(r.Findings, finding{Severity: "warning", Text: w})
	}
	return r, s, loaded, nil
}

// guessPolicy is where the policy lies if the config does not say otherwise.
func guessPolicy(flags *settingsFlags) string {
	if flags.policy != "" {
		return flags.policy
	}
	return filepath.Join(filepath.Dir(flags.config), "policy.yaml")
}

func describePolicy(path string, p *policy.Policy) *policyResult {
	return &policyResult{File: shortPath(path), Name: p.Name, SHA256: p.SHA256, Routes: len(p.Routes)}
}

// findings takes an error apart into the mistakes that it lists.
func findings(err error) []finding {
	var list document.Errors
	switch e := err.(type) {
	case nil:
		return nil
	case document.Errors:
		list = e
	case interface{ Unwrap() []error }:
		var out []finding
		for _, one := range e.Unwrap() {
			out = append(out, findings(one)...)
		}
		return out
	case invalid:
		return findings(e.error)
	default:
		return []finding{{Severity: "error", Text: err.Error()}}
	}
	out := make([]finding, len(list))
	for i, e := range list {
		out[i] = finding{"error", e.File, e.Line, e.Column, e.Text}
	}
	return out
}

// print writes the findings to standard output; its error is the status.
func (r checkResult) print(p *program, format string) error {
	if format == "json" {
		if err := writeJSON(p.stdout, r); err != nil {
			return err
		}
	} else if err := r.printText(p); err != nil {
		return err
	}
	if !r.OK {
		return reported{invalid{errInvalid}}
	}
	return nil
}

func (r checkResult) printText(p *program) error {
	for _, f := range r.Findings {
		prefix := ""
		if f.Severity == "warning" {
			prefix = "warning: "
		}
		if _, err := fmt.Fprintf(p.stdout, "%s%s\n", prefix, f); err != nil {
			return err
		}
	}
	if !r.OK {
		return nil
	}
	_, err := fmt.Fprintf(p.stdout, "ok: %s, %s (policy %s, routes: %d, sha256 %s)\n", r.Config, r.Policy.File, r.Policy.Name, r.Policy.Routes, r.Policy.SHA256)
	return err
}
