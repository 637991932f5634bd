package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStartRefused holds that what cannot work ends the start with the right
// status and one message that names the culprit.
func TestStartRefused(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		name   string
		setup  setup
		status int
		says   []string
	}{
		{
			"broken config", setup{config: demoFile(t, "sidegate.yaml", "upstreams:", "upstream:")},
			3, []string{"sidegate.yaml:12:1", "upstream", `did you mean "upstreams"`},
		},
		{
			"broken policy", setup{policy: demoFile(t, "policy.yaml", "roles: [admin], methods: [GET]", "rolls: [admin], methods: [GET]")},
			3, []string{"policy.yaml:20:", "rolls", `did you mean "roles"`},
		},
		{
			"F20: an empty policy, which must not mean to allow or to refuse all", setup{policy: "\n"},
			3, []string{"policy.yaml: is empty", "sidegate-policy/v1"},
		},
		{
			"F20: a policy that is cut", setup{policy: demoFile(t, "policy.yaml")[:700]},
			3, []string{"policy.yaml:"},
		},
		{
			"a policy for another gateway", setup{policy: demoFile(t, "policy.yaml", "methods: [GET, PATCH], upstream: app", "methods: [GET, PATCH], upstream: shop")},
			3, []string{"policy.yaml:13:", "shop"},
		},
		{
			"port in use", setup{config: demoFile(t, "sidegate.yaml", "${env:DEMO_ADDRESS}", taken.Addr().String())},
			1, []string{taken.Addr().String(), "in use"},
		},
		{
			"a variable that is not set", setup{config: demoFile(t, "sidegate.yaml", "${env:DEMO_APP_URL}", "${env:DEMO_OTHER_URL}")},
			3, []string{"sidegate.yaml:13:", "DEMO_OTHER_URL"},
		},
		{
			"an emulator without the flag", setup{env: []string{"FIREBASE_AUTH_EMULATOR_HOST=127.0.0.1:9"}},
			3, []string{"FIREBASE_AUTH_EMULATOR_HOST", "--insecure-emulator"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.setup.unready = true
			g := startGateway(t, c.setup)
			if status := g.status(t); status != c.status {
				t.Errorf("exit status %d, want %d", status, c.status)
			}
			messages := complaints(g.log.String())
			if len(messages) != 1 {
				t.Fatalf("%d messages, want one:\n%s", len(messages), g.log)
			}
			for _, part := range c.says {
				if !strings.Contains(messages[0], part) {
					t.Errorf("the message lacks %q: %s", part, messages[0])
				}
			}
		})
	}
}

// complaints are the lines of a start's output that are not the log's.
func complaints(out string) []string {
	var all []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "{") {
			all = append(all, line)
		}
	}
	return all
}

func TestNoConfig(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "sidegate.yaml")
	status, _, stderr := sidegate(t, nil, "run", "--config", missing)
	if status != 1 && status != 3 || len(complaints(stderr)) != 1 || !strings.Contains(stderr, missing) {
		t.Errorf("status %d: %s", status, stderr)
	}
}

func TestUnreachableUpstream(t *testing.T) {
	g := startGateway(t, setup{appURL: "http://" + unusedAddress(t)})
	ask(t, http.MethodGet, g.url+"/v1/me", token(t, "alice"), "").problem(t, http.StatusBadGateway, "upstream_failed")
	wantDecision(t, g, "me allow", 1)
}

// TestNoCredentials: without credentials for the store the gateway starts and
// says so; the app is reached, and a URL to sign is a 503.
func TestNoCredentials(t *testing.T) {
	g := startGateway(t, setup{
		config: withoutCredentials(t),
		env:    []string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="},
	})
	alice := token(t, "alice")
	ask(t, http.MethodGet, g.url+"/v1/me", alice, "").want(t, http.StatusOK)
	refusal := ask(t, http.MethodPost, g.url+"/v1/uploads/presign", alice, `{"contentType": "text/plain", "size": 5}`).
		problem(t, http.StatusServiceUnavailable, "unavailable")
	if refusal.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	warned := false
	for line := range strings.Lines(g.log.String()) {
		warned = warned || strings.Contains(line, "WARN") && strings.Contains(line, "credentials")
	}
	if !warned {
		t.Errorf("no warning at start that there are no credentials:\n%s", g.log)
	}
}

// withoutCredentials is the demo's sidegate.yaml, with the credentials left to
// AWS's default chain.
func withoutCredentials(t *testing.T) string {
	t.Helper()
	return demoFile(t, "sidegate.yaml",
		`    credentials: {access_key: "${env:DEMO_ACCESS_KEY}", secret_key: "${env:DEMO_SECRET_KEY}"}`+"\n", "")
}

// TestUnknownKeys: while the issuer's keys were never fetched, nobody is told
// that a token is bad, and nobody is let in.
func TestUnknownKeys(t *testing.T) {
	g := startGateway(t, setup{
		flags:   []string{"--insecure-keys", "http://" + unusedAddress(t) + "/keys"},
		unready: true,
	})
	if err := waitFor(t.Context(), g.adminURL+"/health/live", g.ended); err != nil {
		t.Fatal(err)
	}
	refusal := eventually(t, g.url+"/v1/me", token(t, "alice")).problem(t, http.StatusServiceUnavailable, "unavailable")
	if refusal.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	if ready := ask(t, http.MethodGet, g.adminURL+"/health/ready", "", ""); ready.status != http.StatusServiceUnavailable {
		t.Errorf("readiness %d while nobody can be verified", ready.status)
	}
}

// TestLogHoldsNoSecrets looks for tokens, keys and signatures in all that the
// gateway wrote.
func TestLogHoldsNoSecrets(t *testing.T) {
	g := startGateway(t, setup{flags: []string{"--log-level", "debug"}})
	alice := token(t, "alice")
	ask(t, http.MethodGet, g.url+"/v1/me?access_token=hidden-in-query", alice, "").want(t, http.StatusOK)
	ask(t, http.MethodGet, g.url+"/v1/me", alice+"x", "").problem(t, http.StatusUnauthorized, "invalid_token")
	u := presign(t, g.url, alice, `{"contentType": "text/plain", "size": 5}`)
	u.put(t, []byte("12345")).want(t, http.StatusOK)
	confirm(t, g.url, alice, u.Session).want(t, http.StatusOK)
	if status := g.stop(t); status != 0 {
		t.Errorf("exit status %d after SIGTERM", status)
	}
	written := g.log.String()
	for _, e := range mustGlob(t, filepath.Join(g.dir, "data", "audit", "*.jsonl")) {
		content, err := os.ReadFile(e)
		if err != nil {
			t.Fatal(err)
		}
		written += string(content)
	}
	parts := strings.Split(alice, ".")
	for name, secret := range map[string]string{
		"the token's payload": parts[1], "the token's signature": parts[2],
		"the store's secret key": lab.store.secretKey, "a signature": "X-Amz-Signature=",
		"a query's value": "hidden-in-query",
	} {
		if strings.Contains(written, secret) {
			t.Errorf("the log or the audit log holds %s", name)
		}
	}
}

func mustGlob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	return files
}
