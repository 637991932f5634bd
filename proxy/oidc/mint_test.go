package oidc

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sidegate/policy"
	"sidegate/proxy"
)

var testKeys = sync.OnceValue(func() (keys [2]*rsa.PrivateKey) {
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	return keys
})

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// mint signs a token with one of the test's keys, whose ID is "k0" or "k1".
func mint(key int, kid, payload string) string {
	signed := b64(fmt.Appendf(nil, `{"alg":"RS256","kid":%q}`, kid)) + "." + b64([]byte(payload))
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, testKeys()[key], crypto.SHA256, digest[:])
	if err != nil {
		panic(err)
	}
	return signed + "." + b64(signature)
}

func parsed(t testing.TB, raw string) *Token {
	t.Helper()
	token, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// jwks publishes the test's keys of these numbers.
func jwks(numbers ...int) string {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, n := range numbers {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: testKeys()[n].Public(), KeyID: fmt.Sprintf("k%d", n), Algorithm: RS256, Use: "sig"})
	}
	text, err := json.Marshal(set)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// A clock that stands until it is moved.
type clock struct{ at atomic.Pointer[time.Time] }

func newClock() *clock {
	c := &clock{}
	start := time.Now().Truncate(time.Second)
	c.at.Store(&start)
	return c
}

func (c *clock) now() time.Time { return *c.at.Load() }
func (c *clock) move(d time.Duration) {
	moved := c.now().Add(d)
	c.at.Store(&moved)
}

func wantReason(t *testing.T, what string, err error, reason string) {
	t.Helper()
	var bad *proxy.TokenError
	if !errors.As(err, &bad) || bad.Reason != reason || errors.Is(err, proxy.ErrUnavailable) {
		t.Errorf("%s: %v; want %q", what, err, reason)
	}
}

func wantUnavailable(t *testing.T, what string, err error) {
	t.Helper()
	var bad *proxy.TokenError
	if !errors.Is(err, proxy.ErrUnavailable) || errors.As(err, &bad) {
		t.Errorf("%s: %v; want unavailable", what, err)
	}
}

// A plain provider checks the standard claims and the signature, as one of a
// package beside this one would.
type plain struct {
	name     string
	accepts  []Selector
	rules    Rules
	keys     *KeySet
	now      func() time.Time
	verified atomic.Int64
}

func (p *plain) Accepts() []Selector { return p.accepts }
func (p *plain) Epoch() uint64       { return p.keys.Epoch() }

func (p *plain) Verify(ctx context.Context, t *Token) (Verified, error) {
	p.verified.Add(1)
	epoch := p.Epoch()
	times, err := p.rules.Check(t, p.now())
	if err != nil {
		return Verified{}, err
	}
	if err := p.keys.Verify(ctx, t, []string{RS256}); err != nil {
		return Verified{}, err
	}
	sub, _ := t.Claims.Text("sub")
	id := &policy.Identity{Name: p.name, UID: sub, Expires: times.Expires, Claims: t.Claims, TokenHash: t.Hash()}
	return Verified{Identity: id, Until: p.rules.Until(times), Epoch: epoch}, nil
}

func newPlain(name, issuer, audience string, keys *KeySet, now func() time.Time) *plain {
	return &plain{name: name, keys: keys, now: now, accepts: []Selector{{Issuer: issuer, Audience: audience}},
		rules: Rules{Issuer: issuer, Audiences: []string{audience}, Leeway: DefaultLeeway, IssuedAt: true}}
}

func claims(now time.Time, more ...string) string {
	return fmt.Sprintf(`{"iss":"https://issuer.example","aud":"app","sub":"alice","iat":%d,"exp":%d%s}`,
		now.Unix(), now.Unix()+3600, strings.Join(append([]string{""}, more...), ","))
}
