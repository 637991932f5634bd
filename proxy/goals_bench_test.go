package proxy_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sidegate/policy"
	"sidegate/proxy"
	"sidegate/proxy/transport"
)

// What a gateway costs is measured against a bare ReverseProxy in the same
// process, slice by slice in turns, as BenchmarkProxy does it: here for the kinds
// of requests that BenchmarkProxy leaves out. The gateway has what the command
// gives it: its own transport and StrictFraming.

// A goalScene is the process that measures and the other one: app and callers.
type goalScene struct {
	b     *testing.B
	in    *json.Encoder
	out   *json.Decoder
	hello goalHello
	files int
}

func newGoalScene(b *testing.B) *goalScene {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childOf+"="+goalsChild)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	s := &goalScene{b: b, in: json.NewEncoder(in), out: json.NewDecoder(out)}
	if err := s.out.Decode(&s.hello); err != nil {
		b.Fatal(err)
	}
	return s
}

// A goalCost is what a slice of requests took.
type goalCost struct {
	cpu time.Duration // of this process
	goalReply
}

// run has the other process send one slice.
func (s *goalScene) run(l goalLoad) goalCost {
	if l.Target == "" {
		l.Target = "/v1/r50/abc/items?x=1"
	}
	if l.Status == 0 {
		l.Status = 200
	}
	before := cpu()
	if err := s.in.Encode(l); err != nil {
		s.b.Fatal(err)
	}
	var c goalCost
	if err := s.out.Decode(&c.goalReply); err != nil || c.Error != "" {
		s.b.Fatal(err, c.Error)
	}
	c.cpu = cpu() - before
	return c
}

// inTurn runs the slices so many times, one after the other, and once before for
// connections and caches. costs[i] are those of slices[i].
func (s *goalScene) inTurn(rounds int, slices ...goalLoad) (costs [][]goalCost) {
	costs = make([][]goalCost, len(slices))
	for round := range rounds + 1 {
		for i, l := range slices {
			if c := s.run(l); round > 0 {
				costs[i] = append(costs[i], c)
			}
		}
	}
	return costs
}

// Of a goalCost.
func cpuOf(c goalCost) float64     { return float64(c.cpu) }
func elapsedOf(c goalCost) float64 { return float64(c.Elapsed) }
func p50Of(c goalCost) float64     { return float64(c.P50) }
func p99Of(c goalCost) float64     { return float64(c.P99) }

// ratio is the median of what the rounds of one slice cost by what the same
// rounds of the other did.
func ratio(of func(goalCost) float64, ours, plain []goalCost) float64 {
	return medianOf(len(ours), func(i int) float64 { return of(ours[i]) / of(plain[i]) })
}

func medianOf(n int, of func(i int) float64) float64 {
	all := make([]float64, n)
	for i := range all {
		all[i] = of(i)
	}
	slices.Sort(all)
	return all[n/2]
}

// tokens writes tokens where the other process reads them.
func (s *goalScene) tokens(all ...string) (file string) {
	s.files++
	file = filepath.Join(s.b.TempDir(), fmt.Sprint("tokens", s.files))
	if err := os.WriteFile(file, []byte(strings.Join(all, "\n")), 0o600); err != nil {
		s.b.Fatal(err)
	}
	return file
}

// bare is a tuned ReverseProxy of the standard library; h2c: both of its sides
// can speak HTTP/2.
func (s *goalScene) bare(app string, h2c bool) (address string) {
	to := goalURL(s.b, app)
	t := benchTransport()
	if h2c {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	return s.serve(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to); r.SetXForwarded() },
		Transport: t, BufferPool: pool{}, ErrorLog: log.New(io.Discard, "", 0), FlushInterval: flushFor(h2c),
	}, func(server *httptest.Server) {
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetHTTP1(true)
		server.Config.Protocols.SetUnencryptedHTTP2(h2c)
	})
}

// flushFor: messages of streams must not wait for more of them.
func flushFor(streams bool) time.Duration {
	if streams {
		return -1
	}
	return 0
}

func goalURL(b *testing.B, text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		b.Fatal(err)
	}
	return u
}

// gate is a gateway before the app, as the command makes it.
func (s *goalScene) gate(change ...func(*proxy.Options)) (address string) {
	return s.gateFor(s.hello.App, false, change...)
}

func (s *goalScene) gateFor(app string, h2c bool, change ...func(*proxy.Options)) (address string) {
	to := goalURL(s.b, app)
	return s.serveGate(benchGate(s.b, to, append([]func(*proxy.Options){func(o *proxy.Options) {
		o.Policy = goalPolicy(s.b, 100)
		u := o.Upstreams["app"]
		u.MaxBody, u.HTTP2 = 4<<30, h2c
		u.Transport = ownTransport(s.b, to.Host, h2c)
		o.Upstreams["app"] = u
		o.MaxRequests = 10_000
	}}, change...)...))
}

func ownTransport(b *testing.B, host string, h2c bool) http.RoundTripper {
	metrics, err := transport.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	t, err := transport.New(transport.Options{Name: "app", Addresses: []string{host}, H2C: h2c, Metrics: metrics})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(t.CloseIdleConnections)
	return t
}

func (s *goalScene) serveGate(p *proxy.Proxy) (address string) {
	return s.serve(p, func(server *httptest.Server) {
		server.Listener = proxy.StrictFraming(server.Listener, nil)
		server.Config.ConnContext = proxy.CountRequests
		server.Config.ReadHeaderTimeout, server.Config.IdleTimeout = 10*time.Second, 75*time.Second
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetHTTP1(true)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
	})
}

func (s *goalScene) serve(h http.Handler, change func(*httptest.Server)) (address string) {
	server := httptest.NewUnstartedServer(h)
	change(server)
	server.Start()
	s.b.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// goalPolicy has n routes as BenchmarkProxy has them, guards, and what else the
// slices ask for.
func goalPolicy(b *testing.B, n int) *policy.Policy {
	var text strings.Builder
	text.WriteString(`version: sidegate-policy/v1
name: bench
identities: [users]
claims: {roles: list(string), plan: string}
guards:
  - {id: suspended, deny: {claims: {plan: [suspended]}}}
  - {id: office, path: "/v1/admin/{rest...}", require: {ip: [198.51.100.0/24], mfa: 15m}}
  - {id: night, path: "/v1/{rest...}/night", deny: {time: {hours: "22:00-06:00"}}}
  - {id: host, host: ["*.internal.acme.dev"], require: {ip: [10.0.0.0/8]}}
routes:
  - {id: denied, path: /v1/denied, methods: [GET], upstream: app, allow: [{id: admin, who: [users], roles: [admin]}]}
  - {id: down, path: /v1/down, methods: [GET], upstream: app, allow: [{id: user, who: [users], roles: [writer]}]}
  - {id: up, path: /v1/up, methods: [PUT], upstream: app, max_body: 4GiB, allow: [{id: user, who: [users], roles: [writer]}]}
  - {id: socket, path: /v1/socket, methods: [GET], upstream: app, websocket: true, allow: [{id: user, who: [users], roles: [writer]}]}
  - {id: echo, path: /t.T/Echo, methods: [POST], upstream: app, allow: [{id: user, who: [users], roles: [writer]}]}
`)
	for i := 50; i < 50+n; i++ { // r50 is asked for
		fmt.Fprintf(&text, "  - {id: r%d, path: \"/v1/r%d/{id}/items\", methods: [GET], upstream: app, allow: [{id: user, who: [users], roles: [writer]}]}\n", i, i)
	}
	p, err := policy.Load("policy.yaml", []byte(text.String()), &policy.Environment{
		Identities: map[string]string{"users": "users"}, Upstreams: map[string]policy.Upstream{"app": {}},
	})
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// userToken is one that `anyone` takes, as long as an issuer's usually are.
func userToken(i int) string {
	part := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"iss":"https://issuer.example","aud":"app","sub":"user%d","roles":["writer"],"pad":"%s"}`, i, strings.Repeat("p", 400))
	return part([]byte(`{"alg":"RS256","kid":"k0","typ":"JWT"}`)) + "." + part([]byte(claims)) + "." + part(make([]byte, 256))
}
