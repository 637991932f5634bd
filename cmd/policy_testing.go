package cmd

import (
	"context"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sidegate/policy"
	"sidegate/proxy/trial"
)

// testOptions are the flags of `policy test`.
type testOptions struct {
	config, format, run string
	coverage, verbose   bool
	watch               bool
	min                 float64
}

func (p *program) newPolicyTest() *cobra.Command {
	var o testOptions
	c := &cobra.Command{
		Use:   "test [FILE|FOLDER]...",
		Short: "Run the tests of policies",
		Long: `Run test files (*_test.yaml), those of this folder where none is named. Each case
is judged as the gateway would judge the request; nothing is asked of a network.
It ends with 4 where a test fails or none ran, 3 where a file does not load, 5
where coverage is below --min.`,
		Example: "  sidegate policy test\n  sidegate policy test --coverage --min 100\n  sidegate policy test policy_test.yaml --format junit > results.xml",
		RunE: func(c *cobra.Command, args []string) error {
			return p.testPolicies(c.Context(), args, &o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.config, "config", "", "judge with this sidegate.yaml: its identities, upstreams and buckets")
	f.StringVar(&o.format, "format", "text", "text, json, junit or github")
	f.StringVar(&o.run, "run", "", "only tests whose name matches this regular expression")
	f.BoolVar(&o.coverage, "coverage", false, "show which guards and entries the tests did not see both ways")
	f.Float64Var(&o.min, "min", 0, "the coverage, in percent, below which the status is 5")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "show every case")
	f.BoolVar(&o.watch, "watch", false, "run again whenever a test file or a policy changes, until interrupted")
	_ = c.MarkFlagFilename("config", "yaml", "yml")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (p *program) testPolicies(ctx context.Context, args []string, o *testOptions) error {
	if err := checkFormat(o.format); err != nil {
		return err
	}
	if o.min < 0 || o.min > 100 {
		return usageError{fmt.Errorf("--min is a percentage from 0 to 100, not %g", o.min)}
	}
	names, err := regexp.Compile(o.run)
	if err != nil {
		return usageError{fmt.Errorf("--run: %w", err)}
	}
	keep := func(r trial.Result) bool { return names.MatchString(r.Test) }
	for {
		seen := watchedBy(args, o.config) // before they are read: a change during the run counts
		err := p.testOnce(ctx, args, o, keep)
		if !o.watch {
			return err
		}
		if err != nil {
			p.report(err)
		}
		fmt.Fprintln(p.stderr, "sidegate: waiting for a change")
		if !seen.wait(ctx) {
			return nil
		}
	}
}

func (p *program) testOnce(ctx context.Context, args []string, o *testOptions, keep func(trial.Result) bool) error {
	paths, err := testFiles(args)
	if err != nil {
		return err
	}
	t, err := p.newTryout(o.config)
	if err != nil {
		return err
	}
	run, err := t.runTests(ctx, paths, keep)
	if err != nil {
		return err
	}
	if err := run.write(p.stdout, o, p.colour(p.stdout)); err != nil {
		return err
	}
	if o.format == "json" || o.format == "junit" { // whose output is one document
		out := printer{w: p.stderr}
		if run.percent() < o.min {
			run.coverageText(&out, o.min)
		}
		run.closing(&out, o)
	}
	return run.err(o.min)
}

// write prints a run in one of the formats. The last line of text is the count.
func (r *testRun) write(w io.Writer, o *testOptions, colour bool) error {
	out := printer{w: w}
	switch o.format {
	case "json":
		return writeJSON(w, r.json(o))
	case "junit":
		return r.junit(w)
	case "github":
		r.github(&out)
	default:
		r.text(&out, o, colour)
	}
	if (o.coverage || o.min > 0) && r.loaded() {
		if o.format == "github" {
			r.coverageGithub(&out)
		}
		r.coverageText(&out, o.min)
	}
	r.closing(&out, o)
	return out.err
}

// closing is the end of the output: the count is its last line.
func (r *testRun) closing(out *printer, o *testOptions) {
	passed, failed := r.counts()
	if passed+failed == 0 && o.run != "" && len(r.files) > 0 {
		out.line("no test's name matches --run %q", o.run)
	}
	out.line("%d passed, %d failed", passed, failed)
}

// loaded reports whether every file was read: else what tests saw says nothing.
func (r *testRun) loaded() bool {
	return !slices.ContainsFunc(r.files, func(f fileRun) bool { return f.err != nil })
}

// coverageGithub annotates what tests did not see.
func (r *testRun) coverageGithub(out *printer) {
	r.eachUntested(func(file string, rule policy.Rule, missing string) {
		out.line("%s", githubCommand("warning", file, rule.Line, rule.Column, "coverage", untestedText(rule, missing)))
	})
}

// eachUntested gives each rule that tests did not see both ways.
func (r *testRun) eachUntested(each func(file string, rule policy.Rule, missing string)) {
	for _, path := range slices.Sorted(maps.Keys(r.cover)) {
		untested := r.cover[path].Untested()
		for _, rule := range r.cover[path].Rules() {
			if missing := untested[rule.ID]; missing != "" {
				each(shortPath(path), rule, missing)
			}
		}
	}
}

func untestedText(rule policy.Rule, missing string) string {
	if missing == "either" {
		missing = "true or false"
	}
	return fmt.Sprintf("%s `%s` was never seen %s", rule.Kind, rule.ID, missing)
}

func (r *testRun) text(out *printer, o *testOptions, colour bool) {
	red, green := paint(colour, "31"), paint(colour, "32")
	if len(r.files) == 0 {
		out.line("no test files")
	}
	for _, f := range r.files {
		if f.err != nil {
			out.line("%s", f.err)
			out.line("%s %s", red("FAIL"), f.name)
			continue
		}
		failed, test, head := 0, "", ""
		for _, one := range f.results {
			if one.Test != test {
				test, head = one.Test, one.Test
			}
			bad := one.Failure != ""
			if bad {
				failed++
			}
			if bad && head != "" {
				out.line("--- %s: %s", red("FAIL"), head)
				head = ""
			} else if o.verbose && head != "" {
				out.line("=== %s", head)
				head = ""
			}
			switch {
			case bad:
				out.line("    %s:%d:%d: %s: %s", one.File, one.Line, one.Column, one.Case, strings.ReplaceAll(one.Failure, "\n", "\n        "))
			case o.verbose:
				out.line("    %s:%d:%d: %s: ok", one.File, one.Line, one.Column, one.Case)
			}
		}
		if failed > 0 {
			out.line("%s %s (%d of %d cases)", red("FAIL"), f.name, failed, len(f.results))
		} else {
			out.line("%s   %s (%d cases)", green("ok"), f.name, len(f.results))
		}
	}
}

// coverageText names what tests did not see, by policy.
func (r *testRun) coverageText(out *printer, min float64) {
	r.eachUntested(func(file string, rule policy.Rule, missing string) {
		out.line("%s:%d:%d: %s", file, rule.Line, rule.Column, untestedText(rule, missing))
	})
	for _, path := range slices.Sorted(maps.Keys(r.cover)) {
		c, name := r.cover[path], shortPath(path)
		out.line("coverage: %.1f%% of the guards and entries of %s, both ways", c.Percent(), name)
		if c.Percent() < min {
			out.line("coverage is below the %g%% that was asked", min)
		}
	}
}

// github writes failures as annotations (workflow commands of GitHub Actions).
func (r *testRun) github(out *printer) {
	for _, f := range r.files {
		if f.err != nil {
			for _, one := range findings(f.err) {
				out.line("%s", githubCommand("error", one.File, one.Line, one.Column, "policy test", one.Text))
			}
		}
		for _, one := range f.results {
			if one.Failure != "" {
				out.line("%s", githubCommand("error", one.File, one.Line, one.Column, one.Test, one.Case+": "+one.Failure))
			}
		}
	}
}

// A testReport is a run as JSON.
type testReport struct {
	Passed   int              `json:"passed"`
	Failed   int              `json:"failed"`
	Files    []fileReport     `json:"files"`
	Coverage []coverageReport `json:"coverage,omitempty"`
}

type fileReport struct {
	File   string       `json:"file"`
	Errors []finding    `json:"errors,omitempty"`
	Cases  []caseReport `json:"cases"`
}

type caseReport struct {
	Test    string `json:"test"`
	Case    string `json:"case"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	OK      bool   `json:"ok"`
	Failure string `json:"failure,omitempty"`
}

type coverageReport struct {
	Policy   string            `json:"policy"`
	Percent  float64           `json:"percent"`
	Untested map[string]string `json:"untested"` // by rule: true, false or either
}

func (r *testRun) json(o *testOptions) testReport {
	passed, failed := r.counts()
	out := testReport{Passed: passed, Failed: failed, Files: []fileReport{}}
	for _, f := range r.files {
		one := fileReport{File: f.name, Errors: findings(f.err), Cases: []caseReport{}}
		for _, c := range f.results {
			one.Cases = append(one.Cases, caseReport{c.Test, c.Case, c.Line, c.Column, c.Failure == "", c.Failure})
		}
		out.Files = append(out.Files, one)
	}
	if o.coverage || o.min > 0 {
		for _, path := range slices.Sorted(maps.Keys(r.cover)) {
			c := r.cover[path]
			out.Coverage = append(out.Coverage, coverageReport{shortPath(path), c.Percent(), c.Untested()})
		}
	}
	return out
}

// junit writes a run as JUnit XML: a suite for each file.
func (r *testRun) junit(w io.Writer) error {
	var suites []junitSuite
	for _, f := range r.files {
		s := junitSuite{Name: f.name}
		if f.err != nil {
			s.add(junitCase{Class: f.name, Name: "loads", File: f.name, Failure: &junitFailure{"does not load", f.err.Error()}})
		}
		for _, one := range f.results {
			c := junitCase{Class: one.Test, Name: one.Case, File: one.File, Line: one.Line}
			if one.Failure != "" {
				message, _, _ := strings.Cut(one.Failure, "\n")
				c.Failure = &junitFailure{message, one.Failure}
			}
			s.add(c)
		}
		suites = append(suites, s)
	}
	return writeJUnit(w, suites)
}
