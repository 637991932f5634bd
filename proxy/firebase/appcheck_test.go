package firebase_test

import (
	"crypto"
	cryptorand "crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/appcheck"
	"google.golang.org/api/option"

	"sidegate/proxy/firebase"
	"sidegate/proxy/oidc"
)

const (
	number         = "123456789012"
	appID          = "1:123456789012:web:0123456789abcdef"
	appCheckPrefix = "https://firebaseappcheck.googleapis.com/"
)

// appPayload is a good App Check token's payload, changed.
func appPayload(now time.Time, changes ...change) string {
	claims := map[string]any{
		"iss": appCheckPrefix + number, "aud": []any{"projects/" + number, "projects/" + project},
		"sub": appID, "iat": now.Unix() - 10, "exp": now.Unix() + 3590, "jti": "x",
	}
	for _, change := range changes {
		change(claims)
	}
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func goodApp(now time.Time, changes ...change) string {
	return rs256(goodKey(), header, appPayload(now, changes...))
}

// appCheck takes App Check tokens as the gateway does, with the keys that g
// publishes.
func (g *google) appCheck(t testing.TB, leeway time.Duration, now func() time.Time) *oidc.Set {
	t.Helper()
	var keys *oidc.KeySet
	a, err := firebase.NewAppCheck(firebase.Options{Project: project, Leeway: leeway, Now: now, KeySet: func(url string) (_ *oidc.KeySet, err error) {
		if url != firebase.AppCheckKeysURL {
			t.Errorf("keys of %s", url)
		}
		keys, err = g.keySet(now)(url)
		return keys, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Prefetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	return oidc.Only(a)
}

func TestGoodAppCheckTokens(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	s := newGoogle(t).appCheck(t, oidc.DefaultLeeway, func() time.Time { return now })
	aud := func(list ...any) change { return set("aud", list) }
	for name, token := range map[string]string{
		"plain":                    goodApp(now),
		"the project's ID first":   goodApp(now, aud("projects/"+project, "projects/"+number)),
		"others beside":            goodApp(now, aud("projects/1", "projects/"+project, "projects/"+number, "x")),
		"a second before its end":  goodApp(now, set("exp", now.Unix()-59)),
		"iat at the edge":          goodApp(now, set("iat", now.Unix()+60)),
		"nbf at the edge":          goodApp(now, set("nbf", now.Unix()+60)),
		"without jti":              goodApp(now, without("jti")),
		"claims of its own":        goodApp(now, set("provider", "play_integrity"), set("x", map[string]any{"y": 1})),
		"an app's ID of 255 bytes": goodApp(now, set("sub", strings.Repeat("x", 255))),
	} {
		id, err := s.Authenticate(t.Context(), token)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		// The app is nobody: the identity has no name that a policy could let in.
		if id.Name != "" || id.Namespace != "" || id.Issuer != appCheckPrefix+number || id.Expires.IsZero() || id.Email != "" || id.UID == "" {
			t.Errorf("%s: %+v", name, id)
		}
	}
}

// appCheckAttacks are tokens that vouch for no app of the project.
func appCheckAttacks(now time.Time) []attack {
	var all []attack
	add := func(reason, name string, changes ...change) {
		all = append(all, attack{name, goodApp(now, changes...), reason})
	}
	for _, iss := range []any{appCheckPrefix, appCheckPrefix + number + "/", appCheckPrefix + number + "?x", appCheckPrefix + number + "#", appCheckPrefix + number + "\n",
		appCheckPrefix + number + " ", " " + appCheckPrefix + number, appCheckPrefix + number + "\x00", appCheckPrefix + number + "/../1", appCheckPrefix + project,
		appCheckPrefix + "x" + number, appCheckPrefix + number + "x", appCheckPrefix + "-1", appCheckPrefix + "1e3", appCheckPrefix + "0x1", appCheckPrefix + "１２３",
		appCheckPrefix + strings.Repeat("1", 21), appCheckPrefix + "projects/" + number, strings.ToUpper(appCheckPrefix) + number, appCheckPrefix[:len(appCheckPrefix)-1] + "//" + number,
		"http://firebaseappcheck.googleapis.com/" + number, "firebaseappcheck.googleapis.com/" + number, "https://firebaseappcheck.googleapis.com:443/" + number,
		"https://firebaseappcheck.googleapis.com.example/" + number, "https://firebaseappcheckXgoogleapis.com/" + number, "https://x@firebaseappcheck.googleapis.com/" + number,
		"https://example.com/" + appCheckPrefix + number, appCheckPrefix + number + "\nhttps://example.com", tokenIssuer + project, cookieIssuer + project,
		"", nil, 1, true, []any{appCheckPrefix + number}, map[string]any{}} {
		add(oidc.ReasonIssuer, fmt.Sprintf("iss %#v", iss), set("iss", iss))
	}
	for _, aud := range []any{"projects/" + project, "projects/" + number, project, "projects/" + number + ",projects/" + project, "projects/" + number + " projects/" + project,
		"", nil, 1, true, map[string]any{"projects/" + project: true}, []any{}, []any{"projects/" + number}, []any{"projects/" + project},
		[]any{"projects/" + number, "projects/other"}, []any{"projects/999", "projects/" + project}, []any{number, project}, []any{"projects/" + number, project},
		[]any{number, "projects/" + project}, []any{"projects/" + number + "/", "projects/" + project}, []any{"projects/" + number, "projects/" + project + "/"},
		[]any{"Projects/" + number, "Projects/" + project}, []any{"projects/" + number, "projects/ACME-PROD"}, []any{"projects/" + number + " ", "projects/" + project},
		[]any{"projects/" + number + "projects/" + project}, []any{"projects/" + number, "projects/" + project, 1}, []any{"projects/" + number, "projects/" + project, nil},
		[]any{[]any{"projects/" + number, "projects/" + project}}, []any{"projects/0" + number, "projects/" + project}, []any{"", "projects/"}} {
		add(oidc.ReasonAudience, fmt.Sprintf("aud %#v", aud), set("aud", aud))
	}
	// Another project's token, whose owner chose nothing but its app.
	add(oidc.ReasonAudience, "of another project", set("iss", appCheckPrefix+"999"), set("aud", []any{"projects/999", "projects/other"}))
	add(oidc.ReasonAudience, "of another project's number", set("iss", appCheckPrefix+"999"))
	add(oidc.ReasonAudience, "of a number that another begins with", set("iss", appCheckPrefix+number[:5]))
	for _, sub := range []any{"", nil, 1, true, []any{appID}, map[string]any{}, "a\r\nX-App: admin", "a\x00", "a\x7f", "a\u0085", "\ufffd", strings.Repeat("x", 256)} {
		add(oidc.ReasonSubject, fmt.Sprintf("sub %.40q", fmt.Sprint(sub)), set("sub", sub))
	}
	for name, reason := range map[string]string{"iss": oidc.ReasonIssuer, "aud": oidc.ReasonAudience, "sub": oidc.ReasonSubject, "exp": oidc.ReasonClaim, "iat": oidc.ReasonClaim} {
		add(reason, "no "+name, without(name))
	}
	unix := now.Unix()
	for _, c := range []struct {
		claim   string
		seconds any
		reason  string
	}{
		{"exp", unix - 60, oidc.ReasonExpired}, {"exp", unix - 61, oidc.ReasonExpired}, {"exp", unix - 3600, oidc.ReasonExpired}, {"exp", 1, oidc.ReasonExpired},
		{"iat", unix + 61, oidc.ReasonIssuedAt}, {"iat", unix + 301, oidc.ReasonIssuedAt}, {"iat", unix + 86400, oidc.ReasonIssuedAt},
		{"nbf", unix + 61, oidc.ReasonNotYet}, {"nbf", unix + 3600, oidc.ReasonNotYet}, {"auth_time", unix + 61, oidc.ReasonAuthTime},
		{"exp", 0, oidc.ReasonClaim}, {"exp", -1, oidc.ReasonClaim}, {"exp", fmt.Sprint(unix + 100), oidc.ReasonClaim}, {"exp", nil, oidc.ReasonClaim}, {"exp", json.RawMessage("1e11"), oidc.ReasonClaim},
		{"iat", 0, oidc.ReasonClaim}, {"iat", "1", oidc.ReasonClaim}, {"iat", nil, oidc.ReasonClaim}, {"iat", json.RawMessage("1.5"), oidc.ReasonClaim}, {"nbf", "1", oidc.ReasonClaim},
	} {
		add(c.reason, fmt.Sprintf("%s is %v", c.claim, c.seconds), set(c.claim, c.seconds))
	}
	p := appPayload(now)
	for h, reason := range map[string]string{
		`{"alg":"RS256","kid":"k1"}`: oidc.ReasonHeader, `{"alg":"RS256","kid":"k1","typ":"at+jwt"}`: oidc.ReasonHeader, `{"alg":"RS256","kid":"k1","typ":"jwt"}`: oidc.ReasonHeader,
		`{"alg":"RS256","kid":"k1","typ":"application/jwt"}`: oidc.ReasonHeader, `{"alg":"RS256","kid":"k1","typ":"dpop+jwt"}`: oidc.ReasonHeader,
		`{"alg":"RS256","kid":"k1","typ":null}`: oidc.ReasonHeader, `{"alg":"RS256","kid":"k1","typ":""}`: oidc.ReasonHeader, `{"alg":"RS256","kid":"k1","typ":["JWT"]}`: oidc.ReasonHeader,
		`{"alg":"RS256","kid":"k1","typ":"JWT","crit":["x"]}`: oidc.ReasonHeader, `{"alg":"RS256","kid":"k1","typ":"JWT","jku":"http://127.0.0.1:1/"}`: oidc.ReasonHeader,
		`{"alg":"none","typ":"JWT"}`: oidc.ReasonAlgorithm, `{"alg":"none","kid":"k1","typ":"JWT"}`: oidc.ReasonAlgorithm, `{"alg":"HS256","kid":"k1","typ":"JWT"}`: oidc.ReasonAlgorithm,
		`{"alg":"rs256","kid":"k1","typ":"JWT"}`: oidc.ReasonAlgorithm, `{"alg":"RS512","kid":"k1","typ":"JWT"}`: oidc.ReasonAlgorithm, `{"alg":"PS256","kid":"k1","typ":"JWT"}`: oidc.ReasonAlgorithm,
		`{"alg":"ES256","kid":"k1","typ":"JWT"}`: oidc.ReasonAlgorithm, `{"alg":["RS256"],"kid":"k1","typ":"JWT"}`: oidc.ReasonAlgorithm, `{"kid":"k1","typ":"JWT"}`: oidc.ReasonAlgorithm,
		`{"alg":"RS256","typ":"JWT"}`: oidc.ReasonKeyID, `{"alg":"RS256","kid":"k2","typ":"JWT"}`: oidc.ReasonUnknownKey, `{"alg":"RS256","kid":"K1","typ":"JWT"}`: oidc.ReasonUnknownKey,
	} {
		all = append(all, attack{"header " + h, rs256(goodKey(), h, p), reason})
	}
	signed := b64([]byte(header)) + "." + b64([]byte(p))
	digest := digestOf(header, p)
	return append(all,
		attack{"by another key", rs256(otherKey(), header, p), oidc.ReasonSignature},
		attack{"without a signature", signed + ".", oidc.ReasonSignature},
		attack{"a signature of another token", signed + "." + b64(signature(goodKey(), b64([]byte(header))+"."+b64([]byte(payload(now))))), oidc.ReasonSignature},
		attack{"an HMAC by the public modulus", hs256(goodKey().N.Bytes(), header, p), oidc.ReasonSignature},
		attack{"the digest as signature", signed + "." + b64(digest), oidc.ReasonSignature},
		attack{"PSS", signed + "." + b64(pss(digest)), oidc.ReasonSignature},
		attack{"an ID token", good(now), oidc.ReasonIssuer},
		attack{"a session cookie", cookie(now), oidc.ReasonIssuer},
		attack{"an emulated ID token", unsigned(now), oidc.ReasonIssuer},
		attack{"emulated", b64([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + b64([]byte(p)) + ".", oidc.ReasonAlgorithm},
		attack{"an ID token with App Check's issuer", good(now, set("iss", appCheckPrefix+number)), oidc.ReasonAudience},
		attack{"SUB beside sub", goodApp(now, set("SUB", "x")), oidc.ReasonMalformed},
		attack{"aud twice", rs256(goodKey(), header, `{"aud":["projects/1"],`+p[1:]), oidc.ReasonMalformed},
		attack{"a newline after", goodApp(now) + "\n", oidc.ReasonMalformed},
		attack{"empty", "", oidc.ReasonMalformed},
		attack{"too long", goodApp(now, set("x", strings.Repeat("x", oidc.MaxTokenBytes))), oidc.ReasonTooLong})
}

func pss(digest []byte) []byte {
	s, err := rsa.SignPSS(cryptorand.Reader, goodKey(), crypto.SHA256, digest, nil)
	if err != nil {
		panic(err)
	}
	return s
}

func TestHostileAppCheckTokens(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	all := appCheckAttacks(now)
	if len(all) < 120 {
		t.Errorf("only %d hostile tokens", len(all))
	}
	refuseAll(t, newGoogle(t).appCheck(t, oidc.DefaultLeeway, func() time.Time { return now }), all)
}

// An App Check token says which app, never who: it is no ID token and no cookie,
// even where one key signs all of them.
func TestAppCheckTokensAreNobody(t *testing.T) {
	now := time.Now()
	g := newGoogle(t)
	tokens, cookies := g.verifier(t, "", nil), g.cookieSet(t, "", nil)
	identity := []change{set("user_id", appID), set("auth_time", now.Unix()-10), set("firebase", map[string]any{"sign_in_provider": "custom"})}
	for name, c := range map[string]struct {
		set           *oidc.Set
		token, reason string
	}{
		"as a token":                             {newSet(t, tokens), goodApp(now), oidc.ReasonIssuer},
		"as a cookie":                            {cookies, goodApp(now), oidc.ReasonIssuer},
		"with all claims of a user, as a token":  {newSet(t, tokens), goodApp(now, identity...), oidc.ReasonIssuer},
		"with all claims of a user, as a cookie": {cookies, goodApp(now, identity...), oidc.ReasonIssuer},
		"at the emulator":                        {emulator(t), b64([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + b64([]byte(appPayload(now, identity...))) + ".", oidc.ReasonIssuer},
		"with a token's issuer":                  {newSet(t, tokens), goodApp(now, append(identity, set("iss", tokenIssuer+project))...), oidc.ReasonAudience},
		"with its issuer and audience":           {newSet(t, tokens), goodApp(now, append(identity, set("iss", tokenIssuer+project), set("aud", []any{"projects/" + number, "projects/" + project, project}))...), oidc.ReasonAudience},
	} {
		_, err := c.set.Authenticate(t.Context(), c.token)
		wantRefused(t, name, err, c.reason)
	}
}

func TestAppCheckWithoutKeysIsUnavailable(t *testing.T) {
	now := time.Now()
	a, err := firebase.NewAppCheck(firebase.Options{Project: project, KeySet: newGoogle(t).keySet(nil)}) // and nothing fetched
	if err != nil {
		t.Fatal(err)
	}
	_, err = oidc.Only(a).Authenticate(t.Context(), goodApp(now))
	wantUnavailable(t, "a good token", err)
	// What is bad by its claims is bad, whatever the keys are.
	_, err = oidc.Only(a).Authenticate(t.Context(), goodApp(now, set("iss", "x")))
	wantRefused(t, "a bad token", err, oidc.ReasonIssuer)
}

func TestAppCheckOptionsRefused(t *testing.T) {
	keys := newGoogle(t).keySet(nil)
	failing := func(string) (*oidc.KeySet, error) { return nil, errors.New("no keys") }
	for name, o := range map[string]firebase.Options{
		"no project": {KeySet: keys}, "project is a path": {Project: "acme/../x", KeySet: keys}, "negative leeway": {Project: project, Leeway: -1, KeySet: keys},
		"leeway of 6 min": {Project: project, Leeway: 6 * time.Minute, KeySet: keys}, "keys that fail": {Project: project, KeySet: failing}, "no keys": {Project: project},
	} {
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("%s: it panics: %v", name, p)
				}
			}()
			if _, err := firebase.NewAppCheck(o); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}()
	}
}

// appCheckSDK is the Admin SDK's verification of App Check tokens. It fetches
// the keys once, by http.DefaultClient, and again every six hours.
func appCheckSDK(t *testing.T, g *google) *appcheck.Client {
	t.Helper()
	restore, url := http.DefaultTransport, appcheck.JWKSUrl
	http.DefaultTransport, appcheck.JWKSUrl = g.transport(), firebase.AppCheckKeysURL
	defer func() { http.DefaultTransport, appcheck.JWKSUrl = restore, url }()
	app, err := sdk.NewApp(t.Context(), &sdk.Config{ProjectID: project}, option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	client, err := app.AppCheck(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := client.VerifyToken(goodApp(time.Now())); err != nil || got.AppID != appID {
		t.Fatalf("the oracle refuses a good token: %v", err)
	}
	return client
}

func TestNeverAcceptsAppCheckTokensThatTheAdminSDKRejects(t *testing.T) {
	g := newGoogle(t)
	client := appCheckSDK(t, g)
	ours := g.appCheck(t, 0, nil) // the SDK has no leeway
	both, stricter := 0, 0
	check := func(what, token string) {
		t.Helper()
		id, err := ours.Authenticate(t.Context(), token)
		theirs, theirErr := func() (_ *appcheck.DecodedAppCheckToken, err error) {
			defer func() { // it panics where aud is no list of text, or exp or iat are missing
				if p := recover(); p != nil {
					err = fmt.Errorf("panic: %v", p)
				}
			}()
			return client.VerifyToken(token)
		}()
		switch {
		case err == nil && theirErr != nil:
			t.Errorf("%s: accepted, and the Admin SDK says %v\n%s", what, theirErr, token)
		case err != nil && theirErr == nil:
			stricter++
		case err == nil:
			both++
			if id.UID != theirs.AppID || id.Issuer != theirs.Issuer || id.Expires.Unix() != theirs.ExpiresAt.Unix() {
				t.Errorf("%s: read as %+v, and by the Admin SDK as %+v", what, id, theirs)
			}
		}
	}
	now := time.Now()
	for _, a := range append(appCheckAttacks(now), attacks(now)...) {
		check(a.name, a.token)
	}
	random := rand.New(rand.NewPCG(3, 4))
	base, token := appPayload(now), goodApp(now)
	for range 400 {
		check("mutated token", mutate(random, token))
		check("mutated payload", rs256(goodKey(), header, mutate(random, base)))
		check("mutated header", rs256(goodKey(), mutate(random, header), base))
	}
	if both < 40 {
		t.Errorf("only %d tokens were good: the mutations are too rough", both)
	}
	t.Logf("%d accepted by both, %d refused only here", both, stricter)
}
