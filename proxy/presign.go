package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sidegate/policy"
	"sidegate/storage/audit"
	"sidegate/storage/upload"
)

// An uploadPlan is what decide found out for the action of a served route.
type uploadPlan struct {
	request  upload.Request
	session  *upload.Session
	expires  time.Duration // of parts' URLs
	parts    []upload.PartRequest
	whole    []upload.Part // that the object is made of; nil: all that arrived
	download upload.Download
	page     listPage
}

// decideServed decides on a route that the gateway answers itself.
func (p *Proxy) decideServed(x *exchange) (decision, action) {
	if p.o.Uploads == nil {
		return refuse(codeInternal, &problem{status: http.StatusInternalServerError, code: codeInternal, detail: "something went wrong here",
			cause: errors.New("the policy serves presign routes and this gateway has no buckets")}), nil
	}
	x.upload = &uploadPlan{}
	switch x.match.Route.Serve {
	case policy.PresignUpload:
		return p.decideUpload(x)
	case policy.PresignUploads:
		return p.decideUploads(x)
	case policy.ConfirmUpload:
		return p.decideConfirm(x)
	case policy.PresignDownload:
		return p.decideDownload(x)
	case policy.PresignDownloads:
		return p.decideDownloads(x)
	case policy.Multipart:
		return p.decideMultipart(x)
	case policy.Uppy:
		return p.decideUppy(x)
	case policy.GetUpload:
		return p.decideGetUpload(x)
	case policy.ListUploads:
		return p.decideListUploads(x)
	case policy.DeleteObject:
		return p.decideDelete(x)
	case policy.ListObjects:
		return p.decideList(x)
	}
	return decision{}, nil
}

// A wish is an upload that a request wants to begin.
type wish struct {
	policy.UploadRequest
	operation   string   // of the audit log
	multipart   bool     // it comes in parts
	complaint   *problem // about how it was asked for; it counts only if the request is allowed
	idempotency string   // the caller's Idempotency-Key
}

// storable refuses what no store takes, however much the policy would: a policy
// may have no bound, or, for Uppy, one for what comes in parts.
func (w *wish) storable() *problem {
	most, how := int64(upload.MaxPut), "in one piece"
	if w.multipart {
		most, how = most*upload.MaxParts, "in parts"
	}
	if w.Size == nil || *w.Size <= most {
		return nil
	}
	return tooLarge(most, how)
}

// planUpload decides on an upload that is to begin: the policy, then the object's
// limits, then the budgets. Where that is a yes, x.upload.request is what to
// begin. x.object says what was asked, in either case.
func (p *Proxy) planUpload(x *exchange, w *wish) (decision, bool) {
	o := x.match.Route.Object
	id := upload.NewID()
	if w.idempotency != "" && x.identity != nil {
		id, _ = upload.IdempotentID(x.identity.Namespace, x.identity.UID, x.match.Route.ID, w.idempotency)
	}
	x.input.UUID, x.input.Ext, x.input.Size, x.input.ContentType = upload.UUIDOf(id), w.Ext(), w.Size, w.MediaType()
	x.input.Checksum = w.ChecksumSHA256 != "" || w.ChecksumCRC64 != "" || w.PartChecksums != ""
	asked := x.ask()
	d := x.judged(asked)
	size := int64(-1)
	if w.Size != nil {
		size = *w.Size
	}
	x.object = &audit.Object{Bucket: o.Bucket, Operation: w.operation, ContentType: w.ContentType, Size: size}
	if !d.allow {
		return d, false
	}
	pr := w.complaint
	if v := o.Check(&w.UploadRequest); pr == nil && v != nil {
		pr = violated(v)
	}
	if pr == nil {
		pr = w.storable()
	}
	metadata, wrong := encodedMetadata(w.Metadata)
	if pr == nil {
		pr = wrong
	}
	if pr != nil {
		return refuse(pr.code, pr).by(d), false
	}
	if d, ok := x.spend(d); !ok {
		return d, false
	}
	expires, _ := o.Expiry(w.Expires)
	x.upload.request = x.request(w, asked.Key)
	r := &x.upload.request
	r.ID, r.Size, r.Metadata, r.Expires = id, size, metadata, expires
	x.object.Key = asked.Key // of a refusal it would be one that never was
	x.object.Session, x.object.Expires = id, x.start.Add(expires)
	return d, true
}

// request is the upload of a wish that was granted, as far as wish, caller and
// route say it.
func (x *exchange) request(w *wish, key string) upload.Request {
	route, o, who := x.match.Route, x.match.Route.Object, x.identity
	return upload.Request{
		Namespace: who.Namespace, UID: who.UID, Identity: who.Name, Record: x.id,
		Bucket: o.Bucket, Key: key, ContentType: w.ContentType, Checksum: w.ChecksumSHA256, Checksum64: w.ChecksumCRC64,
		PartChecksums: w.PartChecksums != "",
		Overwrite:     o.Overwrite, Form: o.Form && !w.multipart, MaxBytes: o.MaxBytes, Route: route.ID,
		DeleteLate: o.DeleteLate, AutoConfirm: route.Serve == policy.Uppy, Quota: quotaOf(route), Idempotency: w.idempotency,
		ConfirmWithin: o.ConfirmWithin,
	}
}

// encodedMetadata is metadata as it is sent and stored. The policy bounded it as
// it came; what is not ASCII grows.
func encodedMetadata(metadata map[string]string) (map[string]string, *problem) {
	if len(metadata) == 0 {
		return nil, nil
	}
	out, total := make(map[string]string, len(metadata)), 0
	for name, value := range metadata {
		out[name] = upload.EncodeMetadata(value)
		total += len(name) + len(out[name])
	}
	if total > upload.MaxMetadata {
		return nil, wrongField("metadata", "metadata is at most 2048 bytes, names and values together, as it is stored: what is not ASCII takes more")
	}
	return out, nil
}

func quotaOf(r *policy.Route) *upload.Quota {
	if r.Quota == nil {
		return nil
	}
	return &upload.Quota{Bytes: r.Quota.Bytes, Objects: r.Quota.Objects, Window: r.Quota.Window}
}

// spend takes the request, or an item of it, from the budgets of its route.
func (x *exchange) spend(d decision) (decision, bool) {
	limits := x.match.Route.Limits
	if perIP := x.match.Route.IPLimits; x.further && len(perIP) > 0 { // from which the request itself took for its first
		limits = slices.Concat(limits, perIP)
	}
	return x.limit(limits, d)
}

// planSession decides on something that is done to one of the caller's sessions.
// Where the route has an object the policy is asked of the session's, so that
// find comes first; but what it did not find is told only to a caller who is
// allowed. Where that is a yes, x.upload.session is the session. In a trial,
// which looks nothing up, it is nil.
func (p *Proxy) planSession(x *exchange, operation string, find func() (*upload.Session, error), complaint *problem) (decision, bool) {
	o := x.match.Route.Object
	x.object = &audit.Object{Operation: operation, Size: -1}
	var s *upload.Session
	var lost error
	if o != nil {
		x.object.Bucket = o.Bucket
		s, lost = x.seek(find)
		x.judgeSession(s)
	}
	asked := x.ask()
	d := x.judged(asked)
	if !d.allow && errors.Is(lost, upload.ErrUnavailable) && inError(asked.Reason) {
		return refuse(codeUnavailable, storeFailure(lost)).by(d), false // the rule may read what nobody could
	}
	if !d.allow {
		return d, false
	}
	if complaint != nil {
		return refuse(complaint.code, complaint).by(d), false
	}
	if d, ok := x.spend(d); !ok {
		return d, false
	}
	if o == nil {
		s, lost = x.seek(find)
	}
	if lost != nil {
		pr := storeFailure(lost)
		return refuse(pr.code, pr).by(d), false
	}
	if s == nil {
		return d, true
	}
	x.object = &audit.Object{Bucket: s.Bucket, Key: s.Key, Operation: operation, ContentType: s.ContentType, Size: s.Size, Session: s.ID}
	x.upload.session = s
	return d, true
}

// inError reports whether a rule that could not be told is why the policy refused.
func inError(reason string) bool {
	switch reason {
	case policy.ReasonEntryError, policy.ReasonDenyError, policy.ReasonRequireError:
		return true
	}
	return false
}

// seek finds a session, but not in a trial: whose it is, is no matter of the policy.
func (x *exchange) seek(find func() (*upload.Session, error)) (*upload.Session, error) {
	switch {
	case x.given != nil:
		return x.given.Session, nil
	case x.identity == nil:
		return nil, upload.ErrNotFound
	}
	s, err := find()
	if err != nil {
		return nil, err
	}
	return s, nil
}

// judgeSession has the policy judge the session's object. Of none, it is a key as
// the route makes them.
func (x *exchange) judgeSession(s *upload.Session) {
	if s == nil {
		x.input.UUID = upload.UUIDOf(upload.NewID())
		return
	}
	x.input.SessionKey, x.input.ContentType = s.Key, (&policy.UploadRequest{ContentType: s.ContentType}).MediaType()
	if s.Size >= 0 {
		x.input.Size = &s.Size
	}
	x.object.Key, x.object.ContentType, x.object.Size, x.object.Session = s.Key, s.ContentType, s.Size, s.ID
}

// ownSession finds the caller's session of that id, whichever route began it.
func (x *exchange) ownSession(id string) func() (*upload.Session, error) {
	return func() (*upload.Session, error) {
		return x.p.o.Uploads.Lookup(x.ctx, x.identity.Namespace, x.identity.UID, id)
	}
}

// routeSession is ownSession for what goes on only where it began: a session of
// another route or bucket is none.
func (x *exchange) routeSession(id string) func() (*upload.Session, error) {
	own := x.ownSession(id)
	return func() (*upload.Session, error) { return x.begunHere(own()) }
}

func (x *exchange) begunHere(s *upload.Session, err error) (*upload.Session, error) {
	if err != nil {
		return nil, err
	}
	if s.Route != x.match.Route.ID || s.Bucket != x.match.Route.Object.Bucket {
		return nil, upload.ErrNotFound
	}
	return s, nil
}

// by keeps which rule allowed what was refused for another reason.
func (d decision) by(allowed decision) decision {
	d.rule, d.shadow = allowed.rule, allowed.shadow
	return d
}

func violated(v *policy.Violation) *problem {
	return &problem{status: v.Status, code: v.Code, detail: v.Text, field: v.Field}
}

// remaining is how long a URL holds, in whole seconds: what was asked for, or
// less where the credentials end sooner. A signature's time has no fractions:
// what is left of the second in which it began counts as whole.
func (x *exchange) remaining(until time.Time, asked time.Duration) int64 {
	return max(int64((min(until.Sub(x.start), asked)+time.Second-1)/time.Second), 0)
}

// headersOf are a signed URL's, each in one value.
func headersOf(s upload.Signed) map[string]string {
	headers := map[string]string{}
	for name, values := range s.Headers {
		headers[name] = strings.Join(values, ",")
	}
	return headers
}

// answer sends a success of the gateway's own.
func (x *exchange) answer(v any) error {
	body, err := jsonOf(v)
	if err != nil {
		return err
	}
	h, values := x.w.Header(), make(lines, 0, 6)
	values.ownAnswer(h, x.id)
	h["Content-Type"] = values.line("application/json")
	h["Content-Length"] = values.line(strconv.Itoa(len(body)))
	x.w.WriteHeader(http.StatusOK)
	if x.r.Method != http.MethodHead {
		if _, err := x.w.Write(body); err != nil {
			x.failure = x.w.fault
		}
	}
	return nil
}

// jsonOf is an answer's JSON and a line break. A URL's & stays one: nobody takes
// this for HTML.
func jsonOf(v any) ([]byte, error) {
	if f, ok := v.(fast); ok {
		body, err := f.appendJSON(make([]byte, 0, 1280))
		return append(body, '\n'), err
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return body.Bytes(), err
}

// answerNothing says that it is done.
func (x *exchange) answerNothing() error {
	ownAnswer(x.w.Header(), x.id)
	x.w.WriteHeader(http.StatusNoContent)
	return nil
}
