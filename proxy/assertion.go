package proxy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

const (
	// jwksPath is where upstreams find the keys of assertions.
	jwksPath = "/.sidegate/jwks.json"
	// jwksAge is how long they may keep them.
	jwksAge = 300 * time.Second
	// assertionLife is how long an assertion counts.
	assertionLife = 60 * time.Second
	// nextKeyWait is how long after the start the next key begins to sign: the
	// gateways of a deployment start within minutes, and whoever asked the last
	// of the old ones keeps its keys for jwksAge.
	nextKeyWait = 15 * time.Minute
)

// Assertions sign who calls, for upstreams: an ES256 JWT for each request, which
// nobody who reaches the upstream around the gateway can make. They are safe for
// concurrent use.
type Assertions struct {
	issuer    string
	key, next *assertionKey // next: nil where there is none
	switches  time.Time     // when next begins to sign
	now       func() time.Time
	jwks      []byte
}

type assertionKey struct {
	private *ecdsa.PrivateKey
	jwk     jwk
	header  string // the JWT's first part and its dot
}

// A jwk is a public key (RFC 7517; RFC 7518, section 6.2).
type jwk struct {
	Crv string `json:"crv"`
	Kty string `json:"kty"`
	X   string `json:"x"`
	Y   string `json:"y"`
	Alg string `json:"alg,omitempty"`
	Kid string `json:"kid,omitempty"`
	Use string `json:"use,omitempty"`
}

// NewAssertions makes Assertions of keys in PEM (EC, P-256). next may be empty;
// else it is published at once, and signs in key's place when everybody who
// keeps the published keys for their time has it.
func NewAssertions(issuer string, key, next []byte, now func() time.Time) (*Assertions, error) {
	a := &Assertions{issuer: issuer, now: now, switches: now().Add(nextKeyWait)}
	var err error
	if a.key, err = newAssertionKey(key); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	keys := []jwk{a.key.jwk}
	if len(next) > 0 {
		if a.next, err = newAssertionKey(next); err != nil {
			return nil, fmt.Errorf("next_key: %w", err)
		}
		if a.next.jwk.Kid == a.key.jwk.Kid {
			return nil, errors.New("next_key is the key itself")
		}
		keys = append(keys, a.next.jwk)
	}
	// Both, also after the switch: a gateway that has just begun still signs by
	// the first, and whoever has an assertion of it may ask here for its key.
	a.jwks, err = json.Marshal(map[string][]jwk{"keys": keys})
	return a, err
}

// CheckAssertionKey says what is wrong with a key, and nothing of it.
func CheckAssertionKey(pem []byte) error {
	_, err := newAssertionKey(pem)
	return err
}

func newAssertionKey(data []byte) (*assertionKey, error) {
	block, rest := pem.Decode(data)
	if block != nil && block.Type == "EC PARAMETERS" { // as openssl ecparam writes before the key
		block, rest = pem.Decode(rest)
	}
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("it is not one key in PEM; make one with: openssl ecparam -name prime256v1 -genkey -noout")
	}
	private, err := parsePrivate(block)
	if err != nil {
		return nil, err
	}
	if private.Curve != elliptic.P256() {
		return nil, fmt.Errorf("its curve is %s, not P-256", private.Curve.Params().Name)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		return nil, errors.New("its public half is no point of the curve")
	}
	b64 := base64.RawURLEncoding.EncodeToString
	k := &assertionKey{private: private, jwk: jwk{Crv: "P-256", Kty: "EC", X: b64(point[1:33]), Y: b64(point[33:])}}
	// RFC 7638: the members that make the key, in the order of their names.
	members, err := json.Marshal(k.jwk)
	if err != nil {
		return nil, err
	}
	thumbprint := sha256.Sum256(members)
	k.jwk.Kid, k.jwk.Alg, k.jwk.Use = b64(thumbprint[:]), "ES256", "sig"
	k.header = b64([]byte(`{"alg":"ES256","typ":"JWT","kid":"`+k.jwk.Kid+`"}`)) + "."
	return k, nil
}

// parsePrivate never says more of a key than its kind.
func parsePrivate(block *pem.Block) (*ecdsa.PrivateKey, error) {
	if block.Type == "EC PRIVATE KEY" {
		key, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("it is not an EC private key, as its PEM says")
		}
		return key, nil
	}
	if block.Type != "PRIVATE KEY" {
		return nil, errors.New("it is a PEM block of another kind than EC PRIVATE KEY and PRIVATE KEY")
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("it is not a private key, as its PEM says")
	}
	key, ok := private.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("it is not an elliptic curve's: ES256 needs one of P-256")
	}
	return key, nil
}

// An assertion is what is signed; docs/http.md explains each member.
type assertion struct {
	Issuer   string         `json:"iss"`
	Audience string         `json:"aud"`
	Subject  string         `json:"sub"`
	IssuedAt int64          `json:"iat"`
	Expires  int64          `json:"exp"`
	ID       string         `json:"jti"`
	Method   string         `json:"method"`
	Path     string         `json:"path"`
	Identity string         `json:"identity"`
	Actor    string         `json:"actor,omitempty"`
	Claims   map[string]any `json:"claims,omitempty"`
}

// sign makes the assertion of a request to an upstream.
func (a *Assertions) sign(x *exchange, upstream string) (string, error) {
	now := a.now()
	key := a.key
	if a.next != nil && !now.Before(a.switches) {
		key = a.next
	}
	id := x.identity
	var payload bytes.Buffer
	enc := json.NewEncoder(&payload)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(assertion{
		Issuer: a.issuer, Audience: upstream, Subject: id.UID, IssuedAt: now.Unix(), Expires: now.Add(assertionLife).Unix(), ID: x.id,
		Method: x.r.Method, Path: x.target.path, Identity: id.Name, Actor: id.Actor, Claims: declaredClaims(id, x.policy.Claims()),
	}); err != nil {
		return "", err
	}
	signed := key.header + base64.RawURLEncoding.EncodeToString(bytes.TrimSuffix(payload.Bytes(), []byte("\n")))
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key.private, digest[:])
	if err != nil {
		return "", err
	}
	var signature [64]byte // RFC 7518, section 3.4
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature[:]), nil
}

// assert signs who calls, where the upstream is told by an assertion. An
// upstream that counts on one never gets the request without it.
func (f *forwarder) assert(x *exchange) error {
	a := f.p.o.Assertions
	if a == nil || x.identity == nil || !f.up.Headers.asserts {
		return nil
	}
	var err error
	if x.assertion, err = a.sign(x, f.name); err != nil {
		return fmt.Errorf("sign the assertion: %w", err)
	}
	return nil
}

// decideKeys answers for jwksPath, which is everybody's.
func (p *Proxy) decideKeys(x *exchange) (decision, action) {
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		return refuse(reasonOwn, &problem{status: http.StatusMethodNotAllowed, code: codeMethod, detail: "the method is not allowed here", allow: []string{http.MethodGet, http.MethodHead}}), nil
	}
	return decision{allow: true, reason: reasonOwn}, func(x *exchange) error {
		h := x.w.Header()
		ownAnswer(h, x.id)
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(jwksAge/time.Second)))
		h.Set("Content-Length", strconv.Itoa(len(p.o.Assertions.jwks)))
		x.w.WriteHeader(http.StatusOK)
		if x.r.Method == http.MethodHead {
			return nil
		}
		if _, err := x.w.Write(p.o.Assertions.jwks); err != nil {
			return errClientGone
		}
		return nil
	}
}

// reasonOwn is the audit log's code of what the gateway answers for itself.
const reasonOwn = "own"
