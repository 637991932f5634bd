package proxy

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"sidegate/policy"
)

func needsIdentity(r *policy.Route) bool { return r.Access == policy.AccessList }

// identify finds out who calls, as far as the route asks: by the bearer token
// or, where there is no Authorization header at all, by a session cookie.
func (x *exchange) identify() (decision, bool) {
	if x.match.Route.Access == policy.AccessPublic {
		return decision{}, true
	}
	header, authorization := x.r.Header["Authorization"]
	if !authorization {
		if name, value, there := x.sessionCookie(); there {
			return x.identifyByCookie(name, value)
		}
		return x.anonymous()
	}
	token, bearer := bearerToken(header[0])
	if !bearer {
		return x.anonymous()
	}
	id, err := x.p.o.Authenticator.Authenticate(x.ctx, token)
	if d, ok := x.unverified(id, err); !ok {
		return d, false
	}
	x.saw(id.Name, callerVerified)
	x.identity, x.input.Identity = id, id
	x.shown = credential{x.p.o.Authenticator, token}
	return decision{}, true
}

// anonymous is who shows nothing.
func (x *exchange) anonymous() (decision, bool) {
	x.saw("", callerNone)
	if needsIdentity(x.match.Route) {
		return refuse(codeNoToken, &problem{status: http.StatusUnauthorized, code: codeNoToken, detail: "a bearer token is needed here"}), false
	}
	return decision{}, true
}

// unverified is why there is no identity: 401 where the token is bad, 503 where
// it cannot be told.
func (x *exchange) unverified(id *policy.Identity, err error) (decision, bool) {
	if err == nil && id != nil && id.UID != "" {
		return decision{}, true
	}
	var bad *TokenError
	if errors.As(err, &bad) {
		x.saw(identityOf(err), callerInvalid)
		return refuse(codeInvalidToken, &problem{status: http.StatusUnauthorized, code: codeInvalidToken, detail: bad.Reason, challenge: codeInvalidToken, cause: bad}), false
	}
	x.saw(identityOf(err), callerUnavailable)
	if err == nil {
		err = errors.New("the authenticator gave nobody")
	}
	return refuse(codeUnavailable, unavailable("the token cannot be verified now", err)), false
}

// bearerToken reads an Authorization header (RFC 6750, section 2.1; the scheme
// without regard to case, RFC 9110, section 11.1).
func bearerToken(header string) (token string, bearer bool) {
	const scheme = "Bearer"
	if len(header) < len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return "", false
	}
	rest := header[len(scheme):]
	if rest != "" && isTokenByte(rest[0]) {
		return "", false // a longer name
	}
	// Only a space separates, but some readers take a tab for one, a no-break
	// space or a comma: they stay in the token, which is malformed then, and is
	// not passed on as something else.
	return strings.TrimLeft(rest, " "), true
}

// saysBearer reports whether some reader could find a bearer token in an
// Authorization header: behind what it takes for white space, or for another
// scheme's end.
func saysBearer(header string) bool {
	const scheme = "bearer"
	for i := 0; i+len(scheme) <= len(header); i++ {
		if !strings.EqualFold(header[i:i+len(scheme)], scheme) || i > 0 && isTokenByte(header[i-1]) {
			continue
		}
		if end := i + len(scheme); end == len(header) || !isTokenByte(header[end]) {
			return true
		}
	}
	return false
}

// isTokenByte is tchar of RFC 9110, section 5.6.2.
func isTokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// sessionCookie finds the one session cookie of a request. Several, of one name
// or of two, are nobody's, and have no name here: another site of the same domain
// can set one beside the user's own. An empty one is what a sign-out leaves.
func (x *exchange) sessionCookie() (name, value string, there bool) {
	if len(x.p.o.SessionCookies) == 0 {
		return "", "", false
	}
	for _, line := range x.r.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			n, v, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
			if x.p.o.SessionCookies[n] == nil || v == "" {
				continue
			}
			if there {
				return "", "", true
			}
			name, value, there = n, v, true
		}
	}
	return name, value, there
}

// identifyByCookie verifies a session cookie. A browser sends it whoever made it
// send the request: what can change something must come from the gateway's own
// site, a GET too where it can lead to a write. The cookie is verified first, so
// that the record says whose it was.
func (x *exchange) identifyByCookie(name, value string) (decision, bool) {
	var id *policy.Identity
	var err error
	if name == "" {
		err = &TokenError{Reason: "more than one session cookie came"}
	} else {
		id, err = x.p.o.SessionCookies[name].Authenticate(x.ctx, value)
	}
	if d, ok := x.unverified(id, err); !ok {
		if d.reason == codeInvalidToken && !needsIdentity(x.match.Route) {
			return decision{}, true // a browser sends old cookies unasked
		}
		return d, false
	}
	x.identity, x.input.Identity = id, id
	x.shown = credential{x.p.o.SessionCookies[name], value}
	if (!safeMethod(x.match.Route.CountsAs(x.r.Method)) || x.wantsWebSocket()) && !x.sameOrigin() && !x.fromAllowedOrigin() {
		x.saw(id.Name, callerCrossOrigin)
		return refuse(codeCrossOrigin, &problem{status: http.StatusForbidden, code: codeCrossOrigin, detail: "a session cookie counts only for requests from this site"}), false
	}
	x.saw(id.Name, callerVerified)
	return decision{}, true
}

// safeMethod is RFC 9110, section 9.2.1, of the methods that there are here.
func safeMethod(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// sameOrigin goes by Sec-Fetch-Site (W3C Fetch Metadata), which no page can set;
// browsers without it say the origin. Who says neither is refused.
func (x *exchange) sameOrigin() bool {
	if site, ok := x.r.Header["Sec-Fetch-Site"]; ok {
		return len(site) == 1 && (site[0] == "same-origin" || site[0] == "none")
	}
	origin := x.r.Header["Origin"]
	if len(origin) != 1 {
		return false
	}
	u, err := url.Parse(origin[0])
	if err != nil || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return false
	}
	port := map[string]string{"http": ":80", "https": ":443"}[u.Scheme]
	_, from, err := canonicalHost(u.Host)
	if err != nil || port == "" || from == "" {
		return false
	}
	if scheme := x.scheme(); scheme != "" && scheme != u.Scheme {
		return false
	}
	return strings.TrimSuffix(from, port) == strings.TrimSuffix(x.target.hostPort, port)
}

// scheme is how the caller asked, as far as that is known: before an unknown
// proxy http may be https.
func (x *exchange) scheme() string {
	if x.r.TLS != nil {
		return "https"
	}
	// Other words are proxies' own, such as wss.
	if v := x.r.Header["X-Forwarded-Proto"]; x.trusted && len(v) == 1 && (v[0] == "http" || v[0] == "https") {
		return v[0]
	}
	return ""
}

// dropCookies removes cookies of these names from a request and leaves the
// others as they came.
func dropCookies(h http.Header, names map[string]Authenticator) {
	lines := h["Cookie"]
	isOurs := func(pair string) bool {
		name, _, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
		return names[strings.TrimRight(name, " \t")] != nil
	}
	if len(names) == 0 || !anyPair(lines, isOurs) {
		return
	}
	var kept []string
	for _, line := range lines {
		left := slices.DeleteFunc(strings.Split(line, ";"), isOurs)
		if line = strings.Trim(strings.Join(left, ";"), " \t"); line != "" {
			kept = append(kept, line)
		}
	}
	if kept == nil {
		h.Del("Cookie")
		return
	}
	h["Cookie"] = kept
}

func anyPair(lines []string, is func(string) bool) bool {
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			if is(pair) {
				return true
			}
		}
	}
	return false
}

// errNotLookedAt stands for App Check until it is looked at: what refuses
// before does not put on record that nobody vouched.
var errNotLookedAt = errors.New("not looked at for App Check")

// headerAppCheck is where Firebase's SDKs send App Check tokens.
const headerAppCheck = "X-Firebase-Appcheck"

// checkApp finds out whether App Check vouches for the app that calls, where
// the route asks for it. For a caller with an identity only the App Check of
// that identity's project counts; for nobody, that of any. A bad token is none:
// apps send one also when they could not get one.
func (x *exchange) checkApp() {
	if x.given == nil && !x.match.Route.AsksAppCheck() {
		return // and it is not on record that nobody vouched
	}
	outcome := x.askAppCheck()
	if x.given == nil {
		x.p.metrics.appChecks.WithLabelValues(outcome).Inc()
	}
}

func (x *exchange) askAppCheck() (outcome string) {
	x.input.AppCheckFailure = nil
	tokens := x.r.Header[headerAppCheck]
	if len(tokens) != 1 {
		return callerNone
	}
	outcome = callerInvalid   // also where no project is asked
	var asked []Authenticator // tenants of one project share theirs
	for name, project := range x.p.o.AppCheck {
		if x.identity != nil && x.identity.Name != name || slices.Contains(asked, project) {
			continue
		}
		asked = append(asked, project)
		app, err := project.Authenticate(x.ctx, tokens[0])
		var bad *TokenError
		switch {
		case err == nil && app != nil:
			x.input.AppCheck, x.input.AppCheckFailure = true, nil
			return callerVerified
		case errors.As(err, &bad):
			if x.appCheck == "" {
				x.appCheck = bad.Reason
			}
		case err != nil:
			x.input.AppCheckFailure, outcome = err, callerUnavailable
		}
	}
	return outcome
}
