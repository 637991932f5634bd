package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"

	"sidegate/policy"
)

// A signer is a key of one algorithm; its ID is the algorithm's name.
type signer struct {
	alg     string
	private crypto.Signer
}

// signers have two keys of each algorithm: the issuer's, and another's.
var signers = sync.OnceValue(func() (both [2]map[string]signer) {
	for i := range both {
		both[i] = make(map[string]signer)
		keys := map[string]func() (crypto.Signer, error){
			RS256: func() (crypto.Signer, error) { return testKeys()[i], nil },
			PS256: func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
			ES256: func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
			ES384: func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
			EdDSA: func() (crypto.Signer, error) { _, key, err := ed25519.GenerateKey(rand.Reader); return key, err },
		}
		for alg, key := range keys {
			private, err := key()
			if err != nil {
				panic(err)
			}
			both[i][alg] = signer{alg, private}
		}
	}
	return both
})

// by is the issuer's key of an algorithm.
func by(alg string) signer { return signers()[0][alg] }

// signature signs as the algorithm says, with a key that is of it.
func (s signer) signature(signed string) []byte { return s.as(s.alg, signed) }

// as signs as another algorithm says that takes such a key.
func (s signer) as(alg, signed string) (signature []byte) {
	short, long := sha256.Sum256([]byte(signed)), sha512.Sum384([]byte(signed))
	var err error
	switch alg {
	case RS256:
		signature, err = rsa.SignPKCS1v15(nil, s.private.(*rsa.PrivateKey), crypto.SHA256, short[:])
	case PS256:
		signature, err = rsa.SignPSS(rand.Reader, s.private.(*rsa.PrivateKey), crypto.SHA256, short[:], &rsa.PSSOptions{SaltLength: 32})
	case ES256, ES384:
		digest := short[:]
		if alg == ES384 {
			digest = long[:]
		}
		var r, sum *big.Int
		if r, sum, err = ecdsa.Sign(rand.Reader, s.private.(*ecdsa.PrivateKey), digest); err == nil {
			signature = s.pair(r, sum)
		}
	case EdDSA:
		signature = ed25519.Sign(s.private.(ed25519.PrivateKey), []byte(signed))
	}
	if err != nil || signature == nil {
		panic(fmt.Sprint(alg, err))
	}
	return signature
}

func (s signer) curve() elliptic.Curve { return s.private.(*ecdsa.PrivateKey).Curve }

// pair is an ECDSA signature as a JWS has it.
func (s signer) pair(r, sum *big.Int) []byte {
	size := s.curve().Params().BitSize / 8
	return append(r.FillBytes(make([]byte, size)), sum.FillBytes(make([]byte, size))...)
}

// with signs a header and a payload as they are.
func (s signer) with(header, payload string) string {
	signed := b64([]byte(header)) + "." + b64([]byte(payload))
	return signed + "." + b64(s.signature(signed))
}

func (s signer) header() string { return fmt.Sprintf(`{"alg":%q,"kid":%q}`, s.alg, s.alg) }

func (s signer) token(payload string) string { return s.with(s.header(), payload) }

// publishAll is a JWK set of the issuer's keys of these algorithms. That a key
// is for one algorithm only stands in it where pinned.
func publishAll(pinned bool, algs ...string) string {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, alg := range algs {
		key := jose.JSONWebKey{Key: by(alg).private.Public(), KeyID: alg}
		if pinned {
			key.Algorithm = alg
		}
		set.Keys = append(set.Keys, key)
	}
	text, err := json.Marshal(set)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// allKeys are the issuer's keys of every algorithm.
func allKeys(t testing.TB, c *clock) *KeySet {
	t.Helper()
	return fetched(t, newKeys(t, newKeyServer(t, publish(publishAll(false, Algorithms()...))), c))
}

// newVerifier makes a Verifier of the usual options after some changes.
func newVerifier(t testing.TB, keys *KeySet, c *clock, changes ...func(*Options)) *Verifier {
	t.Helper()
	o := Options{Name: "users", Namespace: "people", Issuer: issuer, Audiences: []string{"app"}, Keys: keys,
		Algorithms: Algorithms(), UID: Path{"sub"}, Leeway: DefaultLeeway, Now: c.now}
	for _, change := range changes {
		change(&o)
	}
	v, err := NewVerifier(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func setOf(t testing.TB, providers ...Provider) *Set {
	t.Helper()
	set, err := New(providers...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// payload is the claims of a good token after edits: pairs of a name and its
// value as JSON, or nothing for a claim that is to be missing.
func payload(c *clock, edits ...string) string {
	all := map[string]json.RawMessage{
		"iss": json.RawMessage(`"` + issuer + `"`), "aud": json.RawMessage(`"app"`), "sub": json.RawMessage(`"alice"`),
		"iat": json.RawMessage(fmt.Sprint(c.now().Unix())), "exp": json.RawMessage(fmt.Sprint(c.now().Unix() + 3600)),
	}
	text := "{"
	for i := 0; i < len(edits); i += 2 {
		delete(all, edits[i])
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		text += fmt.Sprintf("%q:%s,", name, all[name])
	}
	// By hand, so that what is no good JSON can be in it.
	for i := 0; i < len(edits); i += 2 {
		if edits[i+1] != "" {
			text += fmt.Sprintf("%q:%s,", edits[i], edits[i+1])
		}
	}
	return strings.TrimSuffix(text, ",") + "}"
}

// good verifies a token that has to be accepted.
func good(t *testing.T, v *Verifier, claims string) *policy.Identity {
	t.Helper()
	verified, err := v.Verify(t.Context(), parsed(t, by(EdDSA).token(claims)))
	if err != nil {
		t.Fatalf("%s: %v", claims, err)
	}
	return verified.Identity
}

func TestVerifierIdentity(t *testing.T) {
	c := newClock()
	v := newVerifier(t, allKeys(t, c), c, func(o *Options) { o.Emails = []string{"alice@acme.example", "bob@acme.example"} })
	for _, alg := range Algorithms() {
		claims := payload(c, "email", `"alice@acme.example"`, "email_verified", "true", "auth_time", fmt.Sprint(c.now().Unix()-5), "amr", `["pwd","mfa"]`, "scope", `"a b"`)
		raw := by(alg).token(claims)
		token := parsed(t, raw)
		got, err := v.Verify(t.Context(), token)
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		want := &policy.Identity{
			Name: "users", Namespace: "people", Issuer: issuer, UID: "alice", Email: "alice@acme.example", EmailVerified: true,
			SecondFactor: "mfa", AuthTime: c.now().Add(-5 * time.Second).UTC(), Expires: c.now().Add(time.Hour).UTC(),
			Payload: b64([]byte(claims)), TokenHash: token.Hash()}
		all := token.Claims.All()
		all["scopes"] = []any{"a", "b"}
		want.Claims = policy.ClaimMap(all)
		if !reflect.DeepEqual(got.Identity, want) {
			t.Errorf("%s: %+v; want %+v", alg, got.Identity, want)
		}
		if got.Until != c.now().Add(time.Hour+DefaultLeeway).UTC() || got.Epoch != v.Epoch() || got.Stands != nil {
			t.Errorf("%s: %+v", alg, got)
		}
		// And by the Set and the Cache, which are what the gateway has.
		if id, err := setOf(t, v).Authenticate(t.Context(), raw); err != nil || !reflect.DeepEqual(id, want) {
			t.Errorf("%s: %+v, %v", alg, id, err)
		}
	}
}

// Only the algorithms that an identity allows count, whatever keys its issuer
// publishes.
func TestVerifierAllowsOnlyItsAlgorithms(t *testing.T) {
	c := newClock()
	keys := allKeys(t, c)
	for _, only := range Algorithms() {
		v := newVerifier(t, keys, c, func(o *Options) { o.Algorithms = []string{only} })
		for _, alg := range Algorithms() {
			_, err := v.Verify(t.Context(), parsed(t, by(alg).token(payload(c))))
			if alg != only {
				wantReason(t, alg+" where only "+only+" is allowed", err, ReasonAlgorithm)
			} else if err != nil {
				t.Errorf("%s: %v", alg, err)
			}
		}
	}
}

func TestVerifierUID(t *testing.T) {
	c := newClock()
	keys := allKeys(t, c)
	long := strings.Repeat("x", MaxSubject)
	for _, test := range []struct {
		path Path
		name string
		json string
		want string
	}{
		{Path{"sub"}, "sub", `"../bob"`, "../bob"},
		{Path{"sub"}, "sub", `"a/b?c#d%2f\\ \"quoted\""`, `a/b?c#d%2f\ "quoted"`},
		{Path{"sub"}, "sub", `"` + long + `"`, long},
		{Path{"sub"}, "sub", `"\u00e9\ud83d\ude00"`, "\u00e9\U0001f600"},
		{Path{"sub"}, "sub", `" "`, " "},
		{Path{"oid"}, "oid", `"9e1c"`, "9e1c"},
		{Path{"user", "id"}, "user", `{"id":"u1","ID":"u2"}`, "u1"},
		{Path{"https://acme.example/uid"}, "https://acme.example/uid", `"u1"`, "u1"},
		{Path{"a.b"}, "a.b", `"u1"`, "u1"},
	} {
		v := newVerifier(t, keys, c, func(o *Options) { o.UID = test.path })
		if id := good(t, v, payload(c, test.name, test.json)); id.UID != test.want {
			t.Errorf("%s: %q; want %q", test.path, id.UID, test.want)
		}
	}
	// sub is not asked for where another claim is the uid.
	v := newVerifier(t, keys, c, func(o *Options) { o.UID = Path{"oid"} })
	if id := good(t, v, payload(c, "sub", "", "oid", `"u1"`)); id.UID != "u1" {
		t.Error(id.UID)
	}
}

func TestVerifierClaims(t *testing.T) {
	c := newClock()
	keys := allKeys(t, c)
	for name, test := range map[string]struct {
		paths map[string]Path
		edits []string
		want  map[string]any // nil: no such claim
	}{
		"dotted path": {map[string]Path{"roles": {"realm_access", "roles"}},
			[]string{"realm_access", `{"roles":["a","b"]}`}, map[string]any{"roles": []any{"a", "b"}}},
		"names that hold dots": {map[string]Path{"roles": {"resource.access", "my.app", "roles"}},
			[]string{"resource.access", `{"my.app":{"roles":["a"]}}`}, map[string]any{"roles": []any{"a"}}},
		"URL": {map[string]Path{"roles": {"https://acme.example/roles"}},
			[]string{"https://acme.example/roles", `["a"]`}, map[string]any{"roles": []any{"a"}}},
		"URL, and objects of its parts": {map[string]Path{"roles": {"https://acme.example/roles"}},
			[]string{"https://acme", `{"example/roles":["a"]}`}, map[string]any{"roles": nil}},
		"absent, and one of that name": {map[string]Path{"roles": {"realm_access", "roles"}},
			[]string{"roles", `["admin"]`}, map[string]any{"roles": nil}},
		"in what is no object, and one of that name": {map[string]Path{"roles": {"realm_access", "roles"}},
			[]string{"realm_access", `"roles"`, "roles", `["admin"]`}, map[string]any{"roles": nil}},
		"both there": {map[string]Path{"roles": {"realm_access", "roles"}},
			[]string{"realm_access", `{"roles":["a"]}`, "roles", `["admin"]`}, map[string]any{"roles": []any{"a"}}},
		"null": {map[string]Path{"roles": {"realm_access", "roles"}},
			[]string{"realm_access", `{"roles":null}`, "roles", `["admin"]`, "x", "1"}, map[string]any{"x": json.Number("1")}},
		"swapped": {map[string]Path{"a": {"b"}, "b": {"a"}},
			[]string{"a", "1", "b", "2"}, map[string]any{"a": json.Number("2"), "b": json.Number("1")}},
		"not listed": {map[string]Path{"roles": {"r"}},
			[]string{"groups", `["g"]`, "r", `["a"]`}, map[string]any{"groups": []any{"g"}, "r": []any{"a"}, "roles": []any{"a"}}},
		"scopes by default": {nil, []string{"scope", `"read  write "`}, map[string]any{"scopes": []any{"read", "write"}}},
		"scopes, empty":     {nil, []string{"scope", `""`}, map[string]any{"scopes": []any{}}},
		"scopes, one":       {nil, []string{"scope", `"read"`}, map[string]any{"scopes": []any{"read"}, "scope": "read"}},
		"scopes split at spaces only": {nil,
			[]string{"scope", `"a\tb,c"`}, map[string]any{"scopes": []any{"a\tb,c"}}},
		"scopes that only have the policy's name": {nil, []string{"scopes", `["admin"]`}, map[string]any{"scopes": nil}},
		"scopes null, of the policy's name":       {nil, []string{"scopes", "null"}, map[string]any{"scopes": nil}},
		"Okta: scp is a list": {map[string]Path{"scopes": {"scp"}},
			[]string{"scp", `["a","b c"]`, "scope", `"admin"`}, map[string]any{"scopes": []any{"a", "b c"}}},
		"Entra: scp is text": {map[string]Path{"scopes": {"scp"}},
			[]string{"scp", `"a b"`, "scope", `"admin"`}, map[string]any{"scopes": []any{"a", "b"}, "scp": "a b"}},
		"scopes mapped and absent": {map[string]Path{"scopes": {"scp"}},
			[]string{"scope", `"admin"`, "scopes", `["admin"]`}, map[string]any{"scopes": nil, "scope": "admin"}},
		"text that is no scope stays": {map[string]Path{"roles": {"r"}},
			[]string{"r", `"a b"`}, map[string]any{"roles": "a b"}},
	} {
		v := newVerifier(t, keys, c, func(o *Options) { o.Claims = test.paths })
		id := good(t, v, payload(c, test.edits...))
		for claim, want := range test.want {
			got, there := id.Claim(claim)
			if there != (want != nil) || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s is %#v, there: %v; want %#v", name, claim, got, there, want)
			}
		}
		if claim(id, "sub") != "alice" {
			t.Errorf("%s: %v", name, id.Claims)
		}
	}
}

// A claim of the policy's name that is null is hidden as any other is: scopes are
// the claim scope, which this token does not have.
func TestVerifierHidesScopesThatAreNull(t *testing.T) {
	c := newClock()
	id := good(t, newVerifier(t, allKeys(t, c), c), payload(c, "scopes", "null"))
	if value, there := id.Claim("scopes"); there {
		t.Errorf("scopes is there: %v", value)
	}
}

// Neither the token nor the options, which others have too, are changed.
func TestVerifierChangesNothing(t *testing.T) {
	c := newClock()
	paths := map[string]Path{"roles": {"realm_access", "roles"}}
	v := newVerifier(t, allKeys(t, c), c, func(o *Options) { o.Claims = paths })
	claims := payload(c, "realm_access", `{"roles":["a"]}`, "roles", `["admin"]`, "scope", `"a b"`, "scopes", `["x"]`)
	token := parsed(t, by(EdDSA).token(claims))
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if again := parsed(t, token.Raw); !reflect.DeepEqual(token, again) {
		t.Errorf("%+v; was %+v", token, again)
	}
	if len(paths) != 1 {
		t.Errorf("the caller's map became %v", paths)
	}
	paths["sub"] = Path{"roles"}
	if id := good(t, v, claims); claim(id, "sub") != "alice" {
		t.Errorf("the caller's map is still read: %v", claim(id, "sub"))
	}
}

func TestVerifierSecondFactorAndEmail(t *testing.T) {
	c := newClock()
	v := newVerifier(t, allKeys(t, c), c)
	for amr, want := range map[string]string{
		`["mfa"]`: "mfa", `["pwd","otp","mfa"]`: "mfa", `["pwd"]`: "", `"mfa"`: "", `["MFA"]`: "", `[["mfa"]]`: "", `{"mfa":true}`: "",
		`null`: "", `[]`: "", `["mfa "]`: "", `[{"a":1},[1],null,1,"mfa"]`: "mfa", "": "",
	} {
		if id := good(t, v, payload(c, "amr", amr)); id.SecondFactor != want {
			t.Errorf("amr %s: %q", amr, id.SecondFactor)
		}
	}
	for _, test := range []struct {
		email, verified, address string
		is                       bool
	}{
		{`"a@acme.example"`, "true", "a@acme.example", true},
		{`"a@acme.example"`, "false", "a@acme.example", false},
		{`"a@acme.example"`, `"true"`, "a@acme.example", false},
		{`"a@acme.example"`, "1", "a@acme.example", false},
		{`"a@acme.example"`, "[true]", "a@acme.example", false},
		{`"a@acme.example"`, "null", "a@acme.example", false},
		{`"a@acme.example"`, "", "a@acme.example", false},
		{`["a@acme.example"]`, "true", "", false},
		{`""`, "true", "", false},
		{"null", "true", "", false},
		{"", "true", "", false},
	} {
		id := good(t, v, payload(c, "email", test.email, "email_verified", test.verified))
		if id.Email != test.address || id.EmailVerified != test.is {
			t.Errorf("email %s, verified %s: %q, %v", test.email, test.verified, id.Email, id.EmailVerified)
		}
	}
}

func TestVerifierRequire(t *testing.T) {
	c := newClock()
	v := newVerifier(t, allKeys(t, c), c, func(o *Options) {
		o.Require = []Requirement{{Path{"repository"}, "acme/photos"}, {Path{"a", "flag"}, true}, {Path{"n"}, int64(9007199254740993)},
			{Path{"https://acme.example/off"}, false}, {Path{"minus"}, int64(-1)}, {Path{"empty"}, ""}}
	})
	good(t, v, payload(c, "repository", `"acme\/photos"`, "a", `{"flag":true}`, "n", "9007199254740993",
		"https://acme.example/off", "false", "minus", "-1", "empty", `""`))
}

func TestVerifierActor(t *testing.T) {
	c := newClock()
	keys := allKeys(t, c)
	long := strings.Repeat("x", MaxSubject)
	for _, test := range []struct {
		path Path
		act  string
		want string
	}{
		{Path{"act", "sub"}, `{"sub":"bot"}`, "bot"},
		{Path{"act", "sub"}, `{"sub":"` + long + `"}`, long},
		{Path{"act", "sub"}, `{"sub":"bot","iss":"` + issuer + `"}`, "bot"},
		{Path{"act", "sub"}, `{"sub":"bot","act":{"sub":"before"}}`, "bot"},
		{Path{"act", "sub"}, `{"sub":"bot","act":{"sub":"before","iss":"` + issuer + `"}}`, "bot"},
		{Path{"act", "sub"}, `{"sub":"bot","act":{}}`, "bot"},
		{Path{"act", "client_id"}, `{"client_id":"bot","sub":"x"}`, "bot"},
		{Path{"act", "https://acme.example/agent"}, `{"https://acme.example/agent":"bot"}`, "bot"},
	} {
		v := newVerifier(t, keys, c, func(o *Options) { o.Actor = test.path })
		if id := good(t, v, payload(c, "act", test.act)); id.Actor != test.want || id.UID != "alice" {
			t.Errorf("%s: %q for %q", test.act, id.Actor, id.UID)
		}
	}
	if id := good(t, newVerifier(t, keys, c), payload(c)); id.Actor != "" {
		t.Error(id.Actor)
	}
}

// Tokens of one issuer and audience go to the identity that says whether
// somebody acts for the user, in whatever order identities stand.
func TestSetPicksByActor(t *testing.T) {
	c := newClock()
	keys := allKeys(t, c)
	users := newVerifier(t, keys, c)
	agents := newVerifier(t, keys, c, func(o *Options) { o.Name, o.Actor = "agents", Path{"act", "sub"} })
	for _, providers := range [][]Provider{{users, agents}, {agents, users}} {
		set := setOf(t, providers...)
		for _, test := range []struct{ act, name, actor string }{{"", "users", ""}, {`{"sub":"bot"}`, "agents", "bot"}} {
			id, err := set.Authenticate(t.Context(), by(ES256).token(payload(c, "act", test.act)))
			if err != nil || id.Name != test.name || id.Actor != test.actor || id.Namespace != "people" {
				t.Errorf("act %s: %+v, %v", test.act, id, err)
			}
		}
		// An act that is none still is one: the token is not a user's.
		for _, act := range []string{"null", `""`, "false", "[]", `"bot"`} {
			id, err := set.Authenticate(t.Context(), by(ES256).token(payload(c, "act", act)))
			wantReason(t, "act "+act, err, ReasonClaim)
			if id != nil {
				t.Errorf("act %s: %+v", act, id)
			}
		}
		_, err := set.Authenticate(t.Context(), by(ES256).token(payload(c, "act", "{}")))
		wantReason(t, "act {}", err, ReasonSubject)
	}
	for _, test := range []struct {
		v    *Verifier
		act  string
		part string
	}{{users, `{"sub":"bot"}`, "has no actors"}, {agents, "", "act is missing"}} {
		_, err := setOf(t, test.v).Authenticate(t.Context(), by(ES256).token(payload(c, "act", test.act)))
		wantReason(t, test.part, err, ReasonClaim)
		if !strings.Contains(err.Error(), test.part) {
			t.Errorf("%v; want %s", err, test.part)
		}
	}
}

func TestSetPicksByEmail(t *testing.T) {
	c := newClock()
	keys := allKeys(t, c)
	of := func(name string, emails ...string) *Verifier {
		return newVerifier(t, keys, c, func(o *Options) { o.Name, o.Emails = name, emails })
	}
	a, b := of("a", "a@acme.example", "aa@acme.example"), of("b", "b@acme.example")
	set := setOf(t, a, b)
	for address, want := range map[string]string{"a@acme.example": "a", "aa@acme.example": "a", "b@acme.example": "b"} {
		id, err := set.Authenticate(t.Context(), by(ES384).token(payload(c, "email", `"`+address+`"`, "email_verified", "true")))
		if err != nil || id.Name != want {
			t.Errorf("%s: %+v, %v", address, id, err)
		}
		_, err = set.Authenticate(t.Context(), by(ES384).token(payload(c, "email", `"`+address+`"`)))
		wantReason(t, address+", not verified", err, ReasonEmail)
	}
	for _, email := range []string{"", "null", `"A@acme.example"`, `["a@acme.example"]`, `"a@evil.example@acme.example"`, `""`} {
		_, err := set.Authenticate(t.Context(), by(ES384).token(payload(c, "email", email, "email_verified", "true")))
		wantReason(t, email, err, ReasonEmail)
	}
}

// One token with two audiences is of two identities, and so of none.
func TestSetRefusesTwoAudiences(t *testing.T) {
	c := newClock()
	keys := allKeys(t, c)
	of := func(name string, audiences ...string) *Verifier {
		return newVerifier(t, keys, c, func(o *Options) { o.Name, o.Audiences = name, audiences })
	}
	set := setOf(t, of("a", "app", "app-2"), of("b", "other"))
	for aud, want := range map[string]string{`["app","app-2"]`: "a", `["x","other"]`: "b", `["app","other"]`: "", `["other","app-2"]`: ""} {
		id, err := set.Authenticate(t.Context(), by(EdDSA).token(payload(c, "aud", aud)))
		if want == "" {
			wantReason(t, aud, err, ReasonAmbiguous)
		} else if err != nil || id.Name != want {
			t.Errorf("%s: %+v, %v", aud, id, err)
		}
	}
}

func TestNewRefusesOverlaps(t *testing.T) {
	c := newClock()
	keys := allKeys(t, c)
	plain := newVerifier(t, keys, c)
	acted := newVerifier(t, keys, c, func(o *Options) { o.Actor = Path{"act", "sub"} })
	listed := newVerifier(t, keys, c, func(o *Options) { o.Emails = []string{"a@acme.example"} })
	for name, second := range map[string]func(*Options){
		"the same":                  func(*Options) {},
		"another requirement":       func(o *Options) { o.Require = []Requirement{{Path{"hd"}, "acme.example"}} },
		"another uid":               func(o *Options) { o.UID = Path{"oid"} },
		"other algorithms":          func(o *Options) { o.Algorithms = []string{EdDSA} },
		"one of the audiences":      func(o *Options) { o.Audiences = []string{"other", "app"} },
		"a list of e-mail":          func(o *Options) { o.Emails = []string{"a@acme.example"} },
		"another name for the same": func(o *Options) { o.Name, o.Namespace = "others", "others" },
	} {
		if _, err := New(plain, newVerifier(t, keys, c, second)); err == nil || !strings.Contains(err.Error(), "fit two identities") || !strings.Contains(err.Error(), "actor") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, pair := range map[string][2]Provider{
		"both with actors":            {acted, newVerifier(t, keys, c, func(o *Options) { o.Actor = Path{"act", "client_id"} })},
		"one address in both lists":   {listed, newVerifier(t, keys, c, func(o *Options) { o.Emails = []string{"b@acme.example", "a@acme.example"} })},
		"one address twice":           {listed, listed},
		"one audience twice in one":   {newVerifier(t, keys, c, func(o *Options) { o.Audiences = []string{"x", "x"} }), plain},
		"one address twice in a list": {newVerifier(t, keys, c, func(o *Options) { o.Emails = []string{"b@acme.example", "b@acme.example"} }), acted},
	} {
		if _, err := New(pair[0], pair[1]); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(acted, plain, newVerifier(t, keys, c, func(o *Options) { o.Issuer = issuer + "/" })); err != nil {
		t.Error(err)
	}
}

// Only gives its provider every token, and takes nothing off its checks.
func TestOnly(t *testing.T) {
	c := newClock()
	set := Only(newVerifier(t, allKeys(t, c), c))
	if id, err := set.Authenticate(t.Context(), by(PS256).token(payload(c))); err != nil || id.UID != "alice" {
		t.Errorf("%+v, %v", id, err)
	}
	for reason, raw := range map[string]string{
		ReasonIssuer:    by(PS256).token(payload(c, "iss", `"https://other.example"`)),
		ReasonAudience:  by(PS256).token(payload(c, "aud", `"other"`)),
		ReasonClaim:     by(PS256).token(payload(c, "act", `{"sub":"bot"}`)),
		ReasonMalformed: "x",
		ReasonSignature: signers()[1][PS256].token(payload(c)),
	} {
		id, err := set.Authenticate(t.Context(), raw)
		wantReason(t, "only", err, reason)
		if id != nil {
			t.Errorf("%s: %+v", reason, id)
		}
	}
}

func TestNewVerifierRefuses(t *testing.T) {
	c := newClock()
	keys := allKeys(t, c)
	fine := Options{Name: "users", Namespace: "users", Issuer: issuer, Audiences: []string{"app"}, Keys: keys, Algorithms: []string{RS256}, UID: Path{"sub"}}
	if _, err := NewVerifier(fine); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"no name":            func(o *Options) { o.Name = "" },
		"no namespace":       func(o *Options) { o.Namespace = "" },
		"no issuer":          func(o *Options) { o.Issuer = "" },
		"no audience":        func(o *Options) { o.Audiences = nil },
		"an empty audience":  func(o *Options) { o.Audiences = []string{"app", ""} },
		"no keys":            func(o *Options) { o.Keys = nil },
		"negative leeway":    func(o *Options) { o.Leeway = -1 },
		"much leeway":        func(o *Options) { o.Leeway = MaxLeeway + 1 },
		"no algorithm":       func(o *Options) { o.Algorithms = nil },
		"none":               func(o *Options) { o.Algorithms = []string{RS256, "none"} },
		"HMAC":               func(o *Options) { o.Algorithms = []string{"HS256"} },
		"RS512":              func(o *Options) { o.Algorithms = []string{"RS512"} },
		"lower case":         func(o *Options) { o.Algorithms = []string{"rs256"} },
		"no uid":             func(o *Options) { o.UID = nil },
		"uid without a name": func(o *Options) { o.UID = Path{"a", ""} },
		"a deep uid":         func(o *Options) { o.UID = slices.Repeat(Path{"a"}, maxDepth+1) },
		"actor outside act":  func(o *Options) { o.Actor = Path{"azp"} },
		"actor is act":       func(o *Options) { o.Actor = Path{"act"} },
		"actor is nothing":   func(o *Options) { o.Actor = Path{} },
		"actor in another":   func(o *Options) { o.Actor = Path{"Act", "sub"} },
		"require a list":     func(o *Options) { o.Require = []Requirement{{Path{"a"}, []string{"x"}}} },
		"require nothing":    func(o *Options) { o.Require = []Requirement{{Path{"a"}, nil}} },
		"require an int":     func(o *Options) { o.Require = []Requirement{{Path{"a"}, 1}} },
		"require a float":    func(o *Options) { o.Require = []Requirement{{Path{"a"}, 1.0}} },
		"require a number":   func(o *Options) { o.Require = []Requirement{{Path{"a"}, json.Number("1")}} },
	} {
		o := fine
		change(&o)
		if v, err := NewVerifier(o); err == nil || v != nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParsePath(t *testing.T) {
	for text, want := range map[string]Path{
		"sub": {"sub"}, "realm_access.roles": {"realm_access", "roles"}, "act.act.sub": {"act", "act", "sub"},
		"https://acme.example/roles": {"https://acme.example/roles"}, "cognito:groups": {"cognito:groups"}, "urn:x.y": {"urn:x", "y"},
	} {
		if got, err := ParsePath(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ".", "a.", ".a", "a..b", strings.Repeat("a.", maxDepth) + "a"} {
		if got, err := ParsePath(text); err == nil {
			t.Errorf("%q: %q", text, got)
		}
	}
	if _, ok := (Path{}).find(object(t, `{"":1}`)); ok {
		t.Error("no path leads to a claim")
	}
}

// FuzzParsePath: a path that is taken has names, leads to the claim that was
// put at its end, and is written as it was read.
func FuzzParsePath(f *testing.F) {
	for _, text := range []string{"sub", "a.b", "a..b", "", ".", "https://acme.example/a.b", "://", "\xff.\x00", strings.Repeat("a.", 40)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePath(text)
		if (err == nil) != (p.Check() == nil) {
			t.Fatalf("%q: %v, and checked again %v", text, err, p.Check())
		}
		if err != nil {
			return
		}
		if len(p) == 0 || len(p) > maxDepth || slices.Contains(p, "") || p.String() != text {
			t.Fatalf("%q became %q", text, p)
		}
		var claims any = "value"
		for _, name := range slices.Backward(p) {
			claims = map[string]any{name: claims}
		}
		written, err := json.Marshal(claims)
		if err != nil || !utf8.ValidString(text) || len(written) > maxText {
			return // no token has such names
		}
		if value, ok := p.find(object(t, string(written))); !ok || value != "value" {
			t.Fatalf("%q leads to %v", p, value)
		}
		if value, ok := p.find(Object{}); ok || value != nil {
			t.Fatalf("%q leads to %v in nothing", p, value)
		}
	})
}

// FuzzVerifier: whatever an issuer signs, nothing panics, and what is accepted
// is a token of that issuer for that audience, of somebody, and not past.
func FuzzVerifier(f *testing.F) {
	c := newClock()
	at := time.Unix(1_800_000_000, 0)
	c.at.Store(&at)
	keys, err := NewKeySet(KeySetOptions{URL: "https://issuer.example/keys", Now: c.now, Client: &http.Client{Transport: &fakeIssuer{}}})
	if err != nil {
		f.Fatal(err)
	}
	parsedKeys, err := parseKeys([]byte(publishAll(true, EdDSA)), false)
	if err != nil {
		f.Fatal(err)
	}
	keys.current.Store(&snapshot{keys: parsedKeys, fetched: at, refresh: at.Add(time.Hour)})
	users := newVerifier(f, keys, c, func(o *Options) {
		o.Claims = map[string]Path{"roles": {"realm_access", "roles"}}
	})
	agents := newVerifier(f, keys, c, func(o *Options) { o.Name, o.Actor, o.UID = "agents", Path{"act", "sub"}, Path{"user", "id"} })
	strictly := newVerifier(f, keys, c, func(o *Options) {
		o.Name, o.Audiences, o.Emails = "strict", []string{"strict"}, []string{"a@acme.example"}
		o.Require = []Requirement{{Path{"n"}, int64(1)}, {Path{"a", "b"}, "c"}, {Path{"t"}, true}}
	})
	set := setOf(f, users, agents, strictly)
	verifiers := map[string]*Verifier{"users": users, "agents": agents, "strict": strictly}
	for _, claims := range []string{
		payload(c), payload(c, "realm_access", `{"roles":["a"]}`, "scope", `"a b"`, "amr", `["mfa"]`),
		payload(c, "act", `{"sub":"bot","act":{"sub":"before"}}`, "user", `{"id":"u"}`),
		payload(c, "aud", `["strict"]`, "email", `"a@acme.example"`, "email_verified", "true", "n", "1", "a", `{"b":"c"}`, "t", "true"),
		payload(c, "aud", `["app","strict"]`), payload(c, "exp", "1800000000"), payload(c, "sub", "1"), `{}`, `[]`, "",
	} {
		f.Add(claims)
	}
	f.Fuzz(func(t *testing.T, claims string) {
		raw := by(EdDSA).token(claims)
		id, err := set.Authenticate(t.Context(), raw)
		if (err == nil) == (id == nil) {
			t.Fatalf("%+v, %v", id, err)
		}
		if err != nil {
			return
		}
		var theirs map[string]any
		if err := json.Unmarshal([]byte(claims), &theirs); err != nil {
			t.Fatal(err)
		}
		aud, _ := theirs["aud"].([]any)
		v := verifiers[id.Name]
		audience := v.o.Audiences[0]
		switch {
		case id.UID == "" || len(id.UID) > MaxSubject || !utf8.ValidString(id.UID):
			t.Fatalf("uid %q", id.UID)
		case id.Issuer != issuer || theirs["iss"] != issuer:
			t.Fatalf("iss %v", theirs["iss"])
		case theirs["aud"] != audience && !slices.Contains(aud, any(audience)):
			t.Fatalf("aud %v", theirs["aud"])
		case !id.Expires.Add(DefaultLeeway).After(at):
			t.Fatalf("exp %s", id.Expires)
		case (v.o.Actor != nil) != (id.Actor != "") || (theirs["act"] != nil) != (id.Actor != ""):
			t.Fatalf("act %v, actor %q", theirs["act"], id.Actor)
		case len(v.o.Emails) > 0 && (!id.EmailVerified || id.Email != "a@acme.example"):
			t.Fatalf("email %q, %v", id.Email, id.EmailVerified)
		case len(v.o.Require) > 0 && (theirs["n"] != 1.0 || theirs["t"] != true):
			t.Fatalf("required claims are %v, %v", theirs["n"], theirs["t"])
		}
	})
}
