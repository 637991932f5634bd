package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/textproto"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A script is a connection on which these bytes come, in pieces.
type script struct {
	net.Conn
	mu     sync.Mutex
	data   []byte
	piece  func() int // the next piece's size
	wrote  bytes.Buffer
	closed chan struct{}
	once   sync.Once
}

func newScript(data []byte, piece func() int) *script {
	return &script{data: data, piece: piece, closed: make(chan struct{})}
}

func (s *script) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), max(1, s.piece()))], s.data)
	s.data = s.data[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrote.Write(p)
}

func (s *script) Close() error { s.once.Do(func() { close(s.closed) }); return nil }

// CloseWrite spares the tests net/http's wait for the other side.
func (s *script) CloseWrite() error                { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// oneConn is a listener of one connection.
type oneConn struct {
	conn net.Conn
	once bool
	end  chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if !l.once {
		l.once = true
		return l.conn, nil
	}
	<-l.end
	return nil, net.ErrClosed
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// A seen is a request as a handler of net/http sees it.
type seen struct {
	Method, URI, Proto, Host string
	Header, Trailer          http.Header
	Length                   int64
	Body                     string
	Broken                   bool // the body
	Close                    bool
}

// serveScript gives what a server of net/http's makes of the bytes.
func serveScript(data []byte, piece func() int, guard bool) ([]seen, string) {
	conn := newScript(data, piece)
	var got []seen
	s := &http.Server{ErrorLog: quietLog, DisableGeneralOptionsHandler: true, MaxHeaderBytes: 32 << 10}
	s.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			body = nil // how much of it came is of no importance
		}
		got = append(got, seen{r.Method, r.RequestURI, r.Proto, r.Host, r.Header.Clone(), r.Trailer.Clone(), r.ContentLength, string(body), err != nil, r.Close})
	})
	l := &oneConn{conn: conn, end: make(chan struct{})}
	if guard {
		l.conn = strict(conn, nil)
	}
	go func() { <-conn.closed; close(l.end) }()
	_ = s.Serve(l)
	conn.mu.Lock()
	defer conn.mu.Unlock()
	return got, conn.wrote.String()
}

// firstAmbiguous is which request frames itself in two ways, by another
// reading than the guard's, or has chunks whose trailers are not lines of
// CRLF, or have spaces in their names, which net/http takes there; else it is
// beyond all.
func firstAmbiguous(data []byte) (which int, trailer bool) {
	post := false
	for i := 0; ; i++ {
		if post {
			n := 0
			for n < min(4, len(data)) && (data[n] == '\r' || data[n] == '\n') {
				n++
			}
			data = data[n:]
		}
		tp := textproto.NewReader(bufio.NewReader(bytes.NewReader(data)))
		line, err := tp.ReadLine()
		if err != nil {
			return 1 << 30, false
		}
		h, err := tp.ReadMIMEHeader()
		if err != nil {
			return 1 << 30, false
		}
		old := strings.HasSuffix(line, "HTTP/1.0") || strings.Contains(line, "HTTP/0.")
		lengths, encodings := len(h["Content-Length"]), len(h["Transfer-Encoding"])
		if lengths+encodings > 1 || old && encodings > 0 {
			return i, false
		}
		r := bytes.NewReader(data)
		br := bufio.NewReader(r)
		req, err := http.ReadRequest(br)
		if err != nil {
			return 1 << 30, false
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return 1 << 30, false
		}
		post = req.Method == "POST"
		rest := data[len(data)-r.Len()-br.Buffered():]
		if encodings > 0 {
			r := bytes.NewReader(data)
			br := bufio.NewReader(r)
			_, _ = http.ReadRequest(br)
			end := trailers(br, func() int { return r.Len() + br.Buffered() }, data)
			end = end[:len(end)-len(rest)]
			for line := range strings.SplitAfterSeq(string(end), "\n") {
				name, _, _ := strings.Cut(line, ":")
				if strings.HasSuffix(line, "\n") && !strings.HasSuffix(line, "\r\n") || !strings.HasPrefix(name, " ") && !strings.HasPrefix(name, "\t") && strings.Contains(name, " ") {
					return i, true
				}
			}
		}
		data = rest
	}
}

// trailers are what follows the last chunk of a request, if it has chunks.
func trailers(r *bufio.Reader, left func() int, data []byte) []byte {
	if _, err := io.Copy(io.Discard, httputil.NewChunkedReader(r)); err != nil {
		return nil
	}
	return data[len(data)-left():]
}

// checkFraming holds the guard to its promise: it changes nothing but that the
// first request with two framings, and what follows a wish to upgrade, is never
// served.
func checkFraming(t *testing.T, data []byte, piece func() int) (served int) {
	t.Helper()
	plain, _ := serveScript(data, func() int { return 1 << 20 }, false)
	guarded, answers := serveScript(data, piece, true)
	want := plain
	ambiguous, trailer := firstAmbiguous(data)
	switch {
	case ambiguous >= len(want):
	case trailer && ambiguous < len(guarded):
		want = slices.Clone(want[:ambiguous+1])
		want[ambiguous].Body, want[ambiguous].Broken = "", true
		want[ambiguous].Trailer = guarded[ambiguous].Trailer
	default:
		want = want[:ambiguous]
	}
	if i := slices.IndexFunc(plain, func(r seen) bool { return r.Header["Upgrade"] != nil }); i >= 0 && i < ambiguous {
		want, ambiguous = want[:min(i+1, len(want))], 1<<30
	}
	if len(want) != len(guarded) || len(want) > 0 && !reflect.DeepEqual(want, guarded) {
		t.Fatalf("%q\nwithout: %+v\nwith:    %+v\nambiguous: %d", data, plain, guarded, ambiguous)
	}
	if !trailer && ambiguous < len(plain) && len(guarded) == ambiguous && !strings.Contains(answers, "HTTP/1.1 400 ") {
		t.Fatalf("%q: no refusal: %q", data, answers)
	}
	return len(guarded)
}

// frameParts are pieces of requests: right, odd but right, and wrong.
var frameParts = struct{ lines, fields, bodies []string }{
	lines: []string{
		"GET / HTTP/1.1\r\n", "POST /a HTTP/1.1\r\n", "POST /a HTTP/1.1\n", "PUT /b?c HTTP/1.0\r\n", "HEAD / HTTP/1.1\r\n", "OPTIONS * HTTP/1.1\r\n",
		"GET http://a/b HTTP/1.1\r\n", "\r\nGET / HTTP/1.1\r\n", "\r\n\r\nPOST / HTTP/1.1\r\n", "\n\n\n\nGET / HTTP/1.1\r\n", "\n\n\n\n\nGET / HTTP/1.1\r\n", "\rGET / HTTP/1.1\r\n",
		"GET /  HTTP/1.1\r\n", "GET / HTTP/1.1 \r\n", "GET / HTTP/1.2\r\n", "GET / HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n", "CONNECT a:1 HTTP/1.1\r\n", "POST / HTTP/0.9\r\n", "P", "POSTS / HTTP/1.1\r\n",
		"POST\t/ HTTP/1.1\r\n", "POST /" + strings.Repeat("a", 5000) + " HTTP/1.1\r\n", "GET / HTTP/1.1\r\r\n", "GET /\rHTTP/1.1\r\n",
	},
	fields: []string{
		"Host: a\r\n", "host:a\n", "Content-Length: 3\r\n", "content-length:3\r\n", "CONTENT-LENGTH:\t 003 \t\r\n", "Content-Length:\r\n 3\r\n", "Content-Length: 3\r\n \r\n", "Content-Length: 1\r\n 2\r\n",
		"Content-Length: 0\r\n", "Content-Length:\r\n", "Content-Length: +3\r\n", "Content-Length: 3, 3\r\n", "Content-Length : 3\r\n", "Content-Length: 0x3\r\n", "Content-Length: 9223372036854775807\r\n", "Content-Length: 9223372036854775808\r\n",
		"Content-Length: 3\r\r\n", "Content-Length: 3\x00\r\n", "Content_Length: 3\r\n", "Content-Lengthy: 3\r\n", "Content-Lengt: 3\r\n",
		"Transfer-Encoding: chunked\r\n", "transfer-encoding:chunked\n", "Transfer-Encoding: Chunked \r\n", "TRANSFER-ENCODING:\r\n\tCHUNKED\r\n", "Transfer-Encoding: chunked\r\n \r\n", "Transfer-Encoding: xchunked\r\n",
		"Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: identity\r\n", "Transfer-Encoding:\r\n", "Transfer-Encoding: chunked, chunked\r\n", "Transfer-Encoding: chunk\r\n ed\r\n", "Transfer-Encoding: \vchunked\r\n", "Transfer_Encoding: chunked\r\n", "Transfer-Encodings: chunked\r\n",
		"X: a\r\n Content-Length: 5\r\n", "X: a\n\tTransfer-Encoding: chunked\n", "X: \r\n \r\n \r\n", "X:\r\n", ": a\r\n", "X\r\n", " X: a\r\n", "X: a\rb\r\n", "X: a\r\n\rY: b\r\n", "X Y: a\r\n", "X\x80: a\r\n", "X: \x80\xff\r\n",
		"Connection: close\r\n", "Connection: keep-alive\r\n", "Connection: Upgrade\r\n", "Upgrade: websocket\r\n", "upgrade:\r\n", "Expect: 100-continue\r\n", "Expect: other\r\n", "Trailer: T\r\n", "Trailer: Content-Length\r\n",
		"X: " + strings.Repeat("b", 5000) + "\r\n", strings.Repeat("N", 300) + ": c\r\n",
	},
	bodies: []string{
		"", "abc", "3\r\nabc\r\n0\r\n\r\n", "3;x=\"y\"\r\nabc\r\n0\r\n\r\n", "3 \r\nabc\r\n0;z\r\nT: u\r\n\r\n", "03\r\nabc\r\n00\r\n\r\n", "3\nabc\r\n0\r\n\r\n", "3\r\nabc0\r\n\r\n", "3\r\nabc\n0\r\n\r\n",
		"0\r\n\n", "0\r\n\nX: y\r\n\r\n", "0\r\nT: u\n\n", "0\r\nT: u\n\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n", "0\n\n", "0\r\n T: u\r\n\r\n", "0\r\nContent-Length: 3\r\n\r\n", "0\r\nT\r\n\r\n", "0\r\nT: u\nV: w\r\n\r\n", "0\r\nT: u\r\nV: w\n\r\n", "0\r\nT : u\r\n\r\n", "0\r\nT: u\r\nV w: x\r\n\r\n", "0\r\nT: u\r\n v w: x\r\n\r\n", "3 ;x\r\nabc\r\n0\r\n\r\n", "0x3\r\nabc\r\n0\r\n\r\n",
		"g\r\n", "\r\n", "-1\r\n", "10000000000000000\r\n", "00000000000000003\r\nabc\r\n0\r\n\r\n", "0000000000000003\r\nabc\r\n0\r\n\r\n", "ffffffffffffffff\r\nabc", "3;" + strings.Repeat("e", 4089) + "\r\nabc\r\n0\r\n\r\n", "3;" + strings.Repeat("e", 4092) + "\r\nabc\r\n0\r\n\r\n", "3;a\rb\r\nabc\r\n0\r\n\r\n", "3\r\r\nabc\r\n0\r\n\r\n",
		"1\r\na\r\n1\r\nb\r\n0\r\n\r\n", "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
	},
}

// frames makes some requests of the parts, and now and then a wrong byte.
func frames(r *rand.Rand) []byte {
	pick := func(from []string) string { return from[r.IntN(len(from))] }
	var b []byte
	for range 1 + r.IntN(3) {
		line := frameParts.lines[0]
		if r.IntN(2) == 0 {
			line = frameParts.lines[1]
		}
		if r.IntN(4) == 0 {
			line = pick(frameParts.lines)
		}
		b = append(b, line...)
		b = append(b, "Host: a\r\n"...)
		for range r.IntN(3) {
			b = append(b, pick(frameParts.fields)...)
		}
		switch r.IntN(5) {
		case 0:
			b = append(b, "Content-Length: 3\r\n\r\nabc"...)
		case 1:
			b = append(b, "Transfer-Encoding: chunked\r\n\r\n"...)
			b = append(b, pick(frameParts.bodies)...)
		case 2:
			b = append(b, "\n"...)
			b = append(b, pick(frameParts.bodies)...)
		default:
			b = append(b, "\r\n"...)
		}
	}
	const odd = "\r\n\t :;,0aAgZ\x00\x7f\x80-_"
	for r.IntN(3) == 0 {
		at := r.IntN(len(b))
		switch c := odd[r.IntN(len(odd))]; r.IntN(3) {
		case 0:
			b[at] = c
		case 1:
			b = append(b[:at], append([]byte{c}, b[at:]...)...)
		default:
			b = append(b[:at], b[at+1:]...)
		}
	}
	return b
}

func pieces(r *rand.Rand) func() int {
	most := []int{1, 2, 7, 40, 1 << 20}[r.IntN(5)]
	return func() int { return 1 + r.IntN(most) }
}

// TestFramingIsNetHTTPs: the guard reads requests as net/http does, byte for
// byte, however they are cut into pieces.
func TestFramingIsNetHTTPs(t *testing.T) {
	served := 0
	synctest.Test(t, func(t *testing.T) { // net/http waits half a second for some callers to go
		for seed := range uint64(20_000) {
			r := rand.New(rand.NewPCG(seed, 5))
			served += checkFraming(t, frames(r), pieces(r))
		}
	})
	if served < 10_000 {
		t.Errorf("only %d requests were served: the test shows little", served)
	}
}

func FuzzFraming(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(frames(rand.New(rand.NewPCG(seed, 6))), seed)
	}
	f.Add([]byte(http2Preface+"\x00\x00\x00"), uint64(0))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n"), uint64(0))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		synctest.Test(t, func(t *testing.T) { checkFraming(t, data, pieces(rand.New(rand.NewPCG(seed, 7)))) })
	})
}

// TestAmbiguousFraming: each way to frame a request twice, alone, and behind a
// good request that must not suffer for it.
func TestAmbiguousFraming(t *testing.T) {
	good := "POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok"
	for _, fields := range []string{
		"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "transfer-encoding: chunked\r\nX: y\r\ncontent-length: 0\r\n",
		"Content-Length: 0\r\nContent-Length: 0\r\n", "Content-Length: 5\r\nCONTENT-LENGTH: 5\r\n", "Content-Length: 0\nContent-Length: 0\n",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
		"Content-Length:\r\n 5\r\nTransfer-Encoding:\r\n chunked\r\n",
	} {
		for _, before := range []string{"", good, good + good, "GET /good HTTP/1.1\r\nHost: a\r\n\r\n"} {
			for _, size := range []int{1, 3, 1 << 20} {
				bad := "POST /bad HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
				got, answers := serveScript([]byte(before+bad), func() int { return size }, true)
				if want := strings.Count(before, "/good"); len(got) != want || strings.Count(answers, " 200 OK\r\n") != want || strings.Count(answers, "HTTP/1.1 400 Bad Request\r\n") != 1 {
					t.Errorf("%q behind %q: %+v\n%s", fields, before, got, answers)
				}
			}
		}
	}
	old := "POST /bad HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
	if got, answers := serveScript([]byte(old), func() int { return 1 << 20 }, true); len(got) != 0 || !strings.HasPrefix(answers, "HTTP/1.1 400 ") {
		t.Errorf("%+v %s", got, answers)
	}
}

// TestGoodRequestBeforeABrokenOne keeps its context while it is served: the
// byte that net/http reads ahead is no error.
func TestGoodRequestBeforeABrokenOne(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "done") })
	g := newGate(t, app)
	conn := g.dial()
	io.WriteString(conn, request("GET", "/public/a", "")+"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n")
	r := bufio.NewReader(conn)
	if a := g.read(r, "GET"); a.StatusCode != 200 || a.body != "done" {
		t.Errorf("%+v", a)
	}
	if a := g.read(r, "POST"); a.err != nil || a.StatusCode != 400 || !a.Close {
		t.Errorf("%+v", a)
	}
}

// TestNothingFollowsAnUpgrade that was not taken, whatever the answer says of
// the connection.
func TestNothingFollowsAnUpgrade(t *testing.T) {
	for _, upgrade := range []string{"websocket", "h2c", "foo"} {
		data := "GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + "\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
		for _, size := range []int{1, 30, 1 << 20} {
			got, _ := serveScript([]byte(data), func() int { return size }, true)
			if len(got) != 1 || got[0].URI != "/a" {
				t.Errorf("%s: %+v", upgrade, got)
			}
		}
	}
}

// TestTunnelIsNotWatched: whoever takes the connection over gets every byte,
// those that came with the handshake as well.
func TestTunnelIsNotWatched(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	client.SetDeadline(time.Now().Add(20 * time.Second))
	server.SetDeadline(time.Now().Add(20 * time.Second))
	const early, late = "early\nContent-Length: 1\r\n\x00\r\n\r\n", "late POST / HTTP/1.1\nContent-Length: 1\nContent-Length: 1\n\n"
	result := make(chan string, 1)
	s := &http.Server{ErrorLog: quietLog, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := (&responseWriter{ResponseWriter: w}).Hijack()
		if err != nil {
			result <- err.Error()
			return
		}
		all := make([]byte, len(early)+len(late))
		n, _ := io.ReadFull(conn, all)
		result <- string(all[:n])
		conn.Close()
	})}
	l := &oneConn{conn: strict(server, nil), end: make(chan struct{})}
	defer close(l.end)
	go s.Serve(l)
	io.WriteString(client, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+early)
	io.WriteString(client, late)
	if got := <-result; got != early+late {
		t.Errorf("%q", got)
	}
}

// TestHTTP2IsNotWatched, but only from the first byte on, and where there is no TLS.
func TestHTTP2IsNotWatched(t *testing.T) {
	after := "\x00\x00\x00\x04\x00\x00\x00\x00\x00Content-Length: 1\r\n"
	for _, size := range []int{1, 14, 24, 1 << 20} {
		conn := strict(newScript([]byte(http2Preface+after), func() int { return size }), nil)
		if all, err := io.ReadAll(conn); err != nil || string(all) != http2Preface+after {
			t.Errorf("%q, %v", all, err)
		}
	}
	for _, data := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + http2Preface + after, strings.TrimSuffix(http2Preface, "\n") + "\r" + after} {
		conn := strict(newScript([]byte(data), func() int { return 1 << 20 }), nil)
		if all, err := io.ReadAll(conn); !errors.Is(err, errFraming) || bytes.Contains(all, []byte(after)) {
			t.Errorf("%q, %v", all, err)
		}
	}
	conn := strict(stateful{newScript([]byte(http2Preface+after), func() int { return 1 << 20 }), ""}, nil)
	if all, err := io.ReadAll(conn); !errors.Is(err, errFraming) || bytes.Contains(all, []byte(after)) {
		t.Errorf("with TLS: %q, %v", all, err)
	}
}

// A stateful is a connection with TLS, as net/http sees it.
type stateful struct {
	net.Conn
	proto string
}

func (s stateful) ConnectionState() tls.ConnectionState {
	return tls.ConnectionState{HandshakeComplete: true, NegotiatedProtocol: s.proto}
}

// TestStrictConnKeepsItsKind: net/http takes any connection with a
// ConnectionState for one with TLS.
func TestStrictConnKeepsItsKind(t *testing.T) {
	plain := newScript(nil, nil)
	if _, ok := strict(plain, nil).(connectionStater); ok {
		t.Error("a connection without TLS says it has some")
	}
	secure, ok := strict(stateful{plain, "http/1.1"}, nil).(connectionStater)
	if !ok || !secure.ConnectionState().HandshakeComplete {
		t.Error("TLS is lost")
	}
	if _, ok := strict(stateful{plain, "h2"}, nil).(stateful); !ok {
		t.Error("HTTP/2 is watched")
	}
}

// handshaken accepts connections whose TLS handshake is done, as the guard
// needs them.
type handshaken struct {
	net.Listener
	config *tls.Config
}

func (l handshaken) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	secure := tls.Server(conn, l.config)
	return secure, secure.HandshakeContext(context.Background())
}

// TestStrictFramingWithTLS: net/http sees TLS, and the guard what is in it.
func TestStrictFramingWithTLS(t *testing.T) {
	sample := httptest.NewTLSServer(nil)
	defer sample.Close()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%v %s", r.TLS.HandshakeComplete, r.TLS.ServerName)
	}))
	s.Config.ErrorLog = quietLog
	s.Listener = StrictFraming(handshaken{s.Listener, &tls.Config{Certificates: sample.TLS.Certificates}}, nil)
	s.Start()
	defer s.Close()
	for body, want := range map[string]string{
		"Content-Length: 1\r\n\r\nx":                                       "200 OK true example.com",
		"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx":                  "400 Bad Request 400 Bad Request",
		"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": "400 Bad Request 400 Bad Request",
	} {
		conn, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{ServerName: "example.com", RootCAs: pool(t, sample)})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\n"+body)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		if got := res.Status + " " + string(text); got != want {
			t.Errorf("%q: %q", body, got)
		}
	}
}

func pool(t *testing.T, s *httptest.Server) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	p.AddCert(s.Certificate())
	return p
}

// TestGuardStandsAlone: what it cannot follow it ends, and does not count on
// net/http to refuse it.
func TestGuardStandsAlone(t *testing.T) {
	const post = "POST / HTTP/1.1\r\nHost: a\r\n"
	const chunks = post + "Transfer-Encoding: chunked\r\n\r\n"
	for _, data := range []string{
		"\r\nGET / HTTP/1.1\r\n\r\n", "POSTS / HTTP/1.1\r\n\r\n\r\n", post + "\r\n\n\n\n\n\n", "GET / HTTP/1.x\r\n", "GET / HTTP/11\r\n", "GET / http/1.1\r\n", "GET /\r\n", "\x16\x03\x01\n",
		post + "\rX", "GET / HTTP/1.1\r\n X: a\r\n", "GET / HTTP/1.1\r\n\tX: a\r\n", post + ": a\r\n", post + "X\r\n", post + "X Y: a\r\n", post + "X\x00: a\r\n",
		post + "Content-Length: x\r\n\r\nY", post + "Content-Length:\r\n\r\nY", post + "Content-Length: 9223372036854775808\r\n\r\nY", post + "Content-Length: 1\r\n 2\r\n\r\nY",
		post + "Transfer-Encoding: gzip, chunked\r\n\r\nY", post + "Transfer-Encoding: chunke\r\n\r\nY", post + "Transfer-Encoding: chunkedd\r\n\r\nY", post + "Transfer-Encoding:\r\n\r\nY",
		chunks + "\r\n", chunks + ";a\r\n", chunks + "g", chunks + "00000000000000001\r\n", chunks + "1 1\r\n", chunks + "1 ;a\r\n", chunks + "1\n", chunks + "1;a\n", chunks + "1\ra", chunks + "1;" + strings.Repeat("a", maxChunkLine),
		chunks + "1\r\naX", chunks + "1\r\na\rX", chunks + "1\r\na\n", chunks + "0\r\n\n", chunks + "0\r\nT: u\n", chunks + "0\r\nT: u\r\n v\n", chunks + "0\r\n T: u", chunks + "0\r\nT\r\n", chunks + "0\r\n\rX",
	} {
		for _, size := range []int{1, 2, 1 << 20} {
			conn := strict(newScript([]byte(data), func() int { return size }), nil)
			if _, err := io.ReadAll(conn); err != errFraming {
				t.Errorf("%q: %v", data, err)
			}
		}
	}
}

// TestBrokenFramingIsAnError, never the end of what came: an end would make a
// whole of half a body.
func TestBrokenFramingIsAnError(t *testing.T) {
	conn := strict(newScript([]byte("GET / HTTP/1.1\r\nX\r\nY: z\r\n\r\n"), func() int { return 1 << 20 }), nil)
	all, err := io.ReadAll(conn)
	if err != errFraming || string(all) != "GET / HTTP/1.1\r\nX\x00\n" || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v", all, err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err != errFraming {
		t.Errorf("%d, %v", n, err)
	}
}

func TestFramingAllocatesNothing(t *testing.T) {
	data := []byte("POST /private/a?b=c HTTP/1.1\r\nHost: photos.acme.dev\r\nAuthorization: Bearer abc\r\nTransfer-Encoding: chunked\r\nAccept: */*\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
	var f framer
	f.preface = notHTTP2
	if n := testing.AllocsPerRun(100, func() {
		if n, next := f.follow(data); n != len(data) || next != strictHTTP {
			t.Fatal(n, next)
		}
	}); n != 0 {
		t.Errorf("%v", n)
	}
}

func BenchmarkFraming(b *testing.B) {
	data := []byte("GET /private/a?b=c HTTP/1.1\r\nHost: photos.acme.dev\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\nAccept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, deflate\r\nAuthorization: Bearer " + strings.Repeat("a", 900) + "\r\n\r\n")
	f := framer{preface: notHTTP2}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if n, next := f.follow(data); n != len(data) || next != strictHTTP {
			b.Fatal(fmt.Sprint(n, next))
		}
	}
}
