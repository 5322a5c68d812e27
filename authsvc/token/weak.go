package token

import (
	"crypto/rsa"
	"crypto/sha256"
	_ "embed" // knownsecrets.bin
	"errors"
	"fmt"
	"math/big"
	"slices"
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
	distinct := slices.Clone(secret)
	slices.Sort(distinct)
	if n := len(slices.Compact(distinct)); n < 12 {
		return fmt.Sprintf("only %d different bytes%s", n, remedy)
	}
	if period(secret) <= len(secret)/2 {
		return "it repeats itself" + remedy
	}
	lower := lowerASCII(secret)
	for _, sample := range sampleSecrets {
		if strings.Contains(lower, sample) {
			return fmt.Sprintf("it contains the sample text %q%s", sample, remedy)
		}
	}
	least := leastSurprising
	if strings.Trim(lower, "0123456789abcdef") == "" {
		least = leastSurprisingHex
	}
	if share := surprising(lower); share < least {
		return fmt.Sprintf("of low entropy: it reads like words, rows of keys or repetition (%.0f%% of its bytes do not follow from those before; of a random secret about 80%% do not); passwords are no keys (RFC 8725 section 3.5)%s", 100*share, remedy)
	}
	return ""
}

// leastSurprising is below what random secrets reach, in base64, base32 or as
// bytes, and above what words do: of 1,500,000 random ones in base64 none is below
// 48%, and one that a test met had 44%. In hex, whose sixteen digits are neighbours
// often, 32 random ones may come down to 40%; no words can be written in it.
const (
	leastSurprising    = 0.42
	leastSurprisingHex = 0.25
)

// surprising is the share of bytes that do not follow from those before them:
// the same or the neighbouring byte, a pair of letters that words are full of,
// a neighbour on the keyboard, or three that have stood there before.
func surprising(lower string) float64 {
	expected := 0
	for i := 1; i < len(lower); i++ {
		step := int(lower[i]) - int(lower[i-1])
		pair := lower[i-1 : i+1]
		if step >= -1 && step <= 1 || strings.Contains(commonPairs+keyboardRows, pair) && !strings.Contains(pair, " ") ||
			i > 2 && strings.Contains(lower[:i], lower[i-2:i+1]) {
			expected++
		}
	}
	return 1 - float64(expected)/float64(len(lower)-1)
}

const (
	commonPairs = "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri ro ic " +
		"ne ea ra ce li ch ll be ma si om ur us ss ec cr et ke ey wo rd pa ss pr ex sa tr lo un su ge ow wh ho wi no ta il so ac tt oo ee ai ie ct "
	keyboardRows = "qwertyuiop asdfghjkl zxcvbnm"
)

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

// lowerASCII keeps every other byte as it is, in its place: random bytes are
// not UTF-8.
func lowerASCII(secret []byte) string {
	lower := slices.Clone(secret)
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c | 0x20
		}
	}
	return string(lower)
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
	"abcdefghijklmnopqrstuvwxyz", "thequickbrownfox", "eyjhbgcioij", "f47ac10b-58cc-4372-a567-0e02b2c3d479",
}
