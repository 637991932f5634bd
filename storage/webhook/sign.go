package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

const (
	// minKey and maxKey bound a secret, in bytes: 192 to 512 bits.
	minKey, maxKey = 24, 64
	// maxKeys is how many secrets sign at once: more than a rotation needs.
	maxKeys = 4
)

// A SecretError says that it is the secret that is wrong, and not the URL. It
// holds nothing of it.
type SecretError struct{ Reason string }

func (e *SecretError) Error() string { return "webhook: the secret " + e.Reason }

// parseSecrets reads secrets that white space separates. An error shows none.
func parseSecrets(text string) ([][]byte, error) {
	var keys [][]byte
	for _, secret := range strings.Fields(text) {
		key, err := parseSecret(secret)
		if err != nil {
			return nil, err
		}
		if keys = append(keys, key); len(keys) > maxKeys {
			return nil, &SecretError{"is more than 4"}
		}
	}
	if len(keys) == 0 {
		return nil, &SecretError{"is empty"}
	}
	return keys, nil
}

func parseSecret(secret string) ([]byte, error) {
	key := []byte(secret)
	if encoded, ok := strings.CutPrefix(secret, "whsec_"); ok {
		base := base64.RawStdEncoding // some generators leave the padding out
		if strings.HasSuffix(encoded, "=") {
			base = base64.StdEncoding
		}
		var err error
		if key, err = base.Strict().DecodeString(encoded); err != nil {
			return nil, &SecretError{"is not base64 behind whsec_"}
		}
	} else if strings.HasPrefix(secret, "whsk_") || strings.HasPrefix(secret, "whpk_") {
		return nil, &SecretError{"is a key for asymmetric signatures, which are not made here: use one that begins with whsec_"}
	}
	if len(key) < minKey || len(key) > maxKey {
		return nil, &SecretError{"is not 24 to 64 bytes: make one with `echo whsec_$(openssl rand -base64 32)`"}
	}
	return key, nil
}

// sign is the header webhook-signature: a signature with each key.
func sign(keys [][]byte, id, timestamp string, body []byte) string {
	var list []string
	for _, key := range keys {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(id + "." + timestamp + "."))
		h.Write(body)
		list = append(list, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return strings.Join(list, " ")
}
