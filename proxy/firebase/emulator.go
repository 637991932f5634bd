package firebase

import (
	"context"

	"sidegate/proxy/oidc"
)

// An Emulator takes the tokens of the Firebase Auth emulator, which nobody
// signed: whoever can reach the gateway can be every user. It is used only
// with --insecure-emulator and FIREBASE_AUTH_EMULATOR_HOST.
type Emulator struct {
	claims claims
	users  *Users
}

var _ oidc.Provider = (*Emulator)(nil)

// NewEmulator makes an Emulator of ID tokens; it uses no keys.
func NewEmulator(o Options) (*Emulator, error) { return newEmulator(idTokens, o) }

// NewEmulatorCookies makes an Emulator of session cookies.
func NewEmulatorCookies(o Options) (*Emulator, error) { return newEmulator(sessionCookies, o) }

func newEmulator(k kind, o Options) (*Emulator, error) {
	c, err := newClaims(k, o)
	if err != nil {
		return nil, err
	}
	return &Emulator{c, o.Users}, nil
}

// Accepts implements oidc.Provider.
func (e *Emulator) Accepts() []oidc.Selector { return e.claims.accepts() }

// Epoch implements oidc.Provider; there is no key that could go away.
func (e *Emulator) Epoch() uint64 { return 0 }

// Verify implements oidc.Provider. Every claim is checked as in production.
// A token that is signed is refused: it cannot be from the emulator, and a
// real one sent to a development gateway is a mistake to notice.
func (e *Emulator) Verify(ctx context.Context, t *oidc.Token) (oidc.Verified, error) {
	if t.Algorithm != "none" || !t.Unsigned() {
		return oidc.Verified{}, oidc.Refuse(oidc.ReasonAlgorithm, "the emulator's tokens have alg none and no signature; is this one of a real project?")
	}
	id, times, err := e.claims.check(t)
	if err != nil {
		return oidc.Verified{}, err
	}
	return e.claims.verified(ctx, id, times, 0, e.users)
}
