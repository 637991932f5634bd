package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sidegate/policy"
)

// MaxSubject is the longest uid and actor in bytes: OpenID Connect Core 1.0,
// section 2, allows 255 characters of ASCII.
const MaxSubject = 255

// Options say whose tokens a Verifier takes and what it makes of them.
type Options struct {
	// Name is the identity's name in sidegate.yaml, Namespace that of its uids.
	Name, Namespace string
	// Issuer is what iss must be; Audiences are those of which aud must hold one.
	Issuer    string
	Audiences []string
	// Keys are the issuer's.
	Keys *KeySet
	// Algorithms are those of Algorithms that signatures may have.
	Algorithms []string
	// Emails are the only verified addresses whose tokens are taken; none: all
	// tokens are.
	Emails []string
	// UID leads to the claim that is the uid.
	UID Path
	// Actor leads to the claim, within act, that says who acts for the user; nil:
	// tokens with act are refused.
	Actor Path
	// Claims leads from the names of claims as the policy has them to the claims
	// of the token; those that are not listed have their own names.
	Claims map[string]Path
	// Require are claims that must be as given.
	Require []Requirement
	// Leeway is how far the clocks may differ, at most MaxLeeway.
	Leeway time.Duration
	// Now is the clock; the default is time.Now.
	Now func() time.Time
}

// A Requirement is a claim that must equal a value: a string, a bool or an
// int64.
type Requirement struct {
	Claim Path
	Value any
}

// A Verifier verifies the tokens of one OpenID Connect issuer. It is safe for
// concurrent use.
type Verifier struct {
	o   Options
	own bool // all claims but scopes have their own names
}

var _ Provider = (*Verifier)(nil)

// NewVerifier makes a Verifier. It fetches nothing: its keys have Prefetch and
// Run.
func NewVerifier(o Options) (*Verifier, error) {
	bad := func(format string, args ...any) (*Verifier, error) {
		return nil, fmt.Errorf("identity %s: "+format, append([]any{o.Name}, args...)...)
	}
	switch {
	case o.Name == "" || o.Namespace == "":
		return nil, errors.New("an identity needs a name and a namespace")
	case o.Issuer == "" || len(o.Audiences) == 0 || slices.Contains(o.Audiences, ""):
		return bad("it needs an issuer and an audience")
	case o.Keys == nil:
		return bad("it needs keys")
	case o.Leeway < 0 || o.Leeway > MaxLeeway:
		return bad("a leeway of %s is not between 0s and %s", o.Leeway, MaxLeeway)
	case o.Actor != nil && (len(o.Actor) < 2 || o.Actor[0] != "act"):
		return bad("the actor must be a claim within act")
	}
	for _, name := range o.Algorithms {
		if _, ok := algorithms[name]; !ok {
			return bad("there is no algorithm %q; there are %s", name, strings.Join(Algorithms(), ", "))
		}
	}
	if len(o.Algorithms) == 0 {
		return bad("it allows no algorithm")
	}
	if err := o.UID.Check(); err != nil {
		return bad("uid: %w", err)
	}
	for _, r := range o.Require {
		switch r.Value.(type) {
		case string, bool, int64:
		default:
			return bad("a claim cannot be required to be a %T", r.Value)
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Claims = maps.Clone(o.Claims)
	if o.Claims == nil {
		o.Claims = map[string]Path{}
	}
	v := &Verifier{o: o, own: len(o.Claims) == 0}
	if _, ok := o.Claims[scopesClaim]; !ok {
		o.Claims[scopesClaim] = Path{"scope"}
	}
	return v, nil
}

// scopesClaim is the policy's name of what RFC 9068, section 2.2.3, calls scope.
const scopesClaim = "scopes"

// Accepts implements Provider.
func (v *Verifier) Accepts() []Selector {
	return Selectors(v.o.Issuer, v.o.Audiences, v.o.Emails, v.o.Actor != nil)
}

// Epoch implements Provider: it changes when the issuer withdraws a key.
func (v *Verifier) Epoch() uint64 { return v.o.Keys.Epoch() }

// Verify implements Provider: first the claims, which cost little, then the
// signature. Neither is enough.
func (v *Verifier) Verify(ctx context.Context, t *Token) (Verified, error) {
	verified := Verified{Epoch: v.Epoch()}
	rules := Rules{Issuer: v.o.Issuer, Audiences: v.o.Audiences, Leeway: v.o.Leeway, IssuedAt: true}
	times, err := rules.Check(t, v.o.Now())
	if err != nil {
		return Verified{}, err
	}
	id := &policy.Identity{
		Name: v.o.Name, Namespace: v.o.Namespace, Issuer: v.o.Issuer,
		AuthTime: times.AuthTime, Expires: times.Expires, Payload: t.Payload(),
	}
	if err := refuseOtherKinds(t); err != nil {
		return Verified{}, err
	}
	if err := v.checkRequired(t); err != nil {
		return Verified{}, err
	}
	if id.UID, err = v.subject(t); err != nil {
		return Verified{}, err
	}
	if id.Actor, err = v.actor(t); err != nil {
		return Verified{}, err
	}
	if err := v.readEmail(id, t); err != nil {
		return Verified{}, err
	}
	id.SecondFactor = secondFactor(t.Claims)
	id.Claims = v.mapped(t.Claims)
	if err := v.o.Keys.Verify(ctx, t, v.o.Algorithms); err != nil {
		return Verified{}, err
	}
	id.TokenHash = t.Hash()
	verified.Identity, verified.Until = id, rules.Until(times)
	return verified, nil
}

// refuseOtherKinds refuses what is signed by the same issuer for the same
// audience and says who calls to nobody: security events, logout tokens among
// them (RFC 8417, section 2.2; OpenID Connect Back-Channel Logout 1.0, section
// 2.4), and tokens that count only with the proof of a key (RFC 7800), which
// nobody asks for here.
func refuseOtherKinds(t *Token) error {
	for _, name := range []string{"events", "cnf"} {
		if t.Claims.Has(name) {
			return Refuse(ReasonClaim, "it has %s: it is a security event, or bound to a key", name)
		}
	}
	return nil
}

func (v *Verifier) checkRequired(t *Token) error {
	for _, r := range v.o.Require {
		is, ok := r.Claim.find(t.Claims)
		if !ok {
			return Refuse(ReasonClaim, "%s is missing", r.Claim)
		}
		if n, number := is.(json.Number); number {
			whole, err := n.Int64()
			ok = err == nil && any(whole) == r.Value
		} else {
			ok = is == r.Value
		}
		if !ok {
			return Refuse(ReasonClaim, "%s is not what it must be", r.Claim)
		}
	}
	return nil
}

func (v *Verifier) subject(t *Token) (string, error) {
	if _, text := t.Claims.Text("sub"); !text && t.Claims.Has("sub") {
		return "", Refuse(ReasonSubject, "sub is not text")
	}
	if v.o.UID.String() == "email" && !isTrue(t.Claims, "email_verified") {
		// At many issuers everybody can write any address.
		return "", Refuse(ReasonEmail, "email is the uid, and is not verified")
	}
	uid, _ := v.o.UID.find(t.Claims)
	return CheckSubject(v.o.UID.String(), uid, MaxSubject)
}

// CheckSubject says whether a claim can say who somebody is: text that is
// neither empty nor longer than so many bytes, without control characters. The
// error is a *proxy.TokenError.
func CheckSubject(name string, value any, most int) (string, error) {
	text, ok := value.(string)
	switch {
	case !ok || text == "":
		return "", Refuse(ReasonSubject, "%s is missing, empty or not text", name)
	case len(text) > most:
		return "", Refuse(ReasonSubject, "%s is %d bytes long, at most %d", name, len(text), most)
	// Half of a surrogate pair became U+FFFD: two subjects would be one.
	case !utf8.ValidString(text) || strings.ContainsRune(text, utf8.RuneError) || strings.ContainsFunc(text, unicode.IsControl):
		return "", Refuse(ReasonSubject, "%s holds control characters or invalid UTF-8", name)
	}
	return text, nil
}

// actor is who acts for the user (RFC 8693, section 4.1), of the outermost act.
// One more within it, who acted before, is the issuer's information and decides
// nothing, as the RFC says. A chain that is longer is refused.
func (v *Verifier) actor(t *Token) (string, error) {
	acted := t.Claims.Has("act")
	switch {
	case v.o.Actor == nil && acted:
		return "", Refuse(ReasonClaim, "act: this identity has no actors")
	case v.o.Actor == nil:
		return "", nil
	case !acted:
		return "", Refuse(ReasonClaim, "act is missing: this identity is of those who act for a user")
	}
	act := t.Claims
	for range maxActors {
		var ok bool
		if act, ok = act.Object("act"); !ok {
			return "", Refuse(ReasonClaim, "act is not an object")
		}
		if err := t.RefuseLookalikes(act, "sub", "act", "iss", "client_id"); err != nil {
			return "", err
		}
		// An actor of another issuer would be somebody else of the same name.
		if iss, _ := act.Text("iss"); act.Has("iss") && iss != v.o.Issuer {
			return "", Refuse(ReasonClaim, "act.iss is not the token's issuer")
		}
		if acted = act.Has("act"); !acted {
			break
		}
	}
	if acted {
		return "", Refuse(ReasonClaim, "act: more than %d act one for another", maxActors)
	}
	actor, _ := v.o.Actor.find(t.Claims)
	return CheckSubject(v.o.Actor.String(), actor, MaxSubject)
}

// maxActors are an actor and the one before it.
const maxActors = 2

// readEmail reads the address, which counts only where the issuer says that it
// is verified, as true and nothing else. An issuer's own ways to write either
// are as if there were none.
func (v *Verifier) readEmail(id *policy.Identity, t *Token) error {
	id.Email, _ = t.Claims.Text("email")
	id.EmailVerified = isTrue(t.Claims, "email_verified") && id.Email != ""
	if len(v.o.Emails) > 0 && (!id.EmailVerified || !slices.Contains(v.o.Emails, id.Email)) {
		return Refuse(ReasonEmail, "email is not verified or not in the list")
	}
	return nil
}

// isTrue reports whether a claim is true, and not text that says so.
func isTrue(claims Object, name string) bool {
	value, _ := claims.Claim(name)
	is, _ := value.(bool)
	return is
}

// secondFactor is mfa where the token's methods of authentication hold it (RFC
// 8176, section 2).
func secondFactor(claims Object) string {
	amr, _ := claims.Claim("amr")
	methods, _ := amr.([]any)
	if slices.Contains(methods, any("mfa")) {
		return "mfa"
	}
	return ""
}

// mapped is the claims as the policy names them. A name that is mapped to a
// claim which the token does not have is no claim, also where the token has one
// of that name.
func (v *Verifier) mapped(claims Object) policy.Claims {
	if v.own && !claims.Has("scope") && !claims.Has(scopesClaim) {
		return claims // nothing has another name
	}
	out := claims.All()
	for name, path := range v.o.Claims {
		value, ok := path.find(claims)
		if !ok {
			delete(out, name)
			continue
		}
		if text, isText := value.(string); isText && name == scopesClaim {
			value = splitScope(text)
		}
		out[name] = value
	}
	return policy.ClaimMap(out)
}

// splitScope splits a scope at its spaces (RFC 6749, section 3.3).
func splitScope(text string) []any {
	list := []any{}
	for one := range strings.SplitSeq(text, " ") {
		if one != "" {
			list = append(list, one)
		}
	}
	return list
}
