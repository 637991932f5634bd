package cmd

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sidegate/policy/document"
)

// leaves are the keys that hold values, with <name> for names.
func leaves() []string {
	keys := configKeys()
	var out []string
	for path, k := range keys {
		for _, key := range k.Known {
			full := strings.TrimPrefix(path+"."+key, ".")
			if _, section := keys[full]; section {
				continue
			}
			if _, section := keys[full+".*"]; section {
				continue
			}
			out = append(out, strings.ReplaceAll(full, "*", "<name>"))
		}
	}
	slices.Sort(out)
	return out
}

// documented is the first column of the tables under a heading of
// docs/configuration.md, up to the next heading of its level.
func documented(t *testing.T, heading string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(data), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/configuration.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var out []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(section, -1) {
		out = append(out, row[1])
	}
	slices.Sort(out)
	return out
}

func compare(t *testing.T, what string, have, want []string) {
	t.Helper()
	for _, s := range want {
		if n := len(have) - len(slices.DeleteFunc(slices.Clone(have), func(h string) bool { return h == s })); n != 1 {
			t.Errorf("%s: %s is there %d times", what, s, n)
		}
	}
	for _, s := range have {
		if !slices.Contains(want, s) {
			t.Errorf("%s: %s does not exist", what, s)
		}
	}
}

// operationsSection is the part of docs/operations.md below a heading of second
// order.
func operationsSection(t *testing.T, heading string) string {
	t.Helper()
	_, section, ok := strings.Cut(readFile(t, filepath.Join("..", "docs", "operations.md")), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/operations.md has no section %s", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

func testRoot() *cobra.Command {
	p := &program{env: newEnvironment(nil), stdout: io.Discard, stderr: io.Discard}
	return p.newRoot()
}

func TestReferenceNamesEveryKey(t *testing.T) {
	compare(t, "docs/configuration.md", documented(t, "Keys"), leaves())
}

func TestReferenceNamesEveryFlag(t *testing.T) {
	flags := map[string]bool{}
	var collect func(c *cobra.Command)
	collect = func(c *cobra.Command) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) { flags["--"+f.Name] = true })
		for _, sub := range c.Commands() {
			if sub.Name() != "audit" && sub.Name() != "policy" { // docs/audit.md, docs/policy-tests.md
				collect(sub)
			}
		}
	}
	collect(testRoot())
	delete(flags, "--help")
	compare(t, "docs/configuration.md", documented(t, "Flags"), slices.Collect(maps.Keys(flags)))
}

// TestAuditPageNamesEveryFlag: the table under "Commands" in docs/audit.md has
// each flag of each command, and no other.
func TestAuditPageNamesEveryFlag(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "audit.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## Commands\n")
	if !ok {
		t.Fatal("docs/audit.md has no section Commands")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	rows := regexp.MustCompile("(?m)^\\| ([^|]*`--?[^|]*) \\| ([^|]*) \\|").FindAllStringSubmatch(section, -1)
	for _, sub := range newAuditCommand(newEnvironment(nil), io.Discard, io.Discard).Commands() {
		var have, want []string
		for _, row := range rows {
			if commands := strings.Split(row[2], ", "); row[2] == "all" || slices.Contains(commands, sub.Name()) {
				for _, flag := range regexp.MustCompile("`(--[a-z-]+)").FindAllStringSubmatch(row[1], -1) {
					have = append(have, flag[1])
				}
			}
		}
		sub.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				want = append(want, "--"+f.Name)
			}
		})
		compare(t, "docs/audit.md, audit "+sub.Name(), have, want)
	}
}

// TestPolicyPageNamesEveryFlag: each command of `policy` has a section in
// docs/policy-tests.md, with a row for each of its flags.
func TestPolicyPageNamesEveryFlag(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "policy-tests.md"))
	if err != nil {
		t.Fatal(err)
	}
	p := &program{env: newEnvironment(nil), stdout: io.Discard, stderr: io.Discard}
	for _, sub := range p.newPolicyCommand().Commands() {
		_, section, ok := strings.Cut(string(page), "\n## sidegate policy "+sub.Name()+"\n")
		if !ok {
			t.Errorf("docs/policy-tests.md has no section on policy %s", sub.Name())
			continue
		}
		section, _, _ = strings.Cut(section, "\n## ")
		var have, want []string
		for _, row := range regexp.MustCompile("(?m)^\\| ([^|]*`--?[^|]*) \\|").FindAllStringSubmatch(section, -1) {
			for _, flag := range regexp.MustCompile("`(--[a-z-]+)").FindAllStringSubmatch(row[1], -1) {
				have = append(have, flag[1])
			}
		}
		sub.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				want = append(want, "--"+f.Name)
			}
		})
		compare(t, "docs/policy-tests.md, policy "+sub.Name(), have, want)
	}
}

func TestReferenceNamesEveryExitStatus(t *testing.T) {
	var want []string
	for _, status := range []int{exitFine, exitFailed, exitUsage, exitInvalid, exitTests, exitFindings, exitChanged} {
		want = append(want, strconv.Itoa(status))
	}
	compare(t, "docs/configuration.md", documented(t, "Exit statuses"), want)
}

func TestReferenceExampleLoads(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(data), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	p := place{env: map[string]string{"GOOGLE_CLOUD_PROJECT": "acme-prod", "S3_BUCKET": "acme-photos"}}
	if c, _, err := p.load(example); err != nil || len(c.Buckets) != 1 {
		t.Errorf("the first example does not load: %v", err)
	}
}

func TestEveryCommandShowsAnExample(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Example == "" {
			t.Errorf("`%s` shows no example", c.CommandPath())
		}
		if c.Short == "" {
			t.Errorf("`%s` does not say what it does", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(testRoot())
}

func TestKeysTableHasNoStrangePaths(t *testing.T) {
	keys := configKeys()
	for path := range keys {
		parent, last := "", path
		if i := strings.LastIndex(strings.TrimSuffix(path, ".*"), "."); i >= 0 {
			parent, last = path[:i], path[i+1:]
		}
		last = strings.TrimSuffix(last, ".*")
		if path != "" && !slices.Contains(append(keys[parent].Known, keys[parent+".*"].Known...), last) {
			t.Errorf("%s: %s does not know %s%s", path, parent, last, document.DidYouMean(last, keys[parent].Known))
		}
	}
}
