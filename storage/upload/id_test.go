package upload

import (
	"testing"
	"testing/synctest"
)

// In one moment ids differ from their first digits on: documents' names that
// rise together would be one hot range of Firestore.
func TestIDsBeginAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := map[string]bool{}
		firsts := map[byte]bool{}
		for range 1000 {
			id := NewID()
			if !wellFormed(id) || seen[id] || id[20:] != NewID()[20:] {
				t.Errorf("%q", id)
			}
			seen[id], firsts[id[0]] = true, true
		}
		if len(firsts) != 16 {
			t.Errorf("%d first digits", len(firsts))
		}
	})
}
