package transport

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"sidegate/proxy/splice"
)

// TestBodyByPipe: a large answer can go by a Pipe, whoever read its head, and a
// Pipe gets no byte but of the answer.
func TestBodyByPipe(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for _, tt := range []struct {
		end, behind string
		connections int64
	}{
		{"\r\n", "", 1},
		{"\n", "", 2},
		{"\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", 2},
	} {
		app := scripted(t, func(_ int64, conn net.Conn, in *bufio.Reader) {
			for {
				if _, err := http.ReadRequest(in); err != nil {
					return
				}
				_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK%sContent-Length: %d%s%s", tt.end, len(body), tt.end, tt.end)
				_, _ = conn.Write(append(body[:len(body):len(body)], tt.behind...))
			}
		})
		b := newBench(t, Options{}, app.address)
		for range 2 {
			res, err := b.RoundTrip(newRequest(t, "GET", "http", nil))
			if err != nil {
				t.Fatal(err)
			}
			got, spliced, err := byPipe(t, res.Body)
			res.Body.Close()
			if err != io.EOF || !bytes.Equal(got, body) || spliced < len(body)/2 {
				t.Errorf("%q: %d bytes, %d by the pipe, %v", tt.end, len(got), spliced, err)
			}
			if tt.behind != "" {
				until(t, "it has come", func() bool { l := b.idleOf(); return len(l) == 0 || !l[0].quiet() })
			}
		}
		if n := app.connections.Load(); n != tt.connections {
			t.Errorf("%q, %q: %d connections", tt.end, tt.behind, n)
		}
		b.idle()
	}
}

// byPipe reads all of a body by a Pipe.
func byPipe(t *testing.T, from io.Reader) (got []byte, spliced int, err error) {
	p := splice.Get()
	if p == nil {
		t.Fatal("there is no pipe")
	}
	defer p.Put()
	for err == nil {
		var n int
		n, err = from.Read(p.Buffer())
		if p.Taken() == 0 {
			got = append(got, p.Buffer()[:n]...)
			continue
		}
		held := make([]byte, n)
		if _, err := io.ReadFull(p, held); err != nil || p.Held() != 0 {
			t.Fatal(err, p.Held())
		}
		got, spliced = append(got, held...), spliced+n
	}
	return got, spliced, err
}
