package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inFlight is how many requests a stop meets.
const inFlight = 200

// A holdingApp answers when it is told to, or when nobody waits any more.
type holdingApp struct {
	*httptest.Server
	started chan struct{} // told of each request
	release chan struct{} // closed: answer
}

func newHoldingApp(t *testing.T) *holdingApp {
	t.Helper()
	a := &holdingApp{started: make(chan struct{}, 2*inFlight), release: make(chan struct{})}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.started <- struct{}{}
		select {
		case <-a.release:
			io.WriteString(w, "ok")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(a.Close)
	return a
}

// load sends so many requests, and returns when the app has them all. The
// channel has the status of each, 0 for one that was cut.
func (a *holdingApp) load(t *testing.T, g *gateway) <-chan int {
	t.Helper()
	alice := token(t, "alice")
	statuses := make(chan int, inFlight)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range inFlight {
		go func() {
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/v1/me", nil)
			r.Header.Set("Authorization", "Bearer "+alice)
			response, err := client.Do(r)
			if err != nil {
				statuses <- 0
				return
			}
			defer response.Body.Close()
			if body, err := io.ReadAll(response.Body); err != nil || string(body) != "ok" {
				statuses <- 0
				return
			}
			statuses <- response.StatusCode
		}()
	}
	for range inFlight {
		select {
		case <-a.started:
		case <-g.ended:
			t.Fatal("the gateway ended under load")
		}
	}
	return statuses
}

// terminate asks the gateway to stop, and waits until it is not ready and takes
// no connection.
func (g *gateway) terminate(t *testing.T) {
	t.Helper()
	g.signal(t, syscall.SIGTERM)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for range again.C {
		if ready := ask(t, http.MethodGet, g.adminURL+"/health/ready", "", ""); ready.status == http.StatusServiceUnavailable {
			break
		}
	}
	for range again.C {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
		if err != nil {
			return
		}
		conn.Close()
	}
}

func (g *gateway) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := g.process.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// onRecord gives decisions and outcomes, each of which is there once per record,
// and holds the log against `audit verify`. Summaries have no record.
func onRecord(t *testing.T, dir string) (decisions, outcomes map[string]event) {
	t.Helper()
	decisions, outcomes = map[string]event{}, map[string]event{}
	for _, e := range readLedger(t, dir) {
		into := map[string]map[string]event{"decision": decisions, "outcome": outcomes}[e.Type]
		if into == nil || e.Summary.Repeated > 0 {
			continue
		}
		if _, there := into[e.Record]; there {
			t.Errorf("the record %s has its %s twice", e.Record, e.Type)
		}
		into[e.Record] = e
	}
	if status, stdout, stderr := sidegate(t, nil, "audit", "verify", "--dir", dir+"/data/audit"); status != 0 {
		t.Errorf("audit verify: status %d\n%s%s", status, stdout, stderr)
	}
	return decisions, outcomes
}

// TestF17StopUnderLoad: what is under way when a stop comes ends as if there
// was none, and nobody new is taken.
func TestF17StopUnderLoad(t *testing.T) {
	app := newHoldingApp(t)
	g := startGateway(t, setup{appURL: app.URL})
	statuses := app.load(t, g)
	g.terminate(t)
	close(app.release)
	for range inFlight {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("a request that was under way ended with %d", status)
		}
	}
	if status := g.status(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	decisions, outcomes := onRecord(t, g.dir)
	if len(decisions) != inFlight || len(outcomes) != inFlight {
		t.Errorf("%d decisions and %d outcomes of %d requests", len(decisions), len(outcomes), inFlight)
	}
	for _, e := range outcomes {
		if e.Outcome.Status != http.StatusOK || e.Outcome.Error != "" || e.Outcome.Truncated {
			t.Errorf("%+v", e.Outcome)
		}
	}
}

// TestF17StopCutsWhatDoesNotEnd: at the end of the grace what still runs is cut,
// and that is on record.
func TestF17StopCutsWhatDoesNotEnd(t *testing.T) {
	app := newHoldingApp(t)
	listen := `listen: {address: "${env:DEMO_ADDRESS}"`
	g := startGateway(t, setup{appURL: app.URL, config: demoFile(t, "sidegate.yaml", listen, listen+", shutdown_grace: 1s")})
	statuses := app.load(t, g)
	g.terminate(t)
	for range inFlight {
		if status := <-statuses; status != 0 {
			t.Errorf("a request that was cut ended with %d", status)
		}
	}
	if status := g.status(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	decisions, outcomes := onRecord(t, g.dir)
	if len(decisions) != inFlight || len(outcomes) != inFlight {
		t.Errorf("%d decisions and %d outcomes of %d requests", len(decisions), len(outcomes), inFlight)
	}
	for _, e := range outcomes {
		if e.Outcome.Error != "gateway_stopped" || !e.Outcome.Truncated {
			t.Errorf("%+v", e.Outcome)
		}
	}
}

// TestF17StopShips: what waits for Firestore is brought there within the grace:
// where there is no disk but memory, this is the last moment for it.
func TestF17StopShips(t *testing.T) {
	log := newSharedLog(t)
	app := newHoldingApp(t)
	listen := `listen: {address: "${env:DEMO_ADDRESS}"`
	s := setup{appURL: app.URL, config: demoFile(t, "sidegate.yaml", listen, listen+", shutdown_grace: 25s") + // the emulator's machine may be slow
		log.config("crash")}
	s.flags, s.env = emulated(log.host)
	g := startGateway(t, s)
	statuses := app.load(t, g)
	g.terminate(t)
	close(app.release)
	for range inFlight {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("a request that was under way ended with %d", status)
		}
	}
	if status := g.status(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if decisions, outcomes := onRecord(t, g.dir); len(decisions) != inFlight || len(outcomes) != inFlight {
		t.Errorf("%d decisions and %d outcomes of %d requests", len(decisions), len(outcomes), inFlight)
	}
	log.same(t, g.dir) // without another start
	log.verify(t)
}

// TestF18SecondSignal: a second one ends the gateway at once. What was
// forwarded is on record, and the next start goes on from there: Firestore has
// each event once.
func TestF18SecondSignal(t *testing.T) {
	for _, second := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(second.String(), func(t *testing.T) {
			log := newSharedLog(t)
			app := newHoldingApp(t)
			s := setup{dir: t.TempDir(), appURL: app.URL, config: demoFile(t, "sidegate.yaml") + log.config("crash")}
			s.flags, s.env = emulated(log.host)
			g := startGateway(t, s)
			statuses := app.load(t, g)
			g.terminate(t)
			g.signal(t, second)
			for range inFlight {
				if status := <-statuses; status != 0 {
					t.Errorf("a request ended with %d", status)
				}
			}
			g.status(t)
			if got := g.process.ProcessState.Sys().(syscall.WaitStatus); !got.Signaled() || got.Signal() != second {
				t.Errorf("the gateway ended with %v", g.process.ProcessState)
			}
			close(app.release)
			next := startGateway(t, s)
			ask(t, http.MethodGet, next.url+"/v1/me", token(t, "alice"), "").want(t, http.StatusOK)
			if status := next.stop(t); status != 0 {
				t.Errorf("exit status %d", status)
			}
			if decisions, _ := onRecord(t, g.dir); len(decisions) != inFlight+1 {
				t.Errorf("%d decisions of %d requests", len(decisions), inFlight+1)
			}
			log.same(t, s.dir)
			log.verify(t)
		})
	}
}
