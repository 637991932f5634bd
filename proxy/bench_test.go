package proxy_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sidegate/policy"
	"sidegate/proxy"
	"sidegate/proxy/oidc"
	"sidegate/storage/audit"
)

// childOf marks the process that is the app and its callers: its CPU is not
// the proxy's.
const childOf = "SIDEGATE_BENCH_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childOf) {
	case "":
		os.Exit(m.Run())
	case goalsChild:
		runGoalsChild()
	default:
		runChild()
	}
}

const (
	benchConnections = 64
	benchRequests    = 2560 // a slice
	benchRounds      = 11
)

// runChild serves 1 KiB answers, tells where, and loads the address of each
// line that it reads.
func runChild() {
	body := []byte(strings.Repeat("x", 1024))
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }))
	fmt.Println(app.URL)
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		address, token, _ := strings.Cut(commands.Text(), " ")
		token, presign := strings.CutPrefix(token, "presign ")
		fmt.Println(load(address, token, presign))
	}
}

// benchUpload is the body of a request for an upload.
const benchUpload = `{"contentType": "image/jpeg", "fileExt": "jpg", "size": 1048576}`

func load(address, token string, presign bool) string {
	head := " HTTP/1.1\r\nHost: photos.acme.dev\r\nAccept: */*\r\nUser-Agent: bench\r\nAuthorization: Bearer " + token + "\r\n"
	request := []byte("GET /v1/r50/abc/items?x=1" + head + "\r\n")
	want := 1024
	if presign {
		request = []byte("POST /v1/uploads/presign" + head + fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(benchUpload)) + benchUpload)
		want = -1
	} else if token == "" {
		want = 0
	}
	var all sync.WaitGroup
	failed := make(chan error, benchConnections)
	for range benchConnections {
		all.Go(func() {
			if err := loadOne(address, request, want); err != nil {
				failed <- err
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return err.Error()
	default:
		return "done"
	}
}

// loadOne wants answers of so many bytes; 0: refusals, -1: of any length.
func loadOne(address string, request []byte, want int) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for range benchRequests / benchConnections {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, res.Body)
		if err != nil || want > 0 && n != int64(want) || (want != 0) != (res.StatusCode == 200) || want == 0 && res.StatusCode != 401 {
			return fmt.Errorf("status %d, %d bytes, %v", res.StatusCode, n, err)
		}
	}
	return nil
}

// A child is the other process.
type child struct {
	b   *testing.B
	in  io.Writer
	out *bufio.Scanner
	app *url.URL
}

func startChild(b *testing.B) *child {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childOf+"=1")
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
	c := &child{b: b, in: in, out: bufio.NewScanner(out)}
	if c.app, err = url.Parse(c.line()); err != nil {
		b.Fatal(err)
	}
	return c
}

func (c *child) line() string {
	if !c.out.Scan() {
		c.b.Fatal("the other process ended", c.out.Err())
	}
	return c.out.Text()
}

// slice is the CPU that this process takes for a slice of requests.
func (c *child) slice(address, token string) time.Duration {
	before := cpu()
	fmt.Fprintln(c.in, address, token)
	if said := c.line(); said != "done" {
		c.b.Fatal(said)
	}
	return cpu() - before
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkProxy is CPU per proxied request against a bare ReverseProxy's in
// the same process, slice by slice in turns: the machine's speed cancels out.
// The app and its callers are another process. x-bare is the median ratio.
func BenchmarkProxy(b *testing.B) {
	c := startChild(b)
	bare := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(c.app); r.SetXForwarded() },
		Transport: benchTransport(), BufferPool: pool{}, ErrorLog: log.New(io.Discard, "", 0),
	})
	defer bare.Close()
	gate := benchServer(benchGate(b, c.app))
	defer gate.Close()
	token := benchToken()
	for _, s := range []*httptest.Server{bare, gate} {
		c.slice(s.Listener.Addr().String(), token) // connections, caches
	}
	for b.Loop() {
		var ratios []float64
		var costs []time.Duration
		for range benchRounds {
			plain := c.slice(bare.Listener.Addr().String(), token)
			ours := c.slice(gate.Listener.Addr().String(), token)
			ratios = append(ratios, float64(ours)/float64(plain))
			costs = append(costs, ours/benchRequests)
		}
		slices.Sort(ratios)
		slices.Sort(costs)
		b.ReportMetric(ratios[len(ratios)/2], "x-bare")
		b.ReportMetric(float64(costs[len(costs)/2].Nanoseconds()), "cpu-ns/request")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkProxyRefused is CPU per request that is refused: with its events on
// record, and only counted. x-allowed is the latter's part of a request that is
// passed on.
func BenchmarkProxyRefused(b *testing.B) {
	c := startChild(b)
	everyOne, p := benchGate(b, c.app), benchGate(b, c.app)
	if err := everyOne.FlushRefusals(context.Background(), true); err != nil {
		b.Fatal(err)
	}
	full, counted := benchServer(everyOne), benchServer(p)
	defer full.Close()
	defer counted.Close()
	token := benchToken()
	c.slice(counted.Listener.Addr().String(), token)
	for b.Loop() {
		var costs [3][]time.Duration
		for range benchRounds {
			costs[0] = append(costs[0], c.slice(full.Listener.Addr().String(), ""))
			costs[1] = append(costs[1], c.slice(counted.Listener.Addr().String(), ""))
			costs[2] = append(costs[2], c.slice(counted.Listener.Addr().String(), token))
		}
		median := func(i int) float64 {
			slices.Sort(costs[i])
			return float64((costs[i][benchRounds/2] / benchRequests).Nanoseconds())
		}
		b.ReportMetric(median(0), "cpu-ns/full")
		b.ReportMetric(median(1), "cpu-ns/counted")
		b.ReportMetric(median(1)/median(2), "x-allowed")
	}
	b.ReportMetric(0, "ns/op")
}

type pool struct{}

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

func (pool) Get() []byte  { return *buffers.Get().(*[]byte) }
func (pool) Put(b []byte) { buffers.Put(&b) }

func benchTransport() *http.Transport {
	return &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
}

func benchToken() string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256","kid":"k0","typ":"JWT"}`)) + "." +
		part([]byte(`{"iss":"https://issuer.example","aud":"app","sub":"alice","roles":["writer"],"pad":"`+strings.Repeat("p", 400)+`"}`)) + "." + part(make([]byte, 256))
}

// anyone accepts every token: what is measured is a verified one, cached.
type anyone struct{}

func (anyone) Accepts() []oidc.Selector {
	return []oidc.Selector{{Issuer: "https://issuer.example", Audience: "app"}}
}
func (anyone) Epoch() uint64 { return 1 }
func (anyone) Verify(_ context.Context, t *oidc.Token) (oidc.Verified, error) {
	until := time.Now().Add(time.Hour)
	return oidc.Verified{Until: until, Epoch: 1, Identity: &policy.Identity{
		Name: "users", Namespace: "users", UID: "alice", Issuer: "https://issuer.example", Email: "alice@acme.dev", EmailVerified: true,
		Expires: until, AuthTime: time.Now(), Claims: t.Claims, TokenHash: t.Hash(),
	}}, nil
}

func benchGate(b *testing.B, app *url.URL, change ...func(*proxy.Options)) *proxy.Proxy {
	ledger, err := audit.Open(audit.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ledger.Close(context.Background()) })
	set, err := oidc.New(anyone{})
	if err != nil {
		b.Fatal(err)
	}
	cache, err := oidc.NewCache(set, oidc.CacheOptions{Entries: 1000})
	if err != nil {
		b.Fatal(err)
	}
	o := proxy.Options{
		Name: "bench", Policy: benchPolicy(b), Authenticator: cache, Recorder: recorder{ledger},
		Upstreams: map[string]proxy.Upstream{"app": {
			URL: app, KeepHost: true, Timeout: time.Minute, IdleTimeout: 5 * time.Minute, MaxBody: 10 << 20, Headers: proxy.NativeHeaders(), Transport: benchTransport(),
		}},
		IdleTimeout: 75 * time.Second, Log: zerolog.New(io.Discard), Metrics: prometheus.NewRegistry(), Now: time.Now,
	}
	for _, c := range change {
		c(&o)
	}
	p, err := proxy.New(o)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// benchServer serves as the gateway's public listener does.
func benchServer(p *proxy.Proxy) *httptest.Server {
	s := httptest.NewUnstartedServer(p)
	s.Config.ConnContext, s.Config.IdleTimeout, s.Config.ReadHeaderTimeout = proxy.CountRequests, 75*time.Second, 10*time.Second
	s.Listener = proxy.StrictFraming(s.Listener, nil)
	s.Start()
	return s
}

func benchPolicy(b *testing.B) *policy.Policy {
	var text strings.Builder
	text.WriteString("version: sidegate-policy/v1\nname: bench\nidentities: [users]\nclaims: {roles: list(string)}\nroutes:\n")
	for i := range 100 {
		fmt.Fprintf(&text, "  - {id: r%d, path: \"/v1/r%d/{id}/items\", methods: [GET], upstream: app, allow: [{id: user, who: [users], roles: [writer]}]}\n", i, i)
	}
	p, err := policy.Load("policy.yaml", []byte(text.String()), nil)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// recorder is the ledger as the gateway's command gives it to the proxy.
type recorder struct{ ledger *audit.Ledger }

func (r recorder) Record(ctx context.Context, e *audit.Event, level audit.Survive) error {
	t, err := r.ledger.Append(e)
	if err != nil {
		return err
	}
	return t.Wait(ctx, level)
}

func (r recorder) Note(e *audit.Event) error {
	_, err := r.ledger.Append(e)
	return err
}
