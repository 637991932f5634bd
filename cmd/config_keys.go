package cmd

import "sidegate/policy/document"

// configVersion is what the key `version` must say.
const configVersion = "sidegate-config/v1"

// configKeys are the mappings of sidegate.yaml and their keys, by path; `*`
// stands for a name of the operator's own. docs/configuration.md and the JSON
// Schema are held against this table.
func configKeys() map[string]document.Keys {
	return map[string]document.Keys{
		"": {
			Known: []string{"version", "name", "listen", "admin", "forward_auth", "policy", "identities", "keys_cache", "token_cache", "upstreams", "cors", "buckets", "storage", "lookups", "audit", "assertion", "webhook", "redis", "telemetry", "log"},
		},
		"listen": {
			Known: []string{"address", "trusted_proxies", "shutdown_grace", "drain_delay", "header_timeout", "max_header_bytes", "idle_timeout", "max_connections", "max_requests", "max_requests_per_connection", "tls"},
		},
		"listen.tls":            {Known: []string{"cert", "key", "client_ca"}},
		"admin":                 {Known: []string{"address"}},
		"forward_auth":          {Known: []string{"address", "dialect"}},
		"identities.*":          {Known: []string{"firebase", "google", "oidc", "uids"}},
		"identities.*.firebase": {Known: []string{"project", "tenant", "session_cookie", "revocation", "revocation_grace", "app_check", "leeway"}},
		"identities.*.google":   {Known: []string{"audience", "emails"}},
		"identities.*.oidc":     {Known: []string{"issuer", "audience", "keys", "uid", "actor", "algorithms", "claims", "require"}},
		"cors":                  {Known: []string{"origins", "headers", "credentials", "max_age"}},
		"assertion":             {Known: []string{"key", "next_key"}},
		"webhook":               {Known: []string{"url", "secret"}},
		"redis":                 {Known: []string{"url", "timeout", "ca", "prefix"}},
		"upstreams.*": {
			Known: []string{"url", "balance", "host", "timeout", "idle_timeout", "max_body", "max_requests", "authorization", "headers", "tls", "id_token", "streams", "transport"},
		},
		"upstreams.*.tls": {Known: []string{"ca", "cert", "key"}},
		"buckets.*": {
			Known: []string{"bucket", "store", "region", "endpoint", "public_endpoint", "path_style", "sse", "storage_class", "tags", "metadata", "credentials"},
			Hints: map[string]string{
				"acl": "access lists of objects are never signed; who may read is said by the bucket's policy",
			},
		},
		"buckets.*.sse":         {Known: []string{"kms_key"}},
		"buckets.*.credentials": {Known: []string{"access_key", "secret_key", "role", "from", "audience"}},
		"storage":               {Known: []string{"local", "firestore"}},
		"storage.local":         {Known: []string{"dir"}},
		"storage.firestore":     {Known: []string{"project", "database", "collection"}},
		"lookups":               {Known: []string{"firestore"}},
		"lookups.firestore":     {Known: []string{"project", "database"}},
		"audit": {
			Known: []string{"dir", "survive", "max_size", "segment", "retention", "key", "checkpoint", "firestore", "stdout"},
		},
		"audit.firestore": {Known: []string{"project", "database", "collection", "ttl"}},
		"telemetry":       {Known: []string{"otlp", "sample", "headers", "ca"}},
		"log":             {Known: []string{"level", "format", "sample"}},
	}
}
