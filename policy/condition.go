package policy

import (
	"slices"
	"time"

	"sidegate/policy/document"
)

// A condition is the AND of its fields: an entry of `allow`, or what a guard
// denies or requires.
type condition struct {
	rule   string // route/entry, or the guard's id
	fields []field
	// namesWho: it has a `who`. Only such an entry lets a caller with an actor in.
	namesWho bool
	dryRun   bool // recorded, never enforced

	number  uint64 // by which its lasting fields' verdict is kept; 0: it is not
	passing bool   // some field is not lasting

	facts *facts
}

// A field is one key of a condition, compiled.
type field struct {
	key      string    // as the policy writes it
	claim    bool      // reads a role, scope or claim
	identity bool      // reads an identity: it is false of nobody
	lasting  bool      // reads nothing else, so that what it says of one stays
	lookups  []*Lookup // the documents it reads
	reads    []string  // names of the inputs it reads, as conditions write them
	holds    func(in *Input) verdict
}

// holds is the AND of the fields: one that is false makes it false, whatever
// the others are; else one that could not be told makes it that. Fields that
// read documents come last, and only where all others are true. What the lasting
// fields say is known from another request of the same identity, but for a
// replay, which knows a part of it only.
func (c *condition) holds(in *Input) verdict {
	all, known := yes, false
	if c.number != 0 && in.Identity != nil && in.Recorded == nil {
		all, known = c.ofIdentity(in), true
		if all == no || !c.passing {
			return all
		}
	}
	for i := range c.fields {
		f := &c.fields[i]
		if known && f.lasting {
			continue
		}
		if f.lookups != nil && all != yes {
			return all
		}
		v := no
		if !f.identity || in.Identity != nil {
			v = f.holds(in)
		}
		if v == no {
			return no
		}
		all = max(all, v)
	}
	return all
}

// Where a condition stands decides what its fields may be.
type place uint8

const (
	inEntry place = iota
	inDeny
	inRequire
)

// facts are what the loader and lint know of a condition beside its closures.
type facts struct {
	at            document.Value
	place         place
	since         time.Time // of mode: dry_run
	who           []string  // the identities that it can be true of
	methods       methodSet // 0: all
	uid           string    // the template's text
	uidIs, orgIs  string    // the captures that the caller's uid, organisation must equal
	roles         []string
	scopes        []string
	orgID         string
	orgRoles      []string
	claims        map[string][]any
	ip            document.Value
	time          string
	schedule      *schedule // the same
	mfa, signedIn time.Duration
	verifiedEmail bool
	providers     []string
	appCheck      bool
	keyPrefix     string
	expr          *expression
	hashes        []string // what a document read by `if` is named by within sha256(): params.x, request.key
	usesUID       []document.Value
	identity      bool // some field reads an identity
	unsure        bool // it has a mistake: what it ties to the caller cannot be told
}

var conditionKeys = []string{"who", "methods", "uid", "roles", "scopes", "org", "claims", "ip", "time", "mfa", "signed_in", "verified_email", "providers", "app_check", "key_prefix", "if"}

var entryKeys = document.Keys{Known: append([]string{"id", "mode", "since"}, conditionKeys...)}
var guardConditionKeys = document.Keys{Known: conditionKeys}

// A builder compiles the fields of one condition to closures.
type builder struct {
	l     *loader
	m     document.Map
	c     *condition
	facts *facts
	path  *pattern // whose captures templates may read
	route *Route   // nil in a guard
}

func (l *loader) newBuilder(m document.Map, rule string, where place, path *pattern, r *Route) *builder {
	f := &facts{at: m.Value, place: where, who: l.identities}
	switch {
	case l.env == nil:
	case where == inEntry: // an entry that does not name them lets none in who acts for a user
		f.who = slices.DeleteFunc(slices.Clone(l.identities), func(name string) bool { return l.env.Actors[name] })
	case l.optional:
		f.who = keysOf(l.env.Identities) // on an optional route any of them may call
	}
	return &builder{l: l, m: m, c: &condition{rule: rule, facts: f}, facts: f, path: path, route: r}
}

func (b *builder) add(key string, f field, holds func(in *Input) verdict) {
	f.key, f.holds = key, holds
	b.facts.identity = b.facts.identity || f.identity
	b.c.fields = append(b.c.fields, f)
}

// readFields reads every key that conditions of all places share.
func (b *builder) readFields() {
	b.readWho()
	b.readMethods()
	b.readUID()
	b.readIP()
	b.readTime()
	b.readSignedIn()
	b.readMFA()
	b.readVerifiedEmail()
	b.readProviders()
	b.readAppCheck()
	b.readRoles()
	b.readScopes()
	b.readOrg()
	b.readClaims()
	b.readKeyPrefix()
	b.readIf()
	b.checkNamespaces()
	b.c.settle()
}

// readMode reads `mode` and `since` of entries and guards.
func readMode(m document.Map) (dryRun bool, since time.Time) {
	mode, at := m.Get("mode"), m.Get("since")
	dryRun = mode.OneOf("dry_run") == "dry_run"
	since = at.Date()
	switch {
	case dryRun && !at.Present():
		mode.Errorf("`mode: dry_run` needs `since`, the day on which the trial began, as since: 2026-02-20")
	case !mode.Present() && at.Present():
		at.Errorf("`since` is for `mode: dry_run`")
	}
	return dryRun, since
}

// reads names the inputs that a template reads.
func (t template) reads() []string {
	var out []string
	for _, p := range t.parts {
		if name := p.input(); name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func (t template) readsIdentity() bool {
	return slices.ContainsFunc(t.parts, func(p part) bool { return p.source >= sourceUID && p.source <= sourceClaim })
}
