package proxy

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"

	"sidegate/policy"
)

// newKey is a key and its PEM.
func newKey(t testing.TB, curve elliptic.Curve) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key, pemOf(t, key)
}

func pemOf(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// A clock stands still until it is set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 3, 2, 10, 0, 0, 700_000_000, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newAssertions(t testing.TB, key, next []byte, now func() time.Time) *Assertions {
	t.Helper()
	a, err := NewAssertions("photos", key, next, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// assertionGate signs, and has the upstreams of presetGate and one more under
// whose map the assertion goes.
func assertionGate(t testing.TB, app string, a *Assertions, change ...func(*Options)) *gate {
	t.Helper()
	return presetGate(t, app, true, append([]func(*Options){func(o *Options) {
		o.Assertions = a
		u := o.Upstreams["map"]
		u.Headers = mustHeaders(t)(HeaderMap(map[string]string{"X-Jwt": "${assertion}", "X-User": "${auth.uid}", "X-Bearer": "Bearer ${assertion}"}, true))
		o.Upstreams["map"] = u
	}}, change...)...)
}

// headerApp answers with one header that it got.
func headerApp(t testing.TB, name string) string {
	return newApp(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, strings.Join(r.Header[name], "|"))
	})
}

// keys fetches the published keys, as an upstream does.
func (g *gate) keys() jose.JSONWebKeySet {
	g.t.Helper()
	a := g.send("GET", jwksPath, "")
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(a.body), &set); err != nil || a.StatusCode != 200 {
		g.t.Fatalf("%+v %s %v", a.Response, a.body, err)
	}
	g.outcome()
	return set
}

// verify is go-jose's word on an assertion: its header and its claims.
func verify(t testing.TB, raw string, set jose.JSONWebKeySet) (map[string]any, map[string]any) {
	t.Helper()
	signed, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	keys := set.Key(signed.Signatures[0].Header.KeyID)
	if len(keys) != 1 {
		t.Fatalf("%d keys are called %q", len(keys), signed.Signatures[0].Header.KeyID)
	}
	data, err := signed.Verify(keys[0])
	if err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	part, _, _ := strings.Cut(raw, ".")
	head, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	var header, claims map[string]any
	if err := json.Unmarshal(head, &header); err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&claims); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return header, claims
}

// TestAssertion: signature, header and claims, exactly.
func TestAssertion(t *testing.T) {
	at := newClock()
	key, text := newKey(t, elliptic.P256())
	g := assertionGate(t, headerApp(t, headerAssertion), newAssertions(t, text, nil, at.now))
	set := g.keys()
	at.add(3 * time.Second)
	thumbprint, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, target, token, want string }{
		{"GET", "/private/native/a", "rich", `{"sub":"u1","identity":"users","method":"GET","path":"/private/native/a","claims":{"plan":"pro","roles":["admin","a,b"]}}`},
		{"POST", "/private/native/a%20b%C3%BC/c?x=1&sub=evil", "bob", `{"sub":"bob","identity":"staff","method":"POST","path":"/private/native/a bü/c","claims":{"roles":["r1","r2"]}}`},
		{"GET", "/optional/native/", "agent", `{"sub":"carol","identity":"agents","actor":"bot","method":"GET","path":"/optional/native/"}`},
	} {
		a := g.send(c.method, c.target, c.token, "Content-Length: 0")
		header, claims := verify(t, a.body, set)
		record := g.outcome().Record
		if !reflect.DeepEqual(header, map[string]any{"alg": "ES256", "typ": "JWT", "kid": base64.RawURLEncoding.EncodeToString(thumbprint)}) {
			t.Errorf("the header is %v", header)
		}
		want := map[string]any{"iss": "photos", "aud": "native", "iat": json.Number("1772445603"), "exp": json.Number("1772445663"), "jti": record}
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(claims, want) {
			t.Errorf("%s %s as %s:\n%v\n%v", c.method, c.target, c.token, claims, want)
		}
	}
	// The signature is by this key and no other.
	other, _ := newKey(t, elliptic.P256())
	raw := g.send("GET", "/private/native/a", "rich").body
	signed, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signed.Verify(other.Public()); err == nil {
		t.Error("another key verifies it")
	}
	if _, err := signed.Verify(key.Public()); err != nil {
		t.Error(err)
	}
}

// TestAssertionOnlyWhereItIsAsked: under native and where a map has it; not for
// other presets, not on public routes, not for nobody, not where nothing signs.
func TestAssertionOnlyWhereItIsAsked(t *testing.T) {
	_, key := newKey(t, elliptic.P256())
	g := assertionGate(t, lenientApp(t), newAssertions(t, key, nil, time.Now))
	set := g.keys()
	off := presetGate(t, lenientApp(t), true)
	// Nobody's own assertion passes, whatever is set, in no spelling.
	var forged []string
	for _, s := range append(spellings(headerAssertion), spellings("X-Jwt")...) {
		forged = append(forged, s+": evil")
	}
	for _, name := range presetNames {
		for _, access := range []string{"private", "optional", "public"} {
			for _, token := range []string{"bob", ""} {
				if access == "private" && token == "" {
					continue
				}
				target := "/" + access + "/" + name + "/a"
				a := g.send("GET", target, token, forged...)
				if a.err != nil || a.StatusCode != 200 || strings.Contains(a.body, "evil") {
					t.Errorf("%s: %+v %s", target, a.Response, a.body)
				}
				var found []string
				for line := range strings.Lines(a.body) {
					if h, value, _ := strings.Cut(strings.TrimSpace(line), ": "); strings.HasPrefix(strings.TrimPrefix(value, "Bearer "), "ey") && h != "x-sidegate-claims" && !strings.Contains(h, "userinfo") {
						found = append(found, h)
						_, claims := verify(t, strings.TrimPrefix(value, "Bearer "), set)
						if claims["aud"] != name || claims["sub"] != "bob" {
							t.Errorf("%s: %v", target, claims)
						}
					}
				}
				slices.Sort(found)
				var want []string
				if token != "" && access != "public" {
					want = map[string][]string{"native": {"x-sidegate-assertion"}, "map": {"x-bearer", "x-jwt"}}[name]
				}
				if !slices.Equal(found, want) {
					t.Errorf("%s as %q: assertions in %v, not %v", target, token, found, want)
				}
				if a := off.send("GET", target, token, forged[:9]...); a.StatusCode != 200 || strings.Contains(a.body, "assertion") || strings.Contains(a.body, "evil") {
					t.Errorf("%s, off: %+v %s", target, a.Response, a.body)
				}
			}
		}
	}
	// The token is dropped as ever; a map's own Bearer is another header.
	if a := g.send("GET", "/private/map/a", "bob", "Connection: X-Jwt, X-Bearer"); strings.Contains(a.body, "authorization") || !strings.Contains(a.body, "x-jwt: ey") {
		t.Errorf("%s", a.body)
	}
}

// TestAssertionOfAHandshake: a WebSocket is asserted as every request is.
func TestAssertionOfAHandshake(t *testing.T) {
	_, key := newKey(t, elliptic.P256())
	g := assertionGate(t, headerApp(t, headerAssertion), newAssertions(t, key, nil, time.Now))
	set := g.keys()
	a := g.send("GET", "/private/native/a", "bob", "Connection: Upgrade, X-Sidegate-Assertion", "Upgrade: websocket", "X-Sidegate-Assertion: evil")
	if _, claims := verify(t, a.body, set); claims["sub"] != "bob" || claims["path"] != "/private/native/a" {
		t.Errorf("%v", claims)
	}
}

// TestAssertionInjection: what a caller or an issuer chooses is a value, and
// never a member of its own.
func TestAssertionInjection(t *testing.T) {
	tokens := known{}
	uids := map[string]string{}
	for i, uid := range []string{
		`u","admin":true,"x":"`, `u\","sub":"root`, `\u0022`, "\u2028\u2029", "</script>&", "ünï", "\U0001F600", "a\x01b\x7f\n", `"`, `\`, "\\u0000", "%22", "root\x00",
	} {
		token := fmt.Sprint("t", i)
		id := identity("users", uid, `{"roles":["x"]}`)
		id.Actor = uid
		id.Claims.(policy.ClaimMap)["roles"] = []any{uid}
		id.Claims.(policy.ClaimMap)["plan"] = uid
		tokens[token], uids[token] = id, uid
	}
	_, key := newKey(t, elliptic.P256())
	g := assertionGate(t, headerApp(t, headerAssertion), newAssertions(t, key, nil, time.Now), func(o *Options) { o.Authenticator = tokens })
	set := g.keys()
	members := []string{"actor", "aud", "claims", "exp", "iat", "identity", "iss", "jti", "method", "path", "sub"}
	paths := map[string]string{
		"/private/native/a%22,%22sub%22:%22root":  `/private/native/a","sub":"root`,
		"/private/native/%E2%80%A8%F0%9F%98%80":   "/private/native/\u2028\U0001F600",
		"/private/native/%3C/script%3E&'":         "/private/native/</script>&'",
		"/private/native/a+b%20c%25":              "/private/native/a+b c%",
		"/private/native/u0022%7B%7D%5B%5D:%60|^": "/private/native/u0022{}[]:`|^",
	}
	for token, uid := range uids {
		for target, path := range paths {
			a := g.send("GET", target+"?path=/evil", token)
			_, claims := verify(t, a.body, set)
			if got := slices.Sorted(maps.Keys(claims)); !slices.Equal(got, members) {
				t.Errorf("%q: the members are %v", uid, got)
			}
			if claims["sub"] != uid || claims["actor"] != uid || claims["path"] != path || claims["identity"] != "users" || claims["method"] != "GET" ||
				!reflect.DeepEqual(claims["claims"], map[string]any{"roles": []any{uid}, "plan": uid}) {
				t.Errorf("%q %s: %v", uid, target, claims)
			}
		}
	}
	// A path with what could be read in two ways never comes so far.
	for _, target := range []string{"/private/native/%5C%22", "/private/native/%00", "/private/native/%ff", "/private/native/%0a"} {
		if a := g.send("GET", target, "t0"); a.StatusCode != 400 {
			t.Errorf("%s: %d %s", target, a.StatusCode, a.body)
		}
	}
}

// TestAssertionsAreOfOneRequest: jti is the record, and no two are the same.
func TestAssertionsAreOfOneRequest(t *testing.T) {
	_, key := newKey(t, elliptic.P256())
	g := assertionGate(t, headerApp(t, headerAssertion), newAssertions(t, key, nil, time.Now))
	set := g.keys()
	const callers, each = 64, 4
	answers := make(chan string, callers*each)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range each {
				r, err := http.NewRequest("GET", g.url+"/private/native/a", nil)
				if err != nil {
					answers <- err.Error()
					continue
				}
				r.Header.Set("Authorization", "Bearer bob")
				res, err := g.server.Client().Do(r)
				if err != nil {
					answers <- err.Error()
					continue
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				answers <- string(body)
			}
		})
	}
	all.Wait()
	close(answers)
	seen := map[string]bool{}
	for raw := range answers {
		_, claims := verify(t, raw, set)
		id, _ := claims["jti"].(string)
		if id == "" || seen[id] {
			t.Errorf("jti %q", id)
		}
		seen[id] = true
	}
	for range callers * each {
		if record := g.outcome().Record; !seen[record] {
			t.Errorf("the record %s is no assertion's", record)
		}
	}
	records := g.ledger()
	for id := range seen {
		if records[id] == nil {
			t.Errorf("the assertion %s is of no record", id)
		}
	}
}

// TestNothingIsAssertedBeforeTheRecord: who is refused is asserted nowhere, and
// where the log is away nothing is.
func TestNothingIsAssertedBeforeTheRecord(t *testing.T) {
	_, key := newKey(t, elliptic.P256())
	var looks atomic.Int64 // at the clock: once to begin with, and once for each assertion
	a := newAssertions(t, key, nil, func() time.Time { looks.Add(1); return time.Now() })
	app := newApp(t, func(http.ResponseWriter, *http.Request) { t.Error("the app was reached") })
	g := assertionGate(t, app, a)
	g.send("GET", "/private/native/a", "bad")
	g.send("GET", "/private/native/a", "")
	g.tape.set(func(r *tape) { r.before = errRecord })
	if a := g.send("GET", "/private/native/a", "bob"); a.StatusCode != 503 {
		t.Errorf("%d", a.StatusCode)
	}
	if n := looks.Load() - 1; n != 0 {
		t.Errorf("%d assertions were made", n)
	}
}

// TestNothingIsSignedForNothing: an app that is told otherwise, or nothing, costs
// no signature.
func TestNothingIsSignedForNothing(t *testing.T) {
	_, key := newKey(t, elliptic.P256())
	var looks atomic.Int64
	g := assertionGate(t, lenientApp(t), newAssertions(t, key, nil, func() time.Time { looks.Add(1); return time.Now() }))
	before := looks.Load()
	for _, target := range []string{"/private/none/a", "/private/o2p/a", "/private/esp/a", "/private/apigw/a", "/public/native/a", "/public/map/a"} {
		if a := g.send("GET", target, "bob"); a.StatusCode != 200 {
			t.Errorf("%s: %d", target, a.StatusCode)
		}
	}
	for _, target := range []string{"/optional/native/a", jwksPath} {
		if a := g.send("GET", target, ""); a.StatusCode != 200 {
			t.Errorf("%s: %d", target, a.StatusCode)
		}
	}
	if n := looks.Load() - before; n != 0 {
		t.Errorf("%d assertions were made", n)
	}
	for _, target := range []string{"/private/native/a", "/private/map/a"} {
		g.send("GET", target, "bob")
	}
	if n := looks.Load() - before; n != 2 {
		t.Errorf("%d assertions were made for two requests", n)
	}
}

// TestPublishedKeys: the document, for everybody, and how it is on record.
func TestPublishedKeys(t *testing.T) {
	key, text := newKey(t, elliptic.P256())
	g := assertionGate(t, headerApp(t, headerAssertion), newAssertions(t, text, nil, time.Now))
	for _, c := range []struct {
		target string
		lines  []string
	}{
		{jwksPath, nil}, {jwksPath + "?x=1", nil}, {jwksPath + "?", nil}, {"/.sidegate/jwks%2Ejson", nil}, {"/%2esidegate/jwks.json", nil},
		{jwksPath, []string{"Authorization: Bearer bad"}}, {jwksPath, []string{"Authorization: Basic YTpi", "Origin: https://evil.test"}},
		{"http://other.test" + jwksPath, nil}, {jwksPath, []string{"Connection: Upgrade", "Upgrade: websocket"}}, {jwksPath, []string{"If-None-Match: *", "Range: bytes=0-1"}},
	} {
		a := g.send("GET", c.target, "", c.lines...)
		h := a.Header
		if a.err != nil || a.StatusCode != 200 || h.Get("Content-Type") != "application/json" || !ownHeader(h, "public, max-age=300") ||
			h.Get("Content-Length") != fmt.Sprint(len(a.body)) {
			t.Errorf("%s %q: %+v", c.target, c.lines, a.Response)
		}
		var document struct{ Keys []map[string]string }
		if err := json.Unmarshal([]byte(a.body), &document); err != nil || len(document.Keys) != 1 {
			t.Fatalf("%s: %v", a.body, err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		thumbprint, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		b64 := base64.RawURLEncoding.EncodeToString
		want := map[string]string{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:]), "alg": "ES256", "use": "sig", "kid": b64(thumbprint)}
		if !maps.Equal(document.Keys[0], want) {
			t.Errorf("%v, not %v", document.Keys[0], want)
		}
		d, o := g.decision(), g.outcome()
		if d.Decision.Effect != "allow" || d.Decision.Code != "own" || d.Decision.Route != "" || d.Identity != nil || d.Request.Path != jwksPath || o.Outcome.Status != 200 || o.Outcome.Upstream != "" || o.Record != h.Get("X-Request-Id") {
			t.Errorf("%s: on record are %+v, %+v, %+v", c.target, d.Decision, d.Request, o.Outcome)
		}
	}
	full := g.send("GET", jwksPath, "")
	g.outcome()
	a := g.send("HEAD", jwksPath, "")
	if a.StatusCode != 200 || a.body != "" || a.Header.Get("Content-Length") != fmt.Sprint(len(full.body)) || a.Header.Get("Cache-Control") != full.Header.Get("Cache-Control") {
		t.Errorf("%+v %q", a.Response, a.body)
	}
	g.outcome()
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		a := g.send(method, jwksPath, "", "Content-Length: 0")
		g.checkRefusal(a, 405, codeMethod)
		if a.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: Allow: %s", method, a.Header.Get("Allow"))
		}
	}
	for _, target := range []string{"/.sidegate/", "/.sidegate/jwks.json/", "/.sidegate/JWKS.json", "/.Sidegate/jwks.json", "/.sidegate/jwks", "/jwks.json", "/.sidegate"} {
		g.checkRefusal(g.send("GET", target, ""), 404, codeNoRoute)
	}
	for _, target := range []string{"//.sidegate/jwks.json", "/a/../.sidegate/jwks.json", "/.sidegate/./jwks.json", "/.sidegate/jwks.json;a", "/.sidegate/jwks%252ejson"} {
		g.checkRefusal(g.send("GET", target, ""), 400, codeBadTarget)
	}
	// Where nothing signs there is nothing.
	off := presetGate(t, headerApp(t, headerAssertion), true)
	for _, method := range []string{"GET", "HEAD", "POST"} {
		if a := off.send(method, jwksPath, "", "Content-Length: 0"); a.StatusCode != 404 {
			t.Errorf("%s: %d", method, a.StatusCode)
		}
	}
	// What cannot be put on record is not answered either.
	g.tape.set(func(r *tape) { r.before = errRecord })
	if a := g.send("GET", jwksPath, ""); a.StatusCode != 503 || strings.Contains(a.body, "kty") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// TestEncodedSlashBeforePublishedKeys: a target with an encoded slash is no
// path without one (docs/http.md), and the keys' is no exception: who filters
// paths before the gateway and the gateway would else disagree.
func TestEncodedSlashBeforePublishedKeys(t *testing.T) {
	_, key := newKey(t, elliptic.P256())
	g := assertionGate(t, headerApp(t, headerAssertion), newAssertions(t, key, nil, time.Now))
	for _, target := range []string{"/.sidegate%2Fjwks.json", "/.sidegate%2fjwks.json"} {
		if a := g.send("GET", target, ""); a.StatusCode != 400 && a.StatusCode != 404 {
			t.Errorf("%s: %d", target, a.StatusCode)
		}
	}
}

// TestNextKey: it is published at once, signs when everybody must have it, and
// the one before is published on.
func TestNextKey(t *testing.T) {
	at := newClock()
	oldKey, oldText := newKey(t, elliptic.P256())
	nextKey, nextText := newKey(t, elliptic.P256())
	kid := func(k *ecdsa.PrivateKey) string {
		sum, err := (&jose.JSONWebKey{Key: k.Public()}).Thumbprint(crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(sum)
	}
	g := assertionGate(t, headerApp(t, headerAssertion), newAssertions(t, oldText, nextText, at.now))
	both := []string{kid(oldKey), kid(nextKey)}
	for _, c := range []struct {
		after time.Duration // since the step before
		by    string
	}{
		{0, both[0]}, {6 * time.Minute, both[0]}, {nextKeyWait - 6*time.Minute - 1, both[0]}, {1, both[1]}, {time.Second, both[1]}, {30 * 24 * time.Hour, both[1]},
	} {
		at.add(c.after)
		set := g.keys()
		var kids []string
		for _, k := range set.Keys {
			kids = append(kids, k.KeyID)
		}
		if !slices.Equal(kids, both) {
			t.Errorf("after %v: %v are published", c.after, kids)
		}
		header, claims := verify(t, g.send("GET", "/private/native/a", "bob").body, set)
		if header["kid"] != c.by {
			t.Errorf("after %v: signed by %v", c.after, header["kid"])
		}
		if claims["iat"] != json.Number(fmt.Sprint(at.now().Unix())) {
			t.Errorf("after %v: iat %v", c.after, claims["iat"])
		}
	}
	// The last assertion by the old key ends before a minute after the switch,
	// and the keys that upstreams fetched before the start end before it.
	if nextKeyWait < jwksAge+assertionLife {
		t.Errorf("%v", jwksAge+assertionLife)
	}
	// A clock that is set back signs by the old key again, which is published.
	at.add(-31 * 24 * time.Hour)
	if header, _ := verify(t, g.send("GET", "/private/native/a", "bob").body, g.keys()); header["kid"] != both[0] {
		t.Errorf("%v", header)
	}
}

// sec1 is a key as `openssl ecparam -genkey` writes it.
func sec1(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// prime256v1 is that program's first block: the curve's name.
const prime256v1 = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"

// TestAssertionKeyForms: every form in which tools write such a key is taken.
func TestAssertionKeyForms(t *testing.T) {
	key, text := newKey(t, elliptic.P256())
	ec := sec1(t, key)
	var kids []string
	for name, data := range map[string][]byte{
		"PKCS #8": text, "SEC 1": ec, "with parameters": append([]byte(prime256v1), ec...), "PKCS #8 with parameters": append([]byte(prime256v1), text...),
		"with CRLF": bytes.ReplaceAll(ec, []byte("\n"), []byte("\r\n")), "without the last line feed": bytes.TrimSpace(text),
		"with empty lines": append([]byte("\n\n"), append(slices.Clone(text), "\n \n"...)...), "with words before it": append([]byte("a key\n"), text...),
	} {
		a, err := NewAssertions("photos", data, nil, time.Now)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		kids = append(kids, a.key.jwk.Kid)
	}
	if len(slices.Compact(kids)) != 1 {
		t.Errorf("one key has the names %v", kids)
	}
	// Coordinates that begin with zeros keep their length, or another library
	// would have another thumbprint.
	for d := int64(1); d < 600; d++ {
		curve := elliptic.P256()
		scalar := big.NewInt(d).FillBytes(make([]byte, 32))
		k, err := ecdsa.ParseRawPrivateKey(curve, scalar)
		if err != nil {
			t.Fatal(err)
		}
		a := newAssertions(t, sec1(t, k), nil, time.Now)
		sum, err := (&jose.JSONWebKey{Key: k.Public()}).Thumbprint(crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if a.key.jwk.Kid != base64.RawURLEncoding.EncodeToString(sum) {
			t.Errorf("%d: %+v", d, a.key.jwk)
		}
	}
}

// TestAssertionKeysRefused: each wrong file says what is wrong with it, and
// nothing of the key that is in it.
func TestAssertionKeysRefused(t *testing.T) {
	key, text := newKey(t, elliptic.P256())
	other, otherText := newKey(t, elliptic.P256())
	_, p384 := newKey(t, elliptic.P384())
	_, p521 := newKey(t, elliptic.P521())
	_, p224 := newKey(t, elliptic.P224())
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(sec1(t, key))
	ed := append([]byte{0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20}, bytes.Repeat([]byte{7}, 32)...)
	encode := func(kind string, data []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data})
	}
	// The order of the group is one more than the greatest private key, and 0
	// is one less than the smallest.
	outside := func(scalar []byte) []byte {
		raw, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return encode("EC PRIVATE KEY", bytes.Replace(block.Bytes, raw, scalar, 1))
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "not one key in PEM"},
		{"spaces", []byte(" \n"), "not one key in PEM"},
		{"garbage", []byte("not a key: hunter2hunter2"), "not one key in PEM"},
		{"DER", block.Bytes, "not one key in PEM"},
		{"base64 alone", []byte(base64.StdEncoding.EncodeToString(block.Bytes)), "not one key in PEM"},
		{"a JWK", []byte(`{"kty":"EC","crv":"P-256","d":"c2VjcmV0LXNlY3JldC1zZWNyZXQ"}`), "not one key in PEM"},
		{"cut off", text[:len(text)/2], "not one key in PEM"},
		{"parameters alone", []byte(prime256v1), "not one key in PEM"},
		{"parameters twice", append([]byte(prime256v1+prime256v1), text...), "not one key in PEM"},
		{"two keys", append(slices.Clone(text), otherText...), "not one key in PEM"},
		{"the same twice", append(slices.Clone(text), text...), "not one key in PEM"},
		{"words after it", append(slices.Clone(text), "hunter2hunter2"...), "not one key in PEM"},
		{"a certificate after it", append(slices.Clone(text), encode("CERTIFICATE", block.Bytes)...), "not one key in PEM"},
		{"RSA", pemOf(t, rsaKey), "not an elliptic curve's"},
		{"RSA in PKCS #1", encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), "another kind"},
		{"Ed25519", encode("PRIVATE KEY", ed), "not an elliptic curve's"},
		{"P-384", p384, "P-384"},
		{"P-521", p521, "P-521"},
		{"P-224", p224, "P-224"},
		{"a public key", encode("PUBLIC KEY", public), "another kind"},
		{"a certificate", encode("CERTIFICATE", block.Bytes), "another kind"},
		{"OpenSSH", encode("OPENSSH PRIVATE KEY", block.Bytes), "another kind"},
		{"a kind of no kind", encode("HUNTER2HUNTER2", block.Bytes), "another kind"},
		{"encrypted, PKCS #8", encode("ENCRYPTED PRIVATE KEY", block.Bytes), "another kind"},
		{"encrypted, SEC 1", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,0011"}, Bytes: bytes.Repeat([]byte{9}, 128)}), "not an EC private key"},
		{"SEC 1 called PKCS #8", encode("PRIVATE KEY", block.Bytes), "not a private key"},
		{"PKCS #8 called SEC 1", bytes.ReplaceAll(text, []byte(" PRIVATE"), []byte(" EC PRIVATE")), "not an EC private key"},
		{"broken", encode("EC PRIVATE KEY", block.Bytes[:40]), "not an EC private key"},
		{"empty", encode("EC PRIVATE KEY", nil), "not an EC private key"},
		{"zero", outside(make([]byte, 32)), ""},
		{"the order", outside(elliptic.P256().Params().N.Bytes()), ""},
		{"beyond", outside(bytes.Repeat([]byte{0xff}, 32)), ""},
	} {
		for _, as := range []string{"key", "next_key"} {
			first, second := c.data, []byte(nil)
			if as == "next_key" {
				if len(c.data) == 0 {
					continue // there is none
				}
				first, second = sec1(t, other), c.data
			}
			a, err := NewAssertions("photos", first, second, time.Now)
			if err == nil || a != nil || !strings.HasPrefix(err.Error(), as+": ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s as %s: %v", c.name, as, err)
				continue
			}
			// No eight characters of the file, its armour aside, are in the error.
			said := strings.ToLower(err.Error())
			for line := range strings.Lines(string(c.data)) {
				line = strings.ToLower(strings.TrimSpace(line))
				if strings.HasPrefix(line, "-----") && !strings.Contains(line, "hunter2") {
					continue
				}
				for i := 0; i+8 <= len(line); i++ {
					if strings.Contains(said, line[i:i+8]) {
						t.Errorf("%s: %q is in %q", c.name, line[i:i+8], err)
					}
				}
			}
		}
	}
	for name, next := range map[string][]byte{"itself": text, "itself in another form": sec1(t, key)} {
		if _, err := NewAssertions("photos", text, next, time.Now); err == nil || !strings.Contains(err.Error(), "next_key is the key itself") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAssertionsAreNotInTheLog: whoever reads a log cannot send one.
func TestAssertionsAreNotInTheLog(t *testing.T) {
	_, key := newKey(t, elliptic.P256())
	g := assertionGate(t, headerApp(t, headerAssertion), newAssertions(t, key, nil, time.Now))
	raw := g.send("GET", "/private/native/a", "bob").body
	g.outcome()
	_, signature, _ := strings.Cut(raw, ".")
	if log := g.log.String(); raw == "" || log == "" || strings.Contains(log, signature) || strings.Contains(log, "eyJ") {
		t.Errorf("%s", log)
	}
}

// asserting is an exchange by which signing can be tried alone.
func asserting(t testing.TB, a *Assertions, id *policy.Identity) *exchange {
	return &exchange{
		p: &Proxy{o: Options{Assertions: a}}, r: &http.Request{Method: "GET"}, policy: loadPolicy(t, testPolicy), identity: id,
		id: strings.Repeat("0f", 16), target: target{path: "/private/a"},
	}
}

// FuzzAssertion: whatever a caller is called and asks for, the assertion
// verifies with another library and says the same.
func FuzzAssertion(f *testing.F) {
	f.Add("u1", "bot", "/private/a", `{"roles":["admin"],"plan":"pro"}`)
	f.Add(`u","sub":"root`, `\`, `/a","method":"POST`, `{"roles":["\"",1],"plan":{"sub":"root"}}`)
	f.Add("\u2028\x00\x7f", "ü", "/</script>&", `{"plan":null}`)
	f.Add("../bob", "", "/%", `{"plan":1.50e3,"other":true}`)
	f.Add("\ufffd", "\U0001F600", "", `{"plan":"\ud800"}`)
	key, text := newKey(f, elliptic.P256())
	a := newAssertions(f, text, nil, time.Now)
	pol := loadPolicy(f, testPolicy)
	f.Fuzz(func(t *testing.T, uid, actor, path, claims string) {
		if !utf8.ValidString(uid) || !utf8.ValidString(actor) || !utf8.ValidString(path) {
			return // no token and no path holds that
		}
		d := json.NewDecoder(strings.NewReader(claims))
		d.UseNumber()
		id := &policy.Identity{Name: "users", UID: uid, Actor: actor}
		var all policy.ClaimMap
		if d.Decode(&all) != nil {
			return
		}
		id.Claims = all
		x := asserting(t, a, id)
		x.policy, x.target.path = pol, path
		raw, err := a.sign(x, "app")
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(raw, unprintable) || strings.Count(raw, ".") != 2 || strings.Contains(raw, "=") {
			t.Fatalf("%q", raw)
		}
		_, got := verify(t, raw, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: a.key.jwk.Kid}}})
		want := map[string]any{"iss": "photos", "aud": "app", "sub": uid, "identity": "users", "method": "GET", "path": path, "jti": x.id, "iat": got["iat"], "exp": got["exp"]}
		if actor != "" {
			want["actor"] = actor
		}
		declared := map[string]any{}
		for _, name := range []string{"roles", "plan"} {
			if v, ok := id.Claim(name); ok {
				declared[name] = v
			}
		}
		if len(declared) > 0 {
			want["claims"] = declared
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%v\n%v", got, want)
		}
	})
}

// TestSigningFails: an app that counts on assertions never gets the request
// without one; the caller is told nothing of why.
func TestSigningFails(t *testing.T) {
	_, key := newKey(t, elliptic.P256())
	app := newApp(t, func(http.ResponseWriter, *http.Request) { t.Error("the app was reached") })
	unwritable := identity("users", "u1", `{}`)
	unwritable.Claims.(policy.ClaimMap)["plan"] = func() {} // no issuer's, but whatever JSON refuses does
	g := assertionGate(t, app, newAssertions(t, key, nil, time.Now), func(o *Options) { o.Authenticator = known{"t": unwritable} })
	for _, target := range []string{"/private/native/a", "/private/map/a"} {
		a := g.send("GET", target, "t")
		g.checkRefusal(a, 500, codeInternal)
		if strings.Contains(a.body, "json") {
			t.Errorf("%s", a.body)
		}
	}
}

// TestJudgeSignsNothing: whoever tries a policy gets no assertion of somebody.
func TestJudgeSignsNothing(t *testing.T) {
	_, key := newKey(t, elliptic.P256())
	g := assertionGate(t, headerApp(t, headerAssertion), newAssertions(t, key, nil, time.Now))
	r, err := http.NewRequestWithContext(context.Background(), "GET", "http://gateway.test/private/native/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.RequestURI, r.RemoteAddr = "/private/native/a", "127.0.0.1:1"
	r.Header.Set("Authorization", "Bearer bob")
	j := g.proxy.Judge(r, Given{})
	if !j.Allow || j.Headers.Get(headerUID) != "bob" || j.Headers[headerAssertion] != nil {
		t.Errorf("%+v", j)
	}
}

// TestJudgePublishedKeys: what the gateway answers for itself can be tried, too.
func TestJudgePublishedKeys(t *testing.T) {
	_, key := newKey(t, elliptic.P256())
	g := assertionGate(t, headerApp(t, headerAssertion), newAssertions(t, key, nil, time.Now))
	for method, allow := range map[string]bool{"GET": true, "POST": false} {
		func() {
			defer func() {
				if broken := recover(); broken != nil {
					t.Errorf("%s: %v", method, broken)
				}
			}()
			r, err := http.NewRequest(method, "http://gateway.test"+jwksPath, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.RequestURI, r.RemoteAddr = jwksPath, "127.0.0.1:1"
			if j := g.proxy.Judge(r, Given{}); j.Allow != allow || allow && j.Code != reasonOwn || j.Headers != nil {
				t.Errorf("%s: %+v", method, j)
			}
		}()
	}
}
