package firebase_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"sidegate/proxy"
	"sidegate/proxy/firebase"
	"sidegate/proxy/oidc"
)

// An attack is a token that must be refused, and how.
type attack struct{ name, token, reason string }

// attacks are all hostile tokens; those with good signatures are really
// signed by the published key.
func attacks(now time.Time) []attack {
	var all []attack
	for _, class := range attackClasses(now) {
		all = append(all, class.attacks...)
	}
	return all
}

type attackClass struct {
	name    string
	least   int // so many are promised
	attacks []attack
}

func attackClasses(now time.Time) []attackClass {
	return []attackClass{
		{"algorithms", 40, algorithmAttacks(now)},
		{"headers", 40, headerAttacks(now, "http://127.0.0.1:1/jwks")},
		{"forms", 40, formAttacks(now)},
		{"JSON", 40, jsonAttacks(now)},
		{"claims", 40, claimAttacks(now)},
		{"tenant mismatches", 20, tenantAttacks(now)},
		{"emulator tokens in production", 20, emulatorAttacks(now)},
		{"times", 100, timeAttacks(now)},
	}
}

// tenantAttacks are tokens of tenants, where no identity has any of them.
func tenantAttacks(now time.Time) []attack {
	var all []attack
	for _, tenant := range []any{"consumer-x1y2z", "CONSUMER", "consumer ", "\u0000", "null", "-", "*", "../consumer", project, "default",
		0, 1.5, false, []any{""}, []any{nil}, []any{"consumer"}, map[string]any{"id": "consumer"}, strings.Repeat("t", 5000)} {
		all = append(all, attack{fmt.Sprintf("of the tenant %.30q", fmt.Sprint(tenant)), good(now, inFirebase("tenant", tenant)), oidc.ReasonTenant})
	}
	return append(all,
		attack{"of two tenants", rs256(goodKey(), header, strings.Replace(payload(now, inFirebase("tenant", "a")), `"tenant":"a"`, `"tenant":"","tenant":"a"`, 1)), oidc.ReasonMalformed},
		attack{"of a tenant that is spelled otherwise", rs256(goodKey(), header, strings.Replace(payload(now, inFirebase("tenant", "a")), `"tenant":"a"`, `"t\u0065nant":"a"`, 1)), oidc.ReasonTenant},
		attack{"of a tenant in a second firebase", rs256(goodKey(), header, strings.Replace(payload(now), `"firebase":{`, `"firebase":{"tenant":"a"},"firebase":{`, 1)), oidc.ReasonMalformed})
}

// emulatorAttacks are tokens as the Auth emulator and its imitators issue them.
func emulatorAttacks(now time.Time) []attack {
	p := b64([]byte(payload(now)))
	var all []attack
	for _, h := range []string{`{"alg":"none","typ":"JWT"}`, `{"typ":"JWT","alg":"none"}`, `{"alg":"none"}`, `{"alg":"none","kid":"k1","typ":"JWT"}`, `{"alg":"none","kid":"","typ":"JWT"}`,
		`{"alg":"none","kid":"fakekid"}`, `{"alg":"n\u006fne","kid":"k1"}`} {
		h := b64([]byte(h)) + "." + p
		all = append(all,
			attack{"emulated", h + ".", oidc.ReasonAlgorithm},
			attack{"emulated, and well signed", h + "." + b64(signature(goodKey(), h)), oidc.ReasonAlgorithm},
			attack{"emulated, by another key", h + "." + b64(signature(otherKey(), h)), oidc.ReasonAlgorithm},
			attack{"emulated, a zero as signature", h + ".AA", oidc.ReasonAlgorithm})
	}
	return append(all,
		attack{"emulated, but for alg", b64([]byte(header)) + "." + p + ".", oidc.ReasonSignature},
		attack{"emulated, but for alg and kid", b64([]byte(`{"alg":"RS256"}`)) + "." + p + ".", oidc.ReasonKeyID},
		attack{"emulated, without the last dot", b64([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + p, oidc.ReasonMalformed})
}

func hs256(secret []byte, header, payload string) string {
	signed := b64([]byte(header)) + "." + b64([]byte(payload))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}

func algorithmAttacks(now time.Time) []attack {
	p := payload(now)
	var all []attack
	for _, alg := range []string{"none", "None", "NONE", "nOnE", " none", "none\u0000", "", "rs256", "RS256 ", "Rs256",
		"RS1", "RS384", "RS512", "PS256", "HS256", "HS384", "HS512", "ES256", "EdDSA", "RSA-OAEP", "dir", "RS256,none"} {
		h, _ := json.Marshal(map[string]any{"alg": alg, "kid": keyID, "typ": "JWT"})
		unsigned := b64(h) + "." + b64([]byte(p))
		all = append(all,
			attack{fmt.Sprintf("alg %q without signature", alg), unsigned + ".", oidc.ReasonAlgorithm},
			attack{fmt.Sprintf("alg %q with a good RS256 signature", alg), rs256(goodKey(), string(h), p), oidc.ReasonAlgorithm})
	}
	for _, alg := range []string{"null", "1", `["RS256"]`, "{}", "true"} {
		all = append(all, attack{"alg is " + alg, rs256(goodKey(), `{"alg":`+alg+`,"kid":"k1"}`, p), oidc.ReasonAlgorithm})
	}
	pkix, _ := x509.MarshalPKIXPublicKey(goodKey().Public())
	hs := `{"alg":"HS256","kid":"k1","typ":"JWT"}`
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	eh := b64([]byte(`{"alg":"ES256","kid":"k1"}`)) + "." + b64([]byte(p))
	digest := sha256.Sum256([]byte(eh))
	r, s, _ := ecdsa.Sign(rand.Reader, ec, digest[:])
	raw := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	pss, _ := rsa.SignPSS(rand.Reader, goodKey(), 5, digestOf(header, p), nil)
	sum512 := sha512.Sum512([]byte(b64([]byte(header)) + "." + b64([]byte(p))))
	rs512, _ := rsa.SignPKCS1v15(nil, goodKey(), 7, sum512[:])
	start := b64([]byte(header)) + "." + b64([]byte(p)) + "."
	n := goodKey().N
	return append(all,
		attack{"no alg", rs256(goodKey(), `{"kid":"k1","typ":"JWT"}`, p), oidc.ReasonAlgorithm},
		attack{"HS256 with the public key as PEM", hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix}), hs, p), oidc.ReasonAlgorithm},
		attack{"HS256 with the public key as DER", hs256(pkix, hs, p), oidc.ReasonAlgorithm},
		attack{"HS256 with the modulus", hs256(n.Bytes(), hs, p), oidc.ReasonAlgorithm},
		attack{"HS256 with an empty secret", hs256(nil, hs, p), oidc.ReasonAlgorithm},
		attack{"RS256 header over an HMAC by the public key", hs256(pkix, header, p), oidc.ReasonSignature},
		attack{"ES256 by a key of the sender", eh + "." + b64(raw), oidc.ReasonAlgorithm},
		attack{"RS256 header, PSS signature", start + b64(pss), oidc.ReasonSignature},
		attack{"RS256 header, RS512 signature", start + b64(rs512), oidc.ReasonSignature},
		attack{"RS256 by another key", rs256(otherKey(), header, p), oidc.ReasonSignature},
		attack{"RS256 by another key of an unknown kid", rs256(otherKey(), `{"alg":"RS256","kid":"k2"}`, p), oidc.ReasonUnknownKey},
		attack{"no signature", start, oidc.ReasonSignature},
		attack{"signature of zeros", start + b64(make([]byte, 256)), oidc.ReasonSignature},
		attack{"signature of one byte", start + b64([]byte{1}), oidc.ReasonSignature},
		attack{"signature of ones", start + b64([]byte(strings.Repeat("\xff", 256))), oidc.ReasonSignature},
		attack{"signature is the modulus", start + b64(n.Bytes()), oidc.ReasonSignature},
		attack{"signature is the modulus and one", start + b64(new(big.Int).Add(n, big.NewInt(1)).Bytes()), oidc.ReasonSignature},
		attack{"signature with a zero before it", start + b64(append([]byte{0}, signature(goodKey(), strings.TrimSuffix(start, "."))...)), oidc.ReasonSignature},
		attack{"signature with a zero after it", start + b64(append(signature(goodKey(), strings.TrimSuffix(start, ".")), 0)), oidc.ReasonSignature},
		attack{"signature cut by a byte", start + b64(signature(goodKey(), strings.TrimSuffix(start, "."))[:255]), oidc.ReasonSignature},
		attack{"signature of another payload", start + b64(signature(goodKey(), b64([]byte(header))+"."+b64([]byte(payload(now, set("sub", "bob")))))), oidc.ReasonSignature},
		attack{"signature plus the modulus", start + b64(new(big.Int).Add(new(big.Int).SetBytes(signature(goodKey(), strings.TrimSuffix(start, "."))), n).Bytes()), oidc.ReasonSignature},
	)
}

func digestOf(header, payload string) []byte {
	digest := sha256.Sum256([]byte(b64([]byte(header)) + "." + b64([]byte(payload))))
	return digest[:]
}

// headerAttacks are tokens whose header wants something of the verifier; url
// is where some of them point to.
func headerAttacks(now time.Time, url string) []attack {
	p := payload(now)
	var all []attack
	other := otherKey().PublicKey
	jwk := fmt.Sprintf(`{"kty":"RSA","kid":"k1","n":%q,"e":"AQAB"}`, b64(other.N.Bytes()))
	for _, member := range []string{
		`"jwk":` + jwk, `"jku":"` + url + `"`, `"x5u":"` + url + `"`, `"x5c":["MIIB"]`, `"jwk":null`, `"jku":""`,
		`"crit":["exp"]`, `"crit":[]`, `"crit":null`, `"crit":["b64"],"b64":false`, `"b64":false`, `"b64":true`,
		`"enc":"A128GCM"`, `"zip":"DEF"`,
		`"typ":"logout+jwt"`, `"typ":"dpop+jwt"`, `"typ":"secevent+jwt"`, `"typ":"JWE"`, `"typ":null`, `"typ":1`, `"typ":""`, `"typ":["JWT"]`,
		`"cty":1`, `"cty":null`,
	} {
		h := `{"alg":"RS256","kid":"k1",` + member + `}`
		all = append(all,
			attack{member + " by another key", rs256(otherKey(), h, p), oidc.ReasonHeader},
			attack{member + " well signed", rs256(goodKey(), h, p), oidc.ReasonHeader})
	}
	for _, kid := range []string{`null`, `1`, `["k1"]`, `{}`, `true`, `"` + strings.Repeat("k", 300) + `"`} {
		all = append(all, attack{"kid " + kid, rs256(goodKey(), `{"alg":"RS256","kid":`+kid+`}`, p), oidc.ReasonHeader})
	}
	for _, kid := range []string{"K1", "k1 ", " k1", "k1\\u0000", "k2", "../../k1", "/dev/null", "' or 1=1 --", "k1\\n", "http://127.0.0.1:1/k1", "*", "k1,k1"} {
		all = append(all,
			attack{"kid " + kid + " well signed", rs256(goodKey(), `{"alg":"RS256","kid":"`+kid+`"}`, p), oidc.ReasonUnknownKey},
			attack{"kid " + kid + " HMAC", hs256(nil, `{"alg":"RS256","kid":"`+kid+`"}`, p), oidc.ReasonUnknownKey})
	}
	for _, h := range []string{`{"ALG":"none","alg":"RS256","kid":"k1"}`, `{"alg":"RS256","Alg":"none","kid":"k1"}`, `{"alg":"RS256","kid":"k1","KID":"k2"}`,
		`{"alg":"RS256","\u212aid":"k2","kid":"k1"}`, `{"alg":"RS256","kid":"k1","CRIT":["x"]}`} {
		all = append(all, attack{"look-alike " + h, rs256(goodKey(), h, p), oidc.ReasonMalformed})
	}
	return append(all,
		attack{"no kid", rs256(goodKey(), `{"alg":"RS256","typ":"JWT"}`, p), oidc.ReasonKeyID},
		attack{"empty kid", rs256(goodKey(), `{"alg":"RS256","kid":""}`, p), oidc.ReasonKeyID})
}

func formAttacks(now time.Time) []attack {
	g := good(now)
	parts := strings.Split(g, ".")
	h, p, s := parts[0], parts[1], parts[2]
	// resign signs a first part that is spelled otherwise.
	resign := func(h, p string) string { return h + "." + p + "." + b64(signature(goodKey(), h+"."+p)) }
	pad := func(text string) string { return base64.URLEncoding.EncodeToString([]byte(text)) }
	std := base64.RawStdEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"k1","x":"???>>>"}`))
	nested := b64([]byte(good(now)))
	all := []attack{
		{"empty", "", oidc.ReasonMalformed},
		{"a dot", ".", oidc.ReasonMalformed},
		{"two dots", "..", oidc.ReasonMalformed},
		{"three dots", "...", oidc.ReasonMalformed},
		{"one part", h, oidc.ReasonMalformed},
		{"two parts", h + "." + p, oidc.ReasonMalformed},
		{"four parts", g + "." + s, oidc.ReasonMalformed},
		{"a dot after", g + ".", oidc.ReasonMalformed},
		{"a dot before", "." + g, oidc.ReasonMalformed},
		{"JWE: five parts", b64([]byte(`{"alg":"RSA-OAEP","enc":"A128GCM"}`)) + ".a.b.c.d", oidc.ReasonEncrypted},
		{"five parts of a good token", g + ".a.b", oidc.ReasonEncrypted},
		{"JSON serialisation", `{"payload":"` + p + `","protected":"` + h + `","signature":"` + s + `"}`, oidc.ReasonMalformed},
		{"no header", "." + p + "." + s, oidc.ReasonMalformed},
		{"no payload", h + ".." + s, oidc.ReasonMalformed},
		{"no payload, signed", resign(h, ""), oidc.ReasonMalformed},
		{"nested JWT", resign(h, nested), oidc.ReasonMalformed},
		{"nested JWT as text", resign(h, b64([]byte(`"`+good(now)+`"`))), oidc.ReasonMalformed},
		{"200 KB", good(now, set("x", strings.Repeat("x", 150_000))), oidc.ReasonTooLong},
		{"200 KB of dots", strings.Repeat(".", 200_000), oidc.ReasonTooLong},
		{"a byte too long", strings.Repeat("a", oidc.MaxTokenBytes+1), oidc.ReasonTooLong},
		{"16 KiB of dots", strings.Repeat(".", oidc.MaxTokenBytes), oidc.ReasonMalformed},
		{"16 KiB of a", strings.Repeat("a", oidc.MaxTokenBytes), oidc.ReasonMalformed},
		{"Bearer in the token", "Bearer " + g, oidc.ReasonMalformed},
		{"two tokens", g + "," + g, oidc.ReasonEncrypted},
		{"standard alphabet, header", resign(std, p), oidc.ReasonMalformed},
		{"padding, header", resign(pad(`{"alg":"RS256","kid":"k1"} `)+"=", p), oidc.ReasonMalformed},
		{"padding, payload", resign(h, pad(payload(now)+strings.Repeat(" ", (3-len(payload(now))%3)%3+1))), oidc.ReasonMalformed},
		{"padding, signature", g + "==", oidc.ReasonMalformed},
		{"one more base64 character", g + "A", oidc.ReasonSignature},
		{"header not base64", "!!!." + p + "." + s, oidc.ReasonMalformed},
		{"trailing bits, signature", h + "." + p + "." + trailingBits(s), oidc.ReasonMalformed},
		{"trailing bits, header", resign(trailingBits(b64([]byte(`{"alg":"RS256","kid":"k1"} `+" "))), p), oidc.ReasonMalformed},
		{"trailing bits, payload", resign(h, trailingBits(unaligned(payload(now)))), oidc.ReasonMalformed},
	}
	for name, bad := range map[string]string{"newline": "\n", "CR LF": "\r\n", "CR": "\r", "space": " ", "tab": "\t", "NUL": "\x00", "percent": "%0A", "NBSP": "\u00a0", "BOM": "\ufeff"} {
		all = append(all,
			attack{name + " after", g + bad, oidc.ReasonMalformed},
			attack{name + " before", bad + g, oidc.ReasonMalformed},
			attack{name + " in the header", h[:5] + bad + h[5:] + "." + p + "." + s, oidc.ReasonMalformed},
			attack{name + " in the payload", resign(h, p[:5]+bad+p[5:]), oidc.ReasonMalformed},
			attack{name + " in the signature", h + "." + p + "." + s[:9] + bad + s[9:], oidc.ReasonMalformed})
	}
	return all
}

// unaligned encodes JSON with so many spaces after it that bits are left over.
func unaligned(json string) string {
	for len(json)%3 == 0 {
		json += " "
	}
	return b64([]byte(json))
}

// trailingBits sets a bit of the last character that no byte has.
func trailingBits(part string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, part[len(part)-1])
	return part[:len(part)-1] + string(alphabet[last|1])
}

func jsonAttacks(now time.Time) []attack {
	p := payload(now)
	inner := strings.TrimSuffix(strings.TrimPrefix(p, "{"), "}")
	var all []attack
	for name, text := range map[string]string{
		"null": "null", "list": "[" + p + "]", "text": `"x"`, "number": "1", "true": "true", "empty": " ",
		"cut": p[:len(p)-1], "something after": p + "x", "another object after": p + p, "a comma too many": "{" + inner + ",}",
		"a comment": "{/*x*/" + inner + "}", "single quotes": strings.ReplaceAll(p, `"`, "'"), "NaN": `{"x":NaN,` + inner + "}",
		"no quotes": `{x:1,` + inner + "}", "leading zero": `{"x":01,` + inner + "}", "hex": `{"x":0x1,` + inner + "}", "plus": `{"x":+1,` + inner + "}",
		"sub twice":         `{"sub":"bob",` + inner + "}",
		"sub twice, after":  "{" + inner + `,"sub":"bob"}`,
		"sub twice, escape": "{" + inner + `,"s\u0075b":"bob"}`,
		"iss twice":         `{"iss":"x",` + inner + "}",
		"aud twice":         "{" + inner + `,"aud":"other"}`,
		"exp twice":         "{" + inner + `,"exp":99999999999}`,
		"twice below":       "{" + inner + `,"x":{"a":1,"a":2}}`,
		"twice in a list":   "{" + inner + `,"x":[{"a":1,"a":2}]}`,
		"empty name twice":  "{" + inner + `,"":1,"":2}`,
		"invalid UTF-8":     "{" + inner + ",\"x\":\"\xff\"}",
		"overlong UTF-8":    "{" + inner + ",\"x\":\"\xc0\xaf\"}",
		"surrogate UTF-8":   "{" + inner + ",\"x\":\"\xed\xa0\x80\"}",
		"invalid name":      "{" + inner + ",\"\xff\":1}",
		"UTF-16":            "\xff\xfe{\x00}\x00",
		"BOM":               "\ufeff" + p,
		"control character": "{" + inner + ",\"x\":\"\n\"}",
		"bad escape":        "{" + inner + `,"x":"\x41"}`,
		"huge number":       "{" + inner + `,"x":1e999}`,
		"deep lists":        "{" + inner + `,"x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "}",
		"deep objects":      "{" + inner + `,"x":` + strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000) + "}",
		"33 deep":           "{" + inner + `,"x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + "}",
		"unclosed lists":    strings.Repeat("[", 9000),
		"SUB":               "{" + inner + `,"SUB":"bob"}`, "Aud": "{" + inner + `,"Aud":"x"}`, "EXP": "{" + inner + `,"EXP":1}`,
		"\u017fub": "{" + inner + ",\"\u017fub\":\"bob\"}", "Firebase": "{" + inner + `,"Firebase":{}}`,
		"Email_Verified": "{" + inner + `,"Email_Verified":true}`, "Auth_Time": "{" + inner + `,"Auth_Time":1}`, "UID": "{" + inner + `,"UID":5}`,
	} {
		all = append(all, attack{"payload: " + name, rs256(goodKey(), header, text), oidc.ReasonMalformed})
	}
	for name, text := range map[string]string{
		"null": "null", "list": "[]", "text": `"RS256"`, "cut": header[:len(header)-1], "something after": header + "{}",
		"alg twice": `{"alg":"none","alg":"RS256","kid":"k1"}`, "alg twice, after": `{"alg":"RS256","alg":"none","kid":"k1"}`,
		"kid twice": `{"alg":"RS256","kid":"k2","kid":"k1"}`, "invalid UTF-8": "{\"alg\":\"RS256\",\"kid\":\"k1\",\"x\":\"\xff\"}",
		"deep": `{"alg":"RS256","kid":"k1","x":` + strings.Repeat("[", 3000) + strings.Repeat("]", 3000) + "}",
	} {
		all = append(all, attack{"header: " + name, rs256(goodKey(), text, p), oidc.ReasonMalformed})
	}
	return all
}

func claimAttacks(now time.Time) []attack {
	prefix, other := issuer, cookieIssuer // the other is that of cookies for tokens, and of tokens for cookies
	if issuer == cookieIssuer {
		other = tokenIssuer
	}
	var all []attack
	add := func(reason, name string, changes ...change) {
		all = append(all, attack{name, good(now, changes...), reason})
	}
	for _, iss := range []any{prefix + project + "/", prefix + "other", prefix, other + project,
		strings.Replace(prefix, "https", "http", 1) + project, strings.TrimPrefix(prefix, "https://") + project, strings.ToUpper(prefix) + project,
		prefix + project + "\u0000", " " + prefix + project, prefix + "x/../" + project, "https://accounts.google.com",
		"https://firebaseappcheck.googleapis.com/1", "", nil, 1, true, []any{prefix + project}, map[string]any{}} {
		add(oidc.ReasonIssuer, fmt.Sprintf("iss %#v", iss), set("iss", iss))
	}
	for _, aud := range []any{"other", "ACME-PROD", project + " ", project + "/", "", nil, 1, true, map[string]any{}, []any{}, []any{"other"},
		[]any{project}, []any{project, "other"}, []any{project, 1}, []any{[]any{project}}, []any{nil}, project + ",other", "*"} {
		add(oidc.ReasonAudience, fmt.Sprintf("aud %#v", aud), set("aud", aud))
	}
	for _, sub := range []any{"", nil, 1, true, []any{"alice"}, map[string]any{"a": 1}, strings.Repeat("x", 129), strings.Repeat("é", 65),
		"a\r\nX-Sidegate-Roles: admin", "a\x00", "a\x1f", "a\x7f", "a\u0085", "a\u009f", "\ufffd"} {
		add(oidc.ReasonSubject, fmt.Sprintf("sub %#v", sub), set("sub", sub), without("user_id"))
	}
	add(oidc.ReasonSubject, "user_id differs", set("user_id", "bob"))
	add(oidc.ReasonSubject, "user_id is a number", set("user_id", 1))
	add(oidc.ReasonSubject, "user_id is null", set("user_id", nil))
	add(oidc.ReasonSubject, "uid is a number", set("uid", 1))
	all = append(all, attack{"sub with half a surrogate pair",
		rs256(goodKey(), header, strings.Replace(payload(now, without("user_id")), `"alice"`, `"al\ud800ice"`, 1)), oidc.ReasonSubject})
	for name, reason := range map[string]string{"iss": oidc.ReasonIssuer, "aud": oidc.ReasonAudience, "sub": oidc.ReasonSubject,
		"exp": oidc.ReasonClaim, "iat": oidc.ReasonClaim, "auth_time": oidc.ReasonClaim, "firebase": oidc.ReasonClaim} {
		add(reason, "no "+name, without(name))
	}
	for _, value := range []any{"true", 1, nil, []any{true}, map[string]any{}} {
		add(oidc.ReasonClaim, fmt.Sprintf("email_verified %#v", value), set("email_verified", value))
	}
	for _, value := range []any{1, nil, true, []any{"a@example.com"}, map[string]any{}} {
		add(oidc.ReasonClaim, fmt.Sprintf("email %#v", value), set("email", value))
		add(oidc.ReasonClaim, fmt.Sprintf("sign_in_provider %#v", value), inFirebase("sign_in_provider", value))
		add(oidc.ReasonClaim, fmt.Sprintf("sign_in_second_factor %#v", value), inFirebase("sign_in_second_factor", value))
	}
	for _, value := range []any{1, true, []any{}, "password"} {
		add(oidc.ReasonClaim, fmt.Sprintf("firebase %#v", value), set("firebase", value))
		add(oidc.ReasonClaim, fmt.Sprintf("identities %#v", value), inFirebase("identities", value))
	}
	add(oidc.ReasonClaim, "firebase null", set("firebase", nil))
	add(oidc.ReasonClaim, "firebase empty", set("firebase", map[string]any{}))
	for _, value := range []any{"consumer", "", nil, 1, true, []any{}, map[string]any{}} {
		add(oidc.ReasonTenant, fmt.Sprintf("tenant %#v", value), inFirebase("tenant", value))
	}
	add(oidc.ReasonMalformed, "Tenant", inFirebase("Tenant", "consumer"))
	add(oidc.ReasonMalformed, "TENANT", inFirebase("TENANT", ""))
	add(oidc.ReasonMalformed, "Sign_in_second_factor", inFirebase("Sign_in_second_factor", "totp"))
	add(oidc.ReasonClaim, "act", set("act", map[string]any{"sub": "agent"}))
	add(oidc.ReasonAudience, "a custom token", set("aud", "https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit"))
	return all
}

func timeAttacks(now time.Time) []attack {
	var all []attack
	at := func(reason, name, claim string, seconds any) {
		all = append(all, attack{name, good(now, set(claim, seconds)), reason})
	}
	unix := now.Unix()
	at(oidc.ReasonExpired, "exp at the edge", "exp", unix-60)
	at(oidc.ReasonExpired, "exp a second over", "exp", unix-61)
	at(oidc.ReasonExpired, "exp 5 minutes ago", "exp", unix-300)
	at(oidc.ReasonExpired, "exp an hour ago", "exp", unix-3600)
	at(oidc.ReasonExpired, "exp in 1970", "exp", 1)
	for claim, reason := range map[string]string{"iat": oidc.ReasonIssuedAt, "nbf": oidc.ReasonNotYet, "auth_time": oidc.ReasonAuthTime} {
		for _, ahead := range []int64{61, 62, 120, 299, 300, 301, 3600, 3601, 86400, 86400 * 365} {
			at(reason, fmt.Sprintf("%s %d s ahead", claim, ahead), claim, unix+ahead)
		}
	}
	for _, claim := range []string{"exp", "iat", "nbf", "auth_time"} {
		soon := unix + 3000
		if claim != "exp" {
			soon = unix - 5
		}
		for _, value := range []string{fmt.Sprintf("%d.5", soon), fmt.Sprintf("%d.0", soon), fmt.Sprintf(`"%d"`, soon), "1e9", "1E10", "-1", "0", "-0",
			"9223372036854775807", "9223372036854775808", "-9223372036854775808", "18446744073709551616", "253402300800", "1e308", "1e-5",
			"null", "true", "[]", "{}", `""`, fmt.Sprintf("[%d]", soon), fmt.Sprintf("%d000", soon)} {
			text := payload(now, set(claim, json.RawMessage(value)))
			if value == fmt.Sprintf("%d000", soon) {
				text = payload(now, set(claim, json.RawMessage(value+"000")))
			}
			all = append(all, attack{claim + " is " + value, rs256(goodKey(), header, text), oidc.ReasonClaim})
		}
	}
	return all
}

// minAttacks is how many different hostile tokens are promised in all.
const minAttacks = 300

func TestEveryClassOfAttacksIsThere(t *testing.T) {
	all, distinct := 0, map[string]bool{}
	for _, class := range attackClasses(time.Now()) {
		for _, a := range class.attacks {
			distinct[a.token] = true
		}
		all += len(class.attacks)
		if len(class.attacks) < class.least {
			t.Errorf("%s: only %d", class.name, len(class.attacks))
		}
		t.Logf("%s: %d", class.name, len(class.attacks))
	}
	if len(distinct) < minAttacks {
		t.Errorf("only %d hostile tokens", len(distinct))
	}
	t.Logf("%d hostile tokens, %d of them distinct", all, len(distinct))
}

func TestHostileTokens(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	clock := func() time.Time { return now }
	refuseAll(t, newSet(t, newGoogle(t).verifier(t, "", clock)), attacks(now))
}

// refuseAll fails where a token is not refused as it must be.
func refuseAll(t *testing.T, authenticator proxy.Authenticator, all []attack) {
	t.Helper()
	for _, a := range all {
		id, err := authenticator.Authenticate(t.Context(), a.token)
		var bad *proxy.TokenError
		switch {
		case err == nil || id != nil:
			t.Errorf("%s: accepted", a.name)
		case !errors.As(err, &bad):
			t.Errorf("%s: %v, not a TokenError", a.name, err)
		case bad.Reason != a.reason:
			t.Errorf("%s: %v; want the reason %q", a.name, bad, a.reason)
		case len(a.token) > 40 && strings.Contains(err.Error(), a.token[:40]):
			t.Errorf("%s: the error holds the token", a.name)
		}
	}
	t.Logf("%d hostile tokens", len(all))
}

// An identity of a tenant takes that tenant's tokens and no other's, and none of
// those without one.
func TestHostileTokensOfATenant(t *testing.T) {
	now := time.Now()
	refuse := []attack{{"none", good(now), oidc.ReasonTenant}, {"at the root", good(now, set("tenant", "consumer")), oidc.ReasonTenant},
		{"among the identities", good(now, inFirebase("identities", map[string]any{"tenant": "consumer"})), oidc.ReasonTenant}}
	for _, tenant := range []any{"Consumer", "consumer ", " consumer", "consumer\x00", "consumers", "consume", "", nil, 1, true, []any{"consumer"},
		map[string]any{"consumer": true}, "business", "с\u043ensumer"} {
		refuse = append(refuse, attack{fmt.Sprintf("tenant %#v", tenant), good(now, inFirebase("tenant", tenant)), oidc.ReasonTenant})
	}
	s := newSet(t, newGoogle(t).verifier(t, "consumer", nil))
	refuseAll(t, s, refuse)
	if _, err := s.Authenticate(t.Context(), good(now, inFirebase("tenant", "consumer"))); err != nil {
		t.Error(err)
	}
}

// The edges of each time, whatever the leeway is.
func TestTimesAtEveryEdge(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	g := newGoogle(t)
	for _, leeway := range []time.Duration{0, time.Second, oidc.DefaultLeeway, oidc.MaxLeeway} {
		v, err := firebase.New(firebase.Options{Name: "users", Namespace: "users", Project: project, Leeway: leeway, KeySet: g.keySet(nil),
			Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Keys().Prefetch(t.Context()); err != nil {
			t.Fatal(err)
		}
		s, unix, most := newSet(t, v), now.Unix(), int64(leeway/time.Second)
		for claim, reason := range map[string]string{"iat": oidc.ReasonIssuedAt, "nbf": oidc.ReasonNotYet, "auth_time": oidc.ReasonAuthTime} {
			for _, ahead := range []int64{-86400 * 365, -1, 0, most - 1, most, most + 1, most + 2} {
				_, err := s.Authenticate(t.Context(), good(now, set(claim, unix+ahead)))
				what := fmt.Sprintf("leeway %s, %s %d s ahead", leeway, claim, ahead)
				if ahead <= most {
					wantGood(t, what, err)
				} else {
					wantRefused(t, what, err, reason)
				}
			}
		}
		for _, ago := range []int64{most - 1, most, most + 1} {
			_, err := s.Authenticate(t.Context(), good(now, set("exp", unix-ago)))
			if what := fmt.Sprintf("leeway %s, exp %d s ago", leeway, ago); ago < most {
				wantGood(t, what, err)
			} else {
				wantRefused(t, what, err, oidc.ReasonExpired)
			}
		}
	}
}

func TestServerSideRequestForgeryByHeader(t *testing.T) {
	trap, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connected := make(chan struct{})
	go func() {
		defer close(connected)
		if c, err := trap.Accept(); err == nil {
			t.Errorf("somebody connected from %s", c.RemoteAddr())
			c.Close()
		}
	}()
	now := time.Now()
	authenticator := newSet(t, newGoogle(t).verifier(t, "", nil))
	for _, a := range headerAttacks(now, "http://"+trap.Addr().String()+"/keys") {
		if _, err := authenticator.Authenticate(t.Context(), a.token); err == nil {
			t.Errorf("%s: accepted", a.name)
		}
	}
	trap.Close()
	<-connected
}
