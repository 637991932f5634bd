package policy

import "time"

// An Identity is a caller whose token was verified. It is never changed after
// it was made: requests with the same token share one.
type Identity struct {
	Name      string // the identity's name in sidegate.yaml
	Namespace string // the uid namespace: a UID means something only within it
	UID       string
	Actor     string // the agent that acts for UID; empty: the caller acts for itself
	Tenant    string
	Issuer    string
	Provider  string // Firebase's sign_in_provider
	Email     string
	// EmailVerified is the issuer's word that Email is the caller's.
	EmailVerified bool
	// SecondFactor is how the sign-in's second factor was given, as the issuer
	// names it; empty: there was none.
	SecondFactor string
	AuthTime     time.Time // when the user signed in; zero where the token does not say
	Expires      time.Time // when the token ends
	// Claims are the token's, under the names that a policy declares; nil: none.
	Claims Claims
	// Payload is the base64url, without padding, of the claims as the issuer
	// wrote them.
	Payload string
	// TokenHash is the lower-case hex SHA-256 of the token.
	TokenHash string

	// Kept is for what is made of the identity again and again by the requests
	// that bring its token; nil: nothing is kept.
	Kept *Kept
}

// Claims are a token's. A value is nil, a string, a bool, a json.Number, []any or
// map[string]any.
type Claims interface {
	Claim(name string) (value any, there bool)
	All() map[string]any // not to be changed
}

// A ClaimMap is claims in a map.
type ClaimMap map[string]any

// Claim implements Claims.
func (m ClaimMap) Claim(name string) (value any, there bool) {
	value, there = m[name]
	return value, there
}

// All implements Claims.
func (m ClaimMap) All() map[string]any { return m }

// Claim gives one of the claims.
func (id *Identity) Claim(name string) (value any, there bool) {
	if id.Claims == nil {
		return nil, false
	}
	return id.Claims.Claim(name)
}
