package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const soakPolicy = `version: sidegate-policy/v1
name: soak
identities: [users]
claims: {roles: list(string)}
routes:
  - {id: open, path: /open, methods: [GET], upstream: app, allow: public, audit: "off"}
  - {id: me, path: /v1/me, methods: [GET], upstream: app, allow: [{id: user, who: [users]}]}
  - {id: hold, path: /v1/hold, methods: [GET], upstream: app, allow: [{id: user, who: [users]}]}
  - {id: blob, path: /v1/blob, methods: [GET, PUT], upstream: app, allow: [{id: user, who: [users]}]}
  - {id: admin, path: /v1/admin, methods: [GET], upstream: app, allow: [{id: admin, who: [users], roles: [admin]}]}
  - {id: echo, path: /v1/echo, methods: [GET], upstream: app, websocket: true, allow: [{id: user, who: [users]}]}
  - id: upload
    path: /v1/uploads/presign
    methods: [POST]
    serve: presign_upload
    allow: [{id: user, who: [users]}]
    object: {key: "users/${auth.uid}/uploads/${uuid}${ext}", content_types: [text/plain], max_bytes: 1MiB, expires: {default: 1m, min: 1m, max: 15m}}
  - {id: confirm, path: "/v1/uploads/{session}/confirm", methods: [POST], serve: confirm_upload, allow: [{id: user, who: [users]}]}
  - id: download
    path: /v1/files/{key...}
    methods: [GET]
    serve: presign_download
    allow: [{id: own, who: [users], key_prefix: "users/${auth.uid}/"}]
    object: {key: "${params.key}", expires: {default: 5m, min: 1m, max: 15m}}
`

const (
	soakUsers = 200
	// soakPhase is a phase of a long soak. Issuers' keys are fetched for an unknown
	// one once a minute at most, and there is a new one in each phase.
	soakPhase = 3 * time.Minute
)

// TestSoakLoad is mixed load in phases, with reloads, new keys, slow callers and
// such as leave. After each phase, when nobody asks any more, goroutines and
// descriptors must be as few as before the first, and the live heap no larger
// than after the first; and in the end every request is on record as it was
// answered. SIDEGATE_SOAK is how long it takes (default 16s; `make soak-load`
// takes 30m).
func TestSoakLoad(t *testing.T) {
	last, phases := 16*time.Second, 4
	if s := os.Getenv("SIDEGATE_SOAK"); s != "" {
		var err error
		if last, err = time.ParseDuration(s); err != nil {
			t.Fatalf("SIDEGATE_SOAK: %v", err)
		}
		phases = max(phases, int(last/soakPhase))
	}
	s := newSoak(t)
	before := s.measure(t)
	t.Logf("before: %s", before)
	var first measured
	for n := range phases {
		s.run(t, last/time.Duration(phases), last/time.Duration(phases) >= soakPhase || n == 1)
		// Connections to the app that wait are two goroutines and a descriptor.
		s.g.until(t, "go_goroutines", before.goroutines+3*s.callers)
		s.g.until(t, "process_open_fds", before.descriptors+2*s.callers)
		m := s.measure(t)
		t.Logf("phase %d of %d: %s; %s", n+1, phases, m, s.book)
		if n == 0 {
			first = m
		}
		if bound := first.heap*1.15 + 4<<20; m.heap > bound {
			t.Errorf("after phase %d %.1f MiB are alive, after the first %.1f", n+1, m.heap/(1<<20), first.heap/(1<<20))
		}
		if bound := first.peak*5/4 + 32<<10; m.peak > bound {
			t.Errorf("phase %d took %d KiB of memory, the first %d KiB", n+1, m.peak, first.peak)
		}
		if t.Failed() {
			return
		}
	}
	if status := s.g.stop(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	s.book.check(t, s.g.dir)
	if loaded := s.book.systemEvents["policy_loaded"]; loaded != s.loaded || s.book.systemEvents["policy_refused"] != s.refused || loaded < phases {
		t.Errorf("%d policies were loaded and %d refused; on record: %v", s.loaded, s.refused, s.book.systemEvents)
	}
}

// A soak is the gateway, with what is around it.
type soak struct {
	g       *gateway
	app     *soakApp
	keys    *soakIssuer
	book    *soakBook
	callers float64 // who ask at once
	// policies that were put in place, good and bad ones
	loaded, refused int
}

func newSoak(t *testing.T) *soak {
	t.Helper()
	s := &soak{book: newSoakBook(), keys: newSoakIssuer(t)}
	s.app = newSoakApp(s.book)
	app := httptest.NewServer(s.app)
	t.Cleanup(app.Close)
	keys := httptest.NewServer(s.keys)
	t.Cleanup(keys.Close)
	s.g = startGateway(t, setup{
		appURL: app.URL, policy: soakPolicy,
		config: demoFile(t, "sidegate.yaml", "policy: policy.yaml\n", fmt.Sprintf("policy: policy.yaml\ntoken_cache: %d\n", 2*soakUsers)),
		flags:  []string{"--insecure-keys", keys.URL + "/keys", "--log-level", "error", "--pprof"},
	})
	return s
}

// What is measured when nobody asks.
type measured struct {
	goroutines, descriptors float64
	heap                    float64 // bytes that are alive
	memory, peak            int     // KiB: what is the process's own now, and all that it had at most
}

func (m measured) String() string {
	return fmt.Sprintf("%v goroutines, %v descriptors, %.1f MiB alive, %d KiB own memory, %d KiB at most", m.goroutines, m.descriptors, m.heap/(1<<20), m.memory, m.peak)
}

func (s *soak) measure(t *testing.T) measured {
	t.Helper()
	for range 2 { // what pools keep survives one collection
		ask(t, http.MethodGet, s.g.adminURL+"/debug/pprof/heap?gc=1", "", "").want(t, http.StatusOK)
	}
	return measured{
		heap:       s.g.metric(t, "go_memstats_heap_alloc_bytes"),
		goroutines: s.g.metric(t, "go_goroutines"), descriptors: s.g.metric(t, "process_open_fds"),
		memory: s.g.memory(t, "RssAnon"), peak: s.g.memory(t, "VmHWM"),
	}
}

// run is a phase: all callers ask, while policies come and go. With rotate the
// issuer has a new key from its middle on.
func (s *soak) run(t *testing.T, last time.Duration, rotate bool) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	s.callers = 0
	for _, c := range s.callersOf() {
		for range c.many {
			s.callers++
			all.Go(func() { s.call(ctx, c) })
		}
	}
	half, over := time.After(last/2), time.After(last)
	again := time.NewTicker(last / 4)
	defer again.Stop()
	for running := true; running; {
		s.reload(t)
		select {
		case <-again.C:
		case <-half:
			if rotate {
				s.keys.rotate(t)
			}
		case <-over:
			running = false
		}
	}
	stop()
	all.Wait()
	if problems := s.book.complaints(); len(problems) > 0 {
		t.Errorf("%d complaints, such as %q", len(problems), problems[:min(5, len(problems))])
	}
}

// reload puts a policy in place that is another one, then one that is refused,
// and waits until the gateway has seen each.
func (s *soak) reload(t *testing.T) {
	t.Helper()
	place := func(text, result string, want int) {
		t.Helper()
		next := filepath.Join(s.g.dir, "policy.next")
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(s.g.dir, "policy.yaml")); err != nil {
			t.Fatal(err)
		}
		awaits(t, "policies are "+result, func() bool {
			return int(s.g.metric(t, `sidegate_policy_reloads_total{result="`+result+`"}`)) == want
		})
	}
	s.loaded++
	place(soakPolicy+fmt.Sprintf("# number %d\n", s.loaded), "loaded", s.loaded)
	s.refused++
	place(strings.Replace(soakPolicy, "upstream: app", "upstream: ap", 1)+fmt.Sprintf("# number %d\n", s.refused), "refused", s.refused)
}
