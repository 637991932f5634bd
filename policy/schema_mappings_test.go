package policy

import "strings"

// A mapping is one kind of mapping in a policy: where the schema has it, the
// loader's keys, and policies in which one of them stands for MAPPING.
type mapping struct {
	at   string
	keys []string
	in   []frame
}

// A frame is a policy around a mapping, and what the mapping holds beside the
// key that is tried.
type frame struct{ around, holds string }

// The names in these policies are those that the schema's examples use.
const (
	schemaHead = `version: sidegate-policy/v1
identities: [users, agents]
claims: {roles: list(string), orgs: map(string), scopes: list(string), plan: string, x: string}
vars: {office: [198.51.100.0/24]}
lookups: {share: {document: "shares/${sha256(params.key)}", fields: {readers: list(string), until: timestamp}}}
`
	schemaRoutes = `routes: [{id: all, path: "/{rest...}", methods: [GET, POST], upstream: app, allow: public}]
`
	inGuard = schemaHead + `guards: [{id: g, path: "/{uid}/{org}/{key...}", deny: MAPPING}]
` + schemaRoutes
	inRoute    = schemaHead + "routes: [MAPPING]\n"
	inUpstream = schemaHead + `routes: [{id: a, path: "/{uid}/{org}/{key...}", methods: [GET, POST], upstream: app, allow: [MAPPING]}]
`
	inDownload = schemaHead + `routes: [{id: d, path: "/d/{key...}", methods: [GET], serve: presign_download, allow: [MAPPING], object: {key: "${params.key}"}}]
`
)

var mappings = map[string]mapping{
	"policy": {"", policyKeys.Known, []frame{
		{"MAPPING", `{"version": "sidegate-policy/v1", "routes": [{"id": "a", "path": "/", "methods": ["GET"], "upstream": "app", "allow": "public"}]}`},
	}},
	"claim":  {"properties/claims/*", nil, []frame{{"version: sidegate-policy/v1\nclaims: MAPPING\n" + schemaRoutes, `{}`}}},
	"lookup": {"properties/lookups/additionalProperties", lookupKeys.Known, []frame{{"version: sidegate-policy/v1\nlookups: {x: MAPPING}\n" + schemaRoutes, `{"document": "a/b", "fields": {"f": "string"}}`}}},
	"field":  {"properties/lookups/additionalProperties/properties/fields/*", nil, []frame{{"version: sidegate-policy/v1\nlookups: {x: {document: a/b, fields: MAPPING}}\n" + schemaRoutes, `{}`}}},
	"guard": {"$defs/guard", guardKeys.Known, []frame{
		{schemaHead + "guards: [MAPPING]\n" + schemaRoutes, `{"id": "g", "deny": {"who": ["agents"]}}`},
		{schemaHead + "guards: [MAPPING]\n" + schemaRoutes, `{"id": "g"}`},
		{schemaHead + "guards: [MAPPING]\n" + schemaRoutes, `{"id": "g", "deny": {"who": ["agents"]}, "since": "2026-02-20"}`},
		{schemaHead + "guards: [MAPPING]\n" + schemaRoutes, `{"id": "g", "deny": {"who": ["agents"]}, "mode": "dry_run"}`},
	}},
	"condition": {"$defs/condition", conditionKeys, []frame{
		{inGuard, `{}`}, {inGuard, `{"who": ["users"]}`},
	}},
	"entry": {"$defs/entry", entryKeys.Known, []frame{
		{inUpstream, `{"who": ["users"]}`}, {inDownload, `{"who": ["users"]}`}, {inDownload, `{"who": ["users"], "key_prefix": "a/"}`},
		{inUpstream, `{"who": ["users"], "since": "2026-02-20"}`}, {inUpstream, `{"who": ["users"], "mode": "dry_run"}`},
	}},
	"org":         {"$defs/condition/properties/org", orgKeys.Known, []frame{{strings.Replace(inUpstream, "MAPPING", "{org: MAPPING}", 1), `{"id": "a", "role": ["b"]}`}}},
	"claim value": {"$defs/condition/properties/claims/*", nil, []frame{{strings.Replace(inUpstream, "MAPPING", "{claims: MAPPING}", 1), `{}`}}},
	"time":        {"$defs/condition/properties/time", timeKeys.Known, []frame{{strings.Replace(inUpstream, "MAPPING", "{time: MAPPING}", 1), `{"days": "mon"}`}}},
	"route": {"$defs/route", routeKeys.Known, []frame{
		{inRoute, `{"id": "a", "path": "/{uid}", "methods": ["GET"], "upstream": "app", "allow": [{"who": ["users"]}]}`},
		{inRoute, `{"id": "a", "path": "/a", "methods": ["GET"], "upstream": "app", "allow": "public"}`},
		{inRoute, `{"id": "a", "path": "/a/{session}", "methods": ["POST"], "serve": "confirm_upload", "allow": [{"who": ["users"]}]}`},
		{inRoute, `{"id": "a", "path": "/a", "methods": ["POST"], "serve": "presign_upload", "allow": [{"who": ["users"]}], "object": {"key": "u/${uuid}"}}`},
		{inRoute, `{"id": "a", "path": "/a", "methods": ["GET"], "serve": "presign_download", "allow": [{"who": ["users"]}], "object": {"key": "u/a"}}`},
		{inRoute, `{"id": "a", "path": "/a/{key...}", "methods": ["GET"], "allow": [{"who": ["users"], "key_prefix": "a/"}], "object": {"key": "${params.key}"}}`},
		{inRoute, `{"id": "a", "path": "/a/{session}", "methods": ["GET"], "allow": [{"who": ["users"]}]}`},
		{inRoute, `{"id": "a", "path": "/a", "methods": ["POST"], "allow": [{"who": ["users"], "key_prefix": "a/"}], "object": {"key": "${request.key}"}}`},
		{inRoute, `{"id": "a", "path": "/a", "methods": ["POST"], "allow": [{"who": ["users"]}], "object": {"key": "u/${uuid}"}}`},
		{inRoute, `{"id": "a", "path": "/a/{op...}", "methods": ["GET", "POST", "DELETE"], "allow": [{"who": ["users"]}], "object": {"key": "u/${uuid}"}}`},
		{inRoute, `{"id": "a", "path": "/a/{key...}", "methods": ["DELETE"], "allow": [{"who": ["users"], "key_prefix": "a/"}], "object": {"key": "${params.key}"}}`},
		{inRoute, `{"id": "a", "path": "/a", "methods": ["GET"], "allow": [{"who": ["users"]}], "object": {"prefix": "a/"}}`},
	}},
	"quota": {"$defs/quota", quotaKeys.Known, []frame{
		{schemaHead + `routes: [{id: a, path: /a, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "u/${uuid}"}, quota: MAPPING}]`, `{"window": "1h", "objects": 1}`},
	}},
	"object": {"$defs/object", objectKeys.Known, []frame{
		{schemaHead + `routes: [{id: a, path: /a, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: MAPPING}]`, `{"key": "u/${uuid}"}`},
		{schemaHead + `routes: [{id: a, path: "/a/{key...}", methods: [GET], serve: presign_download, allow: [{who: [users], key_prefix: a/}], object: MAPPING}]`, `{"key": "${params.key}"}`},
		{schemaHead + `routes: [{id: a, path: /a, methods: [POST], serve: presign_downloads, allow: [{who: [users], key_prefix: a/}], object: MAPPING}]`, `{}`},
		{schemaHead + `routes: [{id: a, path: /a, methods: [GET], serve: list_objects, allow: [{who: [users]}], object: MAPPING}]`, `{}`},
	}},
	"expires": {"$defs/object/properties/expires", expiresKeys.Known, []frame{
		{schemaHead + `routes: [{id: a, path: /a, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "u/${uuid}", expires: MAPPING}}]`, `{}`},
	}},
	"limit": {"$defs/limit", limitKeys.Known, []frame{
		{schemaHead + `routes: [{id: a, path: /a, methods: [GET], upstream: app, allow: [{who: [users]}], limit: MAPPING}]`, `{"rate": "1/s", "per": "uid"}`},
	}},
}

// properties are the keys that a schema has for a mapping; a path that ends in
// `*` is of a mapping whose keys are the writer's own, and x stands for one.
func properties(m mapping) map[string]any {
	if path, ok := strings.CutSuffix(m.at, "/*"); ok {
		return map[string]any{"x": map[string]any(readSchema().at(path + "/additionalProperties"))}
	}
	return readSchema().at(m.at + "/properties")
}
