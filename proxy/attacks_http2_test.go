package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// changed are the pseudo fields of a good request with one replaced, which is
// left out where its value is "-", and then more fields.
func changed(name, value string, more ...hpack.HeaderField) stream2 {
	fields := pseudo("GET", "/public/a")
	i := slices.IndexFunc(fields, func(f hpack.HeaderField) bool { return f.Name == name })
	if value == "-" {
		fields = slices.Delete(fields, i, i+1)
	} else if i >= 0 {
		fields[i].Value = value
	}
	return stream2{fields: append(fields, more...)}
}

func more(name, value string) stream2 { return changed("", "", field2(name, value)) }

// TestHTTP2Frames: what no client library sends, frame by frame. None of it
// reaches an app, but for what is marked, of which nothing is left there.
func TestHTTP2Frames(t *testing.T) {
	a := newArena(t)
	alice := field2("authorization", "Bearer alice")
	type frames struct {
		name   string
		stream stream2
		passes bool
	}
	all := []frames{}
	refused := func(name string, streams ...stream2) {
		for _, s := range streams {
			all = append(all, frames{name, s, false})
		}
	}
	passes := func(name string, streams ...stream2) {
		for _, s := range streams {
			all = append(all, frames{name, s, true})
		}
	}
	refused("connection-specific", more("connection", "keep-alive"), more("connection", "x-sidegate-uid"), more("transfer-encoding", "chunked"), more("upgrade", "websocket"), more("keep-alive", "timeout=5"),
		more("proxy-connection", "keep-alive"), more("te", "gzip"), more("te", "trailers, evil"), more("transfer-encoding", "identity"))
	passes("te", more("te", "trailers"))
	refused("upper case", more("X-Sidegate-Uid", "evil"), more("Host", "evil"), more("x-Other", "a"), stream2{fields: append(pseudo("GET", "/public/a"), field2("Authorization", "Bearer alice"))})
	refused("names", more("x sidegate", "evil"), more("x:y", "evil"), more("", "evil"), more("x-sidegate-uid\x00", "evil"), more("x\r\nx-sidegate-uid", "evil"), more("x\xff", "evil"), more("x-sidegate-uid ", "evil"), more(" x-sidegate-uid", "evil"), more("x-sidegate-uid:", "evil"))
	refused("values", more("x", "a\r\nx-sidegate-uid: evil"), more("x", "a\nb"), more("x", "a\rb"), more("x", "a\x00b"), more("x", "\x7f"), more("user-agent", "a\r\n\r\nGET /admin/hidden HTTP/1.1\r\n"))
	refused("pseudo twice", more(":path", "/admin/a"), more(":method", "POST"), more(":scheme", "https"), more(":authority", "evil"), more(":path", "/public/a"))
	refused("pseudo missing", changed(":path", "-"), changed(":method", "-"), changed(":scheme", "-"))
	refused("no authority", changed(":authority", "-"), changed(":authority", ""))
	refused("unknown pseudo", more(":status", "200"), more(":evil", "a"), more(":", "a"), more(":protocol", "websocket"))
	refused("pseudo after regular", stream2{fields: append([]hpack.HeaderField{field2("x", "y")}, pseudo("GET", "/public/a")...)}, stream2{fields: append(append(pseudo("GET", "/public/a")[:3:3], field2("x", "y")), field2(":path", "/public/a"))})
	for _, path := range []string{"admin/a", "", "*", "public/a", "/public/a#/admin", "/admin/a#/public", "http://gateway.test/admin/a", "//admin/a", "/public/../admin/a", "/public/a b", "/public/a\r\nx: evil", "/public/a\x00", "?/public/a", "/public/..;/admin/a", `\admin`, "/public/\xff", "/public/a HTTP/1.1"} {
		refused("path", changed(":path", path), changed(":path", path, alice))
	}
	passes("absolute path", changed(":path", "http://gateway.test/public/a")) // as in HTTP/1.1, where it counts as one
	for _, method := range []string{"CONNECT", "TRACE", "get", "GET /admin/a", "GET\r\n", "", "PRI", "G\x00T"} {
		refused("method", changed(":method", method))
	}
	refused("CONNECT", stream2{fields: []hpack.HeaderField{field2(":method", "CONNECT"), field2(":authority", "gateway.test:80")}},
		stream2{fields: append(pseudo("CONNECT", "/socket"), field2(":protocol", "websocket"), alice)}, stream2{fields: append(pseudo("GET", "/socket"), field2(":protocol", "websocket"), alice)},
		stream2{fields: []hpack.HeaderField{field2(":method", "CONNECT"), field2(":authority", "gateway.test:80"), field2(":path", "/admin/a")}, body: []byte(hidden)})
	refused("authority", changed(":authority", "evil@gateway.test"), changed(":authority", "gateway.test/admin"), changed(":authority", "a b"), changed(":authority", "a\x00"), changed(":authority", "gateway.test,evil"), changed(":authority", "gateway.test.."), changed(":authority", "[::1"))
	refused("two hosts", more("host", "evil"), more("host", "gateway.test:81"), more("host", ""), changed("", "", field2("host", "gateway.test"), field2("host", "evil")), changed("", "", field2("host", "gateway.test"), field2("host", "gateway.test")),
		changed(":authority", "-", field2("host", "gateway.test"), field2("host", "evil")))
	passes("one host", more("host", "gateway.test"), changed(":authority", "-", field2("host", "gateway.test")))
	refused("two tokens", changed(":path", "/private/a", alice, field2("authorization", "Bearer bob")), changed("", "", alice, alice))
	length := func(value string, body string) stream2 {
		s := stream2{fields: append(pseudo("POST", "/public/a"), field2("content-length", value)), body: []byte(body)}
		return s
	}
	refused("length", length("-1", "abc"), length("x", "abc"), length("+3", "abc"), length("", "abc"), length("9223372036854775808", "abc"), length("3, 3", "abc"), length("0x3", "abc"), stream2{fields: append(pseudo("POST", "/public/a"), field2("content-length", "3"), field2("content-length", "3")), body: []byte("abc")},
		stream2{fields: append(pseudo("POST", "/public/a"), field2("content-length", "3"), field2("content-length", "4")), body: []byte("abc")})
	passes("length that differs", length("1", hidden), length("1000", "abc"), length("0", hidden), length("3", ""))
	refused("header list", more("x", strings.Repeat("a", 2*arenaHeaderBytes)), stream2{fields: append(pseudo("GET", "/public/a"), slices.Repeat([]hpack.HeaderField{field2("x", strings.Repeat("a", 100))}, 1000)...)})
	for _, name := range []string{"x-sidegate-uid", "x_sidegate_uid", "x.forwarded.user", "authorization", "host", "cookie"} {
		passes("trailers", stream2{fields: append(pseudo("POST", "/public/a"), field2("trailer", name)), body: []byte("a"), trailers: []hpack.HeaderField{field2(name, "evil")}},
			stream2{fields: pseudo("POST", "/public/a"), body: []byte("a"), trailers: []hpack.HeaderField{field2(name, "evil")}})
	}
	passes("trailers", stream2{fields: pseudo("POST", "/public/a"), body: []byte("a"), trailers: []hpack.HeaderField{field2(":path", "/admin/a")}}, stream2{fields: pseudo("POST", "/public/a"), body: []byte("a"), trailers: []hpack.HeaderField{field2("content-length", "evil"), field2("transfer-encoding", "evil")}})
	for _, name := range hostile {
		for _, s := range spellings(name) {
			passes("identity", changed(":path", "/private/a", alice, field2(strings.ToLower(s), "evil")), more(strings.ToLower(s), "evil"))
		}
	}
	for _, f := range all {
		a.take()
		verdict := a.http2(f.stream)
		successes, requests := a.take()
		switch {
		case successes != nil:
			t.Errorf("%s %q: %q, %s", f.name, f.stream.fields, successes, verdict)
		case !f.passes && (requests != 0 || verdict == "200"):
			t.Errorf("%s %q: %s, %d requests", f.name, f.stream.fields, verdict, requests)
		case f.passes && len(f.stream.body) == 0 && f.name != "length that differs" && (requests == 0 || verdict != "200"):
			t.Errorf("%s %q: %s, %d requests", f.name, f.stream.fields, verdict, requests)
		}
	}
	a.alive(t)
	t.Logf("%d attacks over HTTP/2 frames", len(all))
}

// TestHTTP2HostIsWhatCounts: the host that routes see is the one the app gets.
func TestHTTP2HostIsWhatCounts(t *testing.T) {
	got := make(chan string, 1)
	app := newApp(t, func(_ http.ResponseWriter, r *http.Request) { got <- fmt.Sprint(r.Host, r.Header["X-Forwarded-Host"]) })
	a := &arena{gate: newGate(t, app)}
	for _, s := range []stream2{changed(":authority", "Photos.test.:80"), changed(":authority", "-", field2("host", "Photos.test.:80"))} {
		if v := a.http2(s); v != "200" {
			t.Fatal(v)
		}
		if host := <-got; host != "photos.test:80[photos.test:80]" {
			t.Errorf("%q", host)
		}
		if d := a.decision(); d.Request.Host != "photos.test" {
			t.Errorf("%q", d.Request.Host)
		}
	}
}

// flood writes frames until the gateway has had enough, or n are written, and
// gives how it ended.
func (a *arena) flood(t *testing.T, n int, write func(c *client2, i int) error) (written int, ended bool) {
	t.Helper()
	c := a.dial2()
	defer c.conn.Close()
	gone := make(chan bool, 1)
	go func() { // or the answers would stop the gateway from reading
		for {
			f, err := c.framer.ReadFrame()
			if g, ok := f.(*http2.GoAwayFrame); err != nil || ok && g.ErrCode != http2.ErrCodeNo {
				gone <- true
				return
			}
			if p, ok := f.(*http2.PingFrame); ok && p.IsAck() && p.Data == [8]byte{'e', 'n', 'd'} {
				gone <- false
				return
			}
		}
	}()
	for written < n {
		if err := write(c, written); err != nil {
			break
		}
		written++
	}
	c.framer.WritePing(false, [8]byte{'e', 'n', 'd'})
	return written, <-gone
}

// lastContinuation ends a header that began with the method GET.
func (c *client2) lastContinuation(id uint32) error {
	c.block.Reset()
	for _, f := range pseudo("GET", "/public/a")[1:] {
		c.enc.WriteField(f)
	}
	return c.framer.WriteContinuation(id, true, c.block.Bytes())
}

// TestHTTP2Floods: frames without end cost the gateway little, and others
// nothing.
func TestHTTP2Floods(t *testing.T) {
	a := newArena(t)
	a.alive(t)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	goroutines := runtime.NumGoroutine()
	for _, f := range []struct {
		name  string
		n     int
		ends  bool // the gateway must end the connection
		write func(c *client2, i int) error
	}{
		{"CONTINUATION", 4000, true, func(c *client2, i int) error {
			if i == 0 {
				return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			}
			if i == 3999 {
				return c.lastContinuation(1)
			}
			c.block.Reset()
			c.enc.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("a", 1000), Sensitive: true})
			return c.framer.WriteContinuation(1, false, c.block.Bytes())
		}},
		{"empty CONTINUATION", 100_000, false, func(c *client2, i int) error {
			if i == 0 {
				return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			}
			if i == 99_999 {
				return c.lastContinuation(1)
			}
			return c.framer.WriteContinuation(1, false, nil)
		}},
		{"rapid reset", 3000, false, func(c *client2, i int) error {
			id := c.open(attack{method: "GET", target: "/private/a", token: "alice"}.overHTTP2().fields, true)
			return c.framer.WriteRSTStream(id, http2.ErrCodeCancel)
		}},
		{"rapid reset of refused requests", 3000, false, func(c *client2, i int) error {
			id := c.open(pseudo("GET", "/private/a"), false)
			return c.framer.WriteRSTStream(id, http2.ErrCodeCancel)
		}},
		{"PING", 20_000, false, func(c *client2, i int) error { return c.framer.WritePing(false, [8]byte{}) }},
		{"SETTINGS", 20_000, false, func(c *client2, i int) error {
			return c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i)})
		}},
		{"empty DATA", 20_000, false, func(c *client2, i int) error {
			if i == 0 {
				c.open(pseudo("POST", "/public/a"), false)
			}
			return c.framer.WriteData(1, false, nil)
		}},
		{"PRIORITY", 20_000, false, func(c *client2, i int) error {
			return c.framer.WritePriority(uint32(2*i+1), http2.PriorityParam{StreamDep: 0})
		}},
		{"window of nothing", 20_000, true, func(c *client2, i int) error { return c.framer.WriteWindowUpdate(0, 0) }},
		{"unknown frames", 20_000, false, func(c *client2, i int) error {
			return c.framer.WriteRawFrame(0xfa, 0, 0, []byte("evil"))
		}},
	} {
		written, ended := a.flood(t, f.n, f.write)
		t.Logf("%s: %d frames, ended %v", f.name, written, ended)
		if f.ends && !ended {
			t.Errorf("%s: %d frames and no end", f.name, written)
		}
		a.alive(t)
	}
	// What was begun ends; nothing is left of it but connections to the app, each
	// of which has goroutines on both sides.
	for end := time.Now().Add(15 * time.Second); runtime.NumGoroutine() > goroutines+10; runtime.Gosched() {
		a.transport.CloseIdleConnections()
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, once %d", runtime.NumGoroutine(), goroutines)
		}
	}
	if after := heap(); after > before+16<<20 {
		t.Errorf("%d bytes are kept", after-before)
	}
}

// TestHTTP2PrefaceInTheMiddle of a connection of HTTP/1.1 is no way around the
// guard.
func TestHTTP2PrefaceInTheMiddle(t *testing.T) {
	a := newArena(t)
	conn := a.dial()
	io.WriteString(conn, request("GET", "/public/a", "")+http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"+postRaw+"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx"+hidden)
	all, _ := io.ReadAll(conn)
	if successes, requests := a.take(); successes != nil || requests != 1 || strings.Count(string(all), "HTTP/1.1 ") != 2 {
		t.Errorf("%q, %d requests: %s", successes, requests, all)
	}
}

// TestHTTP2PrefaceThatStalls is ended as any header that does not come.
func TestHTTP2PrefaceThatStalls(t *testing.T) {
	a := newArena(t)
	s := httptest.NewUnstartedServer(a.proxy)
	s.Config.Protocols, s.Config.ErrorLog = a.server.Config.Protocols, quietLog
	s.Config.ReadHeaderTimeout = 50 * time.Millisecond
	s.Listener = StrictFraming(s.Listener, nil)
	s.Start()
	defer s.Close()
	for _, begin := range []string{"P", "PRI * HTTP/2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r", "POST /public/a HTTP/1.1\r\nHost: gateway.test\r\nContent-Len"} {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(conn, begin)
		if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: the connection is still open", begin)
		}
	}
	a.alive(t)
}
