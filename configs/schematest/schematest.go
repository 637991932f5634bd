// Package schematest is for the tests that hold the JSON Schemas against the
// loaders.
package schematest

import "strings"

// Words are what the schema part, of root, says that a value may be, with what
// it offers as an example or default: its own, and those of what it is made of.
// Parts are as encoding/json reads them; a reference that leads nowhere panics.
func Words(root, part map[string]any) []any {
	var out []any
	for _, key := range []string{"const", "default"} {
		if v, ok := part[key]; ok {
			out = append(out, v)
		}
	}
	for _, key := range []string{"enum", "examples"} {
		list, _ := part[key].([]any)
		out = append(out, list...)
	}
	for _, key := range []string{"anyOf", "oneOf"} {
		options, _ := part[key].([]any)
		for _, option := range options {
			out = append(out, Words(root, option.(map[string]any))...)
		}
	}
	if ref, ok := part["$ref"].(string); ok {
		out = append(out, Words(root, At(root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...))...)
	}
	return out
}

// At is the part of a schema that the names lead to.
func At(s map[string]any, names ...string) map[string]any {
	for _, name := range names {
		s = s[name].(map[string]any)
	}
	return s
}
