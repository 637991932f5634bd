package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/websocket"
)

// short makes every time-out short.
func short(o *Options) {
	o.IdleTimeout = 200 * time.Millisecond
	upstream(func(u *Upstream) { u.Timeout, u.IdleTimeout = 200*time.Millisecond, 200*time.Millisecond })(o)
}

func TestAnswersStream(t *testing.T) {
	more := make(chan string)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.URL.Query().Get("type"))
		for s := range more {
			io.WriteString(w, s)
			http.NewResponseController(w).Flush()
			if s == "end\n" {
				return
			}
		}
	})
	g := newGate(t, app)
	for _, media := range []string{"text/event-stream", "application/octet-stream"} {
		conn := g.dial()
		io.WriteString(conn, request("GET", "/public/a?type="+media, ""))
		more <- "data: 1\n"
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(res.Body)
		for i := 1; i < 4; i++ { // each piece comes before the next is written
			if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("%s: %q, %v", media, line, err)
			}
			more <- fmt.Sprintf("data: %d\n", i+1)
		}
		lines.ReadString('\n')
		more <- "end\n"
		if rest, err := io.ReadAll(lines); err != nil || string(rest) != "end\n" {
			t.Errorf("%q, %v", rest, err)
		}
		if o := g.outcome().Outcome; o.Truncated || o.BytesOut != 36 || o.Upstream != "app" {
			t.Errorf("%+v", o)
		}
	}
}

func TestRequestsStream(t *testing.T) {
	got := make(chan string)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		lines := bufio.NewReader(r.Body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			got <- line
		}
	})
	g := newGate(t, app)
	conn := g.dial()
	io.WriteString(conn, request("POST", "/public/a", "", "Transfer-Encoding: chunked"))
	for i := range 3 { // each piece is there before the next is sent
		fmt.Fprintf(conn, "2\r\n%d\n\r\n", i)
		if line := <-got; line != fmt.Sprintf("%d\n", i) {
			t.Fatalf("%q", line)
		}
	}
	io.WriteString(conn, "0\r\n\r\n")
	if a := g.read(bufio.NewReader(conn), "POST"); a.err != nil || a.StatusCode != 200 {
		t.Fatalf("%+v", a)
	}
	if o := g.outcome().Outcome; o.BytesIn != 6 {
		t.Errorf("%+v", o)
	}
}

func TestPassedThrough(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Encoding", "gzip")
		h.Set("ETag", `"x"`)
		h.Set("Saw", r.Header.Get("Range")+r.Header.Get("If-None-Match")+r.Header.Get("Accept-Encoding")+r.Header.Get("User-Agent"))
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Length", "4")
		w.WriteHeader(http.StatusPartialContent)
		io.WriteString(w, "\x1f\x8b\x00\x01")
	})
	g := newGate(t, app)
	if a := g.send("GET", "/public/a", "", "Range: bytes=0-3", "Accept-Encoding: gzip"); a.StatusCode != 206 || a.body != "\x1f\x8b\x00\x01" || a.Header.Get("Saw") != "bytes=0-3gzip" || a.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%+v %q", a.Response, a.body)
	}
	if a := g.send("GET", "/public/a", "", `If-None-Match: "x"`); a.StatusCode != 304 || a.Header.Get("Saw") != `"x"` {
		t.Errorf("%+v", a.Response)
	}
	if a := g.send("HEAD", "/public/a", ""); a.StatusCode != 206 || a.body != "" || a.ContentLength != 4 || a.Header.Get("Saw") != "" {
		t.Errorf("%+v", a.Response)
	}
}

func TestInterimAnswers(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		io.Copy(w, r.Body)
	})
	g := newGate(t, app)
	conn := g.dial()
	io.WriteString(conn, request("POST", "/public/a", "", "Expect: 100-continue", "Content-Length: 2"))
	r := bufio.NewReader(conn)
	sent := false
	for range 4 {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		switch res.StatusCode {
		case 100:
			if !sent {
				io.WriteString(conn, "hi")
			}
			sent = true
		case 103:
			if res.Header.Get("Link") == "" {
				t.Error("no Link")
			}
		case 200:
			if body, _ := io.ReadAll(res.Body); !sent || string(body) != "hi" {
				t.Errorf("%v %q", sent, body)
			}
			return
		}
	}
	t.Error("no final answer")
}

// TestRefusedBeforeContinue: who waits for 100 Continue is refused at once, and
// so is who sends no body at all.
func TestRefusedBeforeContinue(t *testing.T) {
	g := newGate(t, newApp(t, func(http.ResponseWriter, *http.Request) {}))
	for _, c := range []struct {
		target string
		status int
	}{{"/private/a", 401}, {"/small", 413}} {
		a := g.send("POST", c.target, "", "Expect: 100-continue", "Content-Length: 100000")
		if a.err != nil || a.StatusCode != c.status || !a.Close {
			t.Errorf("%s: %+v", c.target, a)
		}
	}
	g = newGate(t, newApp(t, func(http.ResponseWriter, *http.Request) {}), short)
	if a := g.send("POST", "/private/a", "", "Content-Length: 100"); a.err != nil || a.StatusCode != 401 {
		t.Errorf("a body that never comes: %+v", a)
	}
}

func TestTooLarge(t *testing.T) {
	var hits, whole atomic.Int64
	app := newApp(t, func(_ http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			whole.Add(1)
		}
	})
	g := newGate(t, app)
	a := g.send("POST", "/small", "", "Content-Length: 1025")
	if a.StatusCode != 413 || hits.Load() != 0 || !a.Close {
		t.Errorf("by length: %+v, %d hits", a.Response, hits.Load())
	}
	if d := g.decision().Decision; d.Effect != "deny" || d.Code != codeTooLarge {
		t.Errorf("%+v", d)
	}
	g.outcome()
	chunk := "200\r\n" + strings.Repeat("a", 512) + "\r\n"
	a = g.raw(request("POST", "/small", "", "Transfer-Encoding: chunked") + strings.Repeat(chunk, 2) + "1\r\na\r\n0\r\n\r\n")
	if a.StatusCode != 413 || !strings.Contains(a.body, codeTooLarge) || !a.Close {
		t.Errorf("by chunks: %+v", a.Response)
	}
	if o := g.outcome().Outcome; o.Error != codeTooLarge || o.Status != 413 {
		t.Errorf("%+v", o)
	}
	a = g.raw(request("POST", "/small", "", "Transfer-Encoding: chunked") + strings.Repeat(chunk, 2) + "0\r\n\r\n")
	if a.StatusCode != 200 || whole.Load() != 1 {
		t.Errorf("just small enough: %+v; the app took %d bodies for whole ones", a.Response, whole.Load())
	}
}

// TestMemoryIsConstant: a large body either way is never held whole.
func TestMemoryIsConstant(t *testing.T) {
	const size = 64 << 20
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	up := newApp(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	g := newGate(t, up)
	res, err := http.Post(g.url+"/public/a", "application/octet-stream", io.LimitReader(zeros{}, size))
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	res.Body.Close()
	down := newApp(t, func(w http.ResponseWriter, r *http.Request) { io.CopyN(w, zeros{}, size) })
	g2 := newGate(t, down)
	if res, err = http.Get(g2.url + "/public/a"); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, res.Body)
	res.Body.Close()
	runtime.ReadMemStats(&after)
	if n != size || err != nil || g.outcome().Outcome.BytesIn != size || g2.outcome().Outcome.BytesOut != size {
		t.Errorf("%d, %v", n, err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > size/4 {
		t.Errorf("%d bytes were allocated for %d", grown, 2*size)
	}
}

// TestMemoryIsConstantOverHTTP2: nor is it over HTTP/2, whichever the app speaks.
func TestMemoryIsConstantOverHTTP2(t *testing.T) {
	const size = 64 << 20
	held := func() int64 {
		runtime.GC()
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		return int64(now.HeapAlloc)
	}
	var half atomic.Int64 // what is held when half of a body has passed
	for _, appSpeaks := range []string{"HTTP/1.1", "HTTP/2.0"} {
		app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Proto != appSpeaks {
				t.Errorf("the app is spoken to in %s", r.Proto)
			}
			if r.Method == http.MethodPost {
				io.CopyN(io.Discard, r.Body, size/2)
				half.Store(held())
				io.Copy(io.Discard, r.Body)
				return
			}
			io.CopyN(w, zeros{}, size/2)
			half.Store(held())
			io.CopyN(w, zeros{}, size/2)
		}))
		var change []func(*Options)
		if appSpeaks == "HTTP/2.0" {
			app.Config.Protocols = bothProtocols()
			change = append(change, overHTTP2)
		}
		app.Start()
		g, _, clients := bothGate(t, app.URL, change...)
		before := held()
		check := func(way string) {
			grown := half.Load() - before
			t.Logf("%s, app in %s: %d KiB are held", way, appSpeaks, grown>>10)
			if grown > size/8 {
				t.Errorf("%s, app in %s: %d bytes of %d are held", way, appSpeaks, grown, size)
			}
		}
		up, err := clients["HTTP/2.0"].Post(g.url+"/public/a", "", io.LimitReader(zeros{}, size))
		if err != nil || up.StatusCode != 200 {
			t.Fatal(up, err)
		}
		up.Body.Close()
		check("up")
		down, err := clients["HTTP/2.0"].Get(g.url + "/public/a")
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, down.Body)
		down.Body.Close()
		check("down")
		if n != size || err != nil || g.outcome().Outcome.BytesIn != size || g.outcome().Outcome.BytesOut != size {
			t.Errorf("%d, %v", n, err)
		}
		app.Close()
	}
}

// TestBodyBomb: 2 GiB that no Content-Length announced are 413 at the route's
// bound; the app is not told that it had all, and nobody keeps it.
func TestBodyBomb(t *testing.T) {
	const bomb, bound = 2 << 30, 10 << 20
	type end struct {
		n   int64
		err error
	}
	ends := make(chan end, 1)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		ends <- end{n, err}
	})
	g, _, clients := bothGate(t, app, func(o *Options) {
		o.Policy = loadPolicy(t, strings.Replace(testPolicy, "max_body: 1KiB, allow: public", "max_body: 10MiB, allow: public", 1))
	})
	for proto, c := range clients {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		res, err := c.Post(g.url+"/small", "", io.LimitReader(zeros{}, bomb))
		if err != nil || res.StatusCode != 413 {
			t.Fatalf("%s: %v %v", proto, res, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || !strings.Contains(string(body), codeTooLarge) {
			t.Errorf("%s: %q %v", proto, body, err)
		}
		res.Body.Close()
		if app := <-ends; app.err == nil || app.n > bound {
			t.Errorf("%s: the app got %d bytes, %v", proto, app.n, app.err)
		}
		if o := g.outcome().Outcome; o.Status != 413 || o.Error != codeTooLarge || o.BytesIn > bound+1<<20 {
			t.Errorf("%s: %+v", proto, o)
		}
		runtime.ReadMemStats(&after)
		grown := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d KiB were allocated", proto, grown>>10)
		if grown > bomb/32 {
			t.Errorf("%s: %d bytes were allocated", proto, grown)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestStalledCaller: a body that stalls is ended by the caller's time-out, and
// the upstream is not blamed, however short its own is.
func TestStalledCaller(t *testing.T) {
	app := func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }
	synctest.Test(t, func(t *testing.T) {
		g, _ := inProcessGate(t, app, func(o *Options) { o.IdleTimeout = time.Minute }, upstream(func(u *Upstream) { u.Timeout = time.Second }))
		begin := time.Now()
		a := g.raw(request("POST", "/public/a", "", "Content-Length: 10") + "half")
		if a.err != nil || a.StatusCode != 400 || !a.Close {
			t.Errorf("%+v", a)
		}
		if took := time.Since(begin).Round(time.Second); took != time.Minute {
			t.Errorf("answered after %v", took)
		}
		if o := g.outcome().Outcome; o.Error != "client_stalled" || o.Status != 400 || o.BytesIn != 4 {
			t.Errorf("%+v", o)
		}
	})
	g := newGate(t, newApp(t, app))
	if a := g.raw(request("POST", "/public/a", "", "Transfer-Encoding: chunked") + "zz\r\n"); a.StatusCode != 400 || g.outcome().Outcome.Error != codeBadRequest {
		t.Errorf("malformed: %+v", a.Response)
	}
}

// TestSlowReader: who does not take the answer is cut, and it is not the
// upstream's fault, however short its own time-out is.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(1<<30)) // see inProcess
			io.CopyN(w, zeros{}, 1<<30)
		}
		g, _ := inProcessGate(t, app, func(o *Options) { o.IdleTimeout = time.Minute }, upstream(func(u *Upstream) { u.IdleTimeout = time.Second }))
		begin := time.Now()
		io.WriteString(g.dial(), request("GET", "/public/a", ""))
		if o := g.outcome().Outcome; o.Error != "client_stalled" || !o.Truncated || o.Status != 200 {
			t.Errorf("%+v", o)
		}
		if took := time.Since(begin).Round(time.Second); took != time.Minute {
			t.Errorf("cut after %v", took)
		}
	})
}

func TestCallerLeaves(t *testing.T) {
	cancelled := make(chan struct{}, 1)
	started := make(chan struct{}, 1)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/public/down":
			w.Write(make([]byte, 1<<16))
			http.NewResponseController(w).Flush()
		case "/public/up":
			r.Body.Read(make([]byte, 1))
		}
		started <- struct{}{}
		if r.URL.Path == "/public/up" {
			io.Copy(io.Discard, r.Body)
		} else {
			<-r.Context().Done()
		}
		cancelled <- struct{}{}
	})
	g := newGate(t, app)
	for _, req := range []string{
		request("GET", "/public/wait", ""), request("GET", "/public/down", ""),
		request("POST", "/public/up", "", "Content-Length: 10") + "half", request("POST", "/public/up", "", "Transfer-Encoding: chunked") + "4\r\nhalf\r\n",
	} {
		for _, linger := range []int{-1, 0} { // closed, and reset
			conn := g.dial().(*net.TCPConn)
			io.WriteString(conn, req)
			<-started
			conn.SetLinger(linger)
			conn.Close()
			<-cancelled
			if o := g.outcome().Outcome; o.Error != "client_gone" || !o.Truncated {
				t.Errorf("%.20q: %+v", req, o)
			}
		}
	}
}

func TestWebSocket(t *testing.T) {
	echo := websocket.Server{Handler: func(c *websocket.Conn) {
		if c.Request().Header.Get("X-Sidegate-Uid") != "alice" {
			websocket.Message.Send(c, "who?")
		}
		io.Copy(c, c)
	}}
	app := newApp(t, echo.ServeHTTP)
	g := newGate(t, app)
	config, _ := websocket.NewConfig("ws://gateway.test/socket", "http://gateway.test")
	config.Header.Set("Authorization", "Bearer alice")
	for _, trick := range []string{"", "X-Sidegate-Uid", "x-sidegate-uid, X-Forwarded-For"} {
		if trick != "" {
			config.Header["Connection"] = []string{trick}
			config.Header["X-Sidegate-Uid"] = []string{"root"}
		}
		ws, err := websocket.NewClient(config, g.dial())
		if err != nil {
			t.Fatal(trick, err)
		}
		for _, n := range []int{1, 125, 126, 70_000} {
			sent := bytes.Repeat([]byte{0, 255, 'a'}, n)
			if err := websocket.Message.Send(ws, sent); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(ws, got); err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("%d bytes: %v", len(sent), err)
			}
		}
		ws.Close()
		o := g.outcome().Outcome
		if o.Status != 101 || o.BytesIn < 3*70_000 || o.BytesOut < 3*70_000 || o.Error != "" {
			t.Errorf("%+v", o)
		}
	}
	if d := g.decision().Decision; d.Effect != "allow" || d.Route != "socket" {
		t.Errorf("%+v", d)
	}
}

func TestOtherUpgradesAreIgnored(t *testing.T) {
	g := newGate(t, lenientApp(t))
	for _, upgrade := range []string{"h2c", "TLS/1.0", "foo", "websocket, h2c", "\x80"} {
		a := g.send("GET", "/public/a", "", "Connection: Upgrade, HTTP2-Settings", "Upgrade: "+upgrade, "HTTP2-Settings: evil")
		if a.StatusCode != 200 || !a.Close || strings.Contains(a.body, "upgrade") || strings.Contains(a.body, "evil") {
			t.Errorf("%q: %d %s", upgrade, a.StatusCode, a.body)
		}
	}
	handshake := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}
	if a := g.send("GET", "/public/a", "", handshake...); a.StatusCode != 400 {
		t.Errorf("without `websocket: true`: %d", a.StatusCode)
	}
	if a := g.send("GET", "/socket", "", handshake...); a.StatusCode != 401 {
		t.Errorf("without a token: %d", a.StatusCode)
	}
	if a := g.raw(request("GET", "/socket", "alice", append(handshake, "Content-Length: 5")...) + "GET /"); a.StatusCode != 400 {
		t.Errorf("with a body: %d", a.StatusCode)
	}
	if a := g.send("GET", "/socket", "alice"); a.StatusCode != 200 {
		t.Errorf("no upgrade asked: %d", a.StatusCode)
	}
}

// TestKeepAlive: the time-outs of one request do not end the next ones of its
// connection.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = time.Minute
		g, _ := inProcessGate(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }, func(o *Options) { o.IdleTimeout = idle })
		conn := g.dial()
		r := bufio.NewReader(conn)
		for i := range 20 {
			io.WriteString(conn, request("POST", "/public/a", "", "Content-Length: 1"))
			time.Sleep(idle / 2)
			io.WriteString(conn, "a")
			if a := g.read(r, "POST"); a.err != nil || a.body != "a" {
				t.Fatalf("request %d: %+v", i, a)
			}
			g.outcome()
			time.Sleep(time.Duration(i) * idle / 8)
		}
	})
}
