package oidc

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	// maxKeysBytes bounds an issuer's answer; Google's is 2 KB.
	maxKeysBytes = 1 << 20
	// How long an answer counts: by its max-age within these bounds (a short
	// one must not make us a burden, a long one must not keep a withdrawn key
	// trusted), by default an hour.
	minLifetime     = 5 * time.Minute
	maxLifetime     = 24 * time.Hour
	defaultLifetime = time.Hour
)

// A publicKey is a published key of a kind that is used here.
type publicKey struct {
	key crypto.PublicKey
	alg string // the only algorithm it is for; empty: any that fits
}

// fetch asks the issuer once, and gives the keys and the answer they were read
// from. The error never holds a part of the answer.
func (k *KeySet) fetch(ctx context.Context) (set *snapshot, body []byte, err error) {
	defer func() {
		// The answer is a stranger's, and parsers have had panics: one of
		// these costs a refresh, not the gateway.
		if p := recover(); p != nil {
			set, body, err = nil, nil, errors.New("the answer made a parser panic")
		}
	}()
	from := k.url
	if k.discovery != nil {
		if from, err = k.discover(ctx); err != nil {
			return nil, nil, fmt.Errorf("the issuer's metadata: %w", err)
		}
		defer func() {
			if err != nil {
				k.discovery.keys = "" // perhaps they have moved
			}
		}()
	}
	body, header, err := k.get(ctx, from)
	if err != nil {
		return nil, nil, err
	}
	keys, err := parseKeys(body, k.noKeyID)
	if err != nil {
		return nil, nil, err
	}
	now := k.now()
	return &snapshot{keys: keys, fetched: now, refresh: now.Add(refreshAfter(header))}, body, nil
}

// get reads one bounded answer.
func (k *KeySet) get(ctx context.Context, from string) ([]byte, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Accept", "application/json")
	response, err := k.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("the answer's status is %d, not 200", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxKeysBytes+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the answer: %w", err)
	}
	if len(body) > maxKeysBytes {
		return nil, nil, fmt.Errorf("the answer is longer than %d bytes", maxKeysBytes)
	}
	return body, response.Header, nil
}

// refreshAfter is how long after an answer to fetch again: nine tenths of the
// time that it is fresh (RFC 9111, section 4.2), what caches on the way have
// used of it (Age) taken off.
func refreshAfter(h http.Header) time.Duration {
	lifetime := defaultLifetime
	if maxAge, ok := maxAge(h); ok {
		lifetime = maxAge - seconds(h.Get("Age"))
	}
	return min(max(lifetime-lifetime/10, minLifetime), maxLifetime)
}

func maxAge(h http.Header) (time.Duration, bool) {
	for _, line := range h.Values("Cache-Control") {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
			if strings.EqualFold(name, "max-age") {
				return seconds(strings.Trim(value, `"`)), true
			}
		}
	}
	return 0, false
}

// seconds reads delta-seconds (RFC 9111, section 1.2.2); what is none is 0,
// and what is more than the ceiling is cut so that it cannot overflow.
func seconds(text string) time.Duration {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0
	}
	return time.Duration(min(n, 2*uint64(maxLifetime/time.Second))) * time.Second
}

// parseKeys reads a JWK set or a map of key IDs to X.509 certificates, told
// apart by the member `keys` being a list. Keys that are not for signatures or
// of a kind that is not used here are left out, as RFC 7517, section 5, says;
// a set in which none remains is an error, because an issuer without keys is
// one that has a fault. Keys without an ID count only where noID says so.
func parseKeys(body []byte, noID bool) (map[string][]publicKey, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return nil, errors.New("the answer is not a JSON object")
	}
	keys := make(map[string][]publicKey)
	var list []json.RawMessage
	if raw, ok := members["keys"]; ok && json.Unmarshal(raw, &list) == nil {
		for _, jwk := range list {
			if id, key, ok := parseJWK(jwk); ok && (id != "" || noID) {
				keys[id] = append(keys[id], key)
			}
		}
	} else {
		for id, certificate := range members {
			if key, ok := parseCertificate(certificate); ok && id != "" {
				keys[id] = []publicKey{key}
			}
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the answer holds no key that can be used")
	}
	return keys, nil
}

func parseJWK(data []byte) (id string, key publicKey, ok bool) {
	// A private or symmetric key has no business there, and to parse one
	// costs much more than a public one.
	var private struct{ D, K, P, Q, Priv json.RawMessage }
	if json.Unmarshal(data, &private) != nil || private.D != nil || private.K != nil ||
		private.P != nil || private.Q != nil || private.Priv != nil {
		return "", publicKey{}, false
	}
	var operations struct {
		Ops []string `json:"key_ops"`
	}
	if json.Unmarshal(data, &operations) != nil || (operations.Ops != nil && !slices.Contains(operations.Ops, "verify")) {
		return "", publicKey{}, false
	}
	var jwk jose.JSONWebKey
	if jwk.UnmarshalJSON(data) != nil || (jwk.Use != "" && jwk.Use != "sig") || checkKey(jwk.Key) != nil {
		return "", publicKey{}, false
	}
	return jwk.KeyID, publicKey{key: jwk.Key, alg: jwk.Algorithm}, true
}

// parseCertificate takes the key out of a PEM certificate. Neither its chain
// nor its dates are looked at: that the issuer publishes it is what counts.
func parseCertificate(data []byte) (publicKey, bool) {
	var text string
	if json.Unmarshal(data, &text) != nil {
		return publicKey{}, false
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return publicKey{}, false
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil || checkKey(certificate.PublicKey) != nil {
		return publicKey{}, false
	}
	return publicKey{key: certificate.PublicKey}, true
}

// holds reports whether all of old's keys are still there.
func (s *snapshot) holds(old *snapshot) bool {
	for id, keys := range old.keys {
		for _, key := range keys {
			if !s.has(id, key) {
				return false
			}
		}
	}
	return true
}

func (s *snapshot) has(id string, wanted publicKey) bool {
	type equaler interface{ Equal(crypto.PublicKey) bool }
	for _, key := range s.keys[id] {
		k, ok := key.key.(equaler)
		if ok && key.alg == wanted.alg && k.Equal(wanted.key) {
			return true
		}
	}
	return false
}
