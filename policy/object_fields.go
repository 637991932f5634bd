package policy

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// The checksums of no bytes, in base64.
const (
	emptySum   = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" // SHA-256
	emptyCRC64 = "AAAAAAAAAAA="                                 // CRC-64/NVME
)

func (o *Object) checkChecksums(u *UploadRequest) *Violation {
	if v := o.checkPartChecksums(u); v != nil {
		return v
	}
	switch {
	case o.NeedChecksum == "sha256" && !o.parted && u.ChecksumSHA256 == "":
		return invalidField("checksumSha256", "checksumSha256 is needed here: the SHA-256 of the content in base64")
	case o.NeedChecksum == "crc64nvme" && u.ChecksumCRC64 == "":
		return invalidField("checksumCrc64nvme", "checksumCrc64nvme is needed here: the CRC-64/NVME of the content in base64")
	case u.ChecksumSHA256 != "" && !isBase64(u.ChecksumSHA256, 32):
		return invalidField("checksumSha256", "checksumSha256 is the SHA-256 of the content in base64, 44 characters")
	case u.ChecksumCRC64 != "" && !isBase64(u.ChecksumCRC64, 8):
		return invalidField("checksumCrc64nvme", "checksumCrc64nvme is the CRC-64/NVME of the content in base64, 12 characters")
	case u.ChecksumSHA256 != "" && o.parted:
		return invalidField("checksumSha256", "no store checks the SHA-256 of an object that comes in parts: name checksumCrc64nvme, or partChecksums and then each part's")
	case u.ChecksumSHA256 != "" && o.noSHA256:
		return invalidField("checksumSha256", "the store does not check SHA-256 here")
	case u.ChecksumCRC64 != "" && o.noCRC64:
		return invalidField("checksumCrc64nvme", "the store does not check CRC-64/NVME here")
	}
	return nil
}

// checkPartChecksums holds the wish to have each part checked against what the
// store can do: it keeps one kind of checksum for an object.
func (o *Object) checkPartChecksums(u *UploadRequest) *Violation {
	switch {
	case o.NeedChecksum == "sha256" && o.parted && u.PartChecksums == "":
		return invalidField("partChecksums", "partChecksums is needed here: sha256, and then the SHA-256 of each part")
	case u.PartChecksums == "":
		return nil
	case u.PartChecksums != "sha256":
		return invalidField("partChecksums", "partChecksums is sha256, or left out")
	case !o.parted:
		return invalidField("partChecksums", "partChecksums is for what comes in parts: name checksumSha256")
	case o.noSHA256:
		return invalidField("partChecksums", "the store does not check SHA-256 here")
	case u.ChecksumCRC64 != "":
		return invalidField("partChecksums", "partChecksums and checksumCrc64nvme exclude each other: the store keeps one kind")
	}
	return nil
}

// isBase64 reports whether s is size bytes in base64, in the one form that has.
func isBase64(s string, size int) bool {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil && len(raw) == size && len(s) == base64.StdEncoding.EncodedLen(size)
}

// checkEmpty holds the checksums of what is to be empty against its size: the
// store would refuse it, and the caller would not learn why.
func (u *UploadRequest) checkEmpty() *Violation {
	if u.Size == nil || *u.Size != 0 {
		return nil
	}
	if u.ChecksumSHA256 != "" && u.ChecksumSHA256 != emptySum {
		return invalidField("checksumSha256", "checksumSha256 is not that of an empty object, and size is 0")
	}
	if u.ChecksumCRC64 != "" && u.ChecksumCRC64 != emptyCRC64 {
		return invalidField("checksumCrc64nvme", "checksumCrc64nvme is not that of an empty object, and size is 0")
	}
	return nil
}

// maxMetadata bounds the names and values of an object's metadata, in bytes:
// S3's bound on all of it (User-defined object metadata: 2 KB).
const maxMetadata = 2 << 10

// checkMetadata takes the names that the policy lists, with values that no
// header, form or terminal reads as anything else. Nothing is mended.
func (o *Object) checkMetadata(metadata map[string]string) *Violation {
	total := 0
	for _, name := range keysOf(metadata) {
		v := metadata[name]
		if !o.mayName(name) {
			return invalidField("metadata", "metadata has a name that is not accepted here")
		}
		if !utf8.ValidString(v) || !printable(v) || o.Form && strings.Contains(v, formVariable) {
			return invalidField("metadata", "metadata %s is text without control characters, and no space at its ends", name)
		}
		if total += len(name) + len(v); total > maxMetadata {
			return invalidField("metadata", "metadata is at most %d bytes, names and values together", maxMetadata)
		}
	}
	return nil
}

// printable reports whether a value comes back from a header as it went in.
func printable(v string) bool {
	if v != "" && (v[0] == ' ' || v[len(v)-1] == ' ') {
		return false
	}
	for _, r := range v {
		if isControl(r) {
			return false
		}
	}
	return true
}
