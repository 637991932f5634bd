package policy

import (
	"sync/atomic"
	"time"
)

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
	// Claims are the token's, under the names that a policy declares; numbers are
	// json.Number.
	Claims map[string]any
	// Payload is the base64url, without padding, of the claims as the issuer
	// wrote them.
	Payload string
	// TokenHash is the lower-case hex SHA-256 of the token.
	TokenHash string

	// Kept is for what is made of the identity again and again by the requests
	// that bring its token; nil: nothing is kept.
	Kept *Kept
}

// A Kept holds a value that can be made anew at any time; the zero Kept holds
// none. It is safe for concurrent use. A copy of an Identity has the same one:
// the value must say whose it is.
type Kept struct{ value atomic.Pointer[any] }

// Load gives what was stored last; nil where nothing was.
func (k *Kept) Load() any {
	if k == nil {
		return nil
	}
	if v := k.value.Load(); v != nil {
		return *v
	}
	return nil
}

// Store replaces it. What is stored must not be changed any more.
func (k *Kept) Store(value any) {
	if k != nil {
		k.value.Store(&value)
	}
}
