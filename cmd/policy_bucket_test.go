package cmd

import (
	"fmt"
	"strings"
	"testing"

	"sidegate/policy"
)

// TestPolicyKnowsWhatStoresCannotDo: a policy that asks a store for what it does
// not have is refused at the start, and not by the store, later.
func TestPolicyKnowsWhatStoresCannotDo(t *testing.T) {
	for _, c := range []struct{ store, object, want string }{
		{"aws", "", ""},
		{"r2", "", ""},
		{"r2", ", method: POST", "bucket `default` (r2) takes no forms"},
		{"gcs", "", "bucket `default` (gcs) ignores If-None-Match"},
		{"gcs", ", overwrite: true", ""},
		{"gcs", ", overwrite: true, checksum: sha256", "bucket `default` (gcs) does not check SHA-256"},
		{"gcs", ", overwrite: true, checksum: crc64nvme", "bucket `default` (gcs) does not check CRC-64/NVME"},
		{"minio", ", checksum: crc64nvme", ""},
		{"other", ", method: POST, checksum: crc64nvme", ""},
	} {
		env := policyEnvironment(&Config{
			Identities: []IdentityConfig{{Name: "users", Namespace: "users"}},
			Buckets:    []BucketConfig{{Name: "default", Bucket: "acme", Store: c.store}},
		})
		text := `version: sidegate-policy/v1
identities: [users]
routes: [{id: up, path: /up, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "u/${uuid}"` + c.object + `}}]
`
		_, err := policy.Load("policy.yaml", []byte(text), env)
		if got := fmt.Sprint(err); (c.want == "") != (err == nil) || !strings.Contains(got, c.want) {
			t.Errorf("%s%s: %s", c.store, c.object, got)
		}
	}
}
