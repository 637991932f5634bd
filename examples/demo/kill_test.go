package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A killMode is a level of survival that is put to the test.
type killMode struct {
	name, survive string
	// lose throws the audit log's folder away after each kill, as the loss of
	// the machine does: only Firestore is left.
	lose bool
}

// killsTogether is how many kills one log goes through: what is read again
// after each of them stays bounded.
const killsTogether = 10

// TestKilledUnderLoad kills the gateway again and again while requests are
// under way, and sometimes while it starts. Whatever was answered, forwarded or
// signed before must be in the audit log when it has started again: exactly
// once, and nothing that nobody asked for. At survive: machine it must be in
// Firestore at once, whatever becomes of the folder. SIDEGATE_KILLS is how often
// in each mode (default 3; `make soak-kill` takes more).
func TestKilledUnderLoad(t *testing.T) {
	kills := 3
	if s := os.Getenv("SIDEGATE_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatalf("SIDEGATE_KILLS: %v", err)
		}
	}
	for _, m := range []killMode{
		{name: "crash", survive: "crash"},
		{name: "power", survive: "power"},
		{name: "machine", survive: "machine"},
		{name: "machine, folder lost", survive: "machine", lose: true},
	} {
		t.Run(m.name, func(t *testing.T) {
			for done := 0; done < kills && !t.Failed(); done += killsTogether {
				n := min(killsTogether, kills-done)
				t.Run(fmt.Sprintf("%d to %d of %d", done+1, done+n, kills), func(t *testing.T) { m.test(t, n) })
			}
		})
	}
}

func (m killMode) test(t *testing.T, kills int) {
	seen := newWitness()
	address := unusedAddress(t)
	app := &http.Server{Addr: address, Handler: seen}
	go app.ListenAndServe()
	defer app.Close()
	s := setup{dir: t.TempDir(), appURL: "http://" + address}
	var log sharedLog
	audit := "audit: {survive: " + m.survive + "}\n"
	if m.survive == "machine" {
		if log = newSharedLog(t); kills == killsTogether {
			log.host = startFirestore(t) // an emulator keeps all in memory
		}
		s.flags, s.env = emulated(log.host)
		audit = log.config(m.survive)
	}
	s.config = demoFile(t, "sidegate.yaml") + audit

	for n := range kills {
		g := startGateway(t, s)
		if !m.lose {
			seen.check(t, readLedger(t, g.dir))
		}
		answered := seen.load(t, g, 100+rand.IntN(400))
		g.kill()
		for range answered { // until the workers have noticed
		}
		if n%5 == 2 { // and one who is killed before it is ready
			starting := s
			starting.unready = true
			g := startGateway(t, starting)
			g.logs(t, "{")
			g.kill()
		}
		t.Logf("kill %d of %d: %s", n+1, kills, seen)
		if seen.unavailable > 0 && m.survive != "machine" { // where a slow emulator can be the cause
			t.Error("503 without a cause")
		}
		if log.host != "" { // before anybody can ship what the folder holds
			seen.check(t, log.events(t))
		}
		if m.lose {
			if err := os.RemoveAll(filepath.Join(s.dir, "data", "audit")); err != nil {
				t.Fatal(err)
			}
		}
		if t.Failed() {
			return
		}
	}
	g := startGateway(t, s)
	if status := g.stop(t); status != 0 {
		t.Errorf("exit status %d after SIGTERM", status)
	}
	onRecord(t, g.dir)
	if log.host != "" {
		seen.check(t, log.events(t))
		log.verify(t)
	}
	if !m.lose {
		seen.check(t, readLedger(t, g.dir))
	}
	if log.host != "" && !m.lose {
		log.same(t, g.dir)
	}
}

// A witness knows what went into the gateway and what came out. It is the app
// behind it, too. Each request bears a mark, the name of its user agent,
// which the audit log keeps: so what was never answered is known as well.
type witness struct {
	client *http.Client

	mu        sync.Mutex
	asked     map[string]bool   // by mark: what was sent, and whether it was answered
	forwarded map[string]string // the X-Request-Id with which the app saw it
	twice     []string          // marks that the app saw again
	signed    map[string]string // the session whose URL the caller has
	refused   map[string]string // the request_id of the refusal that the caller read

	unavailable int // 503
}

func newWitness() *witness {
	return &witness{
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
		asked:  map[string]bool{}, forwarded: map[string]string{}, signed: map[string]string{}, refused: map[string]string{},
	}
}

func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	mark := r.UserAgent()
	w.mu.Lock()
	if _, there := w.forwarded[mark]; there {
		w.twice = append(w.twice, mark)
	}
	w.forwarded[mark] = r.Header.Get("X-Request-Id")
	w.mu.Unlock()
	io.WriteString(rw, "ok")
}

func (w *witness) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	answered := 0
	for _, a := range w.asked {
		if a {
			answered++
		}
	}
	return fmt.Sprintf("%d asked, %d answered, %d forwarded, %d signed, %d refused, %d times 503",
		len(w.asked), answered, len(w.forwarded), len(w.signed), len(w.refused), w.unavailable)
}

// load starts workers that ask until the gateway is gone, and returns when so
// many requests were answered. The channel is closed when all have ended.
func (w *witness) load(t *testing.T, g *gateway, until int) <-chan struct{} {
	t.Helper()
	answered := make(chan struct{}, 64)
	alice, bob := token(t, "alice"), token(t, "bob")
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for n := rand.IntN(100); ; n++ {
				err := w.ask(t.Context(), g.url, n, alice, bob)
				if errors.Is(err, errUnavailable) {
					err = waitFor(t.Context(), g.adminURL+"/health/ready", g.ended)
				} else if err == nil {
					answered <- struct{}{}
				}
				if err != nil {
					return
				}
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

// errUnavailable is a 503: it promises nothing, neither that the request is on
// record nor that it is not.
var errUnavailable = errors.New("503")

// ask sends the nth request of a worker and notes what its answer promises. An
// error means that there was no whole answer, or a 503. Refusals are few: beyond a rate
// they may be counted together, and only what was allowed never is.
func (w *witness) ask(ctx context.Context, url string, n int, alice, bob string) error {
	method, path, token, body := http.MethodGet, "/v1/me", alice, ""
	switch {
	case n%10 < 2:
		method, path, body = http.MethodPost, "/v1/uploads/presign", `{"contentType": "text/plain", "size": 5}`
	case n%50 == 2:
		path, token = "/v1/files/users/alice/uploads/x.txt/download", bob // 403
	case n%50 == 3:
		token = "" // 401
	}
	w.mu.Lock()
	mark := fmt.Sprintf("m%d", len(w.asked))
	w.asked[mark] = false
	w.mu.Unlock()
	r, err := http.NewRequestWithContext(ctx, method, url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", mark)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := w.client.Do(r)
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
	if response.StatusCode == http.StatusServiceUnavailable {
		w.unavailable++
		return errUnavailable
	}
	w.asked[mark] = true
	switch {
	case response.StatusCode == http.StatusOK && answer.Session != "":
		w.signed[mark] = answer.Session
	case response.StatusCode != http.StatusOK:
		w.refused[mark] = answer.RequestID
	}
	return nil
}

// check compares the audit log with what was seen.
func (w *witness) check(t *testing.T, events []event) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	decisions, seqs := map[string]event{}, map[string]bool{}
	for _, e := range events {
		at := fmt.Sprint(e.Chain, " ", e.Seq)
		if seqs[at] {
			t.Errorf("seq %s is there twice", at)
		}
		seqs[at] = true
		if e.Type != "decision" {
			continue
		}
		mark := e.Request.UserAgent
		if _, asked := w.asked[mark]; !asked {
			t.Errorf("the record %s is of a request that nobody made: %+v", e.Record, e)
		}
		if other, there := decisions[mark]; there {
			t.Errorf("two decisions for the request %s: %s and %s", mark, other.Record, e.Record)
		}
		decisions[mark] = e
	}
	for mark, answered := range w.asked {
		if _, there := decisions[mark]; answered && !there {
			t.Errorf("the request %s was answered and has no decision", mark)
		}
	}
	for mark, id := range w.forwarded {
		if d := decisions[mark]; d.Record != id || d.Decision.Effect != "allow" {
			t.Errorf("the request %s was forwarded as %s: decision %+v", mark, id, d)
		}
	}
	for mark, session := range w.signed {
		if d := decisions[mark]; d.Object.Session != session || d.Object.Operation == "" {
			t.Errorf("session %s was signed: decision %+v", session, d)
		}
	}
	for mark, id := range w.refused {
		if d := decisions[mark]; d.Record != id {
			t.Errorf("the request %s was refused as %s: decision %+v", mark, id, d)
		}
	}
	if len(w.twice) > 0 {
		t.Errorf("forwarded twice: %s", w.twice)
	}
}
