package proxy

import (
	"context"
	"errors"

	"sidegate/policy"
)

// An Authenticator finds out who sent a token. It is safe for concurrent use.
//
// A token that is bad gives a *TokenError (401). An error that wraps
// ErrUnavailable says that it cannot be told now whether the token is good
// (503): keys that were never fetched, a time-out. Any other error counts as
// ErrUnavailable; none ever lets the caller in.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (*policy.Identity, error)
}

// ErrUnavailable marks what could not be found out: it is neither yes nor no.
var ErrUnavailable = errors.New("unavailable")

// An IdentityError says whose tokens an Authenticator took one for that it does
// not accept, or cannot tell of. Beside that it is Err.
type IdentityError struct {
	Identity string // its name in sidegate.yaml
	Err      error
}

func (e *IdentityError) Error() string { return e.Err.Error() }

// Unwrap is what went wrong.
func (e *IdentityError) Unwrap() error { return e.Err }

// identityOf is the name of the identity that an error is of; empty: that is not
// known.
func identityOf(err error) string {
	var of *IdentityError
	if errors.As(err, &of) {
		return of.Identity
	}
	return ""
}

// A TokenError says why a token is refused.
type TokenError struct {
	// Reason is for the caller, one of a fixed set of sentences without any
	// part of the token: it goes into error_description of RFC 6750, so it
	// has no quotes, backslashes or control characters.
	Reason string
	// Detail is for the log: it may name claims' values, never the token.
	Detail string
}

func (e *TokenError) Error() string {
	if e.Detail == "" {
		return e.Reason
	}
	return e.Reason + ": " + e.Detail
}
