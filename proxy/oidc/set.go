package oidc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sidegate/policy"
	"sidegate/proxy"
)

// A Provider verifies the tokens of one identity of sidegate.yaml. It is safe
// for concurrent use.
type Provider interface {
	// Accepts says which tokens are the provider's; it never changes.
	Accepts() []Selector
	// Verify checks everything of a token: form, signature, claims. Errors
	// are as proxy.Authenticator has them.
	Verify(ctx context.Context, t *Token) (Verified, error)
	// Epoch changes when tokens that were verified before must be verified
	// anew: a key is gone, a user is revoked.
	Epoch() uint64
}

// A Selector says which tokens are for a provider. It only picks: the provider
// checks these claims again.
type Selector struct {
	Issuer, Audience string
	// Claim is the path of a further claim that tells tokens apart, such as
	// firebase.tenant; its names are joined by dots. With an empty Value the
	// token must be without it. An empty Claim stands for no such claim.
	Claim, Value string
}

// A Verified is an identity and how long it stands.
type Verified struct {
	Identity *policy.Identity
	// Until is the first moment at which verification would refuse the token
	// as expired.
	Until time.Time
	// Epoch is the provider's, read before the verification.
	Epoch uint64
}

// A Set authenticates tokens of several providers: the one whose Selector fits
// a token verifies it, wherever in the list it stands.
type Set struct {
	issuers map[string][]choice
}

type choice struct {
	Selector
	provider Provider
	path     []string // of the claim
}

var _ proxy.Authenticator = (*Set)(nil)

// New makes a Set. Two providers that one token could fit are an error; so is
// having none.
func New(providers ...Provider) (*Set, error) {
	s := &Set{issuers: make(map[string][]choice)}
	for _, p := range providers {
		if len(p.Accepts()) == 0 {
			return nil, errors.New("an identity takes no token at all")
		}
		for _, selector := range p.Accepts() {
			if err := s.add(p, selector); err != nil {
				return nil, err
			}
		}
	}
	if len(s.issuers) == 0 {
		return nil, errors.New("no identity is configured: no token could be accepted")
	}
	return s, nil
}

func (s *Set) add(p Provider, selector Selector) error {
	if selector.Issuer == "" || selector.Audience == "" {
		return errors.New("an identity needs an issuer and an audience")
	}
	for _, other := range s.issuers[selector.Issuer] {
		if other.overlaps(selector) {
			return fmt.Errorf("one token could fit two identities: both take issuer %s and audience %s; "+
				"they must differ in audience, tenant or e-mail list", selector.Issuer, selector.Audience)
		}
	}
	c := choice{Selector: selector, provider: p}
	if selector.Claim != "" {
		c.path = strings.Split(selector.Claim, ".")
	}
	s.issuers[selector.Issuer] = append(s.issuers[selector.Issuer], c)
	return nil
}

// overlaps reports whether one token with one audience could fit both; tokens
// with several audiences are looked at when they come.
func (c choice) overlaps(other Selector) bool {
	if c.Audience != other.Audience {
		return false
	}
	return c.Claim != other.Claim || c.Value == other.Value
}

// Authenticate parses a token and has its provider verify it.
func (s *Set) Authenticate(ctx context.Context, token string) (*policy.Identity, error) {
	v, _, err := s.verify(ctx, token)
	return v.Identity, err
}

func (s *Set) verify(ctx context.Context, token string) (Verified, Provider, error) {
	t, err := Parse(token)
	if err != nil {
		return Verified{}, nil, err
	}
	p, err := s.pick(t)
	if err != nil {
		return Verified{}, nil, err
	}
	v, err := p.Verify(ctx, t)
	if err != nil {
		return Verified{}, nil, err
	}
	if v.Identity == nil {
		return Verified{}, nil, errors.New("a provider gave neither an identity nor an error")
	}
	return v, p, nil
}

// pick gives the one provider that a token fits: by issuer, then audience,
// then the further claim.
func (s *Set) pick(t *Token) (Provider, error) {
	issuer, _ := t.Claims["iss"].(string)
	choices := s.issuers[issuer]
	if len(choices) == 0 {
		return nil, Refuse(ReasonIssuer, "no identity has the issuer %q", issuer)
	}
	audience, err := audiences(t.Claims)
	if err != nil {
		return nil, err
	}
	var picked Provider
	heard := false // an identity has this issuer and audience
	for _, c := range choices {
		if !slices.Contains(audience, c.Audience) {
			continue
		}
		heard = true
		if !c.fits(t) {
			continue
		}
		if picked != nil && picked != c.provider {
			return nil, Refuse(ReasonAmbiguous, "its audiences are those of two identities")
		}
		picked = c.provider
	}
	switch {
	case picked != nil:
		return picked, nil
	case heard:
		return nil, Refuse(ReasonTenant, "no identity of this issuer and audience takes its %s", choices[0].Claim)
	}
	return nil, Refuse(ReasonAudience, "no identity of the issuer %q has its audience %q", issuer, audience)
}

// fits reports whether the further claim is as the selector has it. One that
// is there but not text fits no selector; one within something that is not an
// object is not there.
func (c choice) fits(t *Token) bool {
	if c.path == nil {
		return true
	}
	var value any = t.Claims
	for _, name := range c.path {
		object, _ := value.(map[string]any)
		var ok bool
		if value, ok = object[name]; !ok {
			return c.Value == ""
		}
	}
	text, ok := value.(string)
	return ok && text != "" && text == c.Value
}
