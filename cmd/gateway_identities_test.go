package cmd

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sidegate/policy"
	"sidegate/proxy"
	"sidegate/proxy/firebase"
	"sidegate/proxy/oidc"
)

const (
	acmeIssuer = "https://id.acme.dev"
	acmeSource = acmeIssuer + "/.well-known/openid-configuration"
	threeKinds = `
identities:
  users: {firebase: {project: acme-prod}}
  staff: {oidc: {issuer: "https://id.acme.dev", audience: photos-api}}
  worker: {google: {audience: "https://photos.acme.dev", emails: [thumbs@acme-prod.iam.gserviceaccount.com]}}
`
)

var idpHeader = claimSet{"alg": "RS256", "kid": "now", "typ": "JWT"}

// newAcmeNet publishes the keys of threeKinds, all of them idpKey's.
func newAcmeNet(t testing.TB) *idpNet {
	t.Helper()
	n := newIdPNet(t, "id.acme.dev", "www.googleapis.com", "firebaseappcheck.googleapis.com", "keys.example")
	n.publish(t, acmeIssuer, acmeIssuer+"/keys", jwk(idpKey, "now", nil))
	for _, at := range []string{googleKeys, firebase.KeysURL, firebase.AppCheckKeysURL} {
		n.publish(t, "", at, jwk(idpKey, "now", nil))
	}
	key := idpKeys()[idpKey]
	n.serve(t, firebase.CookieKeysURL, map[string]string{"now": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: selfSigned(key, key)}))})
	return n
}

func firebaseClaims(issuer, project, uid, tenant string) claimSet {
	inside := claimSet{"sign_in_provider": "password", "identities": claimSet{}}
	if tenant != "" {
		inside["tenant"] = tenant
	}
	return timed(claimSet{"iss": issuer + project, "aud": project, "sub": uid, "user_id": uid, "auth_time": time.Now().Unix() - 60, "firebase": inside}, time.Hour)
}

const (
	idTokenIssuer = "https://securetoken.google.com/"
	cookieIssuer  = "https://session.firebase.google.com/"
)

// threeTokens are one of each of threeKinds, by identity.
func threeTokens(t testing.TB, key int) map[string]string {
	t.Helper()
	return map[string]string{
		"users": signRS256(t, key, idpHeader, firebaseClaims(idTokenIssuer, "acme-prod", "alice", "")),
		"staff": signRS256(t, key, idpHeader, timed(claimSet{"iss": acmeIssuer, "aud": "photos-api", "sub": "alice"}, time.Hour)),
		"worker": signRS256(t, key, idpHeader, timed(claimSet{
			"iss": googleIssuer, "aud": "https://photos.acme.dev", "sub": "117893746451289764523", "email": "thumbs@acme-prod.iam.gserviceaccount.com", "email_verified": true,
		}, time.Hour)),
	}
}

func openGateway(t testing.TB, c *Config, n *idpNet) (*gateway, callers) {
	t.Helper()
	g := &gateway{s: settings{config: c}, keysClient: n.client}
	callers, err := g.openIdentities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return g, callers
}

// gathered reads the metrics of key sets: name, then source.
func gathered(t testing.TB, g *gateway) map[string]map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(keyMetrics(g.keys)); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Errorf("metrics cannot be read: %v", err)
	}
	out := map[string]map[string]float64{}
	for _, f := range families {
		values := map[string]float64{}
		for _, m := range f.GetMetric() {
			if len(m.GetLabel()) != 1 || m.GetLabel()[0].GetName() != "source" {
				t.Errorf("%s: labels %v", f.GetName(), m.GetLabel())
				continue
			}
			values[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
		out[f.GetName()] = values
	}
	return out
}

// TestKeysCacheSurvivesARestart: what one gateway fetched serves the next one
// while the issuers are away; without the folder it has nothing to go by, which
// is 503 and not 401. Metrics tell the three apart.
func TestKeysCacheSurvivesARestart(t *testing.T) {
	n := newAcmeNet(t)
	c := mustLoad(t, place{}, threeKinds)
	c.KeysCache = filepath.Join(t.TempDir(), "made", "keys")
	tokens := threeTokens(t, idpKey)
	urls := []string{acmeSource, googleKeys, firebase.KeysURL}
	check := func(what string, g *gateway, callers callers, fetches int, stored, failures float64) {
		t.Helper()
		for name, token := range tokens {
			id, err := callers.tokens.Authenticate(t.Context(), token)
			if err != nil || id.Name != name {
				t.Errorf("%s, %s: %+v, %v", what, name, id, err)
			}
		}
		for _, url := range urls {
			if got := n.count(url); got != fetches {
				t.Errorf("%s: %d fetches from %s, want %d", what, got, url, fetches)
			}
		}
		m := gathered(t, g)
		if len(m["sidegate_keys"]) != len(urls) {
			t.Errorf("%s: %d sources", what, len(m["sidegate_keys"]))
		}
		for _, k := range g.keys {
			source := k.Status().Source
			if !slices.ContainsFunc(urls, func(url string) bool { return strings.HasPrefix(url, source) }) {
				t.Errorf("%s: nobody knows the source %q by its name", what, source)
			}
			if m["sidegate_keys"][source] != 1 || m["sidegate_keys_age_seconds"][source] < 0 || m["sidegate_keys_stored"][source] != stored ||
				m["sidegate_keys_cache_failed"][source] != 0 || m["sidegate_keys_failures_total"][source] != failures {
				t.Errorf("%s, %s: %v", what, source, m)
			}
		}
	}
	first, found := openGateway(t, c, n)
	before := gathered(t, first)
	for source, age := range before["sidegate_keys_age_seconds"] {
		if age != -1 || before["sidegate_keys"][source] != 0 {
			t.Errorf("%s, before the first fetch: %v", source, before)
		}
	}
	first.prefetch(t.Context())
	check("first", first, found, 1, 0, 0)
	files := awaitKept(t, c.KeysCache, len(urls))
	old := map[string]string{}
	for _, name := range files {
		old[name] = readFile(t, name)
	}

	n.down.Store(true)
	second, found := openGateway(t, c, n)
	second.prefetch(t.Context())
	check("second, issuers away", second, found, 2, 1, 1)
	// A key that is not known may be one that the issuer has by now.
	id, err := found.tokens.Authenticate(t.Context(), signRS256(t, strangerKey, idpHeader.with("kid", "later"), firebaseClaims(idTokenIssuer, "acme-prod", "alice", "")))
	if !errors.Is(err, proxy.ErrUnavailable) || id != nil {
		t.Errorf("an unknown key: %+v, %v; want unavailable", id, err)
	}
	id, err = found.tokens.Authenticate(t.Context(), threeTokens(t, strangerKey)["staff"])
	wantReason(t, "a stranger's, by a kept key's name", id, err, oidc.ReasonSignature)

	bare := *c
	bare.KeysCache = ""
	third, found := openGateway(t, &bare, n)
	for _, k := range third.keys {
		if err := k.Prefetch(t.Context()); !errors.Is(err, proxy.ErrUnavailable) {
			t.Errorf("prefetch: %v", err)
		}
	}
	for name, token := range tokens {
		var bad *proxy.TokenError
		id, err := found.tokens.Authenticate(t.Context(), token)
		if !errors.Is(err, proxy.ErrUnavailable) || errors.As(err, &bad) || id != nil {
			t.Errorf("without keys_cache, %s: %+v, %v; want unavailable", name, id, err)
		}
	}
	for source, failures := range gathered(t, third)["sidegate_keys_failures_total"] {
		if failures != 1 {
			t.Errorf("without keys_cache, %s: %v failures", source, failures)
		}
	}

	n.down.Store(false)
	second.prefetch(t.Context())
	for source, stored := range gathered(t, second)["sidegate_keys_stored"] {
		if stored != 0 {
			t.Errorf("%s: still those of the folder, with the issuer back", source)
		}
	}
	await(t, "fresh keys take the old ones' place in the folder", func() bool {
		return !slices.ContainsFunc(files, func(name string) bool { return readFile(t, name) == old[name] })
	})
}

func readFile(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// await waits for what nothing tells of but itself.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	end := time.After(20 * time.Second)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-end:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// awaitKept waits for the files, which are written after the keys are in use,
// and checks who can touch them.
func awaitKept(t testing.TB, folder string, n int) (files []string) {
	t.Helper()
	await(t, fmt.Sprint(n, " files in keys_cache"), func() bool {
		var err error
		if files, err = filepath.Glob(filepath.Join(folder, "*.json")); err != nil {
			t.Fatal(err)
		}
		return len(files) == n
	})
	for _, name := range append(slices.Clone(files), folder) {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v: others can read or write it", name, info.Mode())
		}
	}
	return files
}

// TestKeysCacheThatCannotBeWritten: the start says so, and the metric: a folder
// that is full or read-only is found out before the next outage, not by it.
func TestKeysCacheThatCannotBeWritten(t *testing.T) {
	c := mustLoad(t, place{}, threeKinds)
	c.KeysCache = filepath.Join(t.TempDir(), "keys")
	log := newLines()
	g := &gateway{s: settings{config: c}, keysClient: newAcmeNet(t).client, log: zerolog.New(log)}
	if _, err := g.openIdentities(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(c.KeysCache); err != nil {
		t.Fatal(err)
	}
	g.prefetch(t.Context())
	if got := strings.Count(log.String(), "keys_cache does not work"); got != len(g.keys) {
		t.Errorf("the start warns of %d of %d issuers:\n%s", got, len(g.keys), log)
	}
	await(t, "the metric says so", func() bool {
		for _, failed := range gathered(t, g)["sidegate_keys_cache_failed"] {
			if failed != 1 {
				return false
			}
		}
		return true
	})
}

// TestKeptKeysOfOthers: a file that others can write, that is another issuer's
// or that is no file of keys serves nobody, and a metric says so.
func TestKeptKeysOfOthers(t *testing.T) {
	c := mustLoad(t, place{}, threeKinds)
	spoil := map[string]func(t *testing.T, files []string){
		"writable by all": func(t *testing.T, files []string) {
			for _, f := range files {
				if err := os.Chmod(f, 0o666); err != nil {
					t.Fatal(err)
				}
			}
		},
		"exchanged": func(t *testing.T, files []string) {
			first, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			for i := range files {
				content := first
				if i+1 < len(files) {
					if content, err = os.ReadFile(files[i+1]); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.WriteFile(files[i], content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
		"cut": func(t *testing.T, files []string) {
			for _, f := range files {
				if err := os.Truncate(f, 20); err != nil {
					t.Fatal(err)
				}
			}
		},
		"a link": func(t *testing.T, files []string) {
			for _, f := range files {
				if err := errors.Join(os.Rename(f, f+".real"), os.Symlink(f+".real", f)); err != nil {
					t.Fatal(err)
				}
			}
		},
	}
	for what, spoil := range spoil {
		t.Run(what, func(t *testing.T) {
			n := newAcmeNet(t)
			mine := *c
			mine.KeysCache = t.TempDir()
			if err := os.Chmod(mine.KeysCache, 0o700); err != nil {
				t.Fatal(err)
			}
			g, _ := openGateway(t, &mine, n)
			g.prefetch(t.Context())
			spoil(t, awaitKept(t, mine.KeysCache, 3))
			n.down.Store(true)
			g, callers := openGateway(t, &mine, n)
			for source, failed := range gathered(t, g)["sidegate_keys_cache_failed"] {
				if failed != 1 {
					t.Errorf("%s: nothing says that the kept keys are not used", source)
				}
			}
			for name, token := range threeTokens(t, idpKey) {
				if id, err := callers.tokens.Authenticate(t.Context(), token); !errors.Is(err, proxy.ErrUnavailable) || id != nil {
					t.Errorf("%s: %+v, %v; want unavailable", name, id, err)
				}
			}
		})
	}
}

// TestKeysCacheThatCannotBeMade ends the start: a gateway that was told to keep
// keys and does not would be found out by the next outage.
func TestKeysCacheThatCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	c := mustLoad(t, place{}, threeKinds)
	c.KeysCache = filepath.Join(file, "keys")
	g := &gateway{s: settings{config: c}, keysClient: newAcmeNet(t).client}
	if _, err := g.openIdentities(t.Context()); err == nil || !strings.Contains(err.Error(), "keys_cache") {
		t.Errorf("got %v", err)
	}
}

// TestIdentitiesShareKeys: one source is fetched once, however many identities
// live by it.
func TestIdentitiesShareKeys(t *testing.T) {
	n := newAcmeNet(t)
	n.publish(t, googleIssuer, googleKeys, jwk(idpKey, "now", nil))
	g, callers := openGateway(t, mustLoad(t, place{}, `
identities:
  a: {firebase: {project: acme-prod, tenant: tenant-a}}
  b: {firebase: {project: acme-prod, tenant: tenant-b}}
  none: {firebase: {project: acme-prod}}
  other: {firebase: {project: acme-test}}
  staff: {oidc: {issuer: "https://id.acme.dev", audience: [photos-api, albums-api]}}
  agents: {oidc: {issuer: "https://id.acme.dev", audience: photos-api, actor: act.sub}, uids: staff}
  worker: {google: {audience: "https://photos.acme.dev", emails: [thumbs@acme-prod.iam.gserviceaccount.com]}}
  people: {oidc: {issuer: "https://accounts.google.com", keys: "https://www.googleapis.com/oauth2/v3/certs", audience: web}}
`), n)
	g.prefetch(t.Context())
	if len(g.keys) != 3 || n.count(firebase.KeysURL) != 1 || n.count(acmeSource) != 1 || n.count(acmeIssuer+"/keys") != 1 || n.count(googleKeys) != 1 {
		t.Errorf("%d key sets; asked: %v", len(g.keys), n.asked)
	}
	for _, k := range []struct {
		project, tenant, want string
	}{{"acme-prod", "tenant-a", "a"}, {"acme-prod", "tenant-b", "b"}, {"acme-prod", "", "none"}, {"acme-test", "", "other"}} {
		id, err := callers.tokens.Authenticate(t.Context(), signRS256(t, idpKey, idpHeader, firebaseClaims(idTokenIssuer, k.project, "alice", k.tenant)))
		if err != nil || id.Name != k.want || id.Namespace != k.want || id.Tenant != k.tenant {
			t.Errorf("%s %q: %+v, %v", k.project, k.tenant, id, err)
		}
	}
	id, err := callers.tokens.Authenticate(t.Context(), signRS256(t, idpKey, idpHeader, firebaseClaims(idTokenIssuer, "acme-prod", "alice", "tenant-c")))
	wantReason(t, "another tenant", id, err, oidc.ReasonTenant)
	id, err = callers.tokens.Authenticate(t.Context(), signRS256(t, idpKey, idpHeader, firebaseClaims(idTokenIssuer, "acme-test", "alice", "tenant-a")))
	wantReason(t, "the tenant of another project", id, err, oidc.ReasonTenant)
	id, err = callers.tokens.Authenticate(t.Context(), signRS256(t, idpKey, idpHeader, timed(claimSet{"iss": acmeIssuer, "aud": "albums-api", "sub": "alice", "act": claimSet{"sub": "bot"}}, time.Hour)))
	wantReason(t, "an agent for an audience without agents", id, err, oidc.ReasonClaim)
}

// TestMetricsOfIssuersThatDifferInASlash: two issuers may be described at one
// URL. One of them must be wrong, and metrics are how the operator sees it.
func TestMetricsOfIssuersThatDifferInASlash(t *testing.T) {
	n := newAcmeNet(t)
	g, _ := openGateway(t, mustLoad(t, place{}, `
identities:
  a: {oidc: {issuer: "https://id.acme.dev", audience: photos-api}}
  b: {oidc: {issuer: "https://id.acme.dev/", audience: photos-api}}
`), n)
	failed := 0
	for _, k := range g.keys {
		if k.Prefetch(t.Context()) != nil {
			failed++
		}
	}
	if len(g.keys) != 2 || failed != 1 {
		t.Errorf("%d key sets, %d without keys; want 2 and 1", len(g.keys), failed)
	}
	gathered(t, g) // and complains where that fails
}

// TestKeptKeysAreOfOneIssuer: an issuer whose metadata are another's has no keys,
// and has none after a restart either, when the other's were kept: the name in
// the tokens is what tells the two apart, to the last slash.
func TestKeptKeysAreOfOneIssuer(t *testing.T) {
	n := newAcmeNet(t)
	folder := filepath.Join(t.TempDir(), "keys")
	open := func(issuer string) (*gateway, callers) {
		c := mustLoad(t, place{}, "identities: {a: {oidc: {issuer: \""+issuer+"\", audience: photos-api}}}")
		c.KeysCache = folder
		return openGateway(t, c, n)
	}
	g, _ := open(acmeIssuer)
	g.prefetch(t.Context())
	awaitKept(t, folder, 1)
	g, callers := open(acmeIssuer + "/")
	if err := g.keys[0].Prefetch(t.Context()); !errors.Is(err, proxy.ErrUnavailable) {
		t.Errorf("the metadata are of another issuer: %v", err)
	}
	if g.keys[0].Ready() {
		t.Errorf("an issuer has the kept keys of another: %+v", g.keys[0].Status())
	}
	id, err := callers.tokens.Authenticate(t.Context(), signRS256(t, idpKey, idpHeader, timed(claimSet{"iss": acmeIssuer + "/", "aud": "photos-api", "sub": "alice"}, time.Hour)))
	if !errors.Is(err, proxy.ErrUnavailable) || id != nil {
		t.Errorf("its token: %+v, %v; want unavailable", id, err)
	}
}

// TestInsecureKeysAreFirebasesAlone: whoever answers at --insecure-keys decides
// about Firebase's tokens, and not about those of other issuers.
func TestInsecureKeysAreFirebasesAlone(t *testing.T) {
	n := newAcmeNet(t)
	const insecureURL = "https://keys.example/keys"
	n.publish(t, "", insecureURL, jwk(strangerKey, "now", nil))
	at, err := url.Parse(insecureURL)
	if err != nil {
		t.Fatal(err)
	}
	c := mustLoad(t, place{}, threeKinds)
	c.Identities[0].Firebase.AppCheck = true
	g := &gateway{s: settings{config: c, insecure: insecure{keys: at}}, keysClient: n.client}
	callers, err := g.openIdentities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g.prefetch(t.Context())
	if n.count(firebase.KeysURL) != 0 || n.count(firebase.AppCheckKeysURL) != 0 || n.count(insecureURL) != 1 || n.count(googleKeys) != 1 || n.count(acmeIssuer+"/keys") != 1 {
		t.Errorf("asked: %v", n.asked)
	}
	theirs, real := threeTokens(t, strangerKey), threeTokens(t, idpKey)
	for _, name := range []string{"users", "staff", "worker"} {
		good, bad := real[name], theirs[name]
		if name == "users" {
			good, bad = bad, good
		}
		id, err := callers.tokens.Authenticate(t.Context(), good)
		if err != nil || id.Name != name {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
		id, err = callers.tokens.Authenticate(t.Context(), bad)
		wantReason(t, name+", by the other key", id, err, oidc.ReasonSignature)
	}
}

// TestCookiesAndAppCheckAreWired: each cookie has the identities that are named
// with it, App Check those that ask for it, and a token of one kind is none of
// another, also after it was verified and kept.
func TestCookiesAndAppCheckAreWired(t *testing.T) {
	c := mustLoad(t, place{}, `
identities:
  users: {firebase: {project: acme-prod, tenant: tenant-a, session_cookie: __session, app_check: true}}
  consumers: {firebase: {project: acme-prod, tenant: tenant-b, session_cookie: __session, app_check: true}}
  staff: {firebase: {project: acme-staff, session_cookie: __Host-staff}}
  plain: {firebase: {project: acme-plain}}
`)
	for i := range c.Identities {
		c.Identities[i].Firebase.Revocation = 0 // which asks Google
	}
	for _, entries := range []int{c.TokenCache, 0} {
		t.Run(fmt.Sprint("token_cache ", entries), func(t *testing.T) {
			mine := *c
			mine.TokenCache = entries
			n := newAcmeNet(t)
			g, callers := openGateway(t, &mine, n)
			g.prefetch(t.Context())
			if len(g.keys) != 3 || n.count(firebase.CookieKeysURL) != 1 || n.count(firebase.AppCheckKeysURL) != 1 {
				t.Errorf("%d key sets; asked: %v", len(g.keys), n.asked)
			}
			if got := slices.Sorted(maps.Keys(callers.cookies)); !slices.Equal(got, []string{"__Host-staff", "__session"}) {
				t.Fatalf("cookies %q", got)
			}
			if got := slices.Sorted(maps.Keys(callers.appCheck)); !slices.Equal(got, []string{"consumers", "users"}) || callers.appCheck["users"] != callers.appCheck["consumers"] {
				t.Fatalf("App Check: %v", callers.appCheck)
			}
			sign := func(c claimSet) string { return signRS256(t, idpKey, idpHeader, c) }
			cookieA, cookieB := sign(firebaseClaims(cookieIssuer, "acme-prod", "alice", "tenant-a")), sign(firebaseClaims(cookieIssuer, "acme-prod", "alice", "tenant-b"))
			staff, plain := sign(firebaseClaims(cookieIssuer, "acme-staff", "alice", "")), sign(firebaseClaims(cookieIssuer, "acme-plain", "alice", ""))
			tokenA := sign(firebaseClaims(idTokenIssuer, "acme-prod", "alice", "tenant-a"))
			app := sign(timed(claimSet{"iss": "https://firebaseappcheck.googleapis.com/1234567890", "aud": []string{"projects/1234567890", "projects/acme-prod"}, "sub": "1:1234567890:web:abc"}, time.Hour))
			otherApp := sign(timed(claimSet{"iss": "https://firebaseappcheck.googleapis.com/99", "aud": []string{"projects/99", "projects/acme-staff"}, "sub": "1:99:web:abc"}, time.Hour))
			// Twice: the second time from the cache, where there is one.
			for range 2 {
				for _, k := range []struct {
					what   string
					by     proxy.Authenticator
					token  string
					want   string // the identity
					reason string
				}{
					{"tenant a's cookie", callers.cookies["__session"], cookieA, "users", ""},
					{"tenant b's cookie", callers.cookies["__session"], cookieB, "consumers", ""},
					{"staff's cookie", callers.cookies["__Host-staff"], staff, "staff", ""},
					{"an ID token", callers.tokens, tokenA, "users", ""},
					{"staff's cookie under the users' name", callers.cookies["__session"], staff, "", oidc.ReasonIssuer},
					{"the users' cookie under staff's name", callers.cookies["__Host-staff"], cookieA, "", oidc.ReasonIssuer},
					{"a cookie of a project without", callers.cookies["__session"], plain, "", oidc.ReasonIssuer},
					{"a cookie as a bearer token", callers.tokens, cookieA, "", oidc.ReasonIssuer},
					{"an ID token in a cookie", callers.cookies["__session"], tokenA, "", oidc.ReasonIssuer},
					{"an App Check token as a bearer token", callers.tokens, app, "", oidc.ReasonIssuer},
					{"an App Check token in a cookie", callers.cookies["__session"], app, "", oidc.ReasonIssuer},
					{"an ID token as an App Check token", callers.appCheck["users"], tokenA, "", oidc.ReasonIssuer},
					{"a cookie as an App Check token", callers.appCheck["users"], cookieA, "", oidc.ReasonIssuer},
					{"an App Check token of another project", callers.appCheck["users"], otherApp, "", oidc.ReasonAudience},
				} {
					id, err := k.by.Authenticate(t.Context(), k.token)
					if k.reason != "" {
						wantReason(t, k.what, id, err, k.reason)
					} else if err != nil || id.Name != k.want || id.UID != "alice" {
						t.Errorf("%s: %+v, %v", k.what, id, err)
					}
				}
				for name, check := range callers.appCheck {
					// It vouches for an app: no identity's name, so that it is nobody.
					if id, err := check.Authenticate(t.Context(), app); err != nil || id.Name != "" || id.UID != "1:1234567890:web:abc" {
						t.Errorf("App Check of %s: %+v, %v", name, id, err)
					}
				}
			}
		})
	}
}

// TestRevocationWithoutCredentials ends the start, and says what is missing: a
// gateway that cannot ask would answer every session cookie with 503.
func TestRevocationWithoutCredentials(t *testing.T) {
	empty := t.TempDir()
	for _, name := range []string{"GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "FIREBASE_CONFIG", "FIREBASE_AUTH_EMULATOR_HOST"} {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
	t.Setenv("HOME", empty)
	t.Setenv("APPDATA", empty)
	t.Setenv("CLOUDSDK_CONFIG", empty)
	c := mustLoad(t, place{}, "identities: {users: {firebase: {project: acme-prod, session_cookie: __session}}}")
	// A machine of Google's has credentials without any variable.
	g := &gateway{s: settings{config: c}, keysClient: newAcmeNet(t).client}
	if _, err := g.openIdentities(t.Context()); err != nil && !strings.Contains(err.Error(), "identities.users: revocation asks Firebase for users") {
		t.Errorf("no credentials at all: %v", err)
	}
	for _, k := range []struct{ what, value, says string }{
		{"a file that is not there", filepath.Join(empty, "none.json"), "none.json"},
		{"a file that is none of credentials", filepath.Join(empty, "broken.json"), ""},
	} {
		write(t, filepath.Join(empty, "broken.json"), "{}")
		t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", k.value)
		g := &gateway{s: settings{config: c}, keysClient: newAcmeNet(t).client}
		_, err := g.openIdentities(t.Context())
		if err == nil {
			t.Errorf("%s: the gateway starts", k.what)
			continue
		}
		for _, part := range []string{"identities.users: ", "GOOGLE_APPLICATION_CREDENTIALS", k.says} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error lacks %q: %v", k.what, part, err)
			}
		}
	}
	// The emulator's variable alone must not decide who a real user is.
	t.Setenv("FIREBASE_AUTH_EMULATOR_HOST", "127.0.0.1:9099")
	g = &gateway{s: settings{config: c}, keysClient: newAcmeNet(t).client}
	if _, err := g.openIdentities(t.Context()); err == nil || !strings.Contains(err.Error(), "FIREBASE_AUTH_EMULATOR_HOST") {
		t.Errorf("with the emulator's variable: %v", err)
	}
}

// TestRevocationAsksTheEmulator: with the emulator's switch it is the emulator
// that is asked, of the right project and tenant; what it says counts, and where
// it says nothing nobody is let in.
func TestRevocationAsksTheEmulator(t *testing.T) {
	type answer struct {
		status int
		users  []claimSet
	}
	known := func(uid string, more ...any) answer {
		return answer{200, []claimSet{claimSet{"localId": uid, "validSince": fmt.Sprint(time.Now().Unix() - 1000)}.with(more...)}}
	}
	answers := map[string]answer{
		"alice":    known("alice"),
		"disabled": known("disabled", "disabled", true),
		"revoked":  known("revoked", "validSince", fmt.Sprint(time.Now().Unix()+100)),
		"gone":     {status: 200},
		"broken":   {status: 500},
		"mixed":    known("somebody-else"),
	}
	asked := make(chan string, 100)
	emulator := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var question struct {
			LocalID []string `json:"localId"`
		}
		if err := json.NewDecoder(r.Body).Decode(&question); err != nil || len(question.LocalID) != 1 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		asked <- r.URL.Path
		a := answers[question.LocalID[0]]
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(a.status)
		_ = json.NewEncoder(w).Encode(claimSet{"kind": "identitytoolkit#GetAccountInfoResponse", "users": a.users})
	}))
	defer emulator.Close()
	c := mustLoad(t, place{}, `
identities:
  users: {firebase: {project: demo-x, session_cookie: __session}}
  consumers: {firebase: {project: demo-x, tenant: tenant-b, revocation: 1m}}
  plain: {firebase: {project: demo-y}}
`)
	g := &gateway{s: settings{config: c, insecure: insecure{emulator: true, authEmulator: strings.TrimPrefix(emulator.URL, "http://")}}}
	callers, err := g.openIdentities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unsigned := func(issuer, project, uid, tenant string) string {
		payload, err := json.Marshal(firebaseClaims(issuer, project, uid, tenant))
		if err != nil {
			t.Fatal(err)
		}
		return b64([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + b64(payload) + "."
	}
	const lookup, ofTenant = "/identitytoolkit.googleapis.com/v1/projects/demo-x/accounts:lookup", "/identitytoolkit.googleapis.com/v1/projects/demo-x/tenants/tenant-b/accounts:lookup"
	for _, k := range []struct {
		what  string
		by    proxy.Authenticator
		token string
		path  string // that is asked at; empty: nowhere
		want  string // the identity, "unavailable", or a reason
	}{
		{"a user", callers.tokens, unsigned(idTokenIssuer, "demo-x", "alice", ""), lookup, "users"},
		{"the user's cookie", callers.cookies["__session"], unsigned(cookieIssuer, "demo-x", "alice", ""), "", "users"}, // asked about already
		{"of the tenant", callers.tokens, unsigned(idTokenIssuer, "demo-x", "alice", "tenant-b"), ofTenant, "consumers"},
		{"of no revocation", callers.tokens, unsigned(idTokenIssuer, "demo-y", "gone", ""), "", "plain"},
		{"disabled", callers.tokens, unsigned(idTokenIssuer, "demo-x", "disabled", ""), lookup, oidc.ReasonDisabled},
		{"disabled, by cookie", callers.cookies["__session"], unsigned(cookieIssuer, "demo-x", "disabled", ""), "", oidc.ReasonDisabled},
		{"revoked, by cookie", callers.cookies["__session"], unsigned(cookieIssuer, "demo-x", "revoked", ""), lookup, oidc.ReasonRevoked},
		{"deleted", callers.tokens, unsigned(idTokenIssuer, "demo-x", "gone", ""), lookup, oidc.ReasonRevoked},
		{"another user's answer", callers.tokens, unsigned(idTokenIssuer, "demo-x", "mixed", ""), lookup, "unavailable"},
	} {
		id, err := k.by.Authenticate(t.Context(), k.token)
		var bad *proxy.TokenError
		got := ""
		switch {
		case errors.As(err, &bad):
			got = bad.Reason
		case errors.Is(err, proxy.ErrUnavailable):
			got = "unavailable"
		case err == nil:
			got = id.Name
		}
		if got != k.want {
			t.Errorf("%s: %+v, %v; want %s", k.what, id, err, k.want)
		}
		path := ""
		select {
		case path = <-asked:
		default:
		}
		if path != k.path {
			t.Errorf("%s: asked %q, want %q", k.what, path, k.path)
		}
	}
	before, failed := g.lookups()
	if before != 6 || failed != 1 {
		t.Errorf("%v questions of which %v failed; want 6 and 1", before, failed)
	}
	if _, err := callers.tokens.Authenticate(t.Context(), unsigned(idTokenIssuer, "demo-x", "broken", "")); !errors.Is(err, proxy.ErrUnavailable) {
		t.Errorf("an emulator that fails: %v; want unavailable", err)
	}
	if _, failed := g.lookups(); failed != 2 {
		t.Errorf("%v failures, want 2", failed)
	}
}

// TestNoIdentities: where no issuer is known every token is bad, and there is
// nothing to wait for.
func TestNoIdentities(t *testing.T) {
	g := &gateway{s: settings{config: mustLoad(t, place{}, "")}}
	callers, err := g.openIdentities(t.Context())
	if err != nil || len(g.keys) != 0 || len(callers.cookies) != 0 || len(callers.appCheck) != 0 {
		t.Fatalf("%+v, %v", callers, err)
	}
	var id *policy.Identity
	id, err = callers.tokens.Authenticate(t.Context(), "a.b.c")
	var bad *proxy.TokenError
	if !errors.As(err, &bad) || id != nil {
		t.Errorf("%+v, %v", id, err)
	}
}
