package oidc

import "testing"

// TestOtherKindsOfTokens: what the issuer signs for the same audience and is no
// token of a caller.
func TestOtherKindsOfTokens(t *testing.T) {
	c := newClock()
	v, err := NewVerifier(Options{Name: "users", Namespace: "users", Issuer: issuer, Audiences: []string{"app"}, Keys: goodKeys(t, c),
		Algorithms: []string{RS256}, UID: Path{"sub"}, Leeway: DefaultLeeway, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	set, err := New(v)
	if err != nil {
		t.Fatal(err)
	}
	for name, claim := range map[string]string{
		"a logout token":            `"events":{"http://schemas.openid.net/event/backchannel-logout":{}}`,
		"a security event":          `"events":{}`,
		"events that are null":      `"events":null`,
		"bound to a DPoP key":       `"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}`,
		"bound to a certificate":    `"cnf":{"x5t#S256":"A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"}`,
		"bound to what nobody sees": `"cnf":null`,
	} {
		_, err := set.Authenticate(t.Context(), mint(0, "k0", claims(c.now(), claim)))
		wantReason(t, name, err, ReasonClaim)
	}
	if _, err := set.Authenticate(t.Context(), mint(0, "k0", claims(c.now()))); err != nil {
		t.Error(err)
	}
}

// TestEmailAsUID: at many issuers everybody can write any address.
func TestEmailAsUID(t *testing.T) {
	c := newClock()
	v, err := NewVerifier(Options{Name: "users", Namespace: "users", Issuer: issuer, Audiences: []string{"app"}, Keys: goodKeys(t, c),
		Algorithms: []string{RS256}, UID: Path{"email"}, Leeway: DefaultLeeway, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	set, err := New(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, more := range [][]string{{`"email":"ceo@acme.dev"`}, {`"email":"ceo@acme.dev"`, `"email_verified":false`}, {`"email":"ceo@acme.dev"`, `"email_verified":"true"`}} {
		_, err := set.Authenticate(t.Context(), mint(0, "k0", claims(c.now(), more...)))
		wantReason(t, more[len(more)-1], err, ReasonEmail)
	}
	id, err := set.Authenticate(t.Context(), mint(0, "k0", claims(c.now(), `"email":"ceo@acme.dev"`, `"email_verified":true`)))
	if err != nil || id.UID != "ceo@acme.dev" {
		t.Errorf("%+v, %v", id, err)
	}
}
