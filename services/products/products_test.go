package products

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/services/internal/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) (get func(method, path, user string) (int, string)) {
	t.Helper()
	s, err := Open(context.Background(), Config{Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return func(method, path, user string) (int, string) {
		t.Helper()
		request, err := http.NewRequest(method, "http://"+s.Addr()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			request.Header.Set(web.UserHeader, user)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
}

func TestCatalogueIsSortedAndPriced(t *testing.T) {
	if !slices.IsSortedFunc(catalogue, func(a, b product) int { return byID(a, b.ID) }) {
		t.Error("look-up needs the catalogue sorted by id")
	}
	for i, p := range catalogue {
		if p.Price <= 0 || p.Name == "" || (i > 0 && catalogue[i-1].ID == p.ID) {
			t.Errorf("product %+v", p)
		}
	}
}

// TestPagesCoverTheCatalogueOnce walks from next to next for every page size.
func TestPagesCoverTheCatalogueOnce(t *testing.T) {
	get := open(t)
	for _, size := range []string{"", "1", "7", "24", "100"} {
		var walked []product
		query := url.Values{}
		if size != "" {
			query.Set("limit", size)
		}
		for pages := 0; ; pages++ {
			if pages > len(catalogue) {
				t.Fatalf("limit %q: the pages do not end", size)
			}
			status, body := get("GET", "/v1/products?"+query.Encode(), "u")
			var got page
			if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 {
				t.Fatalf("status %d, %v: %s", status, err, body)
			}
			walked = append(walked, got.Items...)
			if got.Next == nil {
				break
			}
			query.Set("cursor", *got.Next)
		}
		if !slices.Equal(walked, catalogue) {
			t.Errorf("limit %q: walked %v", size, walked)
		}
	}
}

func TestAnswers(t *testing.T) {
	get := open(t)
	tests := []struct {
		name, method, path, user string
		status                   int
		want                     string
	}{
		{"one product", "GET", "/v1/products/p-1001", "u", 200, `{"id":"p-1001","name":"Anvil, 25 kg","price_cents":14900}`},
		{"HEAD of one", "HEAD", "/v1/products/p-1001", "u", 200, ""},
		{"HEAD of the list", "HEAD", "/v1/products", "u", 200, ""},
		{"an unknown one", "GET", "/v1/products/p-0", "u", 404, `"status":404`},
		{"nobody", "GET", "/v1/products", "", 401, `"status":401`},
		{"nobody, one product", "GET", "/v1/products/p-1001", "", 401, `"status":401`},
		{"after the last", "GET", "/v1/products?cursor=" + cursor("p-9999"), "u", 200, `{"items":[],"next":null}`},
		{"an id that is gone", "GET", "/v1/products?limit=1&cursor=" + cursor("p-1001-gone"), "u", 200, `"p-1002"`},
		{"everything wrong", "GET", "/v1/products?limit=0&cursor=p-1001", "u", 400, `"errors":[{"field":"limit","detail":"must be a whole number from 1 to 100"},{"field":"cursor","detail":"must be the next of an earlier page"}]`},
		{"too large a page", "GET", "/v1/products?limit=101", "u", 400, `"field":"limit"`},
		{"no whole number of a page", "GET", "/v1/products?limit=1e2", "u", 400, `"field":"limit"`},
		{"hexadecimal", "GET", "/v1/products?limit=0x10", "u", 400, `"field":"limit"`},
		{"more than 64 bits", "GET", "/v1/products?limit=9223372036854775808", "u", 400, `"field":"limit"`},
		{"something behind a NUL", "GET", "/v1/products?limit=1%00", "u", 400, `"field":"limit"`},
		{"an id that a page would run", "GET", "/v1/products/%3Cscript%3E", "u", 404, `"status":404`},
		{"a cursor that leads nowhere", "GET", "/v1/products?cursor=" + cursor("../../etc/passwd"), "u", 200, `"items":[`},
		{"a cursor with a line break", "GET", "/v1/products?cursor=" + cursor("p-1001") + "%0A", "u", 400, `"field":"cursor"`},
		{"a foreign cursor", "GET", "/v1/products?cursor=cC0xMDAx", "u", 400, `"field":"cursor"`},
		{"ordering here", "POST", "/v1/products", "u", 405, `"status":405`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, body := get(tt.method, tt.path, tt.user)
			if status != tt.status || !strings.Contains(body, tt.want) {
				t.Errorf("%d %s, want %d %s", status, body, tt.status, tt.want)
			}
		})
	}
}

// FuzzCursor: a cursor leads back to the id it was made of, and nothing else
// than a cursor is one.
func FuzzCursor(f *testing.F) {
	f.Add("p-1001")
	f.Add("YWZ0ZXI6cC0xMDAx")
	f.Fuzz(func(t *testing.T, text string) {
		if after, err := parseCursor(cursor(text)); err != nil || after != text {
			t.Fatalf("cursor of %q leads to %q, %v", text, after, err)
		}
		if after, err := parseCursor(text); err == nil && text != "" && cursor(after) != text {
			t.Fatalf("%q is a second spelling of %q", text, cursor(after))
		}
		pageAfter(text, defaultPage)
	})
}
