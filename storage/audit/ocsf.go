package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// OCSFVersion is the version of the Open Cybersecurity Schema Framework that
// AppendOCSF writes (schema.ocsf.io/1.8.0).
const OCSFVersion = "1.8.0"

// AppendOCSF appends a request as one event of API Activity (6003) with the
// profile security_control, as a line of JSON with its line feed. Anything else
// that is a Joined's Decision is an event of the gateway: Application Lifecycle
// (6002), or where it is of an unknown type a Base Event (0). Values are as in
// the line: bytes that are no UTF-8 stay \xHH (see Unescape). docs/audit.md has
// the mapping.
func AppendOCSF(b []byte, r *Joined) ([]byte, error) {
	var e Event
	if err := plainEvent(&r.Decision, &e); err != nil {
		return b, err
	}
	o := newOCSF(&r.Decision, &e)
	switch e.Type {
	case TypeDecision:
		if len(r.Outcome.Raw) > 0 {
			var out Event
			if err := plainEvent(&r.Outcome, &out); err != nil {
				return b, err
			}
			e.Outcome = out.Outcome
			o.EndTime = millis(out.Time)
		}
		o.request(&e)
		o.rest(r.Decision.Raw)
		if e.Summary == nil && e.Outcome == nil {
			o.Unmapped["outcome"] = "unknown"
		}
		if e.Outcome != nil {
			o.rest(r.Outcome.Raw)
		}
	case TypeSystem:
		o.lifecycle(&e)
		o.rest(r.Decision.Raw)
	default:
		o.classify(0, 0, 99, "Base Event", "Uncategorized", e.Type)
		o.Unmapped["line"] = json.RawMessage(r.Decision.Raw)
	}
	return appendSafeJSON(b, o)
}

// plainEvent reads a line without undoing \xHH: what it stands for JSON cannot
// hold.
func plainEvent(l *Line, e *Event) error {
	dec := json.NewDecoder(bytes.NewReader(l.Raw))
	dec.UseNumber() // a claim may be one that no float can hold
	err := dec.Decode(e)
	if err == nil && dec.InputOffset() != int64(len(l.Raw)) {
		err = errors.New("something follows it")
	}
	if err != nil {
		return notAnEvent(l, err)
	}
	return nil
}

type (
	ocsfEvent struct {
		ActivityID     int               `json:"activity_id"`
		ActivityName   string            `json:"activity_name"`
		CategoryUID    int               `json:"category_uid"`
		CategoryName   string            `json:"category_name"`
		ClassUID       int               `json:"class_uid"`
		ClassName      string            `json:"class_name"`
		TypeUID        int               `json:"type_uid"`
		TypeName       string            `json:"type_name"`
		SeverityID     int               `json:"severity_id"`
		Severity       string            `json:"severity"`
		Time           int64             `json:"time"`
		StartTime      int64             `json:"start_time,omitempty"`
		EndTime        int64             `json:"end_time,omitempty"`
		Duration       *int64            `json:"duration,omitempty"`
		Count          int               `json:"count,omitempty"`
		StatusID       int               `json:"status_id"`
		Status         string            `json:"status"`
		StatusCode     string            `json:"status_code,omitempty"`
		StatusDetail   string            `json:"status_detail,omitempty"`
		ActionID       *int              `json:"action_id,omitempty"`
		Action         string            `json:"action,omitempty"`
		DispositionID  *int              `json:"disposition_id,omitempty"`
		Disposition    string            `json:"disposition,omitempty"`
		Policy         *ocsfNamed        `json:"policy,omitempty"`
		Authorizations []ocsfAuthorized  `json:"authorizations,omitempty"`
		Metadata       ocsfMetadata      `json:"metadata"`
		Actor          *ocsfActor        `json:"actor,omitempty"`
		API            *ocsfAPI          `json:"api,omitempty"`
		SrcEndpoint    *ocsfEndpoint     `json:"src_endpoint,omitempty"`
		DstEndpoint    *ocsfEndpoint     `json:"dst_endpoint,omitempty"`
		HTTPRequest    *ocsfHTTPRequest  `json:"http_request,omitempty"`
		HTTPResponse   *ocsfHTTPResponse `json:"http_response,omitempty"`
		Resources      []ocsfResource    `json:"resources,omitempty"`
		Trace          *ocsfNamed        `json:"trace,omitempty"`
		App            *ocsfProduct      `json:"app,omitempty"`
		RawDataHash    ocsfFingerprint   `json:"raw_data_hash"`
		Unmapped       map[string]any    `json:"unmapped"`
	}
	ocsfNamed struct {
		Name string `json:"name,omitempty"`
		UID  string `json:"uid,omitempty"`
	}
	ocsfAuthorized struct {
		Decision string     `json:"decision"`
		Policy   *ocsfNamed `json:"policy,omitempty"`
	}
	ocsfProduct struct {
		Name       string `json:"name"`
		VendorName string `json:"vendor_name"`
		Version    string `json:"version,omitempty"`
	}
	ocsfMetadata struct {
		Version        string      `json:"version"`
		Product        ocsfProduct `json:"product"`
		Profiles       []string    `json:"profiles,omitempty"`
		UID            string      `json:"uid"`
		CorrelationUID string      `json:"correlation_uid,omitempty"`
		LogName        string      `json:"log_name"`
		LogProvider    string      `json:"log_provider,omitempty"`
		OriginalTime   string      `json:"original_time"`
		Sequence       uint64      `json:"sequence"`
	}
	ocsfActor struct {
		User    ocsfUser     `json:"user"`
		Session *ocsfSession `json:"session,omitempty"`
		IDP     *ocsfNamed   `json:"idp,omitempty"`
		AppUID  string       `json:"app_uid,omitempty"`
	}
	ocsfUser struct {
		UID    string     `json:"uid,omitempty"`
		Name   string     `json:"name,omitempty"`
		Domain string     `json:"domain,omitempty"`
		Org    *ocsfNamed `json:"org,omitempty"`
		TypeID int        `json:"type_id"`
		Type   string     `json:"type"`
	}
	ocsfSession struct {
		UID         string `json:"uid,omitempty"`
		Issuer      string `json:"issuer,omitempty"`
		CreatedTime int64  `json:"created_time,omitempty"`
	}
	ocsfAPI struct {
		Operation string        `json:"operation"`
		Service   *ocsfNamed    `json:"service,omitempty"`
		Request   *ocsfNamed    `json:"request,omitempty"`
		Response  *ocsfResponse `json:"response,omitempty"`
	}
	ocsfResponse struct {
		Code  int    `json:"code"`
		Error string `json:"error,omitempty"`
	}
	ocsfEndpoint struct {
		IP       string `json:"ip,omitempty"`
		Name     string `json:"name,omitempty"`
		Hostname string `json:"hostname,omitempty"`
		SvcName  string `json:"svc_name,omitempty"`
	}
	ocsfHTTPRequest struct {
		UID        string   `json:"uid,omitempty"`
		HTTPMethod string   `json:"http_method,omitempty"`
		UserAgent  string   `json:"user_agent,omitempty"`
		URL        *ocsfURL `json:"url,omitempty"`
		BodyLength *int64   `json:"body_length,omitempty"`
	}
	ocsfURL struct {
		Hostname string `json:"hostname,omitempty"`
		Path     string `json:"path"`
	}
	ocsfHTTPResponse struct {
		Code       int   `json:"code"`
		BodyLength int64 `json:"body_length"`
	}
	ocsfResource struct {
		Type      string         `json:"type"`
		UID       string         `json:"uid"`
		Name      string         `json:"name,omitempty"`
		Namespace string         `json:"namespace,omitempty"`
		Data      map[string]any `json:"data,omitempty"`
	}
	ocsfFingerprint struct {
		AlgorithmID int    `json:"algorithm_id"`
		Algorithm   string `json:"algorithm"`
		Value       string `json:"value"`
	}
)

func newOCSF(l *Line, e *Event) *ocsfEvent {
	g := orZero(e.Gateway)
	sum := sha256.Sum256(l.Raw)
	o := &ocsfEvent{
		SeverityID: 1, Severity: "Informational", Status: "Unknown", Time: millis(e.Time),
		Metadata: ocsfMetadata{
			Version: OCSFVersion, Product: ocsfProduct{"sidegate", "sidegate", g.Version},
			UID: e.ID, CorrelationUID: e.Record, LogName: e.Chain, LogProvider: g.Name, Sequence: e.Seq,
			OriginalTime: e.Time.UTC().Format("2006-01-02T15:04:05.000000Z"),
		},
		RawDataHash: ocsfFingerprint{3, "SHA-256", hex.EncodeToString(sum[:])},
		Unmapped:    map[string]any{"prev": e.Prev},
	}
	return o
}

func (o *ocsfEvent) classify(category, class, activity int, className, categoryName, activityName string) {
	o.CategoryUID, o.CategoryName = category, categoryName
	o.ClassUID, o.ClassName = class, className
	o.ActivityID, o.ActivityName = activity, activityName
	o.TypeUID, o.TypeName = class*100+activity, className+": "+activityName
}

var ocsfActivities = map[string]int{"Create": 1, "Read": 2, "Update": 3, "Delete": 4}

// activityOf is what the operation on an object, or the method, does.
func activityOf(operation, method string) (id int, name string) {
	switch operation {
	case "put":
		name = "Create"
	case "get":
		name = "Read"
	case "confirm":
		name = "Update"
	case "":
		switch method {
		case "GET", "HEAD", "OPTIONS":
			name = "Read"
		case "POST":
			name = "Create"
		case "PUT", "PATCH":
			name = "Update"
		case "DELETE":
			name = "Delete"
		}
	}
	if id = ocsfActivities[name]; id == 0 {
		if name = operation + method; name == "" {
			name = "unknown"
		}
		return 99, name
	}
	return id, name
}

func (o *ocsfEvent) request(e *Event) {
	r, d, object := orZero(e.Request), orZero(e.Decision), orZero(e.Object)
	id, name := activityOf(object.Operation, r.Method)
	if s := e.Summary; s != nil {
		id, name = 99, "Refusals"
		o.Count, o.StartTime, o.EndTime = s.Repeated, millis(s.From), millis(s.To)
	}
	o.classify(6, 6003, id, "API Activity", "Application Activity", name)
	o.Metadata.Profiles = []string{"security_control"}
	if r.Trace != "" {
		o.Metadata.Profiles = append(o.Metadata.Profiles, "trace")
		o.Trace = &ocsfNamed{UID: r.Trace}
	}
	o.decision(&d)
	o.outcome(e.Outcome, &d)
	o.Actor = actorOf(orZero(e.Identity))
	operation := object.Operation
	if operation == "" {
		operation = r.Method
	}
	if operation == "" {
		operation = name
	}
	o.API = &ocsfAPI{Operation: operation, Service: named(d.Route, "")}
	if e.Record != "" {
		o.API.Request = &ocsfNamed{UID: e.Record}
	}
	if out := e.Outcome; out != nil {
		o.API.Response = &ocsfResponse{out.Status, out.Error}
	}
	o.http(&r, e)
	if e.Object != nil {
		o.Resources = []ocsfResource{{Type: "object", UID: object.Bucket + "/" + object.Key, Name: object.Key, Namespace: object.Bucket, Data: objectData(&object)}}
	}
}

// decision is the profile security_control.
func (o *ocsfEvent) decision(d *Decision) {
	set := func(action, disposition int, name, dispositionName string) {
		o.ActionID, o.Action, o.DispositionID, o.Disposition = &action, name, &disposition, dispositionName
	}
	switch d.Effect {
	case "allow":
		set(1, 1, "Allowed", "Allowed")
	case "deny":
		set(2, 2, "Denied", "Blocked")
	case "preflight": // no policy decides of it
		set(3, 17, "Observed", "Logged")
	default:
		set(0, 0, "Unknown", "Unknown")
	}
	o.Policy = named(d.Policy.Name, d.Policy.SHA256)
	if d.Effect != "" {
		o.Authorizations = []ocsfAuthorized{{d.Effect, named(d.Rule, "")}}
	}
}

// outcome is how it ended. What was refused has failed, whether or not it is
// known how the answer went out.
func (o *ocsfEvent) outcome(out *Outcome, d *Decision) {
	status := d.Status
	o.StatusDetail = d.Code
	if out != nil {
		status = out.Status
		ms := int64(math.Round(out.MS))
		o.StartTime, o.Duration = o.Time, &ms
		if out.Error != "" {
			o.StatusDetail = out.Error
		}
	}
	if status != 0 {
		o.StatusCode = strconv.Itoa(status)
	}
	switch {
	case d.Effect == "deny" || out != nil && (out.Status >= 400 || out.Error != "" || out.Truncated):
		o.StatusID, o.Status, o.SeverityID, o.Severity = 2, "Failure", 2, "Low"
	case out != nil:
		o.StatusID, o.Status = 1, "Success"
	}
}

func actorOf(i Identity) *ocsfActor {
	a := &ocsfActor{AppUID: i.Actor}
	if i.UID == "" {
		a.User = ocsfUser{Name: "anonymous", TypeID: 99, Type: "Anonymous"}
		return a
	}
	a.User = ocsfUser{UID: i.UID, Domain: i.Namespace, Org: named("", i.Tenant), TypeID: 1, Type: "User"}
	a.IDP = named(i.Provider, i.Issuer)
	if s := (ocsfSession{UID: i.TokenHash, Issuer: i.Issuer, CreatedTime: millis(i.AuthTime)}); s != (ocsfSession{}) {
		a.Session = &s
	}
	return a
}

// ocsfMethods are those that http_request.http_method may have.
const ocsfMethods = " CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT TRACE "

func (o *ocsfEvent) http(r *Request, e *Event) {
	src := ocsfEndpoint{IP: r.IP}
	if net.ParseIP(r.IP) == nil { // none, or the network of a summary
		src = ocsfEndpoint{Name: r.IP}
	}
	if src == (ocsfEndpoint{}) {
		src.Name = "unknown"
	}
	o.SrcEndpoint = &src
	if dst := (ocsfEndpoint{Hostname: r.Host, SvcName: orZero(e.Outcome).Upstream}); dst != (ocsfEndpoint{}) {
		o.DstEndpoint = &dst
	}
	if e.Request == nil {
		return
	}
	h := &ocsfHTTPRequest{UID: e.Record, UserAgent: r.UserAgent}
	if r.Method != "" && strings.Contains(ocsfMethods, " "+r.Method+" ") {
		h.HTTPMethod = r.Method
	}
	if r.Path != "" {
		h.URL = &ocsfURL{r.Host, r.Path}
	}
	if out := e.Outcome; out != nil {
		h.BodyLength = &out.BytesIn
		o.HTTPResponse = &ocsfHTTPResponse{out.Status, out.BytesOut}
	}
	o.HTTPRequest = h
}

func objectData(x *Object) map[string]any {
	data := map[string]any{}
	if x.ContentType != "" {
		data["content_type"] = x.ContentType
	}
	if x.Size >= 0 {
		data["size"] = x.Size
	}
	if !x.Expires.IsZero() {
		data["expires"] = x.Expires.UTC().Format(time.RFC3339)
	}
	if x.Session != "" {
		data["session"] = x.Session
	}
	if x.Parts != "" {
		data["parts"] = x.Parts
	}
	return data
}

var lifecycles = map[string]struct {
	id   int
	name string
}{"start": {3, "Start"}, "stop": {4, "Stop"}, "policy_loaded": {8, "Update"}}

// lifecycle is an event of the gateway itself.
func (o *ocsfEvent) lifecycle(e *Event) {
	s := orZero(e.System)
	c, ok := lifecycles[s.Event]
	if !ok {
		c.id, c.name = 99, s.Event
	}
	o.classify(6, 6002, c.id, "Application Lifecycle", "Application Activity", c.name)
	app := o.Metadata.Product
	o.App = &app
	switch s.Event {
	case "start", "stop", "policy_loaded":
		o.StatusID, o.Status = 1, "Success"
	case "policy_refused":
		o.StatusID, o.Status, o.SeverityID, o.Severity = 2, "Failure", 3, "Medium"
	case "repair":
		o.SeverityID, o.Severity = 3, "Medium"
	}
}

// mapped are the parts of a line, and the fields in them, that have a place of
// their own in an OCSF event.
var mapped = map[string][]string{
	"type": {}, "id": {}, "record": {}, "time": {}, "chain": {}, "seq": {}, "prev": {},
	"gateway":  {"name", "version"},
	"request":  {"method", "host", "path", "ip", "user_agent", "trace"},
	"identity": {"namespace", "uid", "actor", "tenant", "issuer", "provider", "auth_time", "token_hash"},
	"decision": {"effect", "route", "rule", "policy"},
	"object":   {"bucket", "key", "operation", "content_type", "size", "expires", "session", "parts"},
	"outcome":  {"status", "bytes_in", "bytes_out", "upstream", "error"},
}

// rest keeps under unmapped what else the line holds, also what a later version
// writes, so that nothing is lost.
func (o *ocsfEvent) rest(raw []byte) {
	var all map[string]json.RawMessage
	if json.Unmarshal(raw, &all) != nil {
		return // plainEvent has read it: it cannot be
	}
	for part, v := range all {
		fields, ok := mapped[part]
		if ok && len(fields) == 0 {
			continue
		}
		var inner map[string]json.RawMessage
		if ok && json.Unmarshal(v, &inner) == nil {
			for _, f := range fields {
				delete(inner, f)
			}
			if len(inner) > 0 {
				o.Unmapped[part] = inner
			}
			continue
		}
		o.Unmapped[part] = v
	}
}

func named(name, uid string) *ocsfNamed {
	if name+uid == "" {
		return nil
	}
	return &ocsfNamed{name, uid}
}

// millis is a time as OCSF's timestamp_t has it; 0 for none.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// appendSafeJSON appends v as a line of JSON that is safe to show on a terminal,
// as the ledger's are: only strings can hold what is not ASCII.
func appendSafeJSON(b []byte, v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return b, err
	}
	for _, r := range buf.String() {
		switch {
		case r == 0x7f || r >= utf8.RuneSelf && unsafeRune(r):
			if r >= 0x10000 {
				b = appendU(b, 0xd800+(r-0x10000)>>10)
				r = 0xdc00 + (r-0x10000)&0x3ff
			}
			b = appendU(b, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b, nil
}
