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
	text := readReference(t)
	for _, c := range []struct {
		headings string // of the tables that explain the keys together
		keys     document.Keys
	}{
		{"### The file", policyKeys},
		{"### A route", routeKeys},
		{"### An entry of allow, ### Conditions", entryKeys},
		{"### Conditions", guardConditionKeys},
		{"### A guard", guardKeys},
		{"### A lookup", lookupKeys},
		{"### A limit", limitKeys},
		{"#### org", orgKeys},
		{"#### time", timeKeys},
		{"### object", objectKeys},
		{"#### expires", expiresKeys},
		{"### quota", quotaKeys},
		{"### serve", document.Keys{Known: served}},
	} {
		var got []string
		for _, h := range strings.Split(c.headings, ", ") {
			got = append(got, cells(section(t, text, h))...)
		}
		slices.Sort(got)
		if want := slices.Sorted(slices.Values(c.keys.Known)); !slices.Equal(got, want) {
			t.Errorf("%s explains %v, and there is %v", c.headings, got, want)
		}
		for _, key := range c.keys.Known {
			if !regexp.MustCompile(`(?m)(^|[ {])` + key + `:|serve: ` + key).MatchString(strings.Join(examples(text), "")) {
				t.Errorf("no example shows `%s` (%s)", key, c.headings)
			}
		}
	}
	want := []string{ReasonEntry, ReasonPublic, ReasonNoEntry, ReasonEntryError, ReasonNoRoute, ReasonMethod, ReasonNoToken, ReasonNoKey,
		ReasonDenyTrue, ReasonDenyError, ReasonRequireFalse, ReasonRequireError, ReasonUnavailable}
	slices.Sort(want)
	if got := cells(section(t, text, "## Reasons")); !slices.Equal(got, want) {
		t.Errorf("the reasons %v are explained, and there are %v", got, want)
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
	if got, want := cells(section(t, text, "## Limits")), slices.Sorted(slices.Values(limitBy[:])); !slices.Equal(got, want) {
		t.Errorf("limits per %v are explained, and there are %v", got, want)
	}
	if got, want := cells(section(t, text, "## Trying a rule")), []string{ShadowAllow, ShadowDeny, ShadowError, ShadowPass}; !slices.Equal(got, want) {
		t.Errorf("results in dry_run %v are explained, and there are %v", got, want)
	}
}

// TestReferenceOfConditions holds the table of names in `if` against what CEL
// is told: every name once, and its type.
func TestReferenceOfConditions(t *testing.T) {
	l := &loader{
		claims:  map[string]claimType{"NAME": {scalar: "string"}},
		vars:    map[string]*variable{"NAME": {kind: claimType{scalar: "string"}, value: ""}},
		lookups: map[string]*lookupFacts{"NAME": {Lookup: Lookup{Name: "NAME", types: map[string]claimType{"FIELD": {scalar: "string"}}}}},
	}
	names, err := l.celTypes()
	if err != nil {
		t.Fatal(err)
	}
	names.setParams([]string{"NAME"})
	want := map[string]string{}
	for group, fields := range names.fields {
		prefix := strings.TrimPrefix(group, "sidegate.")
		if group == typeToken {
			prefix = "auth.token"
		}
		for name, f := range fields {
			if group != typeAuth || name != "token" {
				want[prefix+"."+name] = f.Type.String()
			}
		}
	}
	got := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| ((?:`[a-zA-Z_.]+`(?:, )?)+) \\| ([^|]*) \\|").FindAllStringSubmatch(section(t, readReference(t), "## Conditions in CEL"), -1) {
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			kind, ok := want[m[1]]
			if !ok || got[m[1]] {
				t.Errorf("`%s` is explained, and there is no such name, or twice", m[1])
			}
			got[m[1]] = true
			if kind = map[string]string{"google.protobuf.Timestamp": "timestamp"}[kind] + kind; !strings.Contains(m[1], "NAME") && !strings.HasPrefix(kind, row[2]) {
				t.Errorf("`%s` is a %s, and not a %s", m[1], kind, row[2])
			}
		}
	}
	for name := range want {
		if !got[name] {
			t.Errorf("`%s` is not explained", name)
		}
	}
}

func readReference(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// examples are the policies that the reference shows.
func examples(text string) (out []string) {
	for _, m := range regexp.MustCompile("(?s)```yaml\n(version: "+regexp.QuoteMeta(Version)+"\n.*?)```").FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
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

// TestReferenceExamples loads every policy that the reference shows beside a
// sidegate.yaml. Their tests are run in proxy/trial.
func TestReferenceExamples(t *testing.T) {
	all := examples(readReference(t))
	if len(all) < 12 {
		t.Fatalf("the reference shows only %d policies", len(all))
	}
	for _, text := range all {
		mustLoad(t, text)
	}
}

func TestInitPolicyLoads(t *testing.T) {
	data, err := os.ReadFile("../configs/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	mustLoad(t, string(data))
}
