package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	random "math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"testing"
)

// TestPresignKilled kills the gateway again and again while uploads are begun,
// sent and ended. After each restart every URL that anybody has is on record,
// every session too, what was confirmed is ready, and the same request with the
// same Idempotency-Key has the same answer, whether or not the first one came.
// SIDEGATE_KILLS is how often (default 3; `make soak-kill` takes more).
func TestPresignKilled(t *testing.T) {
	kills := 3
	if s := os.Getenv("SIDEGATE_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatalf("SIDEGATE_KILLS: %v", err)
		}
	}
	for n := 0; n < kills && !t.Failed(); n++ {
		if n%killsTogether == 0 {
			t.Run(fmt.Sprintf("%d to %d of %d", n+1, min(n+killsTogether, kills), kills), func(t *testing.T) {
				testPresignKilled(t, min(killsTogether, kills-n))
			})
		}
	}
}

func testPresignKilled(t *testing.T, kills int) {
	s := setup{dir: t.TempDir(), policy: presignPolicy}
	w := &uploaders{token: token(t, "alice"), asked: map[string]*asked{}}
	for n := range kills {
		w.gateway = startGateway(t, s)
		w.check(t)
		ended := w.work(t.Context())
		for range 50 + random.IntN(150) {
			if _, ok := <-ended; !ok {
				t.Fatal("the gateway went away under load, before it was killed")
			}
		}
		w.gateway.kill()
		for range ended { // until all have noticed
		}
		t.Logf("kill %d of %d: %d uploads begun", n+1, kills, len(w.asked))
	}
	w.gateway = startGateway(t, s)
	w.check(t)
	w.abort(t)
	if status := w.gateway.stop(t); status != 0 {
		t.Errorf("exit status %d after SIGTERM", status)
	}
	onRecord(t, s.dir)
}

// uploaders begin uploads and know what they were told.
type uploaders struct {
	token   string
	gateway *gateway

	mu    sync.Mutex
	asked map[string]*asked // by Idempotency-Key
}

// asked is one upload, as far as its owner knows.
type asked struct {
	path     string
	begun    []byte // the answer; nil: it never came
	session  signed
	parts    string // signed for this session, if any
	finished []byte // the answer to its confirmation or completion
}

// work has uploads made until the gateway is gone, with a value for each that
// went all its way.
func (w *uploaders) work(ctx context.Context) <-chan struct{} {
	done := make(chan struct{}, 64)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for n := random.IntN(100); w.upload(ctx, n); n++ {
				done <- struct{}{}
			}
		})
	}
	go func() {
		all.Wait()
		close(done)
	}()
	return done
}

// upload makes one, and reports whether the gateway answered throughout.
func (w *uploaders) upload(ctx context.Context, n int) bool {
	key := rand.Text()
	a := &asked{path: []string{"/v1/uploads/presign", "/v1/multipart", "/v1/uploads/form"}[n%3]}
	w.mu.Lock()
	w.asked[key] = a
	w.mu.Unlock()
	begun, ok := w.post(ctx, a.path, key, askFive)
	if !ok {
		return false
	}
	var s signed
	if json.Unmarshal(begun, &s) != nil {
		return false
	}
	w.mu.Lock()
	a.begun, a.session = begun, s
	w.mu.Unlock()
	end := "/v1/uploads/" + s.Session + "/confirm"
	switch a.path {
	case "/v1/uploads/form":
		return true // it is never sent
	case "/v1/multipart":
		answer, ok := w.post(ctx, a.path+"/"+s.Session+"/parts", "", `{"parts": [{"partNumber": 1, "size": 5}]}`)
		var got struct{ Parts []signed }
		if !ok || json.Unmarshal(answer, &got) != nil {
			return false
		}
		w.mu.Lock()
		a.parts = "1"
		w.mu.Unlock()
		s = got.Parts[0]
		end = a.path + "/" + a.session.Session + "/complete"
	}
	if n%5 == 0 {
		return true // begun, and forgotten
	}
	r, err := http.NewRequestWithContext(ctx, s.Method, s.PutURL+s.URL, bytes.NewReader([]byte("five!")))
	if err != nil {
		return false
	}
	for name, value := range s.Headers {
		r.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	response.Body.Close()
	finished, ok := w.post(ctx, end, "", "")
	if ok {
		w.mu.Lock()
		a.finished = finished
		w.mu.Unlock()
	}
	return ok
}

// post gives the answer to a request, if it is a success and came whole.
func (w *uploaders) post(ctx context.Context, path, key, body string) ([]byte, bool) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.gateway.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, false
	}
	r.Header.Set("Authorization", "Bearer "+w.token)
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, false
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return answer, err == nil && response.StatusCode == http.StatusOK
}

// check holds a gateway that has just started against all that is known.
func (w *uploaders) check(t *testing.T) {
	t.Helper()
	p := presigner{w.gateway.url, w.token}
	allowed, parts := map[string]bool{}, map[string]bool{}
	for _, e := range readLedger(t, w.gateway.dir) {
		if e.Type == "decision" && e.Decision.Effect == "allow" {
			allowed[e.Object.Session] = true
			parts[e.Object.Session] = parts[e.Object.Session] || e.Object.Parts != ""
		}
	}
	for _, a := range w.asked {
		if a.begun != nil && !allowed[a.session.Session] {
			t.Errorf("%s signed for session %s, which is not on record", a.path, a.session.Session)
		}
		if a.parts != "" && !parts[a.session.Session] {
			t.Errorf("parts of session %s are signed, and not on record", a.session.Session)
		}
	}
	known := p.sessions(t)
	for session := range known {
		if !allowed[session] {
			t.Errorf("session %s is stored, and not on record", session)
		}
	}
	for key, a := range w.asked {
		again := p.idempotent(t, key, a.path, askFive).want(t, http.StatusOK)
		if a.begun != nil && !sameBeginning(a.begun, again.body) {
			t.Errorf("%s: first %s\nthen  %s", a.path, a.begun, again.body)
		}
		if a.begun == nil { // now it did come
			a.begun = again.body
			again.decode(t, &a.session)
		}
		if a.finished == nil {
			continue
		}
		if status := known[a.session.Session]; status != "ready" {
			t.Errorf("session %s was confirmed, and is %q", a.session.Session, status)
		}
		if confirmed := p.confirm(t, a.session.Session).want(t, http.StatusOK); !bytes.Equal(confirmed.body, a.finished) {
			t.Errorf("confirmed as %s, now %s", a.finished, confirmed.body)
		}
	}
}

// sameBeginning compares answers but for what goes on: the status of an upload
// in parts, and the time that is left.
func sameBeginning(a, b []byte) bool {
	var x, y map[string]any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	for _, m := range []map[string]any{x, y} {
		delete(m, "status")
		delete(m, "expiresSeconds")
	}
	xs, _ := json.Marshal(x)
	ys, _ := json.Marshal(y)
	return bytes.Equal(xs, ys)
}

// sessions are all of the user's, with their states.
func (p presigner) sessions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for token := ""; ; {
		var page struct {
			Uploads       []struct{ Session, Status string }
			NextPageToken string
		}
		ask(t, http.MethodGet, p.url+"/v1/uploads?pageSize=100&pageToken="+url.QueryEscape(token), p.token, "").want(t, http.StatusOK).decode(t, &page)
		for _, u := range page.Uploads {
			all[u.Session] = u.Status
		}
		if token = page.NextPageToken; token == "" {
			return all
		}
	}
}

// abort gives up every upload in parts that is still open: then nothing is open
// at the store, what a killed gateway opened and nobody knew of included.
func (w *uploaders) abort(t *testing.T) {
	t.Helper()
	p := presigner{w.gateway.url, w.token}
	for _, a := range w.asked {
		if a.path != "/v1/multipart" {
			continue
		}
		at := p.url + a.path + "/" + a.session.Session
		if status, _ := p.state(t, a.session.Session); status != "uploading" {
			continue
		}
		if gone := ask(t, http.MethodDelete, at, p.token, ""); gone.status != http.StatusNoContent {
			gone.problem(t, http.StatusConflict, "state")
			if status, reason := p.state(t, a.session.Session); status != "ready" { // the store had completed it
				t.Errorf("session %s is %s (%s), and cannot be aborted", a.session.Session, status, reason)
			}
		}
		if open := openUploads(t, a.session.Key); len(open) != 0 {
			t.Errorf("%d multipart uploads of the aborted session %s are open", len(open), a.session.Session)
		}
	}
}
