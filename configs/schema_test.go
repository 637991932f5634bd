package configs

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// These tests are about the schemas as such. That they say what the loaders
// read is tested beside the loaders: in policy, proxy/trial and cmd.
var schemas = map[string]string{
	"policy.schema.json":      PolicySchema,
	"policy_test.schema.json": PolicyTestSchema,
	"sidegate.schema.json":    ConfigSchema,
}

const dialect = "https://json-schema.org/draft/2020-12/schema"

// Where a keyword holds schemas.
var (
	oneSchema  = []string{"additionalProperties", "items", "contains", "not", "if", "then", "else", "propertyNames"}
	schemaMaps = []string{"properties", "$defs"}
	schemaList = []string{"allOf", "anyOf", "oneOf"}
	otherWords = []string{"$schema", "$ref", "$comment", "title", "description", "type", "enum", "const", "default", "examples",
		"required", "dependentRequired", "pattern", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "minimum", "maximum"}
)

// walk calls visit for each schema within v, with its JSON pointer.
func walk(v any, at string, visit func(at string, s map[string]any)) {
	s, ok := v.(map[string]any)
	if !ok {
		return // true or false
	}
	visit(at, s)
	for _, word := range oneSchema {
		walk(s[word], at+"/"+word, visit)
	}
	for _, word := range schemaMaps {
		inner, _ := s[word].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(inner)) {
			walk(inner[name], at+"/"+word+"/"+name, visit)
		}
	}
	for _, word := range schemaList {
		inner, _ := s[word].([]any)
		for i := range inner {
			walk(inner[i], fmt.Sprintf("%s/%s/%d", at, word, i), visit)
		}
	}
}

func TestSchemas(t *testing.T) {
	for name, text := range schemas {
		t.Run(name, func(t *testing.T) {
			doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			root := doc.(map[string]any)
			if root["$schema"] != dialect {
				t.Errorf("$schema is %v", root["$schema"])
			}
			c := jsonschema.NewCompiler()
			if err := c.AddResource(name, doc); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Compile(name); err != nil {
				t.Fatal(err)
			}
			used := map[string]bool{}
			walk(root, "#", func(at string, s map[string]any) {
				checkWords(t, at, s)
				checkValues(t, c, name, at, s)
				if ref, ok := s["$ref"].(string); ok {
					used[ref] = true
				}
				properties, _ := s["properties"].(map[string]any)
				for key, p := range properties {
					if s["additionalProperties"] == false && describe(root, p) == "" {
						t.Errorf("%s: %s has no description", at, key)
					}
				}
			})
			for def := range root["$defs"].(map[string]any) {
				if !used["#/$defs/"+def] {
					t.Errorf("nothing uses $defs/%s", def)
				}
			}
		})
	}
}

// checkWords refuses keywords that there are not, which validators would pass
// over, and objects that take any key.
func checkWords(t *testing.T, at string, s map[string]any) {
	t.Helper()
	for word := range s {
		if !slices.Contains(slices.Concat(oneSchema, schemaMaps, schemaList, otherWords), word) {
			t.Errorf("%s: %q is no keyword that we use", at, word)
		}
	}
	if s["type"] == "object" && s["additionalProperties"] == nil && !strings.Contains(at, "/if/") {
		t.Errorf("%s: takes any key", at)
	}
	pattern, _ := s["pattern"].(string)
	// Editors take patterns for JavaScript's, with its flag u. This much means
	// the same there and in Go.
	for _, escape := range regexp.MustCompile(`\\.|\(\?`).FindAllString(pattern, -1) {
		if !strings.Contains(`\.*{}[]()$+?|^/`, escape[1:]) || escape == "(?" {
			t.Errorf("%s: %s means different things in different places", at, escape)
		}
	}
}

// checkValues holds what a schema offers against the schema itself.
func checkValues(t *testing.T, c *jsonschema.Compiler, name, at string, s map[string]any) {
	t.Helper()
	offered, _ := s["examples"].([]any)
	if d, ok := s["default"]; ok {
		offered = append(slices.Clone(offered), d)
	}
	if len(offered) == 0 {
		return
	}
	self, err := c.Compile(name + at)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range offered {
		if err := self.Validate(v); err != nil {
			text, _ := json.Marshal(v)
			t.Errorf("%s: %s: %v", at, text, err)
		}
	}
}

// describe is the description of a property, its own or that of what it refers
// to.
func describe(root map[string]any, p any) string {
	s, ok := p.(map[string]any)
	if !ok {
		return "refused"
	}
	if text, ok := s["description"].(string); ok {
		return text
	}
	ref, ok := s["$ref"].(string)
	if !ok {
		return ""
	}
	var at any = root
	for _, part := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		at = at.(map[string]any)[part]
	}
	return describe(root, at)
}
