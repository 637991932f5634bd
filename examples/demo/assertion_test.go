package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestAssertions runs the apps of examples/assertion behind a gateway with that
// folder's two files, and then attacks each directly, as somebody in its network
// can.
func TestAssertions(t *testing.T) {
	for _, app := range []struct {
		name    string
		command func(t *testing.T) *exec.Cmd
	}{
		{"go", goVerifier},
		{"python", pythonVerifier},
		{"node", nodeVerifier},
	} {
		t.Run(app.name, func(t *testing.T) {
			s := newAssertionStage(t)
			s.startApp(t, app.command(t))
			// An app may be up before its gateway.
			s.direct(t, request{path: "/v1/hello", assertions: []string{s.key.assertion(s.claims(nil))}}).refused(t, http.StatusServiceUnavailable)
			// A key set that was not there is asked for again after ten seconds;
			// another process need not wait.
			s.startApp(t, app.command(t))
			g := s.startGateway(t, "")
			t.Run("through the gateway", s.testThrough)
			t.Run("attacks", s.testAttacks)
			t.Run("unknown kids", s.testUnknownKids)
			set := ask(t, http.MethodGet, g.url+"/.sidegate/jwks.json", "", "").want(t, http.StatusOK).body
			g.kill()
			t.Run("without the gateway", s.testGatewayGone)
			t.Run("bad key sets", func(t *testing.T) { s.testBadKeySets(t, string(set), app.command) })

			// The key is to be changed: two are published, the first still signs.
			s.startApp(t, app.command(t))
			next := newAssertionKey(t)
			g = s.startGateway(t, next.pem(t))
			t.Run("next_key", func(t *testing.T) {
				s.testThrough(t)
				s.direct(t, request{path: "/v1/hello", assertions: []string{next.assertion(s.claims(nil))}}).caller(t)
				if n := s.fetches.Load(); n != 1 {
					t.Errorf("the keys were fetched %d times, want once: both are in one set", n)
				}
			})
			// A key that was never published beside the other: this app learns of
			// it by its kid.
			g.kill()
			s.key = newAssertionKey(t)
			s.startGateway(t, "")
			t.Run("a new key", func(t *testing.T) {
				s.testThrough(t)
				if n := s.fetches.Load(); n != 2 {
					t.Errorf("the keys were fetched %d times, want twice: the second for the new kid", n)
				}
				s.direct(t, request{path: "/v1/hello", assertions: []string{next.assertion(s.claims(nil))}}).refused(t, http.StatusUnauthorized)
			})
		})
	}
}

// An assertionStage is an app that verifies assertions, and what stands between
// it and a gateway: one proxy on the way of requests, which keeps the assertion,
// and one on the way to the keys, which counts.
type assertionStage struct {
	key     *assertionKey // the gateway's
	appURL  atomic.Pointer[url.URL]
	gateway atomic.Pointer[url.URL]
	fetches atomic.Int32           // of the keys, since the app began
	last    atomic.Pointer[string] // the assertion that the gateway sent last
	between string                 // the URL that the gateway takes for the app's
	jwksURL string                 // where the app fetches the keys
	// What the example's sidegate.yaml says.
	issuer, upstream string
}

func newAssertionStage(t *testing.T) *assertionStage {
	t.Helper()
	s := &assertionStage{key: newAssertionKey(t), issuer: "notes", upstream: "app"}
	forward := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) {
		pr.SetURL(s.appURL.Load())
		// SetURL joins paths; the app gets this one byte for byte.
		pr.Out.URL.Path, pr.Out.URL.RawPath = pr.In.URL.Path, pr.In.URL.RawPath
		values := pr.In.Header.Values("X-Sidegate-Assertion")
		sent := strings.Join(values, " and ")
		s.last.Store(&sent)
	}})
	t.Cleanup(forward.Close)
	s.between = forward.URL
	keys := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) {
		s.fetches.Add(1)
		pr.SetURL(s.gateway.Load())
	}})
	t.Cleanup(keys.Close)
	s.jwksURL = keys.URL + "/.sidegate/jwks.json"
	nowhere, err := url.Parse("http://" + unusedAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	s.gateway.Store(nowhere)
	return s
}

// startGateway runs a gateway with the example's two files, but for the
// addresses.
func (s *assertionStage) startGateway(t *testing.T, next string) *gateway {
	t.Helper()
	read := func(file string) string {
		content, err := os.ReadFile(filepath.Join(lab.root, "examples", "assertion", file))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	dir := t.TempDir()
	secret := func(file, text string) {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secret("assertion-key.pem", s.key.pem(t))
	changes := []string{"http://127.0.0.1:9000", s.between}
	if next != "" {
		secret("assertion-next.pem", next)
		changes = append(changes, "  # next_key:", "  next_key:")
	}
	config := read("sidegate.yaml")
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(config, changes[i]) {
			t.Fatalf("sidegate.yaml holds no %q", changes[i])
		}
		config = strings.Replace(config, changes[i], changes[i+1], 1)
	}
	g := startGateway(t, setup{
		dir:    dir,
		config: config + "listen: {address: \"${env:DEMO_ADDRESS}\"}\nadmin: {address: \"${env:DEMO_ADMIN_ADDRESS}\"}\n",
		policy: read("policy.yaml"),
		env:    []string{"GOOGLE_CLOUD_PROJECT=" + project},
	})
	u, err := url.Parse(g.url)
	if err != nil {
		t.Fatal(err)
	}
	s.gateway.Store(u)
	return g
}

// startApp runs the app, as a process, until the test ends.
func (s *assertionStage) startApp(t *testing.T, c *exec.Cmd) {
	t.Helper()
	u, err := url.Parse("http://" + unusedAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	c.Env = append(c.Environ(), "PORT="+u.Port(), "SIDEGATE_JWKS_URL="+s.jwksURL, "SIDEGATE_NAME="+s.issuer, "SIDEGATE_UPSTREAM="+s.upstream)
	log := &output{}
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Wait() // killed
	}()
	t.Cleanup(func() {
		c.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("the app's log:\n%s", log)
		}
	})
	s.appURL.Store(u)
	s.fetches.Store(0)
	deadline := time.After(30 * time.Second)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		// It has no path that is open to all: a 401 is an app that is there.
		if response, err := http.Get(u.String()); err == nil {
			response.Body.Close()
			if response.StatusCode != http.StatusUnauthorized {
				t.Fatalf("status %d without an assertion", response.StatusCode)
			}
			return
		}
		select {
		case <-again.C:
		case <-ended:
			t.Fatalf("the app ended: %s", log)
		case <-deadline:
			t.Fatalf("the app does not answer: %s", log)
		}
	}
}

var goVerifierBinary = sync.OnceValues(func() (string, error) {
	file := filepath.Join(filepath.Dir(lab.sidegate), "assertion")
	return file, build(lab.root, file, "./examples/assertion/go")
})

func goVerifier(t *testing.T) *exec.Cmd {
	t.Helper()
	file, err := goVerifierBinary()
	if err != nil {
		t.Fatal(err)
	}
	return exec.Command(file)
}

func pythonVerifier(t *testing.T) *exec.Cmd {
	t.Helper()
	for _, python := range []string{"/usr/bin/python3", "python3"} { // Debian's packages are for Debian's
		if exec.Command(python, "-c", "import jwt, cryptography").Run() == nil {
			c := exec.Command(python, filepath.Join(lab.root, "examples", "assertion", "python", "app.py"))
			c.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
			return c
		}
	}
	needs(t, "PyJWT", "apt-get install python3-jwt python3-cryptography")
	return nil
}

func nodeVerifier(t *testing.T) *exec.Cmd {
	t.Helper()
	if exec.Command("node", "-e", "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)").Run() != nil {
		needs(t, "Node.js", "install Node.js 20 or later")
	}
	return exec.Command("node", filepath.Join(lab.root, "examples", "assertion", "node", "app.mjs"))
}

func (s *assertionStage) testThrough(t *testing.T) {
	at := s.gateway.Load().String()
	odd := user{UID: "Zoë, 100% / x", Email: "zoe@example.com", Roles: []string{"a,b", "ü"}}
	oddToken, err := lab.issuer.token(odd, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		method, path, token, uid, roles string
	}{
		{http.MethodGet, "/v1/hello", token(t, "alice"), "alice", "[viewer]"},
		{http.MethodGet, "/v1/hello?page=2&q=%2F", token(t, "alice"), "alice", "[viewer]"},
		{http.MethodPost, "/v1/hello", token(t, "bob"), "bob", "<nil>"},
		{http.MethodGet, "/v1/Zo%C3%AB%20100%25/a%2Bb+c", oddToken, odd.UID, "[a,b ü]"},
	} {
		who := s.answerOf(t, ask(t, test.method, at+test.path, test.token, "")).caller(t)
		if who.UID != test.uid || who.Identity != "users" || who.Actor != "" || fmt.Sprint(who.Claims["roles"]) != test.roles {
			t.Errorf("%s %s: the app took %s for %+v", test.method, test.path, test.uid, who)
		}
		if strings.Count(*s.last.Load(), ".") != 2 {
			t.Errorf("the gateway sent %q", *s.last.Load())
		}
	}
	// HEAD is signed as HEAD.
	ask(t, http.MethodHead, at+"/v1/hello", token(t, "alice"), "").want(t, http.StatusOK)
	// What a caller brings never arrives.
	r := s.request(t, at, request{path: "/v1/hello", assertions: []string{s.key.assertion(s.claims(map[string]any{"sub": "mallory"}))}})
	r.Header.Set("Authorization", "Bearer "+token(t, "bob"))
	if who := s.answerOf(t, do(t, r)).caller(t); who.UID != "bob" {
		t.Errorf("bob passed for %q", who.UID)
	}
	ask(t, http.MethodGet, at+"/v1/hello", "", "").problem(t, http.StatusUnauthorized, "no_token")
}

func (s *assertionStage) testAttacks(t *testing.T) {
	// A real one, as somebody might find it in a log.
	ask(t, http.MethodGet, s.gateway.Load().String()+"/v1/hello", token(t, "alice"), "").want(t, http.StatusOK)
	stolen := *s.last.Load()
	parts := strings.Split(stolen, ".")
	stranger, now := newAssertionKey(t), time.Now().Unix()
	mine := func(changes map[string]any) string { return s.key.assertion(s.claims(changes)) }
	head := func(changes map[string]any) string {
		all := map[string]any{"alg": "ES256", "typ": "JWT", "kid": s.key.kid}
		maps.Copy(all, changes)
		return s.key.sign(all, s.claims(nil))
	}
	public, err := x509.MarshalPKIXPublicKey(s.key.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	hs256 := func(secret []byte) string {
		signed := jwtPart(map[string]any{"alg": "HS256", "typ": "JWT", "kid": s.key.kid}) + "." + jwtPart(s.claims(nil))
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(signed))
		return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	der, err := ecdsa.SignASN1(rand.Reader, s.key.private, digestOf(parts[0]+"."+parts[1]))
	if err != nil {
		t.Fatal(err)
	}
	point, err := stranger.private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	ownJWK := map[string]any{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}

	// What they are held against is good.
	for name, good := range map[string]string{
		"stolen":               stolen,
		"made by the test":     mine(nil),
		"clock a little late":  mine(map[string]any{"iat": now - 62, "exp": now - 2}),
		"clock a little early": mine(map[string]any{"iat": now + 3, "exp": now + 63}),
	} {
		if who := s.direct(t, request{path: "/v1/hello", assertions: []string{good}}).caller(t); who.UID != "alice" {
			t.Errorf("%s: the app took alice for %+v", name, who)
		}
	}
	if who := s.direct(t, request{path: "/v1/hello", assertions: []string{mine(map[string]any{"actor": "agent-7"})}}).caller(t); who.Actor != "agent-7" {
		t.Errorf("the app took agent-7 for %q", who.Actor)
	}

	for name, attack := range map[string]request{
		"no assertion":            {},
		"an empty one":            {assertions: []string{""}},
		"identity headers alone":  {header: http.Header{"X-Sidegate-Uid": {"alice"}, "X-Sidegate-Identity": {"users"}}},
		"two, of which one good":  {assertions: []string{stolen, mine(map[string]any{"sub": "mallory"})}},
		"the same twice":          {assertions: []string{stolen, stolen}},
		"two in one header":       {assertions: []string{stolen + ", " + stolen}},
		"another path":            {path: "/v1/other", assertions: []string{stolen}},
		"a longer path":           {path: "/v1/hello/", assertions: []string{stolen}},
		"a path encoded twice":    {path: "/v1/%2568ello", assertions: []string{stolen}},
		"another case":            {path: "/v1/Hello", assertions: []string{stolen}},
		"path, not query":         {path: "/v1/hello%3Fa=b", assertions: []string{stolen}},
		"broken percent-encoding": {path: "/v1/hello%FF", assertions: []string{stolen}},
		"another method":          {method: http.MethodPost, assertions: []string{stolen}},
		"GET is not HEAD":         {method: http.MethodHead, assertions: []string{stolen}},
		"method of another case":  {assertions: []string{mine(map[string]any{"method": "get"})}},
		"no method":               {assertions: []string{mine(map[string]any{"method": nil})}},
		"no path":                 {assertions: []string{mine(map[string]any{"path": nil})}},
		"for another app":         {assertions: []string{mine(map[string]any{"aud": "other"})}},
		"for two apps":            {assertions: []string{mine(map[string]any{"aud": []string{"app", "other"}})}},
		"for none":                {assertions: []string{mine(map[string]any{"aud": nil})}},
		"another gateway's":       {assertions: []string{mine(map[string]any{"iss": "other"})}},
		"nobody's":                {assertions: []string{mine(map[string]any{"iss": nil})}},
		"expired":                 {assertions: []string{mine(map[string]any{"iat": now - 70, "exp": now - 10})}},
		"without an end":          {assertions: []string{mine(map[string]any{"exp": nil})}},
		"an end that is a text":   {assertions: []string{mine(map[string]any{"exp": "never"})}},
		"of the future":           {assertions: []string{mine(map[string]any{"iat": now + 30, "exp": now + 90})}},
		"without a beginning":     {assertions: []string{mine(map[string]any{"iat": nil})}},
		"of nobody":               {assertions: []string{mine(map[string]any{"sub": ""})}},
		"of no identity":          {assertions: []string{mine(map[string]any{"identity": nil})}},
		"another's key":           {assertions: []string{stranger.assertion(s.claims(nil))}},
		"another's key, this kid": {assertions: []string{stranger.sign(map[string]any{"alg": "ES256", "kid": s.key.kid}, s.claims(nil))}},
		"another's key, inside":   {assertions: []string{stranger.sign(map[string]any{"alg": "ES256", "kid": s.key.kid, "jwk": ownJWK}, s.claims(nil))}},
		"another's key, in a URL": {assertions: []string{stranger.sign(map[string]any{"alg": "ES256", "kid": s.key.kid, "jku": "http://127.0.0.1:1/"}, s.claims(nil))}},
		"no kid":                  {assertions: []string{head(map[string]any{"kid": nil})}},
		"a kid that is a list":    {assertions: []string{head(map[string]any{"kid": []string{s.key.kid}})}},
		"alg none":                {assertions: []string{jwtPart(map[string]any{"alg": "none", "kid": s.key.kid}) + "." + parts[1] + "."}},
		"alg none, signed":        {assertions: []string{head(map[string]any{"alg": "none"})}},
		"alg of another case":     {assertions: []string{head(map[string]any{"alg": "es256"})}},
		"alg ES384":               {assertions: []string{head(map[string]any{"alg": "ES384"})}},
		"no alg":                  {assertions: []string{head(map[string]any{"alg": nil})}},
		"HS256, the key's PEM":    {assertions: []string{hs256(publicPEM)}},
		"HS256, the key's DER":    {assertions: []string{hs256(public)}},
		"crit":                    {assertions: []string{head(map[string]any{"crit": []string{"b64"}, "b64": true})}},
		"DER signature":           {assertions: []string{parts[0] + "." + parts[1] + "." + b64(der)}},
		"no signature":            {assertions: []string{parts[0] + "." + parts[1] + "."}},
		"two parts":               {assertions: []string{parts[0] + "." + parts[1]}},
		"four parts":              {assertions: []string{stolen + "." + parts[2]}},
		"zeroes":                  {assertions: []string{parts[0] + "." + parts[1] + "." + b64(make([]byte, 64))}},
		"a byte more":             {assertions: []string{parts[0] + "." + parts[1] + "." + b64(append(unb64(t, parts[2]), 0))}},
		"longer numbers":          {assertions: []string{parts[0] + "." + parts[1] + "." + b64(slices.Insert(unb64(t, parts[2]), 32, 0))}},
		"a changed payload":       {assertions: []string{parts[0] + "." + b64(bytes.Replace(unb64(t, parts[1]), []byte("alice"), []byte("carol"), 1)) + "." + parts[2]}},
		"payload of no JSON":      {assertions: []string{s.key.signText(parts[0], b64([]byte("hello")))}},
		"payload null":            {assertions: []string{s.key.signText(parts[0], b64([]byte("null")))}},
		"header of no JSON":       {assertions: []string{b64([]byte("{")) + "." + parts[1] + "." + parts[2]}},
		"header null":             {assertions: []string{b64([]byte("null")) + "." + parts[1] + "." + parts[2]}},
		"header too deep":         {assertions: []string{b64(bytes.Repeat([]byte("["), 7000)) + "." + parts[1] + "." + parts[2]}},
	} {
		t.Run(name, func(t *testing.T) {
			if attack.path == "" {
				attack.path = "/v1/hello"
			}
			s.direct(t, attack).refused(t, http.StatusUnauthorized)
		})
	}
}

// testUnknownKids: whoever reaches the app could else make it ask the gateway
// as often as it is asked itself.
func (s *assertionStage) testUnknownKids(t *testing.T) {
	var all sync.WaitGroup
	for worker := range 10 {
		all.Go(func() {
			for i := range 20 {
				r := s.request(t, s.appURL.Load().String(), request{path: "/v1/hello", assertions: []string{
					s.key.sign(map[string]any{"alg": "ES256", "kid": fmt.Sprintf("%d-%d", worker, i)}, s.claims(nil)),
				}})
				response, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				response.Body.Close()
				if response.StatusCode != http.StatusUnauthorized {
					t.Errorf("status %d for an unknown kid", response.StatusCode)
				}
			}
		})
	}
	all.Wait()
	if n := s.fetches.Load(); n != 2 {
		t.Errorf("the keys were fetched %d times, want twice: at first, and once for the unknown kids", n)
	}
	s.direct(t, request{path: "/v1/hello", assertions: []string{s.key.assertion(s.claims(nil))}}).caller(t)
}

func (s *assertionStage) testGatewayGone(t *testing.T) {
	good := request{path: "/v1/hello", assertions: []string{s.key.assertion(s.claims(nil))}}
	s.direct(t, good).caller(t)
	s.direct(t, request{path: "/v1/hello", assertions: []string{newAssertionKey(t).assertion(s.claims(nil))}}).refused(t, http.StatusUnauthorized)
	s.direct(t, good).caller(t)
}

// testBadKeySets: each holds the gateway's key, in a way in which it must not be
// taken.
func (s *assertionStage) testBadKeySets(t *testing.T, set string, app func(*testing.T) *exec.Cmd) {
	jwks := s.jwksURL
	defer func() { s.jwksURL = jwks }()
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, set+strings.Repeat(" ", 64<<10-len(set)))
	})
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, set+strings.Repeat(" ", 64<<10-len(set)+1))
	})
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/good", http.StatusFound) })
	mux.HandleFunc("/error", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, set)
	})
	mux.HandleFunc("/not-json", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, set[:len(set)-1]) })
	mux.HandleFunc("/none", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys": []}`) })
	mux.HandleFunc("/other-use", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Replace(set, `"use":"sig"`, `"use":"enc"`, 1))
	})
	mux.HandleFunc("/off-the-curve", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":%q,"x":%q,"y":%[2]q}]}`, s.key.kid, b64(bytes.Repeat([]byte{1}, 32)))
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		again := time.NewTicker(50 * time.Millisecond)
		defer again.Stop()
		for piece := set; ; piece = " " {
			fmt.Fprint(w, piece)
			w.(http.Flusher).Flush()
			select {
			case <-again.C:
			case <-r.Context().Done(): // the app has hung up
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	for path, status := range map[string]int{
		"/good": http.StatusOK, "/long": http.StatusServiceUnavailable, "/elsewhere": http.StatusServiceUnavailable, "/error": http.StatusServiceUnavailable,
		"/not-json": http.StatusServiceUnavailable, "/none": http.StatusServiceUnavailable, "/other-use": http.StatusServiceUnavailable,
		"/off-the-curve": http.StatusServiceUnavailable, "/endless": http.StatusServiceUnavailable,
	} {
		t.Run(path[1:], func(t *testing.T) {
			s.jwksURL = server.URL + path
			s.startApp(t, app(t))
			got := s.direct(t, request{path: "/v1/hello", assertions: []string{s.key.assertion(s.claims(nil))}})
			if status == http.StatusOK {
				got.caller(t)
				return
			}
			got.refused(t, status)
		})
	}
}

// claims are a good assertion's, changed; nil removes one.
func (s *assertionStage) claims(changes map[string]any) map[string]any {
	now := time.Now().Unix()
	all := map[string]any{
		"iss": s.issuer, "aud": s.upstream, "sub": "alice", "iat": now, "exp": now + 60, "jti": "0",
		"method": http.MethodGet, "path": "/v1/hello", "identity": "users", "claims": map[string]any{"roles": []string{"viewer"}},
	}
	maps.Copy(all, changes)
	return all
}

// A request is one to an app.
type request struct {
	method     string // default: GET
	path       string // as it is sent
	assertions []string
	header     http.Header
}

func (s *assertionStage) request(t *testing.T, base string, q request) *http.Request {
	t.Helper()
	if q.method == "" {
		q.method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(t.Context(), q.method, base+q.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if q.header != nil {
		r.Header = q.header.Clone()
	}
	for _, a := range q.assertions {
		r.Header.Add("X-Sidegate-Assertion", a)
	}
	return r
}

// direct asks the app past the gateway.
func (s *assertionStage) direct(t *testing.T, q request) verified {
	t.Helper()
	return s.answerOf(t, do(t, s.request(t, s.appURL.Load().String(), q)))
}

// A verified is an answer of an app that verifies assertions.
type verified struct{ answer }

func (s *assertionStage) answerOf(t *testing.T, a answer) verified {
	t.Helper()
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q of an app's answer with status %d: %s", got, a.status, a.body)
	}
	return verified{a}
}

type assertedCaller struct {
	UID, Identity, Actor string
	Claims               map[string]any
}

func (v verified) caller(t *testing.T) (who assertedCaller) {
	t.Helper()
	v.want(t, http.StatusOK).decode(t, &who)
	return who
}

func (v verified) refused(t *testing.T, status int) {
	t.Helper()
	v.want(t, status)
	if len(v.body) == 0 {
		return // to HEAD
	}
	var answer map[string]any
	v.decode(t, &answer)
	if text, ok := answer["error"].(string); !ok || text == "" || len(answer) != 1 {
		t.Errorf("the refusal is %s", v.body)
	}
}

// An assertionKey is a key that assertions are signed by: the gateway's, or one
// that somebody else has made.
type assertionKey struct {
	private *ecdsa.PrivateKey
	kid     string
}

func newAssertionKey(t *testing.T) *assertionKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	// RFC 7638, as docs/http.md says.
	thumbprint := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, b64(point[1:33]), b64(point[33:])))
	return &assertionKey{private, b64(thumbprint[:])}
}

func (k *assertionKey) pem(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(k.private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

func (k *assertionKey) assertion(claims map[string]any) string {
	return k.sign(map[string]any{"alg": "ES256", "typ": "JWT", "kid": k.kid}, claims)
}

func (k *assertionKey) sign(header, claims map[string]any) string {
	return k.signText(jwtPart(header), jwtPart(claims))
}

func (k *assertionKey) signText(header, payload string) string {
	signed := header + "." + payload
	r, s, err := ecdsa.Sign(rand.Reader, k.private, digestOf(signed))
	if err != nil {
		panic(err) // of a key that newAssertionKey has made
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + b64(signature[:])
}

func digestOf(text string) []byte {
	digest := sha256.Sum256([]byte(text))
	return digest[:]
}

// jwtPart is a part of a JWT, without the members that are nil.
func jwtPart(members map[string]any) string {
	members = maps.Clone(members)
	maps.DeleteFunc(members, func(_ string, v any) bool { return v == nil })
	text, err := json.Marshal(members)
	if err != nil {
		panic(err) // the tests' own values
	}
	return b64(text)
}

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func unb64(t *testing.T, text string) []byte {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
