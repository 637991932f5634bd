package proxy

import (
	"bufio"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// keptHeader keeps the header of the last request that it is sent.
type keptHeader struct {
	instantly
	last *http.Header
}

func (k keptHeader) RoundTrip(r *http.Request) (*http.Response, error) {
	*k.last = r.Header.Clone()
	return k.instantly.RoundTrip(r)
}

// FuzzPassedOn: what passedOn makes for the app is what ReverseProxy makes.
// A Connection header that names a header which is not there has it do so.
func FuzzPassedOn(f *testing.F) {
	for _, lines := range []string{
		"Accept: */*\nCookie: a=b\nCookie: c=d\nX-A: 1\nX-A: 2",
		"Connection: close\nKeep-Alive: 1\nProxy-Connection: x\nTrailer: X-T\nProxy-Authorization: Basic x",
		"Connection: keep-alive\nX-Sidegate-Uid: evil\nx_sidegate_uid: evil\nX-Forwarded-For: 1.1.1.1\nForwarded: for=x\nX-Own: evil\nTransfer_Encoding: x",
		"Connection: X-A\nX-A: 1", "Connection: Keep-Alive\nConnection: X-A\nX-A: 1", "Te: trailers\nX-A: 1", "Upgrade: h2c\nX-A: 1", "User-Agent:\nExpect: x", "",
	} {
		f.Add(lines)
	}
	sent := http.Header{}
	p, err := New(Options{
		Name: "test", Policy: loadPolicy(f, testPolicy), Authenticator: someone{people()["rich"]}, Recorder: nowhere{},
		Upstreams: map[string]Upstream{"app": {URL: mustURL(f, "http://127.0.0.1:1"), Transport: keptHeader{last: &sent}, Headers: NativeHeaders(), Timeout: time.Minute, IdleTimeout: time.Minute}},
		Log:       zerolog.Nop(), Metrics: prometheus.NewRegistry(), Now: time.Now,
	})
	if err != nil {
		f.Fatal(err)
	}
	p.reserved["x-own"] = true
	ask := func(h http.Header) (http.Header, bool) {
		r := httptest.NewRequest("GET", "/private/a", nil)
		r.RequestURI, r.Header = "/private/a", h
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		for _, name := range []string{"X-Request-Id", "Traceparent"} { // of each request its own
			if w.Code == 200 && len(sent[name]) != 1 {
				f.Errorf("%s: %q", name, sent[name])
			}
			delete(sent, name)
		}
		return sent, w.Code == 200
	}
	f.Fuzz(func(t *testing.T, lines string) {
		r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\n"+strings.ReplaceAll(lines, "\n", "\r\n")), strings.NewReader("\r\n\r\n"))))
		if err != nil {
			return
		}
		h := r.Header
		other, before := h.Clone(), h.Clone()
		if endsHere(h) {
			other["Connection"] = []string{"X-Is-Not-There"}
		}
		is, passed := ask(h)
		want, also := ask(other)
		if passed != also || !reflect.DeepEqual(is, want) {
			t.Errorf("%q: %v, not %v", lines, is, want)
		}
		delete(before, "Upgrade")
		delete(h, "Upgrade")
		if !reflect.DeepEqual(h, before) {
			t.Errorf("what came was changed: %v, not %v", h, before)
		}
	})
}

// TestEndsHere: ReverseProxy makes the header wherever there is more to it than
// taking the headers of the connection away.
func TestEndsHere(t *testing.T) {
	for _, c := range []struct {
		h    http.Header
		want bool
	}{
		{nil, true},
		{http.Header{"Connection": {"Keep-Alive"}}, true},
		{http.Header{"Connection": {"close"}}, true},
		{http.Header{"Connection": {""}}, false},
		{http.Header{"Connection": {"close, X-A"}}, false},
		{http.Header{"Connection": {"close", "X-A"}}, false},
		{http.Header{"Connection": {"X-Sidegate-Uid"}}, false},
		{http.Header{"Te": {"trailers"}}, false},
		{http.Header{"Upgrade": {"websocket"}}, false},
	} {
		if is := endsHere(c.h); is != c.want {
			t.Errorf("%v: %v", c.h, is)
		}
	}
}

// TestHandOn: the caller's answer has what ReverseProxy would copy.
func TestHandOn(t *testing.T) {
	for _, c := range []struct{ had, from, want http.Header }{
		{http.Header{}, http.Header{"A": {"1", "2"}, "Content-Type": {"text/html"}}, http.Header{"A": {"1", "2"}, "Content-Type": {"text/html"}}},
		{http.Header{"A": {"0"}, "B": {"0"}}, http.Header{"A": {"1"}}, http.Header{"A": {"0", "1"}, "B": {"0"}}},
		{http.Header{}, http.Header{"A": {}}, http.Header{}},
		{http.Header{}, http.Header{"A": {"1"}, "Content-Type": {"Text/Event-Stream; charset=utf-8"}}, http.Header{}},
	} {
		res := &http.Response{Header: c.from.Clone()}
		handOn(c.had, res)
		if !reflect.DeepEqual(c.had, c.want) {
			t.Errorf("%v: %v, not %v", c.from, c.had, c.want)
		}
		if len(c.want) == 0 && len(c.from["A"]) > 0 && !reflect.DeepEqual(res.Header, c.from) {
			t.Errorf("ReverseProxy is left %v of %v", res.Header, c.from)
		}
	}
}

// FuzzStreamsEvents: whatever ReverseProxy takes for an event stream is left to it.
func FuzzStreamsEvents(f *testing.F) {
	for _, t := range []string{"text/event-stream", " Text/Event-Stream\t; a=b", "text/event-stream;", "text/html", ""} {
		f.Add(t)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if is, _, _ := mime.ParseMediaType(value); is == "text/event-stream" && !streamsEvents([]string{value}) {
			t.Errorf("%q", value)
		}
	})
}
