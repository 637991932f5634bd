package cmd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sidegate/proxy/transport"
)

// An authority signs certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	_, _, a.cert, a.key = a.issue("authority", true)
	return a
}

// issue gives a certificate and its key, in PEM; an authority's own is signed by
// itself.
func (a *authority) issue(name string, isCA bool) (cert, key string, parsed *x509.Certificate, private *ecdsa.PrivateKey) {
	a.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: isCA, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	parent, signer := template, private
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, private.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if parsed, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), pkcs8(a.t, private), parsed, private
}

func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

func upstreamMetrics(t *testing.T) *transport.Metrics {
	t.Helper()
	m, err := transport.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// askedBy sends one request by a transport, on a connection of its own, and gives
// the answer's body.
func askedBy(t *testing.T, transport http.RoundTripper, url string) (string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	response, err := transport.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func TestUpstreamOnASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	app := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "socket "+r.Host) })}
	go app.Serve(listener)
	t.Cleanup(func() { app.Close() })
	c := mustLoad(t, place{}, "upstreams: {app: {url: \"unix://"+path+"\"}}")
	transport, err := newTransport(c.Upstreams[0], upstreamMetrics(t), nobodyAsks)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := askedBy(t, transport, c.Upstreams[0].URL.String()); err != nil || body != "socket localhost" {
		t.Errorf("%q, %v", body, err)
	}
	app.Close()
	if _, err := askedBy(t, transport, c.Upstreams[0].URL.String()); err == nil {
		t.Error("an app that is gone was reached")
	}
}

// TestUpstreamByH2C: as its url says, at each of its addresses; and no route can
// promise a WebSocket there.
func TestUpstreamByH2C(t *testing.T) {
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	app.Config.Protocols = new(http.Protocols)
	app.Config.Protocols.SetUnencryptedHTTP2(true)
	app.Start()
	t.Cleanup(app.Close)
	c := mustLoad(t, place{}, "upstreams: {app: {url: [\"h2c://127.0.0.1:1\", \"h2c://"+app.Listener.Addr().String()+"\"], balance: least_busy}}")
	transport, err := newTransport(c.Upstreams[0], upstreamMetrics(t), nobodyAsks)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := askedBy(t, transport, c.Upstreams[0].URL.String()); err != nil || body != "HTTP/2.0" {
		t.Errorf("%q, %v", body, err)
	}
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, path, "version: sidegate-policy/v1\nroutes:\n  - {id: chat, path: /chat, methods: [GET], websocket: true, allow: public, upstream: app}\n")
	if _, err := loadPolicy(path, c); err == nil || !strings.Contains(err.Error(), "policy.yaml:3:56: upstream `app` is asked by HTTP/2 without TLS (h2c), which has no WebSocket") {
		t.Error(err)
	}
}

func TestUpstreamWithTLS(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	serverCert, serverKey, _, _ := a.issue("app", false)
	pair, err := tls.X509KeyPair([]byte(serverCert), []byte(serverKey))
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(a.cert)
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Proto+" "+r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	app.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}
	app.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes fail on purpose
	app.StartTLS()
	t.Cleanup(app.Close)

	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	put := func(name string) {
		cert, key, _, _ := a.issue(name, false)
		write(t, file("c.crt"), cert)
		write(t, file("c.key"), key)
	}
	write(t, file("ca.crt"), a.pem())
	write(t, file("stranger.crt"), stranger.pem())
	put("first")
	at, err := url.Parse(app.URL)
	if err != nil {
		t.Fatal(err)
	}
	u := UpstreamConfig{Name: "app", URL: at, Addresses: []string{at.Host}}
	u.TLS.CA, u.TLS.Cert, u.TLS.Key = file("ca.crt"), file("c.crt"), file("c.key")
	transport, err := newTransport(u, upstreamMetrics(t), nobodyAsks)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := askedBy(t, transport, app.URL); err != nil || body != "HTTP/1.1 first" {
		t.Errorf("%q, %v", body, err)
	}
	put("second one")
	if body, err := askedBy(t, transport, app.URL); err != nil || body != "HTTP/1.1 second one" {
		t.Errorf("replaced: %q, %v", body, err)
	}
	// Half of a replacement, and garbage: the last good one stays.
	_, otherKey, _, _ := a.issue("third", false)
	for name, key := range map[string]string{"a key of another certificate": otherKey + "\n", "garbage": "garbage"} {
		write(t, file("c.key"), key)
		if body, err := askedBy(t, transport, app.URL); err != nil || body != "HTTP/1.1 second one" {
			t.Errorf("%s: %q, %v", name, body, err)
		}
	}

	for name, change := range map[string]func(*UpstreamConfig){
		"no certificate":              func(u *UpstreamConfig) { u.TLS.Cert, u.TLS.Key = "", "" },
		"the machine's authorities":   func(u *UpstreamConfig) { u.TLS.CA = "" },
		"the authority of a stranger": func(u *UpstreamConfig) { u.TLS.CA = file("stranger.crt") },
	} {
		put("again")
		changed := u
		change(&changed)
		transport, err := newTransport(changed, upstreamMetrics(t), nobodyAsks)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := askedBy(t, transport, app.URL); err == nil {
			t.Errorf("%s: %q", name, body)
		}
	}
	write(t, file("empty.crt"), "")
	for name, change := range map[string]func(*UpstreamConfig){
		"no such file":      func(u *UpstreamConfig) { u.TLS.CA = file("nowhere.crt") },
		"no certificate":    func(u *UpstreamConfig) { u.TLS.CA = file("empty.crt") },
		"a key that is not": func(u *UpstreamConfig) { u.TLS.Key = file("ca.crt") },
	} {
		changed := u
		change(&changed)
		if _, err := newTransport(changed, upstreamMetrics(t), nobodyAsks); err == nil || !strings.Contains(err.Error(), ".crt") || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func nobodyAsks(error) {}
