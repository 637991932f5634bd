package firebase_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/auth"
	"google.golang.org/api/option"

	"sidegate/proxy/oidc"
)

// adminSDK is the Admin SDK's verification with the test's google behind it.
// Its HTTP client is a clone of http.DefaultTransport, which is why that is
// replaced while it is made.
func adminSDK(t testing.TB, g *google) *auth.Client {
	t.Helper()
	t.Setenv("FIREBASE_AUTH_EMULATOR_HOST", "")
	restore := http.DefaultTransport
	http.DefaultTransport = g.transport()
	defer func() { http.DefaultTransport = restore }()
	app, err := sdk.NewApp(t.Context(), &sdk.Config{ProjectID: project}, option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	client, err := app.Auth(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.VerifyIDToken(t.Context(), good(time.Now())); err != nil {
		t.Fatalf("the oracle refuses a good token: %v", err)
	}
	return client
}

// neverMore fails where the gateway takes a token that the Admin SDK refuses.
type neverMore struct {
	ours           *oidc.Set
	theirs         func(context.Context, string) (*auth.Token, error)
	both, stricter int
}

func (n *neverMore) check(t *testing.T, ctx context.Context, what, token string) {
	t.Helper()
	id, err := n.ours.Authenticate(ctx, token)
	known, theirErr := n.theirs(ctx, token)
	switch {
	case err != nil && theirErr == nil:
		n.stricter++
	case err == nil && theirErr != nil:
		t.Errorf("%s: accepted, and the Admin SDK says %v\n%s", what, theirErr, token)
	case err == nil && theirErr == nil:
		n.both++
		if id.UID != known.UID || id.Tenant != known.Firebase.Tenant || id.Provider != known.Firebase.SignInProvider ||
			id.Expires.Unix() != known.Expires || id.AuthTime.Unix() != known.AuthTime {
			t.Errorf("%s: read as %+v, and by the Admin SDK as %+v", what, id, known)
		}
	}
}

func TestNeverAcceptsWhatTheAdminSDKRejects(t *testing.T) {
	g := newGoogle(t)
	n := &neverMore{ours: newSet(t, g.verifier(t, "", nil), g.verifier(t, "consumer", nil)), theirs: adminSDK(t, g).VerifyIDToken}
	n.checkAll(t, time.Now(), 1000)
}

// checkAll checks every hostile token, and so many mutations of good ones.
func (n *neverMore) checkAll(t *testing.T, now time.Time, rounds int) {
	t.Helper()
	for _, a := range attacks(now) {
		n.check(t, t.Context(), a.name, a.token)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, base := range []string{payload(now), payload(now, inFirebase("tenant", "consumer")), payload(now, set("nbf", now.Unix()-9), set("uid", "alice"))} {
		token := rs256(goodKey(), header, base)
		for range rounds {
			n.check(t, t.Context(), "mutated token", mutate(random, token))
		}
		// Well signed, so that the reading of the claims itself is compared.
		for range rounds / 2 {
			n.check(t, t.Context(), "mutated payload", rs256(goodKey(), header, mutate(random, base)))
			n.check(t, t.Context(), "mutated header", rs256(goodKey(), mutate(random, header), base))
		}
	}
	if n.both < rounds/10 {
		t.Errorf("only %d tokens were good: the mutations are too rough", n.both)
	}
	t.Logf("%d accepted by both, %d refused only here", n.both, n.stricter)
}

// mutate changes a text at one to three places.
func mutate(random *rand.Rand, text string) string {
	pieces := []string{`"`, ",", ":", "{", "}", "[", "]", ".", "=", "-", "_", "A", "a", "0", "9", "e", "\n", " ", "\x00", "\xff", "null", "true", "1.5", `""`,
		`,"sub":"bob"`, `,"SUB":"bob"`, `,"x":{"a":[1]}`, `\u0000`, `\ud800`, "é"}
	for range 1 + random.IntN(3) {
		at := random.IntN(len(text))
		switch random.IntN(5) {
		case 0:
			text = text[:at] + string(rune(random.IntN(128))) + text[at+1:]
		case 1:
			text = text[:at] + text[at+1:]
		case 2:
			text = text[:at] + pieces[random.IntN(len(pieces))] + text[at:]
		case 3:
			end := min(len(text), at+1+random.IntN(8))
			text = text[:at] + text[at:end] + text[at:]
		case 4:
			if other := strings.IndexByte(text[at:], ','); other > 0 {
				text = text[:at] + text[at+other:]
			}
		}
		if text == "" {
			return "x"
		}
	}
	return text
}
