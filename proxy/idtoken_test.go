package proxy

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// TestIDTokenOfTheGateway: the app's platform gets the gateway's token whoever
// calls, on public routes too, and never a caller's.
func TestIDTokenOfTheGateway(t *testing.T) {
	app := headerApp(t, "X-Serverless-Authorization")
	var fails error
	g := newGate(t, app, upstream(func(u *Upstream) {
		u.IDToken = func(context.Context) (string, error) { return "gateway-token", fails }
	}))
	for _, target := range []string{"/private/a", "/public/a", "/optional/a"} {
		for _, forged := range []string{"X-Serverless-Authorization: Bearer forged", "x_serverless_authorization: Bearer forged", "Connection: X-Serverless-Authorization"} {
			a := g.send("GET", target, "alice", forged)
			if a.StatusCode != http.StatusOK || a.body != "Bearer gateway-token" {
				t.Errorf("%s with %s: %d %q", target, forged, a.StatusCode, a.body)
			}
			g.outcome()
		}
	}
	fails = errors.New("the metadata server is away: secret-detail")
	a := g.send("GET", "/private/a", "alice")
	if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || strings.Contains(a.body, "secret-detail") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if o := g.outcome().Outcome; o.Status != 503 || o.Error != codeUnavailable {
		t.Errorf("%+v", o)
	}
	none := newGate(t, app)
	if a := none.send("GET", "/private/a", "alice", "X-Serverless-Authorization: Bearer forged"); a.body != "" {
		t.Errorf("without id_token: %q", a.body)
	}
}
