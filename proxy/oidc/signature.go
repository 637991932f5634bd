package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"math/big"
)

// The algorithms that signatures may have (RFC 7518, section 3.1, and RFC
// 8037, section 3.1). None of them has a secret that issuer and gateway share.
const (
	RS256 = "RS256" // RSASSA-PKCS1-v1_5 with SHA-256
	PS256 = "PS256" // RSASSA-PSS with SHA-256, whose salt is as long as the hash
	ES256 = "ES256" // ECDSA with P-256 and SHA-256
	ES384 = "ES384" // ECDSA with P-384 and SHA-384
	EdDSA = "EdDSA" // with Ed25519
)

// Algorithms are those that an identity may allow.
func Algorithms() []string { return []string{RS256, PS256, ES256, ES384, EdDSA} }

// RSA moduli in bits: at least 2048 by RFC 7518, section 3.3; at most what
// crypto/tls verifies, because a check's time grows with the square.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// An algorithm says which keys it takes and whether a signature is right. An
// algorithm that is not in the table does not exist: "none" and HMAC are not.
type algorithm struct {
	fits func(crypto.PublicKey) bool
	// verify checks a signature of digest(signed).
	digest func(signed []byte) []byte
	verify func(key crypto.PublicKey, digest, signature []byte) bool
	// sha256 says that digest is SHA-256, which a Token has already.
	sha256 bool
}

var algorithms = map[string]algorithm{
	RS256: {fits: isRSA, digest: sum256, verify: verifyRS256, sha256: true},
	PS256: {fits: isRSA, digest: sum256, verify: verifyPS256, sha256: true},
	ES256: {fits: isOn(elliptic.P256()), digest: sum256, verify: verifyECDSA, sha256: true},
	ES384: {fits: isOn(elliptic.P384()), digest: sum384, verify: verifyECDSA},
	EdDSA: {fits: isEd25519, digest: itself, verify: verifyEdDSA},
}

func sum256(signed []byte) []byte {
	sum := sha256.Sum256(signed)
	return sum[:]
}

func sum384(signed []byte) []byte {
	sum := sha512.Sum384(signed)
	return sum[:]
}

// itself: Ed25519 signs the message, and hashes it twice on its way.
func itself(signed []byte) []byte { return signed }

func isRSA(key crypto.PublicKey) bool {
	_, ok := key.(*rsa.PublicKey)
	return ok
}

func isOn(curve elliptic.Curve) func(crypto.PublicKey) bool {
	return func(key crypto.PublicKey) bool {
		public, ok := key.(*ecdsa.PublicKey)
		return ok && public.Curve == curve
	}
}

func isEd25519(key crypto.PublicKey) bool {
	_, ok := key.(ed25519.PublicKey)
	return ok
}

func verifyRS256(key crypto.PublicKey, digest, signature []byte) bool {
	public, ok := key.(*rsa.PublicKey)
	return ok && rsa.VerifyPKCS1v15(public, crypto.SHA256, digest, signature) == nil
}

func verifyPS256(key crypto.PublicKey, digest, signature []byte) bool {
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return false
	}
	// RFC 7518, section 3.5: the salt is as long as the hash, no other length.
	return rsa.VerifyPSS(public, crypto.SHA256, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
}

// verifyECDSA checks a signature that is two numbers of the curve's size, and
// nothing else (RFC 7518, section 3.4): not ASN.1, not shorter, not longer.
// crypto/ecdsa refuses numbers that are zero or not below the curve's order.
func verifyECDSA(key crypto.PublicKey, digest, signature []byte) bool {
	public, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return false
	}
	size := (public.Curve.Params().BitSize + 7) / 8
	if len(signature) != 2*size {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
	return ecdsa.Verify(public, digest, r, s)
}

func verifyEdDSA(key crypto.PublicKey, signed, signature []byte) bool {
	public, ok := key.(ed25519.PublicKey)
	return ok && len(public) == ed25519.PublicKeySize && ed25519.Verify(public, signed, signature)
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
		if isROCA(key.N) {
			return errors.New("an RSA key whose private half can be computed (CVE-2017-15361)")
		}
		return nil
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return fmt.Errorf("an elliptic key on %s, not P-256 or P-384", key.Curve.Params().Name)
		}
		if _, err := key.ECDH(); err != nil { // the point lies on the curve, and is not its zero
			return errors.New("an elliptic key that is no point of its curve")
		}
		return nil
	case ed25519.PublicKey:
		if len(key) != ed25519.PublicKeySize {
			return fmt.Errorf("an Ed25519 key of %d bytes", len(key))
		}
		return nil
	}
	return fmt.Errorf("a key of type %T", key)
}
