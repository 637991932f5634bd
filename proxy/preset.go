package proxy

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"sidegate/policy"
)

// Headers say how an upstream is told who calls; the zero Headers tell nothing.
// Nothing is told of nobody, and a header whose value would be empty is not
// sent.
type Headers struct {
	// Preset is their name: native, oauth2-proxy, esp, map; empty: none.
	Preset string

	tell  *teller                          // what says nothing but who calls; nil: nothing does
	each  func(h http.Header, x *exchange) // what is of one request alone; nil: nothing is
	names []string                         // that are stripped because of them
	// asserts: X-Sidegate-Assertion, or what stands for it, is among them.
	asserts bool
	// Identity and Actor: the headers say by which identity a caller was
	// verified, and who acts for it.
	Identity, Actor bool
}

// carry reports whether the caller can be told in these headers.
func (hs Headers) carry(x *exchange) bool {
	return hs.tell == nil || x.identity == nil || hs.tell.of(x).fits
}

func (hs Headers) write(h http.Header, x *exchange) {
	if hs.tell != nil {
		told := hs.tell.of(x).headers
		for i := range told {
			h[told[i].name] = told[i].value()
		}
	}
	if hs.each != nil {
		hs.each(h, x)
	}
}

func put(h http.Header, name, value string) {
	if value != "" {
		h[name] = []string{value}
	}
}

// Headers of the native preset; docs/http.md explains each.
const (
	headerUID       = "X-Sidegate-Uid"
	headerIdentity  = "X-Sidegate-Identity"
	headerEmail     = "X-Sidegate-Email"
	headerRoles     = "X-Sidegate-Roles"
	headerActor     = "X-Sidegate-Actor"
	headerTenant    = "X-Sidegate-Tenant"
	headerClaims    = "X-Sidegate-Claims"
	headerAssertion = "X-Sidegate-Assertion"
)

// NativeHeaders are sidegate's own.
func NativeHeaders() Headers {
	return Headers{
		Preset: "native", tell: nativeTeller, Identity: true, Actor: true, asserts: true,
		each: func(h http.Header, x *exchange) { put(h, headerAssertion, x.assertion) },
	}
}

// One for all upstreams: what is kept is kept once.
var (
	nativeTeller      = &teller{say: sayNative, declares: true}
	oauth2ProxyTeller = &teller{say: sayOAuth2Proxy, declares: true}
)

func sayNative(t *telling, id *policy.Identity, declared []string) {
	t.put(headerUID, headerValue(id.UID, false))
	t.put(headerIdentity, headerValue(id.Name, false))
	t.put(headerActor, headerValue(id.Actor, false))
	t.put(headerTenant, headerValue(id.Tenant, false))
	t.put(headerEmail, headerValue(verifiedEmail(id), false))
	if slices.Contains(declared, "roles") {
		t.put(headerRoles, headerList(stringList(claimOf(id, "roles"))))
	}
	t.put(headerClaims, encodeClaims(id, declared))
}

func verifiedEmail(id *policy.Identity) string {
	if !id.EmailVerified {
		return ""
	}
	return id.Email
}

// OAuth2ProxyHeaders are those of oauth2-proxy's --pass-user-headers. Their
// readers decode nothing, so that a caller of whom something could not be told
// as it is is refused.
func OAuth2ProxyHeaders() Headers {
	return Headers{Preset: "oauth2-proxy", tell: oauth2ProxyTeller}
}

func sayOAuth2Proxy(t *telling, id *policy.Identity, declared []string) {
	member := groups(id, declared)
	name, _ := claimOf(id, "preferred_username").(string)
	for _, v := range []string{id.UID, verifiedEmail(id), name} {
		t.fits = t.fits && !strings.ContainsFunc(v, unprintable)
	}
	t.fits = t.fits && !slices.ContainsFunc(member, func(g string) bool {
		return g == "" || strings.ContainsRune(g, ',') || strings.ContainsFunc(g, unprintable)
	})
	t.put("X-Forwarded-User", id.UID)
	t.put("X-Forwarded-Email", verifiedEmail(id))
	t.put("X-Forwarded-Groups", strings.Join(member, ","))
	t.put("X-Forwarded-Preferred-Username", name)
}

// unprintable is what may not stand in a header without being encoded.
func unprintable(r rune) bool { return r < 0x21 || r > 0x7e }

// groups are the claim groups or, where a token has none, the declared roles.
func groups(id *policy.Identity, declared []string) []string {
	if claim, ok := id.Claim("groups"); ok {
		return stringList(claim)
	}
	if slices.Contains(declared, "roles") {
		return stringList(claimOf(id, "roles"))
	}
	return nil
}

// ESPPrefix is where ESPv2's header begins; that of Google's API Gateway is
// X-Apigateway-.
const ESPPrefix = "X-Endpoint-"

// ESPHeaders is the header of Google's ESPv2: the claims, as the issuer wrote
// them, in base64url without padding. They hold iss and act.
func ESPHeaders(prefix string) (Headers, error) {
	name := http.CanonicalHeaderKey(prefix + "API-UserInfo")
	if err := checkHeaderName(name); err != nil {
		return Headers{}, err
	}
	return Headers{
		Preset:   "esp",
		tell:     &teller{say: func(t *telling, id *policy.Identity, _ []string) { t.put(name, id.Payload) }},
		names:    []string{name},
		Identity: true, Actor: true,
	}, nil
}

// HeaderMap are headers by name, each a text in which ${auth.uid} and the like
// stand for what is known of the caller. One in which a value is missing is not
// sent. assertions says whether there is something that signs.
func HeaderMap(templates map[string]string, assertions bool) (Headers, error) {
	out := Headers{Preset: "map"}
	var all, signed []headerTemplate
	for _, name := range slices.Sorted(maps.Keys(templates)) {
		t, err := parseHeader(templates[name])
		if err == nil {
			err = checkHeaderName(name)
		}
		t.name = http.CanonicalHeaderKey(name)
		if err == nil && slices.Contains(out.names, t.name) {
			err = errors.New("it is there twice, in two spellings")
		}
		if err == nil && t.reads("assertion") && !assertions {
			err = errors.New("${assertion} needs `assertion.key`")
		}
		if err == nil && t.reads("assertion") && !t.always("") {
			err = errors.New("beside ${assertion} there can be no value that a caller may lack: without it the assertion would not be sent")
		}
		if err != nil {
			return Headers{}, fmt.Errorf("%s: %w", name, err)
		}
		if t.reads("assertion") {
			signed = append(signed, t)
		} else {
			all = append(all, t)
		}
		out.names = append(out.names, t.name)
		out.asserts = out.asserts || t.reads("assertion")
		// An assertion says everything. A header counts only where it is sent
		// whatever else is known of the caller.
		out.Identity = out.Identity || t.always("") && (t.reads("auth.identity") || t.reads("assertion"))
		out.Actor = out.Actor || t.always("auth.actor") && (t.reads("auth.actor") || t.reads("assertion"))
	}
	out.tell = &teller{say: func(t *telling, id *policy.Identity, _ []string) {
		for i := range all {
			t.put(all[i].name, all[i].value(id, ""))
		}
	}}
	if len(signed) > 0 {
		out.each = func(h http.Header, x *exchange) {
			for i := range signed {
				put(h, signed[i].name, signed[i].value(x.identity, x.assertion))
			}
		}
	}
	return out, nil
}

var headerName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*$`)

// notForMaps are headers that say something else than who calls, beside those
// of otherNames and framing.
var notForMaps = []string{
	"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-uri", "x-forwarded-method", "x-forwarded-server",
	"accept", "accept-encoding", "accept-language", "user-agent", "referer", "via", "date", "x-firebase-appcheck",
	"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "cache-control", "pragma",
}

func checkHeaderName(name string) error {
	switch fold := folded(name); {
	case !headerName.MatchString(name) || len(name) >= maxHeaderName:
		return fmt.Errorf("a header's name is a letter and then letters, digits and `-`, fewer than %d in all", maxHeaderName)
	case framing[fold] || slices.Contains(notForMaps, fold) || slices.Contains(otherNames, fold) ||
		strings.HasPrefix(fold, "x-http-method") || strings.HasPrefix(fold, "x-envoy-"):
		return errors.New("this header does not say who calls, and cannot be set")
	}
	return nil
}

// A headerTemplate is a header's text: literals and what they stand between.
type headerTemplate struct {
	name     string
	literals []string // one more than values
	values   []string
}

func (t *headerTemplate) reads(name string) bool { return slices.Contains(t.values, name) }

// always reports whether the header is sent for every caller, or for every one
// who has the value named.
func (t *headerTemplate) always(but string) bool {
	return !slices.ContainsFunc(t.values, func(name string) bool {
		return name != but && name != "auth.uid" && name != "auth.identity" && name != "assertion"
	})
}

// headerValues are what a template can read, beside auth.token.NAME.
var headerValues = map[string]func(id *policy.Identity, assertion string) string{
	"auth.uid":      func(id *policy.Identity, _ string) string { return id.UID },
	"auth.identity": func(id *policy.Identity, _ string) string { return id.Name },
	"auth.actor":    func(id *policy.Identity, _ string) string { return id.Actor },
	"auth.tenant":   func(id *policy.Identity, _ string) string { return id.Tenant },
	"auth.email":    func(id *policy.Identity, _ string) string { return verifiedEmail(id) },
	"auth.provider": func(id *policy.Identity, _ string) string { return id.Provider },
	"assertion":     func(_ *policy.Identity, assertion string) string { return assertion },
}

const tokenClaim = "auth.token."

var claimName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func parseHeader(text string) (headerTemplate, error) {
	var t headerTemplate
	for {
		before, rest, more := strings.Cut(text, "${")
		if strings.ContainsFunc(before, func(r rune) bool { return r < ' ' || r > '~' }) {
			return t, errors.New("a header holds printable ASCII")
		}
		// Values never hold a space: two of them that are not told apart by one
		// could be divided in another place.
		if more && len(t.values) > 0 && !strings.Contains(before, " ") {
			return t, errors.New("between two values there must be a space, such as in \", \": else different callers could give the same text")
		}
		t.literals = append(t.literals, before)
		if !more {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		claim, isClaim := strings.CutPrefix(name, tokenClaim)
		if !closed || headerValues[name] == nil && !(isClaim && claimName.MatchString(claim)) {
			return t, fmt.Errorf("${%s} is not known here; there are ${%s} and ${auth.token.CLAIM}", name, strings.Join(slices.Sorted(maps.Keys(headerValues)), "}, ${"))
		}
		if isClaim && claim == "email" {
			return t, fmt.Errorf("${%s}: write ${auth.email}, which is only what the issuer vouches for", name)
		}
		t.values = append(t.values, name)
		text = after
	}
	if first, last := t.literals[0], t.literals[len(t.literals)-1]; strings.HasPrefix(first, " ") || strings.HasSuffix(last, " ") {
		return t, errors.New("a header neither begins nor ends with a space")
	}
	return t, nil
}

// value is the header's text, empty where something that it reads is not there.
func (t *headerTemplate) value(id *policy.Identity, assertion string) string {
	if len(t.values) == 0 {
		return t.literals[0]
	}
	list := len(t.values) > 1 // who splits the text at commas is not misled by a value's own
	var b strings.Builder
	for i, name := range t.values {
		b.WriteString(t.literals[i])
		v := ""
		if read := headerValues[name]; read != nil {
			v = headerValue(read(id, assertion), list)
		} else {
			v = claimValue(claimOf(id, strings.TrimPrefix(name, tokenClaim)))
		}
		if v == "" {
			return ""
		}
		b.WriteString(v)
	}
	b.WriteString(t.literals[len(t.values)])
	return b.String()
}

// claimOf is a claim; nil where it is not there.
func claimOf(id *policy.Identity, name string) any {
	claim, _ := id.Claim(name)
	return claim
}

// claimValue writes a claim that is text, a number, a truth or a list of texts.
// A list is told from a text that holds commas.
func claimValue(claim any) string {
	switch claim := claim.(type) {
	case string:
		return headerValue(claim, true)
	case fmt.Stringer: // json.Number
		return claim.String()
	case bool:
		return fmt.Sprint(claim)
	}
	return headerList(stringList(claim))
}
