package policy

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"
)

// MaxProbes bounds how many requests Probes gives: what a machine judges in
// less than a minute.
const MaxProbes = 200_000

// A Probe is a request that shows what a policy does at one of its boundaries.
type Probe struct {
	About        string // which boundary
	Method       string
	Host         string // canonical
	Path         string // canonical, decoded
	EncodedSlash int    // index in Path of a slash that comes as %2F; 0: none
	WebSocket    bool   // the request asks for an upgrade
	Length       int64  // of the body, of which nothing else is said; 0: none
	IP           netip.Addr
	Time         time.Time
	Identity     *Identity // nil: nobody
	AppCheck     bool
	// Documents are all that there are, by collection and id: what a lookup
	// names otherwise does not exist.
	Documents map[string]ProbeDocument
	// Upload is what is asked for at a route at which uploads begin.
	Upload *UploadRequest
	// Key is the key that the body names, of presign_downloads.
	Key string
	// Prefix is what list_objects is asked for; empty: it is not asked for any.
	Prefix string
	Serve  string // the route's; empty: it leads to an upstream
	// Expires is asked for in the query, in seconds; nil: it is not.
	Expires *int64
}

// A ProbeDocument is a document that lookups find.
type ProbeDocument struct {
	Document
	Unavailable bool // it cannot be read
}

// Lookup gives a probe's documents (Lookups).
func (p *Probe) Lookup(_ *Lookup, document string) (Document, error) {
	d := p.Documents[document]
	if d.Unavailable {
		return Document{}, errProbeUnavailable
	}
	return d.Document, nil
}

// Probes makes requests that meet every route, method, identity and rule of the
// policies, and every boundary of the rules' fields, from both sides: for each
// rule one that makes it true while nothing else refuses, and then, one field
// at a time, those that just miss it. It is the same set each time, and no
// request is in it twice.
//
// What a condition in `if` depends on is found by trying values around those it
// names; where that finds nothing that makes it true, its probes are those that
// came closest. No more than max are given; Cut says whether there were more.
func Probes(max int, policies ...*Policy) *ProbeSet {
	s := &ProbeSet{policies: policies, max: max}
	for _, p := range policies {
		for _, name := range p.identities {
			s.identities = appendNew(s.identities, name)
		}
		for _, r := range p.Routes {
			for _, h := range r.hosts {
				s.hosts = appendNew(s.hosts, hostInstance(h))
			}
		}
		for _, g := range p.guards {
			for _, h := range g.hosts {
				s.hosts = appendNew(s.hosts, hostInstance(h))
			}
		}
	}
	s.hosts = appendNew(s.hosts, probeHost)
	return s
}

// A ProbeSet is the set of requests that Probes makes.
type ProbeSet struct {
	policies   []*Policy
	max        int
	identities []string // of all policies
	hosts      []string // one for each host of all policies, and one that none names
	seen       map[[16]byte]bool
	guards     map[*guard]int // on how many routes the near misses of each are probed
	trackers   map[*expression]*tracked
	cut        bool
}

// Cut reports whether the last round through All left out probes.
func (s *ProbeSet) Cut() bool { return s.cut }

// All yields the probes. First those of every route and method, then those that
// meet each rule, then those of every identity, then those that just miss a rule:
// a bound cuts what says least.
func (s *ProbeSet) All() iter.Seq[*Probe] {
	return func(yield func(*Probe) bool) {
		s.seen, s.guards, s.cut = map[[16]byte]bool{}, map[*guard]int{}, false
		s.trackers = map[*expression]*tracked{}
		emit := func(p *Probe) bool {
			key := p.hash()
			if s.seen[key] {
				return true
			}
			if len(s.seen) >= s.max {
				s.cut = true
				return false
			}
			s.seen[key] = true
			return yield(p)
		}
		s.run(emit)
		s.seen = nil
	}
}

func (s *ProbeSet) run(emit func(*Probe) bool) {
	scenes := s.scenes()
	for _, sc := range scenes {
		if !sc.bare(emit) {
			return
		}
	}
	var goals []*goal
	for _, sc := range scenes {
		for g := range sc.goals() {
			goals = append(goals, g)
			if !g.reached(emit) {
				return
			}
		}
	}
	for _, sc := range scenes {
		if !sc.plain(emit) {
			return
		}
	}
	for _, g := range goals {
		if !g.misses(emit) {
			return
		}
	}
}

// scenes are the routes of all policies, in turn: a bound is not to cut all of
// the last one's.
func (s *ProbeSet) scenes() []*scene {
	var out []*scene
	for i, more := 0, true; more; i++ {
		more = false
		for _, p := range s.policies {
			if i < len(p.Routes) {
				out = append(out, s.scene(p, p.Routes[i]))
				more = true
			}
		}
	}
	return out
}

// hash tells probes apart by everything but what they are about.
func (p *Probe) hash() [16]byte {
	bare := *p
	bare.About = ""
	text, err := json.Marshal(bare)
	if err != nil { // a value that JSON cannot hold, which no move makes
		text = fmt.Appendf(nil, "%+v", bare)
	}
	sum := sha256.Sum256(text)
	return [16]byte(sum[:16])
}

func appendNew[T comparable](list []T, v T) []T {
	if slices.Contains(list, v) {
		return list
	}
	return append(list, v)
}
