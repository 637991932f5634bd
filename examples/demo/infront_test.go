package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A lenientApp reads names and paths as careless servers do, and keeps what it
// was asked. It answers with the caller as it understood it.
type lenientApp struct {
	mu   sync.Mutex
	seen []seenRequest
}

type seenRequest struct {
	uri     string
	headers map[string]string // by name, every other byte than letters and digits a dash
}

func (a *lenientApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := seenRequest{uri: r.RequestURI, headers: map[string]string{"host": r.Host}}
	for name, values := range r.Header {
		fold := strings.Map(func(c rune) rune {
			if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
				return c
			}
			return '-'
		}, strings.ToLower(name))
		s.headers[fold] += strings.Join(values, ",")
	}
	a.mu.Lock()
	a.seen = append(a.seen, s)
	a.mu.Unlock()
	if r.URL.Path == "/v1/echo" && r.Header.Get("Upgrade") != "" {
		lab.app.ServeHTTP(w, r)
		return
	}
	fmt.Fprintf(w, "uid=%s\n", s.headers["x-sidegate-uid"])
}

// taken are the requests since it was last asked.
func (a *lenientApp) taken() []seenRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.seen
	a.seen = nil
	return s
}

// program finds a program that Debian keeps out of an ordinary user's PATH.
func program(t *testing.T, name, how string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	needs(t, name, how)
	return ""
}

// example is one file of an example, each address in it replaced.
func example(t *testing.T, folder, name string, oldNew ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(lab.root, "examples", folder, name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	for i := 0; i < len(oldNew); i += 2 {
		if !strings.Contains(text, oldNew[i]) {
			t.Fatalf("%s/%s holds no %q", folder, name, oldNew[i])
		}
		text = strings.ReplaceAll(text, oldNew[i], oldNew[i+1])
	}
	return text
}

// rawHTTP sends these bytes and gives the status and body of the answer; no
// answer is 0.
func rawHTTP(t *testing.T, address, request string) (int, http.Header, string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, request)
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return 0, nil, ""
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, res.Header, string(body)
}

func get(target, token string, lines ...string) string {
	if token != "" {
		lines = append(lines, "Authorization: Bearer "+token)
	}
	return "GET " + target + " HTTP/1.1\r\nHost: notes.test\r\nConnection: close\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

// nginxInFront runs examples/nginx-forward-auth as it is, but for the addresses.
func nginxInFront(t *testing.T) (nginx string, g *gateway, app *lenientApp) {
	t.Helper()
	const folder = "nginx-forward-auth"
	binary := program(t, "nginx", "apt-get install nginx-light")
	app = &lenientApp{}
	upstream := httptest.NewServer(app)
	t.Cleanup(upstream.Close)
	u, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	asked, nginx := unusedAddress(t), unusedAddress(t)
	g = startGateway(t, setup{
		config: example(t, folder, "sidegate.yaml", "127.0.0.1:8080", "${env:DEMO_ADDRESS}", "{address: ${env:DEMO_ADDRESS}}", `{address: "${env:DEMO_ADDRESS}"}`,
			"127.0.0.1:9181", asked, "127.0.0.1:9000", u.Host) + "admin: {address: \"${env:DEMO_ADMIN_ADDRESS}\"}\n",
		policy: example(t, folder, "policy.yaml"),
		env:    []string{"GOOGLE_CLOUD_PROJECT=" + project},
	})
	dir := t.TempDir()
	for name, text := range map[string]string{
		"nginx.conf": example(t, folder, "nginx.conf", "127.0.0.1:9000", u.Host, "127.0.0.1:9181", asked, "127.0.0.1:8000", nginx,
			"worker_processes auto;", "worker_processes 1;"),
		"to-app.conf": example(t, folder, "to-app.conf"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 { // its worker is somebody else then
		for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
			os.Chmod(at, 0o755)
		}
		os.Chmod(filepath.Join(dir, "tmp"), 0o777)
	}
	startComponent(t, exec.Command(binary, "-p", dir, "-c", "nginx.conf", "-e", "stderr"), "http://"+nginx+"/")
	app.taken()
	return nginx, g, app
}

// TestNginxForwardAuth walks through the example as its README does.
func TestNginxForwardAuth(t *testing.T) {
	nginx, g, app := nginxInFront(t)
	alice, bob := token(t, "alice"), token(t, "bob")
	at := "http://" + nginx

	ask(t, "GET", at+"/", "", "").want(t, 200)
	no := ask(t, "GET", at+"/v1/me", "", "").want(t, 401)
	if no.header.Get("WWW-Authenticate") != `Bearer realm="notes"` {
		t.Errorf("challenge %q", no.header.Get("WWW-Authenticate"))
	}
	ask(t, "GET", at+"/v1/me", "not.a.token", "").want(t, 401)
	if yes := ask(t, "GET", at+"/v1/me", alice, "").want(t, 200); string(yes.body) != "uid=alice\n" {
		t.Errorf("the app says %q", yes.body)
	}
	ask(t, "PUT", at+"/v1/users/alice/notes/one?x=%2F", alice, `{"text": "hello"}`).want(t, 200)
	ask(t, "PUT", at+"/v1/users/alice/notes/one", bob, `{"text": "hello"}`).want(t, 403)
	ask(t, "DELETE", at+"/v1/users/alice/notes/one", alice, "").want(t, 405)
	ask(t, "GET", at+"/nowhere", alice, "").want(t, 404)
	ask(t, "GET", at+"/v1/admin/notes", alice, "").want(t, 403)
	ask(t, "GET", at+"/v1/admin/notes", token(t, "carol"), "").want(t, 200)
	ask(t, "GET", at+"/-/ask", alice, "").want(t, 404)

	seen := app.taken()
	if len(seen) != 4 {
		t.Fatalf("the app was asked %d times, want 4: %+v", len(seen), seen)
	}
	put := seen[2]
	if put.uri != "/v1/users/alice/notes/one?x=%2F" || put.headers["authorization"] != "" || put.headers["x-forwarded-for"] != "127.0.0.1" || put.headers["x-request-id"] == "" {
		t.Errorf("the app got %+v", put)
	}

	address := "ws://" + nginx + "/v1/echo"
	if _, refusal, err := websocket.Dial(t.Context(), address, nil); err == nil || refusal == nil || refusal.StatusCode != 401 {
		t.Errorf("a WebSocket without a token: %v, %v", refusal, err)
	}
	c, _, err := websocket.Dial(t.Context(), address, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + alice}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if _, hello, err := c.Read(t.Context()); err != nil || string(hello) != "hello alice" {
		t.Errorf("the app says %q, %v", hello, err)
	}

	asked := 0
	for _, e := range readLedger(t, g.dir) {
		if e.Type == "decision" && e.Request.ForwardAuth == "nginx" {
			asked++
		}
	}
	if asked < 12 {
		t.Errorf("%d questions are on record", asked)
	}
}

// TestNginxForwardAuthAttacks: what is known of proxies that ask. Nothing
// protected is reached, and nobody is taken for anybody else.
func TestNginxForwardAuthAttacks(t *testing.T) {
	nginx, g, app := nginxInFront(t)
	bob := token(t, "bob")

	var forged []string
	for _, name := range []string{
		"X-Sidegate-Uid", "X-Sidegate-Identity", "X-Sidegate-Email", "X-Sidegate-Roles", "X-Sidegate-Actor", "X-Sidegate-Tenant", "X-Sidegate-Claims",
		"X-Sidegate-Assertion", "X-Sidegate-Response", "X-Sidegate-Upgrade", "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "Remote-User", "X-Remote-User",
		"X-Auth-Request-User", "X-Goog-Authenticated-User-Email", "X-Endpoint-API-UserInfo", "X-Pomerium-Jwt-Assertion", "X-Authentik-Username",
		"X-Real-IP", "X-Forwarded-For", "X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "X-Original-Method", "X-Forwarded-Uri", "X-HTTP-Method-Override", "Forwarded",
	} {
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"), strings.Replace(name, "-", "_", 1), strings.ReplaceAll(name, "-", ".")} {
			forged = append(forged, spelling+": forged")
		}
	}
	forged = append(forged, "Connection: X-Sidegate-Uid, X-Request-Id", "X-Sidegate-Uid: forged")
	for lines := range slices.Chunk(forged, 40) {
		for target, who := range map[string]string{"/": "", "/v1/me": bob} {
			status, _, body := rawHTTP(t, nginx, get(target, who, lines...))
			if status != 200 || (who == "") != (body == "uid=\n") || who != "" && body != "uid=bob\n" {
				t.Errorf("%s with %v: %d %q", target, lines[0], status, body)
			}
		}
	}
	for _, s := range app.taken() {
		for name, value := range s.headers {
			if strings.Contains(value, "forged") {
				t.Errorf("%s: %s reached the app", name, value)
			}
		}
	}

	// Another target than the one that is forwarded; as bob, who may not read
	// alice's note nor what is the administrators'.
	for _, r := range []string{
		get("/v1/admin/notes", bob, "X-Original-URI: /", "X-Original-Method: GET"),
		get("/v1/admin/notes", bob, "X-Original-URL: http://notes.test/"),
		get("/v1/admin/notes", bob, "X-Forwarded-Uri: /", "X-Forwarded-Method: GET", "X-Forwarded-Host: notes.test"),
		get("/v1/admin/notes", bob, "X_Original_URI: /"),
		get("/v1/%61dmin/notes", bob), get("/v1//admin/notes", bob), get("//v1/admin/notes", bob), get("/v1/./admin/notes", bob),
		get("/x/../v1/admin/notes", bob), get("/v1/me/../admin/notes", bob), get("/v1/me/..%2fadmin/notes", bob), get("/v1/me/%2e%2e/admin/notes", bob),
		get("/v1%2fadmin/notes", bob), get("/v1/%2561dmin/notes", bob), get("/v1/me;/../admin/notes", bob), get(`/v1\admin\notes`, bob),
		get("/v1/me%00/../admin", bob), get("/v1/me%23/../admin/notes", bob), get("/v1/admin/notes#/v1/me", bob), get("/v1/users/bob/notes/..%2f..%2falice%2fnotes%2fone", bob),
		get("http://notes.test/v1/admin/notes", bob), get("http://other.test/v1/admin/notes", bob), get("/-/ask/../v1/admin/notes", bob), get("/-/ask", bob),
		get("/V1/admin/notes", bob), get("/v1/users/alice/notes/one", bob), get("/v1/admin/notes?/../../v1/me", bob), get("*", bob),
		strings.Replace(get("/v1/admin/notes", bob), "GET ", "get ", 1), strings.Replace(get("/v1/me", bob), "GET ", "POST ", 1),
		strings.Replace(get("/v1/me", bob), "GET ", "TRACE ", 1), strings.Replace(get("/v1/me", bob), "GET ", "PROPFIND ", 1),
		get("/v1/me", bob, "Authorization: Bearer "+token(t, "alice")), get("/v1/me", "", "Authorization: Basic YWxpY2U6eA=="),
		get("/v1/me?access_token="+bob, ""), get("/v1/me", "", "Content-Type: application/grpc"), get("/v1/admin/notes", bob, "Content-Type: application/grpc"),
	} {
		if status, _, body := rawHTTP(t, nginx, r); status == 200 || strings.HasPrefix(body, "uid=") {
			t.Errorf("%.60q: %d %q", r, status, body)
		}
	}
	// Upgrade (nginx's ticket 1472): where no WebSocket may be, and to something else.
	for _, r := range []string{
		get("/v1/me", bob, "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"),
		get("/v1/me", bob, "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
		get("/", "", "Upgrade: h2c", "Connection: Upgrade"), get("/v1/echo", bob, "Upgrade: h2c", "Connection: Upgrade"),
	} {
		if status, _, body := rawHTTP(t, nginx, r); status == 200 || status == 101 || strings.HasPrefix(body, "uid=") {
			t.Errorf("%.60q: %d %q", r, status, body)
		}
	}
	if seen := app.taken(); len(seen) != 0 {
		t.Errorf("the app was asked: %+v", seen)
	}

	// What is allowed is forwarded as it was asked about.
	for _, target := range []string{"/v1/users/bob/notes/a%20b?q=%2F..&x", "/v1/users/bob/notes/%61", "http://notes.test/v1/me", "/v1/me?"} {
		if status, _, body := rawHTTP(t, nginx, get(target, bob)); status != 200 || body != "uid=bob\n" {
			t.Errorf("%s: %d %q", target, status, body)
		}
		if seen := app.taken(); len(seen) != 1 || seen[0].uri != strings.TrimPrefix(target, "http://notes.test") {
			t.Errorf("%s came as %+v", target, seen)
		}
	}

	// Without the gateway nobody gets in, neither where no token is needed.
	g.kill()
	for target, who := range map[string]string{"/": "", "/v1/me": bob} {
		if status, _, body := rawHTTP(t, nginx, get(target, who)); status != 500 {
			t.Errorf("%s without the gateway: %d %q", target, status, body)
		}
	}
	if seen := app.taken(); len(seen) != 0 {
		t.Errorf("the app was asked without the gateway: %+v", seen)
	}
}

// TestHaproxyInFront runs examples/haproxy-in-front: two gateways behind haproxy,
// of which one stops.
func TestHaproxyInFront(t *testing.T) {
	const folder = "haproxy-in-front"
	binary := program(t, "haproxy", "apt-get install haproxy")
	app := &lenientApp{}
	upstream := httptest.NewServer(app)
	defer upstream.Close()
	u, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	var gateways []*gateway
	for range 2 {
		gateways = append(gateways, startGateway(t, setup{
			config: example(t, folder, "sidegate.yaml", "127.0.0.1:${env:PORT:8080}", "${env:DEMO_ADDRESS}", "127.0.0.1:${env:ADMIN_PORT:9180}", "${env:DEMO_ADMIN_ADDRESS}", "127.0.0.1:9000", u.Host),
			policy: example(t, folder, "policy.yaml"),
			env:    []string{"GOOGLE_CLOUD_PROJECT=" + project},
		}))
	}
	one, two := gateways[0], gateways[1]
	haproxy := unusedAddress(t)
	bare := func(at string) string { return strings.TrimPrefix(at, "http://") }
	port := func(at string) string { _, p, _ := net.SplitHostPort(bare(at)); return p }
	config := filepath.Join(t.TempDir(), "haproxy.cfg")
	text := example(t, folder, "haproxy.cfg", "127.0.0.1:8000", haproxy, "127.0.0.1:8080 check port 9180", bare(one.url)+" check port "+port(one.adminURL),
		"127.0.0.1:8081 check port 9182", bare(two.url)+" check port "+port(two.adminURL))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	startComponent(t, exec.Command(binary, "-f", config), "http://"+haproxy+"/")
	alice := token(t, "alice")
	at := "http://" + haproxy
	ask(t, "GET", at+"/v1/me", "", "").problem(t, 401, "no_token")
	if yes := ask(t, "GET", at+"/v1/me", alice, "").want(t, 200); string(yes.body) != "uid=alice\n" {
		t.Errorf("the app says %q", yes.body)
	}
	app.taken()

	// A caller of another address, who says it is yet another, and the
	// administrator's.
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", haproxy)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, get("/v1/me", alice, "X-Forwarded-For: 203.0.113.9", "X_Forwarded_For: 203.0.113.9", "X-Sidegate-Uid: carol", "x_sidegate_uid: carol", "X-Forwarded-Proto: https"))
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(res.Body); res.StatusCode != 200 || string(body) != "uid=alice\n" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
	seen := app.taken()
	if len(seen) != 1 || seen[0].headers["x-forwarded-for"] != "127.0.0.2, 127.0.0.1" || seen[0].headers["x-forwarded-proto"] != "http" {
		t.Errorf("the app got %+v", seen)
	}
	if got := append(ipsOf(t, one), ipsOf(t, two)...); !slices.Contains(got, "127.0.0.2") || slices.Contains(got, "203.0.113.9") {
		t.Errorf("the callers' addresses on record: %q", got)
	}

	// A WebSocket passes both.
	c, _, err := websocket.Dial(t.Context(), "ws://"+haproxy+"/v1/echo", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + alice}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, hello, err := c.Read(t.Context()); err != nil || string(hello) != "hello alice" {
		t.Errorf("the app says %q, %v", hello, err)
	}
	c.CloseNow()

	// One gateway stops while requests come: none of them notices.
	failed := make(chan string, 1)
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stopped:
				return
			default:
			}
			if status, _, body := rawHTTP(t, haproxy, get("/v1/me", alice)); status != 200 {
				select {
				case failed <- fmt.Sprintf("%d %s", status, body):
				default:
				}
			}
		}
	}()
	if status := one.stop(t); status != 0 {
		t.Errorf("the gateway ended with %d", status)
	}
	close(stopped)
	<-done
	select {
	case f := <-failed:
		t.Errorf("a request during the stop: %s", f)
	default:
	}
	ask(t, "GET", at+"/v1/me", alice, "").want(t, 200)
	// Without any of them nobody gets in.
	two.kill()
	app.taken()
	if status, _, _ := rawHTTP(t, haproxy, get("/v1/me", alice)); status != 503 {
		t.Errorf("without gateways: %d", status)
	}
	if seen := app.taken(); len(seen) != 0 {
		t.Errorf("the app was asked: %+v", seen)
	}
}

func ipsOf(t *testing.T, g *gateway) []string {
	var out []string
	for _, e := range readLedger(t, g.dir) {
		if e.Type == "decision" {
			out = append(out, e.Request.IP)
		}
	}
	return out
}
