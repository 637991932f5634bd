package trial

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sidegate/policy"
)

// A block is one of a page's ```yaml blocks.
type block struct {
	heading string // the last `## ` before it
	line    int    // of its first line in the page
	text    string
}

func readPage(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func yamlBlocks(page string) (out []block) {
	var current *block
	heading := ""
	for i, line := range strings.SplitAfter(page, "\n") {
		switch {
		case current != nil && strings.HasPrefix(line, "```"):
			out = append(out, *current)
			current = nil
		case current != nil:
			current.text += line
		case strings.HasPrefix(line, "```yaml"):
			current = &block{heading: heading, line: i + 2}
		case strings.HasPrefix(line, "## "):
			heading = strings.TrimSpace(line[3:])
		}
	}
	return out
}

// A recipe is a policy that a page shows, and the test files that follow it.
type recipe struct {
	block
	tests []block
}

// recipes loads every policy of a page. Every ```yaml block is a whole file: a
// fragment could not be run.
func recipes(t *testing.T, page string) (out []recipe) {
	t.Helper()
	for _, b := range yamlBlocks(readPage(t, page)) {
		switch {
		case strings.HasPrefix(b.text, "version: "+policy.Version+"\n"):
			out = append(out, recipe{block: b})
		case strings.HasPrefix(b.text, "version: "+TestVersion+"\n"):
			if len(out) == 0 {
				t.Errorf("%s:%d: a test file before any policy", page, b.line)
				continue
			}
			last := &out[len(out)-1]
			last.tests = append(last.tests, b)
		case strings.HasPrefix(b.text, "version: sidegate-config/v1\n"), strings.HasPrefix(b.text, "on: "): // a workflow of GitHub Actions
		default:
			t.Errorf("%s:%d: this block is no whole file: it cannot be run", page, b.line)
		}
	}
	return out
}

// TestPagesRun runs every policy and every test file of the pages. Those that
// are there to be copied are tested whole (every rule is seen true and false),
// and lint finds nothing in them.
func TestPagesRun(t *testing.T) {
	for _, page := range []struct {
		name    string
		least   int // policies with tests
		covered bool
	}{
		{"policy.md", 12, false},
		{"policy-tests.md", 1, true},
		{"cookbook.md", 15, true},
		{"migrating.md", 8, true},
	} {
		tested := 0
		for _, r := range recipes(t, page.name) {
			p, err := policy.Load(page.name, []byte(r.text), nil)
			if err != nil {
				t.Errorf("%s:%d: the policy does not load:\n%v", page.name, r.line, err)
				continue
			}
			if len(r.tests) > 0 {
				tested++
			} else if page.covered {
				t.Errorf("%s:%d: a policy without tests", page.name, r.line)
			}
			runRecipe(t, page.name, p, r, page.covered)
		}
		if tested < page.least {
			t.Errorf("%s: %d policies with tests, and there were %d", page.name, tested, page.least)
		}
	}
}

func runRecipe(t *testing.T, page string, p *policy.Policy, r recipe, covered bool) {
	t.Helper()
	g, err := New(p, nil)
	if err != nil {
		t.Errorf("%s:%d: %v", page, r.line, err)
		return
	}
	coverage := NewCoverage(p)
	for _, b := range r.tests {
		f, err := ReadTests(page, []byte(b.text), p, nil)
		if err != nil {
			t.Errorf("%s:%d: the test file does not load:\n%v", page, b.line, err)
			continue
		}
		results := g.Run(f, coverage.See)
		if len(results) == 0 {
			t.Errorf("%s:%d: no case", page, b.line)
		}
		for _, result := range results {
			if result.Failure != "" {
				t.Errorf("%s:%d: %s: %s: %s", page, b.line+result.Line-1, result.Test, result.Case, result.Failure)
			}
		}
	}
	if covered {
		for _, f := range policy.Lint(page, []byte(r.text), policy.LintOptions{Now: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), Untested: coverage.Untested()}) {
			t.Errorf("%s:%d: %s %s", page, r.line+f.Line-1, f.ID, f.Text)
		}
	}
	if untested := coverage.Untested(); covered && len(r.tests) > 0 && len(untested) > 0 {
		t.Errorf("%s:%d: not seen: %v", page, r.line, untested)
	}
}

// TestEachRecipeIsWhole: whoever copies a section of the cookbook has a policy
// and its tests.
func TestEachRecipeIsWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range recipes(t, "cookbook.md") {
		seen[r.heading] = seen[r.heading] || len(r.tests) > 0
	}
	headings := regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(readPage(t, "cookbook.md"), -1)
	if len(headings) < 15 {
		t.Errorf("only %d recipes", len(headings))
	}
	for _, h := range headings {
		if !seen[strings.TrimSpace(h[1])] {
			t.Errorf("cookbook.md: %q has no policy with tests", h[1])
		}
	}
}

// TestTestFileReference holds docs/policy-tests.md against the reader: every
// key is explained once, and none that there is not.
func TestTestFileReference(t *testing.T) {
	page := readPage(t, "policy-tests.md")
	for heading, keys := range map[string][]string{
		"### The file": fileKeys.Known, "### An identity": identityKeys.Known, "### A test": testKeys.Known, "### A case": caseKeys.Known,
	} {
		_, section, ok := strings.Cut(page, "\n"+heading+"\n")
		if !ok {
			t.Errorf("policy-tests.md has no %q", heading)
			continue
		}
		if i := strings.Index(section, "\n#"); i >= 0 {
			section = section[:i]
		}
		var have []string
		for _, row := range regexp.MustCompile("(?m)^\\| ((?:`[a-z_]+`(?:, )?)+) \\|").FindAllStringSubmatch(section, -1) {
			for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(row[1], -1) {
				have = append(have, m[1])
			}
		}
		slices.Sort(have)
		if want := slices.Sorted(slices.Values(keys)); !slices.Equal(have, want) {
			t.Errorf("%s explains %v, and there is %v", heading, have, want)
		}
	}
	// The page's own example shows every key.
	shown := map[string]bool{}
	for _, b := range yamlBlocks(page) {
		for _, m := range regexp.MustCompile(`([a-z_]+):`).FindAllStringSubmatch(b.text, -1) {
			shown[m[1]] = true
		}
	}
	for _, key := range slices.Concat(fileKeys.Known, identityKeys.Known, testKeys.Known, caseKeys.Known) {
		if !shown[key] {
			t.Errorf("policy-tests.md shows no example of `%s` (of %v)", key, slices.Sorted(maps.Keys(shown)))
		}
	}
}
