package token

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// checkRSA refuses moduli that can be factored, exponents that sign nothing,
// and moduli so large that verifying one token is an attack.
func checkRSA(key *rsa.PublicKey) error {
	size := key.N.BitLen()
	switch {
	case size < 2048:
		return fmt.Errorf("RSA modulus of %d bits, at least 2048 needed (RFC 7518 section 3.3)", size)
	case size > 8192:
		return fmt.Errorf("RSA modulus of %d bits, at most 8192 accepted", size)
	case key.E < 3 || key.E%2 == 0 || key.N.Bit(0) == 0:
		return errors.New("RSA exponent or modulus is not that of a key")
	case roca(key.N):
		return errors.New("RSA modulus comes from a broken generator (ROCA, CVE-2017-15361)")
	}
	return nil
}

// roca recognises keys of the Infineon library of CVE-2017-15361: its primes
// are k*M + 65537^a mod M for a primorial M, so modulo every small prime the
// modulus is a power of 65537. A sound key passes all 38 by chance about once
// in 2^27.
func roca(modulus *big.Int) bool {
	for p := int64(3); p <= 167; p += 2 {
		prime := big.NewInt(p)
		if !prime.ProbablyPrime(0) {
			continue
		}
		residue := new(big.Int).Mod(modulus, prime).Int64()
		power := int64(1)
		for range p {
			if power == residue {
				break
			}
			power = power * 65537 % p
		}
		if power != residue {
			return false
		}
	}
	return true
}

// Weakness says why a key must not be trusted though its form is sound: its
// private half stands in a public text, or a person typed it. Empty: no reason
// known. ParseKeySet does not ask, so that the published test vectors can be
// run against it; the service asks at start.
func (k Key) Weakness() string {
	if _, known := publishedKeys[k.Thumbprint]; known {
		return "its private half is published (" + publishedKeys[k.Thumbprint] + ")"
	}
	if k.exposed {
		return "the set carries its private half; publish public keys only"
	}
	secret, symmetric := k.material.([]byte)
	if !symmetric {
		return ""
	}
	distinct := slices.Clone(secret)
	slices.Sort(distinct)
	if n := len(slices.Compact(distinct)); n < 12 {
		return fmt.Sprintf("only %d different bytes; make one with: openssl rand -base64 48", n)
	}
	if period(secret) <= len(secret)/2 {
		return "it repeats itself; make one with: openssl rand -base64 48"
	}
	lower := strings.ToLower(string(secret))
	for _, sample := range sampleSecrets {
		if strings.Contains(lower, sample) {
			return fmt.Sprintf("it contains the sample text %q; make one with: openssl rand -base64 48", sample)
		}
	}
	return ""
}

// period is the length of the shortest prefix whose repetition is the secret.
func period(secret []byte) int {
	for n := 1; n < len(secret); n++ {
		if string(secret[n:]) == string(secret[:len(secret)-n]) {
			return n
		}
	}
	return len(secret)
}

// sampleSecrets occur in tutorials and in lists that crackers start with.
var sampleSecrets = []string{
	"your-256-bit-secret", "your-384-bit-secret", "your-512-bit-secret",
	"a-string-secret-at-least-256-bits-long", "a-valid-string-secret-that-is-at-least",
	"secret-key", "secretkey", "secret_key", "supersecret", "super-secret", "super_secret",
	"changeme", "change-me", "change_me", "password", "jwt-secret", "jwt_secret", "jwtsecret",
	"my-secret", "mysecret", "my_secret", "your-secret", "your_secret", "0123456789abcdef0123456789abcdef",
	"abcdefghijklmnopqrstuvwxyz",
}
