package cmd

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"sidegate/storage/audit"
)

// TestStopPutsCountedRefusalsOnRecord: what a minute of attacks came to is in the
// log before the stop is, to the last request.
func TestStopPutsCountedRefusalsOnRecord(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	i := newIssuer(t)
	g := startGateway(t, up.URL, i, "", "counted")
	token := i.token(t, "alice")
	const callers, each = 4, 100
	var calling sync.WaitGroup
	for range callers {
		calling.Go(func() {
			for n := range each {
				for _, c := range []struct {
					path, token string
					want        int
				}{{"/app/x", "", 401}, {fmt.Sprint("/nowhere/", n), "", 404}, {"/socket", token, 400}, {"/app/x", token, 200}} {
					req, _ := http.NewRequest("GET", g.url+c.path, nil)
					if c.token != "" {
						req.Header.Set("Authorization", "Bearer "+c.token)
					}
					if c.want == 400 {
						req.Header["Authorization"] = []string{"Bearer " + c.token, "Bearer " + c.token}
					}
					res, err := http.DefaultClient.Do(req)
					if err != nil {
						t.Error(err)
						return
					}
					if res.Body.Close(); res.StatusCode != c.want {
						t.Errorf("%s: %d", c.path, res.StatusCode)
					}
				}
			}
		})
	}
	calling.Wait()
	metrics := g.metrics(t)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	events := g.events(t)
	full, repeated, allowed := 0, 0, 0
	for _, e := range events {
		switch {
		case e.Summary != nil:
			repeated += e.Summary.Repeated
			if s := e.Summary; s.Source != audit.SourceIP || e.Request.IP != "127.0.0.1" || s.Codes["no_token"]+s.Codes["no_route"]+s.Codes["bad_request"] != s.Repeated {
				t.Errorf("%+v of %+v", s, e.Request)
			}
		case e.Decision != nil && e.Decision.Effect == "deny":
			full++
		case e.Decision != nil:
			allowed++
		}
	}
	if full+repeated != 3*callers*each || allowed != callers*each || repeated == 0 || full < 60 {
		t.Errorf("%d refusals in full, %d counted, %d allowed; %d and %d were sent", full, repeated, allowed, 3*callers*each, callers*each)
	}
	if !strings.Contains(string(metrics), fmt.Sprintf("sidegate_audit_summarised_total %d\n", repeated)) {
		t.Errorf("the metrics do not count %d", repeated)
	}
	last := slices.IndexFunc(events, func(e *audit.Event) bool { return e.System != nil && e.System.Event == "stop" })
	if last != len(events)-1 || events[last-1].Summary == nil {
		t.Errorf("the last two events are %+v", events[max(len(events)-2, 0):])
	}
}
