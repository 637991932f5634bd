package cmd

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/policy"
	"sidegate/proxy"
	"sidegate/proxy/oidc"
)

// A claimSet is a token's header or payload.
type claimSet map[string]any

// with is the claims, changed; a nil value takes a claim away.
func (c claimSet) with(nameValue ...any) claimSet {
	out := maps.Clone(c)
	for i := 0; i < len(nameValue); i += 2 {
		name := nameValue[i].(string)
		if out[name] = nameValue[i+1]; nameValue[i+1] == nil {
			delete(out, name)
		}
	}
	return out
}

// timed gives a token its times: issued a moment ago, good for as long as said.
func timed(c claimSet, life time.Duration) claimSet {
	now := time.Now().Unix()
	return c.with("iat", now-10, "exp", now-10+int64(life.Seconds()))
}

// The first two keys are issuers', of which the first signs; the third is a
// stranger's.
var idpKeys = sync.OnceValue(func() (keys [3]*rsa.PrivateKey) {
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	return keys
})

const (
	idpKey      = 0
	strangerKey = 2
)

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// signRS256 signs any header and payload, however wrong.
func signRS256(t testing.TB, key int, header, claims claimSet) string {
	t.Helper()
	head, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed := b64(head) + "." + b64(payload)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, idpKeys()[key], crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + b64(signature)
}

// jwk publishes a key with these members besides its numbers.
func jwk(key int, kid string, more claimSet) claimSet {
	public := idpKeys()[key].PublicKey
	out := claimSet{"kty": "RSA", "kid": kid, "n": b64(public.N.Bytes()), "e": b64(big.NewInt(int64(public.E)).Bytes())}
	maps.Copy(out, more)
	return out
}

// certified adds the certificate that some issuers publish beside a key (RFC
// 7517, sections 4.7 and 4.8). Auth0's older thumbprints are the hex digits in
// base64url, and not the bytes.
func certified(key int, kid string, hexDigits bool, more claimSet) claimSet {
	der := selfSigned(idpKeys()[key], idpKeys()[key])
	print := sha1.Sum(der)
	x5t := print[:]
	if hexDigits {
		x5t = []byte(strings.ToUpper(hex.EncodeToString(print[:])))
	}
	return jwk(key, kid, more).with("x5c", []string{base64.StdEncoding.EncodeToString(der)}, "x5t", b64(x5t))
}

func selfSigned(subject, signer *rsa.PrivateKey, hosts ...string) []byte {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &subject.PublicKey, signer)
	if err != nil {
		panic(err)
	}
	return der
}

// An idpNet answers for all issuers, each under its real name, over TLS.
type idpNet struct {
	client *http.Client
	down   atomic.Bool // every answer is 503

	mu      sync.Mutex
	answers map[string][]byte // by URL
	asked   map[string]int
}

func newIdPNet(t testing.TB, hosts ...string) *idpNet {
	t.Helper()
	n := &idpNet{answers: map[string][]byte{}, asked: map[string]int{}}
	server := httptest.NewUnstartedServer(n)
	key := idpKeys()[idpKey]
	der := selfSigned(key, key, hosts...)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(certificate)
	n.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, server.Listener.Addr().String())
		},
	}}
	t.Cleanup(n.client.CloseIdleConnections)
	return n
}

func (n *idpNet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	url := "https://" + r.Host + r.URL.Path
	n.mu.Lock()
	n.asked[url]++
	answer, ok := n.answers[url]
	n.mu.Unlock()
	switch {
	case n.down.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	case !ok:
		http.NotFound(w, r)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "public, max-age=3600")
		_, _ = w.Write(answer)
	}
}

func (n *idpNet) count(url string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[url]
}

func (n *idpNet) serve(t testing.TB, url string, v any) {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[url] = data
}

// publish serves an issuer's keys and, where it has an issuer's URL, what it
// says of itself.
func (n *idpNet) publish(t testing.TB, issuer, keysAt string, keys ...claimSet) {
	t.Helper()
	n.serve(t, keysAt, claimSet{"keys": keys})
	if issuer == "" {
		return
	}
	base := strings.TrimSuffix(issuer, "/")
	n.serve(t, base+"/.well-known/openid-configuration", claimSet{
		"issuer": issuer, "jwks_uri": keysAt,
		"authorization_endpoint": base + "/authorize", "token_endpoint": base + "/token",
		"response_types_supported": []string{"code", "id_token"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"}, "scopes_supported": []string{"openid"},
	})
}

// callersOf opens the identities of a configuration, their keys fetched.
func callersOf(t testing.TB, c *Config, n *idpNet) (*gateway, callers) {
	t.Helper()
	g := &gateway{s: settings{config: c}, keysClient: n.client}
	callers, err := g.openIdentities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range g.keys {
		if err := k.Prefetch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return g, callers
}

func wantReason(t testing.TB, what string, id *policy.Identity, err error, reason string) {
	t.Helper()
	var bad *proxy.TokenError
	if !errors.As(err, &bad) || bad.Reason != reason || errors.Is(err, proxy.ErrUnavailable) || id != nil {
		t.Errorf("%s: %+v, %v; want %q", what, id, err, reason)
	}
}

// wantIdentity compares what is set in want, of the claims those of want.
func wantIdentity(t testing.TB, what string, got *policy.Identity, err error, want policy.Identity) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	is := policy.Identity{
		Name: got.Name, Namespace: got.Namespace, UID: got.UID, Actor: got.Actor, Tenant: got.Tenant, Issuer: got.Issuer, Provider: got.Provider,
		Email: got.Email, EmailVerified: got.EmailVerified, SecondFactor: got.SecondFactor,
	}
	if want.Claims == nil {
		want.Claims = policy.ClaimMap{}
	}
	claims := policy.ClaimMap{}
	for name := range want.Claims.All() {
		if v, ok := got.Claim(name); ok {
			claims[name] = v
		}
	}
	is.Claims = claims
	if !reflect.DeepEqual(is, want) {
		t.Errorf("%s:\ngot  %+v\nwant %+v", what, is, want)
	}
	if got.Expires.IsZero() || got.Payload == "" || got.TokenHash == "" {
		t.Errorf("%s: without expiry, payload or hash: %+v", what, got)
	}
}

// A docBlock is one of the page's ```yaml blocks, under its last heading.
type docBlock struct {
	heading string
	line    int
	text    string
}

func identityBlocks(t testing.TB) (out []docBlock) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "docs", "identities.md"))
	if err != nil {
		t.Fatal(err)
	}
	var current *docBlock
	heading := ""
	for i, line := range strings.SplitAfter(string(data), "\n") {
		switch {
		case current != nil && strings.HasPrefix(line, "```"):
			out = append(out, *current)
			current = nil
		case current != nil:
			current.text += line
		case strings.HasPrefix(line, "```"):
			current = &docBlock{heading: heading, line: i + 2}
			if strings.TrimSpace(line) != "```yaml" {
				t.Errorf("docs/identities.md:%d: a block that is not yaml: it cannot be tried", i+1)
			}
		case strings.HasPrefix(line, "## "), strings.HasPrefix(line, "### "):
			heading = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
	}
	return out
}

// TestDocumentedIdentities loads every file that docs/identities.md shows; those
// of issuers are tried with tokens of the form that the issuer documents.
func TestDocumentedIdentities(t *testing.T) {
	configs := map[string]*Config{}
	var last *Config // the configuration that a policy is shown beside
	shown, policies := 0, 0
	for _, b := range identityBlocks(t) {
		at := fmt.Sprintf("docs/identities.md:%d", b.line)
		switch {
		case strings.HasPrefix(b.text, versionLine):
			c, warnings, err := place{}.load(b.text)
			if err != nil || len(warnings) > 0 {
				t.Fatalf("%s: %v %v", at, warnings, err)
			}
			if err := fitsSchema(b.text); err != nil {
				t.Errorf("%s: loads, and does not fit the schema: %v", at, err)
			}
			if configs[b.heading] != nil {
				t.Fatalf("%s: a second configuration under %q: tell them apart by headings", at, b.heading)
			}
			configs[b.heading], last = c, c
			shown++
		case strings.HasPrefix(b.text, "version: "+policy.Version+"\n"):
			if last == nil {
				t.Fatalf("%s: a policy before any configuration", at)
			}
			env := policyEnvironment(last)
			env.Upstreams["app"] = policy.Upstream{}
			if _, err := policy.Load("policy.yaml", []byte(b.text), env); err != nil {
				t.Errorf("%s: %v", at, err)
			}
			policies++
		default:
			t.Errorf("%s: this block is no whole file", at)
		}
	}
	if shown < 10 || policies < 2 {
		t.Fatalf("only %d configurations and %d policies", shown, policies)
	}
	all := documentedIssuers()
	for heading, c := range configs {
		tried := slices.ContainsFunc(all, func(d documentedIssuer) bool { return d.heading == heading })
		for _, id := range c.Identities {
			if id.OIDC != nil && !tried {
				t.Errorf("%q: no token of this issuer is tried", heading)
			}
		}
	}
	for _, d := range all {
		t.Run(d.heading, func(t *testing.T) {
			c := configs[d.heading]
			if c == nil {
				t.Fatal("the page shows no configuration under this heading")
			}
			d.try(t, c)
		})
	}
}

// A documentedIssuer is one that the page has a configuration for: where it
// publishes which keys, and what its tokens hold, as its own documentation says.
type documentedIssuer struct {
	heading  string
	metadata string // the issuer whose metadata is served; empty: it is not asked for
	keysAt   string
	keys     []claimSet // the first is idpKey's
	header   claimSet
	takes    []takenToken
	refuses  []refusedToken
}

type takenToken struct {
	what   string
	claims claimSet
	want   policy.Identity
}

type refusedToken struct {
	what   string
	claims claimSet
	reason string
}

func (d *documentedIssuer) try(t *testing.T, c *Config) {
	keys, err := http.NewRequest(http.MethodGet, d.keysAt, nil)
	if err != nil {
		t.Fatal(err)
	}
	hosts := []string{keys.URL.Host}
	if d.metadata != "" {
		issuer, err := http.NewRequest(http.MethodGet, d.metadata, nil)
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, issuer.URL.Host)
	}
	n := newIdPNet(t, hosts...)
	n.publish(t, d.metadata, d.keysAt, d.keys...)
	g, callers := callersOf(t, c, n)
	if n.count(d.keysAt) != 1 || len(g.keys) != 1 {
		t.Fatalf("%d fetches from %s, %d key sets: %v", n.count(d.keysAt), d.keysAt, len(g.keys), n.asked)
	}
	if got := g.keys[0].Status().Keys; got != len(d.keys) {
		t.Errorf("%d of the issuer's %d keys can be used", got, len(d.keys))
	}
	authenticate := func(token string) (*policy.Identity, error) { return callers.tokens.Authenticate(t.Context(), token) }
	for _, k := range d.takes {
		id, err := authenticate(signRS256(t, idpKey, d.header, k.claims))
		wantIdentity(t, k.what, id, err, k.want)
		id, err = authenticate(signRS256(t, strangerKey, d.header, k.claims))
		wantReason(t, k.what+", signed by a stranger", id, err, oidc.ReasonSignature)
		now := time.Now().Unix()
		id, err = authenticate(signRS256(t, idpKey, d.header, k.claims.with("iat", now-7200, "exp", now-3600)))
		wantReason(t, k.what+", of yesterday", id, err, oidc.ReasonExpired)
	}
	for _, k := range d.refuses {
		id, err := authenticate(signRS256(t, idpKey, d.header, k.claims))
		wantReason(t, k.what, id, err, k.reason)
	}
}

func documentedIssuers() []documentedIssuer {
	return []documentedIssuer{
		oktaTokens(), auth0Tokens(), cognitoTokens(), entraTokens(),
		googleAccountTokens(), githubTokens(), serviceAccountTokens(), agentTokens(),
	}
}

// https://developer.okta.com/docs/api/openapi/okta-oauth/guides/overview/
func oktaTokens() documentedIssuer {
	const issuer = "https://acme.okta.com/oauth2/default"
	rs256 := claimSet{"use": "sig", "alg": "RS256"}
	access := timed(claimSet{
		"ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE", "iss": issuer, "aud": "api://default",
		"cid": "0oa1clientid2", "uid": "00u1userid2345", "scp": []string{"openid", "photos.read"}, "sub": "alice@acme.dev",
		"auth_time": time.Now().Unix() - 60,
	}, time.Hour)
	return documentedIssuer{
		heading: "Okta", metadata: issuer, keysAt: issuer + "/v1/keys",
		keys:   []claimSet{jwk(0, "okta-now", rs256), jwk(1, "okta-next", rs256)},
		header: claimSet{"kid": "okta-now", "alg": "RS256"},
		takes: []takenToken{
			{"an access token", access, policy.Identity{
				Name: "staff", Namespace: "staff", UID: "00u1userid2345", Issuer: issuer,
				Claims: policy.ClaimMap{"scopes": []any{"openid", "photos.read"}},
			}},
		},
		refuses: []refusedToken{
			{"of another organisation", access.with("iss", "https://other.okta.com/oauth2/default"), oidc.ReasonIssuer},
			{"of the organisation's own server", access.with("iss", "https://acme.okta.com", "aud", "https://acme.okta.com"), oidc.ReasonIssuer},
			{"for another API", access.with("aud", "api://billing"), oidc.ReasonAudience},
			{"an ID token of an app", access.with("aud", "0oa1clientid2", "uid", nil, "scp", nil, "sub", "00u1userid2345"), oidc.ReasonAudience},
			// A service signs in by itself: there is no user.
			{"of client credentials", access.with("uid", nil, "sub", "0oa1clientid2"), oidc.ReasonSubject},
		},
	}
}

// https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles
func auth0Tokens() documentedIssuer {
	const issuer, api, roles = "https://acme.eu.auth0.com/", "https://photos.acme.dev/api", "https://acme.dev/roles"
	rs256 := claimSet{"use": "sig", "alg": "RS256"}
	access := timed(claimSet{
		"iss": issuer, "sub": "auth0|5f7c8ec7c33c6c004bbafe82", "aud": []string{api, "https://acme.eu.auth0.com/userinfo"},
		"azp": "my_client_id", "scope": "openid profile read:photos", "permissions": []string{"read:photos"}, roles: []string{"editor"},
	}, 24*time.Hour)
	return documentedIssuer{
		heading: "Auth0", metadata: issuer, keysAt: "https://acme.eu.auth0.com/.well-known/jwks.json",
		keys:   []claimSet{certified(0, "auth0-now", true, rs256), certified(1, "auth0-next", false, rs256)},
		header: claimSet{"alg": "RS256", "typ": "JWT", "kid": "auth0-now"},
		takes: []takenToken{
			{"an access token", access, policy.Identity{
				Name: "users", Namespace: "users", UID: "auth0|5f7c8ec7c33c6c004bbafe82", Issuer: issuer,
				Claims: policy.ClaimMap{"roles": []any{"editor"}, "scopes": []any{"openid", "profile", "read:photos"}, "permissions": []any{"read:photos"}},
			}},
			{"for the API alone", access.with("aud", api, roles, nil), policy.Identity{
				Name: "users", Namespace: "users", UID: "auth0|5f7c8ec7c33c6c004bbafe82", Issuer: issuer,
				Claims: policy.ClaimMap{"scopes": []any{"openid", "profile", "read:photos"}},
			}},
			// The profile of RFC 9068 differs in the header's typ and has a jti.
			{"with client_id", access.with("azp", nil, "client_id", "my_client_id", "jti", "a1"), policy.Identity{
				Name: "users", Namespace: "users", UID: "auth0|5f7c8ec7c33c6c004bbafe82", Issuer: issuer,
				Claims: policy.ClaimMap{"roles": []any{"editor"}},
			}},
		},
		refuses: []refusedToken{
			{"of another tenant", access.with("iss", "https://other.eu.auth0.com/"), oidc.ReasonIssuer},
			{"the issuer without its slash", access.with("iss", "https://acme.eu.auth0.com"), oidc.ReasonIssuer},
			{"for another API", access.with("aud", []string{"https://billing.acme.dev/api", "https://acme.eu.auth0.com/userinfo"}), oidc.ReasonAudience},
			{"an ID token of an app", access.with("aud", "my_client_id", "azp", nil, "scope", nil, "nonce", "n"), oidc.ReasonAudience},
			{"without a user", access.with("sub", nil), oidc.ReasonSubject},
		},
	}
}

// https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-id-token.html
// and ...-using-the-access-token.html
func cognitoTokens() documentedIssuer {
	const issuer, client = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Ab12Cd34E", "7example1client2id3"
	const sub = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	rs256 := claimSet{"use": "sig", "alg": "RS256"}
	user := timed(claimSet{
		"sub": sub, "iss": issuer, "cognito:groups": []string{"editors", "eu"},
		"origin_jti": "bbbbbbbb-0000-4000-8000-000000000001", "event_id": "cccccccc-0000-4000-8000-000000000002", "jti": "dddddddd-0000-4000-8000-000000000003",
		"auth_time": time.Now().Unix() - 60,
	}, time.Hour)
	id := user.with("aud", client, "token_use", "id", "cognito:username", "alice", "email", "alice@example.com", "email_verified", true)
	access := user.with("token_use", "access", "client_id", client, "version", 2, "scope", "aws.cognito.signin.user.admin", "username", "alice")
	return documentedIssuer{
		heading: "Amazon Cognito", metadata: issuer, keysAt: issuer + "/.well-known/jwks.json",
		keys:   []claimSet{jwk(0, "1234example=", rs256), jwk(1, "5678example=", rs256)}, // ID and access tokens
		header: claimSet{"kid": "1234example=", "alg": "RS256"},
		takes: []takenToken{
			{"an ID token", id, policy.Identity{
				Name: "users", Namespace: "users", UID: sub, Issuer: issuer, Email: "alice@example.com", EmailVerified: true,
				Claims: policy.ClaimMap{"groups": []any{"editors", "eu"}, "cognito:username": "alice"},
			}},
			{"of somebody without groups", id.with("cognito:groups", nil, "email_verified", false), policy.Identity{
				Name: "users", Namespace: "users", UID: sub, Issuer: issuer, Email: "alice@example.com",
			}},
		},
		refuses: []refusedToken{
			{"an access token", access, oidc.ReasonAudience},
			{"an access token with an audience", access.with("aud", client), oidc.ReasonClaim},
			{"an access token for a resource", access.with("aud", "https://photos.acme.dev"), oidc.ReasonAudience},
			{"without token_use", id.with("token_use", nil), oidc.ReasonClaim},
			{"of another pool", id.with("iss", "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Zz99Yy88X"), oidc.ReasonIssuer},
			{"of the pool's name in another region", id.with("iss", "https://cognito-idp.us-east-1.amazonaws.com/eu-central-1_Ab12Cd34E"), oidc.ReasonIssuer},
			{"of another app client", id.with("aud", "8other1client2id3"), oidc.ReasonAudience},
		},
	}
}

// https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
func entraTokens() documentedIssuer {
	const tenant, app = "9e1c2f9a-0000-4000-8000-2b7d3c4e5f60", "5a1b2c3d-0000-4000-8000-1a2b3c4d5e6f"
	const issuer, oid = "https://login.microsoftonline.com/" + tenant + "/v2.0", "690222be-0000-4000-8000-0d4b9a3b7a11"
	const other = "11111111-0000-4000-8000-000000000001"
	// Neither alg, nor anything but the certificate by which a key is meant.
	sig := claimSet{"use": "sig"}
	access := timed(claimSet{
		"aud": app, "iss": issuer, "aio": "AWQAm/8XAAAA", "azp": "6e74172b-0000-4000-8000-4ff82f0b7b44", "azpacr": "0", "idtyp": "user", "name": "Alice",
		"oid": oid, "preferred_username": "alice@acme.dev", "rh": "0.ARoA", "roles": []string{"Editor"}, "scp": "access_as_user photos.read", "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
		"tid": tenant, "uti": "fqiBqXLPj0eQa82S-IYFAA", "ver": "2.0", "nbf": time.Now().Unix() - 10,
	}, 75*time.Minute)
	user := policy.Identity{
		Name: "staff", Namespace: "staff", UID: oid, Issuer: issuer,
		Claims: policy.ClaimMap{"scopes": []any{"access_as_user", "photos.read"}, "roles": []any{"Editor"}},
	}
	return documentedIssuer{
		heading: "Microsoft Entra ID", metadata: issuer, keysAt: "https://login.microsoftonline.com/" + tenant + "/discovery/v2.0/keys",
		keys: []claimSet{
			certified(0, "entra-now", false, sig.with("issuer", issuer)),
			certified(1, "entra-next", false, sig.with("issuer", issuer, "cloud_instance_name", "microsoftonline.com")),
		},
		header: claimSet{"typ": "JWT", "alg": "RS256", "kid": "entra-now"},
		takes: []takenToken{
			{"an access token", access, user},
			{"of an app, which has roles and no scopes", access.with("idtyp", "app", "azpacr", "1", "scp", nil, "name", nil, "preferred_username", nil, "sub", oid), policy.Identity{
				Name: "staff", Namespace: "staff", UID: oid, Issuer: issuer, Claims: policy.ClaimMap{"roles": []any{"Editor"}},
			}},
		},
		refuses: []refusedToken{
			{"of another tenant", access.with("iss", "https://login.microsoftonline.com/"+other+"/v2.0", "tid", other), oidc.ReasonIssuer},
			{"of another tenant, by tid alone", access.with("tid", other), oidc.ReasonClaim},
			{"of version 1.0", access.with("iss", "https://sts.windows.net/"+tenant+"/", "aud", "api://"+app, "ver", "1.0", "azp", nil, "appid", "6e74172b-0000-4000-8000-4ff82f0b7b44"), oidc.ReasonIssuer},
			{"the placeholder of the common endpoint", access.with("iss", "https://login.microsoftonline.com/{tenantid}/v2.0"), oidc.ReasonIssuer},
			{"for another app", access.with("aud", "00000003-0000-0000-c000-000000000000"), oidc.ReasonAudience},
			{"without oid", access.with("oid", nil), oidc.ReasonSubject},
			{"without tid", access.with("tid", nil), oidc.ReasonClaim},
		},
	}
}

// https://developers.google.com/identity/openid-connect/openid-connect#an-id-tokens-payload
func googleAccountTokens() documentedIssuer {
	const client, sub = "1234567890-abc123.apps.googleusercontent.com", "110169484474386276334"
	rs256 := claimSet{"use": "sig", "alg": "RS256"}
	id := timed(claimSet{
		"iss": googleIssuer, "azp": client, "aud": client, "sub": sub, "hd": "acme.dev", "email": "alice@acme.dev", "email_verified": true,
		"at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q", "name": "Alice", "given_name": "Alice",
	}, time.Hour)
	return documentedIssuer{
		heading: "Google accounts", metadata: googleIssuer, keysAt: googleKeys,
		keys:   []claimSet{jwk(0, "google-now", rs256), jwk(1, "google-next", rs256)},
		header: claimSet{"alg": "RS256", "kid": "google-now", "typ": "JWT"},
		takes: []takenToken{
			{"an ID token", id, policy.Identity{
				Name: "staff", Namespace: "staff", UID: sub, Issuer: googleIssuer, Email: "alice@acme.dev", EmailVerified: true,
				Claims: policy.ClaimMap{"hd": "acme.dev"},
			}},
		},
		refuses: []refusedToken{
			{"of another domain", id.with("hd", "other.example", "email", "mallory@other.example"), oidc.ReasonClaim},
			{"of no domain", id.with("hd", nil, "email", "mallory@gmail.com"), oidc.ReasonClaim},
			{"of no domain, with an address of the domain", id.with("hd", nil), oidc.ReasonClaim},
			{"of the domain in capitals", id.with("hd", "ACME.DEV"), oidc.ReasonClaim},
			{"not verified", id.with("email_verified", false), oidc.ReasonClaim},
			{"verified, as text", id.with("email_verified", "true"), oidc.ReasonClaim},
			{"of another client", id.with("aud", "999-other.apps.googleusercontent.com", "azp", "999-other.apps.googleusercontent.com"), oidc.ReasonAudience},
			{"of another client, azp of ours", id.with("aud", "999-other.apps.googleusercontent.com"), oidc.ReasonAudience},
			{"the issuer without https", id.with("iss", "accounts.google.com"), oidc.ReasonIssuer},
			{"of a service account for the client", id.with("hd", nil, "email", "thumbs@acme-prod.iam.gserviceaccount.com"), oidc.ReasonClaim},
		},
	}
}

// https://docs.github.com/en/actions/reference/security/oidc
func githubTokens() documentedIssuer {
	const issuer = "https://token.actions.githubusercontent.com"
	rs256 := claimSet{"use": "sig", "alg": "RS256"}
	now := time.Now().Unix()
	// The numbers are text, and nbf lies before iat.
	job := claimSet{
		"jti": "example-id", "sub": "repo:acme/photos:ref:refs/heads/main", "aud": "https://photos.acme.dev", "iss": issuer,
		"ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true", "sha": "0123456789abcdef0123456789abcdef01234567",
		"repository": "acme/photos", "repository_owner": "acme", "repository_id": "74", "repository_owner_id": "65", "repository_visibility": "private",
		"run_id": "9876543210", "run_number": "10", "run_attempt": "2", "runner_environment": "github-hosted", "actor": "octocat", "actor_id": "12",
		"workflow": "deploy", "workflow_ref": "acme/photos/.github/workflows/deploy.yml@refs/heads/main", "job_workflow_ref": "acme/photos/.github/workflows/deploy.yml@refs/heads/main",
		"head_ref": "", "base_ref": "", "event_name": "push", "nbf": now - 610, "iat": now - 10, "exp": now + 290,
	}
	ci := func(sub string) policy.Identity {
		return policy.Identity{
			Name: "ci", Namespace: "ci", UID: sub, Issuer: issuer,
			Claims: policy.ClaimMap{"repository_id": "74", "run_id": "9876543210", "actor": "octocat", "runner_environment": "github-hosted"},
		}
	}
	return documentedIssuer{
		heading: "GitHub Actions", metadata: issuer, keysAt: issuer + "/.well-known/jwks",
		keys:   []claimSet{certified(0, "github-now", false, rs256), certified(1, "github-next", false, rs256)},
		header: claimSet{"typ": "JWT", "alg": "RS256", "x5t": "example-thumbprint", "kid": "github-now"},
		takes: []takenToken{
			{"a push", job, ci("repo:acme/photos:ref:refs/heads/main")},
			// A job with an environment names it in the place of the ref.
			{"a push, in an environment", job.with("environment", "prod", "sub", "repo:acme/photos:environment:prod"), ci("repo:acme/photos:environment:prod")},
		},
		refuses: []refusedToken{
			{"of another repository", job.with("repository", "acme/other", "sub", "repo:acme/other:ref:refs/heads/main", "repository_id", "75"), oidc.ReasonClaim},
			{"of a fork", job.with("repository", "mallory/photos", "repository_owner", "mallory", "sub", "repo:mallory/photos:ref:refs/heads/main"), oidc.ReasonClaim},
			{"of another repository whose sub is ours", job.with("repository", "mallory/photos"), oidc.ReasonClaim},
			{"the repository in capitals", job.with("repository", "Acme/photos"), oidc.ReasonClaim},
			{"of another branch", job.with("ref", "refs/heads/main-2", "sub", "repo:acme/photos:ref:refs/heads/main-2"), oidc.ReasonClaim},
			{"of a tag", job.with("ref", "refs/tags/main", "ref_type", "tag"), oidc.ReasonClaim},
			{"of a pull request", job.with("event_name", "pull_request", "ref", "refs/pull/7/merge", "sub", "repo:acme/photos:pull_request", "head_ref", "x", "base_ref", "main"), oidc.ReasonClaim},
			// Its ref is the base's: only the event tells that strangers caused it.
			{"of a pull request's target", job.with("event_name", "pull_request_target", "sub", "repo:acme/photos:pull_request", "head_ref", "x", "base_ref", "main"), oidc.ReasonClaim},
			{"with the default audience", job.with("aud", "https://github.com/acme"), oidc.ReasonAudience},
			{"of an enterprise's own issuer", job.with("iss", issuer+"/acme"), oidc.ReasonIssuer},
		},
	}
}

// https://cloud.google.com/compute/docs/instances/verifying-instance-identity#token_format
func serviceAccountTokens() documentedIssuer {
	const email, sub = "thumbs@acme-prod.iam.gserviceaccount.com", "117893746451289764523"
	rs256 := claimSet{"use": "sig", "alg": "RS256"}
	id := timed(claimSet{
		"iss": googleIssuer, "aud": "https://photos.acme.dev", "azp": sub, "sub": sub, "email": email, "email_verified": true,
	}, time.Hour)
	worker := policy.Identity{Name: "worker", Namespace: "worker", UID: sub, Issuer: googleIssuer, Email: email, EmailVerified: true}
	return documentedIssuer{
		heading: "Google service accounts", keysAt: googleKeys,
		keys:   []claimSet{jwk(0, "google-now", rs256), jwk(1, "google-next", rs256)},
		header: claimSet{"alg": "RS256", "kid": "google-now", "typ": "JWT"},
		takes: []takenToken{
			{"an ID token", id, worker},
			{"of a machine, in full", id.with("google", claimSet{"compute_engine": claimSet{
				"project_id": "acme-prod", "project_number": 123456789012, "zone": "europe-west1-b",
				"instance_id": "152986662232938449", "instance_name": "thumbs-1", "instance_creation_timestamp": 1704380102,
			}}), worker},
		},
		refuses: []refusedToken{
			{"of another account", id.with("email", "other@acme-prod.iam.gserviceaccount.com"), oidc.ReasonEmail},
			{"of the same name in another project", id.with("email", "thumbs@mallory-prod.iam.gserviceaccount.com"), oidc.ReasonEmail},
			{"the address in capitals", id.with("email", "Thumbs@acme-prod.iam.gserviceaccount.com"), oidc.ReasonEmail},
			{"not verified", id.with("email_verified", false), oidc.ReasonEmail},
			{"verified, as text", id.with("email_verified", "true"), oidc.ReasonEmail},
			{"verified by nobody", id.with("email_verified", nil), oidc.ReasonEmail},
			// As without format=full.
			{"without an address", id.with("email", nil, "email_verified", nil), oidc.ReasonEmail},
			{"two addresses", id.with("email", []string{email}), oidc.ReasonEmail},
			{"for another service", id.with("aud", "https://billing.acme.dev"), oidc.ReasonAudience},
			{"for a deeper URL", id.with("aud", "https://photos.acme.dev/"), oidc.ReasonAudience},
			{"of an account that signs itself", id.with("iss", email), oidc.ReasonIssuer},
		},
	}
}

// RFC 8693, section 4.1.
func agentTokens() documentedIssuer {
	const issuer = "https://id.acme.dev"
	user := timed(claimSet{"iss": issuer, "aud": "photos-api", "sub": "alice", "jti": "1", "client_id": "web", "scope": "photos"}, time.Hour)
	acted := user.with("client_id", "gallery-bot", "act", claimSet{"sub": "gallery-bot"})
	agent := policy.Identity{Name: "agents", Namespace: "users", UID: "alice", Actor: "gallery-bot", Issuer: issuer, Claims: policy.ClaimMap{"scopes": []any{"photos"}}}
	return documentedIssuer{
		heading: "Agents that act for a user", metadata: issuer, keysAt: issuer + "/keys",
		keys:   []claimSet{jwk(0, "acme-now", nil), jwk(1, "acme-next", nil)},
		header: claimSet{"alg": "RS256", "kid": "acme-now", "typ": "at+jwt"},
		takes: []takenToken{
			{"a user's token", user, policy.Identity{Name: "users", Namespace: "users", UID: "alice", Issuer: issuer, Claims: policy.ClaimMap{"scopes": []any{"photos"}}}},
			{"a delegated token", acted, agent},
			{"the actor's issuer", acted.with("act", claimSet{"sub": "gallery-bot", "iss": issuer}), agent},
			{"one who acted before", acted.with("act", claimSet{"sub": "gallery-bot", "act": claimSet{"sub": "scheduler"}}), agent},
		},
		refuses: []refusedToken{
			{"a longer chain", acted.with("act", claimSet{"sub": "gallery-bot", "act": claimSet{"sub": "scheduler", "act": claimSet{"sub": "cron"}}}), oidc.ReasonClaim},
			{"an actor of another issuer", acted.with("act", claimSet{"sub": "gallery-bot", "iss": "https://id.other.example"}), oidc.ReasonClaim},
			{"the actor before, of another issuer", acted.with("act", claimSet{"sub": "gallery-bot", "act": claimSet{"sub": "x", "iss": "https://id.other.example"}}), oidc.ReasonClaim},
			{"an actor without a name", acted.with("act", claimSet{"client_id": "gallery-bot"}), oidc.ReasonSubject},
			{"an empty actor", acted.with("act", claimSet{"sub": ""}), oidc.ReasonSubject},
			{"an actor that is text", acted.with("act", "gallery-bot"), oidc.ReasonClaim},
			{"no actor: a list", acted.with("act", []string{}), oidc.ReasonClaim},
			{"act in capitals", user.with("Act", claimSet{"sub": "gallery-bot"}), oidc.ReasonMalformed},
			{"a delegated token for another service", acted.with("aud", "billing-api"), oidc.ReasonAudience},
			{"without a user", acted.with("sub", nil), oidc.ReasonSubject},
		},
	}
}

// TestNullActIsNoUser: a claim act that says null is there, and must not be
// taken for one that is not.
func TestNullActIsNoUser(t *testing.T) {
	d := agentTokens()
	n := newIdPNet(t, "id.acme.dev")
	n.publish(t, d.metadata, d.keysAt, d.keys...)
	_, callers := callersOf(t, agentConfig(t), n)
	id, err := callers.tokens.Authenticate(t.Context(), signRS256(t, idpKey, d.header, withNull(d.takes[0].claims, "act")))
	wantReason(t, "act: null", id, err, oidc.ReasonClaim)
}

func withNull(c claimSet, name string) claimSet {
	out := maps.Clone(c)
	out[name] = nil
	return out
}

func agentConfig(t testing.TB) *Config {
	t.Helper()
	for _, b := range identityBlocks(t) {
		if b.heading == "Agents that act for a user" && strings.HasPrefix(b.text, versionLine) {
			c, _, err := place{}.load(b.text)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
	}
	t.Fatal("the page shows no agents")
	return nil
}

// TestOnlyUsersOrOnlyAgents: where a gateway knows only the users, their agents
// are nobody, and the other way round.
func TestOnlyUsersOrOnlyAgents(t *testing.T) {
	d := agentTokens()
	for _, only := range []string{"users", "agents"} {
		c := agentConfig(t)
		c.Identities = slices.DeleteFunc(c.Identities, func(id IdentityConfig) bool { return id.Name != only })
		n := newIdPNet(t, "id.acme.dev")
		n.publish(t, d.metadata, d.keysAt, d.keys...)
		_, callers := callersOf(t, c, n)
		for _, k := range d.takes {
			id, err := callers.tokens.Authenticate(t.Context(), signRS256(t, idpKey, d.header, k.claims))
			if k.want.Name == only {
				wantIdentity(t, only+": "+k.what, id, err, k.want)
			} else {
				wantReason(t, only+": "+k.what, id, err, oidc.ReasonClaim)
			}
		}
	}
}

// TestAuth0TokensWithoutAudience: what Auth0 gives where a sign-in names no
// audience is for Auth0 alone, in whichever form.
func TestAuth0TokensWithoutAudience(t *testing.T) {
	d := auth0Tokens()
	n := newIdPNet(t, "acme.eu.auth0.com")
	n.publish(t, d.metadata, d.keysAt, d.keys...)
	c := mustLoad(t, place{}, "identities: {users: {oidc: {issuer: \"https://acme.eu.auth0.com/\", audience: \"https://photos.acme.dev/api\"}}}")
	_, callers := callersOf(t, c, n)
	id, err := callers.tokens.Authenticate(t.Context(), "0fQ2Vt8xLkq3nWz5")
	wantReason(t, "opaque", id, err, oidc.ReasonMalformed)
	encrypted := b64([]byte(`{"alg":"dir","enc":"A256GCM","iss":"https://acme.eu.auth0.com/"}`)) + ".." + b64([]byte("iv")) + "." + b64([]byte("text")) + "." + b64([]byte("tag"))
	id, err = callers.tokens.Authenticate(t.Context(), encrypted)
	wantReason(t, "encrypted", id, err, oidc.ReasonEncrypted)
	// Its profile of RFC 9068 has the type of access tokens.
	id, err = callers.tokens.Authenticate(t.Context(), signRS256(t, idpKey, d.header.with("typ", "at+jwt"), d.takes[0].claims))
	if err != nil || id.UID != d.takes[0].want.UID {
		t.Errorf("at+jwt: %+v, %v", id, err)
	}
}

// TestEntraCommonEndpoint: the metadata of `common` has a placeholder in the
// place of the tenant, and is nobody's.
func TestEntraCommonEndpoint(t *testing.T) {
	const common = "https://login.microsoftonline.com/common/v2.0"
	d := entraTokens()
	n := newIdPNet(t, "login.microsoftonline.com")
	n.publish(t, common, "https://login.microsoftonline.com/common/discovery/v2.0/keys", d.keys...)
	n.serve(t, common+"/.well-known/openid-configuration", claimSet{
		"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0", "jwks_uri": "https://login.microsoftonline.com/common/discovery/v2.0/keys",
	})
	c := mustLoad(t, place{}, "identities: {staff: {oidc: {issuer: \""+common+"\", audience: 5a1b2c3d-0000-4000-8000-1a2b3c4d5e6f}}}")
	g := &gateway{s: settings{config: c}, keysClient: n.client}
	callers, err := g.openIdentities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := g.keys[0].Prefetch(t.Context()); err == nil || !strings.Contains(err.Error(), "another issuer") {
		t.Errorf("prefetch: %v", err)
	}
	id, err := callers.tokens.Authenticate(t.Context(), signRS256(t, idpKey, d.header, d.takes[0].claims))
	wantReason(t, "a tenant's token", id, err, oidc.ReasonIssuer)
	id, err = callers.tokens.Authenticate(t.Context(), signRS256(t, idpKey, d.header, d.takes[0].claims.with("iss", common)))
	if !errors.Is(err, proxy.ErrUnavailable) || id != nil {
		t.Errorf("a token that says common: %+v, %v; want unavailable", id, err)
	}
}
