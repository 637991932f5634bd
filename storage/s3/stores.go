package s3

import (
	"fmt"
	"slices"
	"strings"
)

// Stores are the kinds of stores, as `store` in sidegate.yaml names them.
func Stores() []string { return []string{"aws", "minio", "versitygw", "r2", "gcs", "other"} }

// Limits are what a kind of store cannot do, as far as its maker or its source
// says so; what is not known of a store counts as possible. The zero Limits
// has none.
type Limits struct {
	NoForm       bool // no POST with a form
	NoSHA256     bool // no x-amz-checksum-sha256
	NoCRC64      bool // no x-amz-checksum-crc64nvme
	NoConditions bool // no If-None-Match on writing
}

// LimitsOf is what that kind of store cannot do.
//
//   - r2: signed URLs are for GET, HEAD, PUT and DELETE, not for POST with a form.
//     https://developers.cloudflare.com/r2/api/s3/presigned-urls/
//     Conditions and CRC-64/NVME it has.
//     https://developers.cloudflare.com/r2/api/s3/conditional-operations/
//     https://developers.cloudflare.com/r2/api/s3/api/
//   - gcs: If-None-Match is for reading; writing has x-goog-if-generation-match,
//     https://cloud.google.com/storage/docs/request-preconditions
//     and a request cannot have headers of both kinds, x-amz- and x-goog-; its
//     forms and checksums have names of their own (x-goog-hash: CRC32C, MD5).
//     https://cloud.google.com/storage/docs/xml-api/reference-headers
//     https://cloud.google.com/storage/docs/xml-api/post-object-forms
func LimitsOf(store string) Limits {
	switch store {
	case "r2":
		return Limits{NoForm: true}
	case "gcs":
		return Limits{NoForm: true, NoSHA256: true, NoCRC64: true, NoConditions: true}
	}
	return Limits{}
}

// StoreOf is the kind of store where sidegate.yaml does not say: AWS, unless an
// endpoint is named.
func StoreOf(store, endpoint string) string {
	switch {
	case store != "":
		return store
	case endpoint != "":
		return "other"
	}
	return "aws"
}

// CheckStore says what in o the bucket's kind of store cannot do: the key of
// sidegate.yaml below the bucket's, and why; nil where all is possible.
func (o *Options) CheckStore() error {
	refuse := func(key, why string) error { return fmt.Errorf("`%s`: the store %s %s", key, o.Store, why) }
	if o.Store != "" && !slices.Contains(Stores(), o.Store) {
		return fmt.Errorf("`store` is not one of %s", strings.Join(Stores(), ", "))
	}
	switch o.Store {
	case "aws":
		if o.Endpoint != "" && !strings.Contains(o.Endpoint, ".amazonaws.com") {
			return refuse("endpoint", "is reached at its own; name another `store`, or leave `store` out")
		}
	case "r2":
		return o.checkR2(refuse)
	case "gcs":
		return o.checkGCS(refuse)
	case "versitygw":
		return o.checkVersitygw(refuse)
	}
	if o.Store != "" && o.Store != "aws" && o.Endpoint == "" {
		return refuse("endpoint", "has one of its own: say where it is")
	}
	return nil
}

// checkR2 follows the tables of
// https://developers.cloudflare.com/r2/api/s3/api/ (PutObject, CreateMultipartUpload).
func (o *Options) checkR2(refuse func(key, why string) error) error {
	switch {
	case o.Endpoint == "":
		return refuse("endpoint", "has one of its own: https://<account id>.r2.cloudflarestorage.com")
	case o.AES256 || o.KMSKey != "":
		return refuse("sse", "encrypts by itself and takes no x-amz-server-side-encryption")
	case len(o.Tags) > 0:
		return refuse("tags", "has no tags")
	case o.StorageClass != "" && o.StorageClass != "STANDARD" && o.StorageClass != "STANDARD_IA":
		return refuse("storage_class", "has STANDARD and STANDARD_IA")
	}
	return nil
}

// checkGCS: tags and S3's encryption headers have no x-goog- equivalent, which
// is what the store looks for in x-amz- headers.
// https://cloud.google.com/storage/docs/aws-simple-migration
func (o *Options) checkGCS(refuse func(key, why string) error) error {
	switch {
	case o.Endpoint == "":
		return refuse("endpoint", "has one of its own: https://storage.googleapis.com")
	case o.AES256 || o.KMSKey != "":
		return refuse("sse", "encrypts by itself; its keys are set on the bucket")
	case len(o.Tags) > 0:
		return refuse("tags", "has no tags of objects")
	case o.StorageClass != "" && !slices.Contains([]string{"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"}, o.StorageClass):
		// https://cloud.google.com/storage/docs/storage-classes
		return refuse("storage_class", "has STANDARD, NEARLINE, COLDLINE and ARCHIVE")
	case o.Role != nil:
		return refuse("credentials", "needs HMAC keys")
	}
	return nil
}

// checkVersitygw: its source reads no header of either (v1.8.0, s3api/controllers).
func (o *Options) checkVersitygw(refuse func(key, why string) error) error {
	switch {
	case o.Endpoint == "":
		return refuse("endpoint", "has one of its own: say where it is")
	case o.AES256 || o.KMSKey != "":
		return refuse("sse", "does not encrypt: it ignores x-amz-server-side-encryption")
	case o.StorageClass != "" && o.StorageClass != "STANDARD":
		return refuse("storage_class", "has one class: it ignores x-amz-storage-class")
	case o.Role != nil:
		return refuse("credentials", "needs keys: it takes no tokens of AWS")
	}
	return nil
}
