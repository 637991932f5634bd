package trial

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sidegate/policy"
	"sidegate/proxy"
	"sidegate/storage/audit"
	"sidegate/storage/upload"
)

// What a recorded decision is for a replay.
type standing uint8

const (
	replayed  standing = iota
	limited            // refused for its rate: limits are not replayed
	notPolicy          // refused before the policy was asked, or for a fault
)

// standingOf says whether a policy made the recorded decision. Refusals for a
// limit of the object are: the policy's; of a body or a query that does not
// parse, of which nothing is on record, they are not.
func standingOf(e *audit.Event, r *policy.Recorded) standing {
	d := e.Decision
	if e.Object != nil && e.Object.Operation == "batch" {
		return notPolicy // what it asked for is on record item by item
	}
	if d.Code == policy.ReasonNoRoute && d.Route != "" && e.Request != nil && e.Request.ForwardAuth != "" {
		return notPolicy // a route with serve, which another proxy cannot ask about
	}
	switch d.Code {
	case policy.ReasonEntry, policy.ReasonPublic, policy.ReasonNoEntry, policy.ReasonEntryError, policy.ReasonNoRoute, policy.ReasonMethod,
		policy.ReasonNoToken, policy.ReasonNoKey, policy.ReasonDenyTrue, policy.ReasonDenyError, policy.ReasonRequireFalse, policy.ReasonRequireError:
		if d.Effect == "allow" || d.Effect == "deny" {
			return replayed
		}
	case policy.ReasonUnavailable: // of a document, or of the keys or a store
		if d.Rule != "" && r.Failed() {
			return replayed
		}
	case "too_large", "unsupported_type":
		if o := e.Object; o != nil && begins(o.Operation) && (o.Size >= 0 || d.Code == "unsupported_type") {
			return replayed
		}
	case "rate":
		return limited
	}
	return notPolicy
}

// begins reports whether an upload begins by the recorded operation.
func begins(operation string) bool {
	return operation == "put" || operation == "post" || operation == "multipart_create"
}

// recordedDecision is what was decided then.
func recordedDecision(d *audit.Decision) Decided {
	return Decided{Allow: d.Effect == "allow", Status: d.Status, Code: d.Code, Route: d.Route, Rule: d.Rule}
}

// needed are the fields beside the inputs that a request is made from.
func needed(field string) bool {
	switch field {
	case "request.method", "request.host", "request.path", "request.ip", "object.content_type", "object.key":
		return true
	case "identity.issuer", "identity.token_hash":
		return false
	}
	return strings.HasPrefix(field, "identity.")
}

// requestOf is the recorded request; why says what of it is not on record.
func requestOf(e *audit.Event, r *policy.Recorded, p *policy.Policy) (q *Request, why string) {
	for _, field := range e.Cut {
		if needed(field) {
			return nil, field + " was cut"
		}
	}
	if e.Request == nil {
		return nil, "the request is not on record"
	}
	q = &Request{
		Method: e.Request.Method, Target: targetOf(e.Request.Path, 0), Host: e.Request.Host, Time: e.Time,
		AppCheck: r.AppCheck(), Lookups: r, Recorded: r.Knows,
	}
	if e.Request.IP != "" {
		ip, err := netip.ParseAddr(e.Request.IP)
		if err != nil {
			return nil, "request.ip is no address"
		}
		q.IP = ip
	}
	if id := e.Identity; id != nil {
		q.Identity = &policy.Identity{
			Name: id.Name, Namespace: id.Namespace, UID: id.UID, Actor: id.Actor, Tenant: id.Tenant, Issuer: id.Issuer,
			Provider: id.Provider, AuthTime: id.AuthTime, Expires: e.Time.Add(time.Hour), TokenHash: id.TokenHash,
		}
		r.Fill(q.Identity)
	}
	if e.Object != nil {
		if m := p.Match(q.Host, e.Request.Path, q.Method); m.Route != nil {
			q.object(e, r, m.Route)
		}
	}
	return q, ""
}

// object puts into the request what the record holds of an object's wishes, as
// the route is asked for such.
func (q *Request) object(e *audit.Event, r *policy.Recorded, route *policy.Route) {
	o := e.Object
	asks := served{key: o.Key, operation: o.Operation}
	if !o.Expires.IsZero() {
		n := int64(math.Round(o.Expires.Sub(e.Time).Seconds()))
		asks.expires = &n
	}
	switch op := o.Operation; {
	case begins(op):
		asks.upload = &policy.UploadRequest{ContentType: o.ContentType, Expires: asks.expires}
		if o.Size >= 0 {
			asks.upload.Size = &o.Size
		}
		if r.Checksum() {
			setChecksum(asks.upload, route)
		}
	case op == "list" && slices.Contains(e.Request.QueryKeys, "prefix"):
		asks.prefix = o.Key
	case (op == "get" || op == "head") && e.Request.Batch == "" && !slices.Contains(e.Request.QueryKeys, "expiresSeconds"):
		asks.expires = nil // it is the route's default
	case aboutSession(op) && o.Session != "":
		// A part's URL has no size on record, and none is needed to be allowed one.
		q.Session = &upload.Session{ID: o.Session, Bucket: o.Bucket, Key: o.Key, ContentType: o.ContentType, Size: o.Size}
		asks.parts, asks.expires = partsOf(o.Parts), nil
	}
	asks.put(q, route.Serve)
}

// aboutSession reports whether the recorded operation was about an upload that
// had begun.
func aboutSession(operation string) bool {
	return operation == "confirm" || operation == "get_upload" || strings.HasPrefix(operation, "multipart_") && !begins(operation)
}

// partsOf reads the numbers of parts, as 1-3,7: the first of each run, which is
// enough to ask for some.
func partsOf(text string) (numbers []int) {
	for run := range strings.SplitSeq(text, ",") {
		first, _, _ := strings.Cut(run, "-")
		if n, err := strconv.Atoi(first); err == nil && n > 0 && len(numbers) < 100 {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// setChecksum gives an upload a checksum of the kind that the route takes: the
// record says that there was one, and not which.
func setChecksum(u *policy.UploadRequest, route *policy.Route) {
	empty := u.Size != nil && *u.Size == 0
	switch o := route.Object; {
	case o != nil && o.NeedChecksum == "sha256" && route.Serve == policy.Multipart:
		u.PartChecksums = "sha256"
	case o != nil && (o.NeedChecksum == "crc64nvme" || route.Serve == policy.Multipart):
		if u.ChecksumCRC64 = someCRC64; empty {
			u.ChecksumCRC64 = emptyCRC64
		}
	default:
		if u.ChecksumSHA256 = someChecksum; empty {
			u.ChecksumSHA256 = emptyChecksum
		}
	}
}

// A checksum is only held to its form before anything is uploaded, but for that
// of nothing.
const (
	someChecksum  = "LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564=" // SHA-256 of "foo"
	emptyChecksum = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" // and of ""
	someCRC64     = "rosUhgp5mIg="                                 // CRC-64/NVME of "123456789"
	emptyCRC64    = "AAAAAAAAAAA="                                 // and of ""
)

// undecidable says why a judgement says nothing; "" where it does.
func undecidable(e *audit.Event, j *proxy.Judgement, r *policy.Recorded) string {
	if j.Undecidable {
		return r.Missing() + " is not on record"
	}
	route := j.Input.Route
	if route == nil {
		return ""
	}
	if e.Identity == nil && !routeless(e) && e.Decision.Code != policy.ReasonNoToken && j.Policy.AsksWho(&j.Input) {
		return "who called a public route is not on record"
	}
	passed := j.Allow || j.Field != "" || j.Status == 413 || j.Status == 415 || j.Status == 400
	switch missing := notRecorded(e, route, passed); {
	case missing != "":
		return missing + " is not on record"
	case !passed:
	case j.Field == "expiresSeconds":
		return "whether an expiry was asked for is not on record"
	}
	return ""
}

// notRecorded names what a route reads of a request, beside what every record
// has, and the record does not hold; passed is whether the policy allows the
// request without it.
func notRecorded(e *audit.Event, route *policy.Route, passed bool) string {
	op := ""
	if e.Object != nil {
		op = e.Object.Operation
	}
	switch route.Serve {
	case policy.PresignUpload, policy.PresignUploads:
		if passed && !begins(op) {
			return "the body"
		}
	case policy.PresignDownloads: // whose keys decide
		if e.Identity != nil && (op != "get" || e.Object.Key == "") {
			return "the body"
		}
	case policy.ListObjects:
		if e.Identity != nil && op != "list" && slices.Contains(e.Request.QueryKeys, "prefix") {
			return "what was to be listed"
		}
	case policy.Multipart, policy.Uppy:
		if passed && !begins(op) && !aboutSession(op) {
			return "the upload that it was about"
		}
	}
	return ""
}

// routeless reports whether the request had found no route, where nobody was
// asked for either.
func routeless(e *audit.Event) bool {
	return e.Decision.Code == policy.ReasonNoRoute || e.Decision.Code == policy.ReasonMethod
}

// after is the judgement as it is compared with the record.
func after(e *audit.Event, j *proxy.Judgement) Decided {
	d := decidedOf(j)
	d.To = "" // of which the record says nothing
	if routeless(e) && j.Input.Route != nil && j.Policy.AsksWho(&j.Input) {
		d.Allow, d.Rule = false, ""
		d.Status, d.Code = 0, WhoCalls
	}
	return d
}

func recordExample(e *audit.Event, q *Request) Example {
	x := Example{Record: e.Record, Time: e.Time.UTC().Format(time.RFC3339), Method: q.Method, Host: q.Host, Target: q.Target, As: who(q.Identity)}
	if e.Identity != nil && e.Identity.Actor != "" {
		x.With = append(x.With, "actor "+e.Identity.Actor)
	}
	x.IP = e.Request.IP
	return x
}
