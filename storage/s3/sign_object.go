package s3

import (
	"net/http"

	"sidegate/storage/upload"
)

// putHeader are the headers of a PUT of the object: exactly these are signed.
func (b *Bucket) putHeader(p upload.Put) (http.Header, error) {
	name, sum, err := b.checksum(p)
	if err != nil {
		return nil, err
	}
	header, err := b.objectHeader(p)
	if err != nil {
		return nil, err
	}
	if sum != "" {
		header[name] = []string{sum}
	}
	if err := b.condition(header, p); err != nil {
		return nil, err
	}
	return header, nil
}

// objectHeader are the headers that say what an object is, beside its bytes.
func (b *Bucket) objectHeader(p upload.Put) (http.Header, error) {
	caller, err := b.callerFields(p.Metadata)
	if err != nil {
		return nil, err
	}
	header := make(http.Header, 4+len(b.fixed)+len(caller))
	header["Content-Type"] = []string{p.ContentType}
	for _, f := range caller {
		header[f.header] = []string{f.value}
	}
	for _, f := range b.fixed {
		header[f.header] = []string{f.value}
	}
	return header, nil
}

// condition signs that nothing may lie under the key.
func (b *Bucket) condition(header http.Header, p upload.Put) error {
	if p.Overwrite {
		return nil
	}
	if b.limits.NoConditions {
		// The policy's load says so first; this keeps it true.
		return &upload.InvalidError{Field: "key", Reason: "the store " + b.store + " cannot keep an object from being overwritten"}
	}
	header["If-None-Match"] = []string{"*"}
	return nil
}

const (
	sha256Header = "X-Amz-Checksum-Sha256"
	crc64Header  = "X-Amz-Checksum-Crc64nvme"
)

// checksum is the one checksum that binds the bytes, with its header; empty
// where there is none. S3 takes one of them only.
func (b *Bucket) checksum(p upload.Put) (header, sum string, err error) {
	switch {
	case p.Checksum != "" && p.Checksum64 != "":
		return "", "", &upload.InvalidError{Field: "checksumCrc64nvme", Reason: "comes beside checksumSha256: the store takes one of them"}
	case p.Checksum64 != "":
		if b.limits.NoCRC64 {
			return "", "", &upload.InvalidError{Field: "checksumCrc64nvme", Reason: "the store " + b.store + " does not know it"}
		}
		return crc64Header, p.Checksum64, nil
	case p.Checksum != "":
		if b.limits.NoSHA256 {
			return "", "", &upload.InvalidError{Field: "checksumSha256", Reason: "the store " + b.store + " does not know it"}
		}
		return sha256Header, p.Checksum, nil
	case p.Size == 0 && !b.limits.NoSHA256:
		return sha256Header, emptySum, nil
	case p.Size == 0:
		return "", "", &upload.InvalidError{Field: "size", Reason: "is 0, which the store " + b.store + " cannot be held to"}
	}
	return "", "", nil
}
