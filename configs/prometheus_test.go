package configs_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// promtool runs it, and gives what it printed.
func promtool(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil {
		const why = "NO PROMTOOL: alerts and dashboard are not checked; apt-get install prometheus"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func readYAML(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

type alert struct {
	Alert       string
	Expr        string
	Labels      struct{ Severity string }
	Annotations struct{ Summary, Description, Runbook string }
}

func readAlerts(t *testing.T) []alert {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []alert }
	}
	readYAML(t, "alerts.yaml", &file)
	if len(file.Groups) != 1 || len(file.Groups[0].Rules) < 20 {
		t.Fatalf("%+v", file)
	}
	return file.Groups[0].Rules
}

// TestAlerts: Prometheus takes them, and each fires when it should and not before.
func TestAlerts(t *testing.T) {
	var tests struct {
		Tests []struct {
			Name           string
			PromqlExprTest []struct {
				Expr       string
				ExpSamples []struct{ Labels string } `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		}
	}
	readYAML(t, "alerts_test.yaml", &tests)
	tested := map[string]bool{}
	for _, one := range tests.Tests {
		quiet := false
		for _, look := range one.PromqlExprTest {
			quiet = quiet || len(look.ExpSamples) == 0
			for _, s := range look.ExpSamples {
				tested[one.Name] = tested[one.Name] || s.Labels == `{alertname="`+one.Name+`"}`
			}
		}
		if !quiet {
			t.Errorf("alerts_test.yaml: %s is never quiet", one.Name)
		}
	}
	for _, a := range readAlerts(t) {
		if !tested[a.Alert] {
			t.Errorf("alerts_test.yaml does not have %s fire", a.Alert)
		}
	}
	promtool(t, "check", "rules", "alerts.yaml")
	if out := promtool(t, "test", "rules", "alerts_test.yaml"); strings.Contains(out, "error expanding") {
		t.Error(out)
	}
}

// TestRunbooks: each alert says what is wrong, and its section what to do.
func TestRunbooks(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Alerts\n")
	section, _, _ = strings.Cut(section, "\n## ")
	known := map[string]bool{}
	for _, a := range readAlerts(t) {
		known[a.Alert] = true
		if a.Annotations.Summary == "" || a.Annotations.Description == "" || a.Labels.Severity != "critical" && a.Labels.Severity != "warning" {
			t.Errorf("%s: %+v", a.Alert, a)
		}
		if a.Annotations.Runbook != "docs/operations.md#"+strings.ToLower(a.Alert) {
			t.Errorf("%s: its runbook is %s", a.Alert, a.Annotations.Runbook)
		}
		_, text, ok := strings.Cut(section, "\n### "+a.Alert+"\n")
		text, _, _ = strings.Cut(text, "\n### ")
		if !ok || !strings.Contains(text, "\n- Look at: ") || !strings.Contains(text, "\n- Do: ") {
			t.Errorf("docs/operations.md has no section with what to look at and to do for %s", a.Alert)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (\S+)$`).FindAllStringSubmatch(section, -1) {
		if !known[m[1]] {
			t.Errorf("docs/operations.md speaks of an alert %s, which is not there", m[1])
		}
	}
}

// TestDashboard: Grafana finds what it needs of a dashboard (its classic JSON
// model), and Prometheus can read every query.
func TestDashboard(t *testing.T) {
	data, err := os.ReadFile("grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		UID, Title    string
		SchemaVersion int
		Templating    struct {
			List []struct{ Name, Type string }
		}
		Panels []struct {
			ID         int
			Type       string
			Title      string
			Datasource struct{ Type, UID string }
			GridPos    struct{ H, W, X, Y int }
			Targets    []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	if board.UID == "" || board.Title == "" || board.SchemaVersion < 39 || board.Templating.List[0].Type != "datasource" {
		t.Errorf("%+v", board)
	}
	ids, places := map[int]bool{}, map[[2]int]bool{}
	rules := "groups:\n  - name: dashboard\n    rules:\n"
	for _, p := range board.Panels {
		place := [2]int{p.GridPos.X, p.GridPos.Y}
		if ids[p.ID] || places[place] || p.GridPos.X+p.GridPos.W > 24 || p.Title == "" {
			t.Errorf("panel %d, %q: id or place is taken, or cannot be", p.ID, p.Title)
		}
		ids[p.ID], places[place] = true, true
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 || p.Datasource.Type != "prometheus" || p.Datasource.UID != "${datasource}" {
			t.Errorf("panel %d, %q: no query of the chosen data source", p.ID, p.Title)
		}
		for _, target := range p.Targets {
			expr, err := json.Marshal(strings.ReplaceAll(target.Expr, "$__rate_interval", "5m"))
			if err != nil {
				t.Fatal(err)
			}
			rules += "      - {record: a, labels: {panel: p" + strconv.Itoa(p.ID) + target.RefID + "}, expr: " + string(expr) + "}\n"
		}
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}
