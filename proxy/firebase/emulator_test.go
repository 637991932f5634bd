package firebase_test

import (
	"errors"
	"testing"
	"time"

	"sidegate/proxy"
	"sidegate/proxy/firebase"
	"sidegate/proxy/oidc"
)

func unsigned(now time.Time, changes ...change) string {
	return b64([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + b64([]byte(payload(now, changes...))) + "."
}

func emulator(t *testing.T) *oidc.Set {
	t.Helper()
	e, err := firebase.NewEmulator(firebase.Options{Name: "users", Namespace: "users", Project: project, Leeway: oidc.DefaultLeeway})
	if err != nil {
		t.Fatal(err)
	}
	return newSet(t, e)
}

func TestEmulatorTakesItsOwnTokensOnly(t *testing.T) {
	now := time.Now()
	e := emulator(t)
	id, err := e.Authenticate(t.Context(), unsigned(now))
	if err != nil || id.UID != "alice" || id.TokenHash == "" {
		t.Fatalf("%v, %v", id, err)
	}
	none := b64([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + b64([]byte(payload(now)))
	for name, c := range map[string]struct{ token, reason string }{
		"signed":                   {good(now), oidc.ReasonAlgorithm},
		"none with a signature":    {none + "." + b64(signature(goodKey(), none)), oidc.ReasonAlgorithm},
		"None":                     {b64([]byte(`{"alg":"None"}`)) + "." + b64([]byte(payload(now))) + ".", oidc.ReasonAlgorithm},
		"RS256 without signature":  {b64([]byte(header)) + "." + b64([]byte(payload(now))) + ".", oidc.ReasonAlgorithm},
		"expired":                  {unsigned(now, set("exp", now.Unix()-100)), oidc.ReasonExpired},
		"another project":          {unsigned(now, set("aud", "x")), oidc.ReasonAudience},
		"another issuer":           {unsigned(now, set("iss", "x")), oidc.ReasonIssuer},
		"a tenant":                 {unsigned(now, inFirebase("tenant", "x")), oidc.ReasonTenant},
		"no subject":               {unsigned(now, without("sub")), oidc.ReasonSubject},
		"no auth_time":             {unsigned(now, without("auth_time")), oidc.ReasonClaim},
		"e-mail verified, as text": {unsigned(now, set("email_verified", "true")), oidc.ReasonClaim},
	} {
		_, err := e.Authenticate(t.Context(), c.token)
		var bad *proxy.TokenError
		if !errors.As(err, &bad) || bad.Reason != c.reason {
			t.Errorf("%s: %v; want %q", name, err, c.reason)
		}
	}
}

// The emulator's tokens are refused wherever it is not asked for by name, with
// the variable set, too.
func TestEmulatorTokensInProduction(t *testing.T) {
	t.Setenv("FIREBASE_AUTH_EMULATOR_HOST", "127.0.0.1:9099")
	now := time.Now()
	v := newGoogle(t).verifier(t, "", nil)
	authenticator := newSet(t, v)
	for _, h := range []string{`{"alg":"none","typ":"JWT"}`, `{"alg":"none","kid":"k1"}`, `{"alg":"RS256","kid":"k1"}`, `{"alg":"","kid":"k1"}`} {
		token := b64([]byte(h)) + "." + b64([]byte(payload(now))) + "."
		if id, err := authenticator.Authenticate(t.Context(), token); err == nil || id != nil {
			t.Errorf("%s: accepted", h)
		}
		parsed, err := oidc.Parse(token)
		if err != nil {
			continue
		}
		for _, allowed := range [][]string{nil, {"none"}, {""}, {"none", "RS256"}} {
			if err := v.Keys().Verify(t.Context(), parsed, allowed); err == nil {
				t.Errorf("%s: verified where %q is allowed", h, allowed)
			}
		}
	}
}
