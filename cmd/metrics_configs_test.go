package cmd

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var metricName = regexp.MustCompile(`\b(?:sidegate|process|go)_[a-z0-9_]+`)

// TestConfigsNameMetrics: the dashboard and the alerts ask for metrics that are in
// docs/operations.md, and for all of them that say something is wrong.
func TestConfigsNameMetrics(t *testing.T) {
	documented := documentedMetrics(t)
	for _, file := range []string{"grafana-dashboard.json", "alerts.yaml"} {
		asked := namesIn(t, filepath.Join("..", "configs", file))
		if len(asked) < 30 {
			t.Fatalf("%s: only %d metrics were found", file, len(asked))
		}
		for _, name := range asked {
			if !slices.Contains(documented, name) && !outsideOurs(name) {
				t.Errorf("%s asks for %s, which docs/operations.md does not know", file, name)
			}
		}
		if file != "grafana-dashboard.json" {
			continue
		}
		for _, name := range documented {
			if !slices.Contains(asked, name) && !slices.Contains(notShown, name) {
				t.Errorf("the dashboard has no panel with %s", name)
			}
		}
	}
}

// TestAlertsAreThere: where the table of metrics says to alert, an alert does.
func TestAlertsAreThere(t *testing.T) {
	asked := namesIn(t, filepath.Join("..", "configs", "alerts.yaml"))
	page := readFile(t, filepath.Join("..", "docs", "operations.md"))
	rows := regexp.MustCompile("(?m)^\\| `(sidegate_[a-z_]+)`.*\\*\\*Alert ").FindAllStringSubmatch(page, -1)
	if len(rows) < 20 {
		t.Fatalf("only %d rows were found", len(rows))
	}
	for _, row := range rows {
		if !slices.Contains(asked, row[1]) {
			t.Errorf("docs/operations.md says to alert on %s, and configs/alerts.yaml does not", row[1])
		}
	}
}

// notShown are metrics that say what another one on the dashboard says, or are
// for other ends than watching.
var notShown = []string{
	"sidegate_audit_chain_info", "sidegate_audit_copy_lag_events", "sidegate_audit_waiting_max_bytes", "sidegate_audit_checkpoint_shipped_seq", "sidegate_audit_lag_events",
	"sidegate_audit_last_shipped_timestamp_seconds", "sidegate_token_cache_entries",
}

func outsideOurs(name string) bool {
	return strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_")
}

// namesIn are the metrics that a file speaks of, histograms by the name that
// their parts share.
func namesIn(t *testing.T, file string) (names []string) {
	t.Helper()
	for _, name := range metricName.FindAllString(readFile(t, file), -1) {
		for _, end := range []string{"_bucket", "_count", "_sum"} {
			if strings.HasSuffix(name, "_seconds"+end) {
				name = strings.TrimSuffix(name, end)
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// documentedMetrics are the names in the table of docs/operations.md.
func documentedMetrics(t *testing.T) (names []string) {
	t.Helper()
	section := operationsSection(t, "Metrics")
	for _, row := range regexp.MustCompile("(?m)^\\| `(sidegate_[a-z_]+)`").FindAllStringSubmatch(section, -1) {
		names = append(names, row[1])
	}
	return names
}

// conditional are metrics that a gateway has where it is configured so, or where
// something happened that did not in TestScrape.
var conditional = []string{
	"sidegate_revocation_lookups_total", "sidegate_revocation_failures_total", "sidegate_revocation_users",
	"sidegate_lookups_total", "sidegate_lookup_duration_seconds",
	"sidegate_redis_up", "sidegate_redis_failures_total", "sidegate_redis_duration_seconds", "sidegate_limits_local_total",
	"sidegate_telemetry_exported_total", "sidegate_telemetry_dropped_total", "sidegate_telemetry_failures_total",
	"sidegate_policy_shadow_total", "sidegate_audit_off_total", "sidegate_audit_ship_failures_total", "sidegate_limited_total",
	"sidegate_signed_total", "sidegate_store_duration_seconds", "sidegate_store_failures_total",
	"sidegate_tls_files_refused_total", "sidegate_uploads_swept_total",
}

// TestScrape: what a running gateway gives away is well-formed, and is what is
// documented.
func TestScrape(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "here") }))
	defer up.Close()
	i := newIssuer(t)
	g := startGateway(t, up.URL, i, "")
	for path, token := range map[string]string{"/open": "", "/app/x": i.token(t, "alice"), "/nowhere": ""} {
		g.get(t, path, token)
	}
	g.write(t, "policy.yaml", "no policy")
	g.log.await(t, "the new policy is refused")
	scrape := g.metrics(t)
	var have []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (sidegate_[a-z_]+) `).FindAllStringSubmatch(scrape, -1) {
		have = append(have, m[1])
	}
	documented := documentedMetrics(t)
	for _, name := range have {
		if !slices.Contains(documented, name) {
			t.Errorf("%s is not documented", name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(have, name) && !slices.Contains(conditional, name) {
			t.Errorf("a gateway does not have %s", name)
		}
	}
	for _, want := range []string{
		`sidegate_requests_total{code="200",decision="allow",route="app"} 1`,
		`sidegate_requests_total{code="404",decision="deny",route=""} 1`,
		`sidegate_identifications_total{identity="users",outcome="verified"} 1`,
		`sidegate_upstream_duration_seconds_count{upstream="app"} 2`,
		`sidegate_policy_info{name="first",sha256="` + sha(fmt.Sprintf(testPolicy, "first")) + `"} 1`,
		`sidegate_policy_routes 3`,
		`sidegate_policy_last_reload_ok 0`,
	} {
		if !strings.Contains(scrape, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	lint(t, scrape)
}

// lint has promtool look at a scrape.
func lint(t *testing.T, scrape string) {
	t.Helper()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		const why = "NO PROMTOOL: metrics are not linted; apt-get install prometheus"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	c := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	c.Stdin = strings.NewReader(scrape)
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	// 3: there are remarks.
	if err := c.Run(); err != nil && c.ProcessState.ExitCode() != 3 {
		t.Fatalf("%v: %s", err, &said)
	}
	for line := range strings.Lines(said.String()) {
		name, _, _ := strings.Cut(line, " ")
		if strings.HasPrefix(name, "sidegate_") {
			t.Errorf("promtool: %s", line)
		}
	}
}
