package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/go-jose/go-jose/v4"
)

const soakBlob = 4 << 20 // bytes, each way

// A soakCaller is what some callers do again and again, with pauses of that
// length.
type soakCaller struct {
	name  string
	many  int
	pause time.Duration
	once  func(context.Context, *http.Client) error
}

func (s *soak) callersOf() []soakCaller {
	return []soakCaller{
		{"open", 4, 0, s.askOpen},
		{"known", 2, 20 * time.Millisecond, func(ctx context.Context, c *http.Client) error {
			return s.want(ctx, c, http.MethodGet, "/v1/me", s.keys.token(), "", http.StatusOK, nil)
		}},
		{"forbidden", 1, 100 * time.Millisecond, func(ctx context.Context, c *http.Client) error {
			return s.want(ctx, c, http.MethodGet, "/v1/admin", s.keys.token(), "", http.StatusForbidden, nil)
		}},
		{"unknown", 1, 50 * time.Millisecond, func(ctx context.Context, c *http.Client) error {
			return s.want(ctx, c, http.MethodGet, "/v1/me", []string{"", "no token", s.keys.token() + "A"}[rand.IntN(3)], "", http.StatusUnauthorized, nil)
		}},
		{"uploading", 1, 250 * time.Millisecond, s.upload},
		{"downloading", 1, 50 * time.Millisecond, func(ctx context.Context, c *http.Client) error {
			n := rand.IntN(soakUsers)
			return s.want(ctx, c, http.MethodGet, fmt.Sprintf("/v1/files/users/u%d/x.txt", n), s.keys.tokenOf(n), "", http.StatusOK, nil)
		}},
		{"leaving", 2, 50 * time.Millisecond, s.leave},
		{"slow", 4, 0, s.slow},
		{"large", 1, 200 * time.Millisecond, s.large},
		{"connected", 2, 100 * time.Millisecond, s.connect},
	}
}

// call is one caller, until ctx ends: what is under way then goes on to its end.
func (s *soak) call(ctx context.Context, c soakCaller) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	pause := time.NewTicker(max(c.pause, time.Microsecond))
	defer pause.Stop()
	for ctx.Err() == nil {
		if err := c.once(context.WithoutCancel(ctx), client); err != nil {
			s.book.complain("%s: %v", c.name, err)
			return
		}
		if c.pause > 0 {
			select {
			case <-pause.C:
			case <-ctx.Done():
			}
		}
	}
}

// want asks, and reads an answer of JSON into into, if there is one.
func (s *soak) want(ctx context.Context, c *http.Client, method, path, token, body string, status int, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, s.g.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	mark := s.book.next()
	r.Header.Set("User-Agent", mark)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := c.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	s.answered(mark, res)
	content, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != status {
		return fmt.Errorf("%s %s: %s, want %d: %.300s %w", method, path, res.Status, status, content, err)
	}
	if into != nil {
		return json.Unmarshal(content, into)
	}
	return nil
}

func (s *soak) answered(mark string, res *http.Response) {
	s.book.note(mark, soakAnswered)
	if res.StatusCode >= 400 && res.Header.Get("X-Sidegate-Response") == "true" {
		s.book.note(mark, soakRefused)
	}
}

// askOpen asks for what leaves no record, many times.
func (s *soak) askOpen(ctx context.Context, c *http.Client) error {
	for range 100 {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.g.url+"/open", nil)
		if err != nil {
			return err
		}
		res, err := c.Do(r)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || n != 1024 {
			return fmt.Errorf("%s, %d bytes, %w", res.Status, n, err)
		}
		s.book.open.Add(1)
	}
	return nil
}

// upload asks for a URL, uploads, and confirms; each third upload stays undone,
// and expires.
func (s *soak) upload(ctx context.Context, c *http.Client) error {
	var u ticket
	token := s.keys.token()
	if err := s.want(ctx, c, http.MethodPost, "/v1/uploads/presign", token, `{"contentType": "text/plain", "size": 5}`, http.StatusOK, &u); err != nil || rand.IntN(3) == 0 {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, u.Method, u.PutURL, strings.NewReader("hello"))
	if err != nil {
		return err
	}
	for name, value := range u.Headers {
		r.Header.Set(name, value)
	}
	res, err := c.Do(r)
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the store says %s", res.Status)
	}
	return s.want(ctx, c, http.MethodPost, "/v1/uploads/"+u.Session+"/confirm", token, "", http.StatusOK, nil)
}

// head is the head of a request, with these lines besides.
func (s *soak) head(mark, method, path string, lines ...string) string {
	lines = append([]string{method + " " + path + " HTTP/1.1", "Host: gateway.test", "User-Agent: " + mark, "Authorization: Bearer " + s.keys.token()}, lines...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

func (s *soak) dial() (net.Conn, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.g.url, "http://"))
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(time.Minute))
	}
	return conn, err
}

// leave goes away while the app has not answered, which then must learn of it.
func (s *soak) leave(context.Context, *http.Client) error {
	conn, err := s.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	mark := s.book.next()
	held := s.app.hold(mark)
	if _, err := io.WriteString(conn, s.head(mark, http.MethodGet, "/v1/hold")); err != nil {
		return err
	}
	for _, what := range []<-chan struct{}{held.came, held.left} {
		select {
		case <-what:
		case <-time.After(time.Minute):
			return errors.New("the app does not get the request, or does not learn that its caller has left")
		}
		conn.Close()
	}
	return nil
}

// slow sends a request piece by piece, head and body, and reads the answer so.
func (s *soak) slow(context.Context, *http.Client) error {
	conn, err := s.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	mark := s.book.next()
	request := []byte(s.head(mark, http.MethodPut, "/v1/blob", "Content-Length: 2000"))
	request = append(request, bytes.Repeat([]byte("x"), 2000)...)
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for piece := len(request) / 50; len(request) > 0; <-pace.C {
		n, err := conn.Write(request[:min(piece, len(request))])
		if err != nil {
			return err
		}
		request = request[n:]
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
	if err != nil {
		return err
	}
	s.answered(mark, res)
	said, err := io.ReadAll(res.Body)
	if err != nil || string(said) != "2000" {
		return fmt.Errorf("%s: %.300s %w", res.Status, said, err)
	}
	return nil
}

// large sends a large body, and reads one, the latter slowly at first so that
// what is between must wait.
func (s *soak) large(ctx context.Context, c *http.Client) error {
	var size int
	if err := s.want(ctx, c, http.MethodPut, "/v1/blob", s.keys.token(), strings.Repeat("x", soakBlob), http.StatusOK, &size); err != nil || size != soakBlob {
		return fmt.Errorf("%d bytes arrived: %w", size, err)
	}
	conn, err := s.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	mark := s.book.next()
	if _, err := io.WriteString(conn, s.head(mark, http.MethodGet, "/v1/blob")); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	s.answered(mark, res)
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	var read int64
	for range 20 {
		<-pace.C
		n, err := io.CopyN(io.Discard, res.Body, 32<<10)
		if read += n; err != nil {
			return err
		}
	}
	rest, err := io.Copy(io.Discard, res.Body)
	if err != nil || read+rest != soakBlob {
		return fmt.Errorf("%d bytes came: %w", read+rest, err)
	}
	return nil
}

// connect is a WebSocket with a few messages; each second one just goes away.
func (s *soak) connect(ctx context.Context, c *http.Client) error {
	mark := s.book.next()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ws, res, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(s.g.url, "http")+"/v1/echo", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: c.Transport}, // a time-out of the client would be the connection's
		HTTPHeader: http.Header{"User-Agent": {mark}, "Authorization": {"Bearer " + s.keys.token()}},
	})
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	s.answered(mark, res)
	if _, hello, err := ws.Read(ctx); err != nil || !strings.HasPrefix(string(hello), "hello u") {
		return fmt.Errorf("the app says %q: %w", hello, err)
	}
	for n := range 10 {
		message := strings.Repeat("m", 1+n*1000)
		if err := ws.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			return err
		}
		if _, back, err := ws.Read(ctx); err != nil || string(back) != message {
			return fmt.Errorf("%d bytes came back: %w", len(back), err)
		}
	}
	if rand.IntN(2) == 0 {
		return ws.Close(websocket.StatusNormalClosure, "")
	}
	return nil
}

// A soakApp is behind the gateway.
type soakApp struct {
	book *soakBook
	echo *app
	blob []byte
	mu   sync.Mutex
	held map[string]heldRequest
}

// A heldRequest has come once the first is closed, and ended with the second.
type heldRequest struct{ came, left chan struct{} }

func newSoakApp(book *soakBook) *soakApp {
	return &soakApp{book: book, echo: newApp(), blob: make([]byte, soakBlob), held: map[string]heldRequest{}}
}

// hold says that a request will come that is not to be answered.
func (a *soakApp) hold(mark string) heldRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := heldRequest{make(chan struct{}), make(chan struct{})}
	a.held[mark] = h
	return h
}

func (a *soakApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mark := r.UserAgent()
	if r.URL.Path == "/open" {
		w.Write(a.blob[:1024])
		return
	}
	a.book.note(mark, soakSeen)
	switch r.URL.Path {
	case "/v1/echo":
		a.echo.echo(w, r)
	case "/v1/hold":
		a.mu.Lock()
		h := a.held[mark]
		delete(a.held, mark)
		a.mu.Unlock()
		close(h.came)
		<-r.Context().Done()
		close(h.left)
	case "/v1/blob":
		if r.Method == http.MethodGet {
			w.Write(a.blob)
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			a.book.complain("the app: %v", err)
		}
		fmt.Fprint(w, n)
	default:
		io.WriteString(w, "ok")
	}
}

// A soakIssuer has a key, and publishes the one before, too.
type soakIssuer struct {
	mu      sync.Mutex
	keys    []jose.JSONWebKey // the newest first
	made    int
	current atomic.Pointer[[]string] // a token of each user
}

func newSoakIssuer(t *testing.T) *soakIssuer {
	t.Helper()
	i := &soakIssuer{}
	i.rotate(t)
	return i
}

// rotate makes a key, publishes it, and then signs with it.
func (i *soakIssuer) rotate(t *testing.T) {
	t.Helper()
	i.made++
	next, err := newIssuerOf(fmt.Sprintf("soak-%d", i.made))
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(next.keys, &set); err != nil {
		t.Fatal(err)
	}
	i.mu.Lock()
	i.keys = append(set.Keys, i.keys[:min(1, len(i.keys))]...)
	i.mu.Unlock()
	tokens := make([]string, soakUsers)
	for n := range tokens {
		if tokens[n], err = next.token(user{UID: fmt.Sprintf("u%d", n)}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	i.current.Store(&tokens)
}

func (i *soakIssuer) token() string        { return i.tokenOf(rand.IntN(soakUsers)) }
func (i *soakIssuer) tokenOf(n int) string { return (*i.current.Load())[n] }

func (i *soakIssuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: i.keys})
}
