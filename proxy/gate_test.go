package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sidegate/policy"
	"sidegate/proxy/transport"
	"sidegate/storage/audit"
)

const testPolicy = `version: sidegate-policy/v1
name: test
identities: [users]
claims: {roles: list(string), plan: string}
routes:
  - {id: public, path: "/public/{rest...}", methods: [GET, POST, PUT, PATCH, DELETE, OPTIONS], allow: public, upstream: app}
  - {id: optional, path: "/optional/{rest...}", methods: [GET, POST], allow: optional, upstream: app}
  - {id: slash, path: "/slash/{rest...}", methods: [GET], allow: public, upstream: app, encoded_slash: decode}
  - {id: private, path: "/private/{rest...}", methods: [GET, POST], upstream: app, allow: [{id: user, who: [users]}]}
  - {id: admin, path: "/admin/{rest...}", methods: [GET], upstream: app, allow: [{id: admin, who: [users], roles: [admin]}]}
  - {id: own, path: "/own/{uid}", methods: [GET], upstream: app, allow: [{id: own, who: [users], uid: "${params.uid}"}]}
  - {id: socket, path: /socket, methods: [GET], upstream: app, websocket: true, allow: [{id: user, who: [users]}]}
  - {id: small, path: /small, methods: [POST], upstream: app, max_body: 1KiB, allow: public}
  - {id: lost, path: /lost, methods: [GET], upstream: lost, allow: public}
  - id: presign
    path: /v1/uploads/presign
    methods: [POST]
    serve: presign_upload
    allow: [{id: user, who: [users], roles: [writer]}]
    object: {key: "users/${auth.uid}/${uuid}${ext}", content_types: [image/jpeg, image/png], max_bytes: 1KiB, expires: {default: 15m, min: 1m, max: 15m}}
  - {id: confirm, path: "/v1/uploads/{session}/confirm", methods: [POST], serve: confirm_upload, allow: [{id: user, who: [users]}]}
  - id: download
    path: /v1/files/{key...}/download
    methods: [GET]
    serve: presign_download
    encoded_slash: decode
    allow: [{id: own, who: [users], key_prefix: "users/${auth.uid}/"}]
    object: {key: "${params.key}", expires: {default: 5m, min: 1m, max: 15m}}
`

func loadPolicy(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte(text), &policy.Environment{
		Identities: map[string]string{"users": "users"},
		Upstreams:  map[string]policy.Upstream{"app": {}, "lost": {}},
		Buckets:    map[string]policy.Bucket{"default": {}, "other": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func user(uid string, roles ...any) *policy.Identity {
	return &policy.Identity{
		Name: "users", Namespace: "users", UID: uid, Email: uid + "@acme.dev", EmailVerified: true,
		Claims: policy.ClaimMap{"sub": uid, "roles": roles}, TokenHash: strings.Repeat("ab", 32),
	}
}

// fakeTokens holds the contract of an Authenticator: each token is a case of it.
type fakeTokens struct{}

func (fakeTokens) Authenticate(_ context.Context, token string) (*policy.Identity, error) {
	switch token {
	case "alice":
		return user("alice", "writer"), nil
	case "bob":
		return user("bob"), nil
	case "root":
		return user("root", "admin"), nil
	case "strange":
		id := user("ali ce%2F\x00,ü")
		id.Email = "a\r\nX-Evil: 1@b"
		return id, nil
	case "away":
		return nil, fmt.Errorf("keys: %w", ErrUnavailable)
	case "odd":
		return nil, errors.New("something else")
	case "nobody":
		return nil, nil
	case "empty":
		return &policy.Identity{Name: "users"}, nil
	case "panic":
		panic("the authenticator broke")
	}
	return nil, &TokenError{Reason: "the token is malformed", Detail: "for the log"}
}

var errRecord = errors.New("the disk is gone")

// tape is a Recorder over a real ledger. It fails on demand, before the event
// is stored or after it.
type tape struct {
	ledger    *audit.Ledger
	outcomes  chan *audit.Event
	mu        sync.Mutex
	decisions []*audit.Event
	before    error
	after     error
	panics    bool
	only      func(*audit.Event) error // fails some
	hold      chan struct{}            // Record waits for it, if set
	entered   chan struct{}            // told when Record waits
}

func (r *tape) Record(ctx context.Context, e *audit.Event, level audit.Survive) error {
	r.mu.Lock()
	before, after, panics, hold, only := r.before, r.after, r.panics, r.hold, r.only
	r.mu.Unlock()
	if only != nil && before == nil {
		before = only(e)
	}
	if panics {
		panic("the recorder broke")
	}
	if hold != nil {
		r.entered <- struct{}{}
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if before != nil {
		return before
	}
	ticket, err := r.ledger.Append(e)
	if err != nil {
		return err
	}
	if err := ticket.Wait(ctx, level); err != nil {
		return err
	}
	r.mu.Lock()
	r.decisions = append(r.decisions, copyOf(e))
	r.mu.Unlock()
	return after
}

func (r *tape) Note(e *audit.Event) error {
	if _, err := r.ledger.Append(e); err != nil {
		return err
	}
	r.outcomes <- copyOf(e)
	return nil
}

func (r *tape) set(f func(*tape)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

// A gate is a gateway before an app, over TCP or within the process.
type gate struct {
	t       testing.TB
	proxy   *Proxy
	tape    *tape
	dir     string
	url     string
	address string
	server  *httptest.Server
	metrics *prometheus.Registry
	log     *syncBuffer
	// transport is the app's, unless a test changed it.
	transport *transport.Transport
	connect   func() (net.Conn, error) // nil: by TCP
	patience  time.Duration            // of the test with the gateway
}

type syncBuffer struct {
	mu  sync.Mutex
	out strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.String()
}

func newTransport() *http.Transport {
	return &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, ExpectContinueTimeout: time.Second, MaxResponseHeaderBytes: 64 << 10}
}

// ownTransport asks these addresses as a gateway does that is told no more of
// them.
func ownTransport(t testing.TB, r prometheus.Registerer, addresses ...string) *transport.Transport {
	t.Helper()
	m, err := transport.NewMetrics(r)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := transport.New(transport.Options{Name: "app", Addresses: addresses, Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// newGate starts a gateway before the app at that address; change sets what
// differs from the tests' usual options.
func newGate(t testing.TB, app string, change ...func(*Options)) *gate {
	t.Helper()
	g := unserved(t, app, change...)
	g.server = httptest.NewUnstartedServer(g.proxy)
	g.server.Config.DisableGeneralOptionsHandler = true
	g.server.Config.ErrorLog = quietLog
	g.server.Config.ConnContext = CountRequests
	g.server.Config.Protocols = bothProtocols()
	g.server.Listener = StrictFraming(g.server.Listener, nil)
	g.server.Start()
	t.Cleanup(g.server.Close)
	g.url, g.address = g.server.URL, g.server.Listener.Addr().String()
	return g
}

// bothProtocols are those of a listener without TLS.
func bothProtocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// unserved is a gate whose listener is the caller's to make.
func unserved(t testing.TB, app string, change ...func(*Options)) *gate {
	t.Helper()
	dir := t.TempDir()
	ledger, err := audit.Open(audit.Options{Dir: dir, Gateway: audit.Gateway{Name: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ledger.Close(context.Background()) })
	g := &gate{t: t, dir: dir, metrics: prometheus.NewRegistry(), log: &syncBuffer{}, patience: 20 * time.Second}
	g.tape = &tape{ledger: ledger, outcomes: make(chan *audit.Event, 100_000), entered: make(chan struct{}, 1)}
	g.transport = ownTransport(t, g.metrics, mustURL(t, app).Host)
	o := Options{
		Name: "photos", Policy: loadPolicy(t, testPolicy), Authenticator: fakeTokens{}, Recorder: g.tape,
		Upstreams: map[string]Upstream{"app": {
			URL: mustURL(t, app), KeepHost: true, Timeout: 10 * time.Second, IdleTimeout: 10 * time.Second,
			MaxBody: 1 << 30, Headers: NativeHeaders(), Transport: g.transport,
		}},
		IdleTimeout: 10 * time.Second, Log: zerolog.New(g.log), Metrics: g.metrics, Now: time.Now,
	}
	for _, c := range change {
		c(&o)
	}
	if g.proxy, err = New(o); err != nil {
		t.Fatal(err)
	}
	if err := g.proxy.FlushRefusals(t.Context(), true); err != nil { // each is looked for on record
		t.Fatal(err)
	}
	return g
}

// upstream changes the app's options.
func upstream(f func(*Upstream)) func(*Options) {
	return func(o *Options) {
		u := o.Upstreams["app"]
		f(&u)
		o.Upstreams["app"] = u
	}
}

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// newApp starts an upstream.
func newApp(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.DisableGeneralOptionsHandler = true
	s.Config.ErrorLog = quietLog
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// rawApp is an upstream that answers by hand, connection by connection.
func rawApp(t testing.TB, serve func(conn net.Conn, r *http.Request)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r, err := http.ReadRequest(bufio.NewReader(conn))
				if err == nil {
					serve(conn, r)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// An answer is a response that was read whole.
type answer struct {
	*http.Response
	body string
	err  error // of reading the body
}

// dial connects to the gateway.
func (g *gate) dial() net.Conn {
	g.t.Helper()
	connect := g.connect
	if connect == nil {
		connect = func() (net.Conn, error) { return net.Dial("tcp", g.address) }
	}
	conn, err := connect()
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(g.patience))
	return conn
}

// raw sends bytes as they are; lines end in CRLF already.
func (g *gate) raw(request string) answer {
	g.t.Helper()
	conn := g.dial()
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		g.t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	return g.read(bufio.NewReader(conn), method)
}

func (g *gate) read(r *bufio.Reader, method string) answer {
	g.t.Helper()
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return answer{err: err}
	}
	body, err := io.ReadAll(res.Body)
	return answer{res, string(body), err}
}

// send sends a request of these header lines, and closes the connection.
func (g *gate) send(method, target, token string, lines ...string) answer {
	g.t.Helper()
	return g.raw(request(method, target, token, lines...))
}

func request(method, target, token string, lines ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: gateway.test\r\n", method, target)
	if token != "" {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", token)
	}
	for _, l := range lines {
		b.WriteString(l + "\r\n")
	}
	return b.String() + "\r\n"
}

// outcome waits for the next outcome event.
func (g *gate) outcome() *audit.Event {
	g.t.Helper()
	select {
	case e := <-g.tape.outcomes:
		return e
	case <-time.After(g.patience):
		g.t.Fatal("no outcome came")
		return nil
	}
}

// decision is the last decision event.
func (g *gate) decision() *audit.Event {
	g.t.Helper()
	g.tape.mu.Lock()
	defer g.tape.mu.Unlock()
	if len(g.tape.decisions) == 0 {
		g.t.Fatal("no decision is on record")
	}
	return g.tape.decisions[len(g.tape.decisions)-1]
}

// ledger reads back what is on disk: events by record and type.
func (g *gate) ledger() map[string]map[string]int {
	g.t.Helper()
	if err := g.tape.ledger.Close(context.Background()); err != nil {
		g.t.Fatal(err)
	}
	out := map[string]map[string]int{}
	for line, err := range audit.Lines(g.dir) {
		if err != nil {
			g.t.Fatal(err)
		}
		e, err := line.Event()
		if err != nil {
			g.t.Fatal(err)
		}
		if out[e.Record] == nil {
			out[e.Record] = map[string]int{}
		}
		out[e.Record][e.Type]++
	}
	return out
}
