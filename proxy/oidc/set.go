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
	// Actor takes the tokens by which somebody acts for the user: those with
	// the claim act (RFC 8693, section 4.1). Without it those without.
	Actor bool
}

// Selectors are those of one issuer's tokens: for each audience and, where there
// are some, for each address in the claim email.
func Selectors(issuer string, audiences, emails []string, actor bool) []Selector {
	var all []Selector
	for _, audience := range audiences {
		s := Selector{Issuer: issuer, Audience: audience, Actor: actor}
		if len(emails) == 0 {
			all = append(all, s)
		}
		for _, address := range emails {
			s.Claim, s.Value = "email", address
			all = append(all, s)
		}
	}
	return all
}

// Overlaps reports whether one token with one audience could fit both; tokens
// with several audiences are looked at when they come.
func (s Selector) Overlaps(other Selector) bool {
	if s.Issuer != other.Issuer || s.Audience != other.Audience || s.Actor != other.Actor {
		return false
	}
	return s.Claim != other.Claim || s.Value == other.Value
}

// A Verified is an identity and how long it stands.
type Verified struct {
	Identity *policy.Identity
	// Until is the first moment at which verification would refuse the token
	// as expired.
	Until time.Time
	// Epoch is the provider's, read before the verification.
	Epoch uint64
	// Stands, where it is set, is asked each time the identity is used again,
	// from several goroutines: whether the user is still one. Its errors are as
	// proxy.Authenticator has them.
	Stands func(context.Context) error
}

// A Set authenticates tokens of several providers: the one whose Selector fits
// a token verifies it, wherever in the list it stands.
type Set struct {
	issuers map[string][]choice
	only    Provider // of Only
}

type choice struct {
	Selector
	provider Provider
	path     Path // of the claim
}

var _ proxy.Authenticator = (*Set)(nil)

// Only makes a Set of one provider that gets every token, whatever its issuer:
// for tokens that do not say who a caller is.
func Only(p Provider) *Set { return &Set{only: p} }

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
		if other.Overlaps(selector) {
			return fmt.Errorf("one token could fit two identities: both take issuer %s and audience %s; "+
				"they must differ in audience, tenant, e-mail list or actor", selector.Issuer, selector.Audience)
		}
	}
	c := choice{Selector: selector, provider: p}
	if selector.Claim != "" {
		c.path = strings.Split(selector.Claim, ".")
	}
	s.issuers[selector.Issuer] = append(s.issuers[selector.Issuer], c)
	return nil
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
	p := s.only
	if p == nil {
		if p, err = s.pick(t); err != nil {
			return Verified{}, nil, err
		}
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
// then the further claim, then whether somebody acts for the user.
func (s *Set) pick(t *Token) (Provider, error) {
	issuer, _ := t.Claims.Text("iss")
	choices := s.issuers[issuer]
	if len(choices) == 0 {
		return nil, Refuse(ReasonIssuer, "no identity has the issuer %q", issuer)
	}
	audience, err := audiences(t.Claims)
	if err != nil {
		return nil, err
	}
	acted := t.Claims.Has("act")
	var picked Provider
	heard, fits := "", false // the further claim of an identity with this issuer and audience; one has it
	for _, c := range choices {
		if !slices.Contains(audience, c.Audience) {
			continue
		}
		heard = c.Claim
		if !c.fits(t) {
			continue
		}
		fits = true
		if c.Actor != acted {
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
	case fits && acted:
		return nil, Refuse(ReasonClaim, "act: this identity has no actors")
	case fits:
		return nil, Refuse(ReasonClaim, "act is missing: this identity is of those who act for a user")
	case heard != "":
		return nil, Refuse(mismatch(heard), "no identity of this issuer and audience takes its %s", heard)
	}
	return nil, Refuse(ReasonAudience, "no identity of the issuer %q has its audience %q", issuer, audience)
}

func mismatch(claim string) string {
	if claim == "email" {
		return ReasonEmail
	}
	return ReasonTenant
}

// fits reports whether the further claim is as the selector has it. One that
// is there but not text fits no selector; one within something that is not an
// object is not there.
func (c choice) fits(t *Token) bool {
	if c.path == nil {
		return true
	}
	text, there, isText := c.path.text(t.Claims)
	if !there {
		return c.Value == ""
	}
	return isText && text != "" && text == c.Value
}
