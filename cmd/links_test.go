package cmd

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

var (
	fencedCode = regexp.MustCompile("(?ms)^[ \t]*```.*?^[ \t]*```[^\n]*$")
	inlineCode = regexp.MustCompile("`[^`\n]+`")
	markLink   = regexp.MustCompile(`\]\(([^)\s]*)\)`)
	headline   = regexp.MustCompile(`(?m)^#{1,6} +(.+?)[ #]*$`)
)

// TestLinks: whatever page points to a file, or to a part of a page, points to
// one that is there. What lies elsewhere is not asked, but must be https.
func TestLinks(t *testing.T) {
	root := ".."
	pages := markdownPages(t, root)
	if len(pages) < 20 {
		t.Fatalf("only %d pages were found", len(pages))
	}
	links := 0
	for page, text := range pages {
		for _, m := range markLink.FindAllStringSubmatch(withoutCode(text), -1) {
			links++
			if err := checkLink(root, page, m[1], pages); err != nil {
				t.Errorf("%s: (%s): %v", page, m[1], err)
			}
		}
	}
	if links < 200 {
		t.Errorf("only %d links were found", links)
	}
}

// TestDeadLinksAreFound: the check can fail.
func TestDeadLinksAreFound(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"a.md": "# One `x` & two\n\n## One\n\n## One\n\n```\n# none\n```\n", "b.md": "b"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pages := markdownPages(t, root)
	for _, good := range []string{"a.md", "a.md#one-x--two", "a.md#one", "a.md#one-1", "https://example.com/x", "b.md"} {
		if err := checkLink(root, "b.md", good, pages); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "c.md", "a.md#two", "a.md#one-2", "a.md#none", "#b", "http://example.com", "https://", "../a.md", "/a.md"} {
		if checkLink(root, "b.md", bad, pages) == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

// markdownPages are the texts of the repository's pages, by path.
func markdownPages(t *testing.T, root string) map[string]string {
	t.Helper()
	pages := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "dist" || path != root && strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(root, path)
		pages[filepath.ToSlash(name)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

func withoutCode(text string) string {
	return inlineCode.ReplaceAllString(fencedCode.ReplaceAllString(text, ""), "")
}

func checkLink(root, page, link string, pages map[string]string) error {
	u, err := url.Parse(link)
	if err != nil {
		return err
	}
	if u.Scheme != "" || u.Host != "" {
		if u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("what lies elsewhere is linked by https")
		}
		return nil
	}
	if u.Path == "" && u.Fragment == "" || strings.HasPrefix(u.Path, "/") {
		return fmt.Errorf("neither a page nor a part of this one")
	}
	target := page
	if u.Path != "" {
		target = filepath.ToSlash(filepath.Join(filepath.Dir(page), filepath.FromSlash(u.Path)))
	}
	if strings.HasPrefix(target, "../") {
		return fmt.Errorf("lies outside of the repository")
	}
	if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(target))); err != nil {
		return fmt.Errorf("nothing is there")
	}
	if u.Fragment == "" {
		return nil
	}
	if !slices.Contains(anchors(pages[target]), u.Fragment) {
		return fmt.Errorf("%s has no such heading", target)
	}
	return nil
}

// anchors are the headings' names as GitHub makes them: lower case, letters,
// digits, `-` and `_` only, spaces as `-`, and a number where one comes again.
func anchors(text string) []string {
	var out []string
	seen := map[string]int{}
	for _, m := range headline.FindAllStringSubmatch(fencedCode.ReplaceAllString(text, ""), -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])
		n := seen[name]
		seen[name]++
		if n > 0 {
			name = fmt.Sprintf("%s-%d", name, n)
		}
		out = append(out, name)
	}
	return out
}
