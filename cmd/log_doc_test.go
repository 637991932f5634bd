package cmd

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryLogFieldIsDocumented: the fields that the sources give to lines of the
// log, and those in the table of docs/operations.md, are the same.
func TestEveryLogFieldIsDocumented(t *testing.T) {
	field := regexp.MustCompile(`(?:\.\s*(?:Str|Strs|Int|Int64|Uint64|Bool|Dur|Bytes|Float64|RawJSON|Time|Any|Interface|Dict|AnErr)\()"([A-Za-z_./]+)"`)
	written := regexp.MustCompile("`[,{]\"([A-Za-z_./]+)\":") // of a line that is written field by field
	want := []string{"level", "message"}
	for _, dir := range []string{".", filepath.Join("..", "proxy"), filepath.Join("..", "proxy", "transport")} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			source, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(name, "_test.go") || strings.Contains(string(source), "cobra.Command{") { // whose flags look alike
				continue
			}
			text := string(source)
			if filepath.Base(name) == "logline.go" {
				request := regexp.MustCompile(`(?s)\nfunc [^\n]* appendHTTPRequest\(.*?\n}\n`).FindString(text)
				for _, m := range written.FindAllStringSubmatch(request, -1) {
					want = append(want, "httpRequest."+m[1])
				}
				for _, m := range written.FindAllStringSubmatch(strings.Replace(text, request, "", 1), -1) {
					want = append(want, m[1])
				}
			}
			for _, m := range field.FindAllStringSubmatch(text, -1) {
				want = append(want, m[1])
			}
			if strings.Contains(text, ".Err(") {
				want = append(want, "error")
			}
		}
	}
	// A line that was too long has these: they are in a struct.
	want = append(want, "bytes", "line")
	slices.Sort(want)
	want = slices.DeleteFunc(slices.Compact(want), func(s string) bool { return s == "httpRequest" })
	if len(want) < 30 {
		t.Fatalf("only %d fields were found in the sources: %v", len(want), want)
	}
	section := operationsSection(t, "Logs")
	var have []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|").FindAllStringSubmatch(section, -1) {
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			have = append(have, name[1])
		}
	}
	compare(t, "docs/operations.md, Logs", have, want)
}
