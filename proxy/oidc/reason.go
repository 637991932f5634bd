package oidc

import (
	"fmt"
	"strings"

	"sidegate/proxy"
)

// Why a token is refused: the sentences a caller gets to see. They name the
// problem and nothing of the token.
const (
	ReasonMalformed  = "the token is malformed"
	ReasonTooLong    = "the token is too long"
	ReasonEncrypted  = "encrypted tokens are not accepted"
	ReasonHeader     = "the token's header has a member that is not accepted"
	ReasonAlgorithm  = "the token's algorithm is not accepted"
	ReasonKeyID      = "the token names no key"
	ReasonUnknownKey = "the token's key is unknown"
	ReasonSignature  = "the token's signature is wrong"
	ReasonIssuer     = "the token's issuer is not accepted"
	ReasonAudience   = "the token is for another audience"
	ReasonTenant     = "the token's tenant is not accepted"
	ReasonEmail      = "the token's e-mail address is not accepted"
	ReasonAmbiguous  = "the token fits more than one identity"
	ReasonClaim      = "a claim of the token is missing or not valid"
	ReasonSubject    = "the token's subject is missing or not valid"
	ReasonExpired    = "the token has expired"
	ReasonNotYet     = "the token is not valid yet"
	ReasonIssuedAt   = "the token was issued in the future"
	ReasonAuthTime   = "the token's sign-in is in the future"
	ReasonRevoked    = "the token was revoked"
	ReasonDisabled   = "the token's user is disabled"
)

// maxDetail bounds what a stranger can write into the log with one token.
const maxDetail = 500

// Refuse makes the error of a bad token: a Reason of this package, and what
// the format and its arguments say as its Detail, for the log, cut where it is
// long. Claims go into it by %q.
func Refuse(reason, format string, args ...any) *proxy.TokenError {
	detail := fmt.Sprintf(format, args...)
	if len(detail) > maxDetail {
		detail = strings.ToValidUTF8(detail[:maxDetail], "") + "..."
	}
	return &proxy.TokenError{Reason: reason, Detail: detail}
}
