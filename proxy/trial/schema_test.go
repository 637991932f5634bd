package trial

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"sidegate/configs/schematest"
	"sidegate/policy"
	"sidegate/policy/document"
)

// These tests hold the JSON Schema of test files against their reader.

func compileSchema(t testing.TB, name string) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile("../../configs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fits is nil where an editor would have nothing to say.
func fits(s *jsonschema.Schema, text, version string) error {
	return s.Validate(document.New("file.yaml", nil).Parse([]byte(text), version).Plain())
}

// schemaParts are the mappings of a test file: where the schema has each, the
// reader's keys, and files with the mapping in the place of MAPPING.
var schemaParts = []struct {
	at     []string
	keys   []string
	around string
	holds  string // beside the key that is tried
}{
	{nil, fileKeys.Known, "MAPPING", `{"version": "sidegate-test/v1", "policy": "policy.yaml", "now": "2026-03-02T10:00:00+01:00", "tests": [{"name": "a", "as": "nobody", "cases": [{"get": "/", "expect": 404}]}]}`},
	{[]string{"$defs", "identity"}, identityKeys.Known, strings.Replace(schemaFile, "# IDENTITIES", "identities: {alice: MAPPING}", 1), `{"from": "users", "uid": "u"}`},
	{[]string{"$defs", "test"}, testKeys.Known, strings.Replace(schemaFile, `{name: a, as: nobody, cases: [{get: /, expect: 404}]}`, "MAPPING", 1), `{"name": "a", "as": "nobody", "cases": [{"get": "/", "expect": 404}]}`},
	{[]string{"$defs", "case"}, caseKeys.Known, strings.Replace(schemaFile, `{get: /, expect: 404}`, "MAPPING", 1), `{"expect": 404}`},
	{[]string{"$defs", "case"}, caseKeys.Known, strings.Replace(schemaFile, `{get: /, expect: 404}`, "MAPPING", 1), `{"expect": 404, "get": "/"}`},
}

const schemaFile = `version: sidegate-test/v1
policy: policy.yaml
now: 2026-03-02T10:00:00+01:00
# IDENTITIES
tests: [{name: a, as: nobody, cases: [{get: /, expect: 404}]}]
`

// schemaPolicy has the names that the schema's examples use.
const schemaPolicy = `version: sidegate-policy/v1
identities: [users]
guards:
  - {id: agents-never-write, deny: {who: [users], methods: [POST]}}
  - {id: block-suspended, mode: dry_run, since: 2026-02-20, deny: {who: [users]}}
routes:
  - {id: user-files, path: "/{rest...}", methods: [GET], upstream: app, allow: [{id: own, who: [users]}]}
`

func readTestSchema(t *testing.T) map[string]any {
	t.Helper()
	data, err := os.ReadFile("../../configs/policy_test.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var root map[string]any
	if err := json.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestSchemaHasTheReadersKeys(t *testing.T) {
	root := readTestSchema(t)
	for _, part := range schemaParts {
		s := schematest.At(root, part.at...)
		if got, want := sortedKeys(schematest.At(s, "properties")), slices.Sorted(slices.Values(part.keys)); !slices.Equal(got, want) {
			t.Errorf("%v: the schema has %v, the reader %v", part.at, got, want)
		}
		if s["additionalProperties"] != false {
			t.Errorf("%v: other keys are not refused", part.at)
		}
	}
}

// TestSchemaOffersWhatIsRead tries each word, default and example of the schema.
func TestSchemaOffersWhatIsRead(t *testing.T) {
	root, schema := readTestSchema(t), compileSchema(t, "policy_test.schema.json")
	p, err := policy.Load("policy.yaml", []byte(schemaPolicy), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range schemaParts {
		properties := schematest.At(root, append(slices.Clone(part.at), "properties")...)
		for key := range properties {
			for _, v := range schematest.Words(root, schematest.At(properties, key)) {
				if slices.Contains(methodKeys, key) == strings.Contains(part.holds, `"get": "/"}`) && strings.HasPrefix(part.holds, `{"expect"`) {
					continue // a case has one method: the other row tries this key
				}
				text := fill(t, part.around, part.holds, key, v)
				if v == "alice" { // whom the examples name
					text = strings.Replace(text, "# IDENTITIES", "identities: {alice: {from: users, uid: u}}", 1)
				}
				if _, err := ReadTests("policy_test.yaml", []byte(text), p, nil); err != nil {
					t.Errorf("%v\n%s", err, text)
				}
				if err := fits(schema, text, TestVersion); err != nil {
					t.Errorf("%v\n%s", err, text)
				}
			}
		}
	}
}

func fill(t *testing.T, around, holds, key string, v any) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(holds), &m); err != nil {
		t.Fatal(err)
	}
	m[key] = v
	text, err := json.Marshal(m) // flow style is YAML
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(around, "MAPPING", string(text), 1)
}

// TestFilesFitTheSchemas holds each test file, and every whole file that a page
// shows, against its schema.
func TestFilesFitTheSchemas(t *testing.T) {
	schemas := map[string]*jsonschema.Schema{
		TestVersion:          compileSchema(t, "policy_test.schema.json"),
		policy.Version:       compileSchema(t, "policy.schema.json"),
		"sidegate-config/v1": compileSchema(t, "sidegate.schema.json"),
	}
	texts := map[string]string{}
	for _, pattern := range []string{"../../examples/*/*_test.yaml", "../../configs/*_test.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			texts[name] = string(data)
		}
	}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(err)
	}
	for _, page := range pages {
		for _, b := range yamlBlocks(readPage(t, filepath.Base(page))) {
			texts[fmt.Sprintf("%s:%d", page, b.line)] = b.text
		}
	}
	held := 0
	for name, text := range texts {
		for version, schema := range schemas {
			if !strings.Contains("\n"+text, "\nversion: "+version+"\n") {
				continue
			}
			held++
			if err := fits(schema, text, version); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if held < 20 {
		t.Errorf("only %d files", held)
	}
}

// TestBrokenFilesDoNotFitTheSchema: mistakes of form are seen by reader and
// schema, those of names by the reader alone.
func TestBrokenFilesDoNotFitTheSchema(t *testing.T) {
	schema := compileSchema(t, "policy_test.schema.json")
	p, err := policy.Load("policy.yaml", []byte(schemaPolicy), nil)
	if err != nil {
		t.Fatal(err)
	}
	const one = `{get: /, expect: 404}`
	for _, c := range []struct {
		old, new string
		seen     bool
	}{
		{"sidegate-test/v1", "sidegate-policy/v1", true},
		{"policy: policy.yaml", `policy: ""`, true},
		{"policy: policy.yaml\n", "", true},
		{"2026-03-02T10:00:00+01:00", "2026-03-02", true},
		{"2026-03-02T10:00:00+01:00", "yesterday", true},
		{"# IDENTITIES", "identity: {}", true},
		{"# IDENTITIES", "identities: [alice]", true},
		{"# IDENTITIES", "identities: {nobody: {from: users, uid: u}}", true},
		{"# IDENTITIES", "identities: {Alice: {from: users, uid: u}}", true},
		{"# IDENTITIES", "identities: {alice: {from: users}}", true},
		{"# IDENTITIES", "identities: {alice: {uid: u}}", true},
		{"# IDENTITIES", `identities: {alice: {from: users, uid: ""}}`, true},
		{"# IDENTITIES", "identities: {alice: {from: users, uid: 7}}", true},
		{"# IDENTITIES", "identities: {alice: {from: users, uid: u, mfa: 2}}", true},
		{"# IDENTITIES", "identities: {alice: {from: users, uid: u, mfa: soon}}", true},
		{"# IDENTITIES", "identities: {alice: {from: users, uid: u, email_verified: yes}}", true},
		{"# IDENTITIES", "identities: {alice: {from: users, uid: u, claims: [a]}}", true},
		{"# IDENTITIES", "identities: {alice: {from: users, uid: u, claims: {a: []}}}", true},
		{"# IDENTITIES", "identities: {alice: {from: user, uid: u}}", false},
		{"# IDENTITIES", "lookups: {share: a}", true},
		{"# IDENTITIES", "lookups: [{}]", true},
		{"# IDENTITIES", "identities: {alice: {from: users, uid: u, roles: [admin]}}", true},
		{"# IDENTITIES", "lookups: [{share: a}]", false},
		{"tests: [{name: a, as: nobody, cases: [" + one + "]}]", "tests: []", true},
		{"name: a, ", "", true},
		{"as: nobody, ", "", true},
		{"as: nobody", "as: alice", false},
		{"cases: [" + one + "]", "cases: " + one, true},
		{one, "{expect: 404}", true},
		{one, "{get: /}", true},
		{one, "{get: /, post: /, expect: 404}", true},
		{one, "{trace: /, expect: 404}", true},
		{one, "{path: /, expect: 404}", true},
		{one, "{GET: /, expect: 404}", true},
		{one, "{get: 7, expect: 404}", true},
		{one, "{get: /, expect: denied}", true},
		{one, "{get: /, expect: 200}", true},
		{one, "{get: /, expect: '404'}", true},
		{one, "{get: /, expect: 404, times: 0}", true},
		{one, "{get: /, expect: 404, ip: localhost}", true},
		{one, "{get: /, expect: 404, at: 10:00}", true},
		{one, "{get: /, expect: 404, by: Own}", true},
		{one, "{get: /, expect: 404, by: user-files/other}", false},
		{one, "{get: /, expect: 404, key: '['}", false},
		{one, "{get: /, expect: 404, shadow: {block-suspended: refuse}}", true},
		{one, "{get: /, expect: 404, shadow: {agents-never-write: pass}}", false},
	} {
		text := strings.Replace(schemaFile, c.old, c.new, 1)
		_, err := ReadPolicyName("policy_test.yaml", []byte(text))
		if err == nil {
			_, err = ReadTests("policy_test.yaml", []byte(text), p, nil)
		}
		if err == nil {
			t.Errorf("reads: %s", c.new)
		}
		if seen := fits(schema, text, TestVersion) != nil; seen != c.seen {
			t.Errorf("the schema sees it: %t, want %t: %s", seen, c.seen, c.new)
		}
	}
	if err := fits(schema, schemaFile, TestVersion); err != nil {
		t.Error(err)
	}
}
