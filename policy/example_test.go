package policy

import (
	"os"
	"testing"
)

func loadExample(t testing.TB) *Policy {
	t.Helper()
	data, err := os.ReadFile("../examples/policy/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Load("policy.yaml", data, &Environment{
		Identities: map[string]string{"users": "users", "worker": "worker", "agents": "users"},
		Upstreams:  map[string]Upstream{"app": {}}, Buckets: map[string]Bucket{"default": {}}, Lookups: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestExampleLoads(t *testing.T) { loadExample(t) }
