package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
)

// The issuers of these tests, under names that only the proxy can reach: the
// one of Firebase's keys is Google's own.
const (
	firebaseKeysHost = "www.googleapis.com"
	firebaseKeysPath = "/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
	issuerHost       = "id.acme.example"
	issuerURL        = "https://" + issuerHost
)

// An outside is what lies beyond a company's proxy: the proxy, which takes
// CONNECT alone, and behind it one server for all names, whose certificate is
// of an authority that no machine knows.
type outside struct {
	proxy     *httptest.Server
	issuers   *httptest.Server
	authority string // a file, for SSL_CERT_FILE

	mu     sync.Mutex
	down   bool           // the proxy answers 502
	closed string         // and always for this host:port
	hold   chan struct{}  // not nil: until it is closed the proxy answers nothing
	tunnel map[string]int // by host:port
	asked  map[string]int // by host and path
	more   chan struct{}  // with every CONNECT
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{}
	o.open(t, http.HandlerFunc(o.serveIssuers), firebaseKeysHost, issuerHost)
	return o
}

// open starts the proxy, and behind it the server for these names.
func (o *outside) open(t *testing.T, server http.Handler, hosts ...string) {
	t.Helper()
	o.tunnel, o.asked, o.more = map[string]int{}, map[string]int{}, make(chan struct{}, 1)
	authority, certificate := newAuthority(t, hosts...)
	o.authority = filepath.Join(t.TempDir(), "authority.pem")
	if err := os.WriteFile(o.authority, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	o.issuers = httptest.NewUnstartedServer(server)
	o.issuers.EnableHTTP2 = true
	o.issuers.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	// A handshake that the gateway breaks off is what one of the tests is about.
	o.issuers.Config.ErrorLog = log.New(io.Discard, "", 0)
	o.issuers.StartTLS()
	t.Cleanup(o.issuers.Close)
	o.proxy = httptest.NewServer(http.HandlerFunc(o.serveProxy))
	t.Cleanup(o.proxy.Close)
}

// newAuthority gives an authority's certificate, in PEM, and one that it signed
// for the hosts.
func newAuthority(t *testing.T, hosts ...string) ([]byte, tls.Certificate) {
	t.Helper()
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	root, leaf := newKey(), newKey()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of the tests"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, root.Public(), root)
	if err != nil {
		t.Fatal(err)
	}
	server, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: hosts[0]}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, authority, leaf.Public(), root)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), tls.Certificate{Certificate: [][]byte{server}, PrivateKey: leaf}
}

func (o *outside) serveIssuers(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.asked[r.Host+r.URL.Path]++
	o.mu.Unlock()
	switch r.Host + r.URL.Path {
	case firebaseKeysHost + firebaseKeysPath, issuerHost + "/keys":
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Write(lab.issuer.keys)
	case issuerHost + "/.well-known/openid-configuration":
		json.NewEncoder(w).Encode(map[string]any{"issuer": issuerURL, "jwks_uri": issuerURL + "/keys"})
	default:
		http.NotFound(w, r)
	}
}

// serveProxy opens tunnels, whatever their name, to the one server.
func (o *outside) serveProxy(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.tunnel[r.Method+" "+r.Host]++
	down, hold := o.down || r.Host == o.closed, o.hold
	o.mu.Unlock()
	select {
	case o.more <- struct{}{}:
	default:
	}
	if hold != nil {
		<-hold
	}
	if down || r.Method != http.MethodConnect {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	there, err := net.Dial("tcp", o.issuers.Listener.Addr().String())
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	here, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		there.Close()
		return
	}
	io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
	go pipe(there, here, buffered.Reader)
	go pipe(here, there, bufio.NewReader(there))
}

func pipe(to, from net.Conn, r io.Reader) {
	io.Copy(to, r)
	to.Close()
	from.Close()
}

func (o *outside) setDown(down bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.down = down
}

func (o *outside) counts() (tunnels, asked map[string]int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	tunnels, asked = map[string]int{}, map[string]int{}
	for k, n := range o.tunnel {
		tunnels[k] = n
	}
	for k, n := range o.asked {
		asked[k] = n
	}
	return tunnels, asked
}

// await waits until tunnels to both names were asked for again since before.
func (o *outside) await(t *testing.T, before map[string]int) {
	t.Helper()
	end := time.After(30 * time.Second)
	for {
		now, _ := o.counts()
		again := true
		for _, host := range []string{firebaseKeysHost, issuerHost} {
			again = again && now["CONNECT "+host+":443"] > before["CONNECT "+host+":443"]
		}
		if again {
			return
		}
		select {
		case <-o.more:
		case <-end:
			t.Fatalf("the gateway does not try again: %v", now)
		}
	}
}

// env is how the gateway gets there. Small letters win over capitals, and a
// machine may have them: they are not in the environment that startGateway makes.
func (o *outside) env(authority bool) []string {
	env := []string{"HTTPS_PROXY=" + o.proxy.URL, "NO_PROXY=127.0.0.1,localhost"}
	if authority {
		env = append(env, "SSL_CERT_FILE="+o.authority)
	}
	return env
}

// withIssuers is a setup whose keys are all beyond the proxy.
func (o *outside) withIssuers(t *testing.T, authority bool, config ...string) setup {
	t.Helper()
	if runtime.GOOS == "darwin" || runtime.GOOS == "windows" {
		t.Skip("SKIPPED, NOT TESTED: Go reads SSL_CERT_FILE on neither of darwin and windows")
	}
	return setup{
		config: demoFile(t, "sidegate.yaml",
			"  users: {firebase: {project: demo-sidegate}}\n",
			"  users: {firebase: {project: demo-sidegate}}\n  partners: {oidc: {issuer: \""+issuerURL+"\", audience: photos-api}}\n"+strings.Join(config, "")),
		policy: demoFile(t, "policy.yaml",
			"identities: [users]", "identities: [users, partners]",
			"allow: [{id: user, who: [users]}]}\n  - id: notes", "allow: [{id: user, who: [users]}, {id: partner, who: [partners]}]}\n  - id: notes"),
		flags: []string{"--insecure-keys="}, // Google's own address
		env:   o.env(authority),
	}
}

// partnerToken is one of the issuer's, signed with the lab's key.
func partnerToken(t *testing.T) string {
	t.Helper()
	now := time.Now()
	text, err := jwt.Signed(lab.issuer.signer).Claims(map[string]any{
		"iss": issuerURL, "aud": "photos-api", "sub": "dora", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// strangerToken says the same as alice's, by a key of somebody else's.
func strangerToken(t *testing.T) string {
	t.Helper()
	stranger, err := newIssuer()
	if err != nil {
		t.Fatal(err)
	}
	text, err := stranger.token(users[0], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestKeysThroughAProxy: where the only way out is a proxy, and the proxy's
// company has an authority of its own, the gateway gets its keys by the usual
// variables, and its apps without the proxy.
func TestKeysThroughAProxy(t *testing.T) {
	o := newOutside(t)
	g := startGateway(t, o.withIssuers(t, true))
	var seen struct{ Headers map[string]string }
	ask(t, http.MethodGet, g.url+"/v1/me", token(t, "alice"), "").want(t, http.StatusOK).decode(t, &seen)
	if seen.Headers["X-Sidegate-Uid"] != "alice" || seen.Headers["X-Sidegate-Identity"] != "users" {
		t.Errorf("the app saw %v", seen.Headers)
	}
	ask(t, http.MethodGet, g.url+"/v1/me", partnerToken(t), "").want(t, http.StatusOK).decode(t, &seen)
	if seen.Headers["X-Sidegate-Uid"] != "dora" || seen.Headers["X-Sidegate-Identity"] != "partners" {
		t.Errorf("the app saw %v", seen.Headers)
	}
	ask(t, http.MethodGet, g.url+"/v1/me", strangerToken(t), "").problem(t, http.StatusUnauthorized, "invalid_token")
	tunnels, asked := o.counts()
	for target := range tunnels {
		if target != "CONNECT "+firebaseKeysHost+":443" && target != "CONNECT "+issuerHost+":443" {
			t.Errorf("the proxy was asked for %s", target)
		}
	}
	for _, url := range []string{firebaseKeysHost + firebaseKeysPath, issuerHost + "/.well-known/openid-configuration", issuerHost + "/keys"} {
		if asked[url] != 1 {
			t.Errorf("%d fetches of %s, want one", asked[url], url)
		}
	}
}

// TestKeysOfAnUnknownAuthority: an issuer whose certificate nobody vouches for
// is one that cannot be asked. Nobody is let in, and nobody is told that a good
// token is bad.
func TestKeysOfAnUnknownAuthority(t *testing.T) {
	o := newOutside(t)
	s := o.withIssuers(t, false)
	s.unready = true
	g := startGateway(t, s)
	if err := waitFor(t.Context(), g.adminURL+"/health/live", g.ended); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{token(t, "alice"), partnerToken(t), strangerToken(t)} {
		refusal := eventually(t, g.url+"/v1/me", token).problem(t, http.StatusServiceUnavailable, "unavailable")
		if refusal.header.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
	}
	// It goes on trying, and nothing changes by that.
	before, _ := o.counts()
	o.await(t, before)
	ask(t, http.MethodGet, g.url+"/v1/me", token(t, "alice"), "").problem(t, http.StatusServiceUnavailable, "unavailable")
	ask(t, http.MethodGet, g.adminURL+"/health/ready", "", "").want(t, http.StatusServiceUnavailable)
	if _, asked := o.counts(); len(asked) != 0 {
		t.Errorf("a server of an unknown authority was asked: %v", asked)
	}
	ask(t, http.MethodGet, g.url+"/welcome", "", "").want(t, http.StatusOK) // a public route needs no keys
}

// TestRestartDuringAnOutage: with keys_cache a gateway that is started while its
// issuers are away goes on with the last good keys; without it nobody is let in
// until they are back.
func TestRestartDuringAnOutage(t *testing.T) {
	o := newOutside(t)
	s := o.withIssuers(t, true, "keys_cache: keys\n")
	s.dir = t.TempDir()
	g := startGateway(t, s)
	ask(t, http.MethodGet, g.url+"/v1/me", token(t, "alice"), "").want(t, http.StatusOK)
	if status := g.stop(t); status != 0 {
		t.Fatalf("exit status %d after SIGTERM", status)
	}

	o.setDown(true)
	g = startGateway(t, s) // and it is ready
	eventually(t, g.url+"/v1/me", token(t, "alice")).want(t, http.StatusOK)
	ask(t, http.MethodGet, g.url+"/v1/me", partnerToken(t), "").want(t, http.StatusOK)
	ask(t, http.MethodGet, g.url+"/v1/me", strangerToken(t), "").problem(t, http.StatusUnauthorized, "invalid_token")
	wantStored(t, g, 1)
	// A restart by a crash is none that the keys do not survive.
	g.kill()
	g = startGateway(t, s)
	eventually(t, g.url+"/v1/me", partnerToken(t)).want(t, http.StatusOK)

	bare := o.withIssuers(t, true)
	bare.unready = true
	without := startGateway(t, bare)
	eventually(t, without.url+"/v1/me", token(t, "alice")).problem(t, http.StatusServiceUnavailable, "unavailable")
	ask(t, http.MethodGet, without.adminURL+"/health/ready", "", "").want(t, http.StatusServiceUnavailable)

	o.setDown(false)
	if err := waitFor(t.Context(), without.adminURL+"/health/ready", without.ended); err != nil {
		t.Fatalf("the issuers are back, and the gateway is not: %v", err)
	}
	ask(t, http.MethodGet, without.url+"/v1/me", token(t, "alice"), "").want(t, http.StatusOK)
	g.kill()
	g = startGateway(t, s)
	eventually(t, g.url+"/v1/me", token(t, "alice")).want(t, http.StatusOK)
	wantStored(t, g, 0) // fresh ones take their place before the first request
}

// TestReadyMeansListening: with kept keys a gateway could let people in before
// its issuers have answered, but nobody can connect to it yet: an issuer that
// hangs must not make it ready, which is what sends it traffic.
func TestReadyMeansListening(t *testing.T) {
	o := newOutside(t)
	s := o.withIssuers(t, true, "keys_cache: keys\n")
	s.dir = t.TempDir()
	g := startGateway(t, s)
	ask(t, http.MethodGet, g.url+"/v1/me", token(t, "alice"), "").want(t, http.StatusOK)
	if status := g.stop(t); status != 0 {
		t.Fatalf("exit status %d after SIGTERM", status)
	}
	release := make(chan struct{})
	o.mu.Lock()
	o.hold = release
	o.mu.Unlock()
	defer close(release)
	before, _ := o.counts()
	s.unready = true
	g = startGateway(t, s)
	if err := waitFor(t.Context(), g.adminURL+"/health/live", g.ended); err != nil {
		t.Fatal(err)
	}
	o.await(t, before) // the questions hang
	ready := ask(t, http.MethodGet, g.adminURL+"/health/ready", "", "").status
	if connection, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://")); err == nil {
		connection.Close()
	} else if ready == http.StatusOK {
		t.Errorf("the gateway is ready, and nobody can connect to it: %v", err)
	}
	// It waits for them for a while, and then goes on with the kept keys.
	if err := waitFor(t.Context(), g.adminURL+"/health/ready", g.ended); err != nil {
		t.Fatal(err)
	}
	eventually(t, g.url+"/v1/me", token(t, "alice")).want(t, http.StatusOK)
}

// wantStored fails unless the metric of all key sets is n.
func wantStored(t *testing.T, g *gateway, n int) {
	t.Helper()
	metrics := string(ask(t, http.MethodGet, g.adminURL+"/metrics", "", "").want(t, http.StatusOK).body)
	for _, source := range []string{"https://" + firebaseKeysHost + firebaseKeysPath, issuerURL} {
		found := false
		for line := range strings.Lines(metrics) {
			if strings.HasPrefix(line, `sidegate_keys_stored{source="`+source) {
				found = true
				if !strings.HasSuffix(line, "} "+strconv.Itoa(n)+"\n") {
					t.Errorf("%s, want %d", strings.TrimSpace(line), n)
				}
			}
		}
		if !found {
			t.Errorf("no sidegate_keys_stored of %s", source)
		}
	}
}
