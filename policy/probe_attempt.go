package policy

import (
	"errors"
	"maps"
	"net/netip"
	"strings"
	"time"
)

// What attempts begin with. The day is a Monday, at noon.
var (
	probeTime = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	probeIP   = netip.MustParseAddr("192.0.2.1")
)

const (
	probeHost  = "gateway.test"
	probeUID   = "uid-1"
	otherUID   = "uid-2"
	probeEmail = "uid-1@example.test"
	probeUUID  = "00000000000000000000000000000000"
	// A caller who asks for no type in particular.
	probeType = "image/png"
)

var errProbeUnavailable = errors.New("the probe says that it is unavailable")

// An attempt is a probe in the making: a request to one route, as what its
// parts are made from. It is a value: whoever changes one of its maps puts
// another in its place.
type attempt struct {
	method, host string
	params       map[string]string // of the route's captures
	slash        bool              // behind the path
	encodedSlash bool
	websocket    bool
	length       int64
	nobody       bool
	who          caller
	ip           netip.Addr
	at           time.Time
	appCheck     bool
	docs         map[string]ProbeDocument // by lookup
	contentType  string                   // of an upload
	size         *int64
	checksum     bool
	crc64        bool // it is a CRC-64/NVME
	expires      *int64
	key          string // that the body names
	prefix       string // that is to be listed
}

// A caller is who makes an attempt.
type caller struct {
	name, uid, actor, tenant, provider, email, secondFactor string

	verified bool
	age      time.Duration // of the sign-in
	ageless  bool          // the token does not say
	claims   map[string]any
}

func (c *caller) identity(now time.Time) *Identity {
	id := &Identity{
		Name: c.name, Namespace: c.name, UID: c.uid, Actor: c.actor, Tenant: c.tenant, Provider: c.provider, Email: c.email,
		EmailVerified: c.verified, SecondFactor: c.secondFactor, Claims: ClaimMap(c.claims), Expires: now.Add(time.Hour),
	}
	if !c.ageless {
		id.AuthTime = now.Add(-c.age)
	}
	return id
}

func (a *attempt) setClaim(name string, v any) {
	a.who.claims = with(a.who.claims, name, v)
}

func (a *attempt) dropClaim(name string) { a.who.claims = without(a.who.claims, name) }

func (a *attempt) setParam(name, v string) { a.params = with(a.params, name, v) }

func (a *attempt) setDoc(lookup string, d ProbeDocument) { a.docs = with(a.docs, lookup, d) }

func with[V any](m map[string]V, key string, v V) map[string]V {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]V{}
	}
	out[key] = v
	return out
}

func without[V any](m map[string]V, key string) map[string]V {
	out := maps.Clone(m)
	delete(out, key)
	return out
}

// Lookup gives the documents while an attempt is made: by lookup, whatever they
// are named.
func (a *attempt) Lookup(l *Lookup, _ string) (Document, error) {
	d := a.docs[l.Name]
	if d.Unavailable {
		return Document{}, errProbeUnavailable
	}
	return d.Document, nil
}

// path is the attempt's path on the route; not ok where no request has it.
func (a *attempt) path(p *pattern) (string, bool) {
	var b strings.Builder
	for _, s := range p.prefix {
		v := s.literal
		if s.captures() {
			if v = a.params[s.name]; v == "" || strings.Contains(v, "/") {
				return "", false
			}
		}
		b.WriteString("/" + v)
	}
	if rest := a.params[p.restName]; p.rest && rest != "" {
		b.WriteString("/" + rest)
	}
	for _, s := range p.suffix {
		b.WriteString("/" + s)
	}
	if b.Len() == 0 {
		return "/", true
	}
	if a.slash {
		b.WriteByte('/')
	}
	return b.String(), canonicalPath(b.String())
}

// canonicalPath reports whether a request can have the path: what is not so is
// refused before any policy is asked.
func canonicalPath(path string) bool {
	return len(path) <= maxPath && cleanText(path) && !strings.ContainsAny(path, "\\;?#%") &&
		!strings.Contains(path, "//") && !strings.Contains(path+"/", "/./") && !strings.Contains(path+"/", "/../")
}

// input is the attempt as the policy is asked; not ok where it is no request of
// the route.
func (s *scene) input(a *attempt) (*Input, bool) {
	path, ok := a.path(&s.route.path)
	if !ok {
		return nil, false
	}
	m := s.policy.Match(a.host, path, a.method)
	if m.Route != s.route {
		return nil, false
	}
	in := &Input{
		Route: m.Route, Params: m.Params, Host: a.host, Path: path, Method: a.method,
		IP: a.ip, Time: a.at, AppCheck: a.appCheck, Lookups: a, UUID: probeUUID,
	}
	if !a.nobody && s.route.Access != AccessPublic {
		in.Identity = a.who.identity(a.at)
	}
	if s.begins(a) {
		u := s.upload(a)
		in.Ext, in.Size, in.ContentType = u.Ext(), u.Size, u.MediaType()
	}
	in.BodyKey, in.Prefix = a.key, a.prefix
	in.makeKey()
	return in, true
}

func (s *scene) upload(a *attempt) *UploadRequest {
	u := &UploadRequest{ContentType: a.contentType, Size: a.size, Expires: a.expires}
	empty := a.size != nil && *a.size == 0
	switch {
	case a.checksum && s.route.Object.parted && s.route.Object.NeedChecksum == "sha256":
		u.PartChecksums = "sha256"
	case a.checksum && a.crc64 && empty:
		u.ChecksumCRC64 = emptyCRC64
	case a.checksum && a.crc64:
		u.ChecksumCRC64 = "rosUhgp5mIg=" // of "123456789"
	case a.checksum:
		u.ChecksumSHA256 = emptySum
		if !empty {
			u.ChecksumSHA256 = "LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564=" // of "foo"
		}
	}
	return u
}

// probe is the finished attempt; nil where there is no such request.
func (s *scene) probe(a *attempt, about string) *Probe {
	path, ok := a.path(&s.route.path)
	if !ok {
		return nil
	}
	p := &Probe{
		About: about, Method: a.method, Host: a.host, Path: path, WebSocket: a.websocket, Length: a.length,
		IP: a.ip, Time: a.at, AppCheck: a.appCheck,
	}
	if !a.nobody {
		p.Identity = a.who.identity(a.at)
	}
	if rest := a.params[s.route.path.restName]; a.encodedSlash {
		p.EncodedSlash = max(strings.LastIndex(path, rest), 0) + max(strings.LastIndexByte(rest, '/'), 0)
	}
	p.Serve, p.Key, p.Prefix = s.route.Serve, a.key, a.prefix
	switch {
	case s.begins(a):
		p.Upload = s.upload(a)
	case s.route.operation().signsURLs():
		p.Expires = a.expires
	}
	p.Documents = s.documents(a)
	return p
}

// documents are the attempt's by their own names, as the conditions of the
// route and of its guards name them.
func (s *scene) documents(a *attempt) map[string]ProbeDocument {
	if len(a.docs) == 0 {
		return nil
	}
	in, ok := s.input(a)
	if !ok {
		return nil
	}
	out := map[string]ProbeDocument{}
	s.eachCondition(in, func(c *condition) {
		for i := range c.fields {
			for _, l := range c.fields[i].lookups {
				d, there := a.docs[l.Name]
				if name, known := l.document.render(in); there && known == yes && ValidKey(name) {
					out[name] = d
				}
			}
		}
	})
	return out
}

// eachCondition calls visit for the conditions that a request meets; in has the
// captures of each.
func (s *scene) eachCondition(in *Input, visit func(*condition)) {
	params := in.Params
	for i := range s.route.guards {
		if g := &s.route.guards[i]; g.matches(in) {
			visit(g.cond)
		}
		in.Params = params
	}
	for _, e := range s.route.entries {
		visit(e)
	}
}
