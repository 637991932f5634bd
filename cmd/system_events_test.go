package cmd

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sidegate/storage/audit"
)

// checkSystemEvents holds the gateway's own events against docs/audit.md: each of
// these is on record, and each detail is explained.
func checkSystemEvents(t *testing.T, events []*audit.Event, want ...string) {
	t.Helper()
	doc, err := os.ReadFile("../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "\n### System events\n")
	explained := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([^|]*) \\| ([^|]*)\\|$").FindAllStringSubmatch(section, -1) {
		explained[row[1]] += row[3]
	}
	for _, e := range events {
		if e.System == nil {
			continue
		}
		text, there := explained[e.System.Event]
		if !there {
			t.Errorf("docs/audit.md does not explain %s", e.System.Event)
		}
		for name := range e.System.Detail {
			if !strings.Contains(text, "`"+name+"`") {
				t.Errorf("docs/audit.md does not explain %s of %s", name, e.System.Event)
			}
		}
		want = slices.DeleteFunc(want, func(name string) bool { return name == e.System.Event })
	}
	if len(want) > 0 {
		t.Errorf("not on record: %v", want)
	}
}
