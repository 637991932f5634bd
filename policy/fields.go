package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sidegate/policy/document"
)

// readWho also limits an entry without `who` to the policy's identities:
// sidegate.yaml may have more, and this policy was not written for them. A
// guard without one is for everybody.
func (b *builder) readWho() {
	v := b.m.Get("who")
	for _, e := range texts(v) {
		name := e.Show()
		if !b.l.root.Field("identities").IsList() {
			b.l.needIdentities = true // one mistake, told once
		} else if !slices.Contains(b.l.identities, name) {
			e.Errorf("identity `%s` is not in the policy's `identities`%s", name, document.DidYouMean(name, b.l.identities))
		}
		b.l.used[name] = true
	}
	switch {
	case v.Present():
		b.facts.who, b.c.namesWho = v.Strings(), true
	case b.facts.place != inEntry:
		return
	default:
		for _, name := range b.facts.who {
			b.l.used[name] = true
		}
	}
	names := b.facts.who
	b.add("who", field{identity: true, reads: []string{"auth.identity"}}, func(in *Input) verdict { return verdictOf(slices.Contains(names, in.Identity.Name)) })
}

func (b *builder) readMethods() {
	v := b.m.Get("methods")
	if !v.Present() {
		return
	}
	set := readMethods(v)
	if b.route != nil {
		counted := b.route.counted()
		switch over := set &^ counted; {
		case over == 0 || counted == 0:
		case counted != b.route.methods:
			v.Errorf("the route does not take %s, only %s: a GET there can begin an upload, and counts as POST", over, counted)
		default:
			v.Errorf("the route does not take %s, only %s", over, counted)
		}
	}
	b.facts.methods = set
	b.add("methods", field{reads: []string{"request.method"}}, func(in *Input) verdict { return verdictOf(methodBit(in.method())&set != 0) })
}

func (b *builder) readUID() {
	v := b.m.Get("uid")
	if !v.Present() {
		return
	}
	b.facts.usesUID = append(b.facts.usesUID, v)
	t, ok := b.comparand(v)
	if !ok {
		b.facts.unsure = true
		return
	}
	b.facts.uid = t.text
	b.facts.uidIs, _ = t.isParam()
	b.add("uid", field{identity: true, reads: append([]string{"auth.uid"}, t.reads()...)},
		func(in *Input) verdict { return t.compare(in, in.Identity.UID) })
}

// comparand reads a template that is compared byte for byte, where captures
// are allowed.
func (b *builder) comparand(v document.Value) (template, bool) {
	text, ok := v.Text()
	if !ok {
		return template{}, false
	}
	t, err := parseTemplate(text)
	if text == "" {
		err = errors.New("is empty")
	}
	if err != nil {
		v.Errorf("%s: %v", v.Path(), onPath(err, b.path))
		return t, false
	}
	b.l.checkSources(v, t, b.path)
	for _, p := range t.parts {
		switch p.source {
		case sourceUUID, sourceExt, sourceParamHash, sourceBodyKeyHash:
			v.Errorf("`%s`: ${uuid}, ${ext} and sha256() are for keys", v.Path())
		case sourceBodyKey:
			v.Errorf("`%s`: ${request.key} is for keys", v.Path())
		}
	}
	b.noteTemplate(v, t)
	return t, true
}

// noteTemplate holds what a template reads of the identity against the rules
// for it.
func (b *builder) noteTemplate(v document.Value, t template) {
	if t.uses(sourceUID) {
		b.facts.usesUID = append(b.facts.usesUID, v)
	}
	if t.uses(sourceEmail) && !b.m.Get("verified_email").Present() {
		v.Errorf("SG008 `%s` uses auth.email: add `verified_email: true` to this %s", v.Path(), b.noun())
	}
}

func (b *builder) noun() string {
	if b.facts.place == inEntry {
		return "entry"
	}
	return "condition"
}

func (b *builder) readIP() {
	v := b.m.Get("ip")
	if !v.Present() {
		return
	}
	b.l.needAddress(v)
	networks := readPrefixes(v)
	b.facts.ip = v
	b.add("ip", field{reads: []string{"request.ip"}}, func(in *Input) verdict { return addressIn(in.IP, networks) })
}

// networksOf are the networks of a condition's `ip`.
func (f *facts) networks() []netip.Prefix {
	var out []netip.Prefix
	for _, e := range f.ip.List() {
		if p, err := netip.ParsePrefix(e.Show()); err == nil {
			out = append(out, p)
		} else if a, err := netip.ParseAddr(e.Show()); err == nil {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}

func (b *builder) readTime() {
	v := b.m.Get("time")
	if !v.Present() {
		return
	}
	s := readSchedule(v)
	if s == nil {
		return
	}
	b.facts.time, b.facts.schedule = fmt.Sprint(s.days, s.hours, s.zone), s
	b.add("time", field{reads: []string{"request.time"}}, func(in *Input) verdict { return s.holds(in.Time) })
}

// maxAge bounds what can be asked of a sign-in.
const maxAge = 10 * 365 * 24 * time.Hour

func (b *builder) readSignedIn() {
	v := b.m.Get("signed_in")
	if !v.Present() {
		return
	}
	age := v.DurationIn(time.Second, maxAge)
	b.facts.signedIn = age
	b.add("signed_in", field{identity: true, reads: []string{"auth.auth_time", "request.time"}},
		func(in *Input) verdict { return signedInWithin(in.Identity, in.Time, age) })
}

func (b *builder) readMFA() {
	v := b.m.Get("mfa")
	if !v.Present() {
		return
	}
	age := v.DurationIn(time.Second, maxAge)
	b.facts.mfa = age
	b.add("mfa", field{identity: true, reads: []string{inputSecondFactor, "auth.auth_time", "request.time"}}, func(in *Input) verdict {
		switch {
		case !in.knows(inputSecondFactor):
			return unrecorded
		case in.Identity.SecondFactor == "":
			return no
		}
		return signedInWithin(in.Identity, in.Time, age)
	})
}

func (b *builder) readVerifiedEmail() {
	v := b.m.Get("verified_email")
	if !v.Present() || v.OneOf("true") != "true" {
		return
	}
	b.facts.verifiedEmail = true
	b.add("verified_email", field{identity: true, reads: []string{"auth.email", "auth.email_verified"}}, func(in *Input) verdict {
		if !in.knows("auth.email") || !in.knows("auth.email_verified") {
			return unrecorded
		}
		return verdictOf(in.Identity.EmailVerified && in.Identity.Email != "")
	})
}

func (b *builder) readProviders() {
	v := b.m.Get("providers")
	if !v.Present() {
		return
	}
	names := v.Strings()
	b.facts.providers = names
	b.add("providers", field{identity: true, reads: []string{"auth.provider"}},
		func(in *Input) verdict { return verdictOf(slices.Contains(names, in.Identity.Provider)) })
}

func (b *builder) readAppCheck() {
	v := b.m.Get("app_check")
	if !v.Present() || v.OneOf("true") != "true" {
		return
	}
	if b.l.env != nil && !b.l.env.AppCheck {
		v.Errorf("`%s`: no identity of sidegate.yaml verifies App Check, so this could never be true", v.Path())
	}
	b.facts.appCheck = true
	b.add("app_check", field{reads: []string{inputAppCheck}}, func(in *Input) verdict {
		if !in.knows(inputAppCheck) {
			return unrecorded
		}
		if in.AppCheckFailure != nil {
			return unread
		}
		return verdictOf(in.AppCheck)
	})
}

func (b *builder) readRoles()  { b.facts.roles = b.readListClaim("roles", anyOf) }
func (b *builder) readScopes() { b.facts.scopes = b.readListClaim("scopes", allOf) }

// readListClaim reads values that the claim of the key's name, a list, is held
// against.
func (b *builder) readListClaim(key string, holds func(claim any, values []string) verdict) []string {
	v := b.m.Get(key)
	if !v.Present() {
		return nil
	}
	values := v.Strings()
	b.needClaim(v, key, claimType{"list", "string"})
	b.claimField(key, key, nil, func(claim any, _ *Input) verdict { return holds(claim, values) })
	return values
}

// claimField adds a condition on a claim; where the claim is absent it is false.
func (b *builder) claimField(key, name string, reads []string, holds func(claim any, in *Input) verdict) {
	input := "auth.token." + name
	f := field{claim: true, identity: true, reads: append([]string{input}, reads...)}
	b.add(key, f, func(in *Input) verdict {
		if !in.knows(input) {
			return unrecorded
		}
		claim, there := in.claim(name)
		if !there {
			return no
		}
		return holds(claim, in)
	})
}

// needClaim checks that a claim is declared, and as what.
func (b *builder) needClaim(v document.Value, name string, want claimType) {
	got, ok := b.l.claims[name]
	switch {
	case !ok && b.l.unknown.claims, ok && !got.known():
	case !ok:
		v.Errorf("SG003 claim `%s` is not declared; add `%s: %s` under `claims`%s", name, name, want, document.DidYouMean(name, keysOf(b.l.claims)))
	case got != want:
		v.Errorf("claim `%s` is declared as %s, and %s is needed here", name, got, want)
	}
}

func (b *builder) readOrg() {
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
		b.facts.unsure = true
		return
	}
	b.facts.orgIs, _ = id.isParam()
	b.facts.orgID, b.facts.orgRoles = id.text, roles
	b.claimField("org", "orgs", id.reads(), func(claim any, in *Input) verdict { return orgHolds(claim, id, in, roles) })
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

func (b *builder) readClaims() {
	all := b.m.Get("claims")
	for _, c := range all.Entries() {
		t, ok := b.l.claims[c.Key]
		if !ok && b.l.unknown.claims || ok && !t.known() {
			continue
		}
		if !ok {
			c.At.Errorf("SG003 claim `%s` is not declared; add its type under `claims`%s", c.Key, document.DidYouMean(c.Key, keysOf(b.l.claims)))
			continue
		}
		if t.container != "" || t.scalar == "double" || t.scalar == "timestamp" {
			c.Value.Errorf("claim `%s` is a %s: only string, int and bool can be compared here", c.Key, t)
			continue
		}
		values, scalar := claimValues(c.Value, t.scalar), t.scalar
		if b.facts.claims == nil {
			b.facts.claims = map[string][]any{}
		}
		b.facts.claims[c.Key] = values
		b.claimField("claims."+c.Key, c.Key, nil, func(claim any, _ *Input) verdict {
			for _, want := range values {
				if got := scalarMatches(scalar, claim, want); got != no {
					return got
				}
			}
			return no
		})
	}
	if all.IsMap() && len(all.Entries()) == 0 {
		all.Errorf("`%s` names no claim", all.Path())
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

func (b *builder) readKeyPrefix() {
	v := b.m.Get("key_prefix")
	if !v.Present() {
		return
	}
	if b.l.lacksObject(b.route) {
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
		v.Errorf("%s: %v", v.Path(), onPath(err, b.path))
		return
	}
	b.l.checkSources(v, t, b.path)
	for _, p := range t.parts {
		switch p.source {
		case sourceParam:
			v.Errorf("SG004 `%s`: a capture is the caller's own word; write ${auth.uid}, or ${sha256(params.%s)}", v.Path(), p.literal)
		case sourceUUID, sourceExt:
			v.Errorf("`%s`: ${uuid} and ${ext} are for the key", v.Path())
		case sourceBodyKey, sourceBodyKeyHash:
			v.Errorf("SG004 `%s`: ${request.key} is the caller's own word; write ${auth.uid}", v.Path())
		}
	}
	b.noteTemplate(v, t)
	t.strict = b.facts.place != inEntry
	lies := keyLiesUnder
	if b.facts.place == inDeny {
		lies = keyMeets
	}
	b.add("key_prefix", field{identity: t.readsIdentity(), reads: append([]string{"object.key"}, t.reads()...)},
		func(in *Input) verdict { return lies(in, t) })
}

// keyLiesUnder reports whether the object's key, which is a valid one, goes on
// after the prefix with a slash and more; of a list, which is of a prefix, with
// a slash.
func keyLiesUnder(in *Input, prefix template) verdict {
	if in.keyed != yes {
		return in.keyed
	}
	rest, known := prefix.cut(in, in.key, true)
	if known != yes {
		return known
	}
	return verdictOf(rest != "" && rest[0] == '/' && (len(rest) > 1 || in.Route.Serve == ListObjects))
}

// keyMeets is keyLiesUnder where something is denied: what lists more than the
// prefix lists what lies under it too.
func keyMeets(in *Input, prefix template) verdict {
	if v := keyLiesUnder(in, prefix); v != no || in.keyed != yes || in.Route.Serve != ListObjects {
		return v
	}
	folder, known := prefix.render(in)
	if known != yes {
		return known
	}
	return verdictOf(strings.HasPrefix(folder+"/", in.key))
}

// checkNamespaces is SG009 for a condition: a uid says who somebody is only
// within one namespace.
func (b *builder) checkNamespaces() {
	if len(b.facts.usesUID) == 0 {
		return
	}
	if all := b.l.namespaces(b.facts.who); len(all) > 1 {
		what := "lets in"
		if b.facts.place != inEntry {
			what = "is about"
		}
		b.facts.usesUID[0].Errorf("SG009 %s `%s` uses the uid, and %s identities of several uid namespaces (%s): limit it by `who`",
			map[bool]string{true: "entry", false: "guard"}[b.facts.place == inEntry], b.c.rule, what, strings.Join(all, ", "))
	}
}
