// Package configs holds the files that sidegate gives away: the ones that
// `sidegate init` writes, and the JSON Schema for editors.
package configs

import _ "embed"

// Config is the sidegate.yaml of `sidegate init`.
//
//go:embed sidegate.yaml
var Config string

// Policy is the policy.yaml of `sidegate init`.
//
//go:embed policy.yaml
var Policy string

// Schema is the JSON Schema of sidegate.yaml.
//
//go:embed sidegate.schema.json
var Schema string
