package policy

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// everywhere are the moves that every route has.
func (s *scene) everywhere() []move {
	m := &mover{scene: s, facts: &facts{}}
	m.add("nobody", func(a *attempt) bool { was := a.nobody; a.nobody = true; return !was })
	for _, name := range s.set.identities {
		m.add("identity "+name, func(a *attempt) bool { a.who.name, a.nobody = name, false; return true })
	}
	m.add("with an actor", func(a *attempt) bool { a.who.actor = probeActor; return !a.nobody })
	m.add("without an actor", func(a *attempt) bool { was := a.who.actor; a.who.actor = ""; return was != "" })
	m.add("another caller", func(a *attempt) bool { a.who.uid = otherUID; return !a.nobody })
	for _, host := range slices.Concat(s.takes, s.near, s.set.hosts) {
		m.add("host "+host, func(a *attempt) bool { a.host = host; return true })
	}
	for _, method := range methods {
		if s.route.methods&methodBit(method) != 0 {
			m.add("method "+method, func(a *attempt) bool { a.method = method; return true })
		}
	}
	m.add("the method "+s.lacking()+", which the route lacks", func(a *attempt) bool { a.method = s.lacking(); return a.method != "" })
	s.pathMoves(m)
	m.add("without documents", func(a *attempt) bool { was := a.docs; a.docs = nil; return was != nil })
	if s.route.Upstream != "" {
		m.add("an upgrade to WebSocket", func(a *attempt) bool {
			a.websocket = a.method == http.MethodGet
			return a.websocket
		})
		if limit := s.route.MaxBody; limit > 0 {
			m.length("a body of max_body", limit)
			m.length("a body of one byte more than max_body", limit+1)
		}
	}
	if o := s.route.Object; o != nil {
		m.object(o, s.route.BeginsUploads())
	}
	return m.out
}

func (m *mover) length(about string, n int64) {
	m.add(about, func(a *attempt) bool { a.length = n; return a.method != http.MethodGet && a.method != http.MethodHead })
}

func (s *scene) pathMoves(m *mover) {
	p := &s.route.path
	for _, name := range p.names() {
		values := []string{"y"}
		if name == p.restName {
			values = shapes
		}
		for _, v := range values {
			m.add("another "+name+" in the path", func(a *attempt) bool { a.setParam(name, v); return true })
		}
	}
	for _, policy := range s.set.policies {
		for _, g := range policy.guards {
			if g.path == nil {
				continue
			}
			if witness, ok := p.meet(*g.path); ok {
				for _, more := range []string{"", "/y", "/a/b/c"} {
					m.add("a path of guard "+g.id, func(a *attempt) bool { return s.setPath(a, witness+more) })
				}
			}
		}
	}
	m.add("a slash behind the path", func(a *attempt) bool { a.slash = true; return true })
	if p.rest {
		m.add("an encoded slash", func(a *attempt) bool {
			a.encodedSlash = true
			if rest := a.params[p.restName]; !strings.Contains(rest, "/") {
				a.setParam(p.restName, strings.TrimPrefix(rest+"/b", "/")+"/c")
			}
			return true
		})
	}
}

// object are the moves around the limits of what is signed.
func (m *mover) object(o *Object, upload bool) {
	expires := func(about string, d time.Duration) {
		n := int64(d / time.Second)
		m.add(about, func(a *attempt) bool { a.expires = &n; return true })
	}
	if !m.scene.route.operation().signsURLs() {
		return
	}
	expires("the shortest expiry", o.MinExpiry)
	expires("an expiry that is too short", o.MinExpiry-time.Second)
	expires("the longest expiry", o.MaxExpiry)
	expires("an expiry that is too long", o.MaxExpiry+time.Second)
	if !upload {
		return
	}
	size := func(about string, n int64) {
		m.add(about, func(a *attempt) bool { a.size = &n; return true })
	}
	size("an empty object", 0)
	if o.MaxBytes > 0 {
		size("an object of max_bytes", o.MaxBytes)
		size("an object of one byte more than max_bytes", o.MaxBytes+1)
	} else {
		size("the largest object that can be sent at once", maxPut)
	}
	m.add("no size", func(a *attempt) bool { a.size = nil; return true })
	m.add("a checksum", func(a *attempt) bool { a.checksum = true; return true })
	m.add("no checksum", func(a *attempt) bool { a.checksum = false; return true })
	for _, t := range append(slices.Clone(o.ContentTypes), "application/x-probe", "text/plain", probeType, "image/svg+xml", "text/html") {
		m.add("content type "+t, func(a *attempt) bool { a.contentType = instanceOfType(t); return true })
	}
}
