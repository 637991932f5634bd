package cmd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"sidegate/policy"
	"sidegate/proxy"
	"sidegate/proxy/firebase"
	"sidegate/proxy/oidc"
)

// claimsCaller is the identity that a token with this payload would have, as a
// bearer token or, where it is one, as a session cookie.
func claimsCaller(ctx context.Context, payload string, c *Config, at time.Time) (*policy.Identity, error) {
	own, err := newOwnIssuer()
	if err != nil {
		return nil, err
	}
	set, err := own.readers(c, func() time.Time { return at })
	if err != nil {
		return nil, err
	}
	token, err := own.sign(payload)
	if err != nil {
		return nil, err
	}
	id, err := set.Authenticate(ctx, token)
	if bad := (*proxy.TokenError)(nil); errors.As(err, &bad) && bad.Reason == oidc.ReasonAlgorithm {
		// One of Firebase's, read as its emulator's, which nobody signs.
		header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
		id, err = set.Authenticate(ctx, header+"."+payload+".")
	}
	if bad := (*proxy.TokenError)(nil); errors.As(err, &bad) {
		return nil, fmt.Errorf("the gateway answers 401: %s (at %s)", bad.Error(), at.Format(time.RFC3339))
	}
	return id, err
}

// readers are the identities of a configuration, for tokens that own signed and
// for those of Firebase, which its emulator would not have signed.
func (o *ownIssuer) readers(c *Config, now func() time.Time) (*oidc.Set, error) {
	var all []oidc.Provider
	for _, id := range c.Identities {
		if id.OIDC != nil {
			options := verifierOptions(id, o.keys, now)
			options.Algorithms = []string{oidc.ES256}
			v, err := oidc.NewVerifier(options)
			if err != nil {
				return nil, err
			}
			all = append(all, v)
			continue
		}
		f := firebase.Options{Name: id.Name, Namespace: id.Namespace, Project: id.Firebase.Project, Tenant: id.Firebase.Tenant, Leeway: id.Firebase.Leeway, Now: now}
		tokens, err := firebase.NewEmulator(f)
		if err != nil {
			return nil, err
		}
		all = append(all, tokens)
		if id.Firebase.SessionCookie == "" {
			continue
		}
		cookies, err := firebase.NewEmulatorCookies(f)
		if err != nil {
			return nil, err
		}
		all = append(all, cookies)
	}
	return oidc.New(all...)
}

// An ownIssuer signs claims in the place of their issuer's signature, so that
// they are read by what reads them in the gateway, which takes nothing unsigned.
type ownIssuer struct {
	private *ecdsa.PrivateKey
	jwks    []byte
	keys    *oidc.KeySet
}

func newOwnIssuer() (*ownIssuer, error) {
	o := &ownIssuer{}
	var err error
	if o.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	point, err := o.private.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	o.jwks = fmt.Appendf(nil, `{"keys":[{"kty":"EC","crv":"P-256","kid":"own","x":%q,"y":%q}]}`, base64.RawURLEncoding.EncodeToString(point[1:33]), base64.RawURLEncoding.EncodeToString(point[33:]))
	o.keys, err = oidc.NewKeySet(oidc.KeySetOptions{URL: "https://own.invalid/keys", Client: &http.Client{Transport: o}})
	if err == nil {
		err = o.keys.Prefetch(context.Background())
	}
	return o, err
}

// RoundTrip answers with the key: nothing is asked of a network.
func (o *ownIssuer) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(o.jwks)), Request: r}, nil
}

func (o *ownIssuer) sign(payload string) (string, error) {
	signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"own"}`)) + "." + payload
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, o.private, digest[:])
	if err != nil {
		return "", err
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature[:]), nil
}
