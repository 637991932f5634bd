package proxy

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/websocket"

	"sidegate/policy"
)

// known is an Authenticator of these identities, by token.
type known map[string]*policy.Identity

func (k known) Authenticate(_ context.Context, token string) (*policy.Identity, error) {
	if id := k[token]; id != nil {
		return id, nil
	}
	return nil, &TokenError{Reason: "the token is malformed"}
}

const (
	richClaims  = `{"iss":"https://id.acme.dev","sub":"u 1","roles":["admin","a,b"],"groups":["g1","g2"],"plan":"pro","level":7,"beta":true,"preferred_username":"ali","esc":"<&>\u00fc"}`
	bobsClaims  = `{"sub":"bob","roles":["r1","r2"]}`
	agentClaims = `{"sub":"carol","act":{"sub":"bot"},"odd":{"a":1},"mixed":["a",1],"empty":[],"none":null}`
)

// payload is the second part of a token of these claims, as its issuer wrote it.
func payload(claims string) string { return base64.RawURLEncoding.EncodeToString([]byte(claims)) }

func identity(name, uid, claims string) *policy.Identity {
	d := json.NewDecoder(strings.NewReader(claims))
	d.UseNumber()
	id := &policy.Identity{Name: name, Namespace: name, UID: uid, TokenHash: strings.Repeat("cd", 32), Payload: payload(claims), Kept: new(policy.Kept)}
	var all policy.ClaimMap
	if err := d.Decode(&all); err != nil {
		panic(err)
	}
	id.Claims = all
	return id
}

// people are who calls in these tests.
func people() known {
	rich := identity("users", "u1", richClaims)
	rich.Tenant, rich.Provider, rich.Email, rich.EmailVerified = "t1", "google.com", "ali@acme.dev", true
	bob := identity("staff", "bob", bobsClaims)
	bob.Email = "bob@acme.dev" // which nobody has verified
	agent := identity("agents", "carol", agentClaims)
	agent.Namespace, agent.Actor = "users", "bot"
	hostile := identity("users", "a b,ü%\r\nX-Evil: 1", `{"sub":"x"}`)
	return known{"rich": rich, "bob": bob, "agent": agent, "hostile": hostile}
}

// presetNames are the upstreams of presetGate.
var presetNames = []string{"native", "o2p", "esp", "apigw", "map", "none"}

var presetMap = map[string]string{
	"X-User": "${auth.uid}", "x-agent": "${auth.actor}", "X-Who": "${auth.identity}, ${auth.uid}", "X-Groups": "${auth.token.groups}",
	"X-Level": "level ${auth.token.level}", "X-Beta": "${auth.token.beta}", "X-Plan": "${auth.token.plan}", "X-Mail": "<${auth.email}>",
	"X-Tenant": "${auth.tenant}", "X-Provider": "${auth.provider}", "X-Odd": "${auth.token.odd}", "X-Mixed": "${auth.token.mixed}",
	"X-Empty": "${auth.token.empty}", "X-None": "${auth.token.none}", "X-Where": "gateway", "Remote-User": "${auth.uid}",
}

func mustHeaders(t testing.TB) func(Headers, error) Headers {
	return func(hs Headers, err error) Headers {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return hs
	}
}

// presetGate has the same app behind it once for each preset. Under /private it
// needs an identity, under /optional it takes one, under /public it looks for
// none; the next segment is the upstream.
func presetGate(t testing.TB, app string, roles bool, change ...func(*Options)) *gate {
	t.Helper()
	text := "version: sidegate-policy/v1\nname: presets\nidentities: [users, staff, agents]\n"
	if roles {
		text += "claims: {roles: list(string), plan: string}\n"
	}
	text += "routes:\n"
	env := &policy.Environment{Identities: map[string]string{"users": "users", "staff": "staff", "agents": "users"}, Actors: map[string]bool{"agents": true}, Upstreams: map[string]policy.Upstream{}}
	for _, name := range presetNames {
		env.Upstreams[name] = policy.Upstream{}
		for _, access := range [][2]string{{"private", "[{id: any, who: [users, staff, agents]}]"}, {"optional", "optional"}, {"public", "public"}} {
			text += fmt.Sprintf("  - {id: %s-%s, path: \"/%s/%s/{rest...}\", methods: [GET, POST], upstream: %s, allow: %s, websocket: true}\n",
				access[0], name, access[0], name, name, access[1])
		}
	}
	p, err := policy.Load("policy.yaml", []byte(text), env)
	if err != nil {
		t.Fatal(err)
	}
	must := mustHeaders(t)
	presets := map[string]Headers{
		"native": NativeHeaders(), "o2p": OAuth2ProxyHeaders(), "esp": must(ESPHeaders(ESPPrefix)), "apigw": must(ESPHeaders("X-Apigateway-")),
		"map": must(HeaderMap(presetMap, false)), "none": {},
	}
	return newGate(t, app, append([]func(*Options){func(o *Options) {
		o.Policy, o.Authenticator = p, people()
		u := o.Upstreams["app"]
		o.Upstreams = map[string]Upstream{}
		for name, headers := range presets {
			u.Headers = headers
			o.Upstreams[name] = u
		}
	}}, change...)...)
}

// told are the lines of lenientApp's answer that say who calls.
func told(a answer) []string {
	var out []string
	for line := range strings.Lines(a.body) {
		name, _, _ := strings.Cut(line, ":")
		switch name {
		case "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id", "traceparent", "user-agent", "accept-encoding", "connection", "content-length":
		default:
			out = append(out, strings.TrimSuffix(line, "\n"))
		}
	}
	slices.Sort(out)
	return out
}

// presetWant is what each upstream is told, exactly; nil: the caller is refused.
var presetWant = map[string]map[string][]string{
	"native": {
		"rich": {"x-sidegate-claims: " + payload(`{"plan":"pro","roles":["admin","a,b"]}`), "x-sidegate-email: ali@acme.dev", "x-sidegate-identity: users",
			"x-sidegate-roles: admin,a%2Cb", "x-sidegate-tenant: t1", "x-sidegate-uid: u1"},
		"bob":     {"x-sidegate-claims: " + payload(`{"roles":["r1","r2"]}`), "x-sidegate-identity: staff", "x-sidegate-roles: r1,r2", "x-sidegate-uid: bob"},
		"agent":   {"x-sidegate-actor: bot", "x-sidegate-identity: agents", "x-sidegate-uid: carol"},
		"hostile": {"x-sidegate-identity: users", "x-sidegate-uid: a%20b,%C3%BC%25%0D%0AX-Evil:%201"},
	},
	"o2p": {
		"rich":  {"x-forwarded-email: ali@acme.dev", "x-forwarded-groups: g1,g2", "x-forwarded-preferred-username: ali", "x-forwarded-user: u1"},
		"bob":   {"x-forwarded-groups: r1,r2", "x-forwarded-user: bob"},
		"agent": {"x-forwarded-user: carol"},
	},
	"esp": {
		"rich": {"x-endpoint-api-userinfo: " + payload(richClaims)}, "bob": {"x-endpoint-api-userinfo: " + payload(bobsClaims)},
		"agent": {"x-endpoint-api-userinfo: " + payload(agentClaims)}, "hostile": {"x-endpoint-api-userinfo: " + payload(`{"sub":"x"}`)},
	},
	"apigw": {
		"rich": {"x-apigateway-api-userinfo: " + payload(richClaims)}, "bob": {"x-apigateway-api-userinfo: " + payload(bobsClaims)},
		"agent": {"x-apigateway-api-userinfo: " + payload(agentClaims)}, "hostile": {"x-apigateway-api-userinfo: " + payload(`{"sub":"x"}`)},
	},
	"map": {
		"rich": {"remote-user: u1", "x-beta: true", "x-groups: g1,g2", "x-level: level 7", "x-mail: <ali@acme.dev>", "x-plan: pro", "x-provider: google.com",
			"x-tenant: t1", "x-user: u1", "x-where: gateway", "x-who: users, u1"},
		"bob":   {"remote-user: bob", "x-user: bob", "x-where: gateway", "x-who: staff, bob"},
		"agent": {"remote-user: carol", "x-agent: bot", "x-user: carol", "x-where: gateway", "x-who: agents, carol"},
		"hostile": {"remote-user: a%20b,%C3%BC%25%0D%0AX-Evil:%201", "x-user: a%20b,%C3%BC%25%0D%0AX-Evil:%201", "x-where: gateway",
			"x-who: users, a%20b%2C%C3%BC%25%0D%0AX-Evil:%201"},
	},
	"none": {"rich": {}, "bob": {}, "agent": {}, "hostile": {}},
}

// TestPresets: each upstream gets its preset's headers and no other, where
// somebody was verified, and none where nobody was.
func TestPresets(t *testing.T) {
	g := presetGate(t, lenientApp(t), true)
	for _, name := range presetNames {
		for who := range people() {
			want, fits := presetWant[name][who]
			slices.Sort(want)
			for _, access := range []string{"private", "optional"} {
				a := g.send("GET", "/"+access+"/"+name+"/a", who)
				if !fits {
					g.checkRefusal(a, 403, codeNotRepresentable)
					continue
				}
				g.outcome()
				if a.err != nil || a.StatusCode != 200 || !slices.Equal(told(a), want) {
					t.Errorf("%s, %s as %s: %+v\n%q\n%q", access, name, who, a.Response, told(a), want)
				}
			}
			if a := g.send("GET", "/public/"+name+"/a", who); a.StatusCode != 200 || len(told(a)) != 0 {
				t.Errorf("public, %s as %s: %d %q", name, who, a.StatusCode, told(a))
			}
			g.outcome()
		}
		if a := g.send("GET", "/optional/"+name+"/a", ""); a.StatusCode != 200 || len(told(a)) != 0 {
			t.Errorf("optional, %s: %d %q", name, a.StatusCode, told(a))
		}
		g.outcome()
	}
}

// allSet are the headers that the upstreams of presetGate set, each of every one.
func allSet() []string {
	names := []string{headerUID, headerIdentity, headerEmail, headerRoles, headerActor, headerTenant, headerClaims, headerAssertion,
		"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Endpoint-Api-Userinfo", "X-Apigateway-Api-Userinfo"}
	return append(names, slices.Sorted(maps.Keys(presetMap))...)
}

// TestForgedIdentityHeaders: what one upstream believes is stripped for every
// upstream, on every route, in every spelling, from headers and trailers. An app
// that reads the other's header would else believe the caller.
func TestForgedIdentityHeaders(t *testing.T) {
	g := presetGate(t, lenientApp(t), true)
	var lines []string
	for _, name := range allSet() {
		for _, s := range spellings(name) {
			lines = append(lines, s+": evil")
		}
		lines = append(lines, strings.ReplaceAll(name, "-", "*")+": evil", strings.ReplaceAll(name, "-", "'")+": evil", strings.ToLower(strings.Replace(name, "-", ".", 1))+": evil")
	}
	for _, name := range presetNames {
		for _, access := range []string{"private", "optional", "public"} {
			target := "/" + access + "/" + name + "/a"
			want := presetWant[name]["bob"]
			if access == "public" {
				want = nil
			}
			// In parts: a header block has its bound.
			for part := range slices.Chunk(lines, 60) {
				if a := g.send("GET", target, "bob", part...); a.err != nil || a.StatusCode != 200 || !slices.Equal(told(a), want) || strings.Contains(a.body, "evil") {
					t.Errorf("%s: %+v\n%s", target, a.Response, a.body)
				}
			}
			if access != "private" {
				for part := range slices.Chunk(lines, 60) {
					if a := g.send("GET", target, "", part...); a.err != nil || a.StatusCode != 200 || len(told(a)) != 0 {
						t.Errorf("%s as nobody: %+v\n%s", target, a.Response, a.body)
					}
				}
			}
			for part := range slices.Chunk(lines, 60) {
				a := g.raw(request("POST", target, "bob", "Transfer-Encoding: chunked", "Trailer: X-User, X-Sidegate-Uid, X-Agent") + "1\r\na\r\n0\r\n" + strings.Join(part, "\r\n") + "\r\n\r\n")
				if a.err != nil || a.StatusCode != 200 || strings.Contains(a.body, "evil") || strings.Contains(a.body, "trailer") {
					t.Errorf("%s, trailers: %+v\n%s", target, a.Response, a.body)
				}
			}
		}
	}
	// What only begins or ends like one of them is the app's.
	for _, name := range []string{"X-Usera", "X-Use", "Y-User", "XX-User", "X-Who-Else", "Remote-Users", "X-Levels"} {
		if a := g.send("GET", "/public/map/a", "", name+": kept"); !strings.Contains(a.body, careless(name)+": kept") {
			t.Errorf("%s is lost: %s", name, a.body)
		}
	}
}

// TestConnectionDoesNotDeleteWhatIsSet: `Connection: X-User` is about the
// caller's own header.
func TestConnectionDoesNotDeleteWhatIsSet(t *testing.T) {
	g := presetGate(t, lenientApp(t), true)
	all := strings.Join(allSet(), ", ")
	for _, connection := range [][]string{
		{"Connection: " + all}, {"Connection: " + strings.ToLower(all)}, {"connection: close, " + strings.ToUpper(all)},
		{"Connection: x_user, x-user,X-USER"}, {"Connection: X-User", "Connection: X-Sidegate-Uid, X-Forwarded-User, X-Endpoint-Api-Userinfo"},
		{"Keep-Alive: X-User", "Proxy-Connection: " + all}, {"Connection: Authorization, Host, X-User"},
	} {
		for _, name := range presetNames {
			a := g.send("GET", "/private/"+name+"/a", "bob", append(connection, "X-User: evil", "X-Sidegate-Uid: evil")...)
			if a.StatusCode != 200 || !slices.Equal(told(a), presetWant[name]["bob"]) {
				t.Errorf("%s, %q: %+v\n%q", name, connection, a.Response, told(a))
			}
		}
	}
}

// TestWebSocketTellsWhoCalls: the handshake is told as every request is, under
// every preset.
func TestWebSocketTellsWhoCalls(t *testing.T) {
	app := newApp(t, websocket.Server{Handler: func(c *websocket.Conn) {
		h := c.Request().Header
		websocket.JSON.Send(c, []string{h.Get("X-User"), h.Get("X-Sidegate-Uid"), h.Get("X-Forwarded-User"), h.Get("X-Endpoint-Api-Userinfo")})
	}}.ServeHTTP)
	g := presetGate(t, app, true)
	for name, want := range map[string][]string{
		"native": {"", "bob", "", ""}, "o2p": {"", "", "bob", ""}, "esp": {"", "", "", payload(bobsClaims)}, "map": {"bob", "", "", ""}, "none": {"", "", "", ""},
	} {
		config, err := websocket.NewConfig("ws://gateway.test/private/"+name+"/a", "http://gateway.test")
		if err != nil {
			t.Fatal(err)
		}
		config.Header = http.Header{"Authorization": {"Bearer bob"}, "Connection": {"X-User, X-Sidegate-Uid, X-Forwarded-User"}}
		for _, h := range []string{"X-User", "X-Sidegate-Uid", "X-Forwarded-User", "X-Endpoint-Api-Userinfo"} {
			config.Header.Set(h, "evil")
		}
		ws, err := websocket.NewClient(config, g.dial())
		if err != nil {
			t.Fatal(name, err)
		}
		var got []string
		if err := websocket.JSON.Receive(ws, &got); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q %v", name, got, err)
		}
		ws.Close()
	}
}

// TestOAuth2ProxyRefusesWhatItCannotTell: its readers decode nothing, so a
// caller who could be read as another is refused, on record, before the app.
func TestOAuth2ProxyRefusesWhatItCannotTell(t *testing.T) {
	var hits atomic.Int64
	app := newApp(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	tokens := known{}
	with := func(token string, change func(*policy.Identity)) {
		id := identity("users", "u1", `{}`)
		change(id)
		tokens[token] = id
	}
	claims := func(token, text string) {
		with(token, func(id *policy.Identity) { id.Claims = identity("users", "u1", text).Claims })
	}
	for name, uid := range map[string]string{
		"uid-space": "a b", "uid-leading": " a", "uid-crlf": "a\r\nX-Evil: 1", "uid-nul": "a\x00", "uid-del": "a\x7f", "uid-tab": "a\tb",
		"uid-umlaut": "ü", "uid-latin1": "\xfc", "uid-wide": "\u2003a", "uid-fullwidth": "ａlice", "uid-rtl": "a\u202eb",
	} {
		with(name, func(id *policy.Identity) { id.UID = uid })
	}
	with("mail", func(id *policy.Identity) { id.Email, id.EmailVerified = "a b@acme.dev", true })
	claims("name", `{"preferred_username":"Ali Ce"}`)
	claims("group-comma", `{"groups":["a,b"]}`)
	claims("group-empty", `{"groups":["a",""]}`)
	claims("group-one-empty", `{"groups":[""]}`)
	claims("group-space", `{"groups":["a b"]}`)
	claims("group-umlaut", `{"groups":["ü"]}`)
	claims("group-crlf", `{"groups":["a\r\nb"]}`)
	claims("role-comma", `{"roles":["a,b"]}`)
	claims("role-empty", `{"roles":["","a"]}`)
	bad := slices.Sorted(maps.Keys(tokens))
	// And what looks as bad but is not told at all, or can be.
	with("fine-mail", func(id *policy.Identity) { id.Email = "a b@acme.dev" })
	with("fine-tenant", func(id *policy.Identity) { id.Tenant, id.Actor = "a b", "ü" })
	with("fine-uid", func(id *policy.Identity) { id.UID = "../a,b%20|!~;\"" })
	claims("fine-name", `{"preferred_username":["a b"]}`)
	claims("fine-groups", `{"groups":["a","b"],"roles":["a,b",""]}`)
	claims("fine-no-groups", `{"groups":[],"roles":["a,b"]}`)
	claims("fine-group-text", `{"groups":"a,b"}`)
	claims("fine-group-mixed", `{"groups":["a",1]}`)
	claims("fine-other", `{"name":"Ali Ce"}`)

	g := presetGate(t, app, true, func(o *Options) { o.Authenticator = tokens })
	for _, token := range bad {
		for _, access := range []string{"private", "optional"} {
			a := g.send("GET", "/"+access+"/o2p/a", token)
			g.checkRefusal(a, 403, codeNotRepresentable)
			if a.Header.Get("WWW-Authenticate") != "" || strings.Contains(a.body, "evil") {
				t.Errorf("%s: %v %s", token, a.Header, a.body)
			}
			d := g.decision()
			if d.Decision.Effect != "deny" || d.Decision.Code != codeNotRepresentable || d.Decision.Status != 403 || d.Identity == nil || d.Identity.UID != tokens[token].UID {
				t.Errorf("%s: on record are %+v and %+v", token, d.Decision, d.Identity)
			}
			if access == "private" && d.Decision.Rule != "private-o2p/any" {
				t.Errorf("%s: the rule is %q", token, d.Decision.Rule)
			}
		}
	}
	if hits.Load() != 0 {
		t.Errorf("the app was reached %d times", hits.Load())
	}
	for token := range tokens {
		if slices.Contains(bad, token) { // other presets can tell it, and public routes tell nothing
			for _, target := range []string{"/private/native/a", "/private/map/a", "/private/none/a", "/public/o2p/a"} {
				if a := g.send("GET", target, token); a.StatusCode != 200 {
					t.Errorf("%s as %s: %d %s", target, token, a.StatusCode, a.body)
				}
			}
		} else if a := g.send("GET", "/private/o2p/a", token); a.StatusCode != 200 {
			t.Errorf("%s: %d %s", token, a.StatusCode, a.body)
		}
	}
	// To a gRPC caller it is PERMISSION_DENIED.
	if a := g.send("POST", "/private/o2p/a", "uid-space", "Content-Type: application/grpc", "Content-Length: 0"); a.Header.Get("Grpc-Status") != "7" || !strings.HasPrefix(a.Header.Get("Grpc-Message"), codeNotRepresentable+": ") {
		t.Errorf("%+v", a.Response)
	}
}

// TestRolesNeedADeclaration: a claim that the policy does not declare is told
// nobody under native, and is no group.
func TestRolesNeedADeclaration(t *testing.T) {
	g := presetGate(t, lenientApp(t), false)
	for name, want := range map[string][]string{
		"native": {"x-sidegate-identity: staff", "x-sidegate-uid: bob"}, "o2p": {"x-forwarded-user: bob"},
	} {
		if a := g.send("GET", "/private/"+name+"/a", "bob"); !slices.Equal(told(a), want) {
			t.Errorf("%s: %q", name, told(a))
		}
	}
	// groups are told as oauth2-proxy does, declared or not; role names that
	// nobody sees make nobody unfit.
	if a := g.send("GET", "/private/o2p/a", "rich"); !slices.Contains(told(a), "x-forwarded-groups: g1,g2") {
		t.Errorf("%q", told(a))
	}
}

// TestESPHeaderIsWhatTheIssuerWrote: order, spaces and escapes of the claims
// are the issuer's, whatever they are, and there is no padding.
func TestESPHeaderIsWhatTheIssuerWrote(t *testing.T) {
	tokens := known{}
	for i, claims := range []string{`{ "b":1,"a":2 }`, `{"a":1.0e3,"b":"\u00fc\/"}`, "{\"a\":\"ü\"}", `{"a":"` + strings.Repeat("x", 3000) + `"}`, `{}`, `{"a":1}`, `{"a":12}`} {
		tokens[fmt.Sprint("t", i)] = identity("users", "u1", claims)
	}
	g := presetGate(t, lenientApp(t), true, func(o *Options) { o.Authenticator = tokens })
	for token, id := range tokens {
		if a := g.send("GET", "/private/esp/a", token); !slices.Equal(told(a), []string{"x-endpoint-api-userinfo: " + id.Payload}) || strings.Contains(id.Payload, "=") {
			t.Errorf("%s: %q", token, told(a))
		}
	}
	must := mustHeaders(t)
	for prefix, name := range map[string]string{ESPPrefix: "X-Endpoint-Api-Userinfo", "x-apigateway-": "X-Apigateway-Api-Userinfo", "X-Acme-": "X-Acme-Api-Userinfo"} {
		h := http.Header{}
		hs := must(ESPHeaders(prefix))
		hs.write(h, &exchange{identity: tokens["t0"]})
		if !slices.Equal(hs.names, []string{name}) || len(h) != 1 || h[name] == nil || !hs.Identity || !hs.Actor || hs.asserts {
			t.Errorf("%s: %+v %v", prefix, hs, h)
		}
	}
	for _, prefix := range []string{"X ", "X_", "1", "X-ü", "X\r\n", strings.Repeat("x", 64)} {
		if hs, err := ESPHeaders(prefix); err == nil {
			t.Errorf("%q is taken: %v", prefix, hs.names)
		}
	}
	if hs, err := ESPHeaders(""); err == nil && !slices.Equal(hs.names, []string{"Api-Userinfo"}) {
		t.Errorf("%v", hs.names)
	}
}

// TestHeaderMapErrors: what does not load, and that the error names the header.
func TestHeaderMapErrors(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"X-A", "${auth.nope}", "${auth.nope} is not known"},
		{"X-A", "${auth.token}", "is not known"},
		{"X-A", "${auth.token.}", "is not known"},
		{"X-A", "${auth.token.a-b}", "is not known"},
		{"X-A", "${auth.token.a.b}", "is not known"},
		{"X-A", "${auth.token.1a}", "is not known"},
		{"X-A", "${auth.token_hash}", "is not known"},
		{"X-A", "${auth.payload}", "is not known"},
		{"X-A", "${request.path}", "is not known"},
		{"X-A", "${AUTH.UID}", "is not known"},
		{"X-A", "${ auth.uid }", "is not known"},
		{"X-A", "${}", "is not known"},
		{"X-A", "${", "is not known"},
		{"X-A", "a ${auth.uid", "is not known"},
		{"X-A", "${auth.uid${auth.uid}}", "is not known"},
		{"X-A", "${assertion}", "`assertion.key`"},
		{"X-A", "${auth.uid}${auth.actor}", "between two values"},
		{"X-A", "${auth.uid}:${auth.actor}", "between two values"},
		{"X-A", "${auth.uid},${auth.actor}", "between two values"},
		{"X-A", "${auth.token.groups},${auth.uid}", "between two values"},
		{"X-A", "${auth.uid}/%2C;${auth.actor}", "between two values"},
		{"X-A", "${auth.uid}, ${auth.actor}${auth.tenant}", "between two values"},
		{"X-A", "a\r\nX-B: 1", "printable ASCII"},
		{"X-A", "a\tb", "printable ASCII"},
		{"X-A", "ü", "printable ASCII"},
		{"X-A", "${auth.uid} ü", "printable ASCII"},
		{"X-A", "\x7f", "printable ASCII"},
		{"X-A", " a", "space"},
		{"X-A", "a ", "space"},
		{"X-A", "${auth.uid} ", "space"},
		{"X-A", " ${auth.uid}", "space"},
		{"", "a", "a header's name"},
		{"1A", "a", "a header's name"},
		{"-A", "a", "a header's name"},
		{"X_A", "a", "a header's name"},
		{"X.A", "a", "a header's name"},
		{"X A", "a", "a header's name"},
		{"X-A:", "a", "a header's name"},
		{"X-A\r\nB", "a", "a header's name"},
		{"X-A\n", "a", "a header's name"},
		{"X-Ü", "a", "a header's name"},
		{"X" + strings.Repeat("-a", 32), "a", "a header's name"},
	} {
		_, err := HeaderMap(map[string]string{c.name: c.text}, false)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), c.name+": ") {
			t.Errorf("%q: %q: %v", c.name, c.text, err)
		}
	}
	for _, name := range []string{
		"Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "TE", "Trailer", "Keep-Alive", "Expect", "Content-Type", "Content-Encoding", "Range",
		"Authorization", "Proxy-Authorization", "Cookie", "Origin", "Sec-WebSocket-Key", "Sec-Fetch-Site", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host",
		"X-Request-Id", "Traceparent", "Tracestate", "Forwarded", "Accept", "X-Firebase-AppCheck", "X-Serverless-Authorization", "Proxy-Connection",
	} {
		for _, s := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if _, err := HeaderMap(map[string]string{s: "${auth.uid}"}, true); err == nil || !strings.Contains(err.Error(), "cannot be set") {
				t.Errorf("%s: %v", s, err)
			}
		}
	}
	if _, err := HeaderMap(map[string]string{"X-A": "a", "x-a": "b"}, false); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("two spellings: %v", err)
	}
}

// TestHeaderMapValues: what a template gives for each kind of value. An empty
// result means that the header is not sent.
func TestHeaderMapValues(t *testing.T) {
	id := identity("users", "u,1", `{"text":"a,b c%","num":12,"frac":-1.50e3,"yes":true,"no":false,"list":["a","b,c","d e"],"one":["x"],"empty":[],"blank":"","blanks":["",""],
		"null":null,"obj":{"a":1},"mixed":["a",1],"nested":[["a"]]}`)
	id.Tenant, id.Provider, id.Email = "t", "password", "a@b"
	verified := *id
	verified.EmailVerified, verified.Actor = true, "bot"
	for _, c := range []struct{ text, plain, full string }{
		{"static", "static", "static"},
		{"", "", ""},
		{"$ {a} $$ }", "$ {a} $$ }", "$ {a} $$ }"},
		{"50%", "50%", "50%"},
		{"${auth.uid}", "u,1", "u,1"},
		{"<${auth.uid}>", "<u,1>", "<u,1>"},
		{"${auth.identity}", "users", "users"},
		{"${auth.tenant}", "t", "t"},
		{"${auth.provider}", "password", "password"},
		{"${auth.email}", "", "a@b"},
		{"${auth.actor}", "", "bot"},
		{"mail ${auth.email}", "", "mail a@b"},
		{"${auth.identity}, ${auth.uid}", "users, u%2C1", "users, u%2C1"},
		{"${auth.uid} ${auth.uid}", "u%2C1 u%2C1", "u%2C1 u%2C1"},
		{"${auth.uid} ,${auth.actor}", "", "u%2C1 ,bot"},
		{"u=${auth.uid}, a=${auth.actor}; x", "", "u=u%2C1, a=bot; x"},
		{"${auth.token.text}", "a%2Cb%20c%25", "a%2Cb%20c%25"},
		{"${auth.token.num}", "12", "12"},
		{"${auth.token.frac}", "-1.50e3", "-1.50e3"},
		{"${auth.token.yes}", "true", "true"},
		{"${auth.token.no}", "false", "false"},
		{"${auth.token.list}", "a,b%2Cc,d%20e", "a,b%2Cc,d%20e"},
		{"${auth.token.one}", "x", "x"},
		{"${auth.token.empty}", "", ""},
		{"${auth.token.blank}", "", ""},
		{"${auth.token.blanks}", ",", ","},
		{"${auth.token.null}", "", ""},
		{"${auth.token.obj}", "", ""},
		{"${auth.token.mixed}", "", ""},
		{"${auth.token.nested}", "", ""},
		{"${auth.token.gone}", "", ""},
		{"level ${auth.token.num}, ${auth.token.yes}", "level 12, true", "level 12, true"},
		{"${auth.identity} ${auth.token.gone}", "", ""},
	} {
		hs, err := HeaderMap(map[string]string{"x-a": c.text}, false)
		if err != nil {
			t.Fatalf("%q: %v", c.text, err)
		}
		for who, want := range map[*policy.Identity]string{id: c.plain, &verified: c.full} {
			h := http.Header{}
			hs.write(h, &exchange{identity: who})
			if got := h["X-A"]; len(got) > 1 || len(got) == 1 && (got[0] != want || want == "") || len(got) == 0 && want != "" {
				t.Errorf("%q: %q, not %q", c.text, got, want)
			}
		}
	}
}

// TestHeaderMapSaysWhatItTells: lint asks it whether an app can tell namespaces
// and agents apart.
func TestHeaderMapSaysWhatItTells(t *testing.T) {
	for _, c := range []struct {
		text                     string
		identity, actor, asserts bool
	}{
		{"${auth.uid}", false, false, false},
		{"${auth.identity} ${auth.uid}", true, false, false},
		{"${auth.actor}", false, true, false},
		{"${auth.identity}, ${auth.actor}", false, true, false}, // who has no actor gets no header
		{"${auth.actor} ${auth.uid}", false, true, false},
		{"${auth.actor} ${auth.tenant}", false, false, false},
		{"${auth.identity} ${auth.token.x}", false, false, false},
		{"${auth.identity} ${assertion}", true, true, true},
		{"auth.identity auth.actor assertion", false, false, false},
		{"${auth.token.actor}", false, false, false},
		{"${assertion}", true, true, true},
	} {
		hs, err := HeaderMap(map[string]string{"X-A": c.text, "X-B": "b"}, true)
		if err != nil || hs.Identity != c.identity || hs.Actor != c.actor || hs.asserts != c.asserts || hs.Preset != "map" || !slices.Equal(hs.names, []string{"X-A", "X-B"}) {
			t.Errorf("%s: %+v %v", c.text, hs, err)
		}
	}
}

// TestHeaderMapsThatSayTooLittleOrTooMuch: an assertion is sent whatever else is
// known, and no claim is read past the rules for it.
func TestHeaderMapsThatSayTooLittleOrTooMuch(t *testing.T) {
	for _, text := range []string{"${assertion} ${auth.token.x}", "${assertion}, ${auth.actor}", "${auth.email} ${assertion}",
		"${auth.token.email}", "x ${auth.token.email}"} {
		if _, err := HeaderMap(map[string]string{"X-A": text}, true); err == nil {
			t.Errorf("%s: taken", text)
		}
	}
}

// mapped is the one header that a template makes of a caller.
func mapped(t *testing.T, hs Headers, id *policy.Identity) string {
	h := http.Header{}
	hs.write(h, &exchange{identity: id})
	v := h.Get("X-A")
	for i := range len(v) {
		if v[i] < ' ' || v[i] > '~' {
			t.Fatalf("%q gives %q", id.UID, v)
		}
	}
	return v
}

// TestListsAreToldFromTexts: a claim that is a list never looks like one that is
// a text with commas, beside another value neither: whoever may choose a text
// would else choose groups.
func TestListsAreToldFromTexts(t *testing.T) {
	for _, text := range []string{"${auth.token.c}", "${auth.uid} ${auth.token.c}", "${auth.token.c}, ${auth.uid}"} {
		hs := mustHeaders(t)(HeaderMap(map[string]string{"X-A": text}, false))
		list := mapped(t, hs, identity("users", "u", `{"c":["a","b"]}`))
		for _, other := range []string{`"a,b"`, `["a,b"]`, `"a%2Cb"`, `["a%2Cb"]`, `"a%2cb"`, `["a","b",""]`} {
			if got := mapped(t, hs, identity("users", "u", `{"c":`+other+`}`)); got == list {
				t.Errorf(`%s: %s and ["a","b"] both give %q`, text, other, got)
			}
		}
	}
}

// FuzzHeaderMap: two different callers never give the same header under a
// template of two values, whatever stands between them.
func FuzzHeaderMap(f *testing.F) {
	f.Add("a", "b", "a", "b")
	f.Add("a b", "c", "a", "b c")
	f.Add("a,b", "c", "a", "b,c")
	f.Add("a, b", "c", "a", "b, c")
	f.Add("a%2Cb", "%", "a,b", "%25")
	f.Add("ü", "\r\n", "\xc3\xbc", "\x00")
	f.Add("> ,x <", "a", ">", ",x <a")
	f.Add("a,b", "u", "a|b", "u")
	var twos []Headers
	for _, text := range []string{
		"${auth.uid} ${auth.actor}", "${auth.uid} ,${auth.actor}", "${auth.uid}, ${auth.actor}", "<${auth.uid}> ,x <${auth.actor}>!",
		"a%2C${auth.uid}%20 %2C${auth.actor}b", "${auth.identity} ${auth.uid} ${auth.actor}",
	} {
		hs, err := HeaderMap(map[string]string{"X-A": text}, false)
		if err != nil {
			f.Fatal(err)
		}
		twos = append(twos, hs)
	}
	var claims []Headers
	for _, text := range []string{"${auth.token.c}", "${auth.token.c} ${auth.uid}", "${auth.uid}, ${auth.token.c}"} {
		hs, err := HeaderMap(map[string]string{"X-A": text}, false)
		if err != nil {
			f.Fatal(err)
		}
		claims = append(claims, hs)
	}
	f.Fuzz(func(t *testing.T, uidA, actorA, uidB, actorB string) {
		for i, hs := range twos {
			a := mapped(t, hs, &policy.Identity{Name: "users", UID: uidA, Actor: actorA})
			b := mapped(t, hs, &policy.Identity{Name: "users", UID: uidB, Actor: actorB})
			if a != "" && b != "" && (a == b) != (uidA == uidB && actorA == actorB) {
				t.Fatalf("template %d: (%q, %q) and (%q, %q) give %q and %q", i, uidA, actorA, uidB, actorB, a, b)
			}
			c := mapped(t, hs, &policy.Identity{Name: actorA, UID: uidA, Actor: "x"})
			d := mapped(t, hs, &policy.Identity{Name: actorB, UID: uidB, Actor: "x"})
			if i == len(twos)-1 && c != "" && d != "" && (c == d) != (uidA == uidB && actorA == actorB) {
				t.Fatalf("(%q, %q) and (%q, %q) give %q and %q", actorA, uidA, actorB, uidB, c, d)
			}
		}
		// A text may be written as the list of it alone; any other two differ.
		type caller struct {
			claim any
			list  []string
		}
		var callers []caller
		for _, s := range []string{uidA, uidB} {
			var list []any
			for part := range strings.SplitSeq(s, "|") {
				list = append(list, part)
			}
			callers = append(callers, caller{s, []string{s}}, caller{list, stringList(list)})
		}
		for i, hs := range claims {
			for _, a := range callers {
				for _, b := range callers {
					va := mapped(t, hs, &policy.Identity{UID: "u", Claims: policy.ClaimMap{"c": a.claim}})
					vb := mapped(t, hs, &policy.Identity{UID: "u", Claims: policy.ClaimMap{"c": b.claim}})
					if va != "" && va == vb && !slices.Equal(a.list, b.list) {
						t.Fatalf("template %d: %q and %q both give %q", i, a.claim, b.claim, va)
					}
				}
			}
		}
	})
}
