package main

import (
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestF4DiskFull fills the audit log's disk. What has to be on record is
// refused before the app hears of it; what need not be goes on and is counted;
// and when there is room again nobody has to do anything.
func TestF4DiskFull(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "data", "audit")
	if err := os.MkdirAll(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
		needs(t, "a small tmpfs", "mount says "+err.Error()+": run this as root, where mount(2) is allowed")
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 200<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	app := newCountingApp(t)
	g := startGateway(t, setup{
		dir: dir, appURL: app.URL, flags: []string{"--insecure-ephemeral"},
		policy: demoFile(t, "policy.yaml", "methods: [GET], upstream: app, allow: public, limit: {rate: 50/s, per: ip}", "methods: [GET], upstream: app, allow: public, audit: off"),
	})
	alice := token(t, "alice")
	served, refused := 0, 0
	fill := func() {
		t.Helper()
		for refused = 0; refused < 20; {
			a := ask(t, http.MethodGet, g.url+"/v1/me", alice, "")
			if a.status == http.StatusOK && refused == 0 {
				served++
				continue
			}
			// Every one from the first on: who comes later is not luckier.
			a.problem(t, http.StatusServiceUnavailable, "unavailable")
			if a.header.Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
			refused++
		}
	}
	fill()
	if reached := app.requests.Load(); served == 0 || reached != int64(served) {
		t.Errorf("%d requests reached the app, and %d were served", reached, served)
	}
	g.isReady(t, http.StatusServiceUnavailable)
	if g.metric(t, "sidegate_audit_healthy") != 0 {
		t.Error("the audit log is said to be healthy")
	}
	// A URL to upload to is a promise, too; and what is refused anyway has no
	// record either.
	ask(t, http.MethodPost, g.url+"/v1/uploads/presign", alice, `{"contentType": "text/plain", "size": 5}`).problem(t, http.StatusServiceUnavailable, "unavailable")
	ask(t, http.MethodGet, g.url+"/v1/me", "", "").problem(t, http.StatusServiceUnavailable, "unavailable")

	const public = 30
	for range public {
		ask(t, http.MethodGet, g.url+"/welcome", "", "").want(t, http.StatusOK)
	}
	if n := g.metric(t, `sidegate_audit_off_total{route="welcome"}`); n != public {
		t.Errorf("%v of %d requests on a route with audit: off are counted", n, public)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	g.isReady(t, http.StatusOK) // though nobody asks for anything
	ask(t, http.MethodGet, g.url+"/v1/me", alice, "").want(t, http.StatusOK)
	served++
	fill() // and once more, without ballast
	g.kill()
	if reached := app.requests.Load() - public; reached != int64(served) {
		t.Errorf("%d requests reached the app, and %d were served", reached, served)
	}
	decisions, _ := onRecord(t, dir)
	if len(decisions) != served {
		t.Errorf("%d decisions of the %d requests that were served", len(decisions), served)
	}
}
