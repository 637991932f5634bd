package s3

import (
	"slices"
	"strings"
)

// Stores are the kinds of stores, as `store` in sidegate.yaml names them.
func Stores() []string { return []string{"aws", "minio", "versitygw", "r2", "gcs", "other"} }

// Limits are what a kind of store cannot do, as far as its maker or its source
// says so; what is not known of a store counts as possible. The zero Limits
// has none.
type Limits struct {
	NoForm   bool // no POST with a form
	NoSHA256 bool // no x-amz-checksum-sha256
	NoCRC64  bool // no x-amz-checksum-crc64nvme
	// NoWholeCRC64: of an object that came in parts without checksums no
	// CRC-64/NVME is computed, so that none can be compared.
	NoWholeCRC64 bool
	NoConditions bool // no If-None-Match on writing
}

// LimitsOf is what that kind of store cannot do.
//
//   - minio: what comes without a checksum gets none.
//     https://github.com/irods/irods_resource_plugin_s3/issues/2285
//     CRC-64/NVME that is sent is verified since 2025, If-None-Match since 2024.
//     https://github.com/minio/minio/pull/20855
//   - r2: signed URLs are for GET, HEAD, PUT and DELETE, not for POST with a form.
//     https://developers.cloudflare.com/r2/api/s3/presigned-urls
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
	case "minio":
		return Limits{NoWholeCRC64: true}
	case "r2":
		return Limits{NoForm: true}
	case "gcs":
		return Limits{NoForm: true, NoSHA256: true, NoCRC64: true, NoWholeCRC64: true, NoConditions: true}
	}
	return Limits{}
}

// StoreOf is the kind of store, or "" where sidegate.yaml has to say it: of an
// endpoint that is not AWS's it cannot be told, and what a store obeys that
// nobody signed is a matter of its kind.
func StoreOf(store, endpoint string) string {
	switch {
	case store != "":
		return store
	case endpoint == "" || strings.Contains(endpoint, ".amazonaws.com"):
		return "aws"
	}
	return ""
}

// checkStore says what the bucket's kind of store cannot do.
func (o *Options) checkStore() *OptionError {
	if o.Store != "" && !slices.Contains(Stores(), o.Store) {
		return &OptionError{"store", "is not one of " + strings.Join(Stores(), ", ")}
	}
	impossible := func(key, why string) *OptionError {
		return &OptionError{key, "is not possible: the store " + o.Store + " " + why}
	}
	switch o.Store {
	case "", "aws", "other":
	default:
		if o.Endpoint == "" {
			return &OptionError{"endpoint", "is missing: the store " + o.Store + " has one of its own" + endpointHints[o.Store]}
		}
	}
	switch o.Store {
	case "aws":
		if o.Endpoint != "" && !strings.Contains(o.Endpoint, ".amazonaws.com") {
			return &OptionError{"endpoint", "is not one of AWS: name another `store`"}
		}
	case "r2":
		return o.checkR2(impossible)
	case "gcs":
		return o.checkGCS(impossible)
	case "versitygw":
		return o.checkVersitygw(impossible)
	case "minio":
		return o.checkMinIO(impossible)
	}
	return nil
}

var endpointHints = map[string]string{
	"r2":  ", https://<account id>.r2.cloudflarestorage.com",
	"gcs": ", https://storage.googleapis.com",
}

// checkR2 follows the tables of
// https://developers.cloudflare.com/r2/api/s3/api/ (PutObject, CreateMultipartUpload).
func (o *Options) checkR2(impossible func(key, why string) *OptionError) *OptionError {
	switch {
	case o.AES256 || o.KMSKey != "":
		return impossible("sse", "encrypts by itself and takes no x-amz-server-side-encryption")
	case len(o.Tags) > 0:
		return impossible("tags", "has no tags of objects")
	case o.StorageClass != "" && o.StorageClass != "STANDARD" && o.StorageClass != "STANDARD_IA":
		return impossible("storage_class", "has STANDARD and STANDARD_IA")
	case o.Role != nil:
		return impossible("credentials.role", "takes no tokens of AWS")
	}
	return nil
}

// checkGCS: tags and S3's encryption headers have no x-goog- equivalent, which
// is what the store looks for in x-amz- headers, and it is signed with HMAC keys.
// https://cloud.google.com/storage/docs/aws-simple-migration
func (o *Options) checkGCS(impossible func(key, why string) *OptionError) *OptionError {
	switch {
	case o.AES256 || o.KMSKey != "":
		return impossible("sse", "encrypts by itself; its keys are set on the bucket")
	case len(o.Tags) > 0:
		return impossible("tags", "has no tags of objects")
	case o.StorageClass != "" && !slices.Contains([]string{"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"}, o.StorageClass):
		// https://cloud.google.com/storage/docs/storage-classes
		return impossible("storage_class", "has STANDARD, NEARLINE, COLDLINE and ARCHIVE")
	case o.Role != nil:
		return impossible("credentials.role", "takes no tokens of AWS: give it HMAC keys")
	}
	return nil
}

// checkVersitygw: its source reads neither header (v1.8.0, s3api/controllers).
func (o *Options) checkVersitygw(impossible func(key, why string) *OptionError) *OptionError {
	switch {
	case o.AES256 || o.KMSKey != "":
		return impossible("sse", "ignores x-amz-server-side-encryption")
	case o.StorageClass != "" && o.StorageClass != "STANDARD":
		return impossible("storage_class", "ignores x-amz-storage-class")
	case o.Role != nil:
		return impossible("credentials.role", "takes no tokens of AWS")
	}
	return nil
}

// checkMinIO: it has two storage classes and answers 400 for others
// (v0.0.0-20260212201848, internal/config/storageclass), and the roles of its
// own STS have other ARNs than AWS's.
func (o *Options) checkMinIO(impossible func(key, why string) *OptionError) *OptionError {
	switch {
	case o.StorageClass != "" && o.StorageClass != "STANDARD" && o.StorageClass != "REDUCED_REDUNDANCY":
		return impossible("storage_class", "has STANDARD and REDUCED_REDUNDANCY")
	case o.Role != nil:
		return impossible("credentials.role", "takes no tokens of AWS")
	}
	return nil
}
