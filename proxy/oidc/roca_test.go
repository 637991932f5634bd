package oidc

import (
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"testing"
)

// TestROCA: a modulus of the form is found, and keys that are made as they
// should be are not taken for one. Wycheproof's vectors have a real one.
func TestROCA(t *testing.T) {
	product := big.NewInt(1)
	for _, p := range rocaPrimes {
		product.Mul(product, big.NewInt(p))
	}
	n := new(big.Int).Exp(big.NewInt(65537), big.NewInt(12345), product)
	if !isROCA(n) || !isROCA(n.Add(n, product)) {
		t.Error("a power of 65537 was not found")
	}
	if isROCA(n.Add(n, big.NewInt(1))) {
		t.Error("its neighbour was taken for one")
	}
	for range 20 {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 2048))
		if err != nil {
			t.Fatal(err)
		}
		if isROCA(n) {
			t.Errorf("%x", n)
		}
	}
	if key := testKeys()[0]; checkKey(&key.PublicKey) != nil {
		t.Error(checkKey(&key.PublicKey))
	}
	if checkKey(&rsa.PublicKey{N: n, E: 65537}) == nil {
		t.Error("a short modulus was taken")
	}
}
