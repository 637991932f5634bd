// An app that believes nobody but its gateway: it verifies
// X-Sidegate-Assertion of each request, and answers with who calls. It needs
// the standard library only; verifier is the part to copy.
package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	header = "X-Sidegate-Assertion"
	leeway = 5 * time.Second // by which two machines' clocks may differ

	keysAge     = 300 * time.Second // as the gateway's Cache-Control says
	unknownWait = time.Minute       // between fetches for the sake of unknown kids
	failedWait  = 10 * time.Second  // after a fetch that failed
	fetchTime   = 5 * time.Second
	maxKeys     = 64 << 10 // bytes of the key set
)

// errNoKeys: nothing is known of the assertion, since no keys were ever had.
// That is not the caller's fault, and must not look like it.
var errNoKeys = errors.New("the gateway's keys could not be fetched")

// A caller is who the gateway says calls.
type caller struct {
	UID      string         `json:"uid"`
	Identity string         `json:"identity"` // a uid means something only together with it
	Actor    string         `json:"actor"`    // who acts for the user; "": nobody
	Claims   map[string]any `json:"claims"`   // those that the policy declares
}

// A verifier verifies assertions of one gateway for one app. It is safe for
// concurrent use.
type verifier struct {
	issuer   string // name of the gateway's sidegate.yaml
	audience string // the name that this app has there, among the upstreams
	keys     *keySet
}

func (v *verifier) verify(r *http.Request) (*caller, error) {
	// The gateway sends one. Of two, another reader might take the other.
	values := r.Header.Values(header)
	if len(values) != 1 {
		return nil, fmt.Errorf("want one %s, got %d", header, len(values))
	}
	parts := strings.Split(values[0], ".")
	if len(parts) != 3 {
		return nil, errors.New("the assertion is not a JWT")
	}
	var head struct {
		Alg  string          `json:"alg"`
		Kid  string          `json:"kid"`
		Crit json.RawMessage `json:"crit"`
	}
	if err := decodePart(parts[0], &head); err != nil {
		return nil, err
	}
	// The algorithm is this app's choice, never the sender's: "none" needs no
	// key, and HS256 would take the public key for a secret.
	if head.Alg != "ES256" {
		return nil, errors.New("the assertion's alg is not ES256")
	}
	if head.Crit != nil { // RFC 7515, section 4.1.11: what is not understood is refused
		return nil, errors.New("the assertion has a crit header")
	}
	key, err := v.keys.find(r.Context(), head.Kid)
	if err != nil {
		return nil, err
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(signature) != 64 { // RFC 7518, section 3.4: r and s, 32 bytes each, no DER
		return nil, errors.New("the assertion's signature is not 64 bytes")
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if !ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		return nil, errors.New("the assertion's signature is wrong")
	}

	// From here on the gateway speaks; what is left to ask is whether it spoke
	// to this app, of this request, and now.
	var a struct {
		Issuer   string         `json:"iss"`
		Audience string         `json:"aud"`
		Subject  string         `json:"sub"`
		Issued   *int64         `json:"iat"`
		Expires  *int64         `json:"exp"`
		Method   string         `json:"method"`
		Path     string         `json:"path"`
		Identity string         `json:"identity"`
		Actor    string         `json:"actor"`
		Claims   map[string]any `json:"claims"`
	}
	if err := decodePart(parts[1], &a); err != nil {
		return nil, err
	}
	now := time.Now()
	switch {
	case a.Issuer != v.issuer:
		return nil, errors.New("the assertion is another gateway's")
	case a.Audience != v.audience:
		return nil, errors.New("the assertion is for another app")
	case a.Expires == nil || !now.Before(time.Unix(*a.Expires, 0).Add(leeway)):
		return nil, errors.New("the assertion has expired")
	case a.Issued == nil || now.Before(time.Unix(*a.Issued, 0).Add(-leeway)):
		return nil, errors.New("the assertion is of the future")
	case a.Method != r.Method:
		return nil, errors.New("the assertion is for another method")
	// net/http has decoded it once, as the gateway had: what is compared is the
	// path that the handlers go by.
	case a.Path != r.URL.Path:
		return nil, errors.New("the assertion is for another path")
	case a.Subject == "" || a.Identity == "":
		return nil, errors.New("the assertion does not say who calls")
	}
	if a.Claims == nil {
		a.Claims = map[string]any{}
	}
	return &caller{UID: a.Subject, Identity: a.Identity, Actor: a.Actor, Claims: a.Claims}, nil
}

func decodePart(part string, into any) error {
	data, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return errors.New("the assertion is not base64url")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // a float64 would change large numbers among the claims
	if err := d.Decode(into); err != nil || d.More() {
		return errors.New("the assertion does not hold what it should")
	}
	return nil
}

// A keySet holds the gateway's public keys.
type keySet struct {
	url    string
	client *http.Client

	fetching sync.Mutex // held by the one who fetches

	mu         sync.Mutex // guards what follows; never held while fetching
	keys       map[string]*ecdsa.PublicKey
	fetched    time.Time // when keys were had; zero: never
	nextFetch  time.Time // not before, after a failure
	nextForKid time.Time // not before, for the sake of an unknown kid
}

func newKeySet(url string) *keySet {
	return &keySet{url: url, client: &http.Client{
		Timeout: fetchTime,
		// The keys are where this app was told they are, and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// find gives the key. It fetches when the keys are old, and for an unknown kid,
// which may be a new one; anybody can send one, so that for them it does so at
// most once a minute.
func (s *keySet) find(ctx context.Context, kid string) (*ecdsa.PublicKey, error) {
	key, due := s.look(kid)
	if due && key == nil {
		s.fetching.Lock()
	}
	// With a key in hand nobody waits for the one who fetches a newer set.
	if due && (key == nil || s.fetching.TryLock()) {
		defer s.fetching.Unlock()
		// Somebody else may have fetched while this one waited.
		if key, due = s.look(kid); due {
			s.fetch(ctx)
			key, _ = s.look(kid)
		}
	}
	if key != nil {
		return key, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		return nil, errNoKeys
	}
	return nil, errors.New("the assertion's kid is unknown")
}

// look gives the key, or nil, and says whether to fetch.
func (s *keySet) look(kid string) (key *ecdsa.PublicKey, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, now := s.keys[kid], time.Now()
	if now.Sub(s.fetched) >= keysAge {
		return key, !now.Before(s.nextFetch)
	}
	return key, key == nil && !now.Before(s.nextForKid)
}

// fetch replaces the keys. Where that fails the last good ones stay: an app
// should not go down because its gateway restarts.
func (s *keySet) fetch(ctx context.Context) {
	begun := time.Now()
	// Not cut off by the caller who happened to come first: all need the keys.
	keys, err := s.get(context.WithoutCancel(ctx))
	s.mu.Lock()
	defer s.mu.Unlock()
	if begun.Sub(s.fetched) < keysAge {
		s.nextForKid = begun.Add(unknownWait)
	}
	if err != nil {
		s.nextFetch = time.Now().Add(failedWait)
		log.Printf("fetch the gateway's keys: %v", err)
		return
	}
	s.keys, s.fetched = keys, begun
}

func (s *keySet) get(ctx context.Context) (map[string]*ecdsa.PublicKey, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", answer.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxKeys+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxKeys {
		return nil, fmt.Errorf("more than %d bytes", maxKeys)
	}
	var set struct {
		Keys []struct{ Kty, Crv, Alg, Use, Kid, X, Y string }
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, err
	}
	keys := map[string]*ecdsa.PublicKey{}
	for _, k := range set.Keys {
		if k.Kty != "EC" || k.Crv != "P-256" || k.Alg != "ES256" || k.Use != "sig" || k.Kid == "" {
			continue // for something else
		}
		x, errX := base64.RawURLEncoding.DecodeString(k.X)
		y, errY := base64.RawURLEncoding.DecodeString(k.Y)
		if err := errors.Join(errX, errY); err != nil {
			return nil, err
		}
		// 4: the form with both coordinates (SEC 1, section 2.3.3). It refuses
		// what is no point of the curve.
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
		if err != nil {
			return nil, err
		}
		keys[k.Kid] = key
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no ES256 key among them")
	}
	return keys, nil
}

func main() {
	v := &verifier{issuer: need("SIDEGATE_NAME"), audience: need("SIDEGATE_UPSTREAM"), keys: newKeySet(need("SIDEGATE_JWKS_URL"))}
	server := &http.Server{
		Addr:              ":" + need("PORT"),
		ReadHeaderTimeout: 10 * time.Second,
		// Before any ServeMux, which answers some paths by itself.
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			who, err := v.verify(r)
			switch {
			case errors.Is(err, errNoKeys):
				answer(w, http.StatusServiceUnavailable, map[string]string{"error": err.Error()})
			case err != nil:
				answer(w, http.StatusUnauthorized, map[string]string{"error": err.Error()})
			default:
				answer(w, http.StatusOK, who)
			}
		}),
	}
	log.Fatal(server.ListenAndServe())
}

// need is a variable of the environment. An empty name would be a check that
// checks nothing.
func need(name string) string {
	value := os.Getenv(name)
	if value == "" {
		log.Fatalf("%s is not set", name)
	}
	return value
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body) // an error is a caller who has left
}
