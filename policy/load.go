package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"sidegate/policy/document"
)

// An Environment is what sidegate.yaml defines: the names that a policy may
// use. Without one, names are not checked and each identity is its own
// namespace.
type Environment struct {
	Identities map[string]string // name -> uid namespace
	Upstreams  map[string]Upstream
	Buckets    map[string]Bucket
	Actors     map[string]bool // the identities of those who act for a user
	AppCheck   bool            // some identity verifies Firebase App Check
	Lookups    bool            // documents can be read
	Shipping   bool            // the audit log goes to Firestore
	// NoAddress: whoever calls has the address of a proxy that is not trusted,
	// so that an address says nothing (Cloud Run without trusted_proxies).
	NoAddress bool
}

// An Upstream is what a policy must know of one.
type Upstream struct {
	// NoIdentity: its headers do not say by which identity a caller was
	// verified, so that it could not tell the uid of one namespace from that of
	// another.
	NoIdentity bool
	// NoActor: its headers do not say who acts for the user, so that what an
	// agent does would look like the user's own doing.
	NoActor bool
	// NoUpgrade: it is asked by a protocol in which no WebSocket can begin.
	NoUpgrade bool
}

// A Bucket is what a policy must know of one: the zero Bucket can do everything.
type Bucket struct {
	Store        string // what keeps it, for errors: aws, r2 and so on
	NoForm       bool   // it takes no form (POST with a policy)
	NoSHA256     bool   // it does not check SHA-256
	NoCRC64      bool   // it does not check CRC-64/NVME
	NoWholeCRC64 bool   // it does not say the CRC-64/NVME of an object that came in parts
	NoConditions bool   // it ignores If-None-Match, so that an object could be replaced
}

// Load reads a policy. The error is document.Errors with every mistake found.
// name is the file's name as it is to stand in errors.
func Load(name string, data []byte, env *Environment) (*Policy, error) {
	p, _, err := load(name, data, env)
	return p, err
}

// faultText begins the mistake that stands for a fault of this program's own.
const faultText = "sidegate failed while it read this file, by a fault of its own: "

// load is Load, and gives the loader to lint. A fault of our own refuses the
// policy: a reload must not end a gateway that runs.
func load(name string, data []byte, env *Environment) (p *Policy, l *loader, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			p, err = nil, document.Errors{{File: name, Text: fmt.Sprint(faultText, fault)}}
		}
	}()
	return loadAll(name, data, env)
}

func loadAll(name string, data []byte, env *Environment) (*Policy, *loader, error) {
	l := &loader{doc: document.New(name, nil), env: env, ids: map[string]document.Value{}, places: map[*Route]document.Value{}, used: map[string]bool{}}
	l.root = l.doc.Parse(data, Version)
	p := l.policy(l.root)
	if err := l.doc.Err(); err != nil {
		return nil, l, err
	}
	sum := sha256.Sum256(data)
	p.SHA256 = hex.EncodeToString(sum[:])
	return p, l, nil
}

// A loader holds what the parts of a file need to know of each other.
type loader struct {
	doc        *document.Document
	root       document.Value
	env        *Environment
	identities []string
	used       map[string]bool // identities that some condition names or means
	claims     map[string]claimType
	vars       map[string]*variable
	lookups    map[string]*lookupFacts
	guards     []*guard
	cel        *compiler // nil until there is an `if`
	optional   bool      // some route takes any token
	ids        map[string]document.Value
	places     map[*Route]document.Value
	// needIdentities: some route has entries, or some condition names identities.
	needIdentities bool
	// unknown are sections that are there and no mapping: what they declare
	// cannot be told, and whatever uses it is not to blame.
	unknown struct{ claims, vars, lookups bool }
}

var (
	policyKeys  = document.Keys{Known: []string{"version", "name", "identities", "claims", "vars", "lookups", "guards", "routes"}}
	routeKeys   = document.Keys{Known: []string{"id", "host", "path", "methods", "allow", "upstream", "serve", "object", "limit", "quota", "audit", "encoded_slash", "websocket", "timeout", "max_body"}}
	quotaKeys   = document.Keys{Known: []string{"bytes", "objects", "window"}}
	orgKeys     = document.Keys{Known: []string{"id", "role"}}
	expiresKeys = document.Keys{Known: []string{"default", "min", "max"}}
	limitKeys   = document.Keys{Known: []string{"rate", "burst", "per", "unavailable"}}
	objectKeys  = document.Keys{Known: []string{"bucket", "key", "prefix", "content_types", "max_bytes", "checksum", "method", "metadata", "expires", "confirm_within", "overwrite", "late", "disposition"}}
)

// notCustom are claims that must not be read past the rules for the uid and
// the e-mail address.
var notCustom = map[string]string{"sub": "auth.uid", "user_id": "auth.uid", "email": "auth.email"}

func (l *loader) policy(root document.Value) *Policy {
	m := root.Map(policyKeys)
	p := &Policy{Name: "policy"}
	if v := m.Get("name"); v.Present() {
		p.Name = v.Name()
	}
	l.readIdentities(m.Get("identities"))
	l.readClaims(m.Get("claims"))
	p.claims = keysOf(l.claims)
	l.readVars(m.Get("vars"))
	for _, key := range []string{"lookups", "guards", "routes"} {
		l.substitute(m.Get(key))
	}
	l.optional = slices.ContainsFunc(m.Get("routes").List(), func(v document.Value) bool { return v.Field("allow").Show() == "optional" })
	l.readLookups(m.Get("lookups"))
	l.readGuards(m.Get("guards"))
	for _, v := range m.Need("routes").List() {
		if r := l.route(v); r != nil {
			p.Routes = append(p.Routes, r)
			l.place(p, r, v)
		}
	}
	l.settle(p)
	l.note(p)
	p.guards, p.identities, p.lookups = l.guards, l.identities, map[string]*Lookup{}
	for name, f := range l.lookups {
		p.lookups[name] = &f.Lookup
	}
	if l.needIdentities && !m.Get("identities").Present() && m.IsMap() {
		m.Errorf("`identities` is missing: name those of sidegate.yaml that the entries of `allow` may let in")
	}
	return p
}

func (l *loader) readIdentities(v document.Value) {
	if v.IsString() {
		v.Strings() // it says what to write
		return
	}
	for _, e := range v.List() {
		name := e.Name()
		switch {
		case name == "":
		case slices.Contains(l.identities, name):
			e.Errorf("identity `%s` is there twice", name)
		default:
			l.identities = append(l.identities, name)
			if l.env != nil {
				if _, ok := l.env.Identities[name]; !ok {
					e.Errorf("identity `%s` is not defined in sidegate.yaml%s", name, document.DidYouMean(name, keysOf(l.env.Identities)))
				}
			}
		}
	}
}

func (l *loader) readClaims(v document.Value) {
	l.claims = map[string]claimType{}
	l.unknown.claims = v.Present() && !v.IsMap()
	for _, e := range v.Entries() {
		if !e.At.CheckIdent(e.Key) {
			continue
		}
		text, isText := e.Value.Text()
		t, ok := parseClaimType(text)
		if use, taken := notCustom[e.Key]; taken {
			e.At.Errorf("claim `%s` cannot be declared: it is read as %s", e.Key, use)
			continue
		}
		if !ok {
			if isText {
				e.Value.Errorf("%q is no type: %s", text, typeHint(text))
			}
			t = claimType{} // declared, as what cannot be told
		}
		l.claims[e.Key] = t
	}
}

// route reads one route; nil where nothing can be made of it.
func (l *loader) route(v document.Value) *Route {
	m := v.Map(routeKeys)
	if !m.IsMap() {
		return nil
	}
	r := &Route{}
	l.places[r] = v
	idValue := m.Need("id")
	r.ID = idValue.Name()
	if first, taken := l.ids[r.ID]; taken && r.ID != "" {
		line, _ := first.Position()
		idValue.Errorf("SG002 route id `%s` is taken by the route in line %d", r.ID, line)
	} else if r.ID != "" {
		l.ids[r.ID] = idValue
	}
	pathOK := l.readPath(m.Need("path"), r)
	r.methods = readMethods(m.Need("methods"))
	r.hosts = readHosts(m.Get("host"))
	if len(r.hosts) == 0 {
		r.hosts = []string{""}
	}
	r.EncodedSlash = m.Get("encoded_slash").OneOf("decode") == "decode"
	r.WebSocket = m.Get("websocket").Bool()
	r.Timeout = m.Get("timeout").DurationIn(time.Millisecond, maxTimeout)
	r.MaxBody = m.Get("max_body").SizeIn(1, maxBody)
	l.readAction(m, r)
	l.readQuota(m.Get("quota"), r)
	l.readObject(m, r)
	l.readAllow(m.Need("allow"), r)
	l.readLimits(m.Get("limit"), r)
	l.readRecord(m.Get("audit"), r)
	l.checkRoute(m, r)
	l.attach(r)
	if !pathOK || r.methods == 0 {
		return nil
	}
	return r
}

func (l *loader) readPath(v document.Value, r *Route) bool {
	p, ok := readPattern(v)
	if ok && (v.Show() == "/.sidegate" || strings.HasPrefix(v.Show(), "/.sidegate/")) {
		v.Errorf("paths under /.sidegate/ are the gateway's own")
		return false
	}
	r.path, r.path.broken = p, !ok
	return ok
}

func readPattern(v document.Value) (pattern, bool) {
	text, ok := v.Text()
	if !ok {
		return pattern{}, false
	}
	p, err := parsePattern(text)
	if err != nil {
		v.Errorf("%s: %v", v.Path(), err)
		return p, false
	}
	return p, true
}

func readHosts(v document.Value) (hosts []string) {
	for _, e := range texts(v) {
		host := e.Show()
		name, wild := strings.CutPrefix(host, "*.")
		if !validName(name) && (wild || !isIPv6(host)) {
			e.Errorf("%q is no host: lower case, without port and final dot, as api.acme.dev, *.acme.dev or [2001:db8::1]", host)
		}
		hosts = append(hosts, host)
	}
	return hosts
}

// texts are the places of a list of non-empty, different strings; whatever
// else is there becomes a mistake.
func texts(v document.Value) []document.Value {
	v.Strings()
	var out []document.Value
	for _, e := range v.List() {
		same := func(other document.Value) bool { return other.Show() == e.Show() }
		if e.IsString() && !e.Failed() && e.Show() != "" && !slices.ContainsFunc(out, same) {
			out = append(out, e)
		}
	}
	return out
}

var nameForm = regexp.MustCompile(`^[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*$`)

func validName(s string) bool { return len(s) <= maxHost && nameForm.MatchString(s) }

// isIPv6 reports whether s is an IPv6 address in brackets, in the form that
// netip gives it: another spelling would never equal a canonical host.
func isIPv6(s string) bool {
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil && addr.Is6() && addr.Zone() == "" && s == "["+addr.String()+"]"
}

func readMethods(v document.Value) methodSet {
	var set methodSet
	for _, e := range texts(v) {
		m := e.Show()
		if upper := strings.ToUpper(m); methodBit(m) == 0 && methodBit(upper) != 0 {
			e.Errorf("%q is no method; did you mean %q?", m, upper)
		} else if methodBit(m) == 0 {
			e.Errorf("%q is no method that can be routed: %s", m, strings.Join(methods[:], ", "))
		}
		set |= methodsOf(m)
	}
	return set
}

// readAction reads what the route leads to: exactly one of upstream and serve.
func (l *loader) readAction(m document.Map, r *Route) {
	up, serve := m.Get("upstream"), m.Get("serve")
	if up.Present() == serve.Present() {
		m.Errorf("a route has exactly one of `upstream` and `serve`")
	}
	if up.Present() {
		r.Upstream = up.Name()
		if l.env != nil && r.Upstream != "" {
			known, ok := l.env.Upstreams[r.Upstream]
			if !ok {
				up.Errorf("upstream `%s` is not defined in sidegate.yaml%s", r.Upstream, document.DidYouMean(r.Upstream, keysOf(l.env.Upstreams)))
			}
			if r.WebSocket && known.NoUpgrade {
				m.Get("websocket").Errorf("upstream `%s` is asked by HTTP/2 without TLS (h2c), which has no WebSocket: give it an http or https url", r.Upstream)
			}
		}
		return
	}
	if !serve.Present() {
		return
	}
	r.Serve = serve.OneOf(served...)
	l.checkServe(m, r)
}

func methodsOf(m string) methodSet {
	bit := methodBit(m)
	if m == "GET" {
		bit |= methodBit("HEAD")
	}
	return bit
}

// What a route may ask of its upstream at most.
const (
	maxTimeout = 24 * time.Hour
	maxBody    = 1 << 40
)

func keysOf[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// place puts the route into the tables of its hosts; routes of one path must
// have different methods.
func (l *loader) place(p *Policy, r *Route, v document.Value) {
	for _, host := range r.hosts {
		g := p.hosts.of(host).place(r.path)
		for _, other := range g.routes {
			if other.methods&r.methods != 0 {
				v.Errorf("SG001 route `%s` overlaps route `%s` in line %d: both take %s %s", r.ID, other.ID, l.line(other), other.methods&r.methods, r.path)
			}
		}
		g.routes = append(g.routes, r)
	}
}

func (l *loader) line(r *Route) int {
	line, _ := l.places[r].Position()
	return line
}

func (l *loader) before(a, b *Route) bool {
	line, column := l.places[a].Position()
	otherLine, otherColumn := l.places[b].Position()
	return line < otherLine || (line == otherLine && column < otherColumn)
}

// settle finds the routes that overlap without one lying within the other.
func (l *loader) settle(p *Policy) {
	report := func(a, b *group, witness string) {
		first, second := a.routes[0], b.routes[0]
		if l.before(second, first) {
			first, second = second, first
		}
		l.places[second].Errorf("SG001 route `%s` overlaps route `%s` in line %d: both match %s, and neither path lies within the other", second.ID, first.ID, l.line(first), witness)
	}
	for _, t := range p.hosts.all() {
		t.settle(report)
	}
}
