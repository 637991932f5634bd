package policy

import (
	"slices"
	"strings"
)

// hostInstance is a host that a route's or guard's host takes.
func hostInstance(host string) string {
	if host == "" {
		return probeHost
	}
	if suffix, wild := strings.CutPrefix(host, "*"); wild {
		return "probe" + suffix
	}
	return host
}

// hostsOf are hosts that the route takes, and neighbours that only look so.
func hostsOf(r *Route) (takes, near []string) {
	for _, h := range r.hosts {
		takes = appendNew(takes, hostInstance(h))
		switch suffix, wild := strings.CutPrefix(h, "*."); {
		case h == "":
		case wild:
			takes = appendNew(takes, "a.probe."+suffix)
			near = append(near, suffix, "x"+suffix)
		case !strings.HasPrefix(h, "["):
			near = append(near, "x."+h, "x"+h)
		}
	}
	return takes, near
}

// capture is what a capture holds unless a condition asks for more: where an
// entry compares it with the uid, that uid.
func (s *scene) capture(name string) string {
	for _, e := range s.route.entries {
		switch name {
		case e.facts.uidIs:
			return probeUID
		case e.facts.orgIs:
			return "org-1"
		}
	}
	return "x"
}

// shapes are the values that a {x...} takes: no, one and three segments.
var shapes = []string{"x", "", "a/b/c"}

// rests are shapes, and before them, where one route takes all paths below its
// own, what the method asks for there.
func (s *scene) rests(method string) []string {
	op := s.operationBelow(method)
	if op == nil {
		return shapes
	}
	return append([]string{*op}, shapes...)
}

// operationBelow is the rest of a path below that of multipart or uppy; nil
// where there is none.
func (s *scene) operationBelow(method string) *string {
	below := map[string]string{}
	switch s.route.Serve {
	case Multipart:
		below = map[string]string{"POST": "", "GET": "x/parts", "HEAD": "x/parts", "DELETE": "x"}
	case Uppy:
		below = map[string]string{"POST": "multipart", "GET": "params", "DELETE": "multipart/x"}
	}
	if rest, ok := below[method]; ok {
		return &rest
	}
	return nil
}

// begins reports whether the attempt asks for an upload to begin.
func (s *scene) begins(a *attempt) bool {
	if !s.route.operation().below {
		return s.route.BeginsUploads()
	}
	op := s.operationBelow(a.method)
	begins := a.method == "POST" || a.method == "GET" && s.route.Serve == Uppy
	return begins && op != nil && a.params[s.route.path.restName] == *op
}

// begin gives the captures that lead to the route on the host: another route,
// more specific, may take some of its paths.
func (s *scene) begin(host, method string) (attempt, bool) {
	a := s.blank()
	a.host, a.method = host, method
	single := []string{"", "y-1", "z-1"}
	for _, rest := range s.rests(method) {
		for _, v := range single {
			a.params = map[string]string{}
			for _, name := range s.route.path.names() {
				a.params[name] = s.capture(name)
				if v != "" {
					a.params[name] = v
				}
			}
			if s.route.path.rest {
				a.params[s.route.path.restName] = rest
			}
			if _, ok := s.input(&a); ok {
				return a, true
			}
		}
	}
	return a, false
}

// beginFor is begin, on a path that the guard meets too.
func (s *scene) beginFor(g *guard, host, method string) (attempt, bool) {
	if g == nil || g.path == nil {
		return s.begin(host, method)
	}
	a, ok := s.begin(host, method)
	if in, _ := s.input(&a); ok && (&guardAt{guard: g}).matches(in) {
		return a, true
	}
	witness, ok := s.route.path.meet(*g.path)
	if !ok {
		return a, false
	}
	for _, more := range []string{"", "/x", "/a/b/c"} {
		if s.setPath(&a, witness+more) {
			if in, ok := s.input(&a); ok && (&guardAt{guard: g}).matches(in) {
				return a, true
			}
		}
	}
	return a, false
}

// setPath takes the captures from a path that the route's pattern matches.
func (s *scene) setPath(a *attempt, path string) bool {
	parts, ok := split(nil, path)
	if !ok || !s.route.path.matches(parts) {
		return false
	}
	params := s.route.path.capture(parts, path)
	for _, name := range s.route.path.names() {
		v, _ := params.Get(name)
		a.setParam(name, v)
	}
	a.slash = false
	return true
}

// blank is the attempt of somebody plain.
func (s *scene) blank() attempt {
	a := attempt{
		ip: probeIP, at: probeTime,
		who: caller{uid: probeUID, provider: "password", age: probeAge, claims: map[string]any{}},
	}
	if len(s.set.identities) > 0 {
		a.who.name = s.set.identities[0]
	}
	if o := s.route.Object; o != nil && s.route.BeginsUploads() {
		size := int64(1)
		a.contentType, a.size, a.checksum = typeInstance(o), &size, o.NeedChecksum != ""
		a.crc64 = o.NeedChecksum == "crc64nvme" || o.parted
	}
	if s.route.Serve == PresignDownloads {
		a.key = "x"
	}
	return a
}

// typeInstance is a content type that the object takes.
func typeInstance(o *Object) string {
	types := slices.Clone(o.ContentTypes)
	if len(types) == 0 {
		return probeType
	}
	for _, t := range types {
		if !strings.Contains(t, "*") {
			return t
		}
	}
	return instanceOfType(types[0])
}

func instanceOfType(t string) string {
	if t == "*/*" {
		return probeType
	}
	if start, wild := strings.CutSuffix(t, "/*"); wild {
		return start + "/x-probe"
	}
	return t
}
