package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// ask is a request without a time-out of its own: the test's clock is a bubble's.
func ask(t testing.TB, c *http.Client, method, url, token string, body io.Reader) *http.Response {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

// TestQuietEventStream: the caller takes what there is, so nothing stalls,
// however long the app is silent; each protocol has its own way to fail here.
func TestQuietEventStream(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		synctest.Test(t, func(t *testing.T) {
			g, clients := inProcessGate(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				for range 2 {
					io.WriteString(w, "data: one\n\n")
					w.(http.Flusher).Flush()
					time.Sleep(time.Hour)
				}
			}, func(o *Options) { o.IdleTimeout = time.Minute }, upstream(func(u *Upstream) { u.IdleTimeout = 2 * time.Hour }))
			res := ask(t, clients[proto], "GET", g.url+"/private/a", "alice", nil)
			if all, err := io.ReadAll(res.Body); len(all) != 22 || err != nil || res.Proto != proto {
				t.Errorf("%s: %q %v", proto, all, err)
			}
			if o := g.outcome().Outcome; o.Error != "" {
				t.Errorf("%s: %+v", proto, o)
			}
		})
	}
}

// TestSlowAppOverHTTP2: an app that takes its time with a body is not the
// caller's fault.
func TestSlowAppOverHTTP2(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		synctest.Test(t, func(t *testing.T) {
			g, clients := inProcessGate(t, func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(10 * time.Minute)
				n, err := io.Copy(io.Discard, r.Body)
				if n != 4<<20 || err != nil {
					t.Errorf("the app gets %d bytes, %v", n, err)
				}
			}, func(o *Options) { o.IdleTimeout = time.Minute }, upstream(func(u *Upstream) { u.Timeout = time.Hour }))
			res := ask(t, clients[proto], "POST", g.url+"/public/a", "", io.LimitReader(zeros{}, 4<<20))
			if res.StatusCode != 200 || res.Proto != proto {
				t.Errorf("%s: %+v", proto, res)
			}
			if o := g.outcome().Outcome; o.Error != "" || o.BytesIn != 4<<20 {
				t.Errorf("%s: %+v", proto, o)
			}
		})
	}
}

// TestStallsOverHTTP2: a body that stalls and a caller who does not read both
// end when their time is over, and the connection lives on.
func TestStallsOverHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = 2 * time.Minute
		g, clients := inProcessGate(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				io.Copy(io.Discard, r.Body)
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(64<<20)) // see inProcess
			io.CopyN(w, zeros{}, 64<<20)
		}, func(o *Options) { o.IdleTimeout = idle })
		c := clients["HTTP/2.0"]
		body, sender := io.Pipe()
		defer sender.Close()
		go sender.Write([]byte("some"))
		begin := time.Now()
		if res := ask(t, c, "POST", g.url+"/public/a", "", body); res.StatusCode != 400 {
			t.Errorf("a stalled body: %d", res.StatusCode)
		}
		if took := time.Since(begin).Round(time.Second); took != idle {
			t.Errorf("a stalled body ends after %v", took)
		}
		if o := g.outcome().Outcome; o.Error != "client_stalled" {
			t.Errorf("%+v", o)
		}
		begin = time.Now()
		res := ask(t, c, "GET", g.url+"/public/a", "", nil)
		if o := g.outcome().Outcome; o.Error != "client_stalled" || !o.Truncated {
			t.Errorf("nobody reads: %+v", o)
		}
		if took := time.Since(begin).Round(time.Second); took != idle {
			t.Errorf("who does not read is cut after %v", took)
		}
		if _, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Error("half an answer looks whole")
		}
		if res = ask(t, c, "GET", g.url+"/nowhere", "", nil); res.StatusCode != 404 {
			t.Errorf("afterwards: %d", res.StatusCode)
		}
	})
}

// TestFullDuplex: an app may answer while it is still being sent to, whichever
// protocol the caller speaks.
func TestFullDuplex(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		piece := make([]byte, 4)
		for {
			if _, err := io.ReadFull(r.Body, piece); err != nil {
				return
			}
			w.Write(bytes.ToUpper(piece))
			w.(http.Flusher).Flush()
		}
	})
	g, _, clients := bothGate(t, app)
	for proto, c := range clients {
		body, sender := io.Pipe()
		res, err := c.Post(g.url+"/public/a", "", body)
		if err != nil {
			t.Fatal(proto, err)
		}
		for range 100 {
			sender.Write([]byte("ping"))
			back := make([]byte, 4)
			if _, err := io.ReadFull(res.Body, back); err != nil || string(back) != "PING" {
				t.Fatalf("%s: %q %v", proto, back, err)
			}
		}
		sender.Close()
		if _, err := io.ReadAll(res.Body); err != nil {
			t.Error(proto, err)
		}
		res.Body.Close()
		if o := g.outcome().Outcome; o.BytesIn != 400 || o.BytesOut != 400 || o.Error != "" {
			t.Errorf("%s: %+v", proto, o)
		}
	}
}

// TestMaxRequestsAtOnce: what is too much at once is 503, on record, and over when one
// of them ends.
func TestMaxRequestsAtOnce(t *testing.T) {
	here, leave := make(chan bool), make(chan bool)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) { here <- true; <-leave })
	g, _, clients := bothGate(t, app, func(o *Options) { o.MaxRequests = 2 })
	ended := make(chan error, 2)
	for range 2 {
		go func() {
			res, err := clients["HTTP/1.1"].Get(g.url + "/public/a")
			if err == nil {
				res.Body.Close()
			}
			ended <- err
		}()
		<-here
	}
	for _, c := range clients {
		res := fetch(t, c, g.url+"/public/a", "")
		if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || res.Header.Get("X-Sidegate-Response") == "" {
			t.Errorf("the third: %d %v", res.StatusCode, res.Header)
		}
		if o := g.outcome().Outcome; o.Status != 503 {
			t.Errorf("%+v", o)
		}
		if d := g.decision().Decision; d.Effect != "deny" || d.Code != "unavailable" || d.Status != 503 {
			t.Errorf("%+v", d)
		}
	}
	leave <- true
	leave <- true
	if err := errors.Join(<-ended, <-ended); err != nil {
		t.Error(err)
	}
	g.outcome()
	g.outcome()
	go func() { <-here; leave <- true }()
	if res := fetch(t, clients["HTTP/2.0"], g.url+"/public/a", ""); res.StatusCode != 200 {
		t.Errorf("afterwards: %d", res.StatusCode)
	}
}

// TestMaxPerConnection: the last answer says that it is the last.
func TestMaxPerConnection(t *testing.T) {
	g := newGate(t, lenientApp(t), func(o *Options) { o.MaxPerConnection = 3 })
	conn := g.dial()
	r := bufio.NewReader(conn)
	for i := range 3 {
		io.WriteString(conn, request("GET", "/public/a", ""))
		if a := g.read(r, "GET"); a.err != nil || a.StatusCode != 200 || a.Close != (i == 2) {
			t.Fatalf("request %d: %+v", i, a)
		}
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("the connection is still there: %v", err)
	}
}

// TestMaxPerConnectionOverHTTP2: GOAWAY, and the streams that there are end well.
func TestMaxPerConnectionOverHTTP2(t *testing.T) {
	g, _, clients := bothGate(t, lenientApp(t), func(o *Options) { o.MaxPerConnection = 3 })
	for range 7 {
		res := fetch(t, clients["HTTP/2.0"], g.url+"/public/a", "")
		if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || strings.Contains(string(body), "Connection") {
			t.Fatal(res.StatusCode, err)
		}
	}
	// On the wire: the third answer brings GOAWAY, and no Connection header.
	f := g.h2()
	for id := uint32(1); id <= 5; id += 2 {
		f.get(id, "/public/a")
	}
	away := false
	for !away {
		frame := f.next()
		_, away = frame.(*http2.GoAwayFrame)
		if frame == nil {
			t.Fatal("no GOAWAY came")
		}
	}
}

// framer is a bare connection of HTTP/2.
type h2Wire struct {
	t    testing.TB
	conn net.Conn
	*http2.Framer
	header *headerEncoder
}

func (g *gate) h2() *h2Wire {
	g.t.Helper()
	conn := g.dial()
	io.WriteString(conn, http2.ClientPreface)
	f := &h2Wire{g.t, conn, http2.NewFramer(conn, conn), newHeaderEncoder()}
	if err := f.WriteSettings(); err != nil {
		g.t.Fatal(err)
	}
	return f
}

// get sends a whole request.
func (f *h2Wire) get(id uint32, path string, more ...string) {
	f.t.Helper()
	block := f.header.encode(append([]string{":method", "GET", ":scheme", "http", ":authority", "gateway.test", ":path", path}, more...)...)
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true}); err != nil {
		f.t.Fatal(err)
	}
}

// next is the next frame, with settings acknowledged; nil: the connection is over.
func (f *h2Wire) next() http2.Frame {
	frame, err := f.ReadFrame()
	if err != nil {
		return nil
	}
	if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
		f.WriteSettingsAck()
	}
	return frame
}

// TestCallerLeavesOverHTTP2: a reset stream ends the app's request, and only it.
func TestCallerLeavesOverHTTP2(t *testing.T) {
	here, gone := make(chan bool), make(chan bool)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		here <- true
		<-r.Context().Done()
		gone <- true
	})
	g, _, clients := bothGate(t, app)
	ctx, cancel := context.WithCancel(context.Background())
	r, _ := http.NewRequestWithContext(ctx, "GET", g.url+"/public/a", nil)
	failed := make(chan error)
	go func() {
		_, err := clients["HTTP/2.0"].Do(r)
		failed <- err
	}()
	<-here
	cancel()
	if err := <-failed; err == nil {
		t.Error("no error")
	}
	<-gone
	if o := g.outcome().Outcome; o.Error != "client_gone" || !o.Truncated {
		t.Errorf("%+v", o)
	}
}
