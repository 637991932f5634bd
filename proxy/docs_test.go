package proxy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestHTTPReference: docs/http.md has each error code once with its own row,
// every identity header, and every header that is stripped.
func TestHTTPReference(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "docs", "http.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	source, err := os.ReadFile("problem.go")
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, m := range regexp.MustCompile(`(?m)^\tcode[A-Z]\w+ += "([a-z_]+)"`).FindAllStringSubmatch(string(source), -1) {
		codes = append(codes, m[1])
	}
	var rows []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| [345][0-9][0-9] \\|").FindAllStringSubmatch(page, -1) {
		rows = append(rows, m[1])
	}
	slices.Sort(codes)
	slices.Sort(rows)
	if len(codes) < 18 || !slices.Equal(codes, rows) {
		t.Errorf("codes\n%v\ndocumented\n%v", codes, rows)
	}
	_, page, _ = strings.Cut(page, "\n### What is removed\n")
	removed, set, ok := strings.Cut(page, "\n### What is set\n")
	if !ok {
		t.Fatal("the sections on headers are missing")
	}
	for _, h := range []string{headerUID, headerIdentity, headerEmail, headerRoles, headerActor, headerTenant, headerClaims,
		"Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-Id", "Traceparent"} {
		if !strings.Contains(set, "`"+h+"`") {
			t.Errorf("what is set: %s is missing", h)
		}
	}
	removed = strings.ToLower(removed)
	covered := func(name string) bool {
		return strings.Contains(removed, "`"+name+"`") || strings.Contains(removed, "`"+name+"*`")
	}
	for name := range stripped {
		family := slices.ContainsFunc(strippedPrefixes, func(p string) bool { return strings.HasPrefix(name, p) && covered(p) })
		if !covered(name) && !family {
			t.Errorf("what is removed: %s is missing", name)
		}
	}
	for _, p := range strippedPrefixes {
		if !covered(p) {
			t.Errorf("what is removed: %s* is missing", p)
		}
	}
}
