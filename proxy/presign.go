package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sidegate/policy"
	"sidegate/storage/audit"
	"sidegate/storage/upload"
)

// An uploadPlan is what decide found out for the action of a served route.
type uploadPlan struct {
	request upload.Request
	session *upload.Session
	expires time.Duration
}

// decideServed decides on a route that the gateway answers itself.
func (p *Proxy) decideServed(x *exchange) (decision, action) {
	if p.o.Uploads == nil {
		return refuse(codeInternal, &problem{status: http.StatusInternalServerError, code: codeInternal, detail: "something went wrong here",
			cause: errors.New("the policy serves presign routes and this gateway has no buckets")}), nil
	}
	switch x.match.Route.Serve {
	case policy.PresignUpload:
		return p.decideUpload(x)
	case policy.ConfirmUpload:
		return p.decideConfirm(x)
	case policy.PresignDownload:
		return p.decideDownload(x)
	}
	return decision{}, nil
}

// decideUpload reads the body before it asks the policy, since the key can
// depend on the content type; complaints about it count only if the request is
// allowed.
func (p *Proxy) decideUpload(x *exchange) (decision, action) {
	if x.body != nil {
		x.body.until = time.Now().Add(p.o.IdleTimeout) // it is small: dripping is no way to send it
	}
	body, problem := readUploadRequest(x.r.Body)
	o := x.match.Route.Object
	x.input.UUID, x.input.Ext, x.input.Size, x.input.ContentType = upload.NewID(), body.Ext(), body.Size, body.MediaType()
	x.input.Checksum = body.ChecksumSHA256 != ""
	asked := x.ask()
	d := x.judged(asked)
	size := int64(-1)
	if body.Size != nil {
		size = *body.Size
	}
	x.object = &audit.Object{Bucket: o.Bucket, Operation: "put", ContentType: body.ContentType, Size: size}
	if !d.allow {
		return d, nil
	}
	if problem != nil {
		return refuse(problem.code, problem).by(d), nil
	}
	if v := o.Check(&body); v != nil {
		return refuse(v.Code, violated(v)).by(d), nil
	}
	if d, ok := x.limit(x.match.Route.Limits, d); !ok {
		return d, nil
	}
	expires, _ := o.Expiry(body.Expires)
	x.object.Key = asked.Key // of a refusal it would be one that never was
	x.upload.request = upload.Request{
		ID: upload.NewID(), Namespace: x.identity.Namespace, UID: x.identity.UID, Identity: x.identity.Name,
		Record: x.id, Bucket: o.Bucket, Key: asked.Key, ContentType: body.ContentType, Size: size,
		Checksum: body.ChecksumSHA256, Overwrite: o.Overwrite, Expires: expires, ConfirmWithin: o.ConfirmWithin,
	}
	x.object.Session, x.object.Expires = x.upload.request.ID, x.start.Add(expires)
	return d, p.signUpload
}

// by keeps which rule allowed what was refused for another reason.
func (d decision) by(allowed decision) decision {
	d.rule, d.shadow = allowed.rule, allowed.shadow
	return d
}

func violated(v *policy.Violation) *problem {
	return &problem{status: v.Status, code: v.Code, detail: v.Text, field: v.Field}
}

// presigned is the answer of presign_upload.
type presigned struct {
	Key            string            `json:"key"`
	PutURL         string            `json:"putUrl"`
	ExpiresSeconds int64             `json:"expiresSeconds"`
	Session        string            `json:"session"`
	Method         string            `json:"method"`
	Headers        map[string]string `json:"headers"`
	ExpiresAt      time.Time         `json:"expiresAt"`
}

func (p *Proxy) signUpload(x *exchange) error {
	session, signed, err := p.o.Uploads.Begin(x.r.Context(), x.upload.request)
	if err != nil {
		return storeFailure(err)
	}
	headers := map[string]string{}
	for name, values := range signed.Headers {
		headers[name] = strings.Join(values, ",")
	}
	return x.answer(presigned{
		Key: session.Key, PutURL: signed.URL, ExpiresSeconds: x.remaining(signed.Expires, x.upload.request.Expires), Session: session.ID,
		Method: signed.Method, Headers: headers, ExpiresAt: signed.Expires.UTC(),
	})
}

// remaining is how long a URL holds, in whole seconds: what was asked for, or
// less where the credentials end sooner. A signature's time has no fractions:
// what is left of the second in which it began counts as whole.
func (x *exchange) remaining(until time.Time, asked time.Duration) int64 {
	return max(int64((min(until.Sub(x.start), asked)+time.Second-1)/time.Second), 0)
}

// decideConfirm finds the session, which must be the caller's own.
func (p *Proxy) decideConfirm(x *exchange) (decision, action) {
	d := x.judged(x.ask())
	if !d.allow {
		return d, nil
	}
	if d, ok := x.limit(x.match.Route.Limits, d); !ok {
		return d, nil
	}
	if x.given != nil { // whose session it is, is no matter of the policy
		return d, p.confirm
	}
	id, _ := x.match.Params.Get("session")
	s, err := p.o.Uploads.Lookup(x.r.Context(), x.identity.Namespace, x.identity.UID, id)
	if err != nil {
		problem := storeFailure(err)
		return refuse(problem.code, problem).by(d), nil
	}
	x.upload.session = s
	x.object = &audit.Object{Bucket: s.Bucket, Key: s.Key, Operation: "confirm", ContentType: s.ContentType, Size: s.Size, Session: s.ID}
	return d, p.confirm
}

// confirmed is the answer of confirm_upload.
type confirmed struct {
	Key            string `json:"key"`
	Status         string `json:"status"`
	Size           int64  `json:"size"`
	ContentType    string `json:"contentType"`
	ETag           string `json:"etag"`
	VersionID      string `json:"versionId,omitempty"`
	ChecksumSHA256 string `json:"checksumSha256,omitempty"`
}

func (p *Proxy) confirm(x *exchange) error {
	s, err := p.o.Uploads.Confirm(x.r.Context(), x.upload.session)
	if err != nil {
		return storeFailure(err)
	}
	return x.answer(confirmed{s.Key, string(s.Status), s.Size, s.ContentType, s.ETag, s.VersionID, s.Checksum})
}

// decideDownload holds the query's wishes against the object's limits.
func (p *Proxy) decideDownload(x *exchange) (decision, action) {
	asked := x.ask()
	d := x.judged(asked)
	o := x.match.Route.Object
	head := x.r.Method == http.MethodHead
	x.object = &audit.Object{Bucket: o.Bucket, Key: asked.Key, Operation: "get", Size: -1}
	if head {
		x.object.Operation = "head"
	}
	if !d.allow {
		x.object.Key = asked.AskedKey
		return d, nil
	}
	seconds, redirect, problem := readDownloadQuery(x.target.query)
	if problem != nil {
		return refuse(problem.code, problem).by(d), nil
	}
	expires, v := o.Expiry(seconds)
	if v != nil {
		return refuse(v.Code, violated(v)).by(d), nil
	}
	if d, ok := x.limit(x.match.Route.Limits, d); !ok {
		return d, nil
	}
	if head && !redirect {
		return d, signNothing
	}
	x.object.Expires = x.start.Add(expires)
	x.upload.expires = expires
	if redirect {
		return d, p.redirectDownload
	}
	return d, p.signDownload
}

// signNothing answers a HEAD that asks for no redirect: there is something to
// sign, and that is all it asked. A length would be that of GET's answer.
func signNothing(x *exchange) error {
	h := x.w.Header()
	ownAnswer(h, x.id)
	h.Set("Content-Type", "application/json")
	x.w.WriteHeader(http.StatusOK)
	return nil
}

func readDownloadQuery(query string) (seconds *int64, redirect bool, pr *problem) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, false, &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "the query is malformed"}
	}
	if v, ok := values["expiresSeconds"]; ok {
		n, err := strconv.ParseInt(v[0], 10, 32)
		if err != nil || len(v) != 1 {
			return nil, false, violated(&policy.Violation{Code: codeInvalidField, Status: http.StatusUnprocessableEntity, Field: "expiresSeconds", Text: "expiresSeconds is one whole number"})
		}
		seconds = &n
	}
	if v, ok := values["redirect"]; ok {
		if len(v) != 1 || v[0] != "1" {
			return nil, false, violated(&policy.Violation{Code: codeInvalidField, Status: http.StatusUnprocessableEntity, Field: "redirect", Text: "redirect can only be 1"})
		}
		redirect = true
	}
	return seconds, redirect, nil
}

func (p *Proxy) sign(x *exchange) (upload.Signed, error) {
	o := x.match.Route.Object
	disposition := upload.Attachment
	if o.Inline {
		disposition = upload.Inline
	}
	signed, err := p.o.Uploads.Download(x.r.Context(), upload.Download{
		Bucket: o.Bucket, Key: x.object.Key, Head: x.r.Method == http.MethodHead, Disposition: disposition, Expires: x.upload.expires,
	})
	if err != nil {
		return signed, storeFailure(err)
	}
	return signed, nil
}

func (p *Proxy) signDownload(x *exchange) error {
	signed, err := p.sign(x)
	if err != nil {
		return err
	}
	return x.answer(struct {
		GetURL         string    `json:"getUrl"`
		ExpiresSeconds int64     `json:"expiresSeconds"`
		ExpiresAt      time.Time `json:"expiresAt"`
	}{signed.URL, x.remaining(signed.Expires, x.upload.expires), signed.Expires.UTC()})
}

func (p *Proxy) redirectDownload(x *exchange) error {
	signed, err := p.sign(x)
	if err != nil {
		return err
	}
	h := x.w.Header()
	ownAnswer(h, x.id)
	h.Set("Location", signed.URL)
	h.Set("Content-Length", "0")
	x.w.WriteHeader(http.StatusFound)
	return nil
}

// answer sends a success of the gateway's own.
func (x *exchange) answer(v any) error {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // a URL's & stays one: nobody takes this for HTML
	if err := enc.Encode(v); err != nil {
		return err
	}
	h := x.w.Header()
	ownAnswer(h, x.id)
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	x.w.WriteHeader(http.StatusOK)
	if x.r.Method != http.MethodHead {
		if _, err := x.w.Write(body.Bytes()); err != nil {
			x.failure = x.w.fault
		}
	}
	return nil
}

// storeFailure says what of an upload's errors the caller is told.
func storeFailure(err error) *problem {
	var mismatch *upload.Mismatch
	var invalid *upload.InvalidError
	switch {
	case errors.As(err, &mismatch):
		return &problem{status: http.StatusUnprocessableEntity, code: codeMismatch, field: mismatch.Field, detail: "the object that was uploaded is not what was signed", cause: err}
	case errors.As(err, &invalid): // the policy's checks come first and are no weaker
		return &problem{status: http.StatusInternalServerError, code: codeInternal, detail: "something went wrong here", cause: err}
	case errors.Is(err, upload.ErrNotFound):
		return &problem{status: http.StatusNotFound, code: codeNoSession, detail: "there is no such upload session"}
	case errors.Is(err, upload.ErrNotUploaded):
		return &problem{status: http.StatusConflict, code: codeNotUploaded, detail: "the object is not there yet"}
	case errors.Is(err, upload.ErrExpired):
		return &problem{status: http.StatusGone, code: codeExpired, detail: "the upload was not confirmed in time"}
	}
	return unavailable("the store cannot be asked now", err)
}
