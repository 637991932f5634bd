package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // #nosec: to sign as nobody should
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A hostile token and why it must be refused.
type hostile struct{ name, raw, reason string }

// refuseAll wants each token refused for its reason: by a Verifier, and by a Set
// that has it among others, which picks before it verifies.
func refuseAll(t *testing.T, v *Verifier, list []hostile) {
	t.Helper()
	set := setOf(t, v)
	for _, h := range list {
		id, err := set.Authenticate(t.Context(), h.raw)
		wantReason(t, h.name, err, h.reason)
		if id != nil {
			t.Errorf("%s: refused, and %+v", h.name, id)
		}
		token, err := Parse(h.raw)
		if err != nil {
			wantReason(t, h.name+", parsed", err, h.reason)
			continue
		}
		got, err := v.Verify(t.Context(), token)
		wantReason(t, h.name+", by the verifier", err, h.reason)
		if got.Identity != nil {
			t.Errorf("%s: refused by the verifier, and %+v", h.name, got.Identity)
		}
	}
}

// hostileForms are tokens that are wrong for what is not in their payload. The
// issuer publishes a key of every algorithm, and allows them all.
func hostileForms(s signer, claims string) (list []hostile) {
	add := func(reason, name, raw string) { list = append(list, hostile{name, raw, reason}) }
	signedBy := func(header string) string { return s.with(header, claims) }
	head := func(alg, rest string) string { return fmt.Sprintf(`{"alg":%s,"kid":%q%s}`, alg, s.alg, rest) }
	quoted := `"` + s.alg + `"`
	good := s.token(claims)
	dot := strings.LastIndexByte(good, '.')
	unsigned, signature := good[:dot], good[dot+1:]
	first := strings.IndexByte(good, '.')

	// No signature, or one by a secret.
	for _, alg := range []string{`"none"`, `"None"`, `"NONE"`, `"nOnE"`, `" none"`, `"none "`, `"none\u0000"`, `"\u006eone"`, `""`, `null`, `0`, `false`, `["none"]`, `{"none":1}`, `["` + s.alg + `"]`} {
		signed := b64([]byte(head(alg, ""))) + "." + b64([]byte(claims))
		add(ReasonAlgorithm, "alg "+alg+" without a signature", signed+".")
		add(ReasonAlgorithm, "alg "+alg+" with one", signed+"."+b64(s.signature(signed)))
	}
	add(ReasonAlgorithm, "no alg", signedBy(`{"kid":"`+s.alg+`"}`))
	add(ReasonAlgorithm, "only typ", signedBy(`{"typ":"JWT"}`))
	for name, secret := range publicBytes(s) {
		for alg, size := range map[string]func() hash.Hash{"HS256": sha256.New, "HS384": sha512.New384, "HS512": sha512.New} {
			signed := b64([]byte(head(`"`+alg+`"`, ""))) + "." + b64([]byte(claims))
			mac := hmac.New(size, secret)
			mac.Write([]byte(signed))
			add(ReasonAlgorithm, alg+" by the public key, "+name, signed+"."+b64(mac.Sum(nil)))
		}
	}
	for _, alg := range []string{"RS384", "RS512", "PS384", "PS512", "ES512", "ES256K", "Ed25519", "Ed448", "EdDSA ", "ML-DSA-65", "RSA-OAEP", "dir", "A128KW", "PBES2-HS256+A128KW",
		strings.ToLower(s.alg), s.alg + "\\u0000", s.alg + ",none", strings.Repeat("A", 5000)} {
		if !strings.EqualFold(alg, s.alg) || alg != s.alg {
			add(ReasonAlgorithm, fmt.Sprintf("alg %.30q", alg), signedBy(head(`"`+alg+`"`, "")))
		}
	}

	// Another algorithm, another key.
	for _, other := range Algorithms() {
		if other == s.alg {
			continue
		}
		o := by(other)
		add(ReasonSignature, "says "+other+", signed as "+s.alg, signedBy(head(`"`+other+`"`, "")))
		add(ReasonSignature, "says "+other+" and names its key, signed as "+s.alg, signedBy(o.header()))
		add(ReasonSignature, "signed as "+other+" by its key", o.with(s.header(), claims))
		add(ReasonSignature, "names the key of "+other, signedBy(fmt.Sprintf(`{"alg":%q,"kid":%q}`, s.alg, other)))
	}
	foreign := signers()[1][s.alg]
	add(ReasonSignature, "another key of the kind", foreign.token(claims))

	// The signature.
	broken := func(name string, sig []byte) { add(ReasonSignature, name, unsigned+"."+b64(sig)) }
	raw := s.signature(unsigned)
	broken("no signature", nil)
	broken("a byte less", raw[:len(raw)-1])
	broken("its first byte gone", raw[1:])
	broken("a zero byte more", append(slices.Clone(raw), 0))
	broken("a zero byte before", append([]byte{0}, raw...))
	broken("twice", append(slices.Clone(raw), raw...))
	broken("half", raw[:len(raw)/2])
	broken("one byte", []byte{1})
	broken("reversed", reversed(raw))
	broken("all zero", make([]byte, len(raw)))
	broken("all ones", slices.Repeat([]byte{0xff}, len(raw)))
	broken("of the payload alone", s.signature(b64([]byte(claims))))
	broken("of the JSON", s.signature(claims))
	broken("of another token", s.signature(unsigned+"x"))
	broken("of the token with the dot", s.signature(unsigned+"."))
	broken("in base64, encoded again", []byte(b64(raw)))
	for _, i := range []int{0, len(raw) / 2, len(raw) - 1} {
		for _, bit := range []byte{1, 0x80} {
			flipped := slices.Clone(raw)
			flipped[i] ^= bit
			broken(fmt.Sprintf("byte %d flipped by %#x", i, bit), flipped)
		}
	}
	for name, sig := range ownTricks(s, unsigned) {
		broken(name, sig)
	}
	changed := strings.Replace(claims, "alice", "admin", 1)
	add(ReasonSignature, "another payload", good[:first]+"."+b64([]byte(changed))+"."+signature)
	add(ReasonSignature, "another header", b64([]byte(head(quoted, `,"x":1`)))+good[first:])
	add(ReasonSignature, "a space in the payload", good[:first]+"."+b64([]byte(claims+" "))+"."+signature)

	// Keys that the token brings along, and what else changes the rules.
	attacker, err := json.Marshal(jose.JSONWebKey{Key: foreign.private.Public(), KeyID: s.alg, Algorithm: s.alg, Use: "sig"})
	if err != nil {
		panic(err)
	}
	for name, member := range map[string]string{
		"jwk": string(attacker), "jwk null": `null`, "jku": `"https://evil.example/keys"`, "jku null": "null", "x5u": `"https://evil.example/key.pem"`,
		"x5c": `["MIIB"]`, "x5c empty": `[]`, "crit": `["exp"]`, "crit empty": `[]`, "crit null": "null", "crit b64": `["b64"]`,
		"b64": "false", "b64 true": "true", "zip": `"DEF"`, "zip null": "null", "enc": `"A256GCM"`, "enc empty": `""`,
	} {
		field, _, _ := strings.Cut(name, " ")
		add(ReasonHeader, "header with "+name, foreign.with(head(quoted, fmt.Sprintf(`,%q:%s`, field, member)), claims))
		add(ReasonHeader, "well signed header with "+name, signedBy(head(quoted, fmt.Sprintf(`,%q:%s`, field, member))))
	}
	for _, field := range []string{"JWK", "jKu", "X5U", "X5c", "CRIT", "B64", "Zip", "ENC", "Alg", "KID", "\u212aid", "j\u212au", "Typ", "CTY"} {
		add(ReasonMalformed, "header with "+field, signedBy(head(quoted, fmt.Sprintf(`,%q:"none"`, field))))
	}
	add(ReasonMalformed, "alg twice", signedBy(head(quoted, `,"alg":"none"`)))
	add(ReasonMalformed, "alg twice, none first", signedBy(`{"alg":"none","alg":`+quoted+`,"kid":`+quoted+`}`))
	add(ReasonMalformed, "alg twice, escaped", signedBy(head(quoted, `,"\u0061lg":"none"`)))
	add(ReasonMalformed, "kid twice", signedBy(head(quoted, `,"kid":"other"`)))
	add(ReasonMalformed, "a name twice within a member", signedBy(head(quoted, `,"x":{"a":1,"a":2}`)))

	for _, kid := range []string{"k0", "../../../../dev/null", "/dev/null", "' OR '1'='1", s.alg + " ", " " + s.alg, strings.ToLower(s.alg), s.alg + "\\u0000", "https://evil.example/keys",
		"|id", "*", "0", "null", s.alg + "," + s.alg, strings.Repeat("k", maxKeyID)} {
		add(ReasonUnknownKey, fmt.Sprintf("kid %.40q", kid), signedBy(fmt.Sprintf(`{"alg":%s,"kid":"%s"}`, quoted, kid)))
		add(ReasonUnknownKey, fmt.Sprintf("kid %.40q, signed by another", kid), foreign.with(fmt.Sprintf(`{"alg":%s,"kid":"%s"}`, quoted, kid), claims))
	}
	for _, kid := range []string{"1", "null", "true", `["` + s.alg + `"]`, `{}`, `"` + strings.Repeat("k", maxKeyID+1) + `"`} {
		add(ReasonHeader, fmt.Sprintf("kid %.40s", kid), signedBy(`{"alg":`+quoted+`,"kid":`+kid+`}`))
	}
	add(ReasonKeyID, "no kid", signedBy(`{"alg":`+quoted+`}`))
	add(ReasonKeyID, "an empty kid", signedBy(`{"alg":`+quoted+`,"kid":""}`))
	for _, typ := range []string{`"logout+jwt"`, `"secevent+jwt"`, `"dpop+jwt"`, `"token-introspection+jwt"`, `"application/logout+jwt"`, `"JOSE"`, `"JWE"`, `""`, `"jwt "`, `"application/application/jwt"`, "1", "null", `["JWT"]`} {
		add(ReasonHeader, "typ "+typ, signedBy(head(quoted, `,"typ":`+typ)))
	}
	for _, cty := range []string{"1", "null", `["JWT"]`} {
		add(ReasonHeader, "cty "+cty, signedBy(head(quoted, `,"cty":`+cty)))
	}
	for name, header := range map[string]string{
		"empty": "", "null": "null", "a list": `[]`, "text": quoted, "a number": "1", "two objects": s.header() + "{}", "trailing text": s.header() + "x", "trailing NUL": s.header() + "\x00",
		"a byte order mark": "\ufeff" + s.header(), "cut": s.header()[:len(s.header())-1], "invalid UTF-8": head(quoted, `,"x":"`+"\xff"+`"`),
		"a comment": s.header() + "//", "single quotes": strings.ReplaceAll(s.header(), `"`, `'`), "a trailing comma": head(quoted, ","), "NaN": head(quoted, `,"x":NaN`),
		"deep": head(quoted, `,"x":`+strings.Repeat("[", 200)+strings.Repeat("]", 200)), "a newline in text": head(quoted, ",\"x\":\"\n\""), "a huge number": head(quoted, `,"x":1e400`),
	} {
		add(ReasonMalformed, "the header is "+name, signedBy(header))
	}

	// The three parts and their base64.
	encoded := func(name, raw string) { add(ReasonMalformed, name, raw) }
	encoded("nothing", "")
	encoded("a dot", ".")
	encoded("two dots", "..")
	encoded("two parts", unsigned)
	encoded("one part", good[:first])
	encoded("four parts", good+".x")
	encoded("six parts", good+".x.x.x")
	encoded("a dot behind", good+".")
	encoded("no header", good[first:])
	encoded("no payload", s.withParts(good[:first], ""))
	encoded("a space behind", good+" ")
	encoded("a space before", " "+good)
	encoded("a line end behind", good+"\n")
	encoded("a line end in the header", good[:4]+"\n"+good[4:])
	encoded("a line end in the payload", s.withParts(good[:first], "\r\n"+good[first+1:dot]))
	encoded("a NUL behind", good+"\x00")
	add(ReasonEncrypted, "two tokens", good+" "+good) // five parts, as a JWE's
	add(ReasonEncrypted, "two tokens, a comma", good+","+good)
	encoded("Bearer before", "Bearer "+good)
	encoded("quoted", `"`+good+`"`)
	encoded("padded", good+"=")
	encoded("header padded", s.withParts(good[:first]+"=", good[first+1:dot]))
	encoded("payload padded", s.withParts(good[:first], good[first+1:dot]+"=="))
	encoded("the other alphabet", unsigned+".+"+signature[1:])
	encoded("the other alphabet, slash", unsigned+"./"+signature[1:])
	encoded("percent-encoded", strings.ReplaceAll(good, ".", "%2E"))
	encoded("full-width dots", strings.ReplaceAll(good, ".", "\uff0e"))
	encoded("no ASCII", unsigned+".\u00e9"+signature[1:])
	encoded("hex", unsigned+"."+fmt.Sprintf("%X", raw)+"\x0b")
	encoded("JSON serialization", fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, good[first+1:dot], good[:first], signature))
	encoded("general JSON serialization", fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, good[first+1:dot], good[:first], signature))
	encoded("as JWE in JSON", `{"protected":"","recipients":[],"ciphertext":"","iv":"","tag":""}`)
	if len(raw)%3 != 0 { // those of ES384 have no bits that are left over
		encoded("trailing bits of the signature", good[:len(good)-1]+sibling(good[len(good)-1]))
	}
	for i := range 3 { // one of these payloads has bits that are left over
		if part := b64([]byte(claims + strings.Repeat(" ", i))); len(part)%4 != 0 {
			encoded(fmt.Sprintf("trailing bits of the payload, %d", i), s.withParts(good[:first], part[:len(part)-1]+sibling(part[len(part)-1])))
		}
		if part := b64([]byte(s.header() + strings.Repeat(" ", i))); len(part)%4 != 0 {
			encoded(fmt.Sprintf("trailing bits of the header, %d", i), s.withParts(part[:len(part)-1]+sibling(part[len(part)-1]), good[first+1:dot]))
		}
	}
	add(ReasonEncrypted, "JWE", b64([]byte(`{"alg":"RSA-OAEP","enc":"A256GCM","kid":"`+s.alg+`"}`))+".AAAA.AAAA.AAAA.AAAA")
	add(ReasonEncrypted, "JWE with direct encryption", b64([]byte(`{"alg":"dir","enc":"A128CBC-HS256","zip":"DEF"}`))+"..AAAA.AAAA.AAAA")
	add(ReasonEncrypted, "PBES2 with many rounds", b64([]byte(`{"alg":"PBES2-HS256+A128KW","enc":"A256GCM","p2c":2147483647,"p2s":"AAAA"}`))+".AAAA.AAAA.AAAA.AAAA")
	add(ReasonEncrypted, "four dots", "....")
	add(ReasonTooLong, "a byte too long", strings.Repeat("A", MaxTokenBytes+1))
	add(ReasonTooLong, "well signed, too long", s.token(strings.Replace(claims, "{", `{"x":"`+strings.Repeat("x", MaxTokenBytes)+`",`, 1)))
	add(ReasonTooLong, "a megabyte of dots", strings.Repeat(".", 1<<20))
	return list
}

// withParts signs two parts as they are.
func (s signer) withParts(header, payload string) string {
	signed := header + "." + payload
	return signed + "." + b64(s.signature(signed))
}

// sibling is a character of base64url that differs in its lowest bit.
func sibling(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, c)^1])
}

func reversed(data []byte) []byte {
	data = slices.Clone(data)
	slices.Reverse(data)
	return data
}

// publicBytes are the spellings of a public key that somebody could take for a
// secret.
func publicBytes(s signer) map[string][]byte {
	public := s.private.Public()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(err)
	}
	jwk, err := json.Marshal(jose.JSONWebKey{Key: public, KeyID: s.alg})
	if err != nil {
		panic(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	all := map[string][]byte{"DER": der, "PEM": text, "PEM without its last line end": text[:len(text)-1], "JWK": jwk, "no bytes": {}}
	switch key := public.(type) {
	case *rsa.PublicKey:
		all["modulus"] = key.N.Bytes()
		all["PKCS #1"] = x509.MarshalPKCS1PublicKey(key)
		all["PKCS #1 in PEM"] = pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: all["PKCS #1"]})
	case *ecdsa.PublicKey:
		if all["point"], err = key.Bytes(); err != nil {
			panic(err)
		}
		all["x and y"] = all["point"][1:]
	case ed25519.PublicKey:
		all["key"] = key
	}
	return all
}

// ownTricks are signatures that are nearly right in the way of the algorithm.
func ownTricks(s signer, signed string) map[string][]byte {
	tricks := map[string][]byte{}
	short, long := sha256.Sum256([]byte(signed)), sha512.Sum384([]byte(signed))
	switch key := s.private.(type) {
	case *rsa.PrivateKey:
		other := RS256
		if s.alg == RS256 {
			other = PS256
		}
		tricks["as "+other+" by the same key"] = s.as(other, signed)
		weak, longest := sha1.Sum([]byte(signed)), sha512.Sum512([]byte(signed)) // #nosec
		for hash, digest := range map[crypto.Hash][]byte{0: short[:], crypto.SHA1: weak[:], crypto.SHA384: long[:], crypto.SHA512: longest[:]} {
			sig, err := rsa.SignPKCS1v15(nil, key, hash, digest)
			if err != nil {
				panic(err)
			}
			tricks["PKCS #1 v1.5 with "+hash.String()] = sig
		}
		// The longest that fits, and others; the vectors of Wycheproof have one of
		// no bytes, which crypto/rsa cannot make.
		for _, salt := range []int{rsa.PSSSaltLengthAuto, 1, 20, 31, 33, 48, 64} {
			sig, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, short[:], &rsa.PSSOptions{SaltLength: salt})
			if err != nil {
				panic(err)
			}
			tricks[fmt.Sprintf("PSS with a salt of %d", salt)] = sig
		}
		sig, err := rsa.SignPSS(rand.Reader, key, crypto.SHA384, long[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		if err != nil {
			panic(err)
		}
		tricks["PSS with SHA-384"] = sig
		size := key.Size()
		number := func(n *big.Int) []byte { return n.FillBytes(make([]byte, size)) }
		tricks["1"] = number(big.NewInt(1))
		tricks["n"] = number(key.N)
		tricks["n-1"] = number(new(big.Int).Sub(key.N, big.NewInt(1)))
		// What a verifier with exponent 1, or none, would take for the padding.
		tricks["the padded hash, not signed"] = append([]byte{0, 1}, append(slices.Repeat([]byte{0xff}, size-35), append([]byte{0}, short[:]...)...)...)
		// s+n is the same number to whoever does not look at its size.
		if sum := new(big.Int).Add(new(big.Int).SetBytes(s.signature(signed)), key.N); len(sum.Bytes()) <= size {
			tricks["s+n"] = number(sum)
		} else {
			tricks["s+n, longer"] = sum.Bytes()
		}
	case *ecdsa.PrivateKey:
		digest, wrong := short[:], long[:]
		if s.alg == ES384 {
			digest, wrong = wrong, digest
		}
		n := key.Curve.Params().N
		size := key.Curve.Params().BitSize / 8
		r, sum, err := ecdsa.Sign(rand.Reader, key, digest)
		if err != nil {
			panic(err)
		}
		der, err := asn1.Marshal(struct{ R, S *big.Int }{r, sum})
		if err != nil {
			panic(err)
		}
		zero, one, top := new(big.Int), big.NewInt(1), new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(8*size)), big.NewInt(1))
		tricks["ASN.1"] = der
		tricks["ASN.1 filled up"] = append(slices.Clone(der), make([]byte, max(0, 2*size-len(der)))...)
		tricks["ASN.1 cut"] = der[:min(len(der), 2*size)]
		for name, pair := range map[string][2]*big.Int{
			"r is 0": {zero, sum}, "s is 0": {r, zero}, "both 0": {zero, zero}, "r is n": {n, sum}, "s is n": {r, n}, "both n": {n, n},
			"r is n+1": {new(big.Int).Add(n, one), sum}, "both 1": {one, one}, "r is n-1, s 1": {new(big.Int).Sub(n, one), one},
			"r is the largest": {top, sum}, "s is the largest": {r, top}, "swapped": {sum, r}, "r and n-r": {r, new(big.Int).Sub(n, r)}, "n-r": {new(big.Int).Sub(n, r), sum},
			"r is 0, s n": {zero, n}, "r is the key's x": {key.X, sum}, "s is 1": {r, one},
		} {
			tricks[name] = s.pair(pair[0], pair[1])
		}
		wide := func(n *big.Int, more int) []byte { return n.FillBytes(make([]byte, size+more)) }
		tricks["a zero byte before each"] = append(wide(r, 1), wide(sum, 1)...)
		tricks["two zero bytes before each"] = append(wide(r, 2), wide(sum, 2)...)
		tricks["a zero byte before s"] = append(wide(r, 0), wide(sum, 1)...)
		tricks["as wide as P-521's"] = append(wide(r, 66-size), wide(sum, 66-size)...)
		tricks["bytes reversed in each"] = append(reversed(wide(r, 0)), reversed(wide(sum, 0))...)
		tricks["only r"] = wide(r, 0)
		tricks["with a recovery byte"] = append(s.pair(r, sum), 27)
		tricks["with a recovery byte before"] = append([]byte{4}, s.pair(r, sum)...)
		if r, sum, err = ecdsa.Sign(rand.Reader, key, wrong); err != nil {
			panic(err)
		}
		tricks["with the hash of the other curve"] = s.pair(r, sum)
	case ed25519.PrivateKey:
		good := ed25519.Sign(key, []byte(signed))
		order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
		for times := int64(1); times <= 3; times++ {
			// S+L signs the same to whoever does not look (RFC 8032, section 5.1.7).
			sum := new(big.Int).Add(new(big.Int).SetBytes(reversed(good[32:])), new(big.Int).Mul(order, big.NewInt(times)))
			tricks[fmt.Sprintf("S+%dL", times)] = append(slices.Clone(good[:32]), reversed(sum.FillBytes(make([]byte, 32)))...)
		}
		tricks["swapped"] = append(slices.Clone(good[32:]), good[:32]...)
		tricks["only R"] = good[:32]
		tricks["R is the neutral point, S 0"] = append([]byte{1}, make([]byte, 63)...)
		tricks["R is -y"] = append(append(slices.Clone(good[:31]), good[31]^0x80), good[32:]...)
		tricks["S is 0"] = append(slices.Clone(good[:32]), make([]byte, 32)...)
		tricks["with the message behind"] = append(slices.Clone(good), signed...)
		digest := sha512.Sum512([]byte(signed))
		tricks["of the hash"] = ed25519.Sign(key, digest[:])
		for name, o := range map[string]*ed25519.Options{"Ed25519ph": {Hash: crypto.SHA512}, "Ed25519ctx": {Context: "JWT"}} {
			message := []byte(signed)
			if o.Hash != 0 {
				message = digest[:]
			}
			sig, err := key.Sign(nil, message, o)
			if err != nil {
				panic(err)
			}
			tricks[name] = sig
		}
	}
	return tricks
}

// hostileClaims are really signed, and wrong for what they say. The verifier is
// the usual one, without actors, e-mail list and requirements.
func hostileClaims(s signer, c *clock) (list []hostile) {
	add := func(reason, name, claims string) { list = append(list, hostile{name, s.token(claims), reason}) }
	edit := func(reason, claim string, values ...string) {
		for _, value := range values {
			name := fmt.Sprintf("%s %.60s of %d", claim, value, len(value))
			if value == "" {
				name = "no " + claim
			}
			add(reason, name, payload(c, claim, value))
		}
	}
	edit(ReasonIssuer, "iss", "", `""`, "null", "1", "true", `["`+issuer+`"]`, `{"a":"`+issuer+`"}`, `"`+issuer+`/"`, `"`+issuer+` "`, `" `+issuer+`"`, `"HTTPS://issuer.example"`,
		`"https://Issuer.example"`, `"http://issuer.example"`, `"issuer.example"`, `"`+issuer+`:443"`, `"`+issuer+`\u0000"`, `"`+issuer+`#"`, `"`+issuer+`?"`, `"https://user@issuer.example"`,
		`"`+issuer+`.evil.example"`, `"https://issuer.example%2f"`, `"https://\u0456ssuer.example"`, `"https://evil.example"`, `"`+issuer+`/../x"`)
	edit(ReasonAudience, "aud", "", `""`, "null", "1", "true", `"other"`, `"app "`, `" app"`, `"APP"`, `"app/"`, `"ap"`, `"apps"`, `"app,other"`, `"app other"`, `"app\u0000"`, `"*"`, `"\uff41pp"`,
		"[]", `[""]`, `["other"]`, `["ap","p"]`, `["app",1]`, `[1,"app"]`, `["app",null]`, `["app",true]`, `["app",["x"]]`, `[["app"]]`, `[{"app":1}]`, `{"app":1}`, `{"0":"app"}`, `["app",{}]`, `["APP","other"]`)
	edit(ReasonSubject, "sub", "", `""`, "null", "1", "true", "false", `["alice"]`, `{"id":"alice"}`, `"\u0000"`, `"alice\u0000"`, `"alice\n"`, `"alice\r\nX-Admin: 1"`, `"\talice"`, `"\u001b[31m"`, `"\u007f"`, `"\u0085"`, `"\u009f"`,
		`"\ud800"`, `"\udc00x"`, `"\ufffd"`, `"`+"\ufffd"+`"`, `"`+strings.Repeat("x", MaxSubject+1)+`"`, `"`+strings.Repeat("\u00e9", MaxSubject/2+1)+`"`, `"`+strings.Repeat(`\u0061`, MaxSubject+1)+`"`, `"`+strings.Repeat("x", 8000)+`"`)

	now := c.now().Unix()
	at := func(offset int64) string { return fmt.Sprint(now + offset) }
	leeway := int64(DefaultLeeway / time.Second)
	edit(ReasonExpired, "exp", at(-leeway), at(-leeway-1), at(-3600), "1", "1000000000")
	edit(ReasonNotYet, "nbf", at(leeway+1), at(3600), "253402300799")
	edit(ReasonIssuedAt, "iat", at(leeway+1), at(3600), "253402300799")
	edit(ReasonAuthTime, "auth_time", at(leeway+1), at(3600), "253402300799")
	edit(ReasonClaim, "exp", "")
	edit(ReasonClaim, "iat", "")
	for _, claim := range []string{"exp", "nbf", "iat", "auth_time"} {
		edit(ReasonClaim, claim, "null", `"`+at(100)+`"`, `""`, "true", "[]", "["+at(0)+"]", "{}", "0", "-0", "-1", "-"+at(0), at(0)+".5", at(0)+".0", "1.8e9", "18E8", "1e300", "253402300800", "9223372036854775807", "9223372036854775808",
			"18446744073709551616", "18446744075509551616", strings.Repeat("9", 300), `"never"`)
		edit(ReasonMalformed, claim, "1e400", "-1e999", "0"+at(0), "+"+at(0), "0x7fffffff", "NaN", "Infinity", strings.Repeat("9", 400), at(0)+"L", "1_800_000_000", ".5", "1.")
	}

	// Who acts for a user is another identity's matter.
	edit(ReasonClaim, "act", "null", "{}", `{"sub":"bot"}`, `"bot"`, "[]", "false", "0", `""`, `[{"sub":"bot"}]`)

	// What two readers could read differently.
	fine := payload(c)
	insert := func(member string) string { return "{" + member + "," + fine[1:] }
	for name, claims := range map[string]string{
		"sub twice": insert(`"sub":"admin"`), "sub twice, escaped": insert(`"s\u0075b":"admin"`), "iss twice": insert(`"iss":"x"`), "aud twice": insert(`"aud":["app"]`),
		"exp twice": insert(`"exp":1`), "twice within an object": insert(`"x":{"a":1,"a":2}`), "twice deep within a list": insert(`"x":[[{"a":1,"\u0061":2}]]`),
		"Sub": insert(`"Sub":"admin"`), "SUB": insert(`"SUB":"admin"`), "ISS": insert(`"ISS":"x"`), "Aud": insert(`"Aud":"app"`), "Exp": insert(`"Exp":1`), "eXp": insert(`"eXp":99999999999`),
		"NBF": insert(`"NBF":1`), "Iat": insert(`"Iat":1`), "Auth_Time": insert(`"Auth_Time":1`), "ACT": insert(`"ACT":{"sub":"bot"}`), "Jti": insert(`"Jti":"x"`),
		"iss with a long s": insert(`"i\u017fs":"x"`), "sub with a long s": insert(`"` + "\u017f" + `ub":"admin"`),
		"two objects": fine + fine, "a bracket behind": fine + "}", "text behind": fine + "x", "a NUL behind": fine + "\x00", "a comma behind": fine + ",", "a byte order mark": "\ufeff" + fine,
		"invalid UTF-8": insert(`"x":"` + "\xff" + `"`), "an overlong dot": insert(`"x":"` + "\xc0\xae" + `"`), "a surrogate in UTF-8": insert(`"x":"` + "\xed\xa0\x80" + `"`), "UTF-16": "\xff\xfe" + strings.ReplaceAll(fine, "", "\x00"),
		"a comment": insert(`/**/"x":1`), "no quotes": insert(`x:1`), "single quotes": insert(`'x':1`), "a trailing comma": fine[:len(fine)-1] + ",}", "no comma": insert(`"x":1 "y":2`),
		"a line end in text": insert("\"x\":\"a\nb\""), "a bad escape": insert(`"x":"\x41"`), "a bad \\u": insert(`"x":"\u12g4"`), "cut": fine[:len(fine)-1], "empty": "", "white space": " \n", "null": "null", "a list": "[" + fine + "]", "text": `"` + "x" + `"`, "a number": "1", "true": "true",
		"deep lists": insert(`"x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000)), "deep objects": insert(`"x":` + strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000)),
		"a level too deep": insert(`"x":` + strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)), "never closed": insert(`"x":` + strings.Repeat("[", 5000)), "a huge number": insert(`"x":1e999`),
	} {
		add(ReasonMalformed, "payload: "+name, claims)
	}
	return list
}

// Nothing that is wrong is accepted, and each for its reason, whatever the
// algorithm.
func TestHostileTokens(t *testing.T) {
	c := newClock()
	server := newKeyServer(t, publish(publishAll(false, Algorithms()...)))
	v := newVerifier(t, fetched(t, newKeys(t, server, c)), c)
	for _, alg := range Algorithms() {
		t.Run(alg, func(t *testing.T) {
			s := by(alg)
			// The table can only tell something if what it starts from is good.
			for name, raw := range map[string]string{
				"the good token": s.token(payload(c)), "at the edge of exp": s.token(payload(c, "exp", fmt.Sprint(c.now().Unix()-59))), "at the edge of nbf": s.token(payload(c, "nbf", fmt.Sprint(c.now().Unix()+60))),
				"at the edge of iat": s.token(payload(c, "iat", fmt.Sprint(c.now().Unix()+60))), "at the edge of auth_time": s.token(payload(c, "auth_time", fmt.Sprint(c.now().Unix()+60))),
				"x5t names a key as kid does": s.with(fmt.Sprintf(`{"alg":%q,"kid":%q,"x5t":"AAAA","typ":"at+jwt","nonce":"x"}`, alg, alg), payload(c)),
				"a kid in escapes":            s.with(fmt.Sprintf(`{"alg":%q,"kid":"\u00%x%s"}`, alg, alg[0], alg[1:]), payload(c)),
			} {
				if _, err := v.Verify(t.Context(), parsed(t, raw)); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			forms, claims := hostileForms(s, payload(c)), hostileClaims(s, c)
			refuseAll(t, v, forms)
			refuseAll(t, v, claims)
			names := map[string]bool{}
			for _, h := range append(forms, claims...) {
				if names[h.name] {
					t.Errorf("%s: twice", h.name)
				}
				names[h.name] = true
			}
			t.Logf("%d hostile tokens, %d of them really signed claims", len(names), len(claims))
			if len(names) < 400 || len(names) != len(forms)+len(claims) {
				t.Errorf("%d names for %d tokens", len(names), len(forms)+len(claims))
			}
		})
	}
	// At the start, and once for all the unknown kids.
	if n := server.fetches.Load(); n != 2 {
		t.Errorf("%d fetches", n)
	}
}

// No URL that a token brings is ever asked for, whoever signed it.
func TestHostileURLsAreNotFetched(t *testing.T) {
	c := newClock()
	v := newVerifier(t, allKeys(t, c), c)
	foreign := signers()[1][ES256]
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: foreign.private.Public(), KeyID: ES256}}})
	if err != nil {
		t.Fatal(err)
	}
	evil := newKeyServer(t, publish(string(set)))
	for _, s := range []signer{by(ES256), foreign} {
		for _, member := range []string{"jku", "x5u"} {
			raw := s.with(fmt.Sprintf(`{"alg":"ES256","kid":"ES256",%q:%q}`, member, evil.URL), payload(c))
			refuseAll(t, v, []hostile{{member, raw, ReasonHeader}})
		}
		raw := s.with(fmt.Sprintf(`{"alg":"ES256","kid":%q}`, evil.URL), payload(c))
		refuseAll(t, v, []hostile{{"kid", raw, ReasonUnknownKey}})
		raw = s.token(payload(c, "iss", `"`+evil.URL+`"`))
		refuseAll(t, v, []hostile{{"iss", raw, ReasonIssuer}})
	}
	if n := evil.fetches.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// A key that is published for one algorithm verifies no other that it fits.
func TestHostileAlgorithmOfThePublishedKey(t *testing.T) {
	c := newClock()
	keys := fetched(t, newKeys(t, newKeyServer(t, publish(publishAll(true, Algorithms()...))), c))
	v := newVerifier(t, keys, c)
	for _, alg := range Algorithms() {
		if _, err := v.Verify(t.Context(), parsed(t, by(alg).token(payload(c)))); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
	for alg, other := range map[string]string{RS256: PS256, PS256: RS256} {
		signed := b64(fmt.Appendf(nil, `{"alg":%q,"kid":%q}`, other, alg)) + "." + b64([]byte(payload(c)))
		raw := signed + "." + b64(by(alg).as(other, signed))
		refuseAll(t, v, []hostile{{"the key of " + alg + " used for " + other, raw, ReasonSignature}})
		// Where the issuer does not say, an RSA key is for both.
		if _, err := newVerifier(t, allKeys(t, c), c).Verify(t.Context(), parsed(t, raw)); err != nil {
			t.Errorf("%s: %v", other, err)
		}
	}
}

// The second signature that every ECDSA signature has, (r, n-s), is of the same
// token by the same key. JWS does not forbid it (RFC 7518, section 3.4), and
// nothing here takes a token's text for what makes it unique.
func TestECDSASecondSignature(t *testing.T) {
	c := newClock()
	v := newVerifier(t, allKeys(t, c), c)
	for _, alg := range []string{ES256, ES384} {
		s := by(alg)
		token := parsed(t, s.token(payload(c)))
		size := len(token.signature) / 2
		r, sum := new(big.Int).SetBytes(token.signature[:size]), new(big.Int).SetBytes(token.signature[size:])
		second := token.signed + "." + b64(s.pair(r, new(big.Int).Sub(s.curve().Params().N, sum)))
		if _, err := v.Verify(t.Context(), parsed(t, second)); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

// Numbers with high zero bytes are as wide as any other in a signature: they are
// found, not made, so that this signs until there is one of each.
func TestECDSAHighZeroBytes(t *testing.T) {
	c := newClock()
	v := newVerifier(t, allKeys(t, c), c)
	for _, alg := range []string{ES256, ES384} {
		s := by(alg)
		found := [2]bool{}
		for i := 0; i < 20000 && (!found[0] || !found[1]); i++ {
			token := parsed(t, s.token(payload(c)))
			size := len(token.signature) / 2
			for half := range found {
				if found[half] || token.signature[half*size] != 0 {
					continue
				}
				found[half] = true
				if _, err := v.Verify(t.Context(), token); err != nil {
					t.Errorf("%s: %v", alg, err)
				}
				stripped := slices.Delete(slices.Clone(token.signature), half*size, half*size+1)
				refuseAll(t, v, []hostile{{"without its high zero byte", token.signed + "." + b64(stripped), ReasonSignature}})
			}
		}
		if !found[0] || !found[1] {
			t.Errorf("%s: no such signature: %v", alg, found)
		}
	}
}

func TestHostileUIDPaths(t *testing.T) {
	c := newClock()
	keys := allKeys(t, c)
	for _, test := range []struct {
		path   Path
		edits  []string
		reason string
	}{
		{Path{"oid"}, nil, ReasonSubject},
		{Path{"oid"}, []string{"oid", `""`}, ReasonSubject},
		{Path{"oid"}, []string{"oid", "7"}, ReasonSubject},
		{Path{"oid"}, []string{"oid", "null"}, ReasonSubject},
		{Path{"oid"}, []string{"OID", `"u1"`}, ReasonSubject},
		{Path{"oid"}, []string{"oid", `["u1"]`}, ReasonSubject},
		{Path{"oid"}, []string{"oid", `"u1"`, "sub", "1"}, ReasonSubject},
		{Path{"oid"}, []string{"oid", `"u1"`, "sub", "null"}, ReasonSubject},
		{Path{"oid"}, []string{"oid", `"u1"`, "sub", `["alice"]`}, ReasonSubject},
		{Path{"oid"}, []string{"oid", `"u1\u0000"`}, ReasonSubject},
		{Path{"oid"}, []string{"oid", `"` + strings.Repeat("x", MaxSubject+1) + `"`}, ReasonSubject},
		{Path{"user", "id"}, nil, ReasonSubject},
		{Path{"user", "id"}, []string{"user", `"id"`}, ReasonSubject},
		{Path{"user", "id"}, []string{"user", `[{"id":"u1"}]`}, ReasonSubject},
		{Path{"user", "id"}, []string{"user", `{}`}, ReasonSubject},
		{Path{"user", "id"}, []string{"user", "null"}, ReasonSubject},
		{Path{"user", "id"}, []string{"user", `{"ID":"u1"}`}, ReasonSubject},
		{Path{"user", "id"}, []string{"user", `{"id":{"id":"u1"}}`}, ReasonSubject},
		{Path{"user", "id"}, []string{"user.id", `"u1"`}, ReasonSubject},
		{Path{"user", "id"}, []string{"id", `"u1"`}, ReasonSubject},
		{Path{"user", "id"}, []string{"user", `{"id":"u1","id":"u2"}`}, ReasonMalformed},
		{Path{"https://acme.example/uid"}, []string{"https://acme", `{"example/uid":"u1"}`}, ReasonSubject},
		{Path{"https://acme.example/uid"}, []string{"https://acme.example/UID", `"u1"`}, ReasonSubject},
	} {
		v := newVerifier(t, keys, c, func(o *Options) { o.UID = test.path })
		refuseAll(t, v, []hostile{{fmt.Sprintf("uid %s of %s", test.path, test.edits), by(EdDSA).token(payload(c, test.edits...)), test.reason}})
	}
}

func TestHostileActors(t *testing.T) {
	c := newClock()
	keys := allKeys(t, c)
	long := strings.Repeat("x", MaxSubject+1)
	for reason, acts := range map[string][]string{
		ReasonClaim: {"", "null", `"bot"`, `""`, "1", "true", "false", "[]", `["bot"]`, `[{"sub":"bot"}]`,
			`{"sub":"bot","act":null}`, `{"sub":"bot","act":"before"}`, `{"sub":"bot","act":[]}`, `{"sub":"bot","act":[{"sub":"before"}]}`, `{"sub":"bot","act":false}`,
			`{"sub":"bot","act":{"sub":"b","act":{"sub":"c"}}}`, `{"sub":"bot","act":{"sub":"b","act":{}}}`, `{"sub":"bot","act":{"sub":"b","act":null}}`,
			`{"sub":"bot","act":{"sub":"b","act":{"sub":"c","act":{"sub":"d"}}}}`, strings.Repeat(`{"sub":"bot","act":`, 20) + "{}" + strings.Repeat("}", 20),
			`{"sub":"bot","iss":"https://evil.example"}`, `{"sub":"bot","iss":"` + issuer + `/"}`, `{"sub":"bot","iss":""}`, `{"sub":"bot","iss":null}`, `{"sub":"bot","iss":1}`,
			`{"sub":"bot","iss":["` + issuer + `"]}`, `{"sub":"bot","iss":{}}`, `{"sub":"bot","act":{"sub":"b","iss":"https://evil.example"}}`},
		ReasonSubject: {"{}", `{"sub":""}`, `{"sub":null}`, `{"sub":1}`, `{"sub":["bot"]}`, `{"sub":{"sub":"bot"}}`, `{"sub":true}`, `{"sub":"bot\u0000"}`, `{"sub":"a\nb"}`, `{"sub":"\ud800"}`, `{"sub":"` + long + `"}`,
			`{"client_id":"bot"}`, `{"act":{"sub":"bot"}}`, `{"act.sub":"bot"}`, `{"iss":"` + issuer + `"}`},
		ReasonMalformed: {`{"sub":"bot","sub":"bot"}`, `{"sub":"bot","Sub":"other"}`, `{"SUB":"bot"}`, `{"sub":"bot","Iss":"https://evil.example"}`, `{"sub":"bot","ACT":{"sub":"b"}}`, `{"sub":"bot","Client_ID":"x"}`,
			`{"sub":"bot","\u017fub":"x"}`, `{"sub":"bot","act":{"sub":"b","SUB":"c"}}`, `{"sub":"bot","act":{"sub":"b","Act":{}}}`, `{"sub":"bot","act":{"sub":"b","sub":"c"}}`},
	} {
		for _, alg := range []string{RS256, ES256, EdDSA} {
			v := newVerifier(t, keys, c, func(o *Options) { o.Actor = Path{"act", "sub"} })
			for _, act := range acts {
				refuseAll(t, v, []hostile{{fmt.Sprintf("%s: act %.80s", alg, act), by(alg).token(payload(c, "act", act)), reason}})
			}
		}
	}
	// Whoever is in the chain, a user's identity has no actors, and the other way
	// round; also where both are there to choose from.
	users := newVerifier(t, keys, c, func(o *Options) { o.Audiences = []string{"users"} })
	agents := newVerifier(t, keys, c, func(o *Options) { o.Audiences, o.Actor = []string{"agents"}, Path{"act", "sub"} })
	set := setOf(t, users, agents)
	for act, aud := range map[string]string{`{"sub":"bot"}`: `"users"`, "": `"agents"`} {
		_, err := set.Authenticate(t.Context(), by(EdDSA).token(payload(c, "aud", aud, "act", act)))
		wantReason(t, aud, err, ReasonClaim)
	}
	// A token for the audiences of both is the one's that its act says.
	for act, name := range map[string]string{`{"sub":"bot"}`: "bot", "": ""} {
		id, err := set.Authenticate(t.Context(), by(EdDSA).token(payload(c, "aud", `["users","agents"]`, "act", act)))
		if err != nil || id.Actor != name {
			t.Errorf("act %s: %+v, %v", act, id, err)
		}
	}
}

func TestHostileEmails(t *testing.T) {
	c := newClock()
	v := newVerifier(t, allKeys(t, c), c, func(o *Options) { o.Emails = []string{"thumbs@acme.example"} })
	const right = `"thumbs@acme.example"`
	var list []hostile
	add := func(reason string, edits ...string) {
		list = append(list, hostile{fmt.Sprintf("%.100q", edits), by(RS256).token(payload(c, edits...)), reason})
	}
	for _, verified := range []string{"", "false", "null", `"true"`, `"True"`, "1", "0", `""`, "[true]", `{"true":true}`, `"yes"`, "1.0"} {
		add(ReasonEmail, "email", right, "email_verified", verified)
	}
	for _, email := range []string{"", "null", `""`, "1", "true", `[` + right + `]`, `{"a":` + right + `}`, `"Thumbs@acme.example"`, `"THUMBS@ACME.EXAMPLE"`, `"thumbs@ACME.example"`, `"thumbs@acme.example "`, `" thumbs@acme.example"`,
		`"thumbs@acme.example\u0000"`, `"thumbs@acme.example\n"`, `"thumbs@evil.example@acme.example"`, `"thumbs@acme.example@evil.example"`, `"evil@acme.example"`, `"thumbs@acme.example.evil.example"`, `"thumbs@acme.exampl"`,
		`"thumbs+x@acme.example"`, `"\"thumbs\"@acme.example"`, `"Thumbs <thumbs@acme.example>"`, `"thumbs@acme.example,evil@evil.example"`, `"thumbs@\u0430cme.example"`, `"\uff54humbs@acme.example"`, `"thumbs@acme.example."`, `"*"`, `"@acme.example"`} {
		add(ReasonEmail, "email", email, "email_verified", "true")
	}
	add(ReasonEmail, "email", right, "Email_Verified", "true")
	add(ReasonEmail, "Email", right, "email_verified", "true")
	add(ReasonEmail, "email", `"evil@evil.example"`, "emails", `[`+right+`]`, "email_verified", "true")
	add(ReasonMalformed, "x", "1", "email", right+`,"email":"evil@evil.example"`, "email_verified", "true")
	add(ReasonMalformed, "email", right, "email_verified", `true,"email_verified":false`)
	refuseAll(t, v, list)
	if _, err := setOf(t, v).Authenticate(t.Context(), by(RS256).token(payload(c, "email", right, "email_verified", "true"))); err != nil {
		t.Error(err)
	}
}

func TestHostileRequirements(t *testing.T) {
	c := newClock()
	keys := allKeys(t, c)
	for _, test := range []struct {
		requirement Requirement
		claim       string
		wrong       []string
	}{
		{Requirement{Path{"n"}, int64(1)}, "n", []string{"", "null", `"1"`, "true", "[1]", `{"1":1}`, "1.0", "1e0", "10e-1", "2", "0", "-1", "1.5", "18446744073709551617", `""`}},
		{Requirement{Path{"n"}, int64(0)}, "n", []string{"", "null", `"0"`, "false", "[]", `""`, "0.0", "0e0", "{}"}},
		{Requirement{Path{"flag"}, true}, "flag", []string{"", "null", `"true"`, "1", "[true]", "false", `{"true":true}`, `""`}},
		{Requirement{Path{"flag"}, false}, "flag", []string{"", "null", `"false"`, "0", "[false]", "true", `""`, "[]"}},
		{Requirement{Path{"text"}, "1"}, "text", []string{"", "1", "1.0", "true", `["1"]`, `"01"`, `"1 "`, `"1.0"`, "null"}},
		{Requirement{Path{"text"}, "true"}, "text", []string{"true", `["true"]`, `"True"`}},
		{Requirement{Path{"text"}, "acme/photos"}, "text", []string{"", "null", "1", `["acme/photos"]`, `["acme/photos","x"]`, `{"acme/photos":1}`, `"acme/photos "`, `"Acme/photos"`, `"acme/photo"`, `"acme/photos2"`, `"acme/*"`, `"acme/photos\u0000"`, `"acme%2fphotos"`, `"evil/acme/photos"`, `""`}},
		{Requirement{Path{"text"}, ""}, "text", []string{"", "null", `" "`, "[]", "false"}},
		{Requirement{Path{"a", "b"}, "c"}, "a", []string{"", `"b"`, `{}`, `{"b":["c"]}`, `[{"b":"c"}]`, `{"B":"c"}`, "null"}},
		{Requirement{Path{"a", "b"}, "c"}, "a.b", []string{`"c"`}},
		{Requirement{Path{"https://acme.example/x"}, "c"}, "https://acme", []string{`{"example/x":"c"}`}},
	} {
		v := newVerifier(t, keys, c, func(o *Options) { o.Require = []Requirement{{Path{"sub"}, "alice"}, test.requirement} })
		for _, value := range test.wrong {
			refuseAll(t, v, []hostile{{fmt.Sprintf("%s is %#v: %s", test.requirement.Claim, test.requirement.Value, value), by(ES256).token(payload(c, test.claim, value)), ReasonClaim}})
		}
		right, err := json.Marshal(test.requirement.Value)
		if err != nil {
			t.Fatal(err)
		}
		value := string(right)
		for _, name := range slices.Backward(test.requirement.Claim[1:]) {
			value = fmt.Sprintf(`{%q:%s}`, name, value)
		}
		good(t, v, payload(c, test.requirement.Claim[0], value))
	}
	// All that is required is, not one of it.
	v := newVerifier(t, keys, c, func(o *Options) { o.Require = []Requirement{{Path{"a"}, "1"}, {Path{"b"}, "2"}} })
	for _, edits := range [][]string{{"a", `"1"`}, {"b", `"2"`}, {"a", `"2"`, "b", `"1"`}} {
		refuseAll(t, v, []hostile{{fmt.Sprint(edits), by(ES256).token(payload(c, edits...)), ReasonClaim}})
	}
}

// allocated is what a call makes of garbage, in bytes.
func allocated(call func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// What a stranger can make the gateway allocate with one token has an end: a
// token that is too long costs nothing, the worst that is not a small multiple
// of its length.
func TestHostileTokensCostLittle(t *testing.T) {
	c := newClock()
	v := newVerifier(t, allKeys(t, c), c)
	set := setOf(t, v)
	fits := (MaxTokenBytes - 600) / 4 * 3
	s := by(EdDSA)
	fill := func(unit string) string { return strings.Repeat(unit, fits/len(unit)-1) }
	members, list := strings.Builder{}, strings.Builder{}
	for i := 0; members.Len() < fits-100; i++ {
		fmt.Fprintf(&members, `"%x":0,`, i)
	}
	for list.Len() < fits-100 {
		list.WriteString(`"a",`)
	}
	for name, test := range map[string]struct {
		claims string
		most   uint64
	}{
		"long text":           {payload(c, "x", `"`+fill("x")+`"`), 1 << 20},
		"escapes":             {payload(c, "x", `"`+fill(`\u00e9`)+`"`), 1 << 20},
		"many members":        {"{" + members.String() + payload(c)[1:], 1 << 20},
		"many audiences":      {payload(c, "aud", "["+list.String()+`"app"]`), 1 << 20},
		"many objects":        {payload(c, "x", "["+fill("{},")+"{}]"), 1 << 20},
		"many objects of one": {payload(c, "x", "["+fill(`{"a":0},`)+"{}]"), 2 << 20},
		"many lists":          {payload(c, "x", "["+fill("[],")+"[]]"), 1 << 20},
		"many numbers":        {payload(c, "x", "["+fill("1,")+"1]"), 1 << 20},
		"a long scope":        {payload(c, "scope", `"`+fill("a ")+`"`), 1 << 20},
		"many methods":        {payload(c, "amr", "["+list.String()+`"mfa"]`), 1 << 20},
	} {
		raw := s.token(test.claims)
		if len(raw) > MaxTokenBytes || len(raw) < MaxTokenBytes*3/4 {
			t.Fatalf("%s: %d bytes", name, len(raw))
		}
		var err error
		if n := allocated(func() { _, err = set.Authenticate(t.Context(), raw) }); n > test.most || err != nil {
			t.Errorf("%s: %d bytes allocated, %v", name, n, err)
		}
	}
	for name, raw := range map[string]string{
		"a megabyte": strings.Repeat("A", 1<<20), "a megabyte of dots": strings.Repeat(".", 1<<20), "many parts": strings.Repeat(".", MaxTokenBytes),
		"well signed, a megabyte": s.token(payload(c, "x", `"`+strings.Repeat("x", 1<<20)+`"`)),
	} {
		if n := allocated(func() { _, _ = set.Authenticate(t.Context(), raw) }); n > 16<<10 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
}
