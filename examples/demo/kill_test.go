package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// TestKilledUnderLoad kills the gateway again and again while requests are
// under way. Whatever was answered, forwarded or signed before must be in the
// audit log when it has started again: exactly once. SIDEGATE_KILLS is how
// often (default 5; `make soak-kill` takes more).
func TestKilledUnderLoad(t *testing.T) {
	kills := 5
	if s := os.Getenv("SIDEGATE_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatalf("SIDEGATE_KILLS: %v", err)
		}
	}
	seen := &witness{forwarded: map[string]int{}, signed: map[string]bool{}, refused: map[string]bool{}}
	address := unusedAddress(t)
	app := &http.Server{Addr: address, Handler: seen}
	go app.ListenAndServe()
	defer app.Close()
	s := setup{dir: t.TempDir(), appURL: "http://" + address}
	for n := range kills {
		g := startGateway(t, s)
		seen.check(t, g.dir)
		answered := seen.load(t, g, 100+rand.IntN(400))
		g.kill()
		for range answered { // until the workers have noticed
		}
		t.Logf("kill %d of %d: %s", n+1, kills, seen)
		if t.Failed() {
			return
		}
	}
	g := startGateway(t, s)
	seen.check(t, g.dir)
	if status := g.stop(t); status != 0 {
		t.Errorf("exit status %d after SIGTERM", status)
	}
	status, stdout, stderr := sidegate(t, nil, "audit", "verify", "--dir", g.dir+"/data/audit")
	if status != 0 {
		t.Errorf("audit verify: status %d\n%s%s", status, stdout, stderr)
	}
}

// A witness knows what came out of the gateway. It is the app behind it, too.
type witness struct {
	mu        sync.Mutex
	forwarded map[string]int  // X-Request-Id -> how often the app saw it
	signed    map[string]bool // sessions whose URL a caller has
	refused   map[string]bool // request_id of the refusals that a caller read
	noted     map[string]int  // of these, since the last start, by who was refused
}

// inFull is how many refusals of one source are surely on record one by one: a
// kill takes the counts of the others. The gateway writes 60 a minute, and those
// that the callers read first need not be those that it wrote first.
const inFull = 50

func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.forwarded[r.Header.Get("X-Request-Id")]++
	w.mu.Unlock()
	io.WriteString(rw, "ok")
}

func (w *witness) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("%d forwarded, %d signed, %d refused", len(w.forwarded), len(w.signed), len(w.refused))
}

// load starts workers that ask until the gateway is gone, and returns when so
// many requests were answered. The channel is closed when all have ended.
func (w *witness) load(t *testing.T, g *gateway, until int) <-chan struct{} {
	t.Helper()
	alice, bob := token(t, "alice"), token(t, "bob")
	w.noted = map[string]int{}
	answered := make(chan struct{}, 64)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for n := rand.IntN(100); ; n++ {
				if err := w.ask(t.Context(), g.url, n, alice, bob); err != nil {
					return
				}
				answered <- struct{}{}
			}
		})
	}
	go func() {
		workers.Wait()
		close(answered)
	}()
	for range until {
		if _, ok := <-answered; !ok {
			t.Fatal("the gateway went away under load, before it was killed")
		}
	}
	return answered
}

// ask sends the nth request of a worker and notes what its answer promises. An
// error means that there was no whole answer.
func (w *witness) ask(ctx context.Context, url string, n int, alice, bob string) error {
	method, path, token, body := http.MethodGet, "/v1/me", alice, ""
	switch n % 10 {
	case 0, 1:
		method, path, body = http.MethodPost, "/v1/uploads/presign", `{"contentType": "text/plain", "size": 5}`
	case 2:
		path, token = "/v1/files/users/alice/uploads/x.txt/download", bob // 403
	case 3:
		token = "" // 401
	}
	r, err := http.NewRequestWithContext(ctx, method, url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Session   string
		RequestID string `json:"request_id"`
	}
	json.Unmarshal(content, &answer) // the app's is no JSON
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case response.StatusCode == http.StatusOK && answer.Session != "":
		w.signed[answer.Session] = true
	case response.StatusCode != http.StatusOK && w.noted[token] < inFull:
		w.noted[token]++
		w.refused[answer.RequestID] = true
	}
	return nil
}

// check compares the audit log with what was seen.
func (w *witness) check(t *testing.T, dir string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	records, sessions := map[string]int{}, map[string]int{}
	for _, e := range readLedger(t, dir) {
		if e.Type != "decision" || e.Summary.Repeated > 0 {
			continue
		}
		records[e.Record]++
		if e.Object.Operation != "" && e.Decision.Route == "presign-upload" {
			sessions[e.Object.Session]++
		}
	}
	for record, n := range records {
		if n != 1 {
			t.Errorf("%d decisions for the record %q", n, record)
		}
	}
	for id, n := range w.forwarded {
		if n != 1 || records[id] != 1 {
			t.Errorf("request %q: forwarded %d times, %d decisions", id, n, records[id])
		}
	}
	for session := range w.signed {
		if sessions[session] != 1 {
			t.Errorf("session %q: %d decisions", session, sessions[session])
		}
	}
	for id := range w.refused {
		if records[id] != 1 {
			t.Errorf("refusal %q: %d decisions", id, records[id])
		}
	}
}
