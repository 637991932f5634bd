package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Object says what a presign route signs. Its fields are never changed
// after Load.
type Object struct {
	Bucket        string
	ContentTypes  []string      // empty: all but those a browser would run
	MaxBytes      int64         // 0: no limit
	NeedChecksum  string        // sha256 (of multipart: partChecksums) or crc64nvme must come with the request; empty: none
	DefaultExpiry time.Duration // of a URL
	MinExpiry     time.Duration
	MaxExpiry     time.Duration
	ConfirmWithin time.Duration // after the URL's end
	Overwrite     bool
	DeleteLate    bool     // what is not confirmed in time is deleted
	Form          bool     // uploads are a POST with fields instead of a PUT
	Metadata      []string // names of metadata that the caller may give
	Inline        bool     // Content-Disposition of downloads; else attachment

	key    template
	prefix template // of list_objects, without the slash at its end

	quota   bool // bytes are counted, so that an upload says its size
	unsized bool // callers need not say it for MaxBytes: a form bounds it, or a look at what landed
	parted  bool // it comes in parts: their SHA-256 can be checked, and not the whole's
	noCRC64 bool // the bucket does not check CRC-64/NVME, or not of such an upload

	noSHA256 bool // it does not check SHA-256
}

// template is that of the key, or of the folder that is listed.
func (o *Object) template() *template {
	if len(o.prefix.parts) > 0 {
		return &o.prefix
	}
	return &o.key
}

// A Violation is an object limit that a request breaks.
type Violation struct {
	Code   string // too_large, unsupported_type, invalid_field
	Status int    // 413, 415, 422
	Field  string // the JSON field or query parameter that is wrong
	Text   string // for the caller
}

func invalidField(field, format string, args ...any) *Violation {
	return &Violation{Code: "invalid_field", Status: 422, Field: field, Text: fmt.Sprintf(format, args...)}
}

// An UploadRequest is what a caller asks of presign_upload.
type UploadRequest struct {
	ContentType    string
	FileExt        string // with or without its dot; may be empty
	Size           *int64
	ChecksumSHA256 string
	ChecksumCRC64  string // CRC-64/NVME
	PartChecksums  string // sha256: each part comes with its own; empty: none does
	Metadata       map[string]string
	Expires        *int64 // seconds
}

// Ext is the extension that the content type gives a key, with its dot; ""
// where there is none.
func (u *UploadRequest) Ext() string {
	if all := extensions[mediaType(u.ContentType)]; len(all) > 0 {
		return all[0]
	}
	return ""
}

// MediaType is the type/subtype of ContentType in lower case, which is what
// Check and conditions compare; "" where it is malformed.
func (u *UploadRequest) MediaType() string { return mediaType(u.ContentType) }

// Check holds an upload against the object's limits: 422 for a malformed
// field, then 415, then 413.
func (o *Object) Check(u *UploadRequest) *Violation {
	media := mediaType(u.ContentType)
	if media == "" {
		return invalidField("contentType", "contentType must be a media type such as image/jpeg, %d to %d characters", minContentType, maxContentType)
	}
	if v := u.checkExt(media); v != nil {
		return v
	}
	if v := o.checkChecksums(u); v != nil {
		return v
	}
	if v := o.checkMetadata(u.Metadata); v != nil {
		return v
	}
	if u.Size != nil && *u.Size < 0 {
		return invalidField("size", "size is a number of bytes")
	}
	if v := u.checkEmpty(); v != nil {
		return v
	}
	if _, v := o.Expiry(u.Expires); v != nil {
		return v
	}
	if !admits(o.ContentTypes, media) {
		return &Violation{Code: "unsupported_type", Status: 415, Field: "contentType", Text: "this content type is not accepted here"}
	}
	if u.Size == nil && (o.quota || o.MaxBytes > 0 && !o.unsized) {
		return invalidField("size", "size is needed here: the number of bytes that will be sent")
	}
	if u.Size != nil && o.MaxBytes > 0 && *u.Size > o.MaxBytes {
		return &Violation{Code: "too_large", Status: 413, Field: "size", Text: fmt.Sprintf("at most %d bytes are accepted here", o.MaxBytes)}
	}
	return nil
}

func (u *UploadRequest) checkExt(media string) *Violation {
	if u.FileExt == "" {
		return nil
	}
	ext := "." + strings.ToLower(strings.TrimPrefix(u.FileExt, "."))
	if !slices.Contains(extensions[media], ext) {
		return invalidField("fileExt", "fileExt does not go with the content type")
	}
	return nil
}

// Expiry is how long a URL is to hold, from the caller's wish in seconds.
func (o *Object) Expiry(seconds *int64) (time.Duration, *Violation) {
	if seconds == nil {
		return o.DefaultExpiry, nil
	}
	low, high := int64(o.MinExpiry/time.Second), int64(o.MaxExpiry/time.Second)
	if *seconds < low || *seconds > high {
		return 0, invalidField("expiresSeconds", "expiresSeconds is %d to %d here", low, high)
	}
	return time.Duration(*seconds) * time.Second, nil
}
