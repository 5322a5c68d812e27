package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRunServesUntilItIsTold runs each service as a container does: options from
// the environment, then the health check against it, then the end.
func TestRunServesUntilItIsTold(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "issuer")
	if err := os.WriteFile(secret, []byte("issuer-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	environment := map[string]string{
		"UPSTREAM_LISTEN":            "127.0.0.1:0",
		"UPSTREAM_ADMIN":             "http://127.0.0.1:1",
		"UPSTREAM_ISSUER_TOKEN_FILE": secret,
		"UPSTREAM_PRODUCTS":          "http://127.0.0.1:1",
	}
	for _, name := range []string{"users", "products", "orders"} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			output, written := io.Pipe()
			ended := make(chan error, 1)
			go func() {
				ended <- run(ctx, []string{"--service=" + name}, func(key string) string { return environment[key] }, written)
				written.Close()
			}()
			lines := bufio.NewScanner(output)
			lines.Scan()
			var listening struct{ Address, Service string }
			if err := json.Unmarshal(lines.Bytes(), &listening); err != nil || listening.Service != name {
				t.Fatalf("first line %q: %v", lines.Text(), err)
			}
			go func() { _, _ = io.Copy(io.Discard, output) }()
			if err := run(context.Background(), []string{"--healthcheck", "--listen=" + listening.Address}, os.Getenv, io.Discard); err != nil {
				t.Error(err)
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if err := run(context.Background(), []string{"--healthcheck", "--listen=" + listening.Address}, os.Getenv, io.Discard); err == nil {
				t.Error("healthy after its end")
			}
		})
	}
}

func TestRunNamesWhatIsWrong(t *testing.T) {
	tests := []struct {
		arguments []string
		want      string
	}{
		{nil, "write users, products or orders"},
		{[]string{"--service=payments"}, "write users, products or orders"},
		{[]string{"users"}, "options begin with --"},
		{[]string{"--service=users", "--admin=http://127.0.0.1:1"}, "issuer token"},
		{[]string{"--service=users", "--issuerTokenFile=/does/not/exist"}, "issuer token"},
		{[]string{"--service=orders"}, "product service's address"},
	}
	for _, tt := range tests {
		err := run(context.Background(), append(tt.arguments, "--listen=127.0.0.1:0"), func(string) string { return "" }, io.Discard)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %q", tt.arguments, err, tt.want)
		}
	}
}
