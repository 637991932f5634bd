package cmd

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/proxy"
)

// serveTLS answers as the public listener of a configuration does, with who
// connected.
func serveTLS(t *testing.T, c *Config, refused ...func(error)) string {
	t.Helper()
	config, err := c.listenTLS(append(refused, nobodyAsks)[0])
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := publicServer(c)
	server.ErrorLog = log.New(io.Discard, "", 0)
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		io.WriteString(w, r.Proto+" "+name)
	})
	handshakes := newTLSListener(listener, config, time.Minute, func(net.Addr, error) {}) // they fail on purpose
	go server.Serve(proxy.StrictFraming(handshakes, nil))
	t.Cleanup(func() { server.Close() })
	return listener.Addr().String()
}

// A tlsClient connects as one browser or service does.
type tlsClient struct {
	roots *x509.CertPool
	cert  *tls.Certificate
	cache tls.ClientSessionCache
	max   uint16
	old   bool // knows HTTP/1.1 only
}

// get gives the answer, and the name in the server's certificate.
func (c tlsClient) get(t *testing.T, address string) (body, server string, err error) {
	t.Helper()
	config := &tls.Config{RootCAs: c.roots, ClientSessionCache: c.cache, MaxVersion: c.max, NextProtos: []string{"h2", "http/1.1"}}
	if c.cert != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.cert, nil }
	}
	if c.old {
		config.NextProtos = nil
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: !c.old}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(r)
	if err != nil {
		return "", "", err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return string(data), response.TLS.PeerCertificates[0].Subject.CommonName, err
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) pair(name string) *tls.Certificate {
	a.t.Helper()
	cert, key, _, _ := a.issue(name, false)
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		a.t.Fatal(err)
	}
	return &pair
}

func TestListenWithTLS(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	c := &Config{}
	c.Listen.TLS.Cert, c.Listen.TLS.Key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	put := func(name string) {
		cert, key, _, _ := a.issue(name, false)
		write(t, c.Listen.TLS.Cert, cert)
		write(t, c.Listen.TLS.Key, key)
	}
	put("first")
	var refused []error
	address := serveTLS(t, c, func(err error) { refused = append(refused, err) })
	client := tlsClient{roots: a.pool()}
	want := func(what, name string) {
		t.Helper()
		if body, server, err := client.get(t, address); err != nil || server != name || body != "HTTP/2.0 nobody" {
			t.Errorf("%s: %q of %s, %v", what, body, server, err)
		}
	}
	want("at first", "first")
	old := client
	old.old = true
	if body, _, err := old.get(t, address); err != nil || body != "HTTP/1.1 nobody" {
		t.Errorf("without HTTP/2: %q, %v", body, err)
	}
	put("the second")
	want("replaced", "the second")
	write(t, c.Listen.TLS.Key, "garbage")
	want("the key is garbage", "the second")
	want("and still", "the second")
	if len(refused) != 1 || !strings.Contains(refused[0].Error(), c.Listen.TLS.Key) {
		t.Errorf("told of %v", refused) // once
	}
	put("number three")
	want("mended", "number three")
	if err := os.Remove(c.Listen.TLS.Cert); err != nil {
		t.Fatal(err)
	}
	want("no file", "number three")
	want("no file yet", "number three")
	if len(refused) != 2 {
		t.Errorf("told of %v", refused)
	}
	if _, _, err := (tlsClient{roots: a.pool(), max: tls.VersionTLS11}).get(t, address); err == nil {
		t.Error("TLS 1.1 was spoken")
	}
	if _, _, err := (tlsClient{roots: newAuthority(t).pool()}).get(t, address); err == nil {
		t.Error("the test trusts everybody")
	}
}

func TestListenWithMutualTLS(t *testing.T) {
	a, before, after := newAuthority(t), newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	c := &Config{}
	c.Listen.TLS.Cert, c.Listen.TLS.Key, c.Listen.TLS.ClientCA = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt")
	cert, key, _, _ := a.issue("gateway", false)
	write(t, c.Listen.TLS.Cert, cert)
	write(t, c.Listen.TLS.Key, key)
	write(t, c.Listen.TLS.ClientCA, before.pem())
	address := serveTLS(t, c)
	known, nobody := tlsClient{roots: a.pool(), cert: before.pair("service"), cache: tls.NewLRUClientSessionCache(8)}, tlsClient{roots: a.pool()}
	stranger := tlsClient{roots: a.pool(), cert: after.pair("stranger")}
	for range 2 { // the second time with whatever the first left in the session cache
		if body, _, err := known.get(t, address); err != nil || body != "HTTP/2.0 service" {
			t.Errorf("%q, %v", body, err)
		}
	}
	for name, c := range map[string]tlsClient{"nobody": nobody, "of another authority": stranger} {
		if body, _, err := c.get(t, address); err == nil {
			t.Errorf("%s: %q", name, body)
		}
	}
	// The authority is replaced: who had a certificate of the old one is out,
	// also with a session of before.
	write(t, c.Listen.TLS.ClientCA, "# a comment first\n"+after.pem())
	if body, _, err := known.get(t, address); err == nil {
		t.Errorf("of the old authority: %q", body)
	}
	if body, _, err := stranger.get(t, address); err != nil || body != "HTTP/2.0 stranger" {
		t.Errorf("of the new one: %q, %v", body, err)
	}
	// A file that is no good changes nothing, and lets nobody in.
	write(t, c.Listen.TLS.ClientCA, "garbage")
	if body, _, err := nobody.get(t, address); err == nil {
		t.Errorf("nobody: %q", body)
	}
	if body, _, err := stranger.get(t, address); err != nil || body != "HTTP/2.0 stranger" {
		t.Errorf("of the last good authority: %q, %v", body, err)
	}
}

// withCertificate is a configuration whose listener has one.
func withCertificate(t *testing.T, a *authority) *Config {
	t.Helper()
	dir := t.TempDir()
	c := &Config{}
	c.Listen.TLS.Cert, c.Listen.TLS.Key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cert, key, _, _ := a.issue("gateway", false)
	write(t, c.Listen.TLS.Cert, cert)
	write(t, c.Listen.TLS.Key, key)
	return c
}

// TestPlainHTTPIsTold: who forgets the s reads why nothing comes.
func TestPlainHTTPIsTold(t *testing.T) {
	a := newAuthority(t)
	c := withCertificate(t, a)
	address := serveTLS(t, c)
	for _, begin := range []string{"GET / HTTP/1.1\r\n", "DELETE /a HTTP/1.1\r\n"} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, begin)
		if answer, _ := io.ReadAll(conn); !strings.HasPrefix(string(answer), "HTTP/1.0 400 ") {
			t.Errorf("%q", answer)
		}
		conn.Close()
	}
}

// TestFramingInsideTLS: a request that says in two ways where it ends is refused
// there, too, and the next bytes are no request.
func TestFramingInsideTLS(t *testing.T) {
	a := newAuthority(t)
	c := withCertificate(t, a)
	conn, err := tls.Dial("tcp", serveTLS(t, c), &tls.Config{RootCAs: a.pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n")
	if all, _ := io.ReadAll(conn); !strings.HasPrefix(string(all), "HTTP/1.1 400 ") || strings.Count(string(all), "HTTP/1.1") != 1 {
		t.Errorf("%q", all)
	}
}

// TestPanicInAHandshake ends one connection; the next is answered.
func TestPanicInAHandshake(t *testing.T) {
	a := newAuthority(t)
	config, err := withCertificate(t, a).listenTLS(nobodyAsks)
	if err != nil {
		t.Fatal(err)
	}
	var broken atomic.Bool
	inner := config.GetCertificate
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if broken.CompareAndSwap(false, true) {
			panic("the certificate broke")
		}
		return inner(hello)
	}
	bare, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	l := newTLSListener(bare, config, time.Minute, func(_ net.Addr, err error) { told <- err })
	defer l.Close()
	if conn, err := tls.Dial("tcp", bare.Addr().String(), &tls.Config{RootCAs: a.pool()}); err == nil {
		conn.Close()
		t.Error("the handshake came to an end")
	}
	if err := <-told; !strings.Contains(err.Error(), "the certificate broke") {
		t.Error(err)
	}
	go tls.Dial("tcp", bare.Addr().String(), &tls.Config{RootCAs: a.pool()})
	if conn, err := l.Accept(); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
}

// TestSlowHandshakeDelaysNobody: the next caller is answered meanwhile.
func TestSlowHandshakeDelaysNobody(t *testing.T) {
	a := newAuthority(t)
	c := withCertificate(t, a)
	address := serveTLS(t, c)
	for range 20 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write([]byte{22, 3, 1}) // and no more
	}
	if body, _, err := (tlsClient{roots: a.pool()}).get(t, address); err != nil || body != "HTTP/2.0 nobody" {
		t.Errorf("%q, %v", body, err)
	}
}

// A file that is no good at the start is told, and the gateway does not start.
func TestListenWithBadFiles(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	good := &Config{}
	good.Listen.TLS.Cert, good.Listen.TLS.Key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cert, key, _, _ := a.issue("gateway", false)
	write(t, good.Listen.TLS.Cert, cert)
	write(t, good.Listen.TLS.Key, key)
	_, other, _, _ := a.issue("other", false)
	write(t, filepath.Join(dir, "other.key"), other)
	for name, change := range map[string]func(*Config){
		"no such certificate":          func(c *Config) { c.Listen.TLS.Cert = filepath.Join(dir, "nowhere.crt") },
		"the key of another":           func(c *Config) { c.Listen.TLS.Key = filepath.Join(dir, "other.key") },
		"no such authority":            func(c *Config) { c.Listen.TLS.ClientCA = filepath.Join(dir, "nowhere.crt") },
		"an authority that is a key":   func(c *Config) { c.Listen.TLS.ClientCA = filepath.Join(dir, "tls.key") },
		"a certificate that is a key":  func(c *Config) { c.Listen.TLS.Cert = filepath.Join(dir, "tls.key") },
		"a folder for the certificate": func(c *Config) { c.Listen.TLS.Cert = dir },
	} {
		c := *good
		change(&c)
		if _, err := c.listenTLS(nobodyAsks); err == nil || !strings.HasPrefix(err.Error(), "listen.tls.") || strings.Contains(err.Error(), "BEGIN") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if config, err := (&Config{}).listenTLS(nobodyAsks); config != nil || err != nil {
		t.Errorf("%v, %v", config, err)
	}
}
