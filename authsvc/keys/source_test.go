package keys

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/authsvc/internal/issuertest"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A set that comes in another order every time is no news.
func TestKeysLeftOutAreNamedOnceInAnyOrder(t *testing.T) {
	var log bytes.Buffer
	good := issuertest.New(t, "good", "ES256").JWK()
	unusable := []string{`{"kty":"OKP","crv":"Ed448","kid":"a"}`, `{"kty":"EC","crv":"secp256k1","kid":"b"}`}
	var said leftOutSaid
	for range 3 {
		set, err := token.ParseKeySet([]byte(`{"keys":[` + strings.Join(unusable, ",") + `,` + good + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		said = said.report(slog.New(slog.NewJSONHandler(&log, nil)), set)
		slices.Reverse(unusable)
	}
	if got := strings.Count(log.String(), "key left out"); got != 2 {
		t.Errorf("%d lines, want one for each of 2 keys:\n%s", got, log.String())
	}
}
