package trial

import (
	"encoding/json"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"sidegate/policy"
	"sidegate/policy/document"
)

// TestVersion is the format of test files.
const TestVersion = "sidegate-test/v1"

// A File is one *_test.yaml: what a policy is to decide.
type File struct {
	Name   string
	Policy string // as the file names it, relative to the file
	Now    time.Time
	Tests  []Test

	fixtures fixtures
	reader   reader
}

// A Test is a group of cases.
type Test struct {
	Name         string
	Line, Column int
	Cases        []Case
}

// A Case is one request and what is to become of it.
type Case struct {
	Line, Column int
	Request      Request
	As           string // the fixture's name, or nobody
	Times        int    // how often the request is made; the last one counts

	Expect Expectation
}

// An Expectation is what a case wants to see. Zero fields want nothing.
type Expectation struct {
	Allow  bool
	Status int // of a refusal; 0 where it is to be allowed
	By     string
	Reason string
	Key    string // a pattern of package path
	Shadow map[string]string
}

// fixtures are what the cases' requests are made from.
type fixtures struct {
	identities map[string]document.Value
	documents  map[string]fixtureDocument // by lookup, a zero byte, and the document's name
}

type fixtureDocument struct {
	doc         policy.Document
	unavailable bool
}

// Names of a test file's keys: docs/policy-tests.md explains each.
var (
	fileKeys     = document.Keys{Known: []string{"version", "policy", "now", "identities", "lookups", "tests"}}
	identityKeys = document.Keys{Known: []string{"from", "uid", "actor", "tenant", "provider", "email", "email_verified", "claims", "mfa", "signed_in", "app_check"}}
	testKeys     = document.Keys{Known: []string{"name", "as", "host", "ip", "at", "cases"}}
	caseKeys     = document.Keys{Known: append(slices.Clone(methodKeys), "as", "host", "ip", "at", "body", "times", "expect", "by", "reason", "key", "shadow"), Hints: map[string]string{
		"path": targetHint, "url": targetHint, "target": targetHint, "method": targetHint, "status": "write `expect: allow`, `deny` or a status",
	}}
)

const targetHint = "the target goes beside the method, as `get: /x`"

var methodKeys = []string{"get", "head", "post", "put", "patch", "delete", "options"}

const (
	nobody      = "nobody"
	defaultHost = "gateway.test"
	maxTimes    = 10_000
)

var defaultIP = netip.MustParseAddr("192.0.2.1")

// ReadPolicyName gives the policy that a test file names, without reading the
// rest of it: which policy it is decides how the rest is read.
func ReadPolicyName(name string, data []byte) (string, error) {
	d := document.New(name, nil)
	root := d.Parse(data, TestVersion)
	v := root.Map(fileKeys).Need("policy")
	text, ok := v.Text()
	if ok && text == "" {
		v.Errorf("`policy` is empty")
	}
	return text, d.Err()
}

// ReadTests reads a test file for the policy that it names. namespaces are the
// uid namespaces of identities, where a sidegate.yaml says so. The error is
// document.Errors.
func ReadTests(name string, data []byte, p *policy.Policy, namespaces map[string]string) (*File, error) {
	d := document.New(name, nil)
	root := d.Parse(data, TestVersion)
	r := reader{p: p, namespaces: namespaces}
	f := r.file(root.Map(fileKeys))
	f.Name = name
	if err := d.Err(); err != nil {
		return nil, err
	}
	f.reader = r
	return f, nil
}

// Caller is a caller of the file's `identities` as it is at a time; ok is false
// where there is none of the name.
func (f *File) Caller(name string, at time.Time) (id *policy.Identity, appCheck, ok bool) {
	v, ok := f.fixtures.identities[name]
	if !ok {
		return nil, false, false
	}
	id, appCheck = f.reader.identity(v, at)
	return id, appCheck, true
}

// Callers are the names of the file's `identities`.
func (f *File) Callers() []string { return sortedKeys(f.fixtures.identities) }

// Lookups are the documents that the file has.
func (f *File) Lookups() policy.Lookups { return &f.fixtures }

// ReadIdentity reads a caller as `identities` has them, written in a line. The
// error is document.Errors of the file `name`.
func ReadIdentity(name, text string, p *policy.Policy, namespaces map[string]string, at time.Time) (id *policy.Identity, appCheck bool, err error) {
	d := document.New(name, nil)
	r := reader{p: p, namespaces: namespaces}
	id, appCheck = r.identity(d.Parse([]byte("{version: "+TestVersion+", identity: "+text+"}"), TestVersion).Field("identity"), at)
	return id, appCheck, d.Err()
}

// A reader reads one test file.
type reader struct {
	p          *policy.Policy
	namespaces map[string]string
	now        time.Time
	f          *File
}

func (r *reader) file(m document.Map) *File {
	r.f = &File{Policy: m.Get("policy").String(), fixtures: fixtures{map[string]document.Value{}, map[string]fixtureDocument{}}}
	r.now = m.Need("now").Time()
	r.f.Now = r.now
	for _, e := range m.Get("identities").Entries() {
		if e.At.CheckName(e.Key) && e.Key == nobody {
			e.At.Errorf("`nobody` is a caller without a token; choose another name")
			continue
		}
		r.f.fixtures.identities[e.Key] = e.Value
		r.identity(e.Value, r.now) // its mistakes, also where no case uses it
	}
	r.lookups(m.Get("lookups"))
	for _, v := range m.Need("tests").List() {
		r.test(v)
	}
	return r.f
}

// identity makes a fixture's identity as it is at a time.
func (r *reader) identity(v document.Value, at time.Time) (*policy.Identity, bool) {
	keys := identityKeys
	keys.Hints = map[string]string{}
	for _, claim := range r.p.Claims() {
		keys.Hints[claim] = "a token's claims go under `claims: {" + claim + ": …}`"
	}
	m := v.Map(keys)
	from := m.Need("from")
	id := &policy.Identity{Name: from.String(), UID: m.Need("uid").String(), Claims: policy.ClaimMap{}, Expires: at.Add(time.Hour)}
	if from.Present() && !slices.Contains(r.p.Identities(), id.Name) {
		from.Errorf("identity %q is not in the policy's `identities`%s", id.Name, document.DidYouMean(id.Name, r.p.Identities()))
	}
	if id.UID == "" && m.Get("uid").IsString() {
		m.Get("uid").Errorf("`uid` is empty: no token has such a caller; `nobody` is one without a token")
	}
	id.Namespace = id.Name
	if ns := r.namespaces[id.Name]; ns != "" {
		id.Namespace = ns
	}
	id.Actor, id.Tenant, id.Provider, id.Email = m.Get("actor").String(), m.Get("tenant").String(), m.Get("provider").String(), m.Get("email").String()
	id.EmailVerified = m.Get("email_verified").Bool()
	r.checkClaims(m.Get("claims"))
	if claims, ok := m.Get("claims").Plain().(map[string]any); ok {
		id.Claims = policy.ClaimMap(claims)
	} else {
		m.Get("claims").Entries()
	}
	age := time.Hour
	if mfa := m.Get("mfa"); mfa.Present() {
		age, id.SecondFactor = mfa.Duration(), "phone"
	}
	if s := m.Get("signed_in"); s.Present() {
		age = s.Duration()
	}
	id.AuthTime = at.Add(-age)
	return id, m.Get("app_check").Bool()
}

// checkClaims refuses a claim that is certainly misspelt. Others that the policy
// does not declare are taken: real tokens have them.
func (r *reader) checkClaims(v document.Value) {
	declared := r.p.Claims()
	for _, e := range v.Entries() {
		near := document.Near(e.Key, declared)
		if near != "" && near != e.Key && !slices.Contains(declared, e.Key) && !v.Field(near).Present() {
			e.At.Errorf("the policy declares no claim `%s`; did you mean %q?", e.Key, near)
		}
	}
}

// lookups reads the documents that there are: each names its lookup, and what
// the document is named by.
func (r *reader) lookups(v document.Value) {
	all := r.p.Lookups()
	for _, e := range v.List() {
		r.lookup(e, all)
	}
}

func (r *reader) lookup(v document.Value, all map[string]*policy.Lookup) {
	var of *policy.Lookup
	var name string
	for _, field := range v.Entries() {
		l := all[field.Key]
		if l == nil || (of != nil && slices.Contains(of.Fields, field.Key)) {
			continue
		}
		if of != nil {
			field.At.Errorf("a document is of one lookup, and `%s` was named already", of.Name)
			return
		}
		of = l
		value, ok := field.Value.Text()
		document, err := l.Named(value)
		if ok && err != nil {
			field.Value.Errorf("%q %v", value, err)
		}
		name = document
	}
	if of == nil {
		v.Errorf("names no lookup of the policy; write `LOOKUP: what its document is named by` and the fields it has")
		return
	}
	doc := fixtureDocument{doc: policy.Document{Exists: true, Fields: map[string]any{}}}
	for _, field := range v.Entries() {
		switch {
		case field.Key == of.Name:
		case slices.Contains(of.Fields, field.Key):
			doc.doc.Fields[field.Key] = documentValue(field.Value)
		case field.Key == "unavailable":
			doc.unavailable = field.Value.Bool()
		default:
			field.At.Errorf("lookup `%s` has no field `%s`%s", of.Name, field.Key, document.DidYouMean(field.Key, of.Fields))
		}
	}
	if doc.unavailable && len(doc.doc.Fields) > 0 {
		v.Errorf("a document that is `unavailable: true` cannot be read, so that it has no fields: leave one of the two out")
	}
	key := of.Name + "\x00" + name
	if _, twice := r.f.fixtures.documents[key]; twice {
		v.Errorf("lookup `%s` has this document twice", of.Name)
	}
	r.f.fixtures.documents[key] = doc
}

// documentValue is a fixture's value as Firestore would give it.
func documentValue(v document.Value) any {
	if v.IsTime() {
		return v.Time()
	}
	if v.IsList() {
		out := []any{}
		for _, e := range v.List() {
			out = append(out, documentValue(e))
		}
		return out
	}
	if v.IsMap() {
		out := map[string]any{}
		for _, e := range v.Entries() {
			out[e.Key] = documentValue(e.Value)
		}
		return out
	}
	if n, ok := v.Plain().(json.Number); ok {
		if i, err := n.Int64(); err == nil {
			return i
		}
		f, _ := n.Float64()
		return f
	}
	return v.Plain()
}

// Lookup gives a fixture's document (policy.Lookups).
func (f *fixtures) Lookup(l *policy.Lookup, name string) (policy.Document, error) {
	d := f.documents[l.Name+"\x00"+name]
	if d.unavailable {
		return policy.Document{}, errUnavailable
	}
	return d.doc, nil
}

func (r *reader) test(v document.Value) {
	m := v.Map(testKeys)
	if !m.IsMap() {
		return
	}
	t := Test{Name: m.Need("name").String()}
	t.Line, t.Column = v.Position()
	for _, c := range m.Need("cases").List() {
		if c, ok := r.testCase(c, m); ok {
			t.Cases = append(t.Cases, c)
		}
	}
	r.f.Tests = append(r.f.Tests, t)
}

// testCase reads one case; what it leaves out is its test's.
func (r *reader) testCase(v document.Value, test document.Map) (Case, bool) {
	m := v.Map(caseKeys)
	if !m.IsMap() {
		return Case{}, false
	}
	c := Case{Times: 1, Request: Request{Host: defaultHost, IP: defaultIP, Time: r.now, Lookups: &r.f.fixtures}}
	c.Line, c.Column = v.Position()
	either := func(key string) document.Value {
		if own := m.Get(key); own.Present() {
			return own
		}
		return test.Get(key)
	}
	r.readTarget(v, m, &c.Request)
	if h := either("host"); h.Present() {
		c.Request.Host = h.String()
	}
	if ip := either("ip"); ip.Present() {
		addr, err := netip.ParseAddr(ip.String())
		if err != nil {
			ip.Errorf("%q is no IP address", ip.Show())
		}
		c.Request.IP = addr
	}
	if at := either("at"); at.Present() {
		c.Request.Time = at.Time()
	}
	r.readAs(either("as"), v, &c)
	r.readBody(m.Get("body"), &c.Request)
	if t := m.Get("times"); t.Present() {
		c.Times = int(t.Int(1, maxTimes))
	}
	r.readExpect(m, &c.Expect)
	return c, true
}

func (r *reader) readTarget(v document.Value, m document.Map, q *Request) {
	for _, key := range methodKeys {
		target := m.Get(key)
		if !target.Present() {
			continue
		}
		if q.Method != "" {
			target.Errorf("a case is one request, and it has `%s` already", strings.ToLower(q.Method))
		}
		q.Method, q.Target = strings.ToUpper(key), target.String()
	}
	if q.Method == "" {
		v.Errorf("a case names its request: get, head, post, put, patch, delete or options, and the target")
	}
}

func (r *reader) readAs(as, at document.Value, c *Case) {
	c.As = as.String()
	if as.Present() && !as.IsString() {
		return // refused already
	}
	if !as.Present() {
		at.Errorf("`as` is missing: name a caller of `identities`, or nobody")
		return
	}
	if c.As == nobody {
		return
	}
	who, ok := r.f.fixtures.identities[c.As]
	if !ok {
		names := append(sortedKeys(r.f.fixtures.identities), nobody)
		as.Errorf("there is no caller `%s` in `identities`%s", c.As, document.DidYouMean(c.As, names))
		return
	}
	c.Request.Identity, c.Request.AppCheck = r.identity(who, c.Request.Time)
}

func (r *reader) readBody(v document.Value, q *Request) {
	if !v.Present() {
		return
	}
	if v.IsString() {
		q.Body = []byte(v.String())
		return
	}
	body, err := json.Marshal(v.Plain())
	if err != nil {
		v.Errorf("`body`: %v", err)
	}
	q.Body = body
}

var statusForm = regexp.MustCompile(`^[45]\d\d$`)

func (r *reader) readExpect(m document.Map, e *Expectation) {
	want := m.Need("expect")
	switch {
	case want.IsInt() && len(want.Show()) == 3 && want.Show() < "400":
		want.Errorf("`%s`: what is allowed has the app's status: write allow", want.Path())
	case want.IsInt():
		e.Status = int(want.Int(400, 599))
	case want.IsString() && statusForm.MatchString(want.Show()):
		want.Errorf("`%s`: a status is written without quotes: %s", want.Path(), want.Show())
	default:
		switch want.OneOf("allow", "deny") {
		case "allow":
			e.Allow = true
		case "deny":
			e.Status = 403
		}
	}
	e.By, e.Reason, e.Key = m.Get("by").String(), m.Get("reason").String(), m.Get("key").String()
	if _, err := path.Match(e.Key, ""); err != nil {
		m.Get("key").Errorf("`key`: %q is no pattern", e.Key)
	}
	if by := m.Get("by"); by.Present() {
		r.checkBy(by, e.By)
	}
	for _, s := range m.Get("shadow").Entries() {
		if e.Shadow == nil {
			e.Shadow = map[string]string{}
		}
		if !slices.Contains(r.p.DryRuns(), s.Key) {
			s.At.Errorf("`%s` is no guard or entry in dry_run%s", s.Key, document.DidYouMean(s.Key, r.p.DryRuns()))
		}
		e.Shadow[s.Key] = s.Value.OneOf(policy.ShadowAllow, policy.ShadowDeny, policy.ShadowPass, policy.ShadowError)
	}
}

// checkBy refuses a rule that there is not: such an expectation could never
// hold, or, of a refusal, says nothing.
func (r *reader) checkBy(v document.Value, by string) {
	var names []string
	for _, rule := range r.p.Rules() {
		names = append(names, rule.ID)
	}
	for _, route := range r.p.Routes {
		names = append(names, route.ID)
	}
	if !slices.Contains(names, by) {
		v.Errorf("the policy has no rule `%s`: a guard's id, route/entry, or a route's id%s", by, document.DidYouMean(by, names))
	}
}
