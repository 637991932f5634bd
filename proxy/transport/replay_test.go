package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A dropper processes requests and drops them. Whoever asks for /first is
// answered, so that there is a connection to be used again.
type dropper struct {
	address   string
	processed atomic.Int64
	keys      chan string // what came as Idempotency-Key
}

func newDropper(t *testing.T, drop func(net.Conn)) *dropper {
	d := &dropper{keys: make(chan string, 100)}
	d.address = rawApp(t, func(conn net.Conn, r *http.Request) bool {
		if r.URL.Path == "/first" {
			_, err := io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
			return err == nil
		}
		d.processed.Add(1)
		d.keys <- r.Header.Get("Idempotency-Key") + r.Header.Get("X-Idempotency-Key")
		drop(conn)
		return false
	})
	return d
}

// warm makes a connection that is used again. net/http gives it back before it
// gives an answer without a body.
func warm(t *testing.T, by http.RoundTripper, host string) {
	t.Helper()
	r := newRequest(t, "GET", "http", nil)
	r.URL.Host, r.URL.Path = host, "/first"
	res, err := by.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
}

// TestNothingIsProcessedTwice: what an upstream got is not sent again, on a new
// connection or an old one, with or without a body, whatever the caller says of
// idempotency.
func TestNothingIsProcessedTwice(t *testing.T) { both(t, testNothingIsProcessedTwice) }

func testNothingIsProcessedTwice(t *testing.T, netHTTP bool) {
	drops := map[string]func(net.Conn){
		"closes":        func(net.Conn) {},
		"resets":        func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) },
		"garbage":       func(c net.Conn) { _, _ = io.WriteString(c, "?\r\n\r\n") },
		"half a header": func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX") },
	}
	keys := []string{"", "Idempotency-Key", "X-Idempotency-Key", "idempotency-key"}
	for how, drop := range drops {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			for _, text := range []string{"", "text"} {
				for _, key := range keys {
					for _, reused := range []bool{false, true} {
						d := newDropper(t, drop)
						b := newBench(t, Options{NetHTTP: netHTTP}, d.address, d.address)
						if reused {
							for range 2 { // one of each address: they take turns
								warm(t, b, "placeholder")
							}
						}
						var body io.Reader
						if text != "" {
							body = bytes.NewReader([]byte(text)) // so that there is a GetBody
						}
						r := newRequest(t, method, "http", body)
						if key != "" {
							r.Header[key] = []string{"k1"}
						}
						before := r.Header.Clone()
						if got, err := b.do(r); err == nil {
							t.Errorf("answered %q", got)
						}
						if n := d.processed.Load(); n != 1 {
							t.Errorf("%s, %s %q %s, reused %v: processed %d times", how, method, text, key, reused, n)
						}
						if got := <-d.keys; (got == "k1") != (key != "") {
							t.Errorf("%s: came as %q", key, got)
						}
						if len(before) != len(r.Header) || key != "" && r.Header[key] == nil {
							t.Errorf("the request was changed: %v, %v before", r.Header, before)
						}
						b.idle()
					}
				}
			}
		}
	}
}

// TestNetHTTPSendsAgain shows that the test above sees what it is there for.
func TestNetHTTPSendsAgain(t *testing.T) {
	d := newDropper(t, func(net.Conn) {})
	by := &http.Transport{}
	defer by.CloseIdleConnections()
	warm(t, by, d.address)
	r := newRequest(t, "POST", "http", nil)
	r.URL.Host = d.address
	r.Header.Set("Idempotency-Key", "k1")
	if _, err := by.RoundTrip(r); err == nil || d.processed.Load() != 2 {
		t.Errorf("%v, processed %d times", err, d.processed.Load())
	}
}

// TestSafeMethodsAreSentAgain, where an old connection was closed: once more, on
// a new one.
func TestSafeMethodsAreSentAgain(t *testing.T) { both(t, testSafeMethodsAreSentAgain) }

func testSafeMethodsAreSentAgain(t *testing.T, netHTTP bool) {
	for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
		for reused, want := range map[bool]int64{false: 1, true: 2} {
			d := newDropper(t, func(net.Conn) {})
			b := newBench(t, Options{NetHTTP: netHTTP}, d.address)
			if reused {
				warm(t, b, "placeholder")
			}
			if _, err := b.do(newRequest(t, method, "http", nil)); err == nil || d.processed.Load() != want {
				t.Errorf("%s, reused %v: %v, processed %d times", method, reused, err, d.processed.Load())
			}
		}
	}
}

// rawH2C is an upstream of HTTP/2 by hand: it processes each request, whole,
// and then resets its stream, or does what then says.
func rawH2C(t *testing.T, then func(f *http2.Framer, stream uint32)) (address string, processed *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	processed = new(atomic.Int64)
	var open sync.WaitGroup
	t.Cleanup(open.Wait)
	t.Cleanup(func() { l.Close() })
	serve := func(conn net.Conn) {
		defer conn.Close()
		if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(conn, conn)
		_ = f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch fr := frame.(type) {
			case *http2.SettingsFrame:
				if !fr.IsAck() {
					_ = f.WriteSettingsAck()
				}
			case *http2.PingFrame:
				if !fr.IsAck() {
					_ = f.WritePing(true, fr.Data)
				}
			}
			if h := frame.Header(); (h.Type == http2.FrameHeaders || h.Type == http2.FrameData) && h.Flags&http2.FlagDataEndStream != 0 {
				processed.Add(1)
				then(f, h.StreamID)
			}
		}
	}
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(t.Context(), func() { conn.Close() }) // whatever it waits for
			open.Go(func() { serve(conn) })
		}
	})
	return l.Addr().String(), processed
}

// TestHTTP2IsNotSentAgain: a stream that was reset may have been processed.
func TestHTTP2IsNotSentAgain(t *testing.T) {
	for _, code := range []http2.ErrCode{http2.ErrCodeProtocol, http2.ErrCodeRefusedStream, http2.ErrCodeInternal, http2.ErrCodeCancel} {
		for _, method := range []string{"POST", "DELETE"} {
			for _, text := range []string{"", "text"} {
				ctx, cancel := context.WithCancel(t.Context())
				var n atomic.Int64
				address, processed := rawH2C(t, func(f *http2.Framer, stream uint32) {
					if n.Add(1) > 1 {
						cancel() // net/http would go on for a minute
					}
					_ = f.WriteRSTStream(stream, code)
				})
				b := newBench(t, Options{H2C: true}, address, address)
				var body io.Reader
				if text != "" {
					body = strings.NewReader(text)
				}
				r := newRequest(t, method, "http", body)
				r.Header.Set("Idempotency-Key", "k1")
				_, err := b.do(r.WithContext(ctx))
				cancel()
				if err == nil || processed.Load() != 1 {
					t.Errorf("%v, %s %q: %v, processed %d times", code, method, text, err, processed.Load())
				}
				if again := text == "" && (code == http2.ErrCodeProtocol || code == http2.ErrCodeRefusedStream); again != errors.Is(err, errSentBefore) {
					t.Errorf("%v, %s %q: %v", code, method, text, err)
				}
				b.idle()
			}
		}
	}
}

// TestNetHTTPSendsHTTP2Again shows that the test above sees what it is there for.
func TestNetHTTPSendsHTTP2Again(t *testing.T) {
	twice := make(chan struct{})
	var n atomic.Int64
	address, _ := rawH2C(t, func(f *http2.Framer, stream uint32) {
		if n.Add(1) == 2 {
			close(twice)
		}
		_ = f.WriteRSTStream(stream, http2.ErrCodeProtocol)
	})
	by := newDialer(Options{}).transport(protocols(Options{H2C: true}))
	defer by.CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { <-twice; cancel() }()
	r := newRequest(t, "DELETE", "http", nil).WithContext(ctx)
	r.URL.Host = address
	if res, err := by.RoundTrip(r); err == nil {
		res.Body.Close()
		t.Error("answered")
	}
	<-twice
}

// TestAnswerOfOnceOnly: the guard ends with the answer, not before it.
func TestAnswerOfOnceOnly(t *testing.T) {
	address, _ := rawH2C(t, func(f *http2.Framer, stream uint32) {
		var block bytes.Buffer
		_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true})
		_ = f.WriteData(stream, false, []byte("one "))
		_ = f.WriteData(stream, true, []byte("two"))
	})
	b := newBench(t, Options{H2C: true}, address)
	for range 3 {
		if got, err := b.do(newRequest(t, "DELETE", "http", nil)); err != nil || got != "one two" {
			t.Errorf("%q, %v", got, err)
		}
	}
	b.idle()
}
