package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// discoveryPath is where an issuer describes itself (OpenID Connect Discovery
// 1.0, section 4).
const discoveryPath = "/.well-known/openid-configuration"

// rediscover is how often an issuer whose keys can be fetched is asked anew
// where they are.
const rediscover = 24 * time.Hour

// A discovery is what an issuer says of itself. It belongs to the fetch under
// way, of which there is never more than one.
type discovery struct {
	issuer string
	keys   string    // jwks_uri; empty: not known
	asked  time.Time // when it was learned
}

// discover gives the URL of the issuer's keys.
func (k *KeySet) discover(ctx context.Context) (string, error) {
	d := k.discovery
	if d.keys != "" && k.now().Sub(d.asked) < rediscover {
		return d.keys, nil
	}
	body, _, err := k.get(ctx, k.url)
	if err != nil {
		return "", err
	}
	var metadata struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if json.Unmarshal(body, &metadata) != nil {
		return "", errors.New("the answer is not a JSON object")
	}
	// Section 4.3: identical, byte for byte. Else one issuer could speak for
	// another, whose metadata it serves as its own.
	if metadata.Issuer != d.issuer {
		return "", fmt.Errorf("they are of another issuer than %s", d.issuer)
	}
	if _, err := k.checkURL(metadata.Keys); err != nil {
		return "", err
	}
	d.keys, d.asked = metadata.Keys, k.now()
	return d.keys, nil
}
