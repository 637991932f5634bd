// Package firebase verifies Firebase ID tokens: what Firebase adds to
// proxy/oidc, its issuer, keys, claims and tenants.
//
// Verification needs no credentials and asks nobody but for Google's published
// keys. Tokens without a signature, as the Auth emulator issues them, are the
// business of a type of their own, which nothing but NewEmulator makes.
package firebase

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"sidegate/policy"
	"sidegate/proxy/oidc"
)

// KeysURL is where Google publishes the keys that sign ID tokens.
// https://firebase.google.com/docs/auth/admin/verify-id-tokens names the same
// keys as X.509 certificates; this is their JWK set.
const KeysURL = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"

// issuerPrefix and the project are an ID token's issuer.
const issuerPrefix = "https://securetoken.google.com/"

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
	// InsecureKeysURL takes the keys from elsewhere than Google, over plain
	// http too: whoever answers there can be every user. For demos and tests.
	InsecureKeysURL string
	// Client fetches the keys; the default honours HTTPS_PROXY.
	Client *http.Client
	// Now is the clock; the default is time.Now.
	Now func() time.Time
}

// A Verifier verifies the ID tokens of one project and tenant by Google's
// signature. It is safe for concurrent use.
type Verifier struct {
	claims claims
	keys   *oidc.KeySet
}

var _ oidc.Provider = (*Verifier)(nil)

// New makes a Verifier. It fetches nothing: Keys has Prefetch and Run.
func New(o Options) (*Verifier, error) {
	c, err := newClaims(o)
	if err != nil {
		return nil, err
	}
	source := oidc.KeySetOptions{URL: KeysURL, Client: o.Client, Now: o.Now}
	if o.InsecureKeysURL != "" {
		source.URL, source.AllowHTTP = o.InsecureKeysURL, true
	}
	keys, err := oidc.NewKeySet(source)
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", o.Name, err)
	}
	return &Verifier{claims: c, keys: keys}, nil
}

// Keys are the keys by which the Verifier checks signatures.
func (v *Verifier) Keys() *oidc.KeySet { return v.keys }

// Accepts implements oidc.Provider.
func (v *Verifier) Accepts() []oidc.Selector { return v.claims.accepts() }

// Epoch implements oidc.Provider: it changes when Google withdraws a key.
func (v *Verifier) Epoch() uint64 { return v.keys.Epoch() }

// algorithms are those of ID tokens.
var algorithms = []string{oidc.RS256}

// Verify implements oidc.Provider: first the claims, which cost little, then
// the signature. Neither is enough.
func (v *Verifier) Verify(ctx context.Context, t *oidc.Token) (oidc.Verified, error) {
	verified := oidc.Verified{Epoch: v.Epoch()}
	id, until, err := v.claims.check(t)
	if err != nil {
		return oidc.Verified{}, err
	}
	if err := v.keys.Verify(ctx, t, algorithms); err != nil {
		return oidc.Verified{}, err
	}
	id.TokenHash = t.Hash()
	verified.Identity, verified.Until = id, until
	return verified, nil
}

// claims checks an ID token's payload; the same for real and emulated ones.
type claims struct {
	name, namespace, tenant string
	rules                   oidc.Rules
	now                     func() time.Time
}

// projectID is Google Cloud's rule for a project's ID, with the domain prefix
// that old ones have ("example.com:app").
var projectID = regexp.MustCompile(`^[a-z0-9][a-z0-9.:-]{0,98}[a-z0-9]$`)

func newClaims(o Options) (claims, error) {
	switch {
	case o.Name == "" || o.Namespace == "":
		return claims{}, errors.New("a firebase identity needs a name and a namespace")
	case !projectID.MatchString(o.Project):
		return claims{}, fmt.Errorf("identity %s: %q is not a project's ID", o.Name, o.Project)
	case o.Leeway < 0 || o.Leeway > oidc.MaxLeeway:
		return claims{}, fmt.Errorf("identity %s: a leeway of %s is not between 0s and %s", o.Name, o.Leeway, oidc.MaxLeeway)
	}
	c := claims{name: o.Name, namespace: o.Namespace, tenant: o.Tenant, now: o.Now, rules: oidc.Rules{
		Issuer: issuerPrefix + o.Project, Audience: o.Project,
		Leeway: o.Leeway, IssuedAt: true, AuthTime: true,
	}}
	if c.now == nil {
		c.now = time.Now
	}
	return c, nil
}

func (c *claims) accepts() []oidc.Selector {
	return []oidc.Selector{{
		Issuer: c.rules.Issuer, Audience: c.rules.Audience,
		Claim: "firebase.tenant", Value: c.tenant,
	}}
}

// check checks every claim that Firebase's rules name and makes the identity
// of them, without its TokenHash.
func (c *claims) check(t *oidc.Token) (*policy.Identity, time.Time, error) {
	times, err := c.rules.Check(t, c.now())
	if err != nil {
		return nil, time.Time{}, err
	}
	p, err := readPayload(t.Claims)
	if err != nil {
		return nil, time.Time{}, err
	}
	if p.tenant != c.tenant {
		return nil, time.Time{}, oidc.Refuse(oidc.ReasonTenant, "firebase.tenant is %q, not %q", p.tenant, c.tenant)
	}
	return &policy.Identity{
		Name: c.name, Namespace: c.namespace, UID: p.subject, Tenant: p.tenant,
		Issuer: c.rules.Issuer, Provider: p.provider,
		Email: p.email, EmailVerified: p.emailVerified, SecondFactor: p.secondFactor,
		AuthTime: times.AuthTime, Expires: times.Expires,
		Claims: t.Claims,
	}, c.rules.Until(times), nil
}
