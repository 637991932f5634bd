package policy

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sidegate/policy/document"
)

// section is the text under a heading of the reference.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, body, ok := strings.Cut(text, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("docs/policy.md has no %q", heading)
	}
	if i := strings.Index(body, "\n#"); i >= 0 {
		body = body[:i]
	}
	return body
}

var firstCell = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// cells are the names in the first column of the tables of a text.
func cells(text string) []string {
	var out []string
	for _, m := range firstCell.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	slices.Sort(out)
	return out
}

// TestReference holds docs/policy.md against the loader: every key is
// explained once, and none that there is not.
func TestReference(t *testing.T) {
	data, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	later := section(t, text, "## Not yet")
	for _, c := range []struct {
		heading string
		keys    document.Keys
	}{
		{"### The file", policyKeys},
		{"### A route", routeKeys},
		{"### An entry of allow", entryKeys},
		{"#### org", orgKeys},
		{"### object", objectKeys},
		{"#### expires", expiresKeys},
		{"### serve", document.Keys{Known: served, Later: servedLater}},
	} {
		got, want := cells(section(t, text, c.heading)), slices.Sorted(slices.Values(c.keys.Known))
		if !slices.Equal(got, want) {
			t.Errorf("%s explains %v, and there is %v", c.heading, got, want)
		}
		for _, key := range c.keys.Later {
			if !strings.Contains(later, "`"+key+"`") {
				t.Errorf("`%s` is missing in the list of what is not supported yet", key)
			}
		}
	}
	for _, reason := range []string{ReasonEntry, ReasonPublic, ReasonNoEntry, ReasonEntryError, ReasonNoRoute, ReasonMethod, ReasonNoToken, ReasonNoKey} {
		if !slices.Contains(cells(section(t, text, "## Reasons")), reason) {
			t.Errorf("the reason `%s` is not explained", reason)
		}
	}
	sources := cells(section(t, text, "## Templates"))
	for name := range authSources {
		if !slices.Contains(sources, "${"+name+"}") {
			t.Errorf("${%s} is not explained", name)
		}
	}
	for _, id := range sgIDs(t) {
		if !slices.Contains(cells(section(t, text, "## Errors with a number")), id) {
			t.Errorf("%s is not explained", id)
		}
	}
}

// sgIDs are the numbers of the errors in testdata/broken.json.
func sgIDs(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("testdata/broken.json")
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`\bSG\d{3} `).FindAllString(string(data), -1)
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestReferenceExamples loads every policy that the reference shows.
func TestReferenceExamples(t *testing.T) {
	data, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(data), -1)
	if len(examples) == 0 {
		t.Fatal("the reference shows no policy")
	}
	for _, m := range examples {
		mustLoad(t, m[1])
	}
}

func TestInitPolicyLoads(t *testing.T) {
	data, err := os.ReadFile("../configs/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	mustLoad(t, string(data))
}
