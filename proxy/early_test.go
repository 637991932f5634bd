package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// earlyApps answer before they have the body, and do with the rest of it what
// apps do.
func earlyApps(t testing.TB) map[string]string {
	return map[string]string{
		"reads on": rawApp(t, func(conn net.Conn, r *http.Request) {
			io.WriteString(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
			io.Copy(io.Discard, conn)
		}),
		"closes": rawApp(t, func(conn net.Conn, r *http.Request) {
			io.WriteString(conn, "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
		}),
		"net/http": newApp(t, func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			w.Header().Set("Content-Length", "2")
			io.WriteString(w, "ok")
		}),
	}
}

// TestEarlyAnswerIsTheLast: an app's answer does not end the request's body. What
// comes of it later is no request, however the caller pauses within it.
func TestEarlyAnswerIsTheLast(t *testing.T) {
	inner := "GET /private/smuggled HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer alice\r\n\r\n"
	for name, app := range earlyApps(t) {
		g := newGate(t, app)
		for where, halves := range map[string][2]string{
			"in a chunk":        {fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\nX", 1+len(inner)), inner + "\r\n0\r\n\r\n"},
			"in a chunk's line": {fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n1\r\nX\r\n%x\r", len(inner)), "\n" + inner + "\r\n0\r\n\r\n"},
			"between chunks":    {"Transfer-Encoding: chunked\r\n\r\n1\r\nX\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(inner), inner)},
			"in a length":       {fmt.Sprintf("Content-Length: %d\r\n\r\nX", 1+len(inner)), inner},
			"behind the body":   {"Content-Length: 100\r\n\r\nX", strings.Repeat("X", 99) + inner},
		} {
			conn := g.dial()
			r := bufio.NewReader(conn)
			io.WriteString(conn, "POST /public/a HTTP/1.1\r\nHost: gateway.test\r\n"+halves[0])
			first, err := http.ReadResponse(r, nil)
			if err != nil || !first.Close {
				t.Fatalf("%s, %s: %v %+v", name, where, err, first)
			}
			if body, err := io.ReadAll(first.Body); len(body) != 2 || err != nil {
				t.Errorf("%s, %s: %q %v", name, where, body, err)
			}
			io.WriteString(conn, halves[1]) // the connection may be closed by now
			if rest, _ := io.ReadAll(r); len(rest) != 0 {
				t.Errorf("%s, %s: behind the answer comes %q", name, where, rest)
			}
			g.outcome()
			if d := g.decision(); d.Request.Path != "/public/a" {
				t.Fatalf("%s, %s: on record is %s", name, where, d.Request.Path)
			}
		}
	}
}

// TestEarlyAnswerToWhoStalls: a caller who sends no more of a body that the app
// has answered holds nothing.
func TestEarlyAnswerToWhoStalls(t *testing.T) {
	for name, app := range earlyApps(t) {
		g := newGate(t, app)
		for _, head := range []string{"Content-Length: 100000\r\n\r\nsome", "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n", "Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"} {
			conn := g.dial()
			io.WriteString(conn, "POST /public/a HTTP/1.1\r\nHost: gateway.test\r\n"+head)
			all, _ := io.ReadAll(conn) // its deadline is longer than a stalled caller has
			if !strings.HasSuffix(string(all), "no") && !strings.HasSuffix(string(all), "ok") {
				t.Errorf("%s: %q", name, all)
			}
			g.outcome()
		}
		for end := time.Now().Add(10 * time.Second); g.proxy.running.Load() != 0; {
			if time.Now().After(end) {
				t.Fatalf("%s: %d requests are still served", name, g.proxy.running.Load())
			}
		}
	}
}

// TestAppBreaksOffWhileItIsSentTo: half an answer is never taken for a whole one,
// also where the caller is in the middle of a body.
func TestAppBreaksOffWhileItIsSentTo(t *testing.T) {
	app := rawApp(t, func(conn net.Conn, r *http.Request) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
	})
	g := newGate(t, app)
	for _, head := range []string{"Content-Length: 100000\r\n\r\nsome", "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n"} {
		conn := g.dial()
		io.WriteString(conn, "POST /public/a HTTP/1.1\r\nHost: gateway.test\r\n"+head)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(res.Body); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("the answer ends with %v", err)
		}
		if o := g.outcome().Outcome; !o.Truncated || o.Error != "upstream_failed" {
			t.Errorf("%+v", o)
		}
	}
}

// TestConnectionsAreKept: an app that takes the whole body ends no connection,
// whichever of the two sees the body's end first.
func TestConnectionsAreKept(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		n := r.ContentLength
		if n < 0 {
			n, _ = io.Copy(io.Discard, r.Body)
		} else {
			io.ReadFull(r.Body, make([]byte, n)) // and not that there is no more
		}
		fmt.Fprintf(w, "%d", n)
	})
	g := newGate(t, app)
	conn := g.dial()
	r := bufio.NewReader(conn)
	for i := range 500 {
		body := strings.Repeat("b", 1+i%50)
		if i%2 == 0 {
			io.WriteString(conn, request("POST", "/public/a", "", fmt.Sprintf("Content-Length: %d", len(body)))+body)
		} else {
			io.WriteString(conn, request("POST", "/public/a", "", "Transfer-Encoding: chunked")+fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body))
		}
		if a := g.read(r, "POST"); a.err != nil || a.Close || a.body != fmt.Sprint(len(body)) {
			t.Fatalf("request %d: %+v", i, a)
		}
	}
}

// TestTakesNothingOverHTTP2: a caller who opens no window for the answer holds it
// in Flush and not in Write. It ends as any stall, with its token, and with the
// gateway.
func TestTakesNothingOverHTTP2(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/private/events" {
			w.Header().Set("Content-Type", "text/event-stream")
		}
		io.WriteString(w, "data: one\n\n")
		w.(http.Flusher).Flush()
		if r.URL.Path == "/private/events" {
			<-r.Context().Done()
		}
	})
	for _, c := range []struct {
		path string
		idle time.Duration
		turn bool
		want string
	}{
		{"/private/events", 200 * time.Millisecond, false, "client_stalled"},
		{"/private/small", 200 * time.Millisecond, false, "client_stalled"},
		{"/private/events", time.Hour, true, "token_ended"},
	} {
		g, a, _ := bothGate(t, app, func(o *Options) { o.IdleTimeout = c.idle })
		f := g.h2()
		f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		f.get(1, c.path, "authorization", "Bearer alice")
		for headers := false; !headers; {
			frame := f.next()
			if frame == nil {
				t.Fatal("no answer")
			}
			_, headers = frame.(*http2.HeadersFrame)
		}
		if c.turn {
			a.turn(nil, errRevoked)
		}
		if o := g.outcome().Outcome; o.Error != c.want || !o.Truncated {
			t.Errorf("%s: %+v", c.path, o)
		}
		g.noStreams()
		for end := time.Now().Add(10 * time.Second); g.proxy.running.Load() != 0; {
			if time.Now().After(end) {
				t.Fatalf("%s: it is still served", c.path)
			}
		}
	}
}

// TestLateGuard: while a guard ends what it watches nobody can stop it and go on:
// what it touches is a stream's, and may be another's when the handler is done.
func TestLateGuard(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	w := newGuard(time.Nanosecond, func(time.Time) error {
		close(entered)
		<-leave
		return nil
	})
	w.asking()
	<-entered
	if w.mu.TryLock() {
		t.Error("stop would not wait")
		w.mu.Unlock()
	}
	close(leave)
	w.stop()
}

// TestTimeOutWhileTheCallerSends: an app that takes nothing and says nothing is
// 504, and a caller who reads only when he has sent it all reads that.
func TestTimeOutWhileTheCallerSends(t *testing.T) {
	app := rawApp(t, func(conn net.Conn, r *http.Request) { <-t.Context().Done() })
	g := newGate(t, app, upstream(func(u *Upstream) { u.Timeout = 50 * time.Millisecond }))
	const size = 30 << 20 // more than all buffers on the way
	for _, chunked := range []bool{false, true} {
		conn := g.dial()
		w := bufio.NewWriter(conn)
		if chunked {
			io.WriteString(w, request("POST", "/public/a", "", "Transfer-Encoding: chunked"))
			for range size >> 10 {
				fmt.Fprintf(w, "400\r\n%s\r\n", strings.Repeat("b", 1<<10))
			}
			io.WriteString(w, "0\r\n\r\n")
		} else {
			io.WriteString(w, request("POST", "/public/a", "", fmt.Sprintf("Content-Length: %d", size)))
			io.Copy(w, io.LimitReader(zeros{}, size))
		}
		if err := w.Flush(); err != nil {
			t.Errorf("chunked %v: sending: %v", chunked, err)
		}
		if a := g.read(bufio.NewReader(conn), "POST"); a.err != nil || a.StatusCode != 504 {
			t.Errorf("chunked %v: %+v", chunked, a)
		}
		if o := g.outcome().Outcome; o.Status != 504 || o.Error != "upstream_timeout" {
			t.Errorf("chunked %v: %+v", chunked, o)
		}
	}
}
