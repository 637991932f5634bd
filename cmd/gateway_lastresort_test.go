package cmd

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sidegate/storage/audit"
)

// startOnMemory is a gateway on Cloud Run, whose Firestore is not there, after
// one request.
func startOnMemory(t *testing.T, args ...string) *running {
	t.Helper()
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(up.Close)
	args = append([]string{"env:FIRESTORE_EMULATOR_HOST=127.0.0.1:1", "listen:shutdown_grace: 1s"}, args...)
	g := startGateway(t, up.URL, newIssuer(t), "audit: {firestore: {project: demo-x}}", append(args, "--insecure-emulator")...)
	if status, body := g.get(t, "/open", ""); status != 200 {
		t.Fatal(status, body)
	}
	g.log.await(t, `Firestore does not take the audit log's events`)
	return g
}

func TestLastResortOnStandardError(t *testing.T) {
	g := startOnMemory(t, "env:K_SERVICE=gateway")
	metrics := g.metrics(t)
	for _, want := range []string{
		`sidegate_audit_chain_info\{chain="[0-9a-f]{32}"\} 1\n`, `sidegate_audit_chain_seq [1-9]`, `sidegate_audit_lag_events [1-9]`,
		`sidegate_audit_ship_failures_total\{kind="UNAVAILABLE"\} [1-9]`, `sidegate_audit_outage 1\n`, `sidegate_audit_waiting_bytes [1-9]`,
		`sidegate_audit_shipped_total 0\n`, `sidegate_audit_last_shipped_timestamp_seconds 0\n`, `sidegate_audit_lost_total 0\n`,
		`sidegate_audit_queued_bytes \d`, `sidegate_audit_fsyncs_total [1-9]`, `sidegate_audit_lag_seconds [0-9.e-]+\n`, `sidegate_audit_events_total [1-9]`,
	} {
		if !regexp.MustCompile(`(?m)^` + want).MatchString(metrics) {
			t.Errorf("no %s in:\n%s", want, metrics)
		}
	}
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	var want strings.Builder
	n := 0
	for l, err := range audit.Lines(filepath.Join(g.dir, "data", "audit")) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&want, "%s\n", l.Raw)
		n++
	}
	log := g.log.String()
	m := regexp.MustCompile(`(?s)"events":(\d+),"chain":"[0-9a-f]{32}","from_seq":1[^\n]*they follow here, one a line"\}\n(.*?\n)\{"level":"warn"[^\n]*"events":(\d+),"written":(\d+),"lost":0`).FindStringSubmatch(log)
	if m == nil {
		t.Fatalf("no last resort in:\n%s", log)
	}
	if m[2] != want.String() || n < 4 {
		t.Errorf("not the ledger's %d lines:\n%s", n, log)
	}
	for _, i := range []int{1, 3, 4} {
		if m[i] != fmt.Sprint(n) {
			t.Errorf("it speaks of %s events, there are %d", m[i], n)
		}
	}
}

func (g *running) metrics(t *testing.T) string {
	t.Helper()
	res, err := http.Get(g.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestNoLastResortWithADisk: the next start ships what is there.
func TestNoLastResortWithADisk(t *testing.T) {
	if diskOf(os.TempDir()) == diskMemory {
		const why = "NO DISK: the folder for temporary files is memory; set TMPDIR to one on a disk"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	g := startOnMemory(t)
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	if log := g.log.String(); strings.Contains(log, `{"type":"`) || !strings.Contains(log, "the next start ships them") {
		t.Error(log)
	}
}

// TestLastResortBlocked: nobody reads standard error. The stop ends all the
// same, and its status says that events are lost.
func TestLastResortBlocked(t *testing.T) {
	g := startOnMemory(t, "env:K_SERVICE=gateway")
	g.log.mu.Lock()
	err := g.stop()
	g.log.mu.Unlock()
	if ExitStatus(err) != 1 || !strings.Contains(fmt.Sprint(err), "last resort") {
		t.Errorf("%v", err)
	}
}
