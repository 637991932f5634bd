package cmd

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sidegate/policy/document"
	"sidegate/storage/audit"
)

// swapPolicy is the nth of a thousand policies. Its number is in the ids of
// its routes and entries, and those with an odd number judge the same requests
// otherwise than those with an even one (swapRulings): a request that took
// something from two policies shows.
func swapPolicy(n int) string {
	alike := `version: sidegate-policy/v1
name: swap-N
identities: [users]
claims: {CLAIM: int}
routes:
  - {id: is-N, path: /is/N, methods: [GET], upstream: app, allow: public}
  - {id: left-N, path: "/left/{rest...}", methods: [GET], upstream: app, allow: [{id: let-N, who: [users]LEFT}]}
  - {id: right-N, path: "/right/{rest...}", methods: [GET], upstream: app, allow: [{id: let-N, who: [users]RIGHT}]}
`
	kind := [2][]string{
		{"CLAIM", "iat", "LEFT", "", "RIGHT", ", uid: nobody"},
		{"CLAIM", "exp", "LEFT", ", uid: nobody", "RIGHT", ""},
	}
	own := [2]string{`  - {id: own-N, path: "/own/{uid}", methods: [GET], upstream: app, allow: [{id: me-N, who: [users], uid: "${params.uid}"}]}
  - {id: door-N, path: /door, methods: [GET], upstream: app, allow: public}
  - {id: verb-N, path: /verb, methods: [GET], upstream: app, allow: [{id: let-N, who: [users]}]}
  - {id: even-N, path: /only-even, methods: [GET], upstream: app, allow: [{id: let-N, who: [users]}]}
`, `  - {id: deep-N, path: /left/deep, methods: [GET], upstream: app, allow: [{id: down-N, who: [users]}]}
  - {id: own-N, path: "/own/{uid}", methods: [GET], upstream: app, allow: [{id: other-N, who: [users], uid: nobody}, {id: all-N, who: [users]}]}
  - {id: door-N, path: /door, methods: [GET], upstream: app, allow: [{id: let-N, who: [users]}]}
  - {id: verb-N, path: /verb, methods: [POST], upstream: app, allow: [{id: let-N, who: [users]}]}
`}
	text := strings.NewReplacer(kind[n%2]...).Replace(alike + own[n%2])
	return numbered(text, n)
}

func numbered(text string, n int) string { return strings.ReplaceAll(text, "N", fmt.Sprint(n)) }

// A ruling is what a policy makes of a request; N stands for its number.
type ruling struct {
	status            int
	route, rule, code string
}

var swapRulings = []struct {
	path   string
	nobody bool // without a token; else alice asks
	by     [2]ruling
}{
	{"/left/x", false, [2]ruling{{200, "left-N", "left-N/let-N", "entry"}, {403, "left-N", "", "no_entry"}}},
	{"/right/x", false, [2]ruling{{403, "right-N", "", "no_entry"}, {200, "right-N", "right-N/let-N", "entry"}}},
	{"/left/deep", false, [2]ruling{{200, "left-N", "left-N/let-N", "entry"}, {200, "deep-N", "deep-N/down-N", "entry"}}},
	{"/own/alice", false, [2]ruling{{200, "own-N", "own-N/me-N", "entry"}, {200, "own-N", "own-N/all-N", "entry"}}},
	{"/own/bob", false, [2]ruling{{403, "own-N", "", "no_entry"}, {200, "own-N", "own-N/all-N", "entry"}}},
	{"/door", true, [2]ruling{{200, "door-N", "", "public"}, {401, "door-N", "", "no_token"}}},
	{"/verb", false, [2]ruling{{200, "verb-N", "verb-N/let-N", "entry"}, {405, "", "", "method"}}},
	{"/only-even", false, [2]ruling{{200, "even-N", "even-N/let-N", "entry"}, {404, "", "", "no_route"}}},
}

// ruled is the ruling of policy n on a request.
func ruled(path string, nobody bool, n int) ruling {
	out := ruling{404, "", "", "no_route"}
	if path == numbered("/is/N", n) {
		out = ruling{200, "is-N", "", "public"}
	}
	for _, r := range swapRulings {
		if r.path == path && r.nobody == nobody {
			out = r.by[n%2]
		}
	}
	out.route, out.rule = numbered(out.route, n), numbered(out.rule, n)
	return out
}

// A heard is what a caller knows of a request: what it got, and which policies
// can have judged it, by their numbers.
type heard struct {
	path        string
	nobody      bool
	status      int
	claim       string // that the upstream was told of
	since, till int64
}

// A swapped is a gateway whose policy is swapped, and what its callers heard.
type swapped struct {
	*running
	policy             string // its path
	client             *http.Client
	token              string
	published, inForce atomic.Int64

	mu    sync.Mutex
	heard map[string]heard // by the id on record
}

// ask sends one request and keeps what came of it.
func (s *swapped) ask(ctx context.Context, path string, nobody bool) (int, error) {
	h := heard{path: path, nobody: nobody, since: s.inForce.Load()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return 0, err
	}
	if !nobody {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil {
		return 0, err
	}
	h.status, h.till = res.StatusCode, s.published.Load()
	id := res.Header.Get("X-Request-Id")
	if res.StatusCode == http.StatusOK { // the upstream's, which says what it was told
		id, h.claim, _ = strings.Cut(string(body), " ")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, twice := s.heard[id]; twice || id == "" {
		return 0, fmt.Errorf("%s: %d with the id %q, which is none or another's", path, res.StatusCode, id)
	}
	s.heard[id] = h
	return res.StatusCode, nil
}

// publish puts policy n in its place by a rename, as editors and deployments
// do, and waits until a caller finds it in force.
func (s *swapped) publish(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	s.published.Store(int64(n))
	write(t, s.policy+".next", swapPolicy(n))
	rename(t, s.policy+".next", s.policy)
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil { // the watcher would wait for a quiet moment
		t.Fatal(err)
	}
	for status := 0; status != http.StatusOK; {
		var err error
		if status, err = s.ask(ctx, numbered("/is/N", n), true); err != nil {
			t.Fatalf("waiting for policy %d: %v", n, err)
		}
	}
	s.inForce.Store(int64(n))
}

// tellClaim answers with the request's id and the claim it was told of.
func tellClaim(w http.ResponseWriter, r *http.Request) {
	claims := map[string]any{}
	if data, err := base64.RawURLEncoding.DecodeString(r.Header.Get("X-Sidegate-Claims")); err == nil {
		_ = json.Unmarshal(data, &claims)
	}
	fmt.Fprint(w, r.Header.Get("X-Request-Id"))
	for name := range claims {
		fmt.Fprint(w, " ", name)
	}
}

// TestReloadAThousandTimes swaps policies under load. Each request is judged,
// answered, forwarded and recorded by one policy, which was on record before,
// and which was in force while the request was on its way.
func TestReloadAThousandTimes(t *testing.T) {
	const swaps = 1000
	// A hangup that comes before the gateway listens must not end the test.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	up := httptest.NewServer(http.HandlerFunc(tellClaim))
	defer up.Close()
	i := newIssuer(t)
	transport := &http.Transport{MaxIdleConnsPerHost: 10}
	defer transport.CloseIdleConnections()
	s := &swapped{
		policy: filepath.Join(t.TempDir(), "swapped.yaml"),
		client: &http.Client{Transport: transport},
		token:  i.token(t, "alice"),
		heard:  map[string]heard{},
	}
	write(t, s.policy, swapPolicy(0))
	s.running = startGateway(t, up.URL, i, "", "--policy", s.policy)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()

	done := make(chan struct{})
	var load sync.WaitGroup
	for k := range 3 {
		load.Go(func() {
			for n := k; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				c := swapRulings[n%len(swapRulings)]
				if _, err := s.ask(ctx, c.path, c.nobody); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := 1; n <= swaps; n++ {
		s.publish(ctx, t, n)
	}
	close(done)
	load.Wait()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s.checkRecord(t, swaps)
}

// checkRecord reads the audit log in its order.
func (s *swapped) checkRecord(t *testing.T, swaps int) {
	t.Helper()
	numbers := map[string]int{}
	for n := range swaps + 1 {
		numbers[sha(swapPolicy(n))] = n
	}
	loaded, during := 0, 0
	left := map[string]int{} // decisions that have no outcome yet: the status
	judged := map[int]bool{}
	for _, e := range s.events(t) {
		switch {
		case e.System != nil && e.System.Event == "policy_loaded":
			if n, known := numbers[e.System.Detail["policy_sha256"]]; !known || n != loaded+1 {
				t.Fatalf("after policy %d this was loaded: %+v", loaded, e.System)
			}
			loaded++
		case e.System != nil && e.System.Event == "policy_refused":
			t.Errorf("refused: %+v", e.System)
		case e.Decision != nil:
			h, ok := s.heard[e.Record]
			n, known := numbers[e.Decision.Policy.SHA256]
			if !ok || !known || n > loaded {
				t.Fatalf("policy %d was the last one loaded: request %+v, decision %+v, by policy %d (%v), heard %v", loaded, e.Request, e.Decision, n, known, ok)
			}
			if int64(n) < h.since || int64(n) > h.till {
				t.Fatalf("policy %d judged %+v", n, h)
			}
			if complaint := h.complaint(e, n); complaint != "" {
				t.Fatalf("policy %d, heard %+v, decision %+v: %s", n, h, e.Decision, complaint)
			}
			left[e.Record] = h.status
			if !strings.HasPrefix(h.path, "/is/") {
				judged[n] = true
				if h.since < h.till {
					during++
				}
			}
			delete(s.heard, e.Record)
		case e.Outcome != nil:
			if status, ok := left[e.Record]; !ok || status != e.Outcome.Status {
				t.Fatalf("outcome %+v of %s, which got %d (%v)", e.Outcome, e.Record, status, ok)
			}
			delete(left, e.Record)
		}
	}
	if loaded != swaps || len(s.heard) > 0 || len(left) > 0 {
		t.Errorf("loaded up to %d; %d answers without a decision on record, %d decisions without an outcome", loaded, len(s.heard), len(left))
	}
	t.Logf("%d policies judged, %d requests ran during a swap", len(judged), during)
	if len(judged) < swaps/2 || during < swaps {
		t.Errorf("%d policies judged, %d requests ran during a swap: too few to tell", len(judged), during)
	}
}

// complaint says what of an answer and its record is not policy n's.
func (h heard) complaint(e *audit.Event, n int) string {
	want := ruled(h.path, h.nobody, n)
	d := e.Decision
	effect, status := "allow", 0
	if want.status != http.StatusOK {
		effect, status = "deny", want.status
	}
	claim := ""
	if want.status == http.StatusOK && !h.nobody {
		claim = [2]string{"iat", "exp"}[n%2]
	}
	// Who asks is not looked at before a route is found.
	nobody := h.nobody || want.route == ""
	switch {
	case e.Request.Path != h.path || (e.Identity == nil) != nobody:
		return "it is another's record"
	case d.Policy.Name != numbered("swap-N", n):
		return "the policy's name is another's"
	case d.Effect != effect || d.Status != status || d.Route != want.route || d.Rule != want.rule || d.Code != want.code:
		return fmt.Sprintf("the record is not %+v", want)
	case h.status != want.status:
		return "the answer is not the one on record"
	case h.claim != claim:
		return "the upstream was told of claims that another policy declares"
	}
	return ""
}

// metric is the value of a metric without labels.
func (g *running) metric(t *testing.T, name string) string {
	t.Helper()
	for line := range strings.Lines(g.metrics(t)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("there is no metric %s", name)
	return ""
}

// awaitMetric waits for a value of a metric.
func (g *running) awaitMetric(t *testing.T, name, want string) {
	t.Helper()
	end := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for g.metric(t, name) != want {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s is %s, want %s", name, g.metric(t, name), want)
		}
	}
}

const lastReload = "sidegate_policy_last_reload_ok"

// stagePolicy has one open route, which tells whether it is in force.
func stagePolicy(stage string) string {
	return fmt.Sprintf(testPolicy, stage) + fmt.Sprintf("  - {id: %s, path: /stage/%s, methods: [GET], upstream: app, allow: public}\n", stage, stage)
}

// mustBeAt fails unless the policy of that stage is in force, and only it.
func (g *running) mustBeAt(t *testing.T, stage, not string) {
	t.Helper()
	if status, _ := g.get(t, "/stage/"+stage, ""); status != http.StatusOK {
		t.Fatalf("/stage/%s: %d: the policy of that stage is not in force", stage, status)
	}
	if status, _ := g.get(t, "/stage/"+not, ""); status != http.StatusNotFound {
		t.Fatalf("/stage/%s: %d: the policy of that stage is in force", not, status)
	}
}

func sayNothing(http.ResponseWriter, *http.Request) {}

// TestReloadRaisesTheAlarm: whatever is in the policy's place that cannot be
// read as one, the old policy stays in force, and log, metric and audit log
// say so; and the next good one ends the alarm. What is broken as YAML or as a
// policy is in TestReloadKeepsTheLastGoodPolicy.
func TestReloadRaisesTheAlarm(t *testing.T) {
	good := stagePolicy("never")
	type fault struct {
		name string
		put  func(path string) error
		says string // the log, and the audit log
	}
	faults := []fault{
		{"cut off within a line", func(path string) error { return os.WriteFile(path, []byte(good[:len(good)-20]), 0o600) }, "policy.yaml:"},
		{"cut off between lines", func(path string) error {
			return os.WriteFile(path, []byte(good[:strings.Index(good, "routes:")]), 0o600)
		}, "policy.yaml:"},
		{"empty", func(path string) error { return os.WriteFile(path, nil, 0o600) }, "policy.yaml:"},
		{"deleted", os.Remove, "no policy: "},
		{"a folder", func(path string) error { os.Remove(path); return os.Mkdir(path, 0o700) }, "is a directory"},
		{"too large", func(path string) error {
			// Renamed, since the half of it would be a good policy.
			if err := os.WriteFile(path+".next", []byte(good+strings.Repeat("#", document.MaxBytes)), 0o600); err != nil {
				return err
			}
			return os.Rename(path+".next", path)
		}, "is larger than"},
		{"a link to nowhere", func(path string) error { os.Remove(path); return os.Symlink("nowhere", path) }, "no policy: "},
		{"a pipe that nobody writes to", func(path string) error { os.Remove(path); return syscall.Mkfifo(path, 0o600) }, "policy.yaml:"},
		{"a link to itself", func(path string) error { os.Remove(path); return os.Symlink("policy.yaml", path) }, "too many levels of symbolic links"},
	}
	if os.Geteuid() != 0 { // who may read everything
		faults = append(faults, fault{"unreadable", func(path string) error { return os.Chmod(path, 0) }, "permission denied"})
	}

	up := httptest.NewServer(http.HandlerFunc(sayNothing))
	defer up.Close()
	stage := func(n int) string { return fmt.Sprintf("s%d", n) }
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, path, stagePolicy(stage(0)))
	g := startGateway(t, up.URL, newIssuer(t), "", "--policy", path)
	replace := func(text string) {
		t.Helper()
		if at, err := os.Lstat(path); err == nil && at.IsDir() { // over which no file is renamed
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		write(t, path+".next", text)
		rename(t, path+".next", path)
	}
	const alarm = `"level":"error".*%s.*"message":"the new policy is refused; the old one stays in force"`
	for n, f := range faults {
		before := len(g.log.String())
		if err := f.put(path); err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		g.log.awaitAfter(t, before, fmt.Sprintf(alarm, f.says))
		if v := g.metric(t, lastReload); v != "0" {
			t.Errorf("%s: %s is %s", f.name, lastReload, v)
		}
		g.mustBeAt(t, stage(n), stage(n+1))
		if n%3 == 1 { // what was there before comes back: nothing is replaced, and all is well again
			replace(stagePolicy(stage(n)))
			g.awaitMetric(t, lastReload, "1")
			g.mustBeAt(t, stage(n), stage(n+1))
		}
		replace(stagePolicy(stage(n + 1)))
		g.log.awaitCount(t, "the policy was replaced", n+1)
		if v := g.metric(t, lastReload); v != "1" {
			t.Errorf("after %s: %s is %s", f.name, lastReload, v)
		}
		g.mustBeAt(t, stage(n+1), stage(n))
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	at := 0 // the stage on record
	said := make([]bool, len(faults))
	for _, e := range g.events(t) {
		switch {
		case e.System == nil:
		case e.System.Event == "policy_loaded":
			if at++; e.System.Detail["policy_sha256"] != sha(stagePolicy(stage(at))) {
				t.Fatalf("as stage %d this was loaded: %+v", at, e.System.Detail)
			}
		case e.System.Event == "policy_refused":
			if e.System.Detail["policy_sha256"] != sha(stagePolicy(stage(at))) {
				t.Errorf("at stage %d this was refused: %+v", at, e.System.Detail)
			}
			if at < len(faults) && strings.Contains(e.System.Detail["error"], faults[at].says) {
				said[at] = true
			}
		}
	}
	for n, f := range faults {
		if !said[n] {
			t.Errorf("%s: that the policy was refused is not on record", f.name)
		}
	}
	if at != len(faults) {
		t.Errorf("%d policies were loaded, want %d", at, len(faults))
	}
}

// awaitAfter waits for a line that matches the expression beyond the first
// bytes of the log, but not as long as until the watcher's poll: that would
// hide a change of which the notices were not understood.
func (l *lines) awaitAfter(t *testing.T, bytes int, expr string) {
	t.Helper()
	re := regexp.MustCompile(expr)
	end := time.After(watchPoll * 2 / 3)
	for !re.MatchString(l.String()[bytes:]) {
		select {
		case <-l.more:
		case <-end:
			t.Fatalf("no %q in the log after\n%s", expr, l.String()[:bytes])
		}
	}
}

// A configMap is a folder that the kubelet keeps: policy.yaml ->
// ..data/policy.yaml, ..data -> a folder of the version, which is swapped by a
// rename.
type configMap struct {
	dir      string
	versions []string // whose folders are there
}

// publish swaps the version for one that has these contents, or no policy.
func (c *configMap) publish(t *testing.T, version, text string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(c.dir, version), 0o700); err != nil {
		t.Fatal(err)
	}
	if text != "" {
		write(t, filepath.Join(c.dir, version, "policy.yaml"), text)
	}
	link(t, version, filepath.Join(c.dir, "..data_tmp"))
	rename(t, filepath.Join(c.dir, "..data_tmp"), filepath.Join(c.dir, "..data"))
	c.versions = append(c.versions, version)
}

// clean removes the versions before the last.
func (c *configMap) clean(t *testing.T) {
	t.Helper()
	for ; len(c.versions) > 1; c.versions = c.versions[1:] {
		if err := os.RemoveAll(filepath.Join(c.dir, c.versions[0])); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReloadFromConfigMap: a gateway whose policy is a mounted ConfigMap takes
// every version that is good and none that is not.
func TestReloadFromConfigMap(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(sayNothing))
	defer up.Close()
	mount := &configMap{dir: t.TempDir()}
	mount.publish(t, "..2026_01", stagePolicy("jan"))
	path := filepath.Join(mount.dir, "policy.yaml")
	link(t, filepath.Join("..data", "policy.yaml"), path)
	g := startGateway(t, up.URL, newIssuer(t), "", "--policy", path)
	g.mustBeAt(t, "jan", "feb")
	for n, c := range []struct{ version, text, stage, other, log string }{
		{"..2026_02", stagePolicy("feb"), "feb", "jan", "the policy was replaced"},
		{"..2026_03", "version: sidegate-policy/v1\n", "feb", "mar", "the new policy is refused"},
		{"..2026_04", stagePolicy("apr"), "apr", "feb", "the policy was replaced"},
		{"..2026_05", "", "apr", "may", "the new policy is refused"}, // the key was taken out of the ConfigMap
		{"..2026_06", stagePolicy("jun"), "jun", "apr", "the policy was replaced"},
		{"..2026_07", stagePolicy("jul"), "jul", "jun", "the policy was replaced"},
	} {
		before := len(g.log.String())
		mount.publish(t, c.version, c.text)
		if n%2 == 1 { // at once, else when the swap itself was noticed
			mount.clean(t)
		}
		g.log.awaitAfter(t, before, c.log)
		mount.clean(t)
		g.mustBeAt(t, c.stage, c.other)
		want := "1"
		if c.log != "the policy was replaced" {
			want = "0"
		}
		if v := g.metric(t, lastReload); v != want {
			t.Errorf("version %d: %s is %s, want %s", n, lastReload, v, want)
		}
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, e := range g.events(t) {
		if e.System != nil && strings.HasPrefix(e.System.Event, "policy_") {
			got += e.System.Event + " " + e.System.Detail["policy_sha256"] + "\n"
		}
	}
	want := ""
	for _, line := range []string{"loaded feb", "refused feb", "loaded apr", "refused apr", "loaded jun", "loaded jul"} {
		event, stage, _ := strings.Cut(line, " ")
		want += "policy_" + event + " " + sha(stagePolicy(stage)) + "\n"
	}
	if got != want {
		t.Errorf("on record:\n%swant:\n%s", got, want)
	}
}

// TestReloadRollback: what was read last counts, not what the watcher saw: a
// file that is put back right after a SIGHUP took up another is taken up again.
func TestReloadRollback(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(sayNothing))
	defer up.Close()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, path, stagePolicy("one"))
	g := startGateway(t, up.URL, newIssuer(t), "", "--policy", path)
	put := func(text string) { write(t, path+".next", text); rename(t, path+".next", path) }
	hangUp := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	put(stagePolicy("two"))
	hangUp()
	g.log.awaitCount(t, "the policy was replaced", 1)
	put(stagePolicy("one"))
	g.log.awaitCount(t, "the policy was replaced", 2)
	g.mustBeAt(t, "one", "two")
	put("broken")
	hangUp()
	g.awaitMetric(t, lastReload, "0")
	put(stagePolicy("one"))
	g.awaitMetric(t, lastReload, "1")
	g.mustBeAt(t, "one", "two")
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
}
