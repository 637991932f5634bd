package policy

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
)

// A schema is the part of a JSON Schema that these tests read.
type schema struct {
	Description          string             `json:"description"`
	Properties           map[string]*schema `json:"properties"`
	AdditionalProperties any                `json:"additionalProperties"`
	Items                *schema            `json:"items"`
	OneOf                []*schema          `json:"oneOf"`
	Enum                 []string           `json:"enum"`
	Const                any                `json:"const"`
	Required             []string           `json:"required"`
}

// TestSchema holds the JSON Schema for editors against the loader's keys.
func TestSchema(t *testing.T) {
	data, err := os.ReadFile("../configs/policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var root schema
	if err := json.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	route := root.Properties["routes"].Items
	object := route.Properties["object"]
	entry := route.Properties["allow"].OneOf[1].Items
	for _, c := range []struct {
		name string
		at   *schema
		keys []string
	}{
		{"policy", &root, policyKeys.Known},
		{"route", route, routeKeys.Known},
		{"entry", entry, entryKeys.Known},
		{"org", entry.Properties["org"], orgKeys.Known},
		{"object", object, objectKeys.Known},
		{"expires", object.Properties["expires"], expiresKeys.Known},
	} {
		if got, want := keysOf(c.at.Properties), slices.Sorted(slices.Values(c.keys)); !slices.Equal(got, want) {
			t.Errorf("%s: the schema has %v, the loader %v", c.name, got, want)
		}
		if c.at.AdditionalProperties != false {
			t.Errorf("%s: other keys are not refused", c.name)
		}
		for _, key := range c.at.Required {
			if !slices.Contains(c.keys, key) {
				t.Errorf("%s needs %s, which there is not", c.name, key)
			}
		}
		for key, p := range c.at.Properties {
			if p.Description == "" {
				t.Errorf("%s.%s has no description", c.name, key)
			}
		}
	}
	if got := route.Properties["serve"].Enum; !slices.Equal(got, served) {
		t.Errorf("serve: %v, want %v", got, served)
	}
	if root.Properties["version"].Const != Version {
		t.Errorf("version: %v", root.Properties["version"].Const)
	}
}
