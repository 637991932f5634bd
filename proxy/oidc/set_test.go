package oidc

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"sidegate/proxy"
)

const issuer = "https://issuer.example"

func goodKeys(t testing.TB, c *clock) *KeySet {
	t.Helper()
	return fetched(t, newKeys(t, newKeyServer(t, publish(jwks(0))), c))
}

func TestSetPicksByIssuerAndAudience(t *testing.T) {
	c := newClock()
	keys := goodKeys(t, c)
	app := newPlain("app", issuer, "app", keys, c.now)
	other := newPlain("other", issuer, "other", keys, c.now)
	elsewhere := newPlain("elsewhere", "https://other.example", "app", keys, c.now)
	for _, order := range [][]Provider{{app, other, elsewhere}, {elsewhere, other, app}, {other, app, elsewhere}} {
		set, err := New(order...)
		if err != nil {
			t.Fatal(err)
		}
		for payload, want := range map[string]string{
			claims(c.now()): "app",
			`{"iss":"https://other.example","aud":["x","app"],` + claims(c.now())[len(`{"iss":"https://issuer.example","aud":"app",`):]: "elsewhere",
			`{"iss":"https://issuer.example","aud":["other"],` + claims(c.now())[len(`{"iss":"https://issuer.example","aud":"app",`):]:  "other",
		} {
			id, err := set.Authenticate(t.Context(), mint(0, "k0", payload))
			if err != nil || id.Name != want {
				t.Errorf("%s: %v, %v; want %s", payload, id, err, want)
			}
		}
		for payload, reason := range map[string]string{
			`{"iss":"https://nobody.example","aud":"app"}`:  ReasonIssuer,
			`{"iss":"https://issuer.example/","aud":"app"}`: ReasonIssuer,
			`{"aud":"app"}`: ReasonIssuer,
			`{"iss":["https://issuer.example"],"aud":"app"}`:         ReasonIssuer,
			`{"iss":"https://issuer.example"}`:                       ReasonAudience,
			`{"iss":"https://issuer.example","aud":"nobody"}`:        ReasonAudience,
			`{"iss":"https://issuer.example","aud":["app","other"]}`: ReasonAmbiguous,
		} {
			_, err := set.Authenticate(t.Context(), mint(0, "k0", payload))
			wantReason(t, payload, err, reason)
		}
	}
}

func TestSetPicksByClaim(t *testing.T) {
	c := newClock()
	make := func(name, claim, value string) *plain {
		p := newPlain(name, issuer, "app", goodKeys(t, c), c.now)
		p.accepts[0].Claim, p.accepts[0].Value = claim, value
		return p
	}
	none, a, b := make("none", "x.tenant", ""), make("a", "x.tenant", "a"), make("b", "x.tenant", "b")
	set, err := New(a, none, b)
	if err != nil {
		t.Fatal(err)
	}
	for claim, want := range map[string]string{
		`"y":1`: "none", `"x":{}`: "none", `"x":{"tenant":"a"}`: "a", `"x":{"tenant":"b"}`: "b", `"x.tenant":"a"`: "none",
		`"x":{"tenant":"c"}`: "", `"x":{"tenant":""}`: "", `"x":{"tenant":null}`: "", `"x":{"tenant":["a"]}`: "",
	} {
		id, err := set.Authenticate(t.Context(), mint(0, "k0", claims(c.now(), claim)))
		if want == "" {
			wantReason(t, claim, err, ReasonTenant)
		} else if err != nil || id.Name != want {
			t.Errorf("%s: %v, %v; want %s", claim, id, err, want)
		}
	}
	for name, providers := range map[string][]Provider{
		"the same value":       {a, make("again", "x.tenant", "a")},
		"with and without":     {a, newPlain("any", issuer, "app", a.keys, c.now)},
		"claims that can both": {a, make("mail", "email", "a@example.com")},
		"no issuer":            {newPlain("p", "", "app", a.keys, c.now)},
		"no audience":          {newPlain("p", issuer, "", a.keys, c.now)},
		"takes nothing":        {a, &plain{name: "p"}},
		"nobody":               nil,
	} {
		if _, err := New(providers...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A broken provider that says neither yes nor no lets nobody in.
type silent struct{ *plain }

func (silent) Verify(context.Context, *Token) (Verified, error) { return Verified{}, nil }

func TestProviderWithoutAnswer(t *testing.T) {
	c := newClock()
	set, err := New(silent{newPlain("p", issuer, "app", goodKeys(t, c), c.now)})
	if err != nil {
		t.Fatal(err)
	}
	var authenticators = []proxy.Authenticator{set}
	if cache, err := NewCache(set, CacheOptions{Entries: 1}); err == nil {
		authenticators = append(authenticators, cache)
	}
	for _, a := range authenticators {
		if id, err := a.Authenticate(t.Context(), mint(0, "k0", claims(c.now()))); err == nil || id != nil {
			t.Errorf("%v, %v", id, err)
		}
	}
}

// TestPickMakesNoClaims: which identity a token is for is found out before its
// signature is checked, by one claim for each identity of an issuer, and for each
// address of a list. A stranger's, in place of text a list of thousands, was made for
// each of them.
func TestPickMakesNoClaims(t *testing.T) {
	s := &Set{issuers: map[string][]choice{}}
	for i := range 100 {
		s.issuers["iss"] = append(s.issuers["iss"], choice{Selector{Audience: "aud", Claim: "a.email", Value: fmt.Sprint(i)}, silent{}, Path{"a", "email"}})
	}
	token := func(email string) *Token {
		return &Token{Claims: object(t, `{"iss":"iss","aud":"aud","a":{"email":`+email+`}}`)}
	}
	if p, err := s.pick(token(`"99"`)); p == nil || err != nil {
		t.Fatal(p, err)
	}
	for _, email := range []string{`[` + strings.Repeat("1,", 1000) + `1]`, `{"99":"99"}`, `99`, `null`, `""`} {
		strange := token(email)
		if _, err := s.pick(strange); err == nil {
			t.Errorf("%.20s is somebody's", email)
		}
		if n := testing.AllocsPerRun(10, func() { s.pick(strange) }); n > 50 {
			t.Errorf("%.20s: %v allocations", email, n)
		}
	}
}
