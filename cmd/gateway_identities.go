package cmd

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"sidegate/policy"
	"sidegate/proxy"
	"sidegate/proxy/firebase"
	"sidegate/proxy/oidc"
)

// callers find out who calls, in each of the ways that a request can say it.
type callers struct {
	tokens   proxy.Authenticator
	cookies  map[string]proxy.Authenticator // by the cookie's name
	appCheck map[string]proxy.Authenticator // by the identity's name
}

// An identities opens what sidegate.yaml's identities need.
type identities struct {
	g        *gateway
	keys     map[string]*oidc.KeySet // by where they come from
	kinds    map[string]keysKind     // and how they are read
	tokens   []oidc.Provider
	cookies  map[string][]oidc.Provider
	appCheck map[string]*oidc.Set // by project
	names    map[string]string    // of identities that verify App Check: their project
}

// A keysKind is in what ways a source of keys can be read.
type keysKind struct{ discovered, noKeyID bool }

// openIdentities makes the verifiers. The Auth emulator's unsigned tokens are
// taken only where its switch and its variable are both there.
func (g *gateway) openIdentities(ctx context.Context) (callers, error) {
	c := g.s.config
	if c.KeysCache != "" {
		if err := os.MkdirAll(c.KeysCache, 0o700); err != nil {
			return callers{}, fmt.Errorf("keys_cache: %w", err)
		}
	}
	o := &identities{g: g, keys: map[string]*oidc.KeySet{}, kinds: map[string]keysKind{}, cookies: map[string][]oidc.Provider{}, appCheck: map[string]*oidc.Set{}, names: map[string]string{}}
	for _, id := range c.Identities {
		open := o.openOIDC
		if id.Firebase != nil {
			open = o.openFirebase
		}
		if err := open(ctx, id); err != nil {
			return callers{}, fmt.Errorf("identities.%s: %w", id.Name, err)
		}
	}
	for _, source := range slices.Sorted(maps.Keys(o.keys)) {
		g.keys = append(g.keys, o.keys[source])
	}
	return o.callers()
}

// callers puts the one cache before all of them.
func (o *identities) callers() (callers, error) {
	out := callers{tokens: nobody{}, cookies: map[string]proxy.Authenticator{}, appCheck: map[string]proxy.Authenticator{}}
	if len(o.tokens) == 0 {
		return out, nil
	}
	set, err := oidc.New(o.tokens...)
	if err != nil {
		return out, err
	}
	cached := func(set *oidc.Set) proxy.Authenticator { return set }
	out.tokens = set
	if n := o.g.s.config.TokenCache; n > 0 {
		cache, err := oidc.NewCache(set, oidc.CacheOptions{Entries: n})
		if err != nil {
			return out, err
		}
		out.tokens, cached, o.g.tokens = cache, cache.For, cache
	}
	for name, providers := range o.cookies {
		set, err := oidc.New(providers...)
		if err != nil {
			return out, err
		}
		out.cookies[name] = cached(set)
	}
	checks := map[string]proxy.Authenticator{}
	for project, set := range o.appCheck {
		checks[project] = cached(set)
	}
	for name, project := range o.names {
		out.appCheck[name] = checks[project]
	}
	return out, nil
}

// keySet gives the keys of a source, which identities share.
func (o *identities) keySet(options oidc.KeySetOptions) (*oidc.KeySet, error) {
	options.Folder, options.Client = o.g.s.config.KeysCache, o.g.keysClient
	keys, err := oidc.NewKeySet(options)
	if err != nil {
		return nil, err
	}
	source, kind := keys.Status().Source, keysKind{options.URL == "", options.NoKeyID}
	if have := o.keys[source]; have != nil {
		if o.kinds[source] != kind {
			return nil, fmt.Errorf("the keys of %s are another identity's, which reads them in another way", source)
		}
		return have, nil
	}
	o.keys[source], o.kinds[source] = keys, kind
	return keys, nil
}

// firebaseKeys gives Google's keys, or those of --insecure-keys.
func (o *identities) firebaseKeys(url string) (*oidc.KeySet, error) {
	if u := o.g.s.insecure.keys; u != nil {
		return o.keySet(oidc.KeySetOptions{URL: u.String(), AllowHTTP: true})
	}
	return o.keySet(oidc.KeySetOptions{URL: url})
}

func (o *identities) openFirebase(ctx context.Context, id IdentityConfig) error {
	f := id.Firebase
	emulator := ""
	if in := o.g.s.insecure; in.emulator {
		emulator = in.authEmulator
	}
	options := firebase.Options{Name: id.Name, Namespace: id.Namespace, Project: f.Project, Tenant: f.Tenant, Leeway: f.Leeway, KeySet: o.firebaseKeys}
	if f.Revocation > 0 {
		// The SDK gets its credentials by this context for as long as it is asked,
		// while the gateway stops, too.
		ctx := context.WithoutCancel(ctx)
		credentials, err := googleFromAWS(ctx, o.g.s.env)
		if err != nil {
			return err
		}
		read, err := firebase.AdminUsers(ctx, f.Project, f.Tenant, emulator, credentials)
		if err != nil {
			return fmt.Errorf("revocation asks Firebase for users, with the machine's Google credentials (GOOGLE_APPLICATION_CREDENTIALS, or those of its service account): %w", err)
		}
		if options.Users, err = firebase.NewUsers(firebase.UsersOptions{Read: read, Window: f.Revocation, Grace: f.RevocationGrace}); err != nil {
			return err
		}
		o.g.users = append(o.g.users, options.Users)
	}
	newTokens, newCookies := provider(firebase.New), provider(firebase.NewSessionCookies)
	if emulator != "" {
		newTokens, newCookies = provider(firebase.NewEmulator), provider(firebase.NewEmulatorCookies)
	}
	tokens, err := newTokens(options)
	if err != nil {
		return err
	}
	o.tokens = append(o.tokens, namedProvider{tokens, id.Name})
	if name := f.SessionCookie; name != "" {
		cookies, err := newCookies(options)
		if err != nil {
			return err
		}
		o.cookies[name] = append(o.cookies[name], namedProvider{cookies, id.Name})
	}
	if !f.AppCheck {
		return nil
	}
	o.names[id.Name] = f.Project
	if o.appCheck[f.Project] != nil {
		return nil
	}
	check, err := firebase.NewAppCheck(options)
	if err != nil {
		return err
	}
	o.appCheck[f.Project] = oidc.Only(check)
	return nil
}

// provider makes the constructors of several types one.
func provider[P oidc.Provider](f func(firebase.Options) (P, error)) func(firebase.Options) (oidc.Provider, error) {
	return func(o firebase.Options) (oidc.Provider, error) { return f(o) }
}

func (o *identities) openOIDC(_ context.Context, id IdentityConfig) error {
	keys, err := o.keySet(oidc.KeySetOptions{URL: id.OIDC.Keys, Issuer: id.OIDC.Issuer, NoKeyID: true})
	if err != nil {
		return err
	}
	v, err := oidc.NewVerifier(verifierOptions(id, keys, time.Now))
	if err != nil {
		return err
	}
	o.tokens = append(o.tokens, namedProvider{v, id.Name})
	return nil
}

func verifierOptions(id IdentityConfig, keys *oidc.KeySet, now func() time.Time) oidc.Options {
	c := id.OIDC
	return oidc.Options{
		Name: id.Name, Namespace: id.Namespace, Issuer: c.Issuer, Audiences: c.Audiences, Keys: keys, Algorithms: c.Algorithms,
		Emails: c.Emails, UID: c.UID, Actor: c.Actor, Claims: c.Claims, Require: c.Require, Leeway: oidc.DefaultLeeway, Now: now,
	}
}

// nobody authenticates for a gateway without identities: its policy can have
// public routes only, and no token is anybody's.
type nobody struct{}

func (nobody) Authenticate(context.Context, string) (*policy.Identity, error) {
	return nil, &proxy.TokenError{Reason: "no issuer of tokens is known here"}
}

// openAssertions makes what signs who calls; nil where nothing does.
func (g *gateway) openAssertions() (*proxy.Assertions, error) {
	c := g.s.config
	if !c.Assertion.Key.IsSet() {
		return nil, nil
	}
	a, err := proxy.NewAssertions(c.Name, []byte(c.Assertion.Key.Reveal()), []byte(c.Assertion.NextKey.Reveal()), time.Now)
	if err != nil {
		return nil, fmt.Errorf("assertion.%w", err)
	}
	return a, nil
}
