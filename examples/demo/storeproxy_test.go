package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// A storeProxy is the way to the lab's store, on which things go wrong as a test
// says. Signatures hold through it: it is the host that URLs are signed for.
type storeProxy struct {
	url string

	mu    sync.Mutex
	fault func(call storeCall) fault // nil: none
	calls []storeCall
}

// A storeCall is what somebody asked of the store.
type storeCall struct {
	op     string // as S3 names it: PutObject, UploadPart and so on
	path   string
	part   string // of UploadPart
	signed bool   // by a URL, or a form: a client's
	n      int    // how often this op of this path and part was asked before
}

// A fault is what goes wrong with a call. The zero fault: nothing.
type fault struct {
	status int         // answered instead of the store's
	header http.Header // beside status
	down   bool        // no answer, and the store never sees it
	lost   bool        // the store does it, and its answer never comes
	before func()      // called before lost ends the connection
	held   bool        // no answer until the caller leaves, and the store never sees it
}

func newStoreProxy(t *testing.T) *storeProxy {
	t.Helper()
	target, err := url.Parse(lab.store.url)
	if err != nil {
		t.Fatal(err)
	}
	p := &storeProxy{}
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch f := p.called(r); {
		case f.held:
			hold(r)
		case f.down:
			panic(http.ErrAbortHandler) // the connection is closed, and nothing said
		case f.lost:
			pass.ServeHTTP(httptest.NewRecorder(), r.WithContext(context.WithoutCancel(r.Context())))
			if f.before != nil {
				f.before()
			}
			panic(http.ErrAbortHandler)
		case f.status != 0:
			io.Copy(io.Discard, r.Body)
			for name, values := range f.header {
				w.Header()[name] = values
			}
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(f.status)
			fmt.Fprint(w, "<Error><Code>Injected</Code></Error>")
		default:
			pass.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

// hold waits until the caller has left.
func hold(r *http.Request) {
	io.Copy(io.Discard, r.Body) // before its end net/http does not notice who leaves
	<-r.Context().Done()
}

// fails has every call go wrong that f gives a fault for; nil: none.
func (p *storeProxy) fails(f func(storeCall) fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// called notes the call, and gives what is to go wrong with it.
func (p *storeProxy) called(r *http.Request) fault {
	q := r.URL.Query()
	c := storeCall{
		op: operation(r.Method, q, r.URL.Path), path: r.URL.Path, part: q.Get("partNumber"),
		signed: q.Has("X-Amz-Signature") || strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data"),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, before := range p.calls {
		if before.op == c.op && before.path == c.path && before.part == c.part {
			c.n++
		}
	}
	p.calls = append(p.calls, c)
	if p.fault == nil {
		return fault{}
	}
	return p.fault(c)
}

// count is how many calls of that operation there were, and forgets them.
func (p *storeProxy) count(op string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.calls {
		if c.op == op {
			n++
		}
	}
	p.calls = nil
	return n
}

// operation is S3's name of the request.
func operation(method string, q url.Values, path string) string {
	object := strings.Contains(strings.Trim(path, "/"), "/")
	switch {
	case method == http.MethodPost && q.Has("uploads"):
		return "CreateMultipartUpload"
	case method == http.MethodPost && q.Has("uploadId"):
		return "CompleteMultipartUpload"
	case method == http.MethodPost:
		return "PostObject"
	case method == http.MethodPut && q.Has("partNumber"):
		return "UploadPart"
	case method == http.MethodPut:
		return "PutObject"
	case method == http.MethodDelete && q.Has("uploadId"):
		return "AbortMultipartUpload"
	case method == http.MethodDelete:
		return "DeleteObject"
	case method == http.MethodHead:
		return "HeadObject"
	case q.Has("uploads"):
		return "ListMultipartUploads"
	case q.Has("uploadId"):
		return "ListParts"
	case !object:
		return "ListObjects"
	}
	return "GetObject"
}

// once is a fault of the first call of each kind, path and part.
func once(op string, f fault) func(storeCall) fault {
	return func(c storeCall) fault {
		if c.op == op && c.n == 0 {
			return f
		}
		return fault{}
	}
}

// behind has the gateway's store, and the URLs that it signs, be this one.
func (s setup) behind(p *storeProxy) setup {
	s.env = append(s.env, "DEMO_STORE_URL="+p.url)
	return s
}
