package cmd

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// logLevel runs the command against the gateway.
func (g *running) logLevel(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out, complaints bytes.Buffer
	err := Run(t.Context(), append([]string{"log-level", "--address", strings.TrimPrefix(g.admin, "http://")}, args...), nil, &out, &complaints)
	return strings.TrimSpace(out.String()), err
}

// TestLogLevelOfARunningGateway: shown, changed, for a while too, and each change
// is in the log and on record.
func TestLogLevelOfARunningGateway(t *testing.T) {
	g := startGateway(t, "http://127.0.0.1:1", newIssuer(t), "log: {level: warn}\n", "--log-level", "info")
	want := func(out string, args ...string) {
		t.Helper()
		if got, err := g.logLevel(t, args...); err != nil || !strings.HasPrefix(got, out) {
			t.Errorf("%v: %q, %v", args, got, err)
		}
	}
	want("info")
	want("error until ", "error", "--for", "24h")
	want("error until ")
	want("debug until ", "debug", "--for", "1s") // what it goes back to stays
	g.log.await(t, `"before":"debug","log_level":"info".*"this is the log's level from here on"`)
	want("info")
	want("debug", "debug")
	want("debug")
	want("warn until ", "warn", "--for", "1h")
	want("error", "error") // for good: nothing goes back
	want("error")
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	events := g.events(t)
	checkSystemEvents(t, events, "log_level")
	var changes []string
	for _, e := range events {
		if e.System != nil && e.System.Event == "log_level" {
			changes = append(changes, e.System.Detail["before"]+">"+e.System.Detail["level"]+" "+e.System.Detail["for"])
		}
	}
	if got := strings.Join(changes, ", "); got != "info>error 24h0m0s, error>debug 1s, debug>info , info>debug , debug>warn 1h0m0s, warn>error " {
		t.Errorf("on record: %s", got)
	}
}

// TestWhoMayChangeTheLogLevel: who is on this machine, and no page in a browser
// there, and nobody behind a proxy that is there.
func TestWhoMayChangeTheLogLevel(t *testing.T) {
	g := startGateway(t, "http://127.0.0.1:1", newIssuer(t), "")
	before := strings.Count(g.log.String(), "log_level")
	for name, c := range map[string]struct {
		method, kind, body string
		header, host       string
		status             int
	}{
		"shown":           {method: "GET", status: 200},
		"a page":          {method: "PUT", kind: "application/json", body: `{"level":"error"}`, header: "Origin", status: 403},
		"a page, shown":   {method: "GET", header: "Origin", status: 403},
		"a proxy":         {method: "PUT", kind: "application/json", body: `{"level":"error"}`, header: "X-Forwarded-For", status: 403},
		"another proxy":   {method: "PUT", kind: "application/json", body: `{"level":"error"}`, header: "Via", status: 403},
		"a mesh's proxy":  {method: "PUT", kind: "application/json", body: `{"level":"error"}`, header: "X-Forwarded-Proto", status: 403},
		"nginx":           {method: "PUT", kind: "application/json", body: `{"level":"error"}`, header: "X-Real-Ip", status: 403},
		"a page, rebound": {method: "GET", header: "Sec-Fetch-Site", status: 403},
		"another name":    {method: "PUT", kind: "application/json", body: `{"level":"error"}`, host: "rebound.example:9180", status: 403},
		"this machine":    {method: "GET", host: "localhost", status: 200},
		"its IPv6":        {method: "GET", host: "[::1]:9180", status: 200},
		"a form":          {method: "PUT", kind: "text/plain", body: `{"level":"error"}`, status: 400},
		"no kind":         {method: "PUT", body: `{"level":"error"}`, status: 400},
		"no level":        {method: "PUT", kind: "application/json", body: `{}`, status: 400},
		"another level":   {method: "PUT", kind: "application/json", body: `{"level":"disabled"}`, status: 400},
		"another key":     {method: "PUT", kind: "application/json", body: `{"level":"error","forever":true}`, status: 400},
		"too long":        {method: "PUT", kind: "application/json", body: `{"level":"error","for":"25h"}`, status: 400},
		"no time":         {method: "PUT", kind: "application/json", body: `{"level":"error","for":"-1h"}`, status: 400},
		"a large body":    {method: "PUT", kind: "application/json", body: `{"level":"` + strings.Repeat("x", 10_000) + `"}`, status: 400},
		"another method":  {method: "POST", kind: "application/json", body: `{"level":"error"}`, status: 405},
		"method override": {method: "GET", kind: "application/json", body: `{"level":"error"}`, status: 200},
	} {
		req, err := http.NewRequest(c.method, g.admin+logLevelPath, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.kind != "" {
			req.Header.Set("Content-Type", c.kind)
		}
		if c.header != "" {
			req.Header.Set(c.header, "http://127.0.0.1")
		}
		if c.host != "" {
			req.Host = c.host
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != c.status {
			t.Errorf("%s: %d %s %v", name, res.StatusCode, body, err)
		}
	}
	if got, err := g.logLevel(t); err != nil || got != "info" {
		t.Errorf("%q, %v", got, err)
	}
	if n := strings.Count(g.log.String(), "log_level"); n != before {
		t.Error("what was refused is in the log as a change")
	}
	for peer, status := range map[string]int{"127.0.0.1:1": 0, "[::1]:1": 0, "[::ffff:127.0.0.1]:1": 0, "10.0.0.1:1": 403, "[fe80::1%lo]:1": 403, "0.0.0.0:1": 403, "": 403, "@": 403} {
		r := httptest.NewRequest("PUT", logLevelPath, nil)
		r.RemoteAddr, r.Host = peer, "127.0.0.1:9180"
		if got, _ := fromHere(r, levelIs); got != status {
			t.Errorf("%q: %d", peer, got)
		}
	}
}

func TestLogLevelOfNobody(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	for _, address := range []string{"127.0.0.1:1", strings.TrimPrefix(other.URL, "http://")} {
		g := &running{admin: "http://" + address}
		if out, err := g.logLevel(t, "debug"); ExitStatus(err) != exitFailed {
			t.Errorf("%s: %q, %v", address, out, err)
		}
	}
	for _, args := range [][]string{{"loud"}, {"debug", "info"}, {"--for", "1m"}, {"debug", "--for", "0s"}, {"debug", "--for", "25h"}, {"debug", "--for", "soon"}} {
		g := &running{admin: "http://127.0.0.1:1"}
		if _, err := g.logLevel(t, args...); ExitStatus(err) != exitUsage {
			t.Errorf("%v: %v", args, err)
		}
	}
}
