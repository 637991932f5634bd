package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
)

const agentsPolicy = `version: sidegate-policy/v1
identities: [users, partners, agents]
routes:
  - id: photos
    path: /v1/photos/{uid}
    methods: [GET, PUT]
    upstream: app
    allow:
      - {id: own, who: [partners], uid: "${params.uid}"}
      - {id: agent, who: [agents], uid: "${params.uid}", methods: [GET], if: 'auth.actor == "gallery-bot"'}
  - {id: me, path: /v1/me, methods: [GET], upstream: app, allow: [{id: anybody, methods: [GET]}]}
`

// TestAgents: one issuer's tokens of people, and of agents that act for them, are
// told apart by act. The app's headers and the audit log have both.
func TestAgents(t *testing.T) {
	o := newOutside(t)
	s := o.withIssuers(t, true, "  agents: {oidc: {issuer: \""+issuerURL+"\", audience: photos-api, actor: act.sub}, uids: partners}\n")
	s.policy = agentsPolicy
	g := startGateway(t, s)
	sign := func(act any) string {
		now := time.Now()
		claims := map[string]any{"iss": issuerURL, "aud": "photos-api", "sub": "dora", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
		if act != nil {
			claims["act"] = act
		}
		text, err := jwt.Signed(lab.issuer.signer).Claims(claims).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	bot := map[string]any{"sub": "gallery-bot"}
	var seen struct{ Headers map[string]string }
	ask(t, http.MethodGet, g.url+"/v1/photos/dora", sign(bot), "").want(t, http.StatusOK).decode(t, &seen)
	if h := seen.Headers; h["X-Sidegate-Uid"] != "dora" || h["X-Sidegate-Actor"] != "gallery-bot" || h["X-Sidegate-Identity"] != "agents" {
		t.Errorf("the app saw %v", h)
	}
	ask(t, http.MethodPut, g.url+"/v1/photos/dora", sign(bot), "").problem(t, http.StatusForbidden, "not_allowed")
	ask(t, http.MethodGet, g.url+"/v1/photos/erin", sign(bot), "").problem(t, http.StatusForbidden, "not_allowed")
	ask(t, http.MethodGet, g.url+"/v1/photos/dora", sign(map[string]any{"sub": "other-bot"}), "").problem(t, http.StatusForbidden, "not_allowed")
	// An entry that does not name agents is for people.
	ask(t, http.MethodGet, g.url+"/v1/me", sign(bot), "").problem(t, http.StatusForbidden, "not_allowed")
	// Who acted before is told by the issuer, and decides nothing; no more than one.
	ask(t, http.MethodGet, g.url+"/v1/photos/dora", sign(map[string]any{"sub": "gallery-bot", "act": map[string]any{"sub": "planner"}}), "").want(t, http.StatusOK)
	ask(t, http.MethodGet, g.url+"/v1/photos/dora", sign(map[string]any{"sub": "gallery-bot", "act": map[string]any{"sub": "planner", "act": bot}}), "").
		problem(t, http.StatusUnauthorized, "invalid_token")
	ask(t, http.MethodGet, g.url+"/v1/photos/dora", sign("gallery-bot"), "").problem(t, http.StatusUnauthorized, "invalid_token")
	var alone struct{ Headers map[string]string }
	ask(t, http.MethodPut, g.url+"/v1/photos/dora", sign(nil), "").want(t, http.StatusOK).decode(t, &alone)
	if h := alone.Headers; h["X-Sidegate-Uid"] != "dora" || h["X-Sidegate-Actor"] != "" || h["X-Sidegate-Identity"] != "partners" {
		t.Errorf("the app saw %v", h)
	}
	if status := g.stop(t); status != 0 {
		t.Fatalf("exit status %d after SIGTERM", status)
	}
	wantActors(t, g.dir)
}

// wantActors looks into the audit log: what an agent did is never the user's own
// doing there.
func wantActors(t *testing.T, dir string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "data", "audit", "*.jsonl"))
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	acted, alone := 0, 0
	for _, name := range segments {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			var e struct {
				Type     string
				Identity struct{ Name, UID, Actor, Namespace string }
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			switch id := e.Identity; {
			case e.Type != "decision" || id.UID != "dora":
			case id.Namespace != "partners" || (id.Name == "agents") != (id.Actor != ""):
				t.Errorf("%s", line)
			case id.Actor != "":
				acted++
			default:
				alone++
			}
		}
	}
	if acted != 6 || alone != 1 {
		t.Errorf("%d decisions have an actor, %d have none", acted, alone)
	}
}
