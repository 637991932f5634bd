package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"encoding/xml"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const h2specPolicy = `version: sidegate-policy/v1
name: h2spec
identities: [users]
routes:
  - {id: all, path: "/", methods: [GET, HEAD, POST, OPTIONS], upstream: app, allow: public}
`

// TestH2Spec holds the gateway's HTTP/2, with TLS and without, to the
// conformance tests of h2spec: whatever Go's own server passes the gateway
// passes, too.
func TestH2Spec(t *testing.T) {
	program := filepath.Join(t.TempDir(), "h2spec")
	// Of this module, at the version that go.mod names.
	if err := build(filepath.Join(lab.root, "examples", "demo"), program, "github.com/summerwind/h2spec/cmd/h2spec"); err != nil {
		t.Fatal(err)
	}
	for _, encrypted := range []bool{false, true} {
		name := map[bool]string{false: "h2c", true: "TLS"}[encrypted]
		bare := httptest.NewUnstartedServer(lab.app)
		bare.Config.Protocols = new(http.Protocols)
		bare.Config.Protocols.SetHTTP1(true)
		bare.Config.Protocols.SetHTTP2(encrypted)
		bare.Config.Protocols.SetUnencryptedHTTP2(!encrypted)
		bare.Config.ErrorLog = log.New(io.Discard, "", 0) // of what is malformed on purpose
		bare.EnableHTTP2 = encrypted
		s := setup{dir: t.TempDir(), policy: h2specPolicy}
		if encrypted {
			bare.StartTLS()
			s.config = withTLS(t, s.dir)
		} else {
			bare.Start()
		}
		t.Cleanup(bare.Close)
		g := startGateway(t, s)
		want, _ := runH2Spec(t, program, bare.URL, encrypted)
		got, passed := runH2Spec(t, program, g.url, encrypted)
		for _, failure := range got {
			if !slices.Contains(want, failure) {
				t.Errorf("%s: the gateway fails %s, and Go's own server does not", name, failure)
			}
		}
		if passed < 130 {
			t.Errorf("%s: only %d cases passed", name, passed)
		}
		t.Logf("%s: %d passed; failed: %d of the gateway, %d of Go's own server: %q", name, passed, len(got), len(want), want)
	}
}

// runH2Spec gives the names of the cases that failed, and how many passed.
func runH2Spec(t *testing.T, program, address string, encrypted bool) (failed []string, passed int) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(t.TempDir(), "report.xml")
	args := []string{"-S", "-h", host, "-p", port, "-o", "2", "-j", report}
	if encrypted {
		args = append(args, "-t", "-k")
	}
	out, _ := exec.CommandContext(t.Context(), program, args...).CombinedOutput() // its status says that some failed
	data, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("no report: %v\n%s", err, out)
	}
	var suites struct {
		Suites []struct {
			Name  string `xml:"name,attr"`
			Cases []struct {
				Class   string    `xml:"classname,attr"`
				Package string    `xml:"package,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.NewDecoder(bytes.NewReader(data)).Decode(&suites); err != nil {
		t.Fatal(err)
	}
	for _, suite := range suites.Suites {
		for _, c := range suite.Cases {
			switch {
			case c.Failure != nil || c.Error != nil:
				failed = append(failed, c.Package+": "+c.Class)
			case c.Skipped == nil:
				passed++
			}
		}
	}
	return failed, passed
}

// withTLS puts a certificate into the folder and gives the demo's configuration
// with it.
func withTLS(t *testing.T, dir string) string {
	t.Helper()
	_, pair := newAuthority(t, "localhost")
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "tls.key"), "PRIVATE KEY", key)
	writePEM(t, filepath.Join(dir, "tls.crt"), "CERTIFICATE", pair.Certificate...)
	return demoFile(t, "sidegate.yaml", `listen: {address: "${env:DEMO_ADDRESS}"}`, `listen: {address: "${env:DEMO_ADDRESS}", tls: {cert: tls.crt, key: tls.key}}`)
}

func writePEM(t *testing.T, name, kind string, blocks ...[]byte) {
	t.Helper()
	var text strings.Builder
	for _, der := range blocks {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	if err := os.WriteFile(name, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}
