package cmd

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"sidegate/policy/document"
	"sidegate/proxy/firebase"
	"sidegate/proxy/oidc"
)

var (
	// Google Cloud project ids, with the domain of legacy ones
	// (cloud.google.com/resource-manager/docs/creating-managing-projects).
	projectID = newForm(`^([a-z0-9][a-z0-9.-]{0,61}:)?[a-z][a-z0-9-]{0,61}[a-z0-9]$`)
	tenantID  = newForm(`^[A-Za-z0-9-]{0,128}$`)
	// RFC 6265 allows more; these are what browsers and frameworks agree on.
	cookieName   = newForm(`^([A-Za-z0-9_-][A-Za-z0-9_.-]{0,63})?$`)
	emailAddress = newForm(`^[!-?A-~]{1,64}@[!-?A-~]{1,255}$`)
	// Empty: none.
	idTokenAudience = newForm(`^[\x21-\x7e]{0,512}$`)
	audienceForm    = newForm(`^[\x21-\x7e]{1,512}$`)
)

// Google's issuer of ID tokens for accounts, service accounts included, and its
// keys (https://accounts.google.com/.well-known/openid-configuration).
const (
	googleIssuer = "https://accounts.google.com"
	googleKeys   = "https://www.googleapis.com/oauth2/v3/certs"
)

// defaultRevocation is within which revoked users are noticed where session
// cookies, which live for up to two weeks, are accepted.
const defaultRevocation = 5 * time.Minute

func (l *configLoader) readIdentities(v document.Value, c *Config) {
	entries := v.Entries()
	maps := make(map[string]document.Map, len(entries))
	for _, e := range entries {
		if !e.At.CheckName(e.Key) {
			continue
		}
		m := e.Value.Map(l.keys["identities.*"])
		maps[e.Key] = m
		id := IdentityConfig{Name: e.Key, Namespace: e.Key}
		l.readIssuer(m, &id)
		for _, other := range c.Identities {
			if why := id.overlaps(other); why != "" {
				e.At.Errorf("a token could be of `%s` and of `identities.%s` (%s): %s", e.At.Path(), other.Name, maps[other.Name].Place(), why)
			}
		}
		c.Identities = append(c.Identities, id)
	}
	l.resolveNamespaces(maps, c)
}

// overlaps says why a token could be of both; empty: none could.
func (id IdentityConfig) overlaps(other IdentityConfig) string {
	for _, mine := range id.selectors() {
		for _, theirs := range other.selectors() {
			if !mine.Overlaps(theirs) {
				continue
			}
			if id.Firebase != nil && other.Firebase != nil {
				return "they have the same project and tenant"
			}
			return "they have the same issuer and audience, and neither tenant, e-mail list nor actor tells their tokens apart"
		}
	}
	return ""
}

// selectors say which tokens are the identity's; none where it could not be
// read.
func (id IdentityConfig) selectors() []oidc.Selector {
	switch {
	case id.Firebase != nil && id.Firebase.Project != "":
		return firebase.Selectors(id.Firebase.Project, id.Firebase.Tenant)
	case id.OIDC != nil && id.OIDC.Issuer != "":
		return oidc.Selectors(id.OIDC.Issuer, id.OIDC.Audiences, id.OIDC.Emails, id.OIDC.Actor != nil)
	}
	return nil
}

// issuers are the keys of which an identity has one.
var issuers = []string{"firebase", "google", "oidc"}

func (l *configLoader) readIssuer(m document.Map, id *IdentityConfig) {
	var found []string
	for _, key := range issuers {
		if m.Get(key).Present() {
			found = append(found, key)
		}
	}
	if len(found) == 0 && m.Present() {
		m.Errorf("`%s` needs one of firebase, google and oidc: it says whose tokens these are", m.Path())
	}
	for _, key := range found[min(1, len(found)):] {
		m.Get(key).Errorf("`%s` and `%s.%s`: an identity has one issuer", m.Get(key).Path(), m.Path(), found[0])
	}
	l.readFirebase(m.Get("firebase"), id)
	l.readGoogle(m.Get("google"), id)
	l.readOIDC(m.Get("oidc"), id)
}

func (l *configLoader) readFirebase(v document.Value, id *IdentityConfig) {
	if !v.Present() {
		return
	}
	m := v.Map(l.keys["identities.*.firebase"])
	f := &FirebaseIdentity{
		Project: l.matching(m.Need("project"), projectID, "a Firebase project's id"),
		Tenant:  l.matching(m.Get("tenant"), tenantID, "a tenant's id: letters, digits and `-`"),
		Leeway:  l.duration(m.Get("leeway"), oidc.DefaultLeeway, 0, oidc.MaxLeeway),
	}
	f.SessionCookie = l.matching(m.Get("session_cookie"), cookieName, "a cookie's name: up to 64 letters, digits and `_-.`")
	f.AppCheck = m.Get("app_check").Bool()
	l.readRevocation(m, f)
	id.Firebase = f
}

func (l *configLoader) readRevocation(m document.Map, f *FirebaseIdentity) {
	window, grace := m.Get("revocation"), m.Get("revocation_grace")
	if f.SessionCookie != "" {
		f.Revocation = defaultRevocation
	}
	if text, ok := window.Text(); ok && text == "off" {
		f.Revocation = 0
		if f.SessionCookie != "" {
			window.Errorf("`%s`: session cookies live for up to two weeks, so that who is revoked must be noticed: leave the key out, or write a time such as 5m", window.Path())
		}
	} else if ok {
		if f.Revocation = window.DurationIn(10*time.Second, time.Hour); f.Revocation == 0 && !window.Failed() {
			f.Revocation = defaultRevocation // told already
		}
	}
	f.RevocationGrace = l.duration(grace, 0, 0, longest)
	if f.RevocationGrace > 0 && f.Revocation == 0 {
		grace.Errorf("`%s` says how long to go on while revocation cannot be asked; without `revocation` it is never asked", grace.Path())
	}
}

func (l *configLoader) readGoogle(v document.Value, id *IdentityConfig) {
	if !v.Present() {
		return
	}
	m := v.Map(l.keys["identities.*.google"])
	o := &OIDCIdentity{
		Issuer: googleIssuer, Keys: googleKeys, Audiences: l.audiences(m.Need("audience")),
		UID: oidc.Path{"sub"}, Algorithms: []string{oidc.RS256},
	}
	emails := m.Need("emails")
	for _, e := range emails.List() {
		if address := l.matching(e, emailAddress, "an e-mail address"); address != "" && slices.Contains(o.Emails, address) {
			e.Errorf("`%s`: %s is there twice", e.Path(), e.Quote())
		} else if address != "" {
			o.Emails = append(o.Emails, address)
		}
	}
	if len(o.Emails) > 0 { // else every account of Google's would be let in
		id.OIDC = o
	}
}

func (l *configLoader) readOIDC(v document.Value, id *IdentityConfig) {
	if !v.Present() {
		return
	}
	m := v.Map(l.keys["identities.*.oidc"])
	o := &OIDCIdentity{Issuer: l.issuer(m.Need("issuer")), Audiences: l.audiences(m.Need("audience"))}
	if keys := m.Get("keys"); keys.Present() {
		if text, ok := keys.Text(); ok && text != "" {
			o.Keys = l.httpsURL(keys, "an https URL without query and fragment")
		}
	}
	o.UID = oidc.Path{"sub"}
	if uid := m.Get("uid"); uid.Present() {
		o.UID = l.claimPath(uid)
	}
	if actor := m.Get("actor"); actor.Present() {
		l.readActor(actor, o)
	}
	o.Algorithms = []string{oidc.RS256, oidc.ES256}
	if list := m.Get("algorithms"); list.Present() {
		o.Algorithms = nil
		for _, e := range list.List() {
			name := e.OneOf(oidc.Algorithms()...)
			if slices.Contains(o.Algorithms, name) {
				e.Errorf("`%s`: %s is there twice", e.Path(), name)
			} else if name != "" {
				o.Algorithms = append(o.Algorithms, name)
			}
		}
	}
	l.readClaims(m.Get("claims"), o)
	l.readRequired(m.Get("require"), o)
	if why := strangers(o); why != "" {
		l.warn(m.Get("audience"), "`%s`: %s; write under `require` whose they must be", m.Path(), why)
	}
	id.OIDC = o
}

// strangers says why everybody has tokens that fit: at these issuers callers
// choose the audience themselves.
func strangers(o *OIDCIdentity) string {
	switch {
	case len(o.Require) > 0:
	case o.Issuer == "https://token.actions.githubusercontent.com":
		return "a workflow of every repository of GitHub gets tokens for this audience"
	case o.Issuer == googleIssuer:
		return "every service account of Google Cloud gets tokens for this audience; `google` has a list of e-mail addresses"
	}
	return ""
}

func (l *configLoader) readActor(v document.Value, o *OIDCIdentity) {
	if text, ok := v.Text(); v.IsString() && ok && text == "off" {
		return
	}
	path := l.claimPath(v)
	if path != nil && (len(path) < 2 || path[0] != "act") {
		v.Errorf("`%s`: who acts for a user stands in the claim act (RFC 8693): write act.sub, or off", v.Path())
		return
	}
	o.Actor = path
}

// audiences reads one audience or a list of them.
func (l *configLoader) audiences(v document.Value) []string {
	const rule = "an audience: 1 to 512 printable characters without spaces"
	if !v.IsList() {
		if one := l.matching(v, audienceForm, rule); one != "" {
			return []string{one}
		}
		return nil
	}
	var out []string
	for _, e := range v.List() {
		one := l.matching(e, audienceForm, rule)
		if slices.Contains(out, one) {
			e.Errorf("`%s`: %s is there twice", e.Path(), e.Quote())
		} else if one != "" {
			out = append(out, one)
		}
	}
	return out
}

// firebaseHosts are those of the issuers whose tokens mean what only `firebase`
// knows.
var firebaseHosts = []string{"securetoken.google.com", "session.firebase.google.com", "firebaseappcheck.googleapis.com"}

func (l *configLoader) issuer(v document.Value) string {
	issuer := l.httpsURL(v, "an https URL without query and fragment, as the issuer writes it itself")
	if u, err := url.Parse(issuer); err == nil && slices.Contains(firebaseHosts, strings.ToLower(u.Hostname())) {
		v.Errorf("`%s`: write `firebase: {project: ...}`, which also knows tenants, session cookies and revocation", v.Path())
		return ""
	}
	return issuer
}

// httpsURL reads a URL, which may have a path; rule says the form in words.
func (l *configLoader) httpsURL(v document.Value, rule string) string {
	s, ok := v.Text()
	if !ok {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case strings.Contains(s, "@"): // it may hold a password
		v.Errorf("`%s`: want an https URL without user and password", v.Path())
	case err != nil || u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.ForceQuery || strings.ContainsAny(s, "# "):
		v.Errorf("`%s`: want %s, not %s", v.Path(), rule, v.Quote())
	default:
		return s
	}
	return ""
}

// claimPath reads the way to a claim: names joined by dots, or a list of them.
func (l *configLoader) claimPath(v document.Value) oidc.Path {
	var path oidc.Path
	var err error
	if v.IsList() {
		for _, e := range v.List() {
			name, ok := e.Text()
			if !ok {
				return nil
			}
			path = append(path, name)
		}
		err = path.Check()
	} else {
		text, ok := v.Text()
		if !ok {
			return nil
		}
		path, err = oidc.ParsePath(text)
	}
	if err != nil {
		v.Errorf("`%s`: %v", v.Path(), err)
		return nil
	}
	return path
}

func (l *configLoader) readClaims(v document.Value, o *OIDCIdentity) {
	if !v.Present() {
		return
	}
	o.Claims = map[string]oidc.Path{}
	for _, e := range v.Entries() {
		if e.At.CheckIdent(e.Key) {
			path := l.claimPath(e.Value)
			if path.String() == "email" {
				e.Value.Errorf("`%s`: the policy reads auth.email, which is only what the issuer vouches for", e.Value.Path())
			} else if path != nil {
				o.Claims[e.Key] = path
			}
		}
	}
}

func (l *configLoader) readRequired(v document.Value, o *OIDCIdentity) {
	if !v.Present() {
		return
	}
	for _, e := range v.Entries() {
		path, err := oidc.ParsePath(e.Key)
		if err != nil {
			e.At.Errorf("`%s`: %v", e.At.Path(), err)
			continue
		}
		r := oidc.Requirement{Claim: path}
		switch {
		case e.Value.IsBool():
			r.Value = e.Value.Bool()
		case e.Value.IsInt():
			r.Value = e.Value.Int(-1<<53, 1<<53)
		case e.Value.IsString():
			text, ok := e.Value.Text()
			if !ok {
				continue
			}
			r.Value = text
		case e.Value.Failed():
			continue
		default:
			e.Value.Errorf("`%s` must be a string, a whole number, true or false", e.Value.Path())
			continue
		}
		o.Require = append(o.Require, r)
	}
}

// resolveNamespaces follows `uids` from identity to identity.
func (l *configLoader) resolveNamespaces(maps map[string]document.Map, c *Config) {
	next := map[string]string{}
	for _, id := range c.Identities {
		v := maps[id.Name].Get("uids")
		if !v.Present() {
			continue
		}
		name := v.Name()
		if _, ok := maps[name]; !ok && name != "" {
			v.Errorf("`%s`: there is no identity %q%s", v.Path(), v.Show(), document.DidYouMean(v.Show(), names(c.Identities)))
			continue
		}
		next[id.Name] = name
	}
	for i := range c.Identities {
		id := &c.Identities[i]
		for steps := 0; next[id.Namespace] != "" && next[id.Namespace] != id.Namespace; steps++ {
			if steps > len(next) {
				v := maps[id.Name].Get("uids")
				v.Errorf("`%s` goes round in a circle", v.Path())
				break
			}
			id.Namespace = next[id.Namespace]
		}
	}
}

func names(ids []IdentityConfig) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id.Name
	}
	return out
}
