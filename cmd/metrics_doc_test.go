package cmd

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryMetricIsDocumented: the names in the sources and in the table of
// docs/operations.md are the same.
func TestEveryMetricIsDocumented(t *testing.T) {
	named := regexp.MustCompile(`"(sidegate_[a-z_]+)"`)
	var want []string
	for _, dir := range packageFolders(t) {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			source, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range named.FindAllSubmatch(source, -1) {
				want = append(want, string(m[1]))
			}
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	if len(want) < 10 {
		t.Fatalf("only %d metrics were found in the sources", len(want))
	}
	compare(t, "docs/operations.md, Metrics", documentedMetrics(t), want)
}

// packageFolders are those of the gateway's own packages.
func packageFolders(t *testing.T) (folders []string) {
	t.Helper()
	for _, root := range []string{".", filepath.Join("..", "policy"), filepath.Join("..", "proxy"), filepath.Join("..", "storage")} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if d != nil && d.IsDir() && d.Name() == "testdata" {
				return fs.SkipDir
			}
			if d != nil && d.IsDir() {
				folders = append(folders, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return folders
}
