package public

import (
	"net/http"
	"strings"
	"testing"
)

// FuzzCredential: of any header at most one token comes out, and only one that
// stands in it letter by letter after `Bearer` and one blank.
func FuzzCredential(f *testing.F) {
	for _, seed := range []string{"Bearer a.b.c", "bearer  a.b.c", "Basic dTpw", "Bearer\ta", "Bearer a b", "Bearer a,Bearer b", "", "Bearer ", "Bearer \x00"} {
		f.Add(seed, "")
	}
	f.Add("Bearer a.b.c", "Bearer d.e.f")
	f.Fuzz(func(t *testing.T, first, second string) {
		h := http.Header{"Authorization": {first}}
		if second != "" {
			h.Add("Authorization", second)
		}
		compact, err := credential(h)
		if err != nil {
			return
		}
		if second != "" || len(first) < 8 || first[7:] != compact || !strings.EqualFold(first[:7], "Bearer ") ||
			compact == "" || strings.ContainsAny(compact, " \t\r\n,;\"") {
			t.Fatalf("%q, %q gave %q", first, second, compact)
		}
	})
}
