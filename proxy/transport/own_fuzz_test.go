package transport

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// oddAnswers are answers, or not, that there may be two opinions of.
var oddAnswers = []string{
	okay,
	"HTTP/1.1 204 No Content\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
	"HTTP/1.1 200 OK\r\n\r\nto the end",
	"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A, x-b\r\n\r\n2;e=1\r\nok\r\n0\r\nX-A: 1\r\nX-C: 2\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: 1\n\n" + okay,
	"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 2 \t\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
	"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nX: a\r\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nx-a: 1\r\nX-A:2\r\nX-a:\t3 \r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nPragma: no-cache\r\nConnection: x, close\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nTrailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTrailer: X\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + okay,
	"HTTP/1.1 103 Early Hints\nLink: a\n\n" + okay,
	"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nsaid",
	"HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: x\n\nsaid",
	"HTTP/1.1 101 Switching Protocols\r\n\r\n",
	"HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: x\n\nsaid",
	"\r\n" + okay, "", "H", "SSH-2.0-x\r\n", okay + okay, okay + "x",
}

// An observed answer is all that a caller sees of it.
type observed struct {
	status, proto  string
	code           int
	header         http.Header
	length         int64
	coding         []string
	closes         bool
	body           string
	trailer        http.Header
	interim        []string
	failed         bool // before the answer
	broke          bool // in its body
	switchedAnswer bool
}

func observe(res *http.Response, err error) observed {
	if err != nil {
		return observed{failed: true}
	}
	o := observed{
		status: res.Status, proto: res.Proto, code: res.StatusCode, header: res.Header.Clone(), length: res.ContentLength,
		coding: res.TransferEncoding, closes: res.Close,
	}
	if _, ok := res.Body.(io.Writer); ok {
		o.switchedAnswer = true
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	o.body, o.broke, o.trailer = string(body), err != nil, res.Trailer
	return o
}

// FuzzAnswerHead holds the reading of answers against net/http's, byte by byte
// and all at once: the same answer, or none, and where we say that the
// connection can be used again, the answer ends where net/http says that it does.
func FuzzAnswerHead(f *testing.F) {
	for _, answer := range oddAnswers {
		f.Add([]byte(answer), false)
		f.Add([]byte(answer), true)
	}
	f.Add([]byte("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("a", 5000)+"\r\nContent-Length: 2\r\n\r\nok"), false)
	f.Fuzz(func(t *testing.T, data []byte, head bool) {
		req := &http.Request{Method: "GET"}
		if head {
			req.Method = "HEAD"
		}
		theirs := bufio.NewReader(bytes.NewReader(data))
		res, err := http.ReadResponse(theirs, req)
		want := observe(res, err)
		left, _ := io.ReadAll(theirs)
		for _, bits := range []bool{false, true} {
			in := io.Reader(bytes.NewReader(data))
			if bits {
				in = iotest.OneByteReader(in)
			}
			c := newOwnConn(&fixedConn{in: in}, nil)
			at := &ownAddress{}
			a := &asking{c: c, at: at, ctx: context.Background()}
			res, err := a.head(req)
			got := observe(res, err)
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%q: in bits %v:\ngot  %+v (%v)\nwant %+v", data, bits, got, err, want)
			}
			if again := err == nil && !got.broke && !a.last && !res.Close && !c.eof; again {
				rest, _ := io.ReadAll(c.in)
				if string(rest) != string(left) {
					t.Fatalf("%q: %q is left behind the answer, and not %q", data, rest, left)
				}
			}
		}
	})
}

func (c *fixedConn) Close() error { return nil }

// A play is what a scripted app does with the requests that come, one after the
// other, over whatever connection.
type play struct {
	answers []string // the n-th request has the n-th, or the last
	close   int      // bits: hang up after the n-th
	early   bool     // answer before the body was read
	splits  int      // into so many bytes an answer is cut

	mu       sync.Mutex
	requests []string
	over     []int // the connection of each
	next     int
}

func (p *play) take(r *http.Request, conn int) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(p.next, len(p.answers)-1)
	p.next++
	answer := p.answers[n]
	p.requests = append(p.requests, "")
	p.over = append(p.over, conn)
	return answer, p.close&(1<<n) != 0 || !wholeAnswer(answer, r.Method)
}

// ends: after that answer the connection is of no use.
func (p *play) ends(method string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(p.next, len(p.answers)) - 1 // the one that came last: some are sent again
	answer := p.answers[n]
	return p.close&(1<<n) != 0 || !wholeAnswer(answer, method) || behind(answer, method)
}

// wholeAnswer: the app keeps a connection only where the caller does not wait for
// its end.
func wholeAnswer(answer, method string) bool {
	in := bufio.NewReader(strings.NewReader(answer))
	for range 100 {
		res, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return false
		}
		if res.StatusCode < 200 && res.StatusCode != 101 {
			continue
		}
		_, err = io.Copy(io.Discard, res.Body)
		return err == nil && !res.Close && res.StatusCode != 101
	}
	return false
}

func (p *play) serve(conn net.Conn, number int) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		answer, hangUp := p.take(r, number)
		if !p.early {
			p.read(r)
		}
		for part := range slices.Chunk([]byte(answer), p.splits) {
			if _, err := conn.Write(part); err != nil {
				return
			}
		}
		if p.early {
			p.read(r)
		}
		if hangUp {
			return
		}
	}
}

// read notes the request, as its method and target, header and body.
func (p *play) read(r *http.Request) {
	body, err := io.ReadAll(r.Body)
	r.Header.Del("User-Agent")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests[len(p.requests)-1] = fmt.Sprintf("%s %s %s %v %v %d %q %v", r.Method, r.RequestURI, r.Host, r.Header, r.TransferEncoding, r.ContentLength, body, err)
}

// run has a Transport send its requests, and gives what came of each.
func (p *play) run(t *testing.T, o Options, makes []func(testing.TB) *http.Request) []observed {
	// A socket, since ports stay taken for a while and fuzzing needs many.
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "app"))
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for number := 0; ; number++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { p.serve(conn, number) })
		}
	})
	var last *watchedConn
	o.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		last = &watchedConn{conn.(socketConn), make(chan struct{}, 1)}
		return last, nil
	}
	o.Socket = l.Addr().String()
	b := newBench(t, o)
	var all []observed
	for _, newOne := range makes {
		r := newOne(t)
		r.Host = "app.test"
		var interim []string
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			interim = append(interim, fmt.Sprint(code, h))
			return nil
		}}))
		one := observe(b.RoundTrip(r))
		one.interim = interim
		all = append(all, one)
		if !p.ends(r.Method) {
			continue
		}
		// Whoever asks again before the end has come may find it or not.
		if o.NetHTTP {
			<-last.closed
			last.closed <- struct{}{}
			continue
		}
		for _, c := range b.idleOf() {
			until(t, "the end has come", func() bool { return !c.quiet() })
		}
	}
	b.idle()
	b.CloseIdleConnections()
	l.Close()
	open.Wait()
	return all
}

// FuzzOwnTransport has both transports play the same scene before the same app:
// what a caller sees, and what the app was sent, is the same. And a connection is
// used again only where net/http says that the answer ended with its last byte.
func FuzzOwnTransport(f *testing.F) {
	log.SetOutput(io.Discard) // net/http tells it of every answer that nobody asked for
	for i, answer := range oddAnswers {
		f.Add(answer, okay, uint8(i), "text", uint8(255))
		f.Add(okay, answer, uint8(i*7+1), "", uint8(3))
	}
	methods := []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}
	f.Fuzz(func(t *testing.T, first, second string, how uint8, text string, splits uint8) {
		newOne := func(t testing.TB) *http.Request {
			var body io.Reader
			if text != "" {
				body = io.NopCloser(strings.NewReader(text))
			}
			r := newRequest(t, methods[int(how)%len(methods)], "http", body)
			r.Header = http.Header{"User-Agent": {"x"}, "X-A": {" 1", "2\t"}, "Idempotency-Key": {"k"}}
			if r.ContentLength = 0; how&8 != 0 || seldomHasBody(r.Method) {
				r.ContentLength = int64(len(text))
			}
			return r
		}
		scene := func() *play {
			return &play{answers: []string{first, second, okay}, close: int(how>>4) & 3, early: how&64 != 0, splits: max(1, int(splits))}
		}
		makes := []func(testing.TB) *http.Request{newOne, newOne, newOne}
		if scene().early {
			if text != "" && strings.Contains(first, " 101") {
				return // in the middle of a body we take no switch, and net/http does: TestSwitch
			}
			makes = makes[:1] // whether the body was sent before the answer ended is chance
		}
		// Behind an odd answer net/http uses the connection again, and we do not: what
		// comes then is sent again by one and not by the other.
		switch method := newOne(t).Method; {
		case isOdd(first, method):
			makes = makes[:1]
		case isOdd(second, method):
			makes = makes[:min(len(makes), 2)]
		}
		ours, theirs := scene(), scene()
		got, want := ours.run(t, Options{}, makes), theirs.run(t, Options{NetHTTP: true}, makes)
		for i := range got {
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Errorf("%+v\nanswer %d: got  %+v\nwant %+v", ours, i, got[i], want[i])
			}
		}
		if !ours.early && !reflect.DeepEqual(ours.requests, theirs.requests) {
			t.Errorf("%+v\nsent %q\nwant %q", ours, ours.requests, theirs.requests)
		}
		for i := 1; i < len(ours.over); i++ {
			if answer := ours.answers[min(i-1, 2)]; ours.over[i] == ours.over[i-1] && (!wholeAnswer(answer, makes[0](t).Method) || behind(answer, makes[0](t).Method)) {
				t.Errorf("%+v: the connection of %q was used again", ours, answer)
			}
		}
	})
}

// isOdd: we leave it to net/http what the answer means.
func isOdd(answer, method string) bool {
	a := &asking{c: newOwnConn(&fixedConn{in: strings.NewReader(answer)}, nil)}
	for range 100 {
		res, err := a.head(&http.Request{Method: method})
		if a.c.odd || err != nil || res.StatusCode >= 200 || res.StatusCode == 101 {
			break
		}
	}
	return a.c.odd
}

// behind: there is more than an answer.
func behind(answer, method string) bool {
	in := bufio.NewReader(strings.NewReader(answer))
	for range 100 {
		res, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return false
		}
		if res.StatusCode < 200 && res.StatusCode != 101 {
			continue
		}
		if _, err = io.Copy(io.Discard, res.Body); err != nil {
			return false
		}
		left, _ := io.ReadAll(in)
		return len(left) > 0
	}
	return true
}
