package cmd

import (
	"context"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

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
		watched, err := p.testOnce(ctx, args, o, keep)
		if !o.watch {
			return err
		}
		if err != nil {
			p.report(err)
		}
		fmt.Fprintf(p.stderr, "sidegate: waiting for a change of %s\n", strings.Join(watched, ", "))
		if !waitForChange(ctx, watched) {
			return nil
		}
	}
}

// testOnce runs the tests and says which files they came from.
func (p *program) testOnce(ctx context.Context, args []string, o *testOptions, keep func(trial.Result) bool) ([]string, error) {
	paths, err := testFiles(args)
	if err != nil {
		return args, err
	}
	t, err := p.newTryout(o.config)
	if err != nil {
		return paths, err
	}
	run, err := t.runTests(ctx, paths, keep)
	if err != nil {
		return paths, err
	}
	watched := paths
	for _, path := range slices.Sorted(maps.Keys(t.gates)) {
		watched = append(watched, shortPath(path))
	}
	if err := run.write(p.stdout, o, p.colour(p.stdout)); err != nil {
		return watched, err
	}
	if o.format == "json" || o.format == "junit" { // whose output is one document
		passed, failed := run.counts()
		fmt.Fprintf(p.stderr, "%d passed, %d failed\n", passed, failed)
	}
	return watched, run.err(o.min)
}

// waitForChange waits until one of the files differs from what it is now; false
// where ctx ended before.
func waitForChange(ctx context.Context, paths []string) bool {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	changed := make(chan struct{}, 1)
	for _, path := range paths {
		since := fingerprintOf(path)
		all.Go(func() {
			watchFile(ctx, path, func() fingerprint { return since }, func() {
				select {
				case changed <- struct{}{}:
				default:
				}
			})
		})
	}
	defer all.Wait()
	defer cancel()
	select {
	case <-changed:
		return true
	case <-ctx.Done():
		return false
	}
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
	if o.coverage || o.min > 0 {
		r.coverageText(&out, o.min)
	}
	passed, failed := r.counts()
	out.line("%d passed, %d failed", passed, failed)
	return out.err
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
	for _, path := range slices.Sorted(maps.Keys(r.cover)) {
		c := r.cover[path]
		untested, name := c.Untested(), shortPath(path)
		for _, rule := range c.Rules() {
			if missing := untested[rule.ID]; missing != "" {
				if missing == "either" {
					missing = "true or false"
				}
				out.line("%s:%d:%d: %s `%s` was never seen %s", name, rule.Line, rule.Column, rule.Kind, rule.ID, missing)
			}
		}
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
