package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sidegate/storage/audit"
)

// An arena is a gateway before the most careless app that there is, which
// tells when an attack has come through: each request is read in every way
// that a server is known to read it.
type arena struct {
	*gate
	app string

	mu        sync.Mutex
	successes []string // since they were last taken
	requests  int      // that reached the app
	sent      map[string]int
	exact     bool            // the app tells /Admin from /admin
	tried     map[string]bool // attacks of several classes are sent once
	works     map[string]bool // against the app alone
}

const arenaHeaderBytes = 32 << 10

func newArena(t testing.TB, change ...func(*Options)) *arena {
	t.Helper()
	a := &arena{sent: map[string]int{}, tried: map[string]bool{}, works: map[string]bool{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	a.app = l.Addr().String()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go a.answer(conn)
		}
	}()
	a.gate = newGate(t, "http://"+a.app, change...)
	// As the gateway's own listener, with a bound of headers that can be met.
	s := httptest.NewUnstartedServer(a.proxy)
	s.Config.DisableGeneralOptionsHandler = true
	s.Config.ErrorLog = quietLog
	s.Config.MaxHeaderBytes = arenaHeaderBytes
	s.Config.Protocols = a.server.Config.Protocols
	s.Listener = StrictFraming(s.Listener, nil)
	s.Start()
	t.Cleanup(s.Close)
	a.url, a.address = s.URL, s.Listener.Addr().String()
	return a
}

// answer reads a connection as carelessly as it can, request by request.
func (a *arena) answer(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		fields := careFields(r)
		var body []byte
		switch {
		case strings.Contains(strings.Join(fields["transfer-encoding"], ","), "chunked"):
			body, fields["trailer"] = careChunks(r)
		case len(fields["content-length"]) > 0:
			n, _ := strconv.Atoi(strings.Trim(fields["content-length"][0], " +"))
			body, _ = io.ReadAll(io.LimitReader(r, int64(n)))
		}
		a.judge(line, fields)
		answer := fmt.Sprintf("%s\n%v\n%d bytes", line, fields, len(body))
		if strings.HasPrefix(line, "HEAD ") {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(answer))
			continue
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
	}
}

// careFields reads header lines: names in any case and spelling, values with
// whatever is in them.
func careFields(r *bufio.Reader) map[string][]string {
	out := map[string][]string{}
	for {
		line, err := r.ReadString('\n')
		if err != nil || strings.TrimSpace(line) == "" {
			return out
		}
		name, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		name = careless(strings.TrimSpace(name))
		out[name] = append(out[name], strings.TrimSpace(value))
	}
}

// careChunks gives the body, and the trailers as values.
func careChunks(r *bufio.Reader) (body []byte, trailers []string) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return body, nil
		}
		size, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, _ := strconv.ParseInt(strings.TrimSpace(size), 16, 32)
		if n <= 0 {
			for name, values := range careFields(r) {
				trailers = append(trailers, name+"="+strings.Join(values, ","))
			}
			return body, trailers
		}
		part, _ := io.ReadAll(io.LimitReader(r, n))
		body = append(body, part...)
		r.ReadString('\n')
	}
}

// judge tells whether a request should not have come.
func (a *arena) judge(line string, fields map[string][]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests++
	lost := func(format string, args ...any) {
		a.successes = append(a.successes, fmt.Sprintf(format, args...)+" in "+strconv.Quote(line))
	}
	words := strings.SplitN(line, " ", 2)
	target := strings.TrimSpace(words[len(words)-1])
	if i := strings.LastIndex(target, " HTTP/"); i >= 0 {
		target = target[:i]
	}
	uid := fields["x-sidegate-uid"]
	for reading := range readings(target, a.exact) {
		switch {
		case reading == "/admin", strings.HasPrefix(reading, "/admin/"), strings.HasPrefix(reading, "/admin") && !a.exact, strings.Contains(reading, "/hidden"):
			lost("%s was reached", reading)
		case strings.HasPrefix(reading+"/", "/private/") && !slices.Equal(uid, []string{"alice"}),
			strings.HasPrefix(reading, "/own/") && !slices.Equal(uid, []string{strings.TrimPrefix(reading, "/own/")}):
			lost("%s was reached as %v", reading, uid)
		}
	}
	if len(uid) > 1 || len(uid) == 1 && uid[0] != "alice" {
		lost("the caller is %v", uid)
	}
	if m := words[0]; m != strings.ToUpper(m) || m == "CONNECT" || m == "TRACE" || m == "PRI" {
		lost("method %s", m)
	}
	for name, values := range fields {
		for _, v := range values {
			if strings.Contains(v, "evil") || name == "upgrade" {
				lost("%s: %s", name, v)
			}
		}
	}
	if len(fields["host"]) != 1 || len(fields["authorization"]) > 1 || len(fields["content-length"])+len(fields["transfer-encoding"]) > 1 {
		lost("%v", fields)
	}
}

// readings are the paths that servers make of a target.
func readings(target string, exact bool) map[string]bool {
	target, _, _ = strings.Cut(target, "?")
	out := map[string]bool{target: true}
	steps := []func(string) string{
		func(s string) string {
			if _, rest, ok := strings.Cut(s, "://"); ok {
				return "/" + strings.TrimLeft(rest[strings.IndexByte(rest+"/", '/'):], "/")
			}
			return s
		},
		func(s string) string { // "//host/path" names an authority
			if strings.HasPrefix(s, "//") {
				return s[2+strings.IndexByte(s[2:]+"/", '/'):]
			}
			return s
		},
		func(s string) string { return s[:strings.IndexAny(s+"?", "?#\x00\r\n")] },
		func(s string) string { _, s, _ = strings.Cut(s, "#"); return s },
		careDecode,
		func(s string) string { return strings.ReplaceAll(s, `\`, "/") },
		func(s string) string {
			segments := strings.Split(s, "/")
			for i := range segments {
				segments[i], _, _ = strings.Cut(segments[i], ";")
			}
			return strings.Join(segments, "/")
		},
		func(s string) string {
			for strings.Contains(s, "//") {
				s = strings.ReplaceAll(s, "//", "/")
			}
			return s
		},
		func(s string) string { return path.Clean("/" + s) },
	}
	if !exact {
		steps = append(steps, strings.ToLower, func(s string) string { return strings.TrimRight(s, ". ") })
	}
	for range 4 {
		for have := range maps.Clone(out) {
			for _, step := range steps {
				if next := step(have); next != "" && len(out) < 2000 {
					out[next] = true
				}
			}
		}
	}
	return out
}

// careDecode decodes once, what is no encoding at all as well.
func careDecode(s string) string {
	s = strings.NewReplacer("%c0%ae", ".", "%c0%af", "/", "%C0%AE", ".", "%C0%AF", "/", "%u002e", ".", "%u002E", ".", "%u002f", "/", "%u002F", "/", "%u005c", "/").Replace(s)
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			b.WriteByte(unhex(s[i+1])<<4 | unhex(s[i+2]))
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// take gives the successes since the last time, and how many requests came.
func (a *arena) take() (successes []string, requests int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	successes, requests = a.successes, a.requests
	a.successes, a.requests = nil, 0
	return successes, requests
}

// An attack is a request, of both protocols, or bytes of HTTP/1.1.
type attack struct {
	method, target, token string
	lines                 []string
	body                  string
	raw                   string
	// half: more of it would have to come, so that the connection is ended.
	half bool
	// last: what follows on the connection is no request.
	last bool
}

// lastRequest ends a connection behind an attack that did not end it.
const lastRequest = "GET /public/lastRequest HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n"

func (k attack) bytes() string {
	if k.raw != "" {
		return k.raw
	}
	lines := k.lines
	if k.body != "" {
		lines = append(slices.Clone(lines), fmt.Sprint("Content-Length: ", len(k.body)))
	}
	return request(k.method, k.target, k.token, lines...) + k.body
}

// http1 sends the attack and gives all that was answered.
func (a *arena) http1(k attack, address string) string {
	a.t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		a.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, k.bytes()+lastRequest) // it may be closed already
	if k.half || address == a.app {             // the app keeps its connections
		conn.(*net.TCPConn).CloseWrite()
	}
	all, err := io.ReadAll(conn)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		a.t.Errorf("%q: the connection hangs: %q", k.bytes(), all)
	}
	return string(all)
}

// A stream2 is one request of HTTP/2.
type stream2 struct {
	fields   []hpack.HeaderField
	body     []byte
	trailers []hpack.HeaderField
}

func field2(name, value string) hpack.HeaderField { return hpack.HeaderField{Name: name, Value: value} }

// pseudo are the fields of a request that is good so far.
func pseudo(method, target string) []hpack.HeaderField {
	return []hpack.HeaderField{field2(":method", method), field2(":scheme", "http"), field2(":authority", "gateway.test"), field2(":path", target)}
}

// stream2 is the attack in HTTP/2: names in lower case, nothing else changed.
func (k attack) overHTTP2() stream2 {
	s := stream2{fields: pseudo(k.method, k.target), body: []byte(k.body)}
	if k.token != "" {
		s.fields = append(s.fields, field2("authorization", "Bearer "+k.token))
	}
	for _, l := range k.lines {
		name, value, _ := strings.Cut(l, ":")
		s.fields = append(s.fields, field2(strings.ToLower(name), strings.TrimSpace(value)))
	}
	return s
}

// A client2 is a connection of HTTP/2 whose frames are written by hand.
type client2 struct {
	t      testing.TB
	conn   net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	next   uint32
}

func (a *arena) dial2() *client2 {
	a.t.Helper()
	conn := a.dial()
	c := &client2{t: a.t, conn: conn, framer: http2.NewFramer(conn, conn), next: 1}
	c.framer.AllowIllegalWrites, c.framer.AllowIllegalReads = true, true
	c.enc = hpack.NewEncoder(&c.block)
	io.WriteString(conn, http2.ClientPreface)
	c.framer.WriteSettings()
	return c
}

// open writes a request's first frame, and more of its header where it is long.
func (c *client2) open(fields []hpack.HeaderField, end bool) uint32 {
	c.block.Reset()
	for _, f := range fields {
		c.enc.WriteField(f)
	}
	id, rest, first := c.next, c.block.Bytes(), true
	c.next += 2
	for first || len(rest) > 0 {
		part := rest[:min(len(rest), 16<<10)]
		rest = rest[len(part):]
		if first {
			c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: part, EndStream: end, EndHeaders: len(rest) == 0})
		} else {
			c.framer.WriteContinuation(id, len(rest) == 0, part)
		}
		first = false
	}
	return id
}

// verdict is what became of a stream: a status, or how it ended.
func (c *client2) verdict(id uint32) string {
	c.t.Helper()
	status := ""
	dec := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			status = f.Value
		}
	})
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				c.t.Error("a stream hangs")
			}
			return "closed"
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.framer.WriteSettingsAck()
			}
		case *http2.GoAwayFrame:
			return "goaway " + f.ErrCode.String()
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				if status != "" {
					return status // what was left of the body is not wanted
				}
				return "reset " + f.ErrCode.String()
			}
		case *http2.HeadersFrame:
			dec.Write(f.HeaderBlockFragment())
			if f.StreamID == id && f.StreamEnded() {
				return status
			}
		case *http2.DataFrame:
			if f.StreamID == id && f.StreamEnded() {
				return status
			}
		}
	}
}

// http2 sends the stream on a connection of its own.
func (a *arena) http2(s stream2) string {
	a.t.Helper()
	c := a.dial2()
	defer c.conn.Close()
	id := c.open(s.fields, len(s.body) == 0 && s.trailers == nil)
	if len(s.body) > 0 {
		c.framer.WriteData(id, s.trailers == nil, s.body)
	}
	if s.trailers != nil {
		c.next = id
		c.open(s.trailers, true)
	}
	return c.verdict(id)
}

// attack sends an attack by both protocols and reports what came through.
func (a *arena) attack(t *testing.T, k attack) {
	t.Helper()
	if a.tried[k.bytes()] {
		return
	}
	a.tried[k.bytes()] = true
	a.take()
	a.tape.set(func(r *tape) { r.decisions = nil })
	answers := a.http1(k, a.address)
	a.sent["HTTP/1.1"]++
	if successes, _ := a.take(); successes != nil {
		t.Errorf("HTTP/1.1 %q: %q\n%s", k.bytes(), successes, answers)
	}
	if k.last {
		a.tape.set(func(r *tape) {
			if slices.ContainsFunc(r.decisions, func(e *audit.Event) bool { return strings.Contains(e.Request.Path, "hidden") }) {
				t.Errorf("%q: what follows was read as a request", k.bytes())
			}
		})
	}
	if k.raw == "" {
		a.stream(t, k.overHTTP2())
	}
}

func (a *arena) stream(t *testing.T, s stream2) (verdict string) {
	t.Helper()
	a.take()
	verdict = a.http2(s)
	a.sent["HTTP/2"]++
	if successes, _ := a.take(); successes != nil {
		t.Errorf("HTTP/2 %q: %q, %s", s.fields, successes, verdict)
	}
	return verdict
}

// direct sends the attack to the app itself, and reports whether that works.
func (a *arena) direct(k attack) bool {
	works, known := a.works[k.bytes()]
	if !known {
		a.take()
		a.http1(k, a.app)
		successes, _ := a.take()
		works = successes != nil
		a.works[k.bytes()] = works
	}
	return works
}

// alive checks that the gateway still answers those who mean well.
func (a *arena) alive(t *testing.T) {
	t.Helper()
	a.take()
	if got := a.send("GET", "/private/a", "alice"); got.err != nil || got.StatusCode != http.StatusOK {
		t.Errorf("HTTP/1.1: %+v", got)
	}
	if got := a.http2(attack{method: "GET", target: "/private/a", token: "alice"}.overHTTP2()); got != "200" {
		t.Errorf("HTTP/2: %s", got)
	}
	if successes, requests := a.take(); successes != nil || requests < 2 {
		t.Errorf("%q, %d requests", successes, requests)
	}
}
