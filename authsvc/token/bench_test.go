package token

import (
	"strings"
	"testing"
)

// BenchmarkVerifyCompact is one verification for each kind of key, of a good
// token and of a forged one that is as large as a token may be.
func BenchmarkVerifyCompact(b *testing.B) {
	for _, algorithm := range []string{"HS256", "RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"} {
		s := signer(b, algorithm)
		keys := NewKeySet(s.Key())
		good := sign(b, s, header(s), payload)
		head, _, tail := cut(good)
		forged := head + "." + strings.Repeat("A", (MaxSize-2-len(head)-len(tail))/4*4) + "." + tail
		b.Run(algorithm+"/good", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := VerifyCompact(good, keys); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(algorithm+"/forged at the cap", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := VerifyCompact(forged, keys); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}
