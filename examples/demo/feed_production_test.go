package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A googleCloud is what the example's service meets in production: a metadata
// server that gives tokens, and Firestore by TLS, behind a proxy.
type googleCloud struct {
	outside
	metadata *httptest.Server
	account  atomic.Pointer[http.HandlerFunc] // nil: gives a token
	database atomic.Pointer[http.HandlerFunc] // nil: gives a post
	tokens   atomic.Int32
	refused  atomic.Int32 // calls of Firestore without the token
}

const (
	firestoreHost  = "firestore.googleapis.com"
	serviceToken   = "ya29.a-token-of-the-service"
	storedPost     = `{"document": {"name": "projects/p/databases/(default)/documents/posts/0a", "fields": {"text": {"stringValue": "a private word"}, "createdAt": {"timestampValue": "2026-01-01T00:00:00Z"}}}}`
	serviceAccount = "notes@demo-sidegate.iam.gserviceaccount.com"
)

func newGoogleCloud(t *testing.T) *googleCloud {
	t.Helper()
	c := &googleCloud{}
	c.open(t, http.HandlerFunc(c.serveFirestore), firestoreHost)
	c.metadata = httptest.NewServer(http.HandlerFunc(c.serveMetadata))
	t.Cleanup(c.metadata.Close)
	return c
}

func (c *googleCloud) env(authority bool) []string {
	host := strings.TrimPrefix(c.metadata.URL, "http://")
	// The second and the third are what old versions of Google's library read.
	return append(c.outside.env(authority), "GCE_METADATA_HOST="+host, "GCE_METADATA_ROOT="+host, "GCE_METADATA_IP="+host)
}

func (c *googleCloud) serveMetadata(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Metadata-Flavor", "Google")
	path, ofAccount := strings.CutPrefix(r.URL.Path, "/computeMetadata/v1/instance/service-accounts/")
	if !ofAccount {
		io.WriteString(w, project) // or the question whether there is such a server
		return
	}
	if h := c.account.Load(); h != nil {
		(*h)(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if strings.HasSuffix(path, "/token") {
		c.tokens.Add(1)
		fmt.Fprintf(w, `{"access_token": %q, "expires_in": 3600, "token_type": "Bearer"}`, serviceToken)
		return
	}
	fmt.Fprintf(w, `{"email": %q, "scopes": ["https://www.googleapis.com/auth/cloud-platform"], "aliases": ["default"]}`, serviceAccount)
}

func (c *googleCloud) serveFirestore(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	if r.Host != firestoreHost || r.Header.Get("Authorization") != "Bearer "+serviceToken {
		c.refused.Add(1)
	}
	if h := c.database.Load(); h != nil {
		(*h)(w, r)
		return
	}
	fmt.Fprintf(w, "[%s]", storedPost)
}

// hangs answers nothing until the caller leaves or the test ends.
func hangs(t *testing.T) *http.HandlerFunc {
	ctx := t.Context()
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-ctx.Done():
		}
	})
	return &h
}

// drips answers a byte a second, for ever.
func drips(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
			io.WriteString(w, " ")
			http.NewResponseController(w).Flush()
		}
	}
}

func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// feed asks the service as its gateway does.
func (s service) feed(t *testing.T) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // one that hangs is this test's failure, not all tests'
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/v1/posts", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Sidegate-Uid", "alice")
	return do(t, r)
}

// away: the service says that it cannot tell, and not why.
func (s service) away(t *testing.T) {
	t.Helper()
	a := s.feed(t).want(t, http.StatusServiceUnavailable)
	if string(a.body) != `{"detail":"the database gave no answer"}` || a.header.Get("Retry-After") == "" {
		t.Errorf("503 came as %s with %v", a.body, a.header)
	}
}

// TestFeedsInProduction runs the service of examples/fastapi-sidecar with its
// own account and over TLS, and with a Firestore that is away, slow or fails.
func TestFeedsInProduction(t *testing.T) {
	t.Parallel()
	c := newGoogleCloud(t)
	app := startFastAPI(t, c.env(true)...)
	for range 3 {
		if a := app.feed(t).want(t, http.StatusOK); !strings.Contains(string(a.body), "a private word") {
			t.Errorf("the feed is %s", a.body)
		}
	}
	for name, h := range map[string]http.HandlerFunc{
		"fails midway":     answers(http.StatusOK, "["+storedPost+`, {"error": {"code": 503, "status": "UNAVAILABLE", "message": "try again"}}]`),
		"refuses":          answers(http.StatusForbidden, `[{"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no"}}]`),
		"refuses in words": answers(http.StatusForbidden, `"no"`),
		"refuses shortly":  answers(http.StatusForbidden, `[]`),
		"a page of HTML":   answers(http.StatusOK, "<html>Sign in to this network</html>"),
		"no documents":     answers(http.StatusOK, `["x"]`),
		"breaks off":       func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"hangs":            *hangs(t),
		"drips":            drips,
	} {
		t.Run(name, func(t *testing.T) {
			c.database.Store(&h)
			app.away(t)
		})
	}
	// More calls that are given up than the pool has connections leave none taken.
	c.database.Store(hangs(t))
	var all sync.WaitGroup
	for range 60 {
		all.Go(func() { app.away(t) })
	}
	all.Wait()
	c.database.Store(nil)
	app.feed(t).want(t, http.StatusOK)
	if tunnels, _ := c.counts(); c.tokens.Load() != 1 || c.refused.Load() != 0 || tunnels["CONNECT "+firestoreHost+":443"] == 0 {
		t.Errorf("%d tokens were fetched, %d calls came without, by %v", c.tokens.Load(), c.refused.Load(), tunnels)
	}
	for _, secret := range []string{serviceToken, "a private word", "Traceback"} {
		if strings.Contains(app.log.String(), secret) {
			t.Errorf("%q is in the log:\n%s", secret, app.log)
		}
	}
}

// TestFeedsWithoutToken: a metadata server that hangs delays nobody for ever,
// however many wait, and nothing else of the service.
func TestFeedsWithoutToken(t *testing.T) {
	t.Parallel()
	c := newGoogleCloud(t)
	c.account.Store(hangs(t))
	app := startFastAPI(t, c.env(true)...)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { app.away(t) })
	}
	all.Wait()
	refused := answers(http.StatusNotFound, "no such account")
	c.account.Store(&refused)
	app.away(t)
	c.account.Store(nil)
	app.feed(t).want(t, http.StatusOK)
}

// TestFeedsOfAStranger: a Firestore whose certificate nobody vouches for gets
// no token.
func TestFeedsOfAStranger(t *testing.T) {
	t.Parallel()
	c := newGoogleCloud(t)
	app := startFastAPI(t, c.env(false)...)
	app.away(t)
	if tunnels, _ := c.counts(); c.tokens.Load() != 1 || tunnels["CONNECT "+firestoreHost+":443"] == 0 || c.refused.Load() != 0 {
		t.Errorf("%d tokens were fetched, and then %v", c.tokens.Load(), tunnels)
	}
}

// TestGivenUpToken: the error of a token that nobody waits for any more is in no
// log; Python's own would have all of its text.
func TestGivenUpToken(t *testing.T) {
	c := exec.Command(fastAPIPython(t), "-c", `
import asyncio, firestore, threading
everybody_left = threading.Event()
class Slow(firestore.Credentials):
    def _refresh(self):
        everybody_left.wait()
        raise firestore.google.auth.exceptions.RefreshError("what the server said")
async def main():
    slow = Slow()
    try:
        async with asyncio.timeout(0.01):
            await slow.token()
    except TimeoutError:
        print("given up")
    fetch = slow._fetch
    everybody_left.set()
    await asyncio.wait([fetch])
asyncio.run(main())
`)
	c.Dir = filepath.Join(lab.root, "examples", "fastapi-sidecar")
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PYTHONDONTWRITEBYTECODE=1"}
	if out, err := c.CombinedOutput(); err != nil || string(out) != "given up\n" {
		t.Errorf("%v: %s", err, out)
	}
}
