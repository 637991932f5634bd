// Package oidc verifies tokens of OpenID Connect issuers: it parses compact
// JWS strictly and once, keeps issuers' key sets, checks signatures and
// standard claims, picks the one identity a token belongs to, and remembers
// verified tokens.
//
// What a certain issuer adds (its claims, tenants, cookies) is not here but in
// a package named after it, such as proxy/firebase, which brings a Provider.
// Nothing a token says is ever fetched, and no token is accepted unsigned.
package oidc
