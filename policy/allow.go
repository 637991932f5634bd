package policy

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"sidegate/policy/document"
)

// An entryFacts is what the checks of a whole route need to know of an entry.
type entryFacts struct {
	who           []string // the identities that it can let in
	verifiedEmail bool
	keyPrefix     string // "" where it has none
	uidIs, orgIs  string // the captures that the caller's uid, organisation must equal
}

// readAllow reads `allow`: public, optional or a list of entries.
func (l *loader) readAllow(v document.Value, r *Route) (all []entryFacts) {
	if v.IsString() {
		switch v.OneOf("public", "optional") {
		case "public":
			r.Access = AccessPublic
		case "optional":
			r.Access = AccessOptional
		}
		if r.Serve != "" {
			v.Errorf("a route that serves `%s` needs a list in `allow`", r.Serve)
		}
		return nil
	}
	l.needIdentities = true
	seen := map[string]bool{}
	for i, e := range v.List() {
		if b := l.entry(e, r, i, seen); b != nil {
			r.entries = append(r.entries, b.e)
			all = append(all, b.facts)
		}
	}
	return all
}

// entry reads one entry of an allow list.
func (l *loader) entry(v document.Value, r *Route, index int, seen map[string]bool) *entryBuilder {
	m := v.Map(entryKeys)
	if !m.IsMap() {
		return nil
	}
	id := m.Get("id").Name()
	if seen[id] && id != "" {
		m.Get("id").Errorf("SG002 entry id `%s` is there twice in route `%s`", id, r.ID)
	}
	seen[id] = true
	if id == "" {
		id = strconv.Itoa(index + 1)
	}
	b := &entryBuilder{l: l, r: r, m: m, e: &entry{rule: r.ID + "/" + id}, facts: entryFacts{who: l.identities}}
	b.readWho()
	b.readMethods()
	b.readUID()
	b.readSignedIn()
	b.readVerifiedEmail()
	b.readRoles()
	b.readOrg()
	b.readClaims()
	b.readKeyPrefix()
	if len(v.Entries()) == 0 || (len(v.Entries()) == 1 && m.Get("id").Present()) {
		v.Errorf("an entry without conditions lets everybody in; say `who`, or `allow: public`")
	}
	b.checkNamespaces()
	return b
}

// An entryBuilder compiles the fields of one entry to closures.
type entryBuilder struct {
	l       *loader
	r       *Route
	m       document.Map
	e       *entry
	facts   entryFacts
	usesUID []document.Value
}

func (b *entryBuilder) add(claim bool, holds func(in *Input) verdict) {
	b.e.fields = append(b.e.fields, field{claim, holds})
}

// readWho also limits an entry without `who` to the policy's identities:
// sidegate.yaml may have more, and this policy was not written for them.
func (b *entryBuilder) readWho() {
	v := b.m.Get("who")
	for _, e := range texts(v) {
		if name := e.Show(); !slices.Contains(b.l.identities, name) {
			e.Errorf("identity `%s` is not in the policy's `identities`%s", name, document.DidYouMean(name, b.l.identities))
		}
	}
	if v.Present() {
		b.facts.who, b.e.namesWho = v.Strings(), true
	}
	names := b.facts.who
	b.add(false, func(in *Input) verdict { return verdictOf(slices.Contains(names, in.Identity.Name)) })
}

func (b *entryBuilder) readMethods() {
	v := b.m.Get("methods")
	if !v.Present() {
		return
	}
	set := readMethods(v)
	if over := set &^ b.r.methods; over != 0 && b.r.methods != 0 {
		v.Errorf("the route does not take %s, only %s", over, b.r.methods)
	}
	b.add(false, func(in *Input) verdict { return verdictOf(methodBit(in.Method)&set != 0) })
}

func (b *entryBuilder) readUID() {
	v := b.m.Get("uid")
	if !v.Present() {
		return
	}
	b.usesUID = append(b.usesUID, v)
	t, ok := b.comparand(v)
	if !ok {
		return
	}
	b.facts.uidIs, _ = t.isParam()
	b.add(false, func(in *Input) verdict { return t.compare(in, in.Identity.UID) })
}

// comparand reads a template that is compared byte for byte, where captures
// are allowed.
func (b *entryBuilder) comparand(v document.Value) (template, bool) {
	text, ok := v.Text()
	if !ok {
		return template{}, false
	}
	t, err := parseTemplate(text)
	if text == "" {
		err = errors.New("is empty")
	}
	if err != nil {
		v.Errorf("%s: %v", v.Path(), err)
		return t, false
	}
	b.l.checkSources(v, t, b.r)
	for _, p := range t.parts {
		if p.source == sourceUUID || p.source == sourceExt || p.source == sourceParamHash {
			v.Errorf("`%s`: ${uuid}, ${ext} and sha256() are for keys", v.Path())
		}
	}
	b.noteTemplate(v, t)
	return t, true
}

// noteTemplate remembers what a template reads of the identity.
func (b *entryBuilder) noteTemplate(v document.Value, t template) {
	b.r.inputs.note(t)
	if t.uses(sourceUID) {
		b.usesUID = append(b.usesUID, v)
	}
	if t.uses(sourceEmail) && !b.m.Get("verified_email").Present() {
		v.Errorf("SG008 `%s` uses auth.email: add `verified_email: true` to this entry", v.Path())
	}
}

func (s *inputSet) note(t template) {
	for _, p := range t.parts {
		switch p.source {
		case sourceClaim:
			s.claim(p.literal)
		case sourceEmail:
			s.email = true
		}
	}
}

func (s *inputSet) claim(name string) {
	if !slices.Contains(s.claims, name) {
		s.claims = append(s.claims, name)
	}
}

// maxAge bounds what can be asked of a sign-in.
const maxAge = 10 * 365 * 24 * time.Hour

func (b *entryBuilder) readSignedIn() {
	v := b.m.Get("signed_in")
	if !v.Present() {
		return
	}
	age := v.DurationIn(time.Second, maxAge)
	b.add(false, func(in *Input) verdict { return signedInWithin(in.Identity, in.Time, age) })
}

func (b *entryBuilder) readVerifiedEmail() {
	v := b.m.Get("verified_email")
	if !v.Present() {
		return
	}
	if v.OneOf("true") != "true" {
		return
	}
	b.facts.verifiedEmail, b.r.inputs.emailVerified = true, true
	b.add(false, func(in *Input) verdict {
		return verdictOf(in.Identity.EmailVerified && in.Identity.Email != "")
	})
}

func (b *entryBuilder) readRoles() {
	v := b.m.Get("roles")
	if !v.Present() {
		return
	}
	roles := v.Strings()
	b.needClaim(v, "roles", claimType{"list", "string"})
	b.claimField("roles", func(claim any, in *Input) verdict { return anyOf(claim, roles) })
}

// claimField adds a condition on a claim; where the claim is absent it is false.
func (b *entryBuilder) claimField(name string, holds func(claim any, in *Input) verdict) {
	b.r.inputs.claim(name)
	b.add(true, func(in *Input) verdict {
		claim, there := in.Identity.Claims[name]
		if !there {
			return no
		}
		return holds(claim, in)
	})
}

// needClaim checks that a claim is declared, and as what.
func (b *entryBuilder) needClaim(v document.Value, name string, want claimType) {
	got, ok := b.l.claims[name]
	switch {
	case !ok:
		v.Errorf("SG003 claim `%s` is not declared; add `%s: %s` under `claims`%s", name, name, want, document.DidYouMean(name, keysOf(b.l.claims)))
	case got != want:
		v.Errorf("claim `%s` is declared as %s, and %s is needed here", name, got, want)
	}
}

func (b *entryBuilder) readOrg() {
	v := b.m.Get("org")
	if !v.Present() {
		return
	}
	m := v.Map(orgKeys)
	if !m.IsMap() {
		return
	}
	b.needClaim(v, "orgs", claimType{"map", "string"})
	id, ok := b.comparand(m.Need("id"))
	roles := m.Need("role").Strings()
	if !ok || len(roles) == 0 {
		return
	}
	b.facts.orgIs, _ = id.isParam()
	b.claimField("orgs", func(claim any, in *Input) verdict { return orgHolds(claim, id, in, roles) })
}

// orgHolds finds the organisation whose id the template gives among the claim's.
func orgHolds(claim any, id template, in *Input, roles []string) verdict {
	key := ""
	for _, p := range id.parts {
		v, known := p.value(in)
		if known != yes {
			return known
		}
		key += v
	}
	if key == "" {
		return no
	}
	return mapHolds(claim, key, roles)
}

func (b *entryBuilder) readClaims() {
	for _, c := range b.m.Get("claims").Entries() {
		t, ok := b.l.claims[c.Key]
		if !ok {
			c.At.Errorf("SG003 claim `%s` is not declared; add its type under `claims`%s", c.Key, document.DidYouMean(c.Key, keysOf(b.l.claims)))
			continue
		}
		if t.container != "" || t.scalar == "double" || t.scalar == "timestamp" {
			c.Value.Errorf("claim `%s` is a %s: only string, int and bool can be compared here", c.Key, t)
			continue
		}
		values, scalar := claimValues(c.Value, t.scalar), t.scalar
		b.claimField(c.Key, func(claim any, in *Input) verdict {
			for _, want := range values {
				if got := scalarMatches(scalar, claim, want); got != no {
					return got
				}
			}
			return no
		})
	}
	if v := b.m.Get("claims"); v.IsMap() && len(v.Entries()) == 0 {
		v.Errorf("`%s` names no claim", v.Path())
	}
}

// claimValues are the values that a claim may equal, of the type that
// scalarMatches compares with.
func claimValues(list document.Value, scalar string) (values []any) {
	if scalar == "string" {
		for _, s := range list.Strings() {
			values = append(values, s)
		}
		return values
	}
	for _, v := range list.List() {
		if scalar == "int" {
			values = append(values, v.Int(-1<<53, 1<<53))
		} else {
			values = append(values, v.Bool())
		}
	}
	return values
}

func (b *entryBuilder) readKeyPrefix() {
	v := b.m.Get("key_prefix")
	if !v.Present() {
		return
	}
	if b.r.Object == nil {
		v.Errorf("`key_prefix` is for routes whose `object` has a key")
		return
	}
	text, ok := v.Text()
	if !ok {
		return
	}
	b.facts.keyPrefix = text
	prefix, slash := strings.CutSuffix(text, "/")
	if !slash {
		v.Errorf("SG007 `%s` must end in `/`: users/a would also be the start of users/ab", v.Path())
		return
	}
	t, err := parseTemplate(prefix)
	if err == nil {
		err = t.check()
	}
	if err != nil {
		v.Errorf("%s: %v", v.Path(), err)
		return
	}
	b.l.checkSources(v, t, b.r)
	for _, p := range t.parts {
		switch p.source {
		case sourceParam:
			v.Errorf("SG004 `%s`: a capture is the caller's own word; write ${auth.uid}, or ${sha256(params.%s)}", v.Path(), p.literal)
		case sourceUUID, sourceExt:
			v.Errorf("`%s`: ${uuid} and ${ext} are for the key", v.Path())
		}
	}
	b.noteTemplate(v, t)
	b.add(false, func(in *Input) verdict { return keyLiesUnder(in, t) })
}

// keyLiesUnder reports whether the object's key, which is a valid one, goes on
// after the prefix with a slash and more.
func keyLiesUnder(in *Input, prefix template) verdict {
	if in.keyed != yes {
		return in.keyed
	}
	rest, known := prefix.cut(in, in.key, true)
	if known != yes {
		return known
	}
	return verdictOf(len(rest) > 1 && rest[0] == '/')
}

// checkNamespaces is SG009 for an entry: a uid says who somebody is only
// within one namespace.
func (b *entryBuilder) checkNamespaces() {
	if len(b.usesUID) == 0 {
		return
	}
	if all := b.l.namespaces(b.facts.who); len(all) > 1 {
		b.usesUID[0].Errorf("SG009 entry `%s` uses the uid, and lets in identities of several uid namespaces (%s): limit it by `who`", b.e.rule, strings.Join(all, ", "))
	}
}
