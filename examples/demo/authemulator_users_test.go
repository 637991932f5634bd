package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// An authEmulator is the running Firebase Auth emulator, as an app's own client
// (with any API key) and as its administrator (who is called owner).
type authEmulator struct {
	t    *testing.T
	host string
}

// An account is what the emulator gives who signs in.
type account struct{ LocalID, IDToken, RefreshToken string }

func (e authEmulator) client(path, body string, into any) {
	e.t.Helper()
	ask(e.t, http.MethodPost, "http://"+e.host+"/identitytoolkit.googleapis.com/v1/"+path+"?key=any", "", body).want(e.t, http.StatusOK).decode(e.t, into)
}

func (e authEmulator) admin(path, body string) answer {
	e.t.Helper()
	return ask(e.t, http.MethodPost, "http://"+e.host+"/identitytoolkit.googleapis.com/"+path, "owner", body).want(e.t, http.StatusOK)
}

// signUp makes a user, of a tenant where one is named.
func (e authEmulator) signUp(email, tenant string) (a account) {
	e.t.Helper()
	e.client("accounts:signUp", fmt.Sprintf(`{"email": %q, "password": "not a secret", "returnSecureToken": true%s}`, email, ofTenant(tenant)), &a)
	return a
}

func (e authEmulator) signIn(email, tenant string) (a account) {
	e.t.Helper()
	e.client("accounts:signInWithPassword", fmt.Sprintf(`{"email": %q, "password": "not a secret", "returnSecureToken": true%s}`, email, ofTenant(tenant)), &a)
	return a
}

func ofTenant(tenant string) string {
	if tenant == "" {
		return ""
	}
	return fmt.Sprintf(`, "tenantId": %q`, tenant)
}

// update changes a user as the Admin SDK would.
func (e authEmulator) update(uid, tenant, change string) {
	e.t.Helper()
	e.admin("v1/projects/"+project+"/accounts:update", fmt.Sprintf(`{"localId": %q, %s%s}`, uid, change, ofTenant(tenant)))
}

// cookie makes a session cookie of an ID token, as a sign-in page's server does.
func (e authEmulator) cookie(idToken string) string {
	e.t.Helper()
	var made struct{ SessionCookie string }
	e.admin("v1/projects/"+project+":createSessionCookie", fmt.Sprintf(`{"idToken": %q, "validDuration": "3600"}`, idToken)).decode(e.t, &made)
	if made.SessionCookie == "" {
		e.t.Fatal("the emulator made no cookie")
	}
	return made.SessionCookie
}

// withCookie sends a request that a browser would: with the cookie, and with
// what else is given as "Name: value".
func withCookie(t *testing.T, method, url, cookie string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", "theme=dark; __session="+cookie)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	return do(t, r)
}

// refusedWithin asks again until the token is refused, which must be so before
// the window is over. (Revocation is asked for by requests.)
func refusedWithin(t *testing.T, window time.Duration, send func() answer) answer {
	t.Helper()
	begun := time.Now()
	again := time.NewTicker(250 * time.Millisecond)
	defer again.Stop()
	for {
		a := send()
		if a.status != http.StatusOK {
			return a
		}
		if time.Since(begun) > window {
			t.Fatalf("still let in after %s", time.Since(begun))
		}
		<-again.C
	}
}

const emulatedConfig = `
  users: {firebase: {project: demo-sidegate, session_cookie: __session, revocation: 10s}}
  consumers: {firebase: {project: demo-sidegate, tenant: %s, session_cookie: __session, revocation: 10s}}`

const emulatedPolicy = `version: sidegate-policy/v1
identities: [users, consumers]
claims: {roles: list(string)}
guards:
  - {id: no-anonymous, path: /v1/admin, deny: {who: [users], providers: [anonymous]}}
routes:
  - {id: me, path: /v1/me, methods: [GET, PATCH], upstream: app, allow: [{id: user, who: [users]}, {id: consumer, who: [consumers]}]}
  - {id: admin, path: /v1/admin, methods: [GET], upstream: app, allow: [{id: admin, who: [users], roles: [admin]}]}
  - {id: events, path: /v1/events, methods: [GET], upstream: app, allow: [{id: user, who: [users]}]}
  - {id: echo, path: /v1/echo, methods: [GET], upstream: app, websocket: true, allow: [{id: user, who: [users]}]}
  - {id: maybe, path: /v1/maybe, methods: [GET], upstream: app, allow: optional}
  - {id: open, path: /v1/open, methods: [GET], upstream: app, allow: public}
`

// TestAuthEmulatorUsers signs users up, changes and revokes them at the Firebase
// Auth emulator, which the gateway asks by the Admin SDK.
func TestAuthEmulatorUsers(t *testing.T) {
	e := authEmulator{t, startAuthEmulator(t)}
	var made struct{ Name string }
	e.admin("v2/projects/"+project+"/tenants", `{"displayName": "consumer", "allowPasswordSignup": true}`).decode(t, &made)
	tenant := made.Name[strings.LastIndexByte(made.Name, '/')+1:]
	g := startGateway(t, setup{
		config: demoFile(t, "sidegate.yaml", "\n  users: {firebase: {project: demo-sidegate}}", fmt.Sprintf(emulatedConfig, tenant)),
		policy: emulatedPolicy,
		flags:  []string{"--insecure-emulator"},
		env:    []string{"FIREBASE_AUTH_EMULATOR_HOST=" + e.host},
	})
	type seen struct{ Headers map[string]string }
	me := g.url + "/v1/me"

	t.Run("users", func(t *testing.T) {
		t.Run("custom claims", func(t *testing.T) {
			t.Parallel() // most of them wait for a window to end
			e := authEmulator{t, e.host}
			dora := e.signUp("dora@example.com", "")
			ask(t, http.MethodGet, g.url+"/v1/admin", dora.IDToken, "").problem(t, http.StatusForbidden, "not_allowed")
			e.update(dora.LocalID, "", `"customAttributes": "{\"roles\":[\"admin\"]}"`)
			var app seen
			ask(t, http.MethodGet, g.url+"/v1/admin", e.signIn("dora@example.com", "").IDToken, "").want(t, http.StatusOK).decode(t, &app)
			if app.Headers["X-Sidegate-Uid"] != dora.LocalID || app.Headers["X-Sidegate-Roles"] != "admin" {
				t.Errorf("the app saw %v", app.Headers)
			}
		})
		t.Run("anonymous", func(t *testing.T) {
			t.Parallel()
			e := authEmulator{t, e.host}
			var nobody account
			e.client("accounts:signUp", `{"returnSecureToken": true}`, &nobody)
			e.update(nobody.LocalID, "", `"customAttributes": "{\"roles\":[\"admin\"]}"`)
			var fresh struct {
				Token string `json:"id_token"`
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+e.host+"/securetoken.googleapis.com/v1/token?key=any",
				strings.NewReader(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {nobody.RefreshToken}}.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			do(t, r).want(t, http.StatusOK).decode(t, &fresh)
			ask(t, http.MethodGet, me, fresh.Token, "").want(t, http.StatusOK)
			ask(t, http.MethodGet, g.url+"/v1/admin", fresh.Token, "").problem(t, http.StatusForbidden, "not_allowed")
		})
		t.Run("tenants", func(t *testing.T) {
			t.Parallel()
			e := authEmulator{t, e.host}
			carl := e.signUp("carl@example.com", tenant)
			var app seen
			ask(t, http.MethodGet, me, carl.IDToken, "").want(t, http.StatusOK).decode(t, &app)
			if app.Headers["X-Sidegate-Uid"] != carl.LocalID || app.Headers["X-Sidegate-Tenant"] != tenant || app.Headers["X-Sidegate-Identity"] != "consumers" {
				t.Errorf("the app saw %v", app.Headers)
			}
			e.update(carl.LocalID, tenant, `"disableUser": true`)
			refusedWithin(t, 11*time.Second, func() answer { return ask(t, http.MethodGet, me, carl.IDToken, "") }).problem(t, http.StatusUnauthorized, "invalid_token")

			var made struct{ Name string }
			e.admin("v2/projects/"+project+"/tenants", `{"displayName": "stranger", "allowPasswordSignup": true}`).decode(t, &made)
			stranger := e.signUp("carl@example.com", made.Name[strings.LastIndexByte(made.Name, '/')+1:])
			a := ask(t, http.MethodGet, me, stranger.IDToken, "").problem(t, http.StatusUnauthorized, "invalid_token")
			if got := a.header.Get("WWW-Authenticate"); !strings.Contains(got, "tenant") {
				t.Errorf("WWW-Authenticate: %s", got)
			}
		})
		t.Run("disabled", func(t *testing.T) {
			t.Parallel()
			e := authEmulator{t, e.host}
			user := e.signUp("erin@example.com", "")
			ask(t, http.MethodGet, me, user.IDToken, "").want(t, http.StatusOK)
			e.update(user.LocalID, "", `"disableUser": true`)
			a := refusedWithin(t, 11*time.Second, func() answer { return ask(t, http.MethodGet, me, user.IDToken, "") }).problem(t, http.StatusUnauthorized, "invalid_token")
			if got := a.header.Get("WWW-Authenticate"); !strings.Contains(got, "disabled") {
				t.Errorf("WWW-Authenticate: %s", got)
			}
		})
		t.Run("revoked", func(t *testing.T) {
			t.Parallel()
			e := authEmulator{t, e.host}
			user := e.signUp("fred@example.com", "")
			cookie := e.cookie(user.IDToken)
			ask(t, http.MethodGet, me, user.IDToken, "").want(t, http.StatusOK)
			withCookie(t, http.MethodGet, me, cookie).want(t, http.StatusOK)
			e.update(user.LocalID, "", `"validSince": "`+strconv.FormatInt(time.Now().Unix()+1, 10)+`"`)
			a := refusedWithin(t, 11*time.Second, func() answer { return ask(t, http.MethodGet, me, user.IDToken, "") }).problem(t, http.StatusUnauthorized, "invalid_token")
			if got := a.header.Get("WWW-Authenticate"); !strings.Contains(got, "revoked") {
				t.Errorf("WWW-Authenticate: %s", got)
			}
			withCookie(t, http.MethodGet, me, cookie).problem(t, http.StatusUnauthorized, "invalid_token")
			// A cookie made of it now would be younger than the revocation: Firebase
			// makes none.
			ask(t, http.MethodPost, "http://"+e.host+"/identitytoolkit.googleapis.com/v1/projects/"+project+":createSessionCookie", "owner",
				fmt.Sprintf(`{"idToken": %q, "validDuration": "3600"}`, user.IDToken)).want(t, http.StatusBadRequest)
			ask(t, http.MethodGet, me, e.signIn("fred@example.com", "").IDToken, "").want(t, http.StatusOK)
		})
		t.Run("streams of a disabled user", func(t *testing.T) {
			t.Parallel()
			e := authEmulator{t, e.host}
			user := e.signUp("jana@example.com", "")
			header := http.Header{"Authorization": {"Bearer " + user.IDToken}}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+30*time.Second) // the window, and a busy machine
			defer cancel()
			socket, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(g.url, "http")+"/v1/echo", &websocket.DialOptions{HTTPHeader: header})
			if err != nil {
				t.Fatal(err)
			}
			defer socket.CloseNow()
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+"/v1/events", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header = header
			events, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer events.Body.Close()
			e.update(user.LocalID, "", `"disableUser": true`)
			for err == nil {
				_, _, err = socket.Read(ctx)
			}
			if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
				t.Errorf("the WebSocket ends with %v, want 1008", err)
			}
			if _, err := io.ReadAll(events.Body); err != nil {
				t.Errorf("the event stream ends with %v", err)
			}
		})
		t.Run("deleted", func(t *testing.T) {
			t.Parallel()
			e := authEmulator{t, e.host}
			user := e.signUp("gina@example.com", "")
			e.admin("v1/projects/"+project+"/accounts:delete", fmt.Sprintf(`{"localId": %q}`, user.LocalID))
			ask(t, http.MethodGet, me, user.IDToken, "").problem(t, http.StatusUnauthorized, "invalid_token")
		})
		t.Run("session cookies", func(t *testing.T) {
			t.Parallel()
			e := authEmulator{t, e.host}
			user := e.signUp("hans@example.com", "")
			cookie := e.cookie(user.IDToken)
			var app seen
			withCookie(t, http.MethodGet, me, cookie).want(t, http.StatusOK).decode(t, &app)
			if app.Headers["X-Sidegate-Uid"] != user.LocalID || app.Headers["Cookie"] != "theme=dark" {
				t.Errorf("the app saw %v", app.Headers)
			}
			// Each counts in its own place only.
			ask(t, http.MethodGet, me, cookie, "").problem(t, http.StatusUnauthorized, "invalid_token")
			withCookie(t, http.MethodGet, me, user.IDToken).problem(t, http.StatusUnauthorized, "invalid_token")
			withCookie(t, http.MethodGet, me, cookie, "Authorization: Basic abc").problem(t, http.StatusUnauthorized, "no_token")
			// What can change something must come from the gateway's own site.
			withCookie(t, http.MethodPatch, me, cookie).problem(t, http.StatusForbidden, "cross_origin")
			withCookie(t, http.MethodPatch, me, cookie, "Sec-Fetch-Site: cross-site").problem(t, http.StatusForbidden, "cross_origin")
			withCookie(t, http.MethodPatch, me, cookie, "Sec-Fetch-Site: same-origin").want(t, http.StatusOK)
			withCookie(t, http.MethodPatch, me, cookie, "Origin: "+g.url).want(t, http.StatusOK)
			// Nobody on optional routes, and dropped on public ones.
			withCookie(t, http.MethodGet, g.url+"/v1/maybe", "old").want(t, http.StatusOK)
			var open seen
			withCookie(t, http.MethodGet, g.url+"/v1/open", cookie).want(t, http.StatusOK).decode(t, &open)
			if open.Headers["Cookie"] != "theme=dark" || open.Headers["X-Sidegate-Uid"] != "" {
				t.Errorf("on a public route the app saw %v", open.Headers)
			}
		})
		t.Run("the emulator is away", func(t *testing.T) {
			t.Parallel()
			e := authEmulator{t, e.host}
			user := e.signUp("ines@example.com", "")
			away := startGateway(t, setup{
				config: demoFile(t, "sidegate.yaml", "\n  users: {firebase: {project: demo-sidegate}}", fmt.Sprintf(emulatedConfig, tenant)),
				policy: emulatedPolicy,
				flags:  []string{"--insecure-emulator"},
				env:    []string{"FIREBASE_AUTH_EMULATOR_HOST=" + unusedAddress(t)},
			})
			a := ask(t, http.MethodGet, away.url+"/v1/me", user.IDToken, "").problem(t, http.StatusServiceUnavailable, "unavailable")
			if a.header.Get("Retry-After") == "" || a.header.Get("WWW-Authenticate") != "" {
				t.Errorf("%v", a.header)
			}
		})
	})
	// Whoever looked, the log holds no token.
	for _, line := range strings.Split(g.log.String(), "\n") {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && strings.Contains(line, "eyJhbGciOi") {
			t.Errorf("a token is in the log: %.200s", line)
		}
	}
}
