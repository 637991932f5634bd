package trial

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sidegate/policy"
	"sidegate/proxy"
	"sidegate/storage/audit"
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
		if o := e.Object; o != nil && o.Operation == "put" && (o.Size >= 0 || d.Code == "unsupported_type") {
			return replayed
		}
	case "rate":
		return limited
	}
	return notPolicy
}

// recordedDecision is what was decided then.
func recordedDecision(d *audit.Decision) Decided {
	return Decided{Allow: d.Effect == "allow", Status: d.Status, Code: d.Code, Route: d.Route, Rule: d.Rule}
}

// needed are the fields beside the inputs that a request is made from.
func needed(field string) bool {
	switch field {
	case "request.method", "request.host", "request.path", "request.ip", "object.content_type":
		return true
	case "identity.issuer", "identity.token_hash":
		return false
	}
	return strings.HasPrefix(field, "identity.")
}

// requestOf is the recorded request; why says what of it is not on record.
func requestOf(e *audit.Event, r *policy.Recorded) (q *Request, why string) {
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
	if o := e.Object; o != nil {
		q.object(e, r)
	}
	return q, ""
}

// object puts into the request what the record holds of an object's wishes.
func (q *Request) object(e *audit.Event, r *policy.Recorded) {
	o := e.Object
	var expires *int64
	if !o.Expires.IsZero() {
		n := int64(math.Round(o.Expires.Sub(e.Time).Seconds()))
		expires = &n
	}
	switch o.Operation {
	case "put":
		u := &policy.UploadRequest{ContentType: o.ContentType, Expires: expires}
		if o.Size >= 0 {
			u.Size = &o.Size
		}
		if r.Checksum() {
			u.ChecksumSHA256 = someChecksum
			if o.Size == 0 {
				u.ChecksumSHA256 = emptyChecksum
			}
		}
		q.Body = uploadBody(u)
	case "get", "head":
		if expires != nil && slices.Contains(e.Request.QueryKeys, "expiresSeconds") {
			q.Target += expiresQuery(*expires)
		}
	}
}

// A checksum is only held to its form before anything is uploaded, but for that
// of nothing.
const (
	someChecksum  = "LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564=" // SHA-256 of "foo"
	emptyChecksum = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" // and of ""
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
	put := e.Object != nil && e.Object.Operation == "put"
	switch {
	case !passed:
	case route.Serve == policy.PresignUpload && !put:
		return "the body is not on record"
	case j.Field == "expiresSeconds":
		return "whether an expiry was asked for is not on record"
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
