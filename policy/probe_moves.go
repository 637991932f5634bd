package policy

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Values that no policy names.
const (
	probeActor = "actor-1"
	otherName  = "other"
	probeAge   = time.Minute
)

// A move changes one part of an attempt; it reports whether it could.
type move struct {
	what  string
	value any // nil: what says all
	do    func(*attempt) bool
}

func (m *move) about() string {
	if m.value == nil {
		return m.what
	}
	return m.what + " = " + show(m.value)
}

// A mover gathers the moves of one condition.
type mover struct {
	scene *scene
	facts *facts
	guard *guard // whose captures the condition reads; nil: the route's
	out   []move
}

// inputFor is the attempt's input as a guard's condition sees it; at is nil for
// an entry.
func (s *scene) inputFor(a *attempt, at *guard) (*Input, bool) {
	in, ok := s.input(a)
	if ok && at != nil && !(&guardAt{guard: at}).matches(in) {
		return in, false
	}
	return in, ok
}

// moves are the values at and around the boundaries of a condition's fields.
func (s *scene) moves(c *condition, at *guard, a *attempt) []move {
	m := &mover{scene: s, facts: c.facts, guard: at}
	f := c.facts
	m.who(f.who)
	m.uid()
	m.ip()
	m.schedule()
	m.ages(f.mfa, f.signedIn)
	m.email()
	m.providers()
	if f.appCheck {
		m.add("app check", func(a *attempt) bool { a.appCheck = true; return true })
		m.add("no app check", func(a *attempt) bool { a.appCheck = false; return true })
	}
	m.list("roles", f.roles, false)
	m.list("scopes", f.scopes, true)
	m.org()
	m.claims()
	m.keyPrefix()
	if f.expr != nil {
		m.expression(a)
	}
	return m.out
}

func (m *mover) add(about string, do func(a *attempt) bool) {
	m.out = append(m.out, move{what: about, do: do})
}

// setCapture puts a value in the place of a capture: the route's, or those of
// the guard whose condition reads it.
func (m *mover) setCapture(a *attempt, name, v string) bool {
	if v == "" {
		return false
	}
	if m.guard == nil || m.guard.path == nil {
		a.setParam(name, v)
		return true
	}
	in, ok := m.scene.inputFor(a, m.guard)
	if !ok {
		return false
	}
	own := attempt{params: map[string]string{}}
	for _, other := range m.guard.path.names() {
		own.params[other], _ = in.Params.Get(other)
	}
	own.params[name] = v
	path, ok := own.path(m.guard.path)
	return ok && m.scene.setPath(a, path)
}

func (m *mover) who(names []string) {
	for _, name := range slices.Concat(names, m.scene.set.identities) {
		m.add(name, func(a *attempt) bool { a.who.name, a.nobody = name, false; return true })
	}
}

// fill gives the caller whatever a template reads of one.
func (m *mover) fill(a *attempt, t template) {
	for _, p := range t.parts {
		switch p.source {
		case sourceActor:
			a.who.actor = probeActor
		case sourceTenant:
			a.who.tenant = "tenant-1"
		case sourceEmail:
			a.who.email, a.who.verified = probeEmail, true
		case sourceProvider:
			if a.who.provider == "" {
				a.who.provider = "password"
			}
		case sourceClaim:
			if s, ok := a.who.claims[p.literal].(string); !ok || s == "" {
				a.setClaim(p.literal, p.literal+"-1")
			}
		}
	}
}

// plain is what a template gives, without the rules of values in keys.
func (t template) plain(in *Input) string {
	out := ""
	for _, p := range t.parts {
		v, _ := p.value(in)
		out += v
	}
	return out
}

// rendered fills what the template reads, and gives its text.
func (m *mover) rendered(a *attempt, t template) (string, bool) {
	m.fill(a, t)
	in, ok := m.scene.inputFor(a, m.guard)
	if !ok {
		return "", false
	}
	return t.plain(in), true
}

// template is a move that needs a template's text.
func (m *mover) template(text string, move func(a *attempt, text string) bool) func(*attempt) bool {
	t, err := parseTemplate(text)
	return func(a *attempt) bool {
		s, ok := m.rendered(a, t)
		return err == nil && ok && s != "" && move(a, s)
	}
}

func (m *mover) uid() {
	f := m.facts
	if f.uid == "" {
		return
	}
	m.add("the uid that is asked for", m.template(f.uid, func(a *attempt, s string) bool { a.who.uid = s; return true }))
	m.add("another's uid", m.template(f.uid, func(a *attempt, s string) bool { a.who.uid = s + "x"; return true }))
	m.add("another's uid", func(a *attempt) bool { a.who.uid = otherUID; return true })
	m.templateClaims(f.uid)
	if f.uidIs != "" {
		m.add("the path has the caller's uid", func(a *attempt) bool { return m.setCapture(a, f.uidIs, a.who.uid) })
		m.add("the path has another's uid", func(a *attempt) bool { return m.setCapture(a, f.uidIs, otherUID) })
		m.add("the path has a longer uid", func(a *attempt) bool { return m.setCapture(a, f.uidIs, a.who.uid+"x") })
	}
}

// templateClaims gives the claims that a template reads other values.
func (m *mover) templateClaims(text string) {
	t, err := parseTemplate(text)
	if err != nil {
		return
	}
	for _, p := range t.parts {
		if p.source != sourceClaim {
			continue
		}
		for _, name := range m.scene.route.path.names() {
			m.add("claim "+p.literal+" is what the path has", func(a *attempt) bool { a.setClaim(p.literal, a.params[name]); return a.params[name] != "" })
		}
		m.add("claim "+p.literal+" is another's", func(a *attempt) bool { a.setClaim(p.literal, p.literal+"-2"); return true })
		m.add("claim "+p.literal+" is empty", func(a *attempt) bool { a.setClaim(p.literal, ""); return true })
		m.wrong(p.literal)
	}
}

// wrong are a claim of another type, and none.
func (m *mover) wrong(claim string) {
	m.add("claim "+claim+" is of another type", func(a *attempt) bool {
		a.setClaim(claim, map[string]any{"a": []any{true}})
		return true
	})
	m.add("claim "+claim+" is absent", func(a *attempt) bool {
		_, there := a.who.claims[claim]
		a.dropClaim(claim)
		return there
	})
}

func (m *mover) ip() {
	if !m.facts.ip.Present() {
		return
	}
	set := func(about string, ip netip.Addr) {
		if ip.IsValid() {
			m.add(about+" ("+ip.String()+")", func(a *attempt) bool { a.ip = ip; return true })
		}
	}
	for _, p := range m.facts.networks() {
		first, last := p.Masked().Addr(), lastOf(p)
		set("the first address of "+p.String(), first)
		set("the last address of "+p.String(), last)
		set("the address before "+p.String(), first.Prev())
		set("the address behind "+p.String(), last.Next())
	}
	set("an address of nobody's", probeIP)
	set("an address of nobody's", netip.MustParseAddr("2001:db8:ffff::1"))
}

// lastOf is the last address of a network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// schedule tries every day of a week: each part of the day from a minute before
// it begins to the minute at which it is over.
func (m *mover) schedule() {
	s := m.facts.schedule
	if s == nil {
		return
	}
	edges := []int{0, 23*60 + 59}
	if len(s.hours) > 0 {
		edges = nil
	}
	for _, h := range s.hours {
		edges = append(edges, h.from, h.from-1, h.to-1, h.to)
	}
	for day := range 7 {
		for _, minute := range edges {
			at := time.Date(2026, 3, 2+day, 0, minute, 0, 0, s.zone)
			m.add(at.Format("Mon 15:04 MST"), func(a *attempt) bool { a.at = at.UTC(); return true })
		}
	}
}

// ages tries sign-ins at and beyond the ages that are asked for.
func (m *mover) ages(mfa, signedIn time.Duration) {
	if mfa == 0 && signedIn == 0 {
		return
	}
	set := func(about string, factor bool, age time.Duration) {
		m.add(about, func(a *attempt) bool {
			if a.who.ageless, a.who.age = false, age; factor {
				a.who.secondFactor = "phone"
			}
			return true
		})
	}
	for _, limit := range []time.Duration{mfa, signedIn} {
		if limit == 0 {
			continue
		}
		factor := limit == mfa && mfa != 0
		set("signed in "+limit.String()+" ago", factor, limit)
		set("signed in "+(limit-time.Second).String()+" ago", factor, limit-time.Second)
		set("signed in "+(limit+time.Second).String()+" ago", factor, limit+time.Second)
	}
	m.add("a sign-in of no time", func(a *attempt) bool { a.who.ageless = true; return true })
	if mfa != 0 {
		m.add("a second factor", func(a *attempt) bool { a.who.secondFactor = "phone"; return true })
		m.add("no second factor", func(a *attempt) bool { a.who.secondFactor = ""; return true })
	}
}

func (m *mover) email() {
	if !m.facts.verifiedEmail {
		return
	}
	for _, e := range []struct {
		about, email string
		verified     bool
	}{{"a verified e-mail address", probeEmail, true}, {"an e-mail address that is not verified", probeEmail, false}, {"no e-mail address", "", true}} {
		m.add(e.about, func(a *attempt) bool { a.who.email, a.who.verified = e.email, e.verified; return true })
	}
}

func (m *mover) providers() {
	if len(m.facts.providers) == 0 {
		return
	}
	for _, name := range append(slices.Clone(m.facts.providers), otherName, "") {
		m.add("provider "+name, func(a *attempt) bool { a.who.provider = name; return true })
	}
}

// list is for a claim that is a list of which one has to be there, or all.
func (m *mover) list(claim string, values []string, all bool) {
	if len(values) == 0 {
		return
	}
	set := func(about string, values ...string) {
		m.add(about, func(a *attempt) bool {
			list := []any{}
			for _, v := range values {
				list = append(list, v)
			}
			a.setClaim(claim, list)
			return true
		})
	}
	if all {
		set("all "+claim, values...)
		for i, v := range values {
			set(claim+" without "+v, slices.Delete(slices.Clone(values), i, i+1)...)
		}
		set(claim+" and one more", append(slices.Clone(values), otherName)...)
	}
	for _, v := range values {
		set(claim+": only "+v, v)
		set(claim+": "+otherName+" and "+v, otherName, v)
		set(claim+": what begins like "+v, v+"x")
	}
	set(claim+": only "+otherName, otherName)
	set(claim + " is empty")
	m.add(claim+" is no list", func(a *attempt) bool { a.setClaim(claim, values[0]); return true })
	m.add(claim+" holds a number", func(a *attempt) bool { a.setClaim(claim, []any{values[0], json.Number("1")}); return true })
	m.wrong(claim)
}

func (m *mover) org() {
	f := m.facts
	if len(f.orgRoles) == 0 {
		return
	}
	const claim = "orgs"
	for _, role := range f.orgRoles {
		m.add("role "+role+" in the organisation", m.template(f.orgID, func(a *attempt, id string) bool { a.setClaim(claim, map[string]any{id: role}); return true }))
	}
	role := f.orgRoles[0]
	m.add("another role in the organisation", m.template(f.orgID, func(a *attempt, id string) bool {
		a.setClaim(claim, map[string]any{id: otherName, "org-2": role})
		return true
	}))
	m.add("a role in another organisation", func(a *attempt) bool { a.setClaim(claim, map[string]any{"org-2": role}); return true })
	m.add("a role that is no string", m.template(f.orgID, func(a *attempt, id string) bool { a.setClaim(claim, map[string]any{id: true}); return true }))
	m.add("no organisation", func(a *attempt) bool { a.setClaim(claim, map[string]any{}); return true })
	m.add("organisations as a list", func(a *attempt) bool { a.setClaim(claim, []any{role}); return true })
	m.wrong(claim)
	m.templateClaims(f.orgID)
	if f.orgIs != "" {
		m.add("the path has another organisation", func(a *attempt) bool { return m.setCapture(a, f.orgIs, "org-2") })
	}
}

func (m *mover) claims() {
	for _, name := range keysOf(m.facts.claims) {
		set := func(about string, v any) {
			m.add("claim "+name+about, func(a *attempt) bool { a.setClaim(name, v); return true })
		}
		for _, v := range m.facts.claims[name] {
			text, _ := json.Marshal(v)
			switch v := v.(type) {
			case string:
				set(": "+v, v)
				set(": what begins like "+v, v+"x")
				set(" is a list", []any{v})
			case int64:
				set(": "+string(text), json.Number(text))
				next, _ := json.Marshal(v + 1)
				set(": "+string(next), json.Number(next))
				set(" is a string", string(text))
			case bool:
				set(": "+string(text), v)
				set(": the other", !v)
				set(" is a string", string(text))
			}
		}
		if _, text := m.facts.claims[name][0].(string); text {
			set(" is another", otherName)
		}
		m.wrong(name)
	}
}

func (m *mover) keyPrefix() {
	prefix := m.facts.keyPrefix
	if prefix == "" {
		return
	}
	m.templateClaims(prefix)
	named := m.scene.named()
	if named == nil {
		return
	}
	key := func(about, behind string) {
		m.add(about, m.template(strings.TrimSuffix(prefix, "/"), func(a *attempt, folder string) bool { named.set(a, folder+behind); return true }))
	}
	key("a key in the folder", "/x")
	key("a key further below", "/a/b/c")
	key("the folder itself as the key", "")
	key("a key in a folder that begins the same", "x/x")
	m.add("another key", func(a *attempt) bool { named.set(a, otherName+"/x"); return true })
	m.add("another's folder", func(a *attempt) bool {
		named.set(a, strings.Replace(named.get(a), a.who.uid, a.who.uid+"x", 1))
		return true
	})
}

// A namedKey is where a caller names the key, or the prefix that is listed.
type namedKey struct {
	get func(*attempt) string
	set func(*attempt, string)
}

// named is nil where callers do not name it.
func (s *scene) named() *namedKey {
	if s.route.Object == nil {
		return nil
	}
	if s.route.Serve == ListObjects {
		return &namedKey{
			func(a *attempt) string { return a.prefix },
			func(a *attempt, v string) { a.prefix = strings.TrimSuffix(v, "/") + "/" },
		}
	}
	if s.route.Object.key.uses(sourceBodyKey) {
		return &namedKey{func(a *attempt) string { return a.key }, func(a *attempt, v string) { a.key = v }}
	}
	if name, alone := s.route.Object.key.isParam(); alone {
		return &namedKey{func(a *attempt) string { return a.params[name] }, func(a *attempt, v string) { a.setParam(name, v) }}
	}
	return nil
}

// keyMoves give the caller what the object's key is made of.
func (s *scene) keyMoves() []move {
	if s.route.Object == nil {
		return nil
	}
	m := &mover{scene: s, facts: &facts{}}
	t := *s.route.Object.template()
	m.add("what the key is made of", func(a *attempt) bool { m.fill(a, t); return true })
	return m.out
}
