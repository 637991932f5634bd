// Package firebase verifies what Firebase issues: ID tokens, session cookies
// and App Check tokens, and whether a user is still one. It is what Firebase
// adds to proxy/oidc: its issuers, keys, claims and tenants.
//
// Verification needs no credentials and asks nobody but for Google's published
// keys; only Users, which notice who was revoked, ask Firebase by its SDK.
// Tokens without a signature, as the Auth emulator issues them, are the
// business of a type of their own, which nothing but NewEmulator makes.
package firebase

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"sidegate/policy"
	"sidegate/proxy/oidc"
)

// Where Google publishes the keys that sign ID tokens, session cookies and App
// Check tokens.
const (
	// https://firebase.google.com/docs/auth/admin/verify-id-tokens names the
	// same keys as X.509 certificates; this is their JWK set.
	KeysURL = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
	// https://firebase.google.com/docs/auth/admin/manage-cookies; certificates.
	CookieKeysURL = "https://www.googleapis.com/identitytoolkit/v3/relyingparty/publicKeys"
	// https://firebase.google.com/docs/app-check/custom-resource-backend
	AppCheckKeysURL = "https://firebaseappcheck.googleapis.com/v1/jwks"
)

// A kind is what a token is: they differ in their issuer and its keys, and one
// is never taken for the other.
type kind struct{ issuer, keys string }

// A token's issuer is the prefix and the project.
var (
	idTokens       = kind{"https://securetoken.google.com/", KeysURL}
	sessionCookies = kind{"https://session.firebase.google.com/", CookieKeysURL}
)

// Options say whose tokens a Verifier takes.
type Options struct {
	// Name is the identity's name in sidegate.yaml, Namespace that of its uids.
	Name, Namespace string
	// Project is the Firebase project's ID.
	Project string
	// Tenant is the only Identity Platform tenant whose tokens are taken;
	// empty: only tokens without a tenant are.
	Tenant string
	// Leeway is how far the clocks may differ, at most oidc.MaxLeeway; zero
	// means not at all, sidegate.yaml's default is oidc.DefaultLeeway.
	Leeway time.Duration
	// Users notice who was revoked; nil: a token counts until it expires.
	Users *Users
	// KeySet gives the keys that Google publishes at a URL.
	KeySet func(url string) (*oidc.KeySet, error)
	// Now is the clock; the default is time.Now.
	Now func() time.Time
}

// A Verifier verifies the ID tokens, or the session cookies, of one project and
// tenant by Google's signature. It is safe for concurrent use.
type Verifier struct {
	claims claims
	keys   *oidc.KeySet
	users  *Users
}

var _ oidc.Provider = (*Verifier)(nil)

// New makes a Verifier of ID tokens. It fetches nothing: the keys have Prefetch
// and Run.
func New(o Options) (*Verifier, error) { return newVerifier(idTokens, o) }

// NewSessionCookies makes a Verifier of session cookies.
func NewSessionCookies(o Options) (*Verifier, error) { return newVerifier(sessionCookies, o) }

func newVerifier(k kind, o Options) (*Verifier, error) {
	c, err := newClaims(k, o)
	if err != nil {
		return nil, err
	}
	if o.KeySet == nil {
		return nil, fmt.Errorf("identity %s: it needs keys", o.Name)
	}
	keys, err := o.KeySet(k.keys)
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", o.Name, err)
	}
	return &Verifier{claims: c, keys: keys, users: o.Users}, nil
}

// Keys are the keys by which the Verifier checks signatures.
func (v *Verifier) Keys() *oidc.KeySet { return v.keys }

// Accepts implements oidc.Provider.
func (v *Verifier) Accepts() []oidc.Selector { return v.claims.accepts() }

// Epoch implements oidc.Provider: it changes when Google withdraws a key.
func (v *Verifier) Epoch() uint64 { return v.keys.Epoch() }

// algorithms are those of ID tokens, session cookies and App Check tokens.
var algorithms = []string{oidc.RS256}

// Verify implements oidc.Provider: first the claims, which cost little, then
// the signature, then, over the network, whether the user is still one. None
// of them is enough.
func (v *Verifier) Verify(ctx context.Context, t *oidc.Token) (oidc.Verified, error) {
	epoch := v.Epoch()
	id, times, err := v.claims.check(t)
	if err != nil {
		return oidc.Verified{}, err
	}
	if err := v.keys.Verify(ctx, t, algorithms); err != nil {
		return oidc.Verified{}, err
	}
	return v.claims.verified(ctx, id, times, epoch, v.users)
}

// claims checks a payload; the same for real and emulated tokens.
type claims struct {
	name, namespace, tenant string
	rules                   oidc.Rules
	now                     func() time.Time
}

// projectID is Google Cloud's rule for a project's ID, with the domain prefix
// that old ones have ("example.com:app").
var projectID = regexp.MustCompile(`^[a-z0-9][a-z0-9.:-]{0,126}[a-z0-9]$`)

func newClaims(k kind, o Options) (claims, error) {
	switch {
	case o.Name == "" || o.Namespace == "":
		return claims{}, errors.New("a firebase identity needs a name and a namespace")
	case !projectID.MatchString(o.Project):
		return claims{}, fmt.Errorf("identity %s: %q is not a project's ID", o.Name, o.Project)
	case o.Leeway < 0 || o.Leeway > oidc.MaxLeeway:
		return claims{}, fmt.Errorf("identity %s: a leeway of %s is not between 0s and %s", o.Name, o.Leeway, oidc.MaxLeeway)
	}
	c := claims{name: o.Name, namespace: o.Namespace, tenant: o.Tenant, now: o.Now, rules: oidc.Rules{
		Issuer: k.issuer + o.Project, Audiences: []string{o.Project},
		Leeway: o.Leeway, IssuedAt: true, AuthTime: true,
	}}
	if c.now == nil {
		c.now = time.Now
	}
	return c, nil
}

func (c *claims) accepts() []oidc.Selector {
	return selectors(c.rules.Issuer, c.rules.Audiences[0], c.tenant)
}

// Selectors are those of a project's and tenant's ID tokens.
func Selectors(project, tenant string) []oidc.Selector {
	return selectors(idTokens.issuer+project, project, tenant)
}

func selectors(issuer, project, tenant string) []oidc.Selector {
	return []oidc.Selector{{Issuer: issuer, Audience: project, Claim: "firebase.tenant", Value: tenant}}
}

// check checks every claim that Firebase's rules name and makes the identity
// of them.
func (c *claims) check(t *oidc.Token) (*policy.Identity, oidc.Times, error) {
	times, err := c.rules.Check(t, c.now())
	if err != nil {
		return nil, times, err
	}
	p, err := readPayload(t)
	if err != nil {
		return nil, times, err
	}
	if p.tenant != c.tenant {
		return nil, times, oidc.Refuse(oidc.ReasonTenant, "firebase.tenant is %q, not %q", p.tenant, c.tenant)
	}
	return &policy.Identity{
		Name: c.name, Namespace: c.namespace, UID: p.subject, Tenant: p.tenant,
		Issuer: c.rules.Issuer, Provider: p.provider,
		Email: p.email, EmailVerified: p.emailVerified, SecondFactor: p.secondFactor,
		AuthTime: times.AuthTime, Expires: times.Expires,
		Claims: t.Claims, Payload: t.Payload(), TokenHash: t.Hash(),
	}, times, nil
}

// verified is the end of a verification: whose user is still one.
func (c *claims) verified(ctx context.Context, id *policy.Identity, times oidc.Times, epoch uint64, users *Users) (oidc.Verified, error) {
	out := oidc.Verified{Identity: id, Until: c.rules.Until(times), Epoch: epoch}
	if users == nil {
		return out, nil
	}
	out.Stands = users.watch(id.UID, times.IssuedAt)
	if err := out.Stands(ctx); err != nil {
		return oidc.Verified{}, err
	}
	return out, nil
}
