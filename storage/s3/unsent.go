package s3

// unsent are headers that a store obeys though nobody signed them. They are
// signed as empty, and stand in the query, which is where the store looks for a
// signed header that did not come: a client that sends one has another signature.
type unsent struct {
	names []string // sorted, in small letters
	query string   // goes before x-id, in the order of the names
}

// unsentOf: MinIO refuses unsigned headers of metadata only
// (v0.0.0-20260212201848, cmd/signature-v4-utils.go: checkMetaHeaders,
// extractSignedHeaders). With x-amz-copy-source a signed PUT is a copy of any
// object that the gateway's credentials may read; an object that is locked, or
// encrypted by a key of its sender's, could neither be looked at nor deleted.
// AWS and versitygw refuse a request with any such header that is not signed.
func unsentOf(store string) (u unsent) {
	if store != "minio" {
		return u
	}
	u.names = []string{
		"x-amz-copy-source", "x-amz-object-lock-legal-hold", "x-amz-object-lock-mode", "x-amz-server-side-encryption-customer-algorithm",
	}
	for _, name := range u.names {
		u.query += "&" + name + "="
	}
	return u
}
