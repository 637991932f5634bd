package proxy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A class is what was done to a gateway of this kind, by the names of its
// advisories. It has attacks that run here, tests elsewhere, both, or a reason
// why there is nothing to attack.
type class struct {
	id      string // product and advisories, or the class itself
	what    string
	attacks []attack
	by      []string // "package.Test"; without a package: this one's
	none    string
	// subtle: the attacks do nothing to the careless app alone.
	subtle bool
}

// get are GET requests of nobody.
func get(targets ...string) (out []attack) {
	for _, target := range targets {
		out = append(out, attack{method: "GET", target: target})
	}
	return out
}

// with are requests with these header lines, one at a time and then all at
// once, on a public route, an optional one, and a private one as alice.
func with(lines ...string) (out []attack) {
	for _, on := range []attack{{target: "/public/a"}, {target: "/optional/a"}, {target: "/private/a", token: "alice"}} {
		for _, l := range lines {
			out = append(out, attack{method: "GET", target: on.target, token: on.token, lines: []string{l}})
		}
		out = append(out, attack{method: "GET", target: on.target, token: on.token, lines: lines})
	}
	return out
}

// named are header lines with a forged value.
func named(names ...string) (out []string) {
	for _, n := range names {
		out = append(out, n+": evil")
	}
	return out
}

// raws are bytes of HTTP/1.1.
func raws(all ...string) (out []attack) {
	for _, r := range all {
		out = append(out, attack{raw: r})
	}
	return out
}

const (
	hidden  = "GET /admin/hidden HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
	postRaw = "POST /public/a HTTP/1.1\r\nHost: gateway.test\r\n"
)

// Ways to a protected path through a public one.
var (
	dotSegments = get("/public/../admin/a", "/public/./../admin/a", "/public/%2e%2e/admin/a", "/public/.%2e/admin/a", "/public/%2E./admin/a", "/public/..%2fadmin/a", "/public/..%2Fadmin%2fa",
		"/public%2f..%2fadmin/a", "/slash/..%2f..%2fadmin/a", "/slash/%2e%2e%2fadmin", "/public/x/../../admin/a", "/public/..//admin/a", "/public/../../../../admin/a", "/public/../ADMIN/a",
		"http://gateway.test/public/../admin/a", "http://gateway.test/public/%2e%2e/admin/a")
	encodedTwice = get("/public/%252e%252e/admin/a", "/public/%252e%252e%252fadmin/a", "/slash/%252e%252e%252fadmin", "/public/%25%32%65%25%32%65/admin/a", "/public/%u002e%u002e/admin/a", "/public/%25u002e%25u002e/admin/a",
		"/public/%c0%ae%c0%ae/admin/a", "/public/..%c0%afadmin/a", "/public/..%25c0%25afadmin/a")
	slashes = get("//admin/a", "///admin/a", "//gateway.test/admin/a", "/%2fadmin/a", "//x/admin/a", `/public\..\admin\a`, "/public/..%5cadmin/a", "/public%5c..%5cadmin%5ca", `\admin\a`, `/\admin/a`, "/public/..%255cadmin/a",
		"http:///admin/a", "http://gateway.test//admin/a")
	fragments  = get("/admin/a#/public/a", "/public/a#/../../admin/a", "/public/#/admin/a", "/public/..#/admin", "/admin%23/public", "/admin/a%23/../../public/a", "/public/%23/../../admin/a", "/#/admin/a", "/public/a#")
	parameters = get("/public/..;/admin/a", "/public/..;x=1/admin/a", "/public/.;/..;/admin/a", "/;/admin/a", "/public;/../admin/a", "/public/..%3b/admin/a", "/public/x;/../../admin/a", "/admin;x=/public/a", "/public/%2e%2e;a=b/admin/a", "/;x/admin/a")
	controls   = get("/admin%00/public/a", "/public/..%00/admin/a", "/public/..%0d%0a/../admin/a", "/public/..%09/admin/a", "/public/%00/../../admin/a", "/admin%0a/../public/a", "/public/a%0d%0aX-Sidegate-Uid:%20evil", "/public/%7f/../../admin/a", "/public/..%20/admin/a%00")
	queries    = get("/admin/a?/public/a", "/admin/a?x=/public/", "/admin?/../public/a", "/public/..%3f/../admin/a", "/public/%3f/../../admin/a", "/?/admin/a", "/admin/a?skip=/public/a&x", "/private/a?/public/a", "/own/bob?/own/alice")
	spelled    = get("/Admin/a", "/ADMIN/a", "/%41dmin/a", "/%61dmin/a", "/admin%2fa", "/admin./a", "/admin%20/a", "/admin/%61", "/%ef%bd%81dmin/a", "/adm%c4%b1n/a", "/PRIVATE/a", "/Private/../admin/a", "/admin/a/.", "/admin/a/")
)

// forgedIdentity are names by which apps learn who calls, in every spelling.
var forgedIdentity = func() (out []string) {
	for _, name := range append(slices.Clone(hostile), "X-Webauth-User", "X-Authenticated-User", "X-User", "Oidc-Claim-Sub", "Impersonate-User", "Cf-Access-Authenticated-User-Email", "Tailscale-User-Login",
		"X-Ms-Client-Principal", "X-Consumer-Id", "X-Vouch-User", "Client-Cert", "X-Ssl-Client-Dn", "X-Envoy-Original-Path", "X-Envoy-Peer-Metadata", "X-Jwt-Assertion") {
		out = append(out, named(spellings(name)...)...)
	}
	return out
}()

func hopByHop() (out []attack) {
	for _, name := range []string{"Connection", "connection", "CONNECTION", "Proxy-Connection"} {
		for _, value := range []string{"X-Sidegate-Uid", "x-sidegate-uid", "close, X-SIDEGATE-UID", "keep-alive, X-Sidegate-Uid, Host, X-Forwarded-For", "X-Sidegate-Uid,", "X-Sidegate-Uid\t,x", "X_Sidegate_Uid"} {
			out = append(out, attack{method: "GET", target: "/private/a", token: "alice", lines: []string{name + ": " + value}},
				attack{method: "GET", target: "/own/alice", token: "alice", lines: []string{name + ": " + value, "X-Sidegate-Uid: evil", "x_sidegate_uid: evil"}})
		}
	}
	return out
}

func tokensTwice() (out []attack) {
	for _, lines := range [][]string{{"Authorization: Bearer bob"}, {"authorization: Basic evil"}, {"AUTHORIZATION:"}, {"Authorization : Bearer bob"}, {"Authorization: Bearer alice"}, {"Authorization:\r\n Bearer bob"}} {
		for _, target := range []string{"/private/a", "/public/a", "/optional/a", "/own/bob"} {
			out = append(out, attack{raw: request("GET", target, "alice", lines...)})
			if !strings.ContainsAny(lines[0], "\r") && !strings.Contains(lines[0], " :") {
				out = append(out, attack{method: "GET", target: target, token: "alice", lines: lines})
			}
		}
	}
	return out
}

func smuggling() (out []attack) {
	for _, head := range []string{
		"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n", "Content-Length: 0\r\nContent-Length: 5\r\n\r\n", "Content-Length: 5\r\nContent-Length: 0\r\n\r\n",
		"Content-Length: 0\r\ncontent-length: 0\r\n\r\n", "Content-Length : 5\r\n\r\n", "Content-Length: +0\r\n\r\n", "Content-Length: 0x5\r\n\r\n", "Content-Length: 0, 5\r\n\r\n", "Content-Length: -0\r\n\r\n", "Content-Length:\r\n\r\n",
		"Content_Length: 0\r\nContent-Length: 0\r\n\r\n", "Content-Length: 5\x0b\r\n\r\n", "Content-Length: \x00\r\n\r\n", "X: a\r\n Content-Length: 70\r\n\r\n", "X: y\rContent-Length: 70\r\n\r\n",
		"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "Transfer-Encoding:\tchunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
		"Transfer.Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "X: y\nTransfer-Encoding: chunked\nContent-Length: 3\n\n0\r\n\r\n", "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "Transfer-Encoding: chunked;x\r\n\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n0\n\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\n", "Transfer-Encoding: chunked\r\n\r\n3\r\nabcX0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n3;\nx\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0_0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0;x=\"\n\"\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n 0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\nT\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\nHost: evil\nX: y\r\n\r\n",
	} {
		out = append(out, attack{raw: postRaw + head + hidden}, attack{raw: postRaw + "Connection: keep-alive, Content-Length\r\n" + head + hidden})
	}
	out = append(out, raws("POST /public/a HTTP/1.0\r\nHost: gateway.test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+hidden,
		"POST /public/a HTTP/1.1\r\nHost: gateway.test\r\n Content-Length: 5\r\n\r\n"+hidden)...)
	return out
}

// catalogue names every class of attacks on products like this one.
var catalogue = []class{
	{id: "oauth2-proxy CVE-2025-54576", what: "the query counts as path", attacks: queries},
	{id: "oauth2-proxy CVE-2025-64484", what: "_ for - in names", attacks: with(forgedIdentity...)},
	{id: "oauth2-proxy CVE-2026-34457", what: "a header switches authentication off", subtle: true, attacks: onPrivate("User-Agent: GoogleHC/1.0", "User-Agent: kube-probe/1.30", "User-Agent: ELB-HealthChecker/2.0", "X-Health-Check: 1", "X-Middleware-Subrequest: middleware", "Authorization: none", "X-Skip-Auth: true", "Purpose: prefetch")},
	{id: "oauth2-proxy CVE-2026-40575, CVE-2026-76835", what: "X-Forwarded-Uri is believed", attacks: with(named("X-Forwarded-Uri", "X-Original-Uri", "X-Forwarded-Path", "X_Forwarded_Uri")...), by: []string{"TestForwardedHeadersAfreshOrContinued", "TestClientAddress"}},
	{id: "oauth2-proxy CVE-2026-41059", what: "fragments", attacks: fragments},
	{id: "oauth2-proxy CVE-2026-40574", what: "an address with two @", by: []string{"oidc.TestHostileEmails", "policy.TestAttackClaimParsing"}},
	{id: "oauth2-proxy CVE-2026-34454, CVE-2021-21291, CVE-2021-21411", what: "sessions, open redirects, options silently off", none: "no login pages and no redirects of the gateway's own; options are strict", by: []string{"cmd.TestRefused", "policy.TestBrokenPolicies"}},
	{id: "Pomerium CVE-2023-33189", what: "a crafted request is judged as another", attacks: slices.Concat(dotSegments, encodedTwice, slashes), by: []string{"policy.TestAttackPathMismatch", "TestPolicyIsOnePerRequest"}},
	{id: "Pomerium CVE-2021-29652, CVE-2021-29651", what: "signature not verified, tokens leak by redirects", none: "no redirects with tokens", by: []string{"firebase.TestHostileTokens", "oidc.TestHostileTokens"}},
	{id: "Pomerium CVE-2024-39315, CVE-2022-24797, CVE-2021-41230", what: "tokens shown, secrets exposed, stale claims", by: []string{"TestSecretsStayOut", "TestAssertionsAreNotInTheLog", "cmd.TestSecretsAreNeverPrinted", "firebase.TestCachedTokenOfARevokedUser", "oidc.TestCacheEndsExactlyAsVerification"}},
	{id: "Oathkeeper CVE-2026-33494", what: "dot segments", attacks: dotSegments, by: []string{"TestTargets", "FuzzCanonical"}},
	{id: "Oathkeeper CVE-2026-33496, CVE-2021-32701, GHSA-qvp4", what: "a cached decision answers another question", by: []string{"policy.TestAttackAuthCacheKeyConfusion", "oidc.TestCacheForAnotherSet", "TestLookupKeysDoNotCollide"}},
	{id: "Oathkeeper CVE-2026-33495", what: "X-Forwarded-Proto is believed", subtle: true, attacks: with("X-Forwarded-Proto: evil", "x_forwarded_proto: evil", "X-Forwarded-Scheme: evil", "X-Forwarded-Ssl: evil", "Front-End-Https: on", "X-Url-Scheme: evil"), by: []string{"TestOriginOfAnotherScheme"}},
	{id: "Oathkeeper GHSA-w9mr-28mw-j8hg", what: "Connection takes the identity off", attacks: hopByHop(), by: []string{"TestHopByHopIdentityHeader", "TestConnectionDoesNotDeleteWhatIsSet"}},
	{id: "Traefik CVE-2024-45410, CVE-2026-29054", what: "Connection takes X-Forwarded-* off", subtle: true, attacks: onPrivate("Connection: X-Forwarded-For, x-real-ip", "connection: x-forwarded-host", "CONNECTION: X-Forwarded-Proto, close"), by: []string{"TestHopByHopHeaders"}},
	{id: "Traefik CVE-2023-47106", what: "a fragment in the target", attacks: fragments},
	{id: "Traefik CVE-2025-32431, CVE-2025-47952, CVE-2025-66490, CVE-2026-40912, CVE-2026-48020, CVE-2026-65600", what: "Path and RawPath differ", attacks: slices.Concat(dotSegments, encodedTwice, slashes, spelled), by: []string{"TestTargetsEndToEnd", "policy.TestAttackPathMismatch"}},
	{id: "Traefik CVE-2026-33433, CVE-2026-39858, CVE-2026-54763", what: "aliases of identity headers", attacks: with(forgedIdentity...)},
	{id: "Traefik CVE-2026-35051, CVE-2026-54764, CVE-2024-52003", what: "X-Forwarded-Prefix and -Port", attacks: with(named("X-Forwarded-Prefix", "X-Forwarded-Port", "x_forwarded_prefix", "X-Script-Name", "X-Forwarded-Server")[:3]...)},
	{id: "Traefik CVE-2026-26998", what: "answers without bounds", by: []string{"TestMemoryIsConstant", "TestF15UpstreamAnswersGarbage", "oidc.TestKeySetForms", "firebase.TestNoAnswersOfFirebase"}},
	{id: "Traefik CVE-2026-26999, CVE-2024-28869", what: "slow callers; a bad Content-Length loops", by: []string{"TestStalledCaller", "TestSlowReader", "TestDrippedPresignBody", "TestAmbiguousFraming", "demo.TestF26SlowCallers"}},
	{id: "Traefik CVE-2026-71324", what: "CONNECT poisons the pool", attacks: connects()},
	{id: "Traefik CVE-2026-71326", what: "two callers share one answer", by: []string{"policy.TestAttackIdentityMixUp", "TestLookupKeysDoNotCollide", "firebase.TestOneMemoryOfAUser"}},
	{id: "Traefik CVE-2026-32595, CVE-2026-41263", what: "timing tells users apart", none: "no passwords, no API keys: no secret is compared with what a caller sends"},
	{id: "Traefik CVE-2022-23469, CVE-2026-41181", what: "Authorization in a log", by: []string{"TestSecretsStayOut", "TestAssertionsAreNotInTheLog", "TestSessionCookieIsInNoLog"}},
	{id: "Traefik CVE-2024-39321, GHSA-7jmw", what: "lists of addresses, IPv4 in IPv6", by: []string{"policy.TestAddresses", "TestClientAddress", "FuzzClientAddress"}},
	{id: "Envoy CVE-2019-9900, CVE-2019-9901", what: "NUL in a header; paths as they come", attacks: slices.Concat(controls, raws(request("GET", "/public/a", "", "X-Sidegate-Uid\x00: evil"), request("GET", "/public/a", "", "X: a\x00evil"), request("GET", "/public/a", "", "X: a\rX-Sidegate-Uid: evil")), dotSegments)},
	{id: "Envoy CVE-2020-25017", what: "of two headers only one is looked at", attacks: append(tokensTwice(), with("X-Sidegate-Uid: alice", "X-Sidegate-Uid: evil", "X-Forwarded-User: alice", "X-Forwarded-User: evil")...), by: []string{"TestTwoAuthorizationHeaders", "TestTwoHosts", "TestTwoSessionCookiesSaySo"}},
	{id: "Envoy CVE-2021-29492, Istio CVE-2021-31920", what: "%2f, %5c and //", attacks: slashes},
	{id: "Envoy CVE-2021-32779", what: "a fragment in the path", attacks: fragments},
	{id: "Envoy CVE-2021-21378", what: "a token of an unknown issuer passes as none", subtle: true, attacks: badTokens(), by: []string{"oidc.TestSetPicksByIssuerAndAudience", "TestEveryRefusal"}},
	{id: "Envoy CVE-2022-29226", what: "any token will do", subtle: true, attacks: badTokens(), by: []string{"firebase.TestHostileTokens", "oidc.TestHostileTokens"}},
	{id: "Envoy CVE-2023-27487, CVE-2024-45806", what: "X-Envoy-* of a caller", attacks: with(named("X-Envoy-Original-Path", "x-envoy-internal", "X_Envoy_External_Address", "X-Envoy-Decorator-Operation")...)},
	{id: "Envoy CVE-2024-45808", what: "lines in the access log", by: []string{"TestLogInjection", "TestTerminalEscapesInTheLog", "TestNaughtyStrings", "audit.TestHostileValuesStayOneLine"}},
	{id: "Envoy CVE-2025-64527, CVE-2024-45809", what: "two tokens and no keys crash it", attacks: append(tokensTwice(), attack{method: "GET", target: "/private/a", token: "away", lines: []string{"Authorization: Bearer away"}}), by: []string{"TestPanics", "firebase.TestNoKeysIsUnavailable"}},
	{id: "Envoy CVE-2025-64763", what: "bytes behind CONNECT", attacks: connects()},
	{id: "Envoy CVE-2026-73511, CVE-2026-73553", what: "; parameters", attacks: parameters},
	{id: "Envoy CVE-2026-73552", what: "bytes that are not UTF-8 open a rule", attacks: slices.Concat(get("/public/%ff/../../admin/a", "/admin%ff/../admin/a", "/%ffadmin/../admin/a"), raws(request("GET", "/admin/a\xff", ""), request("GET", "/public/\xff/../../admin/a", ""), request("GET", "/admin/a", "", "User-Agent: \xff"))), by: []string{"TestInvalidUTF8", "policy.TestAttackRegexOfTheCaller"}},
	{id: "Envoy PR 44525", what: "upgrades are cleaned less", attacks: upgrades(), by: []string{"TestWebSocketTellsWhoCalls", "TestConnectionDoesNotDeleteWhatIsSet"}},
	{id: "OPA-Envoy CVE-2026-26205", what: "//admin/x names an authority", attacks: slashes},
	{id: "Caddy CVE-2026-27587, CVE-2026-27588", what: "case of encoded paths, long lists", attacks: spelled, by: []string{"policy.TestAttackHostMatching", "policy.TestLintCase"}},
	{id: "Caddy CVE-2026-30851, CVE-2026-52845", what: "a caller's header where the identity has none", attacks: with(named("X-Sidegate-Actor", "X-Sidegate-Tenant", "X-Sidegate-Roles", "X-Sidegate-Claims", "x_sidegate_actor", "X.Sidegate.Tenant")...), by: []string{"TestForgedIdentityHeaders", "TestIdentityHeadersOnPublicRoutes"}},
	{id: "Caddy CVE-2026-27586", what: "mutual TLS without its authorities", by: []string{"cmd.TestListenWithBadFiles", "cmd.TestListenWithMutualTLS"}},
	{id: "Caddy CVE-2026-27589, GHSA-gx7w-56w6, CVE-2026-45692", what: "the admin API", none: "the admin listener changes nothing, and is another listener", by: []string{"cmd.TestAdminListener"}},
	{id: "Caddy CVE-2026-52844, CVE-2026-27590", what: "%5c; folding of Unicode", attacks: slices.Concat(slashes, spelled, get("/public/..%ef%bc%8fadmin/../../admin/a", "/%e2%84%aa/../admin/a")), by: []string{"TestHosts"}},
	{id: "Caddy CVE-2022-28923", what: "open redirects", none: "nothing is redirected but downloads, to the object store"},
	{id: "KrakenD CVE-2025-22868", what: "a library's", none: "advisories of dependencies are govulncheck's, in CI"},
	{id: "nginx issue 1472, CVE-2019-20372, off by a slash", what: "Upgrade passes rules; error pages; /pub..; underscores", attacks: slices.Concat(upgrades(), get("/public../admin/a", "/public..%2fadmin/a", "/public%2e%2e/admin/a"), with(named("X_Sidegate_Uid")...))},
	{id: "mod_auth_openidc CVE-2021-32786, CVE-2021-39191, CVE-2022-23527, CVE-2019-14857", what: "open redirects of logins", none: "no login pages"},
	{id: "mod_auth_openidc CVE-2017-6413, CVE-2017-6062, changelog", what: "identity headers stay where nobody must sign in", attacks: with(named("OIDC_CLAIM_sub", "OIDC-Claim-Email", "oidc_access_token", "Remote-User", "REMOTE_USER", "X-Remote-User")...), by: []string{"TestIdentityHeadersOnPublicRoutes", "TestForeignIdentityHeaders"}},
	{id: "mod_auth_openidc changelog 2.4", what: "alg none, inflated JWE, no exp, parameters twice, credentials in logs", by: []string{"oidc.TestHostileTokens", "firebase.TestHostileTokens", "TestSecretsStayOut"}},
	{id: "mod_auth_openidc CVE-2025-3891, CVE-2024-24814, CVE-2023-28625", what: "an empty POST or a crafted cookie crashes it", subtle: true, attacks: append(raws(postRaw+"\r\n", postRaw+"Content-Length: 0\r\n\r\n", postRaw+"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n\r\n"), with("Cookie:", "Cookie: =", "Cookie: __session", "Cookie: "+strings.Repeat(";", 2000), "Cookie: a="+strings.Repeat("b", 8000), "Cookie: __session=\"")...), by: []string{"FuzzDropCookies"}},
	{id: "Go CVE-2021-33197, issue 50580", what: "hop-by-hop names after Director", attacks: hopByHop()},
	{id: "Go CVE-2022-2880, CVE-2026-39825", what: "parameters that the gateway does not see", subtle: true, attacks: get("/public/a?a=%zz", "/public/a?a;b=c", "/public/a?"+strings.Repeat("a&", 10_001), "/public/a?a=%", "/public/a?\x7f"), by: []string{"TestQueryNotMatched"}},
	{id: "Go CVE-2025-22871, CVE-2023-39326, CVE-2022-1705, CVE-2019-16276", what: "framing", attacks: smuggling(), by: []string{"TestAmbiguousFraming", "TestFramingIsNetHTTPs", "FuzzFraming", "TestGuardStandsAlone"}},
	{id: "Go CVE-2023-29406", what: "bytes in Host", attacks: raws(
		"GET /public/a HTTP/1.1\r\nHost: gateway.test\r\nHost: evil\r\n\r\n", "GET /public/a HTTP/1.1\r\nHost: gateway.test\rX-Sidegate-Uid: evil\r\n\r\n", "GET /public/a HTTP/1.1\r\nHost: a/admin\r\n\r\n", "GET /public/a HTTP/1.1\r\nHost: evil@gateway.test\r\n\r\n",
		"GET /public/a HTTP/1.1\r\nHost: gateway.test evil\r\n\r\n", "GET /public/a HTTP/1.1\r\nHost : evil\r\nHost: gateway.test\r\n\r\n", "GET http://evil%2f/public/a HTTP/1.1\r\nHost: gateway.test\r\n\r\n", "GET /public/a HTTP/1.1\r\n Host: evil\r\nHost: gateway.test\r\n\r\n"), by: []string{"TestHosts", "TestHostWithManyFinalDots", "TestHTTP2Frames"}},
	{id: "Go CVE-2024-24791", what: "Expect poisons a connection", attacks: raws(
		postRaw+"Expect: 100-continue\r\nContent-Length: 70\r\n\r\n"+hidden, postRaw+"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"+hidden, postRaw+"Expect: evil\r\nContent-Length: 0\r\n\r\n"+hidden,
		"GET /public/a HTTP/1.1\r\nHost: gateway.test\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"+hidden), by: []string{"TestRefusedBeforeContinue"}},
	{id: "Go CVE-2023-39325, CVE-2023-45288, CVE-2026-33814, CVE-2026-27141", what: "floods of frames", by: []string{"TestHTTP2Floods"}},
	{id: "Go CVE-2026-56853", what: "the check for h2c waits for ever", by: []string{"TestHTTP2PrefaceThatStalls"}},
	{id: "Go CVE-2025-61726, CVE-2026-56860, CVE-2026-42507, CVE-2025-58186", what: "memory and time of queries, dots and cookies; input in errors", subtle: true, attacks: append(get("/public/a?"+strings.Repeat("a=b&", 1001), "/public/"+strings.Repeat("../", 1300)), with("Cookie: "+strings.Repeat("a=b;", 3000))...), by: []string{"TestQueryNotMatched", "TestTerminalEscapesInTheLog"}},
	{id: "x/net CVE-2022-41721", what: "the body of an upgrade to h2c is a request", attacks: h2cUpgrades()},
	{id: "grpc-go CVE-2026-33186, GHSA-hrxh-6v49-42gf", what: ":path without a slash", attacks: raws("GET admin/a HTTP/1.1\r\nHost: gateway.test\r\n\r\n", "POST admin/a HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n"), by: []string{"TestHTTP2Frames"}},
	{id: "golang-jwt CVE-2020-26160, CVE-2024-51744, CVE-2025-30204", what: "audiences in a list, errors, dots", by: []string{"oidc.TestCheckAudience", "oidc.TestHostileTokens", "oidc.TestHostileTokensCostLittle"}},
	{id: "go-jose CVE-2024-28180, GHSA-2c7c, CVE-2025-27144, CVE-2026-34986", what: "JWE bombs, PBES2, dots", by: []string{"oidc.TestHostileTokens", "oidc.TestWycheproofJWE", "oidc.TestHostileTokensCostLittle"}},
	{id: "jwx, jwkset CVE-2024-28122, CVE-2024-21664, CVE-2025-22149", what: "JWE bombs, panics, keys that were withdrawn", by: []string{"oidc.TestCacheForgetsWhenAKeyIsWithdrawn", "oidc.TestKeyRotation", "oidc.TestHostileTokens"}},
	{id: "yaml.v3 CVE-2022-28948", what: "YAML that panics", by: []string{"policy.FuzzLoad", "cmd.FuzzConfig"}},
	{id: "firebase-admin-go", what: "none known", by: []string{"firebase.TestNeverAcceptsWhatTheAdminSDKRejects"}},
	{id: "Kong 3.2, CVE-2021-27306, CVE-2020-11710", what: "two tokens in two places, routes without authentication, the admin API", attacks: append(tokensTwice(), get("/private/a?access_token=alice", "/private/a?jwt=alice", "/private/a?token=alice")...), by: []string{"TestAuthorizationBeforeCookies", "cmd.TestAdminListener"}},
	{id: "APISIX CVE-2021-43557, CVE-2022-24112, CVE-2026-31908, CVE-2026-39999, CVE-2026-44087, CVE-2026-49230", what: "//, X-Real-Ip, injected headers, RS256 for HS256, forged identities, JWE", attacks: slices.Concat(slashes, with(named("X-Real-Ip", "x_real_ip", "X-Userinfo", "X-Consumer-Username")...)), by: []string{"TestForwardedHeaderSpoof", "oidc.TestHostileAlgorithmOfThePublishedKey", "TestAssertionInjection", "FuzzHeaderValue"}},
	{id: "nghttpx CVE-2026-58055", what: "Upgrade with a body", attacks: h2cUpgrades(), by: []string{"TestNothingFollowsAnUpgrade", "TestRefusedUpgradeEndsTheConnection"}},
	{id: "Keycloak Gatekeeper CVE-2020-14359", what: "names in lower case", attacks: with(forgedIdentity...), by: []string{"TestStripList"}},
	{id: "Vault CVE-2024-5798, CVE-2024-8365", what: "audiences not bound, tokens in the audit log", by: []string{"oidc.TestCheckAudience", "TestSecretsStayOut"}},

	{id: "hostile tokens", by: []string{"firebase.TestEveryClassOfAttacksIsThere", "firebase.TestHostileTokens", "firebase.TestTimesAtEveryEdge", "firebase.TestHostileCookies", "firebase.TestHostileAppCheckTokens", "oidc.TestHostileTokens"}},
	{id: "JWS primitives", by: []string{"oidc.TestWycheproofJWS", "oidc.TestWycheproofPrimitives"}},
	{id: "key sets asked for unknown kids", by: []string{"oidc.TestUnknownKeyFlood", "oidc.TestDiscoveryUnknownKeyFlood"}},
	{id: "requests forged by jku and x5u", by: []string{"firebase.TestServerSideRequestForgeryByHeader", "oidc.TestHostileURLsAreNotFetched"}},
	{id: "JWE and zip bombs, deep JSON", by: []string{"oidc.TestHostileTokensCostLittle", "oidc.TestWycheproofJWE"}},
	{id: "the uid as an object's key", by: []string{"policy.TestAttackUIDAsObjectKey", "policy.FuzzKey", "oidc.TestHostileUIDPaths"}},
	{id: "timing", none: "no secret is compared with what a caller sends: tokens are public-key signatures, cached by their SHA-256, sessions are found by random names beside their owner"},
	{id: "slow headers, bodies, readers", by: []string{"TestStalledCaller", "TestSlowReader", "TestDrippedPresignBody", "TestSlowBodyOfARefusedRequest", "TestRefusedConnectionIsNotHeld", "demo.TestF26SlowCallers"}},
	{id: "bodies without end", by: []string{"TestTooLarge", "TestMemoryIsConstant"}},
	{id: "HTTP/2", by: []string{"TestHTTP2Frames", "TestHTTP2Floods"}},
	{id: "cache poisoning", none: "nothing is cached", by: []string{"TestPassedThrough", "demo.TestCacheTests"}},
	{id: "log injection", by: []string{"TestNaughtyStrings", "TestLogInjection", "audit.FuzzEventLine"}},
	{id: "tunnels", by: []string{"TestWebSocket", "TestTunnelIsNotWatched"}},
	{id: "trailers", attacks: trailerAttacks(), by: []string{"TestRequestTrailersAreDropped", "TestAnswersDoNotSpeakForTheGateway", "TestHTTP2Frames"}},
	{id: "overriding headers", attacks: with(named("X-Original-Url", "X-Rewrite-Url", "X-Original-Uri", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X_HTTP_Method_Override", "X-Host", "X-Original-Host", "X-Middleware-Subrequest", "Proxy", "X-Forwarded-Method")...)},
	{id: "methods", attacks: methods()},
}

// onPrivate are requests for what is protected, of nobody, with these lines.
func onPrivate(lines ...string) (out []attack) {
	for _, l := range lines {
		out = append(out, attack{method: "GET", target: "/private/a", lines: []string{l}}, attack{method: "GET", target: "/admin/a", token: "alice", lines: []string{l}},
			attack{method: "GET", target: "/own/alice", token: "alice", lines: []string{l}})
	}
	return out
}

func badTokens() (out []attack) {
	for _, token := range []string{"bad", "away", "odd", "nobody", "empty", "panic", "null", "undefined", strings.Repeat("a", 9000)} {
		out = append(out, attack{method: "GET", target: "/private/a", token: token}, attack{method: "GET", target: "/optional/a", token: token, lines: []string{"X-Sidegate-Uid: evil"}})
	}
	return out
}

// last are attacks behind which nothing is a request.
func last(all []attack) []attack {
	for i := range all {
		all[i].last = true
	}
	return all
}

func connects() []attack {
	return append(last(raws("CONNECT gateway.test:80 HTTP/1.1\r\nHost: gateway.test:80\r\n\r\n"+hidden, "CONNECT /admin/a HTTP/1.1\r\nHost: gateway.test\r\n\r\n"+hidden, "CONNECT /public/a HTTP/1.1\r\nHost: gateway.test\r\n\r\n"+hidden,
		"CONNECT evil:80 HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 5\r\n\r\n"+hidden, "TRACE /public/a HTTP/1.1\r\nHost: gateway.test\r\n\r\n"+hidden, "TRACK /public/a HTTP/1.1\r\nHost: gateway.test\r\n\r\n"+hidden)),
		attack{method: "TRACE", target: "/public/a"}, attack{method: "CONNECT", target: "/public/a"}, attack{method: "CONNECT", target: "/admin/a"})
}

func upgrades() (out []attack) {
	for _, upgrade := range []string{"websocket", "WebSocket", "h2c", "TLS/1.0", "foo", "websocket, h2c", ""} {
		for _, target := range []string{"/public/a", "/private/a", "/admin/a", "/socket"} {
			out = append(out, attack{raw: "GET " + target + " HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade, X-Sidegate-Uid\r\nUpgrade: " + upgrade + "\r\nX-Sidegate-Uid: evil\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" + hidden})
		}
	}
	return last(out)
}

func h2cUpgrades() (out []attack) {
	for _, body := range []string{"Content-Length: 5\r\n\r\nabcde", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "Content-Length: 80\r\n\r\n"} {
		out = append(out, attack{raw: postRaw + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n" + body + hidden + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"})
	}
	return last(append(out, raws("PRI * HTTP/2.0\r\n\r\n"+hidden, "PRI * HTTP/2.0\r\n\r\nSM\r\n"+hidden, lastRequest[:len(lastRequest)-21]+"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+hidden)...))
}

func trailerAttacks() (out []attack) {
	for _, name := range []string{"X-Sidegate-Uid", "x_sidegate_uid", "X-Forwarded-User", "Authorization", "Host", "X-Real-Ip"} {
		out = append(out, raws(postRaw+"Trailer: "+name+"\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"+name+": evil\r\n\r\n", postRaw+"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"+name+": evil\r\n\r\n")...)
	}
	return append(out, raws(postRaw+"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: evil\r\n\r\n"+hidden, postRaw+"Trailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: evil\r\n\r\n"+hidden)...)
}

func methods() (out []attack) {
	for _, m := range []string{"get", "Get", "TRACE", "TRACK", "DEBUG", "PROPFIND", "GETX", "M-SEARCH", "PRI"} {
		out = append(out, attack{method: m, target: "/admin/a"}, attack{method: m, target: "/public/a"}, attack{method: m, target: "/private/a"})
	}
	for _, m := range []string{"HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "POST"} {
		out = append(out, attack{method: m, target: "/admin/a"}, attack{method: m, target: "/private/a"}, attack{method: m, target: "/own/bob", token: "alice"})
	}
	return out
}

// TestCatalogue: none of what was done to others works here, over HTTP/1.1 and
// over HTTP/2; and the careless app alone would have fallen to it.
func TestCatalogue(t *testing.T) {
	a := newArena(t)
	for _, c := range catalogue {
		t.Run(strings.ReplaceAll(c.id, "/", "-"), func(t *testing.T) {
			worth := c.subtle || len(c.attacks) == 0
			for _, k := range c.attacks {
				a.attack(t, k)
				worth = worth || a.direct(k)
			}
			if !worth {
				t.Error("nothing of it would do anything to a careless app: the attacks are too weak")
			}
		})
	}
	a.alive(t)
	t.Logf("%d attacks over HTTP/1.1, %d over HTTP/2", a.sent["HTTP/1.1"], a.sent["HTTP/2"])
	if a.sent["HTTP/1.1"] < 1000 || a.sent["HTTP/2"] < 1000 {
		t.Error("attacks are missing")
	}
}

// TestCatalogueBehindOpenDoors: the same attacks where every path that is not
// protected is public. The app is one that keeps to the case of paths: without
// that the linter warns of such a policy (SG115).
func TestCatalogueBehindOpenDoors(t *testing.T) {
	a := newArena(t, func(o *Options) {
		open := "\n  - {id: open, path: \"/{rest...}\", methods: [GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS], allow: public, upstream: app}\n"
		o.Policy = loadPolicy(t, strings.TrimRight(testPolicy, "\n")+open)
	})
	a.exact = true
	for _, c := range catalogue {
		for _, k := range c.attacks {
			a.attack(t, k)
		}
	}
	a.alive(t)
	t.Logf("%d attacks over HTTP/1.1, %d over HTTP/2", a.sent["HTTP/1.1"], a.sent["HTTP/2"])
}

// TestCatalogueIsWhole: every class is attacked, tested elsewhere by a test
// that exists, or has a reason.
func TestCatalogueIsWhole(t *testing.T) {
	known := map[string]bool{}
	for name, folder := range map[string]string{"": ".", "oidc": "oidc", "firebase": "firebase", "policy": "../policy", "audit": "../storage/audit", "cmd": "../cmd", "demo": "../examples/demo"} {
		files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(folder, err)
		}
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
					known[strings.TrimPrefix(name+"."+fn.Name.Name, ".")] = true
				}
			}
		}
	}
	ids := map[string]bool{}
	for _, c := range catalogue {
		if ids[c.id] {
			t.Errorf("%s is there twice", c.id)
		}
		ids[c.id] = true
		if len(c.attacks) == 0 && len(c.by) == 0 && c.none == "" {
			t.Errorf("%s: nobody tests it", c.id)
		}
		for _, test := range c.by {
			name := test[strings.LastIndexByte(test, '.')+1:]
			if !known[test] || !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Fuzz") {
				t.Errorf("%s: there is no test %s", c.id, test)
			}
		}
	}
}
