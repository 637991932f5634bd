package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
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

// TestPrometheus: a Prometheus scrapes a gateway that has much to do. Every query
// of the dashboard has an answer that makes sense, and every alert can be judged,
// with classic histograms and with native ones.
func TestPrometheus(t *testing.T) {
	g := startGateway(t, setup{config: watchedConfig(t), policy: watchedPolicy(t)})
	kinds := map[string][]string{"classic": nil, "native": {"--enable-feature=native-histograms"}}
	servers := map[string]*prometheusServer{}
	for kind, flags := range kinds {
		servers[kind] = startPrometheus(t, g, flags...)
	}
	load := startLoad(t, g)
	for kind, p := range servers {
		t.Run(kind, func(t *testing.T) {
			p.checkDashboard(t)
			p.checkRules(t)
			if have := p.query(t, "sidegate_request_duration_seconds_bucket"); (len(have) == 0) != (kind == "native") {
				t.Errorf("%d classic buckets are kept", len(have))
			}
		})
	}
	sent := load.stop()
	for kind, p := range servers {
		p.checkNumbers(t, kind, sent)
	}
}

func watchedConfig(t *testing.T) string {
	return demoFile(t, "sidegate.yaml", "buckets:\n", `  gone: {url: "http://`+unusedAddress(t)+`"}
buckets:
  locked:
    bucket: demo-uploads
    region: us-east-1
    endpoint: "${env:DEMO_STORE_URL}"
    store: versitygw
    path_style: true
    credentials: {access_key: "${env:DEMO_ACCESS_KEY}", secret_key: not-the-right-one}
`)
}

func watchedPolicy(t *testing.T) string {
	return demoFile(t, "policy.yaml", "routes:\n", `guards:
  - {id: trial, mode: dry_run, since: 2026-02-20, path: /v1/me, deny: {roles: [admin]}}
routes:
  - {id: gone, path: /gone, methods: [GET], upstream: gone, allow: public}
  - {id: quiet, path: /quiet, methods: [GET], upstream: app, allow: public, audit: "off"}
  - {id: locked, path: /locked, methods: [GET], serve: list_objects, allow: [{id: user, who: [users]}], object: {bucket: locked, prefix: "users/${auth.uid}/"}}
  - {id: rare, path: /rare, methods: [GET], upstream: app, allow: public, limit: {rate: 1/h, burst: 1, per: ip}}
`)
}

// A watchedLoad is callers of each kind.
type watchedLoad struct {
	end  context.CancelFunc
	done sync.WaitGroup
	sent int // requests; read after done
}

func (l *watchedLoad) stop() int {
	l.end()
	l.done.Wait()
	return l.sent
}

func startLoad(t *testing.T, g *gateway) *watchedLoad {
	l := &watchedLoad{}
	var ctx context.Context
	ctx, l.end = context.WithCancel(t.Context())
	t.Cleanup(func() { l.stop() })
	alice := token(t, "alice")
	paths := []struct{ path, token string }{
		{"/welcome", ""}, {"/v1/me", alice}, {"/v1/me", ""}, {"/v1/me", "no-token"}, {"/v1/me", alice[:len(alice)-6] + "AAAAAA"},
		{"/v1/admin/x", alice}, {"/nowhere", ""}, {"/gone", ""}, {"/quiet", ""}, {"/locked", alice}, {"/rare", ""},
		{"/v1/files", alice}, {"/v1/uploads", alice}, {"/v1/files/users/alice/x/download", alice},
	}
	l.done.Go(func() {
		pause := time.NewTicker(50 * time.Millisecond)
		defer pause.Stop()
		for {
			for _, p := range paths {
				ask(t, http.MethodGet, g.url+p.path, p.token, "")
				l.sent++
			}
			u := presign(t, g.url, alice, `{"contentType": "text/plain", "size": 5}`)
			u.put(t, []byte("five!")).want(t, http.StatusOK)
			confirm(t, g.url, alice, u.Session).want(t, http.StatusOK)
			l.sent += 2
			breakFraming(t, g)
			select {
			case <-ctx.Done():
				return
			case <-pause.C:
			}
		}
	})
	return l
}

// breakFraming sends what comes to no request.
func breakFraming(t *testing.T, g *gateway) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "POST /welcome HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
		t.Error(err)
	}
	if answer, _ := io.ReadAll(conn); !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
		t.Errorf("two framings: %q", answer)
	}
}

// A prometheusServer is Prometheus, with the alerts of configs/.
type prometheusServer struct{ url string }

func startPrometheus(t *testing.T, g *gateway, flags ...string) *prometheusServer {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		needs(t, "Prometheus", "apt-get install prometheus")
	}
	dir := t.TempDir()
	config := fmt.Sprintf(`global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - {job_name: sidegate, static_configs: [{targets: [%q]}]}
`, filepath.Join(lab.root, "configs", "alerts.yaml"), strings.TrimPrefix(g.adminURL, "http://"))
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	address := unusedAddress(t)
	c := exec.Command(program, append([]string{"--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address}, flags...)...)
	log := &output{}
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Wait() }()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("Prometheus:\n%s", log)
		}
	})
	p := &prometheusServer{"http://" + address}
	if err := waitFor(t.Context(), p.url+"/-/ready", ended); err != nil {
		t.Fatalf("Prometheus is not ready: %v\n%s", err, log)
	}
	return p
}

type sample struct {
	Metric map[string]string
	Value  [2]any
}

func (s sample) value() float64 {
	text, _ := s.Value[1].(string)
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return math.NaN()
	}
	return v
}

// query asks for the value now.
func (p *prometheusServer) query(t *testing.T, expr string) []sample {
	t.Helper()
	var out struct {
		Status, Error string
		Data          struct{ Result []sample }
	}
	ask(t, http.MethodGet, p.url+"/api/v1/query?query="+url.QueryEscape(expr), "", "").decode(t, &out)
	if out.Status != "success" {
		t.Fatalf("%s: %s", expr, out.Error)
	}
	return out.Data.Result
}

// eventually asks until there is an answer with a number.
func (p *prometheusServer) eventually(t *testing.T, expr string) []sample {
	t.Helper()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	end := time.After(30 * time.Second)
	for {
		have := p.query(t, expr)
		numbers := slices.DeleteFunc(slices.Clone(have), func(s sample) bool { return math.IsNaN(s.value()) }) // of what never happened
		if len(numbers) > 0 {
			return numbers
		}
		select {
		case <-again.C:
		case <-end:
			t.Errorf("no answer, or none that is a number: %s: %v", expr, have)
			return nil
		}
	}
}

// notHere are metrics that this gateway has no reason to have.
var notHere = []string{
	"sidegate_lookups_total", "sidegate_lookup_duration_seconds", "sidegate_revocation_", "sidegate_audit_ship_failures_total", "sidegate_audit_checkpoint_seq", "sidegate_tls_files_refused_total",
	"sidegate_redis_", "sidegate_limits_local_total", "sidegate_telemetry_", "sidegate_log_dropped_total",
}

// checkDashboard asks every query of the dashboard.
func (p *prometheusServer) checkDashboard(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(lab.root, "configs", "grafana-dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$__rate_interval", "10s", "$instance", ".*", "$job", ".*", "$route", ".*")
	asked := 0
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			expr := fill.Replace(target.Expr)
			if slices.ContainsFunc(notHere, func(name string) bool { return strings.Contains(expr, name) }) {
				p.query(t, expr) // it can be asked
				continue
			}
			asked++
			for _, s := range p.eventually(t, expr) {
				if v := s.value(); v < 0 && !strings.Contains(expr, "skew") || v > 1 && strings.HasPrefix(panel.Title, "Share") {
					t.Errorf("%s: %s: %v is %v", panel.Title, expr, s.Metric, v)
				}
				if os.Getenv("SIDEGATE_SHOW") != "" {
					t.Logf("%-45s %v %v", panel.Title, s.Metric, s.Value[1])
				}
			}
		}
	}
	if asked < 60 {
		t.Errorf("only %d queries were asked", asked)
	}
}

// checkRules waits until every alert was judged. Those that there is a reason for
// begin to, and no others.
func (p *prometheusServer) checkRules(t *testing.T) {
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	end := time.After(30 * time.Second)
judging:
	for {
		var out struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name, Health, LastError string }
				}
			}
		}
		ask(t, http.MethodGet, p.url+"/api/v1/rules", "", "").decode(t, &out)
		judged := 0
		for _, r := range out.Data.Groups[0].Rules {
			if r.Health == "err" {
				t.Errorf("%s: %s", r.Name, r.LastError)
			}
			if r.Health == "ok" || r.Health == "err" {
				judged++
			}
		}
		if judged == len(out.Data.Groups[0].Rules) && judged > 20 {
			break judging
		}
		select {
		case <-again.C:
		case <-end:
			t.Fatalf("%d alerts were judged", judged)
		}
	}
	want := []string{"SidegateErrors", "SidegateInsecure", "SidegateRefusalFlood", "SidegateStoreFailing", "SidegateUpstreamFailing"}
	for {
		var have []string
		for _, s := range p.query(t, "count by (alertname) (ALERTS)") {
			have = append(have, s.Metric["alertname"])
		}
		slices.Sort(have)
		if slices.Equal(have, want) {
			return
		}
		select {
		case <-again.C:
		case <-end:
			t.Fatalf("alerts: %v, want %v", have, want)
		}
	}
}

// checkNumbers holds what Prometheus has against what was done, once it has seen
// the last of it.
func (p *prometheusServer) checkNumbers(t *testing.T, kind string, sent int) {
	t.Helper()
	total := func(expr string) float64 {
		if have := p.query(t, expr); len(have) > 0 {
			return have[0].value()
		}
		return math.NaN()
	}
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	end := time.After(30 * time.Second)
	for total("sum(sidegate_requests_total)") != float64(sent) {
		select {
		case <-again.C:
		case <-end:
			t.Fatalf("%s: %d requests were sent, and %v are counted", kind, sent, total("sum(sidegate_requests_total)"))
		}
	}
	rounds := float64(sent / 16)
	count := "sum(sidegate_request_duration_seconds_count)"
	if kind == "native" {
		count = "histogram_count(sum(sidegate_request_duration_seconds))"
	}
	for expr, want := range map[string]float64{
		count: float64(sent),
		`sum(sidegate_identifications_total{outcome="none"})`:                     rounds,
		`sum(sidegate_identifications_total{identity="",outcome="invalid"})`:      rounds,
		`sum(sidegate_identifications_total{identity="users",outcome="invalid"})`: rounds,
		`sidegate_requests_total{route="gone",code="502"}`:                        rounds,
		`sidegate_upstream_failures_total{upstream="gone",kind="connect"}`:        rounds,
		`sidegate_store_failures_total{bucket="locked",kind="denied"}`:            rounds,
		`sidegate_audit_off_total`:                                                rounds,
		`sidegate_uploads_total{state="ready"}`:                                   rounds,
		`sidegate_signed_total{operation="put"}`:                                  rounds,
		`sidegate_signed_total{operation="get"}`:                                  rounds,
		`sidegate_framing_refused_total`:                                          rounds,
		`sidegate_limited_total{route="rare",per="ip"}`:                           rounds - 1,
		`sidegate_policy_shadow_total`:                                            rounds,
	} {
		if have := total(expr); have != want {
			t.Errorf("%s: %s is %v, want %v", kind, expr, have, want)
		}
	}
}
