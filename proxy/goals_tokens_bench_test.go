package proxy_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sidegate/proxy"
	"sidegate/proxy/oidc"
)

// goalIssuer signs tokens, and publishes its key.
type goalIssuer struct{ key *rsa.PrivateKey }

func newGoalIssuer(b *testing.B) goalIssuer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	return goalIssuer{key}
}

// verifier is what sidegate.yaml makes of an identity.
func (i goalIssuer) verifier(b *testing.B) *oidc.Verifier {
	b64 := base64.RawURLEncoding.EncodeToString
	at := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"keys":[{"kty":"RSA","kid":"k0","use":"sig","alg":"RS256","n":%q,"e":%q}]}`, b64(i.key.N.Bytes()), b64(big.NewInt(int64(i.key.E)).Bytes()))
	}))
	b.Cleanup(at.Close)
	keys, err := oidc.NewKeySet(oidc.KeySetOptions{URL: at.URL, AllowHTTP: true})
	if err != nil {
		b.Fatal(err)
	}
	if err := keys.Prefetch(b.Context()); err != nil {
		b.Fatal(err)
	}
	v, err := oidc.NewVerifier(oidc.Options{
		Name: "users", Namespace: "users", Issuer: "https://issuer.example", Audiences: []string{"app"}, Keys: keys,
		Algorithms: []string{oidc.RS256}, UID: oidc.Path{"sub"}, Leeway: oidc.DefaultLeeway,
	})
	if err != nil {
		b.Fatal(err)
	}
	return v
}

// token is one of 1.2 KB, as issuers make them.
func (i goalIssuer) token(b *testing.B, user int, expires time.Time) string {
	b64 := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"iss":"https://issuer.example","aud":"app","sub":"user%d","iat":%d,"exp":%d,"auth_time":%d,"email":"user%d@acme.dev","email_verified":true,"roles":["writer"],"pad":"%s"}`,
		user, expires.Unix()-3600, expires.Unix(), expires.Unix()-3600, user, strings.Repeat("p", 300))
	signed := b64([]byte(`{"alg":"RS256","kid":"k0","typ":"JWT"}`)) + "." + b64([]byte(claims))
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, i.key, crypto.SHA256, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	return signed + "." + b64(signature)
}

// check is the CPU of one check of a signature, nothing else.
func (i goalIssuer) check(b *testing.B, signature []byte, digest [32]byte) float64 {
	const checks = 1000
	before := cpu()
	for range checks {
		if err := rsa.VerifyPKCS1v15(&i.key.PublicKey, crypto.SHA256, digest[:], signature); err != nil {
			b.Fatal(err)
		}
	}
	return float64(cpu()-before) / checks
}

// caching puts a cache of so many tokens before a provider.
func caching(b *testing.B, p oidc.Provider, entries int) func(*proxy.Options) {
	set, err := oidc.New(p)
	if err != nil {
		b.Fatal(err)
	}
	cache, err := oidc.NewCache(set, oidc.CacheOptions{Entries: entries})
	if err != nil {
		b.Fatal(err)
	}
	return func(o *proxy.Options) { o.Authenticator = cache }
}

// BenchmarkGoalFirstSeen is a request with a token that the cache has not, its
// place in the cache included, by what the same request costs when it is there:
// rsa-checks is the difference, in checks of a signature.
func BenchmarkGoalFirstSeen(b *testing.B) {
	s := newGoalScene(b)
	issuer := newGoalIssuer(b)
	var tokens []string
	for i := range benchRequests {
		tokens = append(tokens, issuer.token(b, i, time.Now().Add(time.Hour)))
	}
	file := s.tokens(tokens...)
	v := issuer.verifier(b)
	bare := goalLoad{Kind: "get", Address: s.bare(s.hello.App, false), Tokens: file, Connections: benchConnections, Requests: benchRequests}
	known, fresh := bare, bare
	known.Address = s.gate(caching(b, v, 100_000))
	fresh.Address = s.gate(caching(b, v, 64)) // the others push each token out before it comes again
	digest := sha256.Sum256(nil)
	signature, err := rsa.SignPKCS1v15(nil, issuer.key, crypto.SHA256, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var costs [3][]goalCost
		var checks []float64
		for range benchRounds {
			for i, l := range []goalLoad{bare, known, fresh} {
				costs[i] = append(costs[i], s.run(l))
			}
			checks = append(checks, issuer.check(b, signature, digest))
		}
		b.ReportMetric(ratio(cpuOf, costs[1], costs[0]), "known-x-bare")
		b.ReportMetric(ratio(cpuOf, costs[2], costs[0]), "first-x-bare")
		b.ReportMetric(medianOf(benchRounds, func(i int) float64 {
			return (cpuOf(costs[2][i]) - cpuOf(costs[1][i])) / benchRequests / checks[i]
		}), "rsa-checks")
		b.ReportMetric(medianOf(benchRounds, func(i int) float64 { return checks[i] * benchRequests / cpuOf(costs[0][i]) }), "check-x-bare")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkGoalRefused is a request that is refused, for each reason, by one that
// the bare ReverseProxy passes on. The signature of a forged token must be
// checked, and that alone costs about what the bare one's request does: see
// rsa-checks, which is what it costs beside a malformed one.
func BenchmarkGoalRefused(b *testing.B) {
	s := newGoalScene(b)
	issuer := newGoalIssuer(b)
	good := issuer.token(b, 1, time.Now().Add(time.Hour))
	at := strings.LastIndexByte(good, '.')
	forged := good[:at] + "." + strings.Repeat("A", len(good)-at-1)
	gate := s.gate(caching(b, issuer.verifier(b), 100_000))
	plain := goalLoad{Kind: "get", Address: s.bare(s.hello.App, false), Tokens: s.tokens(good), Connections: benchConnections, Requests: benchRequests}
	refused := func(status int, target string, tokens ...string) goalLoad {
		l := plain
		l.Address, l.Status, l.Target, l.Tokens = gate, status, target, ""
		if len(tokens) > 0 {
			l.Tokens = s.tokens(tokens...)
		}
		return l
	}
	names := []string{"bare", "no-token", "malformed", "expired", "forged", "not-allowed", "no-route"}
	loads := []goalLoad{
		plain, refused(401, ""), refused(401, "", "no.such.token"), refused(401, "", issuer.token(b, 1, time.Now().Add(-time.Hour))),
		refused(401, "", forged), refused(403, "/v1/denied", good), refused(404, "/v1/nowhere", good),
	}
	digest := sha256.Sum256(nil)
	signature, err := rsa.SignPKCS1v15(nil, issuer.key, crypto.SHA256, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		costs := s.inTurn(benchRounds, loads...)
		check := issuer.check(b, signature, digest)
		for i := 1; i < len(loads); i++ {
			b.ReportMetric(ratio(cpuOf, costs[i], costs[0]), names[i]+"-x-bare")
		}
		b.ReportMetric(medianOf(benchRounds, func(i int) float64 {
			return (cpuOf(costs[4][i]) - cpuOf(costs[2][i])) / benchRequests / check
		}), "rsa-checks")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkGoalPresign is an upload that is presigned, its session in the
// embedded store, by a request that the bare ReverseProxy passes on.
func BenchmarkGoalPresign(b *testing.B) {
	s := newGoalScene(b)
	gate, _ := benchServe(b)
	bare := goalLoad{Kind: "get", Address: s.bare(s.hello.App, false), Tokens: s.tokens(benchToken()), Connections: benchConnections, Requests: benchRequests}
	ours := bare
	ours.Kind, ours.Address, ours.Target = "post", s.serveGate(gate), "/v1/uploads/presign"
	for b.Loop() {
		costs := s.inTurn(benchRounds, bare, ours)
		b.ReportMetric(ratio(cpuOf, costs[1], costs[0]), "x-bare")
	}
	b.ReportMetric(0, "ns/op")
}

// everyUser is `anyone` for as many users as there are tokens.
type everyUser struct{ anyone }

func (u everyUser) Verify(ctx context.Context, t *oidc.Token) (oidc.Verified, error) {
	v, err := u.anyone.Verify(ctx, t)
	v.Identity.UID, _ = t.Claims.Text("sub")
	return v, err
}
