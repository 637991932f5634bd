package policy

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"sidegate/policy/document"
)

// testEnv is what the sidegate.yaml of these tests defines.
func testEnv() *Environment {
	return &Environment{
		Identities: map[string]string{"users": "users", "mobile": "users", "agents": "agents", "worker": "worker", "delegates": "users"},
		Actors:     map[string]bool{"delegates": true},
		Upstreams:  map[string]Upstream{"app": {}, "legacy": {NoIdentity: true, NoActor: true}},
		Buckets:    map[string]Bucket{"default": {}, "archive": {}, "r2": {Store: "r2", NoForm: true, NoCRC64: true}, "gcs": {Store: "gcs", NoSHA256: true, NoConditions: true}, "minio": {Store: "minio", NoWholeCRC64: true}},
		AppCheck:   true, Lookups: true, Shipping: true,
	}
}

const header = `version: sidegate-policy/v1
identities: [users, mobile, agents]
claims: {roles: list(string), orgs: map(string), plan: string, level: int, beta: bool, score: double, org_id: string}
routes:
`

func mustLoad(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Load("policy.yaml", []byte(text), testEnv())
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	if err := fitsSchema([]byte(text)); len(text) < 1<<16 && err != nil {
		t.Errorf("loads, and does not fit the schema: %v\nin\n%s", err, text)
	}
	return p
}

var update = flag.Bool("update", false, "write testdata/broken.json afresh")

// A brokenCase is a policy and all its mistakes. The file testdata/broken.json
// holds them: read the difference when you write it afresh.
type brokenCase struct {
	Name   string
	Policy []string // its lines; the header of the tests is put before a first line that starts with `  -`
	Errors []string
}

func TestBrokenPolicies(t *testing.T) {
	data, err := os.ReadFile("testdata/broken.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []brokenCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for i := range cases {
		c := &cases[i]
		text := strings.Join(c.Policy, "\n") + "\n"
		if strings.HasPrefix(text, "  -") {
			text = header + text
		}
		p, err := Load("policy.yaml", []byte(text), testEnv())
		if err == nil || p != nil {
			t.Errorf("%s: loads", c.Name)
			continue
		}
		var all document.Errors
		if !errors.As(err, &all) {
			t.Fatalf("%s: %T is not document.Errors", c.Name, err)
		}
		got := strings.Split(err.Error(), "\n")
		if *update {
			c.Errors = got
		} else if !slices.Equal(got, c.Errors) {
			t.Errorf("%s:\ngot  %s\nwant %s", c.Name, strings.Join(got, "\n     "), strings.Join(c.Errors, "\n     "))
		}
	}
	if *update {
		writeJSON(t, "testdata/broken.json", cases)
	}
}

func writeJSON(t *testing.T, name string, v any) {
	t.Helper()
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
