package proxy

import (
	"sync"
	"testing"
)

// TestNewTraceparents: each is one, and none has an id of another's, whoever
// asks at the same time.
func TestNewTraceparents(t *testing.T) {
	const askers, each = 8, 500
	made := make([][each]string, askers)
	var all sync.WaitGroup
	for i := range made {
		all.Go(func() {
			for j := range made[i] {
				made[i][j] = newTraceparent()
			}
		})
	}
	all.Wait()
	seen := map[string]bool{}
	for i := range made {
		for _, s := range made[i] {
			if !validTraceparent(s) || sampledFlag(s) {
				t.Fatalf("%q", s)
			}
			for _, id := range []string{s[3:35], s[36:52], s[3:19], s[19:35]} {
				if seen[id] {
					t.Fatalf("%s comes twice", id)
				}
				seen[id] = true
			}
		}
	}
}

func BenchmarkNewTraceparent(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		newTraceparent()
	}
}
