package cmd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sidegate/storage/audit"
	"sidegate/storage/local"
)

// certificate writes one for that time and these names, and its key.
func certificate(t *testing.T, dir string, begin, end time.Time, names ...string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: begin, NotAfter: end, DNSNames: names}
	der, err := x509.CreateCertificate(rand.Reader, form, form, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := errors.Join(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}), 0o600)); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestOnlineListenTLS(t *testing.T) {
	now := time.Now()
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		begin, end time.Duration
		names      []string
		breaks     func(cert, key string) error
		want       status
		says       string
	}{
		"good":    {-day, 90 * day, []string{"gate.example"}, nil, statusOK, "gate.example"},
		"over":    {-2 * day, -day, []string{"gate.example"}, nil, statusFail, "ended on"},
		"early":   {day, 90 * day, []string{"gate.example"}, nil, statusFail, "begins on"},
		"no name": {-day, 90 * day, nil, nil, statusFail, "for no name"},
		"soon":    {-day, 13 * day, []string{"gate.example"}, nil, statusWarn, "ends on"},
		"another's key": {-day, 90 * day, []string{"gate.example"}, func(_, key string) error {
			_, other := certificate(t, t.TempDir(), now, now.Add(day))
			return os.Rename(other, key)
		}, statusFail, "does not start"},
		"gone": {-day, 90 * day, []string{"gate.example"}, func(cert, _ string) error { return os.Remove(cert) }, statusFail, "does not start"},
	} {
		cert, key := certificate(t, t.TempDir(), now.Add(c.begin), now.Add(c.end), c.names...)
		if c.breaks != nil {
			if err := c.breaks(cert, key); err != nil {
				t.Fatal(err)
			}
		}
		config := &Config{}
		config.Listen.TLS.Cert, config.Listen.TLS.Key = cert, key
		if got := checkListenTLS(probe{id: "listen.tls"}, config, now); got.Status != c.want || !strings.Contains(got.Text, c.says) || got.Status != statusOK && got.Do == "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestOnlineUpstream: an app that is not there is a warning, and one that is gets a
// connection and no request.
func TestOnlineUpstream(t *testing.T) {
	asked := func(http.ResponseWriter, *http.Request) { t.Error("the app was sent a request") }
	plain := httptest.NewServer(http.HandlerFunc(asked))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(asked))
	defer secure.Close()
	secure.Config.ErrorLog = nil
	gone := httptest.NewServer(nil)
	gone.Close()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "app.sock")
	l, err := net.Listen("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for text, want := range map[string]status{
		"{url: \"" + plain.URL + "\"}":                                               statusOK,
		"{url: [\"" + plain.URL + "\", \"" + gone.URL + "\"]}":                       statusWarn,
		"{url: \"" + gone.URL + "\"}":                                                statusWarn,
		"{url: \"" + secure.URL + "\"}":                                              statusWarn, // an authority that nobody knows
		"{url: \"" + secure.URL + "\", tls: {ca: " + ca + "}}":                       statusOK,
		"{url: \"" + secure.URL + "\", tls: {ca: " + filepath.Join(dir, "no") + "}}": statusFail,
		"{url: \"unix://" + at + "\"}":                                               statusOK,
		"{url: \"unix://" + at + "2\"}":                                              statusWarn,
	} {
		c := mustLoad(t, place{}, "upstreams: {app: "+text+"}")
		if got := checkUpstream(t.Context(), probe{id: "upstream.reach"}, c.Upstreams[0]); got.Status != want || want != statusOK && got.Do == "" {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

// TestOnlineLedger: what keeps the gateway from its audit log and its sessions is
// found, and nothing is changed by looking.
func TestOnlineLedger(t *testing.T) {
	stopped := func() settings {
		dir := t.TempDir()
		c := &Config{}
		c.Audit.Dir, c.Storage.LocalDir = filepath.Join(dir, "audit"), dir
		return settings{config: c}
	}
	fill := func(s settings) string {
		l, err := audit.Open(audit.Options{Dir: s.config.Audit.Dir})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := l.Append(&audit.Event{Type: audit.TypeSystem, System: &audit.System{Event: "start"}}); err != nil {
				t.Error(err)
			}
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		list, err := filepath.Glob(filepath.Join(s.config.Audit.Dir, "*.jsonl"))
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return list[0]
	}
	for name, c := range map[string]struct {
		breaks func(s settings) error
		want   status
	}{
		"none yet": {func(settings) error { return nil }, statusOK},
		"good":     {func(s settings) error { fill(s); return nil }, statusOK},
		"torn": {func(s settings) error {
			f, err := os.OpenFile(fill(s), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString(`{"seq":4,"ty` + strings.Repeat("\x00", 2<<20))
			return errors.Join(err, f.Close())
		}, statusOK},
		"changed": {func(s settings) error {
			name := fill(s)
			data, err := os.ReadFile(name)
			return errors.Join(err, os.WriteFile(name, []byte(strings.Replace(string(data), `"start"`, `"stop!"`, 1)), 0o600))
		}, statusFail},
		"gone": {func(s settings) error {
			return errors.Join(os.Remove(fill(s)), os.WriteFile(filepath.Join(s.config.Audit.Dir, "shipped.json"), []byte(`{"segment":1,"offset":9,"seq":3}`), 0o600))
		}, statusFail},
	} {
		s := stopped()
		if err := c.breaks(s); err != nil {
			t.Fatal(err)
		}
		before := folderText(t, s.config.Audit.Dir)
		got := checkLedger(probe{id: "audit.ledger"}, s)
		if got.Status != c.want || got.Status == statusFail && got.Do == "" {
			t.Errorf("%s: %+v", name, got)
		}
		if folderText(t, s.config.Audit.Dir) != before {
			t.Errorf("%s: the check changed the folder", name)
		}
		l, err := audit.Open(audit.Options{Dir: s.config.Audit.Dir})
		if (err == nil) != (c.want == statusOK) {
			t.Errorf("%s: the gateway itself: %v", name, err)
		}
		if err == nil {
			_ = l.Close(t.Context())
		}
	}
}

// folderText is all that a folder holds.
func folderText(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	text := ""
	for _, f := range list {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		text += f.Name() + "\n" + string(data) + "\n"
	}
	return text
}

// TestOnlineLock: a lock that cannot be taken keeps the gateway from starting.
func TestOnlineLock(t *testing.T) {
	s := settings{config: &Config{}}
	s.config.Audit.Dir = t.TempDir()
	if err := os.Symlink("lock", filepath.Join(s.config.Audit.Dir, "lock")); err != nil {
		t.Fatal(err)
	}
	if got := checkAuditLock(t.Context(), probe{id: "audit.lock"}, s, nil); got.Status != statusFail || got.Do == "" {
		t.Errorf("%+v", got)
	}
	if l, err := audit.Open(audit.Options{Dir: s.config.Audit.Dir}); err == nil {
		_ = l.Close(t.Context())
		t.Error("the gateway itself starts")
	}
}

func TestOnlineSessions(t *testing.T) {
	runs := false
	s := settings{config: &Config{}}
	s.config.Storage.LocalDir = t.TempDir()
	look := func(want status) {
		t.Helper()
		got := checkSessions(t.Context(), probe{id: "storage.lock"}, s, func(ctx context.Context) bool { return runs })
		if got.Status != want || want == statusFail && got.Do == "" {
			t.Errorf("%+v, want %s", got, want)
		}
	}
	look(statusOK)
	store, err := local.Open(s.config.Storage.LocalDir)
	if err != nil {
		t.Fatal(err)
	}
	look(statusFail)
	runs = true
	look(statusWarn)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	look(statusOK)
	if err := os.WriteFile(filepath.Join(s.config.Storage.LocalDir, "sidegate.db"), []byte("no store at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	look(statusFail)
}

// TestOnlineKeysCache: run starts where the folder is there, and makes it elsewhere.
func TestOnlineKeysCache(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]status{dir: statusOK, filepath.Join(dir, "new"): statusOK, file: statusFail}
	if _, err := os.Stat("/proc/self"); err == nil { // in which nobody makes files
		cases["/proc/self"], cases["/proc/self/keys"] = statusWarn, statusFail
	}
	for at, want := range cases {
		if got := checkKeysCache(probe{id: "keys_cache"}, at); got.Status != want {
			t.Errorf("%s: %+v", at, got)
		}
	}
}

// TestOnlineRevocation: whether users can be asked for is known before a token comes.
func TestOnlineRevocation(t *testing.T) {
	answer, body := http.StatusOK, `{"kind": "identitytoolkit#GetAccountInfoResponse"}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(answer)
		_, _ = w.Write([]byte(body))
	}))
	defer server.Close()
	s := settings{config: &Config{}}
	s.insecure.emulator, s.insecure.authEmulator = true, strings.TrimPrefix(server.URL, "http://")
	look := func() check {
		return checkRevocation(t.Context(), probe{id: "revocation"}, s, &FirebaseIdentity{Project: "demo-x", Revocation: time.Minute})
	}
	if got := look(); got.Status != statusOK {
		t.Errorf("%+v", got)
	}
	answer, body = http.StatusForbidden, `{"error": {"status": "PERMISSION_DENIED", "message": "hunter2"}}`
	if got := look(); got.Status != statusFail || !strings.Contains(got.Text, "403") || strings.Contains(got.Text, "hunter2") {
		t.Errorf("%+v", got)
	}
}
