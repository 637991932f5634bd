package cmd

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sdkHome says which packages may know a cloud's SDK, or a library that is for
// one purpose.
var sdkHome = map[string]string{
	"firebase.google.com/go":             "proxy/firebase",
	"cloud.google.com/go/firestore":      "storage/firestore storage/firestore/indextest",
	"github.com/aws/aws-sdk-go-v2":       "storage/s3",
	"go.etcd.io/bbolt":                   "storage/local",
	"gopkg.in/yaml.v3":                   "policy/document",
	"github.com/spf13/cobra":             "cmd",
	"github.com/fsnotify/fsnotify":       "cmd",
	"google.golang.org/grpc":             "storage/firestore",
	"github.com/hashicorp/golang-lru/v2": "proxy/oidc proxy/firebase",
	"github.com/rogpeppe/go-internal":    "",
	"github.com/go-jose/go-jose":         "proxy/oidc",
	"go.opentelemetry.io/otel/sdk":       "proxy/otlp",
	"go.opentelemetry.io/otel/exporters": "proxy/otlp",
	"go.opentelemetry.io/proto":          "proxy/otlp",
	"github.com/versity/versitygw":       "",
	"github.com/santhosh-tekuri":         "",
	"github.com/redis/go-redis":          "storage/redis",
	"github.com/KimMachineGun":           "cmd",
}

func TestImportTableOfArchitecture(t *testing.T) {
	root := ".."
	allowed := importTable(t, filepath.Join(root, "ARCHITECTURE.md"))
	imports := packageImports(t, root)
	for pkg, list := range imports {
		may, known := allowed[pkg]
		if !known {
			t.Errorf("package %s is not in ARCHITECTURE.md's import table", pkg)
			continue
		}
		for _, imp := range list {
			if home, isSDK := homeOf(imp); isSDK && !slices.Contains(strings.Fields(home), pkg) {
				t.Errorf("%s imports %s; only %q may", pkg, imp, home)
			}
			ours, isOurs := strings.CutPrefix(imp, "sidegate/")
			if isOurs && !slices.Contains(may, ours) && !slices.Contains(may, "everything") {
				t.Errorf("%s imports %s; ARCHITECTURE.md allows it %s", pkg, ours, strings.Join(may, ", "))
			}
		}
	}
	for pkg := range allowed {
		if _, there := imports[pkg]; !there && pkg != "examples/demo" {
			t.Errorf("ARCHITECTURE.md's import table names %s, which does not exist", pkg)
		}
	}
}

func homeOf(imp string) (home string, isSDK bool) {
	for prefix, home := range sdkHome {
		if imp == prefix || strings.HasPrefix(imp, prefix+"/") {
			return home, true
		}
	}
	return "", false
}

// importTable reads the table under "Who may import whom".
func importTable(t *testing.T, file string) map[string][]string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(data), "## Who may import whom")
	if !ok {
		t.Fatal("ARCHITECTURE.md has no import table")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	table := map[string][]string{}
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 2 || strings.Contains(cells[0], "---") || strings.TrimSpace(cells[0]) == "package" {
			continue
		}
		var may []string
		for _, m := range strings.Split(cells[1], ",") {
			may = append(may, strings.TrimSpace(m))
		}
		table[strings.TrimSpace(cells[0])] = may
	}
	if len(table) < 10 {
		t.Fatalf("only %d rows found in the import table", len(table))
	}
	return table
}

// packageImports reads what the files that are not tests import.
func packageImports(t *testing.T, root string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != root && (strings.HasPrefix(base, ".") || base == "testdata" || base == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		pkg := path.Dir(filepath.ToSlash(rel))
		if pkg == "examples/demo" {
			return nil // a module of its own
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		found[pkg] = append(found[pkg], nil...)
		for _, imp := range file.Imports {
			value, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			found[pkg] = append(found[pkg], value)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestTopLevelHasOnlyWhatWasAgreed keeps the house as ARCHITECTURE.md shows it.
func TestTopLevelHasOnlyWhatWasAgreed(t *testing.T) {
	agreed := []string{"cmd", "proxy", "policy", "storage", "configs", "docs", "examples"}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && e.Name() != "bin" && e.Name() != "data" && !slices.Contains(agreed, e.Name()) {
			t.Errorf("top-level folder %s is not one of %v", e.Name(), agreed)
		}
	}
}
