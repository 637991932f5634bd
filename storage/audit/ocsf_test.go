package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// What OCSF 1.8.0 allows, of what is written here: facts read from
// github.com/ocsf/ocsf-schema (events/base_event.json,
// events/application/api_activity.json and application_lifecycle.json,
// profiles/security_control.json and trace.json, objects/*.json), in versions
// that hold what its changelog lists for 1.8.0 and not yet what it lists for
// 1.9.0. Of each attribute the type; `!` is required. any is what has no type
// there (json_t, object_t).
var ocsfSchema = map[string]map[string]string{
	"base_event": {
		"activity_id": "int!", "activity_name": "string", "category_uid": "int!", "category_name": "string",
		"class_uid": "int!", "class_name": "string", "type_uid": "int!", "type_name": "string", "severity_id": "int!", "severity": "string",
		"time": "timestamp!", "start_time": "timestamp", "end_time": "timestamp", "duration": "int", "count": "int",
		"status_id": "int", "status": "string", "status_code": "string", "status_detail": "string",
		"metadata": "metadata!", "raw_data_hash": "fingerprint", "unmapped": "any",
	},
	"api_activity": {
		"actor": "actor!", "api": "api!", "src_endpoint": "network_endpoint!", "dst_endpoint": "network_endpoint",
		"http_request": "http_request", "http_response": "http_response", "resources": "[]resource_details",
		// profile security_control
		"action_id": "int", "action": "string", "disposition_id": "int", "disposition": "string", "policy": "policy", "authorizations": "[]authorization",
		// profile trace
		"trace": "trace",
	},
	"application_lifecycle": {"app": "product!"},
	"metadata": {
		"version": "string!", "product": "product!", "profiles": "[]string", "uid": "string", "correlation_uid": "string",
		"log_name": "string", "log_provider": "string", "original_time": "string", "sequence": "int",
	},
	"product":          {"name": "string", "vendor_name": "string", "version": "string"},
	"actor":            {"user": "user", "session": "session", "idp": "idp", "app_uid": "string"},
	"user":             {"uid": "string", "name": "string", "domain": "string", "org": "organization", "type_id": "int", "type": "string"},
	"organization":     {"uid": "string", "name": "string"},
	"session":          {"uid": "string", "issuer": "string", "created_time": "timestamp"},
	"idp":              {"uid": "string", "name": "string"},
	"api":              {"operation": "string!", "service": "service", "request": "request", "response": "response"},
	"service":          {"name": "string", "uid": "string"},
	"request":          {"uid": "string!"},
	"response":         {"code": "int", "error": "string"},
	"network_endpoint": {"ip": "ip", "name": "string", "hostname": "string", "svc_name": "string"},
	"http_request":     {"uid": "string", "http_method": "string", "user_agent": "string", "url": "url", "body_length": "int"},
	"url":              {"hostname": "string", "path": "string"},
	"http_response":    {"code": "int!", "body_length": "int"},
	"resource_details": {"type": "string", "uid": "string", "name": "string", "namespace": "string", "data": "any"},
	"policy":           {"name": "string", "uid": "string"},
	"authorization":    {"decision": "string", "policy": "policy"},
	"trace":            {"uid": "string!"},
	"fingerprint":      {"algorithm_id": "int!", "algorithm": "string", "value": "string!"},
}

// ocsfOneOf are objects of which at least one of some attributes has to be there.
var ocsfOneOf = map[string][]string{
	"actor": {"user", "session", "app_uid"}, "user": {"name", "uid"}, "network_endpoint": {"ip", "name", "hostname", "svc_name"},
	"policy": {"name", "uid"}, "idp": {"name", "uid"}, "product": {"name", "uid"}, "url": {"path"},
	"resource_details": {"name", "uid"}, "organization": {"name", "uid"},
}

// ocsfEnums are the captions that go with identifiers. 99 has any.
var ocsfEnums = map[string]map[int]string{
	"severity_id":            {0: "Unknown", 1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical", 6: "Fatal"},
	"status_id":              {0: "Unknown", 1: "Success", 2: "Failure"},
	"action_id":              {0: "Unknown", 1: "Allowed", 2: "Denied", 3: "Observed", 4: "Modified"},
	"disposition_id":         {0: "Unknown", 1: "Allowed", 2: "Blocked", 17: "Logged"},
	"user.type_id":           {0: "Unknown", 1: "User", 2: "Admin", 3: "System", 4: "Service"},
	"fingerprint.id":         {3: "SHA-256"},
	"api_activity.id":        {0: "Unknown", 1: "Create", 2: "Read", 3: "Update", 4: "Delete"},
	"application_lifecycle.": {3: "Start", 4: "Stop", 5: "Restart", 8: "Update"},
}

type ocsfChecker struct{ bad []string }

func (c *ocsfChecker) badf(format string, args ...any) {
	c.bad = append(c.bad, fmt.Sprintf(format, args...))
}

func (c *ocsfChecker) event(e map[string]any) {
	attributes := maps.Clone(ocsfSchema["base_event"])
	class, category, enum := int(e["class_uid"].(float64)), 6, ""
	switch class {
	case 6003:
		maps.Copy(attributes, ocsfSchema["api_activity"])
		enum = "api_activity.id"
		for profile, attribute := range map[string]string{"security_control": "action_id", "trace": "trace"} {
			profiles, _ := e["metadata"].(map[string]any)["profiles"].([]any)
			if _, has := e[attribute]; has != slices.Contains(profiles, any(profile)) {
				c.badf("profile %s and attribute %s do not go together", profile, attribute)
			}
		}
	case 6002:
		maps.Copy(attributes, ocsfSchema["application_lifecycle"])
		enum = "application_lifecycle."
	case 0:
		category = 0
	default:
		c.badf("class %d", class)
	}
	c.object("event", attributes, e)
	activity := int(e["activity_id"].(float64))
	if int(e["category_uid"].(float64)) != category || int(e["type_uid"].(float64)) != class*100+activity {
		c.badf("category_uid or type_uid")
	}
	c.caption(enum, e["activity_id"], e["activity_name"])
	for _, name := range []string{"severity", "status", "action", "disposition"} {
		c.caption(name+"_id", e[name+"_id"], e[name])
	}
}

func (c *ocsfChecker) caption(enum string, id, caption any) {
	n, ok := id.(float64)
	if !ok || n == 99 && caption != "" {
		return
	}
	if want, known := ocsfEnums[enum][int(n)]; !known || want != caption {
		c.badf("%s %v has the caption %v", enum, id, caption)
	}
}

func (c *ocsfChecker) object(name string, attributes map[string]string, o map[string]any) {
	for k, v := range o {
		typ, known := attributes[k]
		if !known {
			c.badf("%s has no attribute %s", name, k)
		}
		c.value(name+"."+k, strings.TrimSuffix(typ, "!"), v)
	}
	for k, typ := range attributes {
		if _, has := o[k]; !has && strings.HasSuffix(typ, "!") {
			c.badf("%s lacks %s", name, k)
		}
	}
	if some := ocsfOneOf[name]; len(some) > 0 && !slices.ContainsFunc(some, func(k string) bool { return o[k] != nil }) {
		c.badf("%s has none of %v", name, some)
	}
	switch name {
	case "user":
		c.caption("user.type_id", o["type_id"], o["type"])
	case "fingerprint":
		c.caption("fingerprint.id", o["algorithm_id"], o["algorithm"])
	}
}

func (c *ocsfChecker) value(name, typ string, v any) {
	ok := true
	if element, list := strings.CutPrefix(typ, "[]"); list {
		for _, x := range v.([]any) {
			c.value(name, element, x)
		}
		return
	}
	switch typ {
	case "any":
	case "string":
		_, ok = v.(string)
	case "ip":
		s, _ := v.(string)
		_, err := netip.ParseAddr(s)
		ok = err == nil
	case "int", "timestamp":
		n, isNumber := v.(float64)
		ok = isNumber && n == float64(int64(n)) && (typ == "int" || n > 1e12) // milliseconds, not seconds
	default:
		o, isObject := v.(map[string]any)
		if attributes, known := ocsfSchema[typ]; known && isObject {
			c.object(typ, attributes, o)
			return
		}
		ok = false
	}
	if !ok {
		c.badf("%s: %v is not a %s", name, v, typ)
	}
}

// ocsfOf checks what is written for a request, and returns it.
func ocsfOf(t testing.TB, events ...*Event) (map[string]any, []byte) {
	t.Helper()
	lines := linesOf(t, events...)
	j := Joined{Decision: lines[0]}
	if len(lines) > 1 {
		j.Outcome = lines[1]
	}
	return checkOCSF(t, &j)
}

func checkOCSF(t testing.TB, j *Joined) (map[string]any, []byte) {
	t.Helper()
	b, err := AppendOCSF([]byte("x"), j)
	if err != nil || b[0] != 'x' {
		t.Fatalf("%q, %v", b, err)
	}
	b = b[1:]
	var e map[string]any
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	if bytes.IndexByte(b, '\n') != len(b)-1 || !utf8.Valid(b) {
		t.Errorf("not one line of UTF-8: %q", b)
	}
	for _, r := range string(b[:len(b)-1]) {
		if r < ' ' || r == 0x7f || r >= utf8.RuneSelf && unsafeRune(r) {
			t.Errorf("%U is not escaped", r)
		}
	}
	var c ocsfChecker
	c.event(e)
	for _, bad := range c.bad {
		t.Errorf("%s\n%s", bad, b)
	}
	return e, b
}

func TestOCSF(t *testing.T) {
	full := everything("s")
	full.Type, full.Outcome, full.System, full.Summary = TypeDecision, nil, nil, nil
	full.Decision.Effect, full.Request.IP, full.Request.Method, full.Object.Operation = "allow", "192.0.2.7", "PUT", "put"
	e, b := ocsfOf(t, full, &Event{Type: TypeOutcome, Record: full.Record, Outcome: &Outcome{Status: 200, BytesIn: 3, BytesOut: 4, MS: 1.6, Upstream: "app"}})
	for path, want := range map[string]any{
		"type_uid": 600301.0, "action_id": 1.0, "status_id": 1.0, "status_code": "200", "duration": 2.0,
		"actor.user.uid": "s", "actor.user.domain": "s", "actor.app_uid": "s", "actor.session.uid": "s", "actor.idp.uid": "s",
		"api.operation": "put", "api.response.code": 200.0, "http_response.body_length": 4.0, "http_request.body_length": 3.0,
		"dst_endpoint.svc_name": "app", "src_endpoint.ip": "192.0.2.7", "metadata.correlation_uid": "s", "trace.uid": "s",
		"unmapped.decision.code": "s", "unmapped.outcome.ms": 1.6,
	} {
		if got := at(e, path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if at(e, "unmapped.decision.inputs") == nil || at(e, "unmapped.decision.shadow") == nil || at(e, "unmapped.request.query_keys") == nil {
		t.Errorf("the rest is not there: %s", b)
	}
}

// at is the value at a path of names.
func at(e any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		m, _ := e.(map[string]any)
		e = m[name]
	}
	return e
}

func TestOCSFOfLess(t *testing.T) {
	e, _ := ocsfOf(t, &Event{Type: TypeDecision, Record: "a", Request: &Request{Method: "BREW", IP: "192.0.2.7"}, Decision: &Decision{Effect: "deny", Status: 401, Code: "no_token"}})
	if e["status_id"] != 2.0 || e["status_code"] != "401" || at(e, "unmapped.outcome") != "unknown" || at(e, "actor.user.name") != "anonymous" ||
		e["activity_id"] != 99.0 || e["activity_name"] != "BREW" || at(e, "http_request.http_method") != nil || e["disposition"] != "Blocked" {
		t.Errorf("%v", e)
	}
	e, _ = ocsfOf(t, &Event{Type: TypeDecision, Record: "a", Decision: &Decision{Effect: "allow"}})
	if e["status_id"] != 0.0 || at(e, "src_endpoint.name") != "unknown" {
		t.Errorf("an outcome is known: %v", e)
	}
	e, _ = ocsfOf(t, &Event{Type: TypeDecision, Record: "a", Decision: &Decision{Effect: "preflight"}}, ended("a", 204))
	if e["action"] != "Observed" {
		t.Errorf("%v", e)
	}
	e, _ = ocsfOf(t, &Event{Type: TypeDecision, Record: "a", Decision: &Decision{Effect: "allow"}}, &Event{Type: TypeOutcome, Record: "a", Outcome: &Outcome{Status: 200, Truncated: true}})
	if e["status_id"] != 2.0 || at(e, "unmapped.outcome.truncated") != true {
		t.Errorf("%v", e)
	}
	for event, activity := range map[string]float64{"start": 3, "stop": 4, "policy_loaded": 8, "policy_refused": 99, "repair": 99, "something new": 99} {
		e, _ = ocsfOf(t, &Event{Type: TypeSystem, System: &System{Event: event, Detail: map[string]string{"k": "v"}}})
		if e["class_uid"] != 6002.0 || e["activity_id"] != activity || at(e, "unmapped.system.detail.k") != "v" {
			t.Errorf("%v", e)
		}
	}
	e, _ = ocsfOf(t, &Event{Type: "later", Record: "a"})
	if e["class_uid"] != 0.0 || at(e, "unmapped.line.record") != "a" {
		t.Errorf("%v", e)
	}
}

func TestOCSFOfASummary(t *testing.T) {
	e, _ := ocsfOf(t, &Event{Type: TypeDecision, Request: &Request{IP: "2001:db8::/64"}, Decision: &Decision{Effect: "deny"},
		Summary: &Summary{Repeated: 120, Source: SourceIP, From: noon, To: noon.Add(time.Minute), Codes: map[string]int{"no_token": 120}}})
	if e["count"] != 120.0 || e["end_time"].(float64)-e["start_time"].(float64) != 60_000 || at(e, "src_endpoint.name") != "2001:db8::/64" ||
		at(e, "unmapped.summary.codes.no_token") != 120.0 || at(e, "unmapped.outcome") != nil {
		t.Errorf("%v", e)
	}
}

// TestOCSFKeepsBytes: what no JSON can hold stays recoverable.
func TestOCSFKeepsBytes(t *testing.T) {
	const uid = "u\xff\\x41\x1b[2J\u202e\u0085\U000e0041\""
	e, _ := ocsfOf(t, &Event{Type: TypeDecision, Record: "a", Identity: &Identity{UID: uid}, Decision: &Decision{Effect: "allow"}})
	if got := Unescape(at(e, "actor.user.uid").(string)); got != uid {
		t.Errorf("%q, want %q", got, uid)
	}
}

// TestOCSFKeepsNumbers: a claim may be a number that no float can hold.
func TestOCSFKeepsNumbers(t *testing.T) {
	for _, n := range []json.Number{"1e400", "-1e-999", "12345678901234567890123"} {
		inputs := map[string]any{"claims": map[string]any{"n": n}}
		lines := linesOf(t, &Event{Type: TypeDecision, Record: "a", Decision: &Decision{Effect: "allow", Inputs: inputs}})
		text, err := AppendOCSF(nil, &Joined{Decision: lines[0]})
		if err != nil || !bytes.Contains(text, []byte(`"n":`+string(n)+"}")) {
			t.Errorf("%s became %s, %v", n, text, err)
		}
	}
}

// FuzzOCSF: whatever is on record, what is written is valid.
func FuzzOCSF(f *testing.F) {
	f.Add("s", 200)
	f.Add("\xff\x1b[2J\u202e\\x41", -1)
	f.Fuzz(func(t *testing.T, s string, status int) {
		e := everything(s)
		e.Type, e.Outcome, e.System, e.Summary = TypeDecision, nil, nil, nil
		e.Request.IP, e.Request.Method = s, s
		ocsfOf(t, e, &Event{Type: TypeOutcome, Record: s, Outcome: &Outcome{Status: status, Error: s}})
	})
}

func BenchmarkOCSF(b *testing.B) {
	e := everything("s")
	e.Type, e.Outcome, e.System, e.Summary = TypeDecision, nil, nil, nil
	lines := linesOf(b, e, &Event{Type: TypeOutcome, Record: e.Record, Outcome: &Outcome{Status: 200}})
	var buf []byte
	for b.Loop() {
		var err error
		if buf, err = AppendOCSF(buf[:0], &Joined{Decision: lines[0], Outcome: lines[1]}); err != nil {
			b.Fatal(err)
		}
	}
}
