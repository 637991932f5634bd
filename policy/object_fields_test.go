package policy

import (
	"strings"
	"testing"
)

// objectAt loads a route of an operation at which uploads begin, with these
// object keys, and more keys of the route.
func objectAt(t *testing.T, serve, keys, more string) *Object {
	t.Helper()
	path, methods := "/up", "[POST]"
	if serve == Multipart || serve == Uppy {
		path, methods = "/up/{op...}", "[GET, POST, DELETE]"
	}
	p := mustLoad(t, header+`  - {id: up, path: "`+path+`", methods: `+methods+`, serve: `+serve+`, allow: [{who: [users]}], object: {key: "u/${uuid}"`+keys+`}`+more+`}`)
	return p.Routes[0].Object
}

func TestObjectChecksOfUploads(t *testing.T) {
	const crc, quota = "rosUhgp5mIg=", ", quota: {bytes: 1GiB, window: 24h}" // of "123456789"
	meta := func(name, v string) map[string]string { return map[string]string{name: v} }
	for _, c := range []struct {
		name, serve, keys, more string
		request                 UploadRequest
		want                    string // the field that is wrong
	}{
		{"crc64nvme", PresignUpload, "", "", UploadRequest{ChecksumCRC64: crc}, ""},
		{"crc64nvme is needed", PresignUpload, ", checksum: crc64nvme", "", UploadRequest{ChecksumSHA256: emptySum}, "checksumCrc64nvme"},
		{"crc64nvme is there", Multipart, ", checksum: crc64nvme", "", UploadRequest{ChecksumCRC64: crc}, ""},
		{"7 bytes", PresignUpload, "", "", UploadRequest{ChecksumCRC64: "rosUhgp5mA=="}, "checksumCrc64nvme"},
		{"9 bytes", PresignUpload, "", "", UploadRequest{ChecksumCRC64: "rosUhgp5mIgA"}, "checksumCrc64nvme"},
		{"loose base64", PresignUpload, "", "", UploadRequest{ChecksumCRC64: "rosUhgp5mIh="}, "checksumCrc64nvme"},
		{"a line break", PresignUpload, "", "", UploadRequest{ChecksumCRC64: "rosUhgp5mIg=\n"}, "checksumCrc64nvme"},
		{"the store does not check it", PresignUpload, ", bucket: r2", "", UploadRequest{ChecksumCRC64: crc}, "checksumCrc64nvme"},
		{"nor does it SHA-256", PresignUpload, ", bucket: gcs, overwrite: true", "", UploadRequest{ChecksumSHA256: emptySum}, "checksumSha256"},
		{"not of the whole", Multipart, ", bucket: minio", "", UploadRequest{ChecksumCRC64: crc}, "checksumCrc64nvme"},
		{"but of one piece", PresignUpload, ", bucket: minio", "", UploadRequest{ChecksumCRC64: crc}, ""},
		{"nothing's", PresignUpload, "", "", UploadRequest{ChecksumCRC64: "AAAAAAAAAAA=", Size: ptr(0)}, ""},
		{"not nothing's", PresignUpload, "", "", UploadRequest{ChecksumCRC64: crc, Size: ptr(0)}, "checksumCrc64nvme"},
		{"SHA-256 of what comes in parts", Multipart, "", "", UploadRequest{ChecksumSHA256: emptySum}, "checksumSha256"},
		{"of each part", Multipart, "", "", UploadRequest{PartChecksums: "sha256"}, ""},
		{"of each part, as is needed", Multipart, ", checksum: sha256", "", UploadRequest{PartChecksums: "sha256"}, ""},
		{"it is needed", Multipart, ", checksum: sha256", "", UploadRequest{ChecksumCRC64: crc}, "partChecksums"},
		{"of another kind", Multipart, "", "", UploadRequest{PartChecksums: "crc64nvme"}, "partChecksums"},
		{"in another case", Multipart, "", "", UploadRequest{PartChecksums: "SHA256"}, "partChecksums"},
		{"of each part and another of the whole", Multipart, "", "", UploadRequest{PartChecksums: "sha256", ChecksumCRC64: crc}, "partChecksums"},
		{"of each part where the whole's is needed", Multipart, ", checksum: crc64nvme", "", UploadRequest{PartChecksums: "sha256"}, "checksumCrc64nvme"},
		{"of the parts of one piece", PresignUpload, "", "", UploadRequest{PartChecksums: "sha256"}, "partChecksums"},
		{"of parts that the store does not check", Multipart, ", bucket: gcs, overwrite: true", "", UploadRequest{PartChecksums: "sha256"}, "partChecksums"},

		{"metadata", PresignUpload, ", metadata: [name, x-1]", "", UploadRequest{Metadata: map[string]string{"name": "Ünï cöde.jpg", "x-1": ""}}, ""},
		{"metadata that is not listed", PresignUpload, ", metadata: [name]", "", UploadRequest{Metadata: meta("nam", "a")}, "metadata"},
		{"metadata where none is listed", PresignUpload, "", "", UploadRequest{Metadata: meta("name", "a")}, "metadata"},
		{"metadata in another case", PresignUpload, ", metadata: [name]", "", UploadRequest{Metadata: meta("Name", "a")}, "metadata"},
		{"a header in a value", PresignUpload, ", metadata: [name]", "", UploadRequest{Metadata: meta("name", "a\r\nx-amz-acl: public-read")}, "metadata"},
		{"a value that turns text round", PresignUpload, ", metadata: [name]", "", UploadRequest{Metadata: meta("name", "a\u202eb")}, "metadata"},
		{"a value that is no UTF-8", PresignUpload, ", metadata: [name]", "", UploadRequest{Metadata: meta("name", "a\xff")}, "metadata"},
		{"a space at the end, which a header loses", PresignUpload, ", metadata: [name]", "", UploadRequest{Metadata: meta("name", "a ")}, "metadata"},
		{"all that S3 takes", PresignUpload, ", metadata: [name]", "", UploadRequest{Metadata: meta("name", strings.Repeat("x", 2044))}, ""},
		{"more than S3 takes", PresignUpload, ", metadata: [name]", "", UploadRequest{Metadata: meta("name", strings.Repeat("x", 2045))}, "metadata"},

		{"a size is needed", PresignUpload, ", max_bytes: 1KiB", "", UploadRequest{}, "size"},
		{"a form bounds the size itself", PresignUpload, ", max_bytes: 1KiB, method: POST", "", UploadRequest{}, ""},
		{"but what it says counts", PresignUpload, ", max_bytes: 1KiB, method: POST", "", UploadRequest{Size: ptr(1025)}, "size"},
		{"parts need it", Multipart, ", max_bytes: 1KiB", "", UploadRequest{}, "size"},
		{"Uppy does not say it", Uppy, ", max_bytes: 1KiB", "", UploadRequest{}, ""},
		{"nor for a PUT", Uppy, ", max_bytes: 1KiB, method: PUT", "", UploadRequest{}, ""},
		{"a quota of bytes needs it", PresignUpload, "", quota, UploadRequest{}, "size"},
		{"also of a form", PresignUpload, ", method: POST", quota, UploadRequest{}, "size"},
		{"one of objects does not", PresignUpload, "", ", quota: {objects: 3, window: 1h}", UploadRequest{}, ""},
	} {
		o := objectAt(t, c.serve, c.keys, c.more)
		c.request.ContentType = "image/png"
		got := ""
		if v := o.Check(&c.request); v != nil {
			got = v.Field
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestObjectKeysOfUploads(t *testing.T) {
	o := objectAt(t, Uppy, "", "")
	if !o.Form || o.DeleteLate || o.Metadata != nil {
		t.Errorf("%+v", o)
	}
	o = objectAt(t, Uppy, ", method: PUT, late: delete, metadata: [a, b]", "")
	if o.Form || !o.DeleteLate || len(o.Metadata) != 2 {
		t.Errorf("%+v", o)
	}
	if o = objectAt(t, Multipart, ", max_bytes: 50000GiB", ""); o.MaxBytes != 50000<<30 || o.Form {
		t.Errorf("%+v", o)
	}
}

// FuzzMetadata: what is accepted is text that a header holds as it is.
func FuzzMetadata(f *testing.F) {
	for _, s := range append(hostile, strange...) {
		f.Add(s)
	}
	o := &Object{Metadata: []string{"name"}}
	f.Fuzz(func(t *testing.T, v string) {
		if o.checkMetadata(map[string]string{"name": v}) == nil && (len(v) > maxMetadata || strings.ContainsAny(v, "\x00\r\n\x7f\u2028\u202e") || strings.TrimSpace(v) != v && strings.Trim(v, " ") != v) {
			t.Fatalf("%q", v)
		}
	})
}
