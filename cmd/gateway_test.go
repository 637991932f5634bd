package cmd

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/storage/audit"
)

// An issuer signs tokens as Firebase does and publishes its key.
type issuer struct {
	key  *rsa.PrivateKey
	keys *httptest.Server
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	i.keys = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{
			"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k1",
			"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
			"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		}}})
	}))
	t.Cleanup(i.keys.Close)
	return i
}

func (i *issuer) token(t *testing.T, uid string) string {
	t.Helper()
	now := time.Now().Unix()
	part := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	signed := part(map[string]any{"alg": "RS256", "kid": "k1", "typ": "JWT"}) + "." + part(map[string]any{
		"iss": "https://securetoken.google.com/demo-x", "aud": "demo-x", "sub": uid,
		"iat": now, "exp": now + 3600, "auth_time": now, "firebase": map[string]any{"sign_in_provider": "password"},
	})
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// lines is a log that can be waited for. The line of each request is left out:
// under load there are too many to search.
type lines struct {
	mu   sync.Mutex
	all  bytes.Buffer
	more chan struct{}
}

func newLines() *lines { return &lines{more: make(chan struct{}, 1)} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(p) {
		if !bytes.Contains(line, []byte(`"message":"request"`)) {
			l.all.Write(line)
		}
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// await gives the first match of the expression, when it comes.
func (l *lines) await(t *testing.T, expr string) []string {
	t.Helper()
	re := regexp.MustCompile(expr)
	end := time.After(20 * time.Second)
	for {
		if m := re.FindStringSubmatch(l.String()); m != nil {
			return m
		}
		select {
		case <-l.more:
		case <-end:
			t.Fatalf("no %q in the log:\n%s", expr, l)
		}
	}
}

// awaitCount waits until the text stands n times in the log.
func (l *lines) awaitCount(t *testing.T, text string, n int) {
	t.Helper()
	end := time.After(20 * time.Second)
	for strings.Count(l.String(), text) < n {
		select {
		case <-l.more:
		case <-end:
			t.Fatalf("no %d times %q in the log:\n%s", n, text, l)
		}
	}
}

// A running is a gateway in this process, through Run as main calls it.
type running struct {
	dir, url, admin string
	log, stdout     *lines
	stop            func() error
}

const testPolicy = `version: sidegate-policy/v1
name: %s
identities: [users]
routes:
  - {id: app, path: "/app/{rest...}", methods: [GET, POST], upstream: app, allow: [{who: [users]}]}
  - {id: open, path: /open, methods: [GET], upstream: app, allow: public}
  - {id: socket, path: /socket, methods: [GET], upstream: app, websocket: true, allow: public}
`

// startGateway runs one. Of args those that begin with env: are variables, and
// with listen: keys of that mapping, where shutdown_grace is 3s else; after
// "counted" refusals are counted as they are in use, and not all on record.
func startGateway(t *testing.T, upstream string, i *issuer, extra string, args ...string) *running {
	t.Helper()
	g := &running{dir: t.TempDir(), log: newLines(), stdout: newLines()}
	env := []string{"KEY=sesame-open-secret"}
	listen := ", shutdown_grace: 3s"
	everyRefusal := true
	for len(args) > 0 {
		if args[0] == "counted" {
			everyRefusal = false
		} else if value, ok := strings.CutPrefix(args[0], "env:"); ok {
			env = append(env, value)
		} else if value, ok := strings.CutPrefix(args[0], "listen:"); ok {
			listen = ", " + value
		} else {
			break
		}
		args = args[1:]
	}
	g.write(t, "policy.yaml", fmt.Sprintf(testPolicy, "first"))
	g.write(t, "sidegate.yaml", fmt.Sprintf(`version: sidegate-config/v1
policy: policy.yaml
listen: {address: "127.0.0.1:0"%s}
admin: {address: "127.0.0.1:0"}
identities: {users: {firebase: {project: demo-x}}}
upstreams: {app: {url: "%s", timeout: 5s}}
buckets: {default: {bucket: unused, credentials: {access_key: a, secret_key: "${env:KEY}"}}}
%s`, listen, upstream, extra))
	args = append([]string{"run", "--config", filepath.Join(g.dir, "sidegate.yaml"), "--insecure-ephemeral", "--insecure-keys", i.keys.URL}, args...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	p := &program{env: newEnvironment(env), stdout: g.stdout, stderr: g.log, everyRefusal: everyRefusal}
	go func() { done <- p.run(ctx, args) }()
	var once sync.Once
	var result error
	g.stop = func() error {
		cancel()
		once.Do(func() { result = <-done })
		return result
	}
	t.Cleanup(func() { _ = g.stop() })
	m := g.log.await(t, `"address":"([^"]+)","admin":"([^"]+)"`)
	g.url, g.admin = "http://"+m[1], "http://"+m[2]
	return g
}

func (g *running) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (g *running) get(t *testing.T, path, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, g.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// events reads the ledger of a gateway that has stopped.
func (g *running) events(t *testing.T) []*audit.Event {
	t.Helper()
	var out []*audit.Event
	for line, err := range audit.Lines(filepath.Join(g.dir, "data", "audit")) {
		if err != nil {
			t.Fatal(err)
		}
		e, err := line.Event()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// TestReloadKeepsTheLastGoodPolicy: F20. A file that is broken, empty, cut or
// gone changes nothing but the log, the metric and the audit log.
func TestReloadKeepsTheLastGoodPolicy(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Sidegate-Uid"))
	}))
	defer up.Close()
	i := newIssuer(t)
	g := startGateway(t, up.URL, i, "")
	token := i.token(t, "alice")
	if status, body := g.get(t, "/app/x", token); status != 200 || body != "alice" {
		t.Fatalf("got %d %q", status, body)
	}
	good := fmt.Sprintf(testPolicy, "first")
	for n, broken := range []string{good[:60], "", "version: sidegate-policy/v1\nroutes: []\n", "\x00\x01", strings.Replace(good, "upstream: app", "upstream: nobody", 1)} {
		g.write(t, "policy.yaml", broken)
		g.log.awaitCount(t, "the new policy is refused", n+1)
		if status, _ := g.get(t, "/app/x", token); status != 200 {
			t.Fatalf("after broken policy %d: %d", n, status)
		}
	}
	if err := os.Remove(filepath.Join(g.dir, "policy.yaml")); err != nil {
		t.Fatal(err)
	}
	g.log.awaitCount(t, "the new policy is refused", 6)
	metrics := g.metrics(t)
	for _, want := range []string{`sidegate_policy_reloads_total{result="refused"} 6`, "sidegate_policy_last_reload_ok 0"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics have no %q", want)
		}
	}
	second := strings.Replace(good, "allow: public", "allow: optional", 1)
	g.write(t, "policy.yaml", second)
	g.log.await(t, "the policy was replaced")
	if status, _ := g.get(t, "/open", ""); status != 200 {
		t.Fatal("after the good one")
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	refused, loaded := 0, ""
	last := ""
	events := g.events(t)
	checkSystemEvents(t, events, "start", "stop", "policy_loaded", "policy_refused")
	for _, e := range events {
		switch {
		case e.System != nil && e.System.Event == "policy_refused":
			refused++
		case e.System != nil && e.System.Event == "policy_loaded":
			loaded = e.System.Detail["policy_sha256"]
		case e.Decision != nil:
			last = e.Decision.Policy.SHA256
		}
	}
	if refused != 6 || loaded != sha(second) || last != loaded {
		t.Errorf("on record: %d refused, loaded %s, last decision by %s", refused, loaded, last)
	}
	if strings.Contains(g.log.String(), "sesame-open-secret") {
		t.Error("a secret is in the log")
	}
}

// TestReloadUnderLoadIsAtomic: F21. Every decision is by exactly one of the
// policies that were published, and the answer is that policy's.
func TestReloadUnderLoadIsAtomic(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	i := newIssuer(t)
	g := startGateway(t, up.URL, i, "")
	token := i.token(t, "alice")
	// Two policies that differ in two places at once: /app/a and /app/b are
	// allowed together or not at all.
	open := fmt.Sprintf(testPolicy, "open")
	closed := strings.Replace(open, "{who: [users]}", "{who: [users], uid: nobody}", 1)
	allows := map[string]bool{sha(fmt.Sprintf(testPolicy, "first")): true, sha(open): true, sha(closed): false}
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					g.get(t, "/app/a", token)
				}
			}
		})
	}
	for n := range 12 {
		text := open
		if n%2 == 0 {
			text = closed
		}
		next := filepath.Join(g.dir, "next")
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(g.dir, "policy.yaml")); err != nil {
			t.Fatal(err)
		}
		g.log.awaitCount(t, "the policy was replaced", n+1)
	}
	close(stop)
	load.Wait()
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, e := range g.events(t) {
		if e.Decision == nil {
			continue
		}
		allowed, published := allows[e.Decision.Policy.SHA256]
		if !published || allowed != (e.Decision.Effect == "allow") {
			t.Fatalf("decision %+v", e.Decision)
		}
		seen[e.Decision.Policy.SHA256]++
	}
	if len(seen) < 2 {
		t.Errorf("decisions by %d policies only", len(seen))
	}
}

// TestShutdownLetsRequestsEnd: F17 in small. A request that runs ends, a
// tunnel is cut, the stop is on record, the exit is clean.
func TestShutdownLetsRequestsEnd(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/app/slow" {
			close(arrived)
			<-release
		}
		fmt.Fprint(w, "whole")
	}))
	defer up.Close()
	i := newIssuer(t)
	g := startGateway(t, up.URL, i, "")
	token := i.token(t, "alice")
	type answer struct {
		status int
		body   string
	}
	got := make(chan answer, 1)
	go func() {
		status, body := g.get(t, "/app/slow", token)
		got <- answer{status, body}
	}()
	<-arrived
	stopped := make(chan error, 1)
	go func() { stopped <- g.stop() }()
	g.log.await(t, `"message":"stopping"`)
	close(release)
	if a := <-got; a.status != 200 || a.body != "whole" {
		t.Errorf("the running request got %+v", a)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	events := g.events(t)
	if last := events[len(events)-1]; last.System == nil || last.System.Event != "stop" {
		t.Errorf("the last event is %+v", last)
	}
	outcomes := 0
	for _, e := range events {
		if e.Outcome != nil && e.Outcome.Status == 200 {
			outcomes++
		}
	}
	if outcomes != 1 {
		t.Errorf("%d outcomes", outcomes)
	}
}

// TestShutdownCutsWhatDoesNotEnd: the grace is kept, and what was cut is on
// record as cut.
func TestShutdownCutsWhatDoesNotEnd(t *testing.T) {
	arrived := make(chan struct{})
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		close(arrived)
		<-r.Context().Done()
	}))
	defer up.Close()
	i := newIssuer(t)
	g := startGateway(t, up.URL, i, "")
	req, _ := http.NewRequest(http.MethodGet, g.url+"/app/endless", nil)
	req.Header.Set("Authorization", "Bearer "+i.token(t, "alice"))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-arrived
	begin := time.Now()
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("stopping took %s with a grace of 3s", took)
	}
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("the caller took half an answer for a whole one")
	}
	for _, e := range g.events(t) {
		if e.Outcome != nil && e.Outcome.Truncated && e.Outcome.Error == "gateway_stopped" {
			return
		}
	}
	t.Error("no outcome on record that says who cut it")
}

func TestStartFaults(t *testing.T) {
	i := newIssuer(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		name, config, policy string
		args, env            []string
		status               int
		want                 string
	}{
		{name: "broken config", config: "listen: {adress: x}", status: 3, want: `sidegate.yaml:2:10: unknown key .listen.adress.; did you mean "address"`},
		{name: "broken policy", policy: "version: sidegate-policy/v1\nroutes:\n  - {id: a, path: /x, methods: [GET], allow: public}\n", status: 3, want: `policy.yaml:3:5: a route has exactly one of`},
		{name: "port in use", config: "listen: {address: \"" + taken.Addr().String() + "\"}", status: 1, want: `listen.address: .*another process listens there`},
		{name: "auth emulator without its flag", env: []string{"FIREBASE_AUTH_EMULATOR_HOST=127.0.0.1:9099"}, status: 3, want: `FIREBASE_AUTH_EMULATOR_HOST is set.*--insecure-emulator`},
		{name: "memory disk", env: []string{"K_SERVICE=x"}, status: 3, want: `firestore`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name, text string) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			listen := "listen: {address: \"127.0.0.1:0\"}"
			if c.config != "" {
				listen = c.config
			}
			write("sidegate.yaml", "version: sidegate-config/v1\n"+listen+"\nadmin: {address: \"127.0.0.1:0\"}\npolicy: policy.yaml\nidentities: {users: {firebase: {project: demo-x}}}\nupstreams: {app: {url: \"http://127.0.0.1:9\"}}\nbuckets: {default: {bucket: unused}}\n")
			policy := fmt.Sprintf(testPolicy, "first")
			if c.policy != "" {
				policy = c.policy
			}
			write("policy.yaml", policy)
			args := append([]string{"run", "--config", filepath.Join(dir, "sidegate.yaml"), "--insecure-keys", i.keys.URL}, c.args...)
			if len(c.env) == 0 || !strings.HasPrefix(c.env[0], "K_SERVICE") {
				args = append(args, "--insecure-ephemeral")
			}
			log := newLines()
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			err := Run(ctx, args, c.env, io.Discard, log)
			if got := ExitStatus(err); got != c.status {
				t.Errorf("exit status %d, want %d (%v)", got, c.status, err)
			}
			if !regexp.MustCompile(c.want).MatchString(log.String()) {
				t.Errorf("no %q in:\n%s", c.want, log)
			}
		})
	}
}

// TestTwoGatewaysOneLedger: F30.
func TestTwoGatewaysOneLedger(t *testing.T) {
	i := newIssuer(t)
	g := startGateway(t, "http://127.0.0.1:9", i, "")
	log := newLines()
	err := Run(context.Background(), []string{"run", "--config", filepath.Join(g.dir, "sidegate.yaml"), "--insecure-ephemeral", "--insecure-keys", i.keys.URL}, []string{"KEY=x"}, io.Discard, log)
	if ExitStatus(err) != 1 || !strings.Contains(log.String(), "another process writes to this audit log") {
		t.Errorf("%v\n%s", err, log)
	}
}

// TestNotReadyUntilKeysCome: F7. No keys: 503 and not 401, not ready; they
// come, and so does readiness.
func TestNotReadyUntilKeysCome(t *testing.T) {
	i := newIssuer(t)
	handler := i.keys.Config.Handler
	var mu sync.Mutex
	down := true
	i.keys.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if down {
			http.Error(w, "sorry", http.StatusInternalServerError)
			return
		}
		handler.ServeHTTP(w, r)
	})
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	g := startGateway(t, up.URL, i, "")
	token := i.token(t, "alice")
	if status, body := g.get(t, "/app/x", token); status != 503 || !strings.Contains(body, `"code":"unavailable"`) {
		t.Errorf("without keys: %d %s", status, body)
	}
	ready := func() int {
		res, err := http.Get(g.admin + "/health/ready")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if ready() != 503 {
		t.Error("ready without keys")
	}
	if status, _ := g.get(t, "/open", ""); status != 200 {
		t.Error("a public route needs no keys")
	}
	mu.Lock()
	down = false
	mu.Unlock()
	end := time.After(10 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ready() != 200 {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("not ready after the keys came back")
		}
	}
	if status, _ := g.get(t, "/app/x", token); status != 200 {
		t.Errorf("with keys: %d", status)
	}
}

// TestShutdownCutsTunnels: what was upgraded is not the server's any more, and
// ends all the same.
func TestShutdownCutsTunnels(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, brw)
	}))
	defer up.Close()
	i := newIssuer(t)
	g := startGateway(t, up.URL, i, "")
	g.write(t, "policy.yaml", strings.Replace(fmt.Sprintf(testPolicy, "ws"), "methods: [GET, POST]", "methods: [GET], websocket: true", 1))
	g.log.await(t, "the policy was replaced")
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /app/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer %s\r\n\r\nping", i.token(t, "alice"))
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%v %v", res, err)
	}
	echo := make([]byte, 4)
	if _, err := io.ReadFull(r, echo); err != nil || string(echo) != "ping" {
		t.Fatalf("%q %v", echo, err)
	}
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("the tunnel outlived the gateway")
	}
	for _, e := range g.events(t) {
		if e.Outcome != nil && e.Outcome.Status == 101 && e.Outcome.BytesIn > 0 && e.Outcome.BytesOut > 0 && e.Outcome.Truncated && e.Outcome.Error == "gateway_stopped" {
			return
		}
	}
	t.Error("the tunnel has no outcome on record")
}

// TestAdminListener: what probes and people ask.
func TestAdminListener(t *testing.T) {
	i := newIssuer(t)
	g := startGateway(t, "http://127.0.0.1:9", i, "")
	for path, want := range map[string]string{
		"/health/live": `"ok"`, "/healthz": `"ok"`, "/ping": `"ok"`, "/health/ready": `"ok"`, "/readyz": `"ok"`, "/health/started": `"ok"`,
		"/version": `"platform"`, "/metrics": `sidegate_insecure{switch="keys"} 1`,
	} {
		res, err := http.Get(g.admin + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d, no %q", path, res.StatusCode, want)
		}
		// None of it is for the public.
		if status, _ := g.get(t, path, ""); status != 404 {
			t.Errorf("%s on the public listener: %d", path, status)
		}
	}
	log := newLines()
	if err := Run(t.Context(), []string{"health", "--address", strings.TrimPrefix(g.admin, "http://")}, nil, log, log); err != nil {
		t.Error(err, log)
	}
}

// TestHealthBeforeReady: a gateway that was never ready lives and has not
// started: it is not to take the place of one that works.
func TestHealthBeforeReady(t *testing.T) {
	g := startGateway(t, "http://127.0.0.1:9", newIssuer(t), "", "--insecure-keys", "http://127.0.0.1:9")
	address := strings.TrimPrefix(g.admin, "http://")
	for flag, want := range map[string]int{"--live": 0, "--started": exitFailed, "--live=false": exitFailed} {
		err := Run(t.Context(), []string{"health", flag, "--address", address}, nil, io.Discard, io.Discard)
		if ExitStatus(err) != want {
			t.Errorf("%s: status %d, want %d: %v", flag, ExitStatus(err), want, err)
		}
	}
}

// TestDrainDelay: not ready, and still answering; it started, and lives.
func TestDrainDelay(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	i := newIssuer(t)
	g := startGateway(t, up.URL, i, "name: drained\n")
	g.stop()
	text, err := os.ReadFile(filepath.Join(g.dir, "sidegate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	g.write(t, "sidegate.yaml", strings.Replace(string(text), "shutdown_grace: 3s", "shutdown_grace: 3s, drain_delay: 1s", 1))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	log := newLines()
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, []string{"run", "--config", filepath.Join(g.dir, "sidegate.yaml"), "--insecure-ephemeral", "--insecure-keys", i.keys.URL}, []string{"KEY=x"}, io.Discard, log)
	}()
	m := log.await(t, `"address":"([^"]+)","admin":"([^"]+)"`)
	g.url, g.admin = "http://"+m[1], "http://"+m[2]
	health := func(flag string) error {
		return Run(t.Context(), []string{"health", flag, "--address", m[2]}, nil, io.Discard, io.Discard)
	}
	if err := health("--started"); err != nil {
		t.Error(err)
	}
	cancel()
	log.await(t, `"message":"stopping"`)
	for { // the flag is set right after the message
		res, err := http.Get(g.admin + "/health/ready")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode == 503 {
			break
		}
	}
	if status, _ := g.get(t, "/open", ""); status != 200 {
		t.Errorf("while draining: %d", status)
	}
	if err := errors.Join(health("--started"), health("--live")); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestAuditOnStdout: each event once, as a line of JSON.
func TestAuditOnStdout(t *testing.T) {
	i := newIssuer(t)
	g := startGateway(t, "http://127.0.0.1:9", i, "audit: {stdout: true}\n")
	if status, _ := g.get(t, "/app/x", ""); status != 401 {
		t.Fatal(status)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for line := range strings.Lines(g.stdout.String()) {
		var e struct{ ID string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		seen[e.ID]++
	}
	for _, e := range g.events(t) {
		if seen[e.ID] != 1 {
			t.Errorf("%s %s: %d times on standard output", e.Type, e.ID, seen[e.ID])
		}
	}
}

// TestMachineWithoutFirestore: F1 at its strictest. Nothing goes on, nobody is
// let in, and the gateway says that it is not ready and why.
func TestMachineWithoutFirestore(t *testing.T) {
	var hits atomic.Int64
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer up.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	emulator := closed.Addr().String()
	closed.Close()
	i := newIssuer(t)
	g := startGateway(t, up.URL, i, "audit: {survive: machine, firestore: {project: demo-x}}\n", "env:FIRESTORE_EMULATOR_HOST="+emulator, "--insecure-emulator")
	if status, body := g.get(t, "/open", ""); status != 503 || !strings.Contains(body, `"code":"unavailable"`) {
		t.Errorf("%d %s", status, body)
	}
	g.log.await(t, "Firestore does not take the audit log's events")
	res, err := http.Get(g.admin + "/health/ready")
	if err != nil {
		t.Fatal(err)
	}
	why, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != 503 || !strings.Contains(string(why), "Firestore") {
		t.Errorf("%d %s", res.StatusCode, why)
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("the upstream was reached %d times", n)
	}
}

// TestNotStartedBeforeFirestore: a gateway is ready until Firestore is known to be
// away. That must not pass for having worked once, which is never taken back.
func TestNotStartedBeforeFirestore(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // it takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	g := startGateway(t, "http://127.0.0.1:9", newIssuer(t), "audit: {survive: machine, firestore: {project: demo-x}}\n", "env:FIRESTORE_EMULATOR_HOST="+silent.Addr().String(), "listen:shutdown_grace: 1s", "--insecure-emulator")
	res, err := http.Get(g.admin + "/health/started")
	if err != nil {
		t.Fatal(err)
	}
	why, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != 503 || !strings.Contains(string(why), "Firestore") {
		t.Errorf("%d %s", res.StatusCode, why)
	}
}

// TestPublicOnly: a gateway needs no identities for a policy of public routes;
// a token is nobody's there.
func TestPublicOnly(t *testing.T) {
	dir := t.TempDir()
	g := &running{dir: dir}
	g.write(t, "sidegate.yaml", "version: sidegate-config/v1\nlisten: {address: \"127.0.0.1:0\"}\nadmin: {address: \"127.0.0.1:0\"}\npolicy: policy.yaml\nupstreams: {app: {url: \"http://127.0.0.1:9\"}}\n")
	g.write(t, "policy.yaml", "version: sidegate-policy/v1\nroutes:\n  - {id: open, path: /open, methods: [GET], upstream: app, allow: public}\n  - {id: maybe, path: /maybe, methods: [GET], upstream: app, allow: optional}\n")
	log := newLines()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, []string{"run", "--config", filepath.Join(dir, "sidegate.yaml"), "--insecure-ephemeral"}, nil, io.Discard, log)
	}()
	m := log.await(t, `"address":"([^"]+)"`)
	g.url = "http://" + m[1]
	if status, _ := g.get(t, "/open", ""); status != 502 {
		t.Error(status)
	}
	if status, _ := g.get(t, "/maybe", "any.token.here"); status != 401 {
		t.Error(status)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
