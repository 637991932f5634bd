package cmd

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// connect opens a connection that does not outlive the test, or hang it.
func connect(t *testing.T, address string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn, bufio.NewReader(conn)
}

// TestListenBounds: what sidegate.yaml says of requests holds at the listener,
// and at that of questions, and framing is strict there.
func TestListenBounds(t *testing.T) {
	here, leave := make(chan bool), make(chan bool)
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { here <- true; <-leave }))
	defer up.Close()
	g := startGateway(t, up.URL, newIssuer(t), "forward_auth: {address: \"127.0.0.1:0\", dialect: traefik}\n", "listen:max_requests: 1, max_requests_per_connection: 2")
	ask := func(conn net.Conn, r *bufio.Reader, text string) *http.Response {
		t.Helper()
		io.WriteString(conn, text)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		return res
	}
	const open, lost = "GET /open HTTP/1.1\r\nHost: a\r\n\r\n", "GET /lost HTTP/1.1\r\nHost: a\r\n\r\n"
	first, reader := connect(t, g.url)
	io.WriteString(first, open)
	<-here
	second, r := connect(t, g.url)
	if res := ask(second, r, lost); res.StatusCode != 503 || res.Close {
		t.Errorf("beside another: %s, close %v", res.Status, res.Close)
	}
	leave <- true
	if res, err := http.ReadResponse(reader, nil); err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	if res := ask(second, r, lost); res.StatusCode != 404 || !res.Close {
		t.Errorf("the second of its connection: %s, close %v", res.Status, res.Close)
	}
	questions, r := connect(t, g.log.await(t, `"forward_auth":"([^"]+)"`)[1])
	for i := range 2 {
		text := "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Uri: /lost\r\nX-Forwarded-Host: a\r\n\r\n"
		if res := ask(questions, r, text); res.StatusCode != 404 || res.Close != (i == 1) {
			t.Errorf("question %d: %s, close %v", i, res.Status, res.Close)
		}
	}
	twice, r := connect(t, g.url)
	if res := ask(twice, r, "POST /lost HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"); res.StatusCode != 400 {
		t.Errorf("framed in two ways: %s", res.Status)
	}
}

// TestStopWaitsForAFrame: a WebSocket's frame that is on its way when the gateway
// stops arrives whole, and 1001 behind it.
func TestStopWaitsForAFrame(t *testing.T) {
	frame := append([]byte{0x82, 126, 0xea, 0x60}, bytes.Repeat([]byte{7}, 60_000)...)
	next := make(chan bool)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		conn.Write(frame[:30_000])
		<-next
		conn.Write(frame[30_000:])
		io.Copy(io.Discard, conn)
	}))
	defer up.Close()
	g := startGateway(t, up.URL, newIssuer(t), "", "listen:shutdown_grace: 10m") // which nobody waits for
	conn, r := connect(t, g.url)
	io.WriteString(conn, "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	if _, err := io.ReadFull(r, make([]byte, 30_000)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- g.stop() }()
	g.log.await(t, `"message":"stopping"`)
	for res := (*http.Response)(nil); res == nil || res.StatusCode == 200; { // what a stop does first
		var err error
		if res, err = http.Get(g.admin + "/health/ready"); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	next <- true
	if _, err := io.ReadFull(r, make([]byte, len(frame)-30_000)); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	if err != nil || len(rest) < 4 || rest[0] != 0x88 || int(rest[2])<<8|int(rest[3]) != 1001 {
		t.Errorf("behind it come %x, %v", rest, err)
	}
	conn.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, e := range g.events(t) {
		if e.Outcome != nil && e.Outcome.Error != "gateway_stopped" {
			t.Errorf("%+v", e.Outcome)
		}
	}
}

// TestUpstreamsAreWired: what sidegate.yaml says of an app is what the proxy does.
func TestUpstreamsAreWired(t *testing.T) {
	c := mustLoad(t, place{}, `upstreams:
  plain: {url: "http://127.0.0.1:1"}
  other: {url: "h2c://127.0.0.1:1", streams: unlimited, max_requests: 7, host: upstream, authorization: keep}
  secret: {url: "https://127.0.0.1:1", streams: until_token}`)
	g := &gateway{s: settings{config: c}, metrics: prometheus.NewRegistry()}
	g.refusedFiles = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "refused"}, []string{"key"})
	ups, err := g.upstreams()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"plain":  "false false 0 true false",
		"other":  "true true 7 false true",
		"secret": "true false 0 true false",
	} {
		u := ups[name]
		if got := fmt.Sprint(u.HTTP2, u.Unlimited, u.MaxRequests, u.KeepHost, u.KeepAuthorization); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
