package proxy

import (
	"time"

	"sidegate/policy"
	"sidegate/storage/upload"
)

// Operations of the audit log.
const (
	opPut             = "put"
	opPost            = "post"
	opGet             = "get"
	opHead            = "head"
	opConfirm         = "confirm"
	opDelete          = "delete"
	opList            = "list"
	opListUploads     = "list_uploads"
	opGetUpload       = "get_upload"
	opBatch           = "batch"
	opMultipartCreate = "multipart_create"
	opMultipartSign   = "multipart_sign"
	opMultipartList   = "multipart_list"
	opMultipartDone   = "multipart_complete"
	opMultipartAbort  = "multipart_abort"
)

// opUpload is the operation of an upload in one piece.
func (x *exchange) opUpload() string {
	if x.match.Route.Object.Form {
		return opPost
	}
	return opPut
}

// decideUpload reads the body before it asks the policy, since the key can
// depend on the content type; complaints about it count only if the request is
// allowed.
func (p *Proxy) decideUpload(x *exchange) (decision, action) {
	w := wish{operation: x.opUpload()}
	x.readWish(&w, maxRequest)
	d, ok := p.planUpload(x, &w)
	if !ok {
		return d, nil
	}
	return d, p.signUpload
}

// readWish reads the body and the Idempotency-Key. What could be read before a
// mistake is kept, so that the policy is asked of it.
func (x *exchange) readWish(w *wish, limit int64) {
	key, complaint := idempotencyKey(x.r.Header)
	data, pr := x.readBody(limit)
	if pr == nil {
		pr = readUploadRequest(data, &w.UploadRequest)
	}
	if pr == nil {
		pr = complaint
	}
	if pr == nil {
		pr = noQuery(x)
	}
	w.idempotency, w.complaint = key, pr
}

// readUploadRequest reads the body of presign_upload.
func readUploadRequest(data []byte, u *policy.UploadRequest) *problem {
	return readJSON(data, func(j *jsonReader, name string) *problem { return j.uploadField(name, u) })
}

// uploadField reads a field of an upload that is asked for.
func (j *jsonReader) uploadField(name string, u *policy.UploadRequest) *problem {
	switch name {
	case "contentType":
		return j.text(name, &u.ContentType)
	case "fileExt":
		return j.text(name, &u.FileExt)
	case "checksumSha256":
		return j.text(name, &u.ChecksumSHA256)
	case "checksumCrc64nvme":
		return j.text(name, &u.ChecksumCRC64)
	case "partChecksums":
		return j.text(name, &u.PartChecksums)
	case "size":
		return j.number(name, &u.Size)
	case "expiresSeconds":
		return j.number(name, &u.Expires)
	case "metadata":
		return j.table(name, &u.Metadata)
	}
	return unknownMember(name)
}

// presigned is the answer of presign_upload.
type presigned struct {
	Key            string            `json:"key"`
	PutURL         string            `json:"putUrl,omitempty"`
	PostURL        string            `json:"postUrl,omitempty"`
	ExpiresSeconds int64             `json:"expiresSeconds"`
	Session        string            `json:"session"`
	Method         string            `json:"method"`
	Headers        map[string]string `json:"headers"`
	Fields         map[string]string `json:"fields,omitempty"`
	ExpiresAt      time.Time         `json:"expiresAt"`
}

// presignedOf is the answer for a session that was begun.
func (x *exchange) presignedOf(r *upload.Request, s *upload.Session, signed upload.Signed) presigned {
	out := presigned{
		Key: s.Key, ExpiresSeconds: x.remaining(signed.Expires, r.Expires), Session: s.ID,
		Method: signed.Method, Headers: headersOf(signed), ExpiresAt: signed.Expires.UTC(),
	}
	if r.Form {
		out.PostURL, out.Fields = signed.URL, signed.Fields
	} else {
		out.PutURL = signed.URL
	}
	return out
}

func (p *Proxy) signUpload(x *exchange) error {
	r := &x.upload.request
	session, signed, err := p.o.Uploads.Begin(x.ctx, *r)
	if err != nil {
		return storeFailure(err)
	}
	out := x.presignedOf(r, session, signed)
	return x.answer(&out)
}
