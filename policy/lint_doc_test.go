package policy

import (
	"slices"
	"testing"
)

// TestReferenceNamesEveryLintRule holds the tables of docs/policy.md against
// the numbers that lint gives.
func TestReferenceNamesEveryLintRule(t *testing.T) {
	explained := cells(readReference(t))
	for _, id := range append(slices.Clone(lintIDs), "SG119") { // of OpenAPI files
		n := len(explained) - len(slices.DeleteFunc(slices.Clone(explained), func(s string) bool { return s == id }))
		if n != 1 {
			t.Errorf("%s is explained %d times", id, n)
		}
	}
}
