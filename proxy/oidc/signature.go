package oidc

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
)

// RS256 is RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518, section 3.3), Firebase's
// only algorithm.
const RS256 = "RS256"

// RSA moduli in bits: at least 2048 by RFC 7518, section 3.3; at most what
// crypto/tls verifies, because a check's time grows with the square.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// An algorithm says which keys it takes and whether a signature is right. An
// algorithm that is not in the table does not exist: "none" and HMAC are not.
type algorithm struct {
	fits   func(crypto.PublicKey) bool
	verify func(key crypto.PublicKey, signed, signature []byte) bool
}

var algorithms = map[string]algorithm{
	RS256: {fits: isRSA, verify: verifyRS256},
}

func isRSA(key crypto.PublicKey) bool {
	_, ok := key.(*rsa.PublicKey)
	return ok
}

func verifyRS256(key crypto.PublicKey, signed, signature []byte) bool {
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return false
	}
	digest := sha256.Sum256(signed)
	return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
}

// checkKey says whether a published key is of a kind and strength that is
// used here.
func checkKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRSABits || n > maxRSABits {
			return fmt.Errorf("an RSA key of %d bits, not %d to %d", n, minRSABits, maxRSABits)
		}
		if key.E < 3 || key.E%2 == 0 {
			return errors.New("an RSA key whose exponent is not odd and at least 3")
		}
		return nil
	}
	return fmt.Errorf("a key of type %T", key)
}
