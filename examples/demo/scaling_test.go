package main

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const scalingPolicy = `version: sidegate-policy/v1
name: scaling
identities: [users]
routes:
  - {id: home, path: /, methods: [GET], upstream: app, allow: public, audit: "off"}
  - {id: plain, path: /v1/plain, methods: [GET, POST], upstream: app, allow: [{id: user, who: [users]}]}
  - {id: counted, path: /v1/counted, methods: [GET], upstream: app, allow: [{id: user, who: [users]}], limit: [{rate: 20/s, burst: 100, per: uid}, {rate: 1000000/s, per: route}]}
  - {id: hourly, path: /v1/hourly, methods: [GET], upstream: app, allow: [{id: user, who: [users]}], limit: {rate: 20/h, per: uid}}
  - {id: strict, path: /v1/strict, methods: [GET], upstream: app, allow: [{id: user, who: [users]}], limit: {rate: 1000/s, per: uid, unavailable: refuse}}
  - id: upload
    path: /v1/uploads
    methods: [POST]
    serve: presign_upload
    allow: [{id: user, who: [users]}]
    quota: {objects: 12, window: 24h}
    object: {key: "users/${auth.uid}/${uuid}${ext}", content_types: [text/plain], max_bytes: 1KiB}
`

// scaled are two gateways behind haproxy that share Redis and Firestore.
type scaled struct {
	t     *testing.T
	url   string // haproxy's
	redis *redisServer
	log   sharedLog
	app   *scaledApp
	nodes []*node
}

// A node is a gateway that is started again at its place.
type node struct {
	*gateway
	setup          setup
	address, admin string
}

func (n *node) start(t *testing.T) {
	t.Helper()
	n.gateway = startGateway(t, n.setup)
	n.url, n.adminURL = "http://"+n.address, "http://"+n.admin
	if err := waitFor(t.Context(), n.adminURL+"/health/ready", n.ended); err != nil {
		t.Fatalf("the gateway is not ready: %v", err)
	}
}

// metric is the sum of a metric's samples; those of a gateway that does not
// answer are none.
func (n *node) metric(t *testing.T, name string) (sum float64) {
	t.Helper()
	res, err := http.Get(n.adminURL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok && (rest[0] == ' ' || rest[0] == '{') {
			value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += value
		}
	}
	return sum
}

// A scaledApp keeps the ids of the records that it was asked under, and answers
// with them.
type scaledApp struct {
	mu  sync.Mutex
	ids []string
}

func (a *scaledApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/" { // whether haproxy is there
		return
	}
	io.Copy(io.Discard, r.Body)
	id := r.Header.Get("X-Request-Id")
	a.mu.Lock()
	a.ids = append(a.ids, id)
	a.mu.Unlock()
	io.WriteString(w, id)
}

// A redisServer is Debian's redis-server, which keeps nothing on disk.
type redisServer struct {
	address string
	process *exec.Cmd
}

func startRedis(t *testing.T) *redisServer {
	t.Helper()
	s := &redisServer{address: unusedAddress(t)}
	s.start(t)
	t.Cleanup(s.kill)
	return s
}

func (s *redisServer) start(t *testing.T) {
	t.Helper()
	_, port, _ := net.SplitHostPort(s.address)
	s.process = exec.Command(program(t, "redis-server", "apt-get install redis-server"), "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	awaits(t, "redis-server takes connections", func() bool {
		conn, err := net.Dial("tcp", s.address)
		return err == nil && conn.Close() == nil
	})
}

func (s *redisServer) kill() {
	s.process.Process.Kill()
	s.process.Wait()
}

// awaits waits for what is to become true.
func awaits(t *testing.T, what string, is func() bool) {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(30 * time.Second); !is(); <-look.C {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// scaleOut starts it all: haproxy is examples/haproxy-in-front's.
func scaleOut(t *testing.T) *scaled {
	t.Helper()
	s := &scaled{t: t, redis: startRedis(t), log: newSharedLog(t), app: &scaledApp{}}
	haproxy := program(t, "haproxy", "apt-get install haproxy")
	upstream := httptest.NewServer(s.app)
	t.Cleanup(upstream.Close)
	flags, env := emulated(s.log.host)
	for range 2 {
		n := &node{address: unusedAddress(t), admin: unusedAddress(t)}
		n.setup = setup{
			dir: t.TempDir(), policy: scalingPolicy, appURL: upstream.URL, flags: flags, unready: true,
			// The time-out is for a loaded machine: what is away is refused at once here.
			config: demoFile(t, "sidegate.yaml", `listen: {address: "${env:DEMO_ADDRESS}"}`, `listen: {address: "${env:DEMO_ADDRESS}", trusted_proxies: [127.0.0.1], drain_delay: 3s}`) +
				"redis: {url: redis://" + s.redis.address + ", timeout: 5s}\n" + sessionsSection("sessions-"+s.log.collection) + s.log.config("crash"),
			env: append(slices.Clone(env), "DEMO_ADDRESS="+n.address, "DEMO_ADMIN_ADDRESS="+n.admin),
		}
		n.start(t)
		s.nodes = append(s.nodes, n)
	}
	at := unusedAddress(t)
	port := func(address string) string { _, p, _ := net.SplitHostPort(address); return p }
	text := example(t, "haproxy-in-front", "haproxy.cfg", "127.0.0.1:8000", at,
		"127.0.0.1:8080 check port 9180", s.nodes[0].address+" check port "+port(s.nodes[0].admin),
		"127.0.0.1:8081 check port 9182", s.nodes[1].address+" check port "+port(s.nodes[1].admin))
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + at
	startComponent(t, exec.Command(haproxy, "-f", file), s.url+"/")
	return s
}

// counts are what was answered.
type counts struct {
	mu       sync.Mutex
	statuses map[int]int
	ids      []string  // of the app's answers
	problems []string  // of what was neither 200 nor 429
	first    time.Time // when the first request was sent
}

func newCounts() *counts { return &counts{statuses: map[int]int{}} }

// once sends a request that nobody sends again; with a key it may be, by its own.
func (c *counts) once(client *http.Client, method, url, token string, key ...string) int {
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		panic(err)
	}
	if method == http.MethodPost {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(askFive)), int64(len(askFive))
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if len(key) > 0 {
		r.Header.Set("Idempotency-Key", `"`+key[0]+`"`)
	}
	sent := time.Now()
	res, err := client.Do(r)
	status, body := 0, []byte(nil)
	if err == nil {
		body, err = io.ReadAll(res.Body)
		res.Body.Close()
		status = res.StatusCode
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first.IsZero() || sent.Before(c.first) {
		c.first = sent
	}
	if err != nil {
		status = 0
	}
	c.statuses[status]++
	switch {
	case err != nil:
		c.problems = append(c.problems, err.Error())
	case status == http.StatusOK:
		c.ids = append(c.ids, string(body))
	case status != http.StatusTooManyRequests:
		c.problems = append(c.problems, fmt.Sprint(status, " ", string(body)))
	}
	return status
}

// load sends requests from several callers at once, each until more says no.
func (s *scaled) load(c *counts, callers int, more func() bool, method, path, token string) (wait func()) {
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
			defer client.CloseIdleConnections()
			for more() {
				c.once(client, method, s.url+path, token)
			}
		})
	}
	return all.Wait
}

// times is how often each of several callers goes on.
func times(n int) func() bool {
	var mu sync.Mutex
	return func() bool {
		mu.Lock()
		defer mu.Unlock()
		n--
		return n >= 0
	}
}

func (c *counts) is(t *testing.T, what string, statuses ...int) {
	t.Helper()
	if len(c.problems) > 0 {
		t.Errorf("%s: %d failed, the first with %s", what, len(c.problems), c.problems[0])
	}
	for status, n := range c.statuses {
		if !slices.Contains(statuses, status) {
			t.Errorf("%s: %d were answered %d", what, n, status)
		}
	}
}

// TestScalingOut: two gateways that share Redis and Firestore under load. Limits
// and quotas are exact, whichever gateway is asked; Redis may go and come; both
// gateways are restarted without a request that fails; and the audit log has every
// request once.
func TestScalingOut(t *testing.T) {
	s := scaleOut(t)
	alice, bob := token(t, "alice"), token(t, "bob")
	all := map[string]*counts{}
	for _, name := range []string{"drained", "counted", "uploads", "hourly", "away", "plain", "rest"} {
		all[name] = newCounts()
	}
	t.Run("limits and quota", func(t *testing.T) { s.exact(t, all, alice, bob) })
	t.Run("Redis away", func(t *testing.T) { s.redisAway(t, all, alice) })
	t.Run("rolling restart", func(t *testing.T) { s.rollingRestart(t, all["plain"], alice) })
	s.onRecord(t, all)
}

// exact holds what passed of a limit against its rate, and uploads against their
// quota.
func (s *scaled) exact(t *testing.T, all map[string]*counts, alice, bob string) {
	// From here on the budget is used up, so that it fills all the time.
	before := all["drained"]
	emptied := s.drain(before, alice)
	granting := s.uploads(all["uploads"], bob)
	counted := all["counted"]
	end := time.Now().Add(3 * time.Second)
	s.load(counted, 12, func() bool { return time.Now().Before(end) }, http.MethodGet, "/v1/counted", alice)()
	ended := s.drain(counted, alice)
	for what, c := range map[string]*counts{"drained": before, "counted": counted} {
		c.is(t, what, http.StatusOK, http.StatusTooManyRequests)
	}
	// Both moments, at which there was less than one request left, are between
	// those at which a refused one was sent and answered.
	passed := counted.statuses[http.StatusOK]
	least, most := perSecond*ended.sent.Sub(emptied.answered).Seconds()-1, perSecond*ended.answered.Sub(emptied.sent).Seconds()+1
	t.Logf("%d of %d requests passed in %s, of %.1f to %.1f that the limit gives", passed, passed+counted.statuses[429], ended.sent.Sub(emptied.answered), least, most)
	if float64(passed) > most || float64(passed) < least {
		t.Errorf("%d passed, want %.1f to %.1f", passed, least, most)
	}
	if burst := float64(before.statuses[http.StatusOK]); burst < 100 || burst > 100+perSecond*emptied.answered.Sub(before.first).Seconds() {
		t.Errorf("%v passed until the budget was used up", burst)
	}
	granting()
	for _, n := range s.nodes {
		if share := n.metric(t, "sidegate_redis_duration_seconds_count"); share == 0 {
			t.Error("a gateway has asked Redis for nothing")
		}
		if local := n.metric(t, "sidegate_limits_local_total"); local != 0 {
			t.Errorf("%v were counted by a gateway alone", local)
		}
	}
	if n := all["uploads"].statuses[http.StatusOK]; n != 12 || all["uploads"].statuses[http.StatusTooManyRequests] != 18 {
		t.Errorf("uploads of a quota of 12, and 30 asked for: %v %q", all["uploads"].statuses, all["uploads"].problems)
	}
	if n := len(documents(t, s.log.host, "sessions-"+s.log.collection)); n != 12 {
		t.Errorf("%d sessions are stored", n)
	}
}

const perSecond = 20 // of the route counted

// A moment is when a request was sent and answered.
type moment struct{ sent, answered time.Time }

// drain takes what is left of a budget, and gives when it was used up.
func (s *scaled) drain(c *counts, token string) moment {
	refused := func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.statuses[http.StatusTooManyRequests] > 0 }
	s.load(c, 12, func() bool { return !refused() }, http.MethodGet, "/v1/counted", token)()
	for client := (&http.Client{}); ; {
		m := moment{sent: time.Now()}
		if c.once(client, http.MethodGet, s.url+"/v1/counted", token) != http.StatusOK {
			m.answered = time.Now()
			return m
		}
	}
}

// uploads asks for 30 uploads, each until it is told yes or no: Firestore may have
// too much to do for one user.
func (s *scaled) uploads(c *counts, token string) (wait func()) {
	var all sync.WaitGroup
	next := times(30)
	for range 3 {
		all.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
			defer client.CloseIdleConnections()
			for next() {
				key, end := rand.Text(), time.Now().Add(2*time.Minute)
				for c.once(client, http.MethodPost, s.url+"/v1/uploads", token, key) == http.StatusServiceUnavailable && time.Now().Before(end) {
				}
			}
		})
	}
	return all.Wait
}

// redisAway kills Redis: what passes then, and when it is back.
func (s *scaled) redisAway(t *testing.T, all map[string]*counts, alice string) {
	hourly, away := all["hourly"], all["away"]
	s.load(hourly, 4, times(8), http.MethodGet, "/v1/hourly", alice)()
	s.load(away, 4, times(8), http.MethodGet, "/v1/strict", alice)()
	hourly.is(t, "hourly", http.StatusOK)
	away.is(t, "strict", http.StatusOK)
	s.redis.kill()
	// 8 have passed; each gateway has what is left of 20 for itself.
	s.load(hourly, 8, times(200), http.MethodGet, "/v1/hourly", alice)()
	hourly.is(t, "hourly, while Redis is away", http.StatusOK, http.StatusTooManyRequests)
	if n := hourly.statuses[http.StatusOK]; n != 2*20 {
		t.Errorf("%d passed of what two gateways give, 40", n)
	}
	refused := newCounts()
	s.load(refused, 4, times(20), http.MethodGet, "/v1/strict", alice)()
	if n := refused.statuses[http.StatusServiceUnavailable]; n != 20 || !strings.Contains(refused.problems[0], `"unavailable"`) {
		t.Errorf("strict, while Redis is away: %v %q", refused.statuses, refused.problems)
	}
	all["rest"].statuses[http.StatusServiceUnavailable] += 20
	for _, n := range s.nodes {
		if up := n.metric(t, "sidegate_redis_up"); up != 0 {
			t.Errorf("sidegate_redis_up is %v", up)
		}
		if !strings.Contains(n.log.String(), "shared limits cannot be asked") || strings.Count(n.log.String(), "shared limits cannot be asked") > 2 {
			t.Errorf("the log does not say it once")
		}
	}
	s.redis.start(s.t)
	for _, n := range s.nodes {
		awaits(t, "Redis is asked again", func() bool { return n.metric(t, "sidegate_redis_up") == 1 })
	}
	s.load(away, 4, times(20), http.MethodGet, "/v1/strict", alice)()
	away.is(t, "strict, when Redis is back", http.StatusOK)
}

// rollingRestart restarts one gateway after the other under load.
func (s *scaled) rollingRestart(t *testing.T, plain *counts, alice string) {
	stop := make(chan struct{})
	pace := time.NewTicker(5 * time.Millisecond) // Firestore's emulator takes no more for long
	defer pace.Stop()
	more := func() bool {
		select {
		case <-stop:
			return false
		case <-pace.C:
			return true
		}
	}
	reading := s.load(plain, 4, more, http.MethodGet, "/v1/plain", alice)
	writing := s.load(plain, 4, more, http.MethodPost, "/v1/plain", alice)
	for _, n := range s.nodes {
		if status := n.stop(t); status != 0 {
			t.Errorf("exit status %d", status)
		}
		n.start(s.t) // it outlives this part of the test
		awaits(t, "haproxy sends requests to it again", func() bool { return n.metric(t, "sidegate_requests_total") > 0 })
	}
	close(stop)
	reading()
	writing()
	plain.is(t, "during the restarts", http.StatusOK)
	t.Logf("%d requests during the restarts", plain.statuses[http.StatusOK])
	if plain.statuses[http.StatusOK] < 100 {
		t.Errorf("only %d requests during the restarts", plain.statuses[http.StatusOK])
	}
}

// onRecord stops both, and holds what is on record against what was answered.
func (s *scaled) onRecord(t *testing.T, all map[string]*counts) {
	for _, n := range s.nodes {
		if status := n.stop(t); status != 0 {
			t.Errorf("exit status %d", status)
		}
	}
	s.log.same(t, s.nodes[0].dir, s.nodes[1].dir)
	s.log.verify(t)
	answered, refused, asking, uploads := []string{}, 0, 0, all["uploads"].statuses[http.StatusOK]
	for name, c := range all {
		for status, n := range c.statuses {
			switch {
			case name == "uploads": // they are counted after the decision
				asking += n
			case status != http.StatusOK:
				refused += n
			}
		}
		if name != "uploads" {
			answered = append(answered, c.ids...)
		}
	}
	slices.Sort(answered)
	asked := slices.Sorted(slices.Values(s.app.ids))
	if !slices.Equal(answered, asked) {
		t.Errorf("the app was asked %d times, and %d answers came", len(asked), len(answered))
	}
	var allowed, outcomes []string
	var signed, denied int
	for _, e := range s.log.events(t) {
		switch {
		case e.Summary.Repeated > 0:
			denied += e.Summary.Repeated
		case e.Type == "decision" && e.Decision.Route == "upload" && e.Decision.Effect == "allow":
			signed++
		case e.Type == "decision" && e.Decision.Effect == "allow":
			allowed = append(allowed, e.Record)
		case e.Type == "decision":
			denied++
		case e.Type == "outcome" && e.Outcome.Status == http.StatusOK:
			outcomes = append(outcomes, e.Record)
		}
	}
	slices.Sort(allowed)
	if !slices.Equal(allowed, answered) {
		t.Errorf("%d requests are on record as allowed, and %d were answered", len(allowed), len(answered))
	}
	slices.Sort(outcomes)
	if len(outcomes) != len(answered)+uploads || len(slices.Compact(outcomes)) != len(answered)+uploads {
		t.Errorf("%d outcomes of %d requests", len(outcomes), len(answered)+uploads)
	}
	t.Logf("on record: %d requests to the app, %d for uploads, %d refusals", len(allowed), signed, denied)
	if denied != refused || signed != asking {
		t.Errorf("%d refusals and %d requests for uploads are on record, and %d and %d were answered", denied, signed, refused, asking)
	}
}
