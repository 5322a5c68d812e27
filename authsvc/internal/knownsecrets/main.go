// Command knownsecrets makes token/knownsecrets.bin of a list of published
// secrets, one a line, on standard input:
//
//	go run ./internal/knownsecrets < jwt.secrets.list > token/knownsecrets.bin
//
// The list is that of github.com/wallarm/jwt-secrets (token/knownsecrets.txt
// has its licence). Only secrets that are long enough for HS256 count, and what
// they are in base64, since some issuers decode theirs first.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/sluice-gateway/sluice/authsvc/token"
)

func main() {
	var hashes [][]byte
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		secret := bytes.TrimSpace(lines.Bytes())
		for _, spelling := range append(decoded(secret), secret) {
			if len(spelling) >= 32 {
				hashes = append(hashes, token.SecretHash(spelling))
			}
		}
	}
	slices.SortFunc(hashes, bytes.Compare)
	hashes = slices.CompactFunc(hashes, bytes.Equal)
	_, err := os.Stdout.Write(bytes.Join(hashes, nil))
	if err = errors.Join(err, lines.Err()); err != nil {
		fmt.Fprintln(os.Stderr, "knownsecrets:", err)
		os.Exit(1)
	}
}

// decoded is what a secret means as base64 of either alphabet.
func decoded(secret []byte) (all [][]byte) {
	bare := bytes.TrimRight(secret, "=")
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if raw, err := encoding.DecodeString(string(bare)); err == nil {
			all = append(all, raw)
		}
	}
	return all
}
