package token

import (
	_ "embed" // guessable.txt
	"encoding/base64"
	"math"
	"strings"
	"sync"
)

// A secret that a person typed is told from a random one by the bits that it
// takes to write it down in a code for what people type.
//
// The code is a probability for each byte after those before it, and a byte of
// probability p takes -log2 p bits. The probabilities are learned from
// guessable.txt, words and rows of keys, and from the secret as far as it has
// been read, so that repetition is cheap. They do not have to be good for this to
// be safe: whatever the code, of the secrets that are random over some alphabet
// at most one in 2^k is written in k bits less than it has. (Probabilities of all
// secrets sum to 1 at most, so at most 2^(n-k) of 2^n have one above 2^(k-n).)
// A code that knows people's habits better only finds more of theirs.

// leastSaved is how many bits less than a random secret has mean that it is none.
// A random one is refused less than once in 2^33, some 8,000 million: each is
// written down twice, as it is and decoded (1 bit), and has up to 6 bits less than
// its length says (the fixed ones of a UUID; encodings leave at most 4 unused).
// That is a bound for any code; by this one random secrets lie ten standard
// deviations away (TestRandomSecretsAreTaken).
const leastSaved = 40

// leastCarried is what 32 digits of the smallest alphabet carry, and no key is
// shorter. What stands between and behind them carries nothing, so a secret of
// little else has nothing to save either: 32 dashes are no bits at all.
const leastCarried = 128

// spellings are what random secrets are written in, the smallest alphabets first.
var spellings = []struct{ symbols, between, end string }{
	{"0123456789abcdef", "-: ", ""}, // a UUID too
	{"0123456789ABCDEF", "-: ", ""},
	{"abcdefghijklmnopqrstuvwxyz234567", "", "="},
	{"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "", "="},
	{"abcdefghijklmnopqrstuvwxyz0123456789", "", ""},
	{"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", "", ""},
	{letters + "0123456789", "", ""},
	{letters + "0123456789+/", "", "="},
	{letters + "0123456789-_", "", "="},
	{letters + "0123456789 !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "", ""},
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// guessable returns the bits that a secret takes, as it is or as the base64 of
// something, and those of a random one of its length and spelling.
func guessable(secret string) (known, random float64) {
	bare, random := spelled(secret)
	known = written(bare)
	coded := strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(secret), "=")
	if decoded, err := base64.RawStdEncoding.Strict().DecodeString(coded); err == nil {
		known = min(known, written(string(decoded)))
	}
	return known, random
}

// spelled returns what carries the secret, and how many bits that can carry.
func spelled(secret string) (bare string, random float64) {
	for _, s := range spellings {
		bare = strings.TrimRight(secret, s.end)
		for _, c := range s.between {
			bare = strings.ReplaceAll(bare, string(c), "")
		}
		if strings.Trim(bare, s.symbols) == "" {
			return bare, float64(len(bare)) * math.Log2(float64(len(s.symbols)))
		}
	}
	return secret, 8 * float64(len(secret))
}

// written is how many bits the code takes for a text.
func written(text string) (bits float64) {
	r := &coder{learned: habits()}
	for i := range len(text) {
		bits -= math.Log2(r.next(text[i]))
	}
	return bits
}

// habits are what guessable.txt teaches, with blanks between its words and
// without. They are some megabytes, which only who has secrets needs.
var habits = sync.OnceValue(func() map[string]tally {
	r := new(coder)
	for line := range strings.Lines(guessableText) {
		for _, text := range []string{line, strings.ReplaceAll(line, " ", "")} {
			r.text = ""
			for i := range len(text) {
				r.next(text[i])
			}
		}
	}
	return r.seen
})

//go:embed guessable.txt
var guessableText string

const (
	deepest   = 4   // how many bytes before one tell what it is
	caution   = 5   // how much more often the unheard-of comes than is counted
	ownWeight = 3   // of what the secret itself teaches
	folded    = 230 // bytes that are no capital letter
)

// coder reads a text byte by byte, and counts each piece of at most deepest + 1
// bytes. Capital letters count as small ones; which letters are capitals is
// told apart from that.
type coder struct {
	text     string
	learned  map[string]tally // never written to
	seen     map[string]tally
	capitals [3][2]float64 // small and capital letters, after a small one, a capital, anything else
	after    int
}

// tally is how often a piece of text stood there, and what came after it.
type tally struct{ times, followed, followers int }

func (r *coder) tally(piece string) tally {
	l, s := r.learned[piece], r.seen[piece]
	return tally{l.times + ownWeight*s.times, l.followed + ownWeight*s.followed, l.followers + s.followers}
}

// next returns the probability of a byte after those before it, and counts it.
//
// A longer piece of what stands before is asked after a shorter one, and corrects
// it as far as it has been seen (Witten and Bell 1991: what is new after a piece
// is as likely as the piece had different followers).
func (r *coder) next(c byte) float64 {
	capital := 0
	if 'A' <= c && c <= 'Z' {
		c, capital = c|0x20, 1
	}
	if r.seen == nil {
		r.seen = map[string]tally{}
	}
	text := r.text + string([]byte{c})
	last := len(text) - 1
	p := 1.0 / folded
	for depth := 0; depth <= min(deepest, last); depth++ {
		before, piece := text[last-depth:last], text[last-depth:]
		b := r.tally(before)
		times := r.tally(piece).times
		if b.followed > 0 {
			novelty := float64(caution * b.followers)
			p = (float64(times) + novelty*p) / (float64(b.followed) + novelty)
		}
		own := r.seen[before]
		own.followed++
		if times == 0 {
			own.followers++
		}
		r.seen[before] = own
		own = r.seen[piece]
		own.times++
		r.seen[piece] = own
	}
	r.text = text[max(0, len(text)-deepest):]
	if c < 'a' || 'z' < c {
		r.after = 2
		return p
	}
	// Krichevsky and Trofimov 1981: each begins with half a count.
	n := &r.capitals[r.after]
	p *= (n[capital] + 0.5) / (n[0] + n[1] + 1)
	n[capital]++
	r.after = capital
	return p
}
