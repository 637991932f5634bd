package firebase_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sidegate/proxy"
	"sidegate/proxy/firebase"
	"sidegate/proxy/oidc"
)

func TestIdentityOfGoodToken(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	authenticator := newSet(t, newGoogle(t).verifier(t, "", func() time.Time { return now }))
	token := good(now, set("big", json.Number("12345678901234567890")))
	id, err := authenticator.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := oidc.Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(id.Name, id.Namespace, id.UID, id.Actor, id.Tenant, id.Issuer, id.Provider, id.Email, id.EmailVerified,
		id.AuthTime.Unix()-now.Unix(), id.Expires.Unix()-now.Unix(), id.Claims.All()["big"], id.TokenHash)
	want := fmt.Sprint("users", "users", "alice", "", "", "https://securetoken.google.com/acme-prod", "password", "alice@example.com", true,
		-100, 3590, "12345678901234567890", parsed.Hash())
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(id.TokenHash) != 64 {
		t.Errorf("TokenHash %q", id.TokenHash)
	}
}

func TestTokensThatAreGood(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	authenticator := newSet(t, newGoogle(t).verifier(t, "", func() time.Time { return now }))
	for name, token := range map[string]string{
		"plain":                    good(now),
		"a second before the edge": good(now, set("exp", now.Unix()-59)),
		"iat at the edge":          good(now, set("iat", now.Unix()+60)),
		"nbf at the edge":          good(now, set("nbf", now.Unix()+60)),
		"auth_time at the edge":    good(now, set("auth_time", now.Unix()+60)),
		"nbf":                      good(now, set("nbf", now.Unix()-5)),
		"anonymous":                good(now, without("email"), without("email_verified"), inFirebase("sign_in_provider", "anonymous")),
		"no user_id":               good(now, without("user_id")),
		"uid of 128 bytes":         good(now, set("sub", strings.Repeat("x", 128)), without("user_id")),
		"a path as uid":            good(now, set("sub", "../bob"), without("user_id")),
		"an umlaut as uid":         good(now, set("sub", "jürgen"), without("user_id")),
		"31 deep":                  good(now, set("x", json.RawMessage(strings.Repeat("[", 31)+strings.Repeat("]", 31)))),
		"no typ":                   rs256(goodKey(), `{"alg":"RS256","kid":"k1"}`, payload(now)),
		"typ in lower case":        rs256(goodKey(), `{"alg":"RS256","kid":"k1","typ":"jwt"}`, payload(now)),
		"unknown header member":    rs256(goodKey(), `{"alg":"RS256","kid":"k1","x":[1]}`, payload(now)),
		"white space in the JSON":  rs256(goodKey(), " "+header+"\n", "\n"+payload(now)+" "),
		"own names in two cases":   good(now, set("role", "a"), set("Role", "b")),
	} {
		if _, err := authenticator.Authenticate(t.Context(), token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSecondFactor: whether the sign-in had one, and which, is the token's own
// word in one place.
func TestSecondFactor(t *testing.T) {
	now := time.Now()
	authenticator := newSet(t, newGoogle(t).verifier(t, "", nil))
	for want, change := range map[string]change{
		"":      set("sign_in_second_factor", "phone"), // not there
		"totp":  inFirebase("sign_in_second_factor", "totp"),
		"phone": inFirebase("sign_in_second_factor", "phone"),
	} {
		id, err := authenticator.Authenticate(t.Context(), good(now, change))
		if err != nil || id.SecondFactor != want {
			t.Errorf("%q: %+v, %v", want, id, err)
		}
	}
}

func TestTenantPicksTheIdentity(t *testing.T) {
	now := time.Now()
	g := newGoogle(t)
	none, consumer := g.verifier(t, "", nil), g.verifier(t, "consumer", nil)
	for name, c := range map[string]struct {
		set    *oidc.Set
		token  string
		tenant string
		reason string
	}{
		"both, without":      {newSet(t, none, consumer), good(now), "", ""},
		"both, with":         {newSet(t, none, consumer), good(now, inFirebase("tenant", "consumer")), "consumer", ""},
		"other order, with":  {newSet(t, consumer, none), good(now, inFirebase("tenant", "consumer")), "consumer", ""},
		"both, another":      {newSet(t, none, consumer), good(now, inFirebase("tenant", "business")), "", oidc.ReasonTenant},
		"tenant, without":    {newSet(t, consumer), good(now), "", oidc.ReasonTenant},
		"tenant, other case": {newSet(t, consumer), good(now, inFirebase("tenant", "Consumer")), "", oidc.ReasonTenant},
		"tenant at the root": {newSet(t, consumer), good(now, set("tenant", "consumer")), "", oidc.ReasonTenant},
	} {
		id, err := c.set.Authenticate(t.Context(), c.token)
		var bad *proxy.TokenError
		switch {
		case c.reason == "" && (err != nil || id.Tenant != c.tenant):
			t.Errorf("%s: %v, %v", name, id, err)
		case c.reason != "" && (!errors.As(err, &bad) || bad.Reason != c.reason):
			t.Errorf("%s: %v; want %q", name, err, c.reason)
		}
	}
	if _, err := oidc.New(consumer, g.verifier(t, "consumer", nil)); err == nil {
		t.Error("two identities of one project and tenant were accepted")
	}
}

// The verifier checks the tenant itself: it does not rely on having been
// picked.
func TestVerifierAloneChecksTenantAndAudience(t *testing.T) {
	now := time.Now()
	v := newGoogle(t).verifier(t, "", nil)
	for reason, changed := range map[string]change{
		oidc.ReasonTenant: inFirebase("tenant", "consumer"), oidc.ReasonAudience: set("aud", "other"), oidc.ReasonIssuer: set("iss", "other"),
	} {
		token, err := oidc.Parse(good(now, changed))
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Verify(t.Context(), token)
		var bad *proxy.TokenError
		if !errors.As(err, &bad) || bad.Reason != reason {
			t.Errorf("%v; want %q", err, reason)
		}
	}
}

// F10: whoever reads the log must see that a clock is off.
func TestClockSkewIsNamed(t *testing.T) {
	real := time.Now().Truncate(time.Second)
	for skew, reason := range map[time.Duration]string{
		-time.Hour: oidc.ReasonIssuedAt, -5 * time.Minute: oidc.ReasonIssuedAt, -30 * time.Second: "", 0: "",
		30 * time.Second: "", 5 * time.Minute: "", 2 * time.Hour: oidc.ReasonExpired,
	} {
		gateway := real.Add(skew)
		authenticator := newSet(t, newGoogle(t).verifier(t, "", func() time.Time { return gateway }))
		_, err := authenticator.Authenticate(t.Context(), good(real))
		var bad *proxy.TokenError
		if reason == "" {
			if err != nil {
				t.Errorf("%s: %v", skew, err)
			}
			continue
		}
		if !errors.As(err, &bad) || bad.Reason != reason || !strings.Contains(bad.Detail, gateway.UTC().Format(time.RFC3339)) ||
			!strings.Contains(bad.Detail, "clock") || strings.Count(bad.Detail, "Z") < 2 {
			t.Errorf("%s: %v", skew, err)
		}
	}
}

func TestOptionsRefused(t *testing.T) {
	ok := firebase.Options{Name: "users", Namespace: "users", Project: project, KeySet: newGoogle(t).keySet(nil)}
	for name, change := range map[string]func(*firebase.Options){
		"no name":           func(o *firebase.Options) { o.Name = "" },
		"no namespace":      func(o *firebase.Options) { o.Namespace = "" },
		"no project":        func(o *firebase.Options) { o.Project = "" },
		"project is a path": func(o *firebase.Options) { o.Project = "acme/../other" },
		"negative leeway":   func(o *firebase.Options) { o.Leeway = -1 },
		"leeway of 6 min":   func(o *firebase.Options) { o.Leeway = 6 * time.Minute },
		"no keys":           func(o *firebase.Options) { o.KeySet = nil },
	} {
		o := ok
		change(&o)
		if _, err := firebase.New(o); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := firebase.New(ok); err != nil {
		t.Error(err)
	}
}

// No key was ever fetched: that is 503, and never 401 nor a way in.
func TestNoKeysIsUnavailable(t *testing.T) {
	v, err := firebase.New(firebase.Options{Name: "users", Namespace: "users", Project: project,
		KeySet: func(url string) (*oidc.KeySet, error) {
			return oidc.NewKeySet(oidc.KeySetOptions{URL: url, Client: &http.Client{Transport: http.NewFileTransport(http.Dir(t.TempDir()))}})
		}})
	if err != nil {
		t.Fatal(err)
	}
	_ = v.Keys().Prefetch(t.Context())
	_, err = newSet(t, v).Authenticate(t.Context(), good(time.Now()))
	var bad *proxy.TokenError
	if !errors.Is(err, proxy.ErrUnavailable) || errors.As(err, &bad) {
		t.Errorf("%v", err)
	}
}
