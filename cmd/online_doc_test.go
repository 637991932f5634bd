package cmd

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryCheckIsDocumented: the ids in the sources of check --online and in the
// table of docs/operations.md are the same.
func TestEveryCheckIsDocumented(t *testing.T) {
	files, err := filepath.Glob("online*.go")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?:\bsingle\(|\bportProbe\(|\.named\(|\bid: |\bID: |\b(insecure)Probe\()"([a-z_.]*[a-z])"`)
	var want []string
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(source), -1) {
			id := m[2]
			if m[1] != "" {
				id = m[1] + "." + id
			}
			want = append(want, id)
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	if len(want) < 25 {
		t.Fatalf("only %d checks were found in the sources: %q", len(want), want)
	}
	for _, id := range bucketChecks {
		if !slices.Contains(want, id) {
			t.Errorf("no check has the id %s", id)
		}
	}
	section := operationsSection(t, "`check --online`")
	var have []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\|").FindAllStringSubmatch(section, -1) {
		have = append(have, row[1])
	}
	compare(t, "docs/operations.md, check --online", have, want)
}
