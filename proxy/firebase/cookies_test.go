package firebase_test

import (
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"sidegate/proxy/firebase"
	"sidegate/proxy/oidc"
)

// cookie is a good session cookie, changed.
func cookie(now time.Time, changes ...change) string {
	return asCookies(func() string { return good(now, changes...) })
}

// answering is a transport that gives one answer to everything.
type answering []byte

func (a answering) RoundTrip(*http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	w.Header().Set("Cache-Control", "public, max-age=20000")
	_, _ = w.Write(a)
	return w.Result(), nil
}

// certificates are keys as Google publishes those of session cookies.
func certificates(t *testing.T, keys map[string]*rsa.PrivateKey) answering {
	t.Helper()
	pems := map[string]string{}
	for id, key := range keys {
		_, certificate := selfSigned(t, key)
		pems[id] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}))
	}
	body, err := json.Marshal(pems)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func fetchedSet(t testing.TB, v *firebase.Verifier, err error) *oidc.Set {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Keys().Prefetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	return newSet(t, v)
}

// cookieSet takes session cookies as in production, with the keys that g
// publishes.
func (g *google) cookieSet(t testing.TB, tenant string, now func() time.Time) *oidc.Set {
	t.Helper()
	v, err := firebase.NewSessionCookies(firebase.Options{Name: "users", Namespace: "users", Project: project, Tenant: tenant,
		Leeway: oidc.DefaultLeeway, KeySet: g.keySet(now), Now: now})
	return fetchedSet(t, v, err)
}

func TestIdentityOfGoodCookie(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	s := newGoogle(t).cookieSet(t, "", func() time.Time { return now })
	// Cookies live for up to two weeks.
	id, err := s.Authenticate(t.Context(), cookie(now, set("exp", now.Unix()+14*86400)))
	if err != nil {
		t.Fatal(err)
	}
	if id.UID != "alice" || id.Name != "users" || id.Namespace != "users" || id.Provider != "password" || !id.EmailVerified ||
		id.Issuer != "https://session.firebase.google.com/acme-prod" || id.Expires.Sub(now) != 14*24*time.Hour || len(id.TokenHash) != 64 {
		t.Errorf("%+v", id)
	}
	for name, token := range map[string]string{
		"a second before its end": cookie(now, set("exp", now.Unix()-59)),
		"iat at the edge":         cookie(now, set("iat", now.Unix()+60)),
		"auth_time at the edge":   cookie(now, set("auth_time", now.Unix()+60)),
		"signed in weeks ago":     cookie(now, set("auth_time", now.Unix()-14*86400)),
		"without user_id":         cookie(now, without("user_id")),
	} {
		if _, err := s.Authenticate(t.Context(), token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// In these tests one key signs both, so that nothing but the issuer tells them
// apart.
func TestCookiesAreNoTokensAndTokensNoCookies(t *testing.T) {
	now := time.Now()
	g := newGoogle(t)
	for _, tenant := range []string{"", "consumer"} {
		var of []change
		if tenant != "" {
			of = []change{inFirebase("tenant", tenant)}
		}
		token, cookie := good(now, of...), cookie(now, of...)
		tokens, cookies := newSet(t, g.verifier(t, tenant, nil)), g.cookieSet(t, tenant, nil)
		for name, c := range map[string]struct {
			set   *oidc.Set
			token string
			good  bool
		}{
			"token as token": {tokens, token, true}, "cookie as cookie": {cookies, cookie, true},
			"cookie as token": {tokens, cookie, false}, "token as cookie": {cookies, token, false},
		} {
			if _, err := c.set.Authenticate(t.Context(), c.token); c.good {
				wantGood(t, name, err)
			} else {
				wantRefused(t, name, err, oidc.ReasonIssuer)
			}
		}
	}
}

// The verifiers do not rely on the set having picked them.
func TestVerifiersAloneTellCookiesFromTokens(t *testing.T) {
	now := time.Now()
	g := newGoogle(t)
	cookies, err := firebase.NewSessionCookies(firebase.Options{Name: "users", Namespace: "users", Project: project, KeySet: g.keySet(nil)})
	if err != nil {
		t.Fatal(err)
	}
	if err := cookies.Keys().Prefetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		provider oidc.Provider
		token    string
	}{"cookie as token": {g.verifier(t, "", nil), cookie(now)}, "token as cookie": {cookies, good(now)}} {
		parsed, err := oidc.Parse(c.token)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.provider.Verify(t.Context(), parsed)
		wantRefused(t, name, err, oidc.ReasonIssuer)
	}
}

// Cookies have keys of their own: neither side takes what the other's signed.
func TestKeysOfCookiesAreNotThoseOfTokens(t *testing.T) {
	now := time.Now()
	urls := map[string]string{}
	options := func(kind string, answer answering) firebase.Options {
		return firebase.Options{Name: "users", Namespace: "users", Project: project, KeySet: func(url string) (*oidc.KeySet, error) {
			urls[kind] = url
			return oidc.NewKeySet(oidc.KeySetOptions{URL: url, Client: &http.Client{Transport: answer}})
		}}
	}
	v, err := firebase.New(options("tokens", certificates(t, map[string]*rsa.PrivateKey{"t1": goodKey()})))
	tokens := fetchedSet(t, v, err)
	v, err = firebase.NewSessionCookies(options("cookies", certificates(t, map[string]*rsa.PrivateKey{"c1": otherKey()})))
	cookies := fetchedSet(t, v, err)
	if urls["tokens"] != firebase.KeysURL || urls["cookies"] != firebase.CookieKeysURL {
		t.Errorf("%v", urls)
	}
	h := func(kid string) string { return `{"alg":"RS256","kid":"` + kid + `","typ":"JWT"}` }
	cookiePayload := asCookies(func() string { return payload(now) })
	for name, c := range map[string]struct {
		set           *oidc.Set
		token, reason string
	}{
		"token":                              {tokens, rs256(goodKey(), h("t1"), payload(now)), ""},
		"token by the cookies' key":          {tokens, rs256(otherKey(), h("c1"), payload(now)), oidc.ReasonUnknownKey},
		"token by it under another name":     {tokens, rs256(otherKey(), h("t1"), payload(now)), oidc.ReasonSignature},
		"token that names the cookies' key":  {tokens, rs256(goodKey(), h("c1"), payload(now)), oidc.ReasonUnknownKey},
		"cookie":                             {cookies, rs256(otherKey(), h("c1"), cookiePayload), ""},
		"cookie by the tokens' key":          {cookies, rs256(goodKey(), h("t1"), cookiePayload), oidc.ReasonUnknownKey},
		"cookie by it under another name":    {cookies, rs256(goodKey(), h("c1"), cookiePayload), oidc.ReasonSignature},
		"cookie that names the tokens' key":  {cookies, rs256(otherKey(), h("t1"), cookiePayload), oidc.ReasonUnknownKey},
		"token's payload by the cookies key": {cookies, rs256(otherKey(), h("c1"), payload(now)), oidc.ReasonIssuer},
	} {
		if _, err := c.set.Authenticate(t.Context(), c.token); c.reason == "" {
			wantGood(t, name, err)
		} else {
			wantRefused(t, name, err, c.reason)
		}
	}
}

func TestTenantsOfCookies(t *testing.T) {
	now := time.Now()
	g := newGoogle(t)
	without, consumer := g.cookieSet(t, "", nil), g.cookieSet(t, "consumer", nil)
	for _, c := range []struct {
		name   string
		set    *oidc.Set
		tenant any
		good   bool
	}{
		{"none where none is", without, nil, true}, {"one where none is", without, "consumer", false}, {"an empty one where none is", without, "", false},
		{"the right one", consumer, "consumer", true}, {"none where one is", consumer, nil, false}, {"another", consumer, "business", false},
		{"another case", consumer, "Consumer", false}, {"an empty one", consumer, "", false}, {"a list", consumer, []any{"consumer"}, false},
	} {
		var of []change
		if c.tenant != nil {
			of = append(of, inFirebase("tenant", c.tenant))
		}
		id, err := c.set.Authenticate(t.Context(), cookie(now, of...))
		if !c.good {
			wantRefused(t, c.name, err, oidc.ReasonTenant)
			continue
		}
		wantGood(t, c.name, err)
		if tenant, _ := c.tenant.(string); id != nil && id.Tenant != tenant {
			t.Errorf("%s: %+v", c.name, id)
		}
	}
}

// Every hostile ID token, as a cookie, and as it is.
func TestHostileCookies(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	s := newGoogle(t).cookieSet(t, "", func() time.Time { return now })
	refuseAll(t, s, asCookies(func() []attack { return attacks(now) }))
	isCookie := good(now, set("iss", cookieIssuer+project)) // one of the attacks on the verifier of ID tokens
	for _, a := range attacks(now) {
		if id, err := s.Authenticate(t.Context(), a.token); a.token != isCookie && (err == nil || id != nil) {
			t.Errorf("%s, an ID token: accepted as a cookie", a.name)
		}
	}
}

func TestNeverAcceptsCookiesThatTheAdminSDKRejects(t *testing.T) {
	g := newGoogle(t)
	client := adminSDK(t, g)
	now := time.Now()
	if _, err := client.VerifySessionCookie(t.Context(), cookie(now)); err != nil {
		t.Fatalf("the oracle refuses a good cookie: %v", err)
	}
	cookies := func(tenant string) *firebase.Verifier {
		v, err := firebase.NewSessionCookies(firebase.Options{Name: "users", Namespace: "users", Project: project, Tenant: tenant,
			Leeway: oidc.DefaultLeeway, KeySet: g.keySet(nil)})
		fetchedSet(t, v, err)
		return v
	}
	n := &neverMore{ours: newSet(t, cookies(""), cookies("consumer")), theirs: client.VerifySessionCookie}
	asCookies(func() struct{} { n.checkAll(t, now, 300); return struct{}{} })
	for _, token := range []string{good(now), unsigned(now)} {
		n.check(t, t.Context(), "no cookie", token)
	}
}

func TestEmulatedCookies(t *testing.T) {
	t.Setenv("FIREBASE_AUTH_EMULATOR_HOST", "127.0.0.1:9099")
	now := time.Now()
	emulated := asCookies(func() string { return unsigned(now) })
	e, err := firebase.NewEmulatorCookies(firebase.Options{Name: "users", Namespace: "users", Project: project, Leeway: oidc.DefaultLeeway})
	if err != nil {
		t.Fatal(err)
	}
	cookies := newSet(t, e)
	g := newGoogle(t)
	id, err := cookies.Authenticate(t.Context(), emulated)
	if err != nil || id.UID != "alice" {
		t.Errorf("%v, %v", id, err)
	}
	for name, c := range map[string]struct {
		set           *oidc.Set
		token, reason string
	}{
		"an emulated cookie in production":       {g.cookieSet(t, "", nil), emulated, oidc.ReasonAlgorithm},
		"an emulated cookie as a token":          {newSet(t, g.verifier(t, "", nil)), emulated, oidc.ReasonIssuer},
		"an emulated token as a cookie":          {g.cookieSet(t, "", nil), unsigned(now), oidc.ReasonIssuer},
		"a real cookie at the emulator":          {cookies, cookie(now), oidc.ReasonAlgorithm},
		"a real cookie without its signature":    {cookies, asCookies(func() string { return b64([]byte(header)) + "." + b64([]byte(payload(now))) + "." }), oidc.ReasonAlgorithm},
		"a real token at the emulator's cookies": {cookies, good(now), oidc.ReasonIssuer},
		"an emulated token, at the cookies":      {cookies, unsigned(now), oidc.ReasonIssuer},
		"an emulated cookie, at the tokens":      {emulator(t), emulated, oidc.ReasonIssuer},
		"an emulated cookie of a tenant":         {cookies, asCookies(func() string { return unsigned(now, inFirebase("tenant", "x")) }), oidc.ReasonTenant},
		"an emulated cookie that has expired":    {cookies, asCookies(func() string { return unsigned(now, set("exp", now.Unix()-61)) }), oidc.ReasonExpired},
	} {
		_, err := c.set.Authenticate(t.Context(), c.token)
		wantRefused(t, name, err, c.reason)
	}
}
