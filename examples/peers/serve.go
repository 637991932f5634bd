package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// answerBytes is how long the upstream's answers are.
const answerBytes = 1 << 10

// serveUpstream is the one app behind all proxies.
func serveUpstream(ctx context.Context, address string) error {
	return serve(ctx, address, upstream())
}

func upstream() http.Handler {
	body := []byte(strings.Repeat("x", answerBytes))
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Write(body)
	})
}

// serveBare is the row that all others are compared with: what anybody would
// write who wants to forward with Go's standard library and has read its
// documentation.
func serveBare(ctx context.Context, address, app string) error {
	target, err := url.Parse("http://" + app)
	if err != nil {
		return err
	}
	return serve(ctx, address, bareProxy(target))
}

func bareProxy(app *url.URL) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(app); r.SetXForwarded() },
		Transport:  &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
		BufferPool: &buffers{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}},
		ErrorLog:   log.New(io.Discard, "", 0),
	}
}

// buffers keep ReverseProxy from making 32 KiB for each answer.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte  { return *b.pool.Get().(*[]byte) }
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

func serve(ctx context.Context, address string, h http.Handler) error {
	s := &http.Server{Addr: address, Handler: h}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
