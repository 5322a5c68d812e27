package token

import (
	"crypto/rsa"
	"crypto/sha256"
	_ "embed" // knownsecrets.bin
	"errors"
	"fmt"
	"math/big"
	"sort"
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
	const remedy = "; make one with: openssl rand -base64 48"
	if knownSecret(secret) {
		return "it stands in a public list of secrets that attackers try (github.com/wallarm/jwt-secrets)" + remedy
	}
	known, random := guessable(string(secret))
	if random < leastCarried {
		return fmt.Sprintf("of low entropy: less what separates or pads, its %d bytes can carry %.0f bits, and %d are needed%s", len(secret), random, leastCarried, remedy)
	}
	if random-known >= leastSaved {
		return fmt.Sprintf("of low entropy: who knows words, rows of keys and repetition has to guess %.0f bits of it, where a random secret of its length and spelling has %.0f; passwords are no keys (RFC 8725 section 3.5)%s", known, random, remedy)
	}
	return ""
}

// knownSecrets are SecretHash of each published secret, sorted.
//
//go:embed knownsecrets.bin
var knownSecrets string

// secretHash is long enough that a random secret is not among some thousand by
// chance, and too short to be of use for finding the secret.
const secretHash = 6

// SecretHash is how a secret stands in knownsecrets.bin: the first bytes of its
// SHA-256.
func SecretHash(secret []byte) []byte {
	sum := sha256.Sum256(secret)
	return sum[:secretHash]
}

func knownSecret(secret []byte) bool {
	hash := string(SecretHash(secret))
	_, found := sort.Find(len(knownSecrets)/secretHash, func(i int) int {
		return strings.Compare(hash, knownSecrets[i*secretHash:(i+1)*secretHash])
	})
	return found
}
