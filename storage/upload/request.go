package upload

import (
	"encoding/base64"
	"fmt"
	"mime"
	"time"
)

// A Request is an upload that was allowed.
type Request struct {
	ID            string // of the session, from NewID
	Namespace     string
	UID           string
	Identity      string // the identity's name in sidegate.yaml
	Record        string // the audit record that allowed it
	Bucket        string // its name in sidegate.yaml
	Key           string
	ContentType   string
	Size          int64  // in bytes; -1: not bound
	Checksum      string // SHA-256 in base64; empty: not bound
	Checksum64    string // CRC-64/NVME in base64; empty: not bound
	PartChecksums bool   // each part comes with its SHA-256; BeginMultipart only
	Metadata      map[string]string
	Overwrite     bool
	Form          bool          // a form instead of a PUT
	MaxBytes      int64         // of a multipart upload, or of a form whose Size is not bound; 0: no bound
	Route         string        // the policy's, that allowed it
	DeleteLate    bool          // what is not confirmed in time is deleted
	AutoConfirm   bool          // nobody is expected to confirm it
	Quota         *Quota        // nil: nothing is counted
	Idempotency   string        // the caller's Idempotency-Key; empty: there is none. ID and Key are those of [IdempotentID] then
	Expires       time.Duration // the URL's life, whole seconds; the credentials may cut it
	ConfirmWithin time.Duration // after the URL's end
}

// maxContentType is the longest media type that is signed, in bytes: RFC 6838
// (4.2) allows 127 for each of its two names, and parameters follow.
const maxContentType = 512

// emptySum is the SHA-256 of no bytes, in base64.
const emptySum = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

// emptySum64 is the CRC-64/NVME of no bytes, in base64.
const emptySum64 = "AAAAAAAAAAA="

// What S3 takes: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
const (
	MaxPut   = 5 << 30 // bytes of one PUT, form or part
	MaxParts = 10_000  // of a multipart upload, numbered from 1
)

// A kind is how an upload is made. Its name is part of a request's hash.
type kind string

const (
	single    kind = "single"    // one PUT or form
	multipart kind = "multipart" // the gateway opens and completes a multipart upload
	direct    kind = "direct"    // the client does
)

// session is the one that a request makes now.
func (r *Request) session(k kind, now time.Time) *Session {
	// Signatures and Firestore cut times: whole seconds come back as they went.
	created := now.Truncate(time.Second)
	s := &Session{
		ID:          r.ID,
		UID:         r.UID,
		Namespace:   r.Namespace,
		Identity:    r.Identity,
		Key:         r.Key,
		Bucket:      r.Bucket,
		ContentType: r.ContentType,
		Size:        r.Size,
		Checksum:    r.Checksum,
		Checksum64:  r.Checksum64,
		Status:      Issued,
		Record:      r.Record,
		CreatedAt:   created,
		ExpiresAt:   created.Add(r.Expires),
		ConfirmBy:   created.Add(r.Expires + max(r.ConfirmWithin, 0)),
		Route:       r.Route,
		Multipart:   k != single,
		MaxBytes:    r.MaxBytes,
		Overwrite:   r.Overwrite,
		DeleteLate:  r.DeleteLate,
		AutoConfirm: r.AutoConfirm,
		Direct:      k == direct,

		PartChecksums: r.PartChecksums,
	}
	if r.Idempotency != "" {
		s.Request = r.hash(k)
	}
	if r.Quota != nil {
		s.Quota, s.QuotaWindow, s.Counted, s.Held = r.Route, r.Quota.begin(now), max(r.Size, 0), true
	}
	s.Wake = s.over()
	if s.AutoConfirm {
		s.Wake = s.ExpiresAt.Add(autoConfirmAfter)
	}
	return s
}

// put is what the session's URL binds. The session's times and bounds are
// those on record; the rest is in the request only, and the same by its hash.
func (r *Request) put(s *Session) Put {
	p := Put{
		Key:         s.Key,
		ContentType: s.ContentType,
		Size:        r.Size,
		Checksum:    r.Checksum,
		Checksum64:  r.Checksum64,
		Metadata:    r.Metadata,
		Overwrite:   s.Overwrite,
		Form:        r.Form,
		At:          s.CreatedAt,
		Expires:     r.Expires,

		PartChecksums: s.PartChecksums,
	}
	if r.Size < 0 {
		p.MaxSize = s.MaxBytes
	}
	return p
}

// check is why a request of that kind cannot be signed, or nil.
func (r *Request) check(k kind) error {
	switch {
	case !wellFormed(r.ID):
		return &InvalidError{"session", "is not 32 lower-case hex digits"}
	case r.Namespace == "" || r.UID == "":
		return &InvalidError{"uid", "is empty"} // a session of nobody is everybody's
	case r.Size < -1:
		return &InvalidError{"size", "is negative"}
	case k == single && r.Size > MaxPut:
		return &InvalidError{"size", "is more than one request can upload (5 GiB)"}
	case r.Size > MaxParts*MaxPut:
		return &InvalidError{"size", "is more than an object can have (48.8 TiB)"}
	case r.MaxBytes > 0 && r.Size > r.MaxBytes:
		return &InvalidError{"size", "is more than is allowed"}
	}
	if err := r.checkIdempotency(); err != nil {
		return err
	}
	if err := r.checkQuota(); err != nil {
		return err
	}
	if err := CheckKey(r.Key); err != nil {
		return err
	}
	if err := checkContentType(r.ContentType); err != nil {
		return err
	}
	if err := r.checkSums(k); err != nil {
		return err
	}
	if err := checkMetadata(r.Metadata); err != nil {
		return err
	}
	return checkExpires(r.Expires)
}

func (r *Request) checkSums(k kind) error {
	if err := checkChecksum(r.Checksum); err != nil {
		return err
	}
	if err := checkChecksum64(r.Checksum64); err != nil {
		return err
	}
	switch {
	case r.Size == 0 && r.Checksum != "" && r.Checksum != emptySum:
		return &InvalidError{"checksumSha256", "is not that of an empty object"}
	case r.Size == 0 && r.Checksum64 != "" && r.Checksum64 != emptySum64:
		return &InvalidError{"checksumCrc64nvme", "is not that of an empty object"}
	case k != single && r.Checksum != "":
		// https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html:
		// of SHA-256 stores know the parts' only, and could not vouch for the whole.
		return &InvalidError{"checksumSha256", "cannot be held against the whole of a multipart upload: give each part's, or checksumCrc64nvme"}
	case k != multipart && r.PartChecksums:
		return &InvalidError{"partChecksums", "are for a multipart upload that is opened here"}
	case r.PartChecksums && r.Checksum64 != "":
		// https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateMultipartUpload.html:
		// an upload has one algorithm, and the store could not say the other.
		return &InvalidError{"partChecksums", "are of another kind than checksumCrc64nvme, and the store keeps one"}
	}
	return nil
}

func checkContentType(t string) error {
	invalid := func(reason string) error { return &InvalidError{"contentType", reason} }
	if len(t) > maxContentType {
		return invalid(fmt.Sprintf("is longer than %d bytes", maxContentType))
	}
	if !headerText(t) {
		return invalid("has spaces or bytes that a media type has not")
	}
	if _, _, err := mime.ParseMediaType(t); err != nil {
		return invalid("is not a media type")
	}
	return nil
}

func checkChecksum(c string) error {
	if c == "" {
		return nil
	}
	if sum, err := base64.StdEncoding.Strict().DecodeString(c); err != nil || len(sum) != 32 || len(c) != 44 {
		return &InvalidError{"checksumSha256", "is not a SHA-256 in base64"}
	}
	return nil
}

func checkChecksum64(c string) error {
	if c == "" {
		return nil
	}
	if sum, err := base64.StdEncoding.Strict().DecodeString(c); err != nil || len(sum) != 8 || len(c) != 12 {
		return &InvalidError{"checksumCrc64nvme", "is not a CRC-64/NVME in base64"}
	}
	return nil
}

func checkExpires(d time.Duration) error {
	if d < time.Second || d%time.Second != 0 {
		return &InvalidError{"expiresSeconds", "is not a positive number of whole seconds"}
	}
	return nil
}
