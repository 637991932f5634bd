package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/policy"
)

// TestHintsAndContinue: interim answers and the 100 Continue that net/http writes
// by itself are not mixed up.
func TestHintsAndContinue(t *testing.T) {
	app := rawApp(t, func(conn net.Conn, r *http.Request) {
		io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n"+strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 3))
		io.Copy(io.Discard, r.Body)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
	})
	g := newGate(t, app)
	for range 300 {
		conn := g.dial()
		io.WriteString(conn, request("POST", "/public/a", "", "Expect: 100-continue", "Content-Length: 4"))
		r := bufio.NewReader(conn)
		told := false
		for {
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("garbled: %v", err)
			}
			if res.StatusCode == http.StatusContinue {
				told = true
				io.WriteString(conn, "body")
			}
			if res.StatusCode >= 200 {
				if body, err := io.ReadAll(res.Body); string(body) != "ok" || err != nil || !told {
					t.Fatalf("%d %q %v, told to go on: %v", res.StatusCode, body, err, told)
				}
				break
			}
		}
		conn.Close()
		g.outcome()
	}
}

// TestNoStreamIsLeft: a handshake that says it is gRPC, too, is one stream, and
// a stop waits for none that is over.
func TestNoStreamIsLeft(t *testing.T) {
	g, _ := streamGate(t, socketApp(t, func(w *wire) { w.conn.Write(frame(0x88, false, nil)) }))
	conn := g.dial()
	io.WriteString(conn, "GET /socket HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer alice\r\nContent-Type: application/grpc\r\n"+handshake+"\r\n")
	io.ReadAll(conn)
	conn.Close()
	g.outcome()
	g.noStreams()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	g.proxy.AwaitStreams(ctx)
	if ctx.Err() != nil {
		t.Error("a stop would wait for it")
	}
}

// TestEventStreamOfAnyRequestIsEndless: what the request called itself does not
// make a stop wait.
func TestEventStreamOfAnyRequestIsEndless(t *testing.T) {
	g, _, clients := bothGate(t, eventsApp(t))
	r, err := http.NewRequest(http.MethodGet, g.url+"/private/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer alice")
	r.Header.Set("Content-Type", "application/grpc")
	res, err := clients["HTTP/1.1"].Do(r)
	if err != nil {
		t.Fatal(err)
	}
	g.proxy.EndStreams(false)
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Error(err)
	}
	g.outcome()
}

// TestLateLookTouchesNobody: a look at the token of a stream that has ended
// meanwhile leaves the connection to the next request.
func TestLateLookTouchesNobody(t *testing.T) {
	next := make(chan bool)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/private/events" {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: one\n\n")
			w.(http.Flusher).Flush()
			<-next
			return
		}
		w.Header().Set("Content-Length", "30000")
		io.WriteString(w, strings.Repeat("x", 10000))
		w.(http.Flusher).Flush()
		<-next
		io.WriteString(w, strings.Repeat("x", 20000))
	})
	looking, told := make(chan bool), make(chan bool)
	g, _ := streamGate(t, app, func(o *Options) {
		o.IdleTimeout = time.Hour // no deadline is moved on meanwhile
		inner := o.Authenticator
		n := 0
		o.Authenticator = authenticatorFunc(func(ctx context.Context, token string) (*policy.Identity, error) {
			if n++; n == 2 { // the first look
				looking <- true
				<-told
				return nil, errRevoked
			}
			return inner.Authenticate(ctx, token)
		})
	})
	conn := g.dial()
	r := bufio.NewReader(conn)
	io.WriteString(conn, request("GET", "/private/events", "alice"))
	first, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-looking
	next <- true
	io.ReadAll(first.Body)
	g.outcome()
	io.WriteString(conn, request("GET", "/public/a", ""))
	second, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	close(told)
	longer := time.NewTimer(farewell + farewell/2) // than a hurried caller has
	<-longer.C
	next <- true
	if n, err := io.Copy(io.Discard, second.Body); n != 30000 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if o := g.outcome().Outcome; o.Error != "" || o.Truncated {
		t.Errorf("%+v", o)
	}
}

// TestAppThatStallsWhileItIsSentTo: it is the app's fault, and not the caller's,
// whose side is ended with it.
func TestAppThatStallsWhileItIsSentTo(t *testing.T) {
	app := rawApp(t, func(conn net.Conn, r *http.Request) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		io.Copy(io.Discard, conn)
	})
	g := newGate(t, app, upstream(func(u *Upstream) { u.IdleTimeout = 30 * time.Millisecond }))
	for range 10 {
		conn := g.dial()
		io.WriteString(conn, request("POST", "/public/a", "", "Content-Length: 100")+"some")
		io.Copy(io.Discard, conn)
		if o := g.outcome().Outcome; o.Error != "upstream_timeout" || !o.Truncated {
			t.Fatalf("%+v", o)
		}
	}
}

// TestEndOfAnEarlyAnswer: who goes on sending until the answer's end gets that
// end, of known length or not.
func TestEndOfAnEarlyAnswer(t *testing.T) {
	for _, head := range []string{"Content-Length: 2\r\n\r\nok", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"} {
		app := rawApp(t, func(conn net.Conn, r *http.Request) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+head)
			io.Copy(io.Discard, conn)
		})
		g := newGate(t, app)
		conn := g.dial()
		io.WriteString(conn, request("POST", "/public/a", "", "Transfer-Encoding: chunked"))
		stop := make(chan bool)
		go func() {
			piece := fmt.Sprintf("%x\r\n%s\r\n", 1000, strings.Repeat("b", 1000))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := io.WriteString(conn, piece); err != nil {
					return
				}
			}
		}()
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); string(body) != "ok" || err != nil {
			t.Errorf("%q: %q %v", head, body, err)
		}
		close(stop)
		conn.Close()
		g.outcome()
	}
}

// TestPanicOfALook: nobody's goroutine catches it, and it is the stream's end
// only.
func TestPanicOfALook(t *testing.T) {
	app := socketApp(t, func(w *wire) { w.read() })
	var asked atomic.Int64
	g, _ := streamGate(t, app, func(o *Options) {
		inner := o.Authenticator
		o.Authenticator = authenticatorFunc(func(ctx context.Context, token string) (*policy.Identity, error) {
			if asked.Add(1) > 1 {
				panic("the authenticator broke")
			}
			return inner.Authenticate(ctx, token)
		})
	})
	g.openWire().wantClose(1013)
	if o := g.outcome().Outcome; o.Error != "unavailable" || !o.Truncated {
		t.Errorf("%+v", o)
	}
	if log := g.log.String(); !strings.Contains(log, "panic: the authenticator broke") {
		t.Errorf("the log is %s", log)
	}
}
