package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const explainedConfig = `version: sidegate-config/v1
policy: policy.yaml
identities:
  users: {firebase: {project: acme-prod, session_cookie: __session}}
  consumers: {firebase: {project: acme-prod, tenant: tenant-b}}
  staff:
    oidc:
      issuer: https://acme.okta.com/oauth2/default
      audience: api://default
      uid: uid
      algorithms: [RS256]
      claims: {scopes: scp, roles: realm_access.roles}
      require: {tier: 2}
  members: {oidc: {issuer: "https://id.acme.dev", audience: photos-api}}
  agents: {oidc: {issuer: "https://id.acme.dev", audience: photos-api, actor: act.sub}, uids: members}
  worker: {google: {audience: "https://photos.acme.dev", emails: [thumbs@acme-prod.iam.gserviceaccount.com]}}
upstreams: {app: {url: "http://127.0.0.1:9000"}}
`

const explainedPolicy = `version: sidegate-policy/v1
identities: [users, consumers, staff, members, agents, worker]
claims: {roles: list(string), scopes: list(string)}
routes:
  - id: v1
    path: /v1/{uid}
    methods: [GET]
    upstream: app
    allow:
      - {id: user, who: [users], uid: "${params.uid}"}
      - {id: consumer, who: [consumers], uid: "${params.uid}"}
      - {id: editor, who: [staff], uid: "${params.uid}", scopes: [photos.read], roles: [editor]}
      - {id: member, who: [members], uid: "${params.uid}"}
      - {id: agent, who: [agents], uid: "${params.uid}", if: 'auth.actor == "gallery-bot"'}
      - {id: worker, who: [worker], verified_email: true}
  - {id: v2, path: "/v2/{uid}", methods: [GET], upstream: app, allow: [{id: anybody, scopes: [photos]}]}
`

// TestExplainToken explains tokens of every kind of identity: their claims are
// read by what reads them in the gateway, and their signature, which nobody here
// can check, is not.
func TestExplainToken(t *testing.T) {
	const at = "2026-03-02T10:00:00Z"
	moment, err := time.Parse(time.RFC3339, at)
	if err != nil {
		t.Fatal(err)
	}
	now := moment.Unix()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "sidegate.yaml"), explainedConfig)
	write(t, filepath.Join(dir, "policy.yaml"), explainedPolicy)
	times := claimSet{"iat": now - 60, "exp": now + 3540}
	fire := func(issuer, tenant string) claimSet {
		inside := claimSet{"sign_in_provider": "password"}
		if tenant != "" {
			inside["tenant"] = tenant
		}
		return times.with("iss", issuer+"acme-prod", "aud", "acme-prod", "sub", "alice", "auth_time", now-60, "firebase", inside)
	}
	okta := times.with("iss", "https://acme.okta.com/oauth2/default", "aud", "api://default", "sub", "alice@acme.dev", "uid", "alice",
		"scp", []string{"openid", "photos.read"}, "realm_access", claimSet{"roles": []string{"editor"}}, "tier", 2)
	member := times.with("iss", "https://id.acme.dev", "aud", "photos-api", "sub", "alice", "scope", "openid photos")
	acted := member.with("act", claimSet{"sub": "gallery-bot"})
	account := times.with("iss", googleIssuer, "aud", "https://photos.acme.dev", "sub", "117893746451289764523", "email", "thumbs@acme-prod.iam.gserviceaccount.com", "email_verified", true)
	for _, k := range []struct {
		what, path string
		header     claimSet
		claims     claimSet
		says       []string // of standard output; a refusal says it on standard error
		refused    bool
	}{
		{"an ID token", "/v1/alice", nil, fire(idTokenIssuer, ""), []string{"decision: allow by v1/user", "X-Sidegate-Uid: alice", "X-Sidegate-Identity: users"}, false},
		{"a session cookie", "/v1/alice", nil, fire(cookieIssuer, ""), []string{"decision: allow by v1/user", "X-Sidegate-Identity: users"}, false},
		{"of a tenant", "/v1/alice", nil, fire(idTokenIssuer, "tenant-b"), []string{"decision: allow by v1/consumer", "X-Sidegate-Identity: consumers"}, false},
		{"a session cookie of an identity without", "/v1/alice", nil, fire(cookieIssuer, "tenant-b"), []string{"401: the token's tenant is not accepted"}, true},
		{"of another tenant", "/v1/alice", nil, fire(idTokenIssuer, "tenant-c"), []string{"401: the token's tenant is not accepted"}, true},
		{"of OpenID Connect", "/v1/alice", nil, okta, []string{"decision: allow by v1/editor", "X-Sidegate-Identity: staff"}, false},
		// Its claims are all there is to see: what signed it is the gateway's to check.
		{"signed in a way that is not accepted", "/v1/alice", claimSet{"alg": "HS256"}, okta, []string{"decision: allow by v1/editor"}, false},
		{"without what must be there", "/v1/alice", nil, okta.with("tier", 3), []string{"401: a claim of the token is missing or not valid", "tier"}, true},
		{"without the uid", "/v1/alice", nil, okta.with("uid", nil), []string{"401: the token's subject is missing or not valid"}, true},
		{"a member's", "/v1/alice", nil, member, []string{"decision: allow by v1/member", "X-Sidegate-Identity: members"}, false},
		{"a delegated token", "/v1/alice", nil, acted, []string{"decision: allow by v1/agent", "X-Sidegate-Uid: alice", "X-Sidegate-Actor: gallery-bot", "X-Sidegate-Identity: agents"}, false},
		{"of another agent", "/v1/alice", nil, acted.with("act", claimSet{"sub": "other-bot"}), []string{"decision: deny"}, false},
		{"of an entry for all", "/v2/alice", nil, member, []string{"decision: allow by v2/anybody"}, false},
		{"of an entry for all, delegated", "/v2/alice", nil, acted, []string{"decision: deny"}, false},
		{"a Firebase token with an actor", "/v1/alice", nil, fire(idTokenIssuer, "").with("act", claimSet{"sub": "bot"}), []string{"401: a claim of the token is missing or not valid"}, true},
		{"of a service account", "/v1/x", nil, account, []string{"decision: allow by v1/worker", "X-Sidegate-Uid: 117893746451289764523", "X-Sidegate-Identity: worker"}, false},
		{"of another account", "/v1/x", nil, account.with("email", "other@acme-prod.iam.gserviceaccount.com"), []string{"401: the token's e-mail address is not accepted"}, true},
		{"for another audience", "/v1/alice", nil, okta.with("aud", "api://billing"), []string{"401: the token is for another audience", "(at " + at + ")"}, true},
		{"of another project", "/v1/alice", nil, fire(idTokenIssuer, "").with("aud", "acme-test"), []string{"401: the token is for another audience"}, true},
		{"of nobody's issuer", "/v1/alice", nil, member.with("iss", "https://id.other.example"), []string{"401: the token's issuer is not accepted"}, true},
		{"of yesterday", "/v1/alice", nil, member.with("exp", now-3600), []string{"401: the token has expired"}, true},
		{"of tomorrow", "/v1/alice", nil, member.with("iat", now+3600, "exp", now+7200), []string{"401: the token was issued in the future"}, true},
	} {
		t.Run(k.what, func(t *testing.T) {
			header, err := json.Marshal(claimSet{"alg": "RS256", "kid": "k"}.with(flat(k.header)...))
			if err != nil {
				t.Fatal(err)
			}
			payload, err := json.Marshal(k.claims)
			if err != nil {
				t.Fatal(err)
			}
			token := filepath.Join(t.TempDir(), "token")
			write(t, token, "Bearer "+b64(header)+"."+b64(payload)+"."+b64([]byte("of somebody else"))+"\n")
			status, stdout, stderr := explain(t, dir, "--token", token, "--at", at, "GET", k.path)
			text, want := stdout, 0
			if k.refused {
				text, want = stderr, 1
			}
			if status != want {
				t.Errorf("status %d, want %d", status, want)
			}
			for _, part := range k.says {
				if !strings.Contains(text, part) {
					t.Errorf("no %q in\n%s%s", part, stdout, stderr)
				}
			}
			if k.refused && stdout != "" {
				t.Errorf("a decision about a token that is 401:\n%s", stdout)
			}
		})
	}
	for what, text := range map[string]string{
		"no token":        "opaque",
		"not base64":      "a.%%%.c",
		"no JSON":         "a." + b64([]byte("{")) + ".c",
		"a name twice":    "a." + b64([]byte(`{"iss":"https://id.acme.dev","iss":"https://id.acme.dev"}`)) + ".c",
		"an empty object": "a.e30.c",
	} {
		token := filepath.Join(t.TempDir(), "token")
		write(t, token, text)
		if status, stdout, stderr := explain(t, dir, "--token", token, "--at", at, "GET", "/v1/alice"); status != 1 || stdout != "" || stderr == "" {
			t.Errorf("%s: status %d\n%s%s", what, status, stdout, stderr)
		}
	}
}

func flat(c claimSet) (out []any) {
	for name, value := range c {
		out = append(out, name, value)
	}
	return out
}

// explain runs `sidegate policy explain` as main does, with the folder's
// configuration.
func explain(t *testing.T, dir string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"policy", "explain", "--config", filepath.Join(dir, "sidegate.yaml")}, args...)
	err := Run(context.Background(), args, nil, &out, &errs)
	return ExitStatus(err), out.String(), errs.String()
}

// TestExplainTokenWithoutIdentities: where no issuer is known no token is
// anybody's, and that is said as it is.
func TestExplainTokenWithoutIdentities(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "sidegate.yaml"), "version: sidegate-config/v1\npolicy: policy.yaml\nupstreams: {app: {url: \"http://127.0.0.1:9000\"}}\n")
	write(t, filepath.Join(dir, "policy.yaml"), "version: sidegate-policy/v1\nroutes: [{id: open, path: /, methods: [GET], upstream: app, allow: public}]\n")
	token := filepath.Join(dir, "token")
	write(t, token, "a.e30.c")
	if status, stdout, stderr := explain(t, dir, "--token", token, "GET", "/"); status != 1 || !strings.Contains(stderr, "no identity") {
		t.Errorf("status %d\n%s%s", status, stdout, stderr)
	}
}
