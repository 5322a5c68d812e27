package accuracy

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-gateway/sluice/traefik/build"
)

// Traefik's own code on virtual time does what the real binary was seen to do
// in real time: 109 admitted with a burst each second, 1,000
// with one each 2.2 s. So the bed changes nothing about it.
func TestTraefikForgetsAKeyAfterTwoSeconds(t *testing.T) {
	cache, err := build.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(cache, "module")); err != nil {
		t.Skip("Traefik has not been built here: go run ./cmd/sluice traefik build")
	}
	binary, err := driver(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	_, server := testStore(t)
	results, err := drive(t.Context(), binary, specialJobs(server.socket, 1))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{109, 109, 1000, 1000} {
		if got := admitted(results[i].decisions()); got != want {
			t.Errorf("pause %v, job %d: %d admitted, want %d", pauses[i/2], i, got, want)
		}
	}
	skewed := results[len(results)-len(skews):]
	if even, apart := admitted(skewed[0].decisions()), admitted(skewed[len(skews)-1].decisions()); apart < 2*even {
		t.Errorf("%d admitted with clocks %v apart, %d without: no tokens minted", apart, skews[len(skews)-1], even)
	}
}

func TestDriverThatFailsIsAnError(t *testing.T) {
	for _, binary := range []string{"/bin/false", "/bin/true", "/nonexistent"} {
		if _, err := drive(context.Background(), binary, []job{{Gates: 1}}); err == nil {
			t.Errorf("%s drove Traefik", binary)
		}
	}
}
