package oidc

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"strings"
	"sync"
)

// MaxTokenBytes bounds a token. Firebase's are about 1 KB, and their custom
// claims are limited to 1000 bytes; other issuers with many groups reach 8 KB.
const MaxTokenBytes = 16 << 10

// A Token is a compact JWS (RFC 7515, section 3.1) whose form was checked and
// nothing else: neither its signature nor any claim. It is never changed after
// it was parsed.
type Token struct {
	// Raw is the token as it came.
	Raw string
	// Algorithm and KeyID are the header's alg and kid; a token without kid
	// has an empty one.
	Algorithm, KeyID string
	// Header and Claims are the whole header and payload.
	Header, Claims Object

	signed    string // what the signature covers: the first two parts
	signature []byte
	plain     bool // all names in the payload are, at every level

	// SHA-256 of signed and of Raw, where summed says so: one begins as the
	// other does, and nearly every token needs both.
	summed        bool
	digest, whole [sha256.Size]byte
}

// Hash is the lower-case hex SHA-256 of the token.
func (t *Token) Hash() string {
	whole := t.whole
	if !t.summed {
		whole = sha256.Sum256([]byte(t.Raw))
	}
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], whole[:])
	return string(text[:])
}

// Payload is the token's second part: the base64url of its claims, as it came.
func (t *Token) Payload() string { return t.signed[strings.IndexByte(t.signed, '.')+1:] }

// Unsigned reports whether the signature is empty. No KeySet verifies such a
// token; only the Firebase Auth emulator's are like that.
func (t *Token) Unsigned() bool { return len(t.signature) == 0 }

// strict refuses the base64 whose last character has bits that no byte has
// (RFC 4648, section 3.5): else one token has several spellings.
var strict = base64.RawURLEncoding.Strict()

// Parse reads a compact JWS, strictly: at most MaxTokenBytes, exactly three
// parts of canonical base64url without padding, whitespace or line ends, two
// JSON objects without duplicate names. A signature may be empty here; no
// KeySet verifies such a token. The error is always a *proxy.TokenError.
func Parse(raw string) (*Token, error) {
	switch {
	case raw == "":
		return nil, Refuse(ReasonMalformed, "the token is empty")
	case len(raw) > MaxTokenBytes:
		return nil, Refuse(ReasonTooLong, "%d bytes, at most %d", len(raw), MaxTokenBytes)
	}
	switch n := strings.Count(raw, "."); n {
	case 2:
	case 4:
		return nil, Refuse(ReasonEncrypted, "")
	default:
		return nil, Refuse(ReasonMalformed, "%d parts instead of 3", n+1)
	}
	first := strings.IndexByte(raw, '.')
	second := first + 1 + strings.IndexByte(raw[first+1:], '.')
	t := &Token{Raw: raw, signed: raw[:second]}
	d := desks.Get().(*desk)
	defer desks.Put(d)
	d.text = append(d.text[:0], raw...)

	if err := d.header(t, raw[:first]); err != nil {
		return nil, err
	}
	var err error
	if t.Claims, t.plain, err = d.object(d.text[first+1:second], "payload"); err != nil {
		return nil, err
	}
	if err := t.RefuseLookalikes(t.Claims, registeredClaims...); err != nil {
		return nil, err
	}
	signature, err := d.decode(d.text[second+1:], "signature")
	if err != nil {
		return nil, err
	}
	t.signature = bytes.Clone(signature)
	d.hash.Reset()
	d.hash.Write(d.text[:second])
	d.hash.Sum(t.digest[:0])
	d.hash.Write(d.text[second:])
	d.hash.Sum(t.whole[:0])
	t.summed = true
	return t, nil
}

// A desk is what tokens are read on, one after the other: a token's text and the
// bytes of a part are garbage as soon as it is read.
type desk struct {
	text, bytes []byte
	hash        hash.Hash // SHA-256
	json        jsonReader

	// The last good header and what it says: an issuer's tokens all have the
	// same, until it signs with another key.
	last struct {
		part           string
		header         Object
		algorithm, kid string
	}
}

// maxKeptHeader bounds what a desk keeps.
const maxKeptHeader = 1 << 10

// header reads a token's first part.
func (d *desk) header(t *Token, part string) error {
	if part != "" && part == d.last.part { // a new desk has read none
		t.Header, t.Algorithm, t.KeyID = d.last.header, d.last.algorithm, d.last.kid
		return nil
	}
	header, _, err := d.object(d.text[:len(part)], "header")
	if err != nil {
		return err
	}
	t.Header = header
	if err := t.readHeader(); err != nil {
		return err
	}
	if len(part) <= maxKeptHeader {
		d.last.part, d.last.header, d.last.algorithm, d.last.kid = strings.Clone(part), t.Header, t.Algorithm, t.KeyID
	}
	return nil
}

// object reads a part that is a JSON object; plain says that all names in it,
// at every level, are.
func (d *desk) object(part []byte, where string) (object Object, plain bool, err error) {
	data, err := d.decode(part, where)
	if err != nil {
		return Object{}, false, err
	}
	if object, plain, err = d.json.read(data); err != nil {
		return Object{}, false, Refuse(ReasonMalformed, "%s: %v", where, err)
	}
	return object, plain, nil
}

var desks = sync.Pool{New: func() any { return &desk{hash: sha256.New()} }}

// decode gives a part's bytes, until the desk is used again.
func (d *desk) decode(part []byte, where string) ([]byte, error) {
	// encoding/base64 skips line ends, even where it is strict.
	if bytes.IndexByte(part, '\n') >= 0 || bytes.IndexByte(part, '\r') >= 0 {
		return nil, Refuse(ReasonMalformed, "%s: a line end", where)
	}
	var err error
	if d.bytes, err = strict.AppendDecode(d.bytes[:0], part); err != nil {
		return nil, Refuse(ReasonMalformed, "%s: not canonical base64url without padding", where)
	}
	return d.bytes, nil
}

// registeredClaims are the names that decide who a token is for and how long
// (RFC 7519, section 4.1, and OpenID Connect Core 1.0, section 2).
var registeredClaims = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "auth_time", "act"}

// readHeader checks the members of the JOSE header (RFC 7515, section 4).
func (t *Token) readHeader() error {
	if err := refuseLookalikes(t.Header, "header", headerMembers); err != nil {
		return err
	}
	for _, name := range refusedMembers {
		if t.Header.Has(name) {
			return Refuse(ReasonHeader, "it has %s", name)
		}
	}
	alg, ok := t.Header.Text("alg")
	if !ok || alg == "" {
		return Refuse(ReasonAlgorithm, "the header has no alg that is text")
	}
	t.Algorithm = alg
	if kid, ok := t.Header.Claim("kid"); ok {
		if t.KeyID, ok = kid.(string); !ok || len(t.KeyID) > maxKeyID {
			return Refuse(ReasonHeader, "kid is not text of at most %d bytes", maxKeyID)
		}
	}
	if typ, ok := t.Header.Claim("typ"); ok && !knownType(typ) {
		return Refuse(ReasonHeader, "typ is not that of a JWT")
	}
	if cty, ok := t.Header.Claim("cty"); ok {
		if _, text := cty.(string); !text {
			return Refuse(ReasonHeader, "cty is not text")
		}
	}
	return nil
}

// maxKeyID bounds a kid, so that one that is logged stays short.
const maxKeyID = 256

var headerMembers = []string{"alg", "kid", "typ", "cty", "crit", "b64", "jku", "jwk", "x5u", "x5c", "zip", "enc"}

// refusedMembers make a token bring its own key (jku, jwk, x5u, x5c), change
// what is signed (b64, RFC 7797), demand extensions nobody here understands
// (crit), or belong to encryption (enc, zip). No issuer of ID tokens needs
// them; refusing costs nothing and ignoring has been got wrong often.
var refusedMembers = []string{"crit", "b64", "jku", "jwk", "x5u", "x5c", "enc", "zip"}

// knownType is lenient (RFC 7519, section 5.1, makes typ optional) but for
// types that say the token is something else, a logout token for example
// (RFC 8725, section 3.11).
func knownType(typ any) bool {
	text, ok := typ.(string)
	if !ok {
		return false
	}
	text = strings.ToLower(text)
	text = strings.TrimPrefix(text, "application/")
	return text == "jwt" || text == "at+jwt"
}

// refuseLookalikes refuses names that differ from a known one only in case:
// this reader tells them apart, others (encoding/json, the Admin SDK) do not.
func refuseLookalikes(object Object, where string, known []string) error {
	for name := range object.Names {
		if isPlain(name) {
			continue
		}
		for _, k := range known {
			if name != k && strings.EqualFold(name, k) {
				return Refuse(ReasonMalformed, "%s: a name that differs from %s only in case", where, k)
			}
		}
	}
	return nil
}

// isPlain reports whether a name has neither capitals nor anything beyond ASCII:
// then it differs from a known name, which has neither, in more than case.
func isPlain(name string) bool {
	for i := range len(name) {
		if c := name[i]; c >= 0x80 || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// RefuseLookalikes is for the objects within the payload that a provider reads:
// it refuses a name that differs from a known one only in case, because other
// readers of the same token take one for the other. The known names are plain
// themselves. The error is a *proxy.TokenError.
func (t *Token) RefuseLookalikes(object Object, known ...string) error {
	if t.plain {
		return nil
	}
	return refuseLookalikes(object, "payload", known)
}
