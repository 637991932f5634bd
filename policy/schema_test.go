package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"sidegate/configs/schematest"
	"sidegate/policy/document"
)

// These tests hold the JSON Schema for editors against the loader: what it
// offers loads, what loads fits it, and what is of the wrong form does not.

const schemaFile = "../configs/policy.schema.json"

// A schema is a part of a JSON Schema, as JSON has it.
type schema map[string]any

var readSchema = sync.OnceValue(func() schema {
	data, err := os.ReadFile(schemaFile)
	if err != nil {
		panic(err)
	}
	var s schema
	if err := json.Unmarshal(data, &s); err != nil {
		panic(err)
	}
	return s
})

// at is the part at a path of names, "" for the whole; what it refers to where
// it is a reference.
func (s schema) at(path string) schema {
	var v any = map[string]any(s)
	for _, name := range strings.Split(path, "/") {
		switch inner := v.(type) {
		case map[string]any:
			if name != "" {
				v = inner[name]
			}
		case []any:
			i, _ := strconv.Atoi(name)
			v = inner[i]
		}
	}
	return v.(map[string]any)
}

func (s schema) words() []any { return schematest.Words(readSchema(), s) }

var validator = sync.OnceValue(func() *jsonschema.Schema {
	s, err := jsonschema.NewCompiler().Compile(schemaFile)
	if err != nil {
		panic(err)
	}
	return s
})

// fitsSchema is nil where an editor would have nothing to say, and where there
// is nothing to compare: a number such as +5 has no form in JSON.
func fitsSchema(data []byte) error {
	doc := document.New("policy.yaml", nil)
	root := doc.Parse(data, Version)
	before := doc.Err()
	plain := root.Plain()
	if fmt.Sprint(doc.Err()) != fmt.Sprint(before) {
		return nil
	}
	return validator().Validate(plain)
}

func TestSchemaHasTheLoadersKeys(t *testing.T) {
	for name, m := range mappings {
		if m.keys == nil {
			continue
		}
		if got, want := keysOf(properties(m)), slices.Sorted(slices.Values(m.keys)); !slices.Equal(got, want) {
			t.Errorf("%s: the schema has %v, the loader %v", name, got, want)
		}
		if readSchema().at(m.at)["additionalProperties"] != false {
			t.Errorf("%s: other keys are not refused", name)
		}
	}
	for path, words := range map[string][]string{
		"$defs/route/properties/serve": served,
		"$defs/limit/properties/per":   limitBy[:],
		"$defs/methods/anyOf/0/items":  methods[:],
	} {
		var got []string
		for _, word := range readSchema().at(path).words() {
			got = append(got, word.(string))
		}
		if !slices.Equal(got, words) {
			t.Errorf("%s: the schema has %v, the loader %v", path, got, words)
		}
	}
}

// TestSchemaOffersWhatLoads tries each word, default and example of the schema:
// some policy with it must load.
func TestSchemaOffersWhatLoads(t *testing.T) {
	tried := 0
	for name, m := range mappings {
		for key, p := range properties(m) {
			for _, word := range schema(p.(map[string]any)).words() {
				tried++
				if err := loadsSomewhere(m, key, word); err != nil {
					text, _ := json.Marshal(word)
					t.Errorf("%s: nothing with `%s: %s` loads:\n%v", name, key, text, err)
				}
			}
		}
	}
	if tried < 100 {
		t.Errorf("only %d values", tried)
	}
}

// loadsSomewhere puts a key into each frame of a mapping.
func loadsSomewhere(m mapping, key string, value any) error {
	var all []error
	for _, f := range m.in {
		var holds map[string]any
		if err := json.Unmarshal([]byte(f.holds), &holds); err != nil {
			return err
		}
		holds[key] = value
		text, err := json.Marshal(holds) // flow style is YAML
		if err != nil {
			return err
		}
		policy := strings.Replace(f.around, "MAPPING", string(text), 1)
		_, err = Load("policy.yaml", []byte(policy), nil)
		if err == nil {
			err = fitsSchema([]byte(policy))
		}
		if err == nil {
			return nil
		}
		all = append(all, fmt.Errorf("%s\n%w", policy, err))
	}
	return errors.Join(all...)
}

func TestPoliciesFitTheSchema(t *testing.T) {
	files, err := filepath.Glob("../examples/*/policy.yaml")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, name := range append(files, "testdata/example.yaml", "../configs/policy.yaml") {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := fitsSchema(data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// unseen are the kinds of mistakes that the schema does not see: it has the form
// of each value, but not what YAML forgets when it is read, what a value means,
// and what other places say of it.
var unseen = []*regexp.Regexp{
	// YAML
	regexp.MustCompile(`duplicate key`),
	// meaning
	regexp.MustCompile("^`if`: "),
	regexp.MustCompile("`.*` must be from .* to .*, not"),
	regexp.MustCompile(`is no time zone`),
	regexp.MustCompile(`stand in one segment: different callers`),
	regexp.MustCompile(`SG006 `),
	regexp.MustCompile(`would be taken as it stands[;:]`),
	// other places: of this file
	regexp.MustCompile(`SG00[123489] `),
	regexp.MustCompile("is not in the policy's `identities`"),
	regexp.MustCompile(`is declared as .*, and .* is needed here`),
	regexp.MustCompile(`which cannot stand within text`),
	regexp.MustCompile("`identities` is missing: "),
	regexp.MustCompile("\\(from `vars\\."), // what a variable gave
	// of sidegate.yaml
	regexp.MustCompile(`is not defined in sidegate\.yaml`),
	regexp.MustCompile("^bucket `.*` \\(.*\\) "),
}

// TestBrokenPoliciesDoNotFitTheSchema: a policy with a mistake of form does not
// fit.
func TestBrokenPoliciesDoNotFitTheSchema(t *testing.T) {
	data, err := os.ReadFile("testdata/broken.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []brokenCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	fit, used := 0, map[*regexp.Regexp]bool{}
	for _, c := range cases {
		text := strings.Join(c.Policy, "\n") + "\n"
		if strings.HasPrefix(text, "  -") {
			text = header + text
		}
		if fitsSchema([]byte(text)) != nil {
			continue
		}
		fit++
		for _, e := range c.Errors {
			_, e, _ = strings.Cut(e, ": ")
			i := slices.IndexFunc(unseen, func(kind *regexp.Regexp) bool { return kind.MatchString(e) })
			if i < 0 {
				t.Errorf("%s: fits the schema, in spite of: %s", c.Name, e)
				continue
			}
			used[unseen[i]] = true
		}
	}
	for _, kind := range unseen {
		if !used[kind] {
			t.Errorf("the schema sees all mistakes of the kind %s", kind)
		}
	}
	if 2*fit > len(cases) {
		t.Errorf("of %d broken policies %d fit the schema", len(cases), fit)
	}
	t.Logf("%d broken policies, %d of them fit the schema", len(cases), fit)
}
