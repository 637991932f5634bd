package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// goalsChild is the value of childOf for the other process of the goals'
// benchmarks: it knows more kinds of requests, and measures what a caller waits.
const goalsChild = "goals"

// A goalLoad is what the other process is told to do, as a line of JSON.
type goalLoad struct {
	Kind        string // a key of goalKinds
	Address     string // whom to ask
	Target      string // path and query; empty: the usual one
	Tokens      string // a file of tokens, one a line, that are taken in turn; empty: none
	Connections int
	Requests    int   // of all connections together
	Bytes       int64 // of a body or a message
	Status      int   // that every answer must have
}

// A goalReply is what it says when that is done.
type goalReply struct {
	Error    string
	Elapsed  time.Duration
	P50, P99 time.Duration // from a request's first byte to its answer's last one
}

// goalHello is its first line: where its apps are.
type goalHello struct{ App, GRPC string }

// goalKinds are a connection's work: n requests, whose times they give.
var goalKinds = map[string]func(l *goalLoad, tokens *goalTokens, n int) ([]time.Duration, error){
	"get": goalRequests, "post": goalRequests, "down": goalRequests, "up": goalRequests,
	"websocket": goalWebSocket, "grpc": goalGRPC,
}

func runGoalsChild() {
	app := httptest.NewServer(http.HandlerFunc(goalApp))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		for {
			m := new(wrapperspb.BytesValue)
			if err := s.RecvMsg(m); err != nil {
				return nil // the caller has said all, or is gone
			}
			if err := s.SendMsg(m); err != nil {
				return err
			}
		}
	})).Serve(l)
	out := json.NewEncoder(os.Stdout)
	out.Encode(goalHello{App: app.URL, GRPC: "http://" + l.Addr().String()})
	kept := map[string]*goalTokens{}
	for in := json.NewDecoder(os.Stdin); ; {
		var load goalLoad
		if in.Decode(&load) != nil {
			return
		}
		reply, err := load.run(kept)
		if err != nil {
			reply.Error = err.Error()
		}
		out.Encode(reply)
	}
}

// goalTokens gives tokens in turn.
type goalTokens struct {
	mu   sync.Mutex
	all  []string
	next int
}

func (t *goalTokens) take() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.all) == 0 {
		return ""
	}
	t.next = (t.next + 1) % len(t.all)
	return t.all[t.next]
}

func (l *goalLoad) run(kept map[string]*goalTokens) (goalReply, error) {
	if kept[l.Tokens] == nil {
		kept[l.Tokens] = &goalTokens{}
		if l.Tokens != "" {
			text, err := os.ReadFile(l.Tokens)
			if err != nil {
				return goalReply{}, err
			}
			kept[l.Tokens].all = strings.Fields(string(text))
		}
	}
	var mu sync.Mutex
	var times []time.Duration
	var failed error
	var all sync.WaitGroup
	begun := time.Now()
	for range l.Connections {
		all.Go(func() {
			took, err := goalKinds[l.Kind](l, kept[l.Tokens], l.Requests/l.Connections)
			mu.Lock()
			defer mu.Unlock()
			times = append(times, took...)
			failed = errors.Join(failed, err)
		})
	}
	all.Wait()
	reply := goalReply{Elapsed: time.Since(begun)}
	if failed == nil {
		slices.Sort(times)
		reply.P50, reply.P99 = times[len(times)/2], times[len(times)*99/100]
	}
	return reply, failed
}

// goalBlock is what large bodies are made of.
var goalBlock = bytes.Repeat([]byte("sidegate"), 32<<10)

// goalApp answers 1 KiB, or as many bytes as it is asked for, or as many as it
// has read, or echoes what comes behind a WebSocket's handshake.
func goalApp(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("Upgrade") != "":
		conn, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{brw}, make([]byte, 32<<10))
	case r.Method == http.MethodPut:
		n, err := drain(r.Body)
		if err == nil {
			fmt.Fprint(w, n)
		}
	case r.URL.Query().Has("bytes"):
		var left int64
		fmt.Sscan(r.URL.Query().Get("bytes"), &left)
		w.Header().Set("Content-Length", fmt.Sprint(left))
		for left > 0 {
			n, err := w.Write(goalBlock[:min(left, int64(len(goalBlock)))])
			if err != nil {
				return
			}
			left -= int64(n)
		}
	default:
		w.Write(goalBlock[:1024])
	}
}

// drain reads to the end by large pieces: io.Discard's are small, and then the
// other process is what is measured.
func drain(r io.Reader) (n int64, err error) {
	buf := make([]byte, 256<<10)
	for {
		var one int
		one, err = r.Read(buf)
		n += int64(one)
		if err == io.EOF {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
}

// goalRequests are requests one after the other on one connection.
func goalRequests(l *goalLoad, tokens *goalTokens, n int) (times []time.Duration, err error) {
	conn, err := net.Dial("tcp", l.Address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	var out []byte
	for range n {
		out = l.request(out[:0], tokens.take())
		begun := time.Now()
		if _, err := conn.Write(out); err != nil {
			return nil, err
		}
		if l.Kind == "up" {
			for left := l.Bytes; left > 0; {
				n, err := conn.Write(goalBlock[:min(left, int64(len(goalBlock)))])
				if err != nil {
					return nil, err
				}
				left -= int64(n)
			}
		}
		if err := l.answer(r); err != nil {
			return nil, err
		}
		times = append(times, time.Since(begun))
	}
	return times, nil
}

func (l *goalLoad) request(out []byte, token string) []byte {
	method, target, length := "GET", l.Target, int64(0)
	switch l.Kind {
	case "down":
		target = fmt.Sprint(target, "?bytes=", l.Bytes)
	case "up":
		method, length = "PUT", l.Bytes
	case "post":
		method, length = "POST", int64(len(benchUpload))
	}
	out = fmt.Appendf(out, "%s %s HTTP/1.1\r\nHost: photos.acme.dev\r\nAccept: */*\r\nUser-Agent: bench\r\n", method, target)
	if token != "" {
		out = fmt.Appendf(out, "Authorization: Bearer %s\r\n", token)
	}
	if length > 0 {
		out = fmt.Appendf(out, "Content-Type: application/json\r\nContent-Length: %d\r\n", length)
	}
	out = append(out, "\r\n"...)
	if l.Kind == "post" {
		out = append(out, benchUpload...)
	}
	return out
}

// answer reads one, and holds it to what it must be.
func (l *goalLoad) answer(r *bufio.Reader) error {
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	switch l.Kind {
	case "up":
		var n int64
		if _, err = fmt.Fscan(res.Body, &n); err == nil && n != l.Bytes {
			err = fmt.Errorf("%d bytes of %d came", n, l.Bytes)
		}
		if err != nil {
			return err
		}
		_, err = drain(res.Body)
	default:
		var n int64
		n, err = drain(res.Body)
		if err == nil && res.StatusCode == 200 && (l.Kind == "down" && n != l.Bytes || l.Kind == "get" && n != 1024) {
			err = fmt.Errorf("an answer of %d bytes", n)
		}
	}
	if err == nil && res.StatusCode != l.Status {
		err = fmt.Errorf("status %d", res.StatusCode)
	}
	return err
}

// goalWebSocket is one tunnel; a request is a message and its echo.
func goalWebSocket(l *goalLoad, tokens *goalTokens, n int) (times []time.Duration, err error) {
	conn, err := net.Dial("tcp", l.Address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: photos.acme.dev\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer %s\r\n\r\n", l.Target, tokens.take())
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
	frame := []byte{0x82, 0x80 | 126}
	frame = binary.BigEndian.AppendUint16(frame, uint16(l.Bytes))
	frame = append(frame, make([]byte, 4+l.Bytes)...)
	rand.Read(frame[4:])
	back := make([]byte, len(frame))
	for range n {
		begun := time.Now()
		if _, err := conn.Write(frame); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(r, back); err != nil {
			return nil, err
		}
		times = append(times, time.Since(begun))
	}
	if !bytes.Equal(back, frame) {
		return nil, errors.New("the echo is another")
	}
	return times, nil
}

// goalGRPC is one stream on a connection of its own; a request is a message and
// its echo.
func goalGRPC(l *goalLoad, tokens *goalTokens, n int) (times []time.Duration, err error) {
	client, err := grpc.NewClient("passthrough:///"+l.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+tokens.take())
	s, err := client.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/t.T/Echo")
	if err != nil {
		return nil, err
	}
	m, back := &wrapperspb.BytesValue{Value: goalBlock[:l.Bytes]}, new(wrapperspb.BytesValue)
	for range n {
		begun := time.Now()
		if err := s.SendMsg(m); err != nil {
			return nil, err
		}
		if err := s.RecvMsg(back); err != nil {
			return nil, err
		}
		times = append(times, time.Since(begun))
	}
	return times, s.CloseSend()
}
