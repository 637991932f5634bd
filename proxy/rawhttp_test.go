package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A message is a request or an answer as its bytes say it, read without
// net/http: a reader that repairs what it reads would hide what is changed.
type message struct {
	first   string // the request line or the status line
	fields  []headerLine
	framing string // how the body's end is told: none, length, chunked or close
	body    string
	trailer []headerLine
}

// A headerLine is one line of a header, without the whitespace around its value, which is
// no part of it (RFC 9110, section 5.5).
type headerLine struct{ name, value string }

func (m *message) values(name string) (out []string) {
	for _, f := range m.fields {
		if strings.EqualFold(f.name, name) {
			out = append(out, f.value)
		}
	}
	return out
}

func (m *message) value(name string) string { return strings.Join(m.values(name), ", ") }

func (m *message) drop(names ...string) { m.fields = without(m.fields, names...) }

func without(fields []headerLine, names ...string) []headerLine {
	return slices.DeleteFunc(slices.Clone(fields), func(f headerLine) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, f.name) })
	})
}

func (m *message) add(name, value string) { m.fields = append(m.fields, headerLine{name, value}) }

// String is the message with its fields in one order: that of different names
// says nothing, nor does their case (RFC 9110, sections 5.1 and 5.3), that of
// one name's lines does.
func (m *message) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", m.first)
	writeFields(&b, m.fields)
	body := m.body
	if len(body) > 200 {
		body = fmt.Sprintf("%s... %d bytes, the last %s", body[:50], len(body), body[len(body)-50:])
	}
	fmt.Fprintf(&b, "[%s] %q\n", m.framing, body)
	writeFields(&b, m.trailer)
	return b.String()
}

func writeFields(b *strings.Builder, fields []headerLine) {
	sorted := slices.Clone(fields)
	slices.SortStableFunc(sorted, func(a, b headerLine) int {
		return strings.Compare(strings.ToLower(a.name), strings.ToLower(b.name))
	})
	for _, f := range sorted {
		fmt.Fprintf(b, "%s: %q\n", strings.ToLower(f.name), f.value)
	}
}

// readMessage reads a request, or an answer to the method. beforeBody, where
// it is set, is called between header and body.
func readMessage(r *bufio.Reader, method string, beforeBody func(*message)) (*message, error) {
	first, err := readLine(r)
	if err != nil {
		return nil, err
	}
	m := &message{first: first, framing: "none"}
	if m.fields, err = readFields(r); err != nil {
		return nil, err
	}
	if beforeBody != nil {
		beforeBody(m)
	}
	length := m.values("Content-Length")
	answer := strings.HasPrefix(first, "HTTP/")
	switch {
	case answer && (method == "HEAD" || bodiless(m.status())):
	case strings.EqualFold(m.value("Transfer-Encoding"), "chunked"):
		m.framing = "chunked"
		m.drop("Transfer-Encoding")
		m.body, m.trailer, err = readChunks(r)
	case len(length) > 0:
		n, bad := strconv.Atoi(length[0])
		if bad != nil {
			return nil, bad
		}
		m.framing = "length"
		m.drop("Content-Length")
		body := make([]byte, n)
		_, err = io.ReadFull(r, body)
		m.body = string(body)
	case answer:
		m.framing = "close"
		var body []byte
		body, err = io.ReadAll(r)
		m.body = string(body)
	}
	return m, err
}

// status is an answer's.
func (m *message) status() int {
	_, rest, _ := strings.Cut(m.first, " ")
	n, _ := strconv.Atoi(rest[:min(3, len(rest))])
	return n
}

func bodiless(status int) bool { return status < 200 || status == 204 || status == 304 }

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		if line != "" && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}

func readFields(r *bufio.Reader) (fields []headerLine, err error) {
	for {
		line, err := readLine(r)
		if err != nil || line == "" {
			return fields, err
		}
		name, value, _ := strings.Cut(line, ":")
		fields = append(fields, headerLine{name, strings.Trim(value, " \t")})
	}
}

func readChunks(r *bufio.Reader) (body string, trailer []headerLine, err error) {
	for {
		line, err := readLine(r)
		if err != nil {
			return body, nil, err
		}
		size, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseInt(strings.TrimSpace(size), 16, 32)
		if err != nil {
			return body, nil, err
		}
		if n == 0 {
			trailer, err = readFields(r)
			return body, trailer, err
		}
		chunk := make([]byte, n+2)
		if _, err := io.ReadFull(r, chunk); err != nil {
			return body, nil, err
		}
		body += string(chunk[:n])
	}
}

// A mirrorApp answers with given bytes, and keeps what it was asked.
type mirrorApp struct {
	address string

	mu     sync.Mutex
	answer string
	hangUp bool // the end of the connection ends the answer
	seen   []*message
}

func newMirrorApp(t testing.TB) *mirrorApp {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	a := &mirrorApp{address: l.Addr().String()}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go a.serve(conn)
		}
	}()
	return a
}

func (a *mirrorApp) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		m, err := readMessage(r, "", func(m *message) {
			if strings.EqualFold(m.value("Expect"), "100-continue") {
				io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
			}
		})
		if err != nil {
			return
		}
		last := hasToken(m.values("Connection"), "close") || strings.HasSuffix(m.first, "HTTP/1.0")
		a.mu.Lock()
		a.seen = append(a.seen, m) // the test's from now on
		answer, hangUp := a.answer, a.hangUp
		a.mu.Unlock()
		if _, err := io.WriteString(conn, answer); err != nil || hangUp || last {
			return
		}
	}
}

// next sets what is answered from now on, and forgets what was asked.
func (a *mirrorApp) next(answer string, hangUp bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer, a.hangUp, a.seen = answer, hangUp, nil
}

func (a *mirrorApp) asked() []*message {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen
}

// talk sends bytes to the address, and reads so many answers, interim ones
// besides. A request that expects 100 Continue sends its body when it is told
// to.
func talk(address, request string, answers int) (got []*message, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	now, later := request, ""
	if head, body, ok := strings.Cut(request, "\r\n\r\n"); ok && strings.Contains(strings.ToLower(head), "\r\nexpect:") {
		now, later = head+"\r\n\r\n", body
	}
	go io.WriteString(conn, now)
	method, _, _ := strings.Cut(request, " ")
	r := bufio.NewReader(conn)
	for final := 0; final < answers; {
		m, err := readMessage(r, method, nil)
		if err != nil {
			return got, err
		}
		got = append(got, m)
		if m.status() >= 200 {
			final++
		} else if m.status() == 100 && later != "" {
			if _, err := io.WriteString(conn, later); err != nil {
				return got, err
			}
			later = ""
		}
	}
	if strings.Contains(strings.ToLower(now), "connection: close") || strings.Contains(now, " HTTP/1.0\r\n") && !strings.Contains(now, "keep-alive") {
		if _, err := r.ReadByte(); err != io.EOF {
			return got, fmt.Errorf("after the last answer: %v, want the end", err)
		}
	}
	return got, nil
}
