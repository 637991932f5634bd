// Package configs holds the files that sidegate gives away: the ones that
// `sidegate init` writes, and the JSON Schemas for editors.
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

// PolicyTest is the policy_test.yaml of `sidegate init`: the tests of Policy.
//
//go:embed policy_test.yaml
var PolicyTest string

// The JSON Schemas (draft 2020-12) of the three files.
var (
	//go:embed sidegate.schema.json
	ConfigSchema string
	//go:embed policy.schema.json
	PolicySchema string
	//go:embed policy_test.schema.json
	PolicyTestSchema string
)

// OpenAPI describes the presign routes at their usual paths (OpenAPI 3.1). Nobody
// serves it: it is for client generators and readers, and tests hold the gateway
// to it.
//
//go:embed openapi.yaml
var OpenAPI string
