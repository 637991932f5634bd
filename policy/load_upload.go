package policy

import (
	"regexp"
	"slices"
	"time"

	"sidegate/policy/document"
)

// The largest objects that S3 stores: by one PUT or form (PutObject: 5 GiB), and
// by parts (10,000 of 5 GiB).
const (
	maxPut     = 5 << 30
	maxInParts = 10_000 * maxPut
)

// readUpload reads what an upload may be, and holds it against what its bucket
// can do.
func (l *loader) readUpload(o document.Map, r *Route, b Bucket) {
	obj := r.Object
	largest := int64(maxPut)
	if r.operation().below {
		largest = maxInParts
	}
	obj.MaxBytes = o.Get("max_bytes").SizeIn(1, largest)
	obj.Overwrite = o.Get("overwrite").Bool()
	obj.DeleteLate = o.Get("late").OneOf("keep", "delete") == "delete"
	if c := o.Get("confirm_within"); c.Present() {
		obj.ConfirmWithin = c.Duration()
	}
	readContentTypes(o.Get("content_types"), obj)
	readMetadata(o.Get("metadata"), obj)
	obj.parted = r.Serve == Multipart
	obj.noSHA256, obj.noCRC64 = b.NoSHA256, b.NoCRC64 || obj.parted && b.NoWholeCRC64
	readChecksum(o.Get("checksum"), r, b)
	obj.Form = r.Serve == Uppy // that is what Companion's clients expect
	if m := o.Get("method"); m.Present() {
		obj.Form = m.OneOf("PUT", "POST") == "POST"
	}
	obj.quota = r.Quota != nil && r.Quota.Bytes > 0
	obj.unsized = r.Serve == Uppy || obj.Form
	checkUpload(o, r, b)
}

// checkUpload holds what an upload may be against its key and its bucket.
func checkUpload(o document.Map, r *Route, b Bucket) {
	obj := r.Object
	at := func(key string) document.Value {
		if v := o.Get(key); v.Present() {
			return v
		}
		return o.Value
	}
	unique := obj.key.uses(sourceUUID) || len(obj.key.parts) == 0 // a mistake of its own
	conditional := !obj.Form || r.Serve == Uppy                   // whose large files come in parts
	switch {
	case obj.Form && b.NoForm:
		at("method").Errorf("bucket `%s` (%s) takes no forms: write `method: PUT`", obj.Bucket, b.Store)
	case obj.Form && !obj.Overwrite && !unique:
		at("method").Errorf("a form cannot be held to a key that is still free, as a PUT is by If-None-Match: put ${uuid} into `key`, or write `method: PUT`, or `overwrite: true`")
	}
	if conditional && b.NoConditions && !obj.Overwrite {
		at("overwrite").Errorf("bucket `%s` (%s) ignores If-None-Match, so that an object could be replaced: write `overwrite: true`, and put ${uuid} into `key` where none is to be", obj.Bucket, b.Store)
	}
	if obj.DeleteLate && !unique {
		at("late").Errorf("`late: delete` needs ${uuid} in `key`: what lies under a key that uploads share may be another's")
	}
}

// readChecksum refuses what could never be checked. Of an upload in parts no
// store says a SHA-256 of the whole: there sha256 is that of each part.
func readChecksum(v document.Value, r *Route, b Bucket) {
	obj := r.Object
	obj.NeedChecksum = v.OneOf("sha256", "crc64nvme")
	switch {
	case obj.NeedChecksum == "sha256" && b.NoSHA256:
		v.Errorf("bucket `%s` (%s) does not check SHA-256: leave `checksum` out", obj.Bucket, b.Store)
	case obj.NeedChecksum == "crc64nvme" && obj.noCRC64 && r.Serve == Multipart:
		v.Errorf("bucket `%s` (%s) does not say the CRC-64/NVME of an object that came in parts: leave `checksum` out", obj.Bucket, b.Store)
	case obj.NeedChecksum == "crc64nvme" && obj.noCRC64 && b.NoSHA256:
		v.Errorf("bucket `%s` (%s) does not check CRC-64/NVME, nor SHA-256: leave `checksum` out", obj.Bucket, b.Store)
	case obj.NeedChecksum == "crc64nvme" && obj.noCRC64:
		v.Errorf("bucket `%s` (%s) does not check CRC-64/NVME: write sha256, or leave `checksum` out", obj.Bucket, b.Store)
	}
}

// metadataName is what every store, and every client, takes for the name of a
// piece of metadata.
var metadataName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

func readMetadata(v document.Value, obj *Object) {
	for _, e := range texts(v) {
		if !metadataName.MatchString(e.Show()) {
			e.Errorf("%q is no name for metadata: 1 to 64 lower-case letters, digits and -, without x-amz-meta-", e.Show())
		}
		obj.Metadata = append(obj.Metadata, e.Show())
	}
}

// Bounds of a quota.
const (
	minWindow  = time.Minute
	maxWindow  = 31 * 24 * time.Hour
	maxObjects = 1_000_000_000
)

func (l *loader) readQuota(v document.Value, r *Route) {
	if !v.Present() || (r.Serve == "" && l.places[r].Field("serve").Present()) {
		return
	}
	if !r.BeginsUploads() {
		v.Errorf("`quota` is for routes at which uploads begin: those that serve %s", anyOfWords(operationsOf("content_types")))
		return
	}
	m := v.Map(quotaKeys)
	if !m.IsMap() {
		return
	}
	r.Quota = &Quota{
		Bytes:  m.Get("bytes").SizeIn(1, 1<<60),
		Window: m.Need("window").DurationIn(minWindow, maxWindow),
	}
	if n := m.Get("objects"); n.Present() {
		r.Quota.Objects = n.Int(1, maxObjects)
	}
	if !m.Get("bytes").Present() && !m.Get("objects").Present() {
		v.Errorf("`%s` bounds nothing: name `bytes`, `objects` or both", v.Path())
	}
	if r.Quota.Window%time.Second != 0 {
		m.Get("window").Errorf("`%s` must be whole seconds", m.Get("window").Path())
	}
}

// mayName reports whether callers may give metadata of this name.
func (o *Object) mayName(name string) bool { return slices.Contains(o.Metadata, name) }
