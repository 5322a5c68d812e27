package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/test/harness"
)

// TestAccessLog is design: access-log: a line tells who sent a request, as the gate found
// it and not as the client said, and what each limit said; credentials never.
func TestAccessLog(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // where the stack keeps its gateways' folders
	s := open(t, stack.Compiled, stack.Fast, 1)
	token := s.token("ivan")
	served := s.get("/v1/products", bearer(token), header("X-User-ID", "root"))
	refused := s.get("/v1/products", header("Authorization", "Bearer forged.by.me"), header("X-User-ID", "root"))
	if served.Status != 200 || refused.Status != 401 {
		t.Fatalf("%d and %d", served.Status, refused.Status)
	}
	type line struct {
		ID     string `json:"request_X-Request-Id"`
		User   string `json:"request_X-User-Id"`
		Limits string `json:"downstream_Ratelimit"`
		Status int    `json:"DownstreamStatus"`
	}
	want := []line{
		{served.Header.Get("X-Request-Id"), "ivan", served.Header.Get("RateLimit"), 200},
		{refused.Header.Get("X-Request-Id"), "", refused.Header.Get("RateLimit"), 401},
	}
	logs, err := filepath.Glob(filepath.Join(os.TempDir(), "sluice-*", "gateway-1", "*.log"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("logs: %v, %v", logs, err)
	}
	// Lines are written when there are many, or from time to time.
	harness.Eventually(t, 30*time.Second, "both requests are logged", func() error {
		content, err := os.ReadFile(logs[0])
		if err != nil {
			return err
		}
		if bytes.Contains(content, []byte(token)) || bytes.Contains(content, []byte("forged.by.me")) {
			t.Fatal("a credential is in the log")
		}
		var got []line
		for lines := bufio.NewScanner(bytes.NewReader(content)); lines.Scan(); {
			var l line
			if json.Unmarshal(lines.Bytes(), &l) == nil && (l.ID == want[0].ID || l.ID == want[1].ID) {
				got = append(got, l)
			}
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%+v; want %+v", got, want)
		}
		return nil
	})
}
