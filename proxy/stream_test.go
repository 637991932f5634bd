package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidegate/policy"
)

// A turncoat is an Authenticator whose mind about `alice` can change.
type turncoat struct {
	fakeTokens
	mu      sync.Mutex
	id      *policy.Identity
	err     error
	changed bool
}

func (a *turncoat) Authenticate(ctx context.Context, token string) (*policy.Identity, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if token == "alice" && a.changed {
		return a.id, a.err
	}
	return a.fakeTokens.Authenticate(ctx, token)
}

func (a *turncoat) turn(id *policy.Identity, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.id, a.err, a.changed = id, err, true
}

var errRevoked = &TokenError{Reason: "the token is revoked"}

// streamGate is a gate that looks at its streams all the time.
func streamGate(t testing.TB, app string, change ...func(*Options)) (*gate, *turncoat) {
	t.Helper()
	a := &turncoat{}
	g := newGate(t, app, append([]func(*Options){func(o *Options) {
		o.Authenticator = a
		o.Policy = loadPolicy(t, strings.ReplaceAll(testPolicy, "methods: [GET, POST], upstream: app, allow: [{id: user", "methods: [GET, POST], upstream: app, websocket: true, allow: [{id: user"))
	}}, change...)...)
	g.proxy.lookEvery = 5 * time.Millisecond
	return g, a
}

// A wire is one side of a WebSocket, frame by frame.
type wire struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

const handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

// openWire makes the handshake through the gateway.
func (g *gate) openWire() *wire {
	g.t.Helper()
	conn := g.dial()
	io.WriteString(conn, "GET /socket HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer alice\r\n"+handshake+"\r\n")
	r := bufio.NewReader(conn)
	if a := g.read(r, "GET"); a.err != nil || a.StatusCode != 101 {
		g.t.Fatalf("handshake: %+v", a)
	}
	return &wire{g.t, conn, r}
}

// read gives the next frame's first byte and payload.
func (w *wire) read() (first byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(w.r, head[:]); err != nil {
		return 0, nil, err
	}
	size := uint64(head[1] & 0x7f)
	switch size {
	case 126:
		var n [2]byte
		io.ReadFull(w.r, n[:])
		size = uint64(binary.BigEndian.Uint16(n[:]))
	case 127:
		var n [8]byte
		io.ReadFull(w.r, n[:])
		size = binary.BigEndian.Uint64(n[:])
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		io.ReadFull(w.r, mask[:])
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(w.r, payload)
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0], payload, err
}

// wantClose reads the close frame and what the connection ends with.
func (w *wire) wantClose(code uint16) {
	w.t.Helper()
	first, payload, err := w.read()
	if err != nil || first != 0x88 || len(payload) < 2 || binary.BigEndian.Uint16(payload) != code {
		w.t.Fatalf("%#x %q %v; want close %d", first, payload, err, code)
	}
	if n, err := io.Copy(io.Discard, w.r); n != 0 || err != nil {
		w.t.Errorf("after the close frame: %d bytes, %v", n, err)
	}
	w.conn.Close()
}

// frame is one of a caller's (masked) or an app's.
func frame(first byte, masked bool, payload []byte) []byte {
	out := []byte{first}
	var bit byte
	if masked {
		bit = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		out = append(out, bit|byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, bit|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, bit|127), uint64(n))
	}
	if masked {
		out = append(out, 1, 2, 3, 4)
		payload = bytes.Clone(payload)
		for i := range payload {
			payload[i] ^= byte(i%4 + 1)
		}
	}
	return append(out, payload...)
}

// socketApp takes handshakes and has serve do the rest.
func socketApp(t testing.TB, serve func(*wire)) string {
	return rawApp(t, func(conn net.Conn, r *http.Request) {
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		serve(&wire{t, conn, bufio.NewReader(conn)})
	})
}

// TestWebSocketEndsWithItsToken: the caller and the app are both told why, and
// the record is, too.
func TestWebSocketEndsWithItsToken(t *testing.T) {
	for name, c := range map[string]struct {
		id      *policy.Identity
		err     error
		code    uint16
		outcome string
	}{
		"revoked":           {nil, errRevoked, 1008, "token_ended"},
		"cannot be told":    {nil, fmt.Errorf("asked: %w", ErrUnavailable), 1013, "unavailable"},
		"another error":     {nil, errors.New("odd"), 1013, "unavailable"},
		"nobody":            {nil, nil, 1013, "unavailable"},
		"another's":         {user("bob"), nil, 1008, "token_ended"},
		"another namespace": {&policy.Identity{Name: "users", Namespace: "others", UID: "alice"}, nil, 1008, "token_ended"},
	} {
		t.Run(name, func(t *testing.T) {
			heard := make(chan uint16, 1)
			app := socketApp(t, func(w *wire) {
				w.conn.Write(frame(0x81, false, []byte("hello")))
				first, payload, err := w.read()
				if err != nil || first != 0x88 || len(payload) < 2 {
					t.Errorf("the app hears %#x %q %v", first, payload, err)
					heard <- 0
					return
				}
				heard <- binary.BigEndian.Uint16(payload)
			})
			g, a := streamGate(t, app)
			w := g.openWire()
			if _, hello, err := w.read(); err != nil || string(hello) != "hello" {
				t.Fatalf("%q %v", hello, err)
			}
			a.turn(c.id, c.err)
			w.wantClose(c.code)
			if code := <-heard; code != c.code {
				t.Errorf("the app hears %d", code)
			}
			if o := g.outcome().Outcome; o.Error != c.outcome || !o.Truncated || o.Status != 101 {
				t.Errorf("%+v", o)
			}
			g.noStreams()
		})
	}
}

// noStreams fails where the gateway still minds one.
func (g *gate) noStreams() {
	g.t.Helper()
	s := &g.proxy.streams
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) != 0 {
		g.t.Errorf("%d streams are left", len(s.open))
	}
}

// TestWebSocketEndsAtItsTime: the token's own end is looked at when it comes,
// and not at the next of the regular looks.
func TestWebSocketEndsAtItsTime(t *testing.T) {
	app := socketApp(t, func(w *wire) { w.read() })
	a := &turncoat{}
	short := user("alice")
	now := time.Now() // stands still
	short.Expires = now.Add(50 * time.Millisecond)
	a.turn(short, nil)
	g := newGate(t, app, func(o *Options) { o.Authenticator, o.Now = a, func() time.Time { return now } })
	g.proxy.lookEvery = time.Hour
	w := g.openWire()
	a.turn(nil, &TokenError{Reason: "the token has expired"})
	w.wantClose(1008)
	g.outcome()
}

// TestGoodbyeWaitsForTheFrame: nothing is put into the middle of a frame.
func TestGoodbyeWaitsForTheFrame(t *testing.T) {
	whole := frame(0x82, false, bytes.Repeat([]byte{7}, 300_000))
	next := make(chan bool)
	app := socketApp(t, func(w *wire) {
		w.conn.Write(whole[:100_000])
		<-next
		w.conn.Write(whole[100_000:])
		w.conn.Write(frame(0x81, false, []byte("never")))
		io.Copy(io.Discard, w.r)
	})
	g, a := streamGate(t, app)
	w := g.openWire()
	got := make([]byte, 100_000)
	if _, err := io.ReadFull(w.r, got); err != nil {
		t.Fatal(err)
	}
	a.turn(nil, errRevoked)
	g.ending()
	close(next)
	rest, err := io.ReadAll(io.LimitReader(w.r, int64(len(whole)-100_000)))
	if err != nil || !bytes.Equal(append(got, rest...), whole) {
		t.Fatalf("the frame is %d bytes, %v", len(got)+len(rest), err)
	}
	w.wantClose(1008)
	if o := g.outcome().Outcome; o.Error != "token_ended" || o.BytesOut != int64(len(whole)) {
		t.Errorf("%+v", o)
	}
}

// ending waits until a tunnel was told to end.
func (g *gate) ending() {
	g.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		s := &g.proxy.streams
		s.mu.Lock()
		for one := range s.open {
			if w := one.x.w; w.conn != nil && w.conn.ending.Load() != nil {
				s.mu.Unlock()
				return
			}
		}
		s.mu.Unlock()
		if time.Now().After(deadline) {
			g.t.Fatal("no stream is told to end")
		}
	}
}

// TestFrameThatNeverEnds: then the connection is cut, and no close frame is lost
// in the middle of it.
func TestFrameThatNeverEnds(t *testing.T) {
	app := socketApp(t, func(w *wire) {
		w.conn.Write([]byte{0x82, 126, 255, 255, 1, 2, 3})
		io.Copy(io.Discard, w.r)
	})
	g, a := streamGate(t, app)
	w := g.openWire()
	a.turn(nil, errRevoked)
	if all, _ := io.ReadAll(w.r); len(all) != 7 {
		t.Errorf("%x", all)
	}
	if o := g.outcome().Outcome; o.Error != "token_ended" {
		t.Errorf("%+v", o)
	}
}

// TestGoodbyeToWhoDoesNotRead: neither a caller nor an app that takes nothing
// holds up the end.
func TestGoodbyeToWhoDoesNotRead(t *testing.T) {
	app := socketApp(t, func(w *wire) {
		block := frame(0x82, false, make([]byte, 1<<16))
		for {
			if _, err := w.conn.Write(block); err != nil {
				return
			}
		}
	})
	g, a := streamGate(t, app)
	w := g.openWire()
	w.conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	a.turn(nil, errRevoked)
	if o := g.outcome().Outcome; o.Error != "token_ended" {
		t.Errorf("%+v", o)
	}
	g.noStreams()
}

// TestGoodbyeToWhoStays: a caller who neither answers the close frame nor hangs up
// is not waited for.
func TestGoodbyeToWhoStays(t *testing.T) {
	app := socketApp(t, func(w *wire) { w.read() })
	g, a := streamGate(t, app)
	for range 20 { // which of its two ends the tunnel sees first is chance
		a.turn(user("alice"), nil)
		w := g.openWire()
		a.turn(nil, errRevoked)
		if first, _, err := w.read(); first != 0x88 || err != nil {
			t.Fatalf("%#x %v", first, err)
		}
		defer w.conn.Close()
	}
	for range 20 {
		if o := g.outcome().Outcome; o.Error != "token_ended" {
			t.Errorf("%+v", o)
		}
	}
}

// TestWebSocketMessageTooLarge: max_body bounds a caller's message, in one frame
// or in many, and not all of them together.
func TestWebSocketMessageTooLarge(t *testing.T) {
	var got bytes.Buffer
	done := make(chan bool)
	app := socketApp(t, func(w *wire) {
		for {
			first, payload, err := w.read()
			if err != nil || first == 0x88 {
				close(done)
				return
			}
			got.Write(payload)
		}
	})
	g, _ := streamGate(t, app, upstream(func(u *Upstream) { u.MaxBody = 1000 }))
	w := g.openWire()
	message := bytes.Repeat([]byte("m"), 1000)
	for range 5 {
		w.conn.Write(frame(0x82, true, message))
	}
	w.conn.Write(frame(0x01, true, message[:600]))
	w.conn.Write(frame(0x89, true, message[:100])) // a ping between
	w.conn.Write(frame(0x80, true, message[:400]))
	w.conn.Write(frame(0x01, true, message[:600]))
	w.conn.Write(frame(0x80, true, message[:401]))
	w.wantClose(1009)
	<-done
	if n := got.Len(); n > 6*1000+100+600 {
		t.Errorf("the app got %d bytes", n)
	}
	if o := g.outcome().Outcome; o.Error != "too_large" || !o.Truncated {
		t.Errorf("%+v", o)
	}
}

// TestStreamsUnlimited: only where the configuration says so they go on.
func TestStreamsUnlimited(t *testing.T) {
	app := socketApp(t, func(w *wire) {
		_, payload, _ := w.read()
		w.conn.Write(frame(0x81, false, payload))
	})
	asked := make(chan bool, 1000)
	g, a := streamGate(t, app, upstream(func(u *Upstream) { u.Unlimited = true }))
	g.proxy.o.Authenticator = authenticatorFunc(func(ctx context.Context, token string) (*policy.Identity, error) {
		asked <- true
		return a.Authenticate(ctx, token)
	})
	w := g.openWire()
	a.turn(nil, errRevoked)
	w.conn.Write(frame(0x81, true, []byte("still here")))
	if _, payload, err := w.read(); err != nil || string(payload) != "still here" {
		t.Errorf("%q %v", payload, err)
	}
	w.conn.Close()
	g.outcome()
	if len(asked) != 1 {
		t.Errorf("asked %d times", len(asked))
	}
}

type authenticatorFunc func(context.Context, string) (*policy.Identity, error)

func (f authenticatorFunc) Authenticate(ctx context.Context, token string) (*policy.Identity, error) {
	return f(ctx, token)
}

// eventsApp sends an event, and is silent then.
func eventsApp(t testing.TB) string {
	return newApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		io.WriteString(w, "data: one\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
}

// clientsOf are clients of both protocols, who connect by dial.
func clientsOf(t testing.TB, dial func(ctx context.Context, network, address string) (net.Conn, error)) map[string]*http.Client {
	out := map[string]*http.Client{}
	for name, protocols := range map[string]func(*http.Protocols){
		"HTTP/1.1": func(p *http.Protocols) { p.SetHTTP1(true) },
		"HTTP/2.0": func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) },
	} {
		p := new(http.Protocols)
		protocols(p)
		transport := &http.Transport{Protocols: p, DialContext: dial}
		t.Cleanup(transport.CloseIdleConnections)
		out[name] = &http.Client{Transport: transport}
	}
	return out
}

// bothGate is a gate whose listener speaks both, with clients of both.
func bothGate(t testing.TB, app string, change ...func(*Options)) (*gate, *turncoat, map[string]*http.Client) {
	g, a := streamGate(t, app, change...)
	return g, a, clientsOf(t, nil)
}

func fetch(t testing.TB, c *http.Client, url, token string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

// TestEventStreamEndsWithItsToken: as one that the app ends, so that the browser
// asks again, and is told then.
func TestEventStreamEndsWithItsToken(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		g, a, clients := bothGate(t, eventsApp(t))
		res := fetch(t, clients[proto], g.url+"/private/a", "alice")
		line := make([]byte, 11)
		if _, err := io.ReadFull(res.Body, line); err != nil || res.Proto != proto {
			t.Fatal(res.Proto, err)
		}
		a.turn(nil, errRevoked)
		if rest, err := io.ReadAll(res.Body); len(rest) != 0 || err != nil {
			t.Errorf("%s: %q %v", proto, rest, err)
		}
		if o := g.outcome().Outcome; o.Error != "token_ended" || !o.Truncated || o.BytesOut != 11 {
			t.Errorf("%s: %+v", proto, o)
		}
		g.noStreams()
	}
}

// TestLengthsAreKept: an event stream with a length that is cut does not end as
// if it were whole.
func TestLengthsAreKept(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, "data: one\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	g, a, clients := bothGate(t, app)
	for proto, c := range clients {
		a.turn(user("alice"), nil)
		res := fetch(t, c, g.url+"/private/a", "alice")
		io.ReadFull(res.Body, make([]byte, 11))
		a.turn(nil, errRevoked)
		if _, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%s: a cut answer looks whole", proto)
		}
		if o := g.outcome().Outcome; o.Error != "token_ended" || !o.Truncated {
			t.Errorf("%s: %+v", proto, o)
		}
	}
}

// TestDownloadsGoOn: what was allowed when it began, and has an end, is not cut.
func TestDownloadsGoOn(t *testing.T) {
	go1 := make(chan bool)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first")
		w.(http.Flusher).Flush()
		<-go1
		io.WriteString(w, "second")
	})
	g, a, clients := bothGate(t, app)
	res := fetch(t, clients["HTTP/1.1"], g.url+"/private/a", "alice")
	io.ReadFull(res.Body, make([]byte, 5))
	a.turn(nil, errRevoked)
	g.noStreams()
	close(go1)
	if rest, err := io.ReadAll(res.Body); string(rest) != "second" || err != nil {
		t.Errorf("%q %v", rest, err)
	}
}

// TestEndStreams: those that nobody would end are told to go elsewhere, and so
// are those that come later.
func TestEndStreams(t *testing.T) {
	app := socketApp(t, func(w *wire) { w.read() })
	g, _ := streamGate(t, app)
	w := g.openWire()
	g.proxy.EndStreams(false)
	w.wantClose(1001)
	g.openWire().wantClose(1001)
	for range 2 {
		if o := g.outcome().Outcome; o.Error != "gateway_stopped" || !o.Truncated {
			t.Errorf("%+v", o)
		}
	}
	g2, _, clients := bothGate(t, eventsApp(t))
	res := fetch(t, clients["HTTP/2.0"], g2.url+"/private/a", "alice")
	g2.proxy.EndStreams(false)
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Error(err)
	}
	if o := g2.outcome().Outcome; o.Error != "gateway_stopped" {
		t.Errorf("%+v", o)
	}
}

// grpcApp is a real server of gRPC: it sends back what it gets, with a trailer.
func grpcApp(t testing.TB, handle func(grpc.ServerStream) error) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error { return handle(stream) }))
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return "http://" + l.Addr().String()
}

// overHTTP2 speaks HTTP/2 to the app.
func overHTTP2(o *Options) {
	u := o.Upstreams["app"]
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	u.HTTP2, u.Transport = true, &http.Transport{Protocols: p, DisableCompression: true}
	o.Upstreams["app"] = u
}

func echo(s grpc.ServerStream) error {
	for {
		m := new(wrapperspb.StringValue)
		if err := s.RecvMsg(m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(m); err != nil {
			return err
		}
	}
}

// TestGRPCStreamEndsWithItsToken: with status 16 in the trailers, or in the
// header where no answer has begun.
func TestGRPCStreamEndsWithItsToken(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code codes.Code
		said bool // the app has answered
	}{
		"revoked":                    {errRevoked, codes.Unauthenticated, true},
		"revoked before the answer":  {errRevoked, codes.Unauthenticated, false},
		"cannot be told":             {ErrUnavailable, codes.Unavailable, true},
		"not told before the answer": {ErrUnavailable, codes.Unavailable, false},
	} {
		t.Run(name, func(t *testing.T) {
			gone := make(chan error, 1)
			app := grpcApp(t, func(s grpc.ServerStream) error {
				err := echo(s)
				gone <- err
				return err
			})
			a := &turncoat{}
			g, client, _ := grpcGate(t, app, overHTTP2, func(o *Options) { o.Authenticator = a })
			g.proxy.lookEvery = 5 * time.Millisecond
			stream, err := client.NewStream(as(t, "alice"), allStreams, "/t.T/Private")
			if err != nil {
				t.Fatal(err)
			}
			if c.said {
				back := new(wrapperspb.StringValue)
				if err := errors.Join(stream.SendMsg(wrapperspb.String("a")), stream.RecvMsg(back)); err != nil || back.Value != "a" {
					t.Fatal(back, err)
				}
			}
			a.turn(nil, c.err)
			err = stream.RecvMsg(new(wrapperspb.StringValue))
			if status.Code(err) != c.code {
				t.Errorf("%v", err)
			}
			if !c.said {
				return
			}
			if err := <-gone; err == nil {
				t.Error("the app was told that its caller is done")
			}
			if o := g.outcome().Outcome; !o.Truncated || o.Error == "" {
				t.Errorf("%+v", o)
			}
			g.noStreams()
		})
	}
}

// TestGRPCStatusAmongAnnouncedTrailers: however many trailers the app announced,
// the caller reads why the stream ended.
func TestGRPCStatusAmongAnnouncedTrailers(t *testing.T) {
	for _, announced := range []string{"", "A", "A, B", "Grpc-Status, Grpc-Message", "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin"} {
		app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if announced != "" {
				w.Header().Set("Trailer", announced)
			}
			w.Header().Set("Content-Type", "application/grpc")
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}))
		app.Config.ErrorLog, app.Config.Protocols = quietLog, new(http.Protocols)
		app.Config.Protocols.SetUnencryptedHTTP2(true)
		app.Start()
		g, a, clients := bothGate(t, app.URL, overHTTP2)
		body, sender := io.Pipe()
		r, err := http.NewRequest(http.MethodPost, g.url+"/private/a", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer alice")
		r.Header.Set("Content-Type", "application/grpc")
		res, err := clients["HTTP/2.0"].Do(r)
		if err != nil {
			t.Fatal(err)
		}
		a.turn(nil, errRevoked)
		if _, err := io.ReadAll(res.Body); err != nil || res.Trailer.Get("Grpc-Status") != "16" || res.Trailer.Get("Grpc-Message") == "" {
			t.Errorf("%q: %v, %v", announced, err, res.Trailer)
		}
		res.Body.Close()
		sender.Close()
		g.outcome()
		app.Close()
	}
}

// TestGRPCEndStreams: a stream of gRPC may end by itself, until all must.
func TestGRPCEndStreams(t *testing.T) {
	g, client, _ := grpcGate(t, grpcApp(t, echo), overHTTP2)
	stream, err := client.NewStream(as(t, "alice"), allStreams, "/t.T/Private")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := errors.Join(stream.SendMsg(wrapperspb.String("a")), stream.RecvMsg(new(wrapperspb.StringValue))); err != nil {
			t.Fatal(err)
		}
		g.proxy.EndStreams(false)
	}
	g.proxy.EndStreams(true)
	if err := stream.RecvMsg(new(wrapperspb.StringValue)); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	if o := g.outcome().Outcome; o.Error != "gateway_stopped" {
		t.Errorf("%+v", o)
	}
}

// TestGRPCOfOtherKindsEndsWithItsToken: a proxy in front may have made HTTP/1.1 of
// gRPC, and gRPC-Web is HTTP of any kind: no call goes on for that.
func TestGRPCOfOtherKindsEndsWithItsToken(t *testing.T) {
	for _, c := range []struct {
		kind, asked string
		status      string // "": the answer breaks off
	}{
		{"application/grpc", "application/grpc", "16"}, {"application/grpc+proto", "application/grpc", "16"},
		{"application/grpc-web+proto", "application/grpc-web+proto", ""},
		{"application/grpc", "text/plain", "16"}, // some servers do not look
		{"text/plain", "application/grpc", ""},   // what is no gRPC has no status
	} {
		app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			io.WriteString(w, "\x00\x00\x00\x00\x01a")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		g, a := streamGate(t, app)
		conn := g.dial()
		io.WriteString(conn, request("POST", "/private/a", "alice", "Content-Type: "+c.asked, "Te: trailers", "Content-Length: 0"))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		io.ReadFull(res.Body, make([]byte, 6))
		a.turn(nil, errRevoked)
		_, err = io.ReadAll(res.Body)
		if (err == nil) != (c.status != "") || res.Trailer.Get("Grpc-Status") != c.status {
			t.Errorf("%s: %v, %v", c.kind, err, res.Trailer)
		}
		if o := g.outcome().Outcome; o.Error != "token_ended" || !o.Truncated {
			t.Errorf("%s: %+v", c.kind, o)
		}
		g.noStreams()
	}
}

// TestAwaitStreams: a stop waits for a frame that is on its way, and for the
// goodbye behind it.
func TestAwaitStreams(t *testing.T) {
	whole := frame(0x82, false, bytes.Repeat([]byte{7}, 300_000))
	next := make(chan bool)
	app := socketApp(t, func(w *wire) {
		w.conn.Write(whole[:100_000])
		<-next
		w.conn.Write(whole[100_000:])
		io.Copy(io.Discard, w.r)
	})
	g, _ := streamGate(t, app)
	w := g.openWire()
	if _, err := io.ReadFull(w.r, make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	g.proxy.EndStreams(false)
	over := make(chan bool)
	go func() {
		g.proxy.AwaitStreams(context.Background())
		close(over)
	}()
	g.ending()
	close(next)
	if _, err := io.ReadFull(w.r, make([]byte, len(whole)-100_000)); err != nil {
		t.Fatal(err)
	}
	w.wantClose(1001)
	<-over
	g.proxy.AwaitStreams(context.Background()) // of none
}

// TestControlFrameTooLarge: RFC 6455, section 5.5, knows none of more than 125
// bytes.
func TestControlFrameTooLarge(t *testing.T) {
	app := socketApp(t, func(w *wire) { w.read(); w.read() })
	g, _ := streamGate(t, app)
	w := g.openWire()
	w.conn.Write(frame(0x89, true, make([]byte, 125)))
	w.conn.Write(frame(0x89, true, make([]byte, 126)))
	w.wantClose(1002)
	if o := g.outcome().Outcome; o.Error != "bad_request" {
		t.Errorf("%+v", o)
	}
}

// TestStopBeforeTheHeader: a call that waits for its answer is told, too.
func TestStopBeforeTheHeader(t *testing.T) {
	here := make(chan bool, 1)
	app := grpcApp(t, func(s grpc.ServerStream) error {
		here <- true
		<-s.Context().Done()
		return s.Context().Err()
	})
	g, client, _ := grpcGate(t, app, overHTTP2)
	s, err := client.NewStream(as(t, "alice"), allStreams, "/t.T/Private")
	if err != nil {
		t.Fatal(err)
	}
	<-here
	g.proxy.EndStreams(true)
	if err := s.RecvMsg(new(wrapperspb.StringValue)); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	if o := g.outcome().Outcome; o.Status != 503 || o.Error == "" {
		t.Errorf("%+v", o)
	}
	err = client.Invoke(as(t, "alice"), "/t.T/Private", wrapperspb.String("a"), new(wrapperspb.StringValue))
	if status.Code(err) != codes.Unavailable {
		t.Errorf("one that comes later: %v", err)
	}
}

// TestGRPCTypeOfAnOrdinaryApp: that a body is gRPC is the caller's word. Until the
// app answers in gRPC, its bound is that of any body.
func TestGRPCTypeOfAnOrdinaryApp(t *testing.T) {
	var got int64
	done := make(chan bool)
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ = io.Copy(io.Discard, r.Body)
		close(done)
	}))
	app.Config.ErrorLog, app.Config.Protocols = quietLog, new(http.Protocols)
	app.Config.Protocols.SetUnencryptedHTTP2(true)
	app.Start()
	defer app.Close()
	g, _, clients := bothGate(t, app.URL, overHTTP2)
	message := append([]byte{0, 0, 0, 3, 0xfb}, make([]byte, 1019)...) // of 1 KiB with its prefix
	r, err := http.NewRequest(http.MethodPost, g.url+"/small", bytes.NewReader(bytes.Repeat(message, 1000)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.ContentLength = -1
	res, err := clients["HTTP/2.0"].Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	<-done
	if got > 1024 || res.Header.Get("Grpc-Status") != "8" {
		t.Errorf("the app got %d bytes; %v", got, res.Header)
	}
	if o := g.outcome().Outcome; o.Status != 413 {
		t.Errorf("%+v", o)
	}
}

// TestEndOutlastsItsCaller: what the gateway ended is on record as that, also where
// the caller left before he could be told.
func TestEndOutlastsItsCaller(t *testing.T) {
	for _, end := range []*streamEnd{tokenEnded(nil), tokenUnknown(nil), endStopping, endTooLarge} {
		gone, leave := context.WithCancelCause(t.Context())
		leave(nil)
		x := logged(logProxy(t, io.Discard, LogLines{}))
		x.w, x.body, x.outer = &responseWriter{ResponseWriter: httptest.NewRecorder()}, nil, gone
		x.ctx, x.ends = context.WithCancelCause(context.Background())
		x.ends(end)
		func() {
			defer func() {
				if broken := recover(); broken != nil {
					t.Errorf("%s: %v", end.text, broken)
				}
			}()
			x.fail(end.problem())
		}()
		if got := failureCode(x.failure); got != end.outcome {
			t.Errorf("%s: %s is on record, want %s", end.text, got, end.outcome)
		}
	}
}
