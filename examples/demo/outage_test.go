package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A shippingGateway has a link between itself and Firestore, and an app that
// counts.
type shippingGateway struct {
	setup setup
	log   sharedLog
	link  *link
	app   *countingApp
	alice string
}

// newShipping is what such gateways share, each with this survive.
func newShipping(t *testing.T, survive string) *shippingGateway {
	t.Helper()
	s := &shippingGateway{log: newSharedLog(t), app: newCountingApp(t), alice: token(t, "alice")}
	s.link = newLink(t, s.log.host)
	s.setup = setup{
		dir: t.TempDir(), appURL: s.app.URL,
		config: demoFile(t, "sidegate.yaml") + s.log.config(survive),
	}
	s.setup.flags, s.setup.env = emulated(s.link.address)
	return s
}

// A countingApp says how many requests reached it.
type countingApp struct {
	*httptest.Server
	requests atomic.Int64
	hook     atomic.Pointer[func()] // unless nil, called before an answer
}

func newCountingApp(t *testing.T) *countingApp {
	t.Helper()
	a := &countingApp{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.requests.Add(1)
		if hook := a.hook.Load(); hook != nil {
			(*hook)()
		}
		io.WriteString(w, "ok")
	}))
	t.Cleanup(a.Close)
	return a
}

// served sends so many requests that must be forwarded, one after the other,
// and gives how long the slowest took.
func (s *shippingGateway) served(t *testing.T, g *gateway, requests int) (slowest time.Duration) {
	t.Helper()
	for range requests {
		began := time.Now()
		ask(t, http.MethodGet, g.url+"/v1/me", s.alice, "").want(t, http.StatusOK)
		slowest = max(slowest, time.Since(began))
	}
	return slowest
}

// whole stops the gateway, whose Firestore is reachable, and holds that all of
// the ledger is there: nothing missing, nothing twice, the chain in order.
func (s *shippingGateway) whole(t *testing.T, g *gateway) {
	t.Helper()
	g.until(t, "sidegate_audit_waiting_bytes", 0)
	if status := g.stop(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	decisions, _ := onRecord(t, g.dir)
	allowed := int64(0)
	for _, d := range decisions {
		if d.Decision.Effect == "allow" {
			allowed++
		}
	}
	if reached := s.app.requests.Load(); reached > allowed {
		t.Errorf("%d requests reached the app, and %d were allowed on record", reached, allowed)
	}
	s.log.same(t, g.dir)
	s.log.verify(t)
}

// TestF1FirestoreDown: at survive: crash nobody notices that Firestore is away,
// for however long and over a restart; later it has everything.
func TestF1FirestoreDown(t *testing.T) {
	s := newShipping(t, "crash")
	g := startGateway(t, s.setup)
	s.served(t, g, 20)
	s.link.cut()
	s.served(t, g, 150)
	g.reaches(t, "sidegate_audit_outage", 1)
	ask(t, http.MethodGet, g.adminURL+"/health/ready", "", "").want(t, http.StatusOK)
	g.kill()
	g = startGateway(t, s.setup) // where it is away from the start
	s.served(t, g, 150)
	s.link.mend(t)
	g.until(t, "sidegate_audit_outage", 0)

	// A network that swallows everything, and one that breaks all the time.
	s.link.hold(asking, answering)
	s.served(t, g, 100)
	s.link.release()
	for range 10 {
		s.served(t, g, 10)
		s.link.reset()
	}
	s.whole(t, g)
	if n := s.app.requests.Load(); n != 520 {
		t.Errorf("%d of 520 requests reached the app", n)
	}
}

// TestF1FirestoreDownAtMachine: where Firestore's word is what counts, there is
// a 503 without it, and the app is not touched. The gateway recovers by itself.
func TestF1FirestoreDownAtMachine(t *testing.T) {
	s := newShipping(t, "machine")
	g := startGateway(t, s.setup)
	s.served(t, g, 5)
	for range 2 {
		before := s.app.requests.Load()
		s.link.cut()
		for range 20 {
			refusal := ask(t, http.MethodGet, g.url+"/v1/me", s.alice, "").problem(t, http.StatusServiceUnavailable, "unavailable")
			if refusal.header.Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
		}
		if n := s.app.requests.Load() - before; n != 0 {
			t.Errorf("%d requests reached the app without their record", n)
		}
		g.isReady(t, http.StatusServiceUnavailable)
		s.link.mend(t)
		g.isReady(t, http.StatusOK) // though nobody asks for anything
		s.served(t, g, 20)
	}
	s.whole(t, g)
}

// TestF2FirestoreSlow: two seconds each way to Firestore are no time at all
// for a request at survive: crash.
func TestF2FirestoreSlow(t *testing.T) {
	s := newShipping(t, "crash")
	g := startGateway(t, s.setup)
	usual := s.served(t, g, 100)
	const way = 2 * time.Second
	s.link.slow(way)
	slowest := s.served(t, g, 200)
	t.Logf("the slowest request took %v, and %v while Firestore is slow", usual, slowest)
	if slowest >= way {
		t.Errorf("a request took %v: it waited for Firestore", slowest)
	}
	if g.metric(t, "sidegate_audit_waiting_bytes") == 0 {
		t.Error("nothing waits for Firestore: it was not slow")
	}
	s.link.slow(0)
	s.whole(t, g)
}

// TestF29AnswerLost: Firestore has stored the batch and its answer never comes.
// It is sent again, and stored once.
func TestF29AnswerLost(t *testing.T) {
	s := newShipping(t, "machine")
	g := startGateway(t, s.setup)
	s.served(t, g, 5)
	for range 5 {
		g.until(t, "sidegate_audit_waiting_bytes", 0) // one batch at a time is under way
		s.link.hold(answering)
		var callers sync.WaitGroup
		stored := len(s.log.lines(t))
		for range 8 {
			callers.Go(func() { s.served(t, g, 1) })
		}
		s.log.await(t, stored+1)
		s.link.reset()
		s.link.release()
		callers.Wait()
	}
	s.whole(t, g)
	if n := s.app.requests.Load(); n != 45 {
		t.Errorf("%d of 45 requests reached the app", n)
	}
}

// TestFrozen: where a machine gets its processor only while a request runs,
// all stands still when the last answer is out, in the middle of shipping, and
// for longer than a try may take. That is no outage of Firestore's: the next
// request is served, and takes with it what was left.
func TestFrozen(t *testing.T) {
	const freeze = 11 * time.Second // a try has ten
	for name, thaw := range map[string]func(*link){
		"the connection is gone": func(l *link) { l.reset(); l.release() },
		"the answer comes later": func(*link) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShipping(t, "machine")
			g := startGateway(t, s.setup)
			s.served(t, g, 5)
			stored := make(chan int, 1)
			hook := func() { // its decision is shipped, and all before it
				s.app.hook.Store(nil)
				stored <- len(s.log.lines(t))
				s.link.hold(answering)
			}
			s.app.hook.Store(&hook)
			s.served(t, g, 1)
			s.log.await(t, <-stored+1) // its outcome is under way
			g.signal(t, syscall.SIGSTOP)
			thaw(s.link)
			<-time.After(freeze) // the time that a frozen process does not see
			// Who asks next comes before anything else has succeeded.
			const late = 250 * time.Millisecond
			s.link.slow(late)
			defer time.AfterFunc(late, s.link.release).Stop()
			g.signal(t, syscall.SIGCONT)
			s.served(t, g, 1)
			s.link.slow(0)
			s.served(t, g, 20)
			s.whole(t, g)
			if strings.Contains(g.log.String(), "Firestore does not take") {
				t.Error("the freeze was taken for an outage")
			}
		})
	}
}

// TestTwoGatewaysOneCollection: two gateways, each with its own folder, ship to
// the same collection, and are stopped and killed under load. Each chain is
// whole there.
func TestTwoGatewaysOneCollection(t *testing.T) {
	log := newSharedLog(t)
	seen := newWitness()
	app := httptest.NewServer(seen)
	defer app.Close()
	flags, env := emulated(log.host)
	var setups [2]setup
	for i, survive := range []string{"crash", "machine"} {
		setups[i] = setup{
			dir: t.TempDir(), appURL: app.URL, flags: flags, env: env,
			config: demoFile(t, "sidegate.yaml", "name: demo\n", fmt.Sprintf("name: demo%d\n", i)) +
				log.config(survive),
		}
	}
	for _, kill := range []bool{true, false, true} {
		var ended sync.WaitGroup
		for _, s := range setups {
			g := startGateway(t, s)
			answered := seen.load(t, g, 100)
			ended.Go(func() {
				for range answered {
				}
			})
			if kill {
				g.kill()
			} else {
				g.signal(t, syscall.SIGTERM)
			}
			if !kill && g.status(t) != 0 {
				t.Errorf("exit status %d", g.status(t))
			}
		}
		ended.Wait()
	}
	for _, s := range setups { // what the last kill left
		if status := startGateway(t, s).stop(t); status != 0 {
			t.Errorf("exit status %d", status)
		}
	}
	log.same(t, setups[0].dir, setups[1].dir)
	if n := strings.Count(log.verify(t), "intact"); n != 2 {
		t.Errorf("%d chains are intact, want 2", n)
	}
	events := log.events(t)
	seen.check(t, events)
	t.Logf("%s; %d events", seen, len(events))
}

// TestF30OneFolderTwoGateways: the second writer is refused, and the first does
// not notice.
func TestF30OneFolderTwoGateways(t *testing.T) {
	s := setup{dir: t.TempDir()}
	g := startGateway(t, s)
	alice := token(t, "alice")
	ask(t, http.MethodGet, g.url+"/v1/me", alice, "").want(t, http.StatusOK)
	second := s
	second.unready = true
	other := startGateway(t, second)
	if status := other.status(t); status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	messages := complaints(other.log.String())
	if len(messages) != 1 || !strings.Contains(messages[0], "audit.dir") || !strings.Contains(messages[0], "data/audit") {
		t.Errorf("it says: %q", messages)
	}
	ask(t, http.MethodGet, g.url+"/v1/me", alice, "").want(t, http.StatusOK)
	if status := g.stop(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if decisions, outcomes := onRecord(t, s.dir); len(decisions) != 2 || len(outcomes) != 2 {
		t.Errorf("%d decisions and %d outcomes of 2 requests", len(decisions), len(outcomes))
	}
	// The lock is of the process that is gone, and no hindrance.
	startGateway(t, s)
}

// reaches waits for a metric to be at least that.
func (g *gateway) reaches(t *testing.T, name string, bound float64) {
	t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(30 * time.Second)
	for {
		v := g.metric(t, name)
		if v >= bound {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("%s is %v and does not come to %v", name, v, bound)
		}
	}
}

// isReady waits until readiness is this.
func (g *gateway) isReady(t *testing.T, status int) {
	t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(30 * time.Second)
	for {
		a := ask(t, http.MethodGet, g.adminURL+"/health/ready", "", "")
		if a.status == status {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("readiness stays %d %s, want %d", a.status, a.body, status)
		}
	}
}

// await waits until the log holds so many events.
func (l sharedLog) await(t *testing.T, n int) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(30 * time.Second)
	for {
		have := len(l.lines(t))
		if have >= n {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("the collection holds %d events, want %d", have, n)
		}
	}
}
