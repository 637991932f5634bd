package oidc

import "math/big"

// rocaPrimes are those below 168 modulo which the powers of 65537 are not all
// numbers.
var rocaPrimes = []int64{11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157}

// isROCA reports whether a modulus is of the form that a widespread chip's
// library gave its keys, of which the private half can be computed
// (CVE-2017-15361; Nemec et al., "The Return of Coppersmith's Attack", CCS 2017,
// section 3.2): modulo each of the primes it is a power of 65537. Of other keys
// one in 2^27 looks so.
func isROCA(n *big.Int) bool {
	for _, p := range rocaPrimes {
		if !isPowerOf65537(new(big.Int).Mod(n, big.NewInt(p)).Int64(), p) {
			return false
		}
	}
	return true
}

func isPowerOf65537(x, p int64) bool {
	power := int64(1)
	for range p {
		if power == x {
			return true
		}
		power = power * 65537 % p
	}
	return false
}
