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
)

// TestAnswersBeforeTheBodyEnds: an app may answer while it still reads. What
// the caller sends then is the app's, every byte, and nobody waits for it.
func TestAnswersBeforeTheBodyEnds(t *testing.T) {
	type upload struct {
		bytes int64
		err   error
	}
	got := make(chan upload, 1)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d", n)
		got <- upload{n, err}
	})
	g := newGate(t, app)
	const piece, pieces = 1000, 50
	for framing, c := range map[string]struct{ head, piece, end string }{
		"length":  {fmt.Sprint("Content-Length: ", piece*pieces), strings.Repeat("a", piece), ""},
		"chunked": {"Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n", piece, strings.Repeat("a", piece)), "0\r\n\r\n"},
	} {
		conn := g.dial()
		io.WriteString(conn, request("POST", "/public/a", "", c.head)+c.piece)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil) // before the rest is sent
		if err != nil {
			t.Fatal(framing, err)
		}
		for range pieces - 1 {
			io.WriteString(conn, c.piece)
		}
		io.WriteString(conn, c.end)
		body, err := io.ReadAll(res.Body)
		if u := <-got; u.bytes != piece*pieces || u.err != nil || string(body) != fmt.Sprint(u.bytes) || err != nil {
			t.Errorf("%s: the app read %d bytes, %v; the answer is %q, %v", framing, u.bytes, u.err, body, err)
		}
		if o := g.outcome().Outcome; o.BytesIn != piece*pieces || o.Error != "" || o.Truncated {
			t.Errorf("%s: %+v", framing, o)
		}
	}
}

// TestAppRefusesABody: an app that answers by the header alone is heard, be the
// caller one who waits to be told to go on, who sends and reads at once, or who
// reads when all is sent.
func TestAppRefusesABody(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(413)
		io.WriteString(w, "big")
	})
	g := newGate(t, app)
	for name, c := range map[string]struct {
		size   int
		expect bool
		first  bool // all is sent before the answer is read
	}{
		"waits": {size: 4, expect: true}, "small": {size: 1000, first: true}, "some": {size: 200_000, first: true}, "large": {size: 20 << 20},
	} {
		conn := g.dial()
		lines := []string{fmt.Sprint("Content-Length: ", c.size)}
		if c.expect {
			lines = append(lines, "Expect: 100-continue")
		}
		io.WriteString(conn, request("POST", "/public/a", "", lines...))
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			if !c.expect {
				io.CopyN(conn, zeros{}, int64(c.size)) // fails where the connection is closed meanwhile
			}
		}()
		if c.first {
			<-sent
		}
		if a := g.read(bufio.NewReader(conn), "POST"); a.err != nil || a.StatusCode != 413 || a.body != "big" {
			t.Errorf("%s: %+v %q, %v", name, a.Response, a.body, a.err)
		}
		conn.Close()
		<-sent
		if o := g.outcome().Outcome; o.Status != 413 || o.Error != "" || o.Truncated {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// TestAppThatReadsNothing neither takes a body nor answers: its time is over
// while the caller still has something to send.
func TestAppThatReadsNothing(t *testing.T) {
	over := make(chan struct{})
	app := rawApp(t, func(net.Conn, *http.Request) { <-over })
	defer close(over)
	g := newGate(t, app, upstream(func(u *Upstream) { u.Timeout = 100 * time.Millisecond }))
	conn := g.dial()
	io.WriteString(conn, request("POST", "/public/a", "", fmt.Sprint("Content-Length: ", 64<<20)))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.CopyN(conn, zeros{}, 64<<20) // more than buffers hold
	}()
	if a := g.read(bufio.NewReader(conn), "POST"); a.err != nil || a.StatusCode != 504 || !a.Close {
		t.Errorf("%+v %q, %v", a.Response, a.body, a.err)
	}
	conn.Close()
	<-sent
	if o := g.outcome().Outcome; o.Error != codeUpstreamTimeout || o.Status != 504 || o.Truncated {
		t.Errorf("%+v", o)
	}
}
