package proxy

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"time"

	"sidegate/storage/upload"
)

// decideUppy decides on a call of Uppy's S3 clients. They speak what Companion
// speaks, Transloadit's server (@uppy/companion, controllers/s3), which signs
// whatever key and upload it is asked about. Here each is a session's: an
// uploadId is the id of ours, it is good for its own key only, and whose it is,
// and which route began it, is asked each time.
func (p *Proxy) decideUppy(x *exchange) (decision, action) {
	c, complaint := readUppy(x.r.Method, x.rest(), x.target.query, x.readBody)
	x.uppy = &c
	if c.begins() {
		return p.decideUppyUpload(x, complaint)
	}
	expires, v := x.match.Route.Object.Expiry(c.upload.Expires)
	if complaint == nil && v != nil {
		complaint = violated(v)
	}
	d, ok := p.planSession(x, c.operation(), x.uppySession, complaint)
	if c.op == 0 || c.op == uppySTS || c.op == uppySign {
		x.object = nil // nothing is known to have been asked about
	}
	if !ok {
		return d, nil
	}
	x.upload.parts, x.upload.expires = c.parts, expires
	if x.object.Parts = partRanges(c.parts); c.parts != nil {
		x.object.Expires = x.start.Add(expires)
	}
	switch c.op {
	case uppyList:
		return d, p.listUppyParts
	case uppyPart, uppyBatch:
		return d, p.signUppyParts
	case uppyComplete:
		return d, p.completeUppy
	case uppyAbort:
		return d, p.abortUppy
	case uppyConfirm:
		return d, p.confirm
	}
	return d, p.signUppyCall
}

// operation is the call's in the audit log.
func (c *uppyCall) operation() string {
	switch c.op {
	case uppyList, uppySignList:
		return opMultipartList
	case uppyPart, uppyBatch, uppySignPart:
		return opMultipartSign
	case uppyComplete, uppySignComplete:
		return opMultipartDone
	case uppyAbort, uppySignAbort:
		return opMultipartAbort
	case uppyCreate, uppySignCreate:
		return opMultipartCreate
	}
	return opConfirm
}

// decideUppyUpload decides on an upload that is to begin.
func (p *Proxy) decideUppyUpload(x *exchange, complaint *problem) (decision, action) {
	c, o := x.uppy, x.match.Route.Object
	c.keepMetadata(o.Metadata)
	whole := c.op == uppyParams || c.op == uppySignPut
	if complaint == nil && whole && !o.Form && o.MaxBytes > 0 && c.upload.Size == nil {
		// A form holds the store to a range of sizes; a PUT can only be held to one.
		complaint = wrongField("size", "size is needed here: the number of bytes that will be sent")
	}
	w := wish{UploadRequest: c.upload, multipart: !whole, complaint: complaint, operation: opMultipartCreate}
	if whole {
		w.operation = x.opUpload()
	}
	d, ok := p.planUpload(x, &w)
	if !ok {
		return d, nil
	}
	switch c.op {
	case uppyCreate:
		return d, p.createUppy
	case uppySignCreate:
		return d, p.signUppyCreate
	}
	return d, p.signUppyUpload
}

// uppySession finds the session that a call is about: of Companion's calls by its
// id, of others by its key. The key must be the session's in either case, and
// what is said of a multipart upload must be said of one.
func (x *exchange) uppySession() (*upload.Session, error) {
	c := x.uppy
	var s *upload.Session
	var err error
	switch c.op {
	case 0, uppySTS, uppySign:
		return nil, upload.ErrNotFound
	case uppyConfirm, uppySignPart, uppySignList, uppySignComplete, uppySignAbort:
		s, err = x.begunHere(x.p.o.Uploads.LookupKey(x.ctx, x.identity.Namespace, x.identity.UID, c.key))
	default:
		s, err = x.routeSession(c.session)()
	}
	switch {
	case err != nil:
		return nil, err
	case s.Key != c.key, c.op != uppyConfirm && !s.Multipart:
		return nil, upload.ErrNotFound
	case c.uploadID != "" && s.UploadID != "" && s.UploadID != c.uploadID:
		return nil, upload.ErrNotFound
	}
	return s, nil
}

// uppyUpload is the answer of params, and of signRequest where it is for the
// whole file. Members that only one of the two has are as good as absent to the
// other.
type uppyUpload struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Fields  map[string]string `json:"fields,omitzero"`
	Headers map[string]string `json:"headers,omitempty"`
	Expires int64             `json:"expires"`
	Key     string            `json:"key"`
}

func (p *Proxy) signUppyUpload(x *exchange) error {
	r := &x.upload.request
	s, signed, err := p.o.Uploads.Begin(x.ctx, *r)
	if err != nil {
		return storeFailure(err)
	}
	answer := uppyUpload{
		Method: signed.Method, URL: signed.URL, Fields: signed.Fields, Headers: headersOf(signed),
		Expires: x.remaining(signed.Expires, r.Expires), Key: s.Key,
	}
	if x.uppy.op == uppyParams && answer.Fields == nil {
		answer.Fields = map[string]string{} // version 5 goes through them in either case
	}
	return x.answer(answer)
}

func (p *Proxy) createUppy(x *exchange) error {
	s, err := p.o.Uploads.BeginMultipart(x.ctx, x.upload.request)
	if err != nil {
		return storeFailure(err)
	}
	return x.answer(struct {
		Key      string `json:"key"`
		UploadID string `json:"uploadId"`
		Bucket   string `json:"bucket"`
	}{s.Key, s.ID, s.Bucket})
}

// uppyArrived is a part as S3's ListParts says it.
type uppyArrived struct {
	PartNumber int
	ETag       string
	Size       int64
}

func (p *Proxy) listUppyParts(x *exchange) error {
	parts, err := p.o.Uploads.Parts(x.ctx, x.upload.session)
	if err != nil {
		return storeFailure(err)
	}
	out := make([]uppyArrived, len(parts))
	for i, part := range parts {
		out[i] = uppyArrived{part.Number, part.ETag, part.Size}
	}
	return x.answer(out)
}

// signUppyParts signs the parts that were asked for. Neither their size nor their
// type is known here, and a browser sends a type of its own choice: nothing of
// them is bound but their numbers.
func (p *Proxy) signUppyParts(x *exchange) error {
	signed, err := p.o.Uploads.SignParts(x.ctx, x.upload.session, x.upload.parts, x.upload.expires)
	if err != nil {
		return storeFailure(err)
	}
	if x.uppy.op == uppyPart {
		return x.answer(x.uppyURL(signed[0], ""))
	}
	urls := make(map[string]string, len(signed))
	for i, part := range x.upload.parts {
		urls[strconv.Itoa(part.Number)] = signed[i].URL
	}
	return x.answer(struct {
		URLs map[string]string `json:"presignedUrls"`
	}{urls})
}

// uppyURL is the answer where one of S3's calls is signed.
type uppyURL struct {
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers,omitempty"`
	Expires int64             `json:"expires"`
	Key     string            `json:"key,omitempty"`
}

func (x *exchange) uppyURL(s upload.Signed, key string) uppyURL {
	return uppyURL{URL: s.URL, Headers: headersOf(s), Expires: x.remaining(s.Expires, x.upload.expires), Key: key}
}

func (p *Proxy) completeUppy(x *exchange) error {
	s, err := p.o.Uploads.Complete(x.ctx, x.upload.session, x.uppy.whole)
	if err != nil {
		return storeFailure(err)
	}
	return x.answer(struct {
		Location string `json:"location,omitempty"`
		Key      string `json:"key"`
		Bucket   string `json:"bucket"`
	}{x.location(s), s.Key, s.Bucket})
}

// location is where an object is, for who may read it there: a URL without a
// signature. The upload does not fail for it.
func (x *exchange) location(s *upload.Session) string {
	signed, err := x.p.o.Uploads.Download(x.ctx, upload.Download{Bucket: s.Bucket, Key: s.Key, Expires: time.Minute})
	if err != nil {
		return ""
	}
	u, err := url.Parse(signed.URL)
	if err != nil {
		return ""
	}
	u.RawQuery = ""
	return u.String()
}

func (p *Proxy) abortUppy(x *exchange) error {
	if _, err := p.o.Uploads.Abort(x.ctx, x.upload.session); err != nil {
		return storeFailure(err)
	}
	return x.answer(struct{}{}) // version 5 reads JSON of every success
}

// signUppyCreate signs the call by which version 6 opens the multipart upload
// itself.
func (p *Proxy) signUppyCreate(x *exchange) error {
	r := &x.upload.request
	s, signed, err := p.o.Uploads.SignCreate(x.ctx, *r)
	if err != nil {
		return storeFailure(err)
	}
	x.upload.expires = r.Expires
	return x.answer(x.uppyURL(signed, s.Key))
}

// signUppyCall signs one of the calls with which version 6 goes on. The store's
// id of the upload comes from the client: it counts once it is known to be the
// session's.
func (p *Proxy) signUppyCall(x *exchange) error {
	ctx, s := x.ctx, x.upload.session
	if s.UploadID == "" { // else uppySession has compared it
		adopted, err := p.o.Uploads.Adopt(ctx, s, x.uppy.uploadID)
		switch {
		case errors.Is(err, upload.ErrUnavailable):
			return storeFailure(err)
		case errors.Is(err, upload.ErrNoUpload):
			return storeFailure(upload.ErrNotFound) // as of another's
		case err != nil:
			return storeFailure(err)
		}
		s = adopted
	}
	signed, err := p.signUppyOp(ctx, x, s)
	if err != nil {
		return storeFailure(err)
	}
	return x.answer(x.uppyURL(signed, ""))
}

func (p *Proxy) signUppyOp(ctx context.Context, x *exchange, s *upload.Session) (upload.Signed, error) {
	switch x.uppy.op {
	case uppySignPart:
		signed, err := p.o.Uploads.SignParts(ctx, s, x.upload.parts, x.upload.expires)
		if err != nil {
			return upload.Signed{}, err
		}
		return signed[0], nil
	case uppySignComplete: // which is not signed once too much has arrived
		return p.o.Uploads.SignCall(ctx, s, upload.CompleteUpload, x.upload.expires)
	case uppySignAbort:
		signed, err := p.o.Uploads.SignCall(ctx, s, upload.AbortUpload, x.upload.expires)
		if err != nil {
			return upload.Signed{}, err
		}
		// The client's own call may never come, and nobody would know. It finds
		// nothing left, which Uppy takes for done.
		_, err = p.o.Uploads.Abort(ctx, s)
		return signed, err
	}
	return p.o.Uploads.SignCall(ctx, s, upload.ListParts, x.upload.expires)
}
