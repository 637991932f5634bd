package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sidegate/policy"
	"sidegate/proxy"
	"sidegate/proxy/trial"
)

// A tryout is what policies are tried with beside themselves: the sidegate.yaml
// at hand, or none.
type tryout struct {
	config *Config
	gates  map[string]*trial.Gate // by the policy's path
	cover  map[string]*trial.Coverage
}

// newTryout reads the config, where one is named.
func (p *program) newTryout(config string) (*tryout, error) {
	t := &tryout{gates: map[string]*trial.Gate{}, cover: map[string]*trial.Coverage{}}
	if config == "" {
		return t, nil
	}
	c, _, err := loadConfig(config, p.env, insecure{emulator: true, ephemeral: true})
	if err != nil {
		return nil, err
	}
	t.config = c
	return t, nil
}

// gate loads the policy at path, once.
func (t *tryout) gate(path string) (*trial.Gate, error) {
	if g := t.gates[path]; g != nil {
		return g, nil
	}
	pol, err := loadPolicy(path, t.config)
	if err != nil {
		return nil, err
	}
	g, err := t.newGate(pol)
	if err != nil {
		return nil, err
	}
	t.gates[path], t.cover[path] = g, trial.NewCoverage(pol)
	return g, nil
}

func (t *tryout) newGate(pol *policy.Policy) (*trial.Gate, error) {
	upstreams := map[string]proxy.Upstream{}
	if t.config != nil {
		for _, u := range t.config.Upstreams {
			upstreams[u.Name] = proxy.Upstream{URL: u.URL, KeepHost: u.KeepHost, MaxBody: u.MaxBody, KeepAuthorization: u.KeepAuthorization, Headers: u.Headers}
		}
	}
	return trial.New(pol, upstreams)
}

// namespaces are the uid namespaces of the config's identities.
func (t *tryout) namespaces() map[string]string {
	if t.config == nil {
		return nil
	}
	return policyEnvironment(t.config).Identities
}

// file reads a test file and the policy that it names.
func (t *tryout) file(path string) (*trial.File, *trial.Gate, string, error) {
	data, err := readBounded(path, maxTestFile)
	if err != nil {
		return nil, nil, "", fmt.Errorf("read the test file: %w", err)
	}
	name := shortPath(absolute(path))
	of, err := trial.ReadPolicyName(name, data)
	if err != nil {
		return nil, nil, "", invalid{err}
	}
	of = policyOf(path, of)
	g, err := t.gate(of)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, of, fmt.Errorf("%s: `policy` names a file that is not there: %w", name, err)
	}
	if err != nil {
		return nil, nil, of, err
	}
	f, err := trial.ReadTests(name, data, g.Policy, t.namespaces())
	if err != nil {
		return nil, nil, of, invalid{err}
	}
	return f, g, of, nil
}

// policyOf is the path of the policy that a test file names, relative to itself.
func policyOf(testFile, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return absolute(filepath.Join(filepath.Dir(testFile), name))
}

// maxTestFile bounds a test file, in bytes.
const maxTestFile = 16 << 20

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// testFiles are the files that are named, and the *_test.yaml in the folders
// that are, in order.
func testFiles(args []string) ([]string, error) {
	if len(args) == 0 {
		args = []string{"."}
	}
	var out []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			out = append(out, arg)
			continue
		}
		found, err := filepath.Glob(filepath.Join(escapeGlob(arg), "*_test.yaml"))
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// escapeGlob makes a folder's name mean itself in a pattern.
func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
}

// A testRun is what came of test files.
type testRun struct {
	files []fileRun
	cover map[string]*trial.Coverage // by the policy's path
}

type fileRun struct {
	name    string
	results []trial.Result
	err     error // the file, or its policy, does not load
}

// runTests runs test files. Only what keeps it from looking at all is an error.
func (t *tryout) runTests(ctx context.Context, paths []string, keep func(trial.Result) bool) (*testRun, error) {
	run := &testRun{cover: t.cover}
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f, g, of, err := t.file(path)
		if err != nil {
			run.files = append(run.files, fileRun{name: shortPath(absolute(path)), err: err})
			continue
		}
		r := fileRun{name: f.Name}
		for _, one := range g.Run(f, t.cover[of].See) {
			if keep == nil || keep(one) {
				r.results = append(r.results, one)
			}
		}
		run.files = append(run.files, r)
	}
	return run, nil
}

func (r *testRun) counts() (passed, failed int) {
	for _, f := range r.files {
		for _, one := range f.results {
			if one.Failure == "" {
				passed++
			} else {
				failed++
			}
		}
		if f.err != nil {
			failed++
		}
	}
	return passed, failed
}

// err is the exit status of a run: files that do not load first.
func (r *testRun) err(min float64) error {
	var broken, missing error
	for _, f := range r.files {
		switch {
		case f.err == nil:
		case errors.Is(f.err, errInvalid):
			broken = reported{invalid{errInvalid}}
		default:
			missing = reported{f.err}
		}
	}
	if broken != nil || missing != nil {
		return errors.Join(broken, missing)
	}
	if passed, failed := r.counts(); failed > 0 || passed == 0 {
		return reported{errTests}
	}
	if r.percent() < min {
		return reported{errFindings}
	}
	return nil
}

// percent is the coverage of the least covered policy.
func (r *testRun) percent() float64 {
	out := 100.0
	for _, c := range r.cover {
		out = min(out, c.Percent())
	}
	return out
}

// untested is what the tests beside a policy never saw of its rules, for lint;
// nil where there are no tests.
func (t *tryout) untested(ctx context.Context, policyPath string) (map[string]string, error) {
	paths, err := testFiles([]string{filepath.Dir(policyPath)})
	if err != nil {
		return nil, err
	}
	policyPath = absolute(policyPath)
	paths = slices.DeleteFunc(paths, func(path string) bool {
		of, ok := policyNamedBy(path)
		return ok && of != policyPath // one that cannot be read may be of this policy
	})
	run, err := t.runTests(ctx, paths, nil)
	if err != nil {
		return nil, err
	}
	for _, f := range run.files {
		if f.err != nil {
			return nil, f.err
		}
	}
	if c := t.cover[policyPath]; c != nil {
		return c.Untested(), nil
	}
	return nil, nil
}
